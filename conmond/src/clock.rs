//! The daemon's two clocks: `CLOCK_MONOTONIC` for everything inside, UTC for people and engines.

use ippm::time::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Now, on `CLOCK_MONOTONIC`: the clock that the kernel's programs stamp with.
pub fn monotonic() -> Timestamp {
    // The call fails only for a clock that does not exist; zero then makes ages long, never negative.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|t| {
            Timestamp((t.tv_sec() as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec() as u64))
        })
        .unwrap_or(Timestamp::ZERO)
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
}
