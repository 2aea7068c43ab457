//! A controller that knows one small world, and can be made to hang or fail.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use conmon::api::*;
use conmond::build::Build;
use conmond::http::{
    ClassTotals, EachWay, End, HookRow, HostsMetrics, PairRow, PortRow, ProtocolTotals, SelfMetrics, SetRow,
    Source, Subscription, Usage,
};
use conmond::scope::Scope;
use conmond::system::{Counters, LookupCounters, SystemCounters};
use ippm::histogram::Histogram;
use jiff::Timestamp;
use tokio::sync::broadcast;

pub struct World {
    pub rows: Mutex<Vec<PairRow>>,
    pub own: Mutex<SelfMetrics>,
    pub starting: AtomicBool,
    /// Who asked, each time.
    pub scopes: Mutex<Vec<Scope>>,
    /// How much text each flow carries, to make answers large.
    padding: usize,
    recent: Mutex<Vec<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
    hanging: Mutex<bool>,
    released: Condvar,
}

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn text(text: &str) -> Arc<str> {
    text.into()
}

impl World {
    pub fn new() -> Self {
        Self::with_capacity(64)
    }

    /// A world whose readers may fall behind by so many events.
    pub fn with_capacity(events: usize) -> Self {
        Self {
            rows: Mutex::new(vec![pair_row("web", "db"), pair_row("web", "cache")]),
            own: Mutex::new(own()),
            starting: AtomicBool::new(false),
            scopes: Mutex::new(Vec::new()),
            padding: 0,
            recent: Mutex::new(Vec::new()),
            live: broadcast::channel(events).0,
            hanging: Mutex::new(false),
            released: Condvar::new(),
        }
    }

    /// The same with answers and events of about so many bytes.
    pub fn padded(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    fn asked(&self, scope: &Scope) {
        self.scopes.lock().unwrap().push(scope.clone());
    }

    pub fn happen(&self, sequence: u64, kind: EventKind, tenant: &str) {
        let event = Arc::new(Event {
            sequence,
            time: time("2026-05-04T10:00:00Z"),
            kind,
            text: "x".repeat(self.padding),
            container: Some("web".to_owned()),
            tenant: Some(tenant.to_owned()),
            network: None,
            interface: None,
            monitor: None,
            after_seconds: None,
            dropped: None,
        });
        let mut recent = self.recent.lock().unwrap();
        recent.push(Arc::clone(&event));
        // Nobody may be listening.
        let _ = self.live.send(event);
    }

    pub fn readers(&self) -> usize {
        self.live.receiver_count()
    }

    pub fn hang(&self, hang: bool) {
        *self.hanging.lock().unwrap() = hang;
        self.released.notify_all();
    }
}

pub fn container(name: &str, service: Option<&str>) -> End {
    End {
        kind: EndpointKind::Container,
        name: text(name),
        id: Some(text(&format!("id-{name}"))),
        service: service.map(text),
    }
}

pub fn count(bytes: u64) -> Count {
    Count { bytes, packets: bytes / 100, segments: bytes / 50 }
}

/// A row between two containers, with numbers that tell its parts apart.
pub fn pair_row(src: &str, dst: &str) -> PairRow {
    let mut rtt = Histogram::new();
    rtt.record(50_000);
    rtt.record_many(1 << 20, 3);
    let mut near = Histogram::new();
    near.record(9_000);
    PairRow {
        src: container(&format!("{src}-1"), Some(src)),
        dst: container(&format!("{dst}-1"), Some(dst)),
        tenant: text("shop"),
        live: true,
        last_seen: time("2026-05-04T10:00:00Z"),
        protocols: vec![
            ProtocolTotals {
                protocol: 6,
                sent: count(1000),
                received: count(2000),
                flows: 7,
                active_flows: 2,
            },
            ProtocolTotals { protocol: 17, sent: count(100), received: count(0), flows: 1, active_flows: 0 },
        ],
        retransmitted: EachWay { sent: Some(3), received: Some(0) },
        reordered: EachWay { sent: None, received: Some(1) },
        rtt,
        near_rtt: near,
        handshake_rtt: Histogram::new(),
    }
}

fn own() -> SelfMetrics {
    let mut delay = Histogram::new();
    delay.record(400_000);
    SelfMetrics {
        build: Build { version: "0.1.0", revision: Some("abc") },
        ports: vec![PortRow {
            key: 1,
            container: Some(container("web-1", Some("web"))),
            tenant: text("shop"),
            sent: ClassTotals { arp: count(500), ..ClassTotals::default() },
            received: ClassTotals { overflow: count(700), ..ClassTotals::default() },
        }],
        sets: vec![SetRow {
            name: text("set-1"),
            tenant: text("shop"),
            flows_full: 1,
            pairs_full: 2,
            unpaired_flows: 6,
            unresolved_flows: 7,
            ports_full: 3,
            lost_singletons: 4,
            cancelled_probes: 5,
            ring_dropped: 6,
            flows: Fill { used: 1, capacity: 4 },
            pairs: Fill { used: 1, capacity: 2 },
            ports: Fill { used: 0, capacity: 2 },
            histograms: Fill { used: 2, capacity: 2 },
        }],
        monitor_restarts: BTreeMap::from([("shop".to_owned(), 1)]),
        tap_delay: delay.clone(),
        naming_delay: delay.clone(),
        stop_delay: delay.clone(),
        reaction_delay: delay.clone(),
        end_delay: delay,
        tap_drops: 3,
        hooks: vec![HookRow { hook: text("cm_tx"), runs: 1000, run_time: Duration::from_micros(150) }],
        controller: Usage { cpu: Some(Duration::from_millis(1500)), memory_bytes: Some(10 << 20) },
        monitors: Usage { cpu: Some(Duration::from_secs(2)), memory_bytes: Some(20 << 20) },
        kernel_memory_bytes: Some(4 << 20),
        hosts: Some(HostsMetrics {
            connected: true,
            age: Some(Duration::from_millis(1500)),
            others: 3,
            pending_rows: 2,
            reads: 40,
            failed_reads: 4,
            resyncs: 5,
            cache_hits: 600,
            cache_misses: 44,
            system: SystemCounters {
                resolver: Counters { learnt: 10, given_up: 11, full: 12, refused: 13 },
                waiting: 14,
                lookups: LookupCounters { given_up: 15, full: 16 },
                sought: 17,
                offers_dropped: 18,
                ends_full: 19,
                answered: 20,
                clocks_left_out: 21,
                test_packets_refused: 22,
            },
            clocks: vec![("h2".to_owned(), -0.002, 0.0001)],
        }),
    }
}

fn now() -> Timestamp {
    time("2026-05-04T10:00:01Z")
}

fn endpoint(name: &str) -> Endpoint {
    Endpoint {
        kind: EndpointKind::Container,
        name: name.to_owned(),
        id: Some(format!("id-{name}")),
        service: None,
        tenant: Some("shop".to_owned()),
        host: Some("h1".to_owned()),
        addresses: vec![IpAddr::from([172, 17, 0, 2])],
    }
}

impl Source for World {
    fn containers(&self, scope: &Scope, query: &ContainersQuery) -> Result<ContainersAnswer, ApiError> {
        self.asked(scope);
        let mut containers = vec![Container {
            name: "web-1".to_owned(),
            id: "id-web-1".to_owned(),
            tenant: "shop".to_owned(),
            service: Some("web".to_owned()),
            state: "running".to_owned(),
            networks: vec![Network {
                name: "bridge".to_owned(),
                addresses: Vec::new(),
                interface: Some("veth1".to_owned()),
                joined_at: None,
                link_up_at: None,
                tapped_at: Some(now()),
                named_at: None,
                tapped_by: None,
                tapped_after_seconds: None,
                named_after_seconds: None,
            }],
            monitor: None,
            note: None,
        }];
        containers.retain(|c| query.tenant.as_ref().is_none_or(|tenant| *tenant == c.tenant));
        Ok(ContainersAnswer { generated_at: now(), containers })
    }

    fn monitors(&self, scope: &Scope) -> Result<MonitorsAnswer, ApiError> {
        self.asked(scope);
        let monitor = |name: &str, mode, state| Monitor {
            name: name.to_owned(),
            id: None,
            tenant: None,
            container: None,
            mode,
            state,
            functions: Vec::new(),
            last_report_at: None,
            last_report_age_seconds: None,
            restarts: 0,
            memory_bytes: None,
        };
        let monitors = vec![
            monitor("a", MonitorMode::Shared, MonitorState::Ready),
            monitor("b", MonitorMode::Shared, MonitorState::Working),
            monitor("c", MonitorMode::Shared, MonitorState::Starting),
            monitor("host", MonitorMode::Host, MonitorState::Working),
        ];
        Ok(MonitorsAnswer { generated_at: now(), pool: Pool { ready: 1, wanted: 2 }, monitors })
    }

    fn pairs(&self, scope: &Scope, query: &PairsQuery) -> Result<PairsAnswer, ApiError> {
        self.asked(scope);
        if query.tenant.as_deref() == Some("hang") {
            let mut hanging = self.hanging.lock().unwrap();
            while *hanging {
                hanging = self.released.wait(hanging).unwrap();
            }
        }
        assert!(query.tenant.as_deref() != Some("panic"), "asked to panic");
        Ok(PairsAnswer {
            generated_at: now(),
            hosts: Vec::new(),
            rate_interval_seconds: None,
            pairs: Vec::new(),
        })
    }

    fn flows(&self, scope: &Scope, query: &FlowsQuery) -> Result<FlowsAnswer, ApiError> {
        self.asked(scope);
        let flow = Flow {
            src: endpoint(&"x".repeat(self.padding.max(1))),
            dst: endpoint("db"),
            protocol: "tcp".to_owned(),
            src_address: IpAddr::from([172, 17, 0, 2]),
            src_port: Some(40000),
            dst_address: IpAddr::from([172, 17, 0, 3]),
            dst_port: Some(5432),
            translated_address: None,
            translated_port: None,
            icmp_identifier: None,
            vlan: None,
            first_seen: now(),
            last_seen: now(),
            sent: count(100),
            received: count(200),
            retransmitted_segments: Some(0),
            reordered_segments: None,
            src_tcp_flags: None,
            dst_tcp_flags: None,
            state: FlowState::Active,
            end_reason: None,
            role_guessed: false,
            observed_at: ObservedAt::Src,
            interface: None,
        };
        let flows: Vec<Flow> = Some(flow).into_iter().filter(|flow| query.admits(flow)).collect();
        Ok(FlowsAnswer { generated_at: now(), matched: flows.len() as u64, flows })
    }

    fn measurements(&self, scope: &Scope, _: &MeasurementsQuery) -> Result<MeasurementsAnswer, ApiError> {
        self.asked(scope);
        Ok(MeasurementsAnswer { generated_at: now(), matched: 0, measurements: Vec::new() })
    }

    fn ledger(&self, scope: &Scope) -> Result<LedgerAnswer, ApiError> {
        self.asked(scope);
        Err(ApiError::unavailable("the taps were not read yet").with_remedy("ask again in a second"))
    }

    fn status(&self, scope: &Scope) -> Result<Status, ApiError> {
        self.asked(scope);
        scope.whole("the status")?;
        Ok(Status {
            version: "0.1.0".to_owned(),
            instance: "default".to_owned(),
            host: "h1".to_owned(),
            pid: 1,
            started_at: now(),
            counting_since: None,
            kernel: "6.12".to_owned(),
            attachment: "tcx".to_owned(),
            engine: EngineStatus {
                name: "docker".to_owned(),
                address: "unix:///var/run/docker.sock".to_owned(),
                connected: true,
                version: None,
                error: None,
            },
            counts: Counts::default(),
            cost: Cost {
                hooks: Vec::new(),
                cpu_ratio: None,
                memory_bytes: None,
                kernel_memory_bytes: None,
                sampled_at: None,
            },
            sets: Vec::new(),
            speed: Speed::default(),
            pool: Pool::default(),
            problems: Vec::new(),
        })
    }

    fn doctor(&self, scope: &Scope) -> Result<DoctorAnswer, ApiError> {
        self.asked(scope);
        scope.whole("the doctor")?;
        Ok(DoctorAnswer { generated_at: now(), checks: Vec::new(), ledger: None })
    }

    fn health(&self, scope: &Scope) -> Health {
        self.asked(scope);
        let starting = self.starting.load(Ordering::Relaxed);
        Health {
            status: if starting { HealthState::Starting } else { HealthState::Ok },
            version: "0.1.0".to_owned(),
            instance: "default".to_owned(),
            started_at: now(),
            protocol: Protocol::OURS,
            problems: Vec::new(),
        }
    }

    fn subscribe(&self) -> Subscription {
        let recent = self.recent.lock().unwrap();
        Subscription { recent: recent.clone(), live: self.live.subscribe() }
    }

    fn pair_rows(&self, scope: &Scope) -> Vec<PairRow> {
        self.asked(scope);
        self.rows.lock().unwrap().clone()
    }

    fn clocks(&self, scope: &Scope) -> Result<ClocksAnswer, ApiError> {
        self.asked(scope);
        scope.whole("what is known of other hosts' clocks")?;
        Ok(ClocksAnswer { generated_at: now(), host: "h1".to_owned(), clocks: Vec::new() })
    }

    fn self_metrics(&self, scope: &Scope) -> SelfMetrics {
        self.asked(scope);
        self.own.lock().unwrap().clone()
    }
}
