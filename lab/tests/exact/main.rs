//! Bytes and packets of pairs, as `conmonctl pairs` tells them, are those of the interfaces' own counters and of captures at the
//! same ports: IPv4 and IPv6, TCP and UDP, super-packets, single segments and fragments, a hundred thousand flows at once,
//! and ten times more flows than there is room for.
//!
//! A capture sees the packets that the tap sees, save where the port itself segments what it sends: there it stands behind
//! that, as the interface's counters do. Where a port merges what it receives the capture stands behind that, as the tap
//! does, and the counters before it. What is equal then is the tap's count of segments and the interface's of packets.

mod figures;
mod stage;

use anyhow::{Context, Result, ensure};
use figures::Pair;
use lab::{App, Conmond, ConmondOptions, Spec, output_text, root_test, wait_for};
use stage::{ENDS, FOUR, Otherwise, SIX, Stage, TCP, UDP, WAIT, fastened, on_stage};

/// The greatest frame of a single segment: a link header, and the network's 1,500.
const FRAME: u32 = 1514;

/// Does the same for both clients at once.
fn both(act: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let act = &act;
        let threads = [FOUR, SIX].map(|client| scope.spawn(move || act(client)));
        threads
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .into_iter()
            .collect()
    })
}

fn stream(stage: &Stage, client: usize) -> Result<()> {
    let sent = stage.labgen(client, "tcp-stream --bytes 20000000", TCP, 9002)?;
    ensure!(sent["delivered"] == true && sent["bytes"] == 20_000_000, "{sent}");
    Ok(())
}

/// A stream, large requests and answers; small datagrams, and some of three fragments there and back.
fn everything(stage: &Stage, client: usize) -> Result<()> {
    stream(stage, client)?;
    stage.labgen(client, "tcp-rr --count 50 --size 60000", TCP, 9003)?;
    stage.labgen(client, "udp-send --count 1000 --rate 5000 --size 300", UDP, 9000)?;
    let trips = stage.labgen(client, "udp-rr --count 50 --size 4000", UDP, 9001)?;
    ensure!(trips["requests"] == 50 && trips["lost"] == 0, "{trips}");
    Ok(())
}

#[test]
fn root_pairs_are_what_interfaces_count_and_captures_hold() -> Result<()> {
    const OFF: &str = "tso off gso off gro off";
    const ON: &str = "tso on gso on gro off";
    on_stage("pairs, interfaces and captures", &[], |stage| {
        for (what, offloads) in [("offloads on", ON), ("offloads off", OFF)] {
            for end in [FOUR, SIX, TCP, UDP] {
                stage.offload(end, true, offloads)?;
                stage.offload(end, false, offloads)?;
            }
            let talk = || both(|client| everything(stage, client));
            let (pairs, captured) = stage.compare(what, Otherwise::Nowhere, talk)?;
            for client in [FOUR, SIX] {
                let pair = pairs.iter().find(|pair| pair.is(ENDS[client].0, "tcp-end")).context("no pair")?;
                for count in [pair.sent, pair.received] {
                    ensure!((count.segments > count.packets) == (offloads == ON), "{what}: {pair:?}");
                }
                let largest = captured[client].largest;
                ensure!((largest > FRAME) == (offloads == ON), "{what}: a frame of {largest} octets");
            }
        }
        let talk = || both(|client| stream(stage, client));
        (FOUR..=UDP).try_for_each(|end| stage.offload(end, true, ON))?;
        stage.compare("a port that segments", Otherwise::Segments(TCP), talk)?;
        stage.offload(FOUR, true, OFF)?;
        stage.offload(FOUR, false, "gro on")?;
        stage.offload(TCP, false, ON)?;
        stage.compare("a port that merges", Otherwise::Merges(FOUR), talk)?;
        Ok(())
    })
}

/// Datagrams of so many flows, half of them of each family, and a stream of each meanwhile.
fn flows(stage: &Stage, what: &str, flows: u64, rounds: u64) -> Result<Vec<Pair>> {
    let words = format!("udp-flows --flows {} --rounds {rounds} --rate 12500", flows / 2);
    let talk = || {
        std::thread::scope(|scope| {
            let streams = scope.spawn(|| both(|client| stream(stage, client)));
            both(|client| {
                let sent = stage.labgen(client, &words, UDP, 1)?;
                ensure!(sent["packets"] == rounds * flows / 2, "{sent}");
                Ok(())
            })?;
            streams.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    };
    Ok(stage.compare(what, Otherwise::Nowhere, talk)?.0)
}

#[test]
fn root_pairs_are_exact_with_a_hundred_thousand_flows() -> Result<()> {
    const FLOWS: u64 = 100_000;
    on_stage("a hundred thousand flows, exactly", &[], |stage| {
        let pairs = flows(stage, "a hundred thousand flows", FLOWS, 2)?;
        let active: u64 = pairs.iter().map(|pair| pair.active_flows).sum();
        println!("{active} flows with a record");
        // those whose packets came while the table grew are in their pair alone
        ensure!(active > FLOWS / 2, "only {active} flows have a record");
        Ok(())
    })
}

#[test]
fn root_pairs_are_exact_with_ten_times_more_flows_than_slots() -> Result<()> {
    let keys = ["tables.flows=1024", "tables.max_flows=1024", "tap=clsact"];
    on_stage("more flows than slots, exactly", &keys, |stage| {
        let pairs = flows(stage, "ten times more flows than slots", 10_240, 3)?;
        let active: u64 = pairs.iter().map(|pair| pair.active_flows).sum();
        println!("{active} flows with a record");
        ensure!((1..=1024).contains(&active), "{active} flows have a record");
        Ok(())
    })
}

/// A container's packets are none the fewer for being counted: not while its port is tapped, first by classifiers and then by
/// TCX, nor when its tap goes and another comes. The kernel drops what is sent to a port while a qdisc is put there or taken
/// away, clsact too (`dev_deactivate` in `qdisc_graft`), after the tap has counted it and before a capture sees it.
#[test]
fn root_no_packet_is_dropped_for_a_tap() -> Result<()> {
    root_test("a port that is tapped under traffic", |lab| {
        let host = lab.host("h1")?;
        host.network("net", None)?;
        let mut conmond = Conmond::start(&host, ConmondOptions::default())?;
        let run = |name: &str, words: &str| {
            let spec = Spec::app(name, App::Labgen).network("net").compose("exact", name);
            host.run(&spec.command(words.split_ascii_whitespace()))
        };
        let sink = run("sink", "idle")?;
        let port = sink.port()?.outside.name;
        let source =
            run("source", &format!("udp-flows --rounds 1000 --rate 20000 --to {}:1", sink.ipv4("net")?))?;
        let qdisc = |words: &[&str]| output_text(host.command("tc").arg("qdisc").args(words));
        let is_bound = || qdisc(&["show", "dev", &port]).map(|shown| shown.contains("ingress_block"));
        // waits for so many packets; how many the port has dropped by then
        let dropped_after = |packets: u64| {
            let enough = host.namespace().link(&port)?.tx.packets + packets;
            wait_for("datagrams at the port", WAIT, || {
                let tx = host.namespace().link(&port)?.tx;
                Ok((tx.packets >= enough).then_some(tx.dropped))
            })
        };
        let first = dropped_after(1000)?;
        let exchanges = |conmond: &Conmond| match tap::kernel_has_tcx() {
            true => fastened(conmond, &["sink"]),
            false => Ok(()),
        };
        exchanges(&conmond)?;
        let exchanged = dropped_after(1000)?;
        ensure!(!tap::kernel_has_tcx() || is_bound()?, "a qdisc was taken off a port under traffic");
        conmond.down()?;
        let removed = dropped_after(1000)?;
        conmond.up()?;
        exchanges(&conmond)?;
        let again = dropped_after(1000)?;
        conmond.down()?;
        // what was left there: this may drop packets
        qdisc(&["del", "dev", &port, "clsact"])?;
        let before = dropped_after(1000)?;
        conmond.up()?;
        exchanges(&conmond)?;
        let beside = dropped_after(1000)? - before;
        println!(
            "packets dropped: {first} at a tapped port, {} while its classifiers were exchanged for TCX, {} while its tap was \
             removed, {} while it was put on again, {} by somebody who deleted the qdisc, {beside} when it was tapped after \
             that",
            exchanged - first,
            removed - exchanged,
            again - removed,
            before - again
        );
        // without TCX a port that runs already has a qdisc put on it, once
        ensure!(again == 0 && (beside == 0 || !tap::kernel_has_tcx()), "packets were dropped");
        // from one way to another: what one leaves is in nobody's way
        conmond.down()?;
        for how in ["clsact", "tcx", "clsact"] {
            let before = dropped_after(1000)?;
            let env = vec![("CONMON_TAP".to_string(), how.to_string())];
            let mut conmond = Conmond::start(&host, ConmondOptions { env, ..ConmondOptions::default() })?;
            let wanted = if how == "clsact" || !tap::kernel_has_tcx() { "clsact" } else { "tcx" };
            conmond.wait_ctl("its tap", WAIT, &["containers"], |answer| {
                let sink = answer["containers"].as_array()?.iter().find(|c| c["name"] == "sink")?;
                (sink["networks"][0]["tapped_by"] == wanted).then_some(())
            })?;
            let dropped = dropped_after(1000)? - before;
            println!("{dropped} dropped with tap: {how}");
            ensure!(dropped == 0 || wanted == "clsact", "{dropped} packets dropped with tap: {how}");
            conmond.down()?;
        }
        let before = dropped_after(1000)?;
        conmond.up()?;
        exchanges(&conmond)?;
        let dropped = dropped_after(1000)? - before;
        ensure!(
            dropped == 0 || !tap::kernel_has_tcx(),
            "{dropped} packets dropped with an empty qdisc there"
        );
        // a port to which nothing is sent has no qdisc any more once it is held by TCX
        source.remove()?;
        let late = run("late", "idle")?.port()?.outside.name;
        wait_for("a port without a qdisc", WAIT, || {
            let shown = qdisc(&["show", "dev", &late])?;
            Ok((!tap::kernel_has_tcx() || !shown.contains("clsact")).then_some(()))
        })
    })
}
