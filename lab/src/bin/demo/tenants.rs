//! The demo's cast: a web shop and a bank, each a project as Compose would label it, and customers outside. The load
//! is moderate on purpose: two cores must have room left for whoever watches.

use anyhow::Result;
use lab::{App, Host, Lab, Spec};
use std::process::Stdio;

/// One service: project, name, application, network, and the command where it is not the image's own.
struct Service {
    project: &'static str,
    name: &'static str,
    app: App,
    network: &'static str,
    publish: Option<&'static str>,
    script: Option<&'static str>,
    about: &'static str,
}

const fn service(project: &'static str, name: &'static str, app: App, network: &'static str) -> Service {
    Service { project, name, app, network, publish: None, script: None, about: "" }
}

/// Servers before their clients.
const SERVICES: [Service; 10] = [
    Service {
        publish: Some("8080:80"),
        about: "nginx, published on port 8080",
        ..service("shop", "web", App::Nginx, "shop")
    },
    Service { about: "redis", ..service("shop", "cache", App::Redis, "shop") },
    Service {
        about: "wrk, 4 connections to web, about 200 requests per second",
        script: Some("exec wrk -t1 -c4 -d86400 -s /etc/wrk/paced.lua http://web/"),
        ..service("shop", "visitors", App::Wrk, "shop")
    },
    Service {
        about: "redis-benchmark, bursts against cache",
        script: Some("while :; do redis-benchmark -h cache -t set,get -n 300 -c 2 -q; sleep 1; done"),
        ..service("shop", "cart", App::Redis, "shop")
    },
    Service { about: "PostgreSQL", ..service("bank", "db", App::Postgres, "bank") },
    Service { about: "memcached", ..service("bank", "sessions", App::Memcached, "bank") },
    Service { about: "iperf3 server, reached over IPv6", ..service("bank", "archive", App::Iperf3, "vault") },
    Service {
        about: "pgbench, 40 transactions per second on db",
        script: Some(
            "export PGHOST=db PGUSER=postgres; until pg_isready -q; do sleep 0.2; done; \
             pgbench -q -i -s 1 postgres && exec pgbench --rate=40 -c 2 -T 86400 postgres",
        ),
        ..service("bank", "teller", App::Postgres, "bank")
    },
    Service {
        about: "memcached client, 150 requests per second to sessions",
        script: Some("exec /labgen memcached --to sessions:11211 --rate 150"),
        ..service("bank", "gateway", App::Labgen, "bank")
    },
    Service {
        about: "iperf3, 3 Mbit/s over IPv6 to archive",
        script: Some("while :; do iperf3 -6 -c archive -b 3M -t 86400; sleep 0.5; done"),
        ..service("bank", "backup", App::Iperf3, "vault")
    },
];

/// Imports all images the cast needs.
pub fn import(host: &Host) -> Result<()> {
    for service in &SERVICES {
        host.image(service.app)?;
    }
    Ok(())
}

/// Starts networks, services and customers; `tell` gets a line for each service and may stop it all.
pub fn start(lab: &Lab, host: &Host, tell: &dyn Fn(&str) -> Result<()>) -> Result<()> {
    host.network("shop", None)?;
    host.network("bank", None)?;
    host.network("vault", Some("fd00:ba:4c::/64"))?;
    for service in &SERVICES {
        let container = format!("{}-{}-1", service.project, service.name);
        let mut spec = Spec::app(&container, service.app).network(service.network).alias(service.name);
        spec = spec.compose(service.project, service.name);
        if let Some(ports) = service.publish.filter(|_| host.iptables()) {
            spec = spec.publish(ports);
        }
        if let Some(script) = service.script {
            // The generator's image starts the generator; here a shell shall start it.
            spec = spec.option("--entrypoint=").shell(script);
        }
        host.run(&spec)?;
        tell(&format!("{:<8} {:<9} {}", service.project, service.name, service.about))?;
    }
    customers(lab, host, tell)
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
