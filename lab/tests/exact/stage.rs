//! Two clients, two servers, and the comparison of all that is told of what passes between them.

use crate::figures::{Captured, Counted, Pair, RECEIVED, SENT, Sum, WAYS, Ways};
use anyhow::{Context, Result, ensure};
use lab::{App, Capture, Conmond, ConmondOptions, Container, Host, Link, Port, Spec};
use lab::{find_program, output, root_test, wait_for};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub const WAIT: Duration = Duration::from_secs(20);
const NET: &str = "net";

/// Who talks: a client of each family, a server of each protocol, so that no two conversations share a pair.
pub const FOUR: usize = 0;
pub const SIX: usize = 1;
pub const TCP: usize = 2;
pub const UDP: usize = 3;
pub const ENDS: [(&str, &str); 4] = [
    ("four", "exec /labgen idle"),
    ("six", "exec /labgen idle"),
    ("tcp-end", "/labgen tcp-sink & /labgen tcp-echo & wait"),
    ("udp-end", "/labgen udp-sink & /labgen udp-echo & wait"),
];

/// A port of which the interface does not count what the tap does, and why.
#[derive(Clone, Copy, PartialEq)]
pub enum Otherwise {
    Nowhere,
    /// Sends segments of what is handed to it.
    Segments(usize),
    /// Merges segments that come from its container.
    Merges(usize),
}

struct End {
    container: Container,
    port: Port,
    addresses: [IpAddr; 2],
}

pub struct Stage<'a> {
    host: &'a Host,
    conmond: &'a Conmond,
    ends: Vec<End>,
}

/// A moment at which nothing passed any port.
struct Reading {
    time_ns: u64,
    links: Vec<Link>,
    ports: Vec<Counted>,
}

pub fn on_stage(name: &str, keys: &[&str], body: impl FnOnce(&Stage) -> Result<()>) -> Result<()> {
    root_test(name, |lab| {
        let host = lab.host("h1")?;
        host.network(NET, Some("fd00:e::/64"))?;
        let mut args = vec!["--".to_owned()];
        args.extend(keys.iter().flat_map(|key| ["--set".to_owned(), (*key).to_owned()]));
        let conmond = Conmond::start(&host, ConmondOptions { args, ..ConmondOptions::default() })?;
        let mut ends = Vec::new();
        for (name, script) in ENDS {
            let spec = Spec::app(name, App::Labgen).network(NET).compose("exact", name);
            let container = host.run(&spec.option("--entrypoint=/bin/sh").command(["-c", script]))?;
            let servers = script.matches('&').count();
            wait_for(&format!("{name} that listens"), WAIT, || {
                Ok((container.stdout()?.matches("listening").count() == servers).then_some(()))
            })?;
            let addresses = [container.ipv4(NET)?, container.ipv6(NET)?];
            ends.push(End { port: container.port()?, container, addresses });
        }
        // The exchange of one way of tapping for the other is another test's affair.
        if tap::kernel_has_tcx() && !keys.contains(&"tap=clsact") {
            fastened(&conmond, &ENDS.map(|(name, _)| name))?;
        }
        body(&Stage { host: &host, conmond: &conmond, ends })
    })
}

/// Waits until the ports of these containers are tapped for good, which they are some seconds after their start.
pub fn fastened(conmond: &Conmond, names: &[&str]) -> Result<()> {
    conmond.wait_ctl("ports that are tapped by TCX", WAIT, &["containers"], |answer| {
        let containers = answer["containers"].as_array()?;
        let is_fast = |name: &&str| {
            let container = containers.iter().find(|container| container["name"] == **name);
            container.is_some_and(|container| container["networks"][0]["tapped_by"] == "tcx")
        };
        names.iter().all(is_fast).then_some(())
    })
}

impl Stage<'_> {
    /// Switches offloads of an interface: the container's end, or the host's.
    pub fn offload(&self, end: usize, inside: bool, words: &str) -> Result<()> {
        let End { container, port, .. } = &self.ends[end];
        let ethtool = find_program("ethtool", "ethtool")?;
        let mut command = match inside {
            true => container.command_in_network(ethtool)?,
            false => self.host.command(ethtool),
        };
        let link = if inside { &port.inside } else { &port.outside };
        output(command.arg("-K").arg(&link.name).args(words.split_ascii_whitespace())).map(drop)
    }

    /// Runs the generator in a client towards a server's port; its report.
    pub fn labgen(&self, client: usize, words: &str, server: usize, port: u16) -> Result<Value> {
        let to = SocketAddr::new(self.ends[server].addresses[client], port).to_string();
        let words = ["/labgen"].into_iter().chain(words.split_ascii_whitespace()).chain(["--to", &to]);
        let said = self.ends[client].container.exec(&words.collect::<Vec<_>>())?;
        serde_json::from_str(said.lines().last().unwrap_or_default()).with_context(|| said.clone())
    }

    fn settled(&self) -> Result<Reading> {
        let mut last = None;
        let reading = wait_for("ports that nothing passes while they are read", WAIT, || {
            let before = self.host.links()?;
            let time_ns = u64::try_from(Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?).as_nanos())?;
            let counted = self.conmond.ctl(&["ledger"]);
            let after = self.host.links()?;
            // records may be on their way to a larger table
            let ports: Vec<Counted> = match counted {
                Ok(mut answer) => serde_json::from_value(answer["ports"].take())?,
                Err(error) => {
                    last = Some(error);
                    return Ok(None);
                }
            };
            let of = |end: &End| {
                let name = &end.port.outside.name;
                let [before, after] =
                    [&before, &after].map(|links| links.iter().find(|link| link.name == *name));
                let counted = ports.iter().find(|port| port.interface == *name)?;
                (before == after).then(|| after.cloned().zip(Some(counted.clone())))?
            };
            let found: Option<(Vec<_>, Vec<_>)> = self.ends.iter().map(of).collect();
            Ok(found.map(|(links, ports)| Reading { time_ns, links, ports }))
        });
        reading.with_context(|| last.map_or(String::new(), |error| format!("`conmonctl ledger`: {error:#}")))
    }

    fn pairs(&self) -> Result<Vec<Pair>> {
        let mut answer = self.conmond.ctl(&["pairs", "--all"])?;
        serde_json::from_value(answer["pairs"].take()).context("not what pairs are told in")
    }

    /// Holds what is told of some traffic against counters and captures; the pairs' part in it.
    pub fn compare(
        &self,
        what: &str,
        otherwise: Otherwise,
        traffic: impl FnOnce() -> Result<()>,
    ) -> Result<(Vec<Pair>, Vec<Captured>)> {
        let captures = self.ends.iter().map(|end| Capture::outside(&end.container, ""));
        let captures = captures.collect::<Result<Vec<_>>>()?;
        let (first, old) = (self.settled()?, self.pairs()?);
        traffic()?;
        let last = self.settled()?;
        let window = first.time_ns..last.time_ns;
        let mut captured = Vec::new();
        for (capture, end) in captures.into_iter().zip(&self.ends) {
            let packets = capture.finish()?.complete()?;
            captured.push(Captured::of(&packets, &end.port.inside.mac, &window)?);
        }
        for (at, captured) in captured.iter().enumerate() {
            port_agrees(at, [&first, &last], captured, otherwise)
                .with_context(|| format!("{what}, port of {}", ENDS[at].0))?;
        }
        // what was read last may be a second old
        let mut wrong = None;
        let pairs = wait_for("pairs that are what was captured", WAIT, || {
            let mut pairs = self.pairs()?;
            for pair in &mut pairs {
                if let Some(old) = old.iter().find(|old| old.is(&pair.src.name, &pair.dst.name)) {
                    pair.sent = pair.sent.since(old.sent);
                    pair.received = pair.received.since(old.received);
                }
            }
            wrong = pairs_agree(&pairs, &captured, otherwise).err();
            Ok(wrong.is_none().then_some(pairs))
        });
        let pairs =
            pairs.with_context(|| format!("{what}: {}", wrong.map_or(String::new(), |e| e.to_string())))?;
        for Pair { src, dst, protocols, sent, received, .. } in pairs.iter().filter(|p| p.sent.packets > 0) {
            println!("{what}: {} to {}, {protocols:?}: {sent} sent, {received} received", src.name, dst.name);
        }
        Ok((pairs, captured))
    }
}

/// All that passed a port: by the ledger, by the interface, by the capture.
fn port_agrees(
    at: usize,
    [first, last]: [&Reading; 2],
    captured: &Captured,
    otherwise: Otherwise,
) -> Result<()> {
    let (link, before) = (&last.links[at], &first.links[at]);
    let (ports, earlier) = (&last.ports[at], &first.ports[at]);
    let ways = [
        (ports.sent.since(earlier.sent), link.rx, before.rx),
        (ports.received.since(earlier.received), link.tx, before.tx),
    ];
    for (way, (told, now, then)) in ways.into_iter().enumerate() {
        let counted = Sum { packets: now.packets - then.packets, bytes: now.bytes - then.bytes };
        let (seen, dropped) = (captured.all[way], now.dropped - then.dropped);
        let all = format!(
            "{}: {told} by the ledger; {counted:?}, {dropped} dropped, by the interface; {seen:?} captured",
            WAYS[way]
        );
        let segments = (way, otherwise) == (RECEIVED, Otherwise::Segments(at));
        let merges = (way, otherwise) == (SENT, Otherwise::Merges(at));
        if segments || merges {
            ensure!(told.segments == counted.packets + dropped && told.packets < told.segments, "{all}");
        }
        ensure!(segments || told.sum() == seen, "{all}");
        if !merges {
            // what the container's queue had no room for was at the port, and its bytes are counted nowhere else
            ensure!(counted.packets + dropped == seen.packets, "{all}");
            ensure!(dropped > 0 || counted.bytes == seen.bytes, "{all}");
        }
        if dropped > 0 {
            println!("port of {}, bytes are not compared with the interface's: {all}", ENDS[at].0);
        }
    }
    let grown = |classes: &[&str]| ports.of(classes) - earlier.of(classes);
    let discovery = grown(&["arp", "nd"]);
    ensure!(
        discovery == captured.discovery,
        "{discovery} of ARP and discovery, {} captured",
        captured.discovery
    );
    ensure!(grown(&["overflow", "other", "malformed"]) == 0, "{:?}", ports.packets_by_class);
    Ok(())
}

/// Each pair is what was captured of it at both of its ends' ports, and all that was captured is in pairs.
fn pairs_agree(pairs: &[Pair], captured: &[Captured], otherwise: Otherwise) -> Result<()> {
    let mut left: Vec<BTreeSet<_>> = captured.iter().map(|c| c.pairs.keys().collect()).collect();
    for pair in pairs {
        for (here, there, side) in [(&pair.src, &pair.dst, "src"), (&pair.dst, &pair.src, "dst")] {
            let Some(at) = ENDS.iter().position(|(name, _)| *name == here.name) else { continue };
            let mut seen = Ways::default();
            for (key, ways) in &captured[at].pairs {
                let (own, other, protocol) = key;
                let is_its = here.addresses.contains(own) && there.addresses.contains(other);
                if is_its && pair.protocols.contains(*protocol) {
                    seen.iter_mut().zip(ways).for_each(|(sum, way)| *sum += *way);
                    left[at].remove(key);
                }
            }
            if side == "dst" {
                seen.swap(SENT, RECEIVED);
            }
            // behind its segmentation; the pair is counted at its opener's port
            if otherwise == Otherwise::Segments(at) && pair.observed_at != side {
                continue;
            }
            ensure!(
                [pair.sent.sum(), pair.received.sum()] == seen,
                "{pair:?}, at the port of {} captured {seen:?}",
                here.name
            );
        }
    }
    for (at, left) in left.iter().enumerate() {
        ensure!(left.is_empty(), "captured at the port of {}, and in no pair: {left:?}", ENDS[at].0);
    }
    Ok(())
}
