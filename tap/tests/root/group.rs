//! Control groups as ports: what a group's sockets send and receive is counted, all of it and once, through a growing table and the
//! owner's death; what goes with the group leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ippm::flow::{Both, Counters};
use lab::Namespace;
use tap::{Attach, Port, Set, SetSpec, group_number, is_group};

use crate::net::{Net, RIGHT, inside};
use crate::ports::{attach, pins};
use crate::privileged;

/// A group of our own, gone with this.
struct Group(PathBuf);

impl Group {
    fn new(root: &Path, name: &str) -> Self {
        let path = root.join(format!("conmon-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Runs a shell script in the group and in a namespace, to its end.
    fn run(&self, net: &Namespace, script: &str) {
        let join = format!("echo $$ > {}/cgroup.procs\n{script}", self.0.display());
        let out = inside(net, || Command::new("bash").args(["-euc", &join]).output().unwrap());
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// All of TCP and UDP that a set counted at a port.
fn counted(set: &Set, port: u32) -> Both<Counters> {
    let mut reader = crate::ports::reader(set);
    let scan = reader.scan().unwrap();
    let ours = |proto: u8| proto == 6 || proto == 17;
    scan.pairs.iter().filter(|p| p.key.ifindex == port && ours(p.key.proto)).map(|p| p.counters).fold(
        Both::default(),
        |mut sum, counters| {
            sum += counters;
            sum
        },
    )
}

/// `count` datagrams of ten octets from one socket.
fn datagrams(to: &str, count: u32) -> String {
    format!("exec 3<>/dev/udp/{to}/9000; for i in $(seq {count}); do printf 0123456789 >&3; done; exec 3>&-")
}

#[test]
fn root_a_control_group_is_counted_as_its_port_is() {
    const NAME: &str = "root_a_control_group_is_counted_as_its_port_is";
    if !privileged(NAME) {
        return;
    }
    let Some(root) = lab::cgroup_v2() else {
        return lab::skipped(NAME, "this machine has no control groups of version 2");
    };
    let net = Net::new();
    let dir = pins(&net, "set");
    let spec = SetSpec { flows: 64, pairs: 64, ports: 16, hists: 64, ..SetSpec::default() };
    let mut set = Arc::new(Set::create(spec).unwrap());
    set.pin(&dir).unwrap();
    // the truth: the port of the namespace in which nobody but the group sends
    let port = attach(&net, "p1", &set, Attach::Auto, Some(&dir));
    net.up();
    let group = Group::new(&root, "app");
    let mut tap = Port::attach_group(&group.0, &set, &dir).unwrap();
    let number = group_number(&group.0).unwrap();
    assert!(is_group(number) && !is_group(port.ifindex()));
    assert_eq!((tap.ifindex(), tap.how(), tap.is_alive(), tap.is_fast()), (number, "cgroup", true, true));

    let sink = inside(&net.right, || std::net::UdpSocket::bind("[::]:9000").unwrap());
    let [to4, to6] = RIGHT.map(|a| a.to_string());
    // somebody else in the same namespace, who is not counted
    let other = Group::new(&root, "other");
    other.run(&net.left, &datagrams(&to4, 50));
    group.run(&net.left, &datagrams(&to4, 200));
    // a process in a group below is the group's, too
    let below = Group(group.0.join("below"));
    fs::create_dir(&below.0).unwrap();
    below.run(&net.left, &datagrams(&to6, 100));
    drop(below);
    let sum = counted(&set, number);
    assert_eq!((sum.tx.packets, sum.tx.bytes), (300, 200 * (20 + 8 + 10) + 100 * (40 + 8 + 10)));
    assert_eq!(sum.rx.packets, 0);
    assert_eq!(counted(&set, port.ifindex()).tx.packets, 350, "the port has seen the other group's, too");

    // TCP both ways, answered by a server: the port's counts, without link headers
    let before = counted(&set, port.ifindex());
    let listener = inside(&net.right, || std::net::TcpListener::bind((RIGHT[0], 9001)).unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let echoed = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
        assert_eq!(echoed, 1_000_000);
    });
    group.run(
        &net.left,
        &format!(
            "exec 3<>/dev/tcp/{to4}/9001; head -c 1000000 /dev/zero >&3 & [ $(head -c 1000000 <&3 | wc -c) = 1000000 ]; wait"
        ),
    );
    server.join().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let at_port = counted(&set, port.ifindex());
        let (ours, theirs) = (counted(&set, number), at_port);
        let tx = (ours.tx.packets - sum.tx.packets, theirs.tx.packets - before.tx.packets);
        let rx = (ours.rx.packets - sum.rx.packets, theirs.rx.packets - before.rx.packets);
        let bytes = ours.tx.bytes - sum.tx.bytes;
        // without the end of the connection, which is no socket's any more
        if tx.1 - tx.0 <= 2 && rx.1 - rx.0 <= 2 && bytes > 1_000_000 {
            eprintln!("TCP: {tx:?} packets from the group and at its port, {rx:?} to it");
            break;
        }
        assert!(Instant::now() < deadline, "from {tx:?}, to {rx:?}");
        thread::sleep(Duration::from_millis(50));
    }
    let scan = crate::ports::reader(&set).scan().unwrap();
    let tcp = scan.pairs.iter().find(|p| p.key.ifindex == number && p.key.proto == 6).unwrap();
    assert!(scan.rtts.iter().any(|r| r.pair == tcp.id), "round trips are measured there, too");

    // a larger table under the group's feet
    let next = Arc::new(set.resized(512).unwrap());
    next.pin(&dir).unwrap();
    tap.move_to_set(&next, Some(&dir)).unwrap();
    let mut port = port;
    inside(&net.host, || port.move_to_set(&next, Some(&dir))).unwrap();
    group.run(&net.left, &datagrams(&to4, 20));
    next.drain().unwrap();
    Set::unpin_older(&dir).unwrap();
    set = Arc::new(next.drained().unwrap());
    tap.move_to_set(&set, Some(&dir)).unwrap();
    inside(&net.host, || port.move_to_set(&set, Some(&dir))).unwrap();
    let udp = |set: &Set| {
        let scan = crate::ports::reader(set).scan().unwrap();
        let ours = scan.pairs.iter().filter(|p| p.key.ifindex == number && p.key.proto == 17);
        ours.map(|p| p.counters.tx.packets).sum::<u64>()
    };
    assert_eq!(udp(&set), 320);

    // the owner dies; what passes meanwhile is counted, and the next owner finds both
    drop((tap, port, set, next));
    group.run(&net.left, &datagrams(&to4, 30));
    let set = Set::adopt(&dir).unwrap();
    let mut taps = inside(&net.host, || Port::adopt(&dir, None)).unwrap();
    assert_eq!(taps.iter().filter(|t| is_group(t.ifindex())).count(), 1);
    for tap in &mut taps {
        inside(&net.host, || tap.move_to_set(&set, Some(&dir))).unwrap();
    }
    group.run(&net.left, &datagrams(&to4, 40));
    assert_eq!(udp(&set), 390);

    // the group goes, and nothing of it stays
    drop(taps);
    drop(group);
    // the kernel lets links go some time after the group
    let deadline = Instant::now() + Duration::from_secs(10);
    let gone = || {
        let left = inside(&net.host, || Port::adopt(&dir, None)).unwrap();
        left.iter().all(|t| !is_group(t.ifindex()))
    };
    while !gone() {
        assert!(Instant::now() < deadline, "a tap of a group that has gone");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(
        !dir.join(format!("taps/{number}-tx")).exists() && !dir.join(format!("taps/{number}-rx")).exists()
    );
    drop(sink);
    Set::unpin(&dir).unwrap();
}
