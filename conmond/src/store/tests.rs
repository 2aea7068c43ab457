use ippm::flow::Service;
use ippm::measurement::PairKey;

use super::*;

const SET: SetId = SetId(1);
const NOW: Timestamp = Timestamp(1_000_000_000_000);

fn names() -> Names {
    let mut names = Names::new("h", Vec::new());
    names.set_container(ContainerName {
        id: "a".into(),
        name: "web".into(),
        tenant: "t".into(),
        service: None,
    });
    names.set_port(7, "veth7", Some("a"));
    names
}

fn pair(slot: u32, first_seen: u64, packets: u64) -> PairMeasurement {
    PairMeasurement {
        key: PairKey {
            ifindex: 7,
            local: [10, 0, 0, 1].into(),
            remote: [10, 0, 0, 2].into(),
            proto: 6,
            role: Role::LocalOpened,
            service: Service::None,
        },
        id: SlotTag { slot, tag: 1 },
        guessed: false,
        first_seen: Timestamp(first_seen),
        last_seen: NOW,
        counters: Both::new(Counters::new(100 * packets, packets, 0), Counters::default()),
        retransmitted: Both::default(),
        reordered: 0,
        flows: 1,
        no_slot: 0,
        active_flows: 1,
    }
}

fn batch(taken_at: u64, pairs: Vec<PairMeasurement>) -> Batch {
    Batch { sequence: 1, taken_at: Timestamp(taken_at), pairs, ..Batch::default() }
}

fn retired(pair: PairMeasurement) -> RetiredPair {
    let names = names();
    RetiredPair {
        life: PairLife { set: SET.0, id: pair.id, first_seen: pair.first_seen },
        local: names.local(pair.key.ifindex, pair.key.local),
        remote: names.remote(pair.key.remote, pair.first_seen, pair.last_seen, Service::None, true),
        record: PairRecord { pair, rtts: [const { None }; 4] },
        via: Vec::new(),
        partial: false,
        is_copy: false,
    }
}

fn store() -> Store {
    Store::new(Duration::from_secs(60))
}

fn sent(store: &Store) -> u64 {
    let (rows, _) = group(store, &names(), conmon::api::Level::Container, &crate::scope::Scope::All);
    rows.iter().map(|r| r.counters.tx.packets).sum()
}

fn at_port(store: &Store, ifindex: u32) -> u64 {
    store.settled().get(&ifindex).map_or(0, |b| b.tx.packets)
}

#[test]
fn a_report_again_or_in_full_changes_nothing() {
    let mut s = store();
    s.apply(SET, &batch(1, vec![pair(0, 5, 10)]));
    s.apply(SET, &batch(1, vec![pair(0, 5, 10)]));
    assert_eq!(sent(&s), 10);
    s.apply(SET, &batch(2, vec![pair(0, 5, 15)]));
    assert_eq!(sent(&s), 15);
}

#[test]
fn a_retired_pair_counts_once_whatever_comes_late() {
    let mut s = store();
    s.apply(SET, &batch(1, vec![pair(0, 5, 10)]));
    s.retire(retired(pair(0, 5, 12)));
    assert_eq!((sent(&s), s.live().count()), (12, 0));
    s.apply(SET, &batch(2, vec![pair(0, 5, 11)]));
    assert_eq!((sent(&s), s.live().count()), (12, 0), "a late report does not bring it back");
    s.apply(SET, &batch(3, vec![pair(0, 6, 3)]));
    s.retire(retired(pair(0, 6, 4)));
    assert_eq!((sent(&s), s.retired().len()), (16, 1), "records of the same ends are one");
}

#[test]
fn rates_are_of_the_newest_interval() {
    let mut s = store();
    let second = 1_000_000_000;
    let rate = |s: &Store| {
        let (rows, interval) = group(s, &names(), conmon::api::Level::Container, &crate::scope::Scope::All);
        rows[0].pair(crate::clock::Wall::now(), interval).sent_packets_per_second
    };
    s.apply(SET, &batch(second, vec![pair(0, 5, 10)]));
    assert_eq!(rate(&s), None);
    s.apply(SET, &batch(3 * second, vec![pair(0, 5, 30)]));
    assert_eq!(rate(&s), Some(10.0));
    // what the ring told between two readings is no reading
    s.apply(SET, &batch(3 * second + second / 2, Vec::new()));
    assert_eq!(rate(&s), Some(10.0));
    // the sign of life that follows a batch is of the same reading, the next one of another
    s.scanned(SET, Timestamp(3 * second + 1000), 0);
    assert_eq!(rate(&s), Some(10.0));
    s.scanned(SET, Timestamp(4 * second), 0);
    assert_eq!(rate(&s), Some(0.0), "a pair that is not in the newest reading had no packets");
}

#[test]
fn a_port_keeps_the_sums_of_what_was_forgotten_until_it_goes() {
    let mut s = store();
    s.retire(retired(pair(0, 5, 10)));
    let mut other = pair(1, 5, 7);
    other.key.remote = [10, 0, 0, 3].into();
    s.retire(retired(other));
    assert!(!s.expire(NOW + Duration::from_secs(60)), "not yet");
    assert!(s.expire(NOW + Duration::from_secs(61)));
    assert_eq!((s.forgotten, sent(&s)), (2, 0), "nobody is shown any more");
    assert_eq!(at_port(&s, 7), 17, "what the port's interface counted is still explained");
    assert!(!s.expire(NOW + Duration::from_secs(1000)));

    // over a restart, by the journal
    let text = serde_json::to_string(s.retired()).unwrap();
    let mut next = store();
    for r in serde_json::from_str::<Vec<RetiredPair>>(&text).unwrap() {
        next.restore(r);
    }
    assert_eq!((at_port(&next, 7), sent(&next)), (17, 0));
    next.retire(retired(pair(2, 9, 1)));
    next.drop_port(SET, 7);
    assert_eq!((at_port(&next, 7), sent(&next)), (0, 1), "the port has gone, the pair's name has not");
    assert!(next.expire(NOW + Duration::from_secs(61)));
    assert!(next.retired().is_empty(), "nothing is kept for a port that has gone");
}

#[test]
fn ports_of_before_are_left_unless_they_are_there() {
    let mut s = store();
    s.retire(retired(pair(0, 5, 10)));
    let mut elsewhere = pair(1, 5, 4);
    elsewhere.key.ifindex = 8;
    s.retire(RetiredPair { local: retired(pair(0, 5, 0)).local, ..retired(elsewhere) });
    assert_eq!(s.retired().len(), 2, "ports that are there are told apart");
    s.keep_ports(|ifindex| ifindex == 8);
    assert_eq!((at_port(&s, 7), at_port(&s, 8), sent(&s)), (0, 4, 14));
    s.keep_ports(|_| false);
    assert_eq!((s.retired().len(), sent(&s)), (1, 14), "the same ends, at no port any more: one");
}

#[test]
fn what_a_set_has_taken_is_counted_by_set() {
    let mut s = store();
    s.apply(SET, &batch(1, vec![pair(0, 5, 1), pair(1, 6, 1)]));
    s.apply(SetId(2), &batch(1, vec![pair(0, 5, 1)]));
    let fills = s.fills();
    assert_eq!((fills[&SET].pairs, fills[&SetId(2)].pairs, fills[&SET].flows), (2, 1, 0));
}

/// A store that knows of two published ports of the host, and a pair of the caller's with the host.
mod translated {
    use ippm::flow::{EndReason, FlowKey};

    use super::*;
    use crate::nat::{Connection, RemoteEnd, Seen};
    use crate::netlink::{Ear, When};

    const HOST: [u8; 4] = [10, 0, 0, 254];

    fn connection(port: u16, called: u16, answers: [u8; 4]) -> Connection {
        let caller = ([10, 0, 0, 1].into(), port);
        Connection {
            proto: 6,
            original: (caller, (HOST.into(), called)),
            reply: ((answers.into(), 80), caller),
        }
    }

    fn flow(slot: u32, port: u16, called: u16, packets: u64) -> FlowMeasurement {
        let (local, remote) = ([10, 0, 0, 1].into(), HOST.into());
        FlowMeasurement {
            key: FlowKey {
                local,
                remote,
                local_port: port,
                remote_port: called,
                proto: 6,
                vlan: 0,
                ifindex: 7,
            },
            id: SlotTag { slot, tag: 9 },
            pair: Some(0),
            role: Role::LocalOpened,
            guessed: false,
            first_seen: Timestamp(5),
            last_seen: NOW,
            counters: Both::new(Counters::new(100 * packets, packets, 0), Counters::default()),
            tcp_flags: Both::default(),
            retransmitted: Both::default(),
            reordered: 0,
        }
    }

    fn end(flow: &FlowMeasurement) -> FlowEvent {
        FlowEvent {
            kind: FlowEventKind::End(EndReason::EndOfFlowDetected),
            time: NOW,
            key: flow.key,
            id: flow.id,
            role: flow.role,
            guessed: false,
            first_seen: flow.first_seen,
            last_seen: flow.last_seen,
            counters: flow.counters,
            tcp_flags: flow.tcp_flags,
            unpaired: false,
        }
    }

    fn pair_with_host(packets: u64, flows: u64) -> PairMeasurement {
        let mut p = pair(0, 5, packets);
        p.key.remote = HOST.into();
        p.flows = flows;
        p
    }

    fn names() -> Names {
        let mut names = super::names();
        for (id, last) in [("b", 2u8), ("c", 3)] {
            names.set_container(ContainerName {
                id: id.into(),
                name: format!("name-{id}"),
                tenant: "t".into(),
                service: None,
            });
            names.set_address([10, 0, 0, last].into(), id, Timestamp::ZERO);
        }
        names.set_host_addresses(vec![HOST.into()]);
        names
    }

    fn rows(store: &Store) -> Vec<(String, u64, Option<u64>, Vec<String>)> {
        let (rows, _) = group(store, &names(), conmon::api::Level::Container, &crate::scope::Scope::All);
        let mut rows: Vec<_> = rows
            .iter()
            .map(|r| r.pair(crate::clock::Wall::now(), None))
            .map(|p| (p.dst.name, p.sent.packets, p.retransmitted_segments, p.via))
            .collect();
        rows.sort();
        rows
    }

    fn with_connections() -> Store {
        let s = store();
        let all = s.translations();
        let mut all = all.lock().unwrap();
        all.open(&connection(4000, 8080, [10, 0, 0, 2]), Timestamp::ZERO);
        all.open(&connection(4001, 8080, [10, 0, 0, 2]), Timestamp::ZERO);
        all.open(&connection(4002, 9090, [10, 0, 0, 3]), Timestamp::ZERO);
        drop(all);
        s
    }

    #[test]
    fn one_published_port_is_the_container_behind_it_with_all_that_is_known() {
        let mut s = with_connections();
        let flows = vec![flow(3, 4000, 8080, 6), flow(4, 4001, 8080, 4)];
        let pairs = vec![pair_with_host(10, 2)];
        s.apply(SET, &Batch { taken_at: Timestamp(1), pairs, flows: flows.clone(), ..Batch::default() });
        let want = [("name-b".to_owned(), 10, Some(0), vec!["10.0.0.254:8080".to_owned()])];
        assert_eq!(rows(&s), want);
        // an ended flow is in its pair still
        let events = vec![end(&flows[0])];
        s.apply(SET, &Batch { taken_at: Timestamp(2), events, ..Batch::default() });
        assert_eq!(rows(&s), want);
    }

    #[test]
    fn what_found_no_pair_has_no_share_of_one_that_comes_later() {
        let unpaired = FlowMeasurement { pair: None, ..flow(4, 4002, 9090, 50) };
        let later = |s: &mut Store| {
            let (pairs, flows) = (vec![pair_with_host(6, 1)], vec![flow(3, 4000, 8080, 6)]);
            s.apply(SET, &Batch { taken_at: Timestamp(3), pairs, flows, ..Batch::default() });
            let want = [("name-b".to_owned(), 6, Some(0), vec!["10.0.0.254:8080".to_owned()])];
            assert_eq!(rows(s), want);
            assert_eq!(s.saved_shares(), []);
        };
        let begun = |s: &mut Store| {
            let flows = vec![unpaired.clone()];
            s.apply(SET, &Batch { taken_at: Timestamp(1), flows, ..Batch::default() });
        };
        let ended = FlowEvent { unpaired: true, ..end(&unpaired) };
        // its end is told
        let mut s = with_connections();
        begun(&mut s);
        s.apply(SET, &Batch { taken_at: Timestamp(2), events: vec![ended.clone()], ..Batch::default() });
        let told = s.ended().last().and_then(|e| e.real.as_ref());
        assert_eq!(told.map(|real| real.place.1), Some(80), "who was at its far end is known all the same");
        later(&mut s);
        // or lost
        let mut s = with_connections();
        begun(&mut s);
        s.drop_flows(SET, &[unpaired.id], Timestamp(2));
        s.scanned(SET, Timestamp(2) + END_COMES + END_COMES, 0);
        assert!(!s.has_translated(SET));
        later(&mut s);
        // or comes after its record was given up while its table grew
        let mut s = with_connections();
        begun(&mut s);
        s.moved(SET, Timestamp(2), Vec::new());
        s.apply(SET, &Batch { taken_at: Timestamp(2), events: vec![ended], ..Batch::default() });
        later(&mut s);
        // who is behind the address may be told later
        let mut s = store();
        s.set_masks([HOST.into()].into());
        let ended = FlowEvent { unpaired: true, ..end(&unpaired) };
        s.apply(SET, &Batch { taken_at: Timestamp(2), events: vec![ended], ..Batch::default() });
        s.translations().lock().unwrap().open(&connection(4002, 9090, [10, 0, 0, 3]), Timestamp::ZERO);
        s.settle_late(NOW);
        assert!(s.ended().last().is_some_and(|e| e.real.is_some()));
        assert_eq!(s.saved_shares(), []);
    }

    #[test]
    fn flows_that_are_too_many_to_be_waited_for_are_counted() {
        let mut s = store();
        let flows: Vec<_> = (0..AWAITED as u32 + 3).map(|slot| flow(slot, 4000, 8080, 1)).collect();
        let read = |s: &mut Store| {
            s.apply(SET, &Batch { taken_at: Timestamp(6), flows: flows.clone(), ..Batch::default() });
        };
        let unresolved = |s: &Store| s.set(SET).unwrap().unresolved;
        read(&mut s);
        assert_eq!(unresolved(&s), 0, "nobody can be behind any address");
        s.set_masks([HOST.into()].into());
        read(&mut s);
        assert_eq!(unresolved(&s), 3);
        let ends = |s: &mut Store, count, at: Timestamp| {
            let events = vec![FlowEvent { time: at, ..end(&flows[0]) }; count];
            s.apply(SET, &Batch { taken_at: at, events, ..Batch::default() });
        };
        ends(&mut s, LATE_FLOWS + 2, NOW);
        assert_eq!(unresolved(&s), 5);
        // those that waited long enough make room for others
        ends(&mut s, LATE_FLOWS, NOW + LATE);
        assert_eq!(unresolved(&s), 5);
        ends(&mut s, 1, NOW + LATE);
        assert_eq!(unresolved(&s), 6);
        // of a set that has gone nobody tells any more
        s.drop_set(SET);
        let other = SetId(SET.0 + 1);
        let events = vec![FlowEvent { time: NOW + LATE, ..end(&flows[0]) }];
        s.apply(other, &Batch { taken_at: NOW + LATE, events, ..Batch::default() });
        assert!(s.set(SET).is_none());
    }

    #[test]
    fn what_was_sent_before_its_connection_was_told_of_has_its_far_end_though_it_is_silent_since() {
        let mut s = store();
        let second = |n: u64| Timestamp(n * 1_000_000_000);
        let flows = vec![flow(3, 4000, 8080, 6)];
        let batch =
            Batch { taken_at: second(1), pairs: vec![pair_with_host(6, 1)], flows, ..Batch::default() };
        s.apply(SET, &batch);
        let at_the_host = [("h".to_owned(), 6, Some(0), vec![])];
        assert_eq!(rows(&s), at_the_host);
        s.scanned(SET, second(2), 1);
        assert_eq!(rows(&s), at_the_host);
        s.translations().lock().unwrap().begin(&connection(4000, 8080, [10, 0, 0, 2]), told(second(2)));
        s.scanned(SET, second(3), 1);
        assert_eq!(rows(&s), [("name-b".to_owned(), 6, Some(0), vec!["10.0.0.254:8080".to_owned()])]);
    }

    #[test]
    fn two_published_ports_are_told_apart_and_sum_up_to_the_record() {
        let mut s = with_connections();
        let flows = vec![flow(3, 4000, 8080, 6), flow(4, 4002, 9090, 3), flow(5, 4005, 22, 2)];
        // a packet that found no flow slot is nobody's but the host's
        let pairs = vec![pair_with_host(12, 3)];
        s.apply(SET, &Batch { taken_at: Timestamp(1), pairs, flows: flows.clone(), ..Batch::default() });
        let want = [
            ("h".to_owned(), 3, None, vec![]),
            ("name-b".to_owned(), 6, None, vec!["10.0.0.254:8080".to_owned()]),
            ("name-c".to_owned(), 3, None, vec!["10.0.0.254:9090".to_owned()]),
        ];
        assert_eq!(rows(&s), want);
        s.apply(SET, &Batch { taken_at: Timestamp(2), events: vec![end(&flows[1])], ..Batch::default() });
        assert_eq!(rows(&s), want);

        // what is saved is taken over, and what goes on is reported anew
        let mut next = with_connections();
        next.restore_shares(
            serde_json::from_str(&serde_json::to_string(&s.saved_shares()).unwrap()).unwrap(),
        );
        let flows = vec![flows[0].clone(), flows[2].clone()];
        let pairs = vec![pair_with_host(12, 3)];
        next.apply(SET, &Batch { taken_at: Timestamp(3), pairs, flows, ..Batch::default() });
        assert_eq!(rows(&next), want);
    }

    #[test]
    fn flows_keep_their_far_ends_when_their_table_grows() {
        let mut s = with_connections();
        let flows = vec![flow(3, 4000, 8080, 6), flow(4, 4002, 9090, 3), flow(5, 4001, 8080, 2)];
        let before = Batch { taken_at: Timestamp(1), flows: flows.clone(), ..Batch::default() };
        s.apply(SET, &Batch { pairs: vec![pair_with_host(11, 3)], ..before.clone() });
        let want = [
            ("name-b".to_owned(), 8, None, vec!["10.0.0.254:8080".to_owned()]),
            ("name-c".to_owned(), 3, None, vec!["10.0.0.254:9090".to_owned()]),
        ];
        assert_eq!(rows(&s), want);
        assert!(s.has_translated(SET) && s.is_translated(SET, flows[0].id));
        // two changed places, one found no room in the larger table
        let moved = |f: &FlowMeasurement, slot| (f.key, SlotTag { slot, tag: 9 }, f.first_seen);
        s.moved(SET, Timestamp(2), vec![moved(&flows[0], 4), moved(&flows[1], 700)]);
        assert_eq!(rows(&s), want);
        assert!(!s.is_translated(SET, flows[0].id) && s.is_translated(SET, SlotTag { slot: 700, tag: 9 }));
        // a reading of before comes late: its places are others' now
        s.apply(SET, &before);
        assert_eq!(rows(&s), want);
        // what goes on is reported from the larger table, and ends there
        let on = FlowMeasurement { id: SlotTag { slot: 700, tag: 9 }, ..flow(0, 4002, 9090, 5) };
        let pairs = vec![pair_with_host(13, 3)];
        let after = Batch { taken_at: Timestamp(3), pairs, flows: vec![on.clone()], ..Batch::default() };
        s.apply(SET, &after);
        s.apply(SET, &Batch { taken_at: Timestamp(4), events: vec![end(&on)], ..Batch::default() });
        let want = [
            (want[0].0.clone(), 8, None, want[0].3.clone()),
            (want[1].0.clone(), 5, None, want[1].3.clone()),
        ];
        assert_eq!(rows(&s), want);
        // the end of the one that found no room comes
        s.apply(SET, &Batch { taken_at: Timestamp(5), events: vec![end(&flows[2])], ..Batch::default() });
        let told = rows(&s);
        assert_eq!(told, want);
        assert_eq!(s.shares_of(SET, &pair_with_host(0, 0).key).values().map(|s| s.flows).sum::<u64>(), 3);
    }

    #[test]
    fn a_flow_is_counted_once_whether_its_record_is_freed_or_its_end_is_told_first() {
        let second = 1_000_000_000;
        let flows = [flow(3, 4000, 8080, 5), flow(4, 4002, 9090, 7)];
        let mut s = with_connections();
        let read = |at: u64| Batch {
            taken_at: Timestamp(at * second),
            pairs: vec![pair_with_host(12, 2)],
            flows: flows.to_vec(),
            ..Batch::default()
        };
        s.apply(SET, &read(1));
        let told = |s: &Store| rows(s).into_iter().map(|r| (r.0, r.1)).collect::<Vec<_>>();
        let want = vec![("name-b".to_owned(), 5), ("name-c".to_owned(), 7)];
        assert_eq!(told(&s), want);
        s.drop_flows(SET, &[flows[0].id, flows[1].id], Timestamp(2 * second));
        assert_eq!(told(&s), want, "freed, and not told of yet");
        let events = vec![end(&flows[0])];
        s.apply(SET, &Batch { taken_at: Timestamp(3 * second), events, ..Batch::default() });
        assert_eq!(told(&s), want, "one is told of");
        s.scanned(SET, Timestamp(3 * second), 0);
        assert_eq!(told(&s), want);
        assert!(s.has_translated(SET), "the other's end may come yet");
        s.scanned(SET, Timestamp(8 * second), 0);
        assert!(!s.has_translated(SET), "it was lost");
        assert_eq!(told(&s), want);
    }

    #[test]
    fn a_pair_that_goes_with_its_flows_takes_their_far_ends_along_and_is_not_told_of_again() {
        let second = 1_000_000_000;
        let flows = [flow(3, 4000, 8080, 5), flow(4, 4002, 9090, 7)];
        let mut s = with_connections();
        s.apply(SET, &batch(1, vec![pair_with_host(12, 2)]));
        flows.iter().for_each(|f| s.last_word(SET, f, Timestamp(2)));
        let record = PairRecord { pair: pair_with_host(12, 2), rtts: [const { None }; 4] };
        let shares = s.shares_of(SET, &record.pair.key);
        for part in split(&record, Both::default(), Some(&shares)) {
            let gone = retired(part.record.pair.clone());
            let far = names().remote(part.real.unwrap().address, Timestamp(5), NOW, Service::None, true);
            s.retire(RetiredPair { remote: far, via: part.via, partial: true, ..gone });
        }
        let told = |s: &Store| rows(s).into_iter().map(|r| (r.0, r.1)).collect::<Vec<_>>();
        let want = vec![("name-b".to_owned(), 5), ("name-c".to_owned(), 7)];
        assert_eq!(told(&s), want);
        // the same addresses begin anew before the ring has told of the former flows' ends
        let again = PairMeasurement { first_seen: NOW + Duration::from_secs(1), ..pair_with_host(3, 1) };
        s.apply(SET, &batch(2 * second, vec![PairMeasurement { id: SlotTag { slot: 9, tag: 2 }, ..again }]));
        let events = flows.iter().map(end).collect();
        s.apply(SET, &Batch { taken_at: Timestamp(3 * second), events, ..Batch::default() });
        let all: u64 = told(&s).iter().map(|r| r.1).sum();
        assert_eq!((all, told(&s)[0].1, told(&s).len()), (15, 3, 3), "{:?}", told(&s));
    }

    #[test]
    fn no_share_is_more_than_the_record() {
        let mut s = with_connections();
        // the flow's report is newer than the pair's
        let (flows, pairs) = (vec![flow(3, 4000, 8080, 20)], vec![pair_with_host(12, 2)]);
        s.apply(SET, &Batch { taken_at: Timestamp(1), pairs, flows, ..Batch::default() });
        let sum: u64 = rows(&s).iter().map(|r| r.1).sum();
        assert_eq!(sum, 12, "{:?}", rows(&s));
    }

    const MS: Duration = Duration::from_millis(1);

    fn told(at: Timestamp) -> When {
        When { after: at, read: at }
    }

    /// A flow's record that was read a few milliseconds after its first packet, with packets both ways.
    fn read_at_once(s: &mut Store) -> FlowMeasurement {
        let mut flow = FlowMeasurement { first_seen: NOW, last_seen: NOW + 4 * MS, ..flow(3, 4000, 8080, 6) };
        flow.counters.rx = flow.counters.tx;
        let (taken_at, pairs, flows) = (NOW + 5 * MS, vec![pair_with_host(6, 1)], vec![flow.clone()]);
        s.apply(SET, &Batch { taken_at, pairs, flows, ..Batch::default() });
        s.scanned(SET, taken_at, 1);
        flow
    }

    /// A store with somebody who listens to the kernel, and has heard nothing yet.
    fn listening() -> (Store, Arc<Ear>, std::io::PipeWriter) {
        let (s, (socket, teller)) = (store(), std::io::pipe().unwrap());
        let ear = Arc::new(Ear::new(socket.into()));
        s.translations().lock().unwrap().hear_by(&ear);
        (s, ear, teller)
    }

    #[test]
    fn a_far_end_that_is_told_just_after_the_reading_is_shown_at_once() {
        let mut s = store();
        s.set_masks([HOST.into()].into());
        let flow = read_at_once(&mut s);
        let by = || vec!["10.0.0.254:8080".to_owned()];
        assert_eq!(rows(&s), [("h".to_owned(), 6, Some(0), vec![])]);
        // the flow is silent from now on: no reading tells of it again
        s.settle_late(NOW + 6 * MS);
        s.scanned(SET, NOW + 1000 * MS, 1);
        assert_eq!(rows(&s), [("h".to_owned(), 6, Some(0), vec![])]);
        let all = s.translations();
        all.lock().unwrap().abroad.insert(Seen::of(&flow.key), ([10, 0, 0, 2].into(), 80), far("x"), NOW);
        s.settle_late(NOW + 1001 * MS);
        assert_eq!(rows(&s), [("x".to_owned(), 6, Some(0), by())]);
        s.apply(SET, &Batch { taken_at: NOW + 2000 * MS, events: vec![end(&flow)], ..Batch::default() });
        assert_eq!(rows(&s), [("x".to_owned(), 6, Some(0), by())]);
    }

    fn named() -> [(String, u64, Option<u64>, Vec<String>); 1] {
        [("name-b".to_owned(), 6, Some(0), vec!["10.0.0.254:8080".to_owned()])]
    }

    #[test]
    fn a_connection_that_the_kernel_tells_of_just_after_the_reading_is_known_though_its_flow_is_silent() {
        let (mut s, ear, _teller) = listening();
        ear.heard(NOW + 5 * MS);
        read_at_once(&mut s);
        s.translations().lock().unwrap().begin(&connection(4000, 8080, [10, 0, 0, 2]), told(NOW + 6 * MS));
        ear.heard(NOW + 1000 * MS);
        s.scanned(SET, NOW + 1000 * MS, 1);
        assert_eq!(rows(&s), named());
    }

    /// Whoever was kept from running reads of flows, and of their ends, before what the kernel told of their connections long ago.
    #[test]
    fn what_was_told_and_not_heard_yet_is_waited_for() {
        let later = NOW + 20_000 * MS;
        for is_over in [false, true] {
            let (mut s, ear, _teller) = listening();
            ear.heard(NOW.before(100 * MS));
            let flow = read_at_once(&mut s);
            if is_over {
                let events = vec![FlowEvent { time: NOW + 10 * MS, ..end(&flow) }];
                s.apply(SET, &Batch { taken_at: NOW + 20 * MS, events, ..Batch::default() });
            }
            s.scanned(SET, later, 1);
            assert_eq!(rows(&s), [("h".to_owned(), 6, Some(0), vec![])]);
            let told = When { after: NOW.before(100 * MS), read: later };
            s.translations().lock().unwrap().begin(&connection(4000, 8080, [10, 0, 0, 2]), told);
            ear.heard(later);
            s.scanned(SET, later + 1000 * MS, 1);
            assert_eq!(rows(&s), named());
            assert!(s.awaited.is_empty() && s.late.is_empty());
        }
    }

    #[test]
    fn who_ended_with_a_pair_that_was_given_up_has_no_share_of_the_next_one() {
        let (mut s, ear, _teller) = listening();
        ear.heard(NOW.before(100 * MS));
        let flow = read_at_once(&mut s);
        let events = vec![FlowEvent { time: NOW + 10 * MS, ..end(&flow) }];
        s.apply(SET, &Batch { taken_at: NOW + 20 * MS, events, ..Batch::default() });
        s.retire(retired(pair_with_host(6, 1)));
        s.translations().lock().unwrap().begin(&connection(4000, 8080, [10, 0, 0, 2]), told(NOW));
        ear.heard(NOW + 1000 * MS);
        s.scanned(SET, NOW + 1000 * MS, 1);
        assert_eq!((s.saved_shares(), s.late.len()), (vec![], 0));
    }

    #[test]
    fn another_flow_in_the_slot_of_one_that_ended_is_waited_for() {
        let mut s = store();
        s.set_masks([HOST.into()].into());
        let before = flow(3, 4001, 8080, 1);
        let flow = read_at_once(&mut s);
        s.apply(SET, &Batch { taken_at: NOW + 6 * MS, events: vec![end(&before)], ..Batch::default() });
        let all = s.translations();
        all.lock().unwrap().abroad.insert(Seen::of(&flow.key), ([10, 0, 0, 2].into(), 80), far("x"), NOW);
        s.settle_late(NOW + 7 * MS);
        assert_eq!(rows(&s)[0].0, "x");
    }

    #[test]
    fn nobody_is_awaited_for_ever() {
        let last_awaited = |masks: &[IpAddr], answered: bool, ear: bool| {
            let (mut s, hears, _teller) = listening();
            hears.heard(NOW + 1_000_000 * MS);
            if !ear {
                s = store();
            }
            s.set_masks(masks.iter().copied().collect());
            let mut flow = read_at_once(&mut s);
            if !answered {
                flow.counters.rx = Counters::default();
                s.apply(SET, &Batch { taken_at: NOW + 6 * MS, flows: vec![flow], ..Batch::default() });
            }
            let awaited = |n: &u32| {
                s.scanned(SET, NOW + *n * 100 * MS, 1);
                !s.awaited.is_empty()
            };
            (1..1000).take_while(awaited).last().map(|n| n * 100 * MS)
        };
        let until = |end: Duration| Some(end - 100 * MS);
        assert_eq!(last_awaited(&[], true, false), None, "nobody tells of anything");
        assert_eq!(last_awaited(&[], true, true), until(FRESH));
        assert_eq!(last_awaited(&[], false, true), until(LATE));
        assert_eq!(last_awaited(&[HOST.into()], true, true), until(ASKED));
    }

    fn far(name: &str) -> Arc<RemoteEnd> {
        let end =
            RemoteEnd { id: Some(format!("{name}-id")), name: name.to_owned(), ..RemoteEnd::of_host("far") };
        Arc::new(RemoteEnd { kind: EndpointKind::Container, ..end })
    }

    #[test]
    fn containers_of_another_host_behind_its_one_address_are_told_apart() {
        let mut s = store();
        let flows = vec![flow(3, 4000, 8080, 6), flow(4, 4001, 9090, 3)];
        let pairs = vec![pair_with_host(9, 2)];
        {
            let all = s.translations();
            let mut all = all.lock().unwrap();
            // both have an address that is somebody else's here
            for (flow, name) in flows.iter().zip(["x", "y"]) {
                let place = ([10, 0, 0, 2].into(), 80);
                all.abroad.insert(Seen::of(&flow.key), place, far(name), Timestamp::ZERO);
            }
        }
        s.apply(SET, &Batch { taken_at: Timestamp(1), pairs, flows: flows.clone(), ..Batch::default() });
        let want = [
            ("x".to_owned(), 6, None, vec!["10.0.0.254:8080".to_owned()]),
            ("y".to_owned(), 3, None, vec!["10.0.0.254:9090".to_owned()]),
        ];
        assert_eq!(rows(&s), want);
        s.apply(SET, &Batch { taken_at: Timestamp(2), events: vec![end(&flows[0])], ..Batch::default() });
        assert_eq!(rows(&s), want);
        let saved = serde_json::to_string(&s.saved_shares()).unwrap();
        let mut next = store();
        next.restore_shares(serde_json::from_str(&saved).unwrap());
        assert_eq!(serde_json::to_string(&next.saved_shares()).unwrap(), saved);
    }
}

/// A flow between two containers began: it is shown before its record is read, and once when that is.
#[test]
fn a_pair_is_told_of_when_its_first_flow_begins() {
    let mut s = store();
    let begun = |at: u64| {
        let key = FlowKey {
            ifindex: 7,
            vlan: 0,
            proto: 6,
            local: [10, 0, 0, 1].into(),
            remote: [10, 0, 0, 2].into(),
            local_port: 4000,
            remote_port: 80,
        };
        FlowEvent {
            kind: FlowEventKind::New,
            time: Timestamp(at),
            key,
            id: SlotTag { slot: 3, tag: 1 },
            role: Role::LocalOpened,
            guessed: false,
            first_seen: Timestamp(at),
            last_seen: Timestamp(at),
            counters: Both::new(Counters::new(100, 1, 1), Counters::default()),
            tcp_flags: Both::default(),
            unpaired: false,
        }
    };
    let tell = |at| Batch { taken_at: Timestamp(at), events: vec![begun(at)], ..Batch::default() };
    s.apply(SET, &tell(10));
    assert_eq!(sent(&s), 1);
    s.apply(SET, &batch(20, vec![pair(0, 10, 5)]));
    assert_eq!(sent(&s), 5, "the record has it all");
    s.scanned(SET, Timestamp(20), 1);
    s.apply(SET, &tell(30));
    assert_eq!(sent(&s), 5, "a further flow of a pair that is known");
    let mut other = store();
    other.set_masks([IpAddr::from([10, 0, 0, 2])].into());
    other.apply(SET, &tell(10));
    assert_eq!(sent(&other), 0, "another host is yet to say who that is");
    other.set_masks(HashSet::new());
    assert_eq!(sent(&other), 1);
    other.scanned(SET, Timestamp(20), 1);
    assert_eq!(sent(&other), 0, "what the reading does not tell was not there");
}
