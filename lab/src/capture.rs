//! Truth by capture: `tcpdump` with nanosecond times on an interface, in a host's namespace or in a container's. Two
//! of them, one at each end, say what was sent and what arrived.

use crate::container::Container;
use crate::netns::Namespace;
use crate::pcap::{self, Packet};
use crate::run::{describe, find_program, text};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Bytes kept of each packet: all headers, and the serial number behind them.
const KEEP: u32 = 192;
/// The kernel's buffer, in KiB.
const BUFFER: u32 = 65_536;

/// A capture that runs. Dropping it ends the capture and throws the packets away.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: PathBuf,
    messages: PathBuf,
}

/// What a capture brought.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The packets, in order of capture.
    pub packets: Vec<Packet>,
    /// Packets the kernel could not keep. A truth must have none: see [`Captured::complete`].
    pub dropped: u64,
    /// The capture file, which lives as long as the lab; for tshark, tcptrace or a person.
    pub file: PathBuf,
}

impl Captured {
    /// The packets, or an error when the capture lost some.
    pub fn complete(self) -> Result<Vec<Packet>> {
        if self.dropped > 0 {
            bail!("the capture lost {} packets: it is no truth", self.dropped);
        }
        Ok(self.packets)
    }
}

impl Capture {
    /// Captures on an interface of a namespace; `folder` takes the file. `filter` is in tcpdump's language, empty
    /// for everything. Packets are captured from the return of this call on.
    pub fn on(namespace: &Namespace, interface: &str, filter: &str, folder: &Path) -> Result<Self> {
        Self::start(|tcpdump| namespace.command(tcpdump), interface, filter, folder)
    }

    /// Captures on the host's end of a container's interface, where a tap is. What the container sends is seen as
    /// incoming there.
    pub fn outside(container: &Container, filter: &str) -> Result<Self> {
        let port = container.port()?;
        let host = container.host();
        Self::on(host.namespace(), &port.outside.name, filter, &host.dir().join("captures"))
    }

    /// Captures on an interface inside a container.
    pub fn inside(container: &Container, interface: &str, filter: &str) -> Result<Self> {
        let namespace = container.namespace()?;
        let folder = container.host().dir().join("captures");
        Self::start(|tcpdump| crate::netns::enter(&namespace, tcpdump), interface, filter, &folder)
    }

    fn start(
        enter: impl FnOnce(PathBuf) -> Command,
        interface: &str,
        filter: &str,
        folder: &Path,
    ) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let stem = format!("{}-{interface}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = folder.join(format!("{stem}.pcap"));
        let messages = folder.join(format!("{stem}.log"));
        let mut command = enter(find_program("tcpdump", "tcpdump")?);
        // Immediate mode: packets are not held back in blocks, so none is left behind at the end.
        command.args(["--time-stamp-precision=nano", "--immediate-mode", "-n", "-U", "-Z", "root"]);
        command.args(["-i", interface, "-s", &KEEP.to_string(), "-B", &BUFFER.to_string(), "-w"]).arg(&file);
        if !filter.is_empty() {
            command.arg(filter);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&messages)?);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", describe(&command)))?;
        let mut capture = Self { child, file, messages };
        wait_for("tcpdump listening", Duration::from_secs(10), || {
            let said = capture.said();
            if let Some(status) = capture.child.try_wait()? {
                bail!("tcpdump ended ({status}): {said}");
            }
            Ok(said.contains("listening on").then_some(()))
        })?;
        Ok(capture)
    }

    /// Ends the capture after everything that passed before this call has been written, and reads it.
    pub fn finish(mut self) -> Result<Captured> {
        // Ask for the counters until what the kernel took and what was written are equal.
        wait_for("tcpdump to write what it captured", Duration::from_secs(20), || {
            let asked = self.said().lines().count();
            self.signal(Signal::SIGUSR1)?;
            let counts = wait_for("tcpdump's counters", Duration::from_secs(5), || {
                Ok(self.said().lines().skip(asked).find_map(parse_counts))
            })?;
            Ok((counts.captured >= counts.received).then_some(()))
        })?;
        self.signal(Signal::SIGINT)?;
        let status = self.child.wait().context("tcpdump")?;
        let said = self.said();
        if !status.success() {
            bail!("tcpdump failed ({status}): {said}");
        }
        let dropped = said.lines().rev().find_map(|line| count_before(line, " packets dropped by kernel"));
        let dropped =
            dropped.or_else(|| said.lines().rev().find_map(|l| count_before(l, " packet dropped by kernel")));
        let dropped = dropped.with_context(|| format!("tcpdump did not tell its losses: {said}"))?;
        Ok(Captured { packets: pcap::read(&self.file)?, dropped, file: self.file.clone() })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id of tcpdump")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to tcpdump"))
    }

    fn said(&self) -> String {
        fs::read(&self.messages).map(|bytes| text(&bytes)).unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Counts {
    captured: u64,
    received: u64,
}

/// Reads tcpdump's answer to SIGUSR1: `12 packets captured, 12 packets received by filter, 0 packets dropped…`.
fn parse_counts(line: &str) -> Option<Counts> {
    let one = |what: &str| {
        count_before(line, &format!(" packets {what}"))
            .or_else(|| count_before(line, &format!(" packet {what}")))
    };
    Some(Counts { captured: one("captured")?, received: one("received by filter")? })
}

/// The number that stands right before `phrase`.
fn count_before(line: &str, phrase: &str) -> Option<u64> {
    let before = &line[..line.find(phrase)?];
    let start = before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    before[start..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read() {
        let line = "tcpdump: 1 packet captured, 12 packets received by filter, 0 packets dropped by kernel";
        let counts = parse_counts(line).unwrap();
        assert_eq!((counts.captured, counts.received), (1, 12));
        assert_eq!(count_before("7 packets dropped by kernel", " packets dropped by kernel"), Some(7));
        assert!(parse_counts("tcpdump: listening on eth0").is_none());
    }
}
