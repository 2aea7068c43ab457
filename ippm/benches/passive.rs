//! What a packet costs in each step of the passive methods: `cargo bench -p ippm`. Nanoseconds for one packet: the least
//! and the median of 15 rounds of 200,000 packets each. `--test` runs each once with few packets, so that none can rot.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use ippm::flow::EndReason;
use ippm::follow::table::{BiKey, FlowTable, Limits};
use ippm::follow::tcp::TcpFollower;
use ippm::histogram::Histogram;
use ippm::lda::Lda;
use ippm::model::law::{Clock, Delay};
use ippm::model::packet::{Ends, render};
use ippm::model::path::Path;
use ippm::model::random::Dice;
use ippm::model::tcp::{Connection, run};
use ippm::oneway::Listening;
use ippm::oneway::packets::{Report, match_reports};
use ippm::packet::{Class, parse};
use ippm::select::{Key, Tuple, signature};

struct Bench {
    rounds: usize,
    packets: usize,
}

impl Bench {
    fn each(&self, name: &str, mut once: impl FnMut(usize)) {
        let mut took: Vec<f64> = (0..self.rounds)
            .map(|_| {
                let began = Instant::now();
                for i in 0..self.packets {
                    once(i);
                }
                began.elapsed().as_nanos() as f64 / self.packets as f64
            })
            .collect();
        took.sort_unstable_by(f64::total_cmp);
        println!("{name:<44} {:8.2} {:8.2}", took[0], took[took.len() / 2]);
    }
}

fn main() {
    let short = std::env::args().any(|argument| argument == "--test");
    let bench =
        if short { Bench { rounds: 1, packets: 1_000 } } else { Bench { rounds: 15, packets: 200_000 } };
    println!("{:<44} {:>8} {:>8}", "nanoseconds for one packet", "least", "median");

    let path = Path::clean(Delay::Exponential { base: 100_000, mean: 20_000 }).losing(0.001);
    let outcome = run(&Connection::over(path, path, 1));
    let frames = render(&outcome.client, Ends::default(), Clock::TRUE);
    let key = Key::new([1, 2]);

    bench.each("parse: TCP over IPv4", |i| {
        black_box(parse(&frames[i % frames.len()].1));
    });
    let parsed: Vec<_> = frames
        .iter()
        .filter_map(|(ns, frame)| match parse(frame).class {
            Class::Ip(ip) => Some((*ns, ip, frame)),
            _ => None,
        })
        .collect();
    bench.each("signature of a packet", |i| {
        let (_, ip, frame) = &parsed[i % parsed.len()];
        let payload = ip.payload.map_or(&[][..], |payload| payload.of(frame));
        black_box(signature(&key, ip, payload, Tuple::Same));
    });
    let mut follower = TcpFollower::default();
    bench.each("follow TCP", |i| {
        let (ns, ip, _) = &parsed[i % parsed.len()];
        if let Some(tcp) = &ip.tcp {
            black_box(follower.segment(ip.source_port == 40_000, tcp, ip.ip_id, true, *ns));
        }
    });

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
        bench.each(&format!("flow table: {flows} flows at random"), |i| {
            now += 1;
            *table.packet(keys[order[i]], now, || 0, &mut |_| {}) += 1;
        });
        table.end(keys[0], EndReason::ForcedEnd, &mut |_| {});
    }

    let mut dice = Dice::new(2);
    let sent: Vec<Report> =
        (0..bench.packets).map(|i| Report { name: dice.bits(), ns: i as u64 * 1_000 }).collect();
    let received: Vec<Report> = sent.iter().map(|r| Report { ns: r.ns + 50_000, ..*r }).collect();
    let here = Listening { first_ns: 0, last_ns: u64::MAX };
    let mut took: Vec<f64> = (0..bench.rounds)
        .map(|_| {
            let (mut a, mut b) = (sent.clone(), received.clone());
            let began = Instant::now();
            black_box(match_reports(&mut a, &mut b, here, here, None));
            began.elapsed().as_nanos() as f64 / bench.packets as f64
        })
        .collect();
    took.sort_unstable_by(f64::total_cmp);
    println!("{:<44} {:8.2} {:8.2}", "match reports of two points", took[0], took[took.len() / 2]);

    let digests: Vec<_> = (0..4_096u64).map(|i| key.digest(&[i])).collect();
    let mut lda = Lda::new(10);
    bench.each("LDA: add a packet, 1,024 buckets", |i| {
        lda.add(digests[i % digests.len()], i as u64);
    });
    black_box(lda.buckets());
    let delays: Vec<u64> = (0..4_096).map(|_| (100_000.0 * (0.5 * dice.normal()).exp()) as u64).collect();
    let mut histogram = Histogram::new();
    bench.each("histogram: record a delay", |i| histogram.record(delays[i % delays.len()]));
    black_box(histogram.count());
}
