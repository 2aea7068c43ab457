//! The controller's thread: it alone owns the [`World`], the loaded sets and the attached ports.
//!
//! Everything that happens comes through one channel: link messages, the engine's answers, monitors' signs of life,
//! loaded sets. After each message the world is reconciled until nothing is left to do. What is quick (attaching,
//! naming) is done here and now; what is slow is handed to the engine's tasks and to threads that have nothing else to do. On
//! a stop everything in the kernel stays and goes on counting; the next start adopts it.

mod adopt;
mod engine_events;
mod extend;
mod groups;
mod grow;
mod inbox;
mod note;
mod overlays;
mod ports;
mod publish;
mod standin;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use conmon::api::EventKind;
use ippm::measurement::SetCounters;
use ippm::time::Timestamp;
use tap::{Attach, Dispatcher, Port, Set, SetSpec, fault};
use tokio::sync::mpsc::UnboundedSender;

use self::inbox::Inbox;
use self::overlays::Sandboxes;
use super::callers::Callers;
use super::engine::{Answer, Ask, Engine};
use super::janitor::{Janitor, Job};
use super::overlays::{News, Overlays};
use super::persist::{Saved, SavedPort, SavedStats};
use super::reconcile::{Action, reconcile};
use super::rigger::{self, Job as RiggerJob, Rigger};
use super::saver::{Saver, State};
use super::shared::Shared;
use super::surveyor::{self, Question, Surveyor};
use super::tapper::{self, Tapper};
use super::world::{
    LinkSeen, MonitorSeen, PortOwner, SetId, SetRole, SetSeen, TapHold, TapSeen, Wishes, World,
};
use crate::clock::monotonic;
use crate::monitor::{Alive, Fault, Inline, MfSettings, Report, Served, What};
use crate::nat::NatWatch;
use crate::priority;
use crate::runtime::EngineEvent;
use crate::store::ContainerName;
use crate::switch::{HostAddress, LinkEvent, LinkListener, LinkQuery, LinkStats, Namespaces, SwitchError};

/// Work done while nothing happens: retries, timeouts, saving.
const TICK: Duration = Duration::from_millis(100);
/// What can wait while there is other work is done this long after the last time.
const AT_LATEST: Duration = Duration::from_millis(500);
/// More rounds than any sound world needs: an action that is asked for again and again is a fault of ours, to be told.
const ROUNDS: usize = 64;
/// So often the flow tables are looked at.
const LOOK_AT_TABLES: Duration = Duration::from_millis(250);
/// So many words of the engine are taken in one round.
const WORDS: usize = 16;
/// A translation is kept for so long after its connection ended: reports of its flows come later.
const TRANSLATION_LINGER: Duration = Duration::from_secs(120);
/// At most one port is fastened in this time: others want to change network devices, too.
const FASTEN_EVERY: Duration = Duration::from_millis(500);
/// Pause after the links of some namespace could not be listed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Pause after a port could not be fastened.
const FASTEN_AGAIN: Duration = Duration::from_secs(60);
/// A container's addresses stay its own for this long after it ended, unless another container gets them.
const ADDRESS_LINGER: Duration = Duration::from_secs(60);

/// How the controller works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The instance's run folder.
    pub run_dir: PathBuf,
    /// The instance's folder in the BPF file system.
    pub pins: PathBuf,
    /// How programs are attached.
    pub attach: Attach,
    /// How large a set is.
    pub set: SetSpec,
    /// How monitoring functions work.
    pub functions: MfSettings,
    /// What is wanted.
    pub wishes: Wishes,
}

impl Event {
    /// Whether it is what the engine tells by itself.
    fn is_word(&self) -> bool {
        matches!(self, Self::Engine(Answer::Event(_)))
    }
}

/// What the controller's thread is told.
pub enum Event {
    /// A link message.
    Link(LinkEvent),
    /// The engine's.
    Engine(Answer),
    /// A monitor's, without its measurements.
    Monitor(SetId, Sign),
    /// A set is loaded, or could not be.
    Loaded(Result<Box<Set>, tap::Error>),
    /// A set's records are settled: it can go.
    Settled(SetId),
    /// A port comes back from the rigger.
    Rigged(Box<rigger::Answer>),
    /// A port comes back from the tapper.
    Tapped(Box<tapper::Done>),
    /// The surveyor's.
    Found(surveyor::Found),
    /// Of overlay networks' namespaces.
    Overlays(News),
    /// The roles of sets that are on disk now.
    Saved(BTreeMap<u32, SetRole>),
    /// A flow table's growing has come a step further.
    Grow(SetId, grow::Step),
    /// Stop, leaving everything in place.
    Stop,
}

/// A monitor's sign of life or death.
#[derive(Clone, Debug)]
pub enum Sign {
    /// It connected.
    Connected(i32),
    /// It reported, with these counters of the set's own.
    Reported(SetCounters),
    /// How it is.
    Alive(Alive),
    /// Its connection is over.
    Disconnected(String),
}

/// The running thread.
pub struct Controller {
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Controller {
    /// Adopts what an earlier daemon left, begins to listen, and returns once every port that is there is tapped.
    pub fn start(
        settings: Settings,
        shared: Arc<Shared>,
        tokio: tokio::runtime::Handle,
        engine: Engine,
    ) -> anyhow::Result<Self> {
        let (events, inbox) = channel();
        let mut inbox = Inbox::new(inbox);
        let mut work = Work::new(settings, shared, tokio, engine, events.clone())?;
        let listener = {
            let events = events.clone();
            LinkListener::start(move |e| {
                // the thread that reads is the listener's owner: it ends after the listener
                let _ = events.send(Event::Link(e));
            })?
        };
        work.look_at_links()?;
        work.start_reflex();
        work.round();
        work.wait_for_taps(&mut inbox);
        if let Some(dispatcher) = &work.dispatcher {
            // not before: a port that a crash left without a mark was counted until now
            dispatcher.sweep();
        }
        let thread = std::thread::Builder::new()
            .name("controller".into())
            .spawn(move || {
                priority::be_brief();
                work.run(&mut inbox);
                drop(listener);
                work.finish_taps(&mut inbox);
                work.save();
                work.end();
            })
            .context("cannot start the controller's thread")?;
        Ok(Self { events, thread: Some(thread) })
    }

    /// Ends the thread; taps, maps and monitoring containers stay.
    pub fn stop(mut self) {
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A set in the controller's hands.
struct Hand {
    set: Arc<Set>,
    served: Option<Served>,
    /// Kept for its thread: the nursery's, and that of a set whose monitoring container cannot be had.
    inline: Option<Inline>,
}

/// A tapped port in the controller's hands.
struct Tapped {
    /// None while the rigger has it.
    port: Option<Port>,
    /// What holds it, as [`Port::how`] has it.
    how: &'static str,
    /// The interface's counters before the tap was put on.
    before: Option<SavedStats>,
    /// Those, and its counters after.
    baseline: Option<(SavedStats, SavedStats)>,
}

struct Work {
    settings: Settings,
    shared: Arc<Shared>,
    tokio: tokio::runtime::Handle,
    events: Sender<Event>,
    asks: UnboundedSender<Ask>,
    /// The thread of the tasks that talk to the engine; it ends when nobody can ask any more.
    engine: Option<JoinHandle<()>>,
    engine_address: String,
    engine_version: Option<crate::runtime::EngineVersion>,
    engine_error: Option<String>,
    query: LinkQuery,
    namespaces: Namespaces,
    overlays: Overlays,
    /// Overlay networks whose namespace cannot be watched, and why.
    overlays_failed: BTreeMap<String, String>,
    /// What ports share that are tapped while many containers start.
    dispatcher: Option<Arc<Dispatcher>>,
    /// New ports are to share their filters.
    shares: bool,
    sandboxes: Sandboxes,
    /// When all links are to be listed again, because those of some namespace could not be.
    look_again_at: Option<Timestamp>,
    janitor: Option<Janitor>,
    world: World,
    hands: BTreeMap<SetId, Hand>,
    ports: BTreeMap<u32, Tapped>,
    /// Ports that are or were being tapped and whose link has gone, and when the kernel's message of it was read.
    gone: BTreeMap<u32, Timestamp>,
    next_set: u32,
    alive: HashMap<SetId, Alive>,
    gone_cpu: Duration,
    restarts: BTreeMap<String, u64>,
    /// Processes that may call at a set's socket.
    callers: Callers,
    /// A snapshot was asked for: since when, and what came meanwhile.
    snapshot: Option<(Timestamp, Vec<EngineEvent>)>,
    snapshot_again: bool,
    snapshot_retry_at: Option<Timestamp>,
    snapshots: u64,
    monitors_listed: bool,
    monitor_error: Option<String>,
    load_error: Option<String>,
    /// Addresses to give up, and when.
    closing: Vec<(Timestamp, std::net::IpAddr, String)>,
    attachment: &'static str,
    /// What links had sent when we began.
    sent: BTreeMap<u32, u64>,
    /// Not before this are ports taken off filters that they do not need any more. None while one is.
    tidy_at: Option<Timestamp>,
    tapper: Tapper,
    /// Where control groups are, on a host that has version 2 of them.
    hierarchy: Option<PathBuf>,
    rigger: Rigger,
    surveyor: Surveyor,
    saver: Saver,
    /// Says to the janitor that a set's ports were moved to the programs of a larger table.
    growing: BTreeMap<SetId, Sender<bool>>,
    grow_error: Option<String>,
    /// Of translated addresses; the store's own.
    translations: Arc<Mutex<crate::nat::Translations>>,
    nat: Option<NatWatch>,
    /// Why connection tracking is not listened to.
    nat_error: Option<String>,
    started: Timestamp,
    /// Until when an earlier daemon was told who has which address.
    known_until: Timestamp,
    dirty: bool,
    unsaved: bool,
    /// The names' as they were last seen.
    names_changes: u64,
    /// When the flow tables were.
    looked_at: Timestamp,
    saved_at: Timestamp,
    swept_at: Timestamp,
    published_at: Timestamp,
    /// Not before this is the next picture made.
    publish_at: Timestamp,
    /// Ports whose tap was lost and put on anew: what was counted before and after cannot be held against one baseline.
    no_baseline: std::collections::BTreeSet<u32>,
}

impl Work {
    fn run(&mut self, inbox: &mut Inbox) {
        while self.step(inbox).is_continue() {}
    }

    fn step(&mut self, inbox: &mut Inbox) -> ControlFlow<()> {
        let mut next = inbox.next(self.patience())?;
        // a port that joins must not wait for the reconciling of a hundred other messages: one round each, but for what the engine
        // tells all at once; what it told last counts
        let mut taken = 0;
        while let Some(event) = next.take() {
            taken += 1;
            let may_go_on = event.is_word() && taken < WORDS;
            self.take(event);
            self.show_stops();
            if may_go_on {
                next = inbox.next_word();
            }
        }
        self.round();
        self.housekeeping(inbox.is_empty());
        ControlFlow::Continue(())
    }

    /// Until every port that is being tapped now has come back.
    fn wait_for_taps(&mut self, inbox: &mut Inbox) {
        let there: Vec<u32> = self.world.tapping.keys().copied().collect();
        while there.iter().any(|ifindex| self.world.tapping.contains_key(ifindex)) {
            if self.step(inbox).is_break() {
                return;
            }
        }
    }

    /// The end: the port that the tapper is at is taken back, so that what is saved knows of it.
    fn finish_taps(&mut self, inbox: &mut Inbox) {
        self.tapper.stop();
        for done in inbox.tapped() {
            self.take_tapped(done);
        }
    }

    /// How long nothing may happen.
    fn patience(&self) -> Duration {
        if self.dirty { (self.publish_at - monotonic()).min(TICK) } else { TICK }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Link(e) => self.take_link(e),
            Event::Engine(answer) => self.take_answer(answer),
            Event::Monitor(set, sign) => self.take_sign(set, sign),
            Event::Loaded(loaded) => self.take_loaded(loaded),
            Event::Settled(set) => self.take_settled(set),
            Event::Rigged(answer) => match *answer {
                rigger::Answer::Port(done) => self.take_rigged(done),
                rigger::Answer::Group(job, found) => self.take_group(job, found),
                rigger::Answer::Tidied(result) => self.take_tidied(result),
            },
            Event::Tapped(done) => self.take_tapped(*done),
            Event::Found(found) => self.take_found(found),
            Event::Overlays(news) => self.take_overlays(news),
            Event::Saved(roles) => self.take_saved(&roles),
            Event::Grow(set, step) => self.take_growth(set, step),
            Event::Stop => {}
        }
    }

    // ---- links ----------------------------------------------------------------------------------------------------

    fn look_at_links(&mut self) -> anyhow::Result<()> {
        let mut links = self.query.links()?;
        let (elsewhere, silent) = self.namespaces.links();
        links.extend(elsewhere);
        let at = monotonic();
        self.look_again_at = (!silent.is_empty()).then(|| at + LOOK_AGAIN);
        let there: std::collections::HashSet<u32> = links.iter().map(|l| l.ifindex).collect();
        let known = |link: &crate::switch::Link| {
            there.contains(&link.ifindex) || silent.iter().any(|of| Namespaces::is_in(&link.name, of))
        };
        let gone: Vec<u32> =
            self.world.links.iter().filter(|(_, seen)| !known(&seen.link)).map(|(i, _)| *i).collect();
        for ifindex in gone {
            self.world.links.remove(&ifindex);
            self.drop_unclaimed(ifindex);
            self.dirty = true;
        }
        if let Some(dispatcher) = &self.dispatcher
            && !links.iter().any(|l| l.name == dispatcher.holder())
        {
            self.serve_again();
        }
        for link in links {
            // a namespace that has just been found is a new one, and what is not up yet in it has just come
            let found = !tap::is_elsewhere(link.ifindex) || link.up;
            self.see_link(link, at, found);
        }
        match self.query.host_addresses() {
            Ok(all) => self.set_host_addresses(all),
            Err(error) => host_addresses_unknown(&error),
        }
        Ok(())
    }

    /// Somebody removed the device that holds what ports share. Those that are on it keep it alive; others get filters of their own until
    /// there is one again.
    fn serve_again(&self) {
        if let Some(dispatcher) = self.dispatcher.clone().filter(|_| self.shares) {
            tracing::warn!(device = dispatcher.holder(), "somebody removed our device; it is made anew");
            dispatcher.pause();
            self.rigger.send(RiggerJob::Serve(dispatcher));
        }
    }

    fn drop_unclaimed(&self, ifindex: u32) {
        if let Some(port) = self.tapper.forget(ifindex) {
            self.rigger.send(RiggerJob::Detach(port));
        }
    }

    fn look_at_all_links(&mut self) {
        if let Err(error) = self.look_at_links() {
            self.look_again_at = Some(monotonic() + LOOK_AGAIN);
            let error = error.as_ref() as &dyn std::error::Error;
            tracing::error!(error, "links cannot be listed");
        }
    }

    fn set_host_addresses(&mut self, all: Vec<HostAddress>) {
        let all = all.into_iter().map(|a| a.address).collect();
        self.shared.names_mut().set_host_addresses(all);
    }

    fn take_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::New { link, at } => self.see_link(link, at, false),
            LinkEvent::Del { ifindex, at, .. } => {
                let link = self.world.links.remove(&ifindex).map(|seen| seen.link);
                self.drop_unclaimed(ifindex);
                if let Some(dispatcher) = &self.dispatcher {
                    dispatcher.is_gone(ifindex);
                }
                if link.as_ref().is_some_and(|l| l.leads_off() && l.master.is_some()) {
                    self.tell_own_networks();
                }
                let holder = self.dispatcher.as_ref().map(|dispatcher| dispatcher.holder());
                if link.is_some_and(|l| Some(l.name.as_str()) == holder) {
                    self.serve_again();
                }
                if self.ports.contains_key(&ifindex) || self.world.tapping.contains_key(&ifindex) {
                    self.gone.insert(ifindex, at);
                }
                self.dirty = true;
            }
            LinkEvent::Overrun { .. } => {
                tracing::warn!("link messages were dropped; looking at all links");
                self.look_at_all_links();
            }
        }
    }

    /// `found`: it was there when we looked, rather than told of by a message.
    fn see_link(&mut self, link: crate::switch::Link, at: Timestamp, found: bool) {
        let before = self.world.links.get(&link.ifindex);
        let (leads_off, joined_before) = (link.leads_off(), before.and_then(|b| b.link.master));
        let rewired = leads_off && joined_before != link.master;
        let fresh_bridge = link.is_bridge() && before.is_none_or(|b| b.link.name != link.name);
        let joined = match before {
            Some(b) if b.link.master == link.master => b.joined_at,
            Some(_) => link.master.map(|_| at),
            None => link.master.filter(|_| !found).map(|_| at),
        };
        let made = before.map_or((!found).then_some(at), |b| b.made_at);
        let up = match before {
            Some(b) if b.link.up == link.up => b.up_at,
            Some(_) => link.up.then_some(at),
            None => (link.up && !found).then_some(at),
        };
        // a peer that moved to another namespace, or a link that came up, is looked at anew
        let same = before.is_some_and(|b| b.link.link_netnsid == link.link_netnsid && b.link.up == link.up);
        let (peer, look_at, looked, asking) = match before {
            Some(b) if same => (b.peer.clone(), b.look_at, b.looked, b.asking),
            _ => (None, at, 0, false),
        };
        let changed = before.is_none_or(|b| b.link != link);
        self.dirty |= changed;
        let ifindex = link.ifindex;
        let seen =
            LinkSeen { link, made_at: made, joined_at: joined, up_at: up, peer, look_at, looked, asking };
        let watched = self.world.watched_bridge(&seen.link).is_some();
        self.world.links.insert(ifindex, seen);
        if joined.is_some() && self.world.tapping.contains_key(&ifindex) {
            self.tapper.has_joined(ifindex);
        }
        if watched && let Some(tap) = self.world.taps.get_mut(&ifindex).filter(|tap| tap.early) {
            tap.early = false;
            // nothing, if it was there before the port joined
            let took = joined.map_or(Duration::ZERO, |joined| tap.tapped_at - joined);
            self.shared.note_delay(|d| &mut d.tap, took);
        }
        if rewired {
            // a bridge's addresses may be shared with other hosts from now on, or not any more
            self.tell_own_networks();
        }
        if fresh_bridge && !found {
            self.surveyor.ask(Question::HostAddresses);
            // Podman does not tell of networks, and one of a name of its own is watched once the engine is asked
            if self.world.engine {
                self.ask_snapshot();
            }
        }
    }

    // ---- what follows ---------------------------------------------------------------------------------------------

    fn round(&mut self) {
        for round in 0.. {
            let actions = reconcile(&self.world, monotonic());
            if actions.is_empty() {
                break;
            }
            if round == ROUNDS {
                tracing::error!(?actions, "the controller goes round in circles; please report this");
                break;
            }
            for action in actions {
                self.act(action);
            }
            self.dirty = true;
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Tap { ifindex, set } => self.tap(ifindex, set),
            Action::TapGroup { container, set } => self.tap_group(container, set),
            Action::Move { ifindex, set } => self.move_port(ifindex, set),
            Action::Untap { ifindex } => self.untap(ifindex),
            Action::Fasten { ifindex } => self.fasten(ifindex),
            Action::Forget { ifindex } => self.forget_port(ifindex),
            Action::AskPeer { ifindex, whole } => self.ask_peer(ifindex, whole),
            Action::Name { ifindex, container, network } => self.name(ifindex, container, network),
            Action::LookLater { ifindex, at } => {
                if let Some(seen) = self.world.links.get_mut(&ifindex) {
                    seen.look_at = at;
                    seen.looked += 1;
                }
            }
            Action::AskNetwork { id } => {
                if let Some(network) = self.world.networks.get_mut(&id) {
                    network.asked = true;
                    network.asked_at = monotonic();
                    network.stale = false;
                }
                self.ask(Ask::Members(id));
            }
            Action::AskEngine => self.ask_snapshot(),
            Action::Assign { set, role } => self.assign(set, role),
            Action::Load => self.load(),
            Action::StartMonitor { set } => self.start_monitor(set),
            Action::ReplaceMonitor { set, why } => self.replace_monitor(set, &why),
            Action::MarkIdle { set, since } => {
                if let Some(seen) = self.world.sets.get_mut(&set) {
                    seen.idle_since = since;
                }
            }
            Action::MarkUnread { set, since } => {
                if let Some(seen) = self.world.sets.get_mut(&set) {
                    seen.unread_since = since;
                }
            }
            Action::StandIn { set } => self.stand_in(set),
            Action::StandDown { set } => self.stand_down(set),
            Action::AskMode { id } => self.ask_mode(id),
            Action::Resize { set, flows } => self.resize(set, flows),
            Action::Drain { set } => self.drain(set),
            Action::Retire { set } => self.retire(set),
        }
    }

    fn interface(&self, ifindex: u32) -> String {
        let link = self.world.links.get(&ifindex).map(|l| l.link.name.clone());
        link.or_else(|| self.group_name(ifindex)).unwrap_or_else(|| format!("port {ifindex}"))
    }

    fn set_dir(&self, set: SetId) -> PathBuf {
        self.settings.pins.join(set.to_string())
    }

    // ---- sets and monitors ----------------------------------------------------------------------------------------

    fn load(&mut self) {
        self.world.loading += 1;
        let (events, spec) = (self.events.clone(), self.settings.set);
        let spawned = std::thread::Builder::new().name("loader".into()).spawn(move || {
            priority::wait_turn();
            let _ = events.send(Event::Loaded(Set::create(spec).map(Box::new)));
        });
        if let Err(e) = spawned {
            self.world.loading -= 1;
            self.load_error = Some(format!("no thread to load a set: {e}"));
            self.world.load_again_at = monotonic() + Duration::from_secs(5);
        }
    }

    fn take_loaded(&mut self, loaded: Result<Box<Set>, tap::Error>) {
        self.world.loading = self.world.loading.saturating_sub(1);
        let id = SetId(self.next_set);
        let taken = loaded.map_err(anyhow::Error::from).and_then(|set| {
            self.next_set += 1;
            set.pin(&self.set_dir(id))?;
            fault::point("pool.pinned");
            self.own_set(id, *set, SetRole::Pool, MonitorSeen::Missing { retry_at: monotonic() })
        });
        match taken {
            Ok(()) => self.load_error = None,
            Err(error) => {
                let text = format!("{error:#}");
                tracing::error!(error = text, "a set could not be loaded; trying again in 5 s");
                self.load_error = Some(text);
                self.world.load_again_at = monotonic() + Duration::from_secs(5);
            }
        }
        self.dirty = true;
    }

    fn own_set(&mut self, id: SetId, set: Set, role: SetRole, monitor: MonitorSeen) -> anyhow::Result<()> {
        let set = Arc::new(set);
        let sink = self.sink(id);
        let functions = self.settings.functions.clone();
        let (served, inline) = if role == SetRole::Nursery {
            let inline = Inline::start(&id.to_string(), set.descriptors()?, functions, sink)?;
            (None, Some(inline))
        } else {
            let callers = self.callers.clone();
            let check = Arc::new(move |pid: i32, uid: u32| {
                uid == crate::monitor::user::of(pid) && callers.admits(id, pid)
            });
            let dir = self.settings.run_dir.join("pm").join(id.to_string());
            let _in_runtime = self.tokio.enter();
            let served = Served::start(&id.to_string(), &dir, set.descriptors()?, functions, check, sink)?;
            (Some(served), None)
        };
        self.send(Job::Add(id, set.clone()));
        self.shared.set_loaded(id, Some(set.clone()));
        self.hands.insert(id, Hand { set, served, inline });
        let set = &self.hands[&id].set;
        let (table, extending) = (self.flow_table(set), self.extending(set));
        self.world.sets.insert(id, SetSeen { table, extending, ..SetSeen::new(role, monitor) });
        self.unsaved = true;
        Ok(())
    }

    /// Where a set's reports go: measurements straight to the store, proposals to the janitor, signs of life here.
    fn sink(&self, id: SetId) -> crate::monitor::Sink {
        let (shared, events) = (self.shared.clone(), self.events.clone());
        let jobs = self.janitor.as_ref().map(Janitor::jobs);
        Arc::new(move |report: Report| {
            let sign = match report.what {
                What::Batch { batch, .. } => {
                    shared.store().apply(id, &batch);
                    if let Some(system) = shared.system() {
                        system.offer(&batch);
                    }
                    shared.tell_flows(&batch.events);
                    if !batch.expiries.is_empty()
                        && let Some(jobs) = &jobs
                    {
                        let _ = jobs.send(Job::Expire(id, batch.expiries));
                    }
                    Sign::Reported(batch.set)
                }
                What::Alive(alive) => {
                    shared.store().scanned(id, alive.at, alive.flows);
                    Sign::Alive(alive)
                }
                What::Connected { pid } => Sign::Connected(pid),
                What::Disconnected { error } => Sign::Disconnected(error.to_string()),
                // such as a monitor that is being replaced: it calls until the engine has removed it
                What::Misbehaved { error: error @ Fault::Stranger { .. } } => {
                    tracing::info!(set = %id, %error, "a caller is turned away");
                    return;
                }
                What::Misbehaved { error } => {
                    tracing::warn!(set = %id, %error, "a monitor broke the protocol");
                    return;
                }
            };
            let _ = events.send(Event::Monitor(id, sign));
        })
    }

    fn monitor_name(&self, set: SetId) -> String {
        format!("conmon-pm-{}-{set}", self.shared.info.instance)
    }

    fn take_sign(&mut self, id: SetId, sign: Sign) {
        let name = self.monitor_name(id);
        let now = monotonic();
        let Some(set) = self.world.sets.get_mut(&id) else { return };
        if let Sign::Alive(alive) = &sign {
            self.alive.insert(id, *alive);
        }
        if let Sign::Reported(counters) = &sign {
            set.table.used = grow::in_use(counters);
            set.table.full = counters.flow_full;
        }
        match (&mut set.monitor, sign) {
            (MonitorSeen::Connected { heard_at, .. }, Sign::Reported(_) | Sign::Alive(_)) => *heard_at = now,
            (monitor @ MonitorSeen::Started { .. }, Sign::Connected(pid)) => {
                let MonitorSeen::Started { id: container, .. } = monitor else { return };
                *monitor =
                    MonitorSeen::Connected { id: container.clone(), pid: pid.unsigned_abs(), heard_at: now };
                let kind = if set.role == SetRole::Pool {
                    EventKind::MonitorReady
                } else {
                    EventKind::MonitorAssigned
                };
                self.shared.tell(kind, format!("{name} is connected"), |e| e.monitor = Some(name.clone()));
                self.dirty = true;
            }
            // it called before the engine told that it runs, or it is one of an earlier daemon's
            (
                monitor @ (MonitorSeen::Starting { .. } | MonitorSeen::Missing { .. }),
                Sign::Connected(pid),
            ) => {
                *monitor = MonitorSeen::Connected { id: name, pid: pid.unsigned_abs(), heard_at: now };
                self.dirty = true;
            }
            (monitor @ MonitorSeen::Connected { .. }, Sign::Disconnected(why)) => {
                let MonitorSeen::Connected { id: container, pid, .. } = monitor else { return };
                tracing::info!(monitor = name, why, "a monitor's connection is over");
                *monitor = MonitorSeen::Started { id: container.clone(), pid: Some(*pid), since: now };
                self.dirty = true;
            }
            _ => {}
        }
    }

    fn start_monitor(&mut self, set: SetId) {
        self.callers.replace(set);
        if let Some(seen) = self.world.sets.get_mut(&set) {
            seen.monitor = MonitorSeen::Starting { since: monotonic() };
        }
        let dir = self.settings.run_dir.join("pm").join(set.to_string());
        self.ask(Ask::StartMonitor { set, dir });
    }

    fn replace_monitor(&mut self, set: SetId, why: &str) {
        let name = self.monitor_name(set);
        tracing::warn!(monitor = name, why, "a monitor is replaced");
        self.count_restart(set);
        self.shared.tell(EventKind::MonitorLost, format!("{name} is replaced: {why}"), |e| {
            e.monitor = Some(name.clone())
        });
        self.start_monitor(set);
    }

    fn count_restart(&mut self, set: SetId) {
        if let Some(alive) = self.alive.remove(&set) {
            self.gone_cpu += Duration::from_nanos(alive.cpu_ns);
        }
        if let Some(seen) = self.world.sets.get_mut(&set) {
            seen.restarts += 1;
            let tenant = match &seen.role {
                SetRole::Tenant(t) => t.clone(),
                SetRole::Dedicated(id) => self
                    .world
                    .containers
                    .get(id)
                    .map(|c| c.container.policy.tenant.clone())
                    .unwrap_or_default(),
                SetRole::Pool | SetRole::Nursery => String::new(),
            };
            *self.restarts.entry(tenant).or_default() += 1;
        }
    }

    fn assign(&mut self, set: SetId, role: SetRole) {
        let name = self.monitor_name(set);
        let Some(seen) = self.world.sets.get_mut(&set) else { return };
        seen.role = role.clone();
        seen.idle_since = None;
        // on disk before the first port is pinned under it, which waits for that
        seen.recorded = false;
        fault::point("assign.unsaved");
        self.save();
        let whom = match &role {
            SetRole::Tenant(t) => format!("tenant {t}"),
            SetRole::Dedicated(id) => {
                self.shared.names().container(id).map_or_else(|| id.clone(), |c| c.name.clone())
            }
            SetRole::Pool | SetRole::Nursery => String::new(),
        };
        self.shared.tell(EventKind::MonitorAssigned, format!("{name} measures {whom}"), |e| {
            e.monitor = Some(name.clone());
            if let SetRole::Tenant(t) = role {
                e.tenant = Some(t);
            }
        });
    }

    /// Settles a set's records; the set goes when that is done.
    fn retire(&mut self, id: SetId) {
        let Some(seen) = self.world.sets.remove(&id) else { return };
        if let Some(alive) = self.alive.remove(&id) {
            self.gone_cpu += Duration::from_nanos(alive.cpu_ns);
        }
        if let Some(hand) = self.hands.get(&id)
            && let Some(served) = &hand.served
        {
            served.dismiss();
        }
        if !matches!(seen.monitor, MonitorSeen::Inline | MonitorSeen::Missing { .. }) {
            self.ask(Ask::RemoveMonitor { id: self.monitor_name(id) });
        }
        let (done, settled) = channel();
        fault::point("retire.begun");
        self.send(Job::Drop(id, done));
        let events = self.events.clone();
        let waiter = std::thread::Builder::new().name("settling".into()).spawn(move || {
            priority::wait_turn();
            // an error means that the janitor knew no such set: it is settled, too
            let _ = settled.recv();
            let _ = events.send(Event::Settled(id));
        });
        if let Err(error) = waiter {
            tracing::error!(%error, set = %id, "no thread to wait for a set; its pins stay until the next start");
        }
        self.unsaved = true;
    }

    fn take_settled(&mut self, id: SetId) {
        self.hands.remove(&id);
        self.shared.set_loaded(id, None);
        self.callers.forget(id);
        fault::point("retire.settled");
        if let Err(error) = Set::unpin(&self.set_dir(id)) {
            tracing::warn!(set = %id, error = &error as &dyn std::error::Error, "pins of a retired set remain");
        }
        fault::point("retire.unpinned");
        let _ = std::fs::remove_dir_all(self.settings.run_dir.join("pm").join(id.to_string()));
        self.unsaved = true;
    }

    // ---- odds and ends --------------------------------------------------------------------------------------------

    fn ask(&self, ask: Ask) {
        // the tasks end with the runtime, after this thread
        let _ = self.asks.send(ask);
    }

    fn send(&self, job: Job) {
        if let Some(janitor) = &self.janitor {
            janitor.send(job);
        }
    }

    /// What the kernel says of the sets' tables.
    fn look_at_tables(&mut self, now: Timestamp) {
        let sets: Vec<SetId> = self.hands.keys().copied().collect();
        for id in sets {
            let Some(Ok(counters)) = self.hands.get(&id).map(|hand| hand.set.counters()) else { continue };
            if let Some(set) = self.world.sets.get_mut(&id) {
                set.table.look(grow::in_use(&counters), counters.flow_full, &self.world.wishes.room, now);
            }
            self.look_at_extents(id, &counters);
        }
    }

    /// A stop is over when it can be seen: it does not wait for a picture of all, nor for what else there is to do.
    fn show_stops(&self) {
        let stops = self.shared.stops();
        if !stops.is_empty() {
            self.shared.publish(self.picture_with(&self.shared.published(), &stops));
        }
    }

    /// `idle`: nothing else waits.
    fn housekeeping(&mut self, idle: bool) {
        let now = monotonic();
        if self.snapshot_retry_at.is_some_and(|at| at <= now) {
            self.snapshot_retry_at = None;
            self.ask_snapshot();
        }
        if self.look_again_at.is_some_and(|at| at <= now) {
            self.look_at_all_links();
        }
        self.tidy(now);
        let due: Vec<_> = self.closing.extract_if(.., |(at, _, _)| *at <= now).collect();
        for (at, address, container) in due {
            // one that was started again meanwhile may have got it again
            if !self.world.has_address(&container, address) {
                self.shared.names_mut().close_address(address, &container, at);
            }
        }
        if now - self.swept_at >= Duration::from_secs(10) {
            self.swept_at = now;
            if let Some(dispatcher) = self.dispatcher.clone().filter(|_| self.shares) {
                // no message tells of a qdisc that somebody takes off our device
                self.rigger.send(RiggerJob::Serve(dispatcher));
            }
            self.send(Job::Sweep);
            let kept = &self.world.containers;
            let retention = self.shared.info.retention.max(ADDRESS_LINGER);
            let (links, taps) = (&self.world.links, &self.world.taps);
            let is_there = |port: u32| links.contains_key(&port) || taps.contains_key(&port);
            {
                let mut names = self.shared.names_mut();
                names.prune(now.before(retention), |id| kept.contains_key(id));
                // its pairs are told of for so long after their last packet
                names.forget_ports(now, now.before(retention + ADDRESS_LINGER), is_there);
            }
            self.surveyor.ask(Question::HostAddresses);
            self.translations(|t| t.prune(now.before(TRANSLATION_LINGER)));
            self.look_at_groups();
            if self.nat.is_none() {
                self.watch_nat();
            }
        }
        if now - self.looked_at >= LOOK_AT_TABLES {
            self.looked_at = now;
            self.look_at_tables(now);
        }
        let changes = self.shared.names().changes();
        self.unsaved |= std::mem::replace(&mut self.names_changes, changes) != changes;
        let wait = if idle { TICK } else { AT_LATEST };
        if self.unsaved && now - self.saved_at >= wait {
            self.save();
        }
        // signs of life change nothing but their own time: once in a while is enough for them
        if (self.dirty && idle && now >= self.publish_at) || now - self.published_at >= AT_LATEST {
            self.dirty = false;
            self.published_at = now;
            self.shared.publish(self.picture());
            // a picture of hundreds of containers takes a while, in which names and stops wait: nine tenths of the time are theirs
            let done = monotonic();
            self.publish_at = done + 9 * (done - now);
        }
    }

    /// Has written down what there is; the saver tells when it is.
    fn save(&mut self) {
        self.unsaved = false;
        self.saved_at = monotonic();
        let sets = self.world.sets.iter().map(|(id, s)| (id.0, s.role.clone())).collect();
        let ports = self
            .world
            .taps
            .iter()
            .map(|(ifindex, tap)| {
                let seen = self.world.links.get(ifindex);
                let port = SavedPort {
                    tapped_at: tap.tapped_at,
                    joined_at: seen.and_then(|s| s.joined_at),
                    up_at: seen.and_then(|s| s.up_at),
                    owner: self.world.owners.get(ifindex).cloned(),
                    baseline: self.ports.get(ifindex).and_then(|p| p.baseline),
                };
                (*ifindex, port)
            })
            .collect();
        let ended = self.closing.iter();
        let ended =
            ended.map(|(at, address, id)| (*address, id.clone(), at.before(ADDRESS_LINGER))).collect();
        let (names, overlays) = (self.shared.names(), self.namespaces.open());
        // before the engine's first list we know whom the daemon before us knew, and of nobody who came since
        let at = if self.snapshots == 0 { self.known_until } else { self.saved_at };
        self.saver.save(State { at, sets, ports, names, ended, overlays });
    }

    /// Waits for the threads that end with this one.
    fn end(self) {
        self.shared.set_jobs(None);
        let Work { asks, engine, growing, .. } = self;
        // a janitor that waits for ports to be moved waits no more
        drop(growing);
        drop(asks);
        if let Some(engine) = engine {
            let _ = engine.join();
        }
    }

    fn take_saved(&mut self, roles: &BTreeMap<u32, SetRole>) {
        fault::point("assign.saved");
        for (id, seen) in &mut self.world.sets {
            seen.recorded |= roles.get(&id.0) == Some(&seen.role);
        }
    }
}

impl Work {
    /// Begins to listen to connection tracking, where there is any.
    fn watch_nat(&mut self) {
        match NatWatch::start(self.translations.clone()) {
            Ok(watch) => {
                self.nat = Some(watch);
                self.nat_error = None;
            }
            Err(error) => {
                let text = chain(&error);
                if self.nat_error.is_none() {
                    tracing::warn!(error = text, "translated addresses are not told apart");
                }
                self.nat_error = Some(text);
            }
        }
    }

    fn translations<T>(&self, f: impl FnOnce(&mut crate::nat::Translations) -> T) -> T {
        f(&mut self.translations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn host_addresses_unknown(error: &SwitchError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, "the host's own addresses are not known");
}

/// The state file in the run folder.
pub const STATE: &str = "state.json";
/// The journal in the run folder.
pub const JOURNAL: &str = "pairs.journal";

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
