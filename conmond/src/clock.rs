//! The daemon's two clocks: `CLOCK_MONOTONIC` for everything inside, UTC for people and engines.

use ippm::time::Timestamp;

pub use tap::clock::monotonic;

/// Readings of the two clocks that differ by so much tell of a clock that was set, and not of how they were read.
const SET_NS: i128 = 1_000_000;

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

    /// By the two clocks now, read as if at once; but `before`, if neither was set since: a reading is never quite like another, and
    /// what is told of one time again is to be the same.
    pub fn now_or(before: Self) -> Self {
        Self::by_offset_ns(tap::clock::wall_offset_within().0).or(before)
    }

    fn or(self, before: Self) -> Self {
        if (self.offset_ns - before.offset_ns).abs() < SET_NS { before } else { self }
    }

    /// As UTC. Times that no calendar has (only a broken clock makes them) become the epoch.
    pub fn utc(self, at: Timestamp) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(at.as_nanos()) + self.offset_ns)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// A UTC time on the monotonic clock; before boot is the clock's zero, and what is centuries ahead its last.
    pub fn monotonic(self, at: jiff::Timestamp) -> Timestamp {
        Timestamp(u64::try_from((at.as_nanosecond() - self.offset_ns).max(0)).unwrap_or(u64::MAX))
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
        assert_eq!(before.monotonic(jiff::Timestamp::MAX), Timestamp::MAX);
        assert_eq!(before.monotonic(jiff::Timestamp::MIN), Timestamp::ZERO);
    }

    #[test]
    fn readings_differ_and_what_is_told_does_not_until_a_clock_is_set() {
        let first = Wall::now_or(Wall::by_offset_ns(0));
        let at = Timestamp(5);
        for _ in 0..100 {
            assert_eq!(Wall::now_or(first).utc(at), first.utc(at));
        }
        let told = |offset, before| Wall::by_offset_ns(offset).or(Wall::by_offset_ns(before)).utc(at);
        assert_eq!(told(10_000_000, 10_999_999), told(10_999_999, 10_999_999));
        assert_eq!(told(10_000_000, 11_000_000), told(10_000_000, 10_000_000));
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
