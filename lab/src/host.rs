//! [`Host`]: a network namespace with a container engine of its own. The engine (`dockerd`, and a `containerd` that
//! serves it alone, so that the machine's own is never touched; or Podman's service) runs in the namespace but in the machine's mount
//! namespace: control groups stay visible, and monitors see the same paths as on a real host.

use crate::container::{Container, Spec};
use crate::engine;
use crate::image::{self, App};
use crate::names::LabId;
use crate::netns::{Link, Namespace};
use crate::podman;
use crate::rootless;
use crate::run::{describe, find_program, output, output_text};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for an engine to answer.
pub(crate) const ENGINE_START: Duration = Duration::from_secs(60);

/// A host's engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// `dockerd`.
    Docker,
    /// Podman's service.
    Podman,
    /// A Docker of a user without rights.
    Rootless,
}

/// A host of the lab. Clones are handles of the same host; it lives as long as its [`crate::Lab`].
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    full_name: String,
    engine: EngineKind,
    namespace: Namespace,
    dir: PathBuf,
    client: PathBuf,
    iptables: bool,
    start_took: Duration,
    processes: Mutex<Vec<Child>>,
    images: Mutex<HashSet<App>>,
    logs: Mutex<Vec<PathBuf>>,
}

impl Host {
    /// `arguments` are further ones of `dockerd`; Podman's service takes none.
    pub(crate) fn start(
        id: LabId,
        dir: &Path,
        name: &str,
        engine: EngineKind,
        arguments: &[&str],
    ) -> Result<Self> {
        let begin = Instant::now();
        for sub in ["docker-cli", "run", "captures"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let socket = dir.join("docker.sock");
        let (namespace, own) = match engine {
            EngineKind::Docker | EngineKind::Podman => (Namespace::create(id.part(name))?, None),
            EngineKind::Rootless => {
                let (namespace, child) = rootless::start(id.part(name), dir)?;
                (namespace, Some(child))
            }
        };
        let iptables = ["iptables", "ip6tables"].iter().all(|tool| iptables_works(&namespace, tool));
        let processes = match engine {
            EngineKind::Docker => docker(&namespace, dir, &socket, iptables, arguments)?,
            EngineKind::Podman => {
                let mut service = podman::service(&namespace, dir, &socket)?;
                vec![spawn(&mut service, &dir.join("podman.log"))?]
            }
            EngineKind::Rootless => own.into_iter().collect(),
        };
        let logs: &[&str] = match engine {
            EngineKind::Docker => &["dockerd.log", "containerd.log"],
            EngineKind::Podman => &["podman.log"],
            EngineKind::Rootless => &["dockerd.log"],
        };
        let mut host = Inner {
            name: name.to_string(),
            full_name: id.part(name),
            engine,
            namespace,
            dir: dir.to_path_buf(),
            client: PathBuf::new(),
            iptables,
            start_took: Duration::ZERO,
            processes: Mutex::new(processes),
            images: Mutex::default(),
            logs: Mutex::new(logs.iter().map(|log| dir.join(log)).collect()),
        };
        host.await_engine()?;
        host.client = host.find_client()?;
        host.start_took = begin.elapsed();
        Ok(Self(Arc::new(host)))
    }

    /// The name given at start.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name that is unique on this machine; also the default instance of a conmond here.
    pub fn full_name(&self) -> &str {
        &self.0.full_name
    }

    /// The host's network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// A folder of the host's own, gone with the lab.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// How long the host took from nothing to an engine that answers.
    pub fn start_took(&self) -> Duration {
        self.0.start_took
    }

    /// Whether the engine manages iptables here (it does wherever iptables works in a namespace). Without, there are
    /// neither published ports nor the engine's name service.
    pub fn iptables(&self) -> bool {
        self.0.iptables
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.0.socket()
    }

    /// The engine's address, as `DOCKER_HOST` wants it.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its engine.
    pub fn engine(&self) -> EngineKind {
        self.0.engine
    }

    /// Where the running engine writes its log.
    pub fn engine_log(&self) -> PathBuf {
        self.0.log()
    }

    /// A command that will run in the host's network namespace, with `DOCKER_HOST` set.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.0.namespace.command(program);
        self.0.clean_docker_environment(&mut command);
        command
    }

    /// The command-line client, ready for arguments.
    pub fn docker_command(&self) -> Command {
        self.0.docker_command(&self.0.client)
    }

    /// Runs `docker ARGS`; returns what it printed, without the white space around it.
    pub fn docker(&self, args: &[&str]) -> Result<String> {
        output_text(self.docker_command().args(args))
    }

    /// One request to the engine's HTTP API; quicker than the client by a process start. An error status is an error.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        engine::call(&self.socket(), method, path, body)
    }

    /// Imports an application's image once, and returns the name to run it by.
    pub fn image(&self, app: App) -> Result<&'static str> {
        let mut images = self.0.images.lock().unwrap_or_else(|e| e.into_inner());
        if !images.contains(&app) {
            let (tar, changes) = image::packed(app)?;
            let mut import = self.docker_command();
            import.arg("import");
            for change in changes {
                import.arg("--change").arg(change);
            }
            output(import.arg(tar).arg(app.image()))?;
            images.insert(app);
        }
        Ok(app.image())
    }

    /// Creates a user-defined bridge network; with `ipv6_subnet` (`fd00:1::/64`) it speaks IPv6 too.
    pub fn network(&self, name: &str, ipv6_subnet: Option<&str>) -> Result<()> {
        let mut args = vec!["network", "create"];
        if let Some(subnet) = ipv6_subnet {
            args.extend(["--ipv6", "--subnet", subnet]);
        }
        args.push(name);
        self.docker(&args).map(drop)
    }

    /// Creates a container without starting it.
    pub fn create(&self, spec: &Spec) -> Result<Container> {
        if let Some(app) = spec.app_of() {
            self.image(app)?;
        }
        let mut create = self.docker_command();
        create.arg("create");
        if self.0.engine == EngineKind::Podman {
            // Docker's daemon has an option for all of its containers
            create.arg(format!("--cgroup-parent=/{}", self.0.namespace.name()));
        }
        let id = output_text(create.args(spec.arguments()))?;
        Ok(Container::new(self.clone(), id, spec.name().to_string()))
    }

    /// Creates a container and starts it.
    pub fn run(&self, spec: &Spec) -> Result<Container> {
        let container = self.create(spec)?;
        container.start()?;
        Ok(container)
    }

    /// The interfaces of the host with their counters.
    pub fn links(&self) -> Result<Vec<Link>> {
        self.0.namespace.links()
    }

    /// Adds a file whose tail a diagnosis shows.
    pub fn watch_log(&self, file: &Path) {
        self.logs_mut(|logs| {
            if !logs.iter().any(|l| l == file) {
                logs.push(file.to_path_buf());
            }
        });
    }

    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        self.logs_mut(|logs| logs.clone())
    }

    fn logs_mut<T>(&self, act: impl FnOnce(&mut Vec<PathBuf>) -> T) -> T {
        act(&mut self.0.logs.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Kills the engine (`dockerd` alone; containers go on) and starts it again.
    pub fn restart_engine(&self) -> Result<()> {
        self.stop_engine(Signal::SIGKILL)?.start()
    }

    /// Ends the engine (`dockerd` alone) by a signal and waits until it is gone. What it does with containers is its own affair:
    /// SIGTERM ends them, save where it has `--live-restore`; SIGKILL leaves them.
    pub fn stop_engine(&self, signal: Signal) -> Result<StoppedEngine<'_>> {
        let mut processes = self.0.processes.lock().unwrap_or_else(|e| e.into_inner());
        let mut old = processes.pop().context("this host has no engine any more")?;
        let line = fs::read(format!("/proc/{}/cmdline", old.id())).context("the engine's command line")?;
        let pid = Pid::from_raw(i32::try_from(old.id()).context("process id")?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to the engine"))?;
        let ended = wait_for("end of the engine", ENGINE_START, || Ok(old.try_wait()?));
        if ended.is_err() {
            processes.push(old);
        }
        ended?;
        let words = line.split(|b| *b == 0).filter(|w| !w.is_empty());
        let words = words.map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        Ok(StoppedEngine { host: self, words })
    }

    /// Has Podman remove its containers: monitors' control groups bear no name of the lab's, so that nobody could find
    /// them later. What fails here is ended by force.
    pub(crate) fn tidy(&self) {
        if self.0.engine == EngineKind::Podman
            && let Ok(ids) = self.docker(&["ps", "--all", "--quiet"])
        {
            let _ = self.docker_command().args(["rm", "--force"]).args(ids.split_whitespace()).output();
        }
    }

    pub(crate) fn reap(&self) {
        for mut child in self.0.processes.lock().unwrap_or_else(|e| e.into_inner()).drain(..) {
            // Killed already by the teardown; kill again, so that waiting cannot hang whatever happened before.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An engine that was stopped, and can be started again.
#[derive(Debug)]
#[must_use = "the host has no engine until it is started again"]
pub struct StoppedEngine<'a> {
    host: &'a Host,
    words: Vec<String>,
}

impl StoppedEngine<'_> {
    /// Starts the engine again, with the same arguments, and waits until it answers.
    pub fn start(self) -> Result<()> {
        let inner = &self.host.0;
        let (program, arguments) = self.words.split_first().context("the engine's command line is empty")?;
        let mut command = inner.namespace.command(program);
        let child = spawn(command.args(arguments), &self.host.engine_log())?;
        inner.processes.lock().unwrap_or_else(|e| e.into_inner()).push(child);
        inner.await_engine()
    }
}

impl Inner {
    fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    fn log(&self) -> PathBuf {
        self.dir.join(match self.engine {
            EngineKind::Docker | EngineKind::Rootless => "dockerd.log",
            EngineKind::Podman => "podman.log",
        })
    }

    fn await_engine(&self) -> Result<()> {
        wait_for("engine's answer", ENGINE_START, || {
            for child in self.processes.lock().unwrap_or_else(|e| e.into_inner()).iter_mut() {
                if let Some(status) = child.try_wait()? {
                    bail!("the engine ended ({status}):\n{}", crate::diagnose::tail(&self.log(), 20));
                }
            }
            let answer = engine::request(&self.socket(), "GET", "/_ping", None);
            Ok(answer.is_ok_and(|(status, _)| status == 200).then_some(()))
        })
    }

    /// Some clients refuse old engines and some machines have several clients: take the first that gets an answer.
    fn find_client(&self) -> Result<PathBuf> {
        let chosen = std::env::var_os("LAB_DOCKER").map(PathBuf::from);
        let on_path = find_program("docker", "docker.io").ok();
        let mut failures = Vec::new();
        for client in chosen.into_iter().chain([PathBuf::from("/usr/bin/docker")]).chain(on_path) {
            let mut probe = self.docker_command(&client);
            match output_text(probe.args(["version", "--format", "{{.Server.Version}}"])) {
                Ok(_) => return Ok(client),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!("no docker client can talk to the engine: {}", failures.join("; "))
    }

    fn docker_command(&self, client: &Path) -> Command {
        let mut command = Command::new(client);
        self.clean_docker_environment(&mut command);
        command.env("DOCKER_CONFIG", self.dir.join("docker-cli"));
        command
    }

    fn clean_docker_environment(&self, command: &mut Command) {
        for variable in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"] {
            command.env_remove(variable);
        }
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
    }
}

impl Drop for Inner {
    /// Reached with processes only when the host did not come up: then nobody else knows of them.
    fn drop(&mut self) {
        for mut child in self.processes.get_mut().unwrap_or_else(|e| e.into_inner()).drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts `containerd`, and `dockerd` after it.
fn docker(
    namespace: &Namespace,
    dir: &Path,
    socket: &Path,
    iptables: bool,
    arguments: &[&str],
) -> Result<Vec<Child>> {
    let dockerd = find_program("dockerd", "docker.io")?;
    let containerd = find_program("containerd", "containerd")?;
    let containerd_config = dir.join("containerd.toml");
    fs::write(&containerd_config, containerd_toml(dir)).context("containerd.toml")?;
    // The machine's own /etc/docker/daemon.json must not steer the lab's engines.
    fs::write(dir.join("daemon.json"), "{}").context("daemon.json")?;
    let mut first = namespace.command(containerd);
    first.arg("--config").arg(&containerd_config);
    let mut second = namespace.command(dockerd);
    second.arg("--config-file").arg(dir.join("daemon.json"));
    second.arg("--containerd").arg(dir.join("containerd.sock"));
    second.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
    second.arg("--pidfile").arg(dir.join("dockerd.pid"));
    second.arg("--host").arg(format!("unix://{}", socket.display()));
    // A control group of the lab's own makes every container's process findable after a crash; cgroupfs so that
    // the name is taken as it stands on machines with systemd too.
    second.arg("--exec-opt").arg("native.cgroupdriver=cgroupfs");
    second.arg(format!("--cgroup-parent=/{}", namespace.name()));
    second.arg(format!("--iptables={iptables}")).args(arguments);
    let mut processes = vec![spawn(&mut first, &dir.join("containerd.log"))?];
    processes.push(spawn(&mut second, &dir.join("dockerd.log"))?);
    Ok(processes)
}

fn iptables_works(namespace: &Namespace, tool: &str) -> bool {
    let Ok(tool) = find_program(tool, "iptables") else { return false };
    output(namespace.command(tool).args(["-t", "nat", "-S"])).is_ok()
}

pub(crate) fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let file = File::options().create(true).append(true).open(log);
    let file = file.with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    // Out of the terminal's foreground group: the interrupt key is for the lab's owner to act on.
    command.process_group(0);
    command.spawn().with_context(|| format!("cannot run `{}`", describe(command)))
}

/// Containerd for one engine: sockets and folders below the host's own, and no plugin an engine does not use.
fn containerd_toml(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/containerd/root"
state = "{dir}/containerd/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{dir}/containerd.sock"
[ttrpc]
address = "{dir}/containerd.sock.ttrpc"
[debug]
level = "warn"
"#
    )
}
