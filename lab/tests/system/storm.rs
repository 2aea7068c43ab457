//! A storm of names: containers come and go on a network so small that each address is another's a moment later. Nothing
//! that one sent is told of another, nobody stays without a name, and every total is exact.
//!
//! `CONMON_STORM_CONTAINERS` sets how many there are.

use crate::support::*;
use anyhow::{Context, Result, bail, ensure};
use lab::traffic::{TcpReceived, UdpReceived, UdpSent};
use lab::{App, Conmond, ConmondOptions, Host, Spec};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The storm's network: room for the sinks and eleven more.
const STORM: &str = "storm";
const SUBNET: &str = "10.78.5.0/28";
/// Containers that come and go at the same time.
const AT_ONCE: u64 = 4;
/// Longest wait for the last of them to be settled.
const SETTLED: Duration = Duration::from_secs(120);
/// SYN, acknowledgement, identity, FIN: the fewest packets of a connection.
const CONNECTION: u64 = 4;
/// Bytes of a sender's identity, all that its connection carries.
const IDENTITY: u64 = 8;

/// A container of the storm, as it was.
#[derive(Debug)]
struct Past {
    name: String,
    id: String,
    address: String,
    sent: UdpSent,
}

/// Datagrams of a container: its own number of them, so that another's count is not its own by chance.
fn datagrams(number: u64) -> u64 {
    20 + number % 61
}

/// A container's whole life.
fn live(host: &Host, number: u64, to: &str) -> Result<Past> {
    let name = format!("gust{number}");
    let words = format!("{to} --rate 2000 --count {} --hold 1", datagrams(number));
    let spec = Spec::app(&name, App::Labgen).network(STORM).compose(TENANT, &name);
    let container = host.run(&spec.command(words.split_ascii_whitespace()))?;
    let sent = report_of(&container)?;
    let address = container.ipv4(STORM)?.to_string();
    container.remove()?;
    ensure!(sent.sent == datagrams(number), "{name}: {sent:?}");
    let opened = sent.tcp.as_ref().context("no connection was tried")?;
    ensure!(opened.connected && opened.error.is_none(), "{name}: {opened:?}");
    Ok(Past { name, id: container.id().to_string(), address, sent })
}

/// Lets them come and go, `AT_ONCE` at a time, while `look` looks on.
fn blow(host: &Host, count: u64, to: &str, mut look: impl FnMut() -> Result<()>) -> Result<Vec<Past>> {
    let (next, past) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let (next, past) = (&next, &past);
    std::thread::scope(|scope| {
        let work = move || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                let one = live(host, number, to)?;
                past.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            }
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let mut looked = Ok(());
        while looked.is_ok() && threads.iter().any(|thread| !thread.is_finished()) {
            looked = look();
        }
        // Nobody begins another one after a failure.
        if looked.is_err() {
            next.store(count, Ordering::Relaxed);
        }
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        looked
    })?;
    let past = std::mem::take(&mut *past.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(past)
}

/// Each end of each row is named, and by somebody who had that very address. `had` is empty for those who are not known
/// yet: who is on its way cannot be checked.
fn names_hold(answer: &Value, list: &str, had: &BTreeMap<String, String>, all_known: bool) -> Result<()> {
    for row in rows(answer, list) {
        for end in ["src", "dst"] {
            let (end, name) = (&row[end], row[end]["name"].as_str().unwrap_or_default());
            for address in rows(end, "addresses").iter().filter_map(Value::as_str) {
                match had.get(name) {
                    Some(own) if !address.contains(':') => ensure!(address == own, "{name} had {own}: {row}"),
                    Some(_) => {}
                    None => {
                        let of_storm = had.values().any(|own| own == address);
                        ensure!(!all_known || !of_storm, "{address} without a name of the storm's: {row}");
                        ensure!(name != "reused address", "two owners in one record: {row}");
                    }
                }
            }
        }
    }
    Ok(())
}

/// A flow of the storm's belongs to who it says: nobody's flow has more than it sent.
fn flows_hold(answer: &Value) -> Result<()> {
    for flow in
        rows(answer, "flows").iter().filter(|flow| flow["protocol"] == "udp" && flow["dst_port"] == 9000)
    {
        let name = flow["src"]["name"].as_str().unwrap_or_default();
        if let Some(number) = name.strip_prefix("gust").and_then(|n| n.parse().ok()) {
            ensure!(packets(&flow["sent"]) <= datagrams(number), "{flow}");
        }
    }
    Ok(())
}

/// Every container's pairs are what it sent.
fn totals_hold(answer: &Value, past: &[Past]) -> Result<()> {
    for one in past {
        let find =
            |dst| pair(answer, &one.name, dst).with_context(|| format!("no pair of {} and {dst}", one.name));
        is_exactly(find("udp-sink")?, &one.name, &one.sent)?;
        let connection = find("tcp-sink")?;
        ensure!(connection["src"]["id"] == one.id.as_str(), "{connection} is not of {}", one.id);
        let whole = tcp_payload(&connection["sent"]) == Some(IDENTITY);
        let again = connection["retransmitted_segments"] != 0;
        ensure!((whole && packets(&connection["sent"]) >= CONNECTION) || again, "{connection}");
    }
    let of_sink = rows(answer, "pairs").iter().filter(|pair| pair["dst"]["name"] == "udp-sink");
    let udp = of_sink.filter(|pair| pair["protocols"] == serde_json::json!(["udp"]));
    let counted: u64 = udp.map(|pair| packets(&pair["sent"])).sum();
    let sent: u64 = past.iter().map(|one| one.sent.sent).sum();
    ensure!(counted == sent, "{sent} datagrams sent, {counted} in all pairs");
    Ok(())
}

fn settings() -> ConmondOptions {
    let settings = [
        // What has gone is answered until the end of the test.
        ("CONMON_RETENTION_SECONDS", 7200),
        ("CONMON_TABLES_FLOWS", 16 << 10),
        ("CONMON_TABLES_PAIRS", 16 << 10),
        ("CONMON_TABLES_HISTS", 4 << 10),
        ("CONMON_TABLES_PORTS", 1 << 10),
    ];
    let env = settings.map(|(key, value)| (key.to_string(), value.to_string())).to_vec();
    ConmondOptions { env, ..ConmondOptions::default() }
}

/// The storm on a host.
fn storm(host: &Host, conmond: &mut Conmond, count: u64) -> Result<()> {
    host.docker(&["network", "create", "--subnet", SUBNET, STORM])?;
    let sink = |name: &str, words: &str| {
        let spec = Spec::app(name, App::Labgen).network(STORM).compose(TENANT, name);
        let container = host.run(&spec.command([words]))?;
        container.wait_line("listening", READY)?;
        Ok::<_, anyhow::Error>(container)
    };
    let (udp, tcp) = (sink("udp-sink", "udp-sink")?, sink("tcp-sink", "tcp-sink")?);
    let to = format!("udp-send --to {}:9000 --tcp {}:9002", udp.ipv4(STORM)?, tcp.ipv4(STORM)?);
    let mut looks = 0u64;
    let nobody = BTreeMap::new();
    let past = blow(host, count, &to, || {
        looks += 1;
        std::thread::sleep(Duration::from_millis(200));
        flows_hold(&conmond.ctl(&["flows", "--limit", "10000"])?)?;
        names_hold(&conmond.ctl(&["pairs"])?, "pairs", &nobody, false)
    })?;
    ensure!(past.len() as u64 == count && looks > 0, "{} of {count} lived, {looks} looks", past.len());

    let addresses: BTreeSet<&str> = past.iter().map(|one| one.address.as_str()).collect();
    ensure!(addresses.len() as u64 * 2 <= count, "{count} containers had {addresses:?}: no storm of names");
    let had: BTreeMap<String, String> =
        past.iter().map(|one| (one.name.clone(), one.address.clone())).collect();
    let mut last = String::new();
    let settled = lab::wait_for("a storm that was told right", SETTLED, || {
        let answer = conmond.ctl(&["pairs", "--all"])?;
        last = match names_hold(&answer, "pairs", &had, true).and_then(|()| totals_hold(&answer, &past)) {
            Ok(()) => return Ok(Some(())),
            Err(error) => format!("{error:#}"),
        };
        Ok(None)
    });
    settled.context(last)?;
    balanced(conmond)?;
    // Once more by another conmond, which knows the past from disk alone.
    conmond.kill9()?;
    conmond.up()?;
    let answer = conmond.ctl(&["pairs", "--all"])?;
    names_hold(&answer, "pairs", &had, true)
        .and_then(|()| totals_hold(&answer, &past))
        .context("restarted")?;

    let dropped = dropped_before(&udp)?;
    let received: UdpReceived = udp.stop_and_report()?;
    let connections: TcpReceived = tcp.stop_and_report()?;
    for one in &past {
        let from = received_from(&received, dropped, &one.sent)?;
        ensure!(from.address.contains(one.address.as_str()), "{from:?} of {one:?}");
        let connection = connections.connections.iter().find(|c| c.id == Some(one.sent.id));
        ensure!(connection.is_some_and(|c| c.intact && c.bytes == IDENTITY), "{connection:?} of {one:?}");
    }
    let each = count as f64 / addresses.len() as f64;
    eprintln!(
        "{count} containers on {} addresses, {each:.0} for each; {looks} looks meanwhile; wrong names: 0, missed: 0",
        addresses.len()
    );
    Ok(())
}

#[test]
fn root_a_storm_of_names_is_told_right() -> Result<()> {
    let count = setting("CONMON_STORM_CONTAINERS", 60)?;
    ensure!(count >= 30, "CONMON_STORM_CONTAINERS is {count}: fewer than 30 use no address again");
    with_conmond("name storm", &[], settings(), |_, host, conmond| storm(host, conmond, count))
}
