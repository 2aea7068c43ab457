//! What of a packet is the same at every point of its way.
//!
//! In: protocol; addresses and ports where nothing translates them; TCP: sequence and acknowledgement numbers, flags,
//! time stamps, the first 16 octets of payload; all others: IPv4 identification, length, the first 48 octets of
//! payload. Out: TTL and hop limit, DSCP and ECN, every checksum (they are partial on virtual ports), for TCP also the
//! length and FIN, PSH, CWR and ECE, which move when offload cuts or joins segments.
//!
//! Two packets with the same content have the same signature: duplicate acknowledgements, repeated requests,
//! retransmissions. That is no accident to be hoped against but a case of its own: see [`crate::oneway`].

use super::digest::{Digest, Key, digest, words};
use crate::flow::address_to_bytes;
use crate::packet::{Ip, tcp_flag};

/// Octets of payload in the signature of a TCP segment.
pub const TCP_PREFIX: usize = 16;
/// Octets of payload in every other signature.
pub const PREFIX: usize = 48;

/// Whether addresses and ports are part of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuple {
    /// They are: nothing between the points translates them.
    Same,
    /// They are not.
    Translated,
}

/// The signature of a packet. `payload` is what was captured of the payload: points that compare must have captured at
/// least [`PREFIX`] octets of it, or cut at the same place.
pub fn signature(key: &Key, ip: &Ip, payload: &[u8], tuple: Tuple) -> Digest {
    let tuple = match tuple {
        Tuple::Same => {
            let [a, b] = words::<2>(&address_to_bytes(ip.source));
            let [c, d] = words::<2>(&address_to_bytes(ip.destination));
            let ports = u64::from(ip.source_port) << 16 | u64::from(ip.destination_port);
            digest(0, &[a, b, c, d, ports])
        }
        Tuple::Translated => 0,
    };
    let kind = u64::from(ip.proto) | u64::from(ip.later_fragment) << 8;
    if let Some(tcp) = &ip.tcp {
        let moving = tcp_flag::FIN | tcp_flag::PSH | 0xc0;
        let flags = u64::from(tcp.flags & !moving);
        let stamps = tcp.timestamps.map_or(0, |t| u64::from(t.value) << 32 | u64::from(t.echo));
        let [a, b] = words::<2>(&payload[..payload.len().min(TCP_PREFIX)]);
        return key.digest(&[
            tuple,
            kind | flags << 16,
            u64::from(tcp.seq) << 32 | u64::from(tcp.ack),
            stamps,
            a,
            b,
        ]);
    }
    let length = ip.payload.map_or(0, |payload| payload.length);
    let [a, b, c, d, e, f] = words::<6>(&payload[..payload.len().min(PREFIX)]);
    // An IPv4 identification of 0 says nothing, and IPv6 has none.
    key.digest(&[tuple, kind | u64::from(ip.ip_id) << 16 | u64::from(length) << 32, a, b, c, d, e, f])
}
