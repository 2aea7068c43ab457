//! Another build of conmond takes over in mid-traffic: no packet is missed, monitors follow, nothing of the former
//! build stays. `scripts/build-next` makes the other build.

use crate::support::*;
use crate::traffic::Traffic;
use anyhow::{Context, Result, ensure};
use lab::{Conmond, ConmondOptions, Host, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Which build a daemon is, as it says itself.
fn version(conmond: &Conmond) -> Result<String> {
    let status = conmond.ctl(&["status"])?;
    Ok(status["version"].as_str().context("a status without a version")?.to_string())
}

/// Words of what `docker` printed.
fn words(host: &Host, args: &[&str]) -> Result<BTreeSet<String>> {
    Ok(host.docker(args)?.split_ascii_whitespace().map(str::to_string).collect())
}

/// The monitoring containers there are, running or not.
fn monitors(host: &Host) -> Result<BTreeSet<String>> {
    words(host, &["ps", "--all", "--quiet", "--no-trunc", "--filter", "name=conmon-pm-"])
}

/// The images of monitoring containers there are, as `id`s; those without a tag too.
fn images(host: &Host) -> Result<BTreeSet<String>> {
    words(host, &["images", "--all", "--quiet", "--no-trunc", "--filter", "label=conmon.role=monitor"])
}

/// The images that these containers were made of.
fn images_of(host: &Host, containers: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let all = containers.iter().map(String::as_str);
    words(host, &["inspect", "--format", "{{.Image}}"].into_iter().chain(all).collect::<Vec<_>>())
}

/// Waits until every monitor works, or waits in a full pool, and returns their containers.
fn settled(conmond: &Conmond) -> Result<BTreeSet<String>> {
    conmond.wait_ctl("monitors that all are connected", END, &["monitors"], |answer| {
        let pool = &answer["pool"];
        let at_work = |monitor: &&Value| monitor["mode"] != "host";
        let monitors: Vec<&Value> = rows(answer, "monitors").iter().filter(at_work).collect();
        let connected = |monitor: &&Value| monitor["state"] == "working" || monitor["state"] == "ready";
        let all = !monitors.is_empty() && pool["ready"] == pool["wanted"] && monitors.iter().all(connected);
        all.then(|| monitors.iter().filter_map(|m| Some(m["id"].as_str()?.to_string())).collect())
    })
}

/// Names in a folder, none when it is not there.
fn names(dir: &Path) -> Result<BTreeSet<String>> {
    if !dir.is_dir() {
        return Ok(BTreeSet::new());
    }
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot look into {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Waits until what is pinned is what the daemon says it has: its sets, and each port's programs in one of them.
fn pins_are_the_daemon_s(conmond: &Conmond) -> Result<()> {
    let pins = Path::new("/sys/fs/bpf/conmon").join(conmond.instance());
    let mut last = String::new();
    let reached = wait_for("pins that the daemon knows", READY, || {
        let status = conmond.ctl(&["status"])?;
        let sets: BTreeSet<String> =
            rows(&status, "sets").iter().filter_map(|set| Some(set["name"].as_str()?.to_string())).collect();
        let ports = status["counts"]["ports"].as_u64().context("a status without ports")?;
        let each = if status["attachment"] == "tcx" { 2 } else { 1 };
        let (pinned, mut taps) = (names(&pins)?, 0);
        for set in &pinned {
            taps += names(&pins.join(set).join("taps"))?.len() as u64;
        }
        last = format!("{pinned:?} with {taps} taps, for {sets:?} with {ports} ports, {each} each");
        Ok((pinned == sets && taps == each * ports).then_some(()))
    });
    reached.context(last)
}

/// Waits until every monitor was made of one image, which is none of `old_images`, and until nothing else of
/// monitors is left: neither those of before nor their image.
fn monitors_follow(
    host: &Host,
    conmond: &Conmond,
    old: &BTreeSet<String>,
    old_images: &BTreeSet<String>,
) -> Result<()> {
    let mut last = String::new();
    let reached = wait_for("monitors of the new build alone", END, || {
        let new = settled(conmond)?;
        // One may be replaced between two questions.
        let made_of = images_of(host, &new).unwrap_or_default();
        let (there, images) = (monitors(host)?, images(host)?);
        last = format!("{old:?} of {old_images:?} became {there:?} of {made_of:?}; images are {images:?}");
        let replaced = new.is_disjoint(old) && there == new;
        let by_one = made_of.len() == 1 && made_of.is_disjoint(old_images) && images == made_of;
        Ok((replaced && by_one).then_some(()))
    });
    reached.context(last)
}

#[test]
fn root_another_build_takes_over_without_a_hole() -> Result<()> {
    let outage = setting("CONMON_OUTAGE_SECONDS", OUTAGE_SECONDS)?;
    let needs = ["next/conmond", "next/conmonctl"];
    with_conmond("upgrade", &needs, ConmondOptions::default(), |_, host, conmond| {
        let other = lab::program(needs[0]).context("scripts/build-next makes the build to upgrade to")?;
        let traffic = Traffic::start(host, conmond)?;
        let (build, old) = (version(conmond)?, settled(conmond)?);
        let old_images = images_of(host, &old)?;
        ensure!(old_images.len() == 1 && images(host)? == old_images, "{old_images:?}");
        pins_are_the_daemon_s(conmond)?;

        conmond.stop()?;
        let unseen = traffic.goes_on(outage)?;
        conmond.use_binaries(other.parent().context("a program without a folder")?);
        conmond.up()?;
        let ready = conmond.ready_took().as_secs_f64();
        let upgraded = version(conmond)?;
        ensure!(upgraded != build, "{upgraded} is no other build");

        monitors_follow(host, conmond, &old, &old_images)?;
        for monitor in monitors(host)? {
            let said = host.docker(&["exec", &monitor, "/conmond", "--version"])?;
            ensure!(said.ends_with(&upgraded), "a monitor is of {said}, not of {upgraded}");
        }
        // Each was replaced once: none of the new ones was taken for an old one.
        let answer = conmond.ctl(&["monitors"])?;
        ensure!(rows(&answer, "monitors").iter().all(|monitor| monitor["restarts"] == 0), "{answer}");

        let sent = traffic.was_counted_exactly(conmond)?.sent;
        eprintln!(
            "{build} was away for {unseen} of {sent} datagrams, {upgraded} answered {ready:.2} s after its start, \
             missed: 0"
        );
        pins_are_the_daemon_s(conmond)?;
        conmond.down()?;
        ensure!(monitors(host)?.is_empty() && images(host)?.is_empty(), "monitors or images are left");
        Ok(())
    })
}
