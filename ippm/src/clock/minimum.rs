//! The quick way to an offset: the least raw delays of a short time. It serves where there is not enough for
//! [`super::Relation`] yet: at the start, and to tell which of two points a packet passed first.

use super::Bounded;

/// Least raw delays of both directions over a window, and how long it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minimum {
    forward: Option<i64>,
    reverse: Option<i64>,
    ends: Option<(u64, u64)>,
}

impl Minimum {
    /// Takes a packet from A to B: raw delay, and when A sent it, nanoseconds.
    pub fn forward(&mut self, raw_ns: i64, at_ns: u64) {
        self.forward = Some(self.forward.map_or(raw_ns, |least| least.min(raw_ns)));
        self.reach(at_ns);
    }

    /// Takes a packet from B to A: raw delay, and when A received it.
    pub fn reverse(&mut self, raw_ns: i64, at_ns: u64) {
        self.reverse = Some(self.reverse.map_or(raw_ns, |least| least.min(raw_ns)));
        self.reach(at_ns);
    }

    fn reach(&mut self, at_ns: u64) {
        let (first, last) = self.ends.unwrap_or((at_ns, at_ns));
        self.ends = Some((first.min(at_ns), last.max(at_ns)));
    }

    /// The offset of B against A anywhere in the window, given that their rates differ by `max_skew` at most: half the
    /// difference of the least raw delays, bounded by half their sum and by what the skew may make of the window.
    pub fn offset(&self, max_skew: f64) -> Option<Bounded> {
        let (forward, reverse, (first, last)) = (self.forward?, self.reverse?, self.ends?);
        let (forward, reverse) = (forward as f64, reverse as f64);
        let drift = (last - first) as f64 * max_skew;
        Some(Bounded {
            ns: (forward - reverse) / 2.0,
            error_ns: ((forward + reverse) / 2.0 + drift).max(0.0),
        })
    }
}
