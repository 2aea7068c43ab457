//! Ports that share their filters: each is counted by the programs that are meant for it, exactly, through moves, the owner's death and
//! fastening; who cannot share is told so; and nothing is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tap::{Attach, Command, Dispatcher, Port, Set};

use crate::kernel;
use crate::net::{Net, inside};
use crate::ports::{assert_exact, everything, pins, reader, set, stop};
use crate::privileged;

/// A set below the dispatcher's folder, pinned.
fn pinned(dir: &Path) -> Set {
    let set = set();
    set.pin(dir).unwrap();
    set
}

fn start(net: &Net, root: &Path) -> Arc<Dispatcher> {
    inside(&net.host, || Dispatcher::start(root)).unwrap()
}

/// The dispatcher's folder, a set's below it, the set, and the dispatcher.
fn with_a_set(net: &Net) -> (PathBuf, PathBuf, Set, Arc<Dispatcher>) {
    let root = pins(net, "shared");
    let dir = root.join("set");
    let set = pinned(&dir);
    let dispatcher = start(net, &root);
    (root, dir, set, dispatcher)
}

fn share(net: &Net, dispatcher: &Arc<Dispatcher>, port: &str, set: &Set, dir: &Path) -> Option<Port> {
    let ifindex = net.port(port);
    inside(&net.host, || Port::attach_shared(dispatcher, ifindex, set.programs(), dir)).unwrap()
}

fn tc(net: &Net, words: &str) -> String {
    lab::output_text(net.host.command("tc").args(words.split(' '))).unwrap()
}

/// Whether the port has a clsact qdisc, and whether that is bound to blocks.
fn qdisc(net: &Net, port: &str) -> (bool, bool) {
    let shown = tc(net, &format!("qdisc show dev {port}"));
    (shown.contains("clsact"), shown.contains("ingress_block"))
}

/// All ports that have no place are quiet, and are taken off the filters: these.
fn tidy(net: &Net, dispatcher: &Dispatcher, ports: &[&str]) {
    let begun = Instant::now();
    let mut tidied = Vec::new();
    while dispatcher.has_leftovers() {
        assert!(begun.elapsed() < Duration::from_secs(10), "only {tidied:?}");
        if let Some(one) = inside(&net.host, || dispatcher.tidy()).unwrap() {
            assert_eq!(one.dropped, 0);
            tidied.push(one.ifindex);
        }
        thread::sleep(Duration::from_millis(50));
    }
    tidied.sort_unstable();
    assert_eq!(tidied, ports.iter().map(|port| net.port(port)).collect::<Vec<_>>());
    ports.iter().for_each(|port| assert_eq!(qdisc(net, port), (false, false)));
}

fn clean(net: &Net, root: &Path, dirs: &[&Path]) {
    dirs.iter().for_each(|dir| Set::unpin(dir).unwrap());
    Set::unpin(&root.join("dispatch")).unwrap();
    inside(&net.host, || Dispatcher::remove(root)).unwrap();
    std::fs::remove_dir(root).unwrap();
}

#[test]
fn root_ports_that_share_filters_are_counted_exactly() {
    if !privileged("root_ports_that_share_filters_are_counted_exactly") {
        return;
    }
    let net = Net::new();
    let root = pins(&net, "shared");
    let dirs = ["a", "b"].map(|name| root.join(name));
    let sets = dirs.each_ref().map(|dir| pinned(dir));
    let dispatcher = start(&net, &root);
    let mut taps = ["p1", "p2"].map(|p| share(&net, &dispatcher, p, &sets[0], &dirs[0]).unwrap());
    for (tap, port) in taps.iter().zip(["p1", "p2"]) {
        assert!(inside(&net.host, || tap.is_alive()) && tap.how() == "clsact" && !tap.is_fast());
        assert_eq!(qdisc(&net, port), (true, true));
    }
    net.up();
    let loads = everything(&net);
    // moves, which the kernel is asked for without its lock
    let (begun, mut moves) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_millis(1000) || moves < 32 {
        assert!(begun.elapsed() < Duration::from_secs(60), "only {moves} moves in a minute");
        moves += 1;
        for tap in &mut taps {
            inside(&net.host, || tap.move_to(sets[moves % 2].programs(), Some(&dirs[moves % 2]))).unwrap();
        }
        thread::sleep(Duration::from_micros(500));
    }
    for tap in &mut taps {
        inside(&net.host, || tap.move_to(sets[1].programs(), Some(&dirs[1]))).unwrap();
    }
    // the owner dies: what is left are pins, and the filters with their holder
    drop((taps, dispatcher));
    let [a, b] = &mut sets.each_ref().map(reader);
    drop(sets);
    thread::sleep(Duration::from_millis(300));
    let dispatcher = start(&net, &root);
    let adopted = Set::adopt(&dirs[1]).unwrap();
    assert!(inside(&net.host, || Port::adopt(&dirs[0], Some(&dispatcher))).unwrap().is_empty());
    let mut taps = inside(&net.host, || Port::adopt(&dirs[1], Some(&dispatcher))).unwrap();
    assert_eq!(taps.len(), 2);
    dispatcher.sweep();
    for tap in &mut taps {
        inside(&net.host, || {
            assert!(tap.is_alive());
            tap.move_to(adopted.programs(), Some(&dirs[1])).unwrap();
        });
    }
    thread::sleep(Duration::from_millis(300));
    if kernel::has_tcx() {
        for tap in &mut taps {
            inside(&net.host, || tap.fasten(&adopted)).unwrap();
            assert!(tap.is_fast());
        }
        for port in ["p1", "p2"] {
            assert_eq!(qdisc(&net, port), (true, true), "packets pass");
        }
        assert_eq!(dispatcher.filled().unwrap(), [0, 0]);
        for _ in 0..4 {
            assert_eq!(inside(&net.host, || dispatcher.tidy()).unwrap(), None, "packets pass");
            thread::sleep(Duration::from_millis(300));
        }
        thread::sleep(Duration::from_millis(200));
    }
    stop(loads);
    for port in ["p1", "p2"] {
        let all = assert_exact(&format!("{moves} moves"), &net, port, &mut [a, b]);
        assert!(all.tx.0 > 2_000 && all.rx.0 > 2_000, "too little traffic: {all:?}");
    }
    for tap in taps {
        inside(&net.host, || tap.detach()).unwrap();
    }
    assert_eq!(dispatcher.filled().unwrap(), [0, 0]);
    tidy(&net, &dispatcher, &["p1", "p2"]);
    clean(&net, &root, &[&dirs[0], &dirs[1]]);
    assert!(net.host.link(dispatcher.holder()).is_err(), "the holder has gone");
}

/// A death between the halves of fastening, and one before an interface had its qdisc.
#[test]
fn root_a_death_over_a_port_that_shares_filters() {
    if !privileged("root_a_death_over_a_port_that_shares_filters")
        || !kernel::has_tcx_for("root_a_death_over_a_port_that_shares_filters")
    {
        return;
    }
    let net = Net::new();
    let (root, dir, set, dispatcher) = with_a_set(&net);
    let mut taps = ["p1", "p2"].map(|p| share(&net, &dispatcher, p, &set, &dir).unwrap());
    net.up();
    let loads = everything(&net);
    thread::sleep(Duration::from_millis(200));
    inside(&net.host, || taps[0].overlap(&set)).unwrap();
    // and a port that has its mark, and no qdisc
    let stale = share(&net, &dispatcher, "br0", &set, &dir).unwrap();
    tc(&net, "qdisc del dev br0 clsact");
    drop((taps, stale, set, dispatcher));
    thread::sleep(Duration::from_millis(200));
    let dispatcher = start(&net, &root);
    let adopted = Set::adopt(&dir).unwrap();
    let mut taps = inside(&net.host, || Port::adopt(&dir, Some(&dispatcher))).unwrap();
    assert_eq!(taps.len(), 2, "what is not bound is none");
    assert_eq!(std::fs::read_dir(dir.join("taps")).unwrap().count(), 4, "two links and two marks");
    dispatcher.sweep();
    assert_eq!(dispatcher.filled().unwrap(), [2, 2], "its place is empty");
    for tap in &mut taps {
        inside(&net.host, || {
            tap.settle(&adopted).unwrap();
            tap.move_to(adopted.programs(), Some(&dir)).unwrap();
        });
    }
    adopted.janitor().run(&[Command::Overlap(false)]).unwrap();
    assert_eq!(dispatcher.filled().unwrap(), [1, 1]);
    thread::sleep(Duration::from_millis(200));
    stop(loads);
    tidy(&net, &dispatcher, &["p1"]);
    assert_eq!(qdisc(&net, "p2"), (true, true));
    let mut reader = reader(&adopted);
    for port in ["p1", "p2"] {
        let all = assert_exact("after a death", &net, port, &mut [&mut reader]);
        assert!(all.tx.0 > 1_000 && all.rx.0 > 1_000, "too little traffic: {all:?}");
    }
    for tap in taps {
        inside(&net.host, || tap.detach()).unwrap();
    }
    clean(&net, &root, &[&dir]);
}

#[test]
fn root_who_cannot_share_filters_is_told_so() {
    if !privileged("root_who_cannot_share_filters_is_told_so") {
        return;
    }
    let net = Net::new();
    let (root, dir, set, dispatcher) = with_a_set(&net);
    // somebody's own qdisc
    tc(&net, "qdisc add dev p1 clsact");
    assert!(share(&net, &dispatcher, "p1", &set, &dir).is_none());
    assert_eq!(qdisc(&net, "p1"), (true, false), "it is as it was");
    // another port's place
    let beyond = net.port("p2") + 4096;
    net.host.ip(&["link", "add", "far", "index", &beyond.to_string(), "type", "bridge"]).unwrap();
    let tap = share(&net, &dispatcher, "p2", &set, &dir).unwrap();
    assert!(share(&net, &dispatcher, "far", &set, &dir).is_none());
    assert_eq!(qdisc(&net, "far"), (false, false));
    assert_eq!(dispatcher.filled().unwrap(), [1, 1]);
    // the second try at a port that has it all
    assert!(share(&net, &dispatcher, "p2", &set, &dir).is_some());
    let pinned = std::fs::read_dir(dir.join("taps")).unwrap().count();
    assert_eq!(pinned, 1, "the others left no mark");
    // the holder is removed while a port is on the filters, and while none is
    inside(&net.host, || {
        let remove = || lab::output_text(net.host.command("ip").args(["link", "del", dispatcher.holder()]));
        remove().unwrap();
        dispatcher.pause();
    });
    assert!(share(&net, &dispatcher, "far", &set, &dir).is_none(), "not until it serves");
    inside(&net.host, || dispatcher.serve()).unwrap();
    assert!(inside(&net.host, || tap.is_alive()));
    inside(&net.host, || tap.detach()).unwrap();
    // p2 is bound still: with another's programs in its place it would be counted by them
    assert!(share(&net, &dispatcher, "far", &set, &dir).is_none());
    tidy(&net, &dispatcher, &["p2"]);
    let tap = share(&net, &dispatcher, "far", &set, &dir).unwrap();
    inside(&net.host, || tap.detach()).unwrap();
    tidy(&net, &dispatcher, &["far"]);
    net.host.ip(&["link", "del", dispatcher.holder()]).unwrap();
    inside(&net.host, || dispatcher.serve()).unwrap();
    let tap = share(&net, &dispatcher, "p2", &set, &dir).unwrap();
    let shown = tc(&net, &format!("filter show block {}", block_of(&net, "p2")));
    assert!(shown.contains("conmon"), "{shown}");
    // without a dispatcher it is removed all the same
    drop(tap);
    let taps = inside(&net.host, || Port::adopt(&dir, None)).unwrap();
    assert_eq!(taps.len(), 1);
    for mut tap in taps {
        inside(&net.host, || {
            assert!(tap.move_to(set.programs(), Some(&dir)).is_err());
            tap.detach().unwrap();
        });
    }
    // without a dispatcher nobody knows its place: that is for who removes the filters
    assert_eq!(qdisc(&net, "p2"), (true, true));
    drop(dispatcher);
    let dispatcher = start(&net, &root);
    dispatcher.sweep();
    tidy(&net, &dispatcher, &["p2"]);
    // one that is bound, by who has filters of his own only
    let tap = share(&net, &dispatcher, "p2", &set, &dir).unwrap();
    inside(&net.host, || tap.detach()).unwrap();
    assert_eq!(qdisc(&net, "p2"), (true, true));
    let own = inside(&net.host, || {
        Port::attach(net.port("p2"), set.programs(), Attach::Clsact, Some(&dir)).unwrap()
    });
    assert_eq!(qdisc(&net, "p2"), (true, false));
    inside(&net.host, || own.detach()).unwrap();
    tc(&net, "qdisc del dev p2 clsact");
    tidy(&net, &dispatcher, &["p2"]);
    // one that goes
    let tap = share(&net, &dispatcher, "far", &set, &dir).unwrap();
    net.host.ip(&["link", "del", "far"]).unwrap();
    inside(&net.host, || tap.detach()).unwrap();
    assert!(!dispatcher.has_leftovers());
    // a port that cannot be there
    let refused = inside(&net.host, || Port::attach_shared(&dispatcher, 99_999, set.programs(), &dir));
    assert!(refused.is_err());
    // and what is left to those who cannot share
    let own = inside(&net.host, || {
        Port::attach(net.port("p1"), set.programs(), Attach::Clsact, Some(&dir)).unwrap()
    });
    inside(&net.host, || own.detach()).unwrap();
    clean(&net, &root, &[&dir]);
}

/// Who removes the filters under traffic loses no packet: the qdiscs stay, without filters, and serve the next.
#[test]
fn root_filters_are_removed_under_traffic() {
    if !privileged("root_filters_are_removed_under_traffic") {
        return;
    }
    let net = Net::new();
    let (root, dir, set, dispatcher) = with_a_set(&net);
    let mut taps = ["p1", "p2"].map(|p| share(&net, &dispatcher, p, &set, &dir).unwrap());
    net.up();
    let loads = everything(&net);
    thread::sleep(Duration::from_millis(300));
    let dropped = || ["p1", "p2"].map(|port| net.host.link(port).unwrap().tx.dropped);
    let before = dropped();
    let of = ["p1", "p2"].map(|port| net.port(port));
    for _ in 0..3 {
        drop(taps);
        for tap in inside(&net.host, || Port::adopt(&dir, None)).unwrap() {
            inside(&net.host, || tap.detach()).unwrap();
        }
        Set::unpin(&root.join("dispatch")).unwrap();
        let removed = inside(&net.host, || Dispatcher::remove(&root)).unwrap();
        assert_eq!((removed.dropped, removed.left), (0, of.to_vec()));
        let block = block_of(&net, "p1");
        let shown = tc(&net, &format!("filter show block {block}"));
        assert!(!shown.contains("conmon"), "{shown}");
        assert_eq!(qdisc(&net, "p1"), (true, true));
        let again = start(&net, &root);
        taps = ["p1", "p2"].map(|p| share(&net, &again, p, &set, &dir).unwrap());
        let mut reader = reader(&set);
        let count = |r: &mut tap::Reader| crate::ports::counted(r, of[0]).rx.packets;
        let first = count(&mut reader);
        thread::sleep(Duration::from_millis(300));
        assert!(count(&mut reader) > first + 50, "it counts");
    }
    assert_eq!(dropped(), before);
    stop(loads);
    for tap in taps {
        inside(&net.host, || tap.detach()).unwrap();
    }
    clean(&net, &root, &[&dir]);
    ["p1", "p2"].iter().for_each(|port| assert_eq!(qdisc(&net, port), (false, false)));
}

fn block_of(net: &Net, port: &str) -> String {
    let shown = tc(net, &format!("qdisc show dev {port}"));
    let mut words = shown.split_whitespace().skip_while(|word| *word != "ingress_block");
    words.nth(1).unwrap().to_owned()
}
