//! Time as measurements carry it: a point on the kernel's monotonic clock, and lengths of time.
//!
//! Nothing here reads a clock. Whoever does (the tap, the MC) hands the point in, so every computation on it can
//! be repeated in virtual time.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds of `CLOCK_MONOTONIC`, which starts at boot and never steps.
///
/// Two points are comparable only when they come from the same boot of the same host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The clock's zero.
    pub const ZERO: Timestamp = Timestamp(0);
    /// Later than any point that is read from a clock.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// Nanoseconds since the clock's zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, zero when `earlier` is not earlier: coarse clocks may be a tick behind fine ones.
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `length` before this one, but not before the clock's zero.
    #[must_use]
    pub fn before(self, length: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(nanos(length)))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    /// Saturates at [`Timestamp::MAX`].
    fn add(self, length: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(nanos(length)))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    /// The same as [`Timestamp::since`].
    fn sub(self, earlier: Timestamp) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// A length of time in nanoseconds, at most `u64::MAX` (584 years).
pub fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds as seconds, for output in base units. Exact up to 2^53 ns (104 days), rounded beyond.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let t = Timestamp(5);
        assert_eq!(t - Timestamp(9), Duration::ZERO);
        assert_eq!(Timestamp(9) - t, Duration::from_nanos(4));
        assert_eq!(t.before(Duration::from_secs(1)), Timestamp::ZERO);
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(t + Duration::MAX, Timestamp::MAX);
    }

    #[test]
    fn shows_seconds() {
        assert_eq!(Timestamp(1_000_000_002).to_string(), "1.000000002");
        assert_eq!(seconds(1_500_000_000), 1.5);
    }
}
