//! The thread that taps ports. The kernel's lock for network devices is needed for that, and others hold it for long while containers
//! start and end; names, stops and all that is told of links must not wait for it.
//!
//! It owns what waits to be tapped, and hands each port back with the moment at which the kernel had the tap. When it is dropped it
//! ends what it is at; what waits is left as it is.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use ippm::time::Timestamp;
use tap::{Attach, Port, Set, fault};

use crate::clock::monotonic;
use crate::switch::{LinkQuery, LinkStats};

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
    /// Nothing has passed it yet: its counters need not be read first.
    pub is_new: bool,
    /// It is on its bridge already: its container may send at any moment.
    pub joined: bool,
}

/// What the thread is told of a port.
enum Job<T> {
    /// To tap it; whether it has joined its bridge.
    Tap(u32, bool, T),
    /// It has joined its bridge.
    Joined(u32),
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

/// The running thread.
pub struct Tapper {
    jobs: Option<Sender<Job<Order>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tapper {
    /// Starts the thread, in the caller's network namespace; `done` gets every port back that is not left when it ends.
    pub fn start(done: impl Fn(Done) + Send + 'static) -> anyhow::Result<Self> {
        let (jobs, inbox) = channel();
        let mut query = LinkQuery::open()?;
        let thread = std::thread::Builder::new().name("tapper".into()).spawn(move || {
            let mut queue = Queue(VecDeque::new());
            while let Some(order) = next(&inbox, &mut queue) {
                done(tap(order, &mut query));
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has a port tapped; it never waits. The port is the tapper's until it comes back.
    pub fn tap(&self, order: Order) {
        self.send(Job::Tap(order.ifindex, order.joined, order));
    }

    /// A port that waits, perhaps, has joined its bridge: it comes before those that have not.
    pub fn has_joined(&self, ifindex: u32) {
        self.send(Job::Joined(ifindex));
    }

    /// Ends the thread, with the port that it is at; no port comes back after that.
    pub fn stop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job<Order>) {
        if let Some(jobs) = &self.jobs {
            // the thread ends only after this sender went
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Tapper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for a port to tap; none when nobody can order any more, whatever waits.
fn next<T>(inbox: &Receiver<Job<T>>, queue: &mut Queue<T>) -> Option<T> {
    loop {
        match inbox.try_recv() {
            Ok(job) => queue.take(job),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => match queue.next() {
                Some(order) => return Some(order),
                None => queue.take(inbox.recv().ok()?),
            },
        }
    }
}

/// What waits: ports, and whether each has joined its bridge.
struct Queue<T>(VecDeque<(u32, bool, T)>);

impl<T> Queue<T> {
    fn take(&mut self, job: Job<T>) {
        match job {
            Job::Tap(ifindex, joined, order) => self.0.push_back((ifindex, joined, order)),
            Job::Joined(ifindex) => {
                self.0.iter_mut().filter(|o| o.0 == ifindex).for_each(|(_, joined, _)| *joined = true)
            }
        }
    }

    /// The first of those that have joined their bridge, else the first.
    fn next(&mut self) -> Option<T> {
        let urgent = self.0.iter().position(|(_, joined, _)| *joined).unwrap_or(0);
        self.0.remove(urgent).map(|(_, _, order)| order)
    }
}

fn tap(order: Order, query: &mut LinkQuery) -> Done {
    let Order { ifindex, set, dir, attach, is_new, .. } = order;
    let mut stats = || query.link_stats(ifindex).ok().flatten();
    let before = if is_new { Some(LinkStats::default()) } else { stats() };
    let result = match Port::attach(ifindex, set.programs(), attach, Some(&dir)) {
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

#[cfg(test)]
mod tests;
