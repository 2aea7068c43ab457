//! ctnetlink's bytes: reads tracked connections, asks for all of them. See `linux/netfilter/nfnetlink_conntrack.h`.

use socket2::SockFilter;

use super::{Connection, Place};
use crate::netlink::{NLM_F_DUMP, NLM_F_REQUEST, attributes, ip4, ip16};

/// A connection began or changed; in the answer to a dump, is there (`IPCTNL_MSG_CT_NEW` of `NFNL_SUBSYS_CTNETLINK`).
pub const CT_NEW: u16 = 0x100;
const CT_GET: u16 = 0x101;
/// A connection ended.
pub const CT_DELETE: u16 = 0x102;
/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY` as a mask of groups.
pub const GROUPS: u32 = 1 | 1 << 2;

const NFGENMSG: usize = 4;
const NLMSG_HEADER: u32 = 16;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
/// `IPS_SRC_NAT` and `IPS_DST_NAT`.
const IPS_NAT: u32 = 1 << 4 | 1 << 5;

/// The connection that a message's body speaks of; none if a part is missing.
pub fn connection(body: &[u8]) -> Option<Connection> {
    let (mut original, mut reply) = (None, None);
    for (kind, value) in attributes(body.get(NFGENMSG..)?) {
        match kind {
            CTA_TUPLE_ORIG => original = tuple(value),
            CTA_TUPLE_REPLY => reply = tuple(value),
            _ => {}
        }
    }
    let ((proto, original), (_, reply)) = (original?, reply?);
    Some(Connection { proto, original, reply })
}

fn tuple(value: &[u8]) -> Option<(u8, (Place, Place))> {
    let (mut from, mut to, mut proto) = (None, None, None);
    let (mut from_port, mut to_port) = (0, 0);
    for (kind, value) in attributes(value) {
        for (inner, value) in attributes(value) {
            let port = || value.try_into().map_or(0, u16::from_be_bytes);
            match (kind, inner) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC) => from = ip4(value),
                (CTA_TUPLE_IP, CTA_IP_V4_DST) => to = ip4(value),
                (CTA_TUPLE_IP, CTA_IP_V6_SRC) => from = ip16(value),
                (CTA_TUPLE_IP, CTA_IP_V6_DST) => to = ip16(value),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => proto = value.first().copied(),
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => from_port = port(),
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => to_port = port(),
                (CTA_TUPLE_PROTO, CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID) => {
                    (from_port, to_port) = (port(), port());
                }
                _ => {}
            }
        }
    }
    Some((proto?, ((from?, from_port), (to?, to_port))))
}

/// Asks for every tracked connection of every family.
pub fn dump(seq: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    bytes.extend(20u32.to_ne_bytes());
    bytes.extend(CT_GET.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4 + NFGENMSG]);
    bytes
}

/// A filter for the listener's socket: lets pass what tells of a translated connection, and what does not say. On a busy host most
/// connections are none, and each message costs a wake-up.
pub fn only_translated() -> [SockFilter; 9] {
    // linux/filter.h: what an ancillary load reads
    const SKF_AD_NLA: u32 = -0x1000i32 as u32 + 12;
    const LD_IMM: u16 = 0x00;
    const LDX_IMM: u16 = 0x01;
    const LD_W_ABS: u16 = 0x20;
    const LD_W_IND: u16 = 0x40;
    const JEQ: u16 = 0x15;
    const JSET: u16 = 0x45;
    const TAX: u16 = 0x07;
    const RET: u16 = 0x06;
    let op = SockFilter::new;
    [
        // the attribute X from place A on: its place in the message, 0 if it is not there
        op(LD_IMM, 0, 0, NLMSG_HEADER + NFGENMSG as u32),
        op(LDX_IMM, 0, 0, u32::from(CTA_STATUS)),
        op(LD_W_ABS, 0, 0, SKF_AD_NLA),
        op(JEQ, 3, 0, 0),
        op(TAX, 0, 0, 0),
        op(LD_W_IND, 0, 0, 4),
        op(JSET, 0, 1, IPS_NAT),
        op(RET, 0, 0, u32::MAX),
        op(RET, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 0x8000, &parts.concat())
    }

    fn tcp4(kind: u16, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let ip = nested(CTA_TUPLE_IP, &[attribute(CTA_IP_V4_SRC, &from.0), attribute(CTA_IP_V4_DST, &to.0)]);
        let proto = nested(
            CTA_TUPLE_PROTO,
            &[
                attribute(CTA_PROTO_NUM, &[6]),
                attribute(CTA_PROTO_SRC_PORT, &from.1.to_be_bytes()),
                attribute(CTA_PROTO_DST_PORT, &to.1.to_be_bytes()),
            ],
        );
        nested(kind, &[ip, proto])
    }

    fn body() -> Vec<u8> {
        let (a, gateway, b) = ([10, 1, 0, 2], [10, 1, 0, 1], [10, 2, 0, 2]);
        [
            vec![2, 0, 0, 0],
            tcp4(CTA_TUPLE_ORIG, (a, 4000), (gateway, 8080)),
            tcp4(CTA_TUPLE_REPLY, (b, 80), (a, 4000)),
            attribute(CTA_STATUS, &0x1a8u32.to_be_bytes()),
        ]
        .concat()
    }

    /// In a kernel, on a socket that takes any bytes: what passes the filter is read, in order.
    #[test]
    fn only_translated_connections_pass_the_filter() {
        use std::os::unix::net::UnixDatagram;
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        socket2::SockRef::from(&receiver).attach_filter(&only_translated()).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let send = |number: u8, status: Option<u32>| {
            let status = status.map(|s| attribute(CTA_STATUS, &s.to_be_bytes())).unwrap_or_default();
            let other = attribute(CTA_TUPLE_ORIG, &[number; 40]);
            sender.send(&[vec![0; 16], vec![2, 0, 0, 0], other, status].concat()).unwrap();
        };
        // confirmed and seen both ways; the same with its destination translated; with its source; one that does not say
        send(1, Some(0x0e));
        send(2, Some(0x2e));
        send(3, Some(0x1e));
        send(4, Some(0x18e & !IPS_NAT));
        send(5, None);
        let mut passed = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(n) = receiver.recv(&mut buffer) {
            passed.push(buffer[..n][24]);
        }
        assert_eq!(passed, [2, 3, 5]);
    }

    #[test]
    fn reads_a_connection() {
        let at = |a: [u8; 4], port| (a.into(), port);
        let want = Connection {
            proto: 6,
            original: (at([10, 1, 0, 2], 4000), at([10, 1, 0, 1], 8080)),
            reply: (at([10, 2, 0, 2], 80), at([10, 1, 0, 2], 4000)),
        };
        assert_eq!(connection(&body()), Some(want));
    }

    #[test]
    fn an_echo_has_its_identifier_in_both_ends() {
        let side = |kind| {
            let ip = nested(
                CTA_TUPLE_IP,
                &[attribute(CTA_IP_V6_SRC, &[1; 16]), attribute(CTA_IP_V6_DST, &[2; 16])],
            );
            let proto = nested(
                CTA_TUPLE_PROTO,
                &[attribute(CTA_PROTO_NUM, &[58]), attribute(CTA_PROTO_ICMPV6_ID, &77u16.to_be_bytes())],
            );
            nested(kind, &[ip, proto])
        };
        let body = [vec![10, 0, 0, 0], side(CTA_TUPLE_ORIG), side(CTA_TUPLE_REPLY)].concat();
        let c = connection(&body).unwrap();
        assert_eq!((c.proto, c.original.0.1, c.original.1.1), (58, 77, 77));
    }

    #[test]
    fn half_a_connection_is_none() {
        let cut = [vec![2, 0, 0, 0], tcp4(CTA_TUPLE_ORIG, ([1; 4], 1), ([2; 4], 2))].concat();
        assert_eq!(connection(&cut), None);
        assert_eq!(connection(&[]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = connection(&bytes);
        }

        #[test]
        fn a_damaged_message_never_panics(at in 0usize..200, byte: u8, cut in 0usize..220) {
            let mut body = body();
            if let Some(b) = body.get_mut(at) { *b = byte; }
            body.truncate(cut);
            let _ = connection(&body);
        }
    }
}
