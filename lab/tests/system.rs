//! The whole product against real containers, held to the truth of who made the traffic: no packet missed from a
//! container's first instruction on, no hole while the daemon or a monitor is dead, names that follow the engine, and
//! a `down` that leaves nothing.

use anyhow::{Context, Result, ensure};
use lab::traffic::{FromSender, TcpReceived, TcpSent, UdpReceived, UdpSent};
use lab::{App, Conmond, ConmondOptions, Container, Host, Lab, Spec, root_test, wait_for};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Longest wait for traffic to end, or for conmond to show what happened.
const END: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(15);
const NET: &str = "net";
/// Ethernet, IPv4 without options and UDP around the generator's 64 bytes.
const UDP_FRAME: u64 = 14 + 20 + 8 + 64;
/// Ethernet, IPv4 and TCP with time stamps.
const TCP_HEADERS: u64 = 14 + 20 + 32;
/// A SYN carries 8 bytes of options more than the segments after it.
const SYN_EXTRA: u64 = 8;

/// Runs a test with one host, one network and conmond; skipped like [`root_test`], and where conmond is not built
/// (except where `CI` or `CONMON_TEST_REQUIRE_ROOT` ask for it).
fn with_conmond(name: &str, body: impl FnOnce(&Lab, &Host, &mut Conmond) -> Result<()>) -> Result<()> {
    let required = ["CI", "CONMON_TEST_REQUIRE_ROOT"].iter().any(|key| std::env::var_os(key).is_some());
    if let Err(error) = lab::program("conmond").and_then(|_| lab::program("conmonctl"))
        && !required
    {
        eprintln!("SKIPPED {name}: {error:#}");
        return Ok(());
    }
    root_test(name, |lab| {
        let host = lab.host("h1")?;
        host.network(NET, None)?;
        let mut conmond = Conmond::start(&host, ConmondOptions::default())?;
        body(lab, &host, &mut conmond)
    })
}

fn spec(name: &str, words: &str) -> Spec {
    let spec = Spec::app(name, App::Labgen).network(NET).compose("shop", name);
    spec.command(words.split_ascii_whitespace())
}

fn listening(host: &Host, name: &str, words: &str) -> Result<Container> {
    let container = host.run(&spec(name, words))?;
    container.wait_line("listening", READY)?;
    Ok(container)
}

/// The report of a sender that stays after its last datagram.
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

fn row<'a>(answer: &'a Value, list: &str, key: &str, value: &str) -> Option<&'a Value> {
    rows(answer, list).iter().find(|row| row[key] == value)
}

fn packets(count: &Value) -> u64 {
    count["packets"].as_u64().unwrap_or_default()
}

/// Waits until the pair shows at least so many packets from `src` to `dst`, and returns it.
fn pair_with(conmond: &Conmond, src: &str, dst: &str, at_least: u64) -> Result<Value> {
    conmond.wait_ctl(&format!("{at_least} packets from {src} to {dst}"), END, &["pairs"], |answer| {
        pair(answer, src, dst).filter(|pair| packets(&pair["sent"]) >= at_least).cloned()
    })
}

/// The pair holds exactly what the sender says it sent, in packets and in bytes, and nothing but UDP.
fn holds_exactly(conmond: &Conmond, src: &str, dst: &str, sent: &UdpSent) -> Result<()> {
    let pair = pair_with(conmond, src, dst, sent.sent)?;
    let what = format!("the sender says {sent:?}, the pair {pair}");
    ensure!(packets(&pair["sent"]) == sent.sent, "{what}");
    ensure!(
        pair["sent"]["segments"] == sent.sent && pair["sent"]["bytes"] == sent.sent * UDP_FRAME,
        "{what}"
    );
    ensure!(pair["protocols"] == serde_json::json!(["udp"]), "{what}");
    ensure!(pair["src"]["tenant"] == "shop" && pair["src"]["service"] == src, "{what}");
    Ok(())
}

/// The sink accounts for every datagram of a sender: received, or dropped at its own socket.
fn received_from<'a>(received: &'a UdpReceived, sent: &UdpSent) -> Result<&'a FromSender> {
    let from = received.senders.get(&sent.id).context("the sink does not know the sender")?;
    let whole = from.serials.is_whole(sent.sent) && from.repeated == 0;
    ensure!(whole || received.dropped_at_socket > 0, "{from:?} of {sent:?}");
    Ok(from)
}

/// `conmonctl doctor -o json`, also when a check fails.
fn doctor(conmond: &Conmond) -> Result<Value> {
    let out = conmond.command().args(["doctor", "-o", "json"]).output().context("conmonctl doctor")?;
    serde_json::from_slice(&out.stdout).context("`conmonctl doctor` did not print JSON")
}

/// What the taps counted is what was selected, left out and lost, and nothing was lost.
fn balanced(conmond: &Conmond) -> Result<()> {
    let answer = doctor(conmond)?;
    let ledger = &answer["ledger"];
    let observed = ledger["observed"].as_u64().context("the ledger is missing")?;
    ensure!(ledger["balanced"] == true && observed > 0, "{ledger}");
    let lost = ledger["lost"].as_object().context("the ledger has no losses")?;
    ensure!(lost.values().all(|count| count == 0), "{ledger}");
    Ok(())
}

/// What was counted at a container's port, once it equals the interface's own counters. They may be read a packet
/// apart, so it is asked again until both tell the same.
fn port_agrees(conmond: &Conmond, container: &str) -> Result<Value> {
    let what = format!("counters of the tap and of the interface of {container} that agree");
    conmond.wait_ctl(&what, READY, &["ledger"], |answer| {
        let port = row(answer, "ports", "container", container)?;
        let same = |ours: &str, theirs: &str| port[theirs] == port[ours]["packets"];
        let both = same("sent", "interface_sent_packets") && same("received", "interface_received_packets");
        both.then(|| port.clone())
    })
}

/// Prints the middle and the greatest of what was measured, in milliseconds.
fn print_figures(what: &str, mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    if let (Some(middle), Some(most)) = (seconds.get(seconds.len() / 2), seconds.last()) {
        let (count, middle, most) = (seconds.len(), middle * 1e3, most * 1e3);
        eprintln!("{what}: p50 {middle:.2} ms, max {most:.2} ms over {count} starts");
    }
}

#[test]
fn root_no_packet_is_missed_from_the_first_instruction_on() -> Result<()> {
    with_conmond("zero missed packets", |_, host, conmond| {
        let udp = listening(host, "udp-sink", "udp-sink")?;
        let tcp = listening(host, "tcp-sink", "tcp-sink")?;
        let (udp_to, tcp_to) = (udp.ipv4(NET)?, tcp.ipv4(NET)?);
        let words =
            format!("udp-send --to {udp_to}:9000 --tcp {tcp_to}:9002 --rate 1000 --count 1000 --hold 1");
        let mut senders = Vec::new();
        for number in 0..6 {
            let sender = host.run(&spec(&format!("single{number}"), &words))?;
            let report = report_of(&sender)?;
            senders.push((sender, report));
        }
        let crowd: Vec<Container> = (0..6)
            .map(|number| host.create(&spec(&format!("crowd{number}"), &words)))
            .collect::<Result<_>>()?;
        std::thread::scope(|scope| {
            let starts: Vec<_> = crowd.iter().map(|sender| scope.spawn(|| sender.start())).collect();
            starts.into_iter().try_for_each(|start| {
                start.join().map_err(|_| anyhow::anyhow!("a starting thread panicked"))?
            })
        })?;
        for sender in crowd {
            let report = report_of(&sender)?;
            senders.push((sender, report));
        }

        let (mut tapped, mut named) = (Vec::new(), Vec::new());
        let containers = conmond.ctl(&["containers"])?;
        for (sender, report) in &senders {
            ensure!(report.sent == 1000, "{report:?}");
            holds_exactly(conmond, sender.name(), "udp-sink", report)?;
            let opened = report.tcp.as_ref().context("no connection was tried")?;
            ensure!(opened.connected, "{opened:?}");
            // SYN, ACK, data, FIN at the least; the first of them opened the conversation.
            let connection = pair_with(conmond, sender.name(), "tcp-sink", 4)?;
            ensure!(connection["role_guessed"] == false, "the SYN was not seen: {connection}");
            let seen = row(&containers, "containers", "name", sender.name());
            let network = &seen.context("an unknown container")?["networks"][0];
            tapped.push(network["tapped_after_seconds"].as_f64().with_context(|| format!("{network}"))?);
            named.push(network["named_after_seconds"].as_f64().with_context(|| format!("{network}"))?);
        }
        print_figures("from the bridge to tapped", tapped);
        print_figures("from the engine's event to named", named);
        balanced(conmond)?;
        let received: UdpReceived = udp.stop_and_report()?;
        let all: u64 = senders.iter().map(|(_, report)| report.sent).sum();
        ensure!(received.datagrams + received.dropped_at_socket == all, "{received:?}");
        for (_, report) in &senders {
            received_from(&received, report)?;
        }
        Ok(())
    })
}

#[test]
fn root_a_killed_daemon_leaves_no_hole() -> Result<()> {
    with_conmond("no hole", |_, host, conmond| {
        let udp = listening(host, "udp-sink", "udp-sink")?;
        let tcp = listening(host, "tcp-sink", "tcp-sink")?;
        let (udp_to, tcp_to) = (udp.ipv4(NET)?, tcp.ipv4(NET)?);
        let words = format!("udp-send --to {udp_to}:9000 --rate 1000 --count 9000 --hold 1");
        let sender = host.run(&spec("sender", &words))?;
        let words = format!("tcp-stream --to {tcp_to}:9002 --rate-mbit 20 --seconds 9");
        let stream = host.run(&spec("stream", &words))?;
        pair_with(conmond, "sender", "udp-sink", 500)?;
        pair_with(conmond, "stream", "tcp-sink", 10)?;

        conmond.kill9()?;
        let at_kill = sender.port()?.outside.rx.packets;
        // Three seconds of traffic that only the kernel sees.
        let missed = wait_for("traffic while conmond is dead", END, || {
            let missed = sender.port()?.outside.rx.packets - at_kill;
            Ok((missed >= 3000).then_some(missed))
        })?;
        conmond.up()?;
        eprintln!("conmond answered {:.2} s after its start", conmond.ready_took().as_secs_f64());

        let sent = report_of(&sender)?;
        let streamed: TcpSent = stream.report(END)?;
        ensure!(
            sent.sent == 9000 && missed < sent.sent,
            "the traffic ended before conmond was back: {sent:?}"
        );
        holds_exactly(conmond, "sender", "udp-sink", &sent)?;
        ensure!(streamed.delivered, "{streamed:?}");
        // The end of the stream is in the pair when its bytes hold the payload; headers and the SYN's options apart.
        let what = "the pair of the stream to hold all of it";
        let pair = conmond.wait_ctl(what, END, &["pairs"], |answer| {
            let pair = pair(answer, "stream", "tcp-sink")?;
            let bytes = pair["sent"]["bytes"].as_u64()?;
            let headers = packets(&pair["sent"]) * TCP_HEADERS + SYN_EXTRA;
            (bytes.checked_sub(headers)? >= streamed.bytes).then(|| pair.clone())
        })?;
        if pair["retransmitted_segments"] == 0 {
            let headers = packets(&pair["sent"]) * TCP_HEADERS + SYN_EXTRA;
            ensure!(pair["sent"]["bytes"] == streamed.bytes + headers, "{streamed:?}, but {pair}");
        }
        for container in ["sender", "udp-sink", "tcp-sink"] {
            port_agrees(conmond, container)?;
        }
        balanced(conmond)?;
        let received: UdpReceived = udp.stop_and_report()?;
        received_from(&received, &sent)?;
        let connections: TcpReceived = tcp.stop_and_report()?;
        ensure!(connections.connections.iter().any(|c| c.intact && c.bytes == streamed.bytes));
        Ok(())
    })
}

#[test]
fn root_down_removes_everything() -> Result<()> {
    with_conmond("down", |_, host, conmond| {
        let udp = listening(host, "udp-sink", "udp-sink")?;
        let words = format!("udp-send --to {}:9000 --count 200 --hold 1", udp.ipv4(NET)?);
        let sender = host.run(&spec("sender", &words))?;
        pair_with(conmond, "sender", "udp-sink", report_of(&sender)?.sent)?;
        let pins = Path::new("/sys/fs/bpf/conmon").join(conmond.instance());
        let monitors = || host.docker(&["ps", "--all", "--quiet", "--filter", "name=conmon-pm-"]);
        let images = || host.docker(&["images", "--all", "--quiet", "conmon-monitor-*"]);
        // All of it is there before, or its absence afterwards would mean nothing.
        wait_for("a monitoring container", READY, || Ok((!monitors()?.is_empty()).then_some(())))?;
        ensure!(pins.is_dir() && conmond.run_dir().is_dir() && !images()?.is_empty());

        conmond.down()?;
        ensure!(monitors()?.is_empty(), "monitoring containers are left: {}", monitors()?);
        ensure!(images()?.is_empty(), "images are left: {}", images()?);
        ensure!(!pins.exists(), "{} is left", pins.display());
        ensure!(!conmond.run_dir().exists(), "{} is left", conmond.run_dir().display());
        ensure!(!conmond.is_running());
        ensure!(udp.is_running()? && sender.is_running()?, "an application container was touched");
        Ok(())
    })
}

#[test]
fn root_a_killed_monitor_is_replaced_and_nothing_is_missed() -> Result<()> {
    with_conmond("killed monitor", |_, host, conmond| {
        let udp = listening(host, "udp-sink", "udp-sink")?;
        let words = format!("udp-send --to {}:9000 --rate 1000 --count 8000 --hold 1", udp.ipv4(NET)?);
        let sender = host.run(&spec("sender", &words))?;
        pair_with(conmond, "sender", "udp-sink", 500)?;
        let working = |answer: &Value| {
            let monitor = row(answer, "monitors", "tenant", "shop")?;
            let id = monitor["id"].as_str().filter(|_| monitor["state"] == "working")?;
            Some((id.to_string(), monitor["restarts"].as_u64()?))
        };
        let (first, _) = conmond.wait_ctl("shop's monitor", READY, &["monitors"], working)?;
        host.docker(&["kill", &first])?;
        let (second, restarts) = conmond.wait_ctl("another monitor", READY, &["monitors"], |answer| {
            working(answer).filter(|(id, _)| *id != first)
        })?;
        ensure!(restarts >= 1 && second != first, "{restarts} restarts");
        let sent = report_of(&sender)?;
        holds_exactly(conmond, "sender", "udp-sink", &sent)?;
        balanced(conmond)?;
        let received: UdpReceived = udp.stop_and_report()?;
        received_from(&received, &sent).map(drop)
    })
}

#[test]
fn root_names_networks_and_the_opt_out_are_followed() -> Result<()> {
    with_conmond("the engine's events", |_, host, conmond| {
        host.network("other", None)?;
        let udp = listening(host, "udp-sink", "udp-sink")?;
        // Both ends opted out: nobody's port is tapped, so there is no pair of theirs.
        let out = |name: &str, words: &str| host.run(&spec(name, words).label("conmon.enable", "false"));
        let hidden_sink = out("hidden-sink", "udp-sink")?;
        hidden_sink.wait_line("listening", READY)?;
        let words = format!("udp-send --to {}:9000 --count 200 --hold 1", hidden_sink.ipv4(NET)?);
        ensure!(report_of(&out("hidden", &words)?)?.sent == 200);

        let words = format!("udp-send --to {}:9000 --count 0 --rate 500", udp.ipv4(NET)?);
        let sender = host.run(&spec("sender", &words))?;
        pair_with(conmond, "sender", "udp-sink", 200)?;
        let pairs = conmond.ctl(&["pairs", "--all"])?;
        let hidden = |pair: &&Value| {
            ["src", "dst"]
                .iter()
                .any(|end| pair[*end]["name"].as_str().is_some_and(|n| n.starts_with("hidden")))
        };
        // Multicast of theirs may reach the ports of others; what is theirs alone may be nowhere.
        let found = rows(&pairs, "pairs").iter().find(|pair| hidden(pair) && pair["observed_at"] != "dst");
        ensure!(found.is_none(), "opted out, and yet there: {found:?}");
        ensure!(pair(&pairs, "hidden", "hidden-sink").is_none());
        let containers = conmond.ctl(&["containers"])?;
        let seen = row(&containers, "containers", "name", "hidden").context("`hidden` is unknown")?;
        let note = seen["note"].as_str().unwrap_or_default();
        ensure!(note.contains("not watched") && note.contains("conmon.enable"), "{seen}");
        ensure!(rows(seen, "networks").iter().all(|network| network["tapped_at"].is_null()), "{seen}");

        // One container, one pair, under the new name; what was counted before is kept.
        sender.rename("renamed")?;
        let before = sender.port()?.outside.rx.packets;
        let pair_now = pair_with(conmond, "renamed", "udp-sink", before)?;
        ensure!(pair_now["src"]["id"] == sender.id(), "{pair_now}");
        let pairs = conmond.ctl(&["pairs"])?;
        ensure!(pair(&pairs, "sender", "udp-sink").is_none(), "the old name is still there: {pairs}");

        let tapped_on = |answer: &Value, network: &str| {
            let seen = row(answer, "containers", "name", "renamed")?;
            Some(rows(seen, "networks").iter().any(|n| n["name"] == network && n["tapped_at"].is_string()))
        };
        sender.connect("other")?;
        conmond.wait_ctl("a tap on the second network", READY, &["containers"], |answer| {
            (tapped_on(answer, "other")? && tapped_on(answer, NET)?).then_some(())
        })?;
        sender.disconnect("other")?;
        conmond.wait_ctl("the end of the second tap", READY, &["containers"], |answer| {
            (!tapped_on(answer, "other")? && tapped_on(answer, NET)?).then_some(())
        })?;

        // Its end takes its port away; the pair stays, exact.
        let sent: UdpSent = sender.stop_and_report()?;
        let pair_now = pair_with(conmond, "renamed", "udp-sink", sent.sent)?;
        ensure!(packets(&pair_now["sent"]) == sent.sent, "{sent:?}, but {pair_now}");
        balanced(conmond)
    })
}
