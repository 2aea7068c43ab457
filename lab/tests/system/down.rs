//! `conmonctl down` leaves nothing.

use crate::support::*;
use anyhow::{Result, ensure};
use lab::{ConmondOptions, wait_for};
use std::path::Path;

#[test]
fn root_down_removes_everything() -> Result<()> {
    with_conmond("down", &[], ConmondOptions::default(), |_, host, conmond| {
        let udp = listening(host, "udp-sink", "udp-sink")?;
        let words = format!("udp-send --to {}:9000 --count 200 --hold 1", udp.ipv4(NET)?);
        let sender = host.run(&spec("sender", &words))?;
        pair_with(conmond, "sender", "udp-sink", report_of(&sender)?.sent)?;
        let pins = Path::new("/sys/fs/bpf/conmon").join(conmond.instance());
        let monitors = || host.docker(&["ps", "--all", "--quiet", "--filter", "name=conmon-pm-"]);
        let images = || host.docker(&["images", "--all", "--quiet", "conmon-monitor-*"]);
        // All of it is there before, or its absence afterwards would mean nothing.
        wait_for("a monitoring container", READY, || Ok((!monitors()?.is_empty()).then_some(())))?;
        ensure!(pins.is_dir() && conmond.run_dir().is_dir() && !images()?.is_empty());

        conmond.down()?;
        ensure!(monitors()?.is_empty(), "monitoring containers are left: {}", monitors()?);
        ensure!(images()?.is_empty(), "images are left: {}", images()?);
        ensure!(!pins.exists(), "{} is left", pins.display());
        ensure!(!conmond.run_dir().exists(), "{} is left", conmond.run_dir().display());
        ensure!(!conmond.is_running());
        ensure!(udp.is_running()? && sender.is_running()?, "an application container was touched");
        Ok(())
    })
}
