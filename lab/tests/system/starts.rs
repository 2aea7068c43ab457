//! Zero missed packets: containers that send from their first instruction on, started one after another and many at
//! once, each held to what it says it sent. From the same run: how fast conmond was.
//!
//! The long form is asked for by `CONMON_STARTS_SINGLE` (starts one after another), `CONMON_STARTS_ROUNDS` (rounds of
//! starts at once) and `CONMON_STARTS_AT_ONCE` (starts of a round).

use crate::figures::Figures;
use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::traffic::{TcpReceived, UdpReceived, UdpSent};
use lab::{Conmond, ConmondOptions, Container, Host, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Datagrams of a sender, at a thousand a second.
const DATAGRAMS: u64 = 250;
/// SYN, acknowledgement, identity, FIN: the fewest packets of a sender's connection.
const CONNECTION: u64 = 4;
/// Bytes of a sender's identity, all that its connection carries.
const IDENTITY: u64 = 8;
/// The whole test may take no longer, whatever the environment asks for.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// Longest wait for one round to be seen, and to be gone: fifty containers, an engine with two processors.
const ROUND: Duration = Duration::from_secs(120);

/// How many starts, and how.
#[derive(Debug)]
struct Plan {
    single: u64,
    rounds: u64,
    at_once: u64,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let plan = Self {
            single: setting("CONMON_STARTS_SINGLE", 6)?,
            rounds: setting("CONMON_STARTS_ROUNDS", 1)?,
            at_once: setting("CONMON_STARTS_AT_ONCE", 8)?,
        };
        ensure!(plan.at_once > 0 && plan.starts() > 0, "nothing would be started: {plan:?}");
        Ok(plan)
    }

    fn starts(&self) -> u64 {
        self.single + self.rounds * self.at_once
    }
}

/// A container that sends, and what it says it sent.
struct Sender {
    container: Container,
    sent: UdpSent,
}

impl Sender {
    fn name(&self) -> &str {
        self.container.name()
    }
}

/// How fast conmond was, over some starts and their stops.
#[derive(Debug, Default)]
struct Speed {
    /// From the link's joining the bridge to its tap.
    tapped: Figures,
    /// From the engine's event to the name.
    named: Figures,
    /// From the engine's event that it ended to conmond's having acted; the engine's own delay is most of it.
    stopped: Figures,
}

impl Speed {
    fn extend(&mut self, other: &Speed) {
        self.tapped.extend(&other.tapped);
        self.named.extend(&other.named);
        self.stopped.extend(&other.stopped);
    }

    fn print(&self, starts: &str) {
        eprintln!("{starts}: from the bridge to tapped:      {}", self.tapped);
        eprintln!("{starts}: from the engine's word to named: {}", self.named);
        eprintln!("{starts}: from the engine's word to ended: {}", self.stopped);
    }
}

/// The sinks, and what was sent to them.
struct Run<'a> {
    host: &'a Host,
    conmond: &'a Conmond,
    words: String,
    begin: Instant,
    /// Everything that was sent so far, by container.
    sent: Vec<(String, UdpSent)>,
}

impl Run<'_> {
    /// Makes containers, has `start` start them, checks each, removes them. The containers are gone afterwards, for
    /// conmond too.
    fn batch(
        &mut self,
        names: impl Iterator<Item = String>,
        start: impl FnOnce(&[Container]) -> Result<()>,
    ) -> Result<Speed> {
        ensure!(self.begin.elapsed() < LIMIT, "{} starts took longer than {LIMIT:?}", self.sent.len());
        let made = names.map(|name| self.host.create(&spec(&name, &self.words)));
        let made: Vec<Container> = made.collect::<Result<_>>()?;
        start(&made)?;
        let senders: Vec<Sender> = made
            .into_iter()
            .map(|container| Ok(Sender { sent: report_of(&container)?, container }))
            .collect::<Result<_>>()?;
        for sender in &senders {
            ensure!(sender.sent.sent == DATAGRAMS, "{:?}", sender.sent);
            let opened = sender.sent.tcp.as_ref().context("no connection was tried")?;
            ensure!(opened.connected && opened.error.is_none(), "{opened:?}");
        }
        self.every_packet_is_counted(&senders)?;
        self.interfaces_agree(&senders)?;
        balanced(self.conmond)?;
        let mut speed = self.starts_of(&senders)?;
        at_once(&senders, |sender| sender.container.remove())?;
        speed.stopped = self.stops_of(&senders)?;
        self.sent.extend(senders.into_iter().map(|sender| (sender.name().to_string(), sender.sent)));
        Ok(speed)
    }

    /// Each sender's pairs are what it sent, from the first packet on.
    fn every_packet_is_counted(&self, senders: &[Sender]) -> Result<()> {
        let answer = self.conmond.wait_ctl("all that was sent", ROUND, &["pairs"], |answer| {
            let pairs = by_names(answer);
            let shows = |src: &str, dst: &str, least| {
                pairs.get(&(src, dst)).is_some_and(|pair| packets(&pair["sent"]) >= least)
            };
            let all = senders.iter().all(|sender| {
                shows(sender.name(), "udp-sink", sender.sent.sent)
                    && shows(sender.name(), "tcp-sink", CONNECTION)
            });
            all.then(|| answer.clone())
        })?;
        exact(&answer, senders.iter().map(|sender| (sender.name(), &sender.sent)))
    }

    /// What was counted at each sender's port is what its interface counted since it was made: not only what the
    /// application knows of, and from before its first instruction.
    fn interfaces_agree(&self, senders: &[Sender]) -> Result<()> {
        let mut open: BTreeSet<&str> = senders.iter().map(Sender::name).collect();
        let mut last = Value::Null;
        let reached = wait_for("taps and interfaces that agree", READY, || {
            let ledger = self.conmond.ctl(&["ledger"])?;
            let links = self.host.links()?;
            for port in rows(&ledger, "ports") {
                let interface = links.iter().find(|link| port["interface"] == link.name.as_str());
                let (Some(name), Some(interface)) = (port["container"].as_str(), interface) else { continue };
                if agrees(port) && packets(&port["sent"]) == interface.rx.packets {
                    open.remove(name);
                } else if open.contains(name) {
                    last = serde_json::json!({ "port": port, "interface": format!("{interface:?}") });
                }
            }
            Ok(open.is_empty().then_some(()))
        });
        reached.with_context(|| format!("{open:?} do not agree, for example {last}"))
    }

    fn starts_of(&self, senders: &[Sender]) -> Result<Speed> {
        let containers = self.conmond.ctl(&["containers"])?;
        let mut speed = Speed::default();
        for sender in senders {
            let seen =
                row(&containers, "containers", "name", sender.name()).context("an unknown container")?;
            let network = &seen["networks"][0];
            let after = |key: &str| network[key].as_f64().with_context(|| format!("no {key}: {seen}"));
            speed.tapped.push(after("tapped_after_seconds")?);
            speed.named.push(after("named_after_seconds")?);
        }
        Ok(speed)
    }

    /// Waits until conmond has told of every stop and knows the containers no more.
    fn stops_of(&self, senders: &[Sender]) -> Result<Figures> {
        self.conmond.wait_ctl("the end of removed containers", ROUND, &["containers"], |answer| {
            let left = |sender: &Sender| row(answer, "containers", "name", sender.name()).is_some();
            (!senders.iter().any(left)).then_some(())
        })?;
        let told = self.conmond.ctl_text(&["events", "--kind", "container_stopped", "-o", "json"])?;
        let told: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let stop = |sender: &Sender| {
            let event = told.iter().find(|event| event["container"] == sender.name());
            let after = event.and_then(|event| event["after_seconds"].as_f64());
            after.with_context(|| format!("the stop of {} was told as {event:?}", sender.name()))
        };
        senders.iter().map(stop).collect()
    }
}

/// What conmond says of its own speed, as [`Figures`] are shown; percentiles are at most 1/32 off.
fn own_figures(delays: &Value) -> String {
    let [p50, p90, p99, max] =
        ["p50", "p90", "p99", "max"].map(|key| delays[key].as_f64().unwrap_or(f64::NAN) * 1e3);
    let count = &delays["count"];
    format!("p50 {p50:.3} ms, p90 {p90:.3} ms, p99 {p99:.3} ms, max {max:.3} ms ({count} values)")
}

/// Each sender's datagrams are in its pair, no more and no less, and its connection was seen from its SYN on.
fn exact<'a>(answer: &Value, senders: impl Iterator<Item = (&'a str, &'a UdpSent)>) -> Result<()> {
    let pairs = by_names(answer);
    for (name, sent) in senders {
        let find = |dst| pairs.get(&(name, dst)).with_context(|| format!("no pair of {name} and {dst}"));
        is_exactly(find("udp-sink")?, name, sent)?;
        let connection = find("tcp-sink")?;
        let whole = tcp_payload(&connection["sent"]) == Some(IDENTITY);
        let again = connection["retransmitted_segments"] != 0;
        ensure!(whole || again, "not all was counted: {connection}");
        // A port that got its name in the midst of the connection has it in two records, of which the second began
        // without the SYN, so that who opened it is called guessed. That the SYN was counted, its options tell.
        let split = is_split(connection);
        ensure!(
            connection["role_guessed"] == false || (split && whole),
            "the SYN was not seen: {connection}"
        );
    }
    Ok(())
}

/// Whether the one connection of a sender is in several records: its port moved to the tenant's set meanwhile.
fn is_split(connection: &Value) -> bool {
    connection["flows"].as_u64() > Some(1)
}

#[test]
fn root_no_packet_is_missed_from_the_first_instruction_on() -> Result<()> {
    let plan = Plan::from_environment()?;
    // What has gone is answered until the end of the test.
    let settings = [("CONMON_RETENTION_SECONDS", 2 * LIMIT.as_secs())];
    let env = settings.map(|(key, value)| (key.to_string(), value.to_string())).to_vec();
    let options = ConmondOptions { env, ..ConmondOptions::default() };
    with_conmond("zero missed packets", &[], options, |_, host, conmond| {
        let udp = listening(host, "udp-sink", "udp-sink")?;
        let tcp = listening(host, "tcp-sink", "tcp-sink")?;
        let (udp_to, tcp_to) = (udp.ipv4(NET)?, tcp.ipv4(NET)?);
        let words = format!(
            "udp-send --to {udp_to}:9000 --tcp {tcp_to}:9002 --rate 1000 --count {DATAGRAMS} --hold 1"
        );
        let mut run = Run { host, conmond, words, begin: Instant::now(), sent: Vec::new() };
        let (mut singles, mut crowds) = (Speed::default(), Speed::default());
        let mut single = 0;
        while single < plan.single {
            let last = plan.single.min(single + plan.at_once);
            let names = (single..last).map(|n| format!("single{n}"));
            singles.extend(&run.batch(names, |all| all.iter().try_for_each(Container::start))?);
            single = last;
        }
        for round in 0..plan.rounds {
            let names = (0..plan.at_once).map(|n| format!("crowd{round}-{n}"));
            crowds.extend(&run.batch(names, |all| at_once(all, Container::start))?);
            let (done, all) = (run.sent.len(), plan.starts());
            eprintln!("{done} of {all} starts, {:.0} s", run.begin.elapsed().as_secs_f64());
        }

        // All of it once more, now that every sender has gone and its records were folded, retired and freed.
        let answer = conmond.ctl(&["pairs"])?;
        exact(&answer, run.sent.iter().map(|(name, sent)| (name.as_str(), sent)))?;
        let pairs = by_names(&answer);
        let connection = |(name, _): &(String, UdpSent)| pairs.get(&(name.as_str(), "tcp-sink")).copied();
        let split = run.sent.iter().filter_map(connection).filter(|pair| is_split(pair)).count();
        balanced(conmond)?;
        let dropped = dropped_before(&udp)?;
        let received: UdpReceived = udp.stop_and_report()?;
        let all: u64 = run.sent.iter().map(|(_, sent)| sent.sent).sum();
        let arrived = received.datagrams + received.dropped_at_socket;
        ensure!(arrived <= all && arrived + dropped >= all, "{dropped} dropped before, {received:?}");
        let connections: TcpReceived = tcp.stop_and_report()?;
        for (_, sent) in &run.sent {
            received_from(&received, dropped, sent)?;
            let connection = connections.connections.iter().find(|connection| connection.id == Some(sent.id));
            ensure!(
                connection.is_some_and(|c| c.intact && c.bytes == IDENTITY),
                "{connection:?} of {sent:?}"
            );
        }
        // conmond's own figures are of the same: each start, each stop.
        let speed = conmond.wait_ctl("the end of every sender's records", ROUND, &["status"], |answer| {
            let speed = &answer["speed"];
            let reached = |key: &str, count| speed[key]["count"] == count;
            let (starts, sinks) = (plan.starts(), 2);
            let all = reached("tapped_after_seconds", starts + sinks)
                && reached("named_after_seconds", starts + sinks)
                && reached("stopped_after_seconds", starts + sinks)
                && reached("reacted_after_seconds", starts + sinks)
                && reached("ended_after_seconds", starts + sinks);
            all.then(|| speed.clone())
        })?;
        let took = run.begin.elapsed().as_secs_f64();
        eprintln!(
            "{} starts, {all} datagrams, {} connections, missed: 0; {took:.0} s",
            plan.starts(),
            run.sent.len()
        );
        eprintln!("named in the midst of their connection: {split}");
        singles.print("one after another");
        crowds.print(&format!("{} at once", plan.at_once));
        eprintln!(
            "from reading the engine's word of a stop to its being seen, all: {}",
            own_figures(&speed["reacted_after_seconds"])
        );
        eprintln!(
            "from a port's going to its records' end, all: {}",
            own_figures(&speed["ended_after_seconds"])
        );
        Ok(())
    })
}
