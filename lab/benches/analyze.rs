//! How fast `conmonctl analyze` reads a capture, beside tshark and tcptrace on the same file in the same run:
//! `cargo bench -p lab --bench analyze`. The capture is made by the model, of TCP connections with loss, and lies in the
//! folder for temporary files; `CONMON_BENCH_MEGABYTES` says how large it is (1000), `CONMON_BENCH_REPEATS` how often
//! analyze reads it (3, the best counts). The file is read once before, so that all find it in memory.

use anyhow::{Context, Result, ensure};
use ippm::model::law::{Clock, Delay};
use ippm::model::packet::{Ends, render};
use ippm::model::path::Path as Way;
use ippm::model::pcap;
use ippm::model::tcp::{Connection, run};
use lab::{find_program, program};
use nix::sys::resource::{UsageWho, getrusage};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Connections that run side by side.
const SIDE_BY_SIDE: u32 = 64;

fn main() -> Result<()> {
    // A test run of all targets (`cargo test --benches`) looks only whether it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let megabytes = setting("CONMON_BENCH_MEGABYTES", 1_000)?;
    let repeats = setting("CONMON_BENCH_REPEATS", 3)?.max(1);
    let file = Removed(std::env::temp_dir().join(format!("conmon-bench-{}.pcap", std::process::id())));
    let packets = make(&file.0, megabytes * 1_000_000)?;
    let size = fs::metadata(&file.0)?.len();
    println!("{packets} packets, {:.0} MB", size as f64 / 1e6);
    std::io::copy(&mut File::open(&file.0)?, &mut std::io::sink())?;

    let name = file.0.as_os_str().to_owned();
    let capture = || name.clone();
    let analyze = program("conmonctl")?;
    let mut ours: Vec<Cost> = Vec::new();
    for _ in 0..repeats {
        let mut command = Command::new(&analyze);
        ours.push(cost(command.arg("analyze").arg(capture()).args(["-q", "-o", "json"]))?);
    }
    let best = ours.into_iter().min_by_key(|cost| cost.processor).context("nothing was measured")?;
    best.print("conmonctl analyze, round trips on", packets);
    let mut twice = Command::new(&analyze);
    twice.arg("analyze").arg(capture()).arg(capture()).args(["--same-clock", "-q", "-o", "json"]);
    cost(&mut twice)?.print("conmonctl analyze, with itself as a second capture", 2 * packets);

    let tshark = find_program("tshark", "tshark")?;
    let mut conversations = Command::new(&tshark);
    conversations.args(["-n", "-q", "-z", "conv,tcp", "-r"]).arg(capture());
    cost(&mut conversations)?.print("tshark -z conv,tcp", packets);
    let mut trips = Command::new(&tshark);
    trips.args(["-n", "-T", "fields", "-e", "tcp.analysis.ack_rtt", "-r"]).arg(capture());
    cost(&mut trips)?.print("tshark, each packet's round trip", packets);
    let mut tcptrace = Command::new(find_program("tcptrace", "tcptrace")?);
    cost(tcptrace.args(["-n", "-r", "-l"]).arg(capture()))?.print("tcptrace -r -l", packets);
    Ok(())
}

fn setting(name: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text:?} is not a number")),
        Err(_) => Ok(otherwise),
    }
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a capture of at least `octets`; how many packets it holds.
fn make(file: &Path, octets: u64) -> Result<u64> {
    let mut out =
        BufWriter::new(File::create(file).with_context(|| format!("cannot write {}", file.display()))?);
    out.write_all(&pcap::header())?;
    let (mut written, mut packets, mut round) = (24, 0, 0);
    while written < octets {
        let mut frames = Vec::new();
        for number in 0..SIDE_BY_SIDE {
            let serial = round * SIDE_BY_SIDE + number;
            let way = Way::clean(Delay::Exponential { base: 100_000, mean: 30_000 }).losing(0.001);
            let mut law = Connection::over(way, way, u64::from(serial));
            (law.mss, law.forward_bytes, law.reverse_bytes) = (360, 300_000, 30_000);
            let ends = Ends {
                client: (
                    IpAddr::from([10, 1, (serial >> 8) as u8, serial as u8]),
                    30_000 + (serial % 7) as u16,
                ),
                server: (IpAddr::from([10, 2, 0, (serial % 50) as u8]), 80),
            };
            let later = u64::from(round) * 1_000_000_000;
            let seen = render(&run(&law).client, ends, Clock::TRUE);
            frames.extend(seen.into_iter().map(|(ns, frame)| (ns + later, frame)));
        }
        frames.sort_by_key(|(ns, _)| *ns);
        let records = pcap::records(&frames);
        out.write_all(&records)?;
        written += records.len() as u64;
        packets += frames.len() as u64;
        round += 1;
    }
    out.flush()?;
    Ok(packets)
}

/// What a run cost.
struct Cost {
    elapsed: Duration,
    /// User and system time.
    processor: Duration,
    /// The most memory that was seen, KiB; looked at each few milliseconds.
    memory: u64,
}

impl Cost {
    fn print(&self, what: &str, packets: u64) {
        let rate = |time: Duration| packets as f64 / time.as_secs_f64() / 1e6;
        println!(
            "{what}: {:.2} s, {:.2} s of processor, {:.2} M packets/s of processor, {:.0} MB",
            self.elapsed.as_secs_f64(),
            self.processor.as_secs_f64(),
            rate(self.processor),
            self.memory as f64 / 1024.0
        );
    }
}

fn cost(command: &mut Command) -> Result<Cost> {
    let used = || -> Result<Duration> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        Ok(Duration::from_micros((micros(usage.user_time()) + micros(usage.system_time())).unsigned_abs()))
    };
    let (before, begun) = (used()?, Instant::now());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut memory = 0;
    let status = loop {
        memory = memory.max(resident(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(Cost { elapsed: begun.elapsed(), processor: used()? - before, memory })
}

/// The most that a process ever held, KiB.
fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}
