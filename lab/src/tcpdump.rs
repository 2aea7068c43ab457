//! A `tcpdump` that runs: ready when it says so, asked for its counters while it runs, ended without losing what it has.

use crate::run::{describe, find_program, text};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::ops::{Add, Sub};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running tcpdump. Dropping it kills it.
#[derive(Debug)]
pub struct Tcpdump {
    child: Child,
    messages: PathBuf,
}

/// What tcpdump counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets written.
    pub captured: u64,
    /// Packets that passed the filter in the kernel, those dropped after it included.
    pub received: u64,
    /// Packets dropped because the buffer was full.
    pub dropped: u64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            captured: self.captured + other.captured,
            received: self.received + other.received,
            dropped: self.dropped + other.dropped,
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    /// What came since an earlier look at the same tcpdump.
    fn sub(self, earlier: Self) -> Self {
        Self {
            captured: self.captured - earlier.captured,
            received: self.received - earlier.received,
            dropped: self.dropped - earlier.dropped,
        }
    }
}

impl Tcpdump {
    /// The executable; run it in the namespace of what is to be captured.
    pub fn program() -> Result<PathBuf> {
        find_program("tcpdump", "tcpdump")
    }

    /// Starts it on an interface and waits until it captures. `command` runs [`Tcpdump::program`] in the right
    /// namespace, `args` are further arguments (`-w` among them), `messages` is the file for what it says.
    pub fn start(mut command: Command, interface: &str, args: &[&str], messages: &Path) -> Result<Self> {
        // As root all the way: the files lie in folders of root's.
        command.args(["-n", "-Z", "root", "-i", interface]).args(args);
        let log = File::create(messages).with_context(|| format!("cannot write {}", messages.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", describe(&command)))?;
        let mut tcpdump = Self { child, messages: messages.to_path_buf() };
        wait_for("tcpdump listening", Duration::from_secs(10), || {
            let said = tcpdump.said();
            if let Some(status) = tcpdump.child.try_wait()? {
                bail!("tcpdump ended ({status}): {said}");
            }
            Ok(said.contains("listening on").then_some(()))
        })?;
        Ok(tcpdump)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks for its counters.
    pub fn counts(&self) -> Result<Counts> {
        let asked = self.said().lines().count();
        self.signal(Signal::SIGUSR1)?;
        wait_for("tcpdump's counters", Duration::from_secs(5), || {
            Ok(self.said().lines().skip(asked).find_map(parse_counts))
        })
    }

    /// Ends it after everything that passed before this call has been written or was dropped; what it counted in all.
    pub fn finish(mut self) -> Result<Counts> {
        // Ask until what the kernel took is accounted for.
        wait_for("tcpdump to write what it captured", Duration::from_secs(20), || {
            let counts = self.counts()?;
            Ok((counts.captured + counts.dropped >= counts.received).then_some(()))
        })?;
        self.signal(Signal::SIGINT)?;
        let status = self.child.wait().context("tcpdump")?;
        let said = self.said();
        if !status.success() {
            bail!("tcpdump failed ({status}): {said}");
        }
        // At its end each counter has a line of its own; counters asked for before are above.
        let last = |what| said.lines().rev().find_map(|line| counter(line, what));
        let counts = last("captured")
            .zip(last("received by filter"))
            .zip(last("dropped by kernel"))
            .map(|((captured, received), dropped)| Counts { captured, received, dropped });
        counts.with_context(|| format!("tcpdump did not tell its counters: {said}"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id of tcpdump")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to tcpdump"))
    }

    fn said(&self) -> String {
        fs::read(&self.messages).map(|bytes| text(&bytes)).unwrap_or_default()
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads tcpdump's answer to SIGUSR1: `12 packets captured, 12 packets received by filter, 0 packets dropped…`.
fn parse_counts(line: &str) -> Option<Counts> {
    Some(Counts {
        captured: counter(line, "captured")?,
        received: counter(line, "received by filter")?,
        dropped: counter(line, "dropped by kernel")?,
    })
}

/// The number of packets that a line tells for `what`.
fn counter(line: &str, what: &str) -> Option<u64> {
    ["packets", "packet"].iter().find_map(|unit| count_before(line, &format!(" {unit} {what}")))
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
        let line = "tcpdump: 1 packet captured, 12 packets received by filter, 3 packets dropped by kernel";
        let counts = parse_counts(line).unwrap();
        assert_eq!(counts, Counts { captured: 1, received: 12, dropped: 3 });
        assert_eq!(counter("7 packets dropped by kernel", "dropped by kernel"), Some(7));
        assert!(parse_counts("tcpdump: listening on eth0").is_none());
        assert!(parse_counts("12 packets captured").is_none());
    }
}
