//! How long to wait after failures: twice as long each time, up to a bound, and never as long as somebody else.

use super::cache::Now;

const FIRST_NS: u64 = 100_000_000;

/// A wait that grows.
#[derive(Clone, Debug)]
pub struct Backoff {
    max_ns: u64,
    failures: u32,
    until_ns: u64,
    random: u64,
}

impl Backoff {
    /// Waits of at most `max_ns`. `seed` makes them differ from those of others.
    pub const fn new(max_ns: u64, seed: u64) -> Self {
        Self { max_ns, failures: 0, until_ns: 0, random: seed | 1 }
    }

    /// A failure: waits anew, between half of what is due and the whole.
    pub fn failed(&mut self, now: Now) {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let due = FIRST_NS.saturating_mul(1 << self.failures.min(20)).min(self.max_ns);
        self.failures = self.failures.saturating_add(1);
        self.until_ns = now.steady_ns.saturating_add(due / 2 + self.random % (due / 2 + 1));
    }

    /// No wait any more.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.until_ns = 0;
    }

    /// Whether to wait still.
    pub const fn waits(&self, now: Now) -> bool {
        now.steady_ns < self.until_ns
    }

    /// Until when, on the steady clock; 0 for no wait.
    pub const fn until_ns(&self) -> u64 {
        self.until_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_their_bound_and_differ() {
        let now = Now::default();
        let waits = |seed| {
            let mut backoff = Backoff::new(5_000_000_000, seed);
            (0..40)
                .map(|_| {
                    backoff.failed(now);
                    backoff.until_ns()
                })
                .collect::<Vec<_>>()
        };
        let one = waits(7);
        assert!((50_000_000..=100_000_000).contains(&one[0]), "{one:?}");
        assert!(one.iter().skip(6).all(|wait| (2_500_000_000..=5_000_000_000).contains(wait)), "{one:?}");
        assert_ne!(one, waits(0x1234_5678_9abc_def1));
        let mut backoff = Backoff::new(5_000_000_000, 1);
        backoff.failed(now);
        assert!(backoff.waits(now));
        backoff.succeeded();
        assert!(!backoff.waits(now));
    }
}
