//! Repeatable random numbers after the distributions that the laws need.

use crate::testpackets::Random;

/// A seeded source of numbers.
#[derive(Clone, Debug)]
pub struct Dice {
    bits: Random,
    /// The second value of the last pair of normal ones.
    spare: Option<f64>,
}

impl Dice {
    /// Always gives the same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self { bits: Random::new(seed), spare: None }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.bits.bits()
    }

    /// Uniform in `0.0..1.0`, 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A number below `bound`, 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.bits.below(bound)
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        // 1 - unit lies in (0, 1]: its logarithm is finite.
        -(1.0 - self.unit()).ln()
    }

    /// Normal with mean 0 and variance 1, by the polar method of Marsaglia and Bray.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let factor = (-2.0 * s.ln() / s).sqrt();
                self.spare = Some(v * factor);
                return u * factor;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut dice = Dice::new(1);
        let n = 200_000;
        let (mut e, mut z, mut z2, mut u) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..n {
            e += dice.exponential();
            let normal = dice.normal();
            (z, z2) = (z + normal, z2 + normal * normal);
            u += dice.unit();
        }
        let n = f64::from(n);
        // Four standard errors of each mean.
        assert!((e / n - 1.0).abs() < 4.0 / n.sqrt(), "{}", e / n);
        assert!((z / n).abs() < 4.0 / n.sqrt(), "{}", z / n);
        assert!((z2 / n - 1.0).abs() < 4.0 * 2f64.sqrt() / n.sqrt(), "{}", z2 / n);
        assert!((u / n - 0.5).abs() < 4.0 * (1.0 / 12f64).sqrt() / n.sqrt(), "{}", u / n);
    }
}
