//! [`Lab`]: what a test or the demo holds while hosts exist. Dropping it removes everything. Should the holder be
//! killed, a guard process (the `lab` executable) sees its pipe close and does the same; should that be killed too,
//! the next lab on the machine sweeps.

use crate::bins::program;
use crate::diagnose;
use crate::host::{EngineKind, Host};
use crate::names::{LabId, is_valid_part, start_time};
use crate::netns::Namespace;
use crate::teardown::{self, NOTES_DIR, Note, Removed, note_path};
use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// A lab: hosts and namespaces that exist as long as this does.
#[derive(Debug)]
pub struct Lab {
    id: LabId,
    dir: PathBuf,
    hosts: Mutex<Vec<Host>>,
    guard: Option<Child>,
    removed: bool,
}

impl Lab {
    /// Sweeps what dead labs left, then begins a new, empty lab. Needs root.
    pub fn start() -> Result<Self> {
        if !geteuid().is_root() {
            bail!("a lab makes network namespaces and starts container engines: run it as root");
        }
        for (id, removed) in teardown::sweep()? {
            eprintln!("lab: swept {id}, whose owner is gone: {removed}");
        }
        let id = LabId::next();
        let base = std::env::var_os("LAB_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = std::path::absolute(base)?.join(id.name());
        let pid = std::process::id();
        let start_time = start_time(pid).context("cannot read this process's own start time from /proc")?;
        let note = serde_json::to_vec(&Note { pid, start_time, dir: dir.clone() })?;
        fs::create_dir_all(NOTES_DIR).with_context(|| format!("cannot make {NOTES_DIR}"))?;
        fs::write(note_path(id), note).context("cannot leave the note that lets a sweep find this lab")?;
        let mut lab = Self { id, dir, hosts: Mutex::default(), guard: None, removed: false };
        // Others may look in, as monitoring containers run as nobody; only the owner may write.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&lab.dir)
            .context("cannot make the lab's folder")?;
        lab.guard = lab.start_guard();
        Ok(lab)
    }

    /// The lab's identity; every name in it begins with `conmon-lab-` and this.
    pub fn id(&self) -> LabId {
        self.id
    }

    /// The lab's folder; gone with the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a host: a network namespace with an engine of its own. `name` is lower case, digits and `-`.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.host_with(name, EngineKind::Docker, &[])
    }

    /// Starts a host whose `dockerd` gets further arguments, such as `--live-restore`.
    pub fn docker_host(&self, name: &str, arguments: &[&str]) -> Result<Host> {
        self.host_with(name, EngineKind::Docker, arguments)
    }

    /// Starts a host whose engine is Podman.
    pub fn podman_host(&self, name: &str) -> Result<Host> {
        self.host_with(name, EngineKind::Podman, &[])
    }

    /// Starts a host whose engine is a Docker of a user without rights.
    pub fn rootless_host(&self, name: &str) -> Result<Host> {
        self.host_with(name, EngineKind::Rootless, &[])
    }

    fn host_with(&self, name: &str, engine: EngineKind, arguments: &[&str]) -> Result<Host> {
        check_part(name)?;
        let host = Host::start(self.id, &self.dir.join(name), name, engine, arguments);
        if let Ok(host) = &host {
            self.hosts.lock().unwrap_or_else(|e| e.into_inner()).push(host.clone());
        }
        host.with_context(|| format!("cannot start host {name}"))
    }

    /// Makes a bare network namespace: something outside that containers talk to.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        check_part(name)?;
        Namespace::create(self.id.part(name))
    }

    /// Lays a cable between two namespaces: a veth pair whose ends have the given names and addresses
    /// (`"10.0.0.1/24"`, IPv4 or IPv6, several separated by spaces).
    pub fn cable(&self, a: (&Namespace, &str, &str), b: (&Namespace, &str, &str)) -> Result<()> {
        let ((a_ns, a_if, _), (b_ns, b_if, _)) = (a, b);
        a_ns.ip(&["link", "add", a_if, "type", "veth", "peer", "name", b_if, "netns", b_ns.name()])?;
        for (ns, interface, addresses) in [a, b] {
            for address in addresses.split_ascii_whitespace() {
                ns.add_address(interface, address)?;
            }
            ns.ip(&["link", "set", interface, "up"])?;
        }
        for (ns, interface, _) in [a, b] {
            crate::wait::wait_for("cable up", Duration::from_secs(5), || {
                let links: serde_json::Value =
                    serde_json::from_str(&ns.ip(&["-j", "link", "show", interface])?)?;
                Ok((links[0]["operstate"] == "UP").then_some(()))
            })?;
        }
        Ok(())
    }

    /// Everything worth knowing after a failure: containers, interfaces, tails of the logs.
    pub fn diagnosis(&self) -> String {
        let hosts = self.hosts.lock().unwrap_or_else(|e| e.into_inner()).clone();
        hosts.iter().map(diagnose::host).collect()
    }

    /// What is left of the lab on this machine, in words; empty after [`Lab::remove`].
    pub fn traces(&self) -> Vec<String> {
        teardown::traces(self.id, Some(&self.dir))
    }

    /// Removes everything and says what that was. Dropping the lab does the same, but can only print a failure.
    pub fn remove(mut self) -> Result<Removed> {
        self.take_apart()
    }

    fn take_apart(&mut self) -> Result<Removed> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(Removed::default());
        }
        let hosts = std::mem::take(&mut *self.hosts.lock().unwrap_or_else(|e| e.into_inner()));
        for host in &hosts {
            host.tidy();
        }
        let removed = teardown::destroy(self.id, Some(&self.dir));
        // Reaped here, or they would stay zombies until this process ends.
        for host in hosts {
            host.reap();
        }
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().context("guard process")?;
        }
        removed
    }

    /// The guard is a second line behind `Drop` and before the sweep, so a lab without one is still sound.
    fn start_guard(&self) -> Option<Child> {
        use std::os::unix::process::CommandExt;
        if std::env::var_os("LAB_NO_GUARD").is_some() {
            return None;
        }
        let program = program("lab").ok()?;
        let mut command = Command::new(program);
        command.args(["guard", &self.id.to_string()]).stdin(Stdio::piped()).stdout(Stdio::null());
        // Out of the terminal's foreground group: the interrupt key must not end the guard.
        command.stderr(Stdio::null()).current_dir("/").process_group(0).spawn().ok()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.removed && std::thread::panicking() {
            eprintln!("{}", self.diagnosis());
        }
        if let Err(error) = self.take_apart() {
            eprintln!("lab: {error:#}");
        }
    }
}

/// The guard process's whole life: waits until the lab's owner is gone, then removes what it left. `owner_gone`
/// returns when the owner has closed its end of the pipe or has died.
pub fn stand_guard(id: LabId, owner_gone: impl FnOnce()) -> Result<Removed> {
    let note: Note = match fs::read(note_path(id)) {
        Ok(bytes) => serde_json::from_slice(&bytes).context("the lab's note is not readable")?,
        Err(_) => bail!("there is no lab {id}"),
    };
    owner_gone();
    // An owner that ended well has removed the lab itself; the pipe closes after that.
    if !note_path(id).exists() {
        return Ok(Removed::default());
    }
    // The pipe of a killed owner closes a moment before the process is gone.
    crate::wait::wait_for("end of the lab's owner", Duration::from_secs(30), || {
        Ok((start_time(note.pid) != Some(note.start_time)).then_some(()))
    })?;
    teardown::sweep().map(|mut swept| swept.remove(&id).unwrap_or_default())
}

fn check_part(name: &str) -> Result<()> {
    if !is_valid_part(name) {
        bail!("{name:?} cannot name a host: use 1 to 10 lower-case letters, digits and `-`");
    }
    Ok(())
}
