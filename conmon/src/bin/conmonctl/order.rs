//! What pairs are ordered by, in `top` and in `pairs`: any column.

use std::cmp::Ordering;

use clap::ValueEnum;
use conmon::api::{DelaySummary, Pair};

use crate::view::{endpoint, tenants};

/// A column to order by. Numbers come largest first, words from A to Z; what was not measured comes last, either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Who opened the conversation
    Src,
    /// Who was called
    Dst,
    /// Protocols
    Proto,
    /// Bytes per second from src to dst
    Out,
    /// Bytes per second from dst to src
    In,
    /// Bytes per second, both ways
    Rate,
    /// Packets per second, both ways
    Packets,
    /// Median round-trip delay
    Rtt50,
    /// 90th percentile of the round-trip delay
    Rtt90,
    /// 99th percentile of the round-trip delay
    Rtt99,
    /// TCP segments sent again
    Retr,
    /// Newest packet
    Seen,
    /// Bytes from src to dst since the pair was first seen
    Sent,
    /// Bytes from dst to src since the pair was first seen
    Recv,
    /// Bytes both ways since the pair was first seen
    Bytes,
    /// Median round-trip delay between port and src
    Near50,
    /// Median round-trip delay of handshakes
    Shake50,
    /// Flow records begun
    Flows,
    /// Flow records open now
    Active,
    /// Tenants
    Tenant,
}

impl Order {
    /// In words, for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Dst => "dst",
            Self::Proto => "protocol",
            Self::Out => "byte rate out",
            Self::In => "byte rate in",
            Self::Rate => "byte rate both ways",
            Self::Packets => "packet rate",
            Self::Rtt50 => "RTT median",
            Self::Rtt90 => "RTT 90th percentile",
            Self::Rtt99 => "RTT 99th percentile",
            Self::Retr => "retransmissions",
            Self::Seen => "last seen",
            Self::Sent => "bytes sent",
            Self::Recv => "bytes received",
            Self::Bytes => "bytes in all",
            Self::Near50 => "near RTT median",
            Self::Shake50 => "handshake median",
            Self::Flows => "flows",
            Self::Active => "active flows",
            Self::Tenant => "tenant",
        }
    }

    /// Whether it orders words, which begin with A.
    pub fn is_words(self) -> bool {
        matches!(self, Self::Src | Self::Dst | Self::Proto | Self::Tenant)
    }

    fn number(self, pair: &Pair) -> Option<f64> {
        let p = |summary: &Option<DelaySummary>, pick: fn(&DelaySummary) -> f64| summary.as_ref().map(pick);
        match self {
            Self::Src | Self::Dst | Self::Proto | Self::Tenant => None,
            Self::Out => pair.sent_bytes_per_second,
            Self::In => pair.received_bytes_per_second,
            Self::Rate => byte_rate(pair),
            Self::Packets => packet_rate(pair),
            Self::Rtt50 => p(&pair.rtt_seconds, |rtt| rtt.p50),
            Self::Rtt90 => p(&pair.rtt_seconds, |rtt| rtt.p90),
            Self::Rtt99 => p(&pair.rtt_seconds, |rtt| rtt.p99),
            Self::Retr => pair.retransmitted_segments.map(|number| number as f64),
            // Whole seconds, so that busy rows do not swap places with each answer.
            Self::Seen => Some(pair.last_seen.as_second() as f64),
            Self::Sent => Some(pair.sent.bytes as f64),
            Self::Recv => Some(pair.received.bytes as f64),
            Self::Bytes => Some(total_bytes(pair) as f64),
            Self::Near50 => p(&pair.near_rtt_seconds, |rtt| rtt.p50),
            Self::Shake50 => p(&pair.handshake_rtt_seconds, |rtt| rtt.p50),
            Self::Flows => Some(pair.flows as f64),
            Self::Active => Some(pair.active_flows as f64),
        }
    }

    fn words(self, pair: &Pair) -> String {
        match self {
            Self::Src => endpoint(&pair.src),
            Self::Dst => endpoint(&pair.dst),
            Self::Proto => pair.protocols.join(","),
            Self::Tenant => tenants(&pair.src, &pair.dst),
            _ => String::new(),
        }
    }

    /// Brings rows (indices of `pairs`) into this order. `names` are the pairs' ranks by name, from [`by_name`]: they
    /// decide where the column does not, so that rows do not jump about.
    pub fn arrange(self, pairs: &[Pair], names: &[u32], reverse: bool, rows: &mut Vec<usize>) {
        let either_way = |order: Ordering| if reverse { order.reverse() } else { order };
        if self.is_words() {
            let mut keyed: Vec<(String, u32, usize)> =
                rows.iter().map(|at| (self.words(&pairs[*at]), names[*at], *at)).collect();
            keyed.sort_by(|a, b| either_way((&a.0, a.1).cmp(&(&b.0, b.1))));
            *rows = keyed.into_iter().map(|(_, _, at)| at).collect();
        } else {
            let mut keyed: Vec<(Option<f64>, u32, usize)> =
                rows.iter().map(|at| (self.number(&pairs[*at]), names[*at], *at)).collect();
            keyed.sort_by(|a, b| {
                let order = match (a.0, b.0) {
                    (Some(a), Some(b)) => either_way(b.total_cmp(&a)),
                    (a, b) => b.is_some().cmp(&a.is_some()),
                };
                order.then(a.1.cmp(&b.1))
            });
            *rows = keyed.into_iter().map(|(_, _, at)| at).collect();
        }
    }
}

/// Each pair's rank in the order of names.
pub fn by_name(pairs: &[Pair]) -> Vec<u32> {
    let mut keyed: Vec<(String, String, usize)> =
        pairs.iter().enumerate().map(|(at, pair)| (endpoint(&pair.src), endpoint(&pair.dst), at)).collect();
    // Of equal names, which containers of different hosts may have, the ids decide.
    keyed.sort_by(|a, b| {
        let ids = |at: usize| (&pairs[at].src.id, &pairs[at].dst.id, pairs[at].src.kind, pairs[at].dst.kind);
        (&a.0, &a.1).cmp(&(&b.0, &b.1)).then_with(|| ids(a.2).cmp(&ids(b.2)))
    });
    let mut ranks = vec![0; pairs.len()];
    for (rank, (_, _, at)) in keyed.into_iter().enumerate() {
        ranks[at] = u32::try_from(rank).unwrap_or(u32::MAX);
    }
    ranks
}

/// Bytes per second, both directions.
pub fn byte_rate(pair: &Pair) -> Option<f64> {
    Some(pair.sent_bytes_per_second? + pair.received_bytes_per_second?)
}

/// Packets per second, both directions.
pub fn packet_rate(pair: &Pair) -> Option<f64> {
    Some(pair.sent_packets_per_second? + pair.received_packets_per_second?)
}

/// Bytes since the pair was first seen, both directions.
pub fn total_bytes(pair: &Pair) -> u64 {
    pair.sent.bytes.saturating_add(pair.received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers;

    fn arranged(order: Order, reverse: bool) -> Vec<String> {
        let pairs = answers::pairs(300.0).pairs;
        let mut rows: Vec<usize> = (0..pairs.len()).collect();
        order.arrange(&pairs, &by_name(&pairs), reverse, &mut rows);
        rows.iter().map(|at| format!("{} {}", pairs[*at].src.name, pairs[*at].dst.name)).collect()
    }

    #[test]
    fn every_column_orders_and_loses_no_row() {
        for order in Order::value_variants() {
            let (down, up) = (arranged(*order, false), arranged(*order, true));
            let sorted = |rows: &[String]| {
                let mut rows = rows.to_vec();
                rows.sort();
                rows
            };
            assert_eq!(down.len(), 9);
            assert_eq!(sorted(&down), sorted(&up), "{order:?}");
            // All have begun as many flows.
            assert!(down != up || *order == Order::Flows, "{order:?} is reversed");
            assert!(!order.label().is_empty());
        }
    }

    #[test]
    fn numbers_fall_words_rise_and_the_unmeasured_comes_last() {
        assert_eq!(arranged(Order::Rate, false)[0], "lab-wrk-1 shop-nginx-1");
        assert_eq!(arranged(Order::Retr, false)[0], "shop-redis-benchmark-1 shop-redis-1");
        assert_eq!(arranged(Order::Rtt50, false)[0], "lab-wrk-1 external");
        assert_eq!(arranged(Order::Rtt50, true)[0], "shop-redis-benchmark-1 shop-redis-1");
        let last = |reverse| arranged(Order::Rtt50, reverse)[8].clone();
        assert_eq!(
            (last(false), last(true)),
            ("shop-nginx-1 multicast".into(), "shop-nginx-1 multicast".into())
        );
        assert_eq!(arranged(Order::Src, false)[0], "lab-wrk-1 external");
        assert_eq!(arranged(Order::Src, true)[0], "shop-redis-benchmark-1 shop-redis-1");
        assert_eq!(arranged(Order::Tenant, false)[0], "lab-wrk-1 external");
    }
}
