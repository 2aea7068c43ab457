//! The container engine as ConMon sees it: which containers and networks there are, what happens to them, and the
//! monitoring containers that ConMon has it run.
//!
//! The plug point is [`Runtime`], a closed set of kinds; the types here are the same for each. State is read without
//! the engine's lock on a container, which it holds for the whole of a start: names must be known before the
//! container's process runs. Events are hints that something changed; [`Snapshot`] is the truth to compare with, to be
//! taken whenever [`EngineEvent::Connected`] comes.

pub mod cgroup;
mod docker;
mod labels;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ippm::time::Timestamp;

use crate::mac::Mac;

pub use docker::Docker;
pub use labels::{COMPOSE_PROJECT, COMPOSE_SERVICE, DEFAULT_TENANT, Policy};

/// Label with the name of the conmond instance that a monitoring container or image belongs to.
pub const LABEL_INSTANCE: &str = "conmon.instance";
/// Label that tells what of ConMon's a container is.
pub const LABEL_ROLE: &str = "conmon.role";
/// Value of [`LABEL_ROLE`] for monitoring containers and their image.
pub const ROLE_MONITOR: &str = "monitor";
/// Label with the pool slot that a monitoring container fills.
pub const LABEL_SLOT: &str = "conmon.slot";
/// Where a monitoring container finds the controller's socket: its host folder is mounted here.
pub const MONITOR_RUN_DIR: &str = "/run/conmon";
/// The user and group that a monitoring container runs as: nobody.
pub const MONITOR_UID: u32 = 65534;

/// The kind of networks whose bridge is in a network namespace of its own on each host, with tunnels between them.
pub const OVERLAY: &str = "overlay";

/// What the bridge of an overlay network, and the namespace that it is in, is called here; to the engine, all of them are `br0`.
pub fn overlay_name(network_id: &str) -> String {
    format!("ov-{}", network_id.get(..10).unwrap_or(network_id))
}

/// An application container. Monitoring containers never appear as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine's full identifier.
    pub id: String,
    /// Its name, without a leading slash.
    pub name: String,
    /// The image it was made from, as it was named then.
    pub image: String,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// What it does now.
    pub state: ContainerState,
    /// When it was made, to the second.
    pub created_at: Option<jiff::Timestamp>,
    /// When its process was started. A snapshot leaves it out, because the engine tells it under the container's
    /// lock; it comes with the start event, or from [`Runtime::started_at`].
    pub started_at: Option<jiff::Timestamp>,
    /// What its labels ask of ConMon: tenant, service, opt-out, kind of monitor.
    pub policy: Policy,
    /// Whose network it uses; none where that is not known yet.
    pub mode: Option<NetworkMode>,
    /// The networks it is connected to.
    pub networks: Vec<Endpoint>,
}

/// Whose network a container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// Its own, connected to the engine's networks.
    Own,
    /// The host's: it has no port.
    Host,
    /// None but its own loopback.
    Nothing,
    /// Another container's, named by identifier or name: it has no port, the other one has.
    Container(String),
    /// One that the engine did not make, as the engine names it: `ns:PATH`, `slirp4netns`, …
    Other(String),
}

impl NetworkMode {
    /// From the engine's word. Networks are named as the user named them, so whatever is no word of the engine's is one.
    pub fn parse(word: &str) -> NetworkMode {
        match word {
            "host" => NetworkMode::Host,
            "none" => NetworkMode::Nothing,
            "slirp4netns" | "pasta" | "private" => NetworkMode::Other(word.to_owned()),
            _ => match word.split_once(':') {
                Some(("container", other)) => NetworkMode::Container(other.to_owned()),
                Some(("ns" | "slirp4netns" | "pasta", _)) => NetworkMode::Other(word.to_owned()),
                _ => NetworkMode::Own,
            },
        }
    }
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerState {
    /// Made, and not started, or being started.
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It ended, and waits to be started again by the engine.
    Restarting,
    /// Its process ended.
    Exited,
    /// Being removed, or broken beyond use.
    Dead,
}

impl ContainerState {
    /// Whether its network namespace exists and packets may flow.
    pub fn is_alive(self) -> bool {
        matches!(self, ContainerState::Running | ContainerState::Paused)
    }
}

/// A container's place on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The network's identifier.
    pub network_id: String,
    /// The network's name.
    pub network_name: String,
    /// The bridge interface on the host, none for networks that have none.
    pub bridge: Option<String>,
    /// The endpoint's identifier.
    pub endpoint_id: String,
    /// The Ethernet address of the container's interface.
    pub mac: Option<Mac>,
    /// The addresses the engine gave it, IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
    /// The way out.
    pub gateway: Option<IpAddr>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its kind: `bridge`, `macvlan`, `overlay`, `host`, `null`, …
    pub driver: String,
    /// The bridge interface on the host, for the `bridge` kind; for the `overlay` kind, [`overlay_name`].
    pub bridge: Option<String>,
    /// Its address ranges, as `address/bits`.
    pub subnets: Vec<String>,
    /// The host's addresses in them.
    pub gateways: Vec<IpAddr>,
    /// Without a way out.
    pub internal: bool,
    /// With IPv6.
    pub ipv6: bool,
}

impl Network {
    /// Whether containers have interfaces of their own on it, seen by the host or not.
    pub fn has_ports(&self) -> bool {
        !matches!(self.driver.as_str(), "host" | "null" | "none")
    }
}

/// One endpoint as the network tells it, complete before the container's process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEndpoint {
    /// The container's identifier.
    pub container_id: String,
    /// The container's name.
    pub container_name: String,
    /// The endpoint's identifier.
    pub endpoint_id: String,
    /// The Ethernet address of the container's interface.
    pub mac: Option<Mac>,
    /// The addresses the engine gave it, IPv4 before IPv6.
    pub addresses: Vec<IpAddr>,
}

/// A network with all that is connected to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkMembers {
    /// The network itself.
    pub network: Network,
    /// Its endpoints.
    pub endpoints: Vec<NetworkEndpoint>,
}

/// Everything the engine has, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Application containers in any state.
    pub containers: Vec<Container>,
    /// All networks.
    pub networks: Vec<Network>,
}

/// When something happened, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// When the engine says that it happened.
    pub engine: jiff::Timestamp,
    /// When we had read it.
    pub received: Timestamp,
    /// The engine's time by our clock: not after we had read it, and not long before what it had told before that.
    pub told: Timestamp,
}

/// What happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerAction {
    /// It was made.
    Create,
    /// Its process runs; the engine says so some time after the process began.
    Start,
    /// Its process ended.
    Die {
        /// The process's exit code, 128 + signal when it was killed.
        exit_code: Option<i64>,
    },
    /// The engine sent it a signal.
    Kill {
        /// The signal's number.
        signal: Option<i32>,
    },
    /// A stop was asked for, and it ended.
    Stop,
    /// It was removed.
    Destroy,
    /// It has a new name.
    Rename {
        /// The name before.
        old_name: String,
    },
    /// Its processes were frozen.
    Pause,
    /// Its processes go on.
    Unpause,
    /// A restart was asked for and is done.
    Restart,
    /// Its limits or its restart policy changed.
    Update,
    /// The kernel killed a process in it for want of memory.
    OutOfMemory,
}

/// What the engine tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// Events come from now on, and those missed since the last connection come again. Take a snapshot.
    Connected {
        /// Whom we talk to.
        version: EngineVersion,
        /// Since when.
        at: Timestamp,
    },
    /// No events come; we try again until they do. Sent when the connection is lost and when the reason changes.
    Disconnected {
        /// Why, and what to do.
        error: String,
        /// Since when.
        at: Timestamp,
    },
    /// Something happened to an application container.
    Container {
        /// What.
        action: ContainerAction,
        /// The container.
        id: String,
        /// Its name (the new one when it was renamed).
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// When.
        at: EventTime,
    },
    /// Something happened to a monitoring container, of this instance or another.
    Monitor {
        /// What.
        action: ContainerAction,
        /// The container.
        id: String,
        /// The conmond instance it belongs to.
        instance: String,
        /// The pool slot it fills.
        slot: String,
        /// When.
        at: EventTime,
    },
    /// A container was connected to a network; its port exists.
    NetworkConnect {
        /// The network.
        network_id: String,
        /// The network's name.
        network_name: String,
        /// The container.
        container_id: String,
        /// When.
        at: EventTime,
    },
    /// A container was disconnected from a network, or ended.
    NetworkDisconnect {
        /// The network.
        network_id: String,
        /// The network's name.
        network_name: String,
        /// The container.
        container_id: String,
        /// When.
        at: EventTime,
    },
    /// A container was connected to a network or disconnected from one, and the engine does not say which: Podman.
    NetworksChanged {
        /// The container.
        container_id: String,
        /// When.
        at: EventTime,
    },
    /// There is a new network.
    NetworkCreated {
        /// The network.
        network_id: String,
        /// Its name.
        network_name: String,
        /// When.
        at: EventTime,
    },
    /// A network is gone.
    NetworkRemoved {
        /// The network.
        network_id: String,
        /// Its name.
        network_name: String,
        /// When.
        at: EventTime,
    },
}

/// The engines that we know the ways of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Docker Engine, and whatever calls itself by no other name.
    #[default]
    Docker,
    /// Podman's service, which speaks Docker's interface with differences.
    Podman,
}

impl EngineKind {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Docker => "docker",
            EngineKind::Podman => "podman",
        }
    }
}

/// Whom we talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineVersion {
    /// What it is.
    pub kind: EngineKind,
    /// The engine's release, such as `20.10.24`.
    pub engine: String,
    /// The interface version both sides speak, such as `1.41`.
    pub api: String,
    /// Where it answers: `unix:///var/run/docker.sock`.
    pub address: String,
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (API {})", self.kind.name(), self.engine, self.api)
    }
}

/// The image that monitoring containers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorImage {
    /// The engine's identifier.
    pub id: String,
    /// `conmon-monitor-INSTANCE:DIGEST`, the digest being that of the executable inside.
    pub tag: String,
    /// It was there already.
    pub reused: bool,
    /// Images of other builds that could not be removed yet: containers were made of them.
    pub others: usize,
}

/// How much a monitoring container may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorLimits {
    /// Memory, swap included, in bytes.
    pub memory_bytes: u64,
    /// Processor time per second, in thousandths of one core.
    pub cpu_millicores: u64,
    /// Processes and threads.
    pub pids: u32,
}

impl Default for MonitorLimits {
    /// A fifth of a core, 128 MiB and 32 threads.
    fn default() -> MonitorLimits {
        MonitorLimits { memory_bytes: 128 << 20, cpu_millicores: 200, pids: 32 }
    }
}

/// A monitoring container to be made.
#[derive(Clone, Debug)]
pub struct MonitorSpec {
    /// The pool slot: letters, digits, `_`, `.` and `-`.
    pub slot: String,
    /// The image, by identifier or tag.
    pub image: String,
    /// The host folder that appears inside as [`MONITOR_RUN_DIR`]; it must exist.
    pub host_dir: PathBuf,
    /// What it may use.
    pub limits: MonitorLimits,
    /// Its environment, as `NAME=value`.
    pub env: Vec<String>,
}

/// A monitoring container that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The engine's identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The pool slot it fills.
    pub slot: String,
    /// The identifier of the image it was made from.
    pub image_id: String,
    /// What it does now.
    pub state: ContainerState,
}

/// What became of a monitoring container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorStatus {
    /// What it does now.
    pub state: ContainerState,
    /// Its process on the host, while it runs.
    pub pid: Option<u32>,
    /// It ended for want of memory.
    pub oom_killed: bool,
    /// The exit code of its last run, none while it runs or before it ran.
    pub exit_code: Option<i64>,
}

/// What a monitoring container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorUsage {
    /// Memory charged to it, in bytes.
    pub memory_bytes: u64,
    /// Processor time it has used since it was started, in nanoseconds.
    pub cpu_ns: u64,
    /// Processes and threads it has.
    pub pids: u64,
}

/// What [`Runtime::remove_everything`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Monitoring containers.
    pub containers: usize,
    /// Monitoring images.
    pub images: usize,
}

/// A container engine of one of the kinds that ConMon serves. Cheap to clone; clones share one connection state.
#[derive(Clone, Debug)]
pub enum Runtime {
    /// Docker Engine 20.10 or later, or Podman 4 or later, by its Unix socket.
    Docker(Docker),
}

impl Runtime {
    /// The engine that `DOCKER_HOST` names, for the conmond instance of that name. Without, the usual sockets are looked
    /// for at each connection. Nothing is sent yet.
    pub fn new(docker_host: Option<&str>, instance: &str) -> Result<Runtime, RuntimeError> {
        Ok(Runtime::Docker(Docker::new(docker_host, instance)?))
    }

    /// Where it is asked, for people: `unix:///var/run/docker.sock`.
    pub fn address(&self) -> String {
        match self {
            Runtime::Docker(docker) => format!("unix://{}", docker.socket().display()),
        }
    }

    /// Asks the engine for its version: the first thing to do, because its errors say what is wrong.
    pub async fn connect(&self) -> Result<EngineVersion, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.connect().await,
        }
    }

    /// Hands everything that happens to `sink`, for ever; connects again whenever the engine goes away. Ends when
    /// the future is dropped. `sink` must be quick.
    pub async fn watch(&self, sink: impl FnMut(EngineEvent) + Send) {
        match self {
            Runtime::Docker(docker) => docker.watch(sink).await,
        }
    }

    /// All application containers and networks. Does not wait for containers that are being started.
    pub async fn snapshot(&self) -> Result<Snapshot, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.snapshot().await,
        }
    }

    /// A network and its endpoints, none when there is no such network.
    pub async fn network_endpoints(&self, network_id: &str) -> Result<Option<NetworkMembers>, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.network_endpoints(network_id).await,
        }
    }

    /// When a running container's process was started, none when it does not run. Waits while the engine starts it.
    pub async fn started_at(&self, container_id: &str) -> Result<Option<jiff::Timestamp>, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.started_at(container_id).await,
        }
    }

    /// Whose network a container uses, none when it is not there. Waits while the engine starts it.
    pub async fn network_mode(&self, container_id: &str) -> Result<Option<NetworkMode>, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.network_mode(container_id).await,
        }
    }

    /// The file of a running container's network namespace, none when it is not there or does not run. Waits while the engine starts it.
    pub async fn sandbox(&self, container_id: &str) -> Result<Option<PathBuf>, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.sandbox(container_id).await,
        }
    }

    /// Makes the monitoring image from a static executable unless it is there, and removes those of other builds, as far
    /// as no container needs them.
    pub async fn ensure_image(&self, executable: &Path) -> Result<MonitorImage, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.ensure_image(executable).await,
        }
    }

    /// Removes this instance's monitoring images except the one with this tag. Those that a container still needs stay;
    /// tells how many.
    pub async fn remove_other_images(&self, keep: &str) -> Result<usize, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.remove_other_images(keep).await,
        }
    }

    /// Makes a monitoring container and returns its identifier. One of the same slot is replaced.
    pub async fn create_monitor(&self, spec: &MonitorSpec) -> Result<String, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.create_monitor(spec).await,
        }
    }

    /// Starts a monitoring container; it is no error when it runs already.
    pub async fn start_monitor(&self, id: &str) -> Result<(), RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.start_monitor(id).await,
        }
    }

    /// Kills a monitoring container; it is no error when it does not run or is not there.
    pub async fn kill_monitor(&self, id: &str) -> Result<(), RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.kill_monitor(id).await,
        }
    }

    /// Removes a monitoring container, running or not; it is no error when it is not there.
    pub async fn remove_monitor(&self, id: &str) -> Result<(), RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.remove_monitor(id).await,
        }
    }

    /// This instance's monitoring containers in any state.
    pub async fn list_monitors(&self) -> Result<Vec<Monitor>, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.list_monitors().await,
        }
    }

    /// What became of a monitoring container, none when it is not there.
    pub async fn monitor_status(&self, id: &str) -> Result<Option<MonitorStatus>, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.monitor_status(id).await,
        }
    }

    /// What a running monitoring container uses, none when it is not there.
    pub async fn monitor_usage(&self, id: &str) -> Result<Option<MonitorUsage>, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.monitor_usage(id).await,
        }
    }

    /// Removes this instance's monitoring containers and images. Goes on after a failure and returns the first.
    pub async fn remove_everything(&self) -> Result<Removed, RuntimeError> {
        match self {
            Runtime::Docker(docker) => docker.remove_everything().await,
        }
    }
}

/// `A`, `A or B`, `A, B or C`.
fn or(paths: &[PathBuf]) -> String {
    let mut text = String::new();
    for (place, path) in paths.iter().enumerate() {
        text.push_str(match place {
            0 => "",
            _ if place + 1 == paths.len() => " or ",
            _ => ", ",
        });
        text.push_str(&path.to_string_lossy());
    }
    text
}

fn socket_advice(rootless: &[PathBuf]) -> String {
    match rootless {
        [] => "; start the engine (systemctl start docker, or systemctl start podman.socket) or set \
               DOCKER_HOST=unix://PATH"
            .to_owned(),
        _ => format!(
            ", but a rootless engine's at {}. Its containers' network lies in a namespace of its own: run conmond in \
             that namespace, as root, with DOCKER_HOST=unix://PATH (docs/network-modes.md), or start an engine as root",
            or(rootless)
        ),
    }
}

/// Why the engine could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// An address of another kind.
    #[error(
        "DOCKER_HOST is '{host}', but ConMon taps this host's own links and needs its engine's Unix socket; \
         set DOCKER_HOST=unix:///var/run/docker.sock"
    )]
    NoUnixSocket {
        /// What was given.
        host: String,
    },
    /// No socket file.
    #[error("there is no engine socket at {}{}", or(looked), socket_advice(rootless))]
    SocketMissing {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
        /// Sockets of rootless engines, which are not taken by themselves.
        rootless: Vec<PathBuf>,
    },
    /// A socket file that we may not use.
    #[error("no permission to use the engine socket {}; run conmond as root", path.display())]
    PermissionDenied {
        /// The socket.
        path: PathBuf,
    },
    /// A socket file without an engine.
    #[error("no engine listens at {}; start it (systemctl start docker, or systemctl start podman.socket)", path.display())]
    NobodyListens {
        /// The socket.
        path: PathBuf,
    },
    /// An engine before Docker 20.10 or Podman 4.
    #[error(
        "the engine {version} is too old; ConMon needs Docker Engine 20.10 or Podman 4 (API 1.41) or later"
    )]
    TooOld {
        /// What it said of itself.
        version: EngineVersion,
    },
    /// A guard before the engine's socket said no.
    #[error(
        "what guards the engine's socket forbids to {what}; let it pass the request \
         (in docker-socket-proxy: CONTAINERS, NETWORKS, IMAGES, POST)"
    )]
    Forbidden {
        /// What was asked.
        what: &'static str,
        /// Its words.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// The engine said no, or the connection broke.
    #[error("the engine failed to {what}")]
    Call {
        /// What it was asked to do.
        what: &'static str,
        /// Its reason.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// What came is no answer of an engine.
    #[error(
        "what answers at the engine's socket does not answer as an engine when asked to {what}: {why}; see what listens \
         there (DOCKER_HOST) and its log"
    )]
    Nonsense {
        /// What was asked.
        what: &'static str,
        /// What cannot be read.
        why: String,
    },
    /// More came than an engine sends.
    #[error(
        "asked to {what}, the engine sent more than {} MiB, which is no engine's answer: the connection was \
         closed; see what listens at its socket (DOCKER_HOST) and its log",
        octets >> 20
    )]
    TooMuch {
        /// What was asked.
        what: &'static str,
        /// How much may come.
        octets: u64,
    },
    /// No answer in time.
    #[error("the engine took longer than {seconds} s to {what}; it is overloaded or hangs (see its log)")]
    NoAnswer {
        /// What it was asked to do.
        what: &'static str,
        /// How long we waited, in seconds.
        seconds: u64,
    },
    /// The connection for events ended.
    #[error("the engine closed the event stream; it stopped or was restarted")]
    EventsEnded,
    /// A name that image and container names cannot hold.
    #[error(
        "the instance name '{name}' cannot be used: give at most 40 lower-case letters and digits, with single '-', '_' or '.' between them"
    )]
    BadInstance {
        /// What was given.
        name: String,
    },
    /// A slot that container names cannot hold.
    #[error(
        "the pool slot '{slot}' cannot be part of a container's name: give letters, digits, '_', '.' and '-'"
    )]
    BadSlot {
        /// What was given.
        slot: String,
    },
    /// The folder that a monitoring container is to have is not there. Some engines would make it, somewhere.
    #[error("the monitoring container's folder {} is not there; is the run folder conmond's own, under the same path as the engine sees it?", path.display())]
    NoFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The executable could not be read.
    #[error("cannot read the executable {} to make the monitoring image of it", path.display())]
    ReadExecutable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It would not run in an empty image.
    #[error(
        "{} is not a static executable, so it cannot run in the monitoring image, which has no libraries; \
         install a release build of conmond, or build with -C target-feature=+crt-static", path.display()
    )]
    NotStatic {
        /// The file.
        path: PathBuf,
    },
    /// The import went wrong.
    #[error(
        "the engine refused to import the monitoring image '{tag}'; look for space in its data folder (docker info, df) and at its log"
    )]
    ImportRefused {
        /// The image's name.
        tag: String,
        /// Its reason.
        #[source]
        source: Box<bollard::errors::Error>,
    },
}
