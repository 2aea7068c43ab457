use tap::PortCensus;

use super::*;
use crate::mc::view::tests::published;

fn packets(n: u64) -> Counters {
    Counters::new(60 * n, n, 0)
}

fn stats(rx: u64, tx: u64) -> LinkStats {
    LinkStats { rx_packets: rx, tx_packets: tx, ..LinkStats::default() }
}

fn ports() -> Vec<PortInfo> {
    published().ports.to_vec()
}

/// Counted from and to the container behind port 7.
fn tables(tx: u64, rx: u64) -> Tables {
    let counted = Counted { flow: Both::new(packets(tx), packets(rx)), ..Counted::default() };
    Tables { ports: HashMap::from([(7, counted)]), no_port: Both::default() }
}

/// Both ports' interfaces; port 8 counted nothing.
fn seen(before: LinkStats, after: LinkStats) -> Seen {
    HashMap::from([(7, (before, after)), (8, Default::default())])
}

fn only(off: &Reckoning) -> &str {
    assert_eq!(off.off.len(), 1, "{off:?}");
    assert!(!off.answer.ledger.balanced);
    &off.off[0]
}

#[test]
fn what_lies_between_the_two_readings_balances() {
    for counted in [100, 103, 105] {
        let r = compare(&ports(), &tables(counted, 0), &seen(stats(100, 0), stats(105, 0)));
        let l = &r.answer.ledger;
        assert!(l.balanced && r.off.is_empty(), "{r:?}");
        assert_eq!((l.observed, l.selected, l.not_selected, l.lost.len()), (counted, counted, 0, 0));
        assert_eq!(r.answer.ports[0].interface_sent_packets, Some(counted));
    }
}

#[test]
fn one_packet_too_few_or_too_many_does_not() {
    let few = compare(&ports(), &tables(99, 0), &seen(stats(100, 0), stats(105, 0)));
    assert_eq!(only(&few), "veth7: 1 packets from the container are missing");
    assert_eq!((few.answer.ledger.observed, few.answer.ledger.selected), (100, 99));
    let many = compare(&ports(), &tables(0, 106), &seen(stats(0, 100), stats(0, 105)));
    assert_eq!(only(&many), "veth7: 1 packets too many to the container");
    assert_eq!(many.answer.ports[0].interface_received_packets, Some(105));
}

#[test]
fn a_surplus_here_does_not_make_up_for_a_lack_there() {
    let both = HashMap::from([(7, (stats(5, 0), stats(5, 0))), (8, (stats(5, 0), stats(5, 0)))]);
    let mut t = tables(6, 0);
    t.ports.insert(8, Counted { pair: Both::new(packets(4), packets(0)), ..Counted::default() });
    let r = compare(&ports(), &t, &both);
    assert_eq!(r.answer.ledger.observed, r.answer.ledger.selected, "the sums agree by accident");
    assert!(!r.answer.ledger.balanced);
    assert_eq!(r.off.len(), 2, "{r:?}");
}

#[test]
fn counting_begins_at_the_baseline() {
    let mut ports = ports();
    ports[0].baseline = Some((stats(40, 7), stats(40, 7)));
    assert!(compare(&ports, &tables(60, 3), &seen(stats(100, 10), stats(100, 10))).answer.ledger.balanced);
    assert!(!compare(&ports, &tables(61, 3), &seen(stats(100, 10), stats(100, 10))).answer.ledger.balanced);
    // 20 passed while the tap was put on
    ports[0].baseline = Some((stats(20, 7), stats(40, 7)));
    let at = |n| compare(&ports, &tables(n, 3), &seen(stats(100, 10), stats(100, 10))).answer.ledger.balanced;
    assert!(at(60) && at(80), "any of them may have been seen");
    assert!(!at(10) && !at(130), "but not many more than that");
}

#[test]
fn refused_by_the_far_end_is_seen_by_the_tap_only() {
    let dropped = LinkStats { tx_packets: 10, tx_dropped: 3, ..LinkStats::default() };
    assert!(compare(&ports(), &tables(0, 13), &seen(dropped, dropped)).answer.ledger.balanced);
    assert!(!compare(&ports(), &tables(0, 14), &seen(dropped, dropped)).answer.ledger.balanced);
}

#[test]
fn packets_without_a_port_record_are_lost_and_explained() {
    let mut t = tables(95, 0);
    t.no_port = Both::new(5, 0);
    let r = compare(&ports(), &t, &seen(stats(100, 0), stats(100, 0)));
    assert!(r.answer.ledger.balanced, "{r:?}");
    assert_eq!(r.answer.ledger.lost, BTreeMap::from([("no_port".to_owned(), 5)]));
    t.no_port = Both::new(4, 9);
    assert!(!compare(&ports(), &t, &seen(stats(100, 0), stats(100, 0))).answer.ledger.balanced);
}

#[test]
fn what_cannot_be_compared_is_left_out_and_said() {
    let mut ports = ports();
    ports[0].baseline = None;
    let r = compare(&ports, &tables(1234, 5), &seen(stats(1, 1), stats(1, 1)));
    assert!(r.answer.ledger.balanced);
    assert_eq!(r.without_baseline, ["veth7"]);
    assert_eq!(r.answer.ports[0].interface_sent_packets, None);
    // a port that went while we read
    let r = compare(&ports, &tables(1234, 5), &HashMap::new());
    assert!(r.answer.ports.is_empty() && r.answer.ledger.observed == 0);
}

#[test]
fn a_packet_counts_once_wherever_it_lies() {
    let mut classes = Both::new([Counters::default(); 5], [Counters::default(); 5]);
    for class in PortClass::ALL {
        classes.tx[usize::from(class.number())] = packets(1 + u64::from(class.number()));
    }
    let mut t = Tables::default();
    // two flows, and 5 packets that found no record of their own
    let here = PortCensus {
        flows: Both::new(packets(20), packets(2)),
        pairs: Both::new(packets(5), packets(0)),
        classes,
    };
    t.add_census(&Census { ports: HashMap::from([(7, here)]), ..Census::default() });
    // the same port in the nursery, and an ended pair
    let before = PortCensus { flows: Both::new(packets(10), packets(1)), ..PortCensus::default() };
    t.add_census(&Census { ports: HashMap::from([(7, before)]), ..Census::default() });
    t.add_settled(&HashMap::from([(7, Both::new(packets(100), packets(0)))]));
    let all = 10 + 10 + 5 + 10 + 100 + 1 + 2 + 3 + 4 + 5;
    let r = compare(&ports(), &t, &seen(stats(all, 3), stats(all, 3)));
    assert!(r.answer.ledger.balanced, "{r:?}");
    let by_class = &r.answer.ports[0].packets_by_class;
    let expected =
        [("arp", 2), ("flow", 33), ("malformed", 4), ("nd", 5), ("other", 3), ("overflow", 1), ("pair", 105)]
            .map(|(k, v)| (k.to_owned(), v));
    assert_eq!(*by_class, BTreeMap::from(expected));
    let l = &r.answer.ledger;
    assert_eq!((l.selected, l.not_selected), (138, 10));
    assert_eq!(l.lost, BTreeMap::from([("malformed".to_owned(), 4), ("overflow".to_owned(), 1)]));
    assert_eq!(l.observed, l.selected + l.not_selected + l.lost.values().sum::<u64>());
}

#[test]
fn a_control_group_is_taken_at_its_word() {
    const GROUP: u32 = 1 << 31 | 9;
    let mut ports = ports();
    (ports[1].ifindex, ports[1].interface, ports[1].baseline) = (GROUP, "cgroup:hosted".into(), None);
    let mut t = tables(5, 0);
    t.ports.insert(GROUP, Counted { flow: Both::new(packets(40), packets(2)), ..Counted::default() });
    let r = compare(&ports, &t, &seen(stats(5, 0), stats(5, 0)));
    let l = &r.answer.ledger;
    assert!(l.balanced && r.without_baseline.is_empty(), "{r:?}");
    assert_eq!((l.observed, l.selected), (47, 47));
    let group = &r.answer.ports[1];
    assert_eq!((group.sent.packets, group.interface_sent_packets), (40, None));
}
