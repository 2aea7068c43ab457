//! Real ports: what the tap counts is what the interface counts, through moves and the owner's death; and a tap
//! that is taken away leaves nothing.
//!
//! Where the two may differ by right, and how the traffic here avoids it:
//! - A packet that is dropped between the hook and the driver is counted by the tap alone. The only such place with veth
//!   is a full backlog queue of the receiving side, as on a busy machine. The interface counts the packet as dropped, and
//!   its bytes nowhere: where that happened packets are compared, and bytes are not.
//! - Where the stack segments an offload packet after the egress hook (the port has segmentation switched off), or
//!   merges packets before the ingress hook (the port has GRO switched on), the interface counts wire segments and their
//!   headers, and the tap what passed the hook. Its count of segments is then the interface's of packets.
//! - A VLAN tag that a raw socket writes into the frame is counted by the interface alone: the kernel takes it out before
//!   the hook.
//! - With GRO on, veth counts what it receives without the link header.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use ippm::flow::{Both, Counters, Direction, PortClass};
use ippm::testpackets::{Frame, Mutator};
use lab::Namespace;
use tap::{Attach, Command, Port, Reader, Set, SetSpec, has_tcx};

use crate::kernel::{self, has_tcx_for, ways};
use crate::net::{LEFT, Load, Net, RIGHT, inside};
use crate::oracle::{FlowTruth, Oracle};
use crate::privileged;

pub fn set() -> Set {
    Set::create(SetSpec { flows: 4096, pairs: 256, ports: 16, hists: 256, ..SetSpec::default() }).unwrap()
}

pub fn reader(set: &Set) -> Reader {
    Reader::new(set.descriptors().unwrap()).unwrap()
}

/// All a set counted at a port: flows and pairs, and what belongs to none. Everything in it is of that port.
pub fn counted(reader: &mut Reader, ifindex: u32) -> Both<Counters> {
    reader.forget();
    let scan = reader.scan().unwrap();
    let mut all = scan.set.no_port;
    for pair in scan.pairs.iter().filter(|p| p.key.ifindex == ifindex) {
        all += pair.counters;
    }
    for flow in scan.flows.iter().filter(|f| f.pair.is_none() && f.key.ifindex == ifindex) {
        all += flow.counters;
    }
    for port in scan.ports.iter().filter(|p| p.ifindex == ifindex) {
        for direction in [Direction::Tx, Direction::Rx] {
            for class in PortClass::ALL {
                all[direction] += port.count(direction, *class);
            }
        }
    }
    all
}

/// What the interface counted, its directions named as the container sees them.
fn interface(host: &Namespace, port: &str) -> Both<(u64, u64)> {
    let link = host.link(port).unwrap();
    assert_eq!(
        (link.rx.dropped, link.tx.dropped),
        (0, 0),
        "{port} dropped packets: the comparison means nothing"
    );
    Both::new((link.rx.packets, link.rx.bytes), (link.tx.packets, link.tx.bytes))
}

/// The same with the packets that the interface dropped; of a direction with such, the bytes are the tap's if they are
/// more than the interface's.
fn interface_with_dropped(host: &Namespace, port: &str, tap: Both<(u64, u64)>) -> Both<(u64, u64)> {
    let link = host.link(port).unwrap();
    let of = |c: lab::Counters, (_, bytes): (u64, u64)| match c.dropped {
        0 => (c.packets, c.bytes),
        dropped if bytes > c.bytes => (c.packets + dropped, bytes),
        dropped => (c.packets + dropped, c.bytes),
    };
    Both::new(of(link.rx, tap.tx), of(link.tx, tap.rx))
}

fn packets_and_bytes(c: Counters) -> (u64, u64) {
    (c.packets, c.bytes)
}

/// Compares until nothing is on its way any more: neighbours' chatter is, now and then.
fn assert_settles<T: PartialEq + std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (T, T)) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (tap, truth) = look();
        if tap == truth {
            return tap;
        }
        assert!(Instant::now() < deadline, "{what}: tap {tap:?}, interface {truth:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

pub fn assert_exact(what: &str, net: &Net, port: &str, readers: &mut [&mut Reader]) -> Both<(u64, u64)> {
    assert_exact_at(what, net, port, net.port(port), readers)
}

/// The same where the tap knows the port by another number than the interface's.
pub fn assert_exact_at(
    what: &str,
    net: &Net,
    port: &str,
    number: u32,
    readers: &mut [&mut Reader],
) -> Both<(u64, u64)> {
    assert_settles(&format!("{what}, {port}"), || {
        let mut all = Both::default();
        for r in readers.iter_mut() {
            all += counted(r, number);
        }
        let tap = all.map(packets_and_bytes);
        (tap, interface_with_dropped(&net.host, port, tap))
    })
}

pub fn attach(net: &Net, port: &str, set: &Set, how: Attach, dir: Option<&std::path::Path>) -> Port {
    let ifindex = net.port(port);
    let port = inside(&net.host, || Port::attach(ifindex, set.programs(), how, dir)).unwrap();
    let wanted = if how == Attach::Clsact || !kernel::has_tcx() { "clsact" } else { "tcx" };
    assert_eq!(port.how(), wanted);
    port
}

/// Pins of this test, where the lab's teardown finds them.
pub fn pins(net: &Net, part: &str) -> PathBuf {
    tap::filesystem::mount_if_missing().unwrap();
    PathBuf::from("/sys/fs/bpf/conmon").join(net.lab.id().part(part))
}

/// TCP and UDP, both ways, both families.
pub fn everything(net: &Net) -> Vec<Load> {
    let mut loads = Vec::new();
    for family in [0, 1] {
        let at = |address: [IpAddr; 2], port| SocketAddr::new(address[family], port);
        loads.push(Load::stream(&net.left, &net.right, at(RIGHT, 7001), 100_000));
        loads.push(Load::stream(&net.right, &net.left, at(LEFT, 7001), 3_000));
        loads.push(Load::requests(&net.left, &net.right, at(RIGHT, 7002)));
        loads.push(Load::datagrams(&net.left, &net.right, at(RIGHT, 7003), 64, 10));
        loads.push(Load::datagrams(&net.right, &net.left, at(LEFT, 7003), 1400, 5));
    }
    loads
}

pub fn stop(loads: Vec<Load>) {
    loads.into_iter().for_each(Load::stop);
}

/// Switches offloads, as `ethtool -K` does.
fn offload(ns: &Namespace, interface: &str, what: &[(u32, bool)]) {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    inside(ns, || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for (command, on) in what {
            let mut value = [*command, u32::from(*on)];
            // SAFETY: integers and a pointer; all zeros is a valid value.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
            // SAFETY: the request and the two words it points to live until the call returns.
            let r = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
            assert_eq!(r, 0, "{interface} {command:#x}: {}", io::Error::last_os_error());
        }
    });
}

// linux/ethtool.h
const STSO: u32 = 0x1f;
const SGSO: u32 = 0x24;
const SGRO: u32 = 0x2c;

#[test]
fn root_totals_are_the_interfaces() {
    if !privileged("root_totals_are_the_interfaces") {
        return;
    }
    for how in ways("root_totals_are_the_interfaces") {
        for offloads in [true, false] {
            let net = Net::new();
            let set = set();
            let _taps = ["p1", "p2"].map(|p| attach(&net, p, &set, how, None));
            if !offloads {
                for ns in [&net.left, &net.right] {
                    offload(ns, "eth0", &[(STSO, false), (SGSO, false), (SGRO, false)]);
                }
            }
            net.up();
            let loads = everything(&net);
            thread::sleep(Duration::from_millis(1500));
            stop(loads);
            let mut reader = reader(&set);
            let what = format!("{how:?}, offloads {offloads}");
            for port in ["p1", "p2"] {
                let all = assert_exact(&what, &net, port, &mut [&mut reader]);
                assert!(all.tx.0 > 2_000 && all.rx.0 > 2_000, "{what}: too little traffic: {all:?}");
            }
            reader.forget();
            let scan = reader.scan().unwrap();
            let super_packets = scan.flows.iter().any(|f| f.counters.tx.segments > f.counters.tx.packets);
            assert_eq!(super_packets, offloads, "{what}");
            assert!(scan.flows.iter().any(|f| f.key.local.is_ipv6() && f.key.proto == 17), "{what}");
        }
    }
}

/// The interface counts segments where the port itself segments or merges; see the module's head.
#[test]
fn root_segments_are_the_interfaces_packets() {
    if !privileged("root_segments_are_the_interfaces_packets") {
        return;
    }
    for merging in [true, false] {
        let net = Net::new();
        let set = set();
        let _taps = ["p1", "p2"].map(|p| attach(&net, p, &set, Attach::Auto, None));
        for port in ["p1", "p2"] {
            if merging {
                offload(&net.host, port, &[(SGRO, true)]);
            } else {
                offload(&net.host, port, &[(STSO, false), (SGSO, false)]);
            }
        }
        if merging {
            for ns in [&net.left, &net.right] {
                offload(ns, "eth0", &[(STSO, false), (SGSO, false)]);
            }
        }
        net.up();
        // one family, so that every segment's headers are equally long: 14 + 20 + 32
        let loads = vec![
            Load::stream(&net.left, &net.right, SocketAddr::new(RIGHT[0], 7001), 100_000),
            Load::stream(&net.right, &net.left, SocketAddr::new(LEFT[0], 7001), 100_000),
        ];
        thread::sleep(Duration::from_millis(1000));
        stop(loads);
        let mut reader = reader(&set);
        let mut extra = 0;
        for port in ["p1", "p2"] {
            let ifindex = net.port(port);
            let what = format!("merging {merging}, {port}");
            assert_settles(&what, || {
                let all = counted(&mut reader, ifindex);
                let truth = interface(&net.host, port);
                // what leaves by a port with GRO, or enters one that does not segment, is as it was
                let segmented = if merging { Direction::Tx } else { Direction::Rx };
                extra = all[segmented].segments - all[segmented].packets;
                let mut wanted = all.map(packets_and_bytes);
                let headers = if merging { 14 * all[segmented].segments } else { 0 };
                wanted[segmented] = (all[segmented].segments, all[segmented].bytes + extra * 66 - headers);
                (wanted, truth)
            });
            assert!(extra > 0, "{what}: nothing was merged or segmented");
        }
    }
}

#[test]
fn root_moves_miss_nothing() {
    if !privileged("root_moves_miss_nothing") {
        return;
    }
    for how in ways("root_moves_miss_nothing") {
        let net = Net::new();
        let sets = [set(), set()];
        let dirs = [pins(&net, "a"), pins(&net, "b")];
        for (set, dir) in sets.iter().zip(&dirs) {
            set.pin(dir).unwrap();
        }
        let mut taps = ["p1", "p2"].map(|p| attach(&net, p, &sets[0], how, Some(&dirs[0])));
        net.up();
        let loads = everything(&net);
        let begun = Instant::now();
        let mut moves = 0;
        // on a slow machine each move waits long for the kernel
        while begun.elapsed() < Duration::from_millis(1500) || moves < 32 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{how:?}: only {moves} moves in a minute");
            moves += 1;
            for tap in &mut taps {
                inside(&net.host, || tap.move_to(sets[moves % 2].programs(), Some(&dirs[moves % 2])))
                    .unwrap();
            }
            thread::sleep(Duration::from_micros(500));
        }
        stop(loads);
        let [a, b] = &mut sets.each_ref().map(reader);
        for port in ["p1", "p2"] {
            let all = assert_exact(&format!("{how:?}, {moves} moves"), &net, port, &mut [a, b]);
            assert!(all.tx.0 > 2_000 && all.rx.0 > 2_000, "{how:?}: too little traffic: {all:?}");
        }
        let shares = [a, b].map(|r| counted(r, net.port("p1")).tx.packets);
        assert!(shares.iter().all(|n| *n > 100), "{how:?}: {moves} moves, {shares:?} packets");
        println!("{how:?}: {moves} moves of two ports, {shares:?} packets from p1, none missed");
    }
}

/// What `tc` shows of a port: its clsact qdisc, and our filters.
fn classifiers(net: &Net, port: &str) -> (bool, usize) {
    let show = |args: &[&str]| lab::output_text(net.host.command("tc").args(args)).unwrap();
    let qdisc = show(&["qdisc", "show", "dev", port]).contains("clsact");
    let of = |hook| show(&["filter", "show", "dev", port, hook]).matches("conmon").count();
    (qdisc, of("ingress") + of("egress"))
}

#[test]
fn root_fastening_misses_nothing_and_counts_nothing_twice() {
    if !privileged("root_fastening_misses_nothing_and_counts_nothing_twice")
        || !has_tcx_for("root_fastening_misses_nothing_and_counts_nothing_twice")
    {
        return;
    }
    for (round, pinned) in [true, false, true].into_iter().enumerate() {
        let net = Net::new();
        let dir = pins(&net, "set");
        let set = set();
        set.pin(&dir).unwrap();
        let mut taps = ["p1", "p2"].map(|p| {
            inside(&net.host, || {
                let begun = Instant::now();
                let at = pinned.then_some(dir.as_path());
                let tap = Port::attach(net.port(p), set.programs(), Attach::Quick, at).unwrap();
                println!("tapped in {:?}", begun.elapsed());
                tap
            })
        });
        assert!(taps.iter().all(|t| t.how() == "clsact" && !t.is_fast()));
        assert_eq!(classifiers(&net, "p1"), (true, 2));
        net.up();
        let loads = everything(&net);
        thread::sleep(Duration::from_millis(300));
        let mut reader = reader(&set);
        let mut overlapping = 0;
        for tap in &mut taps {
            inside(&net.host, || {
                tap.overlap(&set).unwrap();
                assert!(tap.is_alive() && !tap.is_fast());
                assert!(tap.move_to(set.programs(), None).is_err(), "not while two hooks count");
                // long enough for thousands of packets to pass both hooks
                let of = |r: &mut Reader| counted(r, tap.ifindex()).tx.packets;
                let before = of(&mut reader);
                thread::sleep(Duration::from_millis(300));
                overlapping += of(&mut reader) - before;
                tap.settle(&set).unwrap();
                tap.fasten(&set).unwrap();
            });
            assert!(tap.is_fast() && tap.how() == "tcx");
        }
        for port in ["p1", "p2"] {
            assert_eq!(classifiers(&net, port), (true, 0), "the qdisc stays");
        }
        if pinned {
            let mut left: Vec<_> =
                dir.join("taps").read_dir().unwrap().flatten().map(|e| e.file_name()).collect();
            left.sort();
            let [a, b] = ["p1", "p2"].map(|p| net.port(p));
            let wanted = [format!("{a}-rx"), format!("{a}-tx"), format!("{b}-rx"), format!("{b}-tx")];
            assert_eq!(left, wanted.map(std::ffi::OsString::from));
        }
        thread::sleep(Duration::from_millis(200));
        stop(loads);
        for port in ["p1", "p2"] {
            let all = assert_exact(&format!("round {round}"), &net, port, &mut [&mut reader]);
            assert!(all.tx.0 > 2_000 && all.rx.0 > 2_000, "too little traffic: {all:?}");
        }
        assert!(overlapping > 1_000, "only {overlapping} packets passed two hooks");
        println!("{overlapping} packets passed two hooks, each counted once");
        Set::unpin(&dir).unwrap();
    }
}

/// The tap finds by itself what the kernel has, and says what it lacks.
#[test]
fn root_tcx_is_used_where_the_kernel_has_it_and_only_there() {
    if !privileged("root_tcx_is_used_where_the_kernel_has_it_and_only_there") {
        return;
    }
    let net = Net::new();
    let set = set();
    assert_eq!(has_tcx(set.programs()), kernel::has_tcx());
    let by_itself = attach(&net, "p1", &set, Attach::Auto, None);
    let ifindex = net.port("p2");
    let demanded = inside(&net.host, || Port::attach(ifindex, set.programs(), Attach::Tcx, None));
    let refused = demanded.as_ref().err().map(ToString::to_string);
    if kernel::has_tcx() {
        assert_eq!(refused, None);
    } else {
        let said = refused.unwrap();
        assert!(said.contains("no TCX") && said.contains("6.6") && said.contains("clsact"), "{said}");
        assert_eq!(classifiers(&net, "p2"), (false, 0), "nothing is left of the attempt");
    }
    inside(&net.host, || by_itself.detach()).unwrap();
}

/// Who fastens where there is no TCX is told so, and the port is tapped as before: by classifiers, each packet counted once.
#[test]
fn root_what_cannot_be_fastened_stays_tapped() {
    if !privileged("root_what_cannot_be_fastened_stays_tapped") {
        return;
    }
    if kernel::has_tcx() {
        lab::skipped("root_what_cannot_be_fastened_stays_tapped", "this kernel has TCX");
        return;
    }
    let net = Net::new();
    let dir = pins(&net, "set");
    let set = set();
    set.pin(&dir).unwrap();
    let mut taps = ["p1", "p2"].map(|p| attach(&net, p, &set, Attach::Quick, Some(&dir)));
    net.up();
    let loads = everything(&net);
    for tap in &mut taps {
        thread::sleep(Duration::from_millis(200));
        let said = inside(&net.host, || tap.fasten(&set)).unwrap_err().to_string();
        assert!(said.contains("no TCX"), "{said}");
        assert!(inside(&net.host, || tap.is_alive()) && tap.how() == "clsact" && !tap.is_fast());
    }
    for port in ["p1", "p2"] {
        assert_eq!(classifiers(&net, port), (true, 2));
    }
    assert_eq!(dir.join("taps").read_dir().unwrap().count(), 2, "one pin a port");
    thread::sleep(Duration::from_millis(200));
    stop(loads);
    let mut reader = reader(&set);
    for port in ["p1", "p2"] {
        let all = assert_exact("not fastened", &net, port, &mut [&mut reader]);
        assert!(all.tx.0 > 1_000 && all.rx.0 > 1_000, "too little traffic: {all:?}");
    }
    Set::unpin(&dir).unwrap();
}

#[test]
fn root_a_death_while_fastening_misses_nothing() {
    if !privileged("root_a_death_while_fastening_misses_nothing")
        || !has_tcx_for("root_a_death_while_fastening_misses_nothing")
    {
        return;
    }
    // between the halves; and before the second link was there
    for half_linked in [false, true] {
        let net = Net::new();
        let dir = pins(&net, "set");
        let set = set();
        set.pin(&dir).unwrap();
        let mut taps = ["p1", "p2"].map(|p| attach(&net, p, &set, Attach::Clsact, Some(&dir)));
        net.up();
        let loads = everything(&net);
        thread::sleep(Duration::from_millis(200));
        inside(&net.host, || taps[0].overlap(&set)).unwrap();
        if half_linked {
            std::fs::remove_file(dir.join(format!("taps/{}-rx", net.port("p1")))).unwrap();
        }
        drop((taps, set));
        thread::sleep(Duration::from_millis(200));
        let adopted = Set::adopt(&dir).unwrap();
        let mut taps = inside(&net.host, || Port::adopt(&dir, None)).unwrap();
        assert_eq!(taps.len(), 2);
        for tap in &mut taps {
            inside(&net.host, || {
                tap.settle(&adopted).unwrap();
                tap.move_to(adopted.programs(), Some(&dir)).unwrap();
            });
        }
        adopted.janitor().run(&[Command::Overlap(false)]).unwrap();
        assert_eq!(classifiers(&net, "p1"), (true, if half_linked { 2 } else { 0 }));
        thread::sleep(Duration::from_millis(200));
        for tap in &mut taps {
            inside(&net.host, || tap.fasten(&adopted)).unwrap();
        }
        thread::sleep(Duration::from_millis(100));
        stop(loads);
        let mut reader = reader(&adopted);
        for port in ["p1", "p2"] {
            let what = format!("half linked: {half_linked}");
            let all = assert_exact(&what, &net, port, &mut [&mut reader]);
            assert!(all.tx.0 > 1_000 && all.rx.0 > 1_000, "{what}: too little traffic: {all:?}");
        }
        for tap in taps {
            inside(&net.host, || tap.detach()).unwrap();
        }
        Set::unpin(&dir).unwrap();
    }
}

/// Another's filter on our qdisc is left alone.
#[test]
fn root_a_qdisc_that_others_use_stays() {
    if !privileged("root_a_qdisc_that_others_use_stays") || !has_tcx_for("root_a_qdisc_that_others_use_stays")
    {
        return;
    }
    let net = Net::new();
    let set = set();
    let mut tap = attach(&net, "p1", &set, Attach::Clsact, None);
    let words = "filter add dev p1 egress prio 7 u32 match u32 0 0 flowid 1:1";
    lab::output_text(net.host.command("tc").args(words.split(' '))).unwrap();
    inside(&net.host, || tap.fasten(&set)).unwrap();
    assert_eq!(classifiers(&net, "p1"), (true, 0));
    inside(&net.host, || tap.detach()).unwrap();
    let mut tc = net.host.command("tc");
    tc.args(["filter", "show", "dev", "p1", "egress"]);
    assert!(lab::output_text(&mut tc).unwrap().contains("u32"));
}

#[test]
fn root_the_owners_death_misses_nothing() {
    if !privileged("root_the_owners_death_misses_nothing") {
        return;
    }
    for how in ways("root_the_owners_death_misses_nothing") {
        let net = Net::new();
        let dir = pins(&net, "set");
        let set = set();
        set.pin(&dir).unwrap();
        let taps = ["p1", "p2"].map(|p| attach(&net, p, &set, how, Some(&dir)));
        net.up();
        let loads = everything(&net);
        thread::sleep(Duration::from_millis(400));
        // what is left of an owner that was killed: pins
        drop((taps, set));
        thread::sleep(Duration::from_millis(400));
        let adopted = Set::adopt(&dir).unwrap();
        let mut taps = inside(&net.host, || Port::adopt(&dir, None)).unwrap();
        assert_eq!(taps.len(), 2);
        for tap in &mut taps {
            inside(&net.host, || {
                assert!(tap.is_alive());
                tap.move_to(adopted.programs(), Some(&dir)).unwrap();
            });
        }
        thread::sleep(Duration::from_millis(400));
        stop(loads);
        let mut reader = reader(&adopted);
        for port in ["p1", "p2"] {
            let all = assert_exact(&format!("{how:?}"), &net, port, &mut [&mut reader]);
            assert!(all.tx.0 > 1_000 && all.rx.0 > 1_000, "{how:?}: too little traffic: {all:?}");
        }
        // an interface that goes takes its tap along, and the next owner clears the pins away
        net.host.ip(&["link", "del", "p2"]).unwrap();
        drop(taps);
        let taps = inside(&net.host, || Port::adopt(&dir, None)).unwrap();
        assert_eq!(taps.iter().map(Port::ifindex).collect::<Vec<_>>(), [net.port("p1")], "{how:?}");
        let left = std::fs::read_dir(dir.join("taps")).unwrap().count();
        assert_eq!(left, if how == Attach::Clsact { 1 } else { 2 }, "{how:?}");
        Set::unpin(&dir).unwrap();
    }
}

#[test]
fn root_detaching_leaves_nothing() {
    if !privileged("root_detaching_leaves_nothing") {
        return;
    }
    for how in ways("root_detaching_leaves_nothing") {
        for pinned in [true, false] {
            let net = Net::new();
            let dir = pins(&net, "set");
            let set = set();
            if how == Attach::Clsact {
                // somebody else's filter, which stays. One ends the walk with every packet; the other has our place.
                let filter =
                    if pinned { "prio 7 u32 match u32 0 0" } else { "prio 1 u32 match u32 1 0xffffffff" };
                for command in
                    ["qdisc add dev p1 clsact", &format!("filter add dev p1 ingress {filter} flowid 1:1")]
                {
                    let mut tc = net.host.command("tc");
                    lab::output_text(tc.args(command.split(' '))).unwrap();
                }
            }
            let by_tcx = || inside(&net.host, || tap::tcx_programs(net.port("p1"))).unwrap();
            assert_eq!(by_tcx(), [0, 0], "before the tap");
            let tap = attach(&net, "p1", &set, how, pinned.then_some(dir.as_path()));
            assert_eq!(by_tcx(), if how == Attach::Clsact { [0, 0] } else { [1, 1] }, "{how:?}");
            net.up();
            let load = Load::datagrams(&net.left, &net.right, SocketAddr::new(RIGHT[0], 7003), 64, 10);
            thread::sleep(Duration::from_millis(100));
            inside(&net.host, || tap.detach()).unwrap();
            assert_eq!(by_tcx(), [0, 0], "after the tap");
            let mut reader = reader(&set);
            let (ifindex, what) = (net.port("p1"), format!("{how:?}, pinned {pinned}"));
            thread::sleep(Duration::from_millis(20));
            let before = counted(&mut reader, ifindex);
            assert!(before.tx.packets > 0, "{what}: the tap was there");
            let at = interface(&net.host, "p1").tx.0;
            thread::sleep(Duration::from_millis(100));
            assert!(interface(&net.host, "p1").tx.0 > at, "{what}: packets go on");
            assert_eq!(counted(&mut reader, ifindex), before, "{what}: nothing is counted any more");
            load.stop();
            assert!(
                !dir.join("taps").exists() || std::fs::read_dir(dir.join("taps")).unwrap().next().is_none()
            );
            assert!(inside(&net.host, || Port::adopt(&dir, None)).unwrap().is_empty());
            for hook in ["ingress", "egress"] {
                let mut tc = net.host.command("tc");
                tc.args(["filter", "show", "dev", "p1", hook]);
                let filters = lab::output_text(&mut tc).unwrap();
                assert!(!filters.contains("bpf"), "{what} {hook}: {filters}");
                assert_eq!(
                    filters.contains("u32"),
                    how == Attach::Clsact && hook == "ingress",
                    "{what}: {filters}"
                );
            }
            // a second tap at the same place finds it free
            let again = attach(&net, "p1", &set, how, None);
            assert!(inside(&net.host, || again.is_alive()));
            inside(&net.host, || again.detach()).unwrap();
            Set::unpin(&dir).unwrap();
        }
    }
}

/// Loads a program that drops every packet and attaches it by a TCX link; `at` as in `tap`'s own.
fn drop_all(ifindex: u32, at: u32) -> OwnedFd {
    // r0 = TCX_DROP; exit
    let code: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
    let mut load = [0u64; 16];
    load[0] = 3 | 2 << 32;
    load[1] = code.as_ptr() as u64;
    load[2] = c"GPL".as_ptr() as u64;
    let call = |command: libc::c_long, attr: &[u64; 16]| {
        // SAFETY: the attribute is 128 bytes; code and licence, where it points to them, live until the call returns.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
        assert!(fd >= 0, "bpf({command}): {}", io::Error::last_os_error());
        // SAFETY: a new descriptor that nobody else owns.
        unsafe { OwnedFd::from_raw_fd(fd as i32) }
    };
    let program = call(5, &load);
    let mut link = [0u64; 16];
    link[0] = program.as_raw_fd() as u64 | u64::from(ifindex) << 32;
    link[1] = u64::from(at);
    call(28, &link)
}

/// Another's program that drops is no reason to count otherwise than the interface: what comes in is counted before, what
/// goes out after it.
#[test]
fn root_another_program_that_drops() {
    if !privileged("root_another_program_that_drops") || !has_tcx_for("root_another_program_that_drops") {
        return;
    }
    const TCX: [u32; 2] = [46, 47];
    for at in TCX {
        let net = Net::new();
        let set = set();
        let ifindex = net.port("p2");
        let _theirs = inside(&net.host, || drop_all(ifindex, at));
        let _tap = attach(&net, "p2", &set, Attach::Tcx, None);
        net.up();
        let loads = vec![
            Load::datagrams(&net.left, &net.right, SocketAddr::new(RIGHT[1], 7003), 64, 10),
            Load::datagrams(&net.right, &net.left, SocketAddr::new(LEFT[1], 7003), 64, 10),
        ];
        thread::sleep(Duration::from_millis(100));
        stop(loads);
        // some went each way, neighbour discovery at least
        let all = assert_exact(&format!("dropped at {at}"), &net, "p2", &mut [&mut reader(&set)]);
        assert!(all.tx.0 > 0, "{all:?}");
        assert_eq!(all.rx.0 > 0, at == TCX[0], "{all:?}");
    }
}

/// A socket that sends whole frames. With a header of `virtio_net_hdr`'s in front the kernel keeps only the link header of
/// frames beyond a page in the packet's linear part.
struct Raw {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl Raw {
    fn open(ns: &Namespace) -> Self {
        const PACKET_VNET_HDR: libc::c_int = 15;
        let ifindex = ns.link("eth0").unwrap().index;
        inside(ns, || {
            let socket = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Packet,
                nix::sys::socket::SockType::Raw,
                nix::sys::socket::SockFlag::SOCK_CLOEXEC,
                None,
            )
            .unwrap();
            let on: libc::c_int = 1;
            // SAFETY: the option's value lives until the call returns.
            let r = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    PACKET_VNET_HDR,
                    std::ptr::from_ref(&on).cast(),
                    size_of_val(&on) as u32,
                )
            };
            assert_eq!(r, 0, "{}", io::Error::last_os_error());
            // SAFETY: integers only.
            let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_ifindex = ifindex as i32;
            Self { socket, to }
        })
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let data = [&[0; 10], frame].concat();
        // SAFETY: data and address live until the call returns.
        let n = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                data.as_ptr().cast(),
                data.len(),
                0,
                (&raw const self.to).cast(),
                size_of_val(&self.to) as u32,
            )
        };
        if n == data.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Frames that a test run does not take, and headers outside the linear part: through a real port.
#[test]
fn root_odd_frames_on_a_real_port() {
    if !privileged("root_odd_frames_on_a_real_port") {
        return;
    }
    let net = Net::new();
    let set = Set::create(SetSpec { flows: 65_536, pairs: 16_384, ..SetSpec::default() }).unwrap();
    for ns in [&net.left, &net.right] {
        // no packet but ours
        let mut sysctl = ns.command("sysctl");
        sysctl.args(["-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]);
        lab::output_text(&mut sysctl).unwrap();
    }
    let ifindex = net.port("p1");
    net.up();
    let raw = Raw::open(&net.left);
    thread::sleep(Duration::from_millis(200));
    let tap = attach(&net, "p1", &set, Attach::Auto, None);
    let mut truth = Oracle::default();
    let mut reader = reader(&set);
    let mut frames = Mutator::new(11);
    let (mut sent, mut cut, mut beyond_a_page) = (0, 0, 0);
    let mut send = |frame: &[u8]| {
        if frame.len() < 14 || raw.send(frame).is_err() {
            return false;
        }
        // the outermost tag leaves the frame, and its four octets the length, before the hook
        let tagged = matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8]);
        let length = if tagged { frame.len() - 4 } else { frame.len() };
        truth.packet(Direction::Tx, frame, length, 0, ifindex, 0);
        true
    };
    while sent < 6_000 {
        let mut frame = frames.frame();
        if frame.len() < 14 {
            continue;
        }
        // a tag without what follows it is dropped before the hook; a second one is the parser's business
        if matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8]) && frame.len() < 20 {
            continue;
        }
        cut += u32::from(matches!(frame[12..14], [8, 0]) && frame.len() < 34);
        if sent % 2 == 0 {
            frame.resize(frame.len() + 4_500, 0);
            beyond_a_page += 1;
        }
        sent += u32::from(send(&frame));
        // the table's size is no matter here: few frames at once
        if sent % 500 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    let long = Frame::between(LEFT[0], RIGHT[0]).udp((5, 6)).payload(&[9; 5_000]).build();
    assert!(send(&long));
    assert!(cut > 20 && beyond_a_page > 2_000, "{cut} cut, {beyond_a_page} beyond a page");

    let total = |o: &Oracle| o.totals().tx.packets;
    let wanted = total(&truth);
    assert_settles("frames", || (counted(&mut reader, ifindex).tx.packets, wanted));
    reader.forget();
    let scan = reader.scan().unwrap();
    assert_eq!(scan.set.flow_full, 0, "the table was too small for the test");
    for class in PortClass::ALL {
        let tap = scan.ports[0].count(Direction::Tx, *class);
        assert_eq!(tap, truth.classes.get(&(Direction::Tx, *class)).copied().unwrap_or_default(), "{class}");
    }
    let mut flows = std::collections::BTreeMap::<_, Vec<FlowTruth>>::new();
    // the bridge's own namespace may report its groups (MLD) to the port; ours all go the other way
    for f in scan.flows.iter().filter(|f| f.counters.tx.packets > 0) {
        flows.entry(f.key).or_default().push(FlowTruth::of(f));
    }
    flows.values_mut().for_each(|list| list.sort());
    for (key, model) in truth.flows() {
        assert_eq!(flows.remove(&key).as_ref(), Some(&model), "{key}");
    }
    assert!(flows.is_empty(), "{flows:?}");
    drop(tap);
}
