//! What a packet costs in each step of the passive methods: `cargo bench -p ippm --bench passive`. Nanoseconds for one packet:
//! the least and the median of 15 rounds of 200,000 packets each; and allocations for one packet, in the last round and
//! so in the steady state. `--test` runs each once with few packets, so that none can rot.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ippm::flow::EndReason;
use ippm::follow::stamps::StampFollower;
use ippm::follow::table::{BiKey, FlowTable, Limits};
use ippm::follow::tcp::TcpFollower;
use ippm::histogram::{Histogram, Recorder};
use ippm::lda::shared::SharedCounters;
use ippm::lda::{FlowLda, Lda};
use ippm::model::law::{Clock, Delay};
use ippm::model::packet::{Ends, render};
use ippm::model::path::Path;
use ippm::model::random::Dice;
use ippm::model::tcp::{Connection, run};
use ippm::oneway::Listening;
use ippm::oneway::octets::{Piece, match_pieces};
use ippm::oneway::packets::{Report, match_reports};
use ippm::packet::{Class, parse};
use ippm::processing::{Sighting, match_ports};
use ippm::select::{Key, Tuple, signature};

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on to `System` as it came; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` by the functions here, with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as for `dealloc`; the caller answers for `size`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Bench {
    rounds: usize,
    packets: usize,
}

impl Bench {
    /// One packet at a time, from a list gone round. Whatever carries a place in it from one to the next would cost more than
    /// some of what is measured here.
    fn each<T>(&self, name: &str, list: &[T], mut once: impl FnMut(&T)) {
        let (times, rest) = (self.packets / list.len(), self.packets % list.len());
        self.all(name, || {
            (0..times).for_each(|_| list.iter().for_each(&mut once));
            list[..rest].iter().for_each(&mut once);
        });
    }

    /// A round's packets at once.
    fn all(&self, name: &str, mut round: impl FnMut()) {
        let (mut took, mut allocated) = (Vec::with_capacity(self.rounds), 0);
        for _ in 0..self.rounds {
            let (before, began) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
            round();
            took.push(began.elapsed().as_nanos() as f64 / self.packets as f64);
            allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
        took.sort_unstable_by(f64::total_cmp);
        let allocated = allocated as f64 / self.packets as f64;
        println!("{name:<44} {:8.2} {:8.2} {allocated:12.4}", took[0], took[took.len() / 2]);
    }
}

fn main() {
    let short = std::env::args().any(|argument| argument == "--test");
    let bench =
        if short { Bench { rounds: 2, packets: 1_000 } } else { Bench { rounds: 15, packets: 200_000 } };
    println!("{:<44} {:>8} {:>8} {:>12}", "nanoseconds for one packet", "least", "median", "allocations");
    headers(&bench);
    flows(&bench);
    matching(&bench);
    counters(&bench);
}

fn headers(bench: &Bench) {
    let path = Path::clean(Delay::Exponential { base: 100_000, mean: 20_000 }).losing(0.001);
    let outcome = run(&Connection::over(path, path, 1));
    let frames = render(&outcome.client, Ends::default(), Clock::TRUE);
    let key = Key::new([1, 2]);

    bench.each("the loop and a list, nothing else", &frames, |frame| {
        black_box(frame);
    });
    bench.each("parse: TCP over IPv4", &frames, |frame| {
        black_box(parse(&frame.1));
    });
    let parsed: Vec<_> = frames
        .iter()
        .filter_map(|(ns, frame)| match parse(frame).class {
            Class::Ip(ip) => Some((*ns, ip, frame)),
            _ => None,
        })
        .collect();
    bench.each("signature of a packet", &parsed, |(_, ip, frame)| {
        let payload = ip.payload.map_or(&[][..], |payload| payload.of(frame));
        black_box(signature(&key, ip, payload, Tuple::Same));
    });
    let (mut tcp, mut stamps) = (TcpFollower::default(), StampFollower::default());
    bench.each("follow TCP: sequence numbers", &parsed, |(ns, ip, _)| {
        if let Some(segment) = &ip.tcp {
            black_box(tcp.segment(ip.source_port == 40_000, segment, ip.ip_id, true, *ns));
        }
    });
    bench.each("follow TCP: time stamps", &parsed, |(ns, ip, _)| {
        if let Some(segment) = &ip.tcp {
            black_box(stamps.segment(ip.source_port == 40_000, segment, *ns));
        }
    });
}

fn flows(bench: &Bench) {
    for flows in [1_000u32, 100_000] {
        let mut dice = Dice::new(1);
        let keys: Vec<BiKey> = (0..flows)
            .map(|i| {
                let client = IpAddr::from((0x0a00_0000 + i).to_be_bytes());
                BiKey::of((client, 40_000), (IpAddr::from([10, 255, 0, 1]), 80), 6, 0).0
            })
            .collect();
        let order: Vec<usize> = (0..bench.packets).map(|_| dice.below(keys.len())).collect();
        let mut table: FlowTable<u64> = FlowTable::new(Limits { flows: 1 << 18, idle_ns: u64::MAX }, 7);
        let mut now = 0;
        bench.each(&format!("flow table: {flows} flows at random"), &order, |at| {
            now += 1;
            *table.packet(keys[*at], now, || 0, &mut |_| {}) += 1;
        });
        table.end(keys[0], EndReason::ForcedEnd, &mut |_| {});
    }
}

fn matching(bench: &Bench) {
    let mut dice = Dice::new(2);
    let sent: Vec<Report> =
        (0..bench.packets).map(|i| Report { name: dice.bits(), ns: i as u64 * 1_000 }).collect();
    let received: Vec<Report> = sent.iter().map(|r| Report { ns: r.ns + 50_000, ..*r }).collect();
    let here = Listening { first_ns: 0, last_ns: u64::MAX };
    // Lists are sorted in place: each round begins with copies, which are a part of what is measured.
    bench.all("match reports of two points", || {
        black_box(match_reports(&mut sent.clone(), &mut received.clone(), here, here, None));
    });
    let piece = |r: &Report| Piece { seq: (r.ns / 1_000) as u32 * 1_448, length: 1_448, ns: r.ns };
    let (out, back): (Vec<_>, Vec<_>) = (
        sent.iter().map(piece).collect(),
        sent.iter().map(|r| Piece { ns: r.ns + 50_000, ..piece(r) }).collect(),
    );
    bench.all("match TCP data of two points", || {
        black_box(match_pieces(&out, &back, 1_448, here, here, None));
    });
    let sighting = |r: &Report| Sighting { name: r.name, ns: r.ns, way: 0 };
    let (a, b): (Vec<_>, Vec<_>) =
        (sent.iter().map(sighting).collect(), received.iter().map(sighting).collect());
    bench.all("match a middle box's two ports", || {
        black_box(match_ports(&mut a.clone(), &mut b.clone(), [here, here], None));
    });
}

fn counters(bench: &Bench) {
    let key = Key::new([1, 2]);
    let digests: Vec<_> = (0..4_096u64).map(|i| key.digest(&[i])).collect();
    let (mut lda, mut own) = (Lda::new(10), FlowLda::default());
    let mut shared = SharedCounters::new(50_000, 100, 1);
    // Any time will do.
    bench.each("LDA: add a packet, 1,024 buckets", &digests, |digest| lda.add(*digest, digest.name));
    bench.each("LDA of one flow: add a packet", &digests, |digest| own.add(*digest, digest.name));
    bench.each("shared counters: add a packet, 50,000", &digests, |digest| {
        shared.add(digest.select & 0xfff, *digest, digest.name);
    });
    black_box((lda.buckets(), own.buckets(), shared.buckets()));

    let mut dice = Dice::new(3);
    let delays: Vec<u64> = (0..4_096).map(|_| (100_000.0 * (0.5 * dice.normal()).exp()) as u64).collect();
    let (mut recorder, mut histogram) = (Recorder::default(), Histogram::new());
    bench.each("histogram, recorder: record a delay", &delays, |ns| recorder.record(*ns));
    assert_eq!(recorder.histogram().min_ns(), delays.iter().copied().min());
    bench.each("histogram: record a delay", &delays, |ns| histogram.record(*ns));
    let others = [histogram.clone()];
    bench.each("histogram: merge one", &others, |other| histogram.merge(other));
    black_box(histogram.count());
}
