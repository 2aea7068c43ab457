//! TCP: numbered streams and their sink, echo, request and response.
//!
//! A stream begins with the sender's identity (eight bytes, network byte order), then come the numbers 0, 1, 2… the
//! same way, so the sink can tell that every byte is the one sent.

use crate::args::Args;
use crate::{Bound, LOOK_EVERY, Pace, Times, identity, report, resolve, stopped};
use anyhow::{Context, Result, bail};
use lab::traffic::{RoundTrips, TcpConnection, TcpReceived, TcpSent};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of one write; a multiple of eight.
const CHUNK: usize = 65_536;
/// Longest time to try to connect, and to wait for the peer's close.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connects; tries again while the peer is starting.
pub fn connect(to: SocketAddr) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect_timeout(&to, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) if stopped() || start.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("cannot connect to {to}"));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn listener(args: &mut Args, default: &str) -> Result<TcpListener> {
    let listen = args.text("listen");
    let result = match &listen {
        Some(address) => TcpListener::bind(address),
        None => TcpListener::bind(default).or_else(|_| TcpListener::bind(default.replace("[::]", "0.0.0.0"))),
    };
    let listener =
        result.with_context(|| format!("cannot listen on {}", listen.as_deref().unwrap_or(default)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves every connection on a thread of its own until `enough`; then waits for those threads.
fn serve(
    listener: &TcpListener,
    mut enough: impl FnMut(u64) -> bool,
    mut each: impl FnMut(TcpStream, SocketAddr) -> JoinHandle<()>,
) -> Result<()> {
    println!("listening on {}", listener.local_addr()?);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut accepted = 0;
    while !enough(accepted) {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(LOOK_EVERY))?;
                threads.retain(|thread| !thread.is_finished());
                threads.push(each(stream, from));
                accepted += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1))
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}

/// Reads; `None` when nothing came for a while.
fn read_some(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn sink(args: &mut Args) -> Result<()> {
    let listener = listener(args, "[::]:9002")?;
    let bound = Bound::new(args.number("connections", 0)?, args.real("seconds", 0.0)?);
    args.finish()?;
    let all: Arc<Mutex<TcpReceived>> = Arc::default();
    serve(
        &listener,
        |accepted| bound.reached(accepted),
        |stream, from| {
            let all = all.clone();
            std::thread::spawn(move || {
                let connection = take(stream, from);
                all.lock().unwrap_or_else(|e| e.into_inner()).connections.push(connection);
            })
        },
    )?;
    let received = all.lock().unwrap_or_else(|e| e.into_inner());
    report(&*received)
}

/// Reads one connection to its end, comparing each byte with the one expected.
fn take(mut stream: TcpStream, from: SocketAddr) -> TcpConnection {
    let mut connection =
        TcpConnection { address: from.to_string(), intact: true, ..TcpConnection::default() };
    let mut head = Vec::new();
    let mut buffer = vec![0u8; CHUNK];
    loop {
        let length = match read_some(&mut stream, &mut buffer) {
            Ok(Some(0)) => {
                connection.closed = true;
                break;
            }
            Ok(Some(length)) => length,
            Ok(None) if stopped() => break,
            Ok(None) => continue,
            Err(_) => break,
        };
        let mut data = &buffer[..length];
        if head.len() < 8 {
            let missing = (8 - head.len()).min(data.len());
            head.extend_from_slice(&data[..missing]);
            connection.bytes += missing as u64;
            data = &data[missing..];
        }
        if connection.intact {
            connection.intact = is_expected(data, connection.bytes.saturating_sub(8));
        }
        connection.bytes += data.len() as u64;
        if connection.intact {
            connection.serials = connection.bytes.saturating_sub(8) / 8;
        }
    }
    connection.id = head.first_chunk::<8>().map(|id| u64::from_be_bytes(*id));
    connection
}

/// Whether `data` is what the stream of numbers holds from byte `offset` on.
fn is_expected(data: &[u8], offset: u64) -> bool {
    let mut number = offset / 8;
    let skip = (offset % 8) as usize;
    let mut rest = data;
    if skip > 0 {
        let first = &number.to_be_bytes()[skip..];
        let length = first.len().min(rest.len());
        if rest[..length] != first[..length] {
            return false;
        }
        rest = &rest[length..];
        number += 1;
    }
    rest.chunks(8).zip(number..).all(|(chunk, number)| chunk == &number.to_be_bytes()[..chunk.len()])
}

fn fill(buffer: &mut [u8], mut number: u64) {
    for chunk in buffer.chunks_exact_mut(8) {
        chunk.copy_from_slice(&number.to_be_bytes());
        number += 1;
    }
}

pub fn stream(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?;
    let bound = Bound::new(args.number("bytes", 0)?, args.real("seconds", 0.0)?);
    let rate = args.real("rate-mbit", 0.0)?;
    let id: u64 = args.number("id", identity())?;
    args.finish()?;
    let mut stream = connect(to)?;
    let start = Instant::now();
    // Small writes at small rates, or one write would be a second's worth.
    let per_write = if rate > 0.0 { (rate * 1e6 / 8.0 / 100.0) as usize / 8 * 8 } else { CHUNK };
    let per_write = per_write.clamp(8, CHUNK);
    let mut pace = Pace::new(if rate > 0.0 { rate * 1e6 / 8.0 / per_write as f64 } else { 0.0 });
    stream.write_all(&id.to_be_bytes()).context("cannot send")?;
    let mut sent = TcpSent { id, bytes: 8, ..TcpSent::default() };
    let mut buffer = vec![0u8; per_write];
    while !bound.reached(sent.bytes) && pace.wait() {
        fill(&mut buffer, (sent.bytes - 8) / 8);
        let left =
            if bound.count > 0 { (bound.count - sent.bytes).div_ceil(8).saturating_mul(8) } else { u64::MAX };
        let length = per_write.min(usize::try_from(left).unwrap_or(usize::MAX));
        stream.write_all(&buffer[..length]).context("cannot send")?;
        sent.bytes += length as u64;
    }
    stream.shutdown(Shutdown::Write).context("cannot close")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The sink closes when it has read everything.
    sent.delivered = matches!(stream.read(&mut [0; 1]), Ok(0));
    sent.seconds = start.elapsed().as_secs_f64();
    sent.bits_per_second = sent.bytes as f64 * 8.0 / sent.seconds.max(1e-9);
    report(&sent)
}

pub fn echo(args: &mut Args) -> Result<()> {
    let listener = listener(args, "[::]:9003")?;
    args.finish()?;
    serve(
        &listener,
        |_| stopped(),
        |mut stream, _| {
            std::thread::spawn(move || {
                let mut buffer = vec![0u8; CHUNK];
                let _ = stream.set_nodelay(true);
                while !stopped() {
                    match read_some(&mut stream, &mut buffer) {
                        Ok(None) => {}
                        Ok(Some(0)) | Err(_) => break,
                        Ok(Some(length)) => {
                            if stream.write_all(&buffer[..length]).is_err() {
                                break;
                            }
                        }
                    }
                }
            })
        },
    )
}

pub fn request_response(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?;
    let mut pace = Pace::new(args.real("rate", 0.0)?);
    let bound = Bound::new(args.number("count", 0)?, args.real("seconds", 0.0)?);
    let size: usize = args.number("size", 64)?;
    let warm = args.real("warm", 0.0)?;
    args.finish()?;
    if !(1..=CHUNK).contains(&size) {
        bail!("--size {size} is not within 1 to {CHUNK}");
    }
    let mut stream = connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = vec![b'.'; size];
    let mut response = vec![0u8; size];
    let (mut trips, mut times) = (RoundTrips::default(), Times::new(warm));
    while !bound.reached(trips.requests) && pace.wait() {
        let start = Instant::now();
        stream.write_all(&request).context("cannot send")?;
        trips.requests += 1;
        stream.read_exact(&mut response).context("no response")?;
        times.record(start);
    }
    trips.round_trip_ns = times.summary();
    report(&trips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_the_stream_is_recognised_and_a_wrong_byte_is_not() {
        let mut whole = vec![0u8; 800];
        fill(&mut whole, 0);
        for (start, end) in [(0, 800), (0, 3), (3, 5), (3, 8), (5, 17), (8, 16), (799, 800), (13, 13)] {
            assert!(is_expected(&whole[start..end], start as u64), "{start}..{end}");
        }
        for position in [0, 7, 63, 400] {
            let mut broken = whole.clone();
            broken[position] ^= 1;
            assert!(!is_expected(&broken, 0), "byte {position}");
        }
        assert!(!is_expected(&whole[8..], 0));
    }
}
