//! The lab's truths agree with each other: what the generator says it sent, what the sink received, what captures at
//! both ends of a port hold, and the interface's own counters.

use anyhow::{Context, Result, ensure};
use lab::traffic::{RoundTrips, TcpReceived, TcpSent, UdpReceived, UdpSent};
use lab::{App, Capture, Container, Host, Spec, root_test};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const END: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(10);
const NET: &str = "net";

fn labgen(host: &Host, name: &str, words: &str) -> Result<Container> {
    host.create(&Spec::app(name, App::Labgen).network(NET).command(words.split_ascii_whitespace()))
}

fn started(host: &Host, name: &str, words: &str) -> Result<Container> {
    let container = labgen(host, name, words)?;
    container.start()?;
    Ok(container)
}

fn listening(host: &Host, name: &str, words: &str) -> Result<Container> {
    let container = started(host, name, words)?;
    container.wait_line("listening", READY)?;
    Ok(container)
}

fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

#[test]
fn root_every_datagram_is_accounted_for_from_the_first() -> Result<()> {
    root_test("numbered datagrams", |lab| {
        let host = lab.host("h1")?;
        host.network(NET, Some("fd00:b::/64"))?;
        let udp = listening(&host, "udp-sink", "udp-sink")?;
        let tcp = listening(&host, "tcp-sink", "tcp-sink")?;
        let mut sent = Vec::new();
        for (name, udp_to, tcp_to) in [
            ("sender4", at(udp.ipv4(NET)?, 9000), at(tcp.ipv4(NET)?, 9002)),
            ("sender6", at(udp.ipv6(NET)?, 9000), at(tcp.ipv6(NET)?, 9002)),
        ] {
            let words = format!("udp-send --to {udp_to} --tcp {tcp_to} --rate 1000 --count 500");
            let report: UdpSent = started(&host, name, &words)?.report(END)?;
            ensure!(report.sent == 500, "{report:?}");
            let opened = report.tcp.as_ref().context("no connection was tried")?;
            ensure!(opened.connected && opened.error.is_none(), "{opened:?}");
            // 500 at 1,000 per second take half a second: the pace is kept, not caught up in a burst.
            let took = Duration::from_nanos(report.last_ns - report.first_ns);
            ensure!((Duration::from_millis(450)..Duration::from_secs(2)).contains(&took), "{took:?}");
            sent.push(report);
        }
        let received: UdpReceived = udp.stop_and_report()?;
        let connections: TcpReceived = tcp.stop_and_report()?;
        ensure!(received.datagrams == 1000 && received.dropped_at_socket == 0, "{received:?}");
        for report in &sent {
            let from = received.senders.get(&report.id).context("sender unknown at the sink")?;
            ensure!(from.serials.is_whole(500) && from.repeated == 0, "{from:?}");
            let connection = connections.connections.iter().find(|c| c.id == Some(report.id));
            ensure!(connection.is_some_and(|c| c.bytes == 8 && c.closed), "{connections:?}");
        }
        Ok(())
    })
}

#[test]
fn root_captures_and_counters_tell_the_same() -> Result<()> {
    root_test("captures and counters", |lab| {
        let host = lab.host("h1")?;
        host.network(NET, None)?;
        let sink = listening(&host, "sink", "udp-sink")?;
        let to = at(sink.ipv4(NET)?, 9000);
        // Known to both, so that no other packet than the sender's passes the sink's port meanwhile.
        let warm = started(&host, "warm", &format!("udp-send --to {to} --count 1"))?;
        warm.report::<UdpSent>(END)?;
        let outside = Capture::outside(&sink, "udp port 9000")?;
        let inside = Capture::inside(&sink, "eth0", "udp port 9000")?;
        let before = sink.port()?;
        let whole = Capture::outside(&sink, "")?;
        let sender =
            started(&host, "sender", &format!("udp-send --to {to} --rate 2000 --count 1000 --size 300"))?;
        let report: UdpSent = sender.report(END)?;
        let (outside, inside, whole) = (outside.finish()?, inside.finish()?, whole.finish()?.complete()?);
        let after = sink.port()?;
        let (outside, inside) = (outside.complete()?, inside.complete()?);
        ensure!(report.sent == 1000 && outside.len() == 1000 && inside.len() == 1000);
        for (index, (out, ins)) in outside.iter().zip(&inside).enumerate() {
            ensure!(out.data == ins.data && out.wire_len == 14 + 20 + 8 + 300);
            // Ethernet, IPv4 without options, UDP, identity: then the serial number.
            let serial = out.data.get(50..58).context("too little captured")?;
            ensure!(serial == (index as u64).to_be_bytes(), "packet {index} carries {serial:?}");
            ensure!(ins.time_ns.abs_diff(out.time_ns) < 1_000_000_000);
        }
        ensure!(outside.iter().any(|p| p.time_ns % 1000 != 0), "times are not in nanoseconds");
        // All that passed the port, ARP included, is what its counters grew by, in both directions together.
        let grown_packets = after.outside.rx.packets - before.outside.rx.packets + after.outside.tx.packets
            - before.outside.tx.packets;
        let grown_bytes = after.outside.rx.bytes - before.outside.rx.bytes + after.outside.tx.bytes
            - before.outside.tx.bytes;
        let captured_bytes: u64 = whole.iter().map(|p| u64::from(p.wire_len)).sum();
        // The counters were read a moment before the capture began and after it ended.
        ensure!(grown_packets.abs_diff(whole.len() as u64) <= 4, "{grown_packets} and {}", whole.len());
        ensure!(grown_bytes.abs_diff(captured_bytes) <= 4 * 100, "{grown_bytes} and {captured_bytes}");
        ensure!(after.inside.rx.packets == after.outside.tx.packets, "{after:?}");
        Ok(())
    })
}

#[test]
fn root_streams_and_round_trips_over_both_protocols() -> Result<()> {
    root_test("streams and round trips", |lab| {
        let host = lab.host("h1")?;
        host.network(NET, Some("fd00:c::/64"))?;
        let sink = listening(&host, "sink", "tcp-sink")?;
        let udp_echo = listening(&host, "udp-echo", "udp-echo")?;
        let tcp_echo = listening(&host, "tcp-echo", "tcp-echo")?;
        let to = at(sink.ipv6(NET)?, 9002);
        let stream = started(&host, "stream", &format!("tcp-stream --to {to} --bytes 20000000"))?;
        let paced = started(&host, "paced", "tcp-stream --to sink:9002 --rate-mbit 8 --seconds 1")?;
        let (stream, paced): (TcpSent, TcpSent) = (stream.report(END)?, paced.report(END)?);
        ensure!(stream.delivered && stream.bytes == 20_000_000, "{stream:?}");
        ensure!(paced.delivered && (7e6..9e6).contains(&paced.bits_per_second), "{paced:?}");
        let received: TcpReceived = sink.stop_and_report()?;
        for sent in [&stream, &paced] {
            let connection =
                received.connections.iter().find(|c| c.id == Some(sent.id)).context("not received")?;
            ensure!(
                connection.intact && connection.closed && connection.bytes == sent.bytes,
                "{connection:?}"
            );
            ensure!(connection.serials == (sent.bytes - 8) / 8);
        }
        for (name, mode, to) in [
            ("udp4", "udp-rr", at(udp_echo.ipv4(NET)?, 9001)),
            ("udp6", "udp-rr", at(udp_echo.ipv6(NET)?, 9001)),
            ("tcp4", "tcp-rr", at(tcp_echo.ipv4(NET)?, 9003)),
            ("tcp6", "tcp-rr", at(tcp_echo.ipv6(NET)?, 9003)),
        ] {
            let trips: RoundTrips =
                started(&host, name, &format!("{mode} --to {to} --count 500"))?.report(END)?;
            let times = &trips.round_trip_ns;
            ensure!(trips.requests == 500 && trips.lost == 0 && times.count == 500, "{name}: {trips:?}");
            ensure!(
                times.min > 1_000
                    && times.min <= times.p50
                    && times.p50 <= times.p99
                    && times.p99 <= times.max
            );
        }
        Ok(())
    })
}

#[test]
fn root_the_outside_reaches_published_ports() -> Result<()> {
    root_test("published ports", |lab| {
        let host = lab.host("h1")?;
        if !host.iptables() {
            lab::skipped("published ports", "iptables does not work in a network namespace here");
            return Ok(());
        }
        let outside = lab.namespace("outside")?;
        let addresses = ("10.77.0.1/24 fd00:77::1/64", "10.77.0.2/24 fd00:77::2/64");
        lab.cable((host.namespace(), "up0", addresses.0), (&outside, "eth0", addresses.1))?;
        let echo = host.run(
            &Spec::app("echo", App::Labgen)
                .publish("7000:9003/tcp")
                .publish("7001:9001/udp")
                .command(["tcp-echo"]),
        )?;
        echo.wait_line("listening", READY)?;
        let labgen = lab::program("labgen")?;
        let mut client = outside.command(&labgen);
        let said = lab::output_text(client.args(["tcp-rr", "--to", "10.77.0.1:7000", "--count", "20"]))?;
        let trips: RoundTrips = serde_json::from_str(&said)?;
        ensure!(trips.requests == 20, "{trips:?}");
        // And from inside out: the host masquerades.
        let mut server = outside.command(&labgen);
        let mut server = server.args(["udp-echo"]).stdout(std::process::Stdio::null()).spawn()?;
        let words = ["udp-rr", "--to", "10.77.0.2:9001", "--count", "5"];
        let ended = host
            .run(&Spec::app("asker", App::Labgen).command(words))
            .and_then(|c| c.report::<RoundTrips>(END));
        server.kill()?;
        server.wait()?;
        let trips = ended?;
        ensure!(trips.requests == 5 && trips.lost < 5, "{trips:?}");
        Ok(())
    })
}

#[test]
fn root_containers_survive_their_lives_events() -> Result<()> {
    root_test("container verbs", |lab| {
        let host = lab.host("h1")?;
        host.network("one", None)?;
        host.network("two", None)?;
        let spec = Spec::app("first", App::Labgen).network("one").compose("shop", "web").command(["idle"]);
        let container = host.run(&spec)?;
        let labels = container.inspect()?["Config"]["Labels"].clone();
        ensure!(
            labels["com.docker.compose.project"] == "shop" && labels["com.docker.compose.service"] == "web"
        );
        container.connect("two")?;
        let ports = container.ports()?;
        ensure!(ports.len() == 2 && ports.iter().all(|p| p.outside.master.is_some()), "{ports:?}");
        container.disconnect("one")?;
        let port = container.port()?;
        ensure!(container.ipv4("two")?.is_ipv4() && container.ipv4("one").is_err());
        container.rename("second")?;
        container.restart()?;
        ensure!(container.is_running()? && container.port()?.outside.index != port.outside.index);
        // An engine that dies leaves its containers to containerd; a new one takes them back or ends them.
        host.restart_engine()?;
        host.run(&Spec::app("after", App::Labgen).network("two").command(["idle"]))?;
        container.remove()?;
        ensure!(container.inspect().is_err());
        Ok(())
    })
}
