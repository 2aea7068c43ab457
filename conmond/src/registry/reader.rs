//! Reads what is asked for from a store and follows it: a pure state machine that says what to ask the store next.
//!
//! A *target* is a range of keys: all hosts, or one address. A target in use is read, and watched from the revision after the one
//! that was read, so that nothing between the two is missed. When a watch ends for whatever reason (its stream broke, the revision was compacted away, the
//! store's history went backwards), its target is read anew, which puts everything right: what a reading lacks is gone. Until
//! then what was known is answered, and says how old it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::answer::Answer;
use super::backoff::Backoff;
use super::cache::{Asked, Cache, Limits, Now};
use super::hosts::Hosts;
use super::keys;
use super::window::Window;

/// What is read and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// All hosts.
    Hosts,
    /// All rows of an address.
    Address(IpAddr),
}

impl Target {
    /// Before all of its keys.
    pub fn prefix(self) -> String {
        match self {
            Self::Hosts => keys::HOSTS.to_owned(),
            Self::Address(address) => keys::address(address),
        }
    }
}

/// A key as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// Its value; none if it was deleted.
    pub value: Option<Vec<u8>>,
    /// The revision that wrote or deleted it.
    pub revision: i64,
}

/// What to ask the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// All keys of the target. The ticket tells the answer from those to earlier questions.
    Read {
        /// What.
        target: Target,
        /// Comes back with the answer.
        ticket: i64,
    },
    /// Every change of the target from a revision on.
    Watch {
        /// What.
        target: Target,
        /// Comes back with each change.
        ticket: i64,
        /// The first revision that is new.
        from: i64,
    },
    /// No more of this watch.
    Unwatch {
        /// Whose.
        ticket: i64,
    },
    /// A sign of life on the stream of watches.
    Progress,
    /// The stream of watches shows no life: everything anew.
    Reconnect,
}

/// What came of reading a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Its keys, at most as many as asked for.
    pub pairs: Vec<Pair>,
    /// Whether there are more.
    pub more: bool,
    /// The revision of the store.
    pub revision: i64,
}

/// What a reader did since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderCounters {
    /// Readings that were answered.
    pub reads: u64,
    /// Readings that were not.
    pub failures: u64,
    /// Changes that were told by watches.
    pub events: u64,
    /// Targets read anew because their watch ended.
    pub resyncs: u64,
    /// Times that the store's history went backwards.
    pub rewinds: u64,
    /// Rows that could not be read, or lay under another's key.
    pub malformed: u64,
    /// Questions that nobody could be asked because too many waited.
    pub refused: u64,
}

/// Most targets that wait to be read.
const MAX_WAITING: usize = 65_536;
/// From one question for a sign of life to the next.
const PROGRESS_NS: u64 = 1_000_000_000;
/// Without a sign of life for so long the stream is dead.
const SILENCE_NS: u64 = 5_000_000_000;
/// From one cleaning to the next.
const EXPIRE_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Reading { ticket: i64, floor: i64, asked: Now },
    Watching { ticket: i64 },
}

/// The reader.
#[derive(Debug)]
pub struct Reader {
    cache: Cache,
    hosts: Hosts,
    hosts_changed: bool,
    changed: BTreeSet<IpAddr>,
    answered: Vec<IpAddr>,
    targets: BTreeMap<Target, Stage>,
    /// Watches by ticket.
    watches: BTreeMap<i64, Target>,
    queue: VecDeque<Target>,
    reading: usize,
    window: Window,
    asks: VecDeque<Ask>,
    ticket: i64,
    /// The highest revision seen in this history.
    revision: i64,
    connected: bool,
    progress_asked: Option<Now>,
    progress_at_ns: u64,
    alive_ns: u64,
    /// Since when the stream of watches has been behind what was read.
    behind_since_ns: Option<u64>,
    expire_at_ns: u64,
    backoff: Backoff,
    counters: ReaderCounters,
}

impl Reader {
    /// A reader that knows nothing, and wants to know the hosts. `seed` makes its waits differ from those of others.
    pub fn new(limits: Limits, retry_max_ns: u64, seed: u64) -> Self {
        let mut reader = Self {
            cache: Cache::new(limits, false),
            hosts: Hosts::default(),
            hosts_changed: false,
            changed: BTreeSet::new(),
            answered: Vec::new(),
            targets: BTreeMap::new(),
            watches: BTreeMap::new(),
            queue: VecDeque::new(),
            reading: 0,
            window: Window::default(),
            asks: VecDeque::new(),
            ticket: 0,
            revision: 0,
            connected: false,
            progress_asked: None,
            progress_at_ns: 0,
            alive_ns: 0,
            behind_since_ns: None,
            expire_at_ns: 0,
            backoff: Backoff::new(retry_max_ns, seed),
            counters: ReaderCounters::default(),
        };
        reader.want(Target::Hosts);
        reader
    }

    /// What is held.
    pub const fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Its counters.
    pub const fn counters(&self) -> ReaderCounters {
        self.counters
    }

    /// Watches.
    pub fn watching(&self) -> usize {
        self.watches.len()
    }

    /// Whether there is a connection to the store.
    pub const fn connected(&self) -> bool {
        self.connected
    }

    /// The hosts, if they changed since the last call.
    pub fn take_hosts(&mut self) -> Option<Hosts> {
        std::mem::take(&mut self.hosts_changed).then(|| self.hosts.clone())
    }

    /// Addresses whose answers changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.changed)
    }

    /// Addresses for which a reading ended, well or not, since the last call.
    pub fn take_answered(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.answered)
    }

    /// What is known already. Does not ask anybody.
    pub fn ask(&mut self, address: IpAddr, at_ns: u64, now: Now) -> Asked {
        self.cache.ask(address, at_ns, now)
    }

    /// Who had `address`, if that is known or cannot be asked; else it will be read, [`take_answered`](Self::take_answered) tells when, and it is to be asked for again.
    pub fn find(&mut self, address: IpAddr, at_ns: u64, now: Now) -> Option<Answer> {
        let address = address.to_canonical();
        let old = match self.cache.ask(address, at_ns, now) {
            Asked::Hit(answer) => return Some(answer),
            Asked::Miss(old) => old,
        };
        let target = Target::Address(address);
        let known = match self.targets.get(&target) {
            Some(Stage::Watching { .. }) => true,
            Some(_) => false,
            None => !self.want(target),
        };
        (known || !self.connected).then(|| old.unwrap_or_default())
    }

    /// Queues a target. Returns whether there was room.
    fn want(&mut self, target: Target) -> bool {
        if self.queue.len() >= MAX_WAITING {
            self.counters.refused += 1;
            return false;
        }
        self.targets.insert(target, Stage::Waiting);
        match target {
            Target::Hosts => self.queue.push_front(target),
            Target::Address(_) => self.queue.push_back(target),
        }
        true
    }

    /// There is a connection.
    pub fn connect(&mut self, now: Now) {
        self.connected = true;
        self.alive_ns = now.steady_ns;
        self.progress_at_ns = now.steady_ns;
        self.progress_asked = None;
    }

    /// There is no connection, and so no watch, any more.
    pub fn disconnect(&mut self, now: Now) {
        self.connected = false;
        self.anew(now);
    }

    /// The stream of watches broke; readings go on.
    pub fn stream_lost(&mut self, now: Now) {
        self.anew(now);
    }

    /// Reads all targets anew. Answers to what was asked before are not listened to.
    fn anew(&mut self, now: Now) {
        self.counters.resyncs += self.watches.len() as u64;
        self.asks.clear();
        self.watches.clear();
        self.queue.clear();
        self.reading = 0;
        self.window = Window::default();
        self.cache.unfollow(None, now);
        self.progress_asked = None;
        self.behind_since_ns = None;
        self.alive_ns = now.steady_ns;
        let targets: Vec<Target> = self.targets.keys().copied().collect();
        for target in targets {
            // Whoever waits for it now shall not wait for the store to come back.
            if let Target::Address(address) = target {
                self.answered.push(address);
            }
            self.want(target);
        }
    }

    /// The next question to the store, if any is due.
    pub fn poll(&mut self, now: Now) -> Option<Ask> {
        if self.expire_at_ns <= now.steady_ns {
            self.expire_at_ns = now.steady_ns.saturating_add(EXPIRE_NS);
            self.expire(now);
        }
        if !self.connected {
            return None;
        }
        if let Some(ask) = self.asks.pop_front() {
            return Some(ask);
        }
        if let Some((target, ticket)) = self.next_reading(now) {
            return Some(Ask::Read { target, ticket });
        }
        if self.watches.is_empty() {
            self.alive_ns = now.steady_ns;
            return None;
        }
        if self.alive_ns.saturating_add(SILENCE_NS) <= now.steady_ns {
            self.alive_ns = now.steady_ns;
            return Some(Ask::Reconnect);
        }
        if self.progress_at_ns <= now.steady_ns {
            self.progress_at_ns = now.steady_ns.saturating_add(PROGRESS_NS);
            self.progress_asked.get_or_insert(now);
            return Some(Ask::Progress);
        }
        None
    }

    /// The next of the readings that [`poll`](Self::poll) would give: target and ticket.
    pub fn next_reading(&mut self, now: Now) -> Option<(Target, i64)> {
        if !self.connected || self.reading >= self.window.size() || self.backoff.waits(now) {
            return None;
        }
        while let Some(target) = self.queue.pop_front() {
            if self.targets.get(&target) != Some(&Stage::Waiting) {
                continue;
            }
            self.ticket += 1;
            let stage = Stage::Reading { ticket: self.ticket, floor: self.revision, asked: now };
            self.targets.insert(target, stage);
            self.reading += 1;
            return Some((target, self.ticket));
        }
        None
    }

    /// When [`poll`](Self::poll) may have a question, on the steady clock, if nothing happens before.
    pub fn deadline(&self) -> u64 {
        if !self.connected {
            return self.expire_at_ns;
        }
        if !self.asks.is_empty() {
            return 0;
        }
        let read = if self.queue.is_empty() || self.reading >= self.window.size() {
            u64::MAX
        } else {
            self.backoff.until_ns()
        };
        let progress = if self.watches.is_empty() { u64::MAX } else { self.progress_at_ns };
        self.expire_at_ns.min(read).min(progress)
    }

    fn expire(&mut self, now: Now) {
        self.cache.expire(now);
        let cache = &self.cache;
        let unheld = |target: &Target| matches!(target, Target::Address(address) if !cache.holds(*address));
        let watched: Vec<(i64, Target)> = self
            .watches
            .iter()
            .filter(|(_, target)| unheld(target))
            .map(|(t, target)| (*t, *target))
            .collect();
        for (ticket, target) in watched {
            self.watches.remove(&ticket);
            self.targets.remove(&target);
            self.asks.push_back(Ask::Unwatch { ticket });
        }
    }

    /// What came of [`Ask::Read`]; none if nothing did.
    pub fn read(&mut self, target: Target, ticket: i64, reading: Option<Reading>, now: Now) {
        let (floor, asked) = match self.targets.get(&target) {
            Some(Stage::Reading { ticket: of, floor, asked }) if *of == ticket => (*floor, *asked),
            _ => return,
        };
        self.reading = self.reading.saturating_sub(1);
        if let Target::Address(address) = target {
            self.answered.push(address);
        }
        let Some(reading) = reading else {
            self.counters.failures += 1;
            self.window.failed(asked.steady_ns, now.steady_ns);
            self.backoff.failed(now);
            self.want(target);
            return;
        };
        self.counters.reads += 1;
        self.window.answered(asked.steady_ns, now.steady_ns);
        self.backoff.succeeded();
        if reading.revision < floor {
            // Older than what was known when it was asked for: another history. What was heard of the other is worth nothing.
            self.counters.rewinds += 1;
            self.revision = reading.revision;
            self.anew(now);
            self.asks.push_back(Ask::Reconnect);
            return;
        }
        self.revision = self.revision.max(reading.revision);
        let from = reading.revision.saturating_add(1);
        if self.take(target, reading, asked.wall_ns, now) {
            self.targets.insert(target, Stage::Watching { ticket });
            self.watches.insert(ticket, target);
            if let Target::Address(address) = target {
                self.cache.follow(address);
            }
            self.asks.push_back(Ask::Watch { target, ticket, from });
        } else {
            self.targets.remove(&target);
        }
    }

    /// Takes over a reading. Returns whether the target is worth a watch.
    fn take(&mut self, target: Target, reading: Reading, asked_ns: u64, now: Now) -> bool {
        match target {
            Target::Hosts => {
                let mut rows = Vec::new();
                for pair in &reading.pairs {
                    match keys::host_row(&pair.key, pair.value.as_deref().unwrap_or_default()) {
                        Ok(row) => rows.push(row),
                        Err(_) => self.counters.malformed += 1,
                    }
                }
                self.hosts_changed |= self.hosts.load(rows);
                true
            }
            Target::Address(address) => {
                let mut rows = Vec::new();
                for pair in &reading.pairs {
                    match keys::endpoint_row(&pair.key, pair.value.as_deref().unwrap_or_default()) {
                        Ok(row) => rows.push((row, pair.revision)),
                        Err(_) => self.counters.malformed += 1,
                    }
                }
                if self.cache.load(address, rows, reading.more, asked_ns, now) {
                    self.changed.insert(address);
                }
                !self.cache.standing(address).is_empty()
            }
        }
    }

    /// Changes told by a watch, in the order in which they happened.
    pub fn events(&mut self, ticket: i64, events: &[Pair], now: Now) {
        self.alive_ns = now.steady_ns;
        let Some(target) = self.watches.get(&ticket).copied() else { return };
        for event in events {
            self.counters.events += 1;
            self.revision = self.revision.max(event.revision);
            match target {
                Target::Hosts => self.host_event(event),
                Target::Address(address) => self.endpoint_event(address, event, now),
            }
        }
    }

    fn host_event(&mut self, event: &Pair) {
        let changed = match &event.value {
            Some(value) => match keys::host_row(&event.key, value) {
                Ok(row) => self.hosts.put(row),
                Err(_) => {
                    self.counters.malformed += 1;
                    false
                }
            },
            None => keys::parse_host(&event.key).is_some_and(|name| self.hosts.remove(&name)),
        };
        self.hosts_changed |= changed;
    }

    fn endpoint_event(&mut self, address: IpAddr, event: &Pair, now: Now) {
        let changed = match &event.value {
            Some(value) => match keys::endpoint_row(&event.key, value) {
                Ok(row) => self.cache.put(row, event.revision, now),
                Err(_) => {
                    self.counters.malformed += 1;
                    false
                }
            },
            None => {
                keys::parse_endpoint(&event.key).is_some_and(|id| self.cache.remove(&id, event.revision, now))
            }
        };
        if changed {
            self.changed.insert(address);
        }
    }

    /// A sign of life on the stream of watches, after all changes up to `revision`.
    pub fn progress(&mut self, revision: i64, now: Now) {
        self.alive_ns = now.steady_ns;
        if revision < self.revision {
            // A member may lag behind another for a moment; a history that went backwards stays there, and tells a watch from a
            // revision to come nothing.
            let since_ns = *self.behind_since_ns.get_or_insert(now.steady_ns);
            if since_ns.saturating_add(SILENCE_NS) <= now.steady_ns {
                self.counters.rewinds += 1;
                self.revision = revision;
                self.anew(now);
                self.asks.push_back(Ask::Reconnect);
            }
            return;
        }
        self.behind_since_ns = None;
        self.revision = revision;
        if let Some(asked) = self.progress_asked.take() {
            self.cache.confirm(asked.wall_ns);
        }
    }

    /// A watch that the store ended.
    pub fn cancelled(&mut self, ticket: i64, now: Now) {
        let Some(target) = self.watches.remove(&ticket) else { return };
        self.counters.resyncs += 1;
        if let Target::Address(address) = target {
            self.cache.unfollow(Some(address), now);
        }
        self.want(target);
    }
}

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod tests;
