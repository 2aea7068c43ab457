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
    fn wall_time_and_back() {
        let wall = Wall::now();
        let at = monotonic();
        assert_eq!(wall.monotonic(wall.utc(at)), at);
        let apart = jiff::Timestamp::now().duration_since(wall.utc(at)).as_millis_f64().abs();
        assert!(apart < 1000.0, "{apart} ms from the system's own clock");
    }
}
