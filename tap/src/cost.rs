//! What the programs cost, by the kernel's own run-time statistics.
//!
//! The statistics cost about as much as a program of ours, so they are on only while a [`Sampling`] lives.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ippm::flow::Direction;

use crate::error::Error;
use crate::set::{Programs, Set};
use crate::sys;

/// Statistics are on while this lives.
pub struct Sampling {
    _on: OwnedFd,
}

impl Sampling {
    /// Switches them on, for every BPF program on the machine.
    pub fn start() -> Result<Self, Error> {
        Ok(Self { _on: sys::enable_stats().map_err(|source| Error::Cost { source })? })
    }
}

/// Runs and their time since the program was loaded, counted while statistics were on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Packets.
    pub count: u64,
    /// Nanoseconds in all of them.
    pub time_ns: u64,
}

impl Runs {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Runs) -> Runs {
        Runs {
            count: self.count.saturating_sub(earlier.count),
            time_ns: self.time_ns.saturating_sub(earlier.time_ns),
        }
    }

    /// Mean time of a run in nanoseconds; none without a run.
    pub fn ns_per_run(self) -> Option<f64> {
        (self.count > 0).then(|| self.time_ns as f64 / self.count as f64)
    }
}

impl std::ops::Add for Runs {
    type Output = Runs;

    fn add(self, other: Runs) -> Runs {
        Runs { count: self.count + other.count, time_ns: self.time_ns + other.time_ns }
    }
}

pub(crate) fn read(program: BorrowedFd<'_>) -> Result<Runs, Error> {
    let info = sys::prog_info(program).map_err(|source| Error::Cost { source })?;
    Ok(Runs { count: info.runs, time_ns: info.run_time_ns })
}

/// What a program is to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Instructions the verifier walked through before it let the program in; 0 on kernels before 5.16.
    pub verified: u32,
    /// Bytes of machine code, functions included.
    pub machine_code: u32,
}

impl Programs {
    /// Runs of one direction's program.
    pub fn runs(&self, direction: Direction) -> Result<Runs, Error> {
        read(self.of(direction))
    }

    /// For benchmarks: runs one direction's program `times` times over a frame, nothing in between. Mean time of a run
    /// in ns.
    pub fn repeat(&self, direction: Direction, frame: &[u8], times: u32) -> Result<u32, Error> {
        sys::test_run(self.of(direction), frame, None, times)
            .map(|(_, ns)| ns)
            .map_err(|source| Error::Cost { source })
    }

    /// How large one direction's program is.
    pub fn size(&self, direction: Direction) -> Result<Size, Error> {
        let info = sys::prog_info(self.of(direction)).map_err(|source| Error::Cost { source })?;
        Ok(Size { verified: info.verified, machine_code: info.machine_code })
    }
}

impl Set {
    /// Runs of the set's janitor.
    pub fn janitor_runs(&self) -> Result<Runs, Error> {
        read(self.janitor_fd().as_fd())
    }
}
