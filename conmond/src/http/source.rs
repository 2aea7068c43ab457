//! What the HTTP server asks the controller for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conmon::api::{
    ApiError, ClocksAnswer, ContainersAnswer, ContainersQuery, Count, DoctorAnswer, EndpointKind, Event,
    Fill, FlowsAnswer, FlowsQuery, Health, LedgerAnswer, MeasurementsAnswer, MeasurementsQuery,
    MonitorsAnswer, PairsAnswer, PairsQuery, Status,
};
use ippm::histogram::Histogram;
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::build::Build;
use crate::scope::Scope;
use crate::system::{System, SystemCounters};

/// What the controller offers to its readers: a view of what it knows already.
///
/// Every method returns from memory: it may take a lock for a moment, but waits neither for the kernel nor for the
/// engine nor for a monitoring container. They are called on threads for blocking work, several at once; when they
/// hang all the same, readers get 503 and the daemon goes on. An [`ApiError`] is answered with its status.
///
/// Each question comes with its asker's [`Scope`], and the answer holds nothing that this asker may not see.
pub trait Source: Send + Sync + 'static {
    /// Application containers, filtered.
    fn containers(&self, scope: &Scope, query: &ContainersQuery) -> Result<ContainersAnswer, ApiError>;
    /// Monitoring containers, those of the pool too.
    fn monitors(&self, scope: &Scope) -> Result<MonitorsAnswer, ApiError>;
    /// Pairs, filtered and put together at the level that was asked for, the one with most bytes first.
    fn pairs(&self, scope: &Scope, query: &PairsQuery) -> Result<PairsAnswer, ApiError>;
    /// Flow records, filtered and cut at the limit.
    fn flows(&self, scope: &Scope, query: &FlowsQuery) -> Result<FlowsAnswer, ApiError>;
    /// The newest measurements, filtered and cut at the limit.
    fn measurements(&self, scope: &Scope, query: &MeasurementsQuery) -> Result<MeasurementsAnswer, ApiError>;
    /// The ledger, as the newest reading of the taps has it.
    fn ledger(&self, scope: &Scope) -> Result<LedgerAnswer, ApiError>;
    /// What the daemon is and costs.
    fn status(&self, scope: &Scope) -> Result<Status, ApiError>;
    /// The checks.
    fn doctor(&self, scope: &Scope) -> Result<DoctorAnswer, ApiError>;
    /// The verdict. Never refused: a daemon that starts says so.
    fn health(&self, scope: &Scope) -> Health;
    /// The recent events and the live ones after them, everybody's: the stream holds each against the scope.
    fn subscribe(&self) -> Subscription;
    /// All pairs for the metrics, at container level, unfiltered. The exporter puts them together into series.
    fn pair_rows(&self, scope: &Scope) -> Vec<PairRow>;
    /// What the metrics need of ConMon itself.
    fn self_metrics(&self, scope: &Scope) -> SelfMetrics;
    /// The clocks of other hosts.
    fn clocks(&self, scope: &Scope) -> Result<ClocksAnswer, ApiError>;
    /// The other hosts, where there are any.
    fn system(&self) -> Option<Arc<System>> {
        None
    }
}

/// The source as one asker sees it. Handlers are given nothing else, so none can forget who asks.
#[derive(Clone, Copy)]
pub(crate) struct Scoped<'a> {
    source: &'a dyn Source,
    scope: &'a Scope,
}

impl<'a> Scoped<'a> {
    pub(crate) fn new(source: &'a dyn Source, scope: &'a Scope) -> Self {
        Self { source, scope }
    }

    pub(crate) fn scope(&self) -> &'a Scope {
        self.scope
    }

    pub(crate) fn containers(&self, query: &ContainersQuery) -> Result<ContainersAnswer, ApiError> {
        self.source.containers(self.scope, query)
    }

    pub(crate) fn monitors(&self) -> Result<MonitorsAnswer, ApiError> {
        self.source.monitors(self.scope)
    }

    pub(crate) fn pairs(&self, query: &PairsQuery) -> Result<PairsAnswer, ApiError> {
        self.source.pairs(self.scope, query)
    }

    pub(crate) fn flows(&self, query: &FlowsQuery) -> Result<FlowsAnswer, ApiError> {
        self.source.flows(self.scope, query)
    }

    pub(crate) fn measurements(&self, query: &MeasurementsQuery) -> Result<MeasurementsAnswer, ApiError> {
        self.source.measurements(self.scope, query)
    }

    pub(crate) fn ledger(&self) -> Result<LedgerAnswer, ApiError> {
        self.source.ledger(self.scope)
    }

    pub(crate) fn status(&self) -> Result<Status, ApiError> {
        self.source.status(self.scope)
    }

    pub(crate) fn doctor(&self) -> Result<DoctorAnswer, ApiError> {
        self.source.doctor(self.scope)
    }

    pub(crate) fn clocks(&self) -> Result<ClocksAnswer, ApiError> {
        self.source.clocks(self.scope)
    }

    pub(crate) fn health(&self) -> Health {
        self.source.health(self.scope)
    }

    pub(crate) fn subscribe(&self) -> Seen {
        Seen { all: self.source.subscribe(), scope: self.scope.clone() }
    }

    pub(crate) fn pair_rows(&self) -> Vec<PairRow> {
        self.source.pair_rows(self.scope)
    }

    pub(crate) fn system(&self) -> Option<Arc<System>> {
        self.source.system()
    }

    pub(crate) fn self_metrics(&self) -> SelfMetrics {
        self.source.self_metrics(self.scope)
    }
}

/// Everybody's events, and who looks at them.
pub(crate) struct Seen {
    pub(crate) all: Subscription,
    pub(crate) scope: Scope,
}

/// Events, recent and live. Both halves must be taken under one lock, so that no event is missing between them; one
/// that is in both is sent once.
#[derive(Debug)]
pub struct Subscription {
    /// The recent events that are still held, oldest first.
    pub recent: Vec<Arc<Event>>,
    /// The ones to come. Its capacity bounds how far a reader may fall behind.
    pub live: broadcast::Receiver<Arc<Event>>,
}

/// One end of a pair, as the labels of metrics need it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct End {
    /// What it is: a container, the host, a peer outside or the engine's name server.
    pub kind: EndpointKind,
    /// Its name, as in the API.
    pub name: Arc<str>,
    /// The container's id; none for what is no container.
    pub id: Option<Arc<str>>,
    /// The compose service.
    pub service: Option<Arc<str>>,
}

/// Two ends, with all that was counted between them: what the pair metrics are made of.
///
/// Totals grow as long as the row is there. A row whose octets are less than before has begun anew, and its earlier
/// totals stay in the series. There is one row for each (src, dst, tenant); further ones are added up.
#[derive(Debug, Clone, PartialEq)]
pub struct PairRow {
    /// The side that opened the conversation.
    pub src: End,
    /// The side that was called.
    pub dst: End,
    /// The tenant whose tap measured it; empty where it is not yet known.
    pub tenant: Arc<str>,
    /// Whether an end that is a container (or the host) still runs.
    pub live: bool,
    /// The newest packet.
    pub last_seen: Timestamp,
    /// What was counted, by protocol, each protocol once.
    pub protocols: Vec<ProtocolTotals>,
    /// TCP segments sent again; none where no TCP was followed.
    pub retransmitted: EachWay<Option<u64>>,
    /// TCP segments that arrived late; none in the direction in which they cannot be told.
    pub reordered: EachWay<Option<u64>>,
    /// `conmon_pair_rtt_seconds`.
    pub rtt: Histogram,
    /// `conmon_pair_near_rtt_seconds`.
    pub near_rtt: Histogram,
    /// `conmon_pair_handshake_rtt_seconds`.
    pub handshake_rtt: Histogram,
}

/// What was counted of one protocol between two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolTotals {
    /// IP protocol number.
    pub protocol: u8,
    /// From src to dst.
    pub sent: Count,
    /// From dst to src.
    pub received: Count,
    /// Flow records begun.
    pub flows: u64,
    /// Flow records open now.
    pub active_flows: u64,
}

/// One value for each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EachWay<T> {
    /// From src to dst, or from the container behind a port.
    pub sent: T,
    /// From dst to src, or to the container behind a port.
    pub received: T,
}

/// What the metrics say of ConMon itself beside its status. Totals only grow while what they belong to is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SelfMetrics {
    /// The build that runs.
    pub build: Build,
    /// Each tapped port.
    pub ports: Vec<PortRow>,
    /// Each set of kernel tables that counts: those of tenants and the nursery, not the waiting ones.
    pub sets: Vec<SetRow>,
    /// Monitoring containers replaced since the daemon started, by tenant.
    pub monitor_restarts: BTreeMap<String, u64>,
    /// From a port joining a bridge until it was tapped.
    pub tap_delay: Histogram,
    /// From the engine's event until the port was named.
    pub naming_delay: Histogram,
    /// From the engine's event that a container ended until that was acted on and shown.
    pub stop_delay: Histogram,
    /// From reading the engine's event that a container ended until that was acted on and shown.
    pub reaction_delay: Histogram,
    /// From the kernel's message that a port is gone until nothing was counted in its records any more.
    pub end_delay: Histogram,
    /// Packets to containers that ports dropped while a qdisc was put on them or taken off.
    pub tap_drops: u64,
    /// Run times of the tap's programs during the sampling moments since the daemon started.
    pub hooks: Vec<HookRow>,
    /// What the controller uses; none where it could not be read.
    pub controller: Usage,
    /// What all monitoring containers use; processor time includes those that are gone.
    pub monitors: Usage,
    /// Memory of maps and programs in the kernel, bytes.
    pub kernel_memory_bytes: Option<u64>,
    /// What binds this host to others; none where there is no registry of many hosts.
    pub hosts: Option<HostsMetrics>,
}

/// What the metrics say of the registry and of far ends on other hosts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostsMetrics {
    /// Whether the registry answers.
    pub connected: bool,
    /// How old what is known of it is; none before its first answer.
    pub age: Option<Duration>,
    /// Other hosts that it tells of.
    pub others: u64,
    /// This host's rows that it is not known to have.
    pub pending_rows: u64,
    /// Readings that were answered.
    pub reads: u64,
    /// Readings that were not.
    pub failed_reads: u64,
    /// Targets read anew.
    pub resyncs: u64,
    /// Answers from memory.
    pub cache_hits: u64,
    /// Others.
    pub cache_misses: u64,
    /// What was found of far ends, and what is looked for.
    pub system: SystemCounters,
    /// The other hosts' clocks: name, offset and its bound, seconds.
    pub clocks: Vec<(String, f64, f64)>,
}

/// What user space uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since its start.
    pub cpu: Option<Duration>,
    /// Resident memory without the mapped tables, bytes.
    pub memory_bytes: Option<u64>,
}

/// One tapped port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRow {
    /// What tells this port from every other, a later one of the same name or index too (index and time of tapping).
    pub key: u64,
    /// The container behind it; none while it is not known.
    pub container: Option<End>,
    /// The tenant; empty while it is not known.
    pub tenant: Arc<str>,
    /// Packets that belong to no pair, from the container.
    pub sent: ClassTotals,
    /// Packets that belong to no pair, to the container.
    pub received: ClassTotals,
}

/// Packets that belong to no pair, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassTotals {
    /// IP, but the tables for flows and pairs were full.
    pub overflow: Count,
    /// ARP.
    pub arp: Count,
    /// Neither IP nor ARP.
    pub other: Count,
    /// Claims to be IP and is not.
    pub malformed: Count,
    /// IPv6 neighbour discovery and multicast listener discovery.
    pub nd: Count,
}

/// One set of kernel tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRow {
    /// The set's name, not used again for another.
    pub name: Arc<str>,
    /// The tenant it serves; empty for the nursery.
    pub tenant: Arc<str>,
    /// Packets that found no free flow record.
    pub flows_full: u64,
    /// Flows that found no free pair record when they began.
    pub unpaired_flows: u64,
    /// Flows with which one did not wait until it was known who is at their far end.
    pub unresolved_flows: u64,
    /// Packets that found no free pair record.
    pub pairs_full: u64,
    /// Packets that found no free port record.
    pub ports_full: u64,
    /// Round-trip delays lost because no histogram was free.
    pub lost_singletons: u64,
    /// Round-trip delays not measured because the segment was sent again.
    pub cancelled_probes: u64,
    /// Flow events that found no room in the ring.
    pub ring_dropped: u64,
    /// Flow records taken.
    pub flows: Fill,
    /// Pair records taken.
    pub pairs: Fill,
    /// Port records taken.
    pub ports: Fill,
    /// Histograms taken.
    pub histograms: Fill,
}

/// Run time of one program of the tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRow {
    /// The program's name and direction. One row for each name.
    pub hook: Arc<str>,
    /// Runs during the sampling moments.
    pub runs: u64,
    /// Time that these took.
    pub run_time: Duration,
}
