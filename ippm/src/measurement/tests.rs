use std::time::Duration;

use super::*;
use crate::packet::proto;

fn key() -> FlowKey {
    FlowKey {
        local: IpAddr::from([172, 17, 0, 2]),
        remote: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
        local_port: 65_535,
        remote_port: 443,
        proto: proto::TCP,
        vlan: 0xfff,
        ifindex: u32::MAX,
    }
}

/// Every field at the value that takes the most octets on the wire.
fn widest() -> Batch {
    let id = SlotTag { slot: u32::MAX, tag: u32::MAX };
    let key = FlowKey { local: IpAddr::from([u16::MAX; 8]), remote: IpAddr::from([u16::MAX; 8]), ..key() };
    let most = Batch::MAX_COUNT;
    let big = Counters { bytes: most, packets: most, segments: most };
    let both = Both::new(big, big);
    let (time, count) = (Timestamp::MAX, u64::MAX);
    let set = SetCounters {
        abi: count,
        fold_seq: count,
        flows_begun: count,
        flows_ended: count,
        flow_full: count,
        pair_full: count,
        hist_full: count,
        port_full: count,
        ring_full: count,
        rtt_samples: count,
        probes_cancelled: count,
        no_port: both,
        pairs: count,
        hists: count,
        no_pair: count,
        rtt_unpaired: count,
        unpaired: count,
    };
    let pair = PairMeasurement {
        key: PairKey {
            ifindex: u32::MAX,
            local: key.local,
            remote: key.remote,
            proto: u8::MAX,
            role: Role::RemoteOpened,
            service: Service::Dns,
        },
        id,
        guessed: true,
        first_seen: time,
        last_seen: time,
        counters: both,
        retransmitted: Both::new(Batch::MAX_RARE, Batch::MAX_RARE),
        reordered: Batch::MAX_RARE,
        flows: Batch::MAX_RARE,
        no_slot: Batch::MAX_RARE,
        active_flows: u32::MAX,
    };
    let flow = FlowMeasurement {
        key,
        id,
        pair: Some(u32::MAX),
        role: Role::RemoteOpened,
        guessed: true,
        first_seen: time,
        last_seen: time,
        counters: both,
        tcp_flags: Both::new(255, 255),
        retransmitted: Both::new(Batch::MAX_RARE, Batch::MAX_RARE),
        reordered: Batch::MAX_RARE,
    };
    let counts = (0..crate::histogram::BUCKETS as u16).map(|b| (b, u64::MAX));
    let histogram = Histogram::from_counts(counts, u64::MAX, 63, u64::MAX).unwrap();
    let rtt = RttMeasurement { pair: id, leg: Leg::NearHandshake, histogram };
    let event = FlowEvent {
        kind: FlowEventKind::End(EndReason::LackOfResources),
        time,
        key,
        id,
        role: Role::RemoteOpened,
        guessed: true,
        first_seen: time,
        last_seen: time,
        counters: both,
        tcp_flags: Both::new(255, 255),
        unpaired: true,
    };
    let singleton = RttSingleton { key, id, leg: Leg::NearHandshake, time, rtt_ns: count, ack: u32::MAX };
    let expiry = Expiry { of: ExpiryOf::Flow(EndReason::LackOfResources), id, if_idle_since: time };
    Batch {
        sequence: count,
        taken_at: time,
        more: true,
        set,
        ports: vec![
            PortMeasurement { ifindex: u32::MAX, counts: Both::new([big; 5], [big; 5]) };
            Batch::MAX_PORTS
        ],
        pairs: vec![pair; Batch::MAX_PAIRS],
        flows: vec![flow; Batch::MAX_FLOWS],
        rtts: vec![rtt; Batch::MAX_RTTS],
        events: vec![event; Batch::MAX_EVENTS],
        singletons: vec![singleton; Batch::MAX_SINGLETONS],
        expiries: vec![expiry; Batch::MAX_EXPIRIES],
    }
}

#[test]
fn a_batch_at_every_limit_passes_and_fits() {
    let batch = widest();
    assert_eq!(batch.check(), Ok(()));
    let bytes = postcard::to_stdvec(&batch).unwrap();
    assert!(bytes.len() <= Batch::MAX_ENCODED_BYTES, "{} octets", bytes.len());
    assert_eq!(postcard::from_bytes::<Batch>(&bytes).unwrap(), batch);
}

#[test]
fn a_batch_beyond_any_limit_is_refused() {
    type Grow = fn(&mut Batch);
    let grow: [(Grow, &str); 7] = [
        (|b| b.ports.push(b.ports[0].clone()), "ports"),
        (|b| b.pairs.push(b.pairs[0].clone()), "pairs"),
        (|b| b.flows.push(b.flows[0].clone()), "flows"),
        (|b| b.rtts.push(b.rtts[0].clone()), "histograms"),
        (|b| b.events.push(b.events[0].clone()), "flow events"),
        (|b| b.singletons.push(b.singletons[0].clone()), "singletons"),
        (|b| b.expiries.push(b.expiries[0]), "expiry proposals"),
    ];
    for (grow, name) in grow {
        let mut batch = widest();
        grow(&mut batch);
        let Err(BatchError::TooMany { what, found, limit }) = batch.check() else { panic!("{name} pass") };
        assert_eq!((what, found), (name, limit + 1));
    }
}

#[test]
fn counters_that_cannot_be_are_refused() {
    type Lie = fn(&mut Batch);
    let lies: [Lie; 6] = [
        |b| b.pairs[3].counters.rx.bytes = u64::MAX,
        |b| b.flows[2].counters.tx.packets = Batch::MAX_COUNT + 1,
        |b| b.events[1].counters.tx.segments = u64::MAX - 5,
        |b| b.pairs[0].flows = u64::MAX,
        |b| b.pairs[1].retransmitted.tx = Batch::MAX_RARE + 1,
        |b| b.flows[0].reordered = u64::MAX,
    ];
    for lie in lies {
        let mut batch = widest();
        lie(&mut batch);
        assert!(matches!(batch.check(), Err(BatchError::Absurd { .. })), "{:?}", batch.check());
    }
}

#[test]
fn an_empty_batch_says_so() {
    let mut batch = Batch { sequence: 1, taken_at: Timestamp(5), ..Batch::default() };
    assert!(batch.is_empty());
    batch.expiries.push(Expiry {
        of: ExpiryOf::Pair,
        id: SlotTag { slot: 0, tag: 1 },
        if_idle_since: Timestamp(5).before(Duration::from_nanos(2)),
    });
    assert!(!batch.is_empty());
}

#[test]
fn a_port_is_read_by_direction_and_class() {
    let mut counts = Both::new([Counters::default(); 5], [Counters::default(); 5]);
    counts.rx[3] = Counters::new(60, 1, 0);
    let port = PortMeasurement { ifindex: 7, counts };
    assert_eq!(port.count(Direction::Rx, PortClass::Malformed), Counters::new(60, 1, 0));
    assert!(port.count(Direction::Tx, PortClass::Malformed).is_zero());
}

#[test]
fn json_reads_as_the_catalogue_of_words_says() {
    let expiry = Expiry {
        of: ExpiryOf::Flow(EndReason::IdleTimeout),
        id: SlotTag { slot: 3, tag: 9 },
        if_idle_since: Timestamp(5),
    };
    assert_eq!(
        serde_json::to_string(&expiry).unwrap(),
        r#"{"of":{"flow":"idle_timeout"},"id":{"slot":3,"tag":9},"if_idle_since":5}"#
    );
    assert_eq!(
        serde_json::to_value(key()).unwrap(),
        serde_json::json!({"local": "172.17.0.2", "remote": "fd00::1", "local_port": 65535, "remote_port": 443,
            "proto": 6, "vlan": 4095, "ifindex": u32::MAX})
    );
}
