//! One direction of a path: what becomes of a packet that is sent into it.

use super::law::{Delay, Duplication, Loss, Reordering};
use super::random::Dice;

/// The laws of one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Path {
    /// One-way delay.
    pub delay: Delay,
    /// Loss.
    pub loss: Loss,
    /// Reordering beside what `delay` does by itself where `fifo` is not set.
    pub reordering: Option<Reordering>,
    /// Duplication.
    pub duplication: Option<Duplication>,
    /// A packet that is not held back never overtakes one that was sent before it: a queue, as most links are.
    pub fifo: bool,
}

impl Path {
    /// Neither loss nor reordering nor duplication: a queue with this law of delay.
    pub const fn clean(delay: Delay) -> Self {
        Self { delay, loss: Loss::Independent(0.0), reordering: None, duplication: None, fifo: true }
    }

    /// The same with independent loss.
    #[must_use]
    pub const fn losing(mut self, probability: f64) -> Self {
        self.loss = Loss::Independent(probability);
        self
    }

    /// The same with packets held back.
    #[must_use]
    pub const fn reordering(mut self, probability: f64, held_ns: u64) -> Self {
        self.reordering = Some(Reordering { probability, held_ns });
        self
    }

    /// The same with copies.
    #[must_use]
    pub const fn duplicating(mut self, probability: f64, later_ns: u64) -> Self {
        self.duplication = Some(Duplication { probability, later_ns });
        self
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// When it arrived, true time; `None` for lost.
    pub arrival_ns: Option<u64>,
    /// When its copy arrived.
    pub copy_ns: Option<u64>,
    /// Whether it was held back.
    pub held: bool,
}

/// Carries packets over one direction of a path, in the order of their sending.
#[derive(Clone, Debug)]
pub struct Carrier {
    path: Path,
    dice: Dice,
    /// The newest arrival of a packet that was not held.
    newest: u64,
    bad: bool,
}

impl Carrier {
    /// The same fates for the same seed and times of sending.
    pub const fn new(path: Path, seed: u64) -> Self {
        Self { path, dice: Dice::new(seed), newest: 0, bad: false }
    }

    /// Sends a packet at true time `ns`.
    pub fn carry(&mut self, ns: u64) -> Fate {
        if self.is_lost() {
            return Fate { arrival_ns: None, copy_ns: None, held: false };
        }
        let mut arrival = ns + self.path.delay.draw(&mut self.dice);
        let held = self.path.reordering.filter(|law| self.dice.chance(law.probability));
        match held {
            Some(law) => arrival += law.held_ns,
            None if self.path.fifo => {
                arrival = arrival.max(self.newest + 1);
                self.newest = arrival;
            }
            None => {}
        }
        let copied = self.path.duplication.filter(|law| self.dice.chance(law.probability));
        Fate {
            arrival_ns: Some(arrival),
            copy_ns: copied.map(|law| arrival + law.later_ns),
            held: held.is_some(),
        }
    }

    fn is_lost(&mut self) -> bool {
        match self.path.loss {
            Loss::Independent(probability) => self.dice.chance(probability),
            Loss::Bursts { begin, end } => {
                self.bad = if self.bad { !self.dice.chance(end) } else { self.dice.chance(begin) };
                self.bad
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_does_what_its_laws_say() {
        let path = Path::clean(Delay::Exponential { base: 1_000, mean: 500 })
            .losing(0.02)
            .reordering(0.01, 100_000)
            .duplicating(0.005, 10);
        let n = 200_000u64;
        let mut carrier = Carrier::new(path, 3);
        let fates: Vec<Fate> = (0..n).map(|i| carrier.carry(i * 10_000)).collect();
        let share = |is: fn(&Fate) -> bool| fates.iter().filter(|f| is(f)).count() as f64 / n as f64;
        assert!((share(|f| f.arrival_ns.is_none()) - 0.02).abs() < 0.002);
        assert!((share(|f| f.held) - 0.0098).abs() < 0.001);
        assert!((share(|f| f.copy_ns.is_some()) - 0.0049).abs() < 0.001);
        let kept: Vec<u64> = fates.iter().filter(|f| !f.held).filter_map(|f| f.arrival_ns).collect();
        assert!(kept.is_sorted(), "a queue keeps the order");
        let mut again = Carrier::new(path, 3);
        assert!((0..n).all(|i| again.carry(i * 10_000) == fates[i as usize]), "the seed decides all");
    }

    #[test]
    fn bursts_have_the_mean_length_and_share_that_the_law_gives() {
        let loss = Loss::Bursts { begin: 0.01, end: 0.25 };
        let path = Path { loss, ..Path::clean(Delay::Constant(1)) };
        let mut carrier = Carrier::new(path, 4);
        let lost: Vec<bool> = (0..400_000).map(|i| carrier.carry(i).arrival_ns.is_none()).collect();
        let share = lost.iter().filter(|l| **l).count() as f64 / lost.len() as f64;
        let bursts = lost.windows(2).filter(|w| !w[0] && w[1]).count() as f64;
        assert!((share - 0.01 / 0.26).abs() < 0.003, "{share}");
        assert!((share * lost.len() as f64 / bursts - 4.0).abs() < 0.2);
    }
}
