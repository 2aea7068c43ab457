//! Published ports and masquerade through the whole product: both real ends are shown, and `via` what was seen between
//! them; where Docker's userland proxy stands between, it is a process of the host and the two conversations are told
//! as what they are.

use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::traffic::UdpSent;
use lab::{App, Conmond, ConmondOptions, Container, Host, Lab, Namespace, Spec, root_test};
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Datagrams of each conversation.
const COUNT: u64 = 200;
/// In which conmond does not run: more than one reading of the tables.
const PAUSE: Duration = Duration::from_millis(1500);
/// The host's and the outside's ends of the cable between them.
const HOST: [&str; 2] = ["10.77.0.1", "fd00:77::1"];
const OUTSIDE: [&str; 2] = ["10.77.0.2", "fd00:77::2"];

/// What an end of a pair has to be.
#[derive(Debug, Clone, Copy)]
enum End<'a> {
    Container(&'a str),
    Host,
    Outside(&'a str),
}

impl End<'_> {
    fn is(self, end: &Value) -> bool {
        let has = |address: &str| rows(end, "addresses").iter().any(|a| a == address);
        match self {
            Self::Container(name) => end["kind"] == "container" && end["name"] == name,
            Self::Host => end["kind"] == "host",
            Self::Outside(address) => end["kind"] == "external" && has(address),
        }
    }
}

/// Waits for the conversation of two ends to be there with every datagram so far, and no more; its row. Peers outside are
/// one, whatever their addresses.
fn conversation(conmond: &Conmond, src: End<'_>, dst: End<'_>, sent: u64) -> Result<Value> {
    let what = format!("{sent} packets from {src:?} to {dst:?}");
    let found = conmond.wait_ctl(&what, END, &["pairs"], |answer| {
        let of_both = |p: &&Value| src.is(&p["src"]) && dst.is(&p["dst"]) && p["protocols"][0] == "udp";
        let all: Vec<&Value> = rows(answer, "pairs").iter().filter(of_both).collect();
        let counted: u64 = all.iter().map(|p| packets(&p["sent"])).sum();
        (counted >= sent).then(|| (counted, all[0].clone()))
    })?;
    ensure!(found.0 == sent, "{what}, but {} were counted: {}", found.0, found.1);
    Ok(found.1)
}

/// What a pair says was seen in place of who is there.
fn via(pair: &Value) -> Vec<&str> {
    rows(pair, "via").iter().filter_map(Value::as_str).collect()
}

/// A place as it is written.
fn place(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Sends from a container.
fn send(from: &Container, address: &str, port: u16) -> Result<u64> {
    let (to, count) = (place(address, port), COUNT.to_string());
    let said = from.exec(&["/labgen", "udp-send", "--to", &to, "--rate", "1000", "--count", &count])?;
    sent_of(&said)
}

/// Sends from a namespace.
fn send_from(namespace: &Namespace, address: &str, port: u16) -> Result<u64> {
    let (to, count) = (place(address, port), COUNT.to_string());
    let mut labgen = namespace.command(lab::program("labgen")?);
    sent_of(&lab::output_text(labgen.args(["udp-send", "--to", &to, "--rate", "1000", "--count", &count]))?)
}

fn sent_of(said: &str) -> Result<u64> {
    let sent: UdpSent = serde_json::from_str(said.lines().last().unwrap_or_default())
        .with_context(|| format!("the sender said {said:?}"))?;
    ensure!(sent.sent == COUNT, "{sent:?}");
    Ok(sent.sent)
}

/// A sink outside, ended when dropped.
struct Sink(Child);

impl Sink {
    fn start(namespace: &Namespace) -> Result<Self> {
        let mut labgen = namespace.command(lab::program("labgen")?);
        let child = labgen.arg("udp-sink").stdout(Stdio::null()).spawn().context("cannot run the sink")?;
        Ok(Self(child))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A host with a network that speaks both versions of IP, a cable to the outside, and conmond.
struct Stage {
    host: Host,
    outside: Namespace,
    conmond: Conmond,
    /// The host's addresses on the network, by version.
    gateways: [String; 2],
}

impl Stage {
    fn new(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        let host = lab.docker_host("h1", arguments)?;
        host.network(NET, Some("fd00:5::/64"))?;
        let outside = lab.namespace("outside")?;
        let ends = |[four, six]: [&str; 2]| format!("{four}/24 {six}/64");
        lab.cable((host.namespace(), "up0", &ends(HOST)), (&outside, "eth0", &ends(OUTSIDE)))?;
        let conmond = Conmond::start(&host, ConmondOptions::default())?;
        let said = host.docker(&["network", "inspect", NET, "--format", "{{json .IPAM.Config}}"])?;
        let pools: Vec<Value> = serde_json::from_str(&said).context("the network's addresses")?;
        let gateway = |six: bool| {
            let mut all = pools.iter().filter_map(|pool| pool["Gateway"].as_str());
            all.find(|gateway| gateway.contains(':') == six).map(str::to_string)
        };
        let six = gateway(true).unwrap_or_else(|| "fd00:5::1".to_string());
        Ok(Self { host, outside, conmond, gateways: [gateway(false).context("no gateway")?, six] })
    }

    /// A sink that the host publishes on its port 7000.
    fn published(&self) -> Result<Container> {
        let server = self.host.run(&spec("server", "udp-sink").publish("7000:9000/udp"))?;
        server.wait_line("listening", READY)?;
        Ok(server)
    }

    fn client(&self, name: &str) -> Result<Container> {
        self.host.run(&Spec::app(name, App::Labgen).network(NET).compose(TENANT, name))
    }
}

fn on_stage(name: &str, arguments: &[&str], body: impl FnOnce(&Stage) -> Result<()>) -> Result<()> {
    if !built(name, &["conmond", "conmonctl"])? {
        return Ok(());
    }
    root_test(name, |lab| {
        let stage = Stage::new(lab, arguments)?;
        if !stage.host.iptables() {
            let why = "iptables does not work in a network namespace here";
            ensure!(!is_required(), "{name}: {why}");
            lab::skipped(name, why);
            return Ok(());
        }
        body(&stage)?;
        balanced(&stage.conmond)
    })
}

/// What the host masquerades on its way out: the container sees whom it calls, and is shown as the caller.
fn masqueraded(stage: &Stage, client: &Container, versions: &[usize]) -> Result<()> {
    let _sink = Sink::start(&stage.outside)?;
    let mut sent = 0;
    for &v in versions {
        sent += send(client, OUTSIDE[v], 9000)?;
        let name = End::Container(client.name());
        let pair = conversation(&stage.conmond, name, End::Outside(OUTSIDE[v]), sent)?;
        ensure!(via(&pair).is_empty(), "nothing stood between: {pair}");
        // What came out at the other end bears the host's address: it was translated indeed.
        let neighbours = stage.outside.ip(&["neigh"])?;
        ensure!(!neighbours.contains("172.18."), "not masqueraded: {neighbours}");
    }
    Ok(())
}

#[test]
fn root_published_ports_show_both_real_ends() -> Result<()> {
    // `--ip6tables` translates IPv6, too: an experiment in the engine's older versions.
    let arguments = ["--userland-proxy=false", "--experimental", "--ip6tables"];
    on_stage("published ports", &arguments, |stage| {
        let server = stage.published()?;
        for (v, gateway) in stage.gateways.iter().enumerate() {
            // A neighbour calls the host: it is answered by its neighbour, which sees the host call.
            let name = format!("client{v}");
            let client = stage.client(&name)?;
            let sent = send(&client, gateway, 7000)?;
            let (src, dst) = (End::Container(&name), End::Container("server"));
            let pair = conversation(&stage.conmond, src, dst, sent)?;
            ensure!(pair["observed_at"] == "src", "{pair}");
            ensure!(via(&pair).contains(&place(gateway, 7000).as_str()), "{pair}");
        }
        let mut sent = 0;
        for v in [0, 1] {
            sent += send_from(&stage.outside, HOST[v], 7000)?;
            conversation(&stage.conmond, End::Outside(OUTSIDE[v]), End::Container("server"), sent)?;
        }
        // While conmond does not run, the kernel tells of connections, and monitors of flows, which are read in any order afterwards.
        let paused = stage.client("paused")?;
        let sent = stage.conmond.standing_still(|| {
            let sent = send(&paused, &stage.gateways[0], 7000)?;
            std::thread::sleep(PAUSE);
            Ok(sent)
        })?;
        let begun = Instant::now();
        conversation(&stage.conmond, End::Container("paused"), End::Container("server"), sent)?;
        ensure!(begun.elapsed() < UDP_IDLE / 2, "known after {:?}", begun.elapsed());
        let before = server.port()?.outside.tx.packets;
        send_from(stage.host.namespace(), HOST[0], 7000)?;
        conversation(&stage.conmond, End::Host, End::Container("server"), COUNT)?;
        ensure!(server.port()?.outside.tx.packets >= before + COUNT, "the host did not reach its own port");
        masqueraded(stage, &stage.client("caller")?, &[0, 1])
    })
}

#[test]
fn root_the_userland_proxy_is_the_host() -> Result<()> {
    on_stage("userland proxy", &["--userland-proxy=true"], |stage| {
        stage.published()?;
        let client = stage.client("client")?;
        let sent = send(&client, &stage.gateways[0], 7000)?;
        let called = conversation(&stage.conmond, End::Container("client"), End::Host, sent)?;
        ensure!(via(&called).is_empty(), "{called}");
        conversation(&stage.conmond, End::Host, End::Container("server"), sent)?;
        // From outside there is no proxy between: the port is translated.
        let sent = send_from(&stage.outside, HOST[0], 7000)?;
        conversation(&stage.conmond, End::Outside(OUTSIDE[0]), End::Container("server"), sent)?;
        masqueraded(stage, &client, &[0])
    })
}
