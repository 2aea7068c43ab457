//! Network namespaces, and what the kernel says of the interfaces in them. A namespace is named under
//! `/run/netns`, so `ip netns` shows it; programs enter it with `nsenter`, which becomes the program it starts: the
//! process the lab sees is the program itself.

use crate::run::{find_program, output, text};
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where named namespaces are mounted.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// A named network namespace. Its removal is the lab's job.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace and brings its loopback interface up.
    pub(crate) fn create(name: String) -> Result<Self> {
        let ip = find_program("ip", "iproute2")?;
        output(Command::new(&ip).args(["netns", "add", &name]))?;
        let ns = Self { name };
        ns.ip(&["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// Gives the namespace that a process is in a name.
    pub(crate) fn of_process(name: String, pid: &str) -> Result<Self> {
        let ip = find_program("ip", "iproute2")?;
        output(Command::new(&ip).args(["netns", "attach", &name, pid]))?;
        Ok(Self { name })
    }

    /// The name `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace; open it to enter.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// A command that will run in this namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        enter(&self.path(), program)
    }

    /// Runs something in the namespace, on a thread of its own: this one stays where it is.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                setns(&file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip ARGS` in the namespace and returns its output.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        output(self.command("ip").args(args)).map(|o| text(&o))
    }

    /// Gives an interface of the namespace an address (`10.0.0.1/24`, IPv4 or IPv6), of use at once.
    pub(crate) fn add_address(&self, interface: &str, address: &str) -> Result<()> {
        // Duplicate address detection would leave an IPv6 address unusable for a second.
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        self.ip(&[&["addr", "add", address, "dev", interface], nodad].concat()).map(drop)
    }

    /// The interfaces of the namespace with their counters.
    pub fn links(&self) -> Result<Vec<Link>> {
        links_of(self.command("ip"))
    }

    /// One interface by name.
    pub fn link(&self, name: &str) -> Result<Link> {
        let found = self.links()?.into_iter().find(|l| l.name == name);
        found.with_context(|| format!("no interface {name} in namespace {}", self.name))
    }
}

/// A command that will run in the network namespace whose file is `namespace`.
pub(crate) fn enter(namespace: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display())).arg("--").arg(program);
    command
}

/// One network interface and the kernel's counters of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name in its namespace.
    pub name: String,
    /// Link-layer address, as `ip` writes it; empty if it has none.
    pub mac: String,
    /// Administratively up.
    pub up: bool,
    /// Bridge it is a port of.
    pub master: Option<String>,
    /// Index of the other end of a veth pair, in that end's namespace.
    pub peer_index: Option<u32>,
    /// What came in by the interface.
    pub rx: Counters,
    /// What went out by the interface.
    pub tx: Counters,
}

/// An interface's counters of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes, from the link header on.
    pub bytes: u64,
    /// Packets; one that is segmented later counts once.
    pub packets: u64,
    /// Packets dropped by the kernel.
    pub dropped: u64,
}

/// Asks `ip`, which the given command runs in some namespace, for all interfaces.
pub(crate) fn links_of(mut ip: Command) -> Result<Vec<Link>> {
    let json = output(ip.args(["-s", "-j", "-d", "link", "show"]))?;
    let rows: Vec<Value> = serde_json::from_slice(&json).context("`ip -j link` did not print JSON")?;
    Ok(rows.iter().filter_map(link_of).collect())
}

fn link_of(row: &Value) -> Option<Link> {
    let text = |key: &str| row[key].as_str().map(str::to_string);
    let index = |key: &str| row[key].as_u64().and_then(|i| u32::try_from(i).ok());
    let counters = |direction: &str| {
        let stats = &row["stats64"][direction];
        let number = |key: &str| stats[key].as_u64().unwrap_or_default();
        Counters { bytes: number("bytes"), packets: number("packets"), dropped: number("dropped") }
    };
    let up = row["flags"].as_array().is_some_and(|flags| flags.iter().any(|f| f == "UP"));
    Some(Link {
        index: index("ifindex")?,
        name: text("ifname")?,
        mac: text("address").unwrap_or_default(),
        up,
        master: text("master"),
        peer_index: index("link_index"),
        rx: counters("rx"),
        tx: counters("tx"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_ip_becomes_a_link() {
        let row = serde_json::json!({
            "ifindex": 8, "link_index": 7, "ifname": "veth1", "master": "docker0", "address": "02:00:00:00:00:01",
            "flags": ["BROADCAST", "UP"],
            "stats64": {"rx": {"bytes": 10, "packets": 2, "dropped": 1}, "tx": {"bytes": 30, "packets": 4, "dropped": 0}}
        });
        let link = link_of(&row).unwrap();
        assert_eq!((link.index, link.peer_index, link.up), (8, Some(7), true));
        assert_eq!(link.master.as_deref(), Some("docker0"));
        assert_eq!(link.rx, Counters { bytes: 10, packets: 2, dropped: 1 });
        assert_eq!(link.tx, Counters { bytes: 30, packets: 4, dropped: 0 });
        assert_eq!(link_of(&serde_json::json!({"ifname": "x"})), None);
    }
}
