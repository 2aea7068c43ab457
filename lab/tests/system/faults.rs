//! conmond dies at every step at which it leaves something half done: while it starts, taps a port, moves it, fastens
//! its tap, settles records, stops and removes its traces. Its next start makes good of whatever it finds: nothing that
//! was counted is lost or counted twice, and `conmonctl down` leaves nothing.
//!
//! The build of `scripts/build-next` has the points (`tap::fault`). `CONMON_FAULT_POINTS`, a list parted by commas, asks for
//! these alone.

use crate::state::*;
use crate::support::*;
use crate::traffic::Traffic;
use anyhow::{Context, Result, bail, ensure};
use lab::traffic::UdpSent;
use lab::{Conmond, ConmondOptions, Container, Host, root_test, wait_for, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for conmond to come to a point.
const DEATH: Duration = Duration::from_secs(12);
/// Datagrams of a burst.
const BURST: u64 = 200;

/// From nothing to the first answer, with containers that run already; a number is a later passing of the point.
const START: &[&str] = &[
    "start.bound",
    "dispatch.pinned",
    "dispatch.holder",
    "dispatch.bound",
    "dispatch.filter",
    "set.dir",
    "set.pin-next",
    "set.pin",
    "set.pin 4",
    "nursery.pinned",
    "dispatch.put-tx",
    "dispatch.put-rx",
    "shared.bound",
    "shared.marked",
    "tap.attached",
    "adopt.sets",
    "adopt.port",
    "adopt.done",
    "start.controller",
    "state.written",
    "pool.pinned",
    "monitor.image",
    "monitor.created",
    "monitor.started",
];

/// A container of a new tenant starts.
const TAP: &[&str] = &[
    "dispatch.put-tx",
    "dispatch.put-rx",
    "shared.bound",
    "shared.marked",
    "tap.attached",
    "assign.unsaved",
    "assign.saved",
    "move.renamed",
    "dispatch.put-tx 2",
    "dispatch.put-rx 2",
    "pool.pinned",
    "monitor.created",
];

/// The same, with filters of the port's own.
const TAP_CLSACT: &[&str] = &["filters.marked", "filters.put", "move.both"];

/// The same, by TCX from the beginning.
const TAP_TCX: &[&str] = &[
    "links.tx",
    "links.rx",
    "links.pin-tx",
    "links.pin-rx",
    "move.renamed",
    "move.renamed 2",
    "move.tx",
    "move.rx",
];

/// At these not both directions are tapped when conmond dies: what passes until it is back is not all counted.
const UNTAPPED: &[&str] = &["dispatch.put-tx", "dispatch.put-rx", "filters.marked", "links.tx", "links.rx"];

/// A tap goes over from classifiers to TCX.
const FASTEN: &[&str] = &[
    "overlap.on",
    "links.tx",
    "links.rx",
    "links.pin-tx",
    "links.pin-rx",
    "unfilter.shared",
    "settle.grace",
    "settle.overlap-off",
    "settle.unpinned",
];

/// A port that is held by TCX, and to which nothing is sent, is taken off the filters that it shared.
const TIDY: &[&str] = &["tidy.unbound"];

/// A container goes, and what was counted with it is settled.
const SETTLE: &[&str] = &["settle.ended", "settle.folded", "settle.journalled", "settle.freed"];

/// A tenant has no container any more.
const RETIRE: &[&str] = &["retire.begun", "retire.settled", "set.unpin", "retire.unpinned"];

/// The journal is read, and written anew without what is in the kernel still.
const JOURNAL: &[&str] = &["journal.written"];

/// A flow table grows.
const GROW: &[&str] =
    &["grow.pinned", "move.both", "drain.switched", "drain.moved", "drain.folded", "grow.drained"];

/// A table is adopted that was growing when conmond died.
const ADOPT_GROWING: &[&str] =
    &["adopt.port", "drain.switched", "drain.moved", "drain.folded", "adopt.drained"];

/// A table for pairs is extended.
const EXTEND: &[&str] = &["extend.made", "extend.pinned", "extend.placed"];

/// The control group of a container on the host's network is tapped.
const GROUP: &[&str] = &["group.tx", "links.pin-tx", "links.pin-rx"];

/// An orderly end.
const STOP: &[&str] = &["stop.served", "stop.saved"];

/// `conmonctl down`.
const CLEAN: &[&str] = &[
    "detach.unfiltered",
    "unfilter.tx",
    "unfilter.rx",
    "clean.untapped",
    "set.unpin",
    "dispatch.unfiltered",
    "clean.holder",
    "clean.unpinned",
    "clean.monitors",
    "clean.state",
];

/// A host, and a conmond that can be told where to die.
struct Faults<'a> {
    host: &'a Host,
    conmond: Conmond,
    file: PathBuf,
    failures: Vec<String>,
}

/// Runs a test with one host, one network and a conmond with fault points, not started yet.
fn with_faults(
    name: &str,
    settings: &[(&str, &str)],
    body: impl FnOnce(&mut Faults<'_>) -> Result<()>,
) -> Result<()> {
    const PROGRAMS: [&str; 2] = ["next/conmond", "next/conmonctl"];
    if !built(name, &PROGRAMS)? {
        return Ok(());
    }
    root_test(name, |lab| {
        let host = lab.host("h1")?;
        host.network(NET, None)?;
        let file = host.dir().join("fault");
        let bin_dir = lab::program(PROGRAMS[0])?.parent().map(Path::to_path_buf);
        let mut env = vec![("CONMON_FAULT_FILE".to_string(), file.display().to_string())];
        env.extend(settings.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        let options = ConmondOptions { bin_dir, env, ..ConmondOptions::default() };
        let conmond = Conmond::prepare(&host, options)?;
        let mut faults = Faults { host: &host, conmond, file, failures: Vec::new() };
        body(&mut faults)?;
        ensure!(faults.failures.is_empty(), "{}", faults.failures.join("\n"));
        Ok(())
    })
}

/// The points of a list that are asked for.
fn chosen(points: &[&'static str]) -> Vec<&'static str> {
    let wanted = std::env::var("CONMON_FAULT_POINTS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|w| !w.is_empty()).collect();
    points.iter().copied().filter(|p| wanted.is_empty() || wanted.contains(p)).collect()
}

impl Faults<'_> {
    fn arm(&self, point: &str) -> Result<()> {
        std::fs::write(&self.file, point).with_context(|| format!("cannot arm {point}"))
    }

    /// Waits until conmond has died at the point that is armed.
    fn await_death(&mut self, point: &str) -> Result<()> {
        let ended = self.conmond.await_end(DEATH);
        let reached = !self.file.exists();
        if !reached {
            std::fs::remove_file(&self.file).context("cannot disarm")?;
        }
        let status = ended.with_context(|| format!("conmond did not come to {point}"))?;
        ensure!(reached, "conmond ended ({status}), but not at {point}");
        Ok(())
    }

    /// Starts conmond, which dies at the point: before its first answer or after.
    fn dies_starting(&mut self, point: &str) -> Result<()> {
        if self.conmond.is_running() {
            self.conmond.stop()?;
        }
        self.arm(point)?;
        self.conmond.launch()?;
        self.await_death(point)
    }

    /// Does something at each point; what fails is kept, so that one defect does not hide another.
    fn each(
        &mut self,
        points: &[&'static str],
        mut act: impl FnMut(&mut Self, &'static str) -> Result<()>,
    ) -> Result<()> {
        for point in chosen(points) {
            let began = std::time::Instant::now();
            if let Err(error) = act(self, point) {
                self.failures.push(format!("{point}: {error:#}"));
                eprintln!("{point}: FAILED: {error:#}");
                let _ = std::fs::remove_file(&self.file);
                if !self.conmond.is_running() {
                    self.conmond.up().with_context(|| self.failures.join("\n"))?;
                }
            }
            eprintln!("{point}: {:.1} s", began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Ends it, and looks that nothing is left.
    fn down(&mut self) -> Result<()> {
        self.conmond.down()?;
        nothing_is_left(self.host, &self.conmond)
    }

    /// Everything is as if nothing had happened: monitors work, the books balance, no address is without its name.
    fn is_whole(&self, containers: &[&Container]) -> Result<()> {
        settled(&self.conmond)?;
        wait_until("names for all and books that balance", READY, || {
            self.strangers(containers)?;
            balanced(&self.conmond)
        })
    }

    /// No end of a pair is a mere address, if it is one of these containers'.
    fn strangers(&self, containers: &[&Container]) -> Result<()> {
        let mut addresses = BTreeSet::new();
        for container in containers {
            addresses.insert(container.ipv4(NET)?.to_string());
        }
        let answer = self.conmond.ctl(&["pairs", "--all"])?;
        for pair in rows(&answer, "pairs") {
            for end in ["src", "dst"] {
                let theirs = |a: &Value| a.as_str().is_some_and(|a| addresses.contains(a));
                let of_ours = rows(&pair[end], "addresses").iter().any(theirs);
                ensure!(!of_ours || pair[end]["id"].is_string(), "an end without a name: {pair}");
            }
        }
        Ok(())
    }

    /// The port of a container is counted as its interface counts it, or is said to have nothing to compare with.
    fn port_is_honest(&self, container: &str) -> Result<()> {
        self.conmond.wait_ctl(&format!("an honest port of {container}"), READY, &["ledger"], |answer| {
            let port = row(answer, "ports", "container", container)?;
            (port["interface_sent_packets"].is_null() || agrees(port)).then_some(())
        })
    }
}

/// A container that does nothing by itself.
fn idle(host: &Host, name: &str, tenant: &str) -> Result<Container> {
    let spec = lab::Spec::app(name, lab::App::Labgen).network(NET).compose(tenant, name);
    host.run(&spec)
}

/// Sends datagrams from a running container and returns when that is done.
fn burst(from: &Container, to: &Container) -> Result<UdpSent> {
    let (to, count) = (format!("{}:9000", to.ipv4(NET)?), BURST.to_string());
    let said = from.exec(&["/labgen", "udp-send", "--to", &to, "--rate", "2000", "--count", &count])?;
    serde_json::from_str(said.lines().last().unwrap_or_default()).with_context(|| format!("it said {said:?}"))
}

#[test]
fn every_fault_point_is_in_a_test() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut there = BTreeSet::new();
    for folder in ["tap/src", "conmond/src"] {
        points_below(&root.join(folder), &mut there)?;
    }
    let lists = [
        START,
        TAP,
        TAP_CLSACT,
        TAP_TCX,
        FASTEN,
        TIDY,
        SETTLE,
        RETIRE,
        JOURNAL,
        GROW,
        ADOPT_GROWING,
        EXTEND,
        GROUP,
        STOP,
        CLEAN,
    ];
    let name = |point: &&str| point.split(' ').next().unwrap_or_default().to_string();
    let tested: BTreeSet<String> = lists.into_iter().flatten().map(name).collect();
    ensure!(
        there == tested,
        "in the sources but not here: {:?}; here but not there: {:?}",
        there.difference(&tested),
        tested.difference(&there)
    );
    Ok(())
}

/// The names of the points in the sources below a folder: text in quotes within the argument of `fault::point`.
fn points_below(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("cannot look into {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            points_below(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("fault.rs") {
            let text = std::fs::read_to_string(&path)?;
            for call in text.split("fault::point(").skip(1) {
                let call = call.split(')').next().unwrap_or_default();
                found.extend(call.split('"').skip(1).step_by(2).map(str::to_string));
            }
        }
    }
    Ok(())
}

#[test]
fn root_death_at_each_step_of_a_first_start() -> Result<()> {
    with_faults("death at start", &[], |faults| {
        let sink = listening(faults.host, "udp-sink", "udp-sink")?;
        let sender = idle(faults.host, "sender", TENANT)?;
        faults.each(START, |faults, point| {
            faults.dies_starting(point)?;
            // Counted or not, as far as the tap has come.
            burst(&sender, &sink).map(drop)
        })?;
        if !faults.conmond.is_running() {
            faults.conmond.up()?;
        }
        faults.is_whole(&[&sink, &sender])?;
        let before =
            pair(&faults.conmond.ctl(&["pairs"])?, "sender", "udp-sink").map_or(0, |p| packets(&p["sent"]));
        let sent = burst(&sender, &sink)?.sent;
        let after = pair_with(&faults.conmond, "sender", "udp-sink", before + sent)?;
        ensure!(packets(&after["sent"]) == before + sent, "{before} and {sent} made {after}");
        for name in ["sender", "udp-sink"] {
            faults.port_is_honest(name)?;
        }
        faults.is_whole(&[&sink, &sender])?;
        pins_are_the_daemon_s(&faults.conmond)?;
        faults.down()
    })
}

/// For each point: a container of a new tenant starts, conmond dies over it and is started again.
fn new_containers(faults: &mut Faults<'_>, points: &[&'static str], prefix: &str) -> Result<()> {
    faults.conmond.up()?;
    settled(&faults.conmond)?;
    let traffic = Traffic::start(faults.host, &faults.conmond)?;
    let sink = listening(faults.host, "later-sink", "udp-sink")?;
    let to = listening(faults.host, "new-sink", "udp-sink")?;
    let words = format!("udp-send --to {}:9000 --rate 1000 --count {BURST} --hold 1", to.ipv4(NET)?);
    let mut number = 0;
    faults.each(points, |faults, point| {
        number += 1;
        let name = format!("{prefix}{number}");
        faults.arm(point)?;
        let spec = lab::Spec::app(&name, lab::App::Labgen).network(NET).compose(&name, &name);
        let new = faults.host.run(&spec.command(words.split(' ')))?;
        let sent = report_of(&new)?.sent;
        faults.await_death(point)?;
        faults.conmond.up()?;
        let later = burst(&new, &sink)?.sent;
        let pair_later = pair_with(&faults.conmond, &name, "later-sink", later)?;
        ensure!(packets(&pair_later["sent"]) == later, "{later} sent after the restart, but {pair_later}");
        if !UNTAPPED.contains(&point) {
            pair_with(&faults.conmond, &name, "new-sink", sent)?;
        }
        let pairs = faults.conmond.ctl(&["pairs"])?;
        let first = pair(&pairs, &name, "new-sink").map_or(0, |p| packets(&p["sent"]));
        ensure!(first <= sent, "{sent} sent, {first} counted");
        faults.port_is_honest(&name)?;
        faults.is_whole(&[&sink, &to, &new])?;
        new.remove()
    })?;
    traffic.was_counted_exactly(&faults.conmond)?;
    faults.is_whole(&[])?;
    pins_are_the_daemon_s(&faults.conmond)?;
    faults.down()
}

#[test]
fn root_death_while_a_port_is_tapped_and_moved() -> Result<()> {
    with_faults("death over a new port", &[("CONMON_TIMEOUTS_TENANT_LINGER_SECONDS", "2")], |faults| {
        new_containers(faults, TAP, "new")
    })
}

#[test]
fn root_death_while_a_port_is_tapped_and_moved_by_its_own_filters() -> Result<()> {
    let settings = [("CONMON_TAP", "clsact"), ("CONMON_TIMEOUTS_TENANT_LINGER_SECONDS", "2")];
    with_faults("death over a new port, clsact", &settings, |faults| {
        new_containers(faults, TAP_CLSACT, "own")
    })
}

#[test]
fn root_death_while_a_port_is_tapped_and_moved_by_tcx() -> Result<()> {
    let settings = [("CONMON_TAP", "tcx"), ("CONMON_TIMEOUTS_TENANT_LINGER_SECONDS", "2")];
    with_faults("death over a new port, TCX", &settings, |faults| new_containers(faults, TAP_TCX, "fast"))
}

#[test]
fn root_death_while_a_tap_is_fastened() -> Result<()> {
    with_faults("death over fastening", &[], |faults| {
        faults.conmond.up()?;
        let traffic = Traffic::start(faults.host, &faults.conmond)?;
        faults.conmond.stop()?;
        // Of the four ports some have their classifiers still, under traffic, at each of these deaths.
        faults.each(FASTEN, |faults, point| {
            faults.dies_starting(point)?;
            traffic.goes_on(1).map(drop)
        })?;
        if !faults.conmond.is_running() {
            faults.conmond.up()?;
        }
        traffic.was_counted_exactly(&faults.conmond)?;
        pins_are_the_daemon_s(&faults.conmond)?;
        faults.down()
    })
}

#[test]
fn root_death_while_records_are_settled() -> Result<()> {
    with_faults("death over records", &[("CONMON_TIMEOUTS_TENANT_LINGER_SECONDS", "0")], |faults| {
        faults.conmond.up()?;
        settled(&faults.conmond)?;
        let traffic = Traffic::start(faults.host, &faults.conmond)?;
        let sink = listening(faults.host, "later-sink", "udp-sink")?;
        let mut number = 0;
        let mut gone: Vec<(String, u64)> = Vec::new();
        let points: Vec<&'static str> = [SETTLE, JOURNAL, RETIRE].concat();
        faults.each(&points, |faults, point| {
            number += 1;
            let name = format!("gone{number}");
            // Of its own tenant where that shall go, too.
            let tenant = if RETIRE.contains(&point) { name.as_str() } else { TENANT };
            let container = idle(faults.host, &name, tenant)?;
            let sent = burst(&container, &sink)?.sent;
            pair_with(&faults.conmond, &name, "later-sink", sent)?;
            settled(&faults.conmond)?;
            if JOURNAL.contains(&point) {
                // A record that the kernel still has must be in the journal for it to be written anew.
                faults.arm("settle.journalled")?;
                container.remove()?;
                faults.await_death("settle.journalled")?;
                faults.dies_starting(point)?;
            } else {
                faults.arm(point)?;
                container.remove()?;
                faults.await_death(point)?;
            }
            faults.conmond.up()?;
            gone.push((name, sent));
            let mut last = String::new();
            let all = wait_for("what was sent by those who have gone", END, || {
                let answer = faults.conmond.ctl(&["pairs"])?;
                let counted =
                    |name: &str| pair(&answer, name, "later-sink").map_or(0, |p| packets(&p["sent"]));
                let off: Vec<_> = gone.iter().filter(|(name, sent)| counted(name) != *sent).collect();
                last = format!("{off:?} of {answer}");
                Ok(off.is_empty().then_some(()))
            });
            all.context(last)?;
            faults.is_whole(&[&sink])
        })?;
        traffic.was_counted_exactly(&faults.conmond)?;
        pins_are_the_daemon_s(&faults.conmond)?;
        faults.each(TIDY, |faults, point| {
            faults.arm(point)?;
            let late = idle(faults.host, "late", "late")?;
            faults.await_death(point)?;
            faults.conmond.up()?;
            faults.is_whole(&[&late])
        })?;
        pins_are_the_daemon_s(&faults.conmond)?;
        faults.down()
    })
}

#[test]
fn root_death_while_it_ends_and_while_it_cleans() -> Result<()> {
    with_faults("death at the end", &[("CONMON_TAP", "clsact")], |faults| {
        let sink = listening(faults.host, "udp-sink", "udp-sink")?;
        let sender = idle(faults.host, "sender", TENANT)?;
        faults.conmond.up()?;
        faults.is_whole(&[&sink, &sender])?;
        let mut sent = 0;
        faults.each(STOP, |faults, point| {
            faults.arm(point)?;
            sent += burst(&sender, &sink)?.sent;
            // It is killed instead of ending by itself, which is no error here.
            faults.conmond.stop()?;
            ensure!(!faults.file.exists(), "conmond ended without coming to {point}");
            sent += burst(&sender, &sink)?.sent;
            faults.conmond.up()?;
            let pair = pair_with(&faults.conmond, "sender", "udp-sink", sent)?;
            ensure!(packets(&pair["sent"]) == sent, "{sent} sent, but {pair}");
            faults.is_whole(&[&sink, &sender])
        })?;
        faults.each(CLEAN, |faults, point| {
            if !faults.conmond.is_running() {
                faults.conmond.up()?;
            }
            // Books without an entry would balance whatever happens.
            burst(&sender, &sink)?;
            faults.is_whole(&[&sink, &sender])?;
            faults.arm(point)?;
            if faults.conmond.down().is_ok() {
                bail!("`conmonctl down` ended well in spite of a death at {point}");
            }
            ensure!(!faults.file.exists(), "`conmonctl down` failed without coming to {point}");
            faults.down()
        })?;
        ensure!(sink.is_running()? && sender.is_running()?, "an application container was touched");
        Ok(())
    })
}

/// A container of a new tenant, whose table is too small for the flows that it begins, half of them while conmond is dead: the table
/// grows at once, and again. Returns the container and how much it is going to send.
fn flows(host: &Host, name: &str, to: &Container) -> Result<Container> {
    let words = format!("udp-flows --to {}:9000 --flows 600 --rounds 6 --rate 900 --hold 1", to.ipv4(NET)?);
    let spec = lab::Spec::app(name, lab::App::Labgen).network(NET).compose(name, name);
    host.run(&spec.command(words.split(' ')))
}

#[test]
fn root_death_while_a_table_grows_and_while_it_is_adopted() -> Result<()> {
    let settings = [
        ("CONMON_TABLES_FLOWS", "256"),
        ("CONMON_TIMEOUTS_TENANT_LINGER_SECONDS", "2"),
        // nothing is fastened meanwhile: each point is of the growing
        ("CONMON_TAP", "clsact"),
    ];
    with_faults("death over a growing table", &settings, |faults| {
        faults.conmond.up()?;
        settled(&faults.conmond)?;
        let to = listening(faults.host, "grow-sink", "udp-sink")?;
        let mut number = 0;
        let mut all: Vec<(String, u64)> = Vec::new();
        let mut go = |faults: &mut Faults<'_>, first: &str, then: Option<&str>| -> Result<()> {
            number += 1;
            let name = format!("grow{number}");
            settled(&faults.conmond)?;
            faults.arm(first)?;
            let storm = flows(faults.host, &name, &to)?;
            faults.await_death(first)?;
            if let Some(point) = then {
                faults.dies_starting(point)?;
            }
            faults.conmond.up()?;
            let line = storm.wait_line("\"packets\"", END)?;
            let sent: lab::traffic::FlowsSent = serde_json::from_str(&line).context(line.clone())?;
            ensure!(sent.packets == 6 * 600, "{line}");
            all.push((name.clone(), sent.packets));
            for (name, sent) in &all {
                let seen = pair_with(&faults.conmond, name, "grow-sink", *sent)?;
                ensure!(packets(&seen["sent"]) == *sent, "{sent} sent by {name}, but {seen}");
            }
            faults.port_is_honest(&name)?;
            faults.is_whole(&[&to, &storm])?;
            let table = faults.conmond.ctl(&["status"])?;
            let grown = rows(&table, "sets").iter().any(|set| {
                set["tenant"] == *name && set["flows"]["capacity"].as_u64().is_some_and(|n| n > 256)
            });
            ensure!(grown, "it did not grow: {}", table["sets"]);
            storm.remove()
        };
        faults.each(GROW, |faults, point| go(faults, point, None))?;
        faults.each(ADOPT_GROWING, |faults, point| go(faults, "grow.pinned", Some(point)))?;
        pins_are_the_daemon_s(&faults.conmond)?;
        faults.down()
    })
}

#[test]
fn root_death_while_a_table_for_pairs_is_extended() -> Result<()> {
    let settings = [
        ("CONMON_TABLES_PAIRS", "64"),
        ("CONMON_TIMEOUTS_TENANT_LINGER_SECONDS", "2"),
        // nothing is fastened meanwhile: each point is of the extending
        ("CONMON_TAP", "clsact"),
    ];
    with_faults("death over a table for pairs", &settings, |faults| {
        const PEERS: u64 = 1000;
        faults.conmond.up()?;
        settled(&faults.conmond)?;
        let to = listening(faults.host, "far-sink", "udp-sink")?;
        let mut number = 0;
        faults.each(EXTEND, |faults, point| {
            number += 1;
            let name = format!("far{number}");
            settled(&faults.conmond)?;
            faults.arm(point)?;
            let words = format!(
                "udp-flows --to 10.255.0.1:1 --peers {PEERS} --flows {PEERS} --rounds 8 --rate 1000 --hold 1"
            );
            let spec = lab::Spec::app(&name, lab::App::Labgen).network(NET).compose(&name, &name);
            let storm = faults.host.run(&spec.command(words.split(' ')))?;
            faults.await_death(point)?;
            faults.conmond.up()?;
            let line = storm.wait_line("\"packets\"", END)?;
            let sent: lab::traffic::FlowsSent = serde_json::from_str(&line).context(line.clone())?;
            ensure!(sent.packets == 8 * PEERS, "{line}");
            // every flow has its pair in the end, those that began before there was room as well
            let seen = pair_with(&faults.conmond, &name, "external", sent.packets)?;
            ensure!(packets(&seen["sent"]) == sent.packets, "{sent:?}, but {seen}");
            faults.port_is_honest(&name)?;
            faults.is_whole(&[&to, &storm])?;
            let status = faults.conmond.ctl(&["status"])?;
            let extended = rows(&status, "sets").iter().any(|set| {
                set["tenant"] == *name
                    && set["pairs"]["used"].as_u64() >= Some(PEERS)
                    && set["pairs"]["capacity"].as_u64() >= Some(2 * PEERS)
            });
            ensure!(extended, "it did not grow: {}", status["sets"]);
            storm.remove()
        })?;
        pins_are_the_daemon_s(&faults.conmond)?;
        faults.down()
    })
}

#[test]
fn root_death_while_a_control_group_is_tapped() -> Result<()> {
    if lab::cgroup_v2().is_none() {
        lab::skipped("death over a control group", "this machine has no control groups of version 2");
        return Ok(());
    }
    // ports are held by classifiers here: the points of links are of the groups
    with_faults("death over a control group", &[("CONMON_TAP", "clsact")], |faults| {
        faults.conmond.up()?;
        settled(&faults.conmond)?;
        let to = listening(faults.host, "group-sink", "udp-sink")?;
        let mut number = 0;
        faults.each(GROUP, |faults, point| {
            number += 1;
            let name = format!("hosted{number}");
            faults.arm(point)?;
            let spec = lab::Spec::app(&name, lab::App::Labgen).network("host").compose("hosted", &name);
            let container = faults.host.run(&spec)?;
            faults.await_death(point)?;
            faults.conmond.up()?;
            faults.conmond.wait_ctl(&format!("{name}'s group"), READY, &["containers"], |answer| {
                let seen = row(answer, "containers", "name", &name)?;
                rows(seen, "networks").iter().any(|n| n["tapped_by"] == "cgroup").then_some(())
            })?;
            let sent = burst(&container, &to)?.sent;
            let seen = pair_with(&faults.conmond, &name, "group-sink", sent)?;
            ensure!(packets(&seen["sent"]) == sent, "{sent} sent, but {seen}");
            faults.is_whole(&[&to])?;
            container.remove()
        })?;
        pins_are_the_daemon_s(&faults.conmond)?;
        faults.down()
    })
}
