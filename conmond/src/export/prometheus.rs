//! Metrics in Prometheus' text format, with the names, help texts and labels of [`ippm::catalogue`].
//!
//! Each scrape takes the source's rows as they are and puts them together into series: of services by default, of
//! containers on request, at most so many. The only state kept between scrapes is what makes counters only grow when
//! the rows behind them come and go ([`super::series`]).

mod encode;
mod totals;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conmon::api::{ApiError, EndpointKind, Fill, MonitorMode, MonitorState, MonitorsAnswer};
use jiff::Timestamp;

use super::series::{Row, Series};
use crate::config::{Config, MetricsLevel};
use crate::http::{End, HttpTotals, PairRow, PortRow, Scoped, SelfMetrics, SetRow, Source};
use crate::scope::Scope;
use totals::{PairTotals, PortTotals, SetTotals};

/// Media type of the text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Label value of what is above the limit of series.
pub const OTHER: &str = "other";

/// How the metrics shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExporterSettings {
    /// What the labels of pairs and ports name.
    pub level: MetricsLevel,
    /// At most this many pairs have series of their own, and as many services with ports.
    pub max_series: usize,
    /// A pair of which no end is there any more is shown for so long after its last packet.
    pub retention: Duration,
}

impl From<&Config> for ExporterSettings {
    fn from(config: &Config) -> Self {
        Self {
            level: config.metrics_level,
            max_series: config.max_series as usize,
            retention: Duration::from_secs(config.retention_seconds),
        }
    }
}

/// Writes the metrics.
#[derive(Debug)]
pub struct Exporter {
    settings: ExporterSettings,
    state: Mutex<State>,
}

/// Exporters of one source, one for each scope: what makes counters only grow is kept for each reader's own rows.
#[derive(Debug)]
pub(crate) struct Exporters {
    settings: ExporterSettings,
    whole: Arc<Exporter>,
    /// The one asked last at the end.
    tenants: Mutex<Vec<(Arc<str>, Arc<Exporter>)>>,
}

/// Tenants whose counters are kept. When another asks, those of who asked longest ago begin anew.
const MAX_TENANTS: usize = 64;

impl Exporters {
    /// Exporters that have seen no series yet.
    pub(crate) fn new(settings: ExporterSettings) -> Self {
        let whole = Arc::new(Exporter::new(settings.clone()));
        Self { settings, whole, tenants: Mutex::new(Vec::new()) }
    }

    /// The one for this scope.
    pub(crate) fn of(&self, scope: &Scope) -> Arc<Exporter> {
        let Some(tenant) = scope.tenant() else { return Arc::clone(&self.whole) };
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let exporter = match tenants.iter().position(|(name, _)| name == tenant) {
            Some(at) => tenants.remove(at).1,
            None => Arc::new(Exporter::new(self.settings.clone())),
        };
        if tenants.len() == MAX_TENANTS {
            tenants.remove(0);
        }
        tenants.push((Arc::clone(tenant), Arc::clone(&exporter)));
        exporter
    }
}

/// `src`, `dst` and `tenant`.
type PairLabels = [Arc<str>; 3];
/// `service` and `tenant`.
type PortLabels = [Arc<str>; 2];
/// What tells an end from every other: its kind, and its id or name.
type EndKey = (EndpointKind, Arc<str>);

#[derive(Debug)]
struct State {
    pairs: Series<(EndKey, EndKey, Arc<str>), PairLabels, PairTotals>,
    ports: Series<u64, PortLabels, PortTotals>,
    sets: Series<Arc<str>, Arc<str>, SetTotals>,
}

/// All series of one scrape.
#[derive(Debug)]
struct Snapshot {
    pairs: BTreeMap<PairLabels, PairTotals>,
    ports: BTreeMap<PortLabels, PortTotals>,
    sets: BTreeMap<Arc<str>, SetTotals>,
    fills: BTreeMap<Arc<str>, [Fill; 4]>,
    taps: BTreeMap<Arc<str>, u64>,
    containers: BTreeMap<String, u64>,
    monitors: u64,
    /// Of the whole host: with what belongs to no tenant.
    whole: bool,
    engine_connected: bool,
    http: HttpTotals,
    own: SelfMetrics,
}

impl Exporter {
    /// A writer that has seen no series yet.
    pub fn new(settings: ExporterSettings) -> Self {
        let limit = settings.max_series;
        let state = State {
            pairs: Series::new(limit, |[_, _, tenant]| [OTHER.into(), OTHER.into(), Arc::clone(tenant)]),
            ports: Series::new(limit, |[_, tenant]| [OTHER.into(), Arc::clone(tenant)]),
            sets: Series::new(usize::MAX, Arc::clone),
        };
        Self { settings, state: Mutex::new(state) }
    }

    /// The metrics of what `scope` may see, as they are at `now`. `http` is what the HTTP server counts itself. All
    /// scrapes of one exporter must have the same scope.
    pub fn render(
        &self,
        source: &dyn Source,
        scope: &Scope,
        http: HttpTotals,
        now: Timestamp,
    ) -> Result<String, ApiError> {
        self.scrape(Scoped::new(source, scope), http, now)
    }

    pub(crate) fn scrape(
        &self,
        source: Scoped<'_>,
        http: HttpTotals,
        now: Timestamp,
    ) -> Result<String, ApiError> {
        let containers = source.containers(&Default::default())?;
        let mut watched: BTreeMap<String, u64> = BTreeMap::new();
        for container in containers.containers {
            if container.state == "running" && container.networks.iter().any(|n| n.tapped_at.is_some()) {
                *watched.entry(container.tenant).or_default() += 1;
            }
        }
        let monitors = running(&source.monitors()?);
        let whole = source.scope().tenant().is_none();
        let engine_connected = whole && source.status()?.engine.connected;
        let mut own = source.self_metrics();

        let mut taps: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for port in &own.ports {
            *taps.entry(Arc::clone(&port.tenant)).or_default() += 1;
        }
        let mut fills: BTreeMap<Arc<str>, [Fill; 4]> = BTreeMap::new();
        for set in &own.sets {
            let sum = fills.entry(Arc::clone(&set.tenant)).or_default();
            for (sum, one) in sum.iter_mut().zip([set.flows, set.pairs, set.ports, set.histograms]) {
                sum.used = sum.used.saturating_add(one.used);
                sum.capacity = sum.capacity.saturating_add(one.capacity);
            }
        }

        let pair_rows = source.pair_rows();
        let (port_rows, set_rows) = (std::mem::take(&mut own.ports), std::mem::take(&mut own.sets));
        // Two scrapes at a time take turns. A panic in one leaves sums that are at worst too small.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Snapshot {
            pairs: state.pairs.update(pair_rows.into_iter().map(|row| self.pair(row, now))),
            ports: state.ports.update(port_rows.into_iter().map(|row| self.port(row))),
            sets: state.sets.update(set_rows.into_iter().map(set)),
            fills,
            taps,
            containers: watched,
            monitors,
            whole,
            engine_connected,
            http,
            own,
        };
        drop(state);
        encode::text(snapshot).map_err(|_| ApiError::internal("the metrics cannot be written"))
    }

    fn pair(&self, row: PairRow, now: Timestamp) -> Row<(EndKey, EndKey, Arc<str>), PairLabels, PairTotals> {
        let age = now.duration_since(row.last_seen);
        let recent = Duration::try_from(age).map_or(true, |age| age <= self.settings.retention);
        Row {
            key: (end_key(&row.src), end_key(&row.dst), Arc::clone(&row.tenant)),
            labels: [self.label(&row.src), self.label(&row.dst), Arc::clone(&row.tenant)],
            live: row.live || recent,
            totals: PairTotals::from(row),
        }
    }

    fn port(&self, row: PortRow) -> Row<u64, PortLabels, PortTotals> {
        let service = row.container.as_ref().map_or_else(|| "".into(), |container| self.label(container));
        Row {
            key: row.key,
            labels: [service, row.tenant],
            live: true,
            totals: PortTotals { sent: row.sent, received: row.received },
        }
    }

    /// How an end is called in labels. Only containers have names of their own there: peers outside are without
    /// number.
    fn label(&self, end: &End) -> Arc<str> {
        match (end.kind, self.settings.level, &end.service) {
            (EndpointKind::Container, MetricsLevel::Service, Some(service)) => Arc::clone(service),
            (EndpointKind::Container | EndpointKind::Service | EndpointKind::Tenant, _, _) => {
                Arc::clone(&end.name)
            }
            (kind @ (EndpointKind::Host | EndpointKind::External | EndpointKind::Dns), _, _) => {
                kind.as_str().into()
            }
        }
    }
}

fn set(row: SetRow) -> Row<Arc<str>, Arc<str>, SetTotals> {
    Row {
        key: row.name,
        labels: row.tenant,
        live: true,
        totals: SetTotals {
            flows_full: row.flows_full,
            pairs_full: row.pairs_full,
            unpaired_flows: row.unpaired_flows,
            unresolved_flows: row.unresolved_flows,
            ports_full: row.ports_full,
            lost_singletons: row.lost_singletons,
            cancelled_probes: row.cancelled_probes,
            ring_dropped: row.ring_dropped,
        },
    }
}

fn end_key(end: &End) -> EndKey {
    (end.kind, Arc::clone(end.id.as_ref().unwrap_or(&end.name)))
}

/// Monitoring containers that run and have called.
fn running(answer: &MonitorsAnswer) -> u64 {
    let runs = |state| matches!(state, MonitorState::Ready | MonitorState::Working | MonitorState::Silent);
    answer.monitors.iter().filter(|m| m.mode != MonitorMode::Host && runs(m.state)).count() as u64
}
