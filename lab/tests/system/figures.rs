//! Percentiles of what was measured, for people who read a test's output.

use std::fmt;

/// Times of one kind, in seconds.
#[derive(Debug, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    /// Adds one.
    pub fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// Adds those of another.
    pub fn extend(&mut self, other: &Figures) {
        self.0.extend(&other.0);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that so many of a thousand do not exceed, in seconds; not a number if there is none.
    pub fn per_mille(&self, per_mille: usize) -> f64 {
        Self::rank(&self.sorted(), per_mille)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The value of rank ceil(count * per_mille / 1000), counted from 1: no value is made up by interpolation.
    fn rank(sorted: &[f64], per_mille: usize) -> f64 {
        let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Figures {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

/// In milliseconds.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none measured");
        }
        let sorted = self.sorted();
        let at = |per_mille| Self::rank(&sorted, per_mille) * 1e3;
        let [p50, p90, p99, max] = [500, 900, 990, 1000].map(at);
        write!(
            f,
            "p50 {p50:.3} ms, p90 {p90:.3} ms, p99 {p99:.3} ms, max {max:.3} ms ({} values)",
            self.len()
        )
    }
}

#[test]
fn percentiles_are_ranks() {
    let figures: Figures = (1..=200).rev().map(|n| f64::from(n) / 1000.0).collect();
    assert_eq!(
        figures.to_string(),
        "p50 100.000 ms, p90 180.000 ms, p99 198.000 ms, max 200.000 ms (200 values)"
    );
    assert_eq!(Figures::default().to_string(), "none measured");
    let one: Figures = [0.0015].into_iter().collect();
    assert_eq!(one.to_string(), "p50 1.500 ms, p90 1.500 ms, p99 1.500 ms, max 1.500 ms (1 values)");
}
