//! A host's pairs in few octets, as hosts tell them each other: each text, each end and each list of addresses once, and numbers for them
//! everywhere else. Of a system of thousands of hosts a million pairs come together in one of them.
//!
//! What a sheet says is what [`Pair`]s say, to the last digit; who does not know the form is told pairs in JSON. [`octets_of`] makes one,
//! [`Sheet`] holds one that came.

mod held;

use std::hash::Hash;
use std::net::IpAddr;

use anyhow::Context;
use conmon::api::{Count, DelaySummary, Endpoint, EndpointKind, ObservedAt, Pair, PairsAnswer};
use foldhash::quality::RandomState;
use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

pub use held::{Entry, Sheet};

/// The media type of a sheet; another layout is another version.
pub const MEDIA_TYPE: &str = "application/vnd.conmon.pairs-v1";

/// An end, its texts by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct End {
    /// What it is.
    pub kind: EndpointKind,
    /// Its name.
    pub name: u32,
    /// The container's id.
    pub id: Option<u32>,
    /// The service.
    pub service: Option<u32>,
    /// The tenant.
    pub tenant: Option<u32>,
    /// The host.
    pub host: Option<u32>,
}

/// A delay's statistics, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delay {
    /// The smallest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90 % are no longer.
    pub p90: f64,
    /// 99 % are no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// How many.
    pub count: u64,
    /// How it was measured, a text.
    pub method: u32,
    /// Of the quantiles.
    pub relative_error_ratio: Option<f64>,
}

/// A pair, everything that is long by its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Ends: who opened, who was called.
    pub ends: [u32; 2],
    /// Their addresses, as lists.
    pub addresses: [u32; 2],
    /// Protocols, as a list of texts.
    pub protocols: u32,
    /// What was seen in the other end's place, as a list of texts.
    pub via: u32,
    /// The first and the last packet, nanoseconds since 1970 UTC.
    pub seen_ns: [i64; 2],
    /// From src to dst, and back.
    pub counts: [Count; 2],
    /// Segments sent again (all, from src, from dst), and late ones.
    pub segments: [Option<u64>; 4],
    /// Round trip, near, and their handshakes'.
    pub delays: Option<[Option<Delay>; 4]>,
    /// Flow records begun, and open.
    pub flows: [u64; 2],
    /// Who opened was inferred.
    pub guessed: bool,
    /// At whose port.
    pub observed_at: ObservedAt,
    /// Bytes each way, packets each way, per second.
    pub rates: [Option<f64>; 4],
}

/// Things that are told once, each by its number.
#[derive(Debug)]
struct Numbered<T>(IndexSet<T, RandomState>);

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(IndexSet::default())
    }
}

impl<T: Eq + Hash> Numbered<T> {
    /// The thing's number, a new one if it is new.
    fn number(&mut self, thing: T) -> u32 {
        self.0.insert_full(thing).0 as u32
    }

    fn all(&self) -> Vec<&T> {
        self.0.iter().collect()
    }
}

/// What lines say by numbers.
#[derive(Debug, Default)]
struct Words {
    texts: Numbered<String>,
    ends: Numbered<End>,
    addresses: Numbered<Vec<IpAddr>>,
    lists: Numbered<Vec<u32>>,
}

impl Words {
    fn end(&mut self, end: &Endpoint) -> u32 {
        let mut text = |text: &Option<String>| text.as_ref().map(|text| self.texts.number(text.clone()));
        let (id, service, tenant, host) =
            (text(&end.id), text(&end.service), text(&end.tenant), text(&end.host));
        let name = self.texts.number(end.name.clone());
        self.ends.number(End { kind: end.kind, name, id, service, tenant, host })
    }

    fn list(&mut self, texts: &[String]) -> u32 {
        let list = texts.iter().map(|text| self.texts.number(text.clone())).collect();
        self.lists.number(list)
    }

    fn line(&mut self, pair: &Pair) -> Line {
        let mut delay = |delay: &Option<DelaySummary>| {
            delay.as_ref().map(|d| Delay {
                min: d.min,
                p50: d.p50,
                p90: d.p90,
                p99: d.p99,
                max: d.max,
                count: d.count,
                method: self.texts.number(d.method.clone()),
                relative_error_ratio: d.relative_error_ratio,
            })
        };
        let delays = [
            delay(&pair.rtt_seconds),
            delay(&pair.near_rtt_seconds),
            delay(&pair.handshake_rtt_seconds),
            delay(&pair.near_handshake_rtt_seconds),
        ];
        // a time that nanoseconds since 1970 do not hold in 63 bits is in no record of ours
        let ns = |at: jiff::Timestamp| i64::try_from(at.as_nanosecond()).unwrap_or_default();
        Line {
            ends: [self.end(&pair.src), self.end(&pair.dst)],
            addresses: [
                self.addresses.number(pair.src.addresses.clone()),
                self.addresses.number(pair.dst.addresses.clone()),
            ],
            protocols: self.list(&pair.protocols),
            via: self.list(&pair.via),
            seen_ns: [ns(pair.first_seen), ns(pair.last_seen)],
            counts: [pair.sent, pair.received],
            segments: [
                pair.retransmitted_segments,
                pair.sent_retransmitted_segments,
                pair.received_retransmitted_segments,
                pair.reordered_segments,
            ],
            delays: delays.iter().any(Option::is_some).then_some(delays),
            flows: [pair.flows, pair.active_flows],
            guessed: pair.role_guessed,
            observed_at: pair.observed_at,
            rates: [
                pair.sent_bytes_per_second,
                pair.received_bytes_per_second,
                pair.sent_packets_per_second,
                pair.received_packets_per_second,
            ],
        }
    }
}

/// The layout: [`Sheet`] reads it part by part.
#[derive(Serialize)]
struct Layout<'a> {
    complete: bool,
    texts: Vec<&'a String>,
    ends: Vec<&'a End>,
    addresses: Vec<&'a Vec<IpAddr>>,
    lists: Vec<&'a Vec<u32>>,
    lines: Vec<Line>,
}

/// What a host answers, in octets.
pub fn octets_of(answer: &PairsAnswer) -> anyhow::Result<Vec<u8>> {
    let mut words = Words::default();
    let lines = answer.pairs.iter().map(|pair| words.line(pair)).collect();
    let layout = Layout {
        complete: answer.hosts.iter().all(|host| host.complete),
        texts: words.texts.all(),
        ends: words.ends.all(),
        addresses: words.addresses.all(),
        lists: words.lists.all(),
        lines,
    };
    postcard::to_stdvec(&layout).context("the pairs cannot be written")
}

#[cfg(test)]
pub(super) mod tests;
