//! The messages that tell of links which have just been made, or have come from another network namespace, and no others.

use socket2::SockFilter;

use super::Link;
use super::wire::{self, GROUP_LINK, RTM_NEWLINK};
use crate::netlink::{Message, u32_at};

/// The group to join.
pub const GROUP: u32 = GROUP_LINK;
/// Where `struct ifinfomsg` says what changed (`linux/rtnetlink.h`); all bits, if the link is new.
const CHANGED: usize = 12;

/// A socket filter that lets nothing else pass, `linux/filter.h`. A message's numbers are in the host's byte order, and
/// the filter's in the network's.
pub fn only_new() -> [SockFilter; 6] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let op = SockFilter::new;
    [
        op(LOAD_HALF, 0, 0, 4),
        op(JUMP_EQUAL, 0, 3, u32::from(RTM_NEWLINK.to_be())),
        op(LOAD_WORD, 0, 0, 16 + CHANGED as u32),
        op(JUMP_EQUAL, 0, 1, u32::MAX),
        op(RETURN, 0, 0, u32::MAX),
        op(RETURN, 0, 0, 0),
    ]
}

/// The link that a message tells of, if it is a new one.
pub fn link(message: &Message<'_>) -> Option<Link> {
    let is_new = message.kind == RTM_NEWLINK && u32_at(message.body, CHANGED) == Some(u32::MAX);
    wire::link(message.body).filter(|_| is_new)
}
