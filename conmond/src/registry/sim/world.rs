//! The simulated system: hosts, a store, the network between them, faults; all of it from one seed, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::cache::Now;
use super::super::hosts::Hosts;
use super::super::keys;
use super::super::rows::{EndpointRow, RowId, tests as rows};
use super::host::{Host, Life, MS, Request, Response, S};
use super::store::Store;

pub const TTL_NS: u64 = 15 * S;
const CALL_TIMEOUT_NS: u64 = 2 * S;
/// Wall time of the simulation's beginning.
pub const EPOCH_NS: u64 = 1_700_000_000 * S;

/// xorshift64*
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    Wake(usize),
    AtStore { host: usize, epoch: u64, connection: u64, call: Option<u64>, request: Request },
    AtHost { host: usize, epoch: u64, connection: u64, call: Option<u64>, response: Response },
    Timeout { host: usize, epoch: u64, connection: u64, call: u64 },
    Work(usize),
    Ask(usize),
    Tick,
    Fault,
    Heal(Fault),
    Restart(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    StoreDown,
    StoreHangs,
    Cut(usize),
    Slow(usize),
    Paused(usize),
}

struct Watcher {
    host: usize,
    epoch: u64,
    connection: u64,
    ticket: i64,
    prefix: String,
    next: i64,
}

pub struct World {
    pub rng: Rng,
    pub now_ns: u64,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    pub store: Store,
    faults: Vec<Fault>,
    /// What waits for a store that hangs, a host that is paused, a link that is slow.
    held: Vec<Event>,
    pub hosts: Vec<Host>,
    watchers: Vec<Watcher>,
    /// Connections over which nothing comes any more, without anybody knowing.
    broken: BTreeSet<(usize, u64)>,
    /// Connections to the store as it runs now; those to one before are no more.
    connections: BTreeSet<(usize, u64)>,
    last_heard: BTreeMap<(usize, u64), u64>,
    /// Every container that ever was.
    pub truth: Vec<EndpointRow>,
    /// When the store learned that a row's time is over.
    ended: BTreeMap<RowId, u64>,
    snapshots: Vec<Store>,
    leases: i64,
    containers: u64,
    logged: i64,
    pub asks: u64,
    pub named: u64,
    pub faults_done: BTreeMap<String, u64>,
    pub pool: Vec<IpAddr>,
}

impl World {
    pub fn new(seed: u64, hosts: usize) -> Self {
        let mut world = Self {
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now_ns: 0,
            events: BTreeMap::new(),
            sequence: 0,
            store: Store::default(),
            faults: Vec::new(),
            held: Vec::new(),
            hosts: Vec::new(),
            watchers: Vec::new(),
            broken: BTreeSet::new(),
            connections: BTreeSet::new(),
            last_heard: BTreeMap::new(),
            truth: Vec::new(),
            ended: BTreeMap::new(),
            snapshots: Vec::new(),
            leases: 0,
            containers: 0,
            logged: 0,
            asks: 0,
            named: 0,
            faults_done: BTreeMap::new(),
            pool: Vec::new(),
        };
        for i in 0..hosts {
            // One address that all hosts use, and some of its own.
            let mut addresses: Vec<IpAddr> = vec![[172, 17, 0, 2].into()];
            addresses.extend((1..4).map(|a| IpAddr::from([10, 0, i as u8, a])));
            world
                .pool
                .extend(addresses.iter().filter(|a| !world.pool.contains(a)).copied().collect::<Vec<_>>());
            world.hosts.push(Host {
                name: format!("h{i}"),
                life: None,
                epoch: 0,
                dead: false,
                addresses,
                known_hosts: Hosts::default(),
                wake_ns: 0,
            });
            let (start, work, ask) = (world.rng.below(S), world.rng.below(S), world.rng.below(S));
            world.after(start, Event::Restart(i));
            world.after(S + work, Event::Work(i));
            world.after(S + ask, Event::Ask(i));
        }
        world.after(100 * MS, Event::Tick);
        world
    }

    pub fn now(&self) -> Now {
        Now { steady_ns: self.now_ns, wall_ns: EPOCH_NS + self.now_ns }
    }

    pub fn after(&mut self, wait_ns: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now_ns + wait_ns, self.sequence), event);
    }

    fn delay(&mut self) -> u64 {
        if self.rng.chance(3) { self.rng.below(800 * MS) } else { MS / 10 + self.rng.below(5 * MS) }
    }

    fn faulty(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub fn run_until(&mut self, end_ns: u64) {
        while let Some(entry) = self.events.first_entry() {
            let (at, _) = *entry.key();
            if at > end_ns {
                break;
            }
            self.now_ns = at;
            let event = entry.remove();
            self.happen(event);
        }
        self.now_ns = end_ns;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(host) if self.hosts[host].wake_ns == self.now_ns => self.work(host),
            Event::Wake(_) => {}
            Event::AtStore { host, epoch, connection, call, request } => {
                if self.faulty(Fault::StoreHangs)
                    || self.faulty(Fault::Slow(host))
                    || self.outlives_a_cut(host, connection, call)
                {
                    self.held.push(Event::AtStore { host, epoch, connection, call, request });
                } else if !self.faulty(Fault::StoreDown) && !self.faulty(Fault::Cut(host)) {
                    self.at_store(host, epoch, connection, call, request);
                } else if self.faulty(Fault::StoreDown)
                    && let Some(call) = call
                {
                    // Refused at once: nobody listens.
                    self.after(MS, Event::Timeout { host, epoch, connection, call });
                }
            }
            Event::AtHost { host, epoch, connection, call, response } => {
                if self.faulty(Fault::Paused(host))
                    || self.faulty(Fault::Slow(host))
                    || self.outlives_a_cut(host, connection, call)
                {
                    self.held.push(Event::AtHost { host, epoch, connection, call, response });
                } else if !self.faulty(Fault::Cut(host)) {
                    self.at_host(host, epoch, connection, call, response);
                }
            }
            Event::Timeout { host, epoch, connection, call } => {
                if self.faulty(Fault::Paused(host)) {
                    self.held.push(Event::Timeout { host, epoch, connection, call });
                    return;
                }
                let now = self.now();
                if let Some(life) = self.hosts[host].life.as_mut().filter(|life| life.row.epoch == epoch) {
                    life.answered(call, connection, None, now);
                }
                self.work(host);
            }
            Event::Work(host) => self.containers_change(host),
            Event::Ask(host) => {
                self.ask_some(host);
                let wait = 50 * MS + self.rng.below(400 * MS);
                self.after(wait, Event::Ask(host));
            }
            Event::Tick => {
                if !self.faulty(Fault::StoreDown) && !self.faulty(Fault::StoreHangs) {
                    self.store.tick(self.now_ns);
                    self.committed();
                }
                self.after(100 * MS, Event::Tick);
            }
            Event::Fault => self.fault(),
            Event::Heal(fault) => self.heal(fault),
            Event::Restart(host) => self.start(host),
        }
    }

    /// What is sent on a stream while its host is cut off comes after the cut, if the stream lasts as long: TCP sends it again, and nothing of a
    /// stream comes before what was sent earlier.
    fn outlives_a_cut(&self, host: usize, connection: u64, call: Option<u64>) -> bool {
        call.is_none() && self.faulty(Fault::Cut(host)) && !self.broken.contains(&(host, connection))
    }

    /// Lets a host do what is due.
    fn work(&mut self, host: usize) {
        let now = self.now();
        if self.faulty(Fault::Paused(host)) {
            return;
        }
        let Some(life) = self.hosts[host].life.as_mut() else { return };
        let (requests, epoch) = (life.work(now), life.row.epoch);
        life.reader.take_answered();
        life.reader.take_changed();
        let deadline = life.deadline(now);
        if let Some(hosts) = life.reader.take_hosts() {
            self.hosts[host].known_hosts = hosts;
        }
        for (connection, call, request) in requests {
            let delay = self.delay();
            if let Some(call) = call {
                self.after(CALL_TIMEOUT_NS, Event::Timeout { host, epoch, connection, call });
            }
            // Requests of one connection's stream stay in order.
            let delay = if call.is_none() { self.in_order(host, connection, delay) } else { delay };
            self.after(delay, Event::AtStore { host, epoch, connection, call, request });
        }
        if deadline < u64::MAX {
            let at = deadline.max(self.now_ns + MS);
            let set = &mut self.hosts[host].wake_ns;
            // One waking at a time; an earlier one takes the place of a later.
            if *set <= self.now_ns || at < *set {
                *set = at;
                self.after(at - self.now_ns, Event::Wake(host));
            }
        }
    }

    fn in_order(&mut self, host: usize, connection: u64, delay: u64) -> u64 {
        let last = self.last_heard.entry((host, connection)).or_default();
        *last = (self.now_ns + delay).max(*last + 1);
        *last - self.now_ns
    }

    fn at_store(&mut self, host: usize, epoch: u64, connection: u64, call: Option<u64>, request: Request) {
        if matches!(request, Request::Connect) {
            self.connections.insert((host, connection));
        } else if !self.connections.contains(&(host, connection)) {
            // Reset: it was to a store that ran before.
            let event = match call {
                Some(call) => Event::Timeout { host, epoch, connection, call },
                None => Event::AtHost { host, epoch, connection, call, response: Response::Lost },
            };
            return self.after(MS, event);
        }
        let response = match request {
            Request::Connect => Some(Response::Connected),
            Request::Write(ask) => {
                self.leases += 1;
                let name = self.hosts[host].name.clone();
                let told = self.store.write(&name, &ask, self.leases, TTL_NS, self.now_ns);
                self.committed();
                Some(Response::Told(told))
            }
            Request::Read(target, _) => Some(Response::Read(self.store.read(target))),
            Request::Watch(target, ticket, from) => {
                let prefix = target.prefix();
                self.watchers.push(Watcher { host, epoch, connection, ticket, prefix, next: from });
                self.flush();
                None
            }
            Request::Unwatch(ticket) => {
                self.watchers.retain(|w| (w.host, w.connection, w.ticket) != (host, connection, ticket));
                None
            }
            Request::Progress => {
                self.flush();
                self.stream(host, epoch, connection, Response::Progress(self.store.revision));
                None
            }
        };
        if let Some(response) = response {
            let delay = self.delay();
            self.after(delay, Event::AtHost { host, epoch, connection, call, response });
        }
    }

    /// Sends on a stream of watches, in order, as long as it is whole.
    fn stream(&mut self, host: usize, epoch: u64, connection: u64, response: Response) {
        if self.broken.contains(&(host, connection)) {
            return;
        }
        let delay = self.delay();
        let delay = self.in_order(host, connection, delay);
        self.after(delay, Event::AtHost { host, epoch, connection, call: None, response });
    }

    /// Tells watchers what happened.
    fn flush(&mut self) {
        let mut watchers = std::mem::take(&mut self.watchers);
        watchers.retain_mut(|w| {
            let Some(changes) = self.store.changes(&w.prefix, w.next) else {
                self.stream(w.host, w.epoch, w.connection, Response::Cancelled(w.ticket));
                return false;
            };
            // etcd waits in silence for a revision that is yet to come.
            w.next = w.next.max(self.store.revision + 1);
            if !changes.is_empty() {
                self.stream(w.host, w.epoch, w.connection, Response::Events(w.ticket, changes));
            }
            true
        });
        watchers.append(&mut self.watchers);
        self.watchers = watchers;
    }

    /// After a change of the store.
    fn committed(&mut self) {
        for pair in self.store.changes("", self.logged + 1).unwrap_or_default() {
            let Some(id) = keys::parse_endpoint(&pair.key) else { continue };
            let row = pair.value.as_deref().and_then(|value| EndpointRow::decode(value).ok());
            match row {
                Some(row) if row.until_ns.is_none() => {
                    self.ended.remove(&id);
                }
                _ => {
                    self.ended.entry(id).or_insert(self.now_ns);
                }
            }
        }
        self.logged = self.store.revision;
        self.flush();
    }

    fn at_host(&mut self, host: usize, epoch: u64, connection: u64, call: Option<u64>, response: Response) {
        let now = self.now();
        let Some(life) = self.hosts[host].life.as_mut().filter(|life| life.row.epoch == epoch) else {
            return;
        };
        match call {
            Some(call) => life.answered(call, connection, Some(response), now),
            None => life.heard(connection, response, now),
        }
        self.work(host);
    }

    fn start(&mut self, host: usize) {
        let now = self.now();
        let one = &mut self.hosts[host];
        one.epoch += 1;
        let epoch = one.epoch + 1000 * host as u64;
        one.life = Some(Life::new(&one.name, epoch, now.wall_ns, TTL_NS));
        self.publish(host);
    }

    fn publish(&mut self, host: usize) {
        let now = self.now();
        let one = &mut self.hosts[host];
        let own = self.truth.iter().filter(|row| row.host == one.name).cloned().collect();
        if let Some(life) = &mut one.life {
            life.publish(own, now);
        }
        self.work(host);
    }

    /// A container starts or stops, conmond running or not.
    fn containers_change(&mut self, host: usize) {
        let wait = 200 * MS + self.rng.below(2 * S);
        self.after(wait, Event::Work(host));
        if self.hosts[host].dead {
            return;
        }
        let wall_ns = self.now().wall_ns;
        let (name, addresses) = (self.hosts[host].name.clone(), self.hosts[host].addresses.clone());
        let address = addresses[self.rng.below(addresses.len() as u64) as usize];
        let running = self
            .truth
            .iter_mut()
            .find(|row| row.host == name && row.address == address && row.until_ns.is_none());
        let again = match running {
            Some(row) => {
                row.until_ns = Some(wall_ns.max(row.since_ns + 1));
                self.rng.chance(50)
            }
            None => true,
        };
        if again {
            self.containers += 1;
            let container = format!("c{}", self.containers);
            self.truth.push(rows::endpoint(&name, &container, &address.to_string(), wall_ns, None));
        }
        if !self.faulty(Fault::Paused(host)) {
            self.publish(host);
        }
    }

    /// Asks for something, and checks what is said.
    fn ask_some(&mut self, host: usize) {
        if self.faulty(Fault::Paused(host)) {
            return;
        }
        let now = self.now();
        let address = self.pool[self.rng.below(self.pool.len() as u64) as usize];
        let at_ns = now.wall_ns - self.rng.below(10 * S);
        let Some(life) = &mut self.hosts[host].life else { return };
        let answer = life.reader.find(address, at_ns, now);
        self.work(host);
        let Some(answer) = answer else { return };
        self.asks += 1;
        for candidate in answer.candidates.iter().filter(|candidate| candidate.margin_ns >= 0) {
            self.named += 1;
            let row = &candidate.row;
            let was = self.truth.iter().find(|one| one.id() == row.id());
            let was = was.unwrap_or_else(|| panic!("a container that never was: {row:?}"));
            assert_eq!(was.container, row.container, "another's name");
            assert!(row.since_ns <= at_ns, "a name from before it was: {row:?} at {at_ns}");
            if was.until_ns.is_some_and(|until| until <= at_ns)
                && let (Some(ended), Some(known)) = (self.ended.get(&row.id()), answer.known_as_of_ns)
            {
                assert!(
                    EPOCH_NS + ended >= known,
                    "it claims to know all up to {known}, when the end of {row:?} was told at {ended}"
                );
            }
        }
    }

    fn fault(&mut self) {
        let host = self.rng.below(self.hosts.len() as u64) as usize;
        let kind = self.rng.below(10);
        let lasting = match kind {
            0 => Some(Fault::StoreDown),
            1 => Some(Fault::StoreHangs),
            2 => Some(Fault::Cut(host)),
            3 => Some(Fault::Slow(host)),
            4 => Some(Fault::Paused(host)),
            _ => None,
        };
        *self
            .faults_done
            .entry(lasting.map_or(format!("{kind}"), |fault| format!("{fault:?}")))
            .or_default() += 1;
        match (lasting, kind) {
            (Some(fault), _) if !self.faulty(fault) => {
                self.faults.push(fault);
                match fault {
                    Fault::StoreDown => self.store_restarts(),
                    Fault::Cut(host) if self.rng.chance(70) => self.break_streams(Some(host)),
                    _ => {}
                }
                let lasts = 50 * MS
                    + if self.rng.chance(50) { self.rng.below(2 * S) } else { self.rng.below(25 * S) };
                self.after(lasts, Event::Heal(fault));
            }
            (_, 5) => {
                self.store_restarts();
                // A wiped store begins with revisions of its own.
                self.store = Store::default();
                self.forget_history();
            }
            (_, 6) => self.snapshots.push(self.store.clone()),
            (_, 7) if !self.snapshots.is_empty() => {
                let which = self.rng.below(self.snapshots.len() as u64) as usize;
                self.store = self.snapshots[which].clone();
                self.store_restarts();
                self.store.restarted(TTL_NS, self.now_ns);
                self.forget_history();
            }
            (_, 8) => self.store.compact(),
            (_, 9) => {
                self.hosts[host].life = None;
                let away = self.rng.below(20 * S);
                self.after(away, Event::Restart(host));
            }
            _ => {}
        }
    }

    fn forget_history(&mut self) {
        self.ended.clear();
        self.logged = self.store.revision;
    }

    /// All its connections end; some clients see it, some do not.
    fn store_restarts(&mut self) {
        self.connections.clear();
        self.break_streams(None);
        self.store.restarted(TTL_NS, self.now_ns);
    }

    fn break_streams(&mut self, host: Option<usize>) {
        let of = |w: &Watcher| host.is_none_or(|host| w.host == host);
        let broken: BTreeSet<(usize, u64, u64)> =
            self.watchers.iter().filter(|w| of(w)).map(|w| (w.host, w.epoch, w.connection)).collect();
        self.watchers.retain(|w| !of(w));
        for (host, epoch, connection) in broken {
            if self.rng.chance(50) {
                self.stream(host, epoch, connection, Response::Lost);
            }
            self.broken.insert((host, connection));
        }
    }

    fn heal(&mut self, fault: Fault) {
        self.faults.retain(|one| *one != fault);
        if fault == Fault::StoreHangs {
            // Its clock did not stand still.
            self.store.restarted(TTL_NS, self.now_ns);
        }
        for event in std::mem::take(&mut self.held) {
            self.happen(event);
        }
        if let Fault::Paused(host) = fault {
            self.publish(host);
        }
    }

    /// No more faults: all heals, everybody runs.
    pub fn heal_all(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::Fault));
        for fault in self.faults.clone() {
            self.heal(fault);
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].life.is_none() && !self.hosts[host].dead {
                self.events.retain(|_, event| !matches!(event, Event::Restart(one) if *one == host));
                self.start(host);
            }
        }
    }

    /// Lets everybody do what is due.
    pub fn poke(&mut self) {
        (0..self.hosts.len()).for_each(|host| self.work(host));
    }

    /// No more asking and changing.
    pub fn rest(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::Work(_) | Event::Ask(_)));
    }
}
