//! Monitoring containers: two tenants that talk, and what each one's monitor sees.

use crate::process::{knows, mappings, maps};
use crate::{NET, WAIT};
use anyhow::{Context, Result, bail, ensure};
use lab::{App, Conmond, Host, Spec, wait_for};
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use tap::Descriptors;

/// Starts two containers of a tenant that talk to each other; the address of the one that listens.
pub fn talk(host: &Host, tenant: &str) -> Result<Ipv4Addr> {
    let spec = |role: &str, words: &str| {
        let name = format!("{tenant}-{role}");
        let spec = Spec::app(&name, App::Labgen).network(NET).compose(tenant, role);
        spec.command(words.split_ascii_whitespace())
    };
    let sink = host.run(&spec("sink", "udp-sink"))?;
    sink.wait_line("listening", WAIT)?;
    let address = sink.ipv4(NET)?;
    host.run(&spec("sender", &format!("udp-send --to {address}:9000 --rate 100")))?;
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!("{tenant}'s sink is at {address}"),
    }
}

/// A working monitoring container.
pub struct Monitor {
    pub id: String,
    pub pid: String,
    /// Its folder on the host.
    pub folder: PathBuf,
}

impl Monitor {
    /// A tenant's.
    pub fn of(conmond: &Conmond, host: &Host, tenant: &str) -> Result<Self> {
        let id =
            conmond.wait_ctl(&format!("{tenant}'s monitor"), WAIT, &["monitors"], |answer: &Value| {
                let all = answer["monitors"].as_array()?;
                let monitor = all.iter().find(|m| m["tenant"] == tenant && m["state"] == "working")?;
                Some(monitor["id"].as_str()?.to_owned())
            })?;
        let pid = host.docker(&["inspect", "--format", "{{.State.Pid}}", &id])?;
        let text = host.docker(&["inspect", "--format", "{{json .Mounts}}", &id])?;
        let mounts: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
        let [mount] = &mounts[..] else { bail!("{tenant}'s monitor has not one mount: {text}") };
        ensure!(mount["Destination"] == "/run/conmon" && mount["RW"] == false, "{tenant}'s monitor: {mount}");
        let folder = PathBuf::from(mount["Source"].as_str().context("a mount of nothing")?);
        let slots = conmond.run_dir().join("pm");
        ensure!(folder.parent() == Some(&*slots), "{} is not in {}", folder.display(), slots.display());
        Ok(Self { id, pid, folder })
    }

    pub fn slot(&self) -> Result<&str> {
        self.folder.file_name().and_then(|name| name.to_str()).context("a slot without a name")
    }

    /// Where the maps are pinned that it is handed.
    pub fn pins(&self, conmond: &Conmond) -> Result<Vec<String>> {
        let folder = Path::new("/sys/fs/bpf/conmon").join(conmond.instance()).join(self.slot()?);
        Ok(Descriptors::NAMES.iter().map(|name| folder.join(name).display().to_string()).collect())
    }
}

/// What a monitoring container sees of BPF maps is its own tenant's, and for reading.
pub fn sees_only_its_own(monitor: &Monitor, own: Ipv4Addr, other: &Monitor, others: Ipv4Addr) -> Result<()> {
    for (monitor, address) in [(monitor, own), (other, others)] {
        let what = format!("{address} in the maps of {}", monitor.folder.display());
        wait_for(&what, WAIT, || Ok(knows(&monitor.pid, address)?.then_some(())))?;
    }
    ensure!(!knows(&monitor.pid, others)?, "a monitor has another tenant's address {others} in its memory");
    let shared: Vec<u32> = maps(&monitor.pid)?.intersection(&maps(&other.pid)?).copied().collect();
    ensure!(shared.is_empty(), "both tenants' monitors hold the maps {shared:?}");
    ensure!(monitor.folder != other.folder, "both monitors see {}", monitor.folder.display());
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", monitor.pid))?;
    let sees = |slot: &str| mounts.lines().filter(|line| line.contains(&format!("/pm/{slot} "))).count();
    ensure!((sees(monitor.slot()?), sees(other.slot()?)) == (1, 0), "a monitor sees: {mounts}");

    // a ring is mapped twice: the page that its reader writes, and all the rest
    let mapped = mappings(&monitor.pid)?;
    ensure!(mapped.len() == Descriptors::NAMES.len() + 1, "{} mappings of maps", mapped.len());
    let writable: Vec<usize> = mapped.iter().filter(|m| m.writable).map(|m| m.length).collect();
    ensure!(writable == [4096], "a monitor may write {writable:?} octets of BPF maps");
    Ok(())
}
