//! Listens to messages on a thread of its own.
//!
//! The socket belongs to the network namespace of the thread that opens it. The thread sleeps in
//! `poll`, then reads until nothing is left, so a burst costs one system call per message. It ends when the listener
//! is dropped.

use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ippm::time::Timestamp;
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::{Message, NLMSG_OVERRUN, messages};
use crate::clock;

/// Longer than any message that is listened to; what is longer still counts as lost.
const MESSAGE_BYTES: usize = 64 << 10;
/// How often a listener that is told nothing sees to it that it has not missed the time: what comes next was told after that.
const LOOK_MS: u8 = 250;
/// After an error that should not happen: long enough not to burn a core, short enough to notice soon.
const PAUSE: Duration = Duration::from_millis(100);

/// When something was told that a listener reads.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// After this: the listener had taken everything then. Long before `read` where it was kept from running.
    pub after: Timestamp,
    /// Before this, when it was read.
    pub read: Timestamp,
}

/// What a listener is told.
#[derive(Debug)]
pub enum Told<'a> {
    /// A message came.
    Message(Message<'a>),
    /// Messages were dropped. The queue is empty now: a list asked for then is newer than any loss.
    Overrun,
}

/// How far a listener is with what the kernel has told: whoever was kept from running for a while has it all before him yet.
#[derive(Debug)]
pub struct Ear {
    /// The listener's.
    socket: OwnedFd,
    /// Nothing is being taken.
    waits: AtomicBool,
    /// What was told before this time was taken.
    heard_until: AtomicU64,
}

impl Ear {
    /// Of a socket from which nothing was taken yet.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, waits: AtomicBool::new(false), heard_until: AtomicU64::new(0) }
    }

    /// All that was told before this time was taken.
    pub fn heard_until(&self) -> Timestamp {
        let before = clock::monotonic();
        let mut told = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let is_empty = matches!(poll(&mut told, PollTimeout::ZERO), Ok(0));
        // in this order: who has emptied it waits again when he has taken what was there
        if is_empty && self.waits.load(Ordering::SeqCst) {
            self.heard(before);
        }
        Timestamp(self.heard_until.load(Ordering::SeqCst))
    }

    /// The listener waits for something to take, or does so no more.
    pub(crate) fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::SeqCst);
    }

    /// All that was told before then was taken.
    pub(crate) fn heard(&self, until: Timestamp) {
        self.heard_until.fetch_max(until.as_nanos(), Ordering::SeqCst);
    }
}

/// A running listener. Dropping it ends its thread.
#[derive(Debug)]
pub struct Listener {
    ear: Arc<Ear>,
    /// Closing this end wakes the thread and tells it to end.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on a socket that has joined its groups. `begin` is what the thread does first, `receive_bytes` the room for the
    /// kernel's queue.
    ///
    /// `sink` runs on the listener's thread, with the time, and must be quick: while it runs, the kernel queues, and
    /// at last drops.
    pub fn start(
        name: &str,
        begin: fn(),
        socket: Socket,
        receive_bytes: usize,
        mut sink: impl FnMut(Told<'_>, When) + Send + 'static,
    ) -> io::Result<Listener> {
        // The forced size needs CAP_NET_ADMIN; without it the kernel caps the size, which only makes overruns likelier.
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_bytes).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &receive_bytes)?;
        }
        let (stopped, stop) = io::pipe()?;
        let ear = Arc::new(Ear::new(socket.as_fd().try_clone_to_owned()?));
        // what was told before it could hear does not come
        ear.heard(clock::monotonic());
        let its = ear.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            begin();
            run(&socket, stopped.as_fd(), &its, &mut sink);
        })?;
        Ok(Listener { ear, stop: Some(stop), thread: Some(thread) })
    }

    /// How far it is; not there any more when the listener is not.
    pub fn ear(&self) -> &Arc<Ear> {
        &self.ear
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop = None;
        // A sink that panicked has already printed why; the listener's owner is going anyway.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(socket: &Socket, stopped: BorrowedFd<'_>, ear: &Ear, sink: &mut dyn FnMut(Told<'_>, When)) {
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        let mut ready =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stopped, PollFlags::POLLIN)];
        ear.waits(true);
        let polled = poll(&mut ready, LOOK_MS);
        ear.waits(false);
        match polled {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for netlink messages");
                std::thread::sleep(PAUSE);
            }
        }
        if ready[1].any().unwrap_or(true) {
            return;
        }
        drain(socket, &mut buffer, ear, sink);
    }
}

/// Reads until nothing is left.
///
/// A full queue is told before what is in it, and from then until it is empty the kernel drops everything without
/// telling again. So an overrun is reported when the queue is empty: a list asked for then is newer than any loss.
fn drain(socket: &Socket, buffer: &mut [u8], ear: &Ear, sink: &mut dyn FnMut(Told<'_>, When)) {
    let (mut lost, after) = (false, Timestamp(ear.heard_until.load(Ordering::SeqCst)));
    loop {
        let before = clock::monotonic();
        // With MSG_TRUNC the kernel tells the message's true length, so that a cut one is noticed.
        let received = recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC);
        let at = When { after, read: clock::monotonic() };
        match received {
            Ok(len) => match buffer.get(..len) {
                Some(datagram) => {
                    for message in messages(datagram) {
                        lost |= message.kind == NLMSG_OVERRUN;
                        sink(Told::Message(message), at);
                    }
                }
                None => lost = true,
            },
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => lost = true,
            Err(error) => {
                if error != Errno::EAGAIN {
                    tracing::error!(%error, "cannot read netlink messages");
                    lost = true;
                    std::thread::sleep(PAUSE);
                }
                if lost {
                    sink(Told::Overrun, at);
                }
                return ear.heard(before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn who_has_something_before_him_or_in_hand_has_not_heard_all() {
        let (mut told, mut teller) = io::pipe().unwrap();
        let ear = Ear::new(told.try_clone().unwrap().into());
        let begin = clock::monotonic();
        assert!(ear.heard_until() < begin, "it has not begun");
        ear.waits(true);
        let all = ear.heard_until();
        assert!(all >= begin, "all up to now");
        teller.write_all(b"x").unwrap();
        assert_eq!(ear.heard_until(), all, "it is before him");
        ear.waits(false);
        told.read_exact(&mut [0]).unwrap();
        assert_eq!(ear.heard_until(), all, "it is in his hand");
        ear.waits(true);
        assert!(ear.heard_until() > all);
        ear.heard(begin);
        assert!(ear.heard_until() > all, "what was heard was heard");
    }
}
