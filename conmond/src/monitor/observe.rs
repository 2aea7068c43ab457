//! One set under observation: reader and monitoring functions together, driven by whoever owns the waiting.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ippm::measurement::Batch;
use ippm::time::nanos;
use nix::poll::PollTimeout;
use nix::sys::resource::{UsageWho, getrusage};
use tap::{Descriptors, Reader};

use super::protocol::{Alive, MfSettings};
use crate::clock;
use crate::mf::{Collected, MonitoringFunction};

/// A set's reader and the functions that judge what it reads. Owns no thread; nothing here waits.
pub struct Observer {
    reader: Reader,
    functions: Vec<Box<dyn MonitoringFunction>>,
    alive: Alive,
    counted: ippm::measurement::SetCounters,
}

impl Observer {
    /// Maps the set and starts the functions.
    pub fn new(descriptors: Descriptors, settings: &MfSettings) -> Result<Self, tap::Error> {
        let reader = Reader::new(descriptors)?;
        let spec = reader.spec();
        let found = reader.counters().abi;
        if found != tap::ABI {
            return Err(tap::Error::Layout { found });
        }
        let mut kinds = settings.functions.clone();
        kinds.sort_unstable();
        kinds.dedup();
        let functions = kinds.into_iter().map(|kind| kind.start(settings, &spec)).collect();
        Ok(Self { reader, functions, alive: Alive::default(), counted: Default::default() })
    }

    /// Readable when the ring holds records.
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.reader.ring_fd()
    }

    /// Reads the tables into `to`. False when the janitor was at work all the while: try again soon.
    pub fn scan(&mut self, to: &mut Collected) -> bool {
        let begun = Instant::now();
        let Some(mut scan) = self.reader.scan() else {
            self.alive.scans_missed += 1;
            return false;
        };
        (to.taken_at, to.set) = (scan.taken_at, scan.set);
        for function in &mut self.functions {
            function.scanned(&mut scan, &self.reader, to);
        }
        self.alive.scans += 1;
        self.alive.scan_ns = nanos(begun.elapsed());
        (self.alive.flows, self.alive.pairs) = self.reader.fill();
        true
    }

    /// Reads the ring into `to`, as far as `to` has room. What finds none stays in the ring; when that is full, the
    /// kernel counts what it cannot write.
    pub fn drain(&mut self, to: &mut Collected) {
        let room = room(to);
        if room == 0 {
            return;
        }
        let mut events = self.reader.events(room);
        self.alive.unreadable += events.unreadable;
        (to.taken_at, to.set) = (clock::monotonic(), self.reader.counters());
        for function in &mut self.functions {
            function.happened(&mut events, to);
        }
    }

    /// Whether `collected` tells anything that was not told before.
    pub fn is_news(&mut self, collected: &Collected) -> bool {
        let news = !collected.is_empty() || collected.set != self.counted;
        self.counted = collected.set;
        news
    }

    /// How this process and the set are.
    pub fn alive(&self) -> Alive {
        let cpu_ns = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |u| {
            let ns =
                |t: nix::sys::time::TimeVal| t.tv_sec() as u64 * 1_000_000_000 + t.tv_usec() as u64 * 1000;
            ns(u.user_time()) + ns(u.system_time())
        });
        // the tables are the kernel's, and all of what is mapped of them counts as resident
        let memory_bytes = resident_bytes().map(|all| all.saturating_sub(self.reader.mapped_bytes()));
        Alive { at: clock::monotonic(), memory_bytes, cpu_ns, ..self.alive }
    }
}

/// How many records of the ring `to` has room for: as many as one batch can carry.
pub fn room(to: &Collected) -> usize {
    let events = Batch::MAX_EVENTS.saturating_sub(to.events.len());
    events.min(Batch::MAX_SINGLETONS.saturating_sub(to.singletons.len()))
}

/// The ring is read at most this often, so that a storm of short flows costs few wake-ups.
pub const RING_PAUSE: Duration = Duration::from_millis(20);

/// When to read what. Pure: the time comes with the question.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    interval: Duration,
    scan_at: Instant,
    ring_at: Instant,
}

impl Schedule {
    /// Everything is due at once.
    pub fn new(now: Instant, interval: Duration) -> Self {
        Self { interval, scan_at: now, ring_at: now }
    }

    /// Whether the tables are to be read.
    pub fn scan_due(&self, now: Instant) -> bool {
        now >= self.scan_at
    }

    /// Whether the ring may be read, if it holds anything.
    pub fn ring_due(&self, now: Instant) -> bool {
        now >= self.ring_at
    }

    /// The tables were read, or could not be (`done` is false): then soon again. Scans that fell due meanwhile are
    /// not made up for.
    pub fn scanned(&mut self, now: Instant, done: bool) {
        let next = self.scan_at + self.interval;
        self.scan_at = match done {
            false => now + RING_PAUSE,
            true if next > now => next,
            true => now + self.interval,
        };
    }

    /// The ring was read.
    pub fn ring_read(&mut self, now: Instant) {
        self.ring_at = now + RING_PAUSE;
    }

    /// When the tables are to be read next.
    pub fn scan_at(&self) -> Instant {
        self.scan_at
    }

    /// Until when the ring is left alone, if it is.
    pub fn ring_pause(&self, now: Instant) -> Option<Instant> {
        (!self.ring_due(now)).then_some(self.ring_at)
    }
}

/// From now until then for poll, not shorter: it counts whole milliseconds.
pub fn until(now: Instant, then: Instant) -> PollTimeout {
    let ms = then.saturating_duration_since(now).as_micros().div_ceil(1000);
    PollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
}

/// Resident memory of this process; `None` without `/proc`.
fn resident_bytes() -> Option<u64> {
    // Linux, Documentation/filesystems/proc.rst, statm: size, resident, shared… in pages
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[cfg(test)]
mod tests;
