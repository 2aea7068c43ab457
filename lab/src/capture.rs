//! Truth by capture: `tcpdump` with nanosecond times on an interface, in a host's namespace or in a container's. Two
//! of them, one at each end, say what was sent and what arrived.

use crate::container::Container;
use crate::netns::Namespace;
use crate::pcap::{self, Packet};
use crate::tcpdump::Tcpdump;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes kept of each packet: all headers, and the serial number behind them.
const KEEP: u32 = 192;
/// The kernel's buffer, in KiB.
const BUFFER: u32 = 65_536;

/// A capture that runs. Dropping it ends the capture and throws the packets away.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Tcpdump,
    file: PathBuf,
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
        Self::start(namespace.command(Tcpdump::program()?), interface, filter, folder)
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
        let folder = container.host().dir().join("captures");
        Self::start(container.command_in_network(Tcpdump::program()?)?, interface, filter, &folder)
    }

    fn start(command: Command, interface: &str, filter: &str, folder: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let stem = format!("{}-{interface}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = folder.join(format!("{stem}.pcap"));
        let (keep, buffer, target) = (KEEP.to_string(), BUFFER.to_string(), file.display().to_string());
        // Immediate mode: packets are not held back in blocks, so none is left behind at the end.
        let mut args = vec!["--time-stamp-precision=nano", "--immediate-mode", "-U"];
        args.extend(["-s", &keep, "-B", &buffer, "-w", &target]);
        if !filter.is_empty() {
            args.push(filter);
        }
        let tcpdump = Tcpdump::start(command, interface, &args, &folder.join(format!("{stem}.log")))?;
        Ok(Self { tcpdump, file })
    }

    /// Ends the capture after everything that passed before this call has been written, and reads it.
    pub fn finish(self) -> Result<Captured> {
        let counts = self.tcpdump.finish()?;
        Ok(Captured { packets: pcap::read(&self.file)?, dropped: counts.dropped, file: self.file })
    }
}
