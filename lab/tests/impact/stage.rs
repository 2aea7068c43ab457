//! What every condition has in common: one host, its containers on one bridge, and a namespace for whoever watches from
//! beside it. All of it goes with the lab.

use anyhow::{Context, Result};
use lab::{App, Container, Host, Lab, Link, Namespace, Spec, wait_for};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::net::IpAddr;
use std::time::Duration;

const NET: &str = "net";
/// Tenant of all the containers.
pub const TENANT: &str = "bench";
/// The monitor's port: the end that is mirrored to, on the host, and the end that is captured on.
pub const MONITOR: (&str, &str) = ("mon0", "eth0");
const READY: Duration = Duration::from_secs(20);

/// The host and what runs on it. Clients start their programs anew for each window, servers run all the time.
pub struct Stage {
    pub host: Host,
    /// Traffic generator, client of `echo`, `sink` and `cache`.
    pub client: Container,
    /// Traffic generator: UDP echo.
    pub echo: Container,
    /// Traffic generator: sinks are started in it.
    pub sink: Container,
    /// memcached.
    pub cache: Container,
    pub iperf_client: Container,
    /// `iperf3 -s`.
    pub iperf_server: Container,
    /// Where a monitor beside the host's bridge captures what is mirrored to it.
    pub monitor: Namespace,
    /// The host's ends of the containers' interfaces, in the order of [`Stage::containers`].
    pub ports: Vec<Link>,
}

impl Stage {
    /// Everything started and listening. Each container keeps to one processor: clients, and the servers that answer them,
    /// to the first, where waking an idle processor is no part of a round trip (it takes longer than all the
    /// rest, and how often it happens is the scheduler's mood); what receives streams to the second.
    pub fn set(lab: &Lab) -> Result<Self> {
        let [first, second] = processors()?;
        let host = lab.host("h1")?;
        host.network(NET, None)?;
        let run = |name: &str, app: App, processor: usize, command: &[&str]| {
            let spec = Spec::app(name, app).network(NET).compose(TENANT, name);
            let spec = spec.option(format!("--cpuset-cpus={processor}"));
            host.run(&if command.is_empty() { spec } else { spec.command(command.iter().copied()) })
        };
        let mut stage = Self {
            client: run("client", App::Labgen, first, &["idle"])?,
            echo: run("echo", App::Labgen, first, &["udp-echo"])?,
            sink: run("sink", App::Labgen, second, &["idle"])?,
            cache: run("cache", App::Memcached, first, &[])?,
            iperf_client: run("iperf-client", App::Iperf3, first, &["/bin/sleep", "infinity"])?,
            iperf_server: run("iperf-server", App::Iperf3, second, &[])?,
            monitor: lab.namespace("monitor")?,
            ports: Vec::new(),
            host,
        };
        let ports = stage.containers().map(|container| Ok(container.port()?.outside));
        stage.ports = ports.into_iter().collect::<Result<_>>()?;
        lab.cable((stage.host.namespace(), MONITOR.0, ""), (&stage.monitor, MONITOR.1, ""))?;
        stage.echo.wait_line("listening", READY)?;
        for (server, port) in [(&stage.cache, 11211), (&stage.iperf_server, 5201)] {
            wait_for(&format!("{} to listen", server.name()), READY, || listens(server, port))?;
        }
        Ok(stage)
    }

    /// Address of a container.
    pub fn address(&self, container: &Container) -> Result<IpAddr> {
        container.ipv4(NET)
    }

    /// All the containers.
    pub fn containers(&self) -> [&Container; 6] {
        [&self.client, &self.echo, &self.sink, &self.cache, &self.iperf_client, &self.iperf_server]
    }

    /// The host's end of a container's interface. Its counters are of the beginning.
    pub fn port(&self, container: &Container) -> Result<&Link> {
        let place = self.containers().iter().position(|c| c.id() == container.id());
        place
            .and_then(|place| self.ports.get(place))
            .with_context(|| format!("no port of {}", container.name()))
    }

    /// Packets that passed a container's port until now, both directions together.
    pub fn packets(&self, container: &Container) -> Result<u64> {
        let link = self.host.namespace().link(&self.port(container)?.name)?;
        Ok(link.rx.packets + link.tx.packets)
    }
}

/// The first two processors this process may use; the same twice where there is but one.
fn processors() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("processors of this process")?;
    let mut numbers = (0..CpuSet::count()).filter(|&n| allowed.is_set(n).unwrap_or(false));
    let first = numbers.next().context("no processor")?;
    Ok([first, numbers.next().unwrap_or(first)])
}

/// Whether a TCP socket of the container listens at a port, by the kernel's tables.
fn listens(container: &Container, port: u16) -> Result<Option<()>> {
    let pid = container.pid()?;
    let listening = |file: &str| -> Result<bool> {
        let path = format!("/proc/{pid}/net/{file}");
        let table = std::fs::read_to_string(&path).with_context(|| path)?;
        // local address:port, remote address:port, state: 0A is LISTEN
        Ok(table.lines().any(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            fields.get(3) == Some(&"0A")
                && fields.get(1).is_some_and(|at| at.ends_with(&format!(":{port:04X}")))
        }))
    };
    Ok((listening("tcp")? || listening("tcp6")?).then_some(()))
}
