//! The demo's cast: a web shop and a bank, each a project as Compose would label it, and customers outside; on one host, or on
//! two that talk to each other. The load is moderate on purpose: two cores must have room left for whoever watches.

use anyhow::{Context, Result};
use lab::{App, Container, Host, Lab, ROUTED, Site, Spec};
use std::collections::BTreeMap;
use std::process::Stdio;

/// Where a service lives when there are two hosts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    /// On the first, in its own network.
    First,
    /// On the second, in its own network.
    Second,
    /// On the first, in the network that the second routes to.
    FirstRouted,
    /// On the second, in the network that the first routes to.
    SecondRouted,
}

impl Home {
    fn number(self) -> usize {
        if matches!(self, Self::First | Self::FirstRouted) { 1 } else { 2 }
    }

    fn is_routed(self) -> bool {
        matches!(self, Self::FirstRouted | Self::SecondRouted)
    }
}

/// One service: project, name, application, network, and the command where it is not the image's own.
struct Service {
    project: &'static str,
    name: &'static str,
    app: App,
    network: &'static str,
    home: Home,
    publish: Option<(u16, u16)>,
    /// The service it calls; the script finds it in `$TO`, with its port where that is another.
    calls: &'static str,
    script: Option<&'static str>,
    about: &'static str,
}

const fn service(project: &'static str, name: &'static str, app: App, network: &'static str) -> Service {
    Service {
        project,
        name,
        app,
        network,
        home: Home::First,
        publish: None,
        calls: "",
        script: None,
        about: "",
    }
}

/// Servers before their clients.
const SERVICES: [Service; 10] = [
    Service {
        publish: Some((8080, 80)),
        about: "nginx, published on port 8080",
        ..service("shop", "web", App::Nginx, "shop")
    },
    Service { about: "redis", ..service("shop", "cache", App::Redis, "shop") },
    Service {
        about: "wrk, 4 connections to web, about 200 requests per second",
        home: Home::Second,
        calls: "web",
        script: Some("exec wrk -t1 -c4 -d86400 -s /etc/wrk/paced.lua http://$TO/"),
        ..service("shop", "visitors", App::Wrk, "shop")
    },
    Service {
        about: "redis-benchmark, bursts against cache",
        calls: "cache",
        script: Some("while :; do redis-benchmark -h $TO -t set,get -n 300 -c 2 -q; sleep 1; done"),
        ..service("shop", "cart", App::Redis, "shop")
    },
    Service { about: "PostgreSQL", home: Home::FirstRouted, ..service("bank", "db", App::Postgres, "bank") },
    Service { about: "memcached", home: Home::Second, ..service("bank", "sessions", App::Memcached, "bank") },
    Service {
        about: "iperf3 server, reached over IPv6",
        home: Home::FirstRouted,
        ..service("bank", "archive", App::Iperf3, "vault")
    },
    Service {
        about: "pgbench, 40 transactions per second on db",
        home: Home::SecondRouted,
        calls: "db",
        script: Some(
            "export PGHOST=$TO PGUSER=postgres; until pg_isready -q; do sleep 0.2; done; \
             pgbench -q -i -s 1 postgres && exec pgbench --rate=40 -c 2 -T 86400 postgres",
        ),
        ..service("bank", "teller", App::Postgres, "bank")
    },
    Service {
        about: "memcached client, 150 requests per second to sessions",
        home: Home::Second,
        calls: "sessions",
        script: Some("exec /labgen memcached --to $TO:11211 --rate 150"),
        ..service("bank", "gateway", App::Labgen, "bank")
    },
    Service {
        about: "iperf3, 3 Mbit/s over IPv6 to archive",
        home: Home::SecondRouted,
        calls: "archive",
        script: Some("while :; do iperf3 -6 -c $TO -b 3M -t 86400; sleep 0.5; done"),
        ..service("bank", "backup", App::Iperf3, "vault")
    },
];

/// The hosts the cast is on.
pub enum Stage<'a> {
    /// All of it on one.
    One(&'a Host),
    /// On two.
    Two(&'a Site),
}

impl Stage<'_> {
    /// Its hosts.
    pub fn hosts(&self) -> Vec<&Host> {
        match self {
            Self::One(host) => vec![host],
            Self::Two(site) => site.hosts().iter().collect(),
        }
    }

    fn host_of(&self, service: &Service) -> &Host {
        match self {
            Self::One(host) => host,
            Self::Two(site) => &site.hosts()[service.home.number() - 1],
        }
    }

    fn network_of(&self, service: &Service) -> &'static str {
        match self {
            Self::Two(_) if service.home.is_routed() => ROUTED,
            _ => service.network,
        }
    }

    /// How a service is called from where another one lives.
    fn way(&self, from: &Service, to: &Service, running: &Container) -> Result<String> {
        match (self, to.publish) {
            (Self::Two(site), Some((port, _))) if from.home.number() != to.home.number() => {
                Ok(format!("{}:{port}", site.address(to.home.number())))
            }
            (Self::Two(_), None) if to.home.is_routed() && to.network == "vault" => {
                Ok(running.ipv6(ROUTED)?.to_string())
            }
            (Self::Two(_), None) if to.home.is_routed() => Ok(running.ipv4(ROUTED)?.to_string()),
            _ => Ok(to.name.to_string()),
        }
    }
}

/// Imports on each host all images its part of the cast needs.
pub fn import(stage: &Stage<'_>) -> Result<()> {
    SERVICES.iter().try_for_each(|service| stage.host_of(service).image(service.app).map(drop))
}

/// Starts networks, services and customers; `tell` gets a line for each service and may stop it all.
pub fn start(lab: &Lab, stage: &Stage<'_>, tell: &dyn Fn(&str) -> Result<()>) -> Result<()> {
    for host in stage.hosts() {
        host.network("shop", None)?;
        host.network("bank", None)?;
    }
    match stage {
        Stage::One(host) => host.network("vault", Some("fd00:ba:4c::/64"))?,
        Stage::Two(site) => site.network()?,
    }
    let mut running: BTreeMap<&str, (&Service, Container)> = BTreeMap::new();
    for service in &SERVICES {
        let host = stage.host_of(service);
        let container = format!("{}-{}-1", service.project, service.name);
        let mut spec =
            Spec::app(&container, service.app).network(stage.network_of(service)).alias(service.name);
        spec = spec.compose(service.project, service.name);
        if let Some((port, own)) = service.publish.filter(|_| host.iptables()) {
            spec = spec.publish(&format!("{port}:{own}"));
        }
        if let Some(script) = service.script {
            let (to, there) = running.get(service.calls).context("servers come before their clients")?;
            spec = spec.env("TO", &stage.way(service, to, there)?);
            // The generator's image starts the generator; here a shell shall start it.
            spec = spec.option("--entrypoint=").shell(script);
        }
        running.insert(service.name, (service, host.run(&spec)?));
        let on = if stage.hosts().len() > 1 { format!("{:<6}", host.name()) } else { String::new() };
        tell(&format!("{on}{:<8} {:<9} {}", service.project, service.name, service.about))?;
    }
    customers(lab, stage.hosts()[0], tell)
}

/// Somebody outside the host who visits the shop through its published port.
fn customers(lab: &Lab, host: &Host, tell: &dyn Fn(&str) -> Result<()>) -> Result<()> {
    if !host.iptables() {
        return Ok(());
    }
    let outside = lab.namespace("outside")?;
    lab.cable((host.namespace(), "uplink", "192.0.2.1/24"), (&outside, "eth0", "192.0.2.99/24"))?;
    let busybox = lab::find_program("busybox", "busybox-static")?;
    let mut shell = outside.command(&busybox);
    shell.args([
        "sh",
        "-c",
        "while :; do busybox wget -q -O /dev/null http://192.0.2.1:8080/; sleep 0.2; done",
    ]);
    // Ended by the lab with all other processes of its namespaces.
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    tell("outside  customer  wget from another network, through the published port")
}
