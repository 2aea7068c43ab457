//! Listens to link messages on a thread of its own.
//!
//! The socket belongs to the network namespace of the thread that calls [`LinkListener::start`]. The thread sleeps in
//! `poll`, then reads until nothing is left, so a burst costs one system call per message. It ends when the listener
//! is dropped.

use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use ippm::time::Timestamp;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use super::wire::{self, RTM_DELLINK, RTM_NEWLINK};
use super::{LinkEvent, SwitchError};
use crate::clock;

/// Room for the kernel's queue: about 4000 link messages, which 200 containers starting at once do not fill.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Longer than any link message; what is longer still counts as lost.
const MESSAGE_BYTES: usize = 64 << 10;
/// After an error that should not happen: long enough not to burn a core, short enough to notice soon.
const PAUSE: Duration = Duration::from_millis(100);

/// A running listener. Dropping it ends its thread.
#[derive(Debug)]
pub struct LinkListener {
    /// Closing this end wakes the thread and tells it to end.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl LinkListener {
    /// Starts to listen in the calling thread's network namespace. Everything that happens after this returns is
    /// reported, so ask [`super::LinkQuery::links`] for what is there *after* it.
    ///
    /// `sink` runs on the listener's thread and must be quick: while it runs, the kernel queues, and at last drops.
    pub fn start(mut sink: impl FnMut(LinkEvent) + Send + 'static) -> Result<LinkListener, SwitchError> {
        let step = |step| move |source| SwitchError::Open { step, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(step("socket"))?;
        // The forced size needs CAP_NET_ADMIN; without it the kernel caps the size, which only makes overruns likelier.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)
                .map_err(|e| step("receive buffer")(io::Error::from(e)))?;
        }
        socket.bind(&SocketAddr::new(0, wire::GROUP_LINK)).map_err(step("joining the link group"))?;
        let (stopped, stop) = io::pipe().map_err(step("wake-up pipe"))?;
        let thread = std::thread::Builder::new()
            .name("link-listener".into())
            .spawn(move || run(&socket, stopped.as_fd(), &mut sink))
            .map_err(SwitchError::Thread)?;
        Ok(LinkListener { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for LinkListener {
    fn drop(&mut self) {
        self.stop = None;
        // A sink that panicked has already printed why; the listener's owner is going anyway.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(socket: &Socket, stopped: BorrowedFd<'_>, sink: &mut dyn FnMut(LinkEvent)) {
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        let mut ready =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stopped, PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for link messages");
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
fn drain(socket: &Socket, buffer: &mut [u8], sink: &mut dyn FnMut(LinkEvent)) {
    let mut lost = false;
    loop {
        // With MSG_TRUNC the kernel tells the message's true length, so that a cut one is noticed.
        let received = recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC);
        let at = clock::monotonic();
        match received {
            Ok(len) => match buffer.get(..len) {
                Some(datagram) => {
                    for message in wire::messages(datagram) {
                        lost |= message.kind == wire::NLMSG_OVERRUN;
                        if let Some(event) = event(&message, at) {
                            sink(event);
                        }
                    }
                }
                None => lost = true,
            },
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => lost = true,
            Err(error) => {
                if error != Errno::EAGAIN {
                    tracing::error!(%error, "cannot read link messages");
                    lost = true;
                    std::thread::sleep(PAUSE);
                }
                if lost {
                    sink(LinkEvent::Overrun { at });
                }
                return;
            }
        }
    }
}

fn event(message: &wire::Message<'_>, at: Timestamp) -> Option<LinkEvent> {
    match message.kind {
        RTM_NEWLINK => Some(LinkEvent::New { link: wire::link(message.body)?, at }),
        RTM_DELLINK => {
            let link = wire::link(message.body)?;
            Some(LinkEvent::Del { ifindex: link.ifindex, name: link.name, at })
        }
        _ => None,
    }
}
