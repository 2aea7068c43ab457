use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::question::{OUTSTANDING, Questions, dns};
use super::spin::SpinFollower;
use super::stamps::StampFollower;
use super::table::{BiKey, Ended, FlowTable, Limits};
use super::tcp::{Method, Place, TcpFollower};
use crate::flow::EndReason;
use crate::model::Captured;
use crate::model::law::Delay;
use crate::model::packet::Ends;
use crate::model::path::Path;
use crate::model::tcp::{Connection, run};
use crate::packet::{Class, Tcp, parse};

/// The segments of a capture, as the parser reads them from frames.
fn segments(seen: &[Captured]) -> Vec<(bool, u64, Tcp, u16)> {
    seen.iter()
        .map(|c| {
            let Class::Ip(ip) = parse(&c.packet.frame(Ends::default())).class else { panic!("IP") };
            (c.packet.forward, c.ns, ip.tcp.expect("TCP"), ip.ip_id)
        })
        .collect()
}

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Each round trip is that of a segment which passed once, and of the first acknowledgement that covers it; at both
/// ports, with loss, reordering and offload. Found by brute force over the whole capture.
#[test]
fn round_trips_are_those_that_brute_force_finds() {
    for seed in 0..16 {
        let loss = [0.0, 0.005, 0.02, 0.05][seed as usize % 4];
        let path = Path::clean(Delay::Exponential { base: 80_000, mean: 30_000 })
            .losing(loss)
            .reordering(0.003, 150_000);
        let mut law = Connection::over(path, path, seed);
        (law.forward_bytes, law.reverse_bytes) = (300_000, 60_000);
        for law in [law, law.offloaded()] {
            let outcome = run(&law);
            for seen in [&outcome.client, &outcome.server] {
                let all = segments(seen);
                let mut follower = TcpFollower::default();
                let mut found = 0;
                for (i, (forward, ns, tcp, id)) in all.iter().enumerate() {
                    let told = follower.segment(*forward, tcp, *id, true, *ns);
                    let Some(trip) = told.round_trip else { continue };
                    found += 1;
                    assert_eq!(trip.forward, !forward);
                    let began = ns - trip.ns;
                    // The timed segment: it passed when the round trip began, the other way, once.
                    let timed = all[..i]
                        .iter()
                        .filter(|(f, at, t, _)| {
                            *f == trip.forward && *at == began && t.payload + u32::from(t.flags & 2) > 0
                        })
                        .find(|(f, _, t, _)| {
                            let length = t.payload + u32::from(t.flags & 2 != 0);
                            let end = t.seq.wrapping_add(length);
                            let first_cover = all.iter().position(|(g, at, a, _)| {
                                *g != *f && *at >= began && a.flags & 16 != 0 && !before(a.ack, end)
                            });
                            let times = all[..i]
                                .iter()
                                .filter(|(g, _, o, _)| {
                                    *g == *f
                                        && o.payload + u32::from(o.flags & 2 != 0) > 0
                                        && before(o.seq, end)
                                        && before(
                                            t.seq,
                                            o.seq.wrapping_add(o.payload + u32::from(o.flags & 2 != 0)),
                                        )
                                })
                                .count();
                            first_cover == Some(i) && times == 1
                        });
                    assert!(timed.is_some(), "seed {seed}: {trip:?} at {ns}");
                }
                assert!(found >= 3, "seed {seed}: {found}");
            }
        }
    }
}

/// Each round trip by time stamps ends with the first echo of a TSval and began with the first segment that had it; and that
/// segment, or one like it that passed in the same tick, did arrive before the echo left. With loss, reordering, offload and
/// delayed acknowledgements, at both ports.
#[test]
fn time_stamps_give_round_trips_that_were() {
    let mut all_found = 0;
    for seed in 0..16 {
        let loss = [0.0, 0.005, 0.02, 0.05][seed as usize % 4];
        let path = Path::clean(Delay::Exponential { base: 80_000, mean: 30_000 })
            .losing(loss)
            .reordering(0.003, 150_000);
        let mut law = Connection::over(path, path, seed);
        law.ack_delay_ns = if seed % 2 == 0 { 0 } else { 4_000_000 };
        for law in [law, law.offloaded()] {
            let outcome = run(&law);
            for seen in [&outcome.client, &outcome.server] {
                let all = segments(seen);
                let mut follower = StampFollower::default();
                for (i, (forward, ns, tcp, _)) in all.iter().enumerate() {
                    let Some(trip) = follower.segment(*forward, tcp, *ns) else { continue };
                    all_found += 1;
                    assert_eq!((trip.forward, trip.method), (!forward, Method::TimeStamps));
                    let (began, echo) = (ns - trip.ns, tcp.timestamps.expect("the model has them").echo);
                    let with = |value: u32| {
                        move |(f, _, t, _): &&(bool, u64, Tcp, u16)| {
                            f != forward && t.timestamps.is_some_and(|stamps| stamps.value == value)
                        }
                    };
                    let first = all.iter().find(with(echo)).expect("a segment with this TSval");
                    assert_eq!(first.1, began, "seed {seed}");
                    let echoes = |(f, at, t, _): &&(bool, u64, Tcp, u16)| {
                        f == forward && *at >= began && t.timestamps.is_some_and(|stamps| stamps.echo == echo)
                    };
                    assert_eq!(all.iter().position(|s| echoes(&s)), Some(i), "seed {seed}");
                    let tick = |at: u64| (at / 1_000_000) as u32;
                    assert!(outcome.journeys.iter().any(|j| {
                        j.forward != *forward
                            && tick(j.sent_ns) == echo
                            && j.arrival_ns.or(j.copy_ns).is_some_and(|arrival| arrival <= *ns)
                    }));
                }
            }
        }
    }
    assert!(all_found > 400, "{all_found}");
}

/// Without loss and reordering, a round trip by time stamps is what passed there, in the stack and back: the truth of the journeys.
#[test]
fn on_a_clean_path_time_stamps_are_exact() {
    let path = Path::clean(Delay::Exponential { base: 2_000_000, mean: 300_000 });
    let outcome = run(&Connection::over(path, path, 3));
    let mut follower = StampFollower::default();
    let mut found = 0;
    for (forward, ns, tcp, _) in segments(&outcome.client) {
        let Some(trip) = follower.segment(forward, &tcp, ns).filter(|trip| trip.forward) else { continue };
        found += 1;
        let timed =
            outcome.journeys.iter().find(|j| j.forward && j.sent_ns == ns - trip.ns).expect("it was sent");
        let there = timed.arrival_ns.expect("nothing is lost") - timed.sent_ns;
        let answers = outcome.journeys.iter().filter(|j| !j.forward && j.arrival_ns == Some(ns));
        let answer = answers.min_by_key(|j| j.sent_ns).expect("an answer");
        assert_eq!(trip.ns, there + 10_000 + (ns - answer.sent_ns), "there, the stack, and back");
    }
    assert!(found > 5, "{found}");
}

/// During loss time stamps find round trips that sequence numbers give up.
#[test]
fn time_stamps_go_on_during_loss() {
    let (mut by_stamps, mut by_numbers) = (0, 0);
    for seed in 0..10 {
        let path = Path::clean(Delay::Exponential { base: 3_000_000, mean: 100_000 });
        let outcome = run(&Connection::over(path.losing(0.05), path, seed));
        let (mut stamps, mut numbers) = (StampFollower::default(), TcpFollower::default());
        for (forward, ns, tcp, id) in segments(&outcome.client) {
            by_stamps += u32::from(stamps.segment(forward, &tcp, ns).is_some_and(|trip| trip.forward));
            let told = numbers.segment(forward, &tcp, id, false, ns);
            by_numbers += u32::from(told.round_trip.is_some_and(|trip| trip.forward));
        }
    }
    assert!(by_stamps * 10 > by_numbers * 11, "{by_stamps} {by_numbers}");
}

/// A tick in which data was sent twice, a RST, an option that is not there: no round trip of them.
#[test]
fn what_time_stamps_cannot_tell() {
    let tcp = |seq, flags, payload, value, echo| Tcp {
        seq,
        ack: 0,
        flags,
        payload,
        timestamps: Some(crate::packet::TcpTimestamps { value, echo }),
        timestamps_first: true,
    };
    let mut follower = StampFollower::default();
    assert_eq!(follower.segment(true, &tcp(0, 2, 0, 7, 0), 0), None);
    let shake = follower.segment(false, &tcp(0, 18, 0, 100, 7), 500).expect("SYN to SYN/ACK");
    assert_eq!((shake.ns, shake.forward), (500, true));
    // Sent again within the tick: of which of the two is the echo?
    follower.segment(true, &tcp(1, 16, 100, 9, 100), 1_000);
    follower.segment(true, &tcp(1, 16, 100, 9, 100), 1_400);
    assert_eq!(follower.segment(false, &tcp(1, 16, 0, 101, 9), 2_000), None);
    // Lost, and what was sent later echoed: the older one is given up.
    follower.segment(true, &tcp(101, 16, 100, 10, 101), 3_000);
    assert_eq!(follower.segment(false, &tcp(1, 16, 0, 102, 11), 4_000), None);
    assert_eq!(follower.segment(false, &tcp(1, 16, 0, 102, 10), 4_100), None);
    // A RST says nothing, and neither does TSecr without ACK.
    follower.segment(true, &tcp(201, 16, 100, 12, 102), 5_000);
    assert_eq!(follower.segment(false, &tcp(1, 20, 0, 103, 12), 5_500), None);
    assert_eq!(follower.segment(false, &tcp(1, 0, 0, 103, 12), 5_600), None);
    assert_eq!(follower.segment(false, &tcp(1, 16, 0, 103, 12), 5_700).map(|trip| trip.ns), Some(700));
    let mut middle = StampFollower::default();
    middle.segment(true, &tcp(1, 16, 100, 50, 1), 0);
    assert_eq!(middle.segment(false, &tcp(1, 16, 0, 60, 50), 10), None, "others may have passed before");
    assert_eq!(Method::TimeStamps.as_str(), "passive_tcp_time_stamps");
}

/// What is marked as a delayed acknowledgement was one, and nearly all that were are marked.
#[test]
fn delayed_acknowledgements_are_marked() {
    let path = Path::clean(Delay::Exponential { base: 100_000, mean: 10_000 });
    let (mut marked, mut delayed, mut right) = (0, 0, 0);
    for seed in 0..20 {
        let mut law = Connection::over(path, path, seed);
        // One segment at a time: while both send, data brings acknowledgements along; then each waits alone.
        (law.forward_bytes, law.window, law.ack_delay_ns) = (200_000, 1_448, 4_000_000);
        let outcome = run(&law);
        let mut follower = TcpFollower::default();
        for (forward, ns, tcp, id) in segments(&outcome.client) {
            let told = follower.segment(forward, &tcp, id, true, ns);
            let Some(trip) = told.round_trip.filter(|t| t.forward && t.method == Method::Acknowledgement)
            else {
                continue;
            };
            // The model waits 4 ms; nothing else takes longer than one.
            let waited = trip.ns > 2_000_000;
            marked += u32::from(trip.maybe_delayed);
            delayed += u32::from(waited);
            right += u32::from(trip.maybe_delayed && waited);
        }
    }
    assert!(delayed > 100, "{delayed}");
    assert_eq!((marked, right), (delayed, delayed));
}

/// At the sender's port what is not new was sent again, and all of it is found, without offload and loss of the port
/// itself. At the receiver's port reordering and retransmission are told apart.
#[test]
fn what_was_sent_again_and_what_came_late_are_told_apart() {
    let (mut right, mut all_late, mut called_late) = (0u64, 0u64, 0u64);
    for seed in 0..20 {
        let path = Path::clean(Delay::Constant(100_000)).losing(0.01).reordering(0.01, 60_000);
        let clean = Path::clean(Delay::Constant(100_000));
        let law = Connection::over(path, clean, seed);
        let outcome = run(&law);
        let count = |seen: &[Captured], may_reorder: bool| {
            let mut follower = TcpFollower::default();
            let mut places: BTreeMap<(u32, u64), Place> = BTreeMap::new();
            for (forward, ns, tcp, id) in segments(seen) {
                let told = follower.segment(forward, &tcp, id, may_reorder, ns);
                if forward && tcp.payload > 0 {
                    places.insert((tcp.seq, ns), told.place);
                }
            }
            places
        };
        let again = outcome.journeys.iter().filter(|j| j.forward && j.payload > 0 && j.again).count();
        let at_sender = count(&outcome.client, false);
        let found = at_sender.values().filter(|p| **p == Place::Retransmitted).count();
        assert_eq!(found, again, "seed {seed}");

        let at_receiver = count(&outcome.server, true);
        for (i, j) in outcome.journeys.iter().enumerate().filter(|(_, j)| j.forward && j.payload > 0) {
            let Some(place) = j.arrival_ns.and_then(|ns| at_receiver.get(&(j.seq, ns))) else { continue };
            let overtaken = outcome.journeys[i + 1..]
                .iter()
                .any(|o| o.forward && o.payload > 0 && o.arrival_ns.is_some() && o.arrival_ns < j.arrival_ns);
            match place {
                Place::Reordered => {
                    called_late += 1;
                    right += u64::from(overtaken);
                }
                Place::Retransmitted => assert!(j.again, "seed {seed}: {j:?}"),
                _ => {}
            }
            all_late += u64::from(overtaken && !j.again);
        }
    }
    assert!(all_late > 50);
    assert_eq!(right, called_late, "what is called late was late");
    assert!(called_late * 100 >= all_late * 95, "{called_late} of {all_late} were found");
}

#[test]
fn a_new_connection_on_old_ports_is_told() {
    let tcp = |seq, flags| Tcp { seq, ack: 0, flags, payload: 0, timestamps: None, timestamps_first: false };
    let mut follower = TcpFollower::default();
    assert!(!follower.is_reuse(true, &tcp(100, 2)));
    follower.segment(true, &tcp(100, 2), 0, true, 1);
    assert!(!follower.is_reuse(true, &tcp(100, 2)), "the same SYN again");
    assert!(follower.is_reuse(true, &tcp(5_000, 2)));
    assert!(!follower.is_reuse(true, &tcp(5_000, 16)));
}

#[test]
fn questions_are_timed_once() {
    let mut questions = Questions::default();
    questions.ask(7, 1_000);
    assert_eq!(questions.answer(8, 1_500), None);
    assert_eq!(questions.answer(7, 3_000), Some(2_000));
    assert_eq!(questions.answer(7, 4_000), None, "one answer a question");
    questions.ask(9, 1_000);
    questions.ask(9, 2_000);
    assert_eq!(questions.answer(9, 3_000), None, "to which of the two?");
    for number in 0..=OUTSTANDING as u16 {
        questions.ask(100 + number, 0);
    }
    assert_eq!((questions.answer(100, 9), questions.given_up()), (None, 1));
    assert_eq!(dns(&[0x12, 0x34, 0x81, 0, 0, 1, 0, 0, 0, 0, 0, 0]), Some((0x1234, true)));
    assert_eq!(dns(&[0; 11]), None);
}

/// An endpoint pair that spins over a path of known delay: every round trip is the path's, to a packet's distance.
#[test]
fn the_spin_bit_gives_the_round_trip() {
    let (there, back, every) = (3_000_000u64, 2_000_000u64, 200_000u64);
    let mut follower = SpinFollower::default();
    let long = |version: u32| {
        let mut bytes = vec![0xc3];
        bytes.extend(version.to_be_bytes());
        bytes
    };
    assert_eq!(follower.datagram(true, &[0x60, 1], 0), None, "not known to be QUIC");
    follower.datagram(true, &long(1), 0);
    // What the client sends at t is the inverse of what the server sent back, which is what the client sent before.
    let spin = |t: u64| t / (there + back) % 2 == 1;
    let mut trips = Vec::new();
    for t in (0..200_000_000u64).step_by(every as usize) {
        let first = 0x40 | if spin(t) { 0x20 } else { 0 };
        trips.extend(follower.datagram(true, &[first, 9], t));
    }
    assert!(trips.len() >= 38);
    assert!(trips.iter().all(|took| took.abs_diff(there + back) <= every), "{trips:?}");
    assert!(!follower.looks_random());
    let mut dice = crate::model::random::Dice::new(3);
    let mut random = SpinFollower::default();
    random.datagram(true, &long(1), 0);
    for t in 0..500 {
        random.datagram(true, &[0x40 | (dice.bits() as u8 & 0x20)], t * every);
    }
    assert!(random.looks_random());
}

fn key(n: u16) -> BiKey {
    BiKey::of((IpAddr::from([10, 0, 0, 1]), n), (IpAddr::from([10, 0, 0, 2]), 80), 6, 0).0
}

#[test]
fn both_directions_have_one_key() {
    let (a, b) = ((IpAddr::from([10, 0, 0, 1]), 1), (IpAddr::from([10, 0, 0, 1]), 2));
    let ((there, straight), (back, other)) = (BiKey::of(a, b, 6, 0), BiKey::of(b, a, 6, 0));
    assert_eq!(there, back);
    assert_ne!(straight, other);
    assert_ne!(there, BiKey::of(a, b, 17, 0).0);
    assert_ne!(there, BiKey::of(a, b, 6, 5).0);
}

proptest! {
    /// Against a naive table: the same flows with the same packets end for the same reasons.
    #[test]
    fn behaves_as_a_naive_table(
        steps in prop::collection::vec((0u16..12, 0u64..40, 0u8..20), 0..300),
        flows in 1usize..8,
    ) {
        let limits = Limits { flows, idle_ns: 50 };
        let mut table: FlowTable<(u16, u64)> = FlowTable::new(limits, 3);
        let mut naive: Vec<(u16, u64, u64, u64)> = Vec::new(); // key, packets, first, last; least recent first
        let (mut ends, mut expected) = (Vec::new(), Vec::new());
        let mut now = 0;
        for (n, later, kind) in steps {
            now += later;
            let mut ended = |e: Ended<(u16, u64)>| ends.push((e.value.0, e.value.1, e.first_ns, e.last_ns, e.reason));
            if kind == 0 {
                table.end(key(n), EndReason::EndOfFlowDetected, &mut ended);
                if let Some(at) = naive.iter().position(|f| f.0 == n) {
                    let f = naive.remove(at);
                    expected.push((f.0, f.1, f.2, f.3, EndReason::EndOfFlowDetected));
                }
                continue;
            }
            table.packet(key(n), now, || (n, 0), &mut ended).1 += 1;
            while naive.first().is_some_and(|f| now - f.3 >= 50) {
                let f = naive.remove(0);
                expected.push((f.0, f.1, f.2, f.3, EndReason::IdleTimeout));
            }
            match naive.iter().position(|f| f.0 == n) {
                Some(at) => {
                    let f = naive.remove(at);
                    naive.push((n, f.1 + 1, f.2, now));
                }
                None => {
                    if naive.len() == flows {
                        let f = naive.remove(0);
                        expected.push((f.0, f.1, f.2, f.3, EndReason::LackOfResources));
                    }
                    naive.push((n, 1, now, now));
                }
            }
            prop_assert_eq!(table.len(), naive.len());
        }
        table.finish(&mut |e| ends.push((e.value.0, e.value.1, e.first_ns, e.last_ns, e.reason)));
        expected.extend(naive.iter().map(|f| (f.0, f.1, f.2, f.3, EndReason::ForcedEnd)));
        prop_assert_eq!(ends, expected);
        prop_assert!(table.is_empty());
    }

    #[test]
    fn any_segments_are_followed_without_panic(
        all in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u32>(), any::<u8>(), any::<u32>(), any::<u64>()), 0..60),
    ) {
        let mut follower = TcpFollower::default();
        for (forward, seq, ack, flags, payload, ns) in all {
            let tcp = Tcp { seq, ack, flags, payload, timestamps: None, timestamps_first: false };
            follower.is_reuse(forward, &tcp);
            follower.segment(forward, &tcp, seq as u16, true, ns);
        }
    }
}
