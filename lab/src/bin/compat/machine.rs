//! The emulated machine: two processors, no disk, no network, a serial line that goes to a file. Emulated in software alone
//! (TCG), so that it runs inside virtual machines and containers too; a tenth as fast, or less.

use anyhow::{Context, Result};
use lab::find_program;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The kernel's own parameters: whatever goes wrong ends the machine; messages below a warning are left out; what only says
/// that the emulator got no processor for a while is off.
const PARAMETERS: &str = "console=ttyS0 panic=-1 oops=panic loglevel=4 apparmor=0 nowatchdog \
                          rcupdate.rcu_cpu_stall_suppress=1 random.trust_cpu=on";

/// How a machine ended.
pub struct End {
    /// From power on to power off.
    pub took: Duration,
    /// Whether it had to be stopped because its time was up.
    pub stopped: bool,
}

/// Boots `image` with `archive` as its file system, until it switches itself off or its time is up.
pub fn run(image: &Path, archive: &Path, console: &Path, limit: Duration) -> Result<End> {
    let qemu = find_program("qemu-system-x86_64", "qemu-system-x86")?;
    let out = File::create(console).with_context(|| format!("cannot write {}", console.display()))?;
    let begun = Instant::now();
    let mut child = Command::new(qemu)
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3G"])
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(archive)
        .args(["-append", PARAMETERS])
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .spawn()
        .context("cannot start the emulator")?;
    loop {
        if child.try_wait().context("the emulator")?.is_some() {
            return Ok(End { took: begun.elapsed(), stopped: false });
        }
        if begun.elapsed() > limit {
            child.kill().context("cannot stop the emulator")?;
            child.wait().context("the emulator")?;
            return Ok(End { took: begun.elapsed(), stopped: true });
        }
        thread::sleep(Duration::from_millis(100));
    }
}
