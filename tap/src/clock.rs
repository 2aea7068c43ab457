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
