//! The few route-netlink requests that the clsact way of attaching takes. See `linux/rtnetlink.h`, `linux/pkt_sched.h`
//! and `linux/pkt_cls.h`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use ippm::flow::Direction;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const CLSACT: u32 = 0xffff_fff1;
const MIN_INGRESS: u32 = 0xffff_fff2;
const MIN_EGRESS: u32 = 0xffff_fff3;
/// Ours among the filters of a priority: "cm".
const HANDLE: u32 = 0x636d;
const ETH_P_ALL: u32 = 3;

fn attribute(to: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    to.extend_from_slice(&(4 + payload.len() as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(payload);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Header and `struct tcmsg`; the length is filled in by `request`.
fn message(kind: u16, flags: u16, ifindex: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut m = vec![0; 4];
    m.extend_from_slice(&kind.to_ne_bytes());
    m.extend_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    m.extend_from_slice(&1u32.to_ne_bytes());
    m.extend_from_slice(&0u32.to_ne_bytes());
    m.extend_from_slice(&[0; 4]);
    m.extend_from_slice(&ifindex.to_ne_bytes());
    m.extend_from_slice(&handle.to_ne_bytes());
    m.extend_from_slice(&parent.to_ne_bytes());
    m.extend_from_slice(&info.to_ne_bytes());
    m
}

/// Sends a request and reads until its acknowledgement or its dump's end. Returns how many objects came with the answer.
fn request(m: Vec<u8>) -> io::Result<usize> {
    let [answer] = requests([m])?;
    answer
}

/// Sends several requests at once, which the kernel does one after the other, whatever becomes of each: it then hardly lets
/// others have the lock for network devices in between. Returns what [`request`] would for each.
fn requests<const N: usize>(all: [Vec<u8>; N]) -> io::Result<[io::Result<usize>; N]> {
    let mut m = Vec::new();
    for mut one in all {
        let len = one.len() as u32;
        one[..4].copy_from_slice(&len.to_ne_bytes());
        m.extend_from_slice(&one);
    }
    let fd: OwnedFd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    sendto(fd.as_raw_fd(), &m, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = [0u8; 16384];
    let mut answers = Vec::with_capacity(N);
    let mut objects = 0;
    loop {
        let n = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        // the answer to a get comes before its acknowledgement, possibly in one read
        let mut at = 0;
        while at + 20 <= n {
            let length =
                u32::from_ne_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]) as usize;
            let kind = u16::from_ne_bytes([buffer[at + 4], buffer[at + 5]]);
            if length < 16 || at + length > n {
                break;
            }
            match kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    let code = i32::from_ne_bytes([
                        buffer[at + 16],
                        buffer[at + 17],
                        buffer[at + 18],
                        buffer[at + 19],
                    ]);
                    let objects = std::mem::take(&mut objects);
                    answers.push(if code == 0 {
                        Ok(objects)
                    } else {
                        Err(io::Error::from_raw_os_error(-code))
                    });
                }
                _ => objects += 1,
            }
            at += length.next_multiple_of(4);
        }
        if answers.len() >= N {
            return answers.try_into().map_err(|_| io::Error::other("more answers than questions"));
        }
    }
}

fn parent(direction: Direction) -> u32 {
    match direction {
        Direction::Tx => MIN_INGRESS,
        Direction::Rx => MIN_EGRESS,
    }
}

/// Where ours stands among a hook's filters, best first. From the container it comes before all others: they may end the
/// walk, and the interface has counted the packet already. To the container it comes late, when others have dropped
/// what the interface will not count. The first place can be taken by a filter of another kind.
fn priorities(direction: Direction) -> &'static [u32] {
    match direction {
        Direction::Tx => &[1, 0x636d],
        Direction::Rx => &[0x636d],
    }
}

fn filter(kind: u16, flags: u16, ifindex: u32, direction: Direction, priority: u32) -> Vec<u8> {
    let info = priority << 16 | ETH_P_ALL.to_be() >> 16;
    let mut m = message(kind, flags, ifindex, HANDLE, parent(direction), info);
    attribute(&mut m, TCA_KIND, b"bpf\0");
    m
}

/// The priority at which ours is.
fn place_of(ifindex: u32, direction: Direction) -> Option<u32> {
    let is_at = |p: &u32| request(filter(RTM_GETTFILTER, 0, ifindex, direction, *p)).is_ok();
    priorities(direction).iter().copied().find(is_at)
}

/// Adds the clsact qdisc; one that is there already is fine. Returns whether it was added.
pub(crate) fn add_clsact(ifindex: u32) -> io::Result<bool> {
    let mut m = message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, ifindex, 0xffff_0000, CLSACT, 0);
    attribute(&mut m, TCA_KIND, b"clsact\0");
    match request(m) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        other => other.map(|_| true),
    }
}

/// Takes the clsact qdisc away if it has no filter, anybody's. (One that somebody adds between the look and the removal goes
/// with it.)
pub(crate) fn remove_clsact_if_unused(ifindex: u32) -> io::Result<()> {
    for direction in [Direction::Tx, Direction::Rx] {
        let all = message(RTM_GETTFILTER, NLM_F_DUMP, ifindex, 0, parent(direction), 0);
        if request(all)? > 0 {
            return Ok(());
        }
    }
    match request(message(RTM_DELQDISC, 0, ifindex, 0xffff_0000, CLSACT, 0)) {
        // it has gone already, alone or with its interface
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(()),
        other => other.map(drop),
    }
}

/// Puts a program at a direction of a port, in place of ours that was there.
pub(crate) fn set_filter(ifindex: u32, direction: Direction, program: BorrowedFd<'_>) -> io::Result<()> {
    set_filter_at(ifindex, direction, program, place_of(ifindex, direction))
}

/// Puts programs at both directions of a port whose qdisc is new: there is nothing to look for. Every question asked takes the
/// lock that others hold for long while containers start.
pub(crate) fn set_first_filters(
    ifindex: u32,
    programs: [(Direction, BorrowedFd<'_>); 2],
) -> Result<(), (Direction, io::Error)> {
    let all = programs
        .map(|(direction, program)| replacement(ifindex, direction, priorities(direction)[0], program));
    let failed = |(direction, _): (Direction, _)| move |error| (direction, error);
    let answers = requests(all).map_err(failed(programs[0]))?;
    for (program, answer) in programs.into_iter().zip(answers) {
        match answer {
            // somebody else was quicker to put a filter at our first place
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                set_filter(ifindex, program.0, program.1).map_err(failed(program))?;
            }
            other => other.map(drop).map_err(failed(program))?,
        }
    }
    Ok(())
}

fn set_filter_at(
    ifindex: u32,
    direction: Direction,
    program: BorrowedFd<'_>,
    place: Option<u32>,
) -> io::Result<()> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for priority in place.as_ref().map_or(priorities(direction), std::slice::from_ref) {
        match request(replacement(ifindex, direction, *priority, program)) {
            // another kind of filter has this priority
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refused = e,
            other => return other.map(drop),
        }
    }
    Err(refused)
}

/// The request for a filter of ours at this priority, in place of one of ours that may be there.
fn replacement(ifindex: u32, direction: Direction, priority: u32, program: BorrowedFd<'_>) -> Vec<u8> {
    let mut m = filter(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, ifindex, direction, priority);
    let mut options = Vec::new();
    attribute(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    attribute(&mut options, TCA_BPF_NAME, b"conmon\0");
    attribute(&mut options, TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
    attribute(&mut m, TCA_OPTIONS | 1 << 15, &options);
    m
}

/// Takes ours away.
pub(crate) fn remove_filter(ifindex: u32, direction: Direction) -> io::Result<()> {
    match place_of(ifindex, direction) {
        Some(priority) => request(filter(RTM_DELTFILTER, 0, ifindex, direction, priority)).map(drop),
        None => Ok(()),
    }
}

/// Whether ours is at both directions.
pub(crate) fn has_filter(ifindex: u32) -> bool {
    [Direction::Tx, Direction::Rx].into_iter().all(|direction| place_of(ifindex, direction).is_some())
}
