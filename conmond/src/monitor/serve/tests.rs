use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Std;
use std::sync::mpsc;

use ippm::measurement::Batch;

use super::super::Alive;
use super::*;

const SPEC: SetSpec = SetSpec {
    flows: 8,
    pairs: 4,
    ports: 4,
    hists: 4,
    pair_extents: 0,
    hist_extents: 0,
    ring_bytes: 4096,
    rtt: true,
    paced: true,
    samples: false,
};

/// Six descriptors that are no maps: who is handed them is what these tests look at.
fn descriptors() -> Descriptors {
    let one = || std::fs::File::open("/dev/null").expect("/dev/null").into();
    Descriptors { fds: std::iter::repeat_with(one).take(6).collect(), spec: SPEC }
}

struct Lab {
    dir: PathBuf,
    served: Served,
    reports: mpsc::Receiver<Report>,
}

impl Lab {
    fn start(name: &str, check: impl Fn(i32, u32) -> bool + Send + Sync + 'static) -> Self {
        let dir = std::env::temp_dir().join(format!("cm-serve-{}-{name}", std::process::id()));
        let (told, reports) = mpsc::channel();
        let sink: Sink = Arc::new(move |r| {
            // a test that is over does not listen any more
            let _ = told.send(r);
        });
        let settings = MfSettings { scan_interval_ms: 20, ..MfSettings::default() };
        let served =
            Served::start("a", &dir, descriptors(), settings, Arc::new(check), sink).expect("served");
        Self { dir, served, reports }
    }

    fn next(&self) -> What {
        let report = self.reports.recv_timeout(Duration::from_secs(20)).expect("a report");
        assert_eq!(&*report.slot, "a");
        report.what
    }

    fn connect(&self) -> Client {
        let stream = Std::connect(self.served.path()).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Client { stream, frames: Frames::new(MAX_TO_MONITOR) }
    }

    /// A client that said hello and got its set.
    fn good(&self) -> Client {
        let mut client = self.connect();
        client.hello(VERSION);
        assert!(matches!(self.next(), What::Connected { pid } if pid == std::process::id() as i32));
        assert!(matches!(client.receive(), ToMonitor::Hello { version: VERSION, .. }));
        assert_eq!(
            client.receive(),
            ToMonitor::Set { spec: SPEC.into(), generation: self.served.generation() }
        );
        client
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct Client {
    stream: Std,
    frames: Frames,
}

impl Client {
    fn send(&mut self, message: &FromMonitor) {
        self.stream.write_all(&protocol::encode(message, MAX_FROM_MONITOR).expect("short")).expect("sent");
    }

    fn hello(&mut self, version: u32) {
        self.send(&FromMonitor::Hello { version, pid: 1 });
    }

    fn batch(&mut self, generation: u64, batch: Batch) {
        self.send(&FromMonitor::Batch { generation, batch });
    }

    fn receive(&mut self) -> ToMonitor {
        loop {
            if let Some((message, _)) = self.frames.pop().expect("sound") {
                return message;
            }
            let mut chunk = [0; 4096];
            let n = self.stream.read(&mut chunk).expect("a message");
            assert!(n > 0, "closed");
            self.frames.push(&chunk[..n]);
        }
    }

    /// Reads until the other side closes.
    fn closed(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return e.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }
}

fn any(_: i32, _: u32) -> bool {
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_is_handed_the_set_and_its_batches_arrive_in_order() {
    tokio::task::block_in_place(|| {
        let lab = Lab::start("good", any);
        let mode = |p: &Path| std::fs::metadata(p).expect("metadata").permissions().mode() & 0o777;
        assert_eq!((mode(&lab.dir), mode(lab.served.path())), (0o711, 0o600));
        let mut client = lab.good();
        client.send(&FromMonitor::Alive(Alive { scans: 7, ..Alive::default() }));
        for sequence in 1..=3 {
            client.batch(1, Batch { sequence, ..Batch::default() });
        }
        assert!(matches!(lab.next(), What::Alive(Alive { scans: 7, .. })));
        for sequence in 1..=3 {
            assert!(matches!(lab.next(), What::Batch { generation: 1, batch } if batch.sequence == sequence));
        }
        assert_eq!(lab.served.replace(descriptors()), 2);
        assert!(matches!(client.receive(), ToMonitor::Set { generation: 2, .. }));
        // a batch of the set before may have been under way
        client.batch(1, Batch::default());
        client.batch(2, Batch::default());
        assert!(matches!(lab.next(), What::Batch { generation: 1, .. }));
        assert!(matches!(lab.next(), What::Batch { generation: 2, .. }));
        lab.served.dismiss();
        assert_eq!(client.receive(), ToMonitor::Bye);
        drop(client);
        assert!(matches!(lab.next(), What::Disconnected { error: Fault::Closed }));
        let counts = lab.served.counts();
        assert_eq!((counts.connected, counts.batches, counts.misbehaved, counts.refused), (1, 5, 0, 0));
        let path = lab.served.path().to_owned();
        assert!(path.exists());
        drop(lab);
        assert!(!path.exists());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_breaks_the_protocol_is_cut_off_and_counted() {
    tokio::task::block_in_place(|| {
        let lab = Lab::start("bad", any);
        let expiry = |slot| ippm::measurement::Expiry {
            of: ippm::measurement::ExpiryOf::Pair,
            id: ippm::measurement::SlotTag { slot, tag: 1 },
            if_idle_since: ippm::time::Timestamp::MAX,
        };
        type Deed = Box<dyn Fn(&mut Client)>;
        let deeds: [(&str, Deed); 6] = [
            ("length", Box::new(|c| c.stream.write_all(&[0xff; 4]).expect("sent"))),
            ("garbage", Box::new(|c| c.stream.write_all(&[3, 0, 0, 0, 9, 9, 9]).expect("sent"))),
            ("hello again", Box::new(|c| c.hello(VERSION))),
            ("no such set", Box::new(|c| c.batch(2, Batch::default()))),
            (
                "no such slot",
                Box::new(move |c| c.batch(1, Batch { expiries: vec![expiry(4)], ..Batch::default() })),
            ),
            (
                "too many",
                Box::new(move |c| {
                    c.batch(
                        1,
                        Batch { expiries: vec![expiry(0); Batch::MAX_EXPIRIES + 1], ..Batch::default() },
                    );
                }),
            ),
        ];
        let number = deeds.len() as u64;
        for (what, deed) in deeds {
            let mut client = lab.good();
            deed(&mut client);
            assert!(client.closed(), "{what}");
            assert!(matches!(lab.next(), What::Misbehaved { .. }), "{what}");
            assert!(matches!(lab.next(), What::Disconnected { .. }), "{what}");
        }
        assert_eq!(lab.served.counts().misbehaved, number);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_cut_off_is_no_misbehaviour_and_no_message() {
    tokio::task::block_in_place(|| {
        let lab = Lab::start("cut", any);
        let mut client = lab.good();
        let bytes = protocol::encode(&FromMonitor::Alive(Alive::default()), 1000).expect("short");
        client.stream.write_all(&bytes[..bytes.len() - 1]).expect("sent");
        drop(client);
        assert!(matches!(lab.next(), What::Disconnected { error: Fault::Closed }));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_takes_over_only_when_it_is_good() {
    tokio::task::block_in_place(|| {
        let lab = Lab::start("newcomer", any);
        let mut first = lab.good();
        let mut other = lab.connect();
        other.hello(VERSION + 1);
        assert!(
            matches!(lab.next(), What::Misbehaved { error: Fault::Version { found } } if found == VERSION + 1)
        );
        assert!(other.closed());
        let mut rude = lab.connect();
        rude.send(&FromMonitor::Alive(Alive::default()));
        assert!(matches!(lab.next(), What::Misbehaved { error: Fault::Unexpected(_) }));
        // the first is still there
        first.batch(1, Batch::default());
        assert!(matches!(lab.next(), What::Batch { .. }));
        let mut second = lab.connect();
        second.hello(VERSION);
        assert!(matches!(lab.next(), What::Disconnected { error: Fault::Replaced }));
        assert!(matches!(lab.next(), What::Connected { .. }));
        assert!(first.closed());
        assert!(matches!(second.receive(), ToMonitor::Hello { .. }));
        assert!(matches!(second.receive(), ToMonitor::Set { .. }));
        second.batch(1, Batch::default());
        assert!(matches!(lab.next(), What::Batch { .. }));
        assert_eq!((lab.served.counts().connected, lab.served.counts().refused), (2, 2));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_sees_nothing() {
    tokio::task::block_in_place(|| {
        let me = nix::unistd::geteuid().as_raw();
        let lab = Lab::start("stranger", move |pid, uid| {
            assert_eq!((pid, uid), (std::process::id() as i32, me));
            false
        });
        let mut client = lab.connect();
        assert!(matches!(lab.next(), What::Misbehaved { error: Fault::Stranger { .. } }));
        let mut chunk = [0; 16];
        assert_eq!(client.stream.read(&mut chunk).ok(), Some(0), "not even a hello");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_given_up() {
    tokio::task::block_in_place(|| {
        let lab = Lab::start("silent", any);
        let mut client = lab.good();
        // part of a message is not a word
        client.stream.write_all(&[9, 0]).expect("sent");
        assert!(matches!(lab.next(), What::Disconnected { error: Fault::Silent(_) }));
        assert_eq!(lab.served.counts().silent, 1);
        assert!(client.closed());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_blocks_nobody() {
    tokio::task::block_in_place(|| {
        let lab = Lab::start("frozen", any);
        let mut client = lab.good();
        // far more than a socket's buffer holds, were they queued
        for _ in 0..2_000 {
            lab.served.replace(descriptors());
        }
        let open = std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
        assert!(open < 1_000, "{open} descriptors are open: sets are queued for who does not read");
        // it wakes up, and the newest is among what it finds
        loop {
            if let ToMonitor::Set { generation: 2_001, .. } = client.receive() {
                break;
            }
        }
    });
}

#[test]
fn a_monitor_may_burst_and_is_then_slowed_to_the_rate() {
    let t = Instant::now();
    let mut pace = Pace::new(t);
    let mut sent = 0;
    while pace.pause(t, 4 << 20).is_none() {
        sent += 4 << 20;
    }
    assert_eq!(sent, Pace::BURST);
    // from then on: what a second brings, whatever the size of messages
    for len in [4usize << 20, 1] {
        let (mut now, mut bytes) = (t + Duration::from_secs(1), 0u64);
        let mut pace = Pace { tokens: 0, at: now };
        let begun = now;
        while now < begun + Duration::from_secs(10) {
            now += pace.pause(now, len).unwrap_or_default();
            bytes += Pace::LEAST.max(len as u64);
        }
        let rate = bytes as f64 / (now - begun).as_secs_f64();
        assert!((rate / Pace::RATE as f64 - 1.0).abs() < 0.02, "{len}: {rate}");
    }
}

#[test]
fn a_rested_monitor_may_burst_again_and_no_more_than_that() {
    let t = Instant::now();
    let mut pace = Pace { tokens: 0, at: t };
    assert_eq!(pace.pause(t + Duration::from_secs(3600), Pace::BURST as usize), None);
    assert!(pace.pause(t + Duration::from_secs(3600), 1).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_a_crash_left_is_replaced() {
    let dir = std::env::temp_dir().join(format!("cm-serve-{}-left", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    for name in [SOCKET, "mc.sock-next"] {
        drop(std::os::unix::net::UnixListener::bind(dir.join(name)).expect("bind"));
    }
    let served =
        Served::start("a", &dir, descriptors(), MfSettings::default(), Arc::new(any), Arc::new(drop));
    let served = served.expect("served");
    assert!(Std::connect(served.path()).is_ok());
    drop(served);
    std::fs::remove_dir(&dir).expect("nothing is left in it");
}
