use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use conmon::api::{self, DelaySummary, EngineStatus, EventKind, FlowState, Monitor, Pool, Speed};
use ippm::flow::{EndReason, FlowKey, Leg, Role, Service};
use ippm::histogram::Histogram;
use ippm::measurement::{
    Batch, FlowEvent, FlowEventKind, FlowMeasurement, PairKey, PairMeasurement, RttMeasurement, SlotTag,
};
use tap::SetSpec;

use super::*;
use crate::mc::shared::Info;
use crate::monitor::Alive;
use crate::runtime::EventTime;
use crate::store::{ContainerName, Names};
use crate::switch::LinkStats;

mod scope;

pub(in crate::mc) const NURSERY: SetId = SetId(1);
pub(in crate::mc) const SHOP: SetId = SetId(2);
const WAITING: SetId = SetId(3);

/// Two containers of a tenant, `web` behind port 7 and `db` behind port 8, their monitor, the nursery and one that waits.
pub(in crate::mc) fn published() -> Published {
    let monitor = |name: &str, tenant: Option<&str>, mode, state| Monitor {
        name: name.to_owned(),
        id: Some(format!("id-{name}")),
        tenant: tenant.map(str::to_owned),
        container: None,
        mode,
        state,
        functions: vec!["flow".to_owned()],
        last_report_at: None,
        last_report_age_seconds: None,
        restarts: 0,
        memory_bytes: None,
    };
    let container = |name: &str| api::Container {
        name: name.to_owned(),
        id: format!("{name}-id"),
        tenant: "shop".to_owned(),
        service: None,
        state: "running".to_owned(),
        networks: Vec::new(),
        monitor: None,
        note: None,
    };
    let set = |id, role: SetRole| SetInfo {
        id,
        tenant: matches!(role, SetRole::Tenant(_)).then(|| "shop".to_owned()),
        role,
        spec: SetSpec { flows: 10, pairs: 10, ports: 10, hists: 10, ..SetSpec::default() },
        max_flows: 10,
        outgrown: 0,
        grows: false,
        extends: [(false, 0); 2],
    };
    let port = |ifindex, interface: &str, name: &str| PortInfo {
        ifindex,
        interface: interface.to_owned(),
        container: Some((format!("{name}-id"), name.to_owned())),
        tenant: Some("shop".to_owned()),
        service: None,
        set: SHOP,
        tapped_at: monotonic(),
        baseline: Some((LinkStats::default(), LinkStats::default())),
    };
    Published {
        engine: EngineStatus {
            name: "docker".to_owned(),
            address: "unix:///var/run/docker.sock".to_owned(),
            connected: true,
            version: Some("29".to_owned()),
            error: None,
        },
        ready: true,
        problems: Vec::new(),
        containers: vec![Arc::new(container("web")), Arc::new(container("db"))],
        monitors: Arc::new(vec![
            (NURSERY, monitor("conmond", None, MonitorMode::Host, MonitorState::Working), Alive::default()),
            (
                SHOP,
                monitor("pm-s2", Some("shop"), MonitorMode::Shared, MonitorState::Working),
                Alive::default(),
            ),
            (WAITING, monitor("pm-s3", None, MonitorMode::Shared, MonitorState::Ready), Alive::default()),
        ]),
        heard: BTreeMap::from([(SHOP, monotonic()), (WAITING, monotonic())]),
        pool: Pool { ready: 1, wanted: 1 },
        sets: Arc::new(vec![
            set(NURSERY, SetRole::Nursery),
            set(SHOP, SetRole::Tenant("shop".to_owned())),
            set(WAITING, SetRole::Pool),
        ]),
        ports: Arc::new(vec![port(7, "veth7", "web"), port(8, "veth8", "db")]),
        attachment: "tcx".to_owned(),
        nat_error: None,
        translations: Default::default(),
        counting_since: Some(Timestamp(1)),
        restarts: BTreeMap::new(),
        gone_monitors_cpu: Duration::ZERO,
        refused: Vec::new(),
        untapped: 0,
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

pub(in crate::mc) fn shared(published: Published) -> Shared {
    let info = Info {
        build: crate::build::Build { version: "0.1.0", revision: None },
        instance: "test".to_owned(),
        host: "h".to_owned(),
        kernel: "6.18.0".to_owned(),
        started_at: monotonic(),
        silence: Duration::from_secs(5),
        retention: Duration::from_secs(60),
    };
    let mut names = Names::new("h", Vec::new());
    for (name, ifindex, last) in [("web", 7, 1), ("db", 8, 2)] {
        let tenant = published.containers.iter().find(|c| c.name == name).map_or("shop", |c| &c.tenant);
        let id = format!("{name}-id");
        names.set_container(ContainerName {
            id: id.clone(),
            name: name.to_owned(),
            tenant: tenant.to_owned(),
            service: None,
        });
        names.set_port(ifindex, &format!("veth{ifindex}"), Some(&id));
        names.set_address(address(last), &id, Timestamp(1));
    }
    Shared::new(info, Store::new(Duration::from_secs(60)), names, published)
}

fn view(published: Published) -> View {
    let shared = Arc::new(shared(published));
    let cost = Cost::start(shared.clone());
    View::new(shared, cost, None)
}

/// An Ethernet frame with a UDP datagram from 10.0.0.1 to 10.0.0.2.
pub(in crate::mc) fn udp(from: u16, to: u16, payload: usize) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend_from_slice(&(28 + payload as u16).to_be_bytes());
    f.extend_from_slice(&[0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend_from_slice(&from.to_be_bytes());
    f.extend_from_slice(&to.to_be_bytes());
    f.extend_from_slice(&(8 + payload as u16).to_be_bytes());
    f.resize(14 + 28 + payload, 0);
    f
}

fn packets(n: u64) -> Counters {
    Counters::new(100 * n, n, 0)
}

fn pair(
    slot: u32,
    ifindex: u32,
    ends: (IpAddr, IpAddr),
    proto: u8,
    role: Role,
    sent: u64,
    received: u64,
) -> PairMeasurement {
    PairMeasurement {
        key: PairKey { ifindex, local: ends.0, remote: ends.1, proto, role, service: Service::None },
        id: SlotTag { slot, tag: 1 },
        guessed: false,
        first_seen: Timestamp(100),
        last_seen: Timestamp(200),
        counters: Both::new(packets(sent), packets(received)),
        retransmitted: Both::new(3, 1),
        reordered: 2,
        flows: 4,
        no_slot: 0,
        active_flows: 1,
    }
}

fn flow(slot: u32, sent: u64) -> FlowMeasurement {
    FlowMeasurement {
        key: FlowKey {
            local: address(1),
            remote: address(2),
            local_port: 40_000 + slot as u16,
            remote_port: 80,
            proto: 6,
            vlan: 0,
            ifindex: 7,
        },
        id: SlotTag { slot, tag: 1 },
        pair: Some(0),
        role: Role::LocalOpened,
        guessed: false,
        first_seen: Timestamp(100),
        last_seen: Timestamp(200),
        counters: Both::new(packets(sent), packets(0)),
        tcp_flags: Both::new(2, 0),
        retransmitted: Both::default(),
        reordered: 0,
    }
}

fn ended(of: &FlowMeasurement) -> FlowEvent {
    FlowEvent {
        kind: FlowEventKind::End(EndReason::IdleTimeout),
        time: Timestamp(300),
        key: of.key,
        id: of.id,
        role: of.role,
        guessed: false,
        first_seen: of.first_seen,
        last_seen: of.last_seen,
        counters: of.counters,
        tcp_flags: of.tcp_flags,
        unpaired: false,
    }
}

/// web opened TCP and UDP to db, an outside peer opened TCP to db.
fn batch() -> Batch {
    let outside = IpAddr::from([8, 8, 8, 8]);
    let mut histogram = Histogram::new();
    histogram.record(2_000_000);
    Batch {
        sequence: 1,
        taken_at: monotonic(),
        pairs: vec![
            pair(0, 7, (address(1), address(2)), 6, Role::LocalOpened, 10, 5),
            pair(1, 7, (address(1), address(2)), 17, Role::LocalOpened, 2, 1),
            pair(2, 8, (address(2), outside), 6, Role::RemoteOpened, 30, 7),
        ],
        rtts: vec![RttMeasurement { pair: SlotTag { slot: 0, tag: 1 }, leg: Leg::Away, histogram }],
        flows: vec![flow(0, 10), flow(1, 50), flow(2, 20)],
        ..Batch::default()
    }
}

#[test]
fn pairs_are_named_and_complete_as_long_as_everybody_reports() {
    let v = view(published());
    v.shared.store().apply(SHOP, &batch());
    let answer = v.pairs(&Scope::All, &PairsQuery::default()).unwrap();
    assert_eq!(answer.hosts, [HostAnswer { name: "h".to_owned(), complete: true }]);
    let ends: Vec<_> =
        answer.pairs.iter().map(|p| (p.src.name.as_str(), p.dst.name.as_str(), p.sent.packets)).collect();
    assert_eq!(
        ends,
        [("external", "db", 7), ("web", "db", 12)],
        "the one with most bytes first, sent is by src"
    );
    assert_eq!(answer.pairs[1].protocols, ["tcp", "udp"]);
    assert_eq!(answer.pairs[1].rtt_seconds.as_ref().unwrap().count, 1);
    assert_eq!(answer.rate_interval_seconds, None, "one reading gives no rates");
    assert_eq!(answer.pairs[1].sent_bytes_per_second, None);
    let some =
        v.pairs(&Scope::All, &PairsQuery { src: Some("web".to_owned()), ..PairsQuery::default() }).unwrap();
    assert_eq!(some.pairs.len(), 1);
    assert_eq!(some.pairs[0].rtt_seconds.as_ref().unwrap().buckets, None, "large, so only on request");
    let query = PairsQuery { histograms: Some(true), ..PairsQuery::default() };
    let rtt = v.pairs(&Scope::All, &query).unwrap().pairs[1].rtt_seconds.clone().unwrap();
    let buckets = rtt.buckets.unwrap();
    assert_eq!(buckets.iter().map(|b| b.count).sum::<u64>(), rtt.count);
    assert!(
        buckets[0].from_seconds <= 0.002 && buckets[0].to_seconds.is_some_and(|to| to > 0.002),
        "{buckets:?}"
    );

    let complete = |p: Published| {
        v.shared.publish(p);
        v.pairs(&Scope::All, &PairsQuery::default()).unwrap().hosts[0].complete
    };
    let mut lost = published();
    lost.engine.connected = false;
    assert!(!complete(lost), "who has started since is not known");
    assert!(complete(published()));
}

#[test]
fn a_monitor_that_does_not_report_is_told_everywhere() {
    let mut p = published();
    let long_ago = monotonic().before(Duration::from_secs(6));
    p.heard.insert(SHOP, long_ago);
    let v = view(p.clone());
    // its word for a time to come is not believed
    v.shared.store().apply(SHOP, &Batch { taken_at: Timestamp::MAX, ..batch() });
    let answer = v.monitors(&Scope::All).unwrap();
    let of = |name: &str| answer.monitors.iter().find(|m| m.name == name).unwrap();
    assert_eq!(of("pm-s2").state, MonitorState::Silent);
    assert!(of("pm-s2").last_report_age_seconds.unwrap() >= 6.0);
    assert_eq!((of("pm-s3").state, of("conmond").state), (MonitorState::Ready, MonitorState::Working));
    assert!(!v.pairs(&Scope::All, &PairsQuery::default()).unwrap().hosts[0].complete);
    assert_eq!(v.health(&Scope::All).status, HealthState::Degraded);
    assert!(v.health(&Scope::All).problems[0].contains("pm-s2"), "{:?}", v.health(&Scope::All));

    let v = view(p);
    v.shared.store().apply(SHOP, &batch());
    assert!(
        v.pairs(&Scope::All, &PairsQuery::default()).unwrap().hosts[0].complete,
        "a report is a sign of life"
    );
    let mut never = published();
    never.heard.remove(&SHOP);
    let v = view(never);
    assert_eq!(
        v.health(&Scope::All).status,
        HealthState::Degraded,
        "one that was never heard is silent, too"
    );
}

#[test]
fn health_follows_readiness_and_problems() {
    let v = view(published());
    assert_eq!((v.health(&Scope::All).status, v.health(&Scope::All).problems), (HealthState::Ok, Vec::new()));
    let mut p = published();
    p.ready = false;
    v.shared.publish(p);
    assert_eq!(v.health(&Scope::All).status, HealthState::Starting);
    let mut p = published();
    p.engine.connected = false;
    v.shared.publish(p);
    assert_eq!(v.health(&Scope::All).status, HealthState::Degraded);
    assert_eq!(v.health(&Scope::All).problems.len(), 1);
}

#[test]
fn containers_come_by_name_and_tenant() {
    let mut p = published();
    Arc::make_mut(&mut p.containers[1]).tenant = "other".to_owned();
    let v = view(p);
    let names = |q: &ContainersQuery| {
        v.containers(&Scope::All, q).unwrap().containers.into_iter().map(|c| c.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&ContainersQuery::default()), ["db", "web"]);
    assert_eq!(names(&ContainersQuery { tenant: Some("shop".to_owned()) }), ["web"]);
}

#[test]
fn the_largest_flows_come_first() {
    let v = view(published());
    let mut b = batch();
    // live ones are read from the kernel's tables, which are not here
    b.events = b.flows.iter().map(ended).collect();
    v.shared.store().apply(SHOP, &b);
    let answer = v.flows(&Scope::All, &FlowsQuery::default()).unwrap();
    let seen: Vec<_> = answer.flows.iter().map(|f| (f.sent.packets, f.state)).collect();
    assert_eq!(seen, [(50, FlowState::Ended), (20, FlowState::Ended), (10, FlowState::Ended)]);
    let answer = v.flows(&Scope::All, &FlowsQuery { limit: Some(1), ..FlowsQuery::default() }).unwrap();
    assert_eq!((answer.matched, answer.flows.len(), answer.flows[0].sent.packets), (3, 1, 50));
    let answer =
        v.flows(&Scope::All, &FlowsQuery { state: Some(FlowState::Ended), ..FlowsQuery::default() }).unwrap();
    assert_eq!(answer.flows[0].end_reason, Some(api::EndReason::IdleTimeout));
}

#[test]
fn measurements_bear_their_monitors_name() {
    let v = view(published());
    v.shared.store().apply(SHOP, &batch());
    let query =
        MeasurementsQuery { metric: Some(ippm::catalogue::PAIR_RTT.name.to_owned()), ..Default::default() };
    let answer = v.measurements(&Scope::All, &query).unwrap();
    assert_eq!(answer.matched, 1);
    assert_eq!(answer.measurements[0].monitor.as_deref(), Some("pm-s2"));
    let answer =
        v.measurements(&Scope::All, &MeasurementsQuery { limit: Some(2), ..Default::default() }).unwrap();
    assert_eq!(
        (answer.measurements.len(), answer.matched),
        (2, 10),
        "three counts for each record, and one delay"
    );
}

#[test]
fn metrics_rows_are_by_protocol_and_say_what_cannot_be_told() {
    let v = view(published());
    v.shared.store().apply(SHOP, &batch());
    let rows = v.pair_rows(&Scope::All);
    let row = |src: &str| rows.iter().find(|r| &*r.src.name == src).unwrap();
    let web = row("web");
    let protocols: Vec<_> =
        web.protocols.iter().map(|p| (p.protocol, p.sent.packets, p.received.packets, p.flows)).collect();
    assert_eq!(protocols, [(6, 10, 5, 4), (17, 2, 1, 4)]);
    assert_eq!((&*web.tenant, web.live), ("shop", true));
    assert_eq!(web.rtt.count(), 1);
    // observed at src's port: late segments are told of those to it
    assert_eq!(web.reordered, EachWay { sent: None, received: Some(4) });
    assert_eq!(web.retransmitted, EachWay { sent: Some(6), received: Some(2) });
    let outside = row("external");
    assert_eq!(outside.reordered, EachWay { sent: Some(2), received: None }, "observed at dst's port");
    assert_eq!(outside.retransmitted, EachWay { sent: Some(1), received: Some(3) });
    assert_eq!((outside.protocols[0].sent.packets, outside.protocols[0].received.packets), (7, 30));

    let mut p = published();
    p.containers.iter_mut().for_each(|c| Arc::make_mut(c).state = "exited".to_owned());
    v.shared.publish(p);
    assert!(v.pair_rows(&Scope::All).iter().all(|r| !r.live));
}

#[test]
fn status_and_metrics_count_the_same() {
    let v = view(published());
    let mut b = batch();
    b.ports = vec![PortMeasurement {
        ifindex: 7,
        counts: Both::new([packets(0), packets(3), packets(0), packets(1), packets(2)], [packets(0); 5]),
    }];
    b.set.flow_full = 9;
    v.shared.store().apply(SHOP, &b);
    v.shared.store().scanned(SHOP, monotonic(), 3);
    // the same port counted in the nursery before it had a name
    v.shared
        .store()
        .apply(NURSERY, &Batch { pairs: Vec::new(), flows: Vec::new(), rtts: Vec::new(), ..b.clone() });
    let status = v.status(&Scope::All).unwrap();
    assert_eq!(
        status.counts,
        Counts { containers: 2, tenants: 1, ports: 2, pairs: 2, active_flows: 3, monitors: 2 }
    );
    let shop = status.sets.iter().find(|s| s.name == "s2").unwrap();
    assert_eq!((shop.flows.used, shop.pairs.used, shop.ports.used, shop.histograms.used), (3, 3, 1, 1));
    assert_eq!(status.sets.len(), 3);

    let own = v.self_metrics(&Scope::All);
    assert_eq!(
        own.sets.iter().map(|s| (&*s.name, &*s.tenant, s.flows_full)).collect::<Vec<_>>(),
        [("s1", "", 9), ("s2", "shop", 9)]
    );
    assert_eq!(
        (own.ports[0].sent.arp.packets, own.ports[0].sent.malformed.packets, own.ports[0].sent.nd.packets),
        (6, 2, 4),
        "both sets together"
    );
    assert_eq!(own.ports[1].sent, ClassTotals::default());
    assert_ne!(own.ports[0].key, own.ports[1].key);
}

#[test]
fn a_stop_is_told_with_the_picture_that_shows_it() {
    let v = view(published());
    let stops = || {
        let told = v.subscribe().recent;
        told.iter().filter(|e| e.kind == EventKind::ContainerStopped).cloned().collect::<Vec<_>>()
    };
    let told = monotonic();
    let at = EventTime { engine: jiff::Timestamp::UNIX_EPOCH, received: told, told };
    let name = v.shared.names().container("web-id").cloned();
    v.shared.stopped(at, name.expect("its name"));
    assert!(
        stops().is_empty() && v.status(&Scope::All).unwrap().speed == Speed::default(),
        "it cannot be seen yet"
    );
    v.shared.publish(published());
    let took = (monotonic() - told).as_secs_f64();
    let [stop] = stops().try_into().expect("one stop");
    assert_eq!((stop.container.as_deref(), stop.tenant.as_deref()), (Some("web"), Some("shop")));
    assert!(
        stop.after_seconds.is_some_and(|after| (0.0..=took).contains(&after)),
        "{stop:?} within {took} s"
    );
    v.shared.publish(published());
    assert_eq!(stops().len(), 1, "it is told once");
    let speed = v.status(&Scope::All).unwrap().speed;
    let counted = |delays: Option<DelaySummary>| delays.map(|d| (d.count, d.method));
    assert_eq!(counted(speed.stopped_after_seconds), Some((1, "conmon_stop_delay_seconds".to_owned())));
    assert_eq!(counted(speed.reacted_after_seconds), Some((1, "conmon_reaction_delay_seconds".to_owned())));
    assert_eq!(counted(speed.tapped_after_seconds), None);
    assert_eq!(v.self_metrics(&Scope::All).stop_delay.count(), 1);
}
