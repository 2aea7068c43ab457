//! What the kernel tells of an interface: whether it is up, and what it has sent.

use std::io;

use super::blocks::attribute_of;
use super::*;

const RTM_GETLINK: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFF_UP: u32 = 1;

/// An interface's state and counters, since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) is_up: bool,
    /// Packets sent by it: of a port, to its container.
    pub(crate) sent: u64,
    /// Packets that were to be sent by it and were dropped.
    pub(crate) dropped: u64,
}

/// None if the interface is not there.
pub(crate) fn state_of(ifindex: u32) -> io::Result<Option<State>> {
    let mut m = message(RTM_GETLINK, 0, ifindex, 0, 0, 0);
    // `struct ifinfomsg` is shorter than `struct tcmsg`
    m.truncate(16 + 16);
    match request(m) {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        answer => Ok(answer?.first().and_then(|link| state_in(link))),
    }
}

/// `struct ifinfomsg` and attributes; the counters are `struct rtnl_link_stats64`.
fn state_in(link: &[u8]) -> Option<State> {
    let flags = u32::from_ne_bytes(link.get(8..12)?.try_into().ok()?);
    let stats = attribute_of(link.get(16..)?, IFLA_STATS64)?;
    let count = |nth: usize| Some(u64::from_ne_bytes(stats.get(nth * 8..nth * 8 + 8)?.try_into().ok()?));
    Some(State { is_up: flags & IFF_UP != 0, sent: count(1)?, dropped: count(7)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_those_of_sending_and_a_cut_answer_is_none() {
        let mut link = vec![0; 16];
        link[8] = 1;
        let counts: Vec<u8> = (100u64..124).flat_map(u64::to_ne_bytes).collect();
        attribute(&mut link, IFLA_STATS64, &counts);
        assert_eq!(state_in(&link), Some(State { is_up: true, sent: 101, dropped: 107 }));
        for end in 0..link.len() {
            assert_eq!(state_in(&link[..end]), None, "{end}");
        }
    }
}
