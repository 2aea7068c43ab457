use std::net::IpAddr;

use ippm::flow::{Counters, FlowKey, Role, Service};
use ippm::measurement::{PairKey, SlotTag};
use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;

fn at(seconds: f64) -> Timestamp {
    Timestamp((seconds * S as f64) as u64)
}

fn settings() -> MfSettings {
    MfSettings::default()
}

fn live(slot: u32, first: f64, last: f64, flags: [u8; 2]) -> LiveFlow {
    LiveFlow {
        id: SlotTag { slot, tag: 7 },
        first_seen: at(first),
        last_seen: at(last),
        tcp_flags: flags.into(),
        proto: proto::TCP,
        ending: false,
    }
}

fn reason(expiry: Option<Expiry>) -> Option<(EndReason, Timestamp)> {
    expiry.map(|e| match e.of {
        ExpiryOf::Flow(reason) => (reason, e.if_idle_since),
        ExpiryOf::Pair => panic!("a flow was asked about"),
    })
}

#[test]
fn a_silent_flow_ends_by_idle_timeout_and_not_before() {
    let policy = Policy::new(&settings());
    let flow = live(0, 1.0, 10.0, [2, 16]);
    assert_eq!(policy.flow(at(39.9), &flow), None);
    assert_eq!(reason(policy.flow(at(40.0), &flow)), Some((EndReason::IdleTimeout, at(10.0))));
    // the later it is asked, the later the packet may have been that keeps it
    assert_eq!(reason(policy.flow(at(50.0), &flow)), Some((EndReason::IdleTimeout, at(20.0))));
    // UDP carries what look like flags only by mistake of its reader
    let udp = LiveFlow { proto: proto::UDP, tcp_flags: [FIN | RST; 2].into(), ..flow };
    assert_eq!(policy.flow(at(39.0), &udp), None);
}

#[test]
fn a_closed_connection_ends_after_the_linger() {
    let policy = Policy::new(&settings());
    for (flags, closed) in [
        ([FIN | 16, FIN | 16], true),
        ([FIN | 16, 16], false),
        ([16, FIN | 16], false),
        ([RST, 0], true),
        ([2, RST | 16], true),
        ([2 | 16, 2 | 16], false),
    ] {
        let flow = live(3, 1.0, 10.0, flags);
        let expected = closed.then(|| (EndReason::EndOfFlowDetected, at(10.5)));
        assert_eq!(policy.flow(at(11.9), &flow), None, "{flags:?}: it may still answer");
        assert_eq!(reason(policy.flow(at(12.5), &flow)), expected, "{flags:?}");
    }
}

#[test]
fn a_flow_out_of_matching_ends_at_once_and_in_any_case() {
    let policy = Policy::new(&settings());
    let flow = LiveFlow { ending: true, ..live(3, 1.0, 10.0, [2, 0]) };
    assert_eq!(reason(policy.flow(at(10.0), &flow)), Some((EndReason::EndOfFlowDetected, Timestamp::MAX)));
}

proptest! {
    /// The kernel compares a proposal with the flow's last packet. If there was none since the scan it must agree,
    /// and a packet within the timeout before the scan must keep the flow.
    #[test]
    fn the_kernel_agrees_with_a_proposal_exactly_when_it_is_due(
        first in 0..1000 * S, lasted in 0..1000 * S, silent in 0..200 * S, tx: u8, rx: u8, tcp: bool,
    ) {
        let policy = Policy::new(&settings());
        let last_seen = Timestamp(first + lasted);
        let now = Timestamp(last_seen.0 + silent);
        let flow = LiveFlow {
            id: SlotTag { slot: 1, tag: 1 },
            first_seen: Timestamp(first),
            last_seen,
            tcp_flags: [tx, rx].into(),
            proto: if tcp { proto::TCP } else { proto::UDP },
            ending: false,
        };
        let timeout = if tcp && closed(flow.tcp_flags) { 2 * S } else { 30 * S };
        match policy.flow(now, &flow) {
            None => prop_assert!(silent < timeout),
            Some(e) => {
                prop_assert!(silent >= timeout);
                prop_assert!(last_seen <= e.if_idle_since);
                prop_assert!(Timestamp(e.if_idle_since.0 + timeout) <= now);
            }
        }
    }
}

/// Tables as a test wants them.
struct Fake {
    flows: Vec<LiveFlow>,
    quiet: Vec<QuietPair>,
    pairs_used: u32,
}

impl Tables for Fake {
    fn live_flows(&self) -> Box<dyn Iterator<Item = LiveFlow> + '_> {
        Box::new(self.flows.iter().copied())
    }

    fn quiet_pairs(&self) -> Box<dyn Iterator<Item = QuietPair> + '_> {
        Box::new(self.quiet.iter().copied())
    }

    fn fill(&self) -> (u32, u32) {
        (self.flows.len() as u32, self.pairs_used)
    }

    fn spec(&self) -> SetSpec {
        SetSpec { flows: 64, pairs: 16, ..SetSpec::default() }
    }
}

fn empty() -> Fake {
    Fake { flows: Vec::new(), quiet: Vec::new(), pairs_used: 0 }
}

fn function(tables: &Fake) -> FlowFunction {
    FlowFunction::new(&settings(), &tables.spec())
}

fn measured(slot: u32, first: f64, last: f64, packets: u64) -> FlowMeasurement {
    FlowMeasurement {
        key: FlowKey {
            local: IpAddr::from([10, 0, 0, 1]),
            remote: IpAddr::from([10, 0, 0, 2]),
            local_port: 5000,
            remote_port: 80,
            proto: proto::TCP,
            vlan: 0,
            ifindex: 4,
        },
        id: SlotTag { slot, tag: 7 },
        pair: Some(2),
        role: Role::LocalOpened,
        guessed: false,
        first_seen: at(first),
        last_seen: at(last),
        counters: Both::new(Counters::new(100 * packets, packets, 0), Counters::default()),
        tcp_flags: [18, 16].into(),
        retransmitted: Both::default(),
        reordered: 0,
    }
}

fn scan(function: &mut FlowFunction, tables: &Fake, now: f64, flows: Vec<FlowMeasurement>) -> Collected {
    let mut to = Collected::default();
    let mut scan = Scan { taken_at: at(now), flows, ..Scan::default() };
    function.scanned(&mut scan, tables, &mut to);
    assert!(scan.flows.is_empty(), "it is moved, not copied");
    to
}

#[test]
fn a_flow_that_goes_on_is_reported_by_active_timeout_with_its_sums() {
    let tables = empty();
    let mut f = function(&tables);
    assert!(scan(&mut f, &tables, 10.0, vec![measured(5, 9.5, 10.0, 1)]).events.is_empty());
    assert!(scan(&mut f, &tables, 69.0, vec![measured(5, 9.5, 69.0, 60)]).events.is_empty());
    let told = scan(&mut f, &tables, 69.5, vec![measured(5, 9.5, 69.5, 61)]);
    assert_eq!(told.flows.len(), 1, "it is measured beside that");
    let [event] = &told.events[..] else { panic!("{:?}", told.events) };
    assert_eq!(event.kind, FlowEventKind::End(EndReason::ActiveTimeout));
    assert_eq!((event.time, event.first_seen, event.last_seen), (at(69.5), at(9.5), at(69.5)));
    assert_eq!(event.counters.tx, Counters::new(6100, 61, 0), "since it began, not since the last report");
    assert!(scan(&mut f, &tables, 129.0, vec![measured(5, 9.5, 129.0, 100)]).events.is_empty());
    // silent flows are not reported: they did not go on
    assert!(scan(&mut f, &tables, 140.0, vec![]).events.is_empty());
    assert_eq!(scan(&mut f, &tables, 141.0, vec![measured(5, 9.5, 141.0, 101)]).events.len(), 1);
}

#[test]
fn another_life_of_a_slot_begins_its_own_active_timeout() {
    let tables = empty();
    let mut f = function(&tables);
    assert_eq!(scan(&mut f, &tables, 70.0, vec![measured(5, 1.0, 70.0, 1)]).events.len(), 1);
    assert!(scan(&mut f, &tables, 100.0, vec![measured(5, 71.0, 100.0, 1)]).events.is_empty());
    assert_eq!(scan(&mut f, &tables, 131.0, vec![measured(5, 71.0, 131.0, 1)]).events.len(), 1);
}

#[test]
fn a_slot_beyond_the_table_is_measured_and_harms_nothing() {
    let tables = empty();
    let mut f = function(&tables);
    let told = scan(&mut f, &tables, 500.0, vec![measured(64, 1.0, 500.0, 1)]);
    assert_eq!((told.flows.len(), told.events.len()), (1, 0));
}

#[test]
fn expiries_of_flows_are_repeated_until_they_have_gone() {
    let mut tables = empty();
    tables.flows = vec![live(1, 1.0, 5.0, [0, 0]), live(2, 1.0, 39.0, [0, 0])];
    let mut f = function(&tables);
    for now in [40.0, 41.0] {
        let told = scan(&mut f, &tables, now, vec![]);
        assert_eq!(told.expiries.iter().map(|e| e.id.slot).collect::<Vec<_>>(), [1]);
    }
    tables.flows.remove(0);
    assert!(scan(&mut f, &tables, 42.0, vec![]).expiries.is_empty());
}

fn quiet(slot: u32, last: f64) -> QuietPair {
    QuietPair { id: SlotTag { slot, tag: 9 }, last_seen: at(last) }
}

#[test]
fn pairs_give_up_their_records_only_when_records_are_short() {
    let mut tables = empty();
    tables.quiet = vec![quiet(1, 10.0), quiet(2, 300.0)];
    tables.pairs_used = 8;
    let mut f = function(&tables);
    assert!(scan(&mut f, &tables, 700.0, vec![]).expiries.is_empty(), "half full is not more than half full");
    tables.pairs_used = 9;
    assert!(scan(&mut f, &tables, 609.0, vec![]).expiries.is_empty());
    let told = scan(&mut f, &tables, 700.0, vec![]);
    let expected = Expiry { of: ExpiryOf::Pair, id: SlotTag { slot: 1, tag: 9 }, if_idle_since: at(100.0) };
    assert_eq!(told.expiries, [expected]);
}

#[test]
fn a_pair_that_counts_packets_without_flows_is_in_use() {
    let mut tables = empty();
    tables.quiet = vec![quiet(1, 10.0)];
    tables.pairs_used = 16;
    let mut f = function(&tables);
    let pair = |last: f64, tag: u32| PairMeasurement {
        key: PairKey {
            ifindex: 4,
            local: IpAddr::from([10, 0, 0, 1]),
            remote: IpAddr::from([10, 0, 0, 2]),
            proto: proto::UDP,
            role: Role::LocalOpened,
            service: Service::None,
        },
        id: SlotTag { slot: 1, tag },
        guessed: false,
        first_seen: at(1.0),
        last_seen: at(last),
        counters: Both::default(),
        retransmitted: Both::default(),
        reordered: 0,
        flows: 0,
        no_slot: 5,
        active_flows: 0,
    };
    let mut to = Collected::default();
    let mut one = Scan { taken_at: at(650.0), pairs: vec![pair(640.0, 9)], ..Scan::default() };
    f.scanned(&mut one, &tables, &mut to);
    assert_eq!(to.pairs.len(), 1);
    assert!(to.expiries.is_empty());
    assert!(scan(&mut f, &tables, 1239.0, vec![]).expiries.is_empty());
    assert_eq!(scan(&mut f, &tables, 1240.0, vec![]).expiries.len(), 1);
    // what an earlier life of the slot did says nothing about this one
    let mut two = Scan { taken_at: at(1241.0), pairs: vec![pair(1240.0, 8)], ..Scan::default() };
    f.scanned(&mut two, &tables, &mut Collected::default());
    assert_eq!(scan(&mut f, &tables, 1242.0, vec![]).expiries.len(), 1);
}

#[test]
fn what_the_ring_tells_about_flows_is_passed_on() {
    let mut f = function(&empty());
    let mut to = Collected::default();
    let m = measured(1, 1.0, 2.0, 3);
    let event = FlowEvent {
        kind: FlowEventKind::New,
        time: at(1.0),
        key: m.key,
        id: m.id,
        role: m.role,
        guessed: false,
        first_seen: m.first_seen,
        last_seen: m.last_seen,
        counters: m.counters,
        tcp_flags: m.tcp_flags,
        unpaired: false,
    };
    let mut events = Events { flows: vec![event.clone()], ..Events::default() };
    f.happened(&mut events, &mut to);
    assert_eq!(to.events, [event]);
    assert!(events.flows.is_empty());
}
