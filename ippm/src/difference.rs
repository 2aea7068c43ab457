//! Which packets one point saw and another did not, from tables whose size goes by the differences and not by the
//! packets: invertible Bloom look-up tables (Goodrich and Mitzenmacher 2011; for loss, LossRadar, CoNEXT 2016).
//!
//! Each name is added to one cell in each of three parts. What both points saw cancels when one table is taken from the
//! other; a cell with a single name left tells it, it is taken out of its other cells, and so on. With 1.5 cells for each
//! difference, and some more for small tables, this mostly comes to an end: what stops it are two names that share all their
//! cells, n²/2p³ of n differences in parts of p cells (1.6 % for 100 in a table made for 120). Then what was found is still right,
//! and [`Difference::complete`] says that there is more.

use crate::select::digest::digest;

/// Cells that each name is in.
const PARTS: usize = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    count: i64,
    names: u64,
    checks: u64,
}

/// One point's table of one interval, 24 octets a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTable {
    cells: Vec<Cell>,
    secret: u64,
}

/// What two tables differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Names only in the first.
    pub first_only: Vec<u64>,
    /// Names only in the second.
    pub second_only: Vec<u64>,
    /// Whether these are all.
    pub complete: bool,
}

impl NameTable {
    /// For about so many differences. Both points need the same size and secret.
    pub fn new(differences: usize, secret: u64) -> Self {
        let part = (differences + differences / 2 + 24).div_ceil(PARTS);
        Self { cells: vec![Cell::default(); part * PARTS], secret }
    }

    /// Adds a packet by its name. Names must differ: of two equal ones nothing is left to be told.
    pub fn add(&mut self, name: u64) {
        let check = self.check(name);
        for at in self.places(name) {
            self.cells[at].change(name, check, 1);
        }
    }

    fn check(&self, name: u64) -> u64 {
        digest(self.secret, &[name])
    }

    fn places(&self, name: u64) -> [usize; PARTS] {
        let part = self.cells.len() / PARTS;
        let mut places = [0; PARTS];
        for (i, place) in places.iter_mut().enumerate() {
            let mixed = digest(!self.secret, &[name, i as u64]);
            *place = i * part + ((u128::from(mixed) * part as u128) >> 64) as usize;
        }
        places
    }

    /// What is in one table and not in the other; `None` where they are not of one size and secret.
    pub fn difference(mut self, other: &NameTable) -> Option<Difference> {
        if self.cells.len() != other.cells.len() || self.secret != other.secret {
            return None;
        }
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            cell.count -= other.count;
            cell.names ^= other.names;
            cell.checks ^= other.checks;
        }
        let mut found = Difference::default();
        let mut pure: Vec<usize> = (0..self.cells.len()).collect();
        // Each name found empties its cells; a forged table that never came to an end is cut off.
        let most = self.cells.len();
        while let Some(at) = pure.pop() {
            let Cell { count, names: name, checks } = self.cells[at];
            if count.abs() != 1 || checks != self.check(name) || !self.places(name).contains(&at) {
                continue;
            }
            if found.first_only.len() + found.second_only.len() >= most {
                break;
            }
            if count > 0 { &mut found.first_only } else { &mut found.second_only }.push(name);
            for place in self.places(name) {
                self.cells[place].change(name, checks, -count);
                pure.push(place);
            }
        }
        found.complete = self.cells.iter().all(|cell| *cell == Cell::default());
        Some(found)
    }
}

impl Cell {
    fn change(&mut self, name: u64, check: u64, by: i64) {
        self.count += by;
        self.names ^= name;
        self.checks ^= check;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::law::Delay;
    use crate::model::path::{Carrier, Path};

    /// Loss of a modelled path by the tables alone: exactly the packets that were lost.
    #[test]
    fn lost_packets_are_named() {
        let mut complete = 0;
        for seed in 0..400 {
            let mut carrier = Carrier::new(Path::clean(Delay::Constant(1)).losing(0.01), seed);
            let (mut sender, mut receiver) = (NameTable::new(120, seed), NameTable::new(120, seed));
            let mut lost = Vec::new();
            for i in 0..10_000u64 {
                let name = digest(seed, &[i]);
                sender.add(name);
                match carrier.carry(i).arrival_ns {
                    Some(_) => receiver.add(name),
                    None => lost.push(name),
                }
            }
            let mut found = sender.difference(&receiver).expect("tables of one kind");
            assert!(found.second_only.is_empty());
            assert!(found.first_only.iter().all(|name| lost.contains(name)), "what is found is right");
            if found.complete {
                complete += 1;
                lost.sort_unstable();
                found.first_only.sort_unstable();
                assert_eq!(found.first_only, lost);
            }
        }
        assert!(complete >= 388, "{complete} of 400 tables told all");
    }

    #[test]
    fn too_many_differences_are_said_to_be_too_many() {
        let (mut a, b) = (NameTable::new(10, 1), NameTable::new(10, 1));
        (0..1_000u64).for_each(|i| a.add(digest(7, &[i])));
        assert!(!a.clone().difference(&b).expect("one kind").complete);
        assert_eq!(a.clone().difference(&NameTable::new(10, 2)), None);
        assert_eq!(a.difference(&NameTable::new(99, 1)), None);
    }

    proptest! {
        /// Both signs, any sets: never a wrong name, and all of them when it says so.
        #[test]
        fn sets_differ_in_what_is_found(
            common in prop::collection::hash_set(any::<u64>(), 0..200),
            mine in prop::collection::hash_set(any::<u64>(), 0..30),
            theirs in prop::collection::hash_set(any::<u64>(), 0..30),
        ) {
            let (mut a, mut b) = (NameTable::new(60, 3), NameTable::new(60, 3));
            let first: std::collections::BTreeSet<u64> = common.union(&mine).copied().collect();
            let second: std::collections::BTreeSet<u64> = common.union(&theirs).copied().collect();
            first.iter().for_each(|name| a.add(*name));
            second.iter().for_each(|name| b.add(*name));
            let mut found = a.difference(&b).expect("one kind");
            found.first_only.sort_unstable();
            found.second_only.sort_unstable();
            prop_assert!(found.first_only.iter().all(|name| first.contains(name) && !second.contains(name)));
            prop_assert!(found.second_only.iter().all(|name| second.contains(name) && !first.contains(name)));
            if found.complete {
                prop_assert_eq!(found.first_only, first.difference(&second).copied().collect::<Vec<_>>());
                prop_assert_eq!(found.second_only, second.difference(&first).copied().collect::<Vec<_>>());
            }
        }
    }
}
