//! A proportion, as loss is one, with the interval that the sample leaves for it.

use serde::{Deserialize, Serialize};

/// The standard normal quantile for a two-sided interval of 95 %.
pub const Z95: f64 = 1.959_963_984_540_054;

/// `hits` of `trials`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proportion {
    /// How many of them.
    pub hits: u64,
    /// Of how many.
    pub trials: u64,
}

impl Proportion {
    /// The observed ratio; `None` of nothing.
    pub fn ratio(self) -> Option<f64> {
        (self.trials > 0).then(|| self.hits as f64 / self.trials as f64)
    }

    /// Wilson's score interval for the probability behind it, as ratios; `None` of nothing.
    ///
    /// The interval covers the probability in about 95 % of cases (with [`Z95`]) when the trials are independent. Losses
    /// that come in bursts are not: then it is too narrow by about the square root of the mean burst length.
    pub fn wilson(self, z: f64) -> Option<(f64, f64)> {
        let p = self.ratio()?;
        let n = self.trials as f64;
        let z2 = z * z;
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        // At the ends rounding must not take away what was observed.
        Some(((middle - half).clamp(0.0, p), (middle + half).clamp(p, 1.0)))
    }
}

impl std::ops::AddAssign for Proportion {
    fn add_assign(&mut self, other: Self) {
        self.hits = self.hits.saturating_add(other.hits);
        self.trials = self.trials.saturating_add(other.trials);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_intervals() {
        // Newcombe (1998), table I: 81 of 263, 0 of 20, 1 of 29 (method 3).
        for (hits, trials, low, high) in
            [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let (l, h) = Proportion { hits, trials }.wilson(Z95).expect("not empty");
            assert!((l - low).abs() < 6e-5 && (h - high).abs() < 6e-5, "{l} {h}");
        }
        assert_eq!(Proportion::default().wilson(Z95), None);
        assert_eq!(Proportion { hits: 3, trials: 3 }.wilson(Z95).map(|(_, high)| high), Some(1.0));
    }

    /// Exactly, from the binomial distribution, and not by trying: where ten losses or more are to be expected the
    /// coverage stays within 93 and 97 % for nearly all probabilities, and near 95 % on the whole.
    #[test]
    fn nineteen_of_twenty_intervals_cover_the_probability() {
        let n = 20_000u64;
        let coverages: Vec<f64> = (0..200).map(|i| coverage(n, 0.0005 + 0.00025 * f64::from(i))).collect();
        let within = coverages.iter().filter(|c| (0.93..=0.97).contains(*c)).count();
        let mean = coverages.iter().sum::<f64>() / coverages.len() as f64;
        assert!(within >= 196, "{within} of 200: {coverages:?}");
        assert!((mean - 0.95).abs() < 0.003, "{mean}");
    }

    fn coverage(n: u64, p: f64) -> f64 {
        let mut log = n as f64 * (1.0 - p).ln();
        let mut covered = 0.0;
        for hits in 0..=n.min(2_500) {
            let (low, high) = Proportion { hits, trials: n }.wilson(Z95).expect("not empty");
            if (low..=high).contains(&p) {
                covered += log.exp();
            }
            log += ((n - hits) as f64 / (hits + 1) as f64 * p / (1.0 - p)).ln();
        }
        covered
    }
}
