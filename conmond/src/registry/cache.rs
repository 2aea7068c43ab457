//! What is known of addresses in use: a pure state machine, without input or output and without a clock.
//!
//! Every backend answers from it. An address that was asked for is *held* with all its rows, also if there are none. Rows that vanish
//! are kept for a grace, so that a late flow is named by who had the address in its time. All of it is
//! bounded: the address that was not asked for the longest goes first, and every bound has a counter.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::answer::{Answer, Claim, resolve};
use super::rows::{EndpointRow, RowId, canonical};

/// The host's two clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds of a clock that never steps: for waiting.
    pub steady_ns: u64,
    /// Nanoseconds since the Unix epoch: for comparing with rows.
    pub wall_ns: u64,
}

/// Bounds and times of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses held.
    pub addresses: usize,
    /// Rows held, of all addresses.
    pub rows: usize,
    /// Rows held of one address.
    pub rows_per_address: usize,
    /// For how long an address that nobody asks for is held.
    pub idle_ns: u64,
    /// For how long a row is kept after it ended.
    pub grace_ns: u64,
    /// How far outside of an interval a time may lie to get a candidate.
    pub slack_ns: u64,
    /// After how long an address that nobody had is asked for again, at first; twice as long each time.
    pub negative_min_ns: u64,
    /// And at most.
    pub negative_max_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            addresses: 65_536,
            rows: 262_144,
            rows_per_address: 1024,
            idle_ns: 600 * 1_000_000_000,
            grace_ns: 120 * 1_000_000_000,
            slack_ns: 1_000_000_000,
            negative_min_ns: 20_000_000,
            negative_max_ns: 30 * 1_000_000_000,
        }
    }
}

/// What a cache did since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounters {
    /// Answers from what was held.
    pub hits: u64,
    /// Questions for what was not.
    pub misses: u64,
    /// Addresses that had to go because there were too many, of them or of their rows.
    pub evicted: u64,
    /// Rows not kept because their address had too many.
    pub truncated_rows: u64,
}

/// What the cache says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The answer.
    Hit(Answer),
    /// Somebody must be asked; this is what was known when somebody was last asked, if ever.
    Miss(Option<Answer>),
}

/// How fresh what is held is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fresh {
    /// Whoever changes it tells us: as fresh as [`Cache::confirm`] says, and no older than when it was read.
    Followed { read_ns: u64 },
    /// As of a time (wall), and to be asked for again at one (steady).
    Until { as_of_ns: u64, again_ns: u64 },
}

#[derive(Debug)]
struct Entry {
    /// In [`Claim::order`].
    claims: Vec<Claim>,
    fresh: Fresh,
    truncated: bool,
    /// Wait for an address that nobody has.
    negative_ns: u64,
    asked_ns: u64,
    /// Asked for since it was last looked at for eviction.
    asked: bool,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    limits: Limits,
    /// Whether all there is is held: then what is not held does not exist.
    complete: bool,
    entries: HashMap<IpAddr, Entry>,
    /// Each address held once; the first is the next that may have to go.
    order: VecDeque<IpAddr>,
    rows: usize,
    confirmed_ns: Option<u64>,
    counters: CacheCounters,
}

impl Cache {
    /// An empty cache. With `complete`, all rows there are will be put into it, and nobody else needs to be asked.
    pub fn new(limits: Limits, complete: bool) -> Self {
        Self {
            limits,
            complete,
            entries: HashMap::new(),
            order: VecDeque::new(),
            rows: 0,
            confirmed_ns: None,
            counters: CacheCounters::default(),
        }
    }

    /// Its counters.
    pub const fn counters(&self) -> CacheCounters {
        self.counters
    }

    /// Its bounds.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Addresses held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Rows held.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// What is followed is as fresh as `wall_ns`.
    pub fn confirm(&mut self, wall_ns: u64) {
        self.confirmed_ns = Some(wall_ns);
    }

    /// Up to when what is followed is known.
    pub const fn confirmed_ns(&self) -> Option<u64> {
        self.confirmed_ns
    }

    /// Who had `address` at `at_ns`.
    pub fn ask(&mut self, address: IpAddr, at_ns: u64, now: Now) -> Asked {
        let address = canonical(address);
        let Some(entry) = self.entries.get_mut(&address) else {
            if self.complete {
                self.counters.hits += 1;
                return Asked::Hit(Answer {
                    known_as_of_ns: self.confirmed_ns,
                    from_cache: true,
                    truncated: self.counters.evicted > 0,
                    ..Answer::default()
                });
            }
            self.counters.misses += 1;
            return Asked::Miss(None);
        };
        entry.asked = true;
        entry.asked_ns = now.steady_ns;
        let (known_as_of_ns, due) = match entry.fresh {
            Fresh::Followed { read_ns } => (self.confirmed_ns.max(Some(read_ns)), false),
            Fresh::Until { as_of_ns, again_ns } => (Some(as_of_ns), again_ns <= now.steady_ns),
        };
        let answer = Answer {
            candidates: resolve(&entry.claims, at_ns, self.limits.slack_ns),
            known_as_of_ns,
            from_cache: true,
            truncated: entry.truncated,
        };
        if due {
            self.counters.misses += 1;
            return Asked::Miss(Some(answer));
        }
        self.counters.hits += 1;
        Asked::Hit(answer)
    }

    /// All rows there were of `address` at `as_of_ns` (wall time), with the revisions that wrote them. What was held and is not among them is gone. With
    /// `more`, there were even more. The address is held from now on. Returns whether anything changed.
    pub fn load(
        &mut self,
        address: IpAddr,
        found: Vec<(EndpointRow, i64)>,
        more: bool,
        as_of_ns: u64,
        now: Now,
    ) -> bool {
        let address = canonical(address);
        let held = self.entries.contains_key(&address);
        let mut changed = false;
        let fresh_ids: HashSet<RowId> = found.iter().map(|(row, _)| row.id()).collect();
        if held {
            let gone: Vec<RowId> = self.entries[&address]
                .claims
                .iter()
                .filter(|claim| claim.gone_ns.is_none())
                .map(|claim| claim.row.id())
                .filter(|id| !fresh_ids.contains(id))
                .collect();
            for id in gone {
                changed |= self.remove(&id, 0, now);
            }
            // What this reading lacks may come back by a lower revision: the store may have another history now.
            let entry = self.entries.get_mut(&address);
            entry.into_iter().flat_map(|entry| &mut entry.claims).for_each(|claim| claim.revision = 0);
        } else {
            self.entries.insert(
                address,
                Entry {
                    claims: Vec::new(),
                    fresh: Fresh::Until { as_of_ns, again_ns: now.steady_ns },
                    truncated: false,
                    negative_ns: self.limits.negative_min_ns,
                    asked_ns: now.steady_ns,
                    asked: false,
                },
            );
            self.order.push_back(address);
        }
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.truncated = more;
        }
        for (row, revision) in found {
            changed |= self.put_at(address, row, revision, true);
        }
        let Some(entry) = self.entries.get_mut(&address) else { return changed };
        if entry.claims.iter().any(|claim| claim.gone_ns.is_none()) {
            entry.negative_ns = self.limits.negative_min_ns;
        }
        entry.fresh = Fresh::Until { as_of_ns, again_ns: now.steady_ns.saturating_add(entry.negative_ns) };
        entry.negative_ns = entry.negative_ns.saturating_mul(2).min(self.limits.negative_max_ns);
        self.bound();
        changed
    }

    /// Changes of `address` are told from now on.
    pub fn follow(&mut self, address: IpAddr) {
        if let Some(entry) = self.entries.get_mut(&canonical(address))
            && let Fresh::Until { as_of_ns, .. } = entry.fresh
        {
            entry.fresh = Fresh::Followed { read_ns: as_of_ns };
        }
    }

    /// Changes are told no longer: of one address, or of all. What is held is as old as it was last confirmed, and is answered with still;
    /// whoever can ask shall ask again.
    pub fn unfollow(&mut self, address: Option<IpAddr>, now: Now) {
        let confirmed_ns = self.confirmed_ns.unwrap_or(0);
        let stop = |entry: &mut Entry| {
            if let Fresh::Followed { read_ns } = entry.fresh {
                let as_of_ns = read_ns.max(confirmed_ns);
                entry.fresh = Fresh::Until { as_of_ns, again_ns: now.steady_ns };
            }
        };
        match address {
            Some(address) => self.entries.get_mut(&canonical(address)).map(stop).unwrap_or_default(),
            None => self.entries.values_mut().for_each(stop),
        }
    }

    /// A row that was written. Only rows of addresses that are held are kept, unless all are. Returns whether anything
    /// changed.
    pub fn put(&mut self, row: EndpointRow, revision: i64, now: Now) -> bool {
        let address = canonical(row.address);
        if !self.entries.contains_key(&address) {
            if !self.complete {
                return false;
            }
            let entry = Entry {
                claims: Vec::new(),
                fresh: Fresh::Followed { read_ns: 0 },
                truncated: false,
                negative_ns: self.limits.negative_min_ns,
                asked_ns: now.steady_ns,
                asked: false,
            };
            self.entries.insert(address, entry);
            self.order.push_back(address);
        }
        let changed = self.put_at(address, row, revision, false);
        self.bound();
        changed
    }

    fn put_at(&mut self, address: IpAddr, mut row: EndpointRow, revision: i64, read: bool) -> bool {
        row.address = address;
        let Some(entry) = self.entries.get_mut(&address) else { return false };
        let key = (row.host.as_str(), row.network.as_str(), row.since_ns);
        match entry.claims.binary_search_by(|claim| claim.order().cmp(&key)) {
            Ok(i) => {
                let claim = &mut entry.claims[i];
                // What comes late does not undo what came since. A read is the truth whatever was heard before.
                if !read && revision != 0 && revision < claim.revision {
                    return false;
                }
                let changed = *claim.row != row || claim.gone_ns.is_some();
                claim.revision = revision;
                claim.gone_ns = None;
                if *claim.row != row {
                    claim.row = Arc::new(row);
                }
                changed
            }
            Err(i) => {
                if entry.claims.len() >= self.limits.rows_per_address {
                    entry.truncated = true;
                    self.counters.truncated_rows += 1;
                    return false;
                }
                entry.claims.insert(i, Claim { row: Arc::new(row), gone_ns: None, revision });
                self.rows += 1;
                true
            }
        }
    }

    /// A row that was deleted by `revision`. It is kept for its grace. Returns whether anything changed.
    pub fn remove(&mut self, id: &RowId, revision: i64, now: Now) -> bool {
        let Some(entry) = self.entries.get_mut(&canonical(id.address)) else { return false };
        let key = (id.host.as_str(), id.network.as_str(), id.since_ns);
        let Ok(i) = entry.claims.binary_search_by(|claim| claim.order().cmp(&key)) else { return false };
        let claim = &mut entry.claims[i];
        if claim.gone_ns.is_some() || (revision != 0 && revision < claim.revision) {
            return false;
        }
        // It cannot have ended before it began, whatever the two clocks say.
        claim.gone_ns = Some(now.wall_ns.max(claim.row.since_ns.saturating_add(1)));
        claim.revision = revision;
        claim.row.until_ns.is_none()
    }

    /// Ids of the rows of `address` that have not vanished.
    pub fn standing(&self, address: IpAddr) -> Vec<RowId> {
        let entry = self.entries.get(&canonical(address));
        let claims = entry.into_iter().flat_map(|entry| &entry.claims);
        claims.filter(|claim| claim.gone_ns.is_none()).map(|claim| claim.row.id()).collect()
    }

    /// All that is known of an address, for messages of tests.
    #[cfg(test)]
    pub fn claims(&self, address: IpAddr) -> Vec<Claim> {
        self.entries.get(&canonical(address)).map(|entry| entry.claims.clone()).unwrap_or_default()
    }

    /// Whether an address is held.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.entries.contains_key(&canonical(address))
    }

    /// Addresses held, in no particular order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.entries.keys().copied()
    }

    /// Forgets rows whose grace is over, and addresses that nobody asked for lately. To be called every second or so. Returns the addresses that are held
    /// no longer.
    pub fn expire(&mut self, now: Now) -> Vec<IpAddr> {
        let Limits { grace_ns, idle_ns, .. } = self.limits;
        let over = |claim: &Claim| {
            claim.gone_ns.is_some()
                && claim.end_ns().is_some_and(|end| end.saturating_add(grace_ns) <= now.wall_ns)
        };
        let (complete, mut forgotten) = (self.complete, Vec::new());
        let rows = &mut self.rows;
        self.entries.retain(|address, entry| {
            let before = entry.claims.len();
            entry.claims.retain(|claim| !over(claim));
            *rows -= before - entry.claims.len();
            let idle = entry.asked_ns.saturating_add(idle_ns) <= now.steady_ns;
            let forget = if complete { entry.claims.is_empty() } else { idle };
            if forget {
                *rows -= entry.claims.len();
                forgotten.push(*address);
            }
            !forget
        });
        if !forgotten.is_empty() {
            self.order.retain(|address| self.entries.contains_key(address));
        }
        forgotten
    }

    /// Lets go what is too much: whoever was not asked for since the last look.
    fn bound(&mut self) {
        while self.entries.len() > self.limits.addresses || self.rows > self.limits.rows {
            let Some(address) = self.order.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&address) else { continue };
            if std::mem::take(&mut entry.asked) && self.entries.len() > 1 {
                self.order.push_back(address);
                continue;
            }
            if let Some(entry) = self.entries.remove(&address) {
                self.rows -= entry.claims.len();
                self.counters.evicted += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
