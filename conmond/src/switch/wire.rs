//! rtnetlink's bytes: reads links, addresses and counters, and builds requests.
//!
//! Only what ConMon needs is looked at, so an attribute that a newer kernel invents, or one of an odd length, cannot
//! make a whole message fail: it is passed over, and a field that is not there is none. No input makes this panic.

use std::net::IpAddr;

use super::{HostAddress, Link, LinkStats};
use crate::mac::Mac;
#[cfg(test)]
use crate::netlink::align;
use crate::netlink::{NLM_F_DUMP, NLM_F_REQUEST, attributes, ip4, ip16, u32_at, u64_at};

pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_GETADDR: u16 = 22;

/// Multicast groups are a bit mask when given at bind: `RTMGRP_LINK`.
pub const GROUP_LINK: u32 = 1;

pub const AF_UNSPEC: u8 = 0;
pub const AF_INET: u8 = 2;
pub const AF_BRIDGE: u8 = 7;
pub const AF_INET6: u8 = 10;

const IFF_UP: u32 = 0x1;
const IFF_LOWER_UP: u32 = 0x1_0000;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;
/// Leave the statistics out: a third of the answer, and the dear part of it.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_TARGET_NETNSID: u16 = 10;

const IFINFO: usize = 16;
const IFADDR: usize = 8;

/// The link that an `RTM_NEWLINK` or `RTM_DELLINK` body speaks of; none when it is too short, or when a bridge
/// speaks of its port (`AF_BRIDGE`): then the link itself also speaks, and a bridge's *delete* is no deletion.
pub fn link(body: &[u8]) -> Option<Link> {
    if *body.first()? == AF_BRIDGE {
        return None;
    }
    let ifindex = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        ifindex,
        name: String::new(),
        master: None,
        link_netnsid: None,
        peer_ifindex: None,
        up: flags & IFF_UP != 0 && flags & IFF_LOWER_UP != 0,
        kind: None,
        mac: None,
        mtu: 0,
    };
    for (kind, value) in attributes(body.get(IFINFO..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = Mac::from_slice(value),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0).unwrap_or(0),
            IFLA_LINK => link.peer_ifindex = u32_at(value, 0).filter(|index| *index != 0),
            IFLA_MASTER => link.master = u32_at(value, 0).filter(|index| *index != 0),
            // Negative means that the peer's namespace has no number in ours.
            IFLA_LINK_NETNSID => {
                link.link_netnsid = u32_at(value, 0).map(|id| id as i32).filter(|id| *id >= 0)
            }
            IFLA_LINKINFO => {
                link.kind =
                    attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND).map(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    Some(link)
}

/// The counters in an `RTM_NEWLINK` body.
pub fn stats(body: &[u8]) -> Option<LinkStats> {
    let (_, value) = attributes(body.get(IFINFO..)?).find(|(kind, _)| *kind == IFLA_STATS64)?;
    Some(LinkStats {
        rx_packets: u64_at(value, 0)?,
        tx_packets: u64_at(value, 8)?,
        rx_bytes: u64_at(value, 16)?,
        tx_bytes: u64_at(value, 24)?,
        rx_dropped: u64_at(value, 48)?,
        tx_dropped: u64_at(value, 56)?,
    })
}

pub fn address(body: &[u8]) -> Option<HostAddress> {
    let family = *body.first()?;
    let prefix_len = *body.get(1)?;
    let ifindex = u32_at(body, 4)?;
    let mut found = None;
    for (kind, value) in attributes(body.get(IFADDR..)?) {
        // On a point-to-point link IFA_ADDRESS is the far end's, and IFA_LOCAL ours.
        let better = kind == IFA_LOCAL || (kind == IFA_ADDRESS && found.is_none());
        if better && let Some(address) = ip(family, value) {
            found = Some(address);
        }
    }
    Some(HostAddress { ifindex, address: found?, prefix_len })
}

/// A request under construction.
pub struct Request(Vec<u8>);

impl Request {
    /// Asks for one link (`ifindex` set) or all (zero), in the namespace with that number, or our own.
    pub fn links(seq: u32, ifindex: u32, netnsid: Option<i32>, with_stats: bool) -> Request {
        let flags = NLM_F_REQUEST | if ifindex == 0 { NLM_F_DUMP } else { 0 };
        let mut request = Request::new(RTM_GETLINK, flags, seq);
        request.0.extend([AF_UNSPEC, 0, 0, 0]);
        request.0.extend(ifindex.to_ne_bytes());
        request.0.extend([0; 8]);
        if !with_stats {
            request.attribute(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        }
        if let Some(id) = netnsid {
            request.attribute(IFLA_TARGET_NETNSID, id.to_ne_bytes());
        }
        request
    }

    /// Asks for the addresses of one family, of one link (`ifindex` set) or all (zero).
    pub fn addresses(seq: u32, family: u8, ifindex: u32, netnsid: Option<i32>) -> Request {
        let mut request = Request::new(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, seq);
        request.0.extend([family, 0, 0, 0]);
        request.0.extend(ifindex.to_ne_bytes());
        if let Some(id) = netnsid {
            request.attribute(IFA_TARGET_NETNSID, id.to_ne_bytes());
        }
        request
    }

    fn new(kind: u16, flags: u16, seq: u32) -> Request {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(seq.to_ne_bytes());
        bytes.extend([0; 4]);
        Request(bytes)
    }

    fn attribute(&mut self, kind: u16, value: [u8; 4]) {
        self.0.extend(8u16.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
    }

    /// The finished message.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => ip4(value),
        AF_INET6 => ip16(value),
        _ => None,
    }
}

/// A string that ends at its first zero byte; interface names may hold any byte, so what is no UTF-8 is replaced.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{errno, messages};
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn ifinfo(family: u8, ifindex: u32, flags: u32) -> Vec<u8> {
        let mut body = vec![family, 0, 1, 0];
        body.extend(ifindex.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        body
    }

    fn veth_body() -> Vec<u8> {
        let mut body = ifinfo(AF_UNSPEC, 7, IFF_UP | IFF_LOWER_UP);
        body.extend(attribute(IFLA_IFNAME, b"veth12ab\0"));
        body.extend(attribute(IFLA_ADDRESS, &[2, 1, 2, 3, 4, 5]));
        body.extend(attribute(IFLA_MTU, &1500u32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINK, &6u32.to_ne_bytes()));
        body.extend(attribute(IFLA_MASTER, &3u32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINK_NETNSID, &2i32.to_ne_bytes()));
        body.extend(attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"veth\0")));
        body
    }

    #[test]
    fn reads_a_port() {
        let link = link(&veth_body()).expect("a link");
        assert!(link.is_veth() && !link.is_bridge());
        assert_eq!(
            link,
            Link {
                ifindex: 7,
                name: "veth12ab".into(),
                master: Some(3),
                link_netnsid: Some(2),
                peer_ifindex: Some(6),
                up: true,
                kind: Some("veth".into()),
                mac: Some(Mac([2, 1, 2, 3, 4, 5])),
                mtu: 1500,
            }
        );
    }

    #[test]
    fn up_needs_switch_and_carrier() {
        for (flags, up) in [(0, false), (IFF_UP, false), (IFF_LOWER_UP, false), (IFF_UP | IFF_LOWER_UP, true)]
        {
            assert_eq!(link(&ifinfo(AF_UNSPEC, 7, flags)).expect("a link").up, up, "{flags:#x}");
        }
    }

    #[test]
    fn odd_attributes_cost_only_themselves() {
        let mut body = ifinfo(AF_UNSPEC, 9, 0);
        body.extend(attribute(IFLA_MASTER, &[1, 0]));
        body.extend(attribute(IFLA_MTU, &[]));
        body.extend(attribute(IFLA_LINKINFO, &[200, 0, 1]));
        body.extend(attribute(IFLA_LINK_NETNSID, &(-1i32).to_ne_bytes()));
        body.extend(attribute(0x1fff, &[1; 90]));
        body.extend(attribute(IFLA_IFNAME, b"odd\xff\0junk"));
        let link = link(&body).expect("a link");
        assert_eq!((link.master, link.mtu, link.kind, link.link_netnsid), (None, 0, None, None));
        assert_eq!(link.name, "odd\u{fffd}");
    }

    #[test]
    fn an_attribute_shorter_than_its_header_ends_the_walk() {
        let mut body = ifinfo(AF_UNSPEC, 9, 0);
        body.extend([0; 8]);
        body.extend(attribute(IFLA_IFNAME, b"behind\0"));
        assert_eq!(link(&body).expect("a link").name, "");
    }

    #[test]
    fn what_a_bridge_says_of_its_port_is_passed_over() {
        assert_eq!(link(&ifinfo(AF_BRIDGE, 7, IFF_UP)), None);
    }

    #[test]
    fn reads_counters_by_the_kernels_layout() {
        let mut value = Vec::new();
        for n in 1..=24u64 {
            value.extend(n.to_ne_bytes());
        }
        let mut body = ifinfo(AF_UNSPEC, 1, 0);
        body.extend(attribute(IFLA_STATS64, &value));
        let want = LinkStats {
            rx_packets: 1,
            tx_packets: 2,
            rx_bytes: 3,
            tx_bytes: 4,
            rx_dropped: 7,
            tx_dropped: 8,
        };
        assert_eq!(stats(&body), Some(want));
        assert_eq!(stats(&ifinfo(AF_UNSPEC, 1, 0)), None);
    }

    #[test]
    fn the_near_end_of_a_point_to_point_address_wins() {
        for order in [[IFA_LOCAL, IFA_ADDRESS], [IFA_ADDRESS, IFA_LOCAL]] {
            let mut body = vec![AF_INET, 24, 0, 0];
            body.extend(5u32.to_ne_bytes());
            for kind in order {
                body.extend(attribute(kind, &[10, 0, 0, kind as u8]));
            }
            let want = HostAddress { ifindex: 5, address: [10, 0, 0, 2].into(), prefix_len: 24 };
            assert_eq!(address(&body), Some(want));
        }
    }

    #[test]
    fn walks_several_messages_and_stops_at_a_lie() {
        let mut one = Request::links(3, 7, Some(4), false).into_bytes();
        let two = Request::addresses(4, AF_INET6, 9, None).into_bytes();
        one.extend(&two);
        one.extend([255, 255, 0, 0, 1, 2, 3]);
        let found: Vec<_> = messages(&one).map(|m| (m.kind, m.flags, m.seq, m.body.len())).collect();
        assert_eq!(
            found,
            [(RTM_GETLINK, NLM_F_REQUEST, 3, 32), (RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 4, 8)]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes) {
                let _ = (link(message.body), stats(message.body), address(message.body), errno(message.body));
            }
            let _ = (link(&bytes), stats(&bytes), address(&bytes));
        }

        #[test]
        fn a_damaged_message_never_panics(at in 0usize..100, byte: u8, cut in 0usize..110) {
            let mut body = veth_body();
            if let Some(b) = body.get_mut(at) { *b = byte; }
            body.truncate(cut);
            if let Some(link) = link(&body) { prop_assert!(link.name.len() <= 3 * body.len()); }
        }
    }
}
