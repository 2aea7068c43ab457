//! Podman as a host's engine: its service, which speaks Docker's interface, with everything that it keeps in the
//! host's folder.
//!
//! Its mounts are in a mount namespace of its own that receives the machine's: so the folder in which it counts
//! addresses, for which it has no option, is its own too, and nothing stays mounted when its processes are gone.

use crate::netns::Namespace;
use crate::run::find_program;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where Debian keeps what sets up Podman's networks.
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// Whether Podman can run here; the error says what is missing.
pub fn podman_there() -> Result<()> {
    find_program("podman", "podman")?;
    find_program("runc", "runc")?;
    if !Path::new(NETAVARK).exists() {
        bail!("{NETAVARK} is missing: run scripts/setup.sh, or `apt-get install netavark`");
    }
    Ok(())
}

/// The service, ready to be spawned.
pub(crate) fn service(namespace: &Namespace, dir: &Path, socket: &Path) -> Result<Command> {
    podman_there()?;
    let (config, storage) = (dir.join("containers.conf"), dir.join("storage.conf"));
    fs::write(&config, CONFIG).context("containers.conf")?;
    let folders = dir.display();
    let text = format!(
        "[storage]\ndriver = \"overlay\"\nrunroot = \"{folders}/podman-run\"\ngraphroot = \"{folders}/data\"\n"
    );
    fs::write(&storage, text).context("storage.conf")?;
    let script = "mkdir -p /run/containers && mount -t tmpfs tmpfs /run/containers && mount -t tmpfs tmpfs /run/netns && exec podman \"$@\"";
    let mut command = namespace.command(find_program("unshare", "util-linux")?);
    command
        .args(["--mount", "--propagation", "slave", "sh", "-c", script, "sh"])
        .arg(format!("--network-config-dir={folders}/networks"))
        .arg(format!("--tmpdir={folders}/podman-tmp"))
        .args(["--cgroup-manager=cgroupfs", "--events-backend=file"])
        .args(["system", "service", "--time=0"])
        .arg(format!("unix://{}", socket.display()))
        .env("CONTAINERS_CONF", config)
        .env("CONTAINERS_STORAGE_CONF", storage)
        // containers' supervisors leave files where the service runs
        .current_dir(dir);
    Ok(command)
}

/// runc, because crun refuses machines that have both kinds of control groups; small limits, because a machine may not
/// let its engines raise any; locks in files, because those in shared memory are all Podmans'.
const CONFIG: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
lock_type = "file"
[network]
network_backend = "netavark"
"#;
