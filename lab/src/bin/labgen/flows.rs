//! Many flows at once: datagrams to many ports in turn, or connections tried to many ports (a scan, a flood of SYNs).

use crate::args::Args;
use crate::{Pace, report, resolve, until_stopped};
use anyhow::{Context, Result, bail};
use lab::traffic::FlowsSent;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Ports that each socket sends to: 10,000 and so many after it. Nobody listens there; what answers is ICMP, at most some
/// hundreds a second.
const PORTS: u64 = 50_000;
const FIRST_PORT: u16 = 10_000;

/// Where a flow goes: to a port of its own, at the one of `peers` addresses from `to` on whose turn it is.
fn place(to: IpAddr, peers: u32, flow: u64) -> SocketAddr {
    let further = (flow % u64::from(peers)) as u32;
    let to = match to {
        IpAddr::V4(first) => IpAddr::from(first.to_bits().wrapping_add(further).to_be_bytes()),
        IpAddr::V6(first) => IpAddr::from(first.to_bits().wrapping_add(further.into()).to_be_bytes()),
    };
    // below 60,000
    SocketAddr::new(to, FIRST_PORT + (flow % PORTS) as u16)
}

fn peers(args: &mut Args) -> Result<u32> {
    match args.number("peers", 1)? {
        0 => bail!("--peers is at least 1"),
        n => Ok(n),
    }
}

/// `--flows` flows of datagrams, a datagram of each in turn, `--rounds` times. To `--port` alone each datagram is sent from
/// a socket that is opened for it and closed again, as resolvers do.
pub fn datagrams(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?.ip();
    let flows: u64 = args.number("flows", 1000)?;
    let rounds: u64 = args.number("rounds", 1)?;
    let size: usize = args.number("size", 64)?;
    let rate = args.real("rate", 10_000.0)?;
    let hold: u8 = args.number("hold", 0)?;
    let peers = peers(args)?;
    let port: u16 = args.number("port", 0)?;
    args.finish()?;
    if !(1..=1_000_000).contains(&flows) || size > 65_000 {
        bail!("--flows is 1 to 1,000,000, --size at most 65,000");
    }
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sockets: Vec<UdpSocket> = (0..flows.div_ceil(PORTS))
        .map(|_| UdpSocket::bind(any).context("cannot open a UDP socket"))
        .collect::<Result<_>>()?;
    let datagram = vec![0x5a; size];
    let mut sent = FlowsSent { flows, size_bytes: size, ..FlowsSent::default() };
    let mut pace = Pace::new(rate);
    'all: for _ in 0..rounds {
        for flow in 0..flows {
            if !pace.wait() {
                break 'all;
            }
            let mut to = place(to, peers, flow);
            let mut socket = &sockets[(flow / PORTS) as usize];
            let opened;
            if port != 0 {
                to.set_port(port);
                opened = UdpSocket::bind(any).context("cannot open a UDP socket")?;
                socket = &opened;
            }
            // the kernel's queue is full now and then; the datagram then goes out later
            while let Err(error) = socket.send_to(&datagram, to) {
                sent.refused += 1;
                if crate::stopped() {
                    break 'all;
                }
                if sent.refused > 1_000_000 {
                    return Err(error).context("the kernel takes no datagrams");
                }
            }
            sent.packets += 1;
        }
    }
    report(&sent)?;
    if hold != 0 {
        until_stopped();
    }
    Ok(())
}

/// Tries to connect to `--flows` ports, without waiting for an answer.
pub fn connections(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?.ip();
    let flows: u64 = args.number("flows", 1000)?;
    let rate = args.real("rate", 10_000.0)?;
    let hold: u8 = args.number("hold", 0)?;
    let peers = peers(args)?;
    args.finish()?;
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut sent = FlowsSent { flows, ..FlowsSent::default() };
    let mut pace = Pace::new(rate);
    for flow in 0..flows {
        if !pace.wait() {
            break;
        }
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None).context("cannot open a TCP socket")?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(place(to, peers, flow))) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS | nix::errno::Errno::ECONNREFUSED) => {
                sent.packets += 1
            }
            Err(_) => sent.refused += 1,
        }
    }
    report(&sent)?;
    if hold != 0 {
        until_stopped();
    }
    Ok(())
}
