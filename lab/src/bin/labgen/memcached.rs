//! A client of memcached's text protocol: one `set` and nine `get`s of ten requests, and every value is checked.

use crate::args::Args;
use crate::{Bound, Pace, Times, report, resolve, tcp};
use anyhow::{Context, Result, bail};
use lab::traffic::RoundTrips;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Keys used, round and round.
const KEYS: u64 = 100;

pub fn run(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?;
    let mut pace = Pace::new(args.real("rate", 100.0)?);
    let bound = Bound::new(args.number("count", 0)?, args.real("seconds", 0.0)?);
    let size: usize = args.number("size", 100)?;
    let warm = args.real("warm", 0.0)?;
    args.finish()?;
    if !(1..=500_000).contains(&size) {
        bail!("--size {size} is not within 1 to 500000");
    }
    let stream = tcp::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut client = Client { writer: stream.try_clone()?, reader: BufReader::new(stream) };
    let value = "v".repeat(size);
    let (mut trips, mut times) = (RoundTrips::default(), Times::new(warm));
    while !bound.reached(trips.requests) && pace.wait() {
        let key = format!("key-{}", trips.requests / 10 % KEYS);
        let start = Instant::now();
        if trips.requests % 10 == 0 {
            client.set(&key, &value)?;
        } else if client.get(&key)?.as_deref().is_some_and(|got| got != value) {
            bail!("{key} holds another value than the one set");
        }
        trips.requests += 1;
        times.record(start);
    }
    trips.round_trip_ns = times.summary();
    report(&trips)
}

struct Client {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let request = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
        self.writer.write_all(request.as_bytes()).context("cannot send")?;
        match self.line()?.as_str() {
            "STORED" => Ok(()),
            other => bail!("set {key}: the server says {other:?}"),
        }
    }

    /// The value, or nothing when the server has dropped it.
    fn get(&mut self, key: &str) -> Result<Option<String>> {
        self.writer.write_all(format!("get {key}\r\n").as_bytes()).context("cannot send")?;
        let first = self.line()?;
        if first == "END" {
            return Ok(None);
        }
        if !first.starts_with("VALUE ") {
            bail!("get {key}: the server says {first:?}");
        }
        let value = self.line()?;
        match self.line()?.as_str() {
            "END" => Ok(Some(value)),
            other => bail!("get {key}: the server says {other:?}"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("no response")? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_string())
    }
}
