//! How the API sees the controller: answers put together from the published picture, the store and the names.
//!
//! Nothing here changes anything, and only the ledger asks the kernel (for interfaces' counters, microseconds each).

mod doctor;
mod ledger;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conmon::api::{
    ApiError, ClocksAnswer, ContainersAnswer, ContainersQuery, Counts, DoctorAnswer, Endpoint, EndpointKind,
    Fill, FlowsAnswer, FlowsQuery, Health, HealthState, HostAnswer, LedgerAnswer, Level, MeasurementsAnswer,
    MeasurementsQuery, MonitorMode, MonitorState, MonitorsAnswer, ObservedAt, PairsAnswer, PairsQuery,
    Protocol, SetStatus, Status,
};
use ippm::flow::{Both, Counters, Direction, PortClass};
use ippm::measurement::{FlowMeasurement, PortMeasurement};
use ippm::time::Timestamp;

use self::ledger::Reckoning;
use super::cost::Cost;
use super::shared::{PortInfo, Published, SetInfo, Shared};
use super::world::{SetId, SetRole};
use crate::clock::{Wall, monotonic};
use crate::http::{
    ClassTotals, EachWay, End, HostsMetrics, PairRow, PortRow, ProtocolTotals, SelfMetrics, SetRow, Source,
    Subscription, Tls,
};
use crate::scope::Scope;
use crate::store::{Delay, SetReport, Store, Taken, Totals, ended_flow, flow_view, group, measurements};
use crate::switch::LinkQuery;
use crate::system::System;

/// What readers are shown.
pub struct View {
    shared: Arc<Shared>,
    cost: Arc<Cost>,
    /// Opened when first needed, and anew after a failure: the next question must not get this one's answer.
    query: Mutex<Option<LinkQuery>>,
    /// The clocks when the daemon began.
    clocks: doctor::Clocks,
    /// Where this instance's sets are pinned.
    pins: PathBuf,
    /// Keys and certificates, where the API is served over TLS.
    tls: Option<Arc<Tls>>,
}

impl View {
    /// A view of what is shared. Questions about links go to the network namespace of the thread that asks first.
    pub fn new(shared: Arc<Shared>, cost: Arc<Cost>, tls: Option<Arc<Tls>>) -> Self {
        let pins = PathBuf::from(doctor::PINS).join(&shared.info.instance);
        Self { shared, cost, query: Mutex::new(None), clocks: doctor::Clocks::now(), pins, tls }
    }

    fn reckon(&self, scope: &Scope) -> Result<Reckoning, ApiError> {
        let mut query = self.query.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = match query.take() {
            Some(open) => open,
            None => LinkQuery::open(self.shared.namespaces().clone())
                .map_err(|e| ApiError::unavailable(e.to_string()))?,
        };
        let reckoning = ledger::reckon(&self.shared, &mut open, scope)?;
        *query = Some(open);
        Ok(reckoning)
    }

    /// Whether everything that this host knows is in an answer: the engine tells of containers, and every monitor that
    /// measures somebody reported in time.
    fn complete(&self, published: &Published) -> bool {
        let silent = silent_monitors(&self.shared, published, monotonic());
        published.ready && published.engine.connected && silent.is_empty()
    }
}

/// When a set's monitor was last heard. A time to come is no time: batches bear their monitor's word for it.
fn heard(published: &Published, store: &Store, set: SetId, now: Timestamp) -> Option<Timestamp> {
    let reported = store.set(set).map(|r| r.taken_at).filter(|at| *at <= now && *at > Timestamp::ZERO);
    published.heard.get(&set).copied().max(reported)
}

/// Monitors that measure somebody and did not report within the bound, by name.
fn silent_monitors(shared: &Shared, published: &Published, now: Timestamp) -> Vec<String> {
    let store = shared.store();
    let late =
        |set: SetId| heard(published, &store, set, now).is_none_or(|at| now - at > shared.info.silence);
    published
        .monitors
        .iter()
        .filter(|(set, m, _)| is_measuring(published, *set) && m.mode != MonitorMode::Host && late(*set))
        .map(|(_, m, _)| m.name.clone())
        .collect()
}

/// A monitor whose set counts somebody.
fn is_measuring(published: &Published, set: SetId) -> bool {
    published.sets.iter().any(|s| s.id == set && matches!(s.role, SetRole::Tenant(_) | SetRole::Dedicated(_)))
}

/// What is wrong, in sentences.
fn problems(shared: &Shared, published: &Published) -> Vec<String> {
    let mut all = published.problems.clone();
    if !published.engine.connected && all.is_empty() {
        all.push(
            "the container engine does not answer; counting goes on, new containers stay without names"
                .into(),
        );
    }
    all.extend(
        silent_monitors(shared, published, monotonic()).into_iter().map(|name| {
            format!("{name} does not report; the kernel goes on counting, and it will be replaced")
        }),
    );
    all
}

fn is_running(state: &str) -> bool {
    matches!(state, "running" | "paused" | "restarting")
}

fn fills(set: &SetInfo, taken: Taken) -> [Fill; 4] {
    let fill = |used, capacity: u32| Fill { used, capacity: u64::from(capacity) };
    [
        fill(taken.flows, set.spec.flows),
        fill(taken.pairs, set.spec.pair_slots()),
        fill(taken.ports, set.spec.ports),
        fill(taken.histograms, set.spec.hist_slots()),
    ]
}

/// Sorts the largest first and cuts at the limit; returns how many there were.
fn largest<T>(list: &mut Vec<T>, limit: u32, size: impl Fn(&T) -> u64) -> u64 {
    let matched = list.len() as u64;
    list.sort_by_key(|t| std::cmp::Reverse(size(t)));
    list.truncate(limit as usize);
    matched
}

impl Source for View {
    fn containers(&self, scope: &Scope, query: &ContainersQuery) -> Result<ContainersAnswer, ApiError> {
        let published = self.shared.published();
        let wanted = |c: &&conmon::api::Container| {
            scope.admits(Some(&c.tenant)) && query.tenant.as_ref().is_none_or(|t| *t == c.tenant)
        };
        let mut containers: Vec<_> =
            published.containers.iter().map(|c| &**c).filter(wanted).cloned().collect();
        containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(ContainersAnswer { generated_at: Wall::now().utc(monotonic()), containers })
    }

    fn monitors(&self, scope: &Scope) -> Result<MonitorsAnswer, ApiError> {
        let published = self.shared.published();
        let (wall, now) = (Wall::now(), monotonic());
        let silent: HashSet<String> = silent_monitors(&self.shared, &published, now).into_iter().collect();
        let store = self.shared.store();
        let mut monitors: Vec<_> = published
            .monitors
            .iter()
            .filter(|(_, monitor, _)| scope.admits(monitor.tenant.as_deref()))
            .map(|(set, monitor, _)| {
                let at = heard(&published, &store, *set, now);
                let mut monitor = monitor.clone();
                monitor.last_report_at = at.map(|at| wall.utc(at));
                monitor.last_report_age_seconds = at.map(|at| (now - at).as_secs_f64());
                if monitor.state == MonitorState::Working && silent.contains(&monitor.name) {
                    monitor.state = MonitorState::Silent;
                }
                monitor
            })
            .collect();
        drop(store);
        monitors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(MonitorsAnswer { generated_at: wall.utc(now), pool: published.pool, monitors })
    }

    fn pairs(&self, scope: &Scope, query: &PairsQuery) -> Result<PairsAnswer, ApiError> {
        let published = self.shared.published();
        let complete = self.complete(&published);
        let wall = Wall::now();
        let (mut rows, interval) = {
            let store = self.shared.store();
            group(&store, &self.shared.names(), query.level.unwrap_or_default(), scope)
        };
        rows.retain(|row| query.admits(&row.src, &row.dst));
        Ok(PairsAnswer {
            generated_at: wall.utc(monotonic()),
            hosts: vec![HostAnswer { name: self.shared.info.host.clone(), complete }],
            rate_interval_seconds: interval,
            pairs: rows
                .iter()
                .map(|row| match query.histograms {
                    Some(true) => row.pair_with_histograms(wall, interval),
                    _ => row.pair(wall, interval),
                })
                .collect(),
        })
    }

    fn flows(&self, scope: &Scope, query: &FlowsQuery) -> Result<FlowsAnswer, ApiError> {
        let wall = Wall::now();
        let bytes = |f: &conmon::api::Flow| f.sent.bytes.saturating_add(f.received.bytes);
        let limit = query.limit.unwrap_or(FlowsQuery::DEFAULT_LIMIT);
        // a hundred thousand flows take a while: nobody waits for us meanwhile
        let (sets, names) = (self.shared.sets(), self.shared.names());
        let (translations, ended) = {
            let store = self.shared.store();
            (store.translations(), store.ended().cloned().collect::<Vec<_>>())
        };
        let real = |flow: &FlowMeasurement| {
            let all = translations.lock().unwrap_or_else(PoisonError::into_inner);
            all.real(&flow.key, flow.first_seen, flow.last_seen)
        };
        let (mut flows, mut cut) = (Vec::new(), 0);
        let mut take = |flow: conmon::api::Flow| {
            let Some(flow) = scope.flow(flow) else { return };
            if query.admits(&flow) {
                flows.push(flow);
            }
            // only those are kept that will be shown
            if flows.len() >= 2 * limit as usize + 1024 {
                cut += flows.len() as u64;
                largest(&mut flows, limit, bytes);
                cut -= flows.len() as u64;
            }
        };
        for (id, set) in &sets {
            let listed = tap::each_flow(set, |f| {
                flow_view(&names, &f, real(&f).as_ref(), None, wall).into_iter().for_each(&mut take);
            });
            listed.map_err(|e| {
                let why = super::controller::chain(&e);
                ApiError::internal(format!("the flows of set {id} cannot be read: {why}"))
            })?;
        }
        for e in &ended {
            let flow = flow_view(&names, &ended_flow(&e.event), e.real.as_ref(), Some(&e.event), wall);
            flow.into_iter().for_each(&mut take);
        }
        let matched = cut + largest(&mut flows, limit, bytes);
        Ok(FlowsAnswer { generated_at: wall.utc(monotonic()), matched, flows })
    }

    fn measurements(&self, scope: &Scope, query: &MeasurementsQuery) -> Result<MeasurementsAnswer, ApiError> {
        let published = self.shared.published();
        let wall = Wall::now();
        let names_of: HashMap<SetId, &str> =
            published.monitors.iter().map(|(set, monitor, _)| (*set, monitor.name.as_str())).collect();
        let all = {
            let store = self.shared.store();
            measurements(&store, &self.shared.names(), wall, |set| {
                names_of.get(&set).map(|n| (*n).to_owned())
            })
        };
        let mut all: Vec<_> = all.into_iter().filter_map(|m| scope.measurement(m)).collect();
        all.retain(|m| query.admits(m));
        let matched = all.len() as u64;
        all.truncate(query.limit.unwrap_or(MeasurementsQuery::DEFAULT_LIMIT) as usize);
        Ok(MeasurementsAnswer { generated_at: wall.utc(monotonic()), matched, measurements: all })
    }

    fn ledger(&self, scope: &Scope) -> Result<LedgerAnswer, ApiError> {
        Ok(self.reckon(scope)?.answer)
    }

    fn status(&self, scope: &Scope) -> Result<Status, ApiError> {
        scope.whole("the status")?;
        let published = self.shared.published();
        let info = &self.shared.info;
        let wall = Wall::now();
        let running = || published.containers.iter().filter(|c| is_running(&c.state));
        let (pairs, active_flows, taken) = {
            let store = self.shared.store();
            let pairs = group(&store, &self.shared.names(), Level::Container, scope).0.len();
            (pairs, store.active_flows(), store.fills())
        };
        let counts = Counts {
            containers: running().count() as u64,
            tenants: running().map(|c| c.tenant.as_str()).collect::<BTreeSet<_>>().len() as u64,
            ports: published.ports.len() as u64,
            pairs: pairs as u64,
            active_flows,
            monitors: published
                .monitors
                .iter()
                .filter(|(_, m, _)| m.mode != MonitorMode::Host && m.state != MonitorState::Gone)
                .count() as u64,
        };
        let set_status = |set: &SetInfo| {
            let [flows, pairs, ports, histograms] =
                fills(set, taken.get(&set.id).copied().unwrap_or_default());
            SetStatus {
                name: set.id.to_string(),
                tenant: set.tenant.clone(),
                flows,
                pairs,
                ports,
                histograms,
                memory_bytes: set.spec.kernel_bytes(),
            }
        };
        Ok(Status {
            version: self.shared.info.build.to_string(),
            instance: info.instance.clone(),
            host: info.host.clone(),
            pid: std::process::id(),
            started_at: wall.utc(info.started_at),
            counting_since: published.counting_since.map(|at| wall.utc(at)),
            kernel: info.kernel.clone(),
            attachment: published.attachment.clone(),
            engine: published.engine.clone(),
            counts,
            cost: self.cost.status(wall),
            sets: published.sets.iter().map(set_status).collect(),
            speed: self.shared.delays().speed(),
            pool: published.pool,
            problems: problems(&self.shared, &published),
        })
    }

    fn doctor(&self, scope: &Scope) -> Result<DoctorAnswer, ApiError> {
        scope.whole("the doctor")?;
        let reckoning = self.reckon(scope);
        let published = self.shared.published();
        let checks = doctor::checks(
            &self.shared,
            &published,
            &self.pins,
            &self.clocks,
            self.tls.as_deref(),
            &reckoning,
        );
        Ok(DoctorAnswer {
            generated_at: Wall::now().utc(monotonic()),
            checks,
            ledger: reckoning.ok().map(|r| r.answer.ledger),
        })
    }

    fn clocks(&self, scope: &Scope) -> Result<ClocksAnswer, ApiError> {
        scope.whole("what is known of other hosts' clocks")?;
        let clocks = self.shared.system().map(|system| system.clocks()).unwrap_or_default();
        let host = self.shared.info.host.clone();
        Ok(ClocksAnswer { generated_at: Wall::now().utc(monotonic()), host, clocks })
    }

    fn health(&self, scope: &Scope) -> Health {
        let published = self.shared.published();
        let problems = problems(&self.shared, &published);
        let status = match (published.ready, problems.is_empty()) {
            (false, _) => HealthState::Starting,
            (true, true) => HealthState::Ok,
            (true, false) => HealthState::Degraded,
        };
        // the sentences name containers, monitors and ports, whosever they are
        let problems = match scope.tenant() {
            Some(_) if !problems.is_empty() => {
                vec!["something on this host does not work in full; its operator is told what".to_owned()]
            }
            _ => problems,
        };
        Health {
            status,
            version: self.shared.info.build.to_string(),
            instance: self.shared.info.instance.clone(),
            started_at: Wall::now().utc(self.shared.info.started_at),
            protocol: Protocol::OURS,
            problems,
        }
    }

    fn subscribe(&self) -> Subscription {
        self.shared.subscribe()
    }

    fn system(&self) -> Option<Arc<crate::system::System>> {
        self.shared.system()
    }

    fn pair_rows(&self, scope: &Scope) -> Vec<PairRow> {
        let published = self.shared.published();
        let running: HashSet<&str> =
            published.containers.iter().filter(|c| is_running(&c.state)).map(|c| c.id.as_str()).collect();
        let ports: HashSet<&str> = published.ports.iter().map(|p| p.interface.as_str()).collect();
        let alive = |e: &Endpoint| match (e.kind, &e.id) {
            (EndpointKind::Container, Some(id)) => running.contains(id.as_str()),
            // not named yet: it bears its port's name
            (EndpointKind::Container, None) => ports.contains(e.name.as_str()),
            (EndpointKind::Host, _) => true,
            _ => false,
        };
        let rows = {
            let store = self.shared.store();
            group(&store, &self.shared.names(), Level::Container, scope).0
        };
        let wall = Wall::now();
        rows.into_iter()
            .map(|row| {
                let live = alive(&row.src) || alive(&row.dst);
                let mut row = pair_row(row, wall, live);
                // measured at somebody else's port, it is the asker's row all the same
                if let Some(tenant) = scope.tenant() {
                    row.tenant = Arc::clone(tenant);
                }
                row
            })
            .collect()
    }

    fn self_metrics(&self, scope: &Scope) -> SelfMetrics {
        let published = self.shared.published();
        let delays = self.shared.delays();
        let (ports, sets) = {
            let store = self.shared.store();
            let mut counted: HashMap<u32, Vec<&PortMeasurement>> = HashMap::new();
            for (_, port) in store.ports() {
                counted.entry(port.ifindex).or_default().push(port);
            }
            let taken = store.fills();
            let serving = |s: &&SetInfo| s.role != SetRole::Pool && scope.admits(s.tenant.as_deref());
            let none = SetReport::default();
            let set_row = |s: &SetInfo| {
                set_row(s, store.set(s.id).unwrap_or(&none), taken.get(&s.id).copied().unwrap_or_default())
            };
            let port_row = |p: &PortInfo| port_row(p, counted.get(&p.ifindex).map_or(&[][..], Vec::as_slice));
            let own = |p: &&PortInfo| scope.admits(p.tenant.as_deref());
            let ports: Vec<PortRow> = published.ports.iter().filter(own).map(port_row).collect();
            (ports, published.sets.iter().filter(serving).map(set_row).collect())
        };
        let mut monitor_restarts = published.restarts.clone();
        monitor_restarts.retain(|tenant, _| scope.admits(Some(tenant)));
        if scope.tenant().is_some() {
            // the rest is about the whole host
            return SelfMetrics {
                build: self.shared.info.build,
                ports,
                sets,
                monitor_restarts,
                ..SelfMetrics::default()
            };
        }
        SelfMetrics {
            build: self.shared.info.build,
            ports,
            sets,
            monitor_restarts,
            tap_delay: delays.tap,
            naming_delay: delays.naming,
            stop_delay: delays.stop,
            reaction_delay: delays.reaction,
            end_delay: delays.end,
            tap_drops: self.shared.tap_drops(),
            hooks: self.cost.hooks(),
            controller: self.cost.controller(),
            monitors: self.cost.monitors(),
            kernel_memory_bytes: self.cost.kernel_memory_bytes(),
            hosts: self.shared.system().map(hosts_metrics),
        }
    }
}

fn hosts_metrics(system: Arc<System>) -> HostsMetrics {
    let health = system.registry_health();
    let now = crate::registry::now().wall_ns;
    HostsMetrics {
        connected: health.reachable,
        age: health.known_as_of_ns.map(|known| Duration::from_nanos(now.saturating_sub(known))),
        others: system.others() as u64,
        pending_rows: health.pending_rows as u64,
        reads: health.reader.reads,
        failed_reads: health.reader.failures,
        resyncs: health.reader.resyncs,
        cache_hits: health.cache.hits,
        cache_misses: health.cache.misses,
        system: system.counters(),
        clocks: system
            .clocks()
            .into_iter()
            .filter_map(|clock| Some((clock.host, clock.offset_seconds?, clock.bound_seconds?)))
            .collect(),
    }
}

fn count(c: Counters) -> conmon::api::Count {
    conmon::api::Count { bytes: c.bytes, packets: c.packets, segments: c.segments }
}

fn end(e: &Endpoint) -> End {
    End {
        kind: e.kind,
        name: e.name.as_str().into(),
        id: e.id.as_deref().map(Into::into),
        service: e.service.as_deref().map(Into::into),
    }
}

fn pair_row(row: Totals, wall: Wall, live: bool) -> PairRow {
    let measured = match row.observed_at {
        ObservedAt::Src => &row.src,
        ObservedAt::Dst => &row.dst,
    };
    let tcp = row.has_tcp();
    let protocols = row
        .by_protocol
        .iter()
        .map(|(protocol, sums)| ProtocolTotals {
            protocol: *protocol,
            sent: count(sums.counters.tx),
            received: count(sums.counters.rx),
            flows: sums.flows,
            active_flows: sums.active_flows,
        })
        .collect();
    // a port tells of segments to its own container whether they came late, not of those from it
    let late_told = match row.observed_at {
        ObservedAt::Src => EachWay { sent: false, received: tcp },
        ObservedAt::Dst => EachWay { sent: tcp, received: false },
    };
    let delay = |d: Delay| row.delays[d as usize].clone();
    PairRow {
        src: end(&row.src),
        dst: end(&row.dst),
        tenant: measured.tenant.as_deref().unwrap_or_default().into(),
        live,
        last_seen: wall.utc(row.last_seen),
        protocols,
        retransmitted: EachWay {
            sent: tcp.then_some(row.retransmitted.tx),
            received: tcp.then_some(row.retransmitted.rx),
        },
        reordered: EachWay {
            sent: late_told.sent.then_some(row.reordered.tx),
            received: late_told.received.then_some(row.reordered.rx),
        },
        rtt: delay(Delay::Rtt),
        near_rtt: delay(Delay::Near),
        handshake_rtt: delay(Delay::Handshake),
    }
}

fn port_row(port: &PortInfo, counted: &[&PortMeasurement]) -> PortRow {
    let of = |direction: Direction| {
        let sum = |class: PortClass| count(counted.iter().map(|p| p.count(direction, class)).sum());
        ClassTotals {
            overflow: sum(PortClass::Overflow),
            arp: sum(PortClass::Arp),
            other: sum(PortClass::Other),
            malformed: sum(PortClass::Malformed),
            nd: sum(PortClass::Nd),
        }
    };
    let totals = Both::new(of(Direction::Tx), of(Direction::Rx));
    PortRow {
        // nanoseconds change in the low bits, indices too: keep them apart
        key: port.tapped_at.as_nanos().rotate_left(24) ^ u64::from(port.ifindex),
        container: port.container.as_ref().map(|(id, name)| End {
            kind: EndpointKind::Container,
            name: name.as_str().into(),
            id: Some(id.as_str().into()),
            service: port.service.as_deref().map(Into::into),
        }),
        tenant: port.tenant.as_deref().unwrap_or_default().into(),
        sent: totals.tx,
        received: totals.rx,
    }
}

fn set_row(set: &SetInfo, report: &SetReport, taken: Taken) -> SetRow {
    let counters = &report.counters;
    let [flows, pairs, ports, histograms] = fills(set, taken);
    SetRow {
        name: set.id.to_string().into(),
        tenant: set.tenant.as_deref().unwrap_or_default().into(),
        flows_full: counters.flow_full,
        unpaired_flows: counters.no_pair,
        unresolved_flows: report.unresolved,
        pairs_full: counters.pair_full,
        ports_full: counters.port_full,
        lost_singletons: counters.hist_full.saturating_add(counters.rtt_unpaired),
        cancelled_probes: counters.probes_cancelled,
        ring_dropped: counters.ring_full,
        flows,
        pairs,
        ports,
        histograms,
    }
}

#[cfg(test)]
pub(super) mod tests;
