//! A user's own Docker: its containers are in a user namespace, where the monitors' user is another of the host's, and its bridges in a network
//! namespace, where conmond runs.

use super::*;
use lab::{ConmondOptions, root_test, rootless_refused, rootless_there};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whom monitoring containers run as, in their own namespace.
const MONITORS: u32 = 65_534;

/// The tenant's monitoring container, once it works: its slot, and its process.
fn monitor(conmond: &Conmond) -> Result<(String, String)> {
    let name = monitoring_container(conmond)?;
    let pid = conmond.host().docker(&["inspect", "--format", "{{.State.Pid}}", &name])?;
    let slot = name.rsplit('-').next().unwrap_or_default().to_owned();
    Ok((slot, pid.trim().to_owned()))
}

#[test]
fn root_the_product_works_on_a_users_own_docker() -> Result<()> {
    if !built("rootless docker")? || !there("rootless docker", rootless_there())? {
        return Ok(());
    }
    if let Some(why) = rootless_refused() {
        lab::skipped("rootless docker", &why);
        return Ok(());
    }
    root_test("rootless docker", |lab| {
        let host = lab.rootless_host("r1")?;
        let security = host.docker(&["info", "--format", "{{.SecurityOptions}}"])?;
        ensure!(security.contains("rootless"), "the engine runs as root: {security}");
        host.network("net", Some("fd00:7::/64"))?;
        let mut conmond = Conmond::start(&host, ConmondOptions::default())?;
        let udp = sink(&host, "udp-sink", "net")?;
        let (slot, pid) = monitor(&conmond)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().next());
        let uid: u32 = uid.with_context(|| status.clone())?.parse()?;
        ensure!(uid != MONITORS, "the monitor is in no user namespace");
        let socket = conmond.run_dir().join("pm").join(slot).join("mc.sock");
        let owner = fs::metadata(&socket)?;
        ensure!((owner.uid(), owner.mode() & 0o777) == (uid, 0o600), "{owner:?} of {}", socket.display());

        let words = format!("udp-send --to {}:9000 --rate 1000 --count 2000 --hold 1", udp.ipv4("net")?);
        let sender = host.run(&labgen("sender", "net", &words))?;
        let sent = report_of(&sender)?;
        let pair = holds_exactly(&conmond, "sender", "udp-sink", &sent)?;
        ensure!(pair["src"]["tenant"] == "shop" && pair["src"]["id"] == sender.id(), "{pair}");
        balanced(&conmond)?;

        // the next daemon finds the same containers, whose monitor goes on
        conmond.stop()?;
        conmond.up()?;
        let (_, same) = monitor(&conmond)?;
        ensure!(same == pid, "the monitor was replaced");
        counts_on(&host, &conmond, &words, &sent)?;

        let pins = Path::new("/sys/fs/bpf/conmon").join(conmond.instance());
        ensure!(pins.is_dir());
        conmond.down()?;
        let monitors = host.docker(&["ps", "--all", "--quiet", "--filter", "name=conmon-pm-"])?;
        ensure!(monitors.is_empty(), "monitoring containers are left: {monitors}");
        let images = host.docker(&["images", "--quiet", "--filter", "label=conmon.role=monitor"])?;
        ensure!(images.is_empty() && !pins.exists() && !conmond.run_dir().exists(), "images: {images}");
        Ok(())
    })
}
