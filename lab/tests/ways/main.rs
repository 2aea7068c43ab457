//! Every way to run containers that ConMon has to do with: each network mode, Podman, a user's own Docker, an engine behind a guard. What
//! each is measured by is traffic whose sender says what it sent.

mod guarded;
mod modes;
mod podman;
mod rootless;

use anyhow::{Context, Result, ensure};
use lab::traffic::UdpSent;
use lab::{App, Conmond, Container, Host, Spec};
use serde_json::Value;
use std::time::Duration;

/// Longest wait for traffic to end, or for conmond to show what happened.
const END: Duration = Duration::from_secs(40);
/// Ethernet, IPv4 without options and UDP around the generator's 64 bytes.
const UDP_FRAME: u64 = 14 + 20 + 8 + 64;

/// Whether conmond is built; where skipping is not allowed, an error when it is not.
fn built(name: &str) -> Result<bool> {
    there(name, lab::program("conmond").and_then(|_| lab::program("conmonctl")))
}

/// Whether what a test needs is there; where skipping is not allowed, an error when it is not.
fn there<T>(name: &str, needed: Result<T>) -> Result<bool> {
    let required = ["CI", "CONMON_TEST_REQUIRE_ROOT"].iter().any(|key| std::env::var_os(key).is_some());
    match needed {
        Ok(_) => Ok(true),
        Err(error) if required => Err(error),
        Err(error) => {
            lab::skipped(name, &format!("{error:#}"));
            Ok(false)
        }
    }
}

/// A traffic generator on a network, of the tenant `shop`.
fn labgen(name: &str, network: &str, words: &str) -> Spec {
    let spec = Spec::app(name, App::Labgen).network(network).label("conmon.tenant", "shop");
    spec.command(words.split_ascii_whitespace())
}

fn sink(host: &Host, name: &str, network: &str) -> Result<Container> {
    let container = host.run(&labgen(name, network, "udp-sink"))?;
    container.wait_line("listening", END)?;
    Ok(container)
}

/// What a sender that stays after its last datagram says of itself.
fn report_of(sender: &Container) -> Result<UdpSent> {
    let line = sender.wait_line("\"first_ns\"", END)?;
    serde_json::from_str(&line).with_context(|| format!("{} printed {line:?}", sender.name()))
}

fn rows<'a>(answer: &'a Value, list: &str) -> &'a [Value] {
    answer[list].as_array().map_or(&[], Vec::as_slice)
}

fn pair<'a>(answer: &'a Value, src: &str, dst: &str) -> Option<&'a Value> {
    rows(answer, "pairs").iter().find(|pair| pair["src"]["name"] == src && pair["dst"]["name"] == dst)
}

fn container<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    rows(answer, "containers").iter().find(|row| row["name"] == name)
}

fn packets(count: &Value) -> u64 {
    count["packets"].as_u64().unwrap_or_default()
}

/// The pair that holds exactly what the sender says it sent, in packets and in bytes.
fn holds_exactly(conmond: &Conmond, src: &str, dst: &str, sent: &UdpSent) -> Result<Value> {
    let what = format!("{} packets from {src} to {dst}", sent.sent);
    let pair = conmond.wait_ctl(&what, END, &["pairs"], |answer| {
        pair(answer, src, dst).filter(|pair| packets(&pair["sent"]) >= sent.sent).cloned()
    })?;
    let exact = packets(&pair["sent"]) == sent.sent && pair["sent"]["bytes"] == sent.sent * UDP_FRAME;
    ensure!(exact && sent.sent > 0, "the sender says {sent:?}, the pair {pair}");
    Ok(pair)
}

/// The monitoring container that the tenant shares, once it works: its name.
fn monitoring_container(conmond: &Conmond) -> Result<String> {
    conmond.wait_ctl("shop's monitoring container", END, &["monitors"], |answer| {
        let mut all = rows(answer, "monitors").iter();
        let ours = all.find(|m| m["tenant"] == "shop" && m["mode"] == "shared" && m["state"] == "working")?;
        Some(ours["name"].as_str()?.to_owned())
    })
}

/// After a restart: another sender's packets are counted, and those of before are not lost.
fn counts_on(host: &Host, conmond: &Conmond, words: &str, before: &UdpSent) -> Result<()> {
    let more = host.run(&labgen("more", "net", words))?;
    let sent_more = report_of(&more)?;
    holds_exactly(conmond, "more", "udp-sink", &sent_more)?;
    holds_exactly(conmond, "sender", "udp-sink", before)?;
    balanced(conmond)?;
    ensure!(check(&doctor(conmond)?, "monitors").is_some_and(|c| c["ok"] == true));
    Ok(())
}

/// `conmonctl doctor -o json`, also when a check fails.
fn doctor(conmond: &Conmond) -> Result<Value> {
    let out = conmond.command().args(["doctor", "-o", "json"]).output().context("conmonctl doctor")?;
    serde_json::from_slice(&out.stdout).context("`conmonctl doctor` did not print JSON")
}

fn check<'a>(doctor: &'a Value, name: &str) -> Option<&'a Value> {
    rows(doctor, "checks").iter().find(|check| check["name"] == name)
}

/// What the taps counted is what was selected, left out and lost, and nothing was lost.
fn balanced(conmond: &Conmond) -> Result<()> {
    let answer = doctor(conmond)?;
    let ledger = &answer["ledger"];
    let observed = ledger["observed"].as_u64().context("the ledger is missing")?;
    let lost = ledger["lost"].as_object().context("the ledger has no losses")?;
    ensure!(ledger["balanced"] == true && observed > 0 && lost.values().all(|n| n == 0), "{ledger}");
    Ok(())
}
