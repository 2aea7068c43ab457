//! A bounded table of flows with whatever is known of each, and the ends of flows as IPFIX words them (RFC 7011 section 2,
//! RFC 5102 section 5.11.3).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use crate::flow::EndReason;
use crate::select::digest::{digest, words};

/// Key of a biflow at one point: both ends in an order that does not depend on the direction.
#[derive(Clone, Copy, Debug, Eq)]
pub struct BiKey {
    /// Addresses and ports as words, lesser end first; protocol, VLAN.
    words: [u64; 6],
}

impl BiKey {
    /// The key, and whether the packet goes from its first to its second end.
    #[inline]
    pub fn of(source: (IpAddr, u16), destination: (IpAddr, u16), proto: u8, vlan: u16) -> (BiKey, bool) {
        let end = |(address, port): (IpAddr, u16)| {
            let [a, b] = address_words(address);
            (a, b, port)
        };
        let (source, destination) = (end(source), end(destination));
        let straight = source <= destination;
        let (low, high) = if straight { (source, destination) } else { (destination, source) };
        let ports = u64::from(low.2) << 16 | u64::from(high.2);
        let rest = u64::from(proto) | u64::from(vlan) << 8;
        (BiKey { words: [low.0, low.1, high.0, high.1, ports, rest] }, straight)
    }
}

/// [`address_to_bytes`] as words.
#[inline]
fn address_words(address: IpAddr) -> [u64; 2] {
    match address {
        // ::ffff:a.b.c.d, without the way through memory
        IpAddr::V4(a) => [0, u64::from(u32::from_le_bytes(a.octets())) << 32 | 0xffff_0000],
        IpAddr::V6(a) => words(&a.octets()),
    }
}

impl PartialEq for BiKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // six words at once: a call that compares octets costs more
        let differ = |at: usize| self.words[at] ^ other.words[at];
        (0..6).fold(0, |all, at| all | differ(at)) == 0
    }
}

impl BiKey {
    /// A digest of the key, the same wherever it is made.
    pub fn digest(&self, seed: u64) -> u64 {
        digest(seed, &self.words)
    }
}

impl Hash for BiKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for [a, b] in self.words.as_chunks::<2>().0 {
            state.write_u128(u128::from(*a) | u128::from(*b) << 64);
        }
    }
}

/// Hashes with secrets, so that nobody can choose addresses and ports that meet in one place: two words at a time are multiplied
/// with each other, each with a secret in it, and the product's halves folded.
#[derive(Clone, Copy)]
struct Keyed([u64; 2]);

impl Keyed {
    fn new(secret: u64) -> Self {
        Self([digest(secret, &[1]), digest(secret, &[2])])
    }
}

struct KeyedHasher {
    state: u64,
    secret: u64,
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    #[inline]
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.0[0], secret: self.0[1] }
    }
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(16) {
            let [a, b] = words::<2>(chunk);
            self.write_u128(u128::from(a) | u128::from(b) << 64);
        }
    }

    #[inline]
    fn write_u128(&mut self, two: u128) {
        let (a, b) = (two as u64, (two >> 64) as u64);
        let product = u128::from(a ^ self.state) * u128::from(b ^ self.secret);
        // what was there before stays in it where one of the factors is 0
        self.state = product as u64 ^ (product >> 64) as u64 ^ self.state.rotate_left(29);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.secret | 1);
        product as u64 ^ (product >> 64) as u64
    }
}

/// When flows end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows at one time, at least 1. When all places are taken the flow that was seen least recently ends, for
    /// [`EndReason::LackOfResources`].
    pub flows: usize,
    /// A flow ends when no packet of it came for so long, nanoseconds.
    pub idle_ns: u64,
}

/// A flow that ended.
#[derive(Clone, Debug)]
pub struct Ended<V> {
    /// What was known of it.
    pub value: V,
    /// First packet, nanoseconds.
    pub first_ns: u64,
    /// Last packet.
    pub last_ns: u64,
    /// Why.
    pub reason: EndReason,
}

const NONE: u32 = u32::MAX;

struct Entry<V> {
    key: BiKey,
    value: Option<V>,
    first_ns: u64,
    last_ns: u64,
    /// Neighbours in the order of the last packet.
    newer: u32,
    older: u32,
}

/// Flows by key, in the order of their last packets.
pub struct FlowTable<V> {
    limits: Limits,
    index: HashMap<BiKey, u32, Keyed>,
    entries: Vec<Entry<V>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    begun: u64,
    evicted: u64,
}

impl<V> FlowTable<V> {
    /// An empty table. `secret` keeps others from choosing flows that are slow to find.
    pub fn new(limits: Limits, secret: u64) -> Self {
        let limits = Limits { flows: limits.flows.clamp(1, NONE as usize - 1), ..limits };
        Self {
            limits,
            index: HashMap::with_hasher(Keyed::new(secret)),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            begun: 0,
            evicted: 0,
        }
    }

    /// The flow of a packet that passed at `now`; `begin` makes a new one. Flows that end by it are handed to `ended`
    /// first. Packets may come slightly out of order; an earlier one counts as at the time of the latest.
    pub fn packet(
        &mut self,
        key: BiKey,
        now: u64,
        begin: impl FnOnce() -> V,
        ended: &mut impl FnMut(Ended<V>),
    ) -> &mut V {
        let now = self.entries.get(self.newest as usize).map_or(now, |newest| newest.last_ns.max(now));
        self.expire(now, ended);
        let at = match self.index.get(&key) {
            Some(&at) => {
                self.unlink(at);
                at
            }
            None => self.place(key, now, ended),
        };
        self.link(at);
        let entry = &mut self.entries[at as usize];
        entry.last_ns = now;
        entry.value.get_or_insert_with(begin)
    }

    /// Ends one flow: its protocol said so, or its ports are used again.
    pub fn end(&mut self, key: BiKey, reason: EndReason, ended: &mut impl FnMut(Ended<V>)) {
        if let Some(&at) = self.index.get(&key) {
            self.remove(at, reason, ended);
        }
    }

    /// Ends all flows, the least recently seen first: metering stops.
    pub fn finish(&mut self, ended: &mut impl FnMut(Ended<V>)) {
        while self.oldest != NONE {
            self.remove(self.oldest, EndReason::ForcedEnd, ended);
        }
    }

    /// Flows in it.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Flows that ever began.
    pub const fn begun(&self) -> u64 {
        self.begun
    }

    /// Flows that ended for want of a place.
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn expire(&mut self, now: u64, ended: &mut impl FnMut(Ended<V>)) {
        while let Some(oldest) = self.entries.get(self.oldest as usize) {
            if now.saturating_sub(oldest.last_ns) < self.limits.idle_ns {
                break;
            }
            self.remove(self.oldest, EndReason::IdleTimeout, ended);
        }
    }

    fn place(&mut self, key: BiKey, now: u64, ended: &mut impl FnMut(Ended<V>)) -> u32 {
        if self.index.len() >= self.limits.flows {
            self.evicted += 1;
            self.remove(self.oldest, EndReason::LackOfResources, ended);
        }
        self.begun += 1;
        let entry = Entry { key, value: None, first_ns: now, last_ns: now, newer: NONE, older: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.index.insert(key, at);
        at
    }

    fn remove(&mut self, at: u32, reason: EndReason, ended: &mut impl FnMut(Ended<V>)) {
        self.unlink(at);
        let entry = &mut self.entries[at as usize];
        let (first_ns, last_ns) = (entry.first_ns, entry.last_ns);
        let value = entry.value.take();
        self.index.remove(&entry.key);
        self.free.push(at);
        if let Some(value) = value {
            ended(Ended { value, first_ns, last_ns, reason });
        }
    }

    fn unlink(&mut self, at: u32) {
        let Entry { newer, older, .. } = self.entries[at as usize];
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        let entry = &mut self.entries[at as usize];
        (entry.newer, entry.older) = (NONE, before);
        match self.entries.get_mut(before as usize) {
            Some(entry) => entry.newer = at,
            None => self.oldest = at,
        }
    }
}
