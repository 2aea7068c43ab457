//! `conmond monitor` as a process of its own, without privilege, at work on real sets. Needs CAP_BPF and CAP_NET_ADMIN
//! to load them; where no set is needed, nothing is needed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use conmond::monitor::protocol::{
    self, Frames, FromMonitor, MAX_FROM_MONITOR, MAX_TO_MONITOR, MONITOR_UID, ToMonitor, VERSION,
};
use conmond::monitor::{Alive, Inline, MfSettings, Report, Served, What};
use ippm::flow::{Direction, EndReason};
use ippm::measurement::{
    Expiry, ExpiryOf, FlowEvent, FlowEventKind, FlowMeasurement, PairMeasurement, SetCounters, SlotTag,
};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::Pid;
use tap::{Janitor, Set, SetSpec};

const PATIENCE: Duration = Duration::from_secs(60);

/// Root or nothing: says so, and fails where it must have run.
fn privileged() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let is_required = ["CI", "CONMON_TEST_REQUIRE_ROOT"].iter().any(|key| std::env::var_os(key).is_some());
    assert!(!is_required, "this test needs root (CAP_BPF, CAP_NET_ADMIN)");
    eprintln!("SKIPPED: needs root (CAP_BPF, CAP_NET_ADMIN)");
    false
}

/// A monitor process, killed on drop.
struct Process(Child);

impl Process {
    fn start(dir: &Path) -> Self {
        // by its descriptor: the directories above it may be closed to the monitor's user
        let executable = File::open(env!("CARGO_BIN_EXE_conmond")).unwrap();
        let mut command = Command::new(format!("/proc/self/fd/{}", executable.as_raw_fd()));
        command.arg("monitor").arg("--dir").arg(dir).env_clear().current_dir("/").stdin(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            command.uid(MONITOR_UID).gid(MONITOR_UID);
        }
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for it to end by itself; true when it ended well.
    fn ended(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn status(&self, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    }

    fn resident_kib(&self) -> u64 {
        self.status("VmRSS").trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for a socket, removed on drop.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cm-monitor-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everything that was reported, newest values first found by id.
#[derive(Default)]
struct Seen {
    flows: HashMap<SlotTag, FlowMeasurement>,
    pairs: HashMap<SlotTag, PairMeasurement>,
    ports: HashMap<u32, u64>,
    events: Vec<FlowEvent>,
    expiries: Vec<Expiry>,
    set: SetCounters,
    generation: u64,
    batches: u64,
    alive: Alive,
    connected: Vec<i32>,
    disconnected: Vec<String>,
}

impl Seen {
    fn pair_packets(&self) -> u64 {
        self.pairs.values().map(|p| p.counters.tx.packets + p.counters.rx.packets).sum()
    }

    fn pair_bytes(&self) -> u64 {
        self.pairs.values().map(|p| p.counters.tx.bytes + p.counters.rx.bytes).sum()
    }

    fn count(&self, kind: FlowEventKind) -> usize {
        self.events.iter().filter(|e| e.kind == kind).count()
    }

    fn take(&mut self, report: Report) {
        match report.what {
            What::Batch { generation, batch } => {
                self.batches += 1;
                self.generation = generation;
                self.set = batch.set;
                for f in batch.flows {
                    self.flows.insert(f.id, f);
                }
                for p in batch.pairs {
                    // cumulative: what is reported never goes back
                    if let Some(old) = self.pairs.get(&p.id) {
                        assert!(p.counters.tx.packets >= old.counters.tx.packets, "{p:?} after {old:?}");
                    }
                    self.pairs.insert(p.id, p);
                }
                for p in batch.ports {
                    let packets = p.counts.tx.iter().chain(&p.counts.rx).map(|c| c.packets).sum();
                    self.ports.insert(p.ifindex, packets);
                }
                self.events.extend(batch.events);
                self.expiries.extend(batch.expiries);
            }
            What::Alive(alive) => self.alive = alive,
            What::Connected { pid } => self.connected.push(pid),
            What::Disconnected { error } => self.disconnected.push(error.to_string()),
            What::Misbehaved { error } => panic!("a sound monitor misbehaves: {error}"),
        }
    }
}

/// A set, who reports on it, and what was reported.
struct Lab {
    runtime: tokio::runtime::Runtime,
    dir: Dir,
    set: Arc<Set>,
    told: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    seen: Seen,
}

impl Lab {
    fn new(name: &str, spec: SetSpec) -> Self {
        let (told, reports) = mpsc::channel();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self {
            runtime,
            dir: Dir::new(name),
            set: Arc::new(Set::create(spec).unwrap()),
            told,
            reports,
            seen: Seen::default(),
        }
    }

    fn sink(&self) -> conmond::monitor::Sink {
        let told = self.told.clone();
        Arc::new(move |report| {
            // a test that is over does not listen any more
            let _ = told.send(report);
        })
    }

    fn serve(&self, settings: MfSettings) -> Served {
        let _entered = self.runtime.enter();
        let check = Arc::new(|pid: i32, uid: u32| pid > 0 && uid == MONITOR_UID);
        Served::start("a", &self.dir.0, self.set.descriptors().unwrap(), settings, check, self.sink())
            .unwrap()
    }

    fn until(&mut self, what: &str, done: impl Fn(&Seen) -> bool) {
        let begun = Instant::now();
        while !done(&self.seen) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let report = self.reports.recv_timeout(left);
            let Ok(report) = report else {
                panic!(
                    "{what}: {} batches, {} flows, {} packets of pairs, {:?}, {:?}",
                    self.seen.batches,
                    self.seen.flows.len(),
                    self.seen.pair_packets(),
                    self.seen.connected,
                    self.seen.disconnected,
                );
            };
            self.seen.take(report);
        }
    }
}

fn small() -> SetSpec {
    SetSpec { flows: 256, pairs: 64, ports: 16, hists: 16, ring_bytes: 64 << 10, ..SetSpec::default() }
}

fn quick() -> MfSettings {
    MfSettings { scan_interval_ms: 50, ..MfSettings::default() }
}

fn udp(from: [u8; 4], sport: u16, payload: usize) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend_from_slice(&(28 + payload as u16).to_be_bytes());
    f.extend_from_slice(&[0, 1, 0, 0, 64, 17, 0, 0]);
    f.extend_from_slice(&from);
    f.extend_from_slice(&[10, 9, 9, 9]);
    f.extend_from_slice(&sport.to_be_bytes());
    f.extend_from_slice(&7000u16.to_be_bytes());
    f.extend_from_slice(&(8 + payload as u16).to_be_bytes());
    f.extend_from_slice(&[0, 0]);
    f.resize(14 + 28 + payload, 0);
    f
}

/// What was fed.
#[derive(Default)]
struct Fed {
    packets: u64,
    bytes: u64,
}

impl Fed {
    /// Packets of `flows` flows between four containers' addresses and one server. A test run takes the index of an
    /// interface that exists; 1 is the loopback, everywhere.
    fn feed(&mut self, set: &Set, flows: u16, each: u16) {
        for i in 0..flows {
            for n in 0..each {
                let frame = udp([10, 0, 0, (i % 4) as u8 + 1], 20_000 + i, usize::from(n % 100));
                set.test_run(Direction::Tx, &frame, 1, 0).unwrap();
                self.packets += 1;
                self.bytes += frame.len() as u64;
            }
        }
    }
}

#[test]
fn root_an_unprivileged_process_reports_what_was_counted_and_its_successor_goes_on() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("counts", small());
    let served = lab.serve(quick());
    let mut fed = Fed::default();
    fed.feed(&lab.set, 20, 5);
    let first = Process::start(&lab.dir.0);
    lab.until("the first totals", |s| s.pair_packets() == 100 && s.flows.len() == 20);
    assert_eq!(lab.seen.connected, [first.pid()]);
    assert_eq!(lab.seen.pair_bytes(), fed.bytes);
    assert_eq!(lab.seen.pairs.len(), 4);
    assert_eq!(lab.seen.set.abi, tap::ABI);
    for flow in lab.seen.flows.values() {
        assert_eq!((flow.counters.tx.packets, flow.counters.rx.packets), (5, 0));
        assert_eq!(flow.key.remote, IpAddr::from([10, 9, 9, 9]));
        assert_eq!(flow.key.ifindex, 1);
        assert!(flow.pair.is_some());
    }
    // the ring told of each, once
    lab.until("events", |s| s.count(FlowEventKind::New) >= 20);
    assert_eq!(lab.seen.count(FlowEventKind::New), 20);
    // nothing that could harm the host
    assert_eq!(first.status("CapEff"), "0000000000000000");
    assert_eq!(first.status("CapPrm"), "0000000000000000");
    assert_eq!(first.status("NoNewPrivs"), "1");
    assert!(first.status("Uid").split_whitespace().all(|uid| uid == "65534"));

    // a port's own classes
    let mut arp = udp([10, 0, 0, 1], 1, 0);
    arp[12..14].copy_from_slice(&[8, 6]);
    lab.set.test_run(Direction::Rx, &arp, 1, 0).unwrap();
    lab.until("ARP at its port", |s| s.ports.get(&1) == Some(&1));

    first.signal(Signal::SIGKILL);
    lab.until("its end", |s| s.disconnected.len() == 1);
    fed.feed(&lab.set, 30, 3);
    lab.seen.flows.clear();
    let second = Process::start(&lab.dir.0);
    let all = fed.packets;
    lab.until("totals that go on", |s| s.pair_packets() == all && s.flows.len() == 30);
    assert_eq!(lab.seen.pair_bytes(), fed.bytes);
    assert_eq!(lab.seen.connected, [first.pid(), second.pid()]);
    lab.until("events of meanwhile", |s| s.count(FlowEventKind::New) >= 30);
    assert_eq!(lab.seen.count(FlowEventKind::New), 30);
    assert_eq!(served.counts().misbehaved, 0);
}

#[test]
fn root_expired_flows_end_with_their_reason_and_their_totals_stay() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("expiry", small());
    let _served = lab.serve(MfSettings { idle_timeout_s: 1, ..quick() });
    let _monitor = Process::start(&lab.dir.0);
    let mut fed = Fed::default();
    fed.feed(&lab.set, 8, 2);
    lab.until("proposals", |s| s.expiries.len() >= 8);
    let idle = ExpiryOf::Flow(EndReason::IdleTimeout);
    assert!(lab.seen.expiries.iter().all(|e| e.of == idle), "{:?}", lab.seen.expiries);
    let end: Vec<_> =
        lab.seen.expiries.iter().map(|e| tap::Command::EndFlow(e.id, e.if_idle_since)).collect();
    let free: Vec<_> =
        lab.seen.expiries.iter().map(|e| tap::Command::FreeFlow(e.id, EndReason::IdleTimeout)).collect();
    lab.set.janitor().run(&end).unwrap();
    Janitor::grace_period();
    lab.set.janitor().run(&free).unwrap();
    lab.until("ends", |s| s.count(FlowEventKind::End(EndReason::IdleTimeout)) == 8);
    lab.until("pairs without flows", |s| s.pairs.values().all(|p| p.active_flows == 0));
    assert_eq!((lab.seen.pair_packets(), lab.seen.pair_bytes()), (fed.packets, fed.bytes));
    let ended: u64 =
        lab.seen.events.iter().filter(|e| e.kind != FlowEventKind::New).map(|e| e.counters.tx.packets).sum();
    assert_eq!(ended, fed.packets);
    // nothing is left to propose
    lab.seen.expiries.clear();
    let scans = lab.seen.alive.scans;
    lab.until("further scans", |s| s.alive.scans > scans + 5);
    lab.seen.expiries.clear();
    lab.until("further scans", |s| s.alive.scans > scans + 10);
    assert_eq!(lab.seen.expiries, []);
    assert_eq!((lab.seen.alive.flows, lab.seen.alive.pairs), (0, 4));
}

#[test]
fn root_a_monitor_ends_when_told() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("end", small());
    let served = lab.serve(quick());
    let mut told = Process::start(&lab.dir.0);
    lab.until("the first", |s| s.connected.len() == 1);
    told.signal(Signal::SIGTERM);
    let begun = Instant::now();
    assert!(told.ended());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let mut dismissed = Process::start(&lab.dir.0);
    lab.until("the second", |s| s.connected.len() == 2);
    served.dismiss();
    assert!(dismissed.ended());
    // without anybody to connect to, too
    let nowhere = Dir::new("nowhere");
    let mut lonely = Process::start(&nowhere.0);
    let begun = Instant::now();
    while lonely.status("SigBlk").ends_with("0000") {
        assert!(begun.elapsed() < PATIENCE, "it does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    lonely.signal(Signal::SIGTERM);
    assert!(lonely.ended());
}

#[test]
fn root_a_monitor_outlives_its_controller() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("outlives", small());
    let served = lab.serve(quick());
    let monitor = Process::start(&lab.dir.0);
    let mut fed = Fed::default();
    fed.feed(&lab.set, 4, 2);
    lab.until("totals", |s| s.pair_packets() == 8 && s.count(FlowEventKind::New) == 4);
    drop(served);
    assert!(!lab.dir.0.join(protocol::SOCKET).exists());
    // more new flows than the ring holds records of, read while nobody listens
    for round in 0..6 {
        for i in 0..100u16 {
            let frame = udp([10, 0, 0, 7], 30_000 + round * 100 + i, 1);
            lab.set.test_run(Direction::Tx, &frame, 1, 0).unwrap();
            fed.packets += 1;
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    lab.seen = Seen::default();
    let _served = lab.serve(quick());
    let all = fed.packets;
    lab.until("totals of before and meanwhile", |s| s.pair_packets() == all);
    assert_eq!(lab.seen.connected, [monitor.pid()]);
    let begun = lab.seen.set.flows_begun as usize - 4;
    assert!(begun > 200, "of a table of 256");
    lab.until("events of meanwhile", |s| s.count(FlowEventKind::New) == begun);
    assert_eq!(lab.seen.set.ring_full, 0);
}

#[test]
fn root_a_resized_set_is_taken_over_and_sums_do_not_go_back() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("resized", small());
    let served = lab.serve(quick());
    let _monitor = Process::start(&lab.dir.0);
    let mut fed = Fed::default();
    fed.feed(&lab.set, 40, 2);
    lab.until("totals", |s| s.pair_packets() == 80 && s.flows.len() == 40);
    let grown = lab.set.resized(1024).unwrap();
    fed.feed(&grown, 10, 3);
    assert_eq!(grown.drain().unwrap(), tap::Drained { moved: 40, folded: 0 });
    assert_eq!(served.replace(grown.descriptors().unwrap()), 2);
    let all = fed.packets;
    // `Seen` checks that no pair went back
    lab.until("totals over both tables", |s| s.generation == 2 && s.pair_packets() == all);
    assert_eq!(lab.seen.pair_bytes(), fed.bytes);
    assert_eq!(served.generation(), 2);
}

#[test]
fn root_a_thread_reports_as_a_process_does() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::new("inline", small());
    let inline = Inline::start("n", lab.set.descriptors().unwrap(), quick(), lab.sink()).unwrap();
    let mut fed = Fed::default();
    fed.feed(&lab.set, 20, 5);
    lab.until("totals", |s| s.pair_packets() == 100 && s.flows.len() == 20);
    assert_eq!(lab.seen.pair_bytes(), fed.bytes);
    lab.until("events", |s| s.count(FlowEventKind::New) == 20);
    let begun = Instant::now();
    lab.set.test_run(Direction::Tx, &udp([10, 0, 0, 1], 1, 1), 1, 0).unwrap();
    lab.until("one more event, by the ring", |s| s.count(FlowEventKind::New) == 21);
    println!("an event took {:?}", begun.elapsed());
    assert_eq!(inline.replace(lab.set.descriptors().unwrap()).unwrap(), 2);
    lab.until("the same once more", |s| s.generation == 2);
    drop(inline);
    while lab.reports.try_recv().is_ok() {}
    assert!(lab.reports.recv_timeout(Duration::from_millis(200)).is_err(), "it goes on after its end");
}

/// A controller that does what a test wants.
struct Controller {
    stream: UnixStream,
    frames: Frames,
}

impl Controller {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, frames: Frames::new(MAX_FROM_MONITOR) }
    }

    fn bytes(&self, bytes: &[u8], fds: &[RawFd]) {
        let control = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &control[..] };
        let sent = sendmsg::<()>(
            self.stream.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        assert_eq!(sent.unwrap(), bytes.len());
    }

    fn send(&self, message: &ToMonitor, fds: &[RawFd]) {
        self.bytes(&protocol::encode(message, MAX_TO_MONITOR).unwrap(), fds);
    }

    fn hello(&self) {
        self.send(&ToMonitor::Hello { version: VERSION, settings: quick() }, &[]);
    }

    /// The next message, `None` when the monitor closed the connection.
    fn receive(&mut self) -> Option<FromMonitor> {
        let mut chunk = [0; 64 << 10];
        loop {
            if let Some((message, _)) = self.frames.pop().unwrap() {
                return Some(message);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.frames.push(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

#[test]
fn a_monitor_survives_a_controller_that_breaks_the_protocol() {
    let dir = Dir::new("broken");
    let path = dir.0.join(protocol::SOCKET);
    let listener = UnixListener::bind(&path).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(MONITOR_UID), None).unwrap();
    }
    let mut process = Process::start(&dir.0);
    let null = File::open("/dev/null").unwrap();
    let fd = null.as_fd().as_raw_fd();
    let set = ToMonitor::Set { spec: small().into(), generation: 1 };
    let other = ToMonitor::Hello { version: VERSION + 1, settings: quick() };
    type Deed<'a> = Box<dyn Fn(&Controller) + 'a>;
    let deeds: [(&str, Deed<'_>); 9] = [
        ("too long", Box::new(|c| c.bytes(&[0, 0, 2, 0], &[]))),
        ("garbage", Box::new(|c| c.bytes(&[2, 0, 0, 0, 77, 77], &[]))),
        ("another version", Box::new(|c| c.send(&other, &[]))),
        ("a set before hello", Box::new(|c| c.send(&set, &[fd; 6]))),
        ("no descriptors", Box::new(|c| (c.hello(), c.send(&set, &[])).1)),
        ("five", Box::new(|c| (c.hello(), c.send(&set, &[fd; 5])).1)),
        ("seven", Box::new(|c| (c.hello(), c.send(&set, &[fd; 7])).1)),
        (
            "sixty with hello",
            Box::new(|c| {
                let hello = ToMonitor::Hello { version: VERSION, settings: quick() };
                c.send(&hello, &[fd; 60]);
            }),
        ),
        ("what is no map", Box::new(|c| (c.hello(), c.send(&set, &[fd; 6])).1)),
    ];
    for (what, deed) in deeds {
        let mut controller = Controller::accept(&listener);
        assert!(matches!(controller.receive(), Some(FromMonitor::Hello { version: VERSION, .. })), "{what}");
        deed(&controller);
        assert_eq!(controller.receive(), None, "{what}");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).map(Iterator::count);
    assert!(open.is_ok_and(|n| n < 12), "descriptors that nobody claimed are closed");
    let controller = Controller::accept(&listener);
    controller.hello();
    controller.send(&ToMonitor::Bye, &[]);
    assert!(process.ended(), "and still obeys");
}

#[test]
fn root_a_controller_that_does_not_read_costs_a_monitor_no_memory() {
    if !privileged() {
        return;
    }
    let set = Set::create(SetSpec { flows: 4096, ring_bytes: 1 << 20, ..small() }).unwrap();
    let dir = Dir::new("slow");
    let path = dir.0.join(protocol::SOCKET);
    let listener = UnixListener::bind(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(MONITOR_UID), None).unwrap();
    let process = Process::start(&dir.0);
    let mut controller = Controller::accept(&listener);
    assert!(matches!(controller.receive(), Some(FromMonitor::Hello { .. })));
    let settings = MfSettings { scan_interval_ms: 10, ..quick() };
    controller.send(&ToMonitor::Hello { version: VERSION, settings }, &[]);
    let descriptors = set.descriptors().unwrap();
    let fds: Vec<RawFd> = descriptors.fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    controller.send(&ToMonitor::Set { spec: descriptors.spec.into(), generation: 1 }, &fds);
    let mut fed = Fed::default();
    let mut resident = Vec::new();
    for _ in 0..12 {
        // every flow changes with every round; a message about all of them does not fit the socket's buffer
        fed.feed(&set, 3000, 1);
        std::thread::sleep(Duration::from_millis(50));
        resident.push(process.resident_kib());
    }
    let (early, late) = (resident[4], resident[11]);
    assert!(late < early + 2048, "grew while nobody read: {resident:?} KiB");
    assert!(late < 32 << 10, "{resident:?} KiB");
    // now that somebody reads: nothing is missing, nothing out of order
    let (mut sequence, mut packets, mut pairs) = (0, 0, HashMap::new());
    while packets != fed.packets {
        match controller.receive() {
            Some(FromMonitor::Batch { batch, .. }) => {
                sequence += 1;
                assert_eq!(batch.sequence, sequence);
                pairs.extend(batch.pairs.iter().map(|p| (p.id, p.counters.tx.packets)));
                packets = pairs.values().sum();
            }
            Some(_) => {}
            None => panic!("it gave up at {packets} of {}", fed.packets),
        }
    }
}
