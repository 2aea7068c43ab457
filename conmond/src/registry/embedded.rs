//! One host: its own rows, in memory.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};

use super::cache::{Asked, Cache, Limits};
use super::rows::canonical;
use super::{Answer, BoxFuture, CHANGES, Health, Hosts, Own, Registry, WriterCounters, now};

/// The registry of one host.
pub struct Embedded {
    cache: Mutex<Cache>,
    hosts: watch::Sender<Arc<Hosts>>,
    changes: broadcast::Sender<IpAddr>,
    refused: AtomicU64,
}

impl Embedded {
    /// An empty registry.
    pub fn new(limits: Limits) -> Self {
        Self {
            cache: Mutex::new(Cache::new(limits, true)),
            hosts: watch::Sender::new(Arc::default()),
            changes: broadcast::Sender::new(CHANGES),
            refused: AtomicU64::new(0),
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for Embedded {
    fn publish(&self, own: Own) {
        let now = now();
        let mut cache = self.cache();
        let given = own.endpoints.len();
        let wanted: Vec<_> = own
            .endpoints
            .into_iter()
            .filter(|row| row.check().is_ok() && row.host == own.host.name)
            .collect();
        self.refused.store((given - wanted.len()) as u64, Ordering::Relaxed);
        let ids: HashSet<_> = wanted.iter().map(|row| row.id()).collect();
        let mut changed: Vec<IpAddr> = Vec::new();
        let held: Vec<IpAddr> = cache.addresses().collect();
        for address in held {
            for id in cache.standing(address) {
                if !ids.contains(&id) && cache.remove(&id, 0, now) {
                    changed.push(address);
                }
            }
        }
        for row in wanted {
            let address = canonical(row.address);
            if cache.put(row, 0, now) {
                changed.push(address);
            }
        }
        cache.confirm(now.wall_ns);
        cache.expire(now);
        drop(cache);
        for address in changed {
            // Nobody may be listening.
            let _ = self.changes.send(address);
        }
        self.hosts.send_if_modified(|hosts| {
            let mut new = Hosts::clone(hosts);
            let modified = new.load(vec![own.host]);
            *hosts = Arc::new(new);
            modified
        });
    }

    fn hosts(&self) -> watch::Receiver<Arc<Hosts>> {
        self.hosts.subscribe()
    }

    fn find(&self, address: IpAddr, at_ns: u64) -> BoxFuture<'_, Answer> {
        let answer = self.cached(address, at_ns).unwrap_or_default();
        Box::pin(std::future::ready(answer))
    }

    fn cached(&self, address: IpAddr, at_ns: u64) -> Option<Answer> {
        let now = now();
        let mut cache = self.cache();
        // Nobody else knows better.
        if cache.confirmed_ns().is_some() {
            cache.confirm(now.wall_ns);
        }
        match cache.ask(address, at_ns, now) {
            Asked::Hit(answer) => Some(answer),
            Asked::Miss(answer) => answer,
        }
    }

    fn changes(&self) -> broadcast::Receiver<IpAddr> {
        self.changes.subscribe()
    }

    fn health(&self) -> Health {
        let cache = self.cache();
        Health {
            backend: "embedded",
            reachable: true,
            known_as_of_ns: cache.confirmed_ns(),
            addresses: cache.len(),
            rows: cache.rows(),
            cache: cache.counters(),
            writer: WriterCounters {
                refused_rows: self.refused.load(Ordering::Relaxed),
                ..WriterCounters::default()
            },
            ..Health::default()
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
