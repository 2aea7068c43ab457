//! The heaviest of many, with few counters: Space-Saving (Metwally, Agrawal and El Abbadi, ICDT 2005).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// The heaviest keys of a stream, by a sum of weights (bytes, packets).
///
/// With k counters and a stream of total weight N, every key heavier than N/k is among them, and what is said of a key is
/// too much by at most its [`Heavy::error`], which is at most N/k, and never too little.
#[derive(Clone, Debug)]
pub struct SpaceSaving<K> {
    places: HashMap<K, usize>,
    counters: Vec<(K, u64, u64)>,
    /// Counters by weight, the lightest first.
    order: BTreeSet<(u64, usize)>,
    capacity: usize,
    total: u64,
}

/// One of the heaviest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heavy<K> {
    /// Whose.
    pub key: K,
    /// At most so heavy.
    pub weight: u64,
    /// And at most so much less.
    pub error: u64,
}

impl<K: Hash + Eq + Copy> SpaceSaving<K> {
    /// With so many counters, at least one.
    pub fn new(counters: usize) -> Self {
        Self {
            places: HashMap::new(),
            counters: Vec::new(),
            order: BTreeSet::new(),
            capacity: counters.max(1),
            total: 0,
        }
    }

    /// Adds weight to a key; where it has no counter and none is free it takes over the lightest.
    pub fn add(&mut self, key: K, weight: u64) {
        self.total = self.total.saturating_add(weight);
        if let Some(&at) = self.places.get(&key) {
            let (_, count, _) = &mut self.counters[at];
            self.order.remove(&(*count, at));
            *count = count.saturating_add(weight);
            self.order.insert((*count, at));
            return;
        }
        if self.counters.len() < self.capacity {
            let at = self.counters.len();
            self.counters.push((key, weight, 0));
            self.order.insert((weight, at));
            self.places.insert(key, at);
            return;
        }
        let Some((least, at)) = self.order.pop_first() else { return };
        let counter = &mut self.counters[at];
        self.places.remove(&counter.0);
        *counter = (key, least.saturating_add(weight), least);
        self.order.insert((counter.1, at));
        self.places.insert(key, at);
    }

    /// The heaviest, heaviest first.
    pub fn heaviest(&self) -> impl Iterator<Item = Heavy<K>> + '_ {
        let at = |(_, at): &(u64, usize)| {
            let (key, weight, error) = self.counters[*at];
            Heavy { key, weight, error }
        };
        self.order.iter().rev().map(at)
    }

    /// All weight that was added.
    pub const fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::random::Dice;

    /// A Zipf stream of 200,000 packets over 20,000 keys: the ten heaviest are the ten heaviest, in their order.
    #[test]
    fn the_heaviest_of_a_long_tail_are_found() {
        let mut dice = Dice::new(4);
        let mut truth = vec![0u64; 20_000];
        let mut sketch = SpaceSaving::new(512);
        for _ in 0..200_000 {
            // Inverse of the distribution function of 1/x: rank n^u.
            let key = (20_000f64.powf(dice.unit()) as usize - 1).min(19_999);
            let weight = 40 + dice.below(1_460) as u64;
            truth[key] += weight;
            sketch.add(key, weight);
        }
        let mut order: Vec<usize> = (0..truth.len()).collect();
        order.sort_by_key(|key| std::cmp::Reverse(truth[*key]));
        let found: Vec<usize> = sketch.heaviest().take(10).map(|heavy| heavy.key).collect();
        assert_eq!(found, order[..10]);
    }

    proptest! {
        #[test]
        fn bounds_hold_for_any_stream(
            stream in prop::collection::vec((0u8..40, 0u64..100), 0..400),
            counters in 1usize..20,
        ) {
            let mut sketch = SpaceSaving::new(counters);
            let mut truth = HashMap::<u8, u64>::new();
            for (key, weight) in &stream {
                sketch.add(*key, *weight);
                *truth.entry(*key).or_default() += weight;
            }
            let total: u64 = truth.values().sum();
            prop_assert_eq!(sketch.total(), total);
            let all: Vec<Heavy<u8>> = sketch.heaviest().collect();
            prop_assert!(all.len() <= counters);
            prop_assert!(all.windows(2).all(|two| two[0].weight >= two[1].weight));
            for heavy in &all {
                let weight = truth[&heavy.key];
                prop_assert!(heavy.weight - heavy.error <= weight && weight <= heavy.weight);
                prop_assert!(heavy.error <= total / counters as u64);
            }
            for (key, weight) in &truth {
                prop_assert!(*weight <= total / counters as u64 || all.iter().any(|heavy| heavy.key == *key));
            }
        }
    }
}
