//! Listens to messages on a thread of its own.
//!
//! The socket belongs to the network namespace of the thread that opens it. The thread sleeps in
//! `poll`, then reads until nothing is left, so a burst costs one system call per message. It ends when the listener
//! is dropped.

use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
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
/// After an error that should not happen: long enough not to burn a core, short enough to notice soon.
const PAUSE: Duration = Duration::from_millis(100);

/// What a listener is told.
#[derive(Debug)]
pub enum Told<'a> {
    /// A message came.
    Message(Message<'a>),
    /// Messages were dropped. The queue is empty now: a list asked for then is newer than any loss.
    Overrun,
}

/// A running listener. Dropping it ends its thread.
#[derive(Debug)]
pub struct Listener {
    /// Closing this end wakes the thread and tells it to end.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on a socket that has joined its groups. `begin` is what the thread does first, `receive_bytes` the room for the
    /// kernel's queue.
    ///
    /// `sink` runs on the listener's thread, with the time of reading, and must be quick: while it runs, the kernel queues, and
    /// at last drops.
    pub fn start(
        name: &str,
        begin: fn(),
        socket: Socket,
        receive_bytes: usize,
        mut sink: impl FnMut(Told<'_>, Timestamp) + Send + 'static,
    ) -> io::Result<Listener> {
        // The forced size needs CAP_NET_ADMIN; without it the kernel caps the size, which only makes overruns likelier.
        if setsockopt(&socket, sockopt::RcvBufForce, &receive_bytes).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &receive_bytes)?;
        }
        let (stopped, stop) = io::pipe()?;
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            begin();
            run(&socket, stopped.as_fd(), &mut sink);
        })?;
        Ok(Listener { stop: Some(stop), thread: Some(thread) })
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

fn run(socket: &Socket, stopped: BorrowedFd<'_>, sink: &mut dyn FnMut(Told<'_>, Timestamp)) {
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        let mut ready =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stopped, PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for netlink messages");
                std::thread::sleep(PAUSE);
            }
        }
        if ready[1].any().unwrap_or(true) {
            return;
        }
        drain(socket, &mut buffer, sink);
    }
}

/// Reads until nothing is left.
///
/// A full queue is told before what is in it, and from then until it is empty the kernel drops everything without
/// telling again. So an overrun is reported when the queue is empty: a list asked for then is newer than any loss.
fn drain(socket: &Socket, buffer: &mut [u8], sink: &mut dyn FnMut(Told<'_>, Timestamp)) {
    let mut lost = false;
    loop {
        // With MSG_TRUNC the kernel tells the message's true length, so that a cut one is noticed.
        let received = recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC);
        let at = clock::monotonic();
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
                return;
            }
        }
    }
}
