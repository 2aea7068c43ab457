//! Keeps a host's rows in a store as they shall be: a pure state machine that says what to ask the store next.
//!
//! All rows of a host hang on one lease. Beside them lies the *seal*: who writes this host's rows, and a number that grows with each
//! write. Every write is one transaction that changes rows and seal together, if the seal is the one that was written last. So:
//!
//! - a write of which no answer came has happened if the seal says so, and cannot happen twice;
//! - a store that lost its memory, or was restored from an older copy, has another seal;
//! - of two conmonds that take themselves for the same host, the one that started later writes, the other is silent and says so.
//!
//! Whenever the seal is not as it should be, or the lease has gone, there is one way back: a new lease, all rows anew on it, and
//! then the end of the leases before, which takes away whatever was not written anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::discovery::{self, step};

use super::backoff::Backoff;
use super::cache::Now;
use super::desired::{Desired, Op};
use super::rows::Own;

/// Times and sizes of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// A host that was not heard of for so long is lost.
    pub ttl_ns: u64,
    /// Changes that come within so long of the first go together.
    pub gather_ns: u64,
    /// Most changed rows of one transaction.
    pub batch: usize,
    /// How long rows that ended are kept in the store.
    pub grace_ns: u64,
    /// Longest wait after failures.
    pub retry_max_ns: u64,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            ttl_ns: 15_000_000_000,
            gather_ns: 20_000_000,
            // etcd takes 128 operations by default; the seal is one of them.
            batch: 120,
            grace_ns: 120_000_000_000,
            retry_max_ns: 5_000_000_000,
        }
    }
}

/// Who writes a host's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The conmond.
    pub epoch: u64,
    /// When it started.
    pub since_ns: u64,
    /// Grows with each write.
    pub sequence: u64,
}

/// A seal as it lies in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What it says; none if it cannot be read.
    pub seal: Option<Seal>,
    /// The revision that wrote it.
    pub revision: i64,
    /// The lease it hangs on.
    pub lease: i64,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The lease on which all that is put hangs.
    pub lease: i64,
    /// Only if the seal was written by this revision; 0: only if there is none.
    pub seal_revision: i64,
    /// The seal to put.
    pub seal: Seal,
    /// The changes.
    pub ops: Vec<Op>,
}

/// What to ask the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A lease of [`WriterSettings::ttl_ns`].
    Grant,
    /// To renew a lease.
    Renew(i64),
    /// To end a lease and all that hangs on it.
    Revoke(i64),
    /// This host's seal.
    ReadSeal,
    /// A transaction.
    Write(Write),
}

/// What came of the question asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The new lease.
    Granted(i64),
    /// Whether the lease is there still.
    Renewed(bool),
    /// The lease is no more.
    Revoked,
    /// The seal; none if there is none.
    Sealed(Option<Sealed>),
    /// The transaction was done, by this revision.
    Written(i64),
    /// The seal was another: nothing was done.
    Refused,
    /// Nobody knows. It may have happened, or happen yet.
    Failed,
}

/// What a writer did since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterCounters {
    /// Transactions done.
    pub writes: u64,
    /// Rows changed by them.
    pub rows: u64,
    /// Questions without an answer.
    pub failures: u64,
    /// Times that everything was written anew: at the start, and after the loss of the lease or of the store's memory.
    pub rewrites: u64,
    /// Rows that cannot be written, at the last publishing.
    pub refused_rows: u64,
}

/// The writer.
#[derive(Debug)]
pub struct Writer {
    settings: WriterSettings,
    own: Option<Own>,
    desired: Desired,
    /// What is in the store for certain, on the lease there is now.
    stored: BTreeMap<String, Arc<[u8]>>,
    lease: Option<i64>,
    /// Leases to end once everything is on the new one.
    former: Vec<i64>,
    seal: Place,
    sequence: u64,
    /// Sent, and not known to have happened.
    batch: Option<Vec<Op>>,
    waiting: Option<Ask>,
    dirty_since_ns: Option<u64>,
    superseded: bool,
    renew_at_ns: u64,
    check_at_ns: u64,
    backoff: Backoff,
    counters: WriterCounters,
}

/// What is known of the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Unknown,
    /// It is ours, or may be replaced by ours, and was written by this revision; 0: there is none.
    At(i64),
}

impl Writer {
    /// A writer that has nothing to write. `seed` makes its waits differ from those of others.
    pub fn new(settings: WriterSettings, seed: u64) -> Self {
        Self {
            settings,
            own: None,
            desired: Desired::default(),
            stored: BTreeMap::new(),
            lease: None,
            former: Vec::new(),
            seal: Place::Unknown,
            sequence: 0,
            batch: None,
            waiting: None,
            dirty_since_ns: None,
            superseded: false,
            renew_at_ns: 0,
            check_at_ns: 0,
            backoff: Backoff::new(settings.retry_max_ns, seed),
            counters: WriterCounters::default(),
        }
    }

    /// Its counters.
    pub const fn counters(&self) -> WriterCounters {
        self.counters
    }

    /// The lease, while there is one.
    pub const fn lease(&self) -> Option<i64> {
        self.lease
    }

    /// The host's name, once it has published.
    pub fn host(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.host.name.as_str())
    }

    /// Whether another conmond, started later, writes as this host.
    pub const fn superseded(&self) -> bool {
        self.superseded
    }

    /// Rows that are not known to be in the store as they shall be.
    pub fn pending(&self) -> usize {
        self.desired.difference(&self.stored).len()
    }

    /// Makes the store say just this, from now on.
    pub fn publish(&mut self, own: Own, now: Now) {
        self.own = Some(own);
        self.refresh(now);
    }

    fn refresh(&mut self, now: Now) {
        let Some(own) = &self.own else { return };
        let desired = Desired::new(own, now.wall_ns, self.settings.grace_ns);
        self.counters.refused_rows = desired.refused;
        if desired.keys != self.desired.keys {
            self.dirty_since_ns.get_or_insert(now.steady_ns);
        }
        self.desired = desired;
    }

    /// The next question to the store, if any is due. One at a time: until [`told`](Self::told) what came of it there is none.
    pub fn poll(&mut self, now: Now) -> Option<Ask> {
        if self.own.is_none() || self.waiting.is_some() || self.backoff.waits(now) {
            return None;
        }
        if self.desired.next_expiry_ns.is_some_and(|expiry| expiry <= now.wall_ns) {
            self.refresh(now);
        }
        let ask = self.next(now)?;
        self.waiting = Some(ask.clone());
        Some(ask)
    }

    fn next(&mut self, now: Now) -> Option<Ask> {
        if self.superseded {
            if let Some(lease) = self.lease {
                return Some(Ask::Revoke(lease));
            }
            return (self.check_at_ns <= now.steady_ns).then_some(Ask::ReadSeal);
        }
        let Some(lease) = self.lease else { return Some(Ask::Grant) };
        if self.renew_at_ns <= now.steady_ns {
            return Some(Ask::Renew(lease));
        }
        let Place::At(seal_revision) = self.seal else { return Some(Ask::ReadSeal) };
        if self.check_at_ns <= now.steady_ns {
            return Some(Ask::ReadSeal);
        }
        let gathered = |since: u64| since.saturating_add(self.settings.gather_ns) <= now.steady_ns;
        if self.batch.is_none() && self.dirty_since_ns.is_some_and(gathered) {
            let mut ops = self.desired.difference(&self.stored);
            ops.truncate(self.settings.batch.max(1));
            if ops.is_empty() {
                self.dirty_since_ns = None;
            } else {
                self.sequence += 1;
                self.batch = Some(ops);
            }
        }
        if let Some(ops) = &self.batch {
            return Some(Ask::Write(Write {
                lease,
                seal_revision,
                seal: self.own_seal()?,
                ops: ops.clone(),
            }));
        }
        // Only what is wholly on the new lease survives the end of those before.
        if self.dirty_since_ns.is_none() {
            return self.former.last().map(|lease| Ask::Revoke(*lease));
        }
        None
    }

    fn own_seal(&self) -> Option<Seal> {
        let host = &self.own.as_ref()?.host;
        Some(Seal { epoch: host.epoch, since_ns: host.since_ns, sequence: self.sequence })
    }

    /// When [`poll`](Self::poll) may have a question, on the steady clock, if nothing happens before.
    pub fn deadline(&self, now: Now) -> Option<u64> {
        if self.own.is_none() || self.waiting.is_some() {
            return None;
        }
        let wait = self.backoff.until_ns();
        if !self.superseded && (self.lease.is_none() || self.seal == Place::Unknown) {
            return Some(wait);
        }
        if self.superseded && self.lease.is_some() {
            return Some(wait);
        }
        let mut next = self.check_at_ns;
        if !self.superseded {
            next = next.min(self.renew_at_ns);
            if let Some(since) = self.dirty_since_ns {
                next = next.min(since.saturating_add(self.settings.gather_ns));
            }
            if self.batch.is_some() || (!self.former.is_empty() && self.dirty_since_ns.is_none()) {
                next = 0;
            }
            if let Some(expiry) = self.desired.next_expiry_ns {
                next = next.min(now.steady_ns.saturating_add(expiry.saturating_sub(now.wall_ns)));
            }
        }
        Some(next.max(wait))
    }

    /// What came of the question.
    pub fn told(&mut self, told: Told, now: Now) {
        let Some(asked) = self.waiting.take() else { return };
        if told == Told::Failed {
            self.counters.failures += 1;
            self.backoff.failed(now);
            if matches!(asked, Ask::Write(_)) {
                // It may have happened, and the lease may be what is wrong.
                self.check_at_ns = 0;
                self.renew_at_ns = 0;
            }
            return;
        }
        self.backoff.succeeded();
        match (asked, told) {
            (Ask::Grant, Told::Granted(lease)) => {
                self.lease = Some(lease);
                self.seal = Place::Unknown;
                self.batch = None;
                self.stored.clear();
                self.dirty_since_ns = Some(0);
                self.renew_at_ns = self.later(now);
                self.counters.rewrites += 1;
            }
            (Ask::Renew(_), Told::Renewed(true)) => {
                self.renew_at_ns = self.later(now);
                self.check_at_ns = 0;
            }
            (Ask::Renew(_), Told::Renewed(false)) => self.start_over(),
            (Ask::Revoke(lease), Told::Revoked) => {
                self.former.retain(|one| *one != lease);
                if self.lease == Some(lease) {
                    self.lease = None;
                }
            }
            (Ask::ReadSeal, Told::Sealed(sealed)) => {
                self.check_at_ns = self.later(now);
                self.judge(sealed);
            }
            (Ask::Write(write), Told::Written(revision)) => {
                for op in &write.ops {
                    step!(
                        "row_written",
                        now.steady_ns,
                        key = op.key(),
                        says = discovery::row(op.key(), op.value())
                    );
                }
                self.wrote(write.ops, revision);
            }
            (Ask::Write(_), Told::Refused) => self.check_at_ns = 0,
            // No answer to the question.
            _ => self.counters.failures += 1,
        }
    }

    fn later(&self, now: Now) -> u64 {
        now.steady_ns.saturating_add(self.settings.ttl_ns / 3)
    }

    fn wrote(&mut self, ops: Vec<Op>, revision: i64) {
        self.batch = None;
        self.seal = Place::At(revision);
        self.counters.writes += 1;
        self.counters.rows += ops.len() as u64;
        for op in ops {
            match op {
                Op::Put { key, value } => self.stored.insert(key, value),
                Op::Delete { key } => self.stored.remove(&key),
            };
        }
    }

    /// What the seal in the store means.
    fn judge(&mut self, sealed: Option<Sealed>) {
        let Some(mine) = self.own_seal() else { return };
        let of_me = sealed.and_then(|sealed| sealed.seal).is_some_and(|seal| seal.epoch == mine.epoch);
        let newer = sealed
            .and_then(|sealed| sealed.seal)
            .is_some_and(|seal| !of_me && (seal.since_ns, seal.epoch) > (mine.since_ns, mine.epoch));
        if newer {
            self.superseded = true;
            self.seal = Place::Unknown;
            self.batch = None;
            return;
        }
        if std::mem::take(&mut self.superseded) {
            return;
        }
        let found = sealed.map_or(0, |sealed| sealed.revision);
        match self.seal {
            Place::Unknown => {
                if let Some(sealed) = sealed {
                    self.ends(sealed.lease);
                }
                self.seal = Place::At(found);
            }
            Place::At(revision) if revision == found => {}
            Place::At(_) => {
                let happened =
                    |sealed: &Sealed| sealed.seal == Some(mine) && Some(sealed.lease) == self.lease;
                match (sealed.filter(happened), self.batch.take()) {
                    (Some(sealed), Some(ops)) => self.wrote(ops, sealed.revision),
                    _ => self.start_over(),
                }
            }
        }
    }

    fn ends(&mut self, lease: i64) {
        if lease != 0 && Some(lease) != self.lease && !self.former.contains(&lease) {
            self.former.push(lease);
        }
    }

    fn start_over(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.ends(lease);
        }
        self.seal = Place::Unknown;
        self.batch = None;
        self.stored.clear();
    }
}

#[cfg(test)]
mod tests;
