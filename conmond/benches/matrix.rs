//! The matrix of a large system: a million pairs of 5,000 hosts with 200 containers each, put together by the product's own code out of what the
//! hosts answer, written as the API writes it, and how much memory that takes.
//!
//! Once as conmond does it, by the clock on the wall: answers are read by threads of the runtime's for what blocks, while a task puts together what is
//! read. Then one after the other on one thread, by the processor's time. What the hosts answer is made up and not counted;
//! connections are not a part of it.

use std::time::{Duration, Instant};

use conmon::api::{
    Count, DelaySummary, Endpoint, EndpointKind, HostAnswer, Level, MatrixQuery, ObservedAt, Pair,
    PairsAnswer,
};
use conmond::system::sheet::{Sheet, octets_of};
use conmond::system::{Matrix, Snapshot};
use futures_util::{StreamExt as _, stream};

const HOSTS: u32 = 5_000;
const CONTAINERS: u32 = 200;
/// Pairs of each host's containers with those of other hosts, and of its own. What crosses is in two hosts' answers.
const ACROSS: u32 = 100;
const WITHIN: u32 = 100;
/// Answers that are made up, and then read, at a time. conmond asks 512 hosts at a time, whose answers do not come in one moment.
const AT_ONCE: u32 = 64;

fn end(host: u32, container: u32) -> Endpoint {
    let service = format!("service-{}", container % 50);
    Endpoint {
        kind: EndpointKind::Container,
        name: format!("project-{service}-{container}"),
        id: Some(format!(
            "{:064x}",
            (u64::from(host) << 32 | u64::from(container)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )),
        service: Some(service),
        tenant: Some(format!("project-{}", host % 40)),
        host: Some(format!("host-{host:05}.example")),
        addresses: vec![std::net::Ipv4Addr::from(0x0a00_0000 | host << 8 | container).into()],
    }
}

fn pair(src: Endpoint, dst: Endpoint, observed_at: ObservedAt, serial: u64) -> Pair {
    let at = |more: i64| jiff::Timestamp::from_nanosecond((1_700_000_000_000_000_000 + more).into()).unwrap();
    let count = |n: u64| Count { bytes: n * 700, packets: n, segments: n };
    // pairs of the same bytes are not those of containers of the same name
    let spread = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let delay = |method: &str| {
        let ns = |x: u64| (1_000 * x + serial % 1_000) as f64 / 1e9;
        Some(DelaySummary {
            min: ns(50),
            p50: ns(80),
            p90: ns(120),
            p99: ns(400),
            max: ns(2_000),
            count: serial % 10_000 + 1,
            method: method.to_owned(),
            relative_error_ratio: Some(0.03125),
            buckets: None,
        })
    };
    Pair {
        src,
        dst,
        protocols: vec!["tcp".into()],
        first_seen: at(serial as i64),
        last_seen: at(serial as i64 + 5_000_000_000),
        sent: count(spread % 100_000),
        received: count(spread % 70_000),
        retransmitted_segments: Some(serial % 7),
        sent_retransmitted_segments: Some(serial % 5),
        received_retransmitted_segments: Some(serial % 3),
        reordered_segments: Some(0),
        rtt_seconds: delay("passive_tcp_ack_at_src_port"),
        near_rtt_seconds: delay("passive_tcp_ack_at_src_port"),
        handshake_rtt_seconds: delay("passive_tcp_handshake_at_src_port"),
        near_handshake_rtt_seconds: delay("passive_tcp_handshake_at_src_port"),
        flows: serial % 900 + 1,
        active_flows: serial % 10,
        role_guessed: false,
        observed_at,
        via: Vec::new(),
        sent_bytes_per_second: Some((serial % 1_000_000) as f64),
        received_bytes_per_second: Some((serial % 500_000) as f64),
        sent_packets_per_second: Some((serial % 1_000) as f64),
        received_packets_per_second: Some((serial % 900) as f64),
    }
}

/// The `i`-th pair of a host with another: at the host that calls it is src's, at the other dst's.
fn across(caller: u32, i: u32, observed_at: ObservedAt) -> Pair {
    let other = (caller + 1 + i) % HOSTS;
    let serial = u64::from(caller) * 1_000 + u64::from(i);
    pair(end(caller, i % CONTAINERS), end(other, (i * 7 + 3) % CONTAINERS), observed_at, serial)
}

/// What a host answers, and in JSON how large that is.
fn answer(host: u32) -> PairsAnswer {
    let mut pairs = Vec::new();
    for i in 0..WITHIN {
        let (a, b) = (end(host, i), end(host, (i + 100) % CONTAINERS));
        pairs.push(pair(a, b, ObservedAt::Src, u64::from(host) * 1_000 + 500 + u64::from(i)));
    }
    for i in 0..ACROSS {
        pairs.push(across(host, i, ObservedAt::Src));
        pairs.push(across((host + HOSTS - 1 - i) % HOSTS, i, ObservedAt::Dst));
    }
    PairsAnswer {
        generated_at: jiff::Timestamp::UNIX_EPOCH,
        hosts: vec![HostAnswer { name: format!("host-{host:05}.example"), complete: true }],
        rate_interval_seconds: Some(1.0),
        pairs,
    }
}

/// Time that the process has had on a processor; but for the order and the writing it has one thread.
fn processor() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map_or(Duration::ZERO, Duration::from)
}

/// The process's resident memory now and at most, MB.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or_default() / 1000
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

fn main() {
    // `cargo test --benches` runs this, too
    if std::env::args().any(|word| word == "--test") {
        return;
    }
    let sample = answer(0);
    let json = serde_json::to_vec(&sample).unwrap().len();
    let began = processor();
    let octets = octets_of(&sample).unwrap().len();
    let made = processor() - began;
    let n = sample.pairs.len();
    println!(
        "a host's answer of {n} pairs: {json} octets in JSON, {octets} as a sheet, made in {:.2} ms",
        made.as_secs_f64() * 1e3
    );

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (before, _) = memory();
    let (matrix, together) = runtime.block_on(async { tokio::spawn(as_conmond_does()).await.unwrap() });
    let rows = matrix.len();
    assert_eq!(rows as u32, HOSTS * (ACROSS + WITHIN), "each pair once");
    let held = memory().0.saturating_sub(before);
    let (started, began) = (Instant::now(), processor());
    let matrix = matrix.select(&MatrixQuery::default());
    let ordered = started.elapsed();
    println!(
        "{rows} pairs of {HOSTS} hosts: read and put together meanwhile in {}, in order after {}, {held} MB",
        seconds(together),
        seconds(together + ordered)
    );
    println!("in order: {}, {} of processor time", seconds(ordered), seconds(processor() - began));
    let began = processor();
    let snapshot = Snapshot { generated_at: jiff::Timestamp::UNIX_EPOCH, hosts: Vec::new(), matrix };
    let started = Instant::now();
    let octets = runtime
        .block_on(snapshot.written().fold(0, |sum, piece| std::future::ready(sum + piece.unwrap().len())));
    println!(
        "written in JSON: {} MB in {}, {} of processor time",
        octets / 1_000_000,
        seconds(started.elapsed()),
        seconds(processor() - began)
    );
    println!("at most {} MB in all", memory().1);

    let (matrix, reading, adding) = put_together();
    println!(
        "on one thread: read in {}, put together in {} of processor time",
        seconds(reading),
        seconds(adding)
    );
    for level in [Level::Service, Level::Tenant, Level::Host] {
        let whole = matrix.clone();
        let began = processor();
        let query = MatrixQuery { level: Some(level), ..MatrixQuery::default() };
        let rows = whole.select(&query).len();
        println!("at level {}: {rows} rows, {}", level.as_str(), seconds(processor() - began));
    }
}

/// All hosts' answers in one, read on other threads as [`conmond::system::OverTls`] has them read, and how long it took by the clock on the wall.
///
/// All of them at once are 675 MB, which conmond never holds: they are made some at a time, while the clock stands. So nothing is read while
/// the last ones of each time are put together; in conmond there would be more.
async fn as_conmond_does() -> (Matrix, Duration) {
    let (mut matrix, mut took) = (Matrix::default(), Duration::ZERO);
    for first in (0..HOSTS).step_by(AT_ONCE as usize) {
        let hosts = first..HOSTS.min(first + AT_ONCE);
        let answers: Vec<(u32, Vec<u8>)> =
            hosts.map(|host| (host, octets_of(&answer(host)).unwrap())).collect();
        let started = Instant::now();
        let read = answers.into_iter().map(|(host, octets)| async move {
            let sheet = tokio::task::spawn_blocking(move || Sheet::from_octets(&octets)).await;
            (host, sheet.unwrap().unwrap())
        });
        let mut read = stream::iter(read).buffer_unordered(AT_ONCE as usize);
        while let Some((host, sheet)) = read.next().await {
            matrix.add(&format!("host-{host:05}.example"), sheet);
        }
        took += started.elapsed();
    }
    (matrix, took)
}

/// All hosts' answers in one, and how long it took to read and to add them.
fn put_together() -> (Matrix, Duration, Duration) {
    let (mut reading, mut adding) = (Duration::ZERO, Duration::ZERO);
    let mut matrix = Matrix::default();
    for host in 0..HOSTS {
        let octets = octets_of(&answer(host)).unwrap();
        let began = processor();
        let sheet = Sheet::from_octets(&octets).unwrap();
        reading += processor() - began;
        let began = processor();
        matrix.add(&format!("host-{host:05}.example"), sheet);
        adding += processor() - began;
    }
    (matrix, reading, adding)
}
