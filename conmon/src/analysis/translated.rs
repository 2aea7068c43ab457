//! Flows found again behind an address translator: not by their addresses and ports, but by what they carry.
//!
//! Each flow has a *sketch*: the few smallest of its packets' names, names in which addresses and ports have no part. Both
//! points keep the smallest, so two sketches of one flow hold mostly the same names, and those of different flows none.
//! TCP data are named by the octets at places of a grid in the sequence space, with acknowledgement number and time
//! stamps, which segmentation and receive offload leave as they are; all else by its signature.

use std::collections::HashMap;

use ippm::packet::Tcp;
use ippm::select::Grid;
use ippm::select::digest::digest;

/// Names of a sketch.
const NAMES: usize = 8;
/// Two flows are one if they share so many names that no third flow has.
const SHARED: u32 = 2;
/// log2 of the distance of the grid's places, octets.
const GRID_BITS: u8 = 12;
const DATA_SEED: u64 = 0x6772_6964;

/// A flow's sketch: the smallest names, ascending, each with its direction in the lowest bit.
#[derive(Debug, Clone, Default)]
pub(super) struct Sketch {
    names: Vec<u64>,
}

impl Sketch {
    /// Takes a packet's name; `straight` is the packet's direction by the flow's key.
    pub fn add(&mut self, straight: bool, name: u64) {
        let full = self.names.len() >= NAMES;
        if full && self.names.last().is_some_and(|last| name >> 1 >= last >> 1) {
            return;
        }
        if let Err(at) = self.names.binary_search_by_key(&(name >> 1), |name| name >> 1) {
            if full {
                self.names.pop();
            }
            self.names.insert(at, name & !1 | u64::from(straight));
        }
    }

    /// Takes a segment with data.
    pub fn data(&mut self, straight: bool, tcp: &Tcp) {
        for place in Grid::new(0, GRID_BITS).covered(tcp.seq, tcp.payload) {
            let stamps = tcp.timestamps.map_or(0, |t| u64::from(t.value) << 32 | u64::from(t.echo));
            let name = digest(DATA_SEED, &[u64::from(place) << 32 | u64::from(tcp.ack), stamps]);
            self.add(straight, name);
        }
    }
}

/// Two flows that are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Same {
    /// Place among the first's flows.
    pub first: usize,
    /// And the second's.
    pub second: usize,
    /// The second's key has the ends the other way round.
    pub turned: bool,
}

/// Finds flows of the first point among those of the second. A name that several flows of one point have says nothing.
pub(super) fn find(first: &[&Sketch], second: &[&Sketch]) -> Vec<Same> {
    /// Who has a name: the flow's place and the direction, or several.
    type Holder = Option<(usize, bool)>;
    let mut holders: HashMap<u64, [Option<Holder>; 2]> = HashMap::new();
    for (side, sketches) in [first, second].into_iter().enumerate() {
        for (at, name) in
            sketches.iter().enumerate().flat_map(|(at, s)| s.names.iter().map(move |n| (at, *n)))
        {
            let holder = &mut holders.entry(name >> 1).or_default()[side];
            *holder = Some(if holder.is_none() { Some((at, name & 1 == 1)) } else { None });
        }
    }
    let mut votes: HashMap<(usize, usize), [u32; 2]> = HashMap::new();
    for holder in holders.into_values() {
        if let [Some(Some((first, straight))), Some(Some((second, as_straight)))] = holder {
            votes.entry((first, second)).or_default()[usize::from(straight != as_straight)] += 1;
        }
    }
    let mut votes: Vec<((usize, usize), [u32; 2])> = votes.into_iter().collect();
    votes.sort_unstable_by_key(|(flows, [as_is, turned])| (std::cmp::Reverse(as_is + turned), *flows));
    let (mut taken_first, mut taken_second) = (vec![false; first.len()], vec![false; second.len()]);
    let mut same = Vec::new();
    for ((first, second), [as_is, turned]) in votes {
        if as_is + turned < SHARED || taken_first[first] || taken_second[second] {
            continue;
        }
        (taken_first[first], taken_second[second]) = (true, true);
        same.push(Same { first, second, turned: turned > as_is });
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(names: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        names.iter().for_each(|name| sketch.add(name & 1 == 1, digest(1, &[name >> 1])));
        sketch
    }

    #[test]
    fn the_smallest_names_are_kept_once() {
        let all: Vec<u64> = (0..100).collect();
        let once = sketch(&all);
        assert_eq!(once.names.len(), NAMES);
        let twice: Vec<u64> = all.iter().rev().chain(&all).copied().collect();
        let keys = |s: &Sketch| s.names.iter().map(|name| name >> 1).collect::<Vec<_>>();
        assert_eq!(keys(&sketch(&twice)), keys(&once));
    }

    #[test]
    fn flows_are_found_by_names_that_nobody_else_has() {
        let of = |from: u64| (from..from + 6).map(|n| n * 2).collect::<Vec<u64>>();
        let turned = |from: u64| of(from).iter().map(|n| n | 1).collect::<Vec<u64>>();
        let first = [sketch(&of(0)), sketch(&of(100)), sketch(&of(200)), sketch(&of(200)), sketch(&[600])];
        let second =
            [sketch(&of(300)), sketch(&turned(100)), sketch(&of(0)), sketch(&of(200)), sketch(&[600])];
        let (first, second): (Vec<_>, Vec<_>) = (first.iter().collect(), second.iter().collect());
        // What two flows of one point both carry is nobody's, and one name alone is too little.
        assert_eq!(
            find(&first, &second),
            [Same { first: 0, second: 2, turned: false }, Same { first: 1, second: 1, turned: true }]
        );
    }
}
