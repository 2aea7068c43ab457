//! The shortest way from a link to its tap. A link that looks like an engine's port is bound to the filters that ports share by the very thread that
//! reads of it, at once: on a host where fifty containers start, each thread that would have to be woken in between costs milliseconds, and
//! in these the engine may ask for the kernel's lock for network devices, and be given it for tens of them.
//!
//! They run at once (see [`priority`]): whoever asks for that lock before the engine goes on to the bridge has the tap there before the port joins.
//!
//! Several threads take turns at one socket: who reads of such a link leaves the socket to the next, and taps. What the controller makes of the
//! link it finds out by itself, a little later, and then it [claims](Reflex::claim) the tap. What it does not claim, because it makes nothing
//! of it or was not told, they take away again.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ippm::time::Timestamp;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use tap::{Dispatcher, Port, Set, fault};

use super::rigger::detach;
use super::tapper::Order;
use super::world::becomes_port;
use crate::clock::monotonic;
use crate::netlink::messages;
use crate::priority;
use crate::switch::new_links;

/// Taps that may be under way at once, but for one that reads.
const THREADS: usize = 4;
/// Of the threads.
const NAME: &str = "reflex";
/// The controller has heard of a link by then, if it is going to.
const CLAIMED: Duration = Duration::from_secs(5);
/// After an error that should not happen.
const PAUSE: Duration = Duration::from_millis(10);
/// Longer than any message of a link.
const MESSAGE_BYTES: usize = 32 << 10;

/// A tap that was put on by reflex.
pub struct Made {
    /// The port, in the set that was told last by [`Reflex::tap_for`].
    pub port: Port,
    /// When the kernel had it.
    pub at: Timestamp,
}

/// What becomes of an order.
pub enum Claim {
    /// The port is to be tapped in the ordinary way.
    Ordinary(Order),
    /// It is being tapped: the order is answered when that has ended.
    Later,
    /// It is tapped.
    Made(Order, Made),
}

enum Stage {
    /// Its tap is being put on or taken away.
    Tapping,
    Wanted(Order),
    Made(Made),
    /// The link went before it was tapped.
    Dropped,
    /// The controller's.
    Claimed,
}

#[derive(Default)]
struct Table {
    target: Option<(Arc<Set>, PathBuf)>,
    links: HashMap<u32, Stage>,
    swept_at: Timestamp,
}

struct Inner {
    dispatcher: Arc<Dispatcher>,
    table: Mutex<Table>,
    /// Gets orders back: with a tap, or to be done in the ordinary way.
    answer: Box<dyn Fn(Order, Option<Made>) + Send + Sync>,
}

/// The running threads. Dropping it ends them, each with the port that it is at.
pub struct Reflex {
    inner: Arc<Inner>,
    stop: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

/// The socket, and whether it is all over.
struct Reader {
    socket: Socket,
    stopped: PipeReader,
    buffer: Vec<u8>,
}

/// Makes the threads wait for their start, while they may run at once; `give_up` gives up what allows it. To be called before there is any other thread.
pub fn prepare(give_up: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    priority::prepare_at_once(NAME, THREADS + 1, give_up)
}

impl Reflex {
    /// Starts the threads, in the caller's network namespace. Nothing is tapped before it is said [for which set](Self::tap_for).
    pub fn start(
        dispatcher: Arc<Dispatcher>,
        answer: impl Fn(Order, Option<Made>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        SockRef::from(&socket).attach_filter(&new_links::only_new())?;
        socket.bind(&SocketAddr::new(0, new_links::GROUP))?;
        let (stopped, stop) = io::pipe()?;
        let reader = Arc::new(Mutex::new(Reader { socket, stopped, buffer: vec![0; MESSAGE_BYTES] }));
        let inner = Arc::new(Inner { dispatcher, table: Mutex::default(), answer: Box::new(answer) });
        let mut reflex = Self { inner, stop: Some(stop), threads: Vec::new() };
        let mut all_at_once = true;
        for _ in 0..=THREADS {
            let (reader, inner) = (reader.clone(), reflex.inner.clone());
            let next = move || reader.lock().unwrap_or_else(PoisonError::into_inner).next();
            let work = move || {
                // the socket is left before the taps
                while let Some(links) = next() {
                    links.into_iter().for_each(|ifindex| inner.tap(ifindex));
                    inner.sweep(monotonic());
                }
            };
            let (thread, at_once) = priority::spawn_at_once(NAME, work)?;
            reflex.threads.push(thread);
            all_at_once &= at_once;
        }
        if !all_at_once {
            tracing::info!(
                "without real-time priority, ports are tapped some milliseconds later while many containers start"
            );
        }
        Ok(reflex)
    }

    /// Has links tapped for this set from now on, whose pins are in the folder.
    pub fn tap_for(&self, set: Arc<Set>, dir: PathBuf) {
        self.inner.table().target = Some((set, dir));
    }

    /// The controller wants a link tapped. From now on the link is the controller's.
    pub fn claim(&self, order: Order) -> Claim {
        let mut table = self.inner.table();
        let ifindex = order.ifindex;
        match table.links.remove(&ifindex) {
            Some(Stage::Tapping | Stage::Dropped) => {
                table.links.insert(ifindex, Stage::Wanted(order));
                Claim::Later
            }
            Some(Stage::Made(made)) => {
                table.links.insert(ifindex, Stage::Claimed);
                Claim::Made(order, made)
            }
            // if nobody here has heard of it yet, nobody shall touch it
            _ => {
                table.links.insert(ifindex, Stage::Claimed);
                Claim::Ordinary(order)
            }
        }
    }

    /// The link has gone. Gives what is to be taken away.
    pub fn forget(&self, ifindex: u32) -> Option<Port> {
        let mut table = self.inner.table();
        match table.links.remove(&ifindex)? {
            Stage::Tapping => {
                table.links.insert(ifindex, Stage::Dropped);
                None
            }
            // it is answered: the controller asked, and finds out that it has gone
            wanted @ Stage::Wanted(_) => {
                table.links.insert(ifindex, wanted);
                None
            }
            Stage::Made(made) => Some(made.port),
            Stage::Dropped | Stage::Claimed => None,
        }
    }

    /// Ends the threads; nothing is answered after that.
    pub fn stop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Reflex {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Reader {
    /// Waits for links that look like ports to be, but not for ever; none when it is over.
    fn next(&mut self) -> Option<Vec<u32>> {
        loop {
            let mut ready = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::try_from(CLAIMED).unwrap_or(PollTimeout::MAX)) {
                Ok(0) => return Some(Vec::new()),
                Ok(_) | Err(Errno::EINTR) => {}
                // it is for a moment, or everybody has a worse problem
                Err(_) => std::thread::sleep(PAUSE),
            }
            if ready[1].any().unwrap_or(true) {
                return None;
            }
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                // what is lost here the controller hears of all the same
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => continue,
                Err(_) => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
            };
            let told = messages(self.buffer.get(..length).unwrap_or_default());
            let links = told.filter_map(|message| new_links::link(&message)).filter(becomes_port);
            let links: Vec<u32> = links.map(|link| link.ifindex).collect();
            if !links.is_empty() {
                return Some(links);
            }
        }
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tap(&self, ifindex: u32) {
        let (set, dir) = {
            let mut table = self.table();
            let Some(target) = table.target.clone() else { return };
            if table.links.contains_key(&ifindex) || !self.dispatcher.serves() {
                return;
            }
            table.links.insert(ifindex, Stage::Tapping);
            target
        };
        let made = Port::attach_shared(&self.dispatcher, ifindex, set.programs(), &dir);
        let at = monotonic();
        // whoever wants it taps it in the ordinary way, and tells if that fails, too
        let made = made.ok().flatten().map(|port| Made { port, at });
        self.end(ifindex, made.inspect(|_| fault::point("tap.attached")));
    }

    /// A link's tap has been put on, or there is none.
    fn end(&self, ifindex: u32, made: Option<Made>) {
        let mut table = self.table();
        match (table.links.remove(&ifindex), made) {
            (Some(Stage::Wanted(order)), made) => {
                drop(table);
                (self.answer)(order, made);
            }
            (Some(Stage::Tapping), Some(made)) => {
                table.links.insert(ifindex, Stage::Made(made));
            }
            (_, Some(made)) => {
                drop(table);
                detach(made.port);
            }
            _ => {}
        }
    }

    /// Takes away what the controller has not claimed, every few seconds. Should it do so now, it waits until that is done.
    fn sweep(&self, now: Timestamp) {
        let mut old = Vec::new();
        let mut table = self.table();
        if now - table.swept_at < CLAIMED {
            return;
        }
        table.swept_at = now;
        for (ifindex, stage) in &mut table.links {
            if matches!(stage, Stage::Made(made) if now - made.at > CLAIMED)
                && let Stage::Made(made) = std::mem::replace(stage, Stage::Tapping)
            {
                old.push((*ifindex, made.port));
            }
        }
        drop(table);
        for (ifindex, port) in old {
            detach(port);
            self.end(ifindex, None);
        }
    }
}
