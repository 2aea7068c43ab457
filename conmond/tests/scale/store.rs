//! A plain store in the place of etcd: revisions, leases, transactions, ranges, watches; and counts of all it is asked and tells. No network,
//! no time of its own. The one in `registry/sim` is about faults: it looks through all watches and its whole history at each change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use conmond::registry::desired::Op;
use conmond::registry::keys;
use conmond::registry::reader::{Pair, Reading, Target};
use conmond::registry::writer::{Ask, Sealed, Told, Write};

use crate::plan::S;

/// Changes that a new watch may look back for. A watch is asked for right after its reading.
const LOG: usize = 1 << 20;

/// What the store was asked and told, since it began. Bytes are those of keys and values, without etcd's own framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions done.
    pub transactions: u64,
    /// Rows put by them, seals not counted.
    pub puts: u64,
    /// Rows deleted by them.
    pub deletes: u64,
    /// Bytes of what was put, seals too, and of keys deleted.
    pub written_bytes: u64,
    /// Signs of life of leases.
    pub keep_alives: u64,
    /// Readings of a host's own seal.
    pub seal_reads: u64,
    /// Leases that ran out.
    pub leases_lost: u64,
    /// Rows deleted because their lease ran out or was ended.
    pub lease_deletes: u64,
    /// Readings by the simulated readers, of an address or of all hosts.
    pub reads: u64,
    /// Bytes of what they were answered.
    pub read_bytes: u64,
    /// Changes told to them.
    pub events: u64,
    /// Bytes of those.
    pub event_bytes: u64,
    /// Watches begun by them.
    pub watches_begun: u64,
    /// Watches ended by them.
    pub watches_ended: u64,
    /// Questions for a sign of life on their streams of watches.
    pub progress: u64,
}

#[derive(Clone, Debug)]
struct Held {
    value: Arc<[u8]>,
    revision: i64,
    lease: i64,
}

/// A change to tell: to whom, by which watch.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The host.
    pub host: u32,
    /// Its watch.
    pub ticket: i64,
    /// What changed.
    pub events: Vec<Pair>,
}

/// The store.
#[derive(Default)]
pub struct Store {
    revision: i64,
    addresses: BTreeMap<IpAddr, BTreeMap<String, Held>>,
    hosts: BTreeMap<String, Held>,
    seals: BTreeMap<String, Held>,
    /// When each runs out.
    leases: BTreeMap<i64, u64>,
    next_lease: i64,
    log: VecDeque<(Target, Pair)>,
    watchers: BTreeMap<Target, BTreeSet<(u32, i64)>>,
    watched: BTreeMap<u32, BTreeMap<i64, Target>>,
    notices: BTreeMap<(u32, i64), Vec<Pair>>,
    live_keys: u64,
    live_bytes: u64,
    /// What it was asked and told.
    pub counts: Counts,
}

impl Store {
    /// The newest revision.
    pub const fn revision(&self) -> i64 {
        self.revision
    }

    /// Keys that are there, and bytes of them with their values.
    pub const fn live(&self) -> (u64, u64) {
        (self.live_keys, self.live_bytes)
    }

    /// Watches of a host: what it watches, by ticket.
    pub fn watched(&self, host: u32) -> impl Iterator<Item = Target> {
        self.watched.get(&host).into_iter().flat_map(|of| of.values().copied())
    }

    /// Most watches of one target.
    pub fn most_watched(&self) -> usize {
        let addresses = self.watchers.iter().filter(|(target, _)| **target != Target::Hosts);
        addresses.map(|(_, watchers)| watchers.len()).max().unwrap_or(0)
    }

    /// Answers a writer of `host`.
    pub fn write(&mut self, host: &str, ask: &Ask, ttl_ns: u64, now_ns: u64) -> Told {
        match ask {
            Ask::Grant => {
                self.next_lease += 1;
                self.leases.insert(self.next_lease, now_ns + ttl_ns);
                Told::Granted(self.next_lease)
            }
            Ask::Renew(lease) => {
                self.counts.keep_alives += 1;
                let expiry = self.leases.get_mut(lease);
                let there = expiry.is_some();
                expiry.into_iter().for_each(|expiry| *expiry = now_ns + ttl_ns);
                Told::Renewed(there)
            }
            Ask::Revoke(lease) => {
                self.end_leases(&BTreeSet::from([*lease]));
                Told::Revoked
            }
            Ask::ReadSeal => {
                self.counts.seal_reads += 1;
                Told::Sealed(self.seals.get(&keys::seal(host)).map(|held| Sealed {
                    seal: serde_json::from_slice(&held.value).ok(),
                    revision: held.revision,
                    lease: held.lease,
                }))
            }
            Ask::Write(write) => self.transact(host, write),
        }
    }

    fn transact(&mut self, host: &str, write: &Write) -> Told {
        let seal = keys::seal(host);
        if self.seals.get(&seal).map_or(0, |held| held.revision) != write.seal_revision {
            return Told::Refused;
        }
        if !self.leases.contains_key(&write.lease) {
            return Told::Failed;
        }
        self.revision += 1;
        self.counts.transactions += 1;
        let value: Arc<[u8]> = serde_json::to_vec(&write.seal).unwrap().into();
        self.put(seal, value, write.lease);
        for op in &write.ops {
            match op {
                Op::Put { key, value } => {
                    self.counts.puts += 1;
                    self.put(key.clone(), Arc::clone(value), write.lease);
                }
                Op::Delete { key } => {
                    self.counts.deletes += 1;
                    self.counts.written_bytes += key.len() as u64;
                    self.delete(key);
                }
            }
        }
        Told::Written(self.revision)
    }

    fn put(&mut self, key: String, value: Arc<[u8]>, lease: i64) {
        let bytes = (key.len() + value.len()) as u64;
        self.counts.written_bytes += bytes;
        self.live_bytes += bytes;
        self.live_keys += 1;
        let held = Held { value: Arc::clone(&value), revision: self.revision, lease };
        let target = target(&key);
        let former = self.range(target).insert(key.clone(), held);
        if let Some(former) = former {
            self.live_keys -= 1;
            self.live_bytes -= (key.len() + former.value.len()) as u64;
        }
        self.changed(target, key, Some(value));
    }

    fn delete(&mut self, key: &str) {
        let target = target(key);
        let Some(former) = self.range(target).remove(key) else { return };
        self.live_keys -= 1;
        self.live_bytes -= (key.len() + former.value.len()) as u64;
        if let Some(Target::Address(address)) = target
            && self.addresses.get(&address).is_some_and(BTreeMap::is_empty)
        {
            self.addresses.remove(&address);
        }
        self.changed(target, key.to_owned(), None);
    }

    fn range(&mut self, target: Option<Target>) -> &mut BTreeMap<String, Held> {
        match target {
            Some(Target::Address(address)) => self.addresses.entry(address).or_default(),
            Some(Target::Hosts) => &mut self.hosts,
            None => &mut self.seals,
        }
    }

    fn changed(&mut self, target: Option<Target>, key: String, value: Option<Arc<[u8]>>) {
        // Nobody watches seals.
        let Some(target) = target else { return };
        let pair = Pair { key, value: value.map(|value| value.to_vec()), revision: self.revision };
        for watcher in self.watchers.get(&target).into_iter().flatten() {
            self.notices.entry(*watcher).or_default().push(pair.clone());
        }
        self.log.push_back((target, pair));
        if self.log.len() > LOG {
            self.log.pop_front();
        }
    }

    /// What is to be told to those who watch, since the last call.
    pub fn notices(&mut self) -> Vec<Notice> {
        let notices = std::mem::take(&mut self.notices);
        let told = notices.into_iter().map(|((host, ticket), events)| Notice { host, ticket, events });
        let told: Vec<Notice> = told.collect();
        told.iter().for_each(|notice| self.count_events(&notice.events));
        told
    }

    fn count_events(&mut self, events: &[Pair]) {
        self.counts.events += events.len() as u64;
        let bytes = |pair: &Pair| pair.key.len() + pair.value.as_ref().map_or(0, Vec::len);
        self.counts.event_bytes += events.iter().map(bytes).sum::<usize>() as u64;
    }

    /// Everything of a target.
    pub fn read(&mut self, target: Target) -> Reading {
        let rows = match target {
            Target::Hosts => Some(&self.hosts),
            Target::Address(address) => self.addresses.get(&address),
        };
        let pair = |(key, held): (&String, &Held)| Pair {
            key: key.clone(),
            value: Some(held.value.to_vec()),
            revision: held.revision,
        };
        let pairs: Vec<Pair> = rows.into_iter().flatten().map(pair).collect();
        self.counts.reads += 1;
        let bytes = |pair: &Pair| pair.key.len() + pair.value.as_ref().map_or(0, Vec::len);
        self.counts.read_bytes += pairs.iter().map(bytes).sum::<usize>() as u64;
        Reading { pairs, more: false, revision: self.revision }
    }

    /// Begins a watch. Returns what it missed since revision `from`.
    pub fn watch(&mut self, host: u32, target: Target, ticket: i64, from: i64) -> Option<Notice> {
        self.counts.watches_begun += 1;
        self.watchers.entry(target).or_default().insert((host, ticket));
        self.watched.entry(host).or_default().insert(ticket, target);
        let oldest = self.log.front().map_or(0, |(_, pair)| pair.revision);
        assert!(self.log.len() < LOG || oldest < from, "the log is too short for this watch");
        let begin = self.log.partition_point(|(_, pair)| pair.revision < from);
        let missed = self.log.range(begin..).filter(|(of, _)| *of == target);
        let events: Vec<Pair> = missed.map(|(_, pair)| pair.clone()).collect();
        self.count_events(&events);
        (!events.is_empty()).then_some(Notice { host, ticket, events })
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, host: u32, ticket: i64) {
        let Some(target) = self.watched.get_mut(&host).and_then(|of| of.remove(&ticket)) else { return };
        self.counts.watches_ended += 1;
        self.forget(host, ticket, target);
    }

    /// Ends a host's stream, and so all its watches.
    pub fn end_stream(&mut self, host: u32) {
        for (ticket, target) in self.watched.remove(&host).unwrap_or_default() {
            self.forget(host, ticket, target);
        }
    }

    fn forget(&mut self, host: u32, ticket: i64, target: Target) {
        if let Some(watchers) = self.watchers.get_mut(&target) {
            watchers.remove(&(host, ticket));
            if watchers.is_empty() {
                self.watchers.remove(&target);
            }
        }
    }

    /// Leases run out.
    pub fn tick(&mut self, now_ns: u64) {
        let over: BTreeSet<i64> =
            self.leases.iter().filter(|(_, expiry)| **expiry <= now_ns).map(|(lease, _)| *lease).collect();
        self.counts.leases_lost += over.len() as u64;
        if !over.is_empty() {
            self.end_leases(&over);
        }
    }

    fn end_leases(&mut self, over: &BTreeSet<i64>) {
        self.leases.retain(|lease, _| !over.contains(lease));
        let ranges = self.addresses.values().chain([&self.hosts, &self.seals]);
        let gone = ranges.flatten().filter(|(_, held)| over.contains(&held.lease));
        let gone: Vec<String> = gone.map(|(key, _)| key.clone()).collect();
        if !gone.is_empty() {
            self.revision += 1;
            self.counts.lease_deletes += gone.len() as u64;
            gone.iter().for_each(|key| self.delete(key));
        }
    }

    /// A new leader gives every lease its whole time again.
    pub fn restarted(&mut self, ttl_ns: u64, now_ns: u64) {
        self.leases.values_mut().for_each(|expiry| *expiry = now_ns + ttl_ns);
    }
}

/// Which target a key is of; none: a seal.
fn target(key: &str) -> Option<Target> {
    if key.starts_with(keys::HOSTS) {
        return Some(Target::Hosts);
    }
    keys::parse_endpoint(key).map(|id| Target::Address(id.address))
}

/// How long a lease lasts after its last sign of life, as `ttl_seconds` has it unless it is set.
pub const TTL_NS: u64 = 15 * S;
