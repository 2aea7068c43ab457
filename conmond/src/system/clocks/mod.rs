//! How the clocks of hosts that talk with this one relate to its own: a session of test packets (STAMP, RFC 8762, authenticated)
//! with each of them, for as long as there is traffic.
//!
//! Who sends asks the other host's controller for a session over TLS, and gets its number and key; the test packets go by UDP. Both
//! hosts send, each to the other: each knows the relation by itself. Times are taken in user space, outside of the packet's own way: what the
//! scheduler adds makes a packet's delay longer, never shorter, so that the bounds hold all the same.

mod reflector;
mod session;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conmon::api::HostClock;
use ippm::time::Timestamp;

use super::Peers;
use crate::clock::monotonic;
use crate::registry::HostRow;

pub use reflector::Reflector;

/// Hosts with which there is a session at one time: a thousand test packets a second.
const SESSIONS: usize = 200;
/// A host that has not been heard of in any conversation for so long has no session any more.
const QUIET: Duration = Duration::from_secs(120);
/// A relation is told for so long after the newest answer.
const TRUE_FOR: Duration = Duration::from_secs(60);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sessions that this host has with others.
pub struct Clocks {
    peers: Arc<dyn Peers>,
    /// Hosts at the far ends of conversations, and when they were last.
    talking: Mutex<HashMap<String, Timestamp>>,
    /// Hosts with a session.
    running: Mutex<HashSet<String>>,
    known: Mutex<BTreeMap<String, Known>>,
    /// Hosts that talk and had no room at the last look.
    left_out: AtomicU64,
}

/// What is known of a host's clock, and when that was so.
#[derive(Clone, Debug, Default)]
struct Known {
    clock: HostClock,
    answered_at: Option<Timestamp>,
}

impl Clocks {
    /// No sessions yet.
    pub fn new(peers: Arc<dyn Peers>) -> Arc<Self> {
        Arc::new(Self {
            peers,
            talking: Mutex::default(),
            running: Mutex::default(),
            known: Mutex::default(),
            left_out: AtomicU64::new(0),
        })
    }

    /// A conversation with this host was seen.
    pub fn talks_with(&self, host: &str, now: Timestamp) {
        let mut talking = lock(&self.talking);
        match talking.get_mut(host) {
            Some(last) => *last = now,
            None => drop(talking.insert(host.to_owned(), now)),
        }
    }

    /// Begins sessions with hosts that talk and have none; `row` finds a host. To be called every second or so, inside a tokio runtime.
    pub fn begin(self: &Arc<Self>, now: Timestamp, row: impl Fn(&str) -> Option<Arc<HostRow>>) {
        let mut talking = lock(&self.talking);
        talking.retain(|_, last| now - *last < QUIET);
        let mut running = lock(&self.running);
        lock(&self.known).retain(|host, _| talking.contains_key(host) || running.contains(host));
        let mut left_out = 0;
        for host in talking.keys() {
            if running.contains(host) {
                continue;
            }
            let Some(row) = row(host) else { continue };
            if running.len() >= SESSIONS {
                left_out += 1;
                continue;
            }
            running.insert(host.clone());
            tokio::spawn(session::run(self.clone(), row));
        }
        self.left_out.store(left_out, Ordering::Relaxed);
    }

    /// What is known of each, by name. What was true long ago is not told any more.
    pub fn known(&self, now: Timestamp) -> Vec<HostClock> {
        let aged = |known: &Known| {
            let age = known.answered_at.map(|at| now - at);
            let clock = HostClock { age_seconds: age.map(|age| age.as_secs_f64()), ..known.clock.clone() };
            if age.is_some_and(|age| age <= TRUE_FOR) {
                return clock;
            }
            HostClock {
                offset_seconds: None,
                bound_seconds: None,
                skew_ppm: None,
                skew_bound_ppm: None,
                ..clock
            }
        };
        lock(&self.known).values().map(aged).collect()
    }

    /// Hosts that talk and have no session, because there are [`SESSIONS`].
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    fn is_talking(&self, host: &str) -> bool {
        lock(&self.talking).get(host).is_some_and(|last| monotonic() - *last < QUIET)
    }

    fn tell(&self, clock: HostClock, answered_at: Option<Timestamp>) {
        lock(&self.known).insert(clock.host.clone(), Known { clock, answered_at });
    }

    /// A session is over, and why. The values stay as they were.
    fn trouble(&self, host: &str, why: String) {
        let mut all = lock(&self.known);
        let known = all.entry(host.to_owned()).or_default();
        host.clone_into(&mut known.clock.host);
        known.clock.problem = Some(why);
    }

    /// A session is over. What is known of a host stays while it talks: a new session begins.
    fn ended(&self, host: &str) {
        lock(&self.running).remove(host);
    }
}
