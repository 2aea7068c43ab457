//! The engine stops and starts: counting goes on, what ended meanwhile is settled under its name, what began meanwhile is
//! counted and named.

use crate::support::*;
use crate::traffic::Traffic;
use anyhow::{Context, Result, ensure};
use lab::traffic::{UdpReceived, UdpSent};
use lab::{Conmond, ConmondOptions, Container, Host, root_test};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::time::Duration;

/// For so long conmond keeps the address of a container that has ended.
const ADDRESS_LINGER: Duration = Duration::from_secs(60);

/// The identity of a sender that ends while nobody listens to it.
const LEAVER: u64 = 77;

/// Runs a test with a host whose engine has these arguments.
fn with_engine(
    name: &str,
    arguments: &[&str],
    body: impl FnOnce(&Host, &mut Conmond) -> Result<()>,
) -> Result<()> {
    if !built(name, &["conmond", "conmonctl"])? {
        return Ok(());
    }
    root_test(name, |lab| {
        let host = lab.docker_host("h1", arguments)?;
        host.network(NET, None)?;
        let mut conmond = Conmond::start(&host, ConmondOptions::default())?;
        body(&host, &mut conmond)
    })
}

/// Waits until conmond says that the engine answers, or that it does not.
fn engine_is(conmond: &Conmond, connected: bool) -> Result<()> {
    conmond.wait_ctl(&format!("an engine that is connected: {connected}"), READY, &["status"], |status| {
        (status["engine"]["connected"] == connected).then_some(())
    })
}

/// Waits until a container has no tap any more, or is forgotten.
fn has_ended(conmond: &Conmond, name: &str) -> Result<()> {
    conmond.wait_ctl(&format!("the end of {name}"), END, &["containers"], |answer| {
        let Some(seen) = row(answer, "containers", "name", name) else { return Some(()) };
        let tapped = |network: &Value| network["tapped_at"].is_string() || network["interface"].is_string();
        (seen["state"] != "running" && !rows(seen, "networks").iter().any(tapped)).then_some(())
    })
}

/// Sends a burst of a container's own and holds its pair to it.
fn another_is_counted(host: &Host, conmond: &Conmond, name: &str, to: &Container) -> Result<()> {
    let words = format!("udp-send --to {}:9000 --count 100 --hold 1", to.ipv4(NET)?);
    let container = host.run(&spec(name, &words))?;
    holds_exactly(conmond, name, to.name(), &report_of(&container)?)
}

#[test]
fn root_containers_outlive_an_engine_with_live_restore() -> Result<()> {
    with_engine("engine with live restore", &["--live-restore"], |host, conmond| {
        let traffic = Traffic::start(host, conmond)?;
        let sink = listening(host, "later-sink", "udp-sink")?;
        let words = format!("udp-send --to {}:9000 --rate 500 --id {LEAVER}", sink.ipv4(NET)?);
        let leaver = host.run(&spec("leaver", &words))?;
        pair_with(conmond, "leaver", "later-sink", 100)?;
        let leaver_pid = Pid::from_raw(i32::try_from(leaver.pid()?)?);

        let stopped = host.stop_engine(Signal::SIGTERM)?;
        engine_is(conmond, false)?;
        traffic.goes_on(1)?;
        // One ends while nobody is there to tell of it.
        kill(leaver_pid, Signal::SIGTERM).context("cannot end the leaver")?;
        traffic.goes_on(1)?;
        // And conmond itself dies and starts without an engine.
        conmond.kill9()?;
        traffic.goes_on(1)?;
        conmond.up()?;
        engine_is(conmond, false)?;
        let counted = pair_with(conmond, "sender", "udp-sink", 1)?;
        ensure!(counted["src"]["name"] == "sender", "{counted}");

        stopped.start()?;
        engine_is(conmond, true)?;
        has_ended(conmond, "leaver")?;
        another_is_counted(host, conmond, "newcomer", &sink)?;
        // Who has the leaver's address now is not taken for it, and neither is left without a name.
        let answer = conmond.ctl(&["pairs", "--all"])?;
        let datagrams =
            rows(&answer, "pairs").iter().filter(|p| p["protocols"] == serde_json::json!(["udp"]));
        for pair in datagrams {
            let named = ["src", "dst"].iter().all(|end| pair[*end]["id"].is_string());
            ensure!(named, "an end without a name: {pair}");
        }
        // What it said at its end nobody heard; who received it knows.
        let received: UdpReceived = sink.stop_and_report()?;
        let from = received.senders.get(&LEAVER).context("the sink does not know the leaver")?;
        let sent = UdpSent { id: LEAVER, sent: from.serials.count(), ..UdpSent::default() };
        ensure!(from.serials.is_whole(sent.sent) && received.dropped_at_socket == 0, "{received:?}");
        holds_exactly(conmond, "leaver", "later-sink", &sent)?;
        let sent = traffic.was_counted_exactly(conmond)?.sent;
        eprintln!("engine and conmond were away in turn, {sent} datagrams, missed: 0");
        Ok(())
    })
}

/// The engine is ended by a signal, takes its containers with it (now, or when it starts again), and starts again.
fn all_containers_die(host: &Host, conmond: &Conmond, signal: Signal) -> Result<()> {
    let sink = listening(host, "udp-sink", "udp-sink")?;
    let words = format!("udp-send --to {}:9000 --count 300 --hold 1", sink.ipv4(NET)?);
    let done = host.run(&spec("done", &words))?;
    let sent = report_of(&done)?;
    holds_exactly(conmond, "done", "udp-sink", &sent)?;
    // This one comes back by itself, before anybody can tell conmond.
    let back = host.run(&spec("back", "udp-sink").option("--restart=always"))?;
    back.wait_line("listening", READY)?;
    let before = back.pid()?;

    let stopped = host.stop_engine(signal)?;
    engine_is(conmond, false)?;
    stopped.start()?;
    engine_is(conmond, true)?;
    for name in ["done", "udp-sink"] {
        has_ended(conmond, name)?;
    }
    holds_exactly(conmond, "done", "udp-sink", &sent)?;
    lab::wait_for("the container that is always there", END, || {
        Ok((back.is_running()? && back.pid()? != before).then_some(()))
    })?;
    conmond.wait_ctl("its tap", END, &["containers"], |answer| {
        let seen = row(answer, "containers", "name", "back")?;
        rows(seen, "networks").iter().any(|n| n["tapped_at"].is_string()).then_some(())
    })?;
    another_is_counted(host, conmond, "newcomer", &back)?;
    conmond.wait_ctl("books that balance", END, &["doctor"], |answer| {
        (answer["ledger"]["balanced"] == true).then_some(())
    })
}

#[test]
fn root_an_engine_that_ends_takes_its_containers_along() -> Result<()> {
    with_engine("engine's end", &[], |host, conmond| all_containers_die(host, conmond, Signal::SIGTERM))
}

#[test]
fn root_an_engine_that_is_killed_kills_its_containers_later() -> Result<()> {
    with_engine("engine killed", &[], |host, conmond| all_containers_die(host, conmond, Signal::SIGKILL))
}

#[test]
fn root_a_container_that_is_restarted_keeps_its_name() -> Result<()> {
    with_engine("restarted container", &[], |host, conmond| {
        let server = listening(host, "server", "udp-sink")?;
        let address = server.ipv4(NET)?;
        // It is there all the time: a container that comes has the engine asked for everybody's address.
        let client = host.run(&spec("client", "idle"))?;
        another_is_counted(host, conmond, "before", &server)?;
        server.restart()?;
        ensure!(server.ipv4(NET)? == address, "it has another address now");
        // Until it is over that its address stays its own after its end.
        std::thread::sleep(ADDRESS_LINGER + Duration::from_secs(2));
        let said =
            client.exec(&["/labgen", "udp-send", "--to", &format!("{address}:9000"), "--count", "100"])?;
        let sent: UdpSent = serde_json::from_str(said.lines().last().unwrap_or_default())?;
        holds_exactly(conmond, "client", "server", &sent)
    })
}
