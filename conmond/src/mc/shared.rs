//! What the controller shows to others: the store, the names, and a picture of its world that readers take whole.
//!
//! The controller's thread publishes after each round of work; readers never make it wait, nor does it wait for them.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use conmon::api::{self, Event, EventKind};
use ippm::catalogue::{self, Metric};
use ippm::histogram::Histogram;
use ippm::time::{Timestamp, nanos};
use tap::{Dispatcher, Set, SetSpec};
use tokio::sync::broadcast;

use super::janitor::Job;
use super::world::{SetId, SetRole};
use crate::build::Build;
use crate::clock::{Wall, monotonic};
use crate::http::Subscription;
use crate::runtime::EventTime;
use crate::store::{Changing, ContainerName, Names, Snapshots, Store};
use crate::switch::{LinkStats, Namespaces};
use crate::system::System;

/// Recent events that are kept for newcomers.
const RECENT: usize = 1024;
/// How far a reader of the live stream may fall behind, in events.
const BEHIND: usize = 4096;

/// What never changes while the daemon runs.
#[derive(Clone, Debug)]
pub struct Info {
    /// The build that runs.
    pub build: Build,
    /// The instance's name.
    pub instance: String,
    /// The host's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// How long a monitor may be silent.
    pub silence: Duration,
    /// How long pairs without packets and without a living end are shown.
    pub retention: Duration,
}

/// A set as others see it.
#[derive(Clone, Debug)]
pub struct SetInfo {
    /// Its id.
    pub id: SetId,
    /// Whom it serves.
    pub role: SetRole,
    /// The tenant it serves; none for nursery and pool.
    pub tenant: Option<String>,
    /// Its sizes.
    pub spec: SetSpec,
    /// Flow records that its table may grow to.
    pub max_flows: u32,
    /// Packets that found no flow record before the table was as large as it is.
    pub outgrown: u64,
    /// The table is being exchanged for a larger one: `outgrown` is of an earlier time.
    pub grows: bool,
    /// Of pairs and of histograms: whether there can be more, and what was lost before there were so many.
    pub extends: [(bool, u64); 2],
}

/// A tapped port as others see it.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
    /// The container behind it, by id and name.
    pub container: Option<(String, String)>,
    /// The container's tenant.
    pub tenant: Option<String>,
    /// The container's service.
    pub service: Option<String>,
    /// The set that counts it.
    pub set: SetId,
    /// Since when.
    pub tapped_at: Timestamp,
    /// The interface's counters just before and just after it was tapped; the truth at that moment is in between.
    pub baseline: Option<(LinkStats, LinkStats)>,
}

/// How much is known of translated addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// Conversations whose real far end is known.
    pub known: u64,
    /// Conversations that found no room.
    pub full: u64,
    /// Times at which the kernel dropped messages.
    pub overruns: u64,
}

/// The controller's world at one moment. Its parts are shared with the pictures before and after: a copy is made quickly.
#[derive(Clone, Debug)]
pub struct Published {
    /// The engine.
    pub engine: api::EngineStatus,
    /// What ran before the daemon is adopted.
    pub ready: bool,
    /// What is wrong, in sentences.
    pub problems: Vec<String>,
    /// Application containers.
    pub containers: Vec<Arc<api::Container>>,
    /// Monitoring containers, each with its set; memory and processor time as they reported.
    pub monitors: Arc<Vec<(SetId, api::Monitor, crate::monitor::Alive)>>,
    /// When each monitor was last heard.
    pub heard: BTreeMap<SetId, Timestamp>,
    /// The pool.
    pub pool: api::Pool,
    /// Sets.
    pub sets: Arc<Vec<SetInfo>>,
    /// Tapped ports.
    pub ports: Arc<Vec<PortInfo>>,
    /// `tcx` or `clsact`; empty before the first tap.
    pub attachment: String,
    /// Why connection tracking is not listened to.
    pub nat_error: Option<String>,
    /// What is known of translated addresses.
    pub translations: Translated,
    /// When the oldest tap was put in place.
    pub counting_since: Option<Timestamp>,
    /// Replaced monitors by tenant.
    pub restarts: BTreeMap<String, u64>,
    /// Processor time of monitors that are gone.
    pub gone_monitors_cpu: Duration,
    /// Ports that could not be tapped, and why.
    pub refused: Vec<(String, String)>,
    /// Ports on watched bridges that have no tap.
    pub untapped: usize,
}

impl Published {
    /// Before the first look.
    pub fn starting(engine_address: String, pool: u32) -> Self {
        Self {
            engine: api::EngineStatus {
                name: "docker".into(),
                address: engine_address,
                connected: false,
                version: None,
                error: None,
            },
            ready: false,
            problems: Vec::new(),
            containers: Vec::new(),
            monitors: Arc::default(),
            heard: BTreeMap::new(),
            pool: api::Pool { ready: 0, wanted: pool },
            sets: Arc::default(),
            ports: Arc::default(),
            attachment: String::new(),
            nat_error: None,
            translations: Translated::default(),
            counting_since: None,
            restarts: BTreeMap::new(),
            gone_monitors_cpu: Duration::ZERO,
            refused: Vec::new(),
            untapped: 0,
        }
    }
}

/// Histograms of the controller's own speed.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// From a port joining its bridge to its tap.
    pub tap: Histogram,
    /// From the engine's event (or the link's coming up, if later) to the name.
    pub naming: Histogram,
    /// From the engine's event that a container ended to its end being acted on and shown.
    pub stop: Histogram,
    /// The same from when the event was read.
    pub reaction: Histogram,
    /// From the kernel's message that a tapped port is gone to the end of its records.
    pub end: Histogram,
}

impl Delays {
    /// As the API has them.
    pub fn speed(&self) -> api::Speed {
        let of = |delays: &Histogram, metric: &Metric| conmon::api::DelaySummary::of(delays, metric.name);
        api::Speed {
            tapped_after_seconds: of(&self.tap, &catalogue::TAP_DELAY),
            named_after_seconds: of(&self.naming, &catalogue::NAMING_DELAY),
            stopped_after_seconds: of(&self.stop, &catalogue::STOP_DELAY),
            reacted_after_seconds: of(&self.reaction, &catalogue::REACTION_DELAY),
            ended_after_seconds: of(&self.end, &catalogue::END_DELAY),
        }
    }
}

/// The end of a container that is acted on and not shown yet.
struct Stop {
    told: Timestamp,
    read: Timestamp,
    id: String,
    container: String,
    tenant: String,
}

struct Stream {
    sequence: u64,
    recent: VecDeque<Arc<Event>>,
    live: broadcast::Sender<Arc<Event>>,
}

/// Everything that is shared.
pub struct Shared {
    /// What never changes.
    pub info: Info,
    store: Arc<Mutex<Store>>,
    names: Snapshots<Names>,
    published: RwLock<Arc<Published>>,
    sets: RwLock<BTreeMap<SetId, Arc<Set>>>,
    delays: Arc<Mutex<Delays>>,
    stops: Mutex<Vec<Stop>>,
    stream: Mutex<Stream>,
    /// The other hosts, once they are spoken with.
    system: OnceLock<Arc<System>>,
    /// Where records are ended, while that is possible.
    jobs: Mutex<Option<Sender<Job>>>,
    /// Other network namespaces whose ports are watched.
    namespaces: Namespaces,
    dispatcher: OnceLock<Arc<Dispatcher>>,
    /// Packets that ports dropped for their taps.
    tap_drops: AtomicU64,
}

impl Shared {
    /// Nothing yet.
    pub fn new(info: Info, store: Store, names: Names, published: Published) -> Self {
        let stream = Stream { sequence: 0, recent: VecDeque::new(), live: broadcast::channel(BEHIND).0 };
        Self {
            info,
            store: Arc::new(Mutex::new(store)),
            names: Snapshots::new(names),
            published: RwLock::new(Arc::new(published)),
            sets: RwLock::new(BTreeMap::new()),
            delays: Arc::default(),
            stops: Mutex::default(),
            stream: Mutex::new(stream),
            system: OnceLock::new(),
            jobs: Mutex::default(),
            namespaces: Namespaces::default(),
            dispatcher: OnceLock::new(),
            tap_drops: AtomicU64::new(0),
        }
    }

    /// Other network namespaces whose ports are watched.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The other hosts, where there are any.
    pub fn system(&self) -> Option<Arc<System>> {
        self.system.get().cloned()
    }

    /// Other hosts are spoken with from now on.
    pub fn set_system(&self, system: Arc<System>) {
        // there is one for the daemon's whole life
        let _ = self.system.set(system);
    }

    /// Where records can be ended from now on; none when that is over.
    pub(super) fn set_jobs(&self, jobs: Option<Sender<Job>>) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = jobs;
    }

    /// An address on another host has another owner, or none any more: no record of it may go on under the next.
    pub fn changed_hands(&self, address: IpAddr) {
        if !self.store().has_remote(address) {
            return;
        }
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            // it may just have ended
            let _ = jobs.send(Job::Address(address));
        }
    }

    /// The store, for a moment.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, for another owner.
    pub fn store_handle(&self) -> Arc<Mutex<Store>> {
        self.store.clone()
    }

    /// The names, as they are now.
    pub fn names(&self) -> Arc<Names> {
        self.names.now()
    }

    /// The names, to change.
    pub fn names_mut(&self) -> Changing<'_, Names> {
        self.names.change()
    }

    /// A container's name is this. To change names is to copy them where somebody looks at them: what is known already changes nothing.
    pub fn name_container(&self, name: ContainerName) {
        let mut names = self.names_mut();
        if names.container(&name.id) != Some(&name) {
            names.set_container(name);
        }
    }

    /// The names, for another owner.
    pub fn names_handle(&self) -> Snapshots<Names> {
        self.names.clone()
    }

    /// The newest picture of the world.
    pub fn published(&self) -> Arc<Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows a newer picture, and tells of the stops that are in it.
    pub fn publish(&self, published: Published) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(published);
        let shown = monotonic();
        let stops = std::mem::take(&mut *self.stops.lock().unwrap_or_else(PoisonError::into_inner));
        for Stop { told, read, container, tenant, .. } in stops {
            self.note_delay(|d| &mut d.reaction, shown - read);
            let took = shown - told;
            self.note_delay(|d| &mut d.stop, took);
            self.tell(EventKind::ContainerStopped, format!("{container} has ended"), |e| {
                e.container = Some(container);
                e.tenant = Some(tenant);
                e.after_seconds = Some(took.as_secs_f64());
            });
        }
    }

    /// The controller has acted on a container's end, of which the engine told. Others are told with the next
    /// picture: who hears of a stop and asks then sees it, and the time taken is that until it can be seen.
    pub fn stopped(&self, at: EventTime, name: ContainerName) {
        let ContainerName { id, name: container, tenant, .. } = name;
        let mut stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.push(Stop { told: at.told, read: at.received, id, container, tenant });
    }

    /// Containers whose ends wait to be shown, by id.
    pub fn stops(&self) -> Vec<String> {
        let stops = self.stops.lock().unwrap_or_else(PoisonError::into_inner);
        stops.iter().map(|stop| stop.id.clone()).collect()
    }

    /// What ports share that are tapped while many containers start.
    pub fn dispatcher(&self) -> Option<Arc<Dispatcher>> {
        self.dispatcher.get().cloned()
    }

    /// There is one.
    pub fn set_dispatcher(&self, dispatcher: Arc<Dispatcher>) {
        let _ = self.dispatcher.set(dispatcher);
    }

    /// All loaded sets.
    pub fn sets(&self) -> BTreeMap<SetId, Arc<Set>> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A set is loaded, or gone.
    pub fn set_loaded(&self, id: SetId, set: Option<Arc<Set>>) {
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        match set {
            Some(set) => sets.insert(id, set),
            None => sets.remove(&id),
        };
    }

    /// The controller's speed so far.
    pub fn delays(&self) -> Delays {
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The controller's speed, for others that note it.
    pub fn delays_handle(&self) -> Arc<Mutex<Delays>> {
        self.delays.clone()
    }

    /// Notes packets to containers that a port dropped while a qdisc was put on it or taken off.
    pub fn note_tap_drops(&self, packets: u64) {
        self.tap_drops.fetch_add(packets, Ordering::Relaxed);
    }

    /// How many there were since the daemon started.
    pub fn tap_drops(&self) -> u64 {
        self.tap_drops.load(Ordering::Relaxed)
    }

    /// Notes how long something of the controller's took.
    pub fn note_delay(&self, which: impl FnOnce(&mut Delays) -> &mut Histogram, took: Duration) {
        which(&mut self.delays.lock().unwrap_or_else(PoisonError::into_inner)).record(nanos(took));
    }

    /// Tells that something happened, now. `fill` adds what the kind of event has.
    pub fn tell(&self, kind: EventKind, text: String, fill: impl FnOnce(&mut Event)) {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.sequence += 1;
        let mut event = Event {
            sequence: stream.sequence,
            time: Wall::now().utc(monotonic()),
            kind,
            text,
            container: None,
            tenant: None,
            network: None,
            interface: None,
            monitor: None,
            after_seconds: None,
            dropped: None,
        };
        fill(&mut event);
        let event = Arc::new(event);
        if stream.recent.len() >= RECENT {
            stream.recent.pop_front();
        }
        stream.recent.push_back(event.clone());
        // nobody listening is no error
        let _ = stream.live.send(event);
    }

    /// Tells of flows that began or ended, to whoever listens now: they are too many to be kept for newcomers.
    pub fn tell_flows(&self, flows: &[ippm::measurement::FlowEvent]) {
        use ippm::measurement::FlowEventKind;
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.live.receiver_count() == 0 {
            return;
        }
        let wall = Wall::now();
        let names = self.names();
        for flow in flows {
            let (kind, word) = match flow.kind {
                FlowEventKind::New => (EventKind::FlowBegun, "begun".to_owned()),
                FlowEventKind::End(reason) => (EventKind::FlowEnded, format!("ended ({reason})")),
            };
            stream.sequence += 1;
            let port = names.port(flow.key.ifindex);
            let container = port.and_then(|p| p.container.as_deref()).and_then(|id| names.container(id));
            let event = Event {
                sequence: stream.sequence,
                time: wall.utc(flow.time),
                kind,
                text: format!("{} has {word}", flow.key),
                container: container.map(|c| c.name.clone()),
                tenant: container.map(|c| c.tenant.clone()),
                network: None,
                interface: port.map(|p| p.interface.clone()),
                monitor: None,
                after_seconds: None,
                dropped: None,
            };
            let _ = stream.live.send(Arc::new(event));
        }
    }

    /// Recent events and those to come.
    pub fn subscribe(&self) -> Subscription {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        Subscription { recent: stream.recent.iter().cloned().collect(), live: stream.live.subscribe() }
    }
}
