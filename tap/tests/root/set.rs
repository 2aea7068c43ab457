//! The programs under test runs: loaded into the kernel for real, fed frames by hand. Needs CAP_BPF and CAP_NET_ADMIN.

use ippm::flow::{Direction, EndReason, PortClass, Role};
use ippm::measurement::{FlowEvent, FlowEventKind};
use ippm::time::Timestamp;
use tap::{Command, Janitor, Reader, Set, SetSpec};

use crate::privileged;

pub fn udp(sport: u16, dport: u16, payload: usize) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let total = (28 + payload) as u16;
    f.extend_from_slice(&[0x45, 0]);
    f.extend_from_slice(&total.to_be_bytes());
    f.extend_from_slice(&[0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend_from_slice(&sport.to_be_bytes());
    f.extend_from_slice(&dport.to_be_bytes());
    f.extend_from_slice(&(8 + payload as u16).to_be_bytes());
    f.extend_from_slice(&[0, 0]);
    f.resize(14 + 28 + payload, 0);
    f
}

fn small() -> SetSpec {
    SetSpec { flows: 64, pairs: 16, ports: 16, hists: 16, ring_bytes: 64 << 10, ..SetSpec::default() }
}

#[test]
fn root_counts_folds_and_frees() {
    if !privileged("root_counts_folds_and_frees") {
        return;
    }
    let set = Set::create(small()).unwrap();
    let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
    for i in 0..10 {
        set.test_run(Direction::Tx, &udp(5000, 6000, i), 1, 0).unwrap();
    }
    // a segmentation-offload packet back: one packet, four segments
    set.test_run(Direction::Rx, &udp(5000, 6000, 100), 1, 4).unwrap();
    let scan = reader.scan().unwrap();
    assert_eq!(scan.set.abi, tap::ABI);
    assert_eq!(scan.flows.len(), 2, "local 10.0.0.1:5000, and local 10.0.0.2:6000: {:?}", scan.flows);
    let sent = scan.flows.iter().find(|f| f.counters.tx.packets > 0).unwrap();
    assert_eq!(sent.key.local.to_string(), "10.0.0.1");
    assert_eq!((sent.key.local_port, sent.key.remote_port, sent.key.proto), (5000, 6000, 17));
    assert_eq!(sent.role, Role::LocalOpened);
    assert_eq!(sent.counters.tx.bytes, (0..10).map(|i| 42 + i).sum::<u64>());
    let back = scan.flows.iter().find(|f| f.counters.rx.packets > 0).unwrap();
    assert_eq!((back.counters.rx.packets, back.counters.rx.segments), (1, 4));
    assert_eq!(scan.pairs.len(), 2);
    assert!(reader.scan().unwrap().flows.is_empty(), "nothing changed");

    let events = reader.events(100);
    assert_eq!(events.flows.iter().filter(|e| e.kind == FlowEventKind::New).count(), 2);

    // end and free: totals move to the pair, a record tells the end
    let janitor = set.janitor();
    let commands: Vec<_> = scan.flows.iter().map(|f| Command::EndFlow(f.id, Timestamp::MAX)).collect();
    janitor.run(&commands).unwrap();
    Janitor::grace_period();
    let commands: Vec<_> =
        scan.flows.iter().map(|f| Command::FreeFlow(f.id, EndReason::IdleTimeout)).collect();
    janitor.run(&commands).unwrap();
    let after = reader.scan().unwrap();
    assert_eq!(reader.fill(), (0, 2));
    assert_eq!(after.pairs.len(), 2, "no live flows any more is a change");
    for pair in &after.pairs {
        let before = scan.pairs.iter().find(|p| p.id == pair.id).unwrap();
        assert_eq!(pair.counters, before.counters, "the sum stays");
        assert_eq!(pair.active_flows, 0);
    }
    let ends: Vec<_> = reader.events(100).flows;
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|e| e.kind == FlowEventKind::End(EndReason::IdleTimeout)));

    let pairs: Vec<_> = after.pairs.iter().map(|p| p.id).collect();
    janitor.run(&pairs.iter().map(|id| Command::EndPair(*id)).collect::<Vec<_>>()).unwrap();
    Janitor::grace_period();
    janitor.run(&pairs.iter().map(|id| Command::FreePair(*id)).collect::<Vec<_>>()).unwrap();
    reader.scan().unwrap();
    assert_eq!(reader.fill(), (0, 0));
}

#[test]
fn root_totals_stay_exact_when_every_table_overflows() {
    if !privileged("root_totals_stay_exact_when_every_table_overflows") {
        return;
    }
    let set = Set::create(small()).unwrap();
    let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
    let (mut packets, mut bytes) = (0, 0);
    for i in 0..2000u16 {
        let mut frame = udp(1024 + i, 7, 10);
        // 200 remote addresses: more pairs than slots, and more flows
        frame[33] = (i % 200) as u8;
        set.test_run(Direction::Tx, &frame, 1, 0).unwrap();
        packets += 1;
        bytes += frame.len() as u64;
    }
    let scan = reader.scan().unwrap();
    let flows: u64 = scan.flows.iter().map(|f| f.counters.tx.packets).sum();
    let pairs: u64 = scan.pairs.iter().map(|p| p.counters.tx.packets).sum();
    let pair_bytes: u64 = scan.pairs.iter().map(|p| p.counters.tx.bytes).sum();
    let port = &scan.ports[0];
    let overflow = port.count(Direction::Tx, PortClass::Overflow);
    let unpaired: u64 = scan.flows.iter().filter(|f| f.pair.is_none()).map(|f| f.counters.tx.packets).sum();
    let unpaired_bytes: u64 =
        scan.flows.iter().filter(|f| f.pair.is_none()).map(|f| f.counters.tx.bytes).sum();
    assert!(flows <= 64 && scan.pairs.len() <= 16);
    assert!(scan.set.flow_full > 0 && scan.set.pair_full > 0);
    assert_eq!(pairs + overflow.packets + unpaired, packets);
    assert_eq!(pair_bytes + overflow.bytes + unpaired_bytes, bytes);
}

#[test]
fn root_what_is_no_flow_is_counted_as_what_it_is() {
    if !privileged("root_what_is_no_flow_is_counted_as_what_it_is") {
        return;
    }
    let set = Set::create(small()).unwrap();
    let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
    let mut arp = udp(1, 2, 0);
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut other = udp(1, 2, 0);
    other[12..14].copy_from_slice(&[0x88, 0xcc]);
    let mut malformed = udp(1, 2, 0);
    malformed[14] = 0x41;
    // a neighbour solicitation to a group that each port of a bridge gets it for
    let mut nd = vec![0x33, 0x33, 0xff, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255];
    nd.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    nd.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1]);
    nd.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    nd.resize(14 + 40 + 24, 0);
    for frame in [&arp, &other, &malformed, &nd] {
        set.test_run(Direction::Rx, frame, 1, 0).unwrap();
    }
    let scan = reader.scan().unwrap();
    assert!(scan.flows.is_empty() && scan.pairs.is_empty());
    for class in [PortClass::Arp, PortClass::Other, PortClass::Malformed, PortClass::Nd] {
        let bytes = if class == PortClass::Nd { 78 } else { 42 };
        assert_eq!(scan.ports[0].count(Direction::Rx, class).packets, 1, "{class}");
        assert_eq!(scan.ports[0].count(Direction::Rx, class).bytes, bytes, "{class}");
    }
    // an echo request is somebody's word to somebody
    nd[54] = 128;
    let mut routed = nd.clone();
    // and a solicitation that may have passed a router is none
    (routed[54], routed[21]) = (135, 64);
    set.test_run(Direction::Rx, &routed, 1, 0).unwrap();
    set.test_run(Direction::Rx, &nd, 1, 0).unwrap();
    let scan = reader.scan().unwrap();
    assert_eq!((scan.pairs.len(), scan.flows.len()), (1, 2));
}

#[test]
fn root_a_pinned_set_is_adopted_with_its_counts() {
    if !privileged("root_a_pinned_set_is_adopted_with_its_counts") {
        return;
    }
    tap::filesystem::mount_if_missing().unwrap();
    let dir = std::path::PathBuf::from(format!("/sys/fs/bpf/conmon-test-{}", std::process::id()));
    let _ = Set::unpin(&dir);
    let set = Set::create(small()).unwrap();
    set.pin(&dir).unwrap();
    set.test_run(Direction::Tx, &udp(1, 2, 5), 1, 0).unwrap();
    drop(set);
    let adopted = Set::adopt(&dir).unwrap();
    assert_eq!(adopted.spec().flows, 64);
    adopted.test_run(Direction::Tx, &udp(1, 2, 5), 1, 0).unwrap();
    let scan = Reader::new(adopted.descriptors().unwrap()).unwrap().scan().unwrap();
    assert_eq!(scan.flows.len(), 1, "another build finds the same flow");
    assert_eq!(scan.flows[0].counters.tx.packets, 2);
    Set::unpin(&dir).unwrap();
    assert!(!dir.exists());
}

#[test]
fn root_what_a_monitor_is_handed_cannot_be_written() {
    if !privileged("root_what_a_monitor_is_handed_cannot_be_written") {
        return;
    }
    use std::os::fd::AsRawFd;
    let set = Set::create(small()).unwrap();
    for of in tap::Extensible::ALL {
        set.extend(of, None).unwrap();
    }
    let descriptors = set.descriptors().unwrap();
    let names = tap::Descriptors::NAMES.into_iter().chain(["pairs-1", "hists-1"]);
    assert_eq!(descriptors.fds.len(), names.clone().count());
    let error = |r: i64| (r < 0).then(|| std::io::Error::last_os_error().raw_os_error()).flatten();
    for (name, fd) in names.zip(&descriptors.fds).filter(|(name, _)| *name != "ring") {
        let map = |protection| {
            // SAFETY: a new mapping of one page at no particular place; nothing else is touched.
            let at = unsafe {
                libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
            };
            let failed = (at == libc::MAP_FAILED).then(std::io::Error::last_os_error);
            if failed.is_none() {
                // SAFETY: the mapping made above, that nobody uses.
                unsafe { libc::munmap(at, 4096) };
            }
            failed.map_or(Ok(()), Err)
        };
        map(libc::PROT_READ).unwrap_or_else(|e| panic!("{name} cannot be read: {e}"));
        let refused = map(libc::PROT_READ | libc::PROT_WRITE).expect_err(name);
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{name}");
        // BPF_MAP_UPDATE_ELEM of element 0; union bpf_attr: map at 0, key at 8, value at 16
        let (key, value) = (0u32, vec![0u8; 4096]);
        let mut attr = [0u64; 16];
        attr[0] = fd.as_raw_fd() as u64;
        attr[1] = std::ptr::from_ref(&key) as u64;
        attr[2] = value.as_ptr() as u64;
        // SAFETY: the attribute is 128 bytes; key and value, longer than any element, live until the call returns.
        let r = unsafe { libc::syscall(libc::SYS_bpf, 2, attr.as_ptr(), size_of_val(&attr)) };
        assert_eq!(error(r), Some(libc::EPERM), "{name}");
    }
}

/// A datagram to one of many peers, by number.
pub fn to_peer(n: u32) -> Vec<u8> {
    let mut frame = udp(1024, 7, 10);
    frame[30..34].copy_from_slice(&(0x0b00_0000 + n).to_be_bytes());
    frame
}

#[test]
fn root_tables_for_pairs_are_extended_under_the_programs_that_use_them() {
    if !privileged("root_tables_for_pairs_are_extended_under_the_programs_that_use_them") {
        return;
    }
    tap::filesystem::mount_if_missing().unwrap();
    let dir = std::path::PathBuf::from(format!("/sys/fs/bpf/conmon-extend-{}", std::process::id()));
    let _ = Set::unpin(&dir);
    let set = Set::create(SetSpec { flows: 8192, ..small() }).unwrap();
    set.pin(&dir).unwrap();
    let mut before = Reader::new(set.descriptors().unwrap()).unwrap();
    let all = 500u32;
    let send = |set: &Set| {
        for n in 0..all {
            set.test_run(Direction::Tx, &to_peer(n), 1, 0).unwrap();
        }
    };
    send(&set);
    let first = before.scan().unwrap();
    assert_eq!(first.pairs.len(), 16);
    let unpaired = u64::from(all) - 16;
    assert_eq!((first.set.pairs, first.set.no_pair, first.set.unpaired), (16, unpaired, unpaired));
    assert_eq!(set.unpaired(usize::MAX).unwrap().len() as u64, unpaired);
    assert_eq!(set.unpaired(10).unwrap().len(), 10);

    // no room yet: nothing is given, nothing is lost
    let give = |set: &Set| {
        let commands: Vec<_> = set.unpaired(usize::MAX).unwrap().into_iter().map(Command::PairFlow).collect();
        set.janitor().run(&commands).unwrap();
    };
    give(&set);
    assert_eq!(set.counters().unwrap().unpaired, unpaired);

    for (extents, slots) in (1..).zip([32, 64, 128, 256, 512, 1024]) {
        assert_eq!(set.extend(tap::Extensible::Pairs, Some(&dir)).unwrap(), slots);
        assert_eq!(set.spec().pair_extents, extents);
        give(&set);
        let counters = set.counters().unwrap();
        assert!(counters.pairs + counters.unpaired == u64::from(all) && counters.pairs <= u64::from(slots));
        // whoever has not the newest extent tells of no pair that is there
        let known = before.scan().unwrap();
        assert!(known.pairs.iter().all(|p| p.id.slot < 16));
        assert!(known.flows.iter().all(|f| f.pair.is_none_or(|pair| pair < 16)));
    }
    assert!(set.extend(tap::Extensible::Pairs, Some(&dir)).is_err(), "it has them all");
    let counters = set.counters().unwrap();
    assert!(counters.unpaired <= 2, "half full, all but a few find a place: {counters:?}");

    // what was counted before a flow had its pair is in that, and so is what comes after
    send(&set);
    let check = |set: &Set, each: u64| {
        let scan = Reader::new(set.descriptors().unwrap()).unwrap().scan().unwrap();
        assert_eq!(scan.pairs.len() as u64, counters.pairs);
        assert!(scan.pairs.iter().all(|p| p.counters.tx.packets == each && p.flows == 1), "{:?}", scan.pairs);
        let mut slots: Vec<u32> = scan.pairs.iter().map(|p| p.id.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), scan.pairs.len());
        let peers: std::collections::BTreeSet<_> = scan.pairs.iter().map(|p| p.key.remote).collect();
        assert_eq!(peers.len(), scan.pairs.len());
        // looked at one by one they are the same
        for pair in scan.pairs.iter().filter(|p| p.active_flows == 0) {
            let (now, _) = set.pair_now(pair.id.slot).unwrap().unwrap();
            assert_eq!((now.id, now.counters), (pair.id, pair.counters));
        }
        scan
    };
    check(&set, 2);
    let census = set.census().unwrap().unwrap();
    assert_eq!(census.ports[&1].flows.tx.packets, u64::from(2 * all));

    // whoever adopts the set finds all of it
    drop(set);
    let set = Set::adopt(&dir).unwrap();
    assert_eq!((set.spec().pair_extents, set.spec().pair_slots()), (6, 1024));
    send(&set);
    let scan = check(&set, 3);

    // flows end, and their pairs, wherever they are
    let flows: Vec<_> = scan.flows.iter().map(|f| f.id).collect();
    let (end, free) =
        (|id| Command::EndFlow(id, Timestamp::MAX), |id| Command::FreeFlow(id, EndReason::IdleTimeout));
    set.janitor().run(&flows.iter().copied().map(end).collect::<Vec<_>>()).unwrap();
    Janitor::grace_period();
    set.janitor().run(&flows.iter().copied().map(free).collect::<Vec<_>>()).unwrap();
    assert_eq!(set.counters().unwrap().unpaired, 0, "what had no pair is in its port's overflow now");
    let ended = check(&set, 3);
    let overflow = ended.ports.first().map_or(0, |p| p.count(Direction::Tx, PortClass::Overflow).packets);
    let sum: u64 = ended.pairs.iter().map(|p| p.counters.tx.packets).sum();
    assert_eq!(sum + overflow, u64::from(3 * all));
    let census = set.census().unwrap().unwrap();
    assert_eq!(census.ports[&1].pairs.tx.packets, sum);
    let found = set.find(|port, _, _| port == 1).unwrap().pairs;
    assert_eq!(found.len() as u64, counters.pairs);
    let commands =
        found.iter().map(|id| Command::EndPair(*id)).chain(found.iter().map(|id| Command::FreePair(*id)));
    set.janitor().run(&commands.collect::<Vec<_>>()).unwrap();
    assert_eq!(set.counters().unwrap().pairs, 0);
    assert!(set.find(|_, _, _| true).unwrap().pairs.is_empty());
    Set::unpin(&dir).unwrap();
    assert!(!dir.exists());
}

#[test]
fn root_tables_for_histograms_are_extended_under_the_programs_that_use_them() {
    if !privileged("root_tables_for_histograms_are_extended_under_the_programs_that_use_them") {
        return;
    }
    use ippm::flow::Leg;
    use ippm::packet::tcp_flag::{ACK, SYN};
    use ippm::testpackets::Frame;
    let set = Set::create(SetSpec { flows: 1024, pairs: 256, hists: 4, ..small() }).unwrap();
    // a handshake has a round trip away and one near
    let shake = |peers: std::ops::Range<u8>, port: u16| {
        for n in peers {
            let (here, there) = ([10, 0, 0, 1].into(), [10, 0, 1, n].into());
            let out = |seq, ack, flags| Frame::between(here, there).tcp((port, 80), seq, ack, flags).build();
            let back = Frame::between(there, here).tcp((80, port), 500, 101, SYN | ACK).build();
            set.test_run(Direction::Tx, &out(100, 0, SYN), 1, 0).unwrap();
            set.test_run(Direction::Rx, &back, 1, 0).unwrap();
            set.test_run(Direction::Tx, &out(101, 501, ACK), 1, 0).unwrap();
        }
    };
    shake(0..40, 1000);
    let counters = set.counters().unwrap();
    assert_eq!((counters.hists, counters.hist_full), (4, 76));
    for slots in [8, 16, 32, 64, 128, 256] {
        assert_eq!(set.extend(tap::Extensible::Histograms, None).unwrap(), slots);
    }
    // the same pairs again, each in a new connection
    let mut before = Reader::new(set.descriptors().unwrap()).unwrap();
    before.scan().unwrap();
    shake(0..40, 2000);
    let counters = set.counters().unwrap();
    assert_eq!((counters.hists, counters.hist_full), (80, 76));
    let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
    for scan in [reader.scan().unwrap(), before.scan().unwrap()] {
        assert_eq!(
            scan.rtts.iter().map(|r| r.histogram.count()).sum::<u64>(),
            84,
            "four pairs' legs had one"
        );
        assert_eq!(scan.set.rtt_samples, 84);
    }
    assert!(set.spec().hist_slots() == 256);
    let found = set.find(|_, _, _| true).unwrap();
    for id in &found.pairs {
        let (pair, rtts) = set.pair_now(id.slot).unwrap().unwrap();
        for leg in [Leg::AwayHandshake, Leg::NearHandshake] {
            assert!(rtts[usize::from(leg.number())].as_ref().is_some_and(|h| h.count() >= 1), "{pair:?}");
        }
    }
    // they go with their pairs, wherever they are
    let end = found.flows.iter().map(|id| Command::EndFlow(*id, Timestamp::MAX));
    set.janitor().run(&end.collect::<Vec<_>>()).unwrap();
    Janitor::grace_period();
    let mut free: Vec<_> =
        found.flows.iter().map(|id| Command::FreeFlow(*id, EndReason::ForcedEnd)).collect();
    free.extend(found.pairs.iter().flat_map(|id| [Command::EndPair(*id), Command::FreePair(*id)]));
    set.janitor().run(&free).unwrap();
    assert_eq!(set.counters().unwrap().hists, 0);
    let scan = reader.scan().unwrap();
    assert_eq!((scan.set.rtt_samples, scan.rtts.len()), (84, 0));
}

#[test]
fn root_a_flow_brings_its_new_pair_all_that_it_counted() {
    if !privileged("root_a_flow_brings_its_new_pair_all_that_it_counted") {
        return;
    }
    let set = Set::create(SetSpec { pairs: 1, ..small() }).unwrap();
    let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
    for n in [1, 2, 2, 2] {
        set.test_run(Direction::Tx, &to_peer(n), 1, 0).unwrap();
    }
    let scan = reader.scan().unwrap();
    assert_eq!((scan.pairs.len(), scan.set.unpaired), (1, 1));
    let (first, second) =
        (scan.flows.iter().find(|f| f.pair.is_some()), scan.flows.iter().find(|f| f.pair.is_none()));
    let (first, second, pair) = (first.unwrap().id, second.unwrap().id, scan.pairs[0].id);
    // the only place becomes free
    set.janitor().run(&[Command::EndFlow(first, Timestamp::MAX), Command::EndPair(pair)]).unwrap();
    Janitor::grace_period();
    set.janitor().run(&[Command::FreeFlow(first, EndReason::ForcedEnd), Command::FreePair(pair)]).unwrap();
    set.janitor().run(&[Command::PairFlow(second)]).unwrap();
    let scan = reader.scan().unwrap();
    assert_eq!((scan.set.unpaired, scan.set.pairs, scan.set.no_pair), (0, 1, 1));
    let [pair] = &scan.pairs[..] else { panic!("{:?}", scan.pairs) };
    assert_eq!((pair.counters.tx.packets, pair.flows, pair.active_flows), (3, 1, 1));
    assert_eq!(scan.flows.iter().map(|f| f.pair).collect::<Vec<_>>(), [Some(pair.id.slot)], "the flow tells");
    // nothing is doubled once it ends
    set.janitor().run(&[Command::EndFlow(second, Timestamp::MAX)]).unwrap();
    Janitor::grace_period();
    set.janitor().run(&[Command::FreeFlow(second, EndReason::ForcedEnd)]).unwrap();
    let scan = reader.scan().unwrap();
    assert_eq!((scan.pairs[0].counters.tx.packets, scan.pairs[0].active_flows), (3, 0));

    // and whose flow ends without one is told with it
    set.test_run(Direction::Tx, &to_peer(3), 1, 0).unwrap();
    let third = reader.scan().unwrap().flows[0].id;
    set.janitor().run(&[Command::EndFlow(third, Timestamp::MAX)]).unwrap();
    Janitor::grace_period();
    set.janitor().run(&[Command::FreeFlow(third, EndReason::IdleTimeout)]).unwrap();
    let is_end = |e: &&FlowEvent| matches!(e.kind, FlowEventKind::End(_));
    let told: Vec<_> = reader.events(64).flows.iter().filter(is_end).map(|e| (e.id, e.unpaired)).collect();
    assert_eq!(told, [(first, false), (second, false), (third, true)]);
}

/// Flows and their pair are freed together while a reader is in the middle of its scan: what it knows of them must go
/// together, too, or the slot's next pair begins with less than nothing.
#[test]
fn root_a_scan_that_meets_the_janitor_counts_nothing_twice_or_less_than_nothing() {
    if !privileged("root_a_scan_that_meets_the_janitor_counts_nothing_twice_or_less_than_nothing") {
        return;
    }
    use std::sync::atomic::{AtomicBool, Ordering};
    // one slot for pairs, so that each life follows the other in it
    let set = Set::create(SetSpec { flows: 4096, pairs: 1, ..small() }).unwrap();
    let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
    let mut scans = Reader::new(set.descriptors().unwrap()).unwrap();
    let stop = AtomicBool::new(false);
    let frames: Vec<Vec<u8>> = (0..16).map(|n| udp(100 + n, 2, 50)).collect();
    let most = frames.iter().map(|f| f.len() as u64).sum::<u64>();
    std::thread::scope(|scope| {
        let scanning = scope.spawn(|| {
            let mut seen = 0u64;
            while !stop.load(Ordering::Relaxed) {
                for pair in scans.scan().into_iter().flat_map(|s| s.pairs) {
                    seen += 1;
                    let bytes = pair.counters.tx.bytes;
                    assert!(
                        bytes <= most,
                        "after {seen} readings: {bytes} of at most {most} bytes, {pair:?}"
                    );
                }
            }
            seen
        });
        let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
        let mut lives = 0u64;
        while std::time::Instant::now() < until && !scanning.is_finished() {
            for frame in &frames {
                set.test_run(Direction::Tx, frame, 1, 0).unwrap();
            }
            let scan = reader.scan();
            let Some(scan) = scan else { continue };
            let flows: Vec<_> = reader.live_flows().map(|f| f.id).collect();
            let mut commands: Vec<Command> =
                flows.iter().map(|id| Command::EndFlow(*id, Timestamp::MAX)).collect();
            commands.extend(flows.iter().map(|id| Command::FreeFlow(*id, EndReason::ForcedEnd)));
            commands
                .extend(scan.pairs.iter().flat_map(|p| [Command::EndPair(p.id), Command::FreePair(p.id)]));
            set.janitor().run(&commands).unwrap();
            lives += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let seen = scanning.join().unwrap();
        println!("{lives} lives of a pair, read {seen} times");
        assert!(lives > 100 && seen > 50, "{lives} lives, {seen} readings");
    });
}
