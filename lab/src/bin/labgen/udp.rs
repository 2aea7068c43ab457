//! UDP: numbered datagrams and their sink, echo, request and response.
//!
//! A datagram begins with the sender's identity and the serial number, eight bytes each, network byte order.

use crate::args::Args;
use crate::{
    Bound, LOOK_EVERY, Pace, Times, cpu_ns, identity, now_ns, report, resolve, stopped, until_stopped,
};
use anyhow::{Context, Result, bail};
use lab::traffic::{RoundTrips, TcpOpened, UdpReceived, UdpSent};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const HEADER: usize = 16;
const MAX_SIZE: usize = 65_000;
/// A response that has not come by then is lost.
const RESPONSE_WAIT: Duration = Duration::from_secs(1);

/// An unbound client socket of the family of `to`, connected to it.
fn connected(to: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
    // Over IPv6 there may be no usable source address yet.
    loop {
        match socket.connect(to) {
            Ok(()) => return Ok(socket),
            Err(error) if !stopped() && is_passing(&error) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {to}")),
        }
    }
}

/// Errors of a network that is coming up, or of a peer that is: the datagram is sent again.
fn is_passing(error: &std::io::Error) -> bool {
    let kind = error.kind();
    matches!(
        kind,
        ErrorKind::AddrNotAvailable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::ConnectionRefused
            | ErrorKind::WouldBlock
            | ErrorKind::Interrupted
    )
}

fn bound(args: &mut Args, default: &str) -> Result<UdpSocket> {
    let listen = args.text("listen");
    let result = match &listen {
        Some(address) => UdpSocket::bind(address),
        // Without IPv6 in the kernel, IPv4 must do.
        None => UdpSocket::bind(default).or_else(|_| UdpSocket::bind(default.replace("[::]", "0.0.0.0"))),
    };
    let socket =
        result.with_context(|| format!("cannot listen on {}", listen.as_deref().unwrap_or(default)))?;
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    // As much as the system allows: a sink that drops is no truth. Root may pass the system's limit.
    if setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &(8 << 20)).context("receive buffer")?;
    }
    Ok(socket)
}

/// Sends one datagram, again and again until the kernel takes it; counts the refusals. False when stopped before.
fn send_surely(socket: &UdpSocket, datagram: &[u8], refused: &mut u64) -> Result<bool> {
    loop {
        match socket.send(datagram) {
            Ok(_) => return Ok(true),
            Err(error) if is_passing(&error) => {
                *refused += 1;
                // A refusal caused by an earlier datagram's ICMP answer clears itself: the next attempt goes out.
                if error.kind() != ErrorKind::ConnectionRefused {
                    std::thread::sleep(Duration::from_micros(500));
                }
                if stopped() {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error).context("cannot send"),
        }
    }
}

pub fn send(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?;
    let rate = args.real("rate", 1000.0)?;
    let bound = Bound::new(args.number("count", 0)?, args.real("seconds", 0.0)?);
    let size: usize = args.number("size", 64)?;
    let tcp = args.text("tcp").map(|to| resolve(&to)).transpose()?;
    let id: u64 = args.number("id", identity())?;
    let hold: u8 = args.number("hold", 0)?;
    args.finish()?;
    if !(HEADER..=MAX_SIZE).contains(&size) {
        bail!("--size {size} is not within {HEADER} to {MAX_SIZE}");
    }
    let opening = tcp.map(|to| std::thread::spawn(move || open_tcp(to, id)));
    let socket = connected(to)?;
    let mut sent = UdpSent { id, size_bytes: size, ..UdpSent::default() };
    let mut datagram = vec![0u8; size];
    datagram[..8].copy_from_slice(&id.to_be_bytes());
    let mut pace = Pace::new(rate);
    while !bound.reached(sent.sent) && pace.wait() {
        datagram[8..HEADER].copy_from_slice(&sent.sent.to_be_bytes());
        if !send_surely(&socket, &datagram, &mut sent.refused)? {
            break;
        }
        sent.last_ns = now_ns();
        if sent.sent == 0 {
            sent.first_ns = sent.last_ns;
        }
        sent.sent += 1;
    }
    if let Some(opening) = opening {
        sent.tcp = opening.join().ok();
    }
    sent.cpu_ns = cpu_ns();
    report(&sent)?;
    if hold != 0 {
        until_stopped();
    }
    Ok(())
}

/// Opens a connection at once, tells the identity, and closes after the peer.
fn open_tcp(to: SocketAddr, id: u64) -> TcpOpened {
    let start_ns = now_ns();
    let start = Instant::now();
    let mut opened = TcpOpened { start_ns, ..TcpOpened::default() };
    let result = loop {
        match TcpStream::connect_timeout(&to, Duration::from_secs(10)) {
            // No source address yet: nothing was sent, so trying again is still the first connection.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && !stopped() => {
                std::thread::sleep(Duration::from_micros(500));
            }
            other => break other,
        }
    };
    opened.connect_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let told = result.and_then(|mut stream| {
        opened.connected = true;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&id.to_be_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        stream.read(&mut [0; 1]).map(drop)
    });
    opened.error = told.err().map(|error| error.to_string());
    opened
}

pub fn sink(args: &mut Args) -> Result<()> {
    let socket = bound(args, "[::]:9000")?;
    let bound = Bound::new(args.number("expect", 0)?, args.real("seconds", 0.0)?);
    let quiet = args.real("quiet", 0.0)?;
    args.finish()?;
    let quiet = (quiet > 0.0).then(|| Duration::from_secs_f64(quiet));
    let mut received = UdpReceived::default();
    let mut buffer = vec![0u8; 65_536];
    println!("listening on {}", socket.local_addr()?);
    // When told to stop, first take what has arrived already.
    let mut last_round = false;
    let mut quiet_since = None;
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                note(&mut received, &buffer[..length], from);
                quiet_since = None;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if last_round {
                    break;
                }
                // The clock is read in silence only, never for a datagram.
                let since = quiet_since.get_or_insert_with(Instant::now).elapsed();
                last_round = received.datagrams > 0 && quiet.is_some_and(|quiet| since >= quiet);
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
        if !last_round && bound.reached(received.datagrams) {
            last_round = true;
        }
    }
    received.dropped_at_socket = drops_of(socket.local_addr()?.port());
    received.cpu_ns = cpu_ns();
    report(&received)
}

fn note(received: &mut UdpReceived, datagram: &[u8], from: SocketAddr) {
    received.datagrams += 1;
    received.bytes += datagram.len() as u64;
    let (Some(id), Some(serial)) = (word(datagram, 0), word(datagram, 8)) else {
        received.foreign += 1;
        return;
    };
    let sender = received.senders.entry(id).or_default();
    sender.datagrams += 1;
    sender.last_ns = now_ns();
    if sender.datagrams == 1 {
        sender.first_ns = sender.last_ns;
    }
    let late = sender.serials.last().is_some_and(|last| serial < last);
    if !sender.serials.insert(serial) {
        sender.repeated += 1;
    } else if late {
        sender.late += 1;
    }
    let address = from.to_string();
    if sender.address != address {
        sender.address = address;
    }
}

fn word(datagram: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*datagram.get(at..)?.first_chunk::<8>()?))
}

/// Datagrams dropped at sockets of this port because a buffer was full, from the kernel's table.
fn drops_of(port: u16) -> u64 {
    let tables =
        ["/proc/net/udp", "/proc/net/udp6"].map(|file| std::fs::read_to_string(file).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).filter_map(|line| drops_in(line, port)).sum()
}

fn drops_in(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    (u16::from_str_radix(local, 16).ok()? == port).then(|| fields.last()?.parse().ok())?
}

pub fn echo(args: &mut Args) -> Result<()> {
    let socket = bound(args, "[::]:9001")?;
    args.finish()?;
    println!("listening on {}", socket.local_addr()?);
    let mut buffer = vec![0u8; 65_536];
    while !stopped() {
        match socket.recv_from(&mut buffer) {
            // A client that has gone must not end the server.
            Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
    Ok(())
}

pub fn request_response(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?;
    let mut pace = Pace::new(args.real("rate", 0.0)?);
    let bound = Bound::new(args.number("count", 0)?, args.real("seconds", 0.0)?);
    let size: usize = args.number("size", 64)?;
    let warm = args.real("warm", 0.0)?;
    args.finish()?;
    if !(HEADER..=MAX_SIZE).contains(&size) {
        bail!("--size {size} is not within {HEADER} to {MAX_SIZE}");
    }
    let socket = connected(to)?;
    socket.set_read_timeout(Some(RESPONSE_WAIT))?;
    let id = identity();
    let mut request = vec![0u8; size];
    request[..8].copy_from_slice(&id.to_be_bytes());
    let mut response = vec![0u8; MAX_SIZE];
    let (mut trips, mut times, mut refused) = (RoundTrips::default(), Times::new(warm), 0);
    while !bound.reached(trips.requests) && pace.wait() {
        request[8..HEADER].copy_from_slice(&trips.requests.to_be_bytes());
        let start = Instant::now();
        if !send_surely(&socket, &request, &mut refused)? {
            break;
        }
        trips.requests += 1;
        // Late answers to earlier requests are read and passed over.
        let answered = loop {
            match socket.recv(&mut response) {
                Ok(length) if response[..length].get(..HEADER) == Some(&request[..HEADER]) => break true,
                Ok(_) if start.elapsed() < RESPONSE_WAIT => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break false,
            }
        };
        if answered {
            times.record(start);
        } else {
            trips.lost += 1;
        }
    }
    trips.round_trip_ns = times.summary();
    report(&trips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_noted_by_sender_and_serial() {
        let mut received = UdpReceived::default();
        let from: SocketAddr = "127.0.0.1:5".parse().unwrap();
        let datagram = |id: u64, serial: u64| [id.to_be_bytes(), serial.to_be_bytes()].concat();
        for (id, serial) in [(7, 0), (7, 2), (7, 1), (7, 1), (8, 0)] {
            note(&mut received, &datagram(id, serial), from);
        }
        note(&mut received, b"short", from);
        assert_eq!((received.datagrams, received.foreign, received.bytes), (6, 1, 5 * 16 + 5));
        let seven = &received.senders[&7];
        assert_eq!((seven.datagrams, seven.repeated, seven.late), (4, 1, 1));
        assert!(seven.serials.is_whole(3) && received.senders[&8].serials.is_whole(1));
    }

    #[test]
    fn drops_are_read_from_the_kernels_table() {
        let line =
            " 7: 00000000:2328 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 9 2 0000000 42";
        assert_eq!(drops_in(line, 9000), Some(42));
        assert_eq!(drops_in(line, 9001), None);
        assert_eq!(drops_in("  sl  local_address rem_address", 9000), None);
    }
}
