//! Translations against the running kernel: a caller, a host that forwards with DNAT and masquerade, and who is called.

mod netns;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conmond::clock::monotonic;
use conmond::nat::{NatWatch, Translations};
use ippm::flow::FlowKey;
use ippm::packet::proto;
use ippm::time::Timestamp;
use netns::{Netns, privileged, run};

const WAIT: Duration = Duration::from_secs(5);

struct World {
    host: Netns,
    caller: Netns,
    called: Netns,
    /// Of caller, the host towards it, the host towards the called, the called.
    addresses: [IpAddr; 4],
}

/// Forwarding with port 8080 of the host translated to port 80 of the called, and what is forwarded masqueraded.
fn world(v6: bool) -> World {
    let [host, caller, called] = ["host", "a", "b"].map(Netns::new);
    let address = |net: u16, host: u16| -> IpAddr {
        if v6 {
            Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, host).into()
        } else {
            Ipv4Addr::new(10, 80, net as u8, host as u8).into()
        }
    };
    let length = if v6 { 64 } else { 24 };
    for (net, end) in [(1, &caller), (2, &called)] {
        host.ip(&format!("link add h{net} type veth peer name eth0 netns {}", end.name));
        for (ns, link, number) in [(&host, format!("h{net}"), 1), (end, "eth0".to_owned(), 2)] {
            let nodad = if v6 { "nodad" } else { "" };
            ns.ip(&format!("addr add {}/{length} dev {link} {nodad}", address(net, number)));
            ns.ip(&format!("link set {link} up"));
        }
        let family = if v6 { "-6" } else { "-4" };
        end.ip(&format!("{family} route add default via {}", address(net, 1)));
    }
    let target = if v6 { format!("[{}]:80", address(2, 2)) } else { format!("{}:80", address(2, 2)) };
    let (tables, switch) = if v6 {
        ("ip6tables", "net.ipv6.conf.all.forwarding=1")
    } else {
        ("iptables", "net.ipv4.ip_forward=1")
    };
    let inside = |program: &str, args: &str| {
        let all: Vec<&str> =
            ["netns", "exec", &host.name, program].into_iter().chain(args.split(' ')).collect();
        run("ip", &all);
    };
    inside("sysctl", &format!("-qw {switch}"));
    for proto in ["tcp", "udp"] {
        let rule = format!("-t nat -A PREROUTING -p {proto} --dport 8080 -j DNAT --to-destination {target}");
        inside(tables, &rule);
    }
    inside(tables, "-t nat -A POSTROUTING -o h2 -j MASQUERADE");
    let addresses = [address(1, 2), address(1, 1), address(2, 1), address(2, 2)];
    World { host, caller, called, addresses }
}

fn key(proto: u8, near: SocketAddr, far: SocketAddr) -> FlowKey {
    FlowKey {
        local: near.ip(),
        remote: far.ip(),
        local_port: near.port(),
        remote_port: far.port(),
        proto,
        vlan: 0,
        ifindex: 1,
    }
}

/// Waits until a flow's far end is known.
fn real(all: &Mutex<Translations>, key: &FlowKey, since: Timestamp) -> SocketAddr {
    let end = Instant::now() + WAIT;
    loop {
        if let Some(real) = all.lock().unwrap().real(key, since, monotonic()) {
            return real.place.into();
        }
        assert!(Instant::now() < end, "nobody is known behind {key}: {:?}", all.lock().unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn root_both_ends_of_a_translated_connection_are_known() {
    if !privileged() {
        return;
    }
    for v6 in [false, true] {
        let w = world(v6);
        let [caller, near, gateway, called] = w.addresses;
        let listener = w.called.within(|| TcpListener::bind(SocketAddr::new(called, 80)).unwrap());
        let datagrams = w.called.within(|| UdpSocket::bind(SocketAddr::new(called, 80)).unwrap());
        let connect = || {
            let mut there = w.caller.within(|| TcpStream::connect(SocketAddr::new(near, 8080)).unwrap());
            let (mut here, seen) = listener.accept().unwrap();
            there.write_all(b"?").unwrap();
            here.read_exact(&mut [0]).unwrap();
            (there.local_addr().unwrap(), seen, there, here)
        };
        // one that is there before anybody listens, one after
        let before = connect();
        let all = Arc::new(Mutex::new(Translations::default()));
        let watch = w.host.within(|| NatWatch::start(all.clone()).unwrap());
        let begun = monotonic();
        let after = connect();
        for (from, seen, ..) in [&before, &after] {
            assert_eq!((from.ip(), seen.ip()), (caller, gateway), "translated at both ends");
            let at_caller = key(proto::TCP, *from, SocketAddr::new(near, 8080));
            assert_eq!(real(&all, &at_caller, begun), SocketAddr::new(called, 80));
            let at_called = key(proto::TCP, SocketAddr::new(called, 80), *seen);
            assert_eq!(real(&all, &at_called, begun), *from);
        }

        let socket = w.caller.within(|| UdpSocket::bind(SocketAddr::new(caller, 0)).unwrap());
        socket.send_to(b"?", SocketAddr::new(near, 8080)).unwrap();
        let (_, seen) = datagrams.recv_from(&mut [0; 8]).unwrap();
        let from = socket.local_addr().unwrap();
        let at_called = key(proto::UDP, SocketAddr::new(called, 80), seen);
        assert_eq!(real(&all, &at_called, begun), from);

        // what is not translated wakes nobody: the host's own connection to the called
        let known = all.lock().unwrap().connections;
        let direct = w.host.within(|| TcpStream::connect(SocketAddr::new(called, 80)).unwrap());
        let (_here, seen) = listener.accept().unwrap();
        assert_eq!(seen, direct.local_addr().unwrap());
        let again = connect();
        real(&all, &key(proto::TCP, again.0, SocketAddr::new(near, 8080)), begun);
        let all = all.lock().unwrap();
        assert_eq!(all.connections, known + 1, "v6: {v6}");
        assert_eq!((all.full, all.overruns), (0, 0));
        drop(watch);
    }
}
