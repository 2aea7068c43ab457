//! The laws by which paths delay, lose, reorder and duplicate packets, and by which clocks read.

use super::random::Dice;

/// One-way delay of a packet, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delay {
    /// The same for all.
    Constant(u64),
    /// From the first, up to but without the second.
    Uniform(u64, u64),
    /// A base and an exponential part of this mean.
    Exponential {
        /// The smallest delay.
        base: u64,
        /// Mean of what is added.
        mean: u64,
    },
    /// A base and a log-normal part.
    LogNormal {
        /// The smallest delay.
        base: u64,
        /// Median of what is added.
        median: u64,
        /// Standard deviation of its logarithm.
        sigma: f64,
    },
}

impl Delay {
    /// One delay.
    pub fn draw(&self, dice: &mut Dice) -> u64 {
        match *self {
            Delay::Constant(ns) => ns,
            Delay::Uniform(low, high) => low + dice.below((high.saturating_sub(low)) as usize) as u64,
            Delay::Exponential { base, mean } => base + (mean as f64 * dice.exponential()) as u64,
            Delay::LogNormal { base, median, sigma } => {
                base + (median as f64 * (sigma * dice.normal()).exp()) as u64
            }
        }
    }
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each with this probability, independently.
    Independent(f64),
    /// In bursts (Gilbert's model): in the bad state all are lost, in the good state none.
    Bursts {
        /// Probability, at each packet, of going from good to bad.
        begin: f64,
        /// Probability, at each packet, of going from bad to good.
        end: f64,
    },
}

/// Packets that are held back so that later ones overtake them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reordering {
    /// Probability that a packet is held.
    pub probability: f64,
    /// How long, nanoseconds.
    pub held_ns: u64,
}

/// Packets that arrive twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplication {
    /// Probability that a packet that is not lost is copied.
    pub probability: f64,
    /// How much later the copy arrives, nanoseconds.
    pub later_ns: u64,
}

/// How an observation point's clock reads: an affine function of true time, cut to its resolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clock {
    /// What it shows too much at [`super::EPOCH_NS`], nanoseconds.
    pub offset_ns: i64,
    /// How much too fast it runs, parts per million.
    pub skew_ppm: f64,
    /// Its tick, nanoseconds; at least 1.
    pub resolution_ns: u64,
}

impl Clock {
    /// A clock that shows true time.
    pub const TRUE: Clock = Clock { offset_ns: 0, skew_ppm: 0.0, resolution_ns: 1 };

    /// What it shows too much at true time `ns`, nanoseconds, before it is cut to the resolution.
    pub fn error_at(&self, ns: u64) -> f64 {
        let since = ns as f64 - super::EPOCH_NS as f64;
        self.offset_ns as f64 + since * self.skew_ppm * 1e-6
    }

    /// What it shows at true time `ns`.
    pub fn reading(&self, ns: u64) -> u64 {
        let shown = (ns as i64).saturating_add(self.error_at(ns).round() as i64).max(0) as u64;
        shown - shown % self.resolution_ns.max(1)
    }
}
