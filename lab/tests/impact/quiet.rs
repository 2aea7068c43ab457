//! What everybody else on the machine takes of its processors. A window in which that is much says little of the load
//! and of who watches it: it is measured again, as long as there is patience left.

use crate::stage::Stage;
use crate::watch::{cpu_ns, packet_threads};
use anyhow::{Context, Result};
use lab::Host;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};
use std::fs;
use std::time::{Duration, Instant};

/// When others take more than this of one processor, a window is disturbed. On a machine that does nothing else it is some
/// 0.02: the engine, which starts the clients, is one of the others.
pub const DISTURBED: f64 = 0.1;
/// How long others must have been quiet.
const LOOK: Duration = Duration::from_millis(300);

/// Processor time of everybody but the containers and their watchers.
pub struct Others {
    host: Host,
    watchers: Vec<u32>,
    threads: Vec<u32>,
    since: Instant,
    before: f64,
}

impl Others {
    /// Begins to look. `watchers`: processes of the watcher.
    pub fn look(stage: &Stage, watchers: Vec<u32>) -> Result<Self> {
        let mut others = Self {
            host: stage.host.clone(),
            watchers,
            threads: packet_threads(),
            since: Instant::now(),
            before: 0.0,
        };
        others.before = others.taken()?;
        Ok(others)
    }

    /// Seconds taken so far, from an arbitrary beginning.
    fn taken(&self) -> Result<f64> {
        let known: u64 = self.watchers.iter().chain(&self.threads).map(|&pid| cpu_ns(pid)).sum();
        let own = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| {
            let used = getrusage(who).context("getrusage")?;
            Ok((used.user_time() + used.system_time()).num_microseconds() as f64 / 1e6)
        });
        let own: f64 = own.into_iter().sum::<Result<f64>>()?;
        Ok(busy()? - known as f64 / 1e9 - own - containers_seconds(&self.host)?)
    }

    /// What they took since the look began, of one processor.
    pub fn ratio(&self) -> Result<f64> {
        Ok((self.taken()? - self.before) / self.since.elapsed().as_secs_f64())
    }
}

/// Time that may be spent on waiting for quiet and on measuring again.
pub struct Patience {
    left: Duration,
    each: Duration,
}

impl Patience {
    /// So much in all, and no more than a tenth of it for one window.
    pub fn new(all: Duration) -> Self {
        Self { left: all, each: all / 10 }
    }

    /// What one window may take of it.
    pub fn of_window(&self) -> Duration {
        self.left.min(self.each)
    }

    pub fn spend(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }
}

/// Waits until others are quiet, `longest` at most.
pub fn wait(stage: &Stage, watchers: &[u32], longest: Duration) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < longest {
        let others = Others::look(stage, watchers.to_vec())?;
        std::thread::sleep(LOOK);
        if others.ratio()? < DISTURBED {
            break;
        }
    }
    Ok(())
}

/// Seconds that all processors together were busy since boot, as the kernel's ticks saw it, or were taken away by a
/// hypervisor.
fn busy() -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().context("ticks per second")?;
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    // user, nice, system, idle, waiting, interrupts, soft interrupts, stolen; guests are in user already
    let numbers: Vec<u64> =
        text.lines().next().unwrap_or_default().split(' ').filter_map(|n| n.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|&i| numbers.get(i)).sum::<u64>();
    Ok(busy as f64 / ticks as f64)
}

/// Seconds that the host's containers took, monitoring ones included, and those processes of theirs that have ended.
fn containers_seconds(host: &Host) -> Result<f64> {
    let group = host.full_name();
    for place in ["cpuacct", "cpu,cpuacct"] {
        if let Ok(text) = fs::read_to_string(format!("/sys/fs/cgroup/{place}/{group}/cpuacct.usage")) {
            return Ok(text.trim().parse::<u64>().context("cpuacct.usage")? as f64 / 1e9);
        }
    }
    let text = fs::read_to_string(format!("/sys/fs/cgroup/{group}/cpu.stat"))
        .context("no control group tells what the containers take")?;
    let used = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    Ok(used.and_then(|n| n.parse::<u64>().ok()).context("cpu.stat has no usage_usec")? as f64 / 1e6)
}
