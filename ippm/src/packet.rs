//! One pass over a packet's headers: what class the packet is, which flow it belongs to, and what TCP says.
//!
//! `tap/bpf/parse.h` gives the same verdict on the same bytes in the kernel; a differential test in `tap` holds the two
//! together. The rules that both follow:
//!
//! - Ethernet, then at most two VLAN tags (802.1Q, 802.1ad). A third tag, a cut tag, 802.3 length and every other
//!   EtherType make the packet *other*.
//! - *Malformed* is only what claims to be IP and is not: the fixed header is cut, the version is wrong, the IPv4 header
//!   length is below 20 or beyond the packet, or the IPv4 total length is below the header length.
//! - A length field above what is there is no fault (captures cut), and 0 means what is there: segmentation-offload
//!   packets beyond 64 KiB carry 0. A length below what is there cuts Ethernet padding off.
//! - IPv6 extension headers are followed up to 8. A chain that is longer or is cut leaves the packet without ports, as
//!   the protocol number where the walk stopped.
//! - A fragment with an offset has no ports. A first fragment has them.
//! - A transport header that does not fit leaves the packet without ports: an IP packet of that protocol, no more.
//! - No header is looked for beyond 1,024 octets into the frame.
//! - ICMP errors are counted as themselves: the packet they quote is not looked at.

use std::net::IpAddr;

use crate::flow::{Direction, FlowKey, address_from_bytes};

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers") that the parser or the names know.
pub mod proto {
    #![allow(missing_docs, reason = "the names are the registry's")]
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT: u8 = 59;
    pub const DESTINATION: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const MOBILITY: u8 = 135;
    pub const HIP: u8 = 139;
    pub const SHIM6: u8 = 140;
}

/// EtherTypes that the parser knows.
pub mod ethertype {
    #![allow(missing_docs, reason = "the names are the registry's")]
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const QINQ: u16 = 0x88a8;
}

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp_flag {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

/// VLAN tags that are followed.
pub const MAX_VLAN_TAGS: usize = 2;
/// IPv6 extension headers that are followed.
pub const MAX_EXTENSION_HEADERS: usize = 8;
/// A header that begins beyond this offset in the frame is not looked at: the kernel's verifier wants a bound.
pub const MAX_HEADER_OFFSET: usize = 0x3ff;

const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;

/// What a packet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// VLAN id, the outermost that is not 0; 0 for none.
    pub vlan: u16,
    /// Its class, with what an IP packet says.
    pub class: Class,
}

/// The class of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// IPv4 or IPv6.
    Ip(Ip),
    /// ARP.
    Arp,
    /// Neither IP nor ARP.
    Other,
    /// Claims to be IP and is not.
    Malformed,
    /// Of neighbour discovery (RFC 4861) or multicast listener discovery (RFC 2710, RFC 3810), by its ICMPv6 type.
    Nd,
}

/// What an IP packet's headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address; `::ffff:a.b.c.d` on an IPv6 packet reads as IPv4, as the tap keeps it.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol number of the last header reached.
    pub proto: u8,
    /// Source port, or what [`FlowKey`] says stands for it.
    pub source_port: u16,
    /// Destination port, or what stands for it.
    pub destination_port: u16,
    /// IPv4 identification, 0 in IPv6.
    pub ip_id: u16,
    /// The packet is a fragment with an offset: it has no transport header.
    pub later_fragment: bool,
    /// TCP, when the whole header was there.
    pub tcp: Option<Tcp>,
    /// An ICMP echo request or reply.
    pub echo: Option<Echo>,
    /// What follows the headers that were understood; `None` where a header was cut or does not fit.
    pub payload: Option<Payload>,
}

/// Where a packet's payload lies. The kernel's parser does not keep it: only captures are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its offset in the frame.
    pub at: usize,
    /// Its octets by the length fields, captured or not.
    pub length: u32,
}

impl Payload {
    /// The part of it that was captured.
    #[inline]
    pub fn of<'a>(&self, captured: &'a [u8]) -> &'a [u8] {
        let end = self.at.saturating_add(self.length as usize).min(captured.len());
        captured.get(self.at..end).unwrap_or_default()
    }
}

/// What a TCP header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number of the first octet of data (or of SYN).
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags, CWR to FIN.
    pub flags: u8,
    /// Octets of data, by the IP length: what a cut capture left out counts.
    pub payload: u32,
    /// The time stamps option (RFC 7323 section 3).
    pub timestamps: Option<TcpTimestamps>,
    /// The option stands where Linux puts it in data segments: first, after two NOPs. The tap looks only there.
    pub timestamps_first: bool,
}

/// TCP time stamps option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTimestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the newest TSval the sender took from the other end.
    pub echo: u32,
}

/// Which half of an ICMP echo exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Echo request.
    Request,
    /// Echo reply.
    Reply,
}

impl Ip {
    /// The flow that this packet belongs to when it passes port `ifindex` in `direction`.
    pub fn flow_key(&self, direction: Direction, vlan: u16, ifindex: u32) -> FlowKey {
        let source = (self.source, self.source_port);
        let destination = (self.destination, self.destination_port);
        let ((local, local_port), (remote, remote_port)) = match direction {
            Direction::Tx => (source, destination),
            Direction::Rx => (destination, source),
        };
        FlowKey { local, remote, local_port, remote_port, proto: self.proto, vlan, ifindex }
    }
}

/// Parses a whole frame, from the Ethernet header on.
pub fn parse(frame: &[u8]) -> Parsed {
    parse_captured(frame, frame.len())
}

/// Parses the beginning of a frame that was `length` octets long when it was captured. A `length` below what is
/// there counts as what is there.
#[inline]
pub fn parse_captured(captured: &[u8], length: usize) -> Parsed {
    let frame = Frame { captured, length: length.max(captured.len()) };
    let mut vlan = 0;
    let class = frame.ethernet(&mut vlan);
    Parsed { vlan, class }
}

struct Frame<'a> {
    captured: &'a [u8],
    length: usize,
}

/// Where the walk through the headers of a network packet has come to.
struct Walk {
    offset: usize,
    proto: u8,
    later_fragment: bool,
    /// The extension headers were cut or too many: there is no transport header to be found.
    broken: bool,
    /// IPv6: the hop limit.
    hops: u8,
}

impl Frame<'_> {
    /// `N` octets at `offset`, if a header may begin there and they were captured.
    fn header<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_HEADER_OFFSET {
            return None;
        }
        self.captured.get(offset..)?.first_chunk().copied()
    }

    #[inline]
    fn ethernet(&self, vlan: &mut u16) -> Class {
        let Some(mut kind) = self.header(12).map(u16::from_be_bytes) else { return Class::Other };
        let mut offset = ETHERNET;
        for _ in 0..MAX_VLAN_TAGS {
            if kind != ethertype::VLAN && kind != ethertype::QINQ {
                break;
            }
            let Some([tci0, tci1, kind0, kind1]) = self.header(offset) else { return Class::Other };
            if *vlan == 0 {
                *vlan = u16::from_be_bytes([tci0, tci1]) & 0xfff;
            }
            kind = u16::from_be_bytes([kind0, kind1]);
            offset += VLAN_TAG;
        }
        match kind {
            ethertype::IPV4 => self.ipv4(offset),
            ethertype::IPV6 => self.ipv6(offset),
            ethertype::ARP => Class::Arp,
            _ => Class::Other,
        }
    }

    #[inline]
    fn ipv4(&self, at: usize) -> Class {
        let Some(h) = self.header::<20>(at) else { return Class::Malformed };
        let header_length = usize::from(h[0] & 0xf) * 4;
        if h[0] >> 4 != 4 || header_length < 20 || at + header_length > self.length {
            return Class::Malformed;
        }
        let total = usize::from(be16(&h, 2));
        if total != 0 && total < header_length {
            return Class::Malformed;
        }
        let end = if total == 0 { self.length } else { at + total };
        let address = |i: usize| IpAddr::from([h[i], h[i + 1], h[i + 2], h[i + 3]]);
        let walk = Walk {
            offset: at + header_length,
            proto: h[9],
            later_fragment: be16(&h, 6) & 0x1fff != 0,
            broken: false,
            hops: 0,
        };
        self.transport(walk, end, address(12), address(16), be16(&h, 4))
    }

    fn ipv6(&self, at: usize) -> Class {
        let Some(h) = self.header::<40>(at) else { return Class::Malformed };
        if h[0] >> 4 != 6 {
            return Class::Malformed;
        }
        let payload = usize::from(be16(&h, 4));
        let end = if payload == 0 { self.length } else { at + 40 + payload };
        let address = |from: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&h[from..from + 16]);
            address_from_bytes(bytes)
        };
        let mut walk =
            Walk { offset: at + 40, proto: h[6], later_fragment: false, broken: false, hops: h[7] };
        self.extensions(&mut walk);
        self.transport(walk, end, address(8), address(24), 0)
    }

    /// Goes past the extension headers (RFC 8200 section 4).
    fn extensions(&self, walk: &mut Walk) {
        for _ in 0..MAX_EXTENSION_HEADERS {
            if !is_extension(walk.proto) {
                return;
            }
            let Some(h) = self.header::<8>(walk.offset) else {
                walk.broken = true;
                return;
            };
            let length = usize::from(h[1]);
            match walk.proto {
                proto::FRAGMENT => {
                    if be16(&h, 2) & 0xfff8 != 0 {
                        walk.later_fragment = true;
                        walk.proto = h[0];
                        return;
                    }
                    walk.offset += 8;
                }
                // RFC 4302 section 2.2: in units of 4, less 2; all others in units of 8, less 1.
                proto::AH => walk.offset += (length + 2) * 4,
                _ => walk.offset += (length + 1) * 8,
            }
            walk.proto = h[0];
        }
        walk.broken = is_extension(walk.proto);
    }

    #[inline]
    fn transport(&self, walk: Walk, end: usize, source: IpAddr, destination: IpAddr, ip_id: u16) -> Class {
        let mut ip = Ip {
            source,
            destination,
            proto: walk.proto,
            source_port: 0,
            destination_port: 0,
            ip_id,
            later_fragment: walk.later_fragment,
            tcp: None,
            echo: None,
            payload: None,
        };
        let (at, end) = (walk.offset, end.min(self.length));
        if walk.broken {
            return Class::Ip(ip);
        }
        if walk.later_fragment {
            ip.payload = payload(at, end);
            return Class::Ip(ip);
        }
        if walk.proto == proto::ICMPV6
            && self.fits(at, end, 8).is_some_and(|h: [u8; 8]| is_discovery(h[0], walk.hops))
        {
            return Class::Nd;
        }
        // A `None` on the way means that the header does not fit: what was learned until then stands.
        let _fits = match walk.proto {
            proto::TCP => self.tcp(at, end, &mut ip),
            proto::UDP => self.ports(at, end, 8, &mut ip),
            proto::SCTP => self.ports(at, end, 12, &mut ip),
            proto::ICMP => self.icmp(at, end, 8, 0, &mut ip),
            proto::ICMPV6 => self.icmp(at, end, 128, 129, &mut ip),
            _ => {
                ip.payload = payload(at, end);
                None
            }
        };
        Class::Ip(ip)
    }

    #[inline]
    fn tcp(&self, at: usize, end: usize, ip: &mut Ip) -> Option<()> {
        let h: [u8; 20] = self.fits(at, end, 20)?;
        ip.source_port = be16(&h, 0);
        ip.destination_port = be16(&h, 2);
        let header_length = usize::from(h[12] >> 4) * 4;
        if header_length < 20 {
            return None;
        }
        let payload = end.checked_sub(at + header_length)?;
        let payload = Payload { at: at + header_length, length: u32::try_from(payload).unwrap_or(u32::MAX) };
        ip.payload = Some(payload);
        let options =
            self.captured.get(at + 20..(at + header_length).min(self.captured.len())).unwrap_or_default();
        ip.tcp = Some(Tcp {
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            flags: h[13],
            payload: payload.length,
            timestamps: tcp_timestamps(options),
            timestamps_first: header_length >= 32
                && at + 20 <= MAX_HEADER_OFFSET
                && options.starts_with(&[1, 1, 8, 10])
                && options.len() >= 12,
        });
        Some(())
    }

    fn ports(&self, at: usize, end: usize, header_length: usize, ip: &mut Ip) -> Option<()> {
        let h: [u8; 4] = self.fits(at, end, header_length)?;
        ip.source_port = be16(&h, 0);
        ip.destination_port = be16(&h, 2);
        ip.payload = payload(at + header_length, end);
        Some(())
    }

    fn icmp(&self, at: usize, end: usize, request: u8, reply: u8, ip: &mut Ip) -> Option<()> {
        let h: [u8; 8] = self.fits(at, end, 8)?;
        ip.echo = match h[0] {
            kind if kind == request => Some(Echo::Request),
            kind if kind == reply => Some(Echo::Reply),
            _ => None,
        };
        // The identifier names the flow both ways; what is not an echo is told apart by type and code.
        let id = if ip.echo.is_some() { be16(&h, 4) } else { be16(&h, 0) };
        (ip.source_port, ip.destination_port) = (id, id);
        ip.payload = payload(at + 8, end);
        Some(())
    }

    /// The first `N` octets of a header of `length` octets at `at`, if the header ends within `end`.
    fn fits<const N: usize>(&self, at: usize, end: usize, length: usize) -> Option<[u8; N]> {
        if at + length > end { None } else { self.header(at) }
    }
}

fn payload(at: usize, end: usize) -> Option<Payload> {
    end.checked_sub(at).map(|length| Payload { at, length: u32::try_from(length).unwrap_or(u32::MAX) })
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Neighbour discovery has the types 133 to 137, and a hop limit that tells that no router was passed (RFC 4861 section 4). MLD's query,
/// report and done are 130 to 132, its version 2 report is 143, and the hop limit is 1 (RFC 3810 section 5).
const fn is_discovery(icmpv6_type: u8, hops: u8) -> bool {
    matches!((hops, icmpv6_type), (255, 133..=137) | (1, 130..=132 | 143))
}

const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        proto::HOP_BY_HOP
            | proto::ROUTING
            | proto::FRAGMENT
            | proto::AH
            | proto::DESTINATION
            | proto::MOBILITY
            | proto::HIP
            | proto::SHIM6
    )
}

/// Looks for the time stamps option (kind 8, length 10). Each step takes at least one octet of at most 40.
fn tcp_timestamps(mut options: &[u8]) -> Option<TcpTimestamps> {
    loop {
        match *options {
            [] | [0, ..] => return None,
            [1, ref rest @ ..] => options = rest,
            [8, 10, a, b, c, d, e, f, g, h, ..] => {
                return Some(TcpTimestamps {
                    value: u32::from_be_bytes([a, b, c, d]),
                    echo: u32::from_be_bytes([e, f, g, h]),
                });
            }
            [_, length, ..] if length >= 2 => options = options.get(usize::from(length)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
