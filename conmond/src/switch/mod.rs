//! The virtual switch as ConMon sees it: its ports, the messages about them, and the questions asked of the kernel.
//!
//! The kind served now is the Linux bridge with veth ports, by rtnetlink. A port is a link whose `master` is a
//! bridge. What happens to ports comes from a [`LinkListener`] on a thread of its own; the kernel drops messages when
//! its listener is slow, says so ([`LinkEvent::Overrun`]), and the caller then compares with [`LinkQuery::links`].
//! Nothing here is asynchronous: the thread that taps ports must not wait behind other work.

mod listen;
mod namespaces;
pub mod new_links;
mod query;
mod wire;

use std::io;
use std::net::IpAddr;

use ippm::time::Timestamp;

use crate::mac::Mac;

pub use listen::LinkListener;
pub use namespaces::{Looked, NamespaceError, Namespaces};
pub use query::LinkQuery;

/// A network interface of our own network namespace, or of one of the [`Namespaces`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, unique in the namespace for as long as the interface lives; in another namespace than our own the
    /// number that it has as a port ([`tap::Namespace::number`]).
    pub ifindex: u32,
    /// Its name, empty when the kernel sent none.
    pub name: String,
    /// The bridge (or bond, VRF, OVS datapath) that it is a port of.
    pub master: Option<u32>,
    /// The number, in the link's namespace, for the one in which the peer lives; none when that is the same.
    pub link_netnsid: Option<i32>,
    /// The peer's ifindex in the peer's namespace (for other kinds than veth: the interface below this one).
    pub peer_ifindex: Option<u32>,
    /// Switched on, and a carrier is there: for a veth, that both ends are up.
    pub up: bool,
    /// What the kernel calls this kind of link (`veth`, `bridge`, `vxlan`, …), none for hardware and loopback.
    pub kind: Option<String>,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// The largest packet above the link layer, in bytes; zero when the kernel sent none.
    pub mtu: u32,
}

impl Link {
    /// Whether other links can be ports of it.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// Whether, as a port of a bridge, it joins that with what is not on this host.
    pub fn leads_off(&self) -> bool {
        const HERE: [&str; 6] = ["veth", "tun", "macvtap", "ifb", "dummy", "netkit"];
        self.kind.as_deref().is_none_or(|kind| !HERE.contains(&kind))
    }

    /// Whether it is one end of a virtual cable.
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }
}

/// What happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared or changed; `link` is its whole state now.
    New {
        /// The state after the change.
        link: Link,
        /// When the message was read.
        at: Timestamp,
    },
    /// It is gone: deleted, or moved to another namespace.
    Del {
        /// Its number, which the kernel may give to another link later.
        ifindex: u32,
        /// Its last name.
        name: String,
        /// When the message was read.
        at: Timestamp,
    },
    /// The kernel dropped messages: only a new [`LinkQuery::links`] tells what is true.
    Overrun {
        /// When it was noticed.
        at: Timestamp,
    },
}

/// The far end of a port: the interface inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name in its own namespace.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Switched on with a carrier.
    pub up: bool,
    /// Its addresses, IPv4 before IPv6, link-local ones included.
    pub addresses: Vec<IpAddr>,
}

/// An address of our own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostAddress {
    /// The interface that carries it.
    pub ifindex: u32,
    /// The address itself.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits.
    pub prefix_len: u8,
}

/// A link's counters since it was made, as the kernel keeps them (`IFLA_STATS64`).
///
/// Seen from the namespace that the link is in: what a container sends is *received* on its host-side port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received, link header included.
    pub rx_bytes: u64,
    /// Bytes sent, link header included.
    pub tx_bytes: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Packets dropped on the way out.
    pub tx_dropped: u64,
}

/// Why the kernel could not be listened to or asked.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// No rtnetlink socket.
    #[error("cannot open an rtnetlink socket ({step}); ConMon needs a Linux kernel with rtnetlink")]
    Open {
        /// What was being done to the socket.
        step: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// No thread.
    #[error(
        "cannot start the thread that listens to link messages; raise the limit on threads (ulimit -u, pids cgroup)"
    )]
    Thread(#[source] io::Error),
    /// The request did not go out.
    #[error("cannot ask the kernel for {what}")]
    Send {
        /// What was asked for.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The answer could not be read.
    #[error("cannot read the kernel's answer about {what}")]
    Receive {
        /// What was asked for.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error(
        "the kernel did not answer within {timeout_ms} ms when asked for {what}; it may be busy deleting namespaces"
    )]
    Timeout {
        /// What was asked for.
        what: &'static str,
        /// How long we waited, in milliseconds.
        timeout_ms: u128,
    },
    /// The kernel said no.
    #[error(
        "the kernel refused to tell about {what}; conmond needs CAP_NET_ADMIN and, for containers' namespaces, Linux 4.20 or later"
    )]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The list changed while it was read, time and again.
    #[error(
        "the list of {what} changed during each of {tries} readings; try again when fewer containers start and stop"
    )]
    Unsteady {
        /// What was asked for.
        what: &'static str,
        /// How often we tried.
        tries: u32,
    },
}
