//! What there is of conmond on a host, against what it says of itself.

pub use crate::left::*;
use crate::support::*;
use anyhow::{Context, Result};
use lab::{Conmond, Host, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;

/// The images that these containers were made of.
pub fn images_of(host: &Host, containers: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let all = containers.iter().map(String::as_str);
    words(host, &["inspect", "--format", "{{.Image}}"].into_iter().chain(all).collect::<Vec<_>>())
}

/// Waits until every monitor works, or waits in a full pool, and returns their containers.
pub fn settled(conmond: &Conmond) -> Result<BTreeSet<String>> {
    conmond.wait_ctl("monitors that all are connected", END, &["monitors"], |answer| {
        let pool = &answer["pool"];
        let at_work = |monitor: &&Value| monitor["mode"] != "host";
        let monitors: Vec<&Value> = rows(answer, "monitors").iter().filter(at_work).collect();
        let connected = |monitor: &&Value| monitor["state"] == "working" || monitor["state"] == "ready";
        let all = !monitors.is_empty() && pool["ready"] == pool["wanted"] && monitors.iter().all(connected);
        all.then(|| monitors.iter().filter_map(|m| Some(m["id"].as_str()?.to_string())).collect())
    })
}

/// Waits until what is pinned is what the daemon says it has: its sets, and each port's programs in one of them.
pub fn pins_are_the_daemon_s(conmond: &Conmond) -> Result<()> {
    let pins = pins_of(conmond);
    let mut last = String::new();
    let reached = wait_for("pins that the daemon knows", READY, || {
        let status = conmond.ctl(&["status"])?;
        let sets: BTreeSet<String> =
            rows(&status, "sets").iter().filter_map(|set| Some(set["name"].as_str()?.to_string())).collect();
        let ports = status["counts"]["ports"].as_u64().context("a status without ports")?;
        let each = if status["attachment"] == "tcx" { 2 } else { 1 };
        let (mut pinned, mut taps) = (names(&pins)?, 0);
        // what ports share is beside the sets
        pinned.remove("dispatch");
        for set in &pinned {
            taps += names(&pins.join(set).join("taps"))?.len() as u64;
        }
        last = format!("{pinned:?} with {taps} taps, for {sets:?} with {ports} ports, {each} each");
        Ok((pinned == sets && taps == each * ports).then_some(()))
    });
    reached.context(last)
}
