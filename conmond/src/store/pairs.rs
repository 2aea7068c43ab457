//! From records at ports to rows with names.
//!
//! A conversation between two containers of this host is counted at both their ports. The row is made of what src's
//! port saw; what dst's port saw serves where src has none (a peer outside, the host, a container that opted out).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use conmon::api::{
    Count, DelayBucket, DelaySummary, Endpoint, EndpointKind, Flow, FlowState, Level, Measurement,
    ObservedAt, Pair,
};
use ippm::flow::{Both, Counters, EndReason, Leg, Role, proto_name};
use ippm::histogram::Histogram;
use ippm::measurement::{FlowEvent, FlowMeasurement, PairMeasurement};
use ippm::time::Timestamp;

use super::shares::pair_of;
use super::{Names, PairRecord, Part, Store, Who, far_end, split};
use crate::clock::Wall;
use crate::nat::{Place, Real};
use crate::scope::Scope;

/// The delays of a row, in the order of [`Totals::delays`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// From src's port to dst and back.
    Rtt = 0,
    /// From src's port to src and back.
    Near = 1,
    /// As `Rtt`, of the handshake.
    Handshake = 2,
    /// As `Near`, of the handshake.
    NearHandshake = 3,
}

impl Delay {
    /// The leg at the observed port that holds it.
    fn leg(self, at: ObservedAt) -> Leg {
        match (self, at) {
            (Delay::Rtt, ObservedAt::Src) | (Delay::Near, ObservedAt::Dst) => Leg::Away,
            (Delay::Near, ObservedAt::Src) | (Delay::Rtt, ObservedAt::Dst) => Leg::Near,
            (Delay::Handshake, ObservedAt::Src) | (Delay::NearHandshake, ObservedAt::Dst) => {
                Leg::AwayHandshake
            }
            (Delay::NearHandshake, ObservedAt::Src) | (Delay::Handshake, ObservedAt::Dst) => {
                Leg::NearHandshake
            }
        }
    }

    fn method(self, at: ObservedAt) -> &'static str {
        match (self, at) {
            (Delay::Rtt | Delay::Near, ObservedAt::Src) => "passive_tcp_ack_at_src_port",
            (Delay::Rtt | Delay::Near, ObservedAt::Dst) => "passive_tcp_ack_at_dst_port",
            (_, ObservedAt::Src) => "passive_tcp_handshake_at_src_port",
            (_, ObservedAt::Dst) => "passive_tcp_handshake_at_dst_port",
        }
    }

    const ALL: [Delay; 4] = [Delay::Rtt, Delay::Near, Delay::Handshake, Delay::NearHandshake];
}

/// One row: two ends, and the sum of what was counted between them.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Who opened.
    pub src: Endpoint,
    /// Who was called.
    pub dst: Endpoint,
    /// At whose port.
    pub observed_at: ObservedAt,
    /// The first packet.
    pub first_seen: Timestamp,
    /// The last packet.
    pub last_seen: Timestamp,
    /// `tx` from src, `rx` from dst.
    pub counters: Both<Counters>,
    /// The same over the last interval.
    pub last: Both<Counters>,
    /// Segments sent again.
    pub retransmitted: Both<u64>,
    /// Segments that came late. A port tells those to its own container only.
    pub reordered: Both<u64>,
    /// By [`Delay`].
    pub delays: [Histogram; 4],
    /// Flow records begun.
    pub flows: u64,
    /// Flow records open.
    pub active_flows: u64,
    /// The same by IP protocol number.
    pub by_protocol: BTreeMap<u8, ProtocolSums>,
    /// Who opened was inferred.
    pub guessed: bool,
    /// What the observing port saw in the other end's place, where its address was translated.
    pub via: Vec<Place>,
    /// Some of it is a part of a record whose retransmission and reordering cannot be told apart.
    pub partial: bool,
}

/// What was counted of one protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtocolSums {
    /// `tx` from src, `rx` from dst.
    pub counters: Both<Counters>,
    /// Flow records begun.
    pub flows: u64,
    /// Flow records open.
    pub active_flows: u64,
}

impl std::ops::AddAssign for ProtocolSums {
    fn add_assign(&mut self, other: Self) {
        self.counters += other.counters;
        self.flows += other.flows;
        self.active_flows += other.active_flows;
    }
}

impl Totals {
    fn new(src: Endpoint, dst: Endpoint, observed_at: ObservedAt) -> Self {
        Self {
            src,
            dst,
            observed_at,
            first_seen: Timestamp::MAX,
            last_seen: Timestamp::ZERO,
            counters: Both::default(),
            last: Both::default(),
            retransmitted: Both::default(),
            reordered: Both::default(),
            delays: [const { Histogram::new() }; 4],
            flows: 0,
            active_flows: 0,
            by_protocol: BTreeMap::new(),
            guessed: false,
            via: Vec::new(),
            partial: false,
        }
    }

    fn add_via(&mut self, via: &[Place], partial: bool) {
        for place in via {
            if let Err(at) = self.via.binary_search(place) {
                self.via.insert(at, *place);
            }
        }
        self.partial |= partial;
    }

    fn add_record(&mut self, record: &PairRecord, last: Both<Counters>) {
        fn forward<T>(at: ObservedAt, b: Both<T>) -> Both<T> {
            if at == ObservedAt::Src { b } else { b.reverse() }
        }
        let (p, at) = (&record.pair, self.observed_at);
        let sums = ProtocolSums {
            counters: forward(at, p.counters),
            flows: p.flows,
            active_flows: u64::from(p.active_flows),
        };
        *self.by_protocol.entry(p.key.proto).or_default() += sums;
        self.counters += sums.counters;
        self.last += forward(at, last);
        self.first_seen = self.first_seen.min(p.first_seen);
        self.last_seen = self.last_seen.max(p.last_seen);
        self.retransmitted += forward(at, p.retransmitted);
        self.reordered += forward(at, Both::new(0, p.reordered));
        self.flows += sums.flows;
        self.active_flows += sums.active_flows;
        self.guessed |= p.guessed;
        for delay in Delay::ALL {
            if let Some(h) = &record.rtts[usize::from(delay.leg(self.observed_at).number())] {
                self.delays[delay as usize].merge(h);
            }
        }
    }

    fn add_row(&mut self, other: &Totals) {
        for (protocol, sums) in &other.by_protocol {
            *self.by_protocol.entry(*protocol).or_default() += *sums;
        }
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.counters += other.counters;
        self.last += other.last;
        self.retransmitted += other.retransmitted;
        self.reordered += other.reordered;
        self.flows += other.flows;
        self.active_flows += other.active_flows;
        self.guessed |= other.guessed;
        for (into, from) in self.delays.iter_mut().zip(&other.delays) {
            into.merge(from);
        }
        join(&mut self.src.addresses, &other.src.addresses);
        join(&mut self.dst.addresses, &other.dst.addresses);
        self.add_via(&other.via, other.partial);
    }

    /// Whether any of it was TCP.
    pub fn has_tcp(&self) -> bool {
        self.by_protocol.contains_key(&ippm::packet::proto::TCP)
    }

    /// A delay's statistics, none without a singleton.
    pub fn delay(&self, delay: Delay) -> Option<DelaySummary> {
        DelaySummary::of(&self.delays[delay as usize], delay.method(self.observed_at))
    }

    /// As [`Totals::pair`], each delay with its distribution.
    pub fn pair_with_histograms(&self, wall: Wall, interval_seconds: Option<f64>) -> Pair {
        let mut pair = self.pair(wall, interval_seconds);
        for (delay, summary) in [
            (Delay::Rtt, &mut pair.rtt_seconds),
            (Delay::Near, &mut pair.near_rtt_seconds),
            (Delay::Handshake, &mut pair.handshake_rtt_seconds),
            (Delay::NearHandshake, &mut pair.near_handshake_rtt_seconds),
        ] {
            if let Some(summary) = summary {
                summary.buckets = Some(DelayBucket::all(&self.delays[delay as usize]));
            }
        }
        pair
    }

    /// As the API has it. Rates are over `interval_seconds`.
    pub fn pair(&self, wall: Wall, interval_seconds: Option<f64>) -> Pair {
        let tcp = self.has_tcp() && !self.partial;
        let rate = |n: u64| interval_seconds.map(|s| n as f64 / s);
        Pair {
            src: self.src.clone(),
            dst: self.dst.clone(),
            protocols: self.by_protocol.keys().map(|p| proto_name(*p).into_owned()).collect(),
            first_seen: wall.utc(self.first_seen),
            last_seen: wall.utc(self.last_seen),
            sent: count(self.counters.tx),
            received: count(self.counters.rx),
            retransmitted_segments: tcp.then_some(self.retransmitted.tx + self.retransmitted.rx),
            sent_retransmitted_segments: tcp.then_some(self.retransmitted.tx),
            received_retransmitted_segments: tcp.then_some(self.retransmitted.rx),
            reordered_segments: tcp.then_some(self.reordered.tx + self.reordered.rx),
            rtt_seconds: self.delay(Delay::Rtt),
            near_rtt_seconds: self.delay(Delay::Near),
            handshake_rtt_seconds: self.delay(Delay::Handshake),
            near_handshake_rtt_seconds: self.delay(Delay::NearHandshake),
            flows: self.flows,
            active_flows: self.active_flows,
            role_guessed: self.guessed,
            observed_at: self.observed_at,
            via: self.via.iter().map(|place| place_text(*place)).collect(),
            sent_bytes_per_second: rate(self.last.tx.bytes),
            received_bytes_per_second: rate(self.last.rx.bytes),
            sent_packets_per_second: rate(self.last.tx.packets),
            received_packets_per_second: rate(self.last.rx.packets),
        }
    }
}

/// An address, with the port if there is one.
fn place_text((address, port): Place) -> String {
    if port == 0 { address.to_string() } else { SocketAddr::new(address, port).to_string() }
}

fn count(c: Counters) -> Count {
    Count { bytes: c.bytes, packets: c.packets, segments: c.segments }
}

fn join(into: &mut Vec<std::net::IpAddr>, from: &[std::net::IpAddr]) {
    for address in from {
        if let Err(at) = into.binary_search(address) {
            into.insert(at, *address);
        }
    }
}

/// What makes two endpoints the same.
type Key = (EndpointKind, String, Option<String>);

fn key(e: &Endpoint) -> Key {
    (e.kind, e.name.clone(), e.id.clone())
}

/// The endpoint that stands for this one at a level.
pub fn at_level(e: &Endpoint, level: Level) -> Endpoint {
    let kept = Endpoint { id: None, ..e.clone() };
    match (level, e.kind) {
        (Level::Service, EndpointKind::Container) => match &e.service {
            Some(service) => {
                Endpoint { kind: EndpointKind::Service, name: service.clone(), host: None, ..kept }
            }
            None => e.clone(),
        },
        (Level::Tenant, EndpointKind::Container) => match &e.tenant {
            Some(tenant) => Endpoint {
                kind: EndpointKind::Tenant,
                name: tenant.clone(),
                service: None,
                host: None,
                ..kept
            },
            None => e.clone(),
        },
        (Level::Host, EndpointKind::Container | EndpointKind::Host) => match &e.host {
            Some(host) => {
                Endpoint { kind: EndpointKind::Host, name: host.clone(), service: None, tenant: None, ..kept }
            }
            None => e.clone(),
        },
        _ => e.clone(),
    }
}

/// The two ends of a part of a record and at whose port it was counted; none of a copy, see [`Names::is_copy`].
fn ends(names: &Names, part: &Part<'_>) -> Option<(Endpoint, Endpoint, ObservedAt)> {
    let p = &part.record.pair;
    if is_copy(names, p) {
        return None;
    }
    let local = names.local(p.key.ifindex, p.key.local);
    let remote = far_end(names, &p.key, part.real.as_ref(), (p.first_seen, p.last_seen));
    Some(orient(local, remote, p.key.role))
}

/// Whether a record is of copies, see [`Names::is_copy`].
pub fn is_copy(names: &Names, p: &PairMeasurement) -> bool {
    p.counters.tx.packets == 0 && names.is_copy(p.key.ifindex, p.key.local, (p.first_seen, p.last_seen))
}

fn orient(local: Endpoint, remote: Endpoint, role: Role) -> (Endpoint, Endpoint, ObservedAt) {
    match role {
        Role::LocalOpened => (local, remote, ObservedAt::Src),
        Role::RemoteOpened => (remote, local, ObservedAt::Dst),
    }
}

/// Rows by their ends and by where they were counted.
type Rows = HashMap<(Key, Key), BTreeMap<ObservedAt, Totals>>;

fn add(rows: &mut Rows, (src, dst, at): (Endpoint, Endpoint, ObservedAt), part: &Part<'_>) {
    let row = rows
        .entry((key(&src), key(&dst)))
        .or_default()
        .entry(at)
        .or_insert_with(|| Totals::new(src.clone(), dst.clone(), at));
    join(&mut row.src.addresses, &src.addresses);
    join(&mut row.dst.addresses, &dst.addresses);
    row.add_record(&part.record, part.last);
    row.add_via(&part.via, part.partial);
}

/// All rows at a level that the asker may see, and the length of the interval that rates are over, in seconds.
pub fn group(store: &Store, names: &Names, level: Level, scope: &Scope) -> (Vec<Totals>, Option<f64>) {
    let mut rows = Rows::new();
    let mut longest: Option<f64> = None;
    let shares = store.shares();
    for (set, live) in store.live() {
        let report = store.set(set);
        let interval = report.and_then(|r| r.interval()).map(|i| i.as_secs_f64());
        longest = match (longest, interval) {
            (Some(a), Some(b)) => Some(f64::max(a, b)),
            (a, b) => a.or(b),
        };
        // nothing new in the newest reading is a rate of zero
        let current = report.is_some_and(|r| live.last_at > r.before);
        let last = if current { live.last } else { Both::default() };
        for part in split(&live.record, last, shares.get(&(set, live.record.pair.key))) {
            if let Some(ends) = ends(names, &part) {
                add(&mut rows, ends, &part);
            }
        }
    }
    for r in store.retired().iter().filter(|r| !r.is_remainder() && !r.is_copy) {
        let part = Part {
            real: None,
            via: r.via.clone(),
            record: Cow::Borrowed(&r.record),
            last: Both::default(),
            partial: r.partial,
        };
        add(&mut rows, orient(r.local.clone(), r.remote.clone(), r.record.pair.key.role), &part);
    }
    let mut begun = Rows::new();
    for (event, real) in store.begun() {
        let part = Part::of_begun(event, real.as_ref());
        let Some(ends) = ends(names, &part) else { continue };
        if !rows.contains_key(&(key(&ends.0), key(&ends.1))) {
            add(&mut begun, ends, &part);
        }
    }
    rows.extend(begun);
    // src's port tells it all; dst's only where src has none
    let container_rows = rows.into_values().filter_map(|mut by_port| {
        by_port.remove(&ObservedAt::Src).or_else(|| by_port.remove(&ObservedAt::Dst))
    });
    let container_rows = container_rows.filter_map(|mut row| {
        let (src, dst) = scope.ends(row.src, row.dst)?;
        (row.src, row.dst) = (src, dst);
        Some(row)
    });
    // what is not told apart for the asker is one row
    let told_apart = level == Level::Container && scope.tenant().is_none();
    let mut rows: Vec<Totals> = if told_apart {
        container_rows.collect()
    } else {
        let mut merged: HashMap<(Key, Key), Totals> = HashMap::new();
        for row in container_rows {
            let (src, dst) = (at_level(&row.src, level), at_level(&row.dst, level));
            merged
                .entry((key(&src), key(&dst)))
                .or_insert_with(|| Totals::new(src, dst, row.observed_at))
                .add_row(&row);
        }
        merged.into_values().collect()
    };
    rows.sort_by(|a, b| {
        let bytes = |t: &Totals| t.counters.tx.bytes.saturating_add(t.counters.rx.bytes);
        bytes(b).cmp(&bytes(a)).then_with(|| (&a.src, &a.dst).cmp(&(&b.src, &b.dst)))
    });
    (rows, longest)
}

fn flags(bits: u8) -> Vec<String> {
    ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"]
        .into_iter()
        .enumerate()
        .filter(|(i, _)| bits & (1 << i) != 0)
        .map(|(_, name)| name.to_owned())
        .collect()
}

fn api_reason(reason: EndReason) -> Option<conmon::api::EndReason> {
    conmon::api::EndReason::from_ipfix(reason.number())
}

/// A flow record as the API has it; none of a copy, see [`Names::is_copy`].
pub fn flow_view(
    names: &Names,
    flow: &FlowMeasurement,
    real: Option<&Real>,
    ended: Option<&FlowEvent>,
    wall: Wall,
) -> Option<Flow> {
    use ippm::packet::proto;
    let key = &flow.key;
    let silent = flow.counters.tx.packets == 0;
    if silent && names.is_copy(key.ifindex, key.local, (flow.first_seen, flow.last_seen)) {
        return None;
    }
    let local = names.local(key.ifindex, key.local);
    let who = real.map(Who::from);
    let remote = far_end(names, &pair_of(key, flow.role), who.as_ref(), (flow.first_seen, flow.last_seen));
    let (src, dst, observed_at) = orient(local, remote, flow.role);
    let at_src = observed_at == ObservedAt::Src;
    let (counters, tcp_flags) = if at_src {
        (flow.counters, flow.tcp_flags)
    } else {
        (flow.counters.reverse(), flow.tcp_flags.reverse())
    };
    let ported = matches!(key.proto, proto::TCP | proto::UDP | proto::SCTP);
    let port = |p: u16| (ported && p != 0).then_some(p);
    let (near, far) = ((key.local, key.local_port), (key.remote, key.remote_port));
    let (a, b) = if at_src { (near, far) } else { (far, near) };
    let icmp = matches!(key.proto, proto::ICMP | proto::ICMPV6);
    let tcp = key.proto == proto::TCP;
    Some(Flow {
        src,
        dst,
        protocol: proto_name(key.proto).into_owned(),
        src_address: a.0,
        src_port: port(a.1),
        dst_address: b.0,
        dst_port: port(b.1),
        translated_address: real.map(|real| real.place.0),
        translated_port: real.and_then(|real| port(real.place.1)),
        icmp_identifier: icmp.then_some(key.local_port),
        vlan: (key.vlan != 0).then_some(key.vlan),
        first_seen: wall.utc(flow.first_seen),
        last_seen: wall.utc(flow.last_seen),
        sent: count(counters.tx),
        received: count(counters.rx),
        retransmitted_segments: (tcp && ended.is_none())
            .then_some(flow.retransmitted.tx + flow.retransmitted.rx),
        reordered_segments: (tcp && ended.is_none()).then_some(flow.reordered),
        src_tcp_flags: tcp.then(|| flags(tcp_flags.tx)),
        dst_tcp_flags: tcp.then(|| flags(tcp_flags.rx)),
        state: if ended.is_some() { FlowState::Ended } else { FlowState::Active },
        end_reason: ended.and_then(|e| match e.kind {
            ippm::measurement::FlowEventKind::End(reason) => api_reason(reason),
            ippm::measurement::FlowEventKind::New => None,
        }),
        role_guessed: flow.guessed,
        observed_at,
        interface: names.port(key.ifindex).map(|p| p.interface.clone()),
    })
}

/// A closed flow's last values as a flow.
pub fn ended_flow(event: &FlowEvent) -> FlowMeasurement {
    FlowMeasurement {
        key: event.key,
        id: event.id,
        pair: None,
        role: event.role,
        guessed: event.guessed,
        first_seen: event.first_seen,
        last_seen: event.last_seen,
        counters: event.counters,
        tcp_flags: event.tcp_flags,
        retransmitted: Both::default(),
        reordered: 0,
    }
}

/// The newest value of each metric of each record, as its monitor reported it.
pub fn measurements(
    store: &Store,
    names: &Names,
    wall: Wall,
    monitor: impl Fn(crate::mc::SetId) -> Option<String>,
) -> Vec<Measurement> {
    use ippm::catalogue as c;
    let mut all = Vec::new();
    let shares = store.shares();
    for (set, live) in store.live() {
        let p = &live.record.pair;
        for part in split(&live.record, Both::default(), shares.get(&(set, p.key))) {
            let Some((src, dst, observed_at)) = ends(names, &part) else { continue };
            let mut one = Totals::new(src, dst, observed_at);
            one.add_record(&part.record, Both::default());
            let base = |metric: &str, unit: &str, method: &str| Measurement {
                metric: metric.to_owned(),
                time: wall.utc(live.last_at),
                src: one.src.clone(),
                dst: one.dst.clone(),
                protocol: proto_name(p.key.proto).into_owned(),
                observed_at,
                unit: unit.to_owned(),
                method: method.to_owned(),
                value: None,
                summary: None,
                monitor: monitor(set),
            };
            let total = one.counters.tx + one.counters.rx;
            for (metric, unit, value) in [
                (c::PAIR_BYTES.name, "bytes", total.bytes),
                (c::PAIR_PACKETS.name, "packets", total.packets),
                (c::PAIR_SEGMENTS.name, "segments", total.segments),
            ] {
                all.push(Measurement { value: Some(value as f64), ..base(metric, unit, "kernel_count") });
            }
            for (delay, metric) in [
                (Delay::Rtt, c::PAIR_RTT.name),
                (Delay::Near, c::PAIR_NEAR_RTT.name),
                (Delay::Handshake, c::PAIR_HANDSHAKE_RTT.name),
            ] {
                if let Some(summary) = one.delay(delay) {
                    let method = summary.method.clone();
                    all.push(Measurement { summary: Some(summary), ..base(metric, "seconds", &method) });
                }
            }
        }
    }
    all.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.metric.cmp(&b.metric)));
    all
}
