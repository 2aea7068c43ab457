//! The switch plug point against the running kernel: bridge, veth and namespaces made for each test.

mod netns;

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use conmond::switch::{Link, LinkEvent, LinkListener, LinkQuery, Namespaces};
use netns::{Netns, privileged};

const WAIT: Duration = Duration::from_secs(5);

fn listen(ns: &Netns) -> (LinkListener, Receiver<LinkEvent>) {
    let (sender, events) = channel();
    let listener = ns.within(move || {
        LinkListener::start(move |event| {
            let _ = sender.send(event);
        })
    });
    (listener.expect("a listener"), events)
}

/// Waits for the first event that `wanted` makes something of.
fn wait<T>(events: &Receiver<LinkEvent>, what: &str, mut wanted: impl FnMut(&LinkEvent) -> Option<T>) -> T {
    let end = Instant::now() + WAIT;
    let mut seen = Vec::new();
    while let Ok(event) = events.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if let Some(found) = wanted(&event) {
            return found;
        }
        seen.push(event);
    }
    panic!("no event '{what}' within {WAIT:?}; seen: {seen:#?}");
}

fn new_link<'a>(event: &'a LinkEvent, name: &str) -> Option<&'a Link> {
    match event {
        LinkEvent::New { link, .. } if link.name == name => Some(link),
        _ => None,
    }
}

#[test]
fn root_a_ports_life_is_told_in_order() {
    if !privileged() {
        return;
    }
    let host = Netns::new("host");
    let container = Netns::new("ctr");
    let (listener, events) = listen(&host);
    host.ip("link add br0 type bridge");
    host.ip("link set br0 up");
    let bridge = wait(&events, "bridge", |e| new_link(e, "br0").filter(|l| l.is_bridge()).map(|l| l.ifindex));

    host.ip("link add vh type veth peer name vc");
    let (port, peer) = wait(&events, "veth", |e| {
        new_link(e, "vh").filter(|l| l.is_veth()).map(|l| (l.ifindex, l.peer_ifindex))
    });
    assert_eq!(port, host.ifindex("vh"));
    assert_eq!(peer, Some(host.ifindex("vc")), "the peer is still in our own namespace");

    host.ip("link set vh master br0");
    let joined = wait(&events, "joined", |e| new_link(e, "vh").filter(|l| l.master.is_some()).cloned());
    assert_eq!((joined.master, joined.up, joined.link_netnsid), (Some(bridge), false, None));

    host.ip("link set vh up");
    host.ip(&format!("link set vc netns {}", container.name));
    container.ip("link set vc name eth0 address 02:42:0a:00:00:05");
    container.ip("addr add 10.9.0.5/24 dev eth0");
    container.ip("addr add fd00:9::5/64 dev eth0 nodad");
    container.ip("link set eth0 up");
    let up = wait(&events, "carrier", |e| new_link(e, "vh").filter(|l| l.up).cloned());
    assert_eq!(up.master, Some(bridge));
    let netnsid = up.link_netnsid.expect("the peer's namespace has a number here");
    assert_eq!(up.peer_ifindex, Some(container.ifindex("eth0")));

    let (peer, nobody, nowhere) = host.within(|| {
        let mut query = LinkQuery::open(Namespaces::default()).expect("a query socket");
        let index = up.peer_ifindex.unwrap_or(0);
        (
            query.peer(Some(netnsid), index),
            query.peer(Some(netnsid), 4_000_000),
            query.peer(Some(netnsid + 77), index),
        )
    });
    let peer = peer.expect("an answer").expect("a peer");
    assert_eq!(peer.mac, "02:42:0a:00:00:05".parse().ok());
    assert_eq!(peer.name, "eth0");
    assert!(peer.up);
    let global: Vec<IpAddr> = peer
        .addresses
        .iter()
        .copied()
        .filter(|a| !matches!(a, IpAddr::V6(a) if a.is_unicast_link_local()))
        .collect();
    assert_eq!(global, ["10.9.0.5".parse::<IpAddr>().unwrap(), "fd00:9::5".parse().unwrap()]);
    assert_eq!(nobody.expect("an answer"), None, "no such link there");
    assert_eq!(nowhere.expect("an answer"), None, "no such namespace");

    container.ip("link set eth0 down");
    wait(&events, "carrier lost", |e| {
        new_link(e, "vh").filter(|l| !l.up && l.master == Some(bridge)).map(|_| ())
    });
    host.ip("link set vh nomaster");
    let mut deleted_early = false;
    wait(&events, "left", |e| {
        deleted_early |= matches!(e, LinkEvent::Del { .. });
        new_link(e, "vh").filter(|l| l.master.is_none()).map(|_| ())
    });
    assert!(!deleted_early, "leaving a bridge is not the end of the link");
    host.ip("link del vh");
    wait(&events, "deleted", |e| {
        matches!(e, LinkEvent::Del { ifindex, .. } if *ifindex == port).then_some(())
    });

    let begin = Instant::now();
    drop(listener);
    assert!(begin.elapsed() < Duration::from_secs(1), "the listener ends at once");
    assert!(events.recv_timeout(WAIT).map(|e| !matches!(e, LinkEvent::Overrun { .. })).unwrap_or(true));
}

#[test]
fn root_lists_links_addresses_and_counters() {
    if !privileged() {
        return;
    }
    let host = Netns::new("list");
    host.ip("link add br0 type bridge");
    for n in 0..60 {
        host.ip(&format!("link add v{n} type veth peer name w{n}"));
        host.ip(&format!("link set v{n} master br0"));
    }
    host.ip("addr add 10.8.0.1/16 dev br0");
    host.ip("addr add fd00:8::1/48 dev br0 nodad");
    host.ip("link set v0 up");
    host.ip("link set w0 up");
    let bridge = host.ifindex("br0");
    let (links, addresses, none) = host.within(|| {
        let mut query = LinkQuery::open(Namespaces::default()).expect("a query socket");
        (
            query.links(),
            query.host_addresses(),
            (query.link(4_000_000), query.link(0), query.link_stats(4_000_000)),
        )
    });
    let links = links.expect("links");
    assert_eq!(links.len(), 122, "loopback, the bridge and 120 ends");
    assert_eq!(links.iter().filter(|l| l.master == Some(bridge) && l.is_veth()).count(), 60);
    assert!(links.iter().any(|l| l.name == "br0" && l.is_bridge() && l.mac.is_some() && l.mtu == 1500));
    let lo = links.iter().find(|l| l.name == "lo").expect("loopback");
    assert_eq!((lo.mac, lo.kind.as_deref(), lo.peer_ifindex), (None, None, None));

    let addresses = addresses.expect("addresses");
    for (text, prefix_len) in [("10.8.0.1", 16), ("fd00:8::1", 48), ("127.0.0.1", 8), ("::1", 128)] {
        let address: IpAddr = text.parse().unwrap();
        let found = addresses
            .iter()
            .find(|a| a.address == address)
            .unwrap_or_else(|| panic!("{text}: {addresses:?}"));
        assert_eq!(found.prefix_len, prefix_len, "{text}");
        assert_eq!(found.ifindex == bridge, text != "127.0.0.1" && text != "::1", "{text}");
    }
    assert!(matches!(none, (Ok(None), Ok(None), Ok(None))), "{none:?}");
}

#[test]
fn root_counters_are_the_interfaces_own() {
    if !privileged() {
        return;
    }
    let host = Netns::new("count");
    let container = Netns::new("countc");
    host.ip(&format!("link add vh type veth peer name vc netns {}", container.name));
    host.ip("addr add 10.7.0.1/24 dev vh");
    host.ip("link set vh up");
    container.ip("addr add 10.7.0.2/24 dev vc");
    container.ip("link set vc up");
    let port = host.ifindex("vh");
    let stats = || {
        host.within(|| LinkQuery::open(Namespaces::default()).and_then(|mut q| q.link_stats(port)))
            .expect("an answer")
            .expect("the link")
    };
    let before = stats();
    container.within(|| {
        let socket = std::net::UdpSocket::bind("10.7.0.2:0").expect("a socket");
        for _ in 0..25 {
            socket.send_to(&[0; 100], "10.7.0.1:9").expect("sending");
        }
    });
    let after = stats();
    // 25 datagrams of 14 + 20 + 8 + 100 bytes, and around them ARP, neighbour discovery and ICMP errors.
    assert!(after.rx_packets - before.rx_packets >= 25, "{before:?} {after:?}");
    assert!(after.rx_bytes - before.rx_bytes >= 25 * 142, "{before:?} {after:?}");
    let sysfs: u64 = host.within(|| {
        netns::run("ip", &["netns", "exec", &host.name, "cat", "/sys/class/net/vh/statistics/rx_packets"])
            .trim()
            .parse()
            .expect("a number")
    });
    assert!(sysfs >= after.rx_packets && sysfs <= stats().rx_packets);
}

#[test]
fn root_an_overrun_is_told_and_listening_goes_on() {
    if !privileged() {
        return;
    }
    let host = Netns::new("flood");
    host.ip("link add br0 type bridge");
    let (sender, events) = channel();
    let (open, gate) = channel::<()>();
    let listener = host.within(move || {
        let mut blocked = true;
        LinkListener::start(move |event| {
            // The first event waits, so the kernel's queue fills.
            if std::mem::take(&mut blocked) {
                let _ = gate.recv_timeout(Duration::from_secs(60));
            }
            let _ = sender.send(event);
        })
    });
    let _listener = listener.expect("a listener");
    // Each change is a message of about 2 KiB of the queue, which holds 16 MiB as the kernel accounts it.
    let batch = (0..20_000).map(|n| format!("link set br0 mtu {}\n", 1400 + n % 2)).collect::<String>();
    let file = std::env::temp_dir().join(format!("{}.batch", host.name));
    std::fs::write(&file, batch).expect("a batch file");
    let done = std::process::Command::new("ip")
        .args(["-n", &host.name, "-batch"])
        .arg(&file)
        .status()
        .expect("ip -batch");
    std::fs::remove_file(&file).expect("removing the batch file");
    assert!(done.success());
    open.send(()).expect("the gate");
    wait(&events, "overrun", |e| matches!(e, LinkEvent::Overrun { .. }).then_some(()));
    host.ip("link add after type bridge");
    wait(&events, "after the overrun", |e| new_link(e, "after").map(|_| ()));
}
