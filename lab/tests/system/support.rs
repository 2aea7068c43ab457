//! What the tests of this folder share: a host with conmond on it, and looks at what it answers.

use anyhow::{Context, Result, bail, ensure};
use lab::traffic::{FromSender, UdpReceived, UdpSent};
use lab::{App, Conmond, ConmondOptions, Container, Host, Lab, Spec, root_test};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// Longest wait for traffic to end, or for conmond to show what happened.
pub const END: Duration = Duration::from_secs(30);
/// Longest wait for a container or a monitor to be ready.
pub const READY: Duration = Duration::from_secs(15);
/// After so long without a packet a UDP flow is over.
pub const UDP_IDLE: Duration = Duration::from_secs(30);
/// How long the daemon is away where the environment does not say.
pub const OUTAGE_SECONDS: u64 = 3;
/// The network of every test.
pub const NET: &str = "net";
/// The tenant of every container.
pub const TENANT: &str = "shop";
/// Ethernet, IPv4 without options and UDP around the generator's 64 bytes.
const UDP_FRAME: u64 = 14 + 20 + 8 + 64;
/// Ethernet, IPv4 and TCP with time stamps.
const TCP_HEADERS: u64 = 14 + 20 + 32;
/// A SYN carries 8 bytes of options more than the segments after it.
const SYN_EXTRA: u64 = 8;

/// Runs a test with one host, one network and conmond; skipped like [`root_test`], and where a program it needs is
/// not built (except where `CI` or `CONMON_TEST_REQUIRE_ROOT` ask for it).
pub fn with_conmond(
    name: &str,
    programs: &[&str],
    options: ConmondOptions,
    body: impl FnOnce(&Lab, &Host, &mut Conmond) -> Result<()>,
) -> Result<()> {
    if !built(name, &["conmond", "conmonctl"])? || !built(name, programs)? {
        return Ok(());
    }
    root_test(name, |lab| {
        let host = lab.host("h1")?;
        host.network(NET, None)?;
        let mut conmond = Conmond::start(&host, options)?;
        body(lab, &host, &mut conmond)
    })
}

/// Whether a test that lacks what it needs fails rather than being skipped.
pub fn is_required() -> bool {
    ["CI", "CONMON_TEST_REQUIRE_ROOT"].iter().any(|key| std::env::var_os(key).is_some())
}

/// Whether the programs that a test needs are built; where skipping is not allowed, an error when they are not.
pub fn built(name: &str, programs: &[&str]) -> Result<bool> {
    match programs.iter().find_map(|program| lab::program(program).err()) {
        None => Ok(true),
        Some(error) if is_required() => Err(error),
        Some(error) => {
            lab::skipped(name, &format!("{error:#}"));
            Ok(false)
        }
    }
}

/// A whole number that the environment may set; how the long forms of tests are asked for.
pub fn setting(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => {
            text.parse().with_context(|| format!("{variable} must be a whole number, not {text:?}"))
        }
        _ => Ok(default),
    }
}

/// A container of the traffic generator, of a service of its own name.
pub fn spec(name: &str, words: &str) -> Spec {
    let spec = Spec::app(name, App::Labgen).network(NET).compose(TENANT, name);
    spec.command(words.split_ascii_whitespace())
}

/// A container that runs and says that it listens.
pub fn listening(host: &Host, name: &str, words: &str) -> Result<Container> {
    let container = host.run(&spec(name, words))?;
    container.wait_line("listening", READY)?;
    Ok(container)
}

/// The report of a sender that stays after its last datagram.
pub fn report_of(sender: &Container) -> Result<UdpSent> {
    let line = sender.wait_line("\"first_ns\"", END)?;
    serde_json::from_str(&line).with_context(|| format!("{} printed {line:?}", sender.name()))
}

/// The rows of an answer.
pub fn rows<'a>(answer: &'a Value, list: &str) -> &'a [Value] {
    answer[list].as_array().map_or(&[], Vec::as_slice)
}

/// The row of an answer whose `key` is `value`.
pub fn row<'a>(answer: &'a Value, list: &str, key: &str, value: &str) -> Option<&'a Value> {
    rows(answer, list).iter().find(|row| row[key] == value)
}

/// The pair of two names in an answer of `conmonctl pairs`.
pub fn pair<'a>(answer: &'a Value, src: &str, dst: &str) -> Option<&'a Value> {
    rows(answer, "pairs").iter().find(|pair| pair["src"]["name"] == src && pair["dst"]["name"] == dst)
}

/// The pairs of an answer by the names of their ends.
pub fn by_names<'a>(answer: &'a Value) -> HashMap<(&'a str, &'a str), &'a Value> {
    let name = |pair: &'a Value, end: &str| pair[end]["name"].as_str().unwrap_or_default();
    rows(answer, "pairs").iter().map(|pair| ((name(pair, "src"), name(pair, "dst")), pair)).collect()
}

/// Does something to all at the same time.
pub fn at_once<T: Sync>(all: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let act = &act;
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().map(|one| scope.spawn(move || act(one))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread panicked"),
        })
    })
}

/// The packets of a count.
pub fn packets(count: &Value) -> u64 {
    count["packets"].as_u64().unwrap_or_default()
}

/// Waits until the pair shows at least so many packets from `src` to `dst`, and returns it.
pub fn pair_with(conmond: &Conmond, src: &str, dst: &str, at_least: u64) -> Result<Value> {
    conmond.wait_ctl(&format!("{at_least} packets from {src} to {dst}"), END, &["pairs"], |answer| {
        pair(answer, src, dst).filter(|pair| packets(&pair["sent"]) >= at_least).cloned()
    })
}

/// The pair is exactly what the sender says it sent, in packets and in bytes, and nothing but UDP.
pub fn is_exactly(pair: &Value, src: &str, sent: &UdpSent) -> Result<()> {
    let what = || format!("the sender says {sent:?}, the pair {pair}");
    ensure!(packets(&pair["sent"]) == sent.sent && pair["sent"]["segments"] == sent.sent, what());
    ensure!(pair["sent"]["bytes"] == sent.sent * UDP_FRAME, what());
    ensure!(pair["protocols"] == serde_json::json!(["udp"]), what());
    ensure!(pair["src"]["tenant"] == TENANT && pair["src"]["service"] == src, what());
    Ok(())
}

/// Waits for the pair to show what the sender sent, which it must then hold exactly.
pub fn holds_exactly(conmond: &Conmond, src: &str, dst: &str, sent: &UdpSent) -> Result<()> {
    is_exactly(&pair_with(conmond, src, dst, sent.sent)?, src, sent)
}

/// Bytes that a TCP connection carried for its application in one direction, reckoned from its pair: headers and the
/// SYN's options apart. Exact where nothing was sent again and every segment bears a time stamp.
pub fn tcp_payload(count: &Value) -> Option<u64> {
    count["bytes"].as_u64()?.checked_sub(packets(count) * TCP_HEADERS + SYN_EXTRA)
}

/// Packets that the host gave up on their way into a container: on a busy machine the queue of a processor that has no time
/// for it fills up. They passed the tap before.
pub fn dropped_before(sink: &Container) -> Result<u64> {
    Ok(sink.port()?.outside.tx.dropped)
}

/// The sink accounts for every datagram of a sender: received, or dropped at its own socket or before.
pub fn received_from<'a>(
    received: &'a UdpReceived,
    dropped_before: u64,
    sent: &UdpSent,
) -> Result<&'a FromSender> {
    let from = received.senders.get(&sent.id).context("the sink does not know the sender")?;
    let whole = from.serials.is_whole(sent.sent) && from.repeated == 0;
    ensure!(whole || received.dropped_at_socket + dropped_before > 0, "{from:?} of {sent:?}");
    Ok(from)
}

/// `conmonctl doctor -o json`, also when a check fails.
pub fn doctor(conmond: &Conmond) -> Result<Value> {
    let out = conmond.command().args(["doctor", "-o", "json"]).output().context("conmonctl doctor")?;
    serde_json::from_slice(&out.stdout).context("`conmonctl doctor` did not print JSON")
}

/// What the taps counted is what was selected, left out and lost, and nothing was lost.
pub fn balanced(conmond: &Conmond) -> Result<()> {
    let answer = doctor(conmond)?;
    let ledger = &answer["ledger"];
    let observed = ledger["observed"].as_u64().context("the ledger is missing")?;
    ensure!(ledger["balanced"] == true && observed > 0, "{ledger}");
    let lost = ledger["lost"].as_object().context("the ledger has no losses")?;
    ensure!(lost.values().all(|count| count == 0), "{ledger}");
    Ok(())
}

/// Whether a row of `conmonctl ledger` tells the same as the interface's own counters.
pub fn agrees(port: &Value) -> bool {
    let same = |ours: &str, theirs: &str| port[theirs] == port[ours]["packets"];
    same("sent", "interface_sent_packets") && same("received", "interface_received_packets")
}

/// What was counted at a container's port, once it equals the interface's own counters. They may be read a packet
/// apart, so it is asked again until both tell the same.
pub fn port_agrees(conmond: &Conmond, container: &str) -> Result<Value> {
    let what = format!("counters of the tap and of the interface of {container} that agree");
    conmond.wait_ctl(&what, READY, &["ledger"], |answer| {
        row(answer, "ports", "container", container).filter(|port| agrees(port)).cloned()
    })
}
