//! Asks the kernel about links and addresses, here and in containers' namespaces, on one socket that stays open. About a link in another
//! namespace that is watched, its own socket is asked.
//!
//! Answers are matched by sequence number; what belongs to a question given up earlier is passed over. Every question
//! ends within its timeout.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::wire::{self, AF_INET, AF_INET6, Request};
use super::{HostAddress, Link, LinkStats, Namespaces, Peer, SwitchError};
use crate::netlink::{Message, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, errno, messages};

/// The kernel answers within microseconds unless its configuration lock is held, as it is while namespaces go.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often a list that changed while it was read is read anew.
const TRIES: u32 = 8;
/// Dumps come in pieces of at most 32 KiB.
const BUFFER_BYTES: usize = 64 << 10;

/// A socket for questions, bound to the network namespace of the thread that made it.
#[derive(Debug)]
pub struct LinkQuery {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
    namespaces: Namespaces,
}

impl LinkQuery {
    /// Opens the socket in the calling thread's network namespace, beside which these are watched.
    pub fn open(namespaces: Namespaces) -> Result<LinkQuery, SwitchError> {
        let step = |step| move |source| SwitchError::Open { step, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(step("socket"))?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(step("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(step("connect"))?;
        // Only strict requests may name another namespace and filter addresses by link.
        socket.set_netlink_get_strict_chk(true).map_err(step("strict requests, since Linux 4.20"))?;
        let timeout = TimeVal::new(TIMEOUT.as_secs() as i64, TIMEOUT.subsec_micros().into());
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)
            .map_err(|e| step("receive timeout")(io::Error::from(e)))?;
        Ok(LinkQuery { socket, seq: 0, buffer: vec![0; BUFFER_BYTES], namespaces })
    }

    /// All links of our namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, SwitchError> {
        self.dump("links", |seq| Request::links(seq, 0, None, false), wire::link)
    }

    /// One link, none when it is not there.
    pub fn link(&mut self, ifindex: u32) -> Result<Option<Link>, SwitchError> {
        if tap::is_elsewhere(ifindex) {
            let found = self.namespaces.ask(ifindex, |query, index| query.link(index))?;
            return Ok(found.map(|link| self.namespaces.named(ifindex, link)));
        }
        self.one("a link", ifindex, None, false, wire::link)
    }

    /// A link's counters, none when it is not there.
    pub fn link_stats(&mut self, ifindex: u32) -> Result<Option<LinkStats>, SwitchError> {
        if tap::is_elsewhere(ifindex) {
            return self.namespaces.ask(ifindex, |query, index| query.link_stats(index));
        }
        self.one("a link's counters", ifindex, None, true, wire::stats)
    }

    /// Packets that each link of our namespace has sent.
    pub fn sent(&mut self) -> Result<BTreeMap<u32, u64>, SwitchError> {
        let sent = |body: &[u8]| Some((wire::link(body)?.ifindex, wire::stats(body)?.tx_packets));
        let all = self.dump("the links' counters", |seq| Request::links(seq, 0, None, true), sent)?;
        Ok(all.into_iter().collect())
    }

    /// The far end of a port as [`LinkQuery::peer`] has it, asked in the port's own namespace.
    pub fn peer_of(
        &mut self,
        port: u32,
        netnsid: Option<i32>,
        peer_ifindex: u32,
    ) -> Result<Option<Peer>, SwitchError> {
        if tap::is_elsewhere(port) {
            return self.namespaces.ask(port, |query, _| query.peer(netnsid, peer_ifindex));
        }
        self.peer(netnsid, peer_ifindex)
    }

    /// Its addresses as [`LinkQuery::peer_addresses`] has them, asked in the port's own namespace.
    pub fn peer_addresses_of(
        &mut self,
        port: u32,
        netnsid: Option<i32>,
        peer_ifindex: u32,
    ) -> Result<Option<Vec<IpAddr>>, SwitchError> {
        if tap::is_elsewhere(port) {
            return self.namespaces.ask(port, |query, _| query.peer_addresses(netnsid, peer_ifindex));
        }
        self.peer_addresses(netnsid, peer_ifindex)
    }

    /// The far end of a port, by our number for its namespace and its ifindex there; none when namespace or link are
    /// gone (again). `netnsid` is none for a peer in our own namespace.
    pub fn peer(&mut self, netnsid: Option<i32>, peer_ifindex: u32) -> Result<Option<Peer>, SwitchError> {
        let Some(link) = self.one("a container's interface", peer_ifindex, netnsid, false, wire::link)?
        else {
            return Ok(None);
        };
        let addresses = self.peer_addresses(netnsid, peer_ifindex)?;
        Ok(addresses.map(|addresses| Peer { name: link.name, mac: link.mac, up: link.up, addresses }))
    }

    /// The addresses of the far end of a port, as for [`LinkQuery::peer`]; none when the namespace is gone (again). Since Linux 6.10 this
    /// does not wait for the kernel's lock for network devices, which all else about them does.
    pub fn peer_addresses(
        &mut self,
        netnsid: Option<i32>,
        peer_ifindex: u32,
    ) -> Result<Option<Vec<IpAddr>>, SwitchError> {
        let mut addresses = Vec::new();
        for family in [AF_INET, AF_INET6] {
            match self.addresses_of(family, peer_ifindex, netnsid) {
                Ok(found) => addresses.extend(found),
                Err(SwitchError::Refused { source, .. }) if is_absence(&source) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(addresses))
    }

    /// All addresses of our namespace.
    pub fn host_addresses(&mut self) -> Result<Vec<HostAddress>, SwitchError> {
        let mut all = Vec::new();
        for family in [AF_INET, AF_INET6] {
            all.extend(self.dump(
                "addresses",
                |seq| Request::addresses(seq, family, 0, None),
                wire::address,
            )?);
        }
        Ok(all)
    }

    fn addresses_of(
        &mut self,
        family: u8,
        ifindex: u32,
        netnsid: Option<i32>,
    ) -> Result<Vec<IpAddr>, SwitchError> {
        self.dump(
            "a container's addresses",
            |seq| Request::addresses(seq, family, ifindex, netnsid),
            // Kernels filter by link themselves; where one does not, its other links' addresses are no answer.
            |body| wire::address(body).filter(|a| a.ifindex == ifindex).map(|a| a.address),
        )
    }

    fn one<T>(
        &mut self,
        what: &'static str,
        ifindex: u32,
        netnsid: Option<i32>,
        with_stats: bool,
        parse: fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, SwitchError> {
        // Zero would ask for all links, and no link has it.
        if ifindex == 0 {
            return Ok(None);
        }
        let seq = self.send(what, |seq| Request::links(seq, ifindex, netnsid, with_stats))?;
        let mut found = None;
        let outcome = self.receive(what, seq, |message| {
            found = parse(message.body);
            // One link is one message; there is no "done" behind it.
            true
        });
        match outcome {
            Ok(_) => Ok(found),
            Err(SwitchError::Refused { source, .. }) if is_absence(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn dump<T>(
        &mut self,
        what: &'static str,
        request: impl Fn(u32) -> Request,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, SwitchError> {
        for _ in 0..TRIES {
            let seq = self.send(what, &request)?;
            let mut found = Vec::new();
            let steady = self.receive(what, seq, |message| {
                found.extend(parse(message.body));
                false
            })?;
            if steady {
                return Ok(found);
            }
        }
        Err(SwitchError::Unsteady { what, tries: TRIES })
    }

    fn send(&mut self, what: &'static str, request: impl Fn(u32) -> Request) -> Result<u32, SwitchError> {
        self.seq = self.seq.wrapping_add(1);
        let bytes = request(self.seq).into_bytes();
        self.socket.send(&bytes, 0).map_err(|source| SwitchError::Send { what, source })?;
        Ok(self.seq)
    }

    /// Hands the answer's messages to `take` until it says that it has enough or the kernel that it is done. Tells
    /// whether the answer is of one piece, that is, nothing changed while the kernel wrote it.
    fn receive(
        &mut self,
        what: &'static str,
        seq: u32,
        mut take: impl FnMut(&Message<'_>) -> bool,
    ) -> Result<bool, SwitchError> {
        let give_up = Instant::now() + TIMEOUT;
        let timeout = || SwitchError::Timeout { what, timeout_ms: TIMEOUT.as_millis() };
        let mut steady = true;
        loop {
            let len = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(len) => len,
                Err(Errno::EINTR) if Instant::now() < give_up => continue,
                Err(Errno::EAGAIN | Errno::EINTR) => return Err(timeout()),
                Err(error) => return Err(SwitchError::Receive { what, source: error.into() }),
            };
            let Some(datagram) = self.buffer.get(..len) else {
                // Cannot be with 32 KiB pieces; a larger buffer makes the next try succeed.
                self.buffer.resize(len, 0);
                return Err(SwitchError::Receive { what, source: Errno::EMSGSIZE.into() });
            };
            for message in messages(datagram).filter(|m| m.seq == seq) {
                steady &= message.flags & NLM_F_DUMP_INTR == 0;
                let errno = match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => errno(message.body),
                    _ if take(&message) => return Ok(steady),
                    _ => continue,
                };
                if errno != 0 {
                    let source = io::Error::from_raw_os_error(errno);
                    return Err(SwitchError::Refused { what, source });
                }
                return Ok(steady);
            }
            if Instant::now() >= give_up {
                return Err(timeout());
            }
        }
    }
}

/// Whether the kernel's reason means that the link or its namespace is not there: `ENODEV` for the link, `EINVAL` for
/// a namespace number that stands for nothing.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENODEV | Errno::EINVAL))
}
