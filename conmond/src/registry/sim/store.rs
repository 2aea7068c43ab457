//! A model of etcd: revisions, leases, transactions, watches from a revision, compaction; and what can befall it.

use std::collections::BTreeMap;

use super::super::desired::Op;
use super::super::keys;
use super::super::reader::{Pair, Reading, Target};
use super::super::writer::{Ask, Seal, Sealed, Told, Write};

#[derive(Clone, Debug)]
struct Held {
    value: Vec<u8>,
    revision: i64,
    lease: i64,
}

/// The store.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub revision: i64,
    keys: BTreeMap<String, Held>,
    /// When each runs out.
    leases: BTreeMap<i64, u64>,
    log: Vec<Pair>,
    compacted: i64,
}

impl Store {
    /// Answers a writer. `lease` is the id that a new lease gets.
    pub fn write(&mut self, host: &str, ask: &Ask, lease: i64, ttl_ns: u64, now_ns: u64) -> Told {
        match ask {
            Ask::Grant => {
                self.leases.insert(lease, now_ns + ttl_ns);
                Told::Granted(lease)
            }
            Ask::Renew(lease) => match self.leases.get_mut(lease) {
                Some(expiry) => {
                    *expiry = now_ns + ttl_ns;
                    Told::Renewed(true)
                }
                None => Told::Renewed(false),
            },
            Ask::Revoke(lease) => {
                self.end_lease(*lease);
                Told::Revoked
            }
            Ask::ReadSeal => Told::Sealed(self.keys.get(&keys::seal(host)).map(|held| Sealed {
                seal: serde_json::from_slice::<Seal>(&held.value).ok(),
                revision: held.revision,
                lease: held.lease,
            })),
            Ask::Write(write) => self.transact(host, write),
        }
    }

    fn transact(&mut self, host: &str, write: &Write) -> Told {
        let seal = keys::seal(host);
        if self.keys.get(&seal).map_or(0, |held| held.revision) != write.seal_revision {
            return Told::Refused;
        }
        if !self.leases.contains_key(&write.lease) {
            return Told::Failed;
        }
        self.revision += 1;
        self.put(seal, serde_json::to_vec(&write.seal).unwrap(), write.lease);
        for op in &write.ops {
            match op {
                Op::Put { key, value } => self.put(key.clone(), value.to_vec(), write.lease),
                Op::Delete { key } => self.delete(key),
            }
        }
        Told::Written(self.revision)
    }

    fn put(&mut self, key: String, value: Vec<u8>, lease: i64) {
        let revision = self.revision;
        self.log.push(Pair { key: key.clone(), value: Some(value.clone()), revision });
        self.keys.insert(key, Held { value, revision, lease });
    }

    fn delete(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            self.log.push(Pair { key: key.to_owned(), value: None, revision: self.revision });
        }
    }

    fn end_lease(&mut self, lease: i64) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let gone: Vec<String> =
            self.keys.iter().filter(|(_, held)| held.lease == lease).map(|(key, _)| key.clone()).collect();
        if !gone.is_empty() {
            self.revision += 1;
            gone.iter().for_each(|key| self.delete(key));
        }
    }

    /// Leases run out.
    pub fn tick(&mut self, now_ns: u64) {
        let over: Vec<i64> =
            self.leases.iter().filter(|(_, expiry)| **expiry <= now_ns).map(|(lease, _)| *lease).collect();
        over.into_iter().for_each(|lease| self.end_lease(lease));
    }

    /// A new leader gives every lease its whole time again.
    pub fn restarted(&mut self, ttl_ns: u64, now_ns: u64) {
        self.leases.values_mut().for_each(|expiry| *expiry = now_ns + ttl_ns);
    }

    pub fn compact(&mut self) {
        self.compacted = self.revision;
        self.log.clear();
    }

    pub fn read(&self, target: Target) -> Reading {
        let prefix = target.prefix();
        let pairs = self
            .keys
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .map(|(key, held)| Pair {
                key: key.clone(),
                value: Some(held.value.clone()),
                revision: held.revision,
            })
            .collect();
        Reading { pairs, more: false, revision: self.revision }
    }

    /// Changes of keys that begin with `prefix`, from a revision on; none if those were compacted away.
    pub fn changes(&self, prefix: &str, from: i64) -> Option<Vec<Pair>> {
        if from <= self.compacted {
            return None;
        }
        let begin = self.log.partition_point(|pair| pair.revision < from);
        Some(self.log[begin..].iter().filter(|pair| pair.key.starts_with(prefix)).cloned().collect())
    }

    /// All keys but seals, with their values.
    pub fn rows(&self) -> BTreeMap<String, Vec<u8>> {
        let seals = keys::seal("");
        self.keys
            .iter()
            .filter(|(key, _)| !key.starts_with(&seals))
            .map(|(key, held)| (key.clone(), held.value.clone()))
            .collect()
    }

    pub fn leases(&self) -> usize {
        self.leases.len()
    }
}
