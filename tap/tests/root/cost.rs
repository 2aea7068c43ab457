//! What a packet costs, by the kernel's run-time statistics: the programs in turn on the same ports under the same load,
//! round by round, each round's figures less the empty program's of the same round.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ippm::flow::Direction;
use ippm::testpackets::Frame;
use lab::{Median, Namespace, find_program, median};
use tap::cost::{Runs, Sampling};
use tap::{Attach, Dispatcher, Port, Programs, Set, SetSpec};

use crate::net::{LEFT, Load, Net, RIGHT, inside};

const DIRECTIONS: [Direction; 2] = [Direction::Tx, Direction::Rx];
/// A set follows TCP paced; the last takes one round trip after the other.
pub const VARIANTS: [&str; 4] = ["empty", "counting", "with RTT", "every RTT"];
const N: usize = VARIANTS.len();

/// A program that makes traffic, killed with this.
struct Running(Child);

impl Running {
    fn start(ns: &Namespace, program: &str, package: &str, args: &[&str]) -> Self {
        let mut command: Command = ns.command(find_program(program, package).unwrap());
        command.args(args).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whatever makes up a load; ends when dropped.
#[derive(Default)]
struct Traffic {
    _programs: Vec<Running>,
    _threads: Vec<Load>,
}

/// Awake: with somebody on each processor who only takes time that nobody else wants. With one client the processors sleep
/// between packets, and what they do first when they wake is slower, the empty program included.
pub const LOADS: [&str; 7] = [
    "TCP stream",
    "redis, 1 client",
    "redis, 1 client, awake",
    "redis, 50 clients",
    "UDP stream",
    "UDP 64 B flood",
    "UDP 64 B, 1,000 flows",
];

fn start(load: &str, net: &Net) -> Traffic {
    let right = RIGHT[0].to_string();
    let at = |port| SocketAddr::new(RIGHT[0], port);
    let iperf = |args: &[&str]| {
        let server = Running::start(&net.right, "iperf3", "iperf3", &["--server"]);
        thread::sleep(Duration::from_millis(300));
        let client = [&["--client", &right, "--time", "600"], args].concat();
        vec![server, Running::start(&net.left, "iperf3", "iperf3", &client)]
    };
    let redis = |clients: &str| {
        let args = ["--bind", &right, "--protected-mode", "no", "--save", "", "--appendonly", "no"];
        let server = Running::start(&net.right, "redis-server", "redis-server", &args);
        thread::sleep(Duration::from_millis(500));
        let args = ["-h", &right, "-t", "get,set", "-n", "1000000", "-c", clients, "-l", "-q"];
        vec![server, Running::start(&net.left, "redis-benchmark", "redis-tools", &args)]
    };
    // SCHED_IDLE
    let awake = || {
        let args = ["--idle", "0", "sh", "-c", "while :; do :; done"];
        let n = thread::available_parallelism().map_or(1, usize::from);
        (0..n).map(|_| Running::start(&net.left, "chrt", "util-linux", &args)).collect::<Vec<_>>()
    };
    let programs = |programs| Traffic { _programs: programs, ..Traffic::default() };
    let threads = |threads| Traffic { _threads: threads, ..Traffic::default() };
    match load {
        "TCP stream" => programs(iperf(&[])),
        "UDP stream" => programs(iperf(&["--udp", "--bitrate", "0", "--length", "1400"])),
        "redis, 1 client" => programs(redis("1")),
        "redis, 1 client, awake" => programs(redis("1").into_iter().chain(awake()).collect()),
        "redis, 50 clients" => programs(redis("50")),
        "UDP 64 B flood" => threads(vec![Load::flood(&net.left, &net.right, at(7003), 64 - 42, 1)]),
        _ => threads(vec![Load::flood(&net.left, &net.right, at(7003), 64 - 42, 1000)]),
    }
}

/// One load's figures: by variant and direction, runs in all and ns; for those of ours net of the empty program.
pub struct Row {
    pub load: &'static str,
    pub runs: [[u64; 2]; N],
    pub ns: [[Option<Median>; 2]; N],
}

/// Counting alone, with round trips, with every round trip.
fn sets(spec: SetSpec) -> [Set; 3] {
    [(false, true), (true, true), (true, false)]
        .map(|(rtt, paced)| Set::create(SetSpec { rtt, paced, ..spec }).unwrap())
}

/// Measures and prints. `window`: how long each program is on in each round.
pub fn run(rounds: usize, window: Duration, wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let net = Net::new();
    net.up();
    let spec = SetSpec { ring_bytes: 1 << 20, ..SetSpec::default() };
    let [counting, following, every] = sets(spec);
    let empty = Programs::empty(&counting).unwrap();
    let variants = [&empty, counting.programs(), following.programs(), every.programs()];
    let mut taps: Vec<Port> = ["p1", "p2"]
        .map(|p| {
            let ifindex = net.port(p);
            inside(&net.host, || Port::attach(ifindex, &empty, Attach::Auto, None)).unwrap()
        })
        .into();
    let _on = Sampling::start().unwrap();
    let mut rows = Vec::new();
    println!(
        "ns per packet and hook; {rounds} rounds of {window:?} for each program; median (95 % interval)"
    );
    println!(
        "{:<22} {:<2} {:>10}  {:<20} {:<24} {:<24} {:<24}",
        "load", "", "packets/s", "empty", "counting, net", "with RTT, net", "every RTT, net"
    );
    for load in LOADS.into_iter().filter(|l| wanted(l)) {
        let _traffic = start(load, &net);
        thread::sleep(Duration::from_millis(700));
        let mut values: [[Vec<f64>; 2]; N] = Default::default();
        let mut runs = [[0; 2]; N];
        let mut elapsed = Duration::ZERO;
        for round in 0..rounds {
            let mut of_round: [[Option<f64>; 2]; N] = Default::default();
            for i in 0..N {
                let variant = (round + i) % N;
                inside(&net.host, || {
                    taps.iter_mut().for_each(|t| t.move_to(variants[variant], None).unwrap())
                });
                // caches and branch predictors know the new program
                thread::sleep(window / 10);
                let read = || DIRECTIONS.map(|d| variants[variant].runs(d).unwrap());
                let (before, begun) = (read(), Instant::now());
                thread::sleep(window);
                let after = read();
                elapsed += begun.elapsed();
                for d in 0..2 {
                    let some: Runs = after[d].since(before[d]);
                    runs[variant][d] += some.count;
                    of_round[variant][d] = some.ns_per_run().filter(|_| some.count >= 100);
                }
            }
            for d in 0..2 {
                let [Some(e), Some(c), Some(f), Some(all)] = of_round.map(|v| v[d]) else { continue };
                for (variant, value) in [e, c - e, f - e, all - e].into_iter().enumerate() {
                    values[variant][d].push(value);
                }
            }
        }
        let ns = values.map(|v| v.map(median));
        for d in 0..2 {
            let all: u64 = runs.iter().map(|r| r[d]).sum();
            let text = |m: Option<Median>| match m {
                Some(m) => format!("{:6.1} ({:.1} to {:.1})", m.median, m.low, m.high),
                None => "  none".into(),
            };
            println!(
                "{:<22} {:<2} {:>10.0}  {:<20} {:<24} {:<24} {:<24}",
                if d == 0 { load } else { "" },
                DIRECTIONS[d].as_str(),
                all as f64 / elapsed.as_secs_f64(),
                text(ns[0][d]),
                text(ns[1][d]),
                text(ns[2][d]),
                text(ns[3][d]),
            );
        }
        let taken = [&following, &every].map(|set| {
            let mut reader = tap::Reader::new(set.descriptors().unwrap()).unwrap();
            reader.scan().map(|s| s.set).unwrap_or_default()
        });
        println!(
            "{:<22} so far {} singletons, {} probes given up; every: {} and {}",
            "",
            taken[0].rtt_samples,
            taken[0].probes_cancelled,
            taken[1].rtt_samples,
            taken[1].probes_cancelled
        );
        rows.push(Row { load, runs, ns });
    }
    rows
}

/// Prints what a run costs without a network around it: the same frame again and again, everything in the nearest cache;
/// and requests and responses, of which each can end one probe and begin another, by run-time statistics.
pub fn hot(times: u32) {
    let spec = SetSpec { ring_bytes: 1 << 20, ..SetSpec::default() };
    let [counting, following, every] = sets(spec);
    let empty = Programs::empty(&counting).unwrap();
    let variants = [&empty, counting.programs(), following.programs(), every.programs()];
    let between = |d: Direction| {
        let ends = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        if d == Direction::Tx { Frame::between(ends.0, ends.1) } else { Frame::between(ends.1, ends.0) }
    };
    let udp = between(Direction::Tx).udp((5000, 6000)).payload(&[0; 64]).build();
    let ack = between(Direction::Tx).tcp((5000, 6000), 1, 1, 16).tcp_timestamps(1, 1).build();
    let v6 = Frame::between(RIGHT[1], LEFT[1]).udp((5000, 6000)).payload(&[0; 64]).build();
    let show = |what: &str, ns: [f64; N]| {
        println!(
            "{what:<40} empty {:6.1}   counting, net {:6.1}   with RTT, net {:6.1}   every RTT, net {:6.1}",
            ns[0],
            ns[1] - ns[0],
            ns[2] - ns[0],
            ns[3] - ns[0]
        );
    };
    for (what, frame) in
        [("UDP, same frame", &udp), ("UDP over IPv6, same frame", &v6), ("TCP, bare ACK, same frame", &ack)]
    {
        // short runs, the best of many: what anybody else's process did in between is not the program's cost
        let best =
            |p: &&Programs| (0..100).map(|_| p.repeat(Direction::Tx, frame, times / 100).unwrap()).min();
        show(what, variants.map(|p| f64::from(best(&p).unwrap_or_default())));
    }
    let _on = Sampling::start().unwrap();
    let ns = variants.map(|program| {
        let (mut seq, mut before) = ([1u32, 1], program.runs(Direction::Tx).unwrap());
        let mut some = Vec::new();
        for n in 1..=times / 20 {
            let (d, data) = if n % 2 == 0 { (Direction::Tx, 0) } else { (Direction::Rx, 1) };
            let ports = if data == 0 { (5001, 6001) } else { (6001, 5001) };
            let frame = between(d)
                .tcp(ports, seq[data], seq[1 - data], 24)
                .tcp_timestamps(n, n)
                .payload(&[1; 50])
                .build();
            seq[data] += 50;
            program.repeat(d, &frame, 1).unwrap();
            if n % 50 == 0 {
                let now = program.runs(Direction::Tx).unwrap();
                some.extend(now.since(std::mem::replace(&mut before, now)).ns_per_run());
            }
        }
        median(some).map_or(f64::NAN, |m| m.median)
    });
    show("TCP, request and response", ns);
}

/// Prints what a packet costs by the dispatcher at a port that is held by TCX, and still bound to the filters that it shared.
/// Returns packets, and the dispatcher's ns by direction.
pub fn left(rounds: usize, window: Duration) -> (u64, [Option<Median>; 2]) {
    let net = Net::new();
    let root = std::path::Path::new("/sys/fs/bpf").join(format!("conmon-cost-{}", std::process::id()));
    let dir = root.join("set");
    let set = Set::create(SetSpec { ring_bytes: 1 << 20, ..SetSpec::default() }).unwrap();
    set.pin(&dir).unwrap();
    let dispatcher = inside(&net.host, || Dispatcher::start(&root)).unwrap();
    let taps = ["p1", "p2"].map(|port| {
        let ifindex = net.port(port);
        inside(&net.host, || {
            let shared = Port::attach_shared(&dispatcher, ifindex, set.programs(), &dir);
            let mut tap = shared.unwrap().unwrap();
            tap.fasten(&set).unwrap();
            tap
        })
    });
    net.up();
    let (mut ns, mut packets) = ([const { Vec::new() }; 2], 0);
    {
        let _on = Sampling::start().unwrap();
        let _traffic = start("UDP 64 B flood", &net);
        thread::sleep(Duration::from_millis(500));
        for _ in 0..rounds {
            let before = DIRECTIONS.map(|d| dispatcher.runs(d).unwrap());
            thread::sleep(window);
            for (d, ns) in DIRECTIONS.into_iter().zip(&mut ns) {
                let some = dispatcher.runs(d).unwrap().since(before[usize::from(d == Direction::Rx)]);
                packets += some.count;
                ns.extend(some.ns_per_run());
            }
        }
    }
    for tap in taps {
        inside(&net.host, || tap.detach()).unwrap();
    }
    Set::unpin(&dir).unwrap();
    Set::unpin(&root.join(Dispatcher::DIR)).unwrap();
    inside(&net.host, || Dispatcher::remove(&root)).unwrap();
    let _ = std::fs::remove_dir(&root);
    let ns = ns.map(median);
    for (d, ns) in DIRECTIONS.into_iter().zip(ns) {
        let ns = ns.map_or(f64::NAN, |m| m.median);
        println!("a port held by TCX and still bound to shared filters, {d}: {ns:.1} ns for the dispatcher");
    }
    (packets, ns)
}

/// Prints what loading costs.
pub fn sizes() {
    let spec = SetSpec::default();
    for rtt in [false, true] {
        let mut took = Vec::new();
        let mut last = None;
        for _ in 0..5 {
            let begun = Instant::now();
            last = Some(Set::create(SetSpec { rtt, ..spec }).unwrap());
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        let (Some(set), Some(took)) = (last, median(took)) else { return };
        for d in DIRECTIONS {
            let size = set.programs().size(d).unwrap();
            println!(
                "{} {d}: {} instructions walked through by the verifier, {} bytes of machine code",
                if rtt { "with RTT" } else { "counting" },
                size.verified,
                size.machine_code
            );
        }
        println!(
            "a set of {} KiB, made and loaded: {:.0} ms ({:.0} to {:.0})",
            spec.kernel_bytes() / 1024,
            took.median,
            took.low,
            took.high
        );
    }
}
