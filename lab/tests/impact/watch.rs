//! The conditions: who watches the containers meanwhile. Each can be begun, proves that it took effect, and leaves nothing
//! behind when it ends, however it ends.

use crate::load::Load;
use crate::stage::{MONITOR, Stage, TENANT};
use anyhow::{Context, Result, ensure};
use lab::{Conmond, ConmondOptions, Container, Counts, Host, Tcpdump, output_text, wait_until};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Base,
    Ours,
    Inside,
    Mirror,
}

/// Longest wait for conmond to have everything in place, or to show what it counted.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that tcpdump keeps of each packet.
const SNAPLEN: &str = "96";
const HOOKS: [&str; 2] = ["ingress", "egress"];

impl Condition {
    pub const ALL: [Self; 4] = [Self::Base, Self::Ours, Self::Inside, Self::Mirror];

    /// The order in which the conditions take their turns in a round. In four rounds each one comes once at each place,
    /// and once after each other (Williams' design): what one leaves in caches and queues falls on all alike.
    pub fn order(round: usize) -> [Self; 4] {
        const ROWS: [[usize; 4]; 4] = [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]];
        ROWS[round % ROWS.len()].map(|i| Self::ALL[i])
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Ours => "ours",
            Self::Inside => "inside",
            Self::Mirror => "mirror",
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::Base => "nothing observes: `conmonctl down` was run, no program is on any port",
            Self::Ours => {
                "conmond runs with its defaults (round-trip delay on): taps on all ports, its monitoring containers read"
            }
            Self::Inside => {
                "tcpdump -s 96 -w /dev/null in the client container's network namespace (only there)"
            }
            Self::Mirror => {
                "tcpdump -s 96 -w /dev/null beside the containers: both directions of the client's port (only it) mirrored"
            }
        }
    }

    /// Begins it; everything is in place when this returns.
    pub fn begin(self, stage: &Stage) -> Result<Watch> {
        match self {
            Self::Base => {
                programs_are(stage, [0, 0])?;
                Ok(Watch::Base)
            }
            Self::Ours => Watching::start(stage).map(Watch::Ours),
            Self::Inside => {
                let tcpdump = |container: &Container| {
                    let command = container.command_in_network(Tcpdump::program()?)?;
                    start_tcpdump(stage, command, "eth0", container.name())
                };
                programs_are(stage, [0, 0])?;
                Ok(Watch::Inside([tcpdump(&stage.client)?, tcpdump(&stage.iperf_client)?]))
            }
            Self::Mirror => {
                programs_are(stage, [0, 0])?;
                let command = stage.monitor.command(Tcpdump::program()?);
                let tcpdump = start_tcpdump(stage, command, MONITOR.1, "mirror")?;
                let mirrors = [Mirror::of(stage, &stage.client)?, Mirror::of(stage, &stage.iperf_client)?];
                Ok(Watch::Mirror(tcpdump, mirrors))
            }
        }
    }
}

/// A condition that holds.
pub enum Watch {
    Base,
    Ours(Watching),
    /// One tcpdump in each client container; only one of them ever has packets.
    Inside([Tcpdump; 2]),
    Mirror(Tcpdump, [Mirror; 2]),
}

impl Watch {
    /// Processes of the watcher.
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Self::Base => Vec::new(),
            Self::Ours(watching) => watching.pids.clone(),
            Self::Inside(tcpdumps) => tcpdumps.iter().map(Tcpdump::pid).collect(),
            Self::Mirror(tcpdump, _) => vec![tcpdump.pid()],
        }
    }

    /// Whether tcpdump is who watches.
    pub fn is_tcpdump(&self) -> bool {
        matches!(self, Self::Inside(_) | Self::Mirror(..))
    }

    /// What tcpdump counted so far; nothing where it is not who watches.
    pub fn counts(&self) -> Result<Counts> {
        match self {
            Self::Base | Self::Ours(_) => Ok(Counts::default()),
            Self::Inside([a, b]) => Ok(a.counts()? + b.counts()?),
            Self::Mirror(tcpdump, _) => tcpdump.counts(),
        }
    }

    /// Ends it. `sent`: packets that the loads sent from client to server meanwhile, which conmond must have counted.
    pub fn end(self, stage: &Stage, sent: &[(Load, u64)]) -> Result<()> {
        match self {
            Self::Base => programs_are(stage, [0, 0]),
            Self::Ours(watching) => watching.end(stage, sent),
            Self::Inside(tcpdumps) => tcpdumps.into_iter().try_for_each(|t| t.finish().map(drop)),
            Self::Mirror(tcpdump, mirrors) => {
                tcpdump.finish()?;
                mirrors.into_iter().try_for_each(Mirror::remove)
            }
        }
    }
}

/// conmond with all it needs in place.
pub struct Watching {
    conmond: Conmond,
    pids: Vec<u32>,
    /// What the client's interface had dropped on its way out before.
    dropped: u64,
}

impl Watching {
    /// Returns when every port is tapped and named, the tenant's monitoring container works, the pool is full, and the
    /// daemon's first look at its own cost is over: what follows is what goes on for ever.
    fn start(stage: &Stage) -> Result<Self> {
        let conmond = Conmond::start(&stage.host, ConmondOptions::default())?;
        conmond.wait_ctl("a tap on each container's port", PATIENCE, &["containers"], |answer| {
            let named = |c: &&Container| {
                let row = rows(answer, "containers").iter().find(|row| row["id"] == c.id());
                row.is_some_and(|row| {
                    row["networks"].as_array().is_some_and(|n| {
                        !n.is_empty()
                            && n.iter().all(|n| n["tapped_at"].is_string() && n["named_at"].is_string())
                    })
                })
            };
            stage.containers().iter().all(named).then_some(())
        })?;
        conmond.wait_ctl("monitoring containers at work", PATIENCE, &["monitors"], |answer| {
            let monitors = rows(answer, "monitors");
            let working = monitors.iter().any(|m| m["tenant"] == TENANT && m["state"] == "working");
            let full = answer["pool"]["ready"] == answer["pool"]["wanted"];
            (working && full && monitors.iter().all(|m| m["state"] != "starting")).then_some(())
        })?;
        conmond.wait_ctl("its own cost", PATIENCE, &["status"], |answer| {
            answer["cost"]["sampled_at"].as_str().map(drop)
        })?;
        programs_are(stage, [1, 1])?;
        let mut pids = vec![conmond.pid()?];
        for id in stage.host.docker(&["ps", "--quiet", "--filter", "name=conmon-pm-"])?.lines() {
            let pid = stage.host.docker(&["inspect", "--format", "{{.State.Pid}}", id])?;
            pids.push(pid.parse().with_context(|| format!("process id {pid:?}"))?);
        }
        ensure!(pids.len() >= 2, "no monitoring container runs");
        Ok(Self { conmond, pids, dropped: dropped_on_the_way_out(stage)? })
    }

    fn end(mut self, stage: &Stage, sent: &[(Load, u64)]) -> Result<()> {
        programs_are(stage, [1, 1])?;
        // What a full queue took away before the port was never there to be counted.
        let dropped = dropped_on_the_way_out(stage)? - self.dropped;
        for (load, packets) in sent {
            let (client, server) = load.ends(stage);
            let least = if load.is_counted() { packets - dropped } else { *packets };
            let what = format!("{least} packets from {} to {}", client.name(), server.name());
            let counted = self.conmond.wait_ctl(&what, PATIENCE, &["pairs"], |answer| {
                let is = |pair: &&Value| pair["src"]["id"] == client.id() && pair["dst"]["id"] == server.id();
                let pair = rows(answer, "pairs").iter().find(is)?;
                pair["sent"]["packets"].as_u64().filter(|&count| count >= least)
            })?;
            ensure!(!load.is_counted() || counted <= *packets, "conmond counted {counted}, not {what}");
        }
        self.conmond.down()
    }
}

fn rows<'a>(answer: &'a Value, list: &str) -> &'a [Value] {
    answer[list].as_array().map_or(&[], Vec::as_slice)
}

fn dropped_on_the_way_out(stage: &Stage) -> Result<u64> {
    Ok(stage.client.port()?.inside.tx.dropped)
}

/// Both directions of a container's port mirrored to the monitor's, by two rules; removed when dropped.
pub struct Mirror {
    host: Host,
    port: String,
    there: bool,
}

impl Mirror {
    fn of(stage: &Stage, container: &Container) -> Result<Self> {
        let mirror =
            Self { host: stage.host.clone(), port: stage.port(container)?.name.clone(), there: true };
        mirror.tc(&["qdisc", "add", "dev", &mirror.port, "clsact"])?;
        for hook in HOOKS {
            let all = ["protocol", "all", "u32", "match", "u32", "0", "0"];
            let action = ["action", "mirred", "egress", "mirror", "dev", MONITOR.0];
            mirror.tc(&[&["filter", "add", "dev", &mirror.port, hook], &all[..], &action].concat())?;
        }
        Ok(mirror)
    }

    fn tc(&self, args: &[&str]) -> Result<String> {
        output_text(self.host.namespace().command("tc").args(args))
    }

    fn remove(mut self) -> Result<()> {
        self.there = false;
        self.tc(&["qdisc", "del", "dev", &self.port, "clsact"]).map(drop)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if self.there {
            // An error has been reported already: only then is this reached with rules in place.
            let _ = self.tc(&["qdisc", "del", "dev", &self.port, "clsact"]);
        }
    }
}

fn start_tcpdump(
    stage: &Stage,
    command: std::process::Command,
    interface: &str,
    name: &str,
) -> Result<Tcpdump> {
    let log = stage.host.dir().join(format!("tcpdump-{name}.log"));
    Tcpdump::start(command, interface, &["-s", SNAPLEN, "-w", "/dev/null"], &log)
}

/// Holds the kernel to it: on each container's port are so many programs or filters, from the container and to it. Filters that a port
/// shared go some seconds after it is held by TCX.
fn programs_are(stage: &Stage, expected: [u32; 2]) -> Result<()> {
    wait_until("programs on the ports", PATIENCE, || are_programs(stage, expected))
}

fn are_programs(stage: &Stage, expected: [u32; 2]) -> Result<()> {
    for (container, port) in stage.containers().into_iter().zip(&stage.ports) {
        let mut found = stage.host.namespace().run(|| Ok(tap::tcx_programs(port.index)?))?;
        for (found, hook) in found.iter_mut().zip(HOOKS) {
            let show = ["filter", "show", "dev", &port.name, hook];
            let filters = output_text(stage.host.namespace().command("tc").args(show))?;
            *found += u32::from(!filters.is_empty());
        }
        ensure!(
            found == expected,
            "{found:?} programs on the port of {}, not {expected:?}",
            container.name()
        );
    }
    Ok(())
}

/// Processor time of a process in ns, threads that have ended included; nothing once it has gone.
pub fn cpu_ns(pid: u32) -> u64 {
    let Ok(pid) = i32::try_from(pid) else { return 0 };
    let used = clock_getcpuclockid(Pid::from_raw(pid)).and_then(clock_gettime);
    used.map_or(0, |used| u64::try_from(Duration::from(used).as_nanos()).unwrap_or(u64::MAX))
}

/// The kernel's threads that take over packets when there are too many to handle in between, one for each processor.
pub fn packet_threads() -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_one = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    };
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}
