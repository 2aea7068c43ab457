//! Hundreds of containers at once, in networks that speak IPv6: each hears what all others ask for, and with nothing configured
//! every one of them has its row.
//!
//! The long form is asked for by `CONMON_CROWD`: so many containers.

use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::traffic::{UdpReceived, UdpSent};
use lab::{App, ConmondOptions, Container, Spec, wait_for};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SENDERS: u64 = 30;
const DATAGRAMS: u64 = 20;
const SIX: &str = "six";
const OTHER: &str = "other";
/// What engines with two processors start at once.
const AT_ONCE: usize = 50;
/// Ethernet, IPv6 and UDP around the generator's 64 bytes.
const FRAME: u64 = 14 + 40 + 8 + 64;
/// Longest wait for all of them.
const ALL: Duration = Duration::from_secs(120);

#[test]
fn root_a_crowd_has_a_row_for_everyone() -> Result<()> {
    let senders = setting("CONMON_CROWD", SENDERS)?;
    with_conmond("a crowd", &[], ConmondOptions::default(), |_, host, conmond| {
        let begun = Instant::now();
        host.network(SIX, Some("fd00:c0::/64"))?;
        host.network(OTHER, Some("fd00:c1::/64"))?;
        let six = |name: &str, words: &str| {
            Spec::app(name, App::Labgen)
                .network(SIX)
                .compose(TENANT, name)
                .command(words.split_ascii_whitespace())
        };
        let udp = host.run(&six("udp-sink", "udp-sink"))?;
        let tcp = host.run(&six("tcp-sink", "tcp-sink"))?;
        for sink in [&udp, &tcp] {
            sink.wait_line("listening", READY)?;
        }
        let at = |sink: &Container, port| Ok::<_, anyhow::Error>(SocketAddr::new(sink.ipv6(SIX)?, port));
        let words = format!(
            "udp-send --to {} --tcp {} --rate 100 --count {DATAGRAMS} --hold 1",
            at(&udp, 9000)?,
            at(&tcp, 9002)?
        );
        let mut all = Vec::new();
        for n in 0..senders {
            let container = host.create(&six(&format!("one{n}"), &words))?;
            container.connect(OTHER)?;
            all.push(container);
        }
        for some in all.chunks(AT_ONCE) {
            at_once(some, Container::start)?;
        }
        let sent: Vec<(&str, UdpSent)> =
            all.iter().map(|one| Ok((one.name(), report_of(one)?))).collect::<Result<_>>()?;
        let answer = conmond.wait_ctl("a row for every connection", ALL, &["pairs"], |answer| {
            let pairs = by_names(answer);
            let shows = |name: &str| pairs.get(&(name, "tcp-sink")).is_some_and(|p| packets(&p["sent"]) >= 4);
            sent.iter().all(|(name, _)| shows(name)).then(|| answer.clone())
        })?;
        for ((name, _), connection) in by_names(&answer).iter().filter(|((_, dst), _)| *dst == "tcp-sink") {
            let handshakes = connection["handshake_rtt_seconds"]["count"].as_u64();
            ensure!(handshakes >= Some(1), "{name}: {connection}");
        }
        // datagrams wait in their container for its first answer of who has the address. Where hundreds ask at once, on two processors, that
        // may not come in time: what then never left its container has no row, and the sink does not know it
        let answer = conmond.wait_ctl("what was sent", END, &["pairs"], |answer| {
            let pairs = by_names(answer);
            let all_of = |name: &str, sent: &UdpSent| {
                pairs.get(&(name, "udp-sink")).is_some_and(|pair| packets(&pair["sent"]) >= sent.sent)
            };
            let missing = sent.iter().filter(|(name, sent)| !all_of(name, sent)).count();
            (missing as u64 <= senders / 100).then(|| answer.clone())
        })?;
        let dropped = dropped_before(&udp)?;
        let received: UdpReceived = udp.stop_and_report()?;
        let pairs = by_names(&answer);
        let mut held_up = 0;
        for (name, sent) in &sent {
            let (pair, came) = (pairs.get(&(*name, "udp-sink")), received.senders.contains_key(&sent.id));
            let Some(pair) = pair else {
                port_agrees(conmond, name)?;
                ensure!(!came, "{name} has no row, and the sink knows it: {sent:?}");
                held_up += 1;
                continue;
            };
            let exact = packets(&pair["sent"]) == sent.sent && pair["sent"]["bytes"] == sent.sent * FRAME;
            ensure!(exact && sent.sent == DATAGRAMS, "{sent:?}, but {pair}");
            received_from(&received, dropped, sent)?;
        }
        // all names are known, and nobody's rows are of the others' questions for neighbours
        let strangers: Vec<_> = pairs
            .iter()
            .filter(|((src, dst), _)| {
                let known = |name: &str| name.starts_with("one") || name.ends_with("-sink");
                !(known(src) && known(dst))
            })
            .map(|(_, pair)| pair)
            .collect();
        let status = conmond.ctl(&["status"])?;
        let set = row(&status, "sets", "tenant", TENANT).context("no set")?;
        let of = |table: &str, what: &str| set[table][what].as_u64().with_context(|| set.to_string());
        let (used, room) = (of("pairs", "used")?, of("pairs", "capacity")?);
        eprintln!(
            "{senders} containers in two networks: {used} of {room} pair records, {} of {} histograms, {} other rows, {held_up} whose datagrams never left them, {:.0} s",
            of("histograms", "used")?,
            of("histograms", "capacity")?,
            strangers.len(),
            begun.elapsed().as_secs_f64()
        );
        // two at each end, and what a container may have to say to routers and groups: with their number, not its square
        ensure!(used <= 6 * (senders + 2), "{used} pair records of {senders} containers: {strangers:?}");
        let answer = doctor(conmond)?;
        for name in ["tables", "ledger", "names", "ring"] {
            let check = row(&answer, "checks", "name", name).with_context(|| format!("no check {name}"))?;
            ensure!(check["ok"] == true, "{check}");
        }
        balanced(conmond)?;
        for some in all.chunks(AT_ONCE) {
            at_once(some, Container::remove)?;
        }
        wait_for("the end of their records", ALL, || {
            let status = conmond.ctl(&["status"])?;
            let set = row(&status, "sets", "tenant", TENANT).context("no set")?;
            Ok((set["pairs"]["used"].as_u64() <= Some(24)).then_some(()))
        })?;
        balanced(conmond)
    })
}
