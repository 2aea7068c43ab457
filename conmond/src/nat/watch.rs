//! Listens to the kernel's connection tracking, on a thread of its own.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ippm::time::Timestamp;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use socket2::SockRef;

use super::{Connection, Translations, wire};
use crate::clock::monotonic;
use crate::netlink::{Listener, Message, NLMSG_DONE, NLMSG_ERROR, Told, When, errno, messages};

/// Room for some 10,000 messages.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Dumps come in pieces of at most 32 KiB.
const BUFFER_BYTES: usize = 64 << 10;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why connection tracking cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error(
    "connection tracking cannot be listened to ({step}); it needs CAP_NET_ADMIN and a kernel with NF_CT_NETLINK (modprobe nf_conntrack_netlink). Until then \
     published ports and masqueraded peers are named by the address that the container sees"
)]
pub struct NatError {
    step: &'static str,
    #[source]
    source: io::Error,
}

/// A running watch. Dropping it ends its thread.
#[derive(Debug)]
pub struct NatWatch {
    _listener: Listener,
}

impl NatWatch {
    /// Listens in the calling thread's network namespace, and takes what is there already.
    pub fn start(into: Arc<Mutex<Translations>>) -> Result<Self, NatError> {
        let step = |step| move |source: io::Error| NatError { step, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(step("socket"))?;
        SockRef::from(&socket).attach_filter(&wire::only_translated()).map_err(step("filter"))?;
        socket.bind(&SocketAddr::new(0, wire::GROUPS)).map_err(step("joining the groups"))?;
        // sockets are of this thread's namespace, whatever thread asks on them
        let mut query = Query::open().map_err(step("socket for questions"))?;
        let sink = {
            let into = into.clone();
            let mut query = Query::open().map_err(step("socket for questions"))?;
            move |told: Told<'_>, at: When| match told {
                Told::Message(message) => take(&into, &message, at),
                Told::Overrun => {
                    lock(&into).overruns += 1;
                    if let Err(error) = query.all(&into, at.after) {
                        tracing::warn!(%error, "tracked connections cannot be listed; some translations are not known");
                    }
                }
            }
        };
        let begin = crate::priority::wait_turn;
        let listener = Listener::start("nat-listener", begin, socket, RECEIVE_BUFFER_BYTES, sink)
            .map_err(step("listening"))?;
        lock(&into).hear_by(listener.ear());
        // after the listener: nothing falls between the two. What is there began at any time before.
        query.all(&into, Timestamp::ZERO).map_err(step("listing"))?;
        Ok(Self { _listener: listener })
    }
}

fn lock(all: &Mutex<Translations>) -> MutexGuard<'_, Translations> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(into: &Mutex<Translations>, message: &Message<'_>, at: When) {
    let Some(connection) = wire::connection(message.body).filter(Connection::is_translated) else { return };
    match message.kind {
        wire::CT_NEW => lock(into).begin(&connection, at),
        wire::CT_DELETE => lock(into).close(&connection, at.read),
        _ => {}
    }
}

/// Asks for every connection there is.
struct Query {
    socket: Socket,
    seq: u32,
}

impl Query {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        let timeout = TimeVal::new(TIMEOUT.as_secs() as i64, TIMEOUT.subsec_micros().into());
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self { socket, seq: 0 })
    }

    fn all(&mut self, into: &Mutex<Translations>, since: Timestamp) -> io::Result<()> {
        self.seq += 1;
        self.socket.send(&wire::dump(self.seq), 0)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let give_up = monotonic() + TIMEOUT;
        loop {
            let len = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for message in messages(buffer.get(..len).unwrap_or_default()).filter(|m| m.seq == self.seq) {
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match errno(message.body) {
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    wire::CT_NEW => {
                        if let Some(c) = wire::connection(message.body).filter(Connection::is_translated) {
                            lock(into).open(&c, since);
                        }
                    }
                    _ => {}
                }
            }
            if monotonic() > give_up {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}
