//! A row, unpacked.

use std::collections::HashSet;

use conmon::api::{
    Count, DelaySummary, Endpoint, EndpointKind, HostView, MatrixPair, ObservedAt, Pair, Views,
};
use jiff::Timestamp;

use super::{At, Matrix, Part, Row, Words, view};
use crate::system::sheet::{Delay, Line};

/// Room for a row.
pub fn empty() -> MatrixPair {
    let end = || Endpoint {
        kind: EndpointKind::External,
        name: String::new(),
        id: None,
        service: None,
        tenant: None,
        host: None,
        addresses: Vec::new(),
    };
    let pair = Pair {
        src: end(),
        dst: end(),
        protocols: Vec::new(),
        first_seen: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        sent: Count::default(),
        received: Count::default(),
        retransmitted_segments: None,
        sent_retransmitted_segments: None,
        received_retransmitted_segments: None,
        reordered_segments: None,
        rtt_seconds: None,
        near_rtt_seconds: None,
        handshake_rtt_seconds: None,
        near_handshake_rtt_seconds: None,
        flows: 0,
        active_flows: 0,
        role_guessed: false,
        observed_at: ObservedAt::Src,
        via: Vec::new(),
        sent_bytes_per_second: None,
        received_bytes_per_second: None,
        sent_packets_per_second: None,
        received_packets_per_second: None,
    };
    MatrixPair { pair, views: Views::default() }
}

impl Matrix {
    /// Unpacks a row's lines, each with the number of its answer: first the one that the row's values are of, then the others.
    pub(super) fn each_line(&self, row: &Row, mut each: impl FnMut(u32, Line)) {
        let mut unpack = |at: At| {
            let part = &self.parts[at.part as usize];
            if let Some(line) = part.sheet.line(&part.sheet.lines()[at.number as usize]) {
                each(at.part, line);
            }
        };
        row.views.into_iter().flatten().for_each(&mut unpack);
        // of nearly all rows there are no more
        if !self.more.is_empty() {
            self.more.get(&row.ends).into_iter().flatten().copied().for_each(unpack);
        }
    }

    /// Makes `into` the row. What `into` has taken of memory it keeps: millions of rows are written one after another.
    pub(super) fn unpack(&self, row: &Row, into: &mut MatrixPair) {
        let MatrixPair { pair, views } = into;
        let mut seen = [false; 2];
        self.each_line(row, |number, line| {
            let part = &self.parts[number as usize];
            let is_first = !seen.contains(&true);
            if is_first {
                self.put_line(part, &line, row.ends, pair);
            } else {
                widen(pair, part, &line);
            }
            let at = view(line.observed_at);
            let own = if at == 0 { &mut views.src } else { &mut views.dst };
            if !std::mem::replace(&mut seen[at], true) {
                put_view(own, &part.host, line.counts);
                return;
            }
            if let Some(own) = own {
                own.sent += line.counts[0];
                own.received += line.counts[1];
            }
            if line.observed_at == pair.observed_at {
                pair.sent += line.counts[0];
                pair.received += line.counts[1];
                pair.flows = pair.flows.saturating_add(line.flows[0]);
                pair.active_flows = pair.active_flows.saturating_add(line.flows[1]);
            }
        });
        for (view, seen) in [&mut views.src, &mut views.dst].into_iter().zip(seen) {
            if !seen {
                *view = None;
            }
        }
    }

    fn put_line(&self, part: &Part, line: &Line, ends: [u32; 2], pair: &mut Pair) {
        for (i, end) in [&mut pair.src, &mut pair.dst].into_iter().enumerate() {
            put_words(end, self.words(ends[i]));
            end.addresses.clear();
            end.addresses.extend(part.sheet.addresses(line.addresses[i]));
        }
        put_all(&mut pair.protocols, part.sheet.texts(line.protocols));
        put_all(&mut pair.via, part.sheet.texts(line.via));
        put_numbers(line, pair);
        let delays = [
            &mut pair.rtt_seconds,
            &mut pair.near_rtt_seconds,
            &mut pair.handshake_rtt_seconds,
            &mut pair.near_handshake_rtt_seconds,
        ];
        for (into, delay) in delays.into_iter().zip(line.delays.unwrap_or_default()) {
            put_delay(into, part, delay);
        }
    }
}

/// Makes `into` the end of these words; its addresses stay.
pub(super) fn put_words(into: &mut Endpoint, (kind, name, id, service, tenant, host): Words<'_>) {
    into.kind = kind;
    put(&mut into.name, name);
    put_some(&mut into.id, id);
    put_some(&mut into.service, service);
    put_some(&mut into.tenant, tenant);
    put_some(&mut into.host, host);
}

/// Everything of a line that is a number or a time, but for its delays.
pub(super) fn put_numbers(line: &Line, pair: &mut Pair) {
    [pair.first_seen, pair.last_seen] = line.seen_ns.map(time);
    [pair.sent, pair.received] = line.counts;
    [
        pair.retransmitted_segments,
        pair.sent_retransmitted_segments,
        pair.received_retransmitted_segments,
        pair.reordered_segments,
    ] = line.segments;
    [pair.flows, pair.active_flows] = line.flows;
    pair.role_guessed = line.guessed;
    pair.observed_at = line.observed_at;
    [
        pair.sent_bytes_per_second,
        pair.received_bytes_per_second,
        pair.sent_packets_per_second,
        pair.received_packets_per_second,
    ] = line.rates;
}

fn time(unix_ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default()
}

fn put_delay(into: &mut Option<DelaySummary>, part: &Part, delay: Option<Delay>) {
    let Some(delay) = delay else {
        *into = None;
        return;
    };
    let mut method = into.take().map(|old| old.method).unwrap_or_default();
    put(&mut method, part.sheet.text(delay.method));
    *into = Some(DelaySummary {
        min: delay.min,
        p50: delay.p50,
        p90: delay.p90,
        p99: delay.p99,
        max: delay.max,
        count: delay.count,
        method,
        relative_error_ratio: delay.relative_error_ratio,
        buckets: None,
    });
}

fn put_view(into: &mut Option<HostView>, name: &str, [sent, received]: [Count; 2]) {
    let mut host = into.take().map(|old| old.host).unwrap_or_default();
    put(&mut host, name);
    *into = Some(HostView { host, sent, received });
}

/// Adds times, addresses and words of another line of the same pair.
fn widen(pair: &mut Pair, part: &Part, line: &Line) {
    let [first, last] = line.seen_ns.map(time);
    (pair.first_seen, pair.last_seen) = (pair.first_seen.min(first), pair.last_seen.max(last));
    for (end, list) in [&mut pair.src, &mut pair.dst].into_iter().zip(line.addresses) {
        let held = end.addresses.len();
        end.addresses.extend(part.sheet.addresses(list));
        if end.addresses[..held] == end.addresses[held..] {
            end.addresses.truncate(held);
        } else {
            end.addresses.sort_unstable();
            end.addresses.dedup();
        }
    }
    for (held, list) in [(&mut pair.protocols, line.protocols), (&mut pair.via, line.via)] {
        if !held.iter().map(String::as_str).eq(part.sheet.texts(list)) {
            let mut known: HashSet<String> = held.iter().cloned().collect();
            held.extend(part.sheet.texts(list).map(str::to_owned).filter(|text| known.insert(text.clone())));
        }
    }
}

fn put(into: &mut String, text: &str) {
    into.clear();
    into.push_str(text);
}

fn put_some(into: &mut Option<String>, text: Option<&str>) {
    match (into, text) {
        (Some(into), Some(text)) => put(into, text),
        (into, text) => *into = text.map(str::to_owned),
    }
}

fn put_all<'a>(into: &mut Vec<String>, texts: impl Iterator<Item = &'a str>) {
    let mut count = 0;
    for text in texts {
        match into.get_mut(count) {
            Some(into) => put(into, text),
            None => into.push(text.to_owned()),
        }
        count += 1;
    }
    into.truncate(count);
}
