//! The daemon's two clocks: `CLOCK_MONOTONIC` for everything inside, UTC for people and engines.

use ippm::time::Timestamp;

pub use tap::clock::monotonic;

/// What turns monotonic time into UTC and back. Taken anew for each answer, so that a step of the host's clock moves
/// all times shown and none that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Wall {
    offset_ns: i128,
}

impl Wall {
    /// By the two clocks now.
    pub fn now() -> Self {
        Self { offset_ns: tap::clock::wall_offset_ns() }
    }

    /// By what UTC is ahead of the monotonic clock, in nanoseconds.
    pub const fn by_offset_ns(offset_ns: i128) -> Self {
        Self { offset_ns }
    }

    /// As UTC. Times that no calendar has (only a broken clock makes them) become the epoch.
    pub fn utc(self, at: Timestamp) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(at.as_nanos()) + self.offset_ns)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// A UTC time on the monotonic clock; before boot is the clock's zero.
    pub fn monotonic(self, at: jiff::Timestamp) -> Timestamp {
        Timestamp(u64::try_from(at.as_nanosecond() - self.offset_ns).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn goes_forward() {
        let before = monotonic();
        std::thread::sleep(Duration::from_millis(2));
        assert!(monotonic() - before >= Duration::from_millis(2));
    }

    #[test]
    fn a_step_moves_what_is_shown_and_nothing_that_is_measured() {
        const HOUR: i128 = 3_600_000_000_000;
        let (before, after) = (Wall::by_offset_ns(500 * HOUR), Wall::by_offset_ns(501 * HOUR));
        let (first, last) = (Timestamp(7_000), Timestamp(9_000));
        let moved = after.utc(first).duration_since(before.utc(first));
        assert_eq!(moved, jiff::SignedDuration::from_hours(1));
        assert_eq!(after.utc(last).duration_since(after.utc(first)).as_nanos(), 2_000);
        assert_eq!(after.monotonic(after.utc(first)), first);
        // Set back behind the machine's start, a time of then is not lost in arithmetic.
        let broken = Wall::by_offset_ns(-HOUR);
        assert_eq!(broken.utc(first).as_nanosecond(), 7_000 - HOUR);
        assert_eq!(broken.monotonic(broken.utc(first)), first);
    }

    #[test]
    fn wall_time_and_back() {
        let wall = Wall::now();
        let at = monotonic();
        assert_eq!(wall.monotonic(wall.utc(at)), at);
        let apart = jiff::Timestamp::now().duration_since(wall.utc(at)).as_millis_f64().abs();
        assert!(apart < 1000.0, "{apart} ms from the system's own clock");
    }
}
