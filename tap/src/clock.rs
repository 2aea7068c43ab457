//! The clocks of the measurements. Everything inside is `CLOCK_MONOTONIC`; the coarse one is what the programs stamp
//! `last_seen` with.

use ippm::time::Timestamp;
use nix::time::{ClockId, clock_getres, clock_gettime};

fn read(clock: ClockId) -> u64 {
    // Reading these clocks cannot fail on Linux; 0 would only make everything look old.
    clock_gettime(clock).map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

/// `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns()`.
pub fn monotonic() -> Timestamp {
    Timestamp(read(ClockId::CLOCK_MONOTONIC))
}

/// `CLOCK_MONOTONIC_COARSE`, the clock of `bpf_ktime_get_coarse_ns()`: the same, up to one tick late.
pub fn coarse() -> Timestamp {
    Timestamp(read(ClockId::CLOCK_MONOTONIC_COARSE))
}

/// One tick of the coarse clock in nanoseconds (4 ms with HZ=250).
pub fn tick_ns() -> u64 {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(10_000_000, |t| t.tv_nsec() as u64)
}

/// `CLOCK_REALTIME` in nanoseconds since 1970, less `CLOCK_MONOTONIC`: what turns a [`Timestamp`] into wall time now.
pub fn wall_offset_ns() -> i128 {
    i128::from(read(ClockId::CLOCK_REALTIME)) - i128::from(read(ClockId::CLOCK_MONOTONIC))
}

/// The same, nanoseconds, and how far it can be from the truth: whoever reads two clocks may be interrupted between them, so the one is read
/// between two readings of the other, and the shortest of some tries is taken.
pub fn wall_offset_within() -> (i128, u64) {
    let once = || {
        let before = read(ClockId::CLOCK_MONOTONIC);
        let wall = read(ClockId::CLOCK_REALTIME);
        let took = read(ClockId::CLOCK_MONOTONIC).saturating_sub(before);
        (i128::from(wall) - i128::from(before) - i128::from(took / 2), took.div_ceil(2) + 1)
    };
    (1..8).fold(once(), |best, _| {
        let next = once();
        if next.1 < best.1 { next } else { best }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_are_read_as_if_at_once() {
        let (offset, error) = wall_offset_within();
        assert!((1..1_000_000).contains(&error), "{error}");
        // a single reading is late by what lies between its two
        let early = wall_offset_ns();
        assert!((early - offset).unsigned_abs() < 100_000_000, "{early} {offset}");
    }
}
