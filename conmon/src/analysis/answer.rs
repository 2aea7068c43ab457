//! What an analysis says: the shape of `conmonctl analyze -o json`.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{DelaySummary, Pair};

/// What one or two captures hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnalysisAnswer {
    /// The captures, in the order they were given.
    pub captures: Vec<Capture>,
    /// Who talks to whom, the pair with most bytes first.
    pub pairs: Vec<AnalyzedPair>,
    /// All pairs together, with two captures: *forward* is from the first capture's point to the second's.
    #[serde(flatten)]
    pub between: Between,
    /// How the two captures' clocks relate, where that could be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockRelation>,
    /// What is to be known about it, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl AnalysisAnswer {
    /// Leaves out how delays are distributed, which makes an answer several times as large.
    pub fn drop_distributions(&mut self) {
        self.between.drop_distributions();
        for pair in &mut self.pairs {
            pair.between.drop_distributions();
            let Pair {
                rtt_seconds, near_rtt_seconds, handshake_rtt_seconds, near_handshake_rtt_seconds, ..
            } = &mut pair.pair;
            for summary in [
                rtt_seconds,
                near_rtt_seconds,
                handshake_rtt_seconds,
                near_handshake_rtt_seconds,
                &mut pair.dns_rtt_seconds,
                &mut pair.echo_rtt_seconds,
                &mut pair.spin_rtt_seconds,
            ] {
                summary.iter_mut().for_each(|summary| summary.buckets = None);
            }
        }
    }
}

/// One capture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capture {
    /// Its name as given; `-` for the standard input.
    pub file: String,
    /// Packets read.
    pub packets: u64,
    /// Their octets from the link header on, captured or not.
    pub bytes: u64,
    /// The first packet's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// The last packet's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// The unit that its times are counted in, seconds.
    pub resolution_seconds: f64,
    /// Whether it could not be read to its end.
    pub damaged: bool,
    /// Why not, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// Packets that stand more than [`DISORDER_NS`] behind one with a later time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disordered_packets: u64,
    /// Where each packet was counted.
    pub ledger: Ledger,
}

/// Packets may stand so much behind later ones, as several processors write them; beyond it a capture is out of order.
pub const DISORDER_NS: u64 = 1_000_000_000;

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Where a capture's packets were counted: the parts sum up to its `packets`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// In a pair.
    pub pairs: u64,
    /// IP, beyond the most pairs that are kept apart.
    pub overflow: u64,
    /// ARP.
    pub arp: u64,
    /// Neither IP nor ARP.
    pub other: u64,
    /// Claims to be IP and is not.
    pub malformed: u64,
    /// IPv6 neighbour discovery and multicast listener discovery.
    #[serde(default)]
    pub nd: u64,
    /// Of a link layer that is not known.
    pub unknown_link: u64,
    /// Without a time.
    pub untimed: u64,
}

impl Ledger {
    /// All of it.
    pub const fn sum(&self) -> u64 {
        self.pairs
            + self.overflow
            + self.arp
            + self.other
            + self.malformed
            + self.nd
            + self.unknown_link
            + self.untimed
    }
}

/// A pair as captures show it: one of `conmonctl pairs`, with addresses instead of names, and what only whole packets
/// can tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnalyzedPair {
    /// What `pairs` says too. Its segments are packets: a capture does not say what segmentation offload will make of one.
    #[serde(flatten)]
    pub pair: Pair,
    /// From a DNS question to its answer, over UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_rtt_seconds: Option<DelaySummary>,
    /// From an ICMP echo request to its reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo_rtt_seconds: Option<DelaySummary>,
    /// Between edges of QUIC's spin bit: the whole round trip, application delays included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spin_rtt_seconds: Option<DelaySummary>,
    /// How many of `rtt_seconds` and `near_rtt_seconds` may have waited for a delayed acknowledgement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maybe_delayed_acks: Option<u64>,
    /// With two captures: *forward* is from src to dst.
    #[serde(flatten)]
    pub between: Between,
    /// The relation of the captures' clocks, that of the whole answer, where delays depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockRelation>,
    /// Where addresses or ports were translated between two captures: what the second capture saw in their place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub translated: Vec<Translation>,
}

/// A pair as the point behind an address translator saw it. Its flows were found again by what they carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Translation {
    /// In place of src.
    pub src: IpAddr,
    /// In place of dst.
    pub dst: IpAddr,
    /// Flows of the pair that were seen so.
    pub flows: u64,
    /// One of them, before and behind the translator.
    pub example: [FlowEnds; 2],
}

/// A flow's ends with their ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEnds {
    /// Who opened it.
    pub src: SocketAddr,
    /// Who was called.
    pub dst: SocketAddr,
}

/// One value for each direction that has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ways<T> {
    /// Forward.
    #[serde(skip_serializing_if = "Option::is_none", default = "Option::default")]
    pub forward: Option<T>,
    /// Reverse.
    #[serde(skip_serializing_if = "Option::is_none", default = "Option::default")]
    pub reverse: Option<T>,
}

impl<T> Ways<T> {
    /// `None` where neither direction has a value.
    pub fn of(forward: Option<T>, reverse: Option<T>) -> Option<Self> {
        (forward.is_some() || reverse.is_some()).then_some(Self { forward, reverse })
    }

    /// One direction's.
    pub const fn one(&self, forward: bool) -> Option<&T> {
        if forward { self.forward.as_ref() } else { self.reverse.as_ref() }
    }
}

/// What became of packets between two points.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Between {
    /// One-way delay (RFC 7679).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way_delay_seconds: Option<Ways<OneWayDelay>>,
    /// Packets (TCP data: segments) that left the sender's point and did not reach the other (RFC 7680).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_packets: Option<Ways<u64>>,
    /// The share of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_ratio: Option<Ways<LossRatio>>,
    /// Arrivals beyond the first of each packet (RFC 5560).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicated_packets: Option<Ways<u64>>,
    /// Packets that arrived after one that was sent later (RFC 4737).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reordered_packets: Option<Ways<u64>>,
    /// Variation of the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_variation_seconds: Option<Ways<Variation>>,
}

impl Between {
    fn drop_distributions(&mut self) {
        let ways =
            self.one_way_delay_seconds.iter_mut().flat_map(|ways| [&mut ways.forward, &mut ways.reverse]);
        ways.flatten().for_each(|delay| delay.summary.buckets = None);
    }

    /// The wider of the two directions' bounds of one-way delay, seconds.
    pub fn error_bound(&self) -> Option<f64> {
        let ways = self.one_way_delay_seconds.as_ref()?;
        let bounds = [&ways.forward, &ways.reverse].into_iter().flatten();
        bounds.map(|delay| delay.error_bound).reduce(f64::max)
    }
}

/// Statistics of one-way delays, seconds, with what is known of their truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OneWayDelay {
    /// The sample's. Percentiles are exact values of it.
    #[serde(flatten)]
    pub summary: DelaySummary,
    /// How far each value can be from the truth, for certain, while both clocks run evenly.
    pub error_bound: f64,
    /// The share of the packets sent of which the delay is known.
    pub coverage_ratio: f64,
}

/// A share of packets that were lost, with its 95 % interval (Wilson).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossRatio {
    /// What was observed.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Variation of one-way delay, seconds. No clock offset is in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Variation {
    /// Median of the differences to the smallest delay (PDV, RFC 5481 section 4.2).
    pub pdv_p50: f64,
    /// Their 99th percentile.
    pub pdv_p99: f64,
    /// Mean magnitude of the differences between delays of packets matched one after another, by order of sending (IPDV,
    /// RFC 3393).
    pub ipdv_mean: f64,
    /// Interarrival jitter after the last packet (RFC 3550).
    pub rtp_jitter: f64,
}

/// How the second capture's clock relates to the first's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClockRelation {
    /// How far the second is ahead, in the middle of the captures, seconds.
    pub offset_seconds: f64,
    /// How much faster it runs, parts per million.
    pub skew_ppm: f64,
    /// How far the offset can be from the truth, for certain, at any time of the captures, seconds.
    pub bound_seconds: f64,
    /// Over how many windows clocks ran evenly; more than one means that a clock was set or steered.
    pub windows: u64,
}
