//! What is known of one host: its rows by version, as itself says them or as others pass them on.
//!
//! A version counts the host's writes. Whoever knows all up to a version lacks the rows with higher ones. A row that ended is forgotten by everybody, by
//! itself, when its grace is over. Whoever may have missed that, because he knows less than the *floor*, gets all rows anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::keys;
use super::wire::{Life, Part, Row, Summary};

/// Most rows of one host.
pub const MAX_ROWS: usize = 65_536;

#[derive(Clone, Debug)]
struct Held {
    value: Arc<[u8]>,
    version: u64,
    /// When it may be forgotten, wall time.
    over_ns: Option<u64>,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its start.
    pub life: Life,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Grows as long as it lives.
    pub heartbeat: u64,
    /// When that grew last, steady time.
    pub heard_ns: u64,
    version: u64,
    floor: u64,
    rows: BTreeMap<String, Held>,
    /// While all is told anew: what was known before and was not told again yet.
    doubtful: Option<BTreeSet<String>>,
}

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys with new values.
    pub put: Vec<(String, Arc<[u8]>)>,
    /// Keys that are no more.
    pub gone: Vec<String>,
}

impl Node {
    /// A host of which nothing is known yet.
    pub fn new(life: Life, address: SocketAddr, now_ns: u64) -> Self {
        Self {
            life,
            address,
            heartbeat: 0,
            heard_ns: now_ns,
            version: 0,
            floor: 0,
            rows: BTreeMap::new(),
            doubtful: None,
        }
    }

    /// Takes over what an earlier life of the same host said, until this one has said all.
    pub fn succeed(&mut self, before: Self) {
        let old = |mut held: Held| {
            held.version = 0;
            held
        };
        self.rows = before.rows.into_iter().map(|(key, held)| (key, old(held))).collect();
        self.doubtful = Some(self.rows.keys().cloned().collect());
    }

    /// How far it is known.
    pub fn summary(&self, name: &str) -> Summary {
        Summary {
            name: name.to_owned(),
            life: self.life,
            address: self.address,
            heartbeat: self.heartbeat,
            version: self.version,
            floor: self.floor,
            left: false,
        }
    }

    /// Keys of all rows.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.rows.keys()
    }

    /// Values of all rows, by key.
    pub fn values(&self) -> BTreeMap<String, Arc<[u8]>> {
        self.rows.iter().map(|(key, held)| (key.clone(), Arc::clone(&held.value))).collect()
    }

    /// Writes a row of our own.
    pub fn write(&mut self, key: String, value: Arc<[u8]>, grace_ns: u64) {
        self.version += 1;
        let over_ns = over(&key, &value, grace_ns);
        self.rows.insert(key, Held { value, version: self.version, over_ns });
    }

    /// Takes a row of our own away. One that ended goes everywhere by itself; of any other the others must be told, and are told all.
    pub fn erase(&mut self, key: &str) {
        let Some(held) = self.rows.remove(key) else { return };
        self.floor = self.floor.max(held.version);
        if held.over_ns.is_none() {
            self.version += 1;
            self.floor = self.version;
        }
    }

    /// Forgets rows whose grace is over; gives their keys.
    pub fn expire(&mut self, wall_ns: u64) -> Vec<String> {
        let over = |held: &Held| held.over_ns.is_some_and(|over| over <= wall_ns);
        let gone: Vec<String> =
            self.rows.iter().filter(|(_, held)| over(held)).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            if let Some(held) = self.rows.remove(key) {
                self.floor = self.floor.max(held.version);
            }
        }
        gone
    }

    /// What somebody lacks who knows `theirs`, in at most `room` octets, which are taken off.
    pub fn part(&self, name: &str, theirs: Option<&Summary>, room: &mut usize) -> Option<Part> {
        // What is half known itself is not passed on.
        if self.doubtful.is_some() || theirs.is_some_and(|theirs| theirs.life > self.life) {
            return None;
        }
        let same = theirs.filter(|theirs| theirs.life == self.life);
        let known = same.map_or(0, |theirs| theirs.version);
        if same.is_some() && known >= self.version {
            return None;
        }
        let anew = same.is_none_or(|theirs| known < self.floor && theirs.floor < self.floor);
        let from = if anew { 0 } else { known };
        let mut lacking: Vec<(&String, &Held)> =
            self.rows.iter().filter(|(_, held)| held.version > from).collect();
        lacking.sort_by_key(|(_, held)| held.version);
        let mut rows = Vec::new();
        for (key, held) in &lacking {
            let size = key.len() + held.value.len() + 16;
            if size > *room {
                break;
            }
            *room -= size;
            rows.push(Row { key: (*key).clone(), value: held.value.to_vec(), version: held.version });
        }
        let last = rows.len() == lacking.len();
        if rows.is_empty() && !last {
            return None;
        }
        let upto = if last { self.version } else { rows.last().map_or(from, |row| row.version) };
        let (name, life, floor) = (name.to_owned(), self.life, self.floor);
        Some(Part { name, life, from, anew, floor, rows, upto, last })
    }

    /// Takes over what somebody passed on. `grace_ns` is how long ended rows are kept.
    pub fn apply(&mut self, part: Part, grace_ns: u64) -> Changes {
        let mut changes = Changes::default();
        if part.life != self.life {
            return changes;
        }
        if part.anew {
            // From several at once: whoever is further counts.
            if part.upto <= self.version && self.doubtful.is_none() && part.floor <= self.floor {
                return changes;
            }
            self.doubtful = Some(self.rows.keys().cloned().collect());
        } else if part.from > self.version || part.upto <= self.version {
            return changes;
        }
        for row in part.rows {
            if let Some(doubtful) = &mut self.doubtful {
                doubtful.remove(&row.key);
            }
            let held = self.rows.get(&row.key);
            if held.is_some_and(|held| held.version >= row.version) || self.rows.len() >= MAX_ROWS {
                continue;
            }
            let value: Arc<[u8]> = row.value.into();
            let over_ns = over(&row.key, &value, grace_ns);
            if held.is_none_or(|held| held.value != value) {
                changes.put.push((row.key.clone(), Arc::clone(&value)));
            }
            self.rows.insert(row.key, Held { value, version: row.version, over_ns });
        }
        self.version = if part.anew { part.upto } else { self.version.max(part.upto) };
        self.floor = self.floor.max(part.floor);
        if part.last
            && let Some(doubtful) = self.doubtful.take()
        {
            for key in doubtful {
                self.rows.remove(&key);
                changes.gone.push(key);
            }
        }
        changes
    }
}

/// When a row may be forgotten.
fn over(key: &str, value: &[u8], grace_ns: u64) -> Option<u64> {
    let row = keys::endpoint_row(key, value).ok()?;
    row.until_ns.map(|until| until.saturating_add(grace_ns))
}
