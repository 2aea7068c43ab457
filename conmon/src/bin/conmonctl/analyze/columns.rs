//! The columns of an analysis as other tools read it, CSV and Parquet alike: one row a pair, base units, what is not known
//! left empty. Names and meanings are an interface: they are added to and never changed.

use conmon::analysis::{AnalyzedPair, Translation, Ways};
use conmon::api::DelaySummary;
use jiff::Timestamp;

/// A column: its name and where its values come from.
pub type Column = (&'static str, Pick);

/// Where a column's values come from, by their type.
#[derive(Clone, Copy)]
pub enum Pick {
    Text(fn(&AnalyzedPair) -> String),
    Time(fn(&AnalyzedPair) -> Timestamp),
    Count(fn(&AnalyzedPair) -> Option<u64>),
    Number(fn(&AnalyzedPair) -> Option<f64>),
}

use Pick::{Count, Number, Text, Time};

/// All of them.
pub const COLUMNS: &[Column] = &[
    ("src", Text(|p| p.pair.src.name.clone())),
    ("dst", Text(|p| p.pair.dst.name.clone())),
    ("protocols", Text(|p| p.pair.protocols.join(" "))),
    ("first_seen", Time(|p| p.pair.first_seen)),
    ("last_seen", Time(|p| p.pair.last_seen)),
    ("sent_bytes", Count(|p| Some(p.pair.sent.bytes))),
    ("sent_packets", Count(|p| Some(p.pair.sent.packets))),
    ("received_bytes", Count(|p| Some(p.pair.received.bytes))),
    ("received_packets", Count(|p| Some(p.pair.received.packets))),
    ("flows", Count(|p| Some(p.pair.flows))),
    ("retransmitted_segments", Count(|p| p.pair.retransmitted_segments)),
    ("reordered_segments", Count(|p| p.pair.reordered_segments)),
    ("rtt_count", Count(|p| p.pair.rtt_seconds.as_ref().map(|d| d.count))),
    ("rtt_min_seconds", Number(|p| delay(&p.pair.rtt_seconds, |d| d.min))),
    ("rtt_p50_seconds", Number(|p| delay(&p.pair.rtt_seconds, |d| d.p50))),
    ("rtt_p99_seconds", Number(|p| delay(&p.pair.rtt_seconds, |d| d.p99))),
    ("rtt_max_seconds", Number(|p| delay(&p.pair.rtt_seconds, |d| d.max))),
    ("near_rtt_p50_seconds", Number(|p| delay(&p.pair.near_rtt_seconds, |d| d.p50))),
    ("handshake_rtt_p50_seconds", Number(|p| delay(&p.pair.handshake_rtt_seconds, |d| d.p50))),
    ("dns_rtt_p50_seconds", Number(|p| delay(&p.dns_rtt_seconds, |d| d.p50))),
    ("echo_rtt_p50_seconds", Number(|p| delay(&p.echo_rtt_seconds, |d| d.p50))),
    ("spin_rtt_p50_seconds", Number(|p| delay(&p.spin_rtt_seconds, |d| d.p50))),
    ("forward_delay_min_seconds", Number(|p| way(p, true, |d| d.min))),
    ("forward_delay_p50_seconds", Number(|p| way(p, true, |d| d.p50))),
    ("forward_delay_p99_seconds", Number(|p| way(p, true, |d| d.p99))),
    ("reverse_delay_min_seconds", Number(|p| way(p, false, |d| d.min))),
    ("reverse_delay_p50_seconds", Number(|p| way(p, false, |d| d.p50))),
    ("reverse_delay_p99_seconds", Number(|p| way(p, false, |d| d.p99))),
    ("delay_error_bound_seconds", Number(|p| p.between.error_bound())),
    ("forward_lost_packets", Count(|p| one(&p.between.lost_packets, true))),
    ("reverse_lost_packets", Count(|p| one(&p.between.lost_packets, false))),
    ("forward_loss_ratio", Number(|p| one(&p.between.loss_ratio, true).map(|ratio| ratio.value))),
    ("reverse_loss_ratio", Number(|p| one(&p.between.loss_ratio, false).map(|ratio| ratio.value))),
    ("translated_src", Text(|p| seen_as(p, |t| t.src.to_string()))),
    ("translated_dst", Text(|p| seen_as(p, |t| t.dst.to_string()))),
];

fn delay(summary: &Option<DelaySummary>, pick: fn(&DelaySummary) -> f64) -> Option<f64> {
    summary.as_ref().map(pick)
}

fn way(pair: &AnalyzedPair, forward: bool, pick: fn(&DelaySummary) -> f64) -> Option<f64> {
    let ways = pair.between.one_way_delay_seconds.as_ref()?;
    ways.one(forward).map(|delay| pick(&delay.summary))
}

fn one<T: Copy>(ways: &Option<Ways<T>>, forward: bool) -> Option<T> {
    ways.as_ref()?.one(forward).copied()
}

fn seen_as(pair: &AnalyzedPair, pick: fn(&Translation) -> String) -> String {
    pair.translated.iter().map(pick).collect::<Vec<_>>().join(" ")
}
