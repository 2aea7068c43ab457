//! The daemon dies, or a monitor does: the kernel goes on counting.
//!
//! `CONMON_OUTAGE_SECONDS` sets how long the daemon is away.

use crate::support::*;
use crate::traffic::Traffic;
use anyhow::{Result, ensure};
use lab::{Conmond, ConmondOptions};

#[test]
fn root_a_killed_daemon_leaves_no_hole() -> Result<()> {
    let outage = setting("CONMON_OUTAGE_SECONDS", OUTAGE_SECONDS)?;
    with_conmond("no hole", &[], ConmondOptions::default(), |_, host, conmond| {
        let traffic = Traffic::start(host, conmond)?;
        conmond.kill9()?;
        let unseen = traffic.goes_on(outage)?;
        conmond.up()?;
        let ready = conmond.ready_took().as_secs_f64();
        let sent = traffic.was_counted_exactly(conmond)?.sent;
        eprintln!(
            "killed for {unseen} of {sent} datagrams, answered {ready:.2} s after its start, missed: 0"
        );
        Ok(())
    })
}

/// Waits for the tenant's monitor to work, one other than `before`; its container, and how often it was replaced.
fn monitor_after(conmond: &Conmond, before: &str) -> Result<(String, u64)> {
    conmond.wait_ctl("another monitor at work", READY, &["monitors"], |answer| {
        let monitor = row(answer, "monitors", "tenant", TENANT)?;
        let id = monitor["id"].as_str().filter(|id| monitor["state"] == "working" && *id != before)?;
        Some((id.to_string(), monitor["restarts"].as_u64()?))
    })
}

#[test]
fn root_a_killed_monitor_is_replaced_and_nothing_is_missed() -> Result<()> {
    with_conmond("killed monitor", &[], ConmondOptions::default(), |_, host, conmond| {
        let traffic = Traffic::start(host, conmond)?;
        let (first, _) = monitor_after(conmond, "")?;
        host.docker(&["kill", &first])?;
        let (second, restarts) = monitor_after(conmond, &first)?;
        ensure!(restarts >= 1, "{restarts} restarts");

        // Nobody sees this one die.
        conmond.kill9()?;
        host.docker(&["kill", &second])?;
        conmond.up()?;
        monitor_after(conmond, &second)?;
        traffic.was_counted_exactly(conmond).map(drop)
    })
}
