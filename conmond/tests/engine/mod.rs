//! A container engine of its own for one test, Docker or Podman: own network namespace, data root and socket. Gone when
//! dropped.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, HostConfig, Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};

use crate::netns::Netns;

/// The image that applications run: a static busybox and nothing else.
pub const APP_IMAGE: &str = "app:1";

pub use conmond::runtime::EngineKind as Kind;

pub struct Engine {
    pub kind: Kind,
    pub ns: Netns,
    pub dir: PathBuf,
    daemon: Option<Child>,
}

impl Engine {
    /// Starts an engine and imports [`APP_IMAGE`].
    pub async fn start(kind: Kind, tag: &str) -> Engine {
        let ns = Netns::new(tag);
        let dir = std::env::temp_dir().join(&ns.name);
        std::fs::create_dir_all(dir.join("root/bin")).expect("the engine's folder");
        if kind == Kind::Docker {
            // The default network's bridge, so that the engine need not touch another one's docker0.
            ns.ip("link add br-app type bridge");
            ns.ip("addr add 10.201.0.1/16 dev br-app");
            ns.ip("link set br-app up");
        }
        let mut engine = Engine { kind, ns, dir, daemon: None };
        engine.boot();
        engine.ready().await;
        engine.import_app().await;
        engine
    }

    pub fn socket(&self) -> String {
        self.dir.join("sock").to_string_lossy().into_owned()
    }

    /// The default network's name and bridge.
    pub fn default_network(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Docker => ("bridge", "br-app"),
            Kind::Podman => ("podman", "podman0"),
        }
    }

    /// Starts the daemon without waiting for it.
    pub fn boot(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .expect("the engine's log");
        let mut command = match self.kind {
            Kind::Docker => self.dockerd(),
            Kind::Podman => self.podman(),
        };
        // containers' supervisors leave files where the engine runs
        command.current_dir(&self.dir);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("starting the engine");
        self.daemon = Some(child);
    }

    fn dockerd(&self) -> Command {
        let path = |name: &str| self.dir.join(name).to_string_lossy().into_owned();
        // Only the network namespace: the engine must see the host's cgroup mounts.
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.ns.path()))
            .args(["dockerd", "--bridge", "br-app", "--iptables=false", "--ip6tables=false"])
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["-H", &format!("unix://{}", self.socket())]);
        command
    }

    /// Podman's service. Its mounts are its own, and so is the folder in which it counts addresses, which it has no
    /// option for: other Podmans of this machine must not notice.
    fn podman(&self) -> Command {
        let write = |name: &str, text: String| {
            let path = self.dir.join(name);
            std::fs::write(&path, text).expect("the engine's configuration");
            path
        };
        let config = write("containers.conf", podman_config());
        let storage = write("storage.conf", podman_storage(&self.dir));
        let script = "mkdir -p /run/containers && mount -t tmpfs tmpfs /run/containers && mount -t tmpfs tmpfs /run/netns && exec podman \"$@\"";
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.ns.path()))
            .args(["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh"])
            .arg(format!("--network-config-dir={}", self.dir.join("networks").display()))
            .arg(format!("--tmpdir={}", self.dir.join("tmp").display()))
            .args(["--cgroup-manager=cgroupfs", "--events-backend=file"])
            .args(["system", "service", "--time=0", &format!("unix://{}", self.socket())])
            .env("CONTAINERS_CONF", config)
            .env("CONTAINERS_STORAGE_CONF", storage);
        command
    }

    pub async fn ready(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let docker = conmond::runtime::Docker::new(Some(&self.socket()), "probe").expect("a socket path");
            match docker.connect().await {
                Ok(_) => return,
                Err(error) if Instant::now() > end => {
                    let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                    panic!("the engine does not come up: {error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Ends the daemon as an administrator would.
    pub fn stop(&mut self) {
        let Some(mut child) = self.daemon.take() else { return };
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    pub fn client(&self) -> bollard::Docker {
        bollard::Docker::connect_with_unix(&self.socket(), 60, bollard::API_DEFAULT_VERSION)
            .expect("the socket")
    }

    async fn import_app(&self) {
        let mut archive = tar::Builder::new(Vec::new());
        archive
            .append_path_with_name("/bin/busybox", "bin/busybox")
            .expect("/bin/busybox (Debian: busybox-static)");
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "bin/sh", "busybox").expect("a link");
        let bytes = archive.into_inner().expect("an archive");
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(APP_IMAGE).build();
        self.client()
            .create_image(Some(options), Some(bollard::body_full(bytes.into())), None)
            .try_collect::<Vec<_>>()
            .await
            .expect("importing the application image");
    }

    /// Makes a container that runs a shell command; returns its identifier.
    pub async fn create(&self, name: &str, labels: &[(&str, &str)], script: &str, network: &str) -> String {
        let body = ContainerCreateBody {
            image: Some(APP_IMAGE.into()),
            cmd: Some(["/bin/busybox", "sh", "-c", script].map(String::from).to_vec()),
            labels: Some(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()),
            host_config: Some(HostConfig { network_mode: Some(network.into()), ..Default::default() }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.client().create_container(Some(options), body).await.expect("creating a container").id
    }

    pub async fn start_container(&self, id: &str) {
        self.client()
            .start_container(id, None::<bollard::query_parameters::StartContainerOptions>)
            .await
            .expect("starting a container");
    }

    pub async fn remove(&self, id: &str) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        self.client().remove_container(id, Some(options)).await.expect("removing a container");
    }

    /// A bridge network with IPv4 and IPv6; returns its identifier.
    pub async fn network(&self, name: &str, v4: &str, v6: &str) -> String {
        let range = |subnet: &str| IpamConfig { subnet: Some(subnet.into()), ..Default::default() };
        let request = NetworkCreateRequest {
            name: name.into(),
            driver: Some("bridge".into()),
            enable_ipv6: Some(true),
            ipam: Some(Ipam { config: Some(vec![range(v4), range(v6)]), ..Default::default() }),
            options: Some(HashMap::from([("com.docker.network.bridge.name".into(), format!("br-{name}"))])),
            ..Default::default()
        };
        self.client().create_network(request).await.expect("creating a network").id
    }

    pub async fn logs(&self, id: &str) -> String {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
        let mut stream = Box::pin(self.client().logs(id, Some(options)));
        let mut text = String::new();
        while let Some(Ok(line)) = stream.next().await {
            text.push_str(&line.to_string());
        }
        text
    }

    async fn remove_all(client: bollard::Docker) {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        for container in client.list_containers(Some(options)).await.unwrap_or_default() {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            let _ = client.remove_container(&container.id.unwrap_or_default(), Some(options)).await;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("end of the engine's log, latest first:\n{}", tail.join("\n"));
        }
        // A thread of its own: this may be dropped inside a runtime, which cannot wait here.
        if self.daemon.is_some()
            && let Ok(client) =
                bollard::Docker::connect_with_unix(&self.socket(), 20, bollard::API_DEFAULT_VERSION)
        {
            let _ = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                if let Ok(runtime) = runtime {
                    runtime.block_on(async {
                        let _ = tokio::time::timeout(Duration::from_secs(60), Self::remove_all(client)).await;
                    });
                }
            })
            .join();
        }
        self.stop();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if std::path::Path::new(mount).starts_with(&self.dir) {
                let _ = Command::new("umount").args(["-l", mount]).stderr(Stdio::null()).status();
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("{} stays behind: {error}", self.dir.display());
        }
    }
}

/// runc, because crun refuses the machine that has both kinds of control groups; small limits, because a machine may
/// not let its engines raise any.
fn podman_config() -> String {
    let text = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
lock_type = "file"
[network]
network_backend = "netavark"
"#;
    text.to_owned()
}

fn podman_storage(dir: &Path) -> String {
    let dir = dir.display();
    format!("[storage]\ndriver = \"overlay\"\nrunroot = \"{dir}/run\"\ngraphroot = \"{dir}/data\"\n")
}

/// Whether what the engine needs is installed; says so loudly when not.
pub fn installed(kind: Kind) -> bool {
    let there = |program: &str| Command::new(program).arg("--help").output().is_ok();
    let (needed, packages) = match kind {
        Kind::Docker => (&["dockerd"][..], "docker.io busybox-static"),
        Kind::Podman => (&["podman", "runc"][..], "podman netavark runc busybox-static"),
    };
    let helpers = kind == Kind::Docker || Path::new("/usr/lib/podman/netavark").exists();
    if needed.iter().all(|program| there(program)) && helpers && Path::new("/bin/busybox").exists() {
        return true;
    }
    assert!(
        std::env::var_os("CONMON_TEST_REQUIRE_ROOT").is_none(),
        "this test needs {needed:?} and /bin/busybox (Debian: {packages})"
    );
    eprintln!("SKIPPED: needs {needed:?} and /bin/busybox (Debian: {packages})");
    false
}
