//! The threads that tap ports. The kernel's lock for network devices is needed for that, and others hold it for long while containers
//! start and end; names, stops and all that is told of links must not wait for it. Who waits for it gets it in turn: with one thread there
//! would be one tap for each round of all the engine's that wait, too.
//!
//! They own what waits to be tapped, and hand each port back with the moment at which the kernel had the tap. When the handle is dropped
//! they end what they are at; what waits is left as it is.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use ippm::time::Timestamp;
use tap::{Attach, Dispatcher, Port, Set, fault};

use super::reflex::{self, Claim, Reflex};
use super::rigger::detach;
use crate::clock::monotonic;
use crate::switch::{LinkQuery, LinkStats, NamespaceError, Namespaces};

/// Taps that may be under way at once.
const THREADS: usize = 4;

/// A port to tap.
pub struct Order {
    /// The port.
    pub ifindex: u32,
    /// The set that shall count it.
    pub set: Arc<Set>,
    /// The set's pins.
    pub dir: PathBuf,
    /// How.
    pub attach: Attach,
    /// By filters that it shares, if they are to be had.
    pub dispatcher: Option<Arc<Dispatcher>>,
    /// Of a port that has been up for a while: what it had sent some time ago. One that has sent more is not given a qdisc, since a
    /// port drops packets while that is put on it.
    pub sent: Option<u64>,
    /// Nothing has passed it yet: its counters need not be read first.
    pub is_new: bool,
    /// It is on its bridge already: its container may send at any moment.
    pub joined: bool,
}

/// A port that comes back.
pub struct Done {
    /// The port.
    pub ifindex: u32,
    /// As ordered: its counters were not read.
    pub is_new: bool,
    /// The tap.
    pub result: Result<Made, Refusal>,
}

/// A tap.
pub struct Made {
    /// The port.
    pub port: Port,
    /// When the kernel had it.
    pub at: Timestamp,
    /// The interface's counters just before; zero for a new one.
    pub before: Option<LinkStats>,
    /// And just after; not read of a new one.
    pub after: Option<LinkStats>,
}

/// Why there is no tap.
pub struct Refusal {
    /// Why.
    pub error: tap::Error,
    /// The interface is there.
    pub is_there: bool,
}

/// The running threads.
pub struct Tapper {
    desk: Arc<Desk<Order>>,
    threads: Vec<JoinHandle<()>>,
    done: Arc<dyn Fn(Done) + Send + Sync>,
    reflex: Option<Reflex>,
}

impl Tapper {
    /// Starts the threads, in the caller's network namespace, beside which these are watched; `done` gets every port back that is not
    /// left when they end.
    pub fn start(
        namespaces: &Namespaces,
        done: impl Fn(Done) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let mut tapper =
            Self { desk: Arc::default(), threads: Vec::new(), done: Arc::new(done), reflex: None };
        for _ in 0..THREADS {
            let (desk, done, namespaces) = (tapper.desk.clone(), tapper.done.clone(), namespaces.clone());
            let mut query = LinkQuery::open(namespaces.clone())?;
            let work = move || {
                while let Some(order) = desk.next() {
                    done(tap(order, &mut query, &namespaces));
                }
            };
            tapper.threads.push(std::thread::Builder::new().name("tapper".into()).spawn(work)?);
        }
        Ok(tapper)
    }

    /// From now on links that look like an engine's ports are tapped before they are ordered, in the caller's network namespace, for the
    /// set that was told last.
    pub fn start_reflex(&mut self, dispatcher: Arc<Dispatcher>) -> io::Result<()> {
        let (desk, done) = (self.desk.clone(), self.done.clone());
        let answer = move |order, made| match made {
            Some(made) => hand_out(order, made, &desk, &*done),
            None => desk.put(order),
        };
        self.reflex = Some(Reflex::start(dispatcher, answer)?);
        Ok(())
    }

    /// The set that counts what is tapped before it is ordered.
    pub fn tap_first_for(&self, set: Arc<Set>, dir: PathBuf) {
        if let Some(reflex) = &self.reflex {
            reflex.tap_for(set, dir);
        }
    }

    /// Has a port tapped; it never waits. The port is the tapper's until it comes back.
    pub fn tap(&self, order: Order) {
        let claim = match &self.reflex {
            Some(reflex) => reflex.claim(order),
            None => Claim::Ordinary(order),
        };
        match claim {
            Claim::Ordinary(order) => self.desk.put(order),
            Claim::Later => {}
            Claim::Made(order, made) => hand_out(order, made, &self.desk, &*self.done),
        }
    }

    /// A link has gone. Gives a tap that was put on it and not ordered.
    pub fn forget(&self, ifindex: u32) -> Option<Port> {
        self.reflex.as_ref()?.forget(ifindex)
    }

    /// A port that waits, perhaps, has joined its bridge: it comes before those that have not.
    pub fn has_joined(&self, ifindex: u32) {
        self.desk.has_joined(ifindex);
    }

    /// Ends the threads, each with the port that it is at; no port comes back after that.
    pub fn stop(&mut self) {
        if let Some(reflex) = &mut self.reflex {
            reflex.stop();
        }
        self.desk.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Tapper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What waits, and who waits for it.
struct Desk<T> {
    waiting: Mutex<Waiting<T>>,
    news: Condvar,
}

/// Ports, and whether each has joined its bridge.
struct Waiting<T> {
    ports: VecDeque<(u32, bool, T)>,
    closed: bool,
}

impl<T> Default for Desk<T> {
    fn default() -> Self {
        Self { waiting: Mutex::new(Waiting { ports: VecDeque::new(), closed: false }), news: Condvar::new() }
    }
}

impl<T> Desk<T> {
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, ifindex: u32, joined: bool, order: T) {
        self.lock().ports.push_back((ifindex, joined, order));
        self.news.notify_one();
    }

    fn has_joined(&self, ifindex: u32) {
        self.lock().ports.iter_mut().filter(|o| o.0 == ifindex).for_each(|(_, joined, _)| *joined = true);
    }

    /// Nothing is handed out from now on, whatever waits.
    fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }

    /// Waits for a port to tap: the first of those that have joined their bridge, else the first. None when it is closed.
    fn next(&self) -> Option<T> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let urgent = waiting.ports.iter().position(|(_, joined, _)| *joined).unwrap_or(0);
            if let Some((_, _, order)) = waiting.ports.remove(urgent) {
                return Some(order);
            }
            waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Desk<Order> {
    fn put(&self, order: Order) {
        self.push(order.ifindex, order.joined, order);
    }
}

/// Gives what was tapped to who ordered it.
fn hand_out(order: Order, made: reflex::Made, desk: &Desk<Order>, done: &dyn Fn(Done)) {
    let reflex::Made { mut port, at } = made;
    if let Err(error) = port.move_to_set(&order.set, Some(&order.dir)) {
        let (ifindex, error) = (order.ifindex, &error as &dyn std::error::Error);
        tracing::debug!(ifindex, error, "a port is tapped again");
        detach(port);
        return desk.put(order);
    }
    // it was new, and down
    let made = Made { port, at, before: Some(LinkStats::default()), after: None };
    done(Done { ifindex: order.ifindex, is_new: true, result: Ok(made) });
}

fn tap(order: Order, query: &mut LinkQuery, namespaces: &Namespaces) -> Done {
    let Order { ifindex, is_new, .. } = order;
    let mut stats = || query.link_stats(ifindex).ok().flatten();
    let before = if is_new { Some(LinkStats::default()) } else { stats() };
    let is_busy = order.sent.is_some_and(|sent| before.is_none_or(|now| now.tx_packets != sent));
    let attached = match tap::is_elsewhere(ifindex) {
        true => attach_elsewhere(&order, namespaces),
        false => attach(&order, is_busy),
    };
    let result = match attached {
        Ok(port) => {
            let at = monotonic();
            fault::point("tap.attached");
            let after = if is_new { None } else { stats() };
            Ok(Made { port, at, before, after })
        }
        Err(error) => {
            let is_there = !query.link(ifindex).is_ok_and(|link| link.is_none());
            Err(Refusal { error, is_there })
        }
    };
    Done { ifindex, is_new, result }
}

/// A port of this network namespace.
fn attach(order: &Order, is_busy: bool) -> Result<Port, tap::Error> {
    let (ifindex, programs, dir) = (order.ifindex, order.set.programs(), &order.dir);
    // one that is bound to the filters needs no qdisc any more
    let dispatcher = order.dispatcher.as_ref().filter(|d| !is_busy || d.is_bound(ifindex));
    let shared = dispatcher.map(|d| Port::attach_shared(d, ifindex, programs, dir));
    match shared {
        Some(Ok(Some(port))) => return Ok(port),
        Some(Err(error)) => {
            // filters of its own tell why they cannot be had, either
            tracing::debug!(ifindex, error = &error as &dyn std::error::Error, "no filters to share");
        }
        Some(Ok(None)) | None => {}
    }
    let how = if is_busy && order.attach == Attach::Quick { Attach::Auto } else { order.attach };
    Port::attach(ifindex, programs, how, Some(dir))
}

/// A port of a bridge in another network namespace.
fn attach_elsewhere(order: &Order, namespaces: &Namespaces) -> Result<Port, tap::Error> {
    let ifindex = order.ifindex;
    if order.attach == Attach::Clsact {
        return Err(tap::Error::OnlyTcx { ifindex });
    }
    let attached = namespaces
        .enter(ifindex, |namespace, index| Port::attach_elsewhere(namespace, index, &order.set, &order.dir));
    match attached {
        Ok(Some(attached)) => attached,
        Ok(None) => Err(tap::Error::Enter { ifindex, source: io::ErrorKind::NotFound.into() }),
        Err(NamespaceError::Enter { source, .. } | NamespaceError::Open { source, .. }) => {
            Err(tap::Error::Enter { ifindex, source })
        }
        Err(NamespaceError::Switch(error)) => {
            Err(tap::Error::Enter { ifindex, source: io::Error::other(error) })
        }
    }
}

#[cfg(test)]
mod tests;
