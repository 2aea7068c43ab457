//! Statistics for benchmarks on noisy machines: medians of what was measured round by round, with intervals that
//! assume nothing about how the noise is distributed.

/// A median and the interval that holds the true median with at least 95 % confidence, by order statistics. For fewer
/// than six values no interval reaches that, and it is all of their range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// The sample's median.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Median {
    /// Whether the interval leaves out zero: for differences, whether there is one.
    pub fn differs_from_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Median and interval of some values; none of none.
pub fn median(mut values: Vec<f64>) -> Option<Median> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let median =
        if n % 2 == 1 { *values.get(n / 2)? } else { (*values.get(n / 2)? + values.get(n / 2 - 1)?) / 2.0 };
    // the greatest k whose ranks k and n + 1 - k leave at most 2.5 % on either side; for few values the extremes
    let (mut below, mut term, mut k) = (0.0, 0.5f64.powi(n as i32), 0);
    for i in 0..n / 2 {
        below += term;
        if below > 0.025 {
            break;
        }
        k = i;
        term *= (n - i) as f64 / (i + 1) as f64;
    }
    Some(Median { median, low: values[k], high: values[n - 1 - k] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        // ranks for 95 %: n = 10: 2 and 9, n = 15: 4 and 12, n = 30: 10 and 21
        for (n, low, high) in [(1, 1, 1), (3, 1, 3), (5, 1, 5), (10, 2, 9), (15, 4, 12), (30, 10, 21)] {
            let m = median((1..=n).rev().map(f64::from).collect()).unwrap();
            assert_eq!((m.low, m.high), (f64::from(low), f64::from(high)), "{n}");
            assert_eq!(m.median, f64::from(n + 1) / 2.0);
        }
        assert!(median(Vec::new()).is_none());
    }

    #[test]
    fn a_difference_is_one_when_its_interval_leaves_out_zero() {
        let of = |low, high| Median { median: 0.0, low, high }.differs_from_zero();
        assert!(of(0.1, 2.0) && of(-2.0, -0.1));
        assert!(!of(-0.1, 2.0) && !of(0.0, 1.0) && !of(-1.0, 0.0));
    }
}
