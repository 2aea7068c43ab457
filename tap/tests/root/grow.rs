//! A flow table that grows: no packet is missed or counted twice, what is known of flows goes along, and a death at any
//! moment is made good by whoever adopts the set.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ippm::flow::{Direction, EndReason, Leg, Role};
use ippm::packet::tcp_flag::{ACK, SYN};
use ippm::time::Timestamp;
use tap::{Attach, Census, Command, Drained, Janitor, Reader, Set, SetSpec};

use crate::net::{Net, inside};
use crate::ports::{assert_exact, attach, everything, pins, reader, stop};
use crate::privileged;
use crate::set::{to_peer, udp};
use crate::tcp::{Segment, rx, tx};

fn spec(flows: u32) -> SetSpec {
    SetSpec { flows, pairs: 256, ports: 16, hists: 256, ring_bytes: 1 << 20, ..SetSpec::default() }
}

/// A folder for pins of its own.
fn folder(name: &str) -> PathBuf {
    tap::filesystem::mount_if_missing().unwrap();
    let dir = PathBuf::from(format!("/sys/fs/bpf/conmon-test-{}-{name}", std::process::id()));
    let _ = Set::unpin(&dir);
    dir
}

fn census(set: &Set) -> Census {
    set.census().unwrap().expect("the janitor is not at work")
}

/// Packets in flows and in pairs of interface 1.
fn packets(set: &Set) -> (u64, u64) {
    let port = census(set).ports.get(&1).copied().unwrap_or_default();
    (port.flows.tx.packets + port.flows.rx.packets, port.pairs.tx.packets + port.pairs.rx.packets)
}

#[test]
fn root_growing_misses_nothing() {
    if !privileged("root_growing_misses_nothing") {
        return;
    }
    let net = Net::new();
    let dir = pins(&net, "set");
    let mut set = Arc::new(Set::create(spec(16)).unwrap());
    set.pin(&dir).unwrap();
    let mut taps = ["p1", "p2"].map(|p| attach(&net, p, &set, Attach::Auto, Some(&dir)));
    net.up();
    let loads = everything(&net);
    let mut moved = 0;
    for flows in [64, 4096, 16] {
        thread::sleep(Duration::from_millis(200));
        let next = Arc::new(set.resized(flows).unwrap());
        next.pin(&dir).unwrap();
        let mut go_to = |set: &Set| {
            for tap in &mut taps {
                inside(&net.host, || tap.move_to(set.programs(), Some(&dir))).unwrap();
            }
        };
        go_to(&next);
        let drained = next.drain().unwrap();
        Set::unpin_older(&dir).unwrap();
        let after = next.drained().unwrap();
        go_to(&after);
        eprintln!("to {flows} slots: {drained:?}");
        moved += drained.moved;
        set = Arc::new(after);
    }
    stop(loads);
    let mut reader = reader(&set);
    for port in ["p1", "p2"] {
        let all = assert_exact("grown", &net, port, &mut [&mut reader]);
        assert!(all.tx.0 > 1_000 && all.rx.0 > 1_000, "too little traffic: {all:?}");
    }
    assert!(reader.counters().flow_full > 0, "sixteen slots were too few at first");
    assert!(moved > 20, "{moved} records were moved");
    Set::unpin(&dir).unwrap();
}

/// A flow that found no pair finds one when its record goes over: it is one of that pair's flows.
#[test]
fn root_a_flow_that_finds_its_pair_on_its_way_to_a_larger_table_counts_in_it() {
    if !privileged("root_a_flow_that_finds_its_pair_on_its_way_to_a_larger_table_counts_in_it") {
        return;
    }
    let set = Arc::new(Set::create(SetSpec { pairs: 1, ..spec(16) }).unwrap());
    for n in [1, 2] {
        set.test_run(Direction::Tx, &to_peer(n), 1, 0).unwrap();
    }
    let scan = Reader::new(set.descriptors().unwrap()).unwrap().scan().unwrap();
    let first = scan.flows.iter().find(|f| f.pair.is_some()).unwrap().id;
    // the only pair record becomes free
    let pair = scan.pairs[0].id;
    set.janitor().run(&[Command::EndFlow(first, Timestamp::MAX), Command::EndPair(pair)]).unwrap();
    Janitor::grace_period();
    let free = [Command::FreeFlow(first, EndReason::IdleTimeout), Command::FreePair(pair)];
    set.janitor().run(&free).unwrap();

    let next = set.resized(64).unwrap();
    next.test_run(Direction::Tx, &to_peer(2), 1, 0).unwrap();
    assert_eq!(next.drain().unwrap(), Drained { moved: 1, folded: 0 });
    let after = next.drained().unwrap();
    let scan = Reader::new(after.descriptors().unwrap()).unwrap().scan().unwrap();
    let [pair] = &scan.pairs[..] else { panic!("{:?}", scan.pairs) };
    assert_eq!((pair.counters.tx.packets, pair.flows, pair.active_flows), (2, 1, 1));
    assert_eq!(scan.set.unpaired, 0);
}

/// Packets are counted on one thread all the while; each is somewhere, once, whenever somebody looks.
#[test]
fn root_every_look_while_growing_is_exact() {
    if !privileged("root_every_look_while_growing_is_exact") {
        return;
    }
    /// A failure ends the threads, too.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let first = Arc::new(Set::create(spec(2048)).unwrap());
    let frames: Vec<Vec<u8>> = (0..150).map(|n| udp(1000 + n, 7, 10)).collect();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let current = std::sync::Mutex::new(first.clone());
    let taken = || current.lock().unwrap().clone();
    thread::scope(|scope| {
        let stopping = Stop(&stop);
        scope.spawn(|| {
            for frame in frames.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // held while it runs, so that an exchange of programs is between two packets
                let set = current.lock().unwrap();
                set.test_run(Direction::Tx, frame, 1, 0).unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
            }
        });
        let looking = scope.spawn(|| {
            let mut looks = 0;
            while !stop.load(Ordering::Relaxed) {
                let (before, set) = (sent.load(Ordering::SeqCst), taken());
                let Some(seen) = set.census().unwrap() else { continue };
                let all = seen.ports.get(&1).map_or(0, |p| (p.flows.tx + p.pairs.tx).packets);
                // a packet may be counted and not told yet; one that is told is counted, unless it went to a later set
                let after = sent.load(Ordering::SeqCst) + 1;
                assert!(all <= after, "{all} packets of {after}");
                if Arc::ptr_eq(&set, &taken()) {
                    assert!(all >= before, "{all} packets of {before}");
                }
                looks += 1;
            }
            looks
        });
        for flows in [4096, 16_384, 2048] {
            thread::sleep(Duration::from_millis(100));
            let grown = Arc::new(taken().resized(flows).unwrap());
            *current.lock().unwrap() = grown.clone();
            thread::sleep(Duration::from_millis(20));
            let drained = grown.drain().unwrap();
            assert_eq!(drained, Drained { moved: 150, folded: 0 });
            *current.lock().unwrap() = Arc::new(grown.drained().unwrap());
        }
        drop(stopping);
        let looks = looking.join().unwrap();
        assert!(looks > 50, "{looks} looks");
    });
    let set = taken();
    assert_eq!(packets(&set), (sent.load(Ordering::SeqCst), 0), "all are in flows yet");
    let set_counters = census(&set).set;
    assert_eq!((set_counters.flows_begun, set_counters.flows_ended), (150, 0), "nothing began or ended");
    let events = Reader::new(set.descriptors().unwrap()).unwrap().events(usize::MAX).flows;
    assert_eq!(events.len(), 150, "each flow began once, and none ended");
}

/// What a flow's record knows goes along, whether its next packet comes before or after the record is moved.
#[test]
fn root_a_flow_goes_on_in_the_larger_table() {
    if !privileged("root_a_flow_goes_on_in_the_larger_table") {
        return;
    }
    for packet_first in [true, false] {
        let set = Arc::new(Set::create(SetSpec { samples: true, ..spec(64) }).unwrap());
        let send = |set: &Set, s: Segment| {
            // by the port numbers alone its role would be guessed wrong
            set.test_run(s.direction, &s.frame((80, 40_000)), 1, 1).unwrap();
        };
        send(&set, tx(SYN, 100, 0, 0));
        send(&set, rx(SYN | ACK, 900, 101, 0));
        send(&set, tx(ACK, 101, 901, 0));
        send(&set, tx(ACK, 101, 901, 50));
        let grown = set.resized(1024).unwrap();
        // ends the probe that began in the table before, if it was moved with its record
        let next = || {
            send(&grown, rx(ACK, 901, 151, 0));
            send(&grown, tx(ACK, 101, 901, 50));
        };
        if packet_first {
            next();
        }
        assert_eq!(grown.drain().unwrap(), Drained { moved: 1, folded: 0 }, "{packet_first}");
        if !packet_first {
            next();
        }
        let mut reader = Reader::new(grown.descriptors().unwrap()).unwrap();
        let scan = reader.scan().unwrap();
        assert_eq!((scan.flows.len(), scan.pairs.len()), (1, 1), "{packet_first}: {:?}", scan.flows);
        let flow = &scan.flows[0];
        assert_eq!((flow.role, flow.guessed), (Role::LocalOpened, false), "{packet_first}");
        assert_eq!((flow.counters.tx.packets, flow.counters.rx.packets), (4, 2), "{packet_first}");
        assert_eq!(flow.retransmitted.tx, 1, "{packet_first}: what was sent already is remembered");
        assert_eq!((scan.pairs[0].flows, scan.pairs[0].counters), (1, flow.counters), "{packet_first}");
        let legs: Vec<Leg> = reader.events(usize::MAX).singletons.iter().map(|s| s.leg).collect();
        // who inherits gives the probe up: the older programs may have ended it meanwhile
        let away = [Leg::Away];
        let moved = if packet_first { &[][..] } else { &away };
        assert_eq!(legs, [&[Leg::AwayHandshake, Leg::NearHandshake], moved].concat(), "{packet_first}");
        // who has the table before has nothing to tell any more
        assert!(Reader::new(set.descriptors().unwrap()).unwrap().scan().is_none());
    }
}

#[test]
fn root_a_port_pair_that_is_used_again_while_growing_is_another_flow() {
    if !privileged("root_a_port_pair_that_is_used_again_while_growing_is_another_flow") {
        return;
    }
    let set = Arc::new(Set::create(spec(64)).unwrap());
    let send = |set: &Set, s: Segment| set.test_run(s.direction, &s.frame((40_000, 80)), 1, 1).unwrap();
    send(&set, tx(SYN, 100, 0, 0));
    let grown = set.resized(256).unwrap();
    send(&grown, tx(SYN, 5000, 0, 0));
    assert_eq!(grown.drain().unwrap(), Drained { moved: 0, folded: 1 });
    let scan = Reader::new(grown.descriptors().unwrap()).unwrap().scan().unwrap();
    assert_eq!(scan.flows.len(), 1);
    assert_eq!((scan.flows[0].counters.tx.packets, scan.pairs[0].counters.tx.packets), (1, 2));
    assert_eq!((scan.pairs[0].flows, scan.set.flows_begun, scan.set.flows_ended), (2, 2, 1));
}

#[test]
fn root_what_finds_no_room_is_folded() {
    if !privileged("root_what_finds_no_room_is_folded") {
        return;
    }
    // to a smaller one: the only way to be sure of a full table
    let set = Arc::new(Set::create(spec(256)).unwrap());
    for n in 0..200 {
        set.test_run(Direction::Tx, &udp(1000 + n, 7, 10), 1, 0).unwrap();
    }
    let begun = census(&set).set;
    let smaller = set.resized(16).unwrap();
    let drained = smaller.drain().unwrap();
    assert!(drained.moved <= 16 && drained.folded >= 150, "{drained:?}");
    assert_eq!(drained.moved + drained.folded, begun.flows_begun);
    let (flows, pairs) = packets(&smaller);
    assert_eq!((flows, flows + pairs), (drained.moved, 200));
    assert_eq!(smaller.drain().unwrap(), Drained::default(), "a second time there is nothing left to do");
}

/// The owner dies after each step, and another adopts what is pinned.
#[test]
fn root_a_death_while_growing_loses_nothing() {
    if !privileged("root_a_death_while_growing_loses_nothing") {
        return;
    }
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Death {
        BeforePins,
        OlderPinned,
        FlowsPinned,
        Pinned,
        Counting,
        Drained,
        OlderUnpinned,
    }
    use Death::{
        BeforePins, Counting, Drained as IsDrained, FlowsPinned, OlderPinned, OlderUnpinned, Pinned,
    };
    for death in [BeforePins, OlderPinned, FlowsPinned, Pinned, Counting, IsDrained, OlderUnpinned] {
        let dir = folder("death");
        let set = Arc::new(Set::create(spec(64)).unwrap());
        set.pin(&dir).unwrap();
        let send = |set: &Set| {
            for n in 0..20 {
                set.test_run(Direction::Tx, &udp(1000 + n, 7, 10), 1, 0).unwrap();
            }
        };
        send(&set);
        let mut sent = 20;
        let grown = set.resized(256).unwrap();
        if death != BeforePins {
            // as far as it came: the pins of before in the places of those that were not reached
            let keep = |name: &str| {
                let (pin, kept) = (dir.join(name), dir.join(format!("{name}-kept")));
                std::fs::rename(&pin, &kept).unwrap();
                (pin, kept)
            };
            let back: Vec<_> = match death {
                OlderPinned => vec![keep("flows"), keep("settings")],
                FlowsPinned => vec![keep("settings")],
                _ => Vec::new(),
            };
            grown.pin(&dir).unwrap();
            for (pin, kept) in back {
                std::fs::rename(kept, pin).unwrap();
            }
        }
        if matches!(death, Counting | IsDrained | OlderUnpinned) {
            send(&grown);
            sent += 20;
        }
        if matches!(death, IsDrained | OlderUnpinned) {
            assert_eq!(grown.drain().unwrap().moved, 20);
        }
        if death == OlderUnpinned {
            Set::unpin_older(&dir).unwrap();
        }
        drop((grown, set));

        let adopted = Set::adopt(&dir).unwrap();
        let before = matches!(death, BeforePins | OlderPinned);
        assert_eq!(adopted.spec().flows, if before { 64 } else { 256 }, "{death:?}");
        let older = matches!(death, FlowsPinned | Pinned | Counting | IsDrained);
        assert_eq!(adopted.older_flows(), older.then_some(64), "{death:?}");
        assert_eq!(packets(&adopted), (sent, 0), "{death:?}");
        send(&adopted);
        let drained = adopted.drain().unwrap();
        let left = matches!(death, FlowsPinned | Pinned | Counting);
        assert_eq!(drained, Drained { moved: if left { 20 } else { 0 }, folded: 0 }, "{death:?}");
        assert_eq!(packets(&adopted), (sent + 20, 0), "{death:?}");
        Set::unpin_older(&dir).unwrap();
        assert_eq!(adopted.drained().unwrap().older_flows(), None);
        let scan = Reader::new(adopted.descriptors().unwrap()).unwrap().scan().unwrap();
        assert_eq!((scan.flows.len(), scan.set.flows_begun), (20, 20), "{death:?}");
        // the settings fit, whatever was pinned
        let again = Set::adopt(&dir).unwrap();
        assert_eq!((again.spec().flows, again.older_flows()), (adopted.spec().flows, None), "{death:?}");
        Set::unpin(&dir).unwrap();
    }
}

/// Every slot of the larger table is used, which tells that the programs have the right size of it.
#[test]
fn root_the_whole_of_a_grown_table_is_used() {
    if !privileged("root_the_whole_of_a_grown_table_is_used") {
        return;
    }
    let dir = folder("whole");
    let set = Arc::new(Set::create(spec(64)).unwrap());
    set.pin(&dir).unwrap();
    set.resized(512).unwrap().pin(&dir).unwrap();
    Set::unpin_older(&dir).unwrap();
    for set in [set.resized(512).unwrap().drained().unwrap(), Set::adopt(&dir).unwrap()] {
        for n in 0..4000 {
            set.test_run(Direction::Tx, &udp(1000 + n, 7, 10), 1, 0).unwrap();
        }
        let mut used = BTreeMap::new();
        tap::each_flow(&set, |f| *used.entry(f.id.slot / 64).or_insert(0) += 1).unwrap();
        assert_eq!(used.values().copied().collect::<Vec<u32>>(), [64; 8]);
    }
    Set::unpin(&dir).unwrap();
}

#[test]
fn root_looks_agree_with_the_reader() {
    if !privileged("root_looks_agree_with_the_reader") {
        return;
    }
    // more than one part of a table is mapped
    let set = Set::create(SetSpec { pairs: 32_768, ..spec(65_536) }).unwrap();
    // the kernel runs programs for interfaces only that there are
    let net = Net::new();
    let ports = ["p1", "p2"].map(|port| net.port(port));
    inside(&net.host, || {
        for n in 0..3000u16 {
            let mut frame = udp(1000 + n, 7, 10);
            frame[32] = (n % 250) as u8;
            set.test_run(Direction::Tx, &frame, ports[usize::from(n % 2)], 0).unwrap();
        }
    });
    let scan = Reader::new(set.descriptors().unwrap()).unwrap().scan().unwrap();
    let seen = census(&set);
    for ifindex in ports {
        let flows = scan.flows.iter().filter(|f| f.key.ifindex == ifindex).map(|f| f.counters.tx).sum();
        assert_eq!(seen.ports[&ifindex].flows.tx, flows);
        assert_eq!(seen.ports[&ifindex].flows.tx.packets, 1500);
    }
    assert_eq!(seen.set, set.counters().unwrap());
    let mut found = set.find(|ifindex, _, _| ifindex == ports[1]).unwrap();
    assert_eq!((found.flows.len(), found.pairs.len()), (1500, 125));
    let all = scan.pairs.iter().map(|p| p.id.slot).collect();
    assert_eq!(set.pointed_to(&all).unwrap().len(), 250);
    found.flows.truncate(1);
    let flow = found.flows[0];
    assert!(set.flow_now(flow).unwrap().is_some());
    let (pair, _) = set.pair_now(found.pairs[0].slot).unwrap().unwrap();
    assert_eq!((pair.id, pair.flows, pair.counters.tx.packets), (found.pairs[0], 12, 0));
    set.janitor().run(&[Command::EndFlow(flow, Timestamp::MAX)]).unwrap();
    tap::Janitor::grace_period();
    set.janitor().run(&[Command::FreeFlow(flow, ippm::flow::EndReason::ForcedEnd)]).unwrap();
    assert!(set.flow_now(flow).unwrap().is_none());
    assert!(
        set.pair_now(u32::MAX).unwrap().is_none()
            && set.flow_now(ippm::measurement::SlotTag { slot: u32::MAX, tag: 1 }).unwrap().is_none()
    );
}

/// A table takes records until it is seven eighths full, finds them all again, and takes as many others once those have gone.
#[test]
fn root_a_table_is_filled_to_seven_eighths() {
    if !privileged("root_a_table_is_filled_to_seven_eighths") {
        return;
    }
    const SLOTS: u32 = 4096;
    let set = Set::create(SetSpec { ring_bytes: 4 << 20, ..spec(SLOTS) }).unwrap();
    let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
    let (mut begun, mut before) = (0, 0);
    for round in 0..3u16 {
        let frames: Vec<_> = (0..SLOTS * 7 / 8).map(|n| udp(1000 + n as u16, 7000 + round, 10)).collect();
        for _ in 0..2 {
            frames.iter().for_each(|frame| set.test_run(Direction::Tx, frame, 1, 0).unwrap());
        }
        let scan = reader.scan().unwrap();
        let found = scan.flows.len() as u64;
        begun += found;
        assert_eq!(scan.set.flows_begun, begun, "round {round}: no flow has two records");
        // a packet that finds no place for its flow says so, each time
        let lost = scan.set.flow_full - before;
        before = scan.set.flow_full;
        assert_eq!(2 * found + lost, 2 * frames.len() as u64, "round {round}");
        assert!(
            lost < frames.len() as u64 / 200,
            "round {round}: {lost} packets of {} flows found no room",
            frames.len()
        );
        assert!(scan.flows.iter().all(|f| f.counters.tx.packets <= 2), "round {round}");
        let ends: Vec<_> = scan.flows.iter().map(|f| Command::EndFlow(f.id, Timestamp::MAX)).collect();
        let frees: Vec<_> =
            scan.flows.iter().map(|f| Command::FreeFlow(f.id, EndReason::IdleTimeout)).collect();
        set.janitor().run(&ends).unwrap();
        Janitor::grace_period();
        set.janitor().run(&frees).unwrap();
        assert_eq!(packets(&set).0, 0, "round {round}: all is folded");
    }
}

/// Two processors count the same new flows, in a table that is nearly full: each packet is somewhere, once.
#[test]
fn root_processors_that_meet_in_new_flows_miss_nothing() {
    if !privileged("root_processors_that_meet_in_new_flows_miss_nothing") {
        return;
    }
    const FLOWS: u32 = 900;
    let set = Set::create(spec(1024)).unwrap();
    let frames: Vec<_> = (0..FLOWS).map(|n| udp(1000 + n as u16, 7, 10)).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| frames.iter().for_each(|frame| set.test_run(Direction::Tx, frame, 1, 0).unwrap()));
        }
    });
    let (flows, pairs) = packets(&set);
    assert_eq!(flows + pairs, 4 * u64::from(FLOWS));
    let records = reader(&set).scan().unwrap().flows;
    let twice = records.len() - records.iter().map(|f| f.key).collect::<HashSet<_>>().len();
    println!("{} records of {FLOWS} flows, {twice} of flows that have another", records.len());
    assert!(twice <= 8, "{twice} of {}", records.len());
}
