//! Filters that many ports share: a block of them for each direction, which a port's clsact qdisc is bound to when it is made. That is one
//! request, where a qdisc and filters of the port's own are three, each of which waits for the lock for network devices anew.
//!
//! A block is there as long as a qdisc is bound to it. One device of ours, which carries no packet, is its holder: a bridge, because
//! where there are containers the kernel has bridges.

use std::io;
use std::os::fd::BorrowedFd;

use ippm::flow::Direction;

use super::*;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETQDISC: u16 = 38;
/// `linux/netlink.h`.
const NLM_F_ECHO: u16 = 8;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// In place of an interface: the parent is a block's number.
const MAGIC_BLOCK: u32 = u32::MAX;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const IS_THERE: Option<i32> = Some(libc::EEXIST);

/// The numbers of the two blocks, by which they are known within a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) tx: u32,
    pub(crate) rx: u32,
}

impl Blocks {
    fn of(self, direction: Direction) -> u32 {
        match direction {
            Direction::Tx => self.tx,
            Direction::Rx => self.rx,
        }
    }
}

/// Makes the device that holds the blocks, if it is not there.
pub(crate) fn make_holder(name: &str) -> io::Result<()> {
    let mut m = message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0, 0, 0, 0);
    // `struct ifinfomsg` is shorter than `struct tcmsg`
    m.truncate(16 + 16);
    attribute(&mut m, IFLA_IFNAME, format!("{name}\0").as_bytes());
    let mut kind = Vec::new();
    attribute(&mut kind, IFLA_INFO_KIND, b"bridge\0");
    attribute(&mut m, IFLA_LINKINFO | 1 << 15, &kind);
    match request(m) {
        Err(e) if e.raw_os_error() == IS_THERE => Ok(()),
        other => other.map(drop),
    }
}

/// Removes it, if it is there; what is on the blocks without another qdisc bound to them goes, too.
pub(crate) fn remove_holder(name: &str) -> io::Result<()> {
    let Ok(ifindex) = nix::net::if_::if_nametoindex(name) else { return Ok(()) };
    let mut m = message(RTM_DELLINK, 0, ifindex, 0, 0, 0);
    m.truncate(16 + 16);
    match request(m) {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other.map(drop),
    }
}

/// Puts a clsact qdisc at an interface that has none, bound to the blocks: from now on packets run through their filters. False if there is
/// one already that is not bound to them. What was not answered may
/// still be: the socket is of no use then.
pub(crate) fn bind_blocks(fd: BorrowedFd<'_>, ifindex: u32, blocks: Blocks) -> Result<bool, Unbound> {
    let mut m = message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, ifindex, CLSACT_HANDLE, CLSACT, 0);
    attribute(&mut m, TCA_KIND, b"clsact\0");
    attribute(&mut m, TCA_INGRESS_BLOCK, &blocks.tx.to_ne_bytes());
    attribute(&mut m, TCA_EGRESS_BLOCK, &blocks.rx.to_ne_bytes());
    let [answer] = requests_by(fd, [m]).map_err(Unbound::Unanswered)?;
    match answer {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == IS_THERE => {
            Ok(blocks_of(ifindex).map_err(Unbound::Refused)? == Some(blocks))
        }
        Err(e) => Err(Unbound::Refused(e)),
    }
}

/// Why an interface is not bound.
#[derive(Debug)]
pub(crate) enum Unbound {
    /// The kernel does not want to.
    Refused(io::Error),
    /// There was no answer: it may still come.
    Unanswered(io::Error),
}

impl From<Unbound> for io::Error {
    fn from(unbound: Unbound) -> Self {
        let (Unbound::Refused(error) | Unbound::Unanswered(error)) = unbound;
        error
    }
}

/// The blocks that an interface's clsact qdisc is bound to. None without such a qdisc, or with one that has filters of its own.
pub(crate) fn blocks_of(ifindex: u32) -> io::Result<Option<Blocks>> {
    // told to those who listen, and to who asks only at request
    let answer = match request(message(RTM_GETQDISC, NLM_F_ECHO, ifindex, CLSACT_HANDLE, CLSACT, 0)) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) => {
            return Ok(None);
        }
        other => other?,
    };
    Ok(answer.first().and_then(|qdisc| blocks_in(qdisc)))
}

/// The blocks in what the kernel tells of a qdisc: `struct tcmsg` and attributes.
fn blocks_in(qdisc: &[u8]) -> Option<Blocks> {
    let number = |kind| Some(u32::from_ne_bytes(attribute_of(qdisc.get(20..)?, kind)?.try_into().ok()?));
    Some(Blocks { tx: number(TCA_INGRESS_BLOCK)?, rx: number(TCA_EGRESS_BLOCK)? })
}

/// The interfaces that are bound to these blocks.
pub(crate) fn bound_to(blocks: Blocks) -> io::Result<Vec<u32>> {
    let all = request(message(RTM_GETQDISC, NLM_F_DUMP, 0, 0, 0, 0))?;
    let ours = all.iter().filter(|qdisc| blocks_in(qdisc) == Some(blocks));
    Ok(ours.filter_map(|qdisc| Some(u32::from_ne_bytes(qdisc.get(4..8)?.try_into().ok()?))).collect())
}

/// The payload of the first attribute of a kind.
pub(super) fn attribute_of(mut all: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (head, _) = all.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let payload = all.get(4..length)?;
        if u16::from_ne_bytes([head[2], head[3]]) == wanted {
            return Some(payload);
        }
        all = all.get(length.next_multiple_of(4)..)?;
    }
}

/// Takes the qdisc away if it is bound to these blocks.
pub(crate) fn remove_blocks(ifindex: u32, blocks: Blocks) -> io::Result<()> {
    if blocks_of(ifindex)? != Some(blocks) {
        return Ok(());
    }
    match request(message(RTM_DELQDISC, 0, ifindex, CLSACT_HANDLE, CLSACT, 0)) {
        // it has gone in between
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(()),
        other => other.map(drop),
    }
}

/// A request about our filter on a block.
fn block_filter(kind: u16, flags: u16, blocks: Blocks, direction: Direction) -> Vec<u8> {
    let info = 1 << 16 | ETH_P_ALL.to_be() >> 16;
    let mut m = message(kind, flags, MAGIC_BLOCK, HANDLE, blocks.of(direction), info);
    attribute(&mut m, TCA_KIND, b"bpf\0");
    m
}

/// Puts a program on a block, in place of ours that was there. The block is there.
pub(crate) fn set_block_filter(
    blocks: Blocks,
    direction: Direction,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut m = block_filter(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, blocks, direction);
    program_of_filter(&mut m, program);
    request(m).map(drop)
}

/// Takes ours away from both blocks. They may not be there.
pub(crate) fn remove_block_filters(blocks: Blocks) -> io::Result<()> {
    for direction in DIRECTIONS {
        match request(block_filter(RTM_DELTFILTER, 0, blocks, direction)) {
            // there is no such filter, or no such block, or nothing of the kind in this kernel
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP)) => {}
            other => drop(other?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_damaged_ones_are_none() {
        let mut all = Vec::new();
        attribute(&mut all, TCA_KIND, b"clsact\0");
        attribute(&mut all, TCA_INGRESS_BLOCK, &7u32.to_ne_bytes());
        assert_eq!(attribute_of(&all, TCA_INGRESS_BLOCK), Some(&7u32.to_ne_bytes()[..]));
        assert_eq!(attribute_of(&all, TCA_KIND), Some(&b"clsact\0"[..]));
        assert_eq!(attribute_of(&all, TCA_EGRESS_BLOCK), None);
        for end in 0..all.len() {
            assert_eq!(attribute_of(&all[..end], TCA_EGRESS_BLOCK), None, "{end}");
        }
        // a length of nothing
        assert_eq!(attribute_of(&[0; 8], TCA_KIND), None);
    }
}
