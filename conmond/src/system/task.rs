//! The task that keeps one host in step with the others: it tells the registry who is here, and finds out who is at the far
//! ends. It owns the [`Directory`] and the [`Resolver`]; what it learns goes to the names and translations that everybody reads.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use conmon::api::{
    ApiError, ClockSession, End, EndpointKind, EndsAnswer, EndsQuestion, HostClock, MatrixHost, MatrixQuery,
    PairsAnswer,
};
use futures_util::StreamExt as _;
use ippm::flow::{FlowKey, Role};
use ippm::measurement::{Batch, FlowEventKind, PairMeasurement};
use ippm::time::Timestamp;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::clocks::{Clocks, Reflector};
use super::directory::Directory;
use super::ends::{self, socket};
use super::lookups::{LookupCounters, Lookups, Outcome, Sighting};
use super::publish::{Networks, is_reachable, note_networks, own};
use super::resolver::{Asking, Counters, Flow, Known, Resolver};
use super::{BoxFuture, INCOMPLETE, Matrix, Peers, Sheet, Snapshot};
use crate::clock::{Wall, monotonic};
use crate::discovery::{self, step};
use crate::mc::Shared;
use crate::nat::{Seen, Side, Translations, Wire};
use crate::registry::{Answer, Health, HostRow, Registry};
use crate::scope::Scope;
use crate::store::Names;

/// Hosts that are asked for their pairs at one time. Many that do not answer must not keep others from being asked.
const AT_ONCE: usize = 512;
/// How often it is looked whether there is something new to say.
const LOOK: Duration = Duration::from_millis(50);
/// Reports that wait; further ones are counted, and what they told comes again with the next.
const OFFERS: usize = 1024;
/// A question to another host is given up after this.
const ASK: Duration = Duration::from_secs(2);
const PRUNE: Duration = Duration::from_secs(10);
/// How often it is looked for hosts whose clocks are to be compared.
const CLOCKS: Duration = Duration::from_secs(1);

/// What a set's report says of far ends.
#[derive(Debug, Default)]
struct Offer {
    flows: Vec<Flow>,
    addresses: Vec<Sighting>,
}

enum Told {
    Offer(Offer),
    /// Who had an address at a time, at which it was seen or not.
    Found(IpAddr, Vec<(Timestamp, bool, Answer)>),
    Answered(Box<Asking>, Option<EndsAnswer>),
}

/// What the system's part of this host does, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemCounters {
    /// The resolver's.
    pub resolver: Counters,
    /// Conversations whose far end is being asked for.
    pub waiting: u64,
    /// Those of the look-ups of addresses.
    pub lookups: LookupCounters,
    /// Addresses that are looked for.
    pub sought: u64,
    /// Reports that found no room.
    pub offers_dropped: u64,
    /// Conversations for whose far ends there was no room.
    pub ends_full: u64,
    /// Questions of other hosts that were answered.
    pub answered: u64,
    /// Hosts that talk with this one whose clocks are not compared now, because so many others' are.
    pub clocks_left_out: u64,
    /// Test packets of others that were not answered: of no session, or without its key's proof.
    pub test_packets_refused: u64,
}

/// The handle of the running task.
pub struct System {
    told: mpsc::Sender<Told>,
    shared: Arc<Shared>,
    translations: Arc<Mutex<Translations>>,
    registry: Arc<dyn Registry>,
    peers: Arc<dyn Peers>,
    /// Addresses with which flows are worth a look.
    masks: RwLock<Arc<HashSet<IpAddr>>>,
    /// Addresses that have another owner, whose records are to be ended once the names are told.
    changed_hands: Mutex<HashSet<IpAddr>>,
    directory: Mutex<Directory>,
    resolver: Mutex<Resolver>,
    lookups: Mutex<Lookups>,
    clocks: Arc<Clocks>,
    reflector: OnceLock<Arc<Reflector>>,
    offers_dropped: AtomicU64,
    answered: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the resolver asks this host.
struct Here<'a> {
    names: &'a Names,
    translations: &'a Mutex<Translations>,
    directory: &'a Directory,
}

impl Known for Here<'_> {
    fn hosts(&self, address: IpAddr) -> Vec<String> {
        self.directory.to_ask(address)
    }

    fn is_known(&self, seen: &Seen, at: Timestamp) -> bool {
        lock(self.translations).knows(seen, at)
    }

    fn has_heard(&self, first: Timestamp, now: Timestamp) -> bool {
        ends::has_heard(&lock(self.translations), first, now)
    }

    fn wire(&self, seen: Seen, side: Side, first: Timestamp, last: Timestamp) -> Wire {
        lock(self.translations).wire(seen, side, first, last)
    }

    fn near(&self, key: &FlowKey) -> Option<End> {
        let container = self.names.container(self.names.port(key.ifindex)?.container.as_deref()?)?;
        Some(End {
            kind: EndpointKind::Container,
            name: container.name.clone(),
            id: Some(container.id.clone()),
            service: container.service.clone(),
            tenant: Some(container.tenant.clone()),
            at: socket((key.local, key.local_port)),
        })
    }
}

impl System {
    /// Begins. To be called inside a tokio runtime. `host` is this host's row; its addresses are filled in as they are.
    pub fn start(
        host: HostRow,
        shared: Arc<Shared>,
        registry: Arc<dyn Registry>,
        peers: Arc<dyn Peers>,
    ) -> Arc<Self> {
        let (told, inbox) = mpsc::channel(OFFERS);
        let translations = shared.store().translations();
        let clocks = Clocks::new(peers.clone());
        let system = Arc::new(Self {
            clocks,
            told,
            translations,
            registry,
            peers,
            masks: RwLock::default(),
            changed_hands: Mutex::default(),
            directory: Mutex::new(Directory::new(&host.name)),
            resolver: Mutex::default(),
            lookups: Mutex::default(),
            reflector: OnceLock::new(),
            offers_dropped: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            shared,
        });
        tokio::spawn(system.clone().run(host, inbox));
        system
    }

    /// What a report says: far ends are found out in due time. Does not wait.
    pub fn offer(&self, batch: &Batch) {
        for event in &batch.events {
            discovery::flow(event, batch.taken_at);
        }
        let masks = self.masks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let names = self.shared.names();
        let mut offer = Offer::default();
        let mut flow = |key: &FlowKey, role: Role, first, last| {
            if names.is_here(key.remote, first, last) {
                return;
            }
            if masks.contains(&key.remote) {
                offer.flows.push(Flow { key: *key, role, first, last });
            } else {
                offer.addresses.push(Sighting { address: key.remote, first, last });
            }
        };
        for event in batch.events.iter().filter(|e| e.kind == FlowEventKind::New) {
            flow(&event.key, event.role, event.first_seen, event.last_seen);
        }
        for f in batch.flows.iter().filter(|f| masks.contains(&f.key.remote)) {
            flow(&f.key, f.role, f.first_seen, f.last_seen);
        }
        let pairs = batch.pairs.iter().filter(|p| !masks.contains(&p.key.remote));
        let sighted =
            |p: &PairMeasurement| Sighting { address: p.key.remote, first: p.first_seen, last: p.last_seen };
        offer.addresses.extend(pairs.map(sighted));
        offer.addresses.retain(|s| is_reachable(s.address) && !names.is_here(s.address, s.first, s.last));
        if offer.flows.is_empty() && offer.addresses.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(_)) = self.told.try_send(Told::Offer(offer)) {
            self.offers_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Answers another host, which is who its certificate says.
    pub fn ends(&self, asker: &str, question: &EndsQuestion) -> EndsAnswer {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let conversations = question.conversations.len();
        step!("ends_question", monotonic().as_nanos(), asker, conversations);
        let answer = {
            let names = self.shared.names();
            let directory = lock(&self.directory);
            let mut translations = lock(&self.translations);
            let is_askers = |address| directory.is_of(address, asker);
            ends::answer(&names, &mut translations, asker, is_askers, question, monotonic())
        };
        // the asker told of its own ends, too
        self.shared.store().settle_late(monotonic());
        answer
    }

    /// The whole system's pairs: `mine` are this host's, the others' are what they answer before `deadline`, as far as who asks may see
    /// them. What comes is added when it comes, and not held.
    pub async fn matrix(
        &self,
        mine: &PairsAnswer,
        scope: &Scope,
        query: &MatrixQuery,
        deadline: Duration,
    ) -> anyhow::Result<Snapshot> {
        let others: Vec<(Arc<HostRow>, Option<Timestamp>)> = {
            let directory = lock(&self.directory);
            let left = directory.left().map(|(row, since)| (row.clone(), Some(since)));
            directory.others().map(|row| (row.clone(), None)).chain(left).collect()
        };
        let end = tokio::time::Instant::now() + deadline;
        // where not all are asked at once, those that do not answer must leave time for others
        let each = if others.len() > AT_ONCE { deadline / 3 } else { deadline };
        let asked = others.into_iter().map(|(row, left)| {
            let answer = self.peers.pairs(row.clone(), scope.tenant().cloned());
            async move {
                let began = tokio::time::Instant::now();
                let answer = match tokio::time::timeout_at(end.min(began + each), answer).await {
                    Ok(answer) => answer.map_err(|e| format!("{e:#}")),
                    Err(_) if began >= end => Err("was not asked in time".to_owned()),
                    Err(_) => Err(format!("did not answer within {:.1} s", began.elapsed().as_secs_f64())),
                };
                let answer = answer.map_err(|why| match left {
                    Some(since) => {
                        let silent = (monotonic() - since).as_secs_f64();
                        format!("{why}; the registry has not told of it for {silent:.0} s")
                    }
                    None => why,
                });
                (row.name.clone(), answer)
            }
        });
        let (mut matrix, mut hosts) = (Matrix::default(), Vec::new());
        let mut take = |name: String, answer: Result<Sheet, String>| {
            let came = monotonic();
            let (complete, problem) = match answer {
                Ok(sheet) => {
                    let complete = sheet.complete;
                    matrix.add(&name, sheet);
                    (complete, (!complete).then(|| INCOMPLETE.to_owned()))
                }
                Err(why) => {
                    hosts.push((
                        MatrixHost { name, complete: false, age_seconds: None, problem: Some(why) },
                        None,
                    ));
                    return;
                }
            };
            hosts.push((MatrixHost { name, complete, age_seconds: None, problem }, Some(came)));
        };
        take(self.shared.info.host.to_string(), Sheet::of(mine).map_err(|e| format!("{e:#}")));
        let mut answers = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some((name, answer)) = answers.next().await {
            take(name, answer);
        }
        drop(answers);
        let now = monotonic();
        let aged = |(host, came): (MatrixHost, Option<Timestamp>)| MatrixHost {
            age_seconds: came.map(|came| (now - came).as_secs_f64()),
            ..host
        };
        let mut hosts: Vec<MatrixHost> = hosts.into_iter().map(aged).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        // a million rows take longer than others may wait for this thread
        let query = query.clone();
        let ordered = tokio::task::spawn_blocking(move || matrix.select(&query)).await;
        let matrix = ordered.context("the rows could not be put in order")?;
        Ok(Snapshot { generated_at: Wall::now().utc(now), hosts, matrix })
    }

    /// Test packets of other hosts are answered from now on.
    pub fn reflect(&self, reflector: Arc<Reflector>) {
        // a second one changes nothing
        let _ = self.reflector.set(reflector);
    }

    /// A session of test packets for the host of this name.
    pub fn clock_session(&self, asker: &str) -> Result<ClockSession, ApiError> {
        match self.reflector.get() {
            Some(reflector) => reflector.open(asker).inspect(|session| {
                step!("session_given", monotonic().as_nanos(), asker, ssid = session.ssid);
            }),
            None => Err(ApiError::unavailable("this conmond has no UDP port for test packets")
                .with_remedy("its log says why, at its start")),
        }
    }

    /// The clocks of hosts that talk with this one, by name.
    pub fn clocks(&self) -> Vec<HostClock> {
        self.clocks.known(monotonic())
    }

    /// What it did so far.
    pub fn counters(&self) -> SystemCounters {
        let (resolver, waiting) = {
            let resolver = lock(&self.resolver);
            (resolver.counters, resolver.waiting() as u64)
        };
        let lookups = lock(&self.lookups);
        SystemCounters {
            resolver,
            waiting,
            lookups: lookups.counters,
            sought: lookups.waiting() as u64,
            offers_dropped: self.offers_dropped.load(Ordering::Relaxed),
            ends_full: lock(&self.translations).abroad.full,
            answered: self.answered.load(Ordering::Relaxed),
            clocks_left_out: self.clocks.left_out(),
            test_packets_refused: self.reflector.get().map_or(0, |reflector| reflector.refused()),
        }
    }

    /// How the registry goes.
    pub fn registry_health(&self) -> Health {
        self.registry.health()
    }

    /// Other hosts that are known.
    pub fn others(&self) -> usize {
        lock(&self.directory).others().count()
    }

    async fn run(self: Arc<Self>, host: HostRow, mut inbox: mpsc::Receiver<Told>) {
        let mut hosts = self.registry.hosts();
        let mut changes = self.registry.changes();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut networks = Networks::new();
        // a row's time is part of its key
        let mut wall = Wall::now();
        let (mut said, mut pruned_at, mut compared_at) = (None, monotonic(), monotonic());
        self.learn_hosts(&hosts.borrow_and_update().clone());
        loop {
            let (due, lookup) = (lock(&self.resolver).due(), lock(&self.lookups).due());
            let due = due.into_iter().chain(lookup).min();
            let pause = due.map_or(Duration::from_secs(3600), |due| due - monotonic());
            tokio::select! {
                told = inbox.recv() => match told {
                    Some(told) => self.take(told),
                    None => return,
                },
                changed = hosts.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = hosts.borrow_and_update().clone();
                    self.learn_hosts(&now);
                }
                // one that was asked for has another owner: asked for anew when it is seen next
                changed = changes.recv() => if let Ok(address) = changed {
                    self.look_up(address, vec![(monotonic(), false)]);
                },
                _ = look.tick() => {
                    let names = self.shared.names();
                    if said != Some(names.revision()) {
                        said = Some(names.revision());
                        let published = self.shared.published();
                        note_networks(&mut networks, published.containers.iter().map(|c| &**c));
                        wall = Wall::now_or(wall);
                        self.registry.publish(own(&host, &names, &mut networks, wall, monotonic()));
                    }
                    if monotonic() - compared_at > CLOCKS {
                        compared_at = monotonic();
                        let directory = lock(&self.directory);
                        self.clocks.begin(compared_at, |host| directory.host(host).cloned());
                    }
                    if monotonic() - pruned_at > PRUNE {
                        pruned_at = monotonic();
                        lock(&self.directory).prune(pruned_at);
                        // what was given up is told of for a while only
                        said = None;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.ask();
            self.tell_names();
        }
    }

    fn learn_hosts(&self, hosts: &Arc<crate::registry::Hosts>) {
        lock(&self.directory).set_hosts(hosts.clone(), monotonic());
    }

    fn tell_names(&self) {
        let (changed, masks) = {
            let mut directory = lock(&self.directory);
            (directory.changed(), directory.masks())
        };
        if let Some(elsewhere) = changed {
            self.shared.names_mut().set_elsewhere(elsewhere);
        }
        for address in std::mem::take(&mut *lock(&self.changed_hands)) {
            step!("address_changed_hands", monotonic().as_nanos(), %address);
            self.shared.changed_hands(address);
        }
        if let Some(masks) = masks {
            self.shared.store().set_masks(masks.clone());
            *self.masks.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(masks);
        }
    }

    fn take(&self, told: Told) {
        match told {
            Told::Offer(offer) => {
                let (names, now) = (self.shared.names(), monotonic());
                {
                    let directory = lock(&self.directory);
                    let here =
                        Here { names: &names, translations: &self.translations, directory: &directory };
                    let mut resolver = lock(&self.resolver);
                    for flow in offer.flows {
                        if let [host] = &directory.to_ask(flow.key.remote)[..] {
                            self.clocks.talks_with(host, now);
                        }
                        resolver.seen(flow, now, &here);
                    }
                }
                let (directory, mut lookups) = (lock(&self.directory), lock(&self.lookups));
                let mut named = Vec::new();
                for seen in offer.addresses {
                    if let Some(host) = directory.host_of(seen.address, seen.first, seen.last) {
                        self.clocks.talks_with(host, now);
                        named.push((seen.address, seen.last));
                    }
                    if directory.is_unknown(seen.address, seen.first, seen.last) {
                        lookups.seen(seen, now);
                    }
                }
                drop((directory, lookups));
                for (address, last) in named {
                    self.keep_told(address, last);
                }
            }
            Told::Found(address, answers) => {
                let wall = Wall::now();
                let monotonic = |ns: u64| {
                    wall.monotonic(jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default())
                };
                let (mut directory, mut changed_hands) = (lock(&self.directory), false);
                for (at, seen, answer) in &answers {
                    changed_hands |= directory.take(address, (*at, *seen), answer, monotonic);
                }
                if changed_hands {
                    lock(&self.changed_hands).insert(address);
                }
                let outcome = |first, last| {
                    if !directory.is_unknown(address, first, last) {
                        if let Some(end) = directory.end_of(address, first, last) {
                            discovery::address_named(address, end);
                        }
                        Outcome::Known
                    } else if self.has_said(&answers, &directory) {
                        Outcome::Nobody
                    } else {
                        Outcome::Unheard
                    }
                };
                lock(&self.lookups).answered(address, outcome, crate::clock::monotonic());
            }
            Told::Answered(asking, answer) => {
                let learnt = lock(&self.resolver).answered(&asking, answer.as_ref(), monotonic());
                if learnt.is_empty() {
                    return;
                }
                {
                    let mut translations = lock(&self.translations);
                    for one in learnt {
                        discovery::named(&one.seen, &one.end);
                        translations.abroad.insert(one.seen, one.place, one.end, one.since);
                    }
                }
                self.shared.store().settle_late(monotonic());
            }
        }
    }

    /// The registry tells of an address's next owner as long as somebody asks for the address now and then; of one that is named, nobody else
    /// does. Without a need to ask anybody this takes under a microsecond.
    fn keep_told(&self, address: IpAddr, last: Timestamp) {
        let at_ns = u64::try_from(Wall::now().utc(last).as_nanosecond()).unwrap_or(0);
        if self.registry.cached(address, at_ns).is_none() {
            self.look_up(address, vec![(last, true)]);
        }
    }

    /// Whether answers that name nobody are the registry's word, and not its silence.
    fn has_said(&self, answers: &[(Timestamp, bool, Answer)], directory: &Directory) -> bool {
        let health = self.registry.health();
        // with gossip, whoever is alone knows all there is
        let is_alone = health.backend == "gossip" && directory.others().next().is_none();
        let heard = answers.iter().all(|(.., answer)| answer.known_as_of_ns.is_some());
        is_alone || (health.reachable && heard)
    }

    /// Who had an address at these times.
    fn look_up(&self, address: IpAddr, times: Vec<(Timestamp, bool)>) {
        let (registry, told) = (self.registry.clone(), self.told.clone());
        let unix = |at: Timestamp| u64::try_from(Wall::now().utc(at).as_nanosecond()).unwrap_or(0);
        let cached = |&(at, seen)| Some((at, seen, registry.cached(address, unix(at))?));
        if let Some(answers) = times.iter().map(cached).collect::<Option<Vec<_>>>() {
            return self.take(Told::Found(address, answers));
        }
        step!("registry_asked", monotonic().as_nanos(), %address);
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for (at, seen) in times {
                answers.push((at, seen, registry.find(address, unix(at)).await));
            }
            discovery::registry_answered(address, answers.last().map(|(.., answer)| answer));
            let _ = told.send(Told::Found(address, answers)).await;
        });
    }

    /// Asks other hosts what is due.
    fn ask(&self) {
        let asked = {
            let names = self.shared.names();
            let directory = lock(&self.directory);
            let here = Here { names: &names, translations: &self.translations, directory: &directory };
            lock(&self.resolver).questions(monotonic(), &here)
        };
        let sought = lock(&self.lookups).questions(monotonic());
        for Sighting { address, first, last } in sought {
            self.look_up(address, vec![(first, true), (last, true)]);
        }
        for asking in asked {
            for conversation in &asking.question.conversations {
                discovery::ends_asked(&asking.host, conversation);
            }
            let row = lock(&self.directory).host(&asking.host).cloned();
            let answer: BoxFuture<anyhow::Result<EndsAnswer>> = match row {
                Some(row) => self.peers.ends(row, asking.question.clone()),
                None => Box::pin(std::future::ready(Err(anyhow::anyhow!("the host is lost")))),
            };
            let told = self.told.clone();
            tokio::spawn(async move {
                let answer = match tokio::time::timeout(ASK, answer).await {
                    Ok(Ok(answer)) => Some(answer),
                    Ok(Err(error)) => {
                        tracing::debug!(host = asking.host, "far ends cannot be asked for: {error:#}");
                        None
                    }
                    Err(_) => None,
                };
                let named = answer.as_ref().map(|answer| answer.ends.iter().flatten().count());
                step!("ends_answered", monotonic().as_nanos(), host = asking.host, named);
                let _ = told.send(Told::Answered(Box::new(asking), answer)).await;
            });
        }
    }
}

#[cfg(test)]
mod tests;
