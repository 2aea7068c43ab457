//! Who tells whom what, and when: a pure state machine over the hosts ([`node`](super::node)).
//!
//! Every round a host says hello to some others, at random, and both end up with what either knew. Whoever learns something new has a round of its own at
//! once, so news are everywhere after some rounds. A host lives as long as its heartbeat grows, whoever passes that on; when it has not
//! grown for a while the host is lost and its rows go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::super::cache::{Cache, Limits, Now};
use super::super::desired::{Desired, Op};
use super::super::hosts::{Hosts, MAX_HOSTS};
use super::super::keys;
use super::super::rows::{MAX_TEXT_BYTES, Own};
use super::node::{Changes, Node};
use super::wire::{Life, Message, Part, Summary};

/// Times of the gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshSettings {
    /// A host that was not heard of for so long is lost.
    pub ttl_ns: u64,
    /// From one round to the next, among a few hosts; among many it is longer.
    pub round_ns: u64,
    /// For how long a row that ended is told of.
    pub grace_ns: u64,
}

/// Hosts that are said hello to in a round.
const FANOUT: usize = 3;
/// Hosts that are told at once when this one's own rows change.
const TOLD_AT_ONCE: usize = 16;
/// Hosts in one message.
const MAX_SUMMARIES: usize = 400;
/// Octets of rows in one message.
const ROOM: usize = 40 << 10;
/// After news the next round is due this soon, among a few hosts.
const HURRY_NS: u64 = 20_000_000;
/// Rounds that are due soon after news.
const HURRIED: u32 = 2;
/// How long a host that left is told of.
const FAREWELL_NS: u64 = 30_000_000_000;

/// A host that is lost, or left.
#[derive(Clone, Debug)]
struct Gone {
    summary: Summary,
    at_ns: u64,
}

/// What a mesh did since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshCounters {
    /// Writes of our own.
    pub writes: u64,
    /// Rows changed by them.
    pub rows: u64,
    /// Messages taken.
    pub messages: u64,
    /// Rows that others told of anew.
    pub events: u64,
    /// Hosts of which all was told anew.
    pub resyncs: u64,
    /// Rows that could not be read, or were of another host.
    pub malformed: u64,
    /// Rows of our own that cannot be said.
    pub refused_rows: u64,
}

/// The mesh as one host sees it.
pub struct Mesh {
    name: String,
    settings: MeshSettings,
    seeds: Vec<SocketAddr>,
    own: Option<Own>,
    desired: Desired,
    /// This host is among them.
    nodes: BTreeMap<String, Node>,
    gone: BTreeMap<String, Gone>,
    cache: Cache,
    hosts: Hosts,
    hosts_changed: bool,
    changed: BTreeSet<IpAddr>,
    next_round_ns: u64,
    last_round_ns: u64,
    hurried: u32,
    heard_wall_ns: Option<u64>,
    superseded: bool,
    left: bool,
    random: u64,
    counters: MeshCounters,
}

impl Mesh {
    /// A host that says nothing yet.
    pub fn new(
        name: &str,
        life: Life,
        address: SocketAddr,
        seeds: Vec<SocketAddr>,
        settings: MeshSettings,
        limits: Limits,
        now: Now,
    ) -> Self {
        let own = Node::new(life, address, now.steady_ns);
        let mut hosts = Hosts::default();
        hosts.complete = true;
        Self {
            name: name.to_owned(),
            settings,
            seeds,
            own: None,
            desired: Desired::default(),
            nodes: BTreeMap::from([(name.to_owned(), own)]),
            gone: BTreeMap::new(),
            cache: Cache::new(limits, true),
            hosts,
            hosts_changed: true,
            changed: BTreeSet::new(),
            next_round_ns: 0,
            last_round_ns: 0,
            hurried: 0,
            heard_wall_ns: None,
            superseded: false,
            left: false,
            random: life.epoch | 1,
            counters: MeshCounters::default(),
        }
    }

    /// What is held.
    pub fn cache(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// Its counters.
    pub const fn counters(&self) -> MeshCounters {
        self.counters
    }

    /// Other hosts that live.
    pub fn others(&self) -> usize {
        self.nodes.len() - 1
    }

    /// When another host was heard last, wall time.
    pub const fn heard_wall_ns(&self) -> Option<u64> {
        self.heard_wall_ns
    }

    /// Whether another conmond, started later, speaks as this host.
    pub const fn superseded(&self) -> bool {
        self.superseded
    }

    /// The hosts, if they changed since the last call.
    pub fn take_hosts(&mut self) -> Option<Hosts> {
        std::mem::take(&mut self.hosts_changed).then(|| self.hosts.clone())
    }

    /// Addresses whose answers changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.changed)
    }

    /// Others to say hello to from now on, beside those that are known.
    pub fn set_seeds(&mut self, seeds: Vec<SocketAddr>) {
        self.seeds = seeds;
    }

    /// Makes this host say just this. Gives what to send at once.
    pub fn publish(&mut self, own: Own, now: Now) -> Vec<(SocketAddr, Message)> {
        self.own = Some(own);
        self.say(now)
    }

    fn say(&mut self, now: Now) -> Vec<(SocketAddr, Message)> {
        let (Some(own), Some(node)) = (&self.own, self.nodes.get_mut(&self.name)) else { return Vec::new() };
        self.desired = Desired::new(own, now.wall_ns, self.settings.grace_ns);
        self.counters.refused_rows = self.desired.refused;
        let ops = self.desired.difference(&node.values());
        if ops.is_empty() {
            return Vec::new();
        }
        self.counters.writes += 1;
        self.counters.rows += ops.len() as u64;
        let mut changes = Changes::default();
        for op in ops {
            match op {
                Op::Put { key, value } => {
                    node.write(key.clone(), value.clone(), self.settings.grace_ns);
                    changes.put.push((key, value));
                }
                Op::Delete { key } => {
                    node.erase(&key);
                    changes.gone.push(key);
                }
            }
        }
        let name = self.name.clone();
        self.take(&name, changes, now);
        self.hello(TOLD_AT_ONCE)
    }

    /// Hello to some hosts, and to one that joins or was lost.
    fn hello(&mut self, count: usize) -> Vec<(SocketAddr, Message)> {
        if self.superseded {
            return Vec::new();
        }
        let mut peers: Vec<SocketAddr> =
            self.nodes.iter().filter(|(name, _)| **name != self.name).map(|(_, node)| node.address).collect();
        while peers.len() > count {
            let which = self.below(peers.len());
            peers.swap_remove(which);
        }
        // Two halves of a mesh that lost each other find together again by this.
        let lost: Vec<SocketAddr> = self.gone.values().map(|gone| gone.summary.address).collect();
        let mut else_where = [self.seeds.clone(), lost].concat();
        else_where.retain(|address| !peers.contains(address) && *address != self.address());
        if !else_where.is_empty() && (peers.is_empty() || self.below(4) == 0) {
            let which = self.below(else_where.len());
            peers.push(else_where[which]);
        }
        let hello = Message::Hello(self.summaries());
        peers.into_iter().map(|peer| (peer, hello.clone())).collect()
    }

    fn address(&self) -> SocketAddr {
        self.nodes[&self.name].address
    }

    fn below(&mut self, bound: usize) -> usize {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound.max(1) as u64) as usize
    }

    /// Who is there and how far: this host, and as many of the others as a message takes.
    fn summaries(&mut self) -> Vec<Summary> {
        let name = self.name.clone();
        let mut own = self.nodes[&name].summary(&name);
        own.left = self.left;
        let mut others: Vec<Summary> = self
            .nodes
            .iter()
            .filter(|(other, _)| **other != name)
            .map(|(other, node)| node.summary(other))
            .collect();
        others.extend(self.gone.values().filter(|gone| gone.summary.left).map(|gone| gone.summary.clone()));
        while others.len() >= MAX_SUMMARIES {
            let which = self.below(others.len());
            others.swap_remove(which);
        }
        others.push(own);
        others
    }

    /// A round, if one is due: what to send.
    pub fn tick(&mut self, now: Now) -> Vec<(SocketAddr, Message)> {
        if now.steady_ns < self.next_round_ns {
            return Vec::new();
        }
        self.last_round_ns = now.steady_ns;
        let round_ns = self.settings.round_ns.saturating_mul(self.many()).min(1_000_000_000);
        let soon_ns = HURRY_NS.saturating_mul(self.many());
        let hurries = self.hurried > 0;
        self.hurried = self.hurried.saturating_sub(1);
        self.next_round_ns = now.steady_ns + if hurries { soon_ns.min(round_ns) } else { round_ns };
        self.bury(now);
        self.forget(now);
        let mut out = Vec::new();
        if self.desired.next_expiry_ns.is_some_and(|expiry| expiry <= now.wall_ns) {
            out = self.say(now);
        }
        if !self.superseded
            && let Some(own) = self.nodes.get_mut(&self.name)
        {
            own.heartbeat += 1;
            own.heard_ns = now.steady_ns;
        }
        out.extend(self.hello(FANOUT));
        out
    }

    /// When the next round is due, steady time.
    pub const fn next_round_ns(&self) -> u64 {
        self.next_round_ns
    }

    /// How many hosts there are, as a factor of times: what all send together shall not grow with their square.
    fn many(&self) -> u64 {
        1 + self.nodes.len() as u64 / 16
    }

    /// News: some rounds soon, so that hardly anybody is left who has not heard.
    fn hurry(&mut self) {
        self.hurried = HURRIED;
        let soon = self.last_round_ns + HURRY_NS.saturating_mul(self.many());
        self.next_round_ns = self.next_round_ns.min(soon);
    }

    /// Hosts that were not heard of go.
    fn bury(&mut self, now: Now) {
        let ttl_ns = self.settings.ttl_ns;
        let lost: Vec<String> = self
            .nodes
            .iter()
            .filter(|(name, node)| {
                **name != self.name && node.heard_ns.saturating_add(ttl_ns) <= now.steady_ns
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in lost {
            self.lose(&name, false, now);
        }
        self.gone.retain(|_, gone| {
            let kept_ns = if gone.summary.left { FAREWELL_NS } else { 3600 * 1_000_000_000 };
            gone.at_ns.saturating_add(kept_ns) > now.steady_ns
        });
    }

    fn lose(&mut self, name: &str, left: bool, now: Now) {
        let Some(node) = self.nodes.remove(name) else { return };
        let summary = Summary { left, ..node.summary(name) };
        let gone = Changes { put: Vec::new(), gone: node.keys().cloned().collect() };
        self.take(name, gone, now);
        if self.gone.len() < MAX_HOSTS {
            self.gone.insert(name.to_owned(), Gone { summary, at_ns: now.steady_ns });
        }
    }

    /// Rows whose grace is over go.
    fn forget(&mut self, now: Now) {
        let others: Vec<String> = self.nodes.keys().filter(|name| **name != self.name).cloned().collect();
        for name in others {
            let gone = self.nodes.get_mut(&name).map(|node| node.expire(now.wall_ns)).unwrap_or_default();
            self.take(&name, Changes { put: Vec::new(), gone }, now);
        }
        self.cache.expire(now);
    }

    /// A message from somebody; gives the answer.
    pub fn receive(&mut self, message: Message, now: Now) -> Option<Message> {
        self.counters.messages += 1;
        self.heard_wall_ns = Some(now.wall_ns);
        self.cache.confirm(now.wall_ns);
        match message {
            Message::Hello(theirs) => {
                self.notice(&theirs, now);
                let parts = self.lacking(&theirs);
                (!self.superseded).then(|| Message::Reply(self.summaries(), parts))
            }
            Message::Reply(theirs, parts) => {
                self.notice(&theirs, now);
                self.apply(parts, now);
                let parts = self.lacking(&theirs);
                (!parts.is_empty()).then_some(Message::Rest(parts))
            }
            Message::Rest(parts) => {
                self.apply(parts, now);
                None
            }
        }
    }

    /// Who is there, and how their hearts beat.
    fn notice(&mut self, theirs: &[Summary], now: Now) {
        let own_life = self.nodes[&self.name].life;
        let mut newer = false;
        for summary in theirs.iter().take(MAX_SUMMARIES) {
            if summary.name == self.name {
                newer |= summary.life > own_life && !summary.left;
                continue;
            }
            if summary.name.is_empty() || summary.name.len() > MAX_TEXT_BYTES {
                self.counters.malformed += 1;
                continue;
            }
            self.notice_one(summary, now);
        }
        if newer && !self.superseded {
            self.superseded = true;
            tracing::warn!(
                "another conmond, started later, is in the gossip as {}; this one is silent",
                self.name
            );
        }
    }

    fn notice_one(&mut self, summary: &Summary, now: Now) {
        if let Some(gone) = self.gone.get(&summary.name) {
            let known = (gone.summary.life, gone.summary.heartbeat, gone.summary.left);
            if (summary.life, summary.heartbeat) <= (known.0, known.1) || (summary.life == known.0 && known.2)
            {
                return;
            }
        }
        let known = self.nodes.get(&summary.name).map(|node| (node.life, node.heartbeat));
        match known {
            Some((life, _)) if summary.life < life => return,
            Some((life, heartbeat)) if summary.life == life => {
                if summary.left {
                    self.lose(&summary.name, true, now);
                    return self.hurry();
                }
                if summary.heartbeat > heartbeat
                    && let Some(node) = self.nodes.get_mut(&summary.name)
                {
                    node.heartbeat = summary.heartbeat;
                    node.heard_ns = now.steady_ns;
                    node.address = summary.address;
                }
                return;
            }
            // It started anew: what it said before is told by what it says now, not by a silence in between.
            Some(_) => {}
            None if self.nodes.len() >= MAX_HOSTS => return,
            None => {}
        }
        if summary.left {
            return;
        }
        self.gone.remove(&summary.name);
        let mut node = Node::new(summary.life, summary.address, now.steady_ns);
        node.heartbeat = summary.heartbeat;
        if let Some(before) = self.nodes.insert(summary.name.clone(), node)
            && let Some(node) = self.nodes.get_mut(&summary.name)
        {
            node.succeed(before);
        }
    }

    /// What somebody lacks who knows `theirs`.
    fn lacking(&mut self, theirs: &[Summary]) -> Vec<Part> {
        // With so many hosts a message does not tell of all: who is not in it is not unknown then.
        let complete = theirs.len() < MAX_SUMMARIES;
        let known: BTreeMap<&str, &Summary> = theirs.iter().map(|one| (one.name.as_str(), one)).collect();
        let mut room = ROOM;
        let own = self.name.clone();
        // This host's own rows first: nobody else may know them.
        let names = std::iter::once(&own).chain(self.nodes.keys().filter(|name| **name != own));
        names
            .filter_map(|name| {
                let theirs = known.get(name.as_str()).copied();
                if theirs.is_none() && !complete && *name != own {
                    return None;
                }
                self.nodes.get(name)?.part(name, theirs, &mut room)
            })
            .collect()
    }

    fn apply(&mut self, parts: Vec<Part>, now: Now) {
        for part in parts {
            if part.name == self.name {
                continue;
            }
            let name = part.name.clone();
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            self.counters.resyncs += u64::from(part.anew);
            let changes = node.apply(part, self.settings.grace_ns);
            if changes != Changes::default() {
                self.take(&name, changes, now);
                self.hurry();
            }
        }
    }

    /// Changes of one host's rows, for those who ask.
    fn take(&mut self, name: &str, changes: Changes, now: Now) {
        let host = keys::host(name);
        for (key, value) in changes.put {
            self.counters.events += 1;
            if key == host {
                match keys::host_row(&key, &value) {
                    Ok(row) => self.hosts_changed |= self.hosts.put(row),
                    Err(_) => self.counters.malformed += 1,
                }
                continue;
            }
            match keys::endpoint_row(&key, &value) {
                Ok(row) if row.host == name => {
                    let address = row.address;
                    if self.cache.put(row, 0, now) {
                        self.changed.insert(address);
                    }
                }
                _ => self.counters.malformed += 1,
            }
        }
        for key in changes.gone {
            if key == host {
                self.hosts_changed |= self.hosts.remove(name);
            } else if let Some(id) = keys::parse_endpoint(&key).filter(|id| id.host == name)
                && self.cache.remove(&id, 0, now)
            {
                self.changed.insert(id.address);
            }
        }
    }

    /// Says that this host leaves.
    pub fn leave(&mut self) -> Vec<(SocketAddr, Message)> {
        self.left = true;
        self.hello(TOLD_AT_ONCE)
    }

    /// Rows that are not said as they shall be; there are none once [`publish`](Self::publish) has returned, unless they are refused.
    pub fn pending(&self) -> usize {
        self.desired.difference(&self.nodes[&self.name].values()).len()
    }
}

#[cfg(test)]
mod tests;
