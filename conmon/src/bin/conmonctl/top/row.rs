//! What one row of the table is: its identity over time, its numbers, and how rows are ordered.

use std::cmp::Ordering;

use conmon::api::{Endpoint, EndpointKind, Pair};

use crate::view::endpoint;

/// What makes a row the same row in the next answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    src: (EndpointKind, String, Option<String>),
    dst: (EndpointKind, String, Option<String>),
}

impl RowKey {
    pub fn of(pair: &Pair) -> Self {
        let end = |end: &Endpoint| (end.kind, end.name.clone(), end.id.clone());
        Self { src: end(&pair.src), dst: end(&pair.dst) }
    }
}

/// What rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Bytes per second, both directions.
    Rate,
    /// Packets per second, both directions.
    Packets,
    /// Bytes since the pair was first seen, both directions.
    Bytes,
    /// Median round-trip delay.
    RttP50,
    /// 99th percentile of the round-trip delay.
    RttP99,
    /// Retransmitted segments.
    Retransmissions,
    /// Newest packet.
    Seen,
    /// Names, from A to Z.
    Name,
}

impl Sort {
    const ALL: [Self; 8] = [
        Self::Rate,
        Self::Packets,
        Self::Bytes,
        Self::RttP50,
        Self::RttP99,
        Self::Retransmissions,
        Self::Seen,
        Self::Name,
    ];

    /// The order `steps` further in the list, round and round.
    pub fn step(self, steps: isize) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at as isize + steps).rem_euclid(Self::ALL.len() as isize) as usize]
    }

    /// What it is called on the screen.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rate => "byte rate",
            Self::Packets => "packet rate",
            Self::Bytes => "bytes in all",
            Self::RttP50 => "median RTT",
            Self::RttP99 => "99th percentile RTT",
            Self::Retransmissions => "retransmissions",
            Self::Seen => "last seen",
            Self::Name => "name",
        }
    }

    /// The order of two rows: largest first, names from A to Z. What was not measured comes last, either way round.
    pub fn compare(self, a: &Pair, b: &Pair, reverse: bool) -> Ordering {
        let largest_first = |value: fn(&Pair) -> Option<f64>| match (value(a), value(b)) {
            (Some(a), Some(b)) if reverse => a.total_cmp(&b),
            (Some(a), Some(b)) => b.total_cmp(&a),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        let names = |pair: &Pair| (endpoint(&pair.src), endpoint(&pair.dst));
        let by_name = || names(a).cmp(&names(b)).then_with(|| RowKey::of(a).cmp(&RowKey::of(b)));
        let order = match self {
            Self::Rate => largest_first(byte_rate),
            Self::Packets => largest_first(crate::view::packet_rate),
            Self::Bytes => largest_first(|pair| Some(total_bytes(pair) as f64)),
            Self::RttP50 => largest_first(|pair| pair.rtt_seconds.as_ref().map(|rtt| rtt.p50)),
            Self::RttP99 => largest_first(|pair| pair.rtt_seconds.as_ref().map(|rtt| rtt.p99)),
            Self::Retransmissions => {
                largest_first(|pair| pair.retransmitted_segments.map(|number| number as f64))
            }
            // Whole seconds, so that busy rows do not swap places with each answer.
            Self::Seen => largest_first(|pair| Some(pair.last_seen.as_second() as f64)),
            Self::Name if reverse => return by_name().reverse(),
            Self::Name => Ordering::Equal,
        };
        order.then_with(by_name)
    }
}

/// Bytes per second, both directions.
pub fn byte_rate(pair: &Pair) -> Option<f64> {
    Some(pair.sent_bytes_per_second? + pair.received_bytes_per_second?)
}

/// Bytes since the pair was first seen, both directions.
pub fn total_bytes(pair: &Pair) -> u64 {
    pair.sent.bytes.saturating_add(pair.received.bytes)
}

/// Whether a row has `text` (lower case) in a name, tenant, service, protocol or address.
pub fn contains(pair: &Pair, text: &str) -> bool {
    let has = |word: &str| word.to_lowercase().contains(text);
    let end = |end: &Endpoint| {
        has(&endpoint(end))
            || [&end.tenant, &end.service, &end.host].into_iter().flatten().any(|word| has(word))
            || end.addresses.iter().any(|address| has(&address.to_string()))
    };
    end(&pair.src) || end(&pair.dst) || pair.protocols.iter().any(|protocol| has(protocol))
}
