//! How many readings may be on their way at one time: more while answers come quickly, fewer when they do not. Pure.
//!
//! After a restart of the store all hosts read all that they use, at once. If each had as many readings on their way as it
//! may, those of thousands of hosts would wait for longer than a call may take; all of them would be given up, and asked anew, for ever.

/// Readings on their way at first.
const FIRST: usize = 1;
/// And at most.
const MOST: usize = 64;
/// An answer that took longer tells of a store that has too much to do, ns: an eighth of the time that a call may take.
const SLOW_NS: u64 = 250_000_000;

/// How many readings may be on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    size: usize,
    /// When it was made smaller last. What was asked before tells nothing of the size it has now.
    since_ns: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: FIRST, since_ns: 0 }
    }
}

impl Window {
    /// Readings that may be on their way.
    pub const fn size(self) -> usize {
        self.size
    }

    /// A reading that was asked for at `asked_ns` was answered at `now_ns`, both on the steady clock.
    pub fn answered(&mut self, asked_ns: u64, now_ns: u64) {
        if now_ns.saturating_sub(asked_ns) <= SLOW_NS {
            self.size = (self.size + 1).min(MOST);
        } else {
            self.shrink(asked_ns, now_ns);
        }
    }

    /// And so was one that was not answered.
    pub fn failed(&mut self, asked_ns: u64, now_ns: u64) {
        self.shrink(asked_ns, now_ns);
    }

    fn shrink(&mut self, asked_ns: u64, now_ns: u64) {
        if asked_ns >= self.since_ns {
            self.size = (self.size / 2).max(1);
            self.since_ns = now_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn it_doubles_with_each_round_of_quick_answers_up_to_its_bound() {
        let mut window = Window::default();
        let sizes: Vec<usize> = (0..7)
            .map(|round| {
                (0..window.size()).for_each(|_| window.answered(round * MS, (round + 1) * MS));
                window.size()
            })
            .collect();
        assert_eq!(sizes, [2, 4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn slow_answers_halve_it_once_a_round_down_to_one() {
        let mut window = Window { size: MOST, since_ns: 0 };
        for (round, size) in [32, 16, 8, 4, 2, 1, 1].into_iter().enumerate() {
            let asked = round as u64 * 1000 * MS;
            (0..MOST).for_each(|_| window.answered(asked, asked + 900 * MS));
            assert_eq!(window.size(), size);
        }
        window.answered(8000 * MS, 8001 * MS);
        window.failed(8000 * MS, 8002 * MS);
        assert_eq!(window.size(), 1);
    }
}
