//! Puts the hosts' pairs together: one row for each pair of the system, with both ends' counters.
//!
//! Hosts are asked for pairs of containers whatever the level: a host does not know which of its groups' packets another
//! one has counted, too.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use conmon::api::{Endpoint, EndpointKind, HostView, Level, MatrixPair, ObservedAt, Pair, Views};

use crate::store::at_level;

/// What makes two endpoints the same on whatever host they are seen from.
type Key = (EndpointKind, String, Option<String>, Option<String>);

fn key(end: &Endpoint) -> Key {
    (end.kind, end.name.clone(), end.id.clone(), end.host.clone())
}

fn view(host: &str, pair: &Pair) -> HostView {
    HostView { host: host.to_owned(), sent: pair.sent, received: pair.received }
}

/// The system's pairs out of each host's, the one with most bytes first.
///
/// A conversation between two hosts is in both hosts' pairs, observed at src's port by the one and at dst's by the other: it
/// becomes one row, whose values are src's. What only one host saw, or what lies within a host, is that host's row.
pub fn merge(parts: impl IntoIterator<Item = (String, Vec<Pair>)>) -> Vec<MatrixPair> {
    let mut rows: HashMap<(Key, Key), MatrixPair> = HashMap::new();
    for (host, pairs) in parts {
        for pair in pairs {
            let seen = view(&host, &pair);
            match rows.entry((key(&pair.src), key(&pair.dst))) {
                Entry::Vacant(free) => {
                    let mut views = Views::default();
                    *end_of(&mut views, pair.observed_at) = Some(seen);
                    free.insert(MatrixPair { pair, views });
                }
                Entry::Occupied(mut row) => {
                    let row = row.get_mut();
                    let place = end_of(&mut row.views, pair.observed_at);
                    match place {
                        // two hosts that both say to be the same end's: a host that is known by two names, or an outside peer
                        // that both know by one name; neither's packets are the other's
                        Some(held) => {
                            held.sent += seen.sent;
                            held.received += seen.received;
                        }
                        None => *place = Some(seen),
                    }
                    row.pair = join(std::mem::replace(&mut row.pair, pair.clone()), pair);
                }
            }
        }
    }
    sorted(rows)
}

/// Rows of containers put together at a level. Delays cannot be put together without their distributions: they are there
/// where a row is of one pair alone.
pub fn group(rows: Vec<MatrixPair>, level: Level) -> Vec<MatrixPair> {
    if level == Level::Container {
        return rows;
    }
    let mut grouped: HashMap<(Key, Key), MatrixPair> = HashMap::new();
    for mut row in rows {
        row.pair.src = at_level(&row.pair.src, level);
        row.pair.dst = at_level(&row.pair.dst, level);
        match grouped.entry((key(&row.pair.src), key(&row.pair.dst))) {
            Entry::Vacant(free) => {
                free.insert(row);
            }
            Entry::Occupied(mut held) => add(held.get_mut(), row),
        }
    }
    sorted(grouped)
}

fn add(into: &mut MatrixPair, row: MatrixPair) {
    for (into, from) in [(&mut into.views.src, row.views.src), (&mut into.views.dst, row.views.dst)] {
        match (into, from) {
            (Some(into), Some(from)) => {
                into.sent += from.sent;
                into.received += from.received;
                if !into.host.split(',').any(|host| host == from.host) {
                    into.host = format!("{},{}", into.host, from.host);
                }
            }
            (into @ None, from) => *into = from,
            (Some(_), None) => {}
        }
    }
    let (a, b) = (&mut into.pair, row.pair);
    let sum = |a: &mut Option<u64>, b: Option<u64>| {
        *a = a.zip(b).map(|(a, b)| a.saturating_add(b)).or(*a).or(b);
    };
    sum(&mut a.retransmitted_segments, b.retransmitted_segments);
    sum(&mut a.sent_retransmitted_segments, b.sent_retransmitted_segments);
    sum(&mut a.received_retransmitted_segments, b.received_retransmitted_segments);
    sum(&mut a.reordered_segments, b.reordered_segments);
    let rate = |a: &mut Option<f64>, b: Option<f64>| *a = a.zip(b).map(|(a, b)| a + b).or(*a).or(b);
    rate(&mut a.sent_bytes_per_second, b.sent_bytes_per_second);
    rate(&mut a.received_bytes_per_second, b.received_bytes_per_second);
    rate(&mut a.sent_packets_per_second, b.sent_packets_per_second);
    rate(&mut a.received_packets_per_second, b.received_packets_per_second);
    for delay in [
        &mut a.rtt_seconds,
        &mut a.near_rtt_seconds,
        &mut a.handshake_rtt_seconds,
        &mut a.near_handshake_rtt_seconds,
    ] {
        *delay = None;
    }
    a.role_guessed |= b.role_guessed;
    a.sent += b.sent;
    a.received += b.received;
    a.flows = a.flows.saturating_add(b.flows);
    a.active_flows = a.active_flows.saturating_add(b.active_flows);
    widen(a, b);
}

fn sorted(rows: HashMap<(Key, Key), MatrixPair>) -> Vec<MatrixPair> {
    let mut rows: Vec<MatrixPair> = rows.into_values().collect();
    rows.sort_by(|a, b| {
        let bytes = |row: &MatrixPair| row.pair.sent.bytes.saturating_add(row.pair.received.bytes);
        bytes(b).cmp(&bytes(a)).then_with(|| (&a.pair.src, &a.pair.dst).cmp(&(&b.pair.src, &b.pair.dst)))
    });
    rows
}

fn end_of(views: &mut Views, at: ObservedAt) -> &mut Option<HostView> {
    match at {
        ObservedAt::Src => &mut views.src,
        ObservedAt::Dst => &mut views.dst,
    }
}

/// One pair of two views: src's, with what only dst's knows.
fn join(a: Pair, b: Pair) -> Pair {
    let (mut kept, other) = match (a.observed_at, b.observed_at) {
        (ObservedAt::Dst, ObservedAt::Src) => (b, a),
        _ => (a, b),
    };
    if kept.observed_at == other.observed_at {
        kept.sent += other.sent;
        kept.received += other.received;
        kept.flows = kept.flows.saturating_add(other.flows);
        kept.active_flows = kept.active_flows.saturating_add(other.active_flows);
    }
    widen(&mut kept, other);
    kept
}

/// Times, addresses and words of both.
fn widen(kept: &mut Pair, other: Pair) {
    kept.first_seen = kept.first_seen.min(other.first_seen);
    kept.last_seen = kept.last_seen.max(other.last_seen);
    for (into, from) in
        [(&mut kept.src.addresses, &other.src.addresses), (&mut kept.dst.addresses, &other.dst.addresses)]
    {
        for address in from.iter().filter(|a| !into.contains(a)).copied().collect::<Vec<_>>() {
            into.push(address);
        }
        into.sort();
    }
    for protocol in other.protocols {
        if !kept.protocols.contains(&protocol) {
            kept.protocols.push(protocol);
        }
    }
    for via in other.via {
        if !kept.via.contains(&via) {
            kept.via.push(via);
        }
    }
}

#[cfg(test)]
mod tests;
