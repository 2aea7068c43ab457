//! The lab's traffic generator: small, static, and quick to its first packet, so that it can show what a tap misses.
//! It runs in a container or on a host, IPv4 and IPv6; SIGTERM ends it; its report is the last line of stdout, JSON.

mod args;
mod flows;
mod memcached;
mod tcp;
mod trespass;
mod udp;

use anyhow::{Context, Result, bail};
use args::Args;
use lab::traffic::{Recorder, Summary};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::time::{ClockId, clock_gettime};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "\
labgen MODE [--option VALUE]...; a report in JSON on the last line of stdout; SIGTERM ends every mode

  udp-send    --to ADDR:PORT [--rate 1000] [--count 0] [--seconds 0] [--size 64] [--tcp ADDR:PORT] [--id N]
              [--hold 0]
              numbered datagrams from the first instruction on; --tcp also opens a connection at once;
              --hold 1: stay until SIGTERM after the last datagram
  udp-sink    [--listen [::]:9000] [--expect 0] [--seconds 0] [--quiet 0]
              --quiet: also end so many seconds after the last datagram
  udp-echo    [--listen [::]:9001]
  udp-rr      --to ADDR:PORT [--rate 0] [--count 0] [--seconds 0] [--size 64] [--warm 0]
  tcp-stream  --to ADDR:PORT [--bytes 0] [--seconds 0] [--rate-mbit 0] [--id N]
  tcp-sink    [--listen [::]:9002] [--connections 0] [--seconds 0]
  tcp-echo    [--listen [::]:9003]
  tcp-rr      --to ADDR:PORT [--rate 0] [--count 0] [--seconds 0] [--size 64] [--warm 0]
  memcached   --to ADDR:PORT [--rate 100] [--count 0] [--seconds 0] [--size 100] [--warm 0]
              --warm: round trips of so many seconds from the first request on are not in the report
  udp-flows   --to ADDR:PORT [--flows 1000] [--rounds 1] [--rate 10000] [--size 64] [--hold 0] [--peers 1]
              [--port 0]
              a datagram of each flow in turn; ports 10000 to 59999, not the one given; --peers: to so many
              addresses in turn, from the one given on; --port: to this one, each datagram from another
  tcp-scan    --to ADDR:PORT [--flows 1000] [--rate 10000] [--hold 0] [--peers 1]
              tries to connect to so many ports, a SYN each
  trespass    --to ADDR:PORT [--controller PATH] [--sockets PATH,...] [--files PATH,...] [--places PATH,...]
              [--pins PATH,...] [--maps ID,...] [--pid 1]
              tries what an intruder would and reports how each attempt ended
  idle

  A rate or bound of 0 means none. Clients of TCP try for 20 s to connect.";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    match run(&mode, words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("labgen {mode}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: &str, words: impl Iterator<Item = String>) -> Result<()> {
    stop_on_signals()?;
    let mut args = Args::parse(words)?;
    match mode {
        "udp-send" => udp::send(&mut args),
        "udp-sink" => udp::sink(&mut args),
        "udp-echo" => udp::echo(&mut args),
        "udp-rr" => udp::request_response(&mut args),
        "tcp-stream" => tcp::stream(&mut args),
        "tcp-sink" => tcp::sink(&mut args),
        "tcp-echo" => tcp::echo(&mut args),
        "tcp-rr" => tcp::request_response(&mut args),
        "memcached" => memcached::run(&mut args),
        "udp-flows" => flows::datagrams(&mut args),
        "tcp-scan" => flows::connections(&mut args),
        "trespass" => trespass::run(&mut args),
        "idle" => {
            args.finish()?;
            until_stopped();
            Ok(())
        }
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown mode {other:?}\n{USAGE}"),
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

/// Longest time any mode goes without looking whether it shall stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Turns SIGTERM and SIGINT into a flag. A first process of a container gets no default handling of signals, so
/// without this it could only be killed, and its report lost.
fn stop_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Before any other thread begins: all inherit the mask.
    signals.thread_block().context("cannot block signals")?;
    let fd = SignalFd::new(&signals).context("signalfd")?;
    std::thread::spawn(move || {
        while let Ok(None) = fd.read_signal() {}
        STOP.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

fn until_stopped() {
    while !stopped() {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Nanoseconds since 1970 UTC: the clock of captures.
fn now_ns() -> u64 {
    // Fails only for clocks the kernel does not have; this one it has.
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Processor time of this process so far, in nanoseconds.
fn cpu_ns() -> u64 {
    // Fails only for clocks the kernel does not have; this one it has.
    let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    u64::try_from(used.as_nanos()).unwrap_or(u64::MAX)
}

fn report(report: &impl serde::Serialize) -> Result<()> {
    use std::io::Write;
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    // One write, so that lines of several processes on one pipe do not mix.
    std::io::stdout().write_all(line.as_bytes()).context("cannot write the report")
}

/// An address of a host or a literal; names are asked for until they are known, as a peer may be starting.
fn resolve(to: &str) -> Result<SocketAddr> {
    let start = Instant::now();
    loop {
        match to.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => bail!("{to} has no address"),
            Err(error) if stopped() || start.elapsed() > Duration::from_secs(20) => {
                return Err(error).with_context(|| format!("cannot resolve {to}"));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// The identity put into every datagram and stream: what a container's host name says (the first 12 digits of its
/// id), else the process id and the time.
fn identity() -> u64 {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    let by_name = (name.len() == 12).then(|| u64::from_str_radix(name, 16).ok()).flatten();
    by_name.unwrap_or_else(|| now_ns() ^ (u64::from(std::process::id()) << 40))
}

/// Paces a loop at a rate: each turn is due at its own time, so a late one does not delay the others.
struct Pace {
    start: Instant,
    interval: Option<Duration>,
    turn: u32,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        let interval = (per_second > 0.0).then(|| Duration::from_secs_f64(1.0 / per_second));
        Self { start: Instant::now(), interval, turn: 0 }
    }

    /// Waits until the next turn is due; the first is due at once. False when it is time to stop.
    fn wait(&mut self) -> bool {
        let Some(interval) = self.interval else { return !stopped() };
        let due = self.start + interval * self.turn;
        // The offset is kept small: a long run must not overflow it.
        self.turn += 1;
        if self.turn == 1_000_000 {
            self.start += interval * self.turn;
            self.turn = 0;
        }
        loop {
            if stopped() {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

/// Round-trip times of a run, but not those of its first moments: whatever started it may still be busy then.
struct Times {
    recorder: Recorder,
    from: Instant,
}

impl Times {
    fn new(warm_seconds: f64) -> Self {
        Self { recorder: Recorder::default(), from: Instant::now() + Duration::from_secs_f64(warm_seconds) }
    }

    /// Takes the time from `start` until now.
    fn record(&mut self, start: Instant) {
        let took = start.elapsed();
        if start >= self.from {
            self.recorder.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn summary(&self) -> Summary {
        self.recorder.summary()
    }
}

/// A bound on a run, by count or by time; 0 is none.
struct Bound {
    count: u64,
    end: Option<Instant>,
}

impl Bound {
    fn new(count: u64, seconds: f64) -> Self {
        Self { count, end: (seconds > 0.0).then(|| Instant::now() + Duration::from_secs_f64(seconds)) }
    }

    fn reached(&self, done: u64) -> bool {
        stopped()
            || (self.count > 0 && done >= self.count)
            || self.end.is_some_and(|end| Instant::now() >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_of_the_first_moments_are_not_in_the_report() {
        let mut times = Times::new(60.0);
        times.record(Instant::now());
        assert_eq!(times.summary().count, 0);
        times.record(times.from);
        assert_eq!(times.summary().count, 1);
        let mut times = Times::new(0.0);
        times.record(Instant::now());
        assert_eq!(times.summary().count, 1);
    }
}
