//! What holds of conmond whoever keeps it running, systemd or an engine: it has the rights that the page tells, under a system call
//! filter; it measures; it is started again when it dies, without a packet missed; and it is gone for good when that is asked for.

use crate::left::{monitors, nothing_is_left, pins_of};
use crate::monitor::{Monitor, talk};
use crate::page::{CONTROLLER, MONITOR, Started, has_the_descriptors, has_the_rights};
use crate::process::{nice_of, real_time_threads};
use crate::{NET, WAIT};
use anyhow::{Context, Result, ensure};
use lab::traffic::UdpSent;
use lab::{App, Conmond, ConmondOptions, Container, Host, Lab, Spec, wait_for, wait_until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `SECCOMP_MODE_FILTER`, as `/proc/PID/status` has it.
pub const FILTER: u64 = 2;
/// What is to be in order on any host that runs it; the rest depends on the machine.
const CHECKS: [&str; 9] =
    ["engine", "capabilities", "kernel", "bpffs", "taps", "names", "monitors", "pins", "ledger"];

/// A host with a network, and a conmond that somebody else is to start there.
pub fn host_and_conmond(lab: &Lab) -> Result<(Host, Conmond)> {
    let host = lab.host("h1")?;
    host.network(NET, None)?;
    let conmond = Conmond::prepare(&host, ConmondOptions::default())?;
    Ok((host, conmond))
}

/// Waits until it answers.
pub fn answers(conmond: &Conmond) -> Result<()> {
    wait_until("conmond's first answer", WAIT, || conmond.ctl(&["status"]).map(drop))
}

/// Whether it and a monitor that it starts have the rights and descriptors that the page tells, and all is in order. `log` is where its
/// standard streams may go beside pipes.
pub fn has_its_rights_and_works(conmond: &Conmond, host: &Host, log: &Path, started: &Started) -> Result<()> {
    talk(host, "shop")?;
    let monitor = Monitor::of(conmond, host, "shop")?;
    let daemon = conmond.pid()?.to_string();
    has_the_rights(CONTROLLER, &daemon, started)?;
    has_the_descriptors(CONTROLLER, &daemon, log)?;
    has_the_rights(MONITOR, &monitor.pid, started)?;
    wait_until("every check of the doctor's", WAIT, || {
        let out = conmond.command().args(["doctor", "-o", "json"]).output().context("conmonctl doctor")?;
        let answer: Value =
            serde_json::from_slice(&out.stdout).context("`conmonctl doctor` printed no JSON")?;
        let checks = answer["checks"].as_array().context("no checks")?;
        for name in CHECKS {
            let check = checks.iter().find(|check| check["name"] == name);
            ensure!(check.is_some_and(|check| check["ok"] == true), "{name}: {check:?}");
        }
        Ok(())
    })
}

/// Whether the threads that tap come before others, and those that race with the engine run at once, where that is allowed.
pub fn comes_first(daemon: &str, at_once: bool) -> Result<()> {
    let tappers = nice_of(daemon, "tapper")?;
    ensure!(!tappers.is_empty() && tappers.iter().all(|nice| *nice == -15), "nice values: {tappers:?}");
    let real_time = real_time_threads(daemon)?;
    if !at_once {
        lab::skipped("threads that run at once", "this machine allows them to nobody who is started so");
    }
    let expected = vec!["reflex"; if at_once { 5 } else { 0 }];
    ensure!(real_time == expected, "these run before all others: {real_time:?}, not {expected:?}");
    Ok(())
}

fn packets(conmond: &Conmond) -> Result<u64> {
    let answer = conmond.ctl(&["pairs"])?;
    let pairs = answer["pairs"].as_array().context("no pairs")?;
    let of = |pair: &&Value| pair["src"]["name"] == "sender" && pair["dst"]["name"] == "sink";
    Ok(pairs.iter().find(of).and_then(|pair| pair["sent"]["packets"].as_u64()).unwrap_or_default())
}

/// Kills it while a container sends: it is started again by who keeps it, and has counted every packet.
pub fn is_kept_running(conmond: &mut Conmond, host: &Host) -> Result<()> {
    let run = |name: &str, words: &str| -> Result<Container> {
        let spec = Spec::app(name, App::Labgen).network(NET).compose("shop", name);
        host.run(&spec.command(words.split_ascii_whitespace()))
    };
    let sink = run("sink", "udp-sink")?;
    sink.wait_line("listening", WAIT)?;
    let words = format!("udp-send --to {}:9000 --rate 500 --count 0", sink.ipv4(NET)?);
    let sender = run("sender", &words)?;
    wait_for("packets", WAIT, || Ok((packets(conmond)? >= 100).then_some(())))?;

    let first = conmond.pid()?;
    conmond.kill9()?;
    answers(conmond)?;
    let second = conmond.pid()?;
    ensure!(first != second, "process {first} was killed and runs");
    std::thread::sleep(Duration::from_millis(500));
    let sent: UdpSent = sender.stop_and_report()?;
    wait_until("every packet", WAIT, || {
        let counted = packets(conmond)?;
        ensure!(counted == sent.sent, "{counted} packets of {sent:?}");
        Ok(())
    })?;
    eprintln!("{} packets, none missed while process {second} took the place of {first}", sent.sent);
    Ok(())
}

/// What its measuring stands on: pins of taps and maps, and monitoring containers.
#[derive(Debug)]
pub struct Standing {
    pins: BTreeSet<PathBuf>,
    monitors: BTreeSet<String>,
}

impl Standing {
    /// What there is now.
    pub fn of(conmond: &Conmond, host: &Host) -> Result<Self> {
        let (mut pins, mut folders) = (BTreeSet::new(), vec![pins_of(conmond)]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                pins.insert(path);
            }
        }
        Ok(Self { pins, monitors: monitors(host)? })
    }
}

/// Asked for the end of what somebody keeps running, `down` says what to stop first, and takes nothing away.
pub fn down_is_refused(
    conmond: &Conmond,
    host: &Host,
    remedy: &str,
    down: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let before = Standing::of(conmond, host)?;
    ensure!(!before.pins.is_empty() && !before.monitors.is_empty(), "nothing to take away: {before:?}");
    let told = down().err().context("down found nothing of what brings it back")?;
    let told = format!("{told:#}");
    ensure!(told.contains(remedy) && told.contains("nothing w"), "{told}");
    answers(conmond)?;
    let after = Standing::of(conmond, host)?;
    let still = before.pins.is_subset(&after.pins) && before.monitors.is_subset(&after.monitors);
    ensure!(still, "{before:?} became {after:?}");
    Ok(())
}

/// Whether nothing of it is left, and nothing comes back.
pub fn is_gone_for_good(conmond: &Conmond, host: &Host) -> Result<()> {
    // whoever would start it again does so within a second or so
    std::thread::sleep(Duration::from_secs(3));
    nothing_is_left(host, conmond)
}
