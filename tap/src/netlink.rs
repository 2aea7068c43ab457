//! The few route-netlink requests that the clsact way of attaching takes. See `linux/rtnetlink.h`, `linux/pkt_sched.h`
//! and `linux/pkt_cls.h`.

mod blocks;
mod device;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ippm::flow::Direction;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::set::DIRECTIONS;

pub(crate) use blocks::{
    Blocks, Unbound, bind_blocks, blocks_of, bound_to, make_holder, remove_block_filters, remove_blocks,
    remove_holder, set_block_filter,
};
pub(crate) use device::{State, state_of};

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

/// Sends a request and reads until its acknowledgement or its dump's end. Returns the objects that came with the answer, without
/// their netlink headers.
fn request(m: Vec<u8>) -> io::Result<Vec<Vec<u8>>> {
    let [answer] = requests([m])?;
    answer
}

/// A socket for requests, in the calling thread's network namespace.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(fd)
}

/// Sends several requests at once, which the kernel does one after the other, whatever becomes of each: it then hardly lets
/// others have the lock for network devices in between. Returns what [`request`] would for each.
fn requests<const N: usize>(all: [Vec<u8>; N]) -> io::Result<[io::Result<Vec<Vec<u8>>>; N]> {
    requests_by(open()?.as_fd(), all)
}

/// The same by this socket, which is of no use any more after an error of its own.
fn requests_by<const N: usize>(
    fd: BorrowedFd<'_>,
    all: [Vec<u8>; N],
) -> io::Result<[io::Result<Vec<Vec<u8>>>; N]> {
    let mut m = Vec::new();
    for mut one in all {
        let len = one.len() as u32;
        one[..4].copy_from_slice(&len.to_ne_bytes());
        m.extend_from_slice(&one);
    }
    sendto(fd.as_raw_fd(), &m, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = [0u8; 16384];
    let mut answers = Vec::with_capacity(N);
    let mut objects = Vec::new();
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
                _ => objects.push(buffer[at + 16..at + length].to_vec()),
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

/// Puts a program at a direction of a port, in place of ours that was there.
pub(crate) fn set_filter(ifindex: u32, direction: Direction, program: BorrowedFd<'_>) -> io::Result<()> {
    set_filter_at(ifindex, direction, program, place_of(ifindex, direction))
}

/// Puts programs at both directions of a port that has none of ours, with the clsact qdisc if that is not there. The qdisc stays there
/// until the port goes: without a filter it costs nothing, and taking it away can cost packets (see [`crate::dispatch`]).
///
/// All of it is one message: every other one would wait for the lock that others hold for long while containers start.
pub(crate) fn add_filters(
    ifindex: u32,
    programs: [(Direction, BorrowedFd<'_>); 2],
) -> Result<(), (Direction, io::Error)> {
    let mut qdisc = message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, ifindex, 0xffff_0000, CLSACT, 0);
    attribute(&mut qdisc, TCA_KIND, b"clsact\0");
    let [(tx, at_tx), (rx, at_rx)] = programs;
    let first = |direction, program| {
        new_filter(ifindex, direction, priorities(direction)[0], program, NLM_F_CREATE | NLM_F_EXCL)
    };
    let all = [qdisc, first(tx, at_tx), first(rx, at_rx)];
    let [added, put_tx, put_rx] = requests(all).map_err(|error| (tx, error))?;
    let is = |error: &io::Error, code| error.raw_os_error() == Some(code);
    let qdisc_is_new = match added {
        Ok(_) => true,
        Err(error) if is(&error, libc::EEXIST) => false,
        Err(error) => return Err((tx, error)),
    };
    for ((direction, program), put) in programs.into_iter().zip([put_tx, put_rx]) {
        let done = match put {
            // one of ours that nobody remembers may be at another place: this one is there in its stead
            Ok(_) if !qdisc_is_new => remove_other_places(ifindex, direction),
            Ok(_) => Ok(()),
            // one of ours is there, or somebody's at our first place
            Err(error) if is(&error, libc::EEXIST) || is(&error, libc::EINVAL) => {
                set_filter(ifindex, direction, program)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            // what can be undone; the port is tapped at both directions or not at all
            for direction in [tx, rx] {
                let _ = remove_filter(ifindex, direction);
            }
            return Err((direction, error));
        }
    }
    Ok(())
}

/// Puts programs in the place of ours at both directions, by one message: each that is waited for keeps others from the lock.
pub(crate) fn replace_filters(
    ifindex: u32,
    programs: [(Direction, BorrowedFd<'_>); 2],
) -> Result<(), (Direction, io::Error)> {
    let at_first = |(direction, program)| {
        new_filter(ifindex, direction, priorities(direction)[0], program, NLM_F_REPLACE)
    };
    let answers = requests(programs.map(at_first)).map_err(|error| (programs[0].0, error))?;
    for ((direction, program), answer) in programs.into_iter().zip(answers) {
        match answer {
            // ours is at another place, or somebody took it away
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
                set_filter(ifindex, direction, program)
            }
            other => other.map(drop),
        }
        .map_err(|error| (direction, error))?;
    }
    Ok(())
}

/// Takes ours away from every place but the first.
fn remove_other_places(ifindex: u32, direction: Direction) -> io::Result<()> {
    for priority in &priorities(direction)[1..] {
        if request(filter(RTM_GETTFILTER, 0, ifindex, direction, *priority)).is_ok() {
            request(filter(RTM_DELTFILTER, 0, ifindex, direction, *priority))?;
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
        match request(new_filter(ifindex, direction, *priority, program, NLM_F_CREATE | NLM_F_REPLACE)) {
            // another kind of filter has this priority
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refused = e,
            other => return other.map(drop),
        }
    }
    Err(refused)
}

/// The request for a filter of ours at this priority; `flags` tell what becomes of one of ours that is there.
fn new_filter(
    ifindex: u32,
    direction: Direction,
    priority: u32,
    program: BorrowedFd<'_>,
    flags: u16,
) -> Vec<u8> {
    let mut m = filter(RTM_NEWTFILTER, flags, ifindex, direction, priority);
    program_of_filter(&mut m, program);
    m
}

/// The options that say which program a filter runs.
fn program_of_filter(m: &mut Vec<u8>, program: BorrowedFd<'_>) {
    let mut options = Vec::new();
    attribute(&mut options, TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    attribute(&mut options, TCA_BPF_NAME, b"conmon\0");
    attribute(&mut options, TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
    attribute(m, TCA_OPTIONS | 1 << 15, &options);
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
    DIRECTIONS.into_iter().all(|direction| place_of(ifindex, direction).is_some())
}
