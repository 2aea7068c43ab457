//! Link layers: what a captured packet begins with, and how it becomes the Ethernet frame that the parser reads.

/// Kind of link layer header (the registry of LINKTYPE values).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Ethernet.
    Ethernet,
    /// IP without anything before it.
    Raw,
    /// BSD loopback: an address family in the byte order of the capturing host, or in network order.
    Loopback,
    /// Linux "cooked" capture, as `tcpdump -i any` writes it.
    Cooked,
    /// The second version of it.
    Cooked2,
    /// Another one, by its number.
    Other(u32),
}

impl Link {
    /// By the number in a capture file.
    pub const fn of(number: u32) -> Self {
        match number {
            1 => Self::Ethernet,
            12 | 14 | 101 | 228 | 229 => Self::Raw,
            0 | 108 => Self::Loopback,
            113 => Self::Cooked,
            276 => Self::Cooked2,
            other => Self::Other(other),
        }
    }
}

const ETHERNET: usize = 14;

/// The packet as an Ethernet frame with its length on the wire: itself, or put together in `scratch` with addresses of
/// zero. `None` where the link layer is not known or its header is cut.
#[inline]
pub fn to_ethernet<'a>(
    link: Link,
    captured: &'a [u8],
    length: usize,
    scratch: &'a mut Vec<u8>,
) -> Option<(&'a [u8], usize)> {
    if link == Link::Ethernet {
        return Some((captured, length));
    }
    put_together(link, captured, length, scratch)
}

fn put_together<'a>(
    link: Link,
    captured: &[u8],
    length: usize,
    scratch: &'a mut Vec<u8>,
) -> Option<(&'a [u8], usize)> {
    let (kind, header) = match link {
        Link::Raw => (ip_version(captured)?, 0),
        Link::Loopback => (ip_version(captured.get(4..)?)?, 4),
        Link::Cooked => (captured.get(14..16)?.first_chunk().copied()?, 16),
        Link::Cooked2 => (captured.get(..2)?.first_chunk().copied()?, 20),
        Link::Ethernet | Link::Other(_) => return None,
    };
    let network = captured.get(header..)?;
    scratch.clear();
    scratch.extend([0; ETHERNET - 2]);
    scratch.extend(kind);
    scratch.extend(network);
    Some((scratch, length.saturating_sub(header) + ETHERNET))
}

/// The EtherType of what begins like IP. The loopback's address families differ between systems; IP's own version does
/// not.
fn ip_version(network: &[u8]) -> Option<[u8; 2]> {
    match network.first()? >> 4 {
        4 => Some(ippm::packet::ethertype::IPV4.to_be_bytes()),
        6 => Some(ippm::packet::ethertype::IPV6.to_be_bytes()),
        _ => None,
    }
}
