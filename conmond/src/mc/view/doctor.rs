//! The doctor: checks of the host, the engine, the taps and the ledger, each with what was found and what to do.

mod hosts;
mod secure;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use conmon::api::{ApiError, Check, Fill, MonitorMode};
use ippm::time::{Timestamp, nanos};
use nix::time::{ClockId, clock_gettime};
use rustix::thread::{MembarrierCommand, membarrier_query};
use tap::filesystem::BPF_FS;

use super::{Reckoning, fills, silent_monitors};
use crate::clock::monotonic;
use crate::http::Tls;
use crate::mc::shared::{Published, Shared};
use crate::mc::world::{SetId, SetRole};
use crate::privilege::{NEEDS, Need};

/// Where instances pin their sets.
pub const PINS: &str = "/sys/fs/bpf/conmon";
/// The oldest kernel that is served.
const OLDEST: (u32, u32) = (5, 15);
/// A port that is nameless for longer belongs to nobody the engine knows, or we lost its name.
const NAMED_WITHIN: Duration = Duration::from_secs(2);
/// More replacements than this are no accident.
const RESTARTS: u64 = 3;
/// A table that is fuller than this may soon be full.
const FULL: f64 = 0.8;
/// Flow tables find room for their records for longer.
const FLOWS_FULL: f64 = 0.875;
/// Of so many flow records, one packet more that found none is no news.
const COLLIDE: u64 = 256;
/// Clocks drift apart by less, whatever NTP does.
const STEP: Duration = Duration::from_secs(1);
/// Names that are listed before the rest is only counted.
const LISTED: usize = 5;
/// What found no room is a fault for so long after it happened last.
const PAST: Duration = Duration::from_secs(600);

fn check(name: &str, problem: Option<String>, fine: impl Into<String>, remedy: &str) -> Check {
    let ok = problem.is_none();
    Check {
        name: name.to_owned(),
        ok,
        detail: problem.unwrap_or_else(|| fine.into()),
        remedy: (!ok).then(|| remedy.to_owned()),
    }
}

/// The first few, and how many more.
fn list<T: AsRef<str>>(names: &[T]) -> String {
    let mut text = names.iter().take(LISTED).map(AsRef::as_ref).collect::<Vec<_>>().join("; ");
    if names.len() > LISTED {
        text.push_str(&format!("; and {} more", names.len() - LISTED));
    }
    text
}

fn some<T: AsRef<str>>(names: &[T]) -> Option<String> {
    (!names.is_empty()).then(|| list(names))
}

/// All checks.
pub fn checks(
    shared: &Shared,
    published: &Published,
    pins_dir: &Path,
    clocks: &Clocks,
    tls: Option<&Tls>,
    reckoning: &Result<Reckoning, ApiError>,
) -> Vec<Check> {
    let now = monotonic();
    let mut all = vec![
        engine(published),
        capabilities(&crate::privilege::missing(), &crate::privilege::covered()),
        kernel(&shared.info.kernel, published),
        bpffs(),
        membarrier(),
        taps(published),
        names(published, now),
        translations(published),
        monitors(published, &silent_monitors(shared, published, now)),
        coverage(published),
        tables(shared, published, monotonic()),
        ring(shared, published, monotonic()),
        pins(shared, pins_dir),
        clock(clocks, &Clocks::now()),
        ledger(reckoning),
    ];
    if let Some(tls) = tls {
        all.extend(secure::checks(&tls.state(), tls.files(), jiff::Timestamp::now()));
    }
    if let Some(system) = shared.system() {
        let now = crate::registry::now().wall_ns;
        all.extend(hosts::checks(
            &system.registry_health(),
            &system.counters(),
            &system.clocks(),
            system.others(),
            now,
        ));
    }
    all
}

fn engine(published: &Published) -> Check {
    let e = &published.engine;
    let why = e.error.as_deref();
    let problem = match (e.connected, why) {
        (true, None) => None,
        (true, Some(why)) => {
            Some(format!("{} at {} does not tell of its containers: {why}", e.name, e.address))
        }
        (false, why) => {
            Some(format!("{} at {} does not answer: {}", e.name, e.address, why.unwrap_or("not asked yet")))
        }
    };
    let fine = format!("{} {} answers at {}", e.name, e.version.as_deref().unwrap_or(""), e.address);
    check(
        "engine",
        problem,
        fine,
        "start the engine, or give its address (conmond --help), or let what guards its socket pass GET requests \
         (docs/network-modes.md); counting goes on meanwhile",
    )
}

/// `covered`: those that are there as parts of others only.
fn capabilities(missing: &[Need], covered: &[Need]) -> Check {
    let sentence = |n: &Need| {
        let so = n.without.map_or_else(String::new, |w| format!(": {w}"));
        format!("{} is missing, which is needed to {}{so}", n.capability, n.why)
    };
    let problems: Vec<String> = missing.iter().map(sentence).collect();
    let (mut names, mut parts) = (Vec::new(), String::new());
    for need in NEEDS {
        let whole = covered.iter().find(|c| c.capability == need.capability).and_then(|c| c.part_of);
        match whole {
            Some(whole) => parts.push_str(&format!(", {} as part of {whole}", need.capability)),
            None => names.push(need.capability.to_string()),
        }
    }
    check(
        "capabilities",
        some(&problems),
        format!("{}{parts} are there, all others are given up", names.join(", ")),
        "start conmond as root, by its systemd unit, or with the cap_add of packaging/compose.yaml; docs/privileges.md says what each is for",
    )
}

/// The first two numbers of a kernel's release.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel(text: &str, published: &Published) -> Check {
    let how = published.attachment.as_str();
    let problem = match (release(text), how) {
        (None, _) => Some(format!("the kernel's release `{text}` cannot be read")),
        (Some(r), _) if r < OLDEST => Some(format!("Linux {text} is older than {}.{}", OLDEST.0, OLDEST.1)),
        (_, "tcx" | "clsact") => None,
        (_, "") if published.ports.is_empty() && published.refused.is_empty() => None,
        (_, "") => Some(format!("Linux {text} takes the tap's programs by neither TCX nor clsact")),
        (_, other) => Some(format!("programs are attached by `{other}`, which this version does not know")),
    };
    let fine = match how {
        "" => format!("Linux {text}; no port is tapped yet"),
        how => format!("Linux {text}; programs are attached by {how}"),
    };
    check(
        "kernel",
        problem,
        fine,
        "run Linux 5.15 or later with BPF and, before 6.6, with the clsact scheduler (sch_ingress)",
    )
}

fn bpffs() -> Check {
    let problem = match tap::filesystem::is_mounted() {
        Ok(true) => None,
        Ok(false) => Some(format!("{BPF_FS} is there, but no BPF file system is mounted on it")),
        Err(e) => Some(format!("{BPF_FS} cannot be looked at: {e}")),
    };
    check(
        "bpffs",
        problem,
        format!("the BPF file system is mounted on {BPF_FS}"),
        "mount -t bpf bpf /sys/fs/bpf; until then counting ends with the daemon",
    )
}

fn translations(published: &Published) -> Check {
    let t = &published.translations;
    let problem = match (&published.nat_error, t.full) {
        (Some(error), _) => Some(error.clone()),
        (None, 0) => None,
        (None, full) => Some(format!(
            "{full} translated conversations found no room beside {}: their far ends are named by the address that was seen",
            t.known
        )),
    };
    let missed = match t.overruns {
        0 => String::new(),
        n => format!("; the kernel dropped messages {n} times, and all was listed anew"),
    };
    check(
        "nat",
        problem,
        format!("{} translated conversations are told apart{missed}", t.known),
        "let conmond have CAP_NET_ADMIN and the kernel nf_conntrack_netlink; if there are too many, lower net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    )
}

fn membarrier() -> Check {
    let there = membarrier_query().contains_command(MembarrierCommand::Global);
    let problem =
        (!there).then(|| "the kernel refuses membarrier: ended records cannot be settled safely".to_owned());
    check(
        "membarrier",
        problem,
        "grace periods can be waited for",
        "run a kernel with CONFIG_MEMBARRIER and without nohz_full, and allow membarrier in conmond's seccomp profile",
    )
}

fn taps(published: &Published) -> Check {
    let mut wrong: Vec<String> =
        published.refused.iter().map(|(port, why)| format!("{port} is refused: {why}")).collect();
    if published.untapped > 0 {
        wrong.push(format!("{} ports on watched bridges are not tapped", published.untapped));
    }
    let fine = format!("{} ports are tapped, none on a watched bridge is not", published.ports.len());
    check(
        "taps",
        some(&wrong),
        fine,
        "see the daemon's log for the kernel's reason; refused ports are tried again every 2 s",
    )
}

fn names(published: &Published, now: Timestamp) -> Check {
    let nameless: Vec<String> = published
        .ports
        .iter()
        .filter(|p| p.container.is_none() && now - p.tapped_at > NAMED_WITHIN)
        .map(|p| format!("{} has had no name for {} s", p.interface, (now - p.tapped_at).as_secs()))
        .collect();
    let named = published.ports.iter().filter(|p| p.container.is_some()).count();
    check(
        "names",
        some(&nameless),
        format!("{named} of {} ports have their container's name, the others are new", published.ports.len()),
        "see whether the engine answers and knows the container behind the port; what is counted gets its name then",
    )
}

fn monitors(published: &Published, silent: &[String]) -> Check {
    let mut wrong: Vec<String> = silent.iter().map(|name| format!("{name} does not report")).collect();
    wrong.extend(published.restarts.iter().filter(|(_, n)| **n > RESTARTS).map(|(tenant, n)| {
        let whose = if tenant.is_empty() { "the pool's".to_owned() } else { format!("tenant {tenant}'s") };
        format!("{whose} monitoring container was replaced {n} times since the daemon started")
    }));
    let alone: Vec<&str> = published
        .monitors
        .iter()
        .filter(|(_, m, _)| m.mode == MonitorMode::Host)
        .filter_map(|(_, m, _)| m.tenant.as_deref())
        .collect();
    if !alone.is_empty() {
        // the daemon has put the reason in a sentence
        let why = published.problems.iter().find(|p| p.contains("monitoring containers"));
        wrong.push(
            why.cloned().unwrap_or_else(|| format!("conmond itself measures tenants {}", list(&alone))),
        );
    }
    let working =
        published.sets.iter().filter(|s| !matches!(s.role, SetRole::Pool | SetRole::Nursery)).count();
    check(
        "monitors",
        some(&wrong),
        format!(
            "{working} monitoring containers report, {} of {} wait",
            published.pool.ready, published.pool.wanted
        ),
        "see the engine's log of the monitoring container; it may need more memory (conmond --help), and the engine's \
         socket must allow making images and containers; until then all is measured, but not apart from the daemon",
    )
}

/// Containers that run and are not measured, or not at ports of their own. Nothing is wrong with that, but whoever misses
/// their traffic looks here.
fn coverage(published: &Published) -> Check {
    let running = || published.containers.iter().filter(|c| super::is_running(&c.state));
    let measured = running().filter(|c| c.networks.iter().any(|n| n.tapped_at.is_some())).count();
    let others: Vec<String> =
        running().filter_map(|c| Some(format!("{}: {}", c.name, c.note.as_deref()?))).collect();
    let mut fine = format!(
        "{measured} of {} running containers are measured at their ports or control groups",
        running().count()
    );
    if !others.is_empty() {
        fine.push_str(&format!("; {}", list(&others)));
    }
    check("coverage", None, fine, "")
}

fn tables(shared: &Shared, published: &Published, now: Timestamp) -> Check {
    let store = shared.store();
    let taken = store.fills();
    let (mut wrong, mut past) = (Vec::new(), Vec::new());
    let (mut small, mut coarse, mut lost) = (0u64, 0u64, 0u64);
    for set in published.sets.iter() {
        let whose = whose(set.tenant.as_deref(), set.id);
        small = small.saturating_add(set.outgrown);
        let [(pairs_grow, unpaired_before), (hists_grow, lost_before)] = set.extends;
        coarse = coarse.saturating_add(unpaired_before);
        lost = lost.saturating_add(lost_before);
        let kinds = ["flows", "pairs", "ports", "histograms"];
        for (kind, fill) in kinds.iter().zip(fills(set, taken.get(&set.id).copied().unwrap_or_default())) {
            let Fill { used, capacity } = fill;
            // a table that may grow does so before it is full
            let grows = match *kind {
                "flows" => capacity < u64::from(set.max_flows),
                "pairs" => pairs_grow,
                "histograms" => hists_grow,
                _ => false,
            };
            let full = if *kind == "flows" { FLOWS_FULL } else { FULL };
            if fill.ratio() > full && !grows {
                wrong.push(format!("{whose}: {used} of {capacity} {kind} are taken"));
            }
        }
        let report = store.set(set.id);
        let c = report.map(|r| r.counters).unwrap_or_default();
        // what these tell has happened, some time
        let counted = match report {
            Some(report) if now - report.tables_short_at > PAST => &mut past,
            _ => &mut wrong,
        };
        // a few keys collide in a table that is far from full
        let overflowed = c.flow_full.saturating_sub(set.outgrown);
        let few = set.grows || overflowed <= u64::from(set.spec.flows) / COLLIDE;
        small = small.saturating_add(if few { overflowed } else { 0 });
        if !few && set.spec.flows >= set.max_flows {
            counted.push(format!(
                "{whose}: {overflowed} packets found no flow record and count in their pair only; the table has grown to its \
                 bound of {} (tables.max_flows)",
                set.spec.flows
            ));
        }
        for (n, what) in [
            (
                c.pair_full.saturating_sub(unpaired_before),
                "packets found no pair record and count in their port's overflow only",
            ),
            (c.port_full, "packets found no port record and count for no port"),
            (c.hist_full.saturating_sub(lost_before), "round-trip delays found no histogram and are lost"),
        ] {
            if n > 0 {
                counted.push(format!("{whose}: {n} {what}"));
            }
        }
        if c.unpaired > 0 && !pairs_grow {
            wrong.push(format!(
                "{whose}: {} flows found no pair record and are in no row of pairs; the table has its {} records and no more \
                 (tables.max_pairs; at most 64 times what it began with)",
                c.unpaired,
                set.spec.pair_slots()
            ));
        }
    }
    let mut fine = format!("no table of {} sets is full", published.sets.len());
    if small > 0 {
        fine.push_str(&format!(
            "; {small} packets count in their pair only, from before flow tables grew or because keys collide"
        ));
    }
    if coarse > 0 || lost > 0 {
        fine.push_str(&format!(
            "; {coarse} packets count in their port's overflow only and {lost} round-trip delays are lost, from before tables for pairs \
             and histograms grew"
        ));
    }
    if !past.is_empty() {
        fine.push_str(&format!("; more than {} min ago: {}", PAST.as_secs() / 60, list(&past)));
    }
    check(
        "tables",
        some(&wrong),
        fine,
        "give sets larger tables (conmond --help); totals stay exact whatever overflows",
    )
}

fn whose(tenant: Option<&str>, set: SetId) -> String {
    tenant.map_or_else(|| format!("set {set}"), |t| format!("tenant {t}"))
}

fn ring(shared: &Shared, published: &Published, now: Timestamp) -> Check {
    let store = shared.store();
    let (mut wrong, mut past) = (Vec::new(), Vec::new());
    for set in published.sets.iter() {
        let Some(report) = store.set(set.id).filter(|report| report.counters.ring_full > 0) else { continue };
        let counted = if now - report.ring_short_at > PAST { &mut past } else { &mut wrong };
        let (whose, dropped) = (whose(set.tenant.as_deref(), set.id), report.counters.ring_full);
        counted.push(format!("{whose}: {dropped} flow events found no room"));
    }
    let mut fine = "no flow event was dropped".to_owned();
    if !past.is_empty() {
        fine.push_str(&format!(" in the last {} min; before, {}", PAST.as_secs() / 60, list(&past)));
    }
    check(
        "ring",
        some(&wrong),
        fine,
        "give sets a larger ring (conmond --help); events are missing in the list of ended flows, not in any total",
    )
}

fn pins(shared: &Shared, dir: &Path) -> Check {
    let sets: BTreeSet<String> = shared.sets().keys().map(SetId::to_string).collect();
    let is_known = |name: &String| {
        sets.contains(name) || (name == tap::Dispatcher::DIR && shared.dispatcher().is_some())
    };
    let problem = match fs::read_dir(dir) {
        Ok(entries) => {
            let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            let mut unknown: Vec<String> = names
                .filter(|n| !is_known(n))
                .map(|n| format!("{} is of no set that is loaded", dir.join(n).display()))
                .collect();
            unknown.sort();
            some(&unknown)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && sets.is_empty() => None,
        Err(e) => Some(format!("{} cannot be listed: {e}", dir.display())),
    };
    check(
        "pins",
        problem,
        format!("{} holds the pins of {} sets and no others", dir.display(), sets.len()),
        "restart the daemon, which adopts or removes them; if they stay, `conmonctl down` removes every pin of the instance",
    )
}

/// The host's clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Boot time less monotonic time: how long the host slept, in nanoseconds.
    slept_ns: i128,
    /// Real time less monotonic time, in nanoseconds.
    wall_ns: i128,
}

impl Clocks {
    /// Now.
    pub fn now() -> Self {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or(0, |t| i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec()));
        Self {
            slept_ns: since_boot - i128::from(monotonic().as_nanos()),
            wall_ns: tap::clock::wall_offset_ns(),
        }
    }
}

fn clock(then: &Clocks, now: &Clocks) -> Check {
    let step = i128::from(nanos(STEP));
    let seconds = |ns: i128| ns as f64 / 1e9;
    let mut wrong = Vec::new();
    // monotonic time is read after boot time, and both tell the same or the host slept
    if now.slept_ns < -step {
        wrong.push("the kernel's clocks contradict each other".to_owned());
    }
    let slept = now.slept_ns - then.slept_ns;
    if slept.abs() > step {
        wrong.push(format!("the host slept for {:.1} s since the daemon started", seconds(slept)));
    }
    // both clocks are steered alike, so that only a step moves them against each other; sleep moves them, too
    let stepped = now.wall_ns - then.wall_ns - slept;
    if stepped.abs() > step {
        wrong.push(format!("the host's clock was set {:+.1} s since the daemon started", seconds(stepped)));
    }
    check(
        "clock",
        some(&wrong),
        "the host's clocks agree, none was set since the daemon started",
        "keep the clock by NTP; measured times are right, and times shown for what was before move with the clock: restart the daemon to forget this",
    )
}

fn ledger(reckoning: &Result<Reckoning, ApiError>) -> Check {
    let remedy = "see `conmonctl doctor -o json`; programs of others before ours on a port (bpftool net) hide packets from it, \
                  and so do port features that split or join packets (ethtool -k)";
    match reckoning {
        Err(e) => check(
            "ledger",
            Some(format!("it cannot be read: {}", e.error)),
            "",
            "ask again; see the daemon's log",
        ),
        Ok(r) => {
            let l = &r.answer.ledger;
            let mut fine = format!(
                "all {} packets that {} interfaces counted are accounted for",
                l.observed,
                r.answer.ports.len() - r.without_baseline.len()
            );
            if !r.without_baseline.is_empty() {
                let left_out = list(&r.without_baseline);
                fine.push_str(&format!(
                    "; not compared, because the beginning of their taps is not known: {left_out}"
                ));
            }
            // a ledger that does not balance says where, or that the sums do not
            let problem =
                (!l.balanced).then(|| some(&r.off).unwrap_or_else(|| "its two sides differ".to_owned()));
            check("ledger", problem, fine, remedy)
        }
    }
}

#[cfg(test)]
mod tests;
