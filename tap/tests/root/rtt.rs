//! Round-trip delays are right: every singleton that the tap takes of real applications' traffic, against a nanosecond
//! capture at the same port.
//!
//! Two judges. The model computes, from the capture's octets and time stamps, what the tap should have taken: all singletons
//! are held against it. And tshark says what it takes the delay to be (`tcp.analysis.ack_rtt`). It reckons an
//! acknowledgement from the newest segment it covers, the tap from its probe; where an acknowledgement covers more than
//! the probe, the two mean different things, and only the others are compared.
//!
//! The capture's clock is not quite the hook's. To the container, the packet is stamped some 0.3 µs after the hook. From the
//! container it is stamped before: by default when the packet is put into the processor's backlog queue, so that the time
//! it waits there (2 to over 100 µs under load) would be counted as the tap's error. `netdev_tstamp_prequeue=0`
//! stamps it when it is taken out, some 1 µs before the hook; the test switches that while it runs. And the capture must not
//! wake its reader for each packet (tcpdump's immediate mode does): the wake-up, in a virtual machine often 15 µs, comes
//! between stamp and hook.
//!
//! Those two judge a set that follows one round trip after the other. A paced set, the product's own, draws some by a
//! secret. It is held to what any choice must satisfy: each round trip is that of a segment with new
//! data, ended by the first acknowledgement of it, and they are distributed as those of all segments that left around them
//! are.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ippm::flow::{Direction, FlowKey, Leg};
use ippm::histogram::Histogram;
use ippm::measurement::RttSingleton;
use lab::pcap::{self, Packet};
use lab::{Namespace, find_program, output_text, wait_for};
use tap::{Attach, Port, Reader, Set, SetSpec};

use crate::net::{LEFT, Net, RIGHT, inside};
use crate::oracle::{Oracle, Singleton, before};
use crate::privileged;

/// What a singleton may be off.
const TOLERANCE_NS: u64 = 5_000;
/// How much later at most whoever is drawn gets to its peer and back, for being drawn: cache lines that nobody touched for
/// milliseconds, and a clock. Seen were 300 to 600 ns. It is between the capture's stamps of the leg away, which encloses
/// the hooks, and not between those of the near leg.
const DRAWING_NS: u64 = 600;
const QUANTILES: [f64; 4] = [0.1, 0.5, 0.9, 0.99];
const PREQUEUE: &str = "/proc/sys/net/core/netdev_tstamp_prequeue";

/// A server that is killed with the test.
struct Server(Child);

impl Server {
    fn start(ns: &Namespace, at: SocketAddr, program: &str, package: &str, args: &[&str]) -> Self {
        let mut command = ns.command(find_program(program, package).unwrap());
        command.args(args).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().unwrap());
        wait_for(program, Duration::from_secs(10), || Ok(inside(ns, || TcpStream::connect(at)).ok()))
            .unwrap();
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Time stamps at the hook instead of the queue; as it was when dropped.
struct StampAtHook(Vec<u8>);

impl StampAtHook {
    fn new() -> Self {
        let before = std::fs::read(PREQUEUE).unwrap();
        std::fs::write(PREQUEUE, "0").unwrap();
        Self(before)
    }
}

impl Drop for StampAtHook {
    fn drop(&mut self) {
        let _ = std::fs::write(PREQUEUE, &self.0);
    }
}

/// A capture whose reader is woken once in a while, not for each packet.
struct Capture {
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

impl Capture {
    fn start(ns: &Namespace, interface: &str, folder: &Path) -> Self {
        let (file, log) = (folder.join("hook.pcap"), folder.join("hook.log"));
        let mut command = ns.command(find_program("tcpdump", "tcpdump").unwrap());
        command.args(["--time-stamp-precision=nano", "-n", "-U", "-Z", "root", "-s", "128", "-B", "65536"]);
        command.args(["-i", interface, "-w"]).arg(&file).arg("tcp");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let capture = Self { child: command.spawn().unwrap(), file, log };
        wait_for("tcpdump", Duration::from_secs(10), || {
            Ok(capture.said().contains("listening on").then_some(()))
        })
        .unwrap();
        capture
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// All that passed. A block of packets that is not full is handed over after a second.
    fn finish(mut self) -> Vec<Packet> {
        std::thread::sleep(Duration::from_millis(1500));
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.said());
        assert!(self.said().lines().any(|l| l.starts_with("0 packets dropped by kernel")), "{}", self.said());
        pcap::read(&self.file).unwrap()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(ns: &Namespace, program: &str, package: &str, args: &[&str]) {
    let mut command: Command = ns.command("timeout");
    command.arg("30").arg(find_program(program, package).unwrap()).args(args).current_dir("/");
    output_text(&mut command).unwrap();
}

/// The tap with a capture beside it at the same port while applications run.
struct Watched {
    reader: Reader,
    singletons: Vec<RttSingleton>,
    packets: Vec<Packet>,
    file: PathBuf,
    /// Of the wall clock to the tap's.
    offset: i128,
    ifindex: u32,
    _net: Net,
}

fn watch(paced: bool, applications: impl Fn(&Net)) -> Watched {
    let net = Net::new();
    net.up();
    let set =
        Set::create(SetSpec { paced, samples: true, ring_bytes: 64 << 20, ..SetSpec::default() }).unwrap();
    let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
    let ifindex = net.port("p1");
    let stamps = StampAtHook::new();
    let capture = Capture::start(&net.host, "p1", net.lab.dir());
    let tap = inside(&net.host, || Port::attach(ifindex, set.programs(), Attach::Auto, None)).unwrap();
    let offset = tap::clock::wall_offset_ns();
    applications(&net);
    std::thread::sleep(Duration::from_millis(100));
    inside(&net.host, || tap.detach()).unwrap();
    let file = capture.file.clone();
    let mut packets = capture.finish();
    drop(stamps);
    // two processors write the capture: nearly in order
    packets.sort_by_key(|p| p.time_ns);
    let singletons = reader.events(usize::MAX).singletons;
    assert_eq!(reader.counters().ring_full, 0);
    Watched { reader, singletons, packets, file, offset, ifindex, _net: net }
}

fn direction_of(p: &Packet) -> Direction {
    let from_v4 = p.data.get(26..30) == Some(&[10, 77, 0, 1]) && p.data[12] == 8;
    let from_v6 =
        p.data.get(22..38).is_some_and(|a| a.starts_with(&[0xfd, 0x77]) && a[15] == 1) && p.data[12] == 0x86;
    if from_v4 || from_v6 { Direction::Tx } else { Direction::Rx }
}

fn redis(net: &Net) -> Server {
    let [v4, v6] = RIGHT.map(|a| a.to_string());
    let args = ["--bind", &v4, &v6, "--protected-mode", "no", "--save", "", "--appendonly", "no"];
    Server::start(&net.right, SocketAddr::new(RIGHT[0], 6379), "redis-server", "redis-server", &args)
}

/// redis over both families and iperf3 at modest rates, both ways.
fn applications(net: &Net) {
    let [v4, v6] = RIGHT.map(|a| a.to_string());
    let _redis = redis(net);
    let _iperf =
        Server::start(&net.right, SocketAddr::new(RIGHT[0], 5201), "iperf3", "iperf3", &["--server"]);
    for (address, clients) in [(&v4, "1"), (&v4, "8"), (&v6, "4")] {
        let args = ["-h", address, "-t", "get,set,lrange_100", "-n", "2000", "-c", clients, "-q"];
        run(&net.left, "redis-benchmark", "redis-tools", &args);
    }
    for more in [&["-b", "40M"][..], &["-b", "200M", "--reverse"], &["-b", "100M", "--bidir"]] {
        let args = [&["--client", &v4, "--time", "1"], more].concat();
        run(&net.left, "iperf3", "iperf3", &args);
    }
}

/// What each thing is called by both judges: flow, leg, acknowledgement number.
type Name = (FlowKey, Leg, u32);

/// Each of the tap's singletons with the judge's of the same name nearest in time.
fn matched<'a, T>(
    tap: &'a [RttSingleton],
    judge: &'a HashMap<Name, Vec<(u64, T)>>,
    offset: i128,
) -> Vec<(&'a RttSingleton, Option<&'a T>)> {
    tap.iter()
        .map(|s| {
            let time = i128::from(s.time.as_nanos()) + offset;
            let of_that_name = judge.get(&(s.key, s.leg, s.ack)).into_iter().flatten();
            let nearest = of_that_name.min_by_key(|(t, _)| (i128::from(*t) - time).abs());
            (s, nearest.filter(|(t, _)| (i128::from(*t) - time).abs() < 2_000_000).map(|(_, v)| v))
        })
        .collect()
}

/// tshark's delays by name, in nanoseconds. Which handshake they are of it does not say: all are data's.
fn tshark(file: &Path, ifindex: u32) -> HashMap<Name, Vec<(u64, u64)>> {
    let fields = ["frame.time_epoch", "ip.src", "ipv6.src", "tcp.srcport", "tcp.dstport", "tcp.ack_raw"];
    let mut command = Command::new(find_program("tshark", "tshark").unwrap());
    command.arg("-r").arg(file).args(["-Y", "tcp.analysis.ack_rtt", "-T", "fields", "-E", "separator=,"]);
    for field in fields.iter().chain(&["tcp.analysis.ack_rtt"]) {
        command.args(["-e", field]);
    }
    let mut all: HashMap<Name, Vec<(u64, u64)>> = HashMap::new();
    for line in output_text(&mut command).unwrap().lines() {
        let columns: Vec<&str> = line.split(',').collect();
        let [time, v4, v6, source, destination, ack, rtt] = columns[..] else { panic!("tshark: {line}") };
        let from: IpAddr = if v4.is_empty() { v6 } else { v4 }.parse().unwrap();
        let (source, destination): (u16, u16) = (source.parse().unwrap(), destination.parse().unwrap());
        let family = usize::from(from.is_ipv6());
        let to_container = from == RIGHT[family];
        let (local_port, remote_port) =
            if to_container { (destination, source) } else { (source, destination) };
        let (local, remote) = (LEFT[family], RIGHT[family]);
        let key = FlowKey { local, remote, local_port, remote_port, proto: 6, vlan: 0, ifindex };
        let leg = if to_container { Leg::Away } else { Leg::Near };
        all.entry((key, leg, ack.parse().unwrap())).or_default().push((nanoseconds(time), nanoseconds(rtt)));
    }
    all
}

/// A decimal fraction of seconds.
fn nanoseconds(seconds: &str) -> u64 {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let fraction = format!("{fraction:0<9}");
    whole.parse::<u64>().unwrap() * 1_000_000_000 + fraction[..9].parse::<u64>().unwrap()
}

fn without_handshake(leg: Leg) -> Leg {
    match leg {
        Leg::AwayHandshake => Leg::Away,
        Leg::NearHandshake => Leg::Near,
        leg => leg,
    }
}

/// The kernel's histograms are what the pure crate makes of the same singletons.
fn assert_histograms_hold(reader: &mut Reader, singletons: &[RttSingleton]) {
    let scan = reader.scan().unwrap();
    let pair_of: HashMap<_, _> = scan.flows.iter().map(|f| ((f.key, f.id), f.pair.unwrap())).collect();
    let mut wanted: HashMap<(u32, Leg), Histogram> = HashMap::new();
    for s in singletons {
        wanted.entry((pair_of[&(s.key, s.id)], s.leg)).or_default().record(s.rtt_ns);
    }
    let found: HashMap<_, _> = scan.rtts.into_iter().map(|r| ((r.pair.slot, r.leg), r.histogram)).collect();
    assert_eq!(found, wanted);
    assert_eq!(scan.set.rtt_samples, singletons.len() as u64);
}

fn quantile(sorted: &[i64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize] as f64 / 1000.0
}

/// Share within the tolerance, and one line about how far off they are.
fn judged(what: &str, pairs: &[(u64, Option<u64>)]) -> f64 {
    let mut off: Vec<i64> =
        pairs.iter().filter_map(|(tap, judge)| Some(*tap as i64 - (*judge)? as i64)).collect();
    off.sort_unstable();
    assert!(!off.is_empty(), "{what}: nothing to judge");
    let within = off.iter().filter(|d| d.unsigned_abs() <= TOLERANCE_NS).count();
    let share = within as f64 / pairs.len() as f64;
    println!(
        "{what}: {} singletons, {:.3} % within 5 µs, {} without counterpart; tap less judge in µs: p1 {:.2}, p50 {:.2}, p99 {:.2}, extremes {:.1} and {:.1}",
        pairs.len(),
        share * 100.0,
        pairs.len() - off.len(),
        quantile(&off, 0.01),
        quantile(&off, 0.5),
        quantile(&off, 0.99),
        quantile(&off, 0.0),
        quantile(&off, 1.0),
    );
    share
}

#[test]
fn root_delays_are_those_of_a_capture() {
    if !privileged("root_delays_are_those_of_a_capture") {
        return;
    }
    let Watched { mut reader, singletons, packets, file, offset, ifindex, _net } = watch(false, applications);
    let mut truth = Oracle::default();
    for p in &packets {
        truth.packet(direction_of(p), &p.data, p.wire_len as usize, 0, ifindex, p.time_ns);
    }
    assert_histograms_hold(&mut reader, &singletons);
    let model = truth.singletons;
    println!(
        "{} packets, {} singletons of the tap, {} of the model",
        packets.len(),
        singletons.len(),
        model.len()
    );

    let mut by_name: HashMap<Name, Vec<(u64, Singleton)>> = HashMap::new();
    for s in &model {
        by_name.entry((s.key, s.leg, s.ack)).or_default().push((s.time_ns, s.clone()));
    }
    let judge = matched(&singletons, &by_name, offset);
    let of = |legs: &[Leg]| -> Vec<(u64, Option<u64>)> {
        let those = judge.iter().filter(|(s, _)| legs.contains(&s.leg));
        those.map(|(s, m)| (s.rtt_ns, m.map(|m| m.rtt_ns))).collect()
    };
    for leg in Leg::ALL {
        judged(&format!("model, {leg}"), &of(&[*leg]));
    }
    let by_model = judged("model, all", &of(Leg::ALL));
    let both_ways =
        (model.len() as i64 - singletons.len() as i64).unsigned_abs() as f64 / singletons.len() as f64;

    let theirs = tshark(&file, ifindex);
    let mut comparable = Vec::new();
    let mut plain = singletons.clone();
    plain.iter_mut().for_each(|s| s.leg = without_handshake(s.leg));
    for ((s, tshark), (_, model)) in matched(&plain, &theirs, offset).into_iter().zip(&judge) {
        if model.is_some_and(|m| m.end == m.ack) {
            comparable.push((s.rtt_ns, tshark.copied()));
        }
    }
    let by_tshark = judged("tshark, acknowledgements of just the probe", &comparable);

    assert!(singletons.len() > 10_000, "{} singletons: too few to judge", singletons.len());
    assert!(
        comparable.len() * 2 > singletons.len(),
        "{} of {} comparable",
        comparable.len(),
        singletons.len()
    );
    assert!(both_ways < 0.01, "tap {} singletons, model {}", singletons.len(), model.len());
    assert!(by_model >= 0.99, "{by_model}");
    assert!(by_tshark >= 0.99, "{by_tshark}");
}

/// redis, one client and eight, for a second or two each. (Streams are left to the other test: between stamp and hook of a large
/// packet there are often 5 µs, and of a paced set's few singletons they would be a good part.)
fn steady_applications(net: &Net) {
    let _redis = redis(net);
    for (address, clients, n) in [(RIGHT[0], "1", "30000"), (RIGHT[1], "8", "120000")] {
        let args = ["-h", &address.to_string(), "-t", "get", "-n", n, "-c", clients, "-q"];
        run(&net.left, "redis-benchmark", "redis-tools", &args);
    }
}

/// What a capture tells of one direction of a conversation, in order: segments with new data as (time, end), and
/// acknowledgements the other way as (time, number).
#[derive(Default)]
struct Way {
    segments: Vec<(u64, u32)>,
    acks: Vec<(u64, u32)>,
}

impl Way {
    /// From a segment to the first acknowledgement of all of it: that one's time and number.
    fn acknowledged(&self, (time, end): (u64, u32)) -> Option<(u64, u32)> {
        let from = self.acks.partition_point(|a| a.0 <= time);
        self.acks[from..].iter().find(|a| !before(a.1, end)).copied()
    }
}

fn ways(packets: &[Packet], ifindex: u32) -> HashMap<(FlowKey, Direction), Way> {
    let mut all: HashMap<(FlowKey, Direction), Way> = HashMap::new();
    for p in packets {
        let direction = direction_of(p);
        let parsed = ippm::packet::parse_captured(&p.data, p.wire_len as usize);
        let ippm::packet::Class::Ip(ip) = parsed.class else { continue };
        let (key, Some(tcp)) = (ip.flow_key(direction, parsed.vlan, ifindex), &ip.tcp) else { continue };
        if tcp.flags & ippm::packet::tcp_flag::ACK != 0 {
            all.entry((key, direction.reverse())).or_default().acks.push((p.time_ns, tcp.ack));
        }
        let way = all.entry((key, direction)).or_default();
        let end = tcp.seq.wrapping_add(tcp.payload);
        if tcp.payload > 0 && way.segments.last().is_none_or(|(_, right)| !before(tcp.seq, *right)) {
            way.segments.push((p.time_ns, end));
        }
    }
    all
}

/// Which part of all delays of the segments that left within `AROUND_NS` of a drawn one is shorter than its own, for each drawn one
/// (when it left, delay), whose own are taken for `shorter_ns` shorter. What is drawn weighs by time: where a conversation stood
/// still for a while (another process had the processor) there are fewer segments and as many draws, so all segments of the
/// conversation together are another distribution.
fn ranks_around(way: &Way, drawn: &[(u64, u64)], shorter_ns: u64) -> Vec<f64> {
    const AROUND_NS: u64 = 10_000_000;
    let all: Vec<(u64, u64)> =
        way.segments.iter().filter_map(|s| Some((s.0, way.acknowledged(*s)?.0 - s.0))).collect();
    let rank = |(left, delay): &(u64, u64)| {
        let from = all.partition_point(|s| s.0 + AROUND_NS < *left);
        let around = &all[from..from + all[from..].partition_point(|s| s.0 <= left + AROUND_NS)];
        let delay = delay.saturating_sub(shorter_ns);
        let shorter = around.iter().filter(|s| s.1 < delay).count();
        let same = around.iter().filter(|s| s.1 == delay).count();
        // the middle of those that are as long
        (around.len() > 20).then(|| (shorter as f64 + same as f64 / 2.0) / around.len() as f64)
    };
    drawn.iter().filter_map(rank).collect()
}

#[test]
fn root_paced_delays_are_some_of_all() {
    if !privileged("root_paced_delays_are_some_of_all") {
        return;
    }
    let Watched { mut reader, singletons, packets, offset, ifindex, .. } = watch(true, steady_applications);
    assert_histograms_hold(&mut reader, &singletons);
    let ways = ways(&packets, ifindex);
    let data: Vec<_> = singletons.iter().filter(|s| matches!(s.leg, Leg::Away | Leg::Near)).collect();
    let way_of = |key: FlowKey, leg: Leg| {
        let data = if leg == Leg::Away { Direction::Tx } else { Direction::Rx };
        &ways[&(key, data)]
    };

    // each is of a segment that passed when it began, ended by that one's first acknowledgement
    let judged_by_capture: Vec<_> = data
        .iter()
        .map(|s| {
            let ended = (i128::from(s.time.as_nanos()) + offset) as u64;
            let began = ended - s.rtt_ns;
            let way = way_of(s.key, s.leg);
            let near = |(time, _): &&(u64, u32)| time.abs_diff(began) < 1_000_000;
            let from = way.segments.partition_point(|(time, _)| *time + 1_000_000 < began);
            let delay = way.segments[from..]
                .iter()
                .take_while(near)
                .filter_map(|segment| Some((segment.0, way.acknowledged(*segment)?)))
                .filter(|(_, ack)| ack.1 == s.ack)
                .map(|(time, ack)| ack.0 - time)
                .min_by_key(|delay| delay.abs_diff(s.rtt_ns));
            (s.rtt_ns, delay)
        })
        .collect();
    let right = judged("paced, by the capture", &judged_by_capture);

    // and distributed as those of all segments that passed around it: both by the capture
    let mut drawn: HashMap<(FlowKey, Leg), Vec<(u64, u64)>> = HashMap::new();
    for (s, (_, delay)) in data.iter().zip(&judged_by_capture) {
        let began = (i128::from(s.time.as_nanos()) + offset) as u64 - s.rtt_ns;
        drawn.entry((s.key, s.leg)).or_default().extend(delay.map(|delay| (began, delay)));
    }
    for (of_leg, drawing_ns) in [(Leg::Away, DRAWING_NS), (Leg::Near, 0)] {
        let shares = |shorter_ns| {
            let long = drawn.iter().filter(|((_, leg), own)| *leg == of_leg && own.len() >= 60);
            let ranks: Vec<f64> = long
                .flat_map(|((key, _), own)| ranks_around(way_of(*key, of_leg), own, shorter_ns))
                .collect();
            assert!(ranks.len() > 700, "{of_leg}: {} of {} in long conversations", ranks.len(), data.len());
            QUANTILES.map(|q| ranks.iter().filter(|rank| **rank <= q).count() as f64 / ranks.len() as f64)
        };
        let (seen, without_drawing) = (shares(0), shares(drawing_ns));
        println!(
            "{of_leg}: at or below the {QUANTILES:?} quantiles of all around them: {seen:.3?}, {drawing_ns} ns \
             shorter {without_drawing:.3?}"
        );
        // Chance alone: 0.019 at the median of 700. By time alone (the first in each clock tick) it is 0.27 to 0.36, and 0.68 to 0.74 at 0.9.
        for (i, off) in [0.06, 0.09, 0.06, 0.03].into_iter().enumerate() {
            let is = seen[i] - off < QUANTILES[i] && QUANTILES[i] < without_drawing[i] + off;
            assert!(is, "{of_leg}: {seen:?}, {without_drawing:?}");
        }
    }
    assert!(right >= 0.99, "{right}");
}
