use ippm::flow::{Both, Counters, EndReason, FlowKey, Leg, Role, Service};
use ippm::histogram::Histogram;
use ippm::measurement::{BatchError, FlowEventKind, PairKey, SlotTag};
use proptest::prelude::*;

use super::*;

fn id(slot: u32) -> SlotTag {
    SlotTag { slot, tag: u32::MAX }
}

fn key() -> FlowKey {
    FlowKey {
        local: "2001:db8:ffff:ffff:ffff:ffff:ffff:1".parse().expect("an address"),
        remote: "2001:db8:ffff:ffff:ffff:ffff:ffff:2".parse().expect("an address"),
        local_port: u16::MAX,
        remote_port: u16::MAX,
        proto: 6,
        vlan: 4095,
        ifindex: u32::MAX,
    }
}

const COUNTERS: Both<Counters> = Both {
    tx: Counters { bytes: u64::MAX, packets: u64::MAX, segments: u64::MAX },
    rx: Counters { bytes: u64::MAX, packets: u64::MAX, segments: u64::MAX },
};

fn flow(slot: u32) -> FlowMeasurement {
    FlowMeasurement {
        key: key(),
        id: id(slot),
        pair: Some(slot),
        role: Role::LocalOpened,
        guessed: true,
        first_seen: Timestamp::MAX,
        last_seen: Timestamp::MAX,
        counters: COUNTERS,
        tcp_flags: Both::new(255, 255),
        retransmitted: Both::new(u64::MAX, u64::MAX),
        reordered: u64::MAX,
    }
}

fn pair(slot: u32) -> PairMeasurement {
    PairMeasurement {
        key: PairKey {
            ifindex: u32::MAX,
            local: key().local,
            remote: key().remote,
            proto: 255,
            role: Role::RemoteOpened,
            service: Service::Dns,
        },
        id: id(slot),
        guessed: true,
        first_seen: Timestamp::MAX,
        last_seen: Timestamp::MAX,
        counters: COUNTERS,
        retransmitted: Both::new(u64::MAX, u64::MAX),
        reordered: u64::MAX,
        flows: u64::MAX,
        no_slot: u64::MAX,
        active_flows: u32::MAX,
    }
}

fn event() -> FlowEvent {
    FlowEvent {
        kind: FlowEventKind::End(EndReason::LackOfResources),
        time: Timestamp::MAX,
        key: key(),
        id: id(u32::MAX),
        role: Role::LocalOpened,
        guessed: true,
        first_seen: Timestamp::MAX,
        last_seen: Timestamp::MAX,
        counters: COUNTERS,
        tcp_flags: Both::new(255, 255),
        unpaired: true,
    }
}

fn singleton() -> RttSingleton {
    RttSingleton {
        key: key(),
        id: id(1),
        leg: Leg::Near,
        time: Timestamp::MAX,
        rtt_ns: u64::MAX,
        ack: u32::MAX,
    }
}

fn expiry(slot: u32) -> Expiry {
    Expiry { of: ExpiryOf::Flow(EndReason::IdleTimeout), id: id(slot), if_idle_since: Timestamp::MAX }
}

fn rtt() -> RttMeasurement {
    let counts = (0..400u16).map(|b| (b, u64::from(u32::MAX)));
    let histogram = Histogram::from_counts(counts, u64::MAX, 0, u64::MAX).expect("a histogram");
    RttMeasurement { pair: id(3), leg: Leg::AwayHandshake, histogram }
}

/// A batch at all its limits, with the widest values that a sound monitor can send.
fn full() -> Batch {
    let port = PortMeasurement { ifindex: u32::MAX, counts: Both::new([COUNTERS.tx; 5], [COUNTERS.tx; 5]) };
    Batch {
        sequence: u64::MAX,
        taken_at: Timestamp::MAX,
        more: true,
        set: SetCounters { abi: 1, no_port: COUNTERS, ..SetCounters::default() },
        ports: vec![port; Batch::MAX_PORTS],
        pairs: vec![pair(1); Batch::MAX_PAIRS],
        flows: vec![flow(1); Batch::MAX_FLOWS],
        rtts: vec![rtt(); Batch::MAX_RTTS],
        events: vec![event(); Batch::MAX_EVENTS],
        singletons: vec![singleton(); Batch::MAX_SINGLETONS],
        expiries: vec![expiry(1); Batch::MAX_EXPIRIES],
    }
}

fn from_monitor(batch: Batch) -> FromMonitor {
    FromMonitor::Batch { generation: u64::MAX, batch }
}

#[test]
fn a_batch_at_all_limits_fits_a_message_and_comes_back() {
    let message = from_monitor(full());
    let bytes = encode(&message, MAX_FROM_MONITOR).expect("the limits agree");
    assert!(
        bytes.len() > MAX_FROM_MONITOR / 4,
        "the limit on length is near what the lists need: {}",
        bytes.len()
    );
    let mut frames = Frames::new(MAX_FROM_MONITOR);
    for chunk in bytes.chunks(60_000) {
        assert_eq!(frames.pop::<FromMonitor>(), Ok(None));
        frames.push(chunk);
    }
    let (back, len) = frames.pop::<FromMonitor>().expect("sound").expect("whole");
    assert_eq!(len, bytes.len() - 4);
    assert_eq!(back, message);
    assert_eq!(frames.pop::<FromMonitor>(), Ok(None));
    assert!(frames.buffer.capacity() <= 1 << 20, "the room of a long message is given back");
}

#[test]
fn every_list_is_bounded_while_it_is_decoded() {
    let empty = Batch::default;
    let too_many: [(&str, Batch); 7] = [
        ("ports", {
            let one = full().ports.swap_remove(0);
            Batch { ports: vec![one; Batch::MAX_PORTS + 1], ..empty() }
        }),
        ("pairs", Batch { pairs: vec![pair(1); Batch::MAX_PAIRS + 1], ..empty() }),
        ("flows", Batch { flows: vec![flow(1); Batch::MAX_FLOWS + 1], ..empty() }),
        ("rtts", Batch { rtts: vec![rtt(); Batch::MAX_RTTS + 1], ..empty() }),
        ("events", Batch { events: vec![event(); Batch::MAX_EVENTS + 1], ..empty() }),
        ("singletons", Batch { singletons: vec![singleton(); Batch::MAX_SINGLETONS + 1], ..empty() }),
        ("expiries", Batch { expiries: vec![expiry(1); Batch::MAX_EXPIRIES + 1], ..empty() }),
    ];
    for (what, batch) in too_many {
        let bytes = encode(&from_monitor(batch), MAX_FROM_MONITOR).expect("short enough to send");
        assert!(matches!(decode::<FromMonitor>(&bytes[4..]), Err(FrameError::Decode { .. })), "{what}");
    }
}

#[test]
fn messages_come_back_as_they_were() {
    let to = [
        ToMonitor::Hello { version: VERSION, settings: MfSettings::default() },
        ToMonitor::Set { spec: SetSpec::default().into(), generation: 3 },
        ToMonitor::Bye,
    ];
    let mut frames = Frames::new(MAX_TO_MONITOR);
    for message in &to {
        frames.push(&encode(message, MAX_TO_MONITOR).expect("short"));
    }
    for message in to {
        assert_eq!(frames.pop().map(|m| m.map(|(m, _)| m)), Ok(Some(message)));
    }
    let spec = SetSpec {
        flows: 1,
        pairs: 2,
        ports: 4,
        hists: 8,
        pair_extents: 3,
        hist_extents: 2,
        ring_bytes: 4096,
        rtt: true,
        paced: true,
        samples: false,
    };
    assert_eq!(SetSpec::from(SpecOnWire::from(spec)), spec);
    let alive = FromMonitor::Alive(Alive { memory_bytes: Some(5), cpu_ns: 7, scans: 9, ..Alive::default() });
    let bytes = encode(&alive, MAX_FROM_MONITOR).expect("short");
    assert_eq!(decode(&bytes[4..]), Ok(alive));
}

#[test]
fn the_version_is_where_other_versions_look_for_it() {
    let hello =
        encode(&ToMonitor::Hello { version: 5, settings: MfSettings::default() }, 100).expect("short");
    assert_eq!(hello[4..6], [0, 5]);
    let hello = encode(&FromMonitor::Hello { version: 5, pid: 1 }, 100).expect("short");
    assert_eq!(hello[4..], [0, 5, 1]);
}

#[test]
fn what_is_no_message_is_an_error_that_says_so() {
    let mut frames = Frames::new(100);
    frames.push(&101u32.to_le_bytes());
    assert_eq!(frames.pop::<ToMonitor>(), Err(FrameError::TooLong { found: 101, limit: 100 }));

    // an announced length is not believed: there is no room made for it
    let mut frames = Frames::new(MAX_FROM_MONITOR);
    frames.push(&(MAX_FROM_MONITOR as u32).to_le_bytes());
    frames.push(&[0; 10]);
    assert_eq!(frames.pop::<FromMonitor>(), Ok(None));
    assert!(frames.buffer.capacity() < 1000);

    let mut frames = Frames::new(100);
    frames.push(&[2, 0, 0, 0, 0xff, 0xff]);
    assert!(matches!(frames.pop::<ToMonitor>(), Err(FrameError::Decode { len: 2, .. })));

    let mut frames = Frames::new(100);
    frames.push(&[3, 0, 0, 0, 2, 9, 9]);
    assert_eq!(frames.pop::<ToMonitor>(), Err(FrameError::Trailing { extra: 2 }));

    // no message is empty
    let mut frames = Frames::new(100);
    frames.push(&[0; 4]);
    assert!(matches!(frames.pop::<ToMonitor>(), Err(FrameError::Decode { len: 0, .. })));

    assert_eq!(encode(&ToMonitor::Bye, 0), Err(FrameError::TooLong { found: 1, limit: 0 }));
}

#[test]
fn a_list_longer_than_its_message_takes_no_room() {
    // a batch whose list of ports claims 2^35 elements, of which none follows
    let mut bytes = encode(&from_monitor(Batch::default()), MAX_FROM_MONITOR).expect("short")[4..].to_vec();
    bytes.truncate(bytes.len() - 7);
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(matches!(decode::<FromMonitor>(&bytes), Err(FrameError::Decode { .. })));
}

#[test]
fn slots_that_the_set_does_not_have_are_seen() {
    let spec = SetSpec { flows: 8, pairs: 4, ..SetSpec::default() };
    let good = Batch {
        flows: vec![FlowMeasurement { pair: Some(3), ..flow(7) }, FlowMeasurement { pair: None, ..flow(0) }],
        pairs: vec![pair(3)],
        rtts: vec![rtt()],
        expiries: vec![expiry(7), Expiry { of: ExpiryOf::Pair, ..expiry(3) }],
        ..Batch::default()
    };
    assert!(fits(&good, &spec));
    for bad in [
        Batch { flows: vec![FlowMeasurement { pair: None, ..flow(8) }], ..Batch::default() },
        Batch { flows: vec![FlowMeasurement { pair: Some(4), ..flow(1) }], ..Batch::default() },
        Batch { pairs: vec![pair(4)], ..Batch::default() },
        Batch { rtts: vec![RttMeasurement { pair: id(4), ..rtt() }], ..Batch::default() },
        Batch { expiries: vec![expiry(8)], ..Batch::default() },
        Batch { expiries: vec![Expiry { of: ExpiryOf::Pair, ..expiry(4) }], ..Batch::default() },
    ] {
        assert!(!fits(&bad, &spec), "{bad:?}");
    }
}

#[test]
fn settings_leave_a_monitor_time_to_speak() {
    let settings = MfSettings { scan_interval_ms: 0, ..MfSettings::default() };
    assert_eq!(settings.scan_interval(), Duration::from_millis(10));
    assert_eq!(settings.silence(), Duration::from_secs(5));
    let settings = MfSettings { scan_interval_ms: 4000, ..settings };
    assert_eq!(settings.silence(), Duration::from_secs(20));
}

proptest! {
    /// Whatever comes, in whatever pieces: messages or an error, no panic, and never more room than what came.
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 1..50usize) {
        let mut frames = Frames::new(1 << 20);
        let mut pushed = 0;
        for chunk in bytes.chunks(cut) {
            frames.push(chunk);
            pushed += chunk.len();
            if frames.pop::<FromMonitor>().is_err() {
                break;
            }
            prop_assert!(frames.buffer.len() <= pushed);
        }
    }

    /// A sound message with one octet changed decodes to something or is refused; it never panics.
    #[test]
    fn damaged_batches_are_refused_or_harmless(at in 0..2000usize, to: u8) {
        let batch = Batch {
            flows: vec![flow(1), flow(2)],
            pairs: vec![pair(1)],
            rtts: vec![rtt()],
            events: vec![event()],
            singletons: vec![singleton()],
            expiries: vec![expiry(4)],
            ..Batch::default()
        };
        let mut bytes = encode(&from_monitor(batch), MAX_FROM_MONITOR).expect("short")[4..].to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(FromMonitor::Batch { batch, .. }) = decode(&bytes) {
            // its lists are as long as they were; its counters may be nonsense, and are then refused
            let checked = batch.check();
            prop_assert!(matches!(checked, Ok(()) | Err(BatchError::Absurd { .. })), "{:?}", checked);
        }
    }
}
