//! Another build of conmond takes over in mid-traffic: no packet is missed, monitors follow, nothing of the former
//! build stays. `scripts/build-next` makes the other build.

use crate::state::*;
use crate::support::*;
use crate::traffic::Traffic;
use anyhow::{Context, Result, ensure};
use lab::{Conmond, ConmondOptions, Host, wait_for};
use std::collections::BTreeSet;

/// Which build a daemon is, as it says itself.
fn version(conmond: &Conmond) -> Result<String> {
    let status = conmond.ctl(&["status"])?;
    Ok(status["version"].as_str().context("a status without a version")?.to_string())
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
