//! What ConMon itself costs: run time of the programs in the packets' path, processor time and memory of the daemon and
//! its monitoring containers, kernel memory of maps and programs.
//!
//! A thread looks every ten seconds. The kernel's run-time statistics cost about as much as the programs that they
//! measure, so they are on for a quarter of a second each time; means come from there, and totals grow by what ran in
//! these moments.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conmon::api;
use ippm::flow::Direction;
use ippm::time::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use tap::cost::{Runs, Sampling};
use tap::{Dispatcher, Set};

use super::shared::{Published, Shared};
use super::world::SetId;
use crate::clock::{Wall, monotonic};
use crate::http::{HookRow, Usage};

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(10);
/// Until the first moment of sampling: programs that were loaded just now have packets by then.
const FIRST: Duration = Duration::from_secs(1);
/// How long statistics are on.
const MOMENT: Duration = Duration::from_millis(250);
/// How maps show up among the daemon's mappings.
const TABLE_MAPPING: &str = "anon_inode:bpf-map";

/// The cost, as looked at last. Dropping it ends the thread.
pub struct Cost {
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and the readers share.
#[derive(Default)]
struct Inner {
    known: Mutex<Known>,
    wake: Condvar,
}

#[derive(Default)]
struct Known {
    stop: bool,
    /// The newest sample; one without packets does not replace one with.
    sample: Option<Sample>,
    /// Runs in all samples.
    totals: Runs2,
    /// Processor time of everything, and when it was read.
    cpu: Option<(Timestamp, Duration)>,
    cpu_ratio: Option<f64>,
    daemon_memory: Option<u64>,
    kernel_memory: Option<u64>,
}

/// By the number of the direction.
type Runs2 = [Runs; 2];

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Timestamp,
    runs: Runs2,
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps; tells whether to go on.
    fn pause(&self, length: Duration) -> bool {
        let until = Instant::now() + length;
        let mut known = self.known();
        while !known.stop {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) else {
                return true;
            };
            known = self.wake.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

impl Cost {
    /// Starts to look. Without a thread the cost stays unknown, which is told and stops nothing.
    pub fn start(shared: Arc<Shared>) -> Arc<Self> {
        let inner = Arc::new(Inner::default());
        let spawned = {
            let (shared, inner) = (shared.clone(), inner.clone());
            std::thread::Builder::new().name("cost".into()).spawn(move || run(&shared, &inner))
        };
        let thread = match spawned {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread to measure our own cost; status will not tell it");
                None
            }
        };
        Arc::new(Self { shared, inner, thread: Mutex::new(thread) })
    }

    /// Ends the thread, within a moment of sampling at most.
    pub fn stop(&self) {
        self.inner.known().stop = true;
        self.inner.wake.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // a panic of that thread was reported when it happened
            let _ = thread.join();
        }
    }

    /// As the status tells it.
    pub fn status(&self, wall: Wall) -> api::Cost {
        let monitors = monitors_usage(&self.shared.published());
        let known = self.inner.known();
        let hooks = known.sample.map(|s| {
            let hook = |d: &Direction| {
                let runs = s.runs[usize::from(d.number())];
                api::HookCost { name: d.to_string(), runs: runs.count, ns_per_run: runs.ns_per_run() }
            };
            Direction::ALL.iter().map(hook).collect()
        });
        api::Cost {
            hooks: hooks.unwrap_or_default(),
            cpu_ratio: known.cpu_ratio,
            memory_bytes: known
                .daemon_memory
                .map(|own| own.saturating_add(monitors.memory_bytes.unwrap_or(0))),
            kernel_memory_bytes: known.kernel_memory,
            sampled_at: known.sample.map(|s| wall.utc(s.at)),
        }
    }

    /// Runs and run time of each program in all moments of sampling so far. Empty before the first.
    pub fn hooks(&self) -> Vec<HookRow> {
        let known = self.inner.known();
        if known.sample.is_none() {
            return Vec::new();
        }
        let row = |d: &Direction| {
            let runs = known.totals[usize::from(d.number())];
            HookRow {
                hook: d.as_str().into(),
                runs: runs.count,
                run_time: Duration::from_nanos(runs.time_ns),
            }
        };
        Direction::ALL.iter().map(row).collect()
    }

    /// What the daemon uses: processor time now, memory as looked at last.
    pub fn controller(&self) -> Usage {
        Usage { cpu: daemon_cpu(), memory_bytes: self.inner.known().daemon_memory }
    }

    /// What the monitoring containers use, as they reported; processor time with those that are gone.
    pub fn monitors(&self) -> Usage {
        monitors_usage(&self.shared.published())
    }

    /// Kernel memory of maps and programs, as looked at last.
    pub fn kernel_memory_bytes(&self) -> Option<u64> {
        self.inner.known().kernel_memory
    }
}

impl Drop for Cost {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared, inner: &Inner) {
    look(shared, inner);
    let mut told = false;
    let mut next = FIRST;
    while inner.pause(next) {
        match sample(&shared.sets(), shared.dispatcher().as_deref(), |length| inner.pause(length)) {
            Ok(runs) => {
                told = false;
                take_sample(&mut inner.known(), monotonic(), runs);
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "run times of our programs cannot be sampled"
                );
            }
            Err(_) => {}
        }
        look(shared, inner);
        next = EVERY;
    }
}

/// Runs of all sets' programs and of the dispatcher's, by direction, while `wait` lasts. A set that is loaded meanwhile is left for the next time.
fn sample(
    sets: &BTreeMap<SetId, Arc<Set>>,
    dispatcher: Option<&Dispatcher>,
    wait: impl FnOnce(Duration) -> bool,
) -> Result<Runs2, tap::Error> {
    let sampling = Sampling::start()?;
    let before = read_runs(sets, dispatcher)?;
    wait(MOMENT);
    let after = read_runs(sets, dispatcher)?;
    drop(sampling);
    Ok([after[0].since(before[0]), after[1].since(before[1])])
}

fn read_runs(sets: &BTreeMap<SetId, Arc<Set>>, dispatcher: Option<&Dispatcher>) -> Result<Runs2, tap::Error> {
    let mut sum = Runs2::default();
    for set in sets.values() {
        for direction in Direction::ALL {
            let at = usize::from(direction.number());
            sum[at] = sum[at] + set.programs().runs(*direction)?;
        }
    }
    for direction in Direction::ALL {
        // the kernel counts a run where it begins: what the dispatcher went on as is in its own
        if let Some(dispatcher) = dispatcher {
            let at = usize::from(direction.number());
            sum[at] = sum[at] + dispatcher.runs(*direction)?;
        }
    }
    Ok(sum)
}

fn take_sample(known: &mut Known, at: Timestamp, runs: Runs2) {
    let packets = |runs: &Runs2| runs[0].count + runs[1].count;
    known.totals = [known.totals[0] + runs[0], known.totals[1] + runs[1]];
    if packets(&runs) > 0 || known.sample.is_none_or(|s| packets(&s.runs) == 0) {
        known.sample = Some(Sample { at, runs });
    }
}

/// Processor time and memory.
fn look(shared: &Shared, inner: &Inner) {
    let monitors = monitors_usage(&shared.published());
    let cpu = daemon_cpu().map(|own| own.saturating_add(monitors.cpu.unwrap_or_default()));
    let memory = daemon_memory();
    let kernel = shared.sets().values().map(|set| kernel_memory(set)).sum();
    let now = monotonic();
    let mut known = inner.known();
    known.daemon_memory = memory;
    known.kernel_memory = Some(kernel);
    if let Some(cpu) = cpu {
        take_cpu(&mut known, now, cpu);
    }
}

fn take_cpu(known: &mut Known, now: Timestamp, cpu: Duration) {
    if let Some((at, before)) = known.cpu {
        let elapsed = now - at;
        if elapsed < FIRST {
            return;
        }
        // a monitor that was replaced before it was heard takes its last moments with it
        known.cpu_ratio = Some(cpu.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64());
    }
    known.cpu = Some((now, cpu));
}

/// Monitoring containers together. The functions that the daemon runs itself are in the daemon's own figures.
fn monitors_usage(published: &Published) -> Usage {
    let mut usage = Usage { cpu: Some(published.gone_monitors_cpu), memory_bytes: Some(0) };
    for (_, monitor, alive) in published.monitors.iter() {
        if monitor.mode == api::MonitorMode::Host {
            continue;
        }
        // as they reported: a lie must not make our sum overflow
        usage.cpu = usage.cpu.map(|cpu| cpu.saturating_add(Duration::from_nanos(alive.cpu_ns)));
        usage.memory_bytes =
            usage.memory_bytes.map(|sum| sum.saturating_add(alive.memory_bytes.unwrap_or(0)));
    }
    usage
}

/// User and system time of this process.
fn daemon_cpu() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let length = |t: TimeVal| {
        Duration::new(
            u64::try_from(t.tv_sec()).unwrap_or(0),
            u32::try_from(t.tv_usec()).unwrap_or(0).min(999_999) * 1000,
        )
    };
    Some(length(usage.user_time()) + length(usage.system_time()))
}

/// Resident memory of this process without the mapped tables, which are the kernel's.
fn daemon_memory() -> Option<u64> {
    resident(&fs::read_to_string("/proc/self/smaps").ok()?)
}

/// The sum over a process's mappings but those of tables (Linux, Documentation/filesystems/proc.rst, smaps).
fn resident(smaps: &str) -> Option<u64> {
    let (mut sum, mut table, mut any) = (0u64, false, false);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        if !first.ends_with(':') {
            table = line.contains(TABLE_MAPPING);
        } else if first == "Rss:" {
            any = true;
            if !table {
                sum += words.next()?.parse::<u64>().ok()? * 1024;
            }
        }
    }
    any.then_some(sum)
}

/// What a set takes in the kernel: maps and the programs in the packets' path as the kernel accounts them, else
/// as their sizes say.
fn kernel_memory(set: &Set) -> u64 {
    let maps: Option<u64> = set
        .descriptors()
        .ok()
        .and_then(|d| d.fds.iter().map(|fd| locked_bytes(fd.as_fd())).sum::<Option<u64>>());
    let programs: u64 = Direction::ALL.iter().filter_map(|d| locked_bytes(set.programs().of(*d))).sum();
    // before Linux 6.4 a ring's account is its descriptor's alone
    let least = set.spec().kernel_bytes();
    maps.unwrap_or(least).max(least).saturating_add(programs)
}

/// The kernel's account of a map or program of ours.
fn locked_bytes(fd: BorrowedFd<'_>) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("memlock:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
