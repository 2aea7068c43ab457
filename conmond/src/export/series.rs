//! Totals of things that come and go, put together into series that only grow.
//!
//! A series is the sum of its rows (a service's pairs). When a row is gone (its container was forgotten) the sum must
//! not shrink, which a reader would take for a restart and count everything once more: what a row had when it was last
//! seen stays in its series. A series goes when none of its rows is live any more.
//!
//! Bounded: at most `limit` series of their own; what comes later is counted in the series that `other` names, and
//! stays there for as long as it lives, since moving it would make that sum shrink.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map};
use std::hash::Hash;

/// What is added up.
pub(super) trait Totals: Clone + Default {
    /// Adds another row's totals.
    fn add(&mut self, other: &Self);
    /// Whether this is a new life of a row that had been at `earlier`: totals do not shrink otherwise.
    fn began_anew(&self, earlier: &Self) -> bool;
    /// What remains of a row that is gone: its totals, not what it had at the moment.
    fn remains(&self) -> Self;
    /// How much of it there is, to tell large series from small ones.
    fn weight(&self) -> u64;
}

/// One row, as it is now.
#[derive(Debug, Clone)]
pub(super) struct Row<K, L, T> {
    /// Whose row it is.
    pub(super) key: K,
    /// The series it belongs to.
    pub(super) labels: L,
    /// Whether it is reason enough to show the series.
    pub(super) live: bool,
    pub(super) totals: T,
}

#[derive(Debug)]
pub(super) struct Series<K, L, T> {
    limit: usize,
    other: fn(&L) -> L,
    rows: HashMap<K, (L, T)>,
    /// Series that have a place of their own, or whose rows are counted under `other`.
    own: HashSet<L>,
    elsewhere: HashSet<L>,
    /// What rows left that are gone, by the series that shows it.
    left: HashMap<L, T>,
}

impl<K, L, T> Series<K, L, T>
where
    K: Eq + Hash + Clone,
    L: Eq + Hash + Ord + Clone,
    T: Totals,
{
    pub(super) fn new(limit: usize, other: fn(&L) -> L) -> Self {
        Self {
            limit,
            other,
            rows: HashMap::new(),
            own: HashSet::new(),
            elsewhere: HashSet::new(),
            left: HashMap::new(),
        }
    }

    /// Takes the rows as they are now, all of them, and returns the series. Rows of the same key are added up.
    pub(super) fn update(&mut self, rows: impl IntoIterator<Item = Row<K, L, T>>) -> BTreeMap<L, T> {
        let mut now: HashMap<K, (L, T)> = HashMap::new();
        let mut live: HashMap<L, u64> = HashMap::new();
        let mut present: HashSet<L> = HashSet::new();
        for row in rows {
            if row.live {
                let weight = live.entry(row.labels.clone()).or_default();
                *weight = weight.saturating_add(row.totals.weight());
            }
            present.insert(row.labels.clone());
            match now.entry(row.key) {
                hash_map::Entry::Vacant(entry) => {
                    entry.insert((row.labels, row.totals));
                }
                hash_map::Entry::Occupied(mut entry) => entry.get_mut().1.add(&row.totals),
            }
        }

        for (key, (labels, totals)) in std::mem::take(&mut self.rows) {
            let goes_on = now.get(&key).is_some_and(|(labels_now, totals_now)| {
                *labels_now == labels && !totals_now.began_anew(&totals)
            });
            if !goes_on {
                let shown = self.shown_as(&labels);
                self.left.entry(shown).or_default().add(&totals.remains());
            }
        }

        self.own.retain(|labels| live.contains_key(labels));
        self.elsewhere.retain(|labels| present.contains(labels));
        let mut newcomers: Vec<(&L, u64)> = live
            .iter()
            .filter(|(labels, _)| !self.own.contains(*labels) && !self.elsewhere.contains(*labels))
            .map(|(labels, &weight)| (labels, weight))
            .collect();
        newcomers.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        for (labels, _) in newcomers {
            if self.own.len() < self.limit {
                self.own.insert(labels.clone());
            } else {
                self.elsewhere.insert(labels.clone());
            }
        }

        let mut shown: HashSet<L> = self.own.clone();
        shown.extend(live.keys().filter(|labels| self.elsewhere.contains(*labels)).map(self.other));
        self.left.retain(|labels, _| shown.contains(labels));
        let mut all: BTreeMap<L, T> = BTreeMap::new();
        for (labels, totals) in now.values() {
            let labels = self.shown_as(labels);
            if shown.contains(&labels) {
                all.entry(labels).or_default().add(totals);
            }
        }
        for (labels, totals) in &self.left {
            all.entry(labels.clone()).or_default().add(totals);
        }
        self.rows = now;
        all
    }

    fn shown_as(&self, labels: &L) -> L {
        if self.elsewhere.contains(labels) { (self.other)(labels) } else { labels.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    struct Sum(u64);

    impl Totals for Sum {
        fn add(&mut self, other: &Self) {
            self.0 += other.0;
        }
        fn began_anew(&self, earlier: &Self) -> bool {
            self.0 < earlier.0
        }
        fn remains(&self) -> Self {
            *self
        }
        fn weight(&self) -> u64 {
            self.0
        }
    }

    const OTHER: u32 = 999;

    fn series(limit: usize) -> Series<u32, u32, Sum> {
        Series::new(limit, |_| OTHER)
    }

    fn row(key: u32, labels: u32, live: bool, total: u64) -> Row<u32, u32, Sum> {
        Row { key, labels, live, totals: Sum(total) }
    }

    fn shown(map: &BTreeMap<u32, Sum>) -> Vec<(u32, u64)> {
        map.iter().map(|(&labels, &sum)| (labels, sum.0)).collect()
    }

    #[test]
    fn what_a_row_had_stays_in_its_series() {
        let mut series = series(10);
        assert_eq!(shown(&series.update([row(1, 7, true, 5), row(2, 7, true, 3)])), [(7, 8)]);
        assert_eq!(shown(&series.update([row(2, 7, true, 4)])), [(7, 9)], "row 1 is forgotten");
        assert_eq!(shown(&series.update([row(2, 7, true, 1)])), [(7, 10)], "row 2 began anew");
        assert_eq!(shown(&series.update([row(2, 7, false, 1), row(3, 7, true, 1)])), [(7, 11)]);
    }

    #[test]
    fn a_series_goes_with_its_last_live_row() {
        let mut series = series(10);
        series.update([row(1, 7, true, 5), row(2, 8, true, 1)]);
        assert_eq!(shown(&series.update([row(1, 7, false, 5), row(2, 8, true, 1)])), [(8, 1)]);
        assert_eq!(shown(&series.update([row(2, 8, true, 1)])), [(8, 1)]);
        assert_eq!(
            shown(&series.update([row(9, 7, true, 2)])),
            [(7, 2)],
            "a new one begins at its own count"
        );
    }

    #[test]
    fn a_renamed_row_moves_with_all_it_has() {
        let mut series = series(10);
        series.update([row(1, 7, true, 5), row(2, 7, true, 1)]);
        assert_eq!(shown(&series.update([row(1, 8, true, 6), row(2, 7, true, 1)])), [(7, 6), (8, 6)]);
    }

    #[test]
    fn beyond_the_limit_the_small_ones_are_counted_together_and_stay_there() {
        let mut series = series(2);
        let rows = [row(1, 1, true, 10), row(2, 2, true, 1), row(3, 3, true, 30), row(4, 4, true, 2)];
        assert_eq!(shown(&series.update(rows)), [(1, 10), (3, 30), (OTHER, 3)]);
        let rows = [row(1, 1, true, 10), row(2, 2, true, 100), row(4, 4, true, 2)];
        assert_eq!(shown(&series.update(rows)), [(1, 10), (OTHER, 102)], "2 stays where it is counted");
        let rows = [row(1, 1, true, 10), row(4, 4, true, 2), row(5, 5, true, 1)];
        assert_eq!(shown(&series.update(rows)), [(1, 10), (5, 1), (OTHER, 102)], "3 has left a place");
        assert_eq!(shown(&series.update([row(1, 1, true, 11)])), [(1, 11)]);
    }

    proptest! {
        /// Whatever comes, goes and begins anew: a series that is shown twice in a row has not shrunk, and there are
        /// never more than the limit and `other`.
        #[test]
        fn shown_series_only_grow(
            steps in proptest::collection::vec(
                proptest::collection::vec((0..12u32, 0..6u32, any::<bool>(), 0..4u64), 0..12), 1..30),
            limit in 1..5usize,
        ) {
            let mut series = series(limit);
            let mut totals: HashMap<u32, u64> = HashMap::new();
            let mut before = BTreeMap::new();
            for step in steps {
                let mut rows: Vec<Row<u32, u32, Sum>> = Vec::new();
                for (key, labels, live, more) in step {
                    if rows.iter().any(|row| row.key == key) {
                        continue;
                    }
                    let total = totals.entry(key).or_default();
                    *total += more;
                    rows.push(row(key, labels, live, *total));
                }
                let now = series.update(rows);
                prop_assert!(now.len() <= limit + 1);
                for (labels, sum) in &now {
                    if let Some(earlier) = before.get(labels) {
                        let earlier: &Sum = earlier;
                        prop_assert!(sum.0 >= earlier.0, "{labels}: {} after {}", sum.0, earlier.0);
                    }
                }
                before = now;
            }
        }
    }
}
