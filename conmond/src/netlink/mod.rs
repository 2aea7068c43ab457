//! Netlink, below any of its families: messages and attributes in bytes, and a listener to multicast groups.
//!
//! An attribute that a newer kernel invents, or one of an odd length, is passed over, and a field that is not there is
//! none. No input makes this panic.

mod listen;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use listen::{Ear, Listener, Told, When};

/// An error, or with code 0 an acknowledgement.
pub const NLMSG_ERROR: u16 = 2;
/// The end of a dump.
pub const NLMSG_DONE: u16 = 3;
/// Messages were dropped.
pub const NLMSG_OVERRUN: u16 = 4;

/// Of every request.
pub const NLM_F_REQUEST: u16 = 0x1;
/// Asks for everything there is.
pub const NLM_F_DUMP: u16 = 0x300;
/// What was listed changed meanwhile.
pub const NLM_F_DUMP_INTR: u16 = 0x10;

const HEADER: usize = 16;
/// The upper two bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What it is.
    pub kind: u16,
    /// Flags of the header.
    pub flags: u16,
    /// Of the request that it answers.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages in one datagram, up to the first whose length cannot be true.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(rest, 0)? as usize;
        let body = rest.get(HEADER..len)?;
        let message =
            Message { kind: u16_at(rest, 4)?, flags: u16_at(rest, 6)?, seq: u32_at(rest, 8)?, body };
        rest = rest.get(align(len)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in a message's body or in a nested attribute, up to the first whose length cannot be true.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        let value = rest.get(4..len)?;
        rest = rest.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The errno in an `NLMSG_ERROR` or `NLMSG_DONE` body, zero for success or when there is none.
pub fn errno(body: &[u8]) -> i32 {
    u32_at(body, 0).map_or(0, |code| (code as i32).saturating_neg())
}

/// The next multiple of four.
pub fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// The number in the host's byte order at this place.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The number in the host's byte order at this place.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The number in the host's byte order at this place.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// An IPv4 address in four octets.
pub fn ip4(value: &[u8]) -> Option<IpAddr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into())
}

/// An IPv6 address in sixteen octets.
pub fn ip16(value: &[u8]) -> Option<IpAddr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_turn_positive() {
        assert_eq!(errno(&(-19i32).to_ne_bytes()), 19);
        assert_eq!(errno(&0u32.to_ne_bytes()), 0);
        assert_eq!(errno(&[]), 0);
        assert_eq!(errno(&i32::MIN.to_ne_bytes()), i32::MAX);
    }
}
