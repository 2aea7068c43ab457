//! Captures analysed: who talks to whom, how fast and with what trouble; and of two captures of the same traffic, taken at
//! two points, what became of the packets between them. All mathematics is `ippm`'s; this is the pass over the packets and
//! the shape of the answer.
//!
//! One pass over each capture, with state that does not grow with its length beyond stated bounds.

mod answer;
mod between;
mod collect;
mod event;
mod meter;
mod pair;
mod translated;

pub use answer::{
    AnalysisAnswer, AnalyzedPair, Between, Capture, ClockRelation, DISORDER_NS, FlowEnds, Ledger, LossRatio,
    OneWayDelay, Translation, Variation, Ways,
};
pub use between::Clocks;
pub use collect::MAX_RECORDS;
pub use event::{Event, EventKind};

use std::collections::HashSet;
use std::io::Read;

use ippm::time::seconds;

use crate::capture::{CaptureError, Link, Reader};
use between::{Side, compare};
use collect::Collector;
use meter::Meter;
use pair::timestamp;

/// A capture that has been read, as far as it could be.
pub struct Analyzed {
    name: String,
    meter: Meter,
    resolution_ns: u64,
    damage: Option<CaptureError>,
}

/// How a capture is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// By itself.
    Alone,
    /// To be compared with another; so many records of it are kept at most.
    Comparison(usize),
}

/// How many packets are read between two calls of `every`.
const PACE: u64 = 1 << 16;

/// Reads a capture. `every` is called now and then with the number of packets so far. Damage ends it and is kept.
pub fn analyze(name: &str, from: impl Read, purpose: For, every: impl FnMut(u64)) -> Analyzed {
    analyze_telling(name, from, purpose, every, |_| {})
}

/// As [`analyze`], and tells each event as it is found, in the order of the capture.
pub fn analyze_telling(
    name: &str,
    from: impl Read,
    purpose: For,
    mut every: impl FnMut(u64),
    mut tell: impl FnMut(&Event),
) -> Analyzed {
    let collector = match purpose {
        For::Alone => None,
        For::Comparison(most) => Some(Collector::new(most)),
    };
    let mut meter = Meter::new(collector);
    let (resolution_ns, damage) = match Reader::new(from) {
        Err(error) => (1, Some(error)),
        Ok(mut reader) => {
            let damage = loop {
                match reader.next_packet() {
                    Ok(Some(packet)) => meter.packet(&packet, &mut tell),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
                if meter.packets.is_multiple_of(PACE) {
                    every(meter.packets);
                }
            };
            (reader.resolution_ns(), damage)
        }
    };
    meter.finish();
    Analyzed { name: name.to_owned(), meter, resolution_ns, damage }
}

/// The answer about one capture.
pub fn alone(one: &Analyzed) -> AnalysisAnswer {
    let mut answer = AnalysisAnswer {
        captures: vec![one.capture()],
        pairs: one.meter.pairs.iter().map(pair::PairState::answer).collect(),
        between: Between::default(),
        clock: None,
        notes: one.notes(),
    };
    sort(&mut answer.pairs);
    answer
}

/// The answer about two captures. Pairs and their counts are the first's; pairs that only the second saw follow.
pub fn together(first: Analyzed, second: Analyzed, clocks: Clocks) -> AnalysisAnswer {
    let mut first = first;
    let mut second = second;
    let mut answer = alone(&first);
    let seen: HashSet<_> =
        first.meter.pairs.iter().flat_map(|pair| [(pair.src, pair.dst), (pair.dst, pair.src)]).collect();
    let only_second = second.meter.pairs.iter().map(|pair| !seen.contains(&(pair.src, pair.dst)));
    let mut only_second: Vec<bool> = only_second.collect();
    answer.captures.push(second.capture());
    answer.notes.extend(second.notes());
    if let (Some(one), Some(other)) = (first.side(), second.side()) {
        let compared = compare([one, other], &first.meter.pairs, clocks);
        answer.pairs = first
            .meter
            .pairs
            .iter()
            .zip(compared.pairs)
            .zip(compared.translations)
            .map(|((pair, between), translated)| {
                let between = between.unwrap_or_default();
                let clock = compared.clock.filter(|_| between.one_way_delay_seconds.is_some());
                AnalyzedPair { between, clock, translated, ..pair.answer() }
            })
            .collect();
        answer.between = compared.all;
        answer.clock = compared.clock;
        answer.notes.extend(compared.notes);
        // What is told beside the first's pair is not told again.
        for pair in compared.told_as_translated {
            only_second.get_mut(pair as usize).into_iter().for_each(|only| *only = false);
        }
        if answer.between.lost_packets.is_none() {
            answer.notes.push("the captures have no packet in common".to_owned());
        }
    }
    let only_second = second.meter.pairs.iter().zip(only_second).filter(|(_, only)| *only);
    answer.pairs.extend(only_second.map(|(pair, _)| pair.answer()));
    sort(&mut answer.pairs);
    answer
}

fn sort(pairs: &mut [AnalyzedPair]) {
    pairs
        .sort_by_key(|pair| std::cmp::Reverse(pair.pair.sent.bytes.saturating_add(pair.pair.received.bytes)));
}

impl Analyzed {
    /// Why it could not be read to its end.
    pub const fn damage(&self) -> Option<&CaptureError> {
        self.damage.as_ref()
    }

    /// What is wrong with it, each in one sentence: damage, packets that nothing can be made of, packets out of order. What
    /// could be read is in the answer all the same.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.damage.iter().map(CaptureError::to_string).collect();
        let Ledger { pairs, overflow, arp, nd, unknown_link, untimed, .. } = self.meter.ledger;
        if self.meter.packets > 0 && pairs + overflow + arp + nd == 0 {
            faults.push(match self.meter.unknown_link {
                _ if untimed == self.meter.packets => "its packets have no times".to_owned(),
                Some(Link::Other(number)) => {
                    format!("its packets cannot be read: their link layer, LINKTYPE {number}, is not known")
                }
                _ if unknown_link > 0 => "its packets do not begin like their link layer".to_owned(),
                _ => "none of its packets is IP or ARP: does it name the right link layer?".to_owned(),
            });
        }
        if self.meter.disordered > 0 {
            let (count, at_most) = (self.meter.disordered, seconds(self.meter.disorder_ns));
            faults.push(format!(
                "its packets are not in the order of their times: {count} stand up to {at_most:.3} s behind later ones \
                 (reordercap, of Wireshark, sorts them)"
            ));
        }
        faults
    }

    fn side(&mut self) -> Option<Side> {
        Some(Side {
            collector: self.meter.collector.take()?,
            listening: self.meter.listening()?,
            resolution_ns: self.resolution_ns,
        })
    }

    fn capture(&self) -> Capture {
        let listening = self.meter.listening();
        Capture {
            file: self.name.clone(),
            packets: self.meter.packets,
            bytes: self.meter.bytes,
            first: listening.map(|l| timestamp(l.first_ns)),
            last: listening.map(|l| timestamp(l.last_ns)),
            resolution_seconds: seconds(self.resolution_ns),
            damaged: self.damage.is_some(),
            damage: self.damage.as_ref().map(CaptureError::to_string),
            disordered_packets: self.meter.disordered,
            ledger: self.meter.ledger,
        }
    }

    fn notes(&self) -> Vec<String> {
        let ledger = &self.meter.ledger;
        let mut notes = Vec::new();
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                notes.push(format!("{}: {count} {what}", self.name));
            }
        };
        note(ledger.overflow, "packets are of more pairs than are kept apart");
        note(ledger.unknown_link, "packets are of a link layer that is not known");
        note(ledger.untimed, "packets have no time");
        note(self.meter.evicted(), "flows ended early, for there were too many at one time");
        notes
    }
}

#[cfg(test)]
mod tests;
