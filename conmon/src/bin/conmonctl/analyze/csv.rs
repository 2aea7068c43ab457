//! An analysis as comma-separated values (RFC 4180, with line feeds alone): one line a pair, base units, what is not known
//! left empty.

use conmon::analysis::{AnalysisAnswer, AnalyzedPair, OneWayDelay, Ways};
use conmon::api::DelaySummary;

/// A column: its name and its value.
type Column = (&'static str, fn(&AnalyzedPair) -> String);

const COLUMNS: &[Column] = &[
    ("src", |p| p.pair.src.name.clone()),
    ("dst", |p| p.pair.dst.name.clone()),
    ("protocols", |p| p.pair.protocols.join(" ")),
    ("first_seen", |p| p.pair.first_seen.to_string()),
    ("last_seen", |p| p.pair.last_seen.to_string()),
    ("sent_bytes", |p| p.pair.sent.bytes.to_string()),
    ("sent_packets", |p| p.pair.sent.packets.to_string()),
    ("received_bytes", |p| p.pair.received.bytes.to_string()),
    ("received_packets", |p| p.pair.received.packets.to_string()),
    ("flows", |p| p.pair.flows.to_string()),
    ("retransmitted_segments", |p| some(p.pair.retransmitted_segments)),
    ("reordered_segments", |p| some(p.pair.reordered_segments)),
    ("rtt_count", |p| some(p.pair.rtt_seconds.as_ref().map(|d| d.count))),
    ("rtt_min_seconds", |p| delay(&p.pair.rtt_seconds, |d| d.min)),
    ("rtt_p50_seconds", |p| delay(&p.pair.rtt_seconds, |d| d.p50)),
    ("rtt_p99_seconds", |p| delay(&p.pair.rtt_seconds, |d| d.p99)),
    ("rtt_max_seconds", |p| delay(&p.pair.rtt_seconds, |d| d.max)),
    ("near_rtt_p50_seconds", |p| delay(&p.pair.near_rtt_seconds, |d| d.p50)),
    ("handshake_rtt_p50_seconds", |p| delay(&p.pair.handshake_rtt_seconds, |d| d.p50)),
    ("dns_rtt_p50_seconds", |p| delay(&p.dns_rtt_seconds, |d| d.p50)),
    ("echo_rtt_p50_seconds", |p| delay(&p.echo_rtt_seconds, |d| d.p50)),
    ("spin_rtt_p50_seconds", |p| delay(&p.spin_rtt_seconds, |d| d.p50)),
    ("forward_delay_min_seconds", |p| way(p, true, |d| d.min)),
    ("forward_delay_p50_seconds", |p| way(p, true, |d| d.p50)),
    ("forward_delay_p99_seconds", |p| way(p, true, |d| d.p99)),
    ("reverse_delay_min_seconds", |p| way(p, false, |d| d.min)),
    ("reverse_delay_p50_seconds", |p| way(p, false, |d| d.p50)),
    ("reverse_delay_p99_seconds", |p| way(p, false, |d| d.p99)),
    ("delay_error_bound_seconds", |p| some(p.between.error_bound())),
    ("forward_lost_packets", |p| some(p.between.lost_packets.as_ref().and_then(|w| w.forward))),
    ("reverse_lost_packets", |p| some(p.between.lost_packets.as_ref().and_then(|w| w.reverse))),
    ("forward_loss_ratio", |p| {
        some(p.between.loss_ratio.as_ref().and_then(|w| Some(w.forward.as_ref()?.value)))
    }),
    ("reverse_loss_ratio", |p| {
        some(p.between.loss_ratio.as_ref().and_then(|w| Some(w.reverse.as_ref()?.value)))
    }),
];

/// All lines, the heading first.
pub fn csv(answer: &AnalysisAnswer) -> String {
    let mut text = COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
    text.push('\n');
    for pair in &answer.pairs {
        let values: Vec<String> = COLUMNS.iter().map(|(_, value)| quoted(value(pair))).collect();
        text.push_str(&values.join(","));
        text.push('\n');
    }
    text
}

fn quoted(value: String) -> String {
    if value.contains([',', '"', '\n', '\r']) { format!("\"{}\"", value.replace('"', "\"\"")) } else { value }
}

fn some<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn delay(summary: &Option<DelaySummary>, pick: fn(&DelaySummary) -> f64) -> String {
    some(summary.as_ref().map(pick))
}

fn way(pair: &AnalyzedPair, forward: bool, pick: fn(&OneWayDelay) -> f64) -> String {
    let pick_one = |ways: &Ways<OneWayDelay>| {
        if forward { ways.forward.as_ref().map(pick) } else { ways.reverse.as_ref().map(pick) }
    };
    some(pair.between.one_way_delay_seconds.as_ref().and_then(pick_one))
}
