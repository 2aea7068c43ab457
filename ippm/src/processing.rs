//! How long a middle box keeps packets: from one of its ports to the other (firewall, router, address translator, load
//! balancer; anything that hands packets on).
//!
//! Both ports are of one host and one clock, so the difference of two stamps is a time and no clock has to be related. A
//! packet is known by its signature; where the box translates addresses that is made without them
//! ([`crate::select::Tuple::Translated`]). Which way a packet went is told by which port saw it first.
//!
//! What is seen at one port only was *dropped* if it was on its way into the box there, and *created* (made, or changed
//! beyond recognition) if on its way out. Which of the two is learned from matched packets of the same *way*: whatever
//! tells at one port the two directions apart, best the link addresses of source and destination, which dropped flows share
//! with others, else addresses and ports.
//!
//! A box that ends connections itself, as a proxy does, hands nothing on: then next to nothing matches, and
//! [`Processing::is_measurable`] says so. Where offload cuts data differently at the two ports, the first segment of each piece
//! matches and the others count as created or dropped.

use std::collections::HashMap;

use crate::histogram::Histogram;
use crate::oneway::{Listening, Passage};

/// A packet at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Its name: [`crate::select::Digest::name`] of its signature.
    pub name: u64,
    /// When, nanoseconds.
    pub ns: u64,
    /// Its way at this port, by the caller's numbers: each port has its own.
    pub way: u32,
}

/// How long a packet is waited for at least.
pub const LEAST_TIMEOUT_NS: u64 = 100_000_000;
/// And at most.
pub const MOST_TIMEOUT_NS: u64 = 10_000_000_000;
/// And how many times the 99th percentile of processing times.
const PERCENTILES: u64 = 8;
/// Below this share of matched sightings the box does not hand packets on.
const MEASURABLE: f64 = 0.1;

/// What became of the packets of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Through {
    /// Packets that entered and left, by time of entering; `sent_ns` is when they entered. Delay is processing time, exact to
    /// the stamps.
    pub passages: Vec<Passage>,
    /// Entered, and did not leave within the timeout though the other port was listened at.
    pub dropped: u64,
    /// Left, and had not entered within the timeout before.
    pub created: u64,
}

impl Through {
    /// The processing times.
    pub fn times(&self) -> Histogram {
        let mut times = Histogram::new();
        for passage in &self.passages {
            times.record(passage.received_ns.saturating_sub(passage.sent_ns));
        }
        times
    }
}

/// What two ports' captures tell of the box between them. Each sighting is in one place: both ports' are two for each passage and
/// one for each that is dropped, created, ambiguous or undecided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processing {
    /// From the first port to the second, and from the second to the first.
    pub ways: [Through; 2],
    /// Sightings of packets with the same content within the timeout: nobody can say which is which.
    pub ambiguous: u64,
    /// Sightings without a partner, too near to the ends of a capture, or of a way of which nothing matched.
    pub undecided: u64,
    /// How long was waited, nanoseconds.
    pub timeout_ns: u64,
    sightings: u64,
}

impl Processing {
    /// The share of sightings that were matched; `None` of nothing.
    pub fn coverage(&self) -> Option<f64> {
        let matched = self.ways.iter().map(|way| way.passages.len()).sum::<usize>() * 2;
        (self.sightings > 0).then(|| matched as f64 / self.sightings as f64)
    }

    /// Whether the box hands packets on at all. If not, its times can only be had from requests and answers.
    pub fn is_measurable(&self) -> bool {
        self.coverage().is_some_and(|share| share >= MEASURABLE)
    }
}

/// Matches what the two ports saw. Both lists are sorted in place; time and room are those of sorting.
///
/// `listened` is when each port's capture began and ended. Without a `timeout_ns` it is found: eight times the 99th
/// percentile of the processing times, between [`LEAST_TIMEOUT_NS`] and [`MOST_TIMEOUT_NS`].
pub fn match_ports(
    first: &mut [Sighting],
    second: &mut [Sighting],
    listened: [Listening; 2],
    timeout_ns: Option<u64>,
) -> Processing {
    first.sort_unstable();
    second.sort_unstable();
    if let Some(timeout) = timeout_ns {
        return run(first, second, listened, timeout);
    }
    let mut timeout = LEAST_TIMEOUT_NS;
    loop {
        let found = run(first, second, listened, timeout);
        let mut times = found.ways[0].times();
        times.merge(&found.ways[1].times());
        let wanted = times.quantile(0.99).unwrap_or(0).saturating_mul(PERCENTILES);
        // It doubles at least each time, and is bounded.
        if wanted <= timeout || timeout >= MOST_TIMEOUT_NS {
            return found;
        }
        timeout = wanted.max(2 * timeout).min(MOST_TIMEOUT_NS);
    }
}

/// A sighting with its port.
#[derive(Clone, Copy)]
struct Seen {
    port: usize,
    ns: u64,
    way: u32,
}

fn run(first: &[Sighting], second: &[Sighting], listened: [Listening; 2], timeout_ns: u64) -> Processing {
    let sightings = (first.len() + second.len()) as u64;
    let mut found = Processing { timeout_ns, sightings, ..Processing::default() };
    // Of each way at each port, how many matched packets entered by it and how many left.
    let mut known: HashMap<(usize, u32), [u64; 2]> = HashMap::new();
    let mut alone: Vec<Seen> = Vec::new();
    alike(first, second, timeout_ns, |cluster| match *cluster {
        [one] => alone.push(one),
        [one, other] if one.port != other.port => {
            known.entry((one.port, one.way)).or_default()[0] += 1;
            known.entry((other.port, other.way)).or_default()[1] += 1;
            let passage = Passage { sent_ns: one.ns, received_ns: other.ns };
            found.ways[one.port].passages.push(passage);
        }
        _ => found.ambiguous += cluster.len() as u64,
    });
    for way in &mut found.ways {
        way.passages.sort_unstable_by_key(|passage| (passage.sent_ns, passage.received_ns));
    }
    for Seen { port, ns, way } in alone {
        let other = listened[1 - port];
        let [entered, left] = known.get(&(port, way)).copied().unwrap_or_default();
        // The time in which the other port would have seen it.
        let (from, to) = if entered > left {
            (ns, ns.saturating_add(timeout_ns))
        } else {
            (ns.saturating_sub(timeout_ns), ns)
        };
        let decided = entered != left && other.first_ns <= from && to <= other.last_ns;
        *(match (decided, entered > left) {
            (false, _) => &mut found.undecided,
            (true, true) => &mut found.ways[port].dropped,
            (true, false) => &mut found.ways[1 - port].created,
        }) += 1;
    }
    found
}

/// Calls `each` with the sightings of one name that follow each other within the timeout, by time; what both ports saw in the same
/// moment, the first port's first.
fn alike(first: &[Sighting], second: &[Sighting], timeout_ns: u64, mut each: impl FnMut(&[Seen])) {
    let mut rest = [first.iter().peekable(), second.iter().peekable()];
    let (mut name, mut cluster) = (0, Vec::new());
    loop {
        let [a, b] = &mut rest;
        let port = match (a.peek(), b.peek()) {
            (None, None) => break,
            (Some(_), None) => 0,
            (None, Some(_)) => 1,
            (Some(one), Some(other)) => usize::from((other.name, other.ns) < (one.name, one.ns)),
        };
        let Some(sighting) = rest[port].next() else { break };
        let seen = Seen { port, ns: sighting.ns, way: sighting.way };
        let goes_on = cluster
            .last()
            .is_some_and(|last: &Seen| name == sighting.name && seen.ns - last.ns <= timeout_ns);
        if !goes_on && !cluster.is_empty() {
            each(&cluster);
            cluster.clear();
        }
        name = sighting.name;
        cluster.push(seen);
    }
    if !cluster.is_empty() {
        each(&cluster);
    }
}

#[cfg(test)]
mod tests;
