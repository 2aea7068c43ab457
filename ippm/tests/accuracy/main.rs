//! `docs/accuracy.md`: how far each estimator is from the truth, over seeded sweeps of the modelled network. The page is
//! written by this test (`UPDATE_GOLDEN=1 cargo test --release -p ippm --test accuracy`), and compared with what it finds
//! whenever it runs; that nothing breaks its own bound is asserted while it is made.

mod counters;
mod middle_box;
mod round_trips;

use std::fmt::Write as _;

use ippm::clock::Relation;
use ippm::lda::Lda;
use ippm::metric::proportion::Z95;
use ippm::metric::reordering;
use ippm::model::law::{Clock, Delay};
use ippm::model::path::{Carrier, Path};
use ippm::model::random::Dice;
use ippm::model::{Captured, EPOCH_NS, Transport, datagrams, tcp};
use ippm::oneway::octets::{Piece, match_pieces, segment_size};
use ippm::oneway::packets::{Report, match_reports};
use ippm::oneway::{Listening, Matching, Passage};
use ippm::select::{Key, Threshold, digest::digest};

const HEAD: &str = "# Accuracy

Written by `ippm/tests/accuracy`; do not edit (`UPDATE_GOLDEN=1 cargo test --release -p ippm --test accuracy` writes it anew).

Every estimator against a network in virtual time (`ippm::model`) whose truth is known for each packet. The same seeds give the
same networks, so this page changes only when an estimator or the model does. It says what the mathematics does with right
time stamps; what stamps are worth on a real machine it does not say.
";

/// Added to every seed (`IPPM_SEED`): other networks, of which there is no page, but which no estimator may break its bounds in.
fn seed() -> u64 {
    std::env::var("IPPM_SEED")
        .ok()
        .and_then(|seed| seed.parse::<u64>().ok())
        .unwrap_or(0)
        .wrapping_mul(1_000_003)
}

/// Of 1,000 intervals of 95 % so many must cover the truth. With seeds that nobody looked at before, chance is left some room.
fn assert_covered(covered: u32, what: &str) {
    let most = if seed() == 0 { 930..=970 } else { 924..=976 };
    assert!(most.contains(&covered), "{what}: {covered} of 1,000");
}

#[test]
fn the_page_is_what_the_sweeps_find() {
    let mut page = HEAD.to_owned();
    datagram_matching(&mut page);
    tcp_matching(&mut page);
    loss_intervals(&mut page);
    clocks(&mut page);
    aggregator(&mut page);
    round_trips::write(&mut page);
    counters::write(&mut page);
    middle_box::write(&mut page);
    if seed() != 0 {
        return;
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/accuracy.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &page).expect("docs/accuracy.md can be written");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == page,
        "docs/accuracy.md is out of date: run UPDATE_GOLDEN=1 cargo test --release -p ippm --test accuracy"
    );
}

fn listening(seen: &[Captured], clock: Clock) -> Listening {
    Listening { first_ns: clock.reading(seen[0].ns), last_ns: clock.reading(seen[seen.len() - 1].ns) }
}

const SKEWED: Clock = Clock { offset_ns: -10_000_000, skew_ppm: 50.0, resolution_ns: 1 };

fn datagram_matching(page: &mut String) {
    page.push_str(
        "
## Two points: datagrams by signature

50,000 datagrams, Poisson, 100 µs apart; log-normal delay; 0.2 % duplicated; the receiver's clock 10 ms behind and 50 ppm fast.
*Undecided* are lost ones so near the captures' ends that they are not called lost. Errors are those of all matched packets.

| Loss | Held back | Lost, true | Lost, found | Undecided | Largest error of a raw delay | Reordered, true | found |
| --- | --- | --- | --- | --- | --- | --- | --- |
",
    );
    for (seed, loss, held) in
        [(1, 0.0, 0.0), (2, 0.001, 0.001), (3, 0.01, 0.001), (4, 0.01, 0.01), (5, 0.05, 0.01)]
    {
        let path = Path::clean(Delay::LogNormal { base: 200_000, median: 50_000, sigma: 0.6 })
            .losing(loss)
            .reordering(held, 400_000)
            .duplicating(0.002, 30_000);
        let outcome = datagrams::run(&datagrams::Stream {
            count: 50_000,
            interval_ns: 100_000,
            poisson: true,
            payload: 64,
            forward: path,
            reverse: None,
            seed: seed + self::seed(),
        });
        let reports = |seen: &[Captured], clock: Clock| -> Vec<Report> {
            let name = |c: &Captured| match c.packet.transport {
                Transport::Udp { serial } => digest(1, &[serial]),
                Transport::Tcp { .. } => 0,
            };
            seen.iter().map(|c| Report { name: name(c), ns: clock.reading(c.ns) }).collect()
        };
        let found = match_reports(
            &mut reports(&outcome.client, Clock::TRUE),
            &mut reports(&outcome.server, SKEWED),
            listening(&outcome.client, Clock::TRUE),
            listening(&outcome.server, SKEWED),
            None,
        );
        let truth = outcome.journeys.iter();
        let mut passed: Vec<(u64, u64, u64)> = truth
            .clone()
            .filter_map(|j| Some((j.sent_ns, SKEWED.reading(j.arrival_ns?), j.serial)))
            .collect();
        passed.sort_unstable();
        let worst = found
            .passages
            .iter()
            .zip(&passed)
            .map(|(p, t)| p.raw_delay_ns().abs_diff((t.1 as i64) - (t.0 as i64)))
            .max();
        let lost = truth.filter(|j| j.arrival_ns.is_none()).count() as u64;
        assert_eq!((found.lost + found.undecided, found.passages.len()), (lost, passed.len()));
        let late = |mut order: Vec<(u64, u64)>| {
            order.sort_unstable();
            reordering::judge(order.iter().map(|(received, sent)| (*sent, *received))).reordered
        };
        let late_true = late(passed.iter().map(|(_, received, serial)| (*received, *serial)).collect());
        let late_found = late(found.passages.iter().map(|p| (p.received_ns, p.sent_ns)).collect());
        let _ = writeln!(
            page,
            "| {} % | {} % | {lost} | {} | {} | {} ns | {late_true} | {late_found} |",
            loss * 100.0,
            held * 100.0,
            found.lost,
            found.undecided,
            worst.unwrap_or(0),
        );
    }
}

fn tcp_matching(page: &mut String) {
    page.push_str(
        "
## Two points: TCP data by octets

20 connections of 1 MB each a row; exponential delay over 100 µs; 0.2 % held back; clocks as above. *Matched* is the share of
segments of which a delay is known; the rest was lost, or sent more than once (late segments make the sender do that, without any
loss). *Wrong* are delays that no segment had.

| Loss | Offload | Lost segments, true | found | Undecided | Matched | Wrong |
| --- | --- | --- | --- | --- | --- | --- |
",
    );
    for loss in [0.0, 0.001, 0.01, 0.05] {
        for offload in [false, true] {
            let (mut all, mut lost, mut wrong) = (Matching::default(), 0, 0);
            for seed in 0..20 {
                let path = Path::clean(Delay::Exponential { base: 100_000, mean: 20_000 })
                    .losing(loss)
                    .reordering(0.002, 100_000);
                let law = tcp::Connection::over(path, path, seed + self::seed());
                let outcome = tcp::run(&if offload { law.offloaded() } else { law });
                let pieces = |seen: &[Captured], clock: Clock| -> Vec<Piece> {
                    let data = seen.iter().filter(|c| c.packet.forward && c.packet.payload > 0);
                    data.filter_map(|c| match c.packet.transport {
                        Transport::Tcp { seq, .. } => {
                            Some(Piece { seq, length: c.packet.payload, ns: clock.reading(c.ns) })
                        }
                        Transport::Udp { .. } => None,
                    })
                    .collect()
                };
                let (sent, received) =
                    (pieces(&outcome.client, Clock::TRUE), pieces(&outcome.server, SKEWED));
                let unit = segment_size(sent.iter().chain(&received));
                let here = listening(&outcome.client, Clock::TRUE);
                let found =
                    match_pieces(&sent, &received, unit, here, listening(&outcome.server, SKEWED), None);
                let truth: Vec<_> = outcome.journeys.iter().filter(|j| j.forward && j.payload > 0).collect();
                let passed: std::collections::HashSet<(u64, u64)> =
                    truth.iter().filter_map(|j| Some((j.sent_ns, SKEWED.reading(j.arrival_ns?)))).collect();
                lost += truth.iter().filter(|j| j.arrival_ns.is_none()).count() as u64;
                let unknown = |p: &&Passage| !passed.contains(&(p.sent_ns, p.received_ns));
                wrong += found.passages.iter().filter(unknown).count();
                all.add(found);
            }
            // Which of several transmissions was lost is taken to be the earliest; where it was another, which was cut
            // otherwise, the count may be one off.
            assert!((all.lost + all.undecided).abs_diff(lost) * 200 <= lost);
            assert_eq!(wrong, 0);
            let _ = writeln!(
                page,
                "| {} % | {} | {lost} | {} | {} | {:.1} % | {wrong} |",
                loss * 100.0,
                if offload { "on" } else { "off" },
                all.lost,
                all.undecided,
                all.coverage().unwrap_or(0.0) * 100.0,
            );
        }
    }
}

fn loss_intervals(page: &mut String) {
    page.push_str(
        "
## Loss: 95 % intervals

1,000 runs each: in how many Wilson's interval covers the probability of loss. Once all of 4,000 datagrams are reported, and once
one in eight of 32,000, selected by their digest at both points.

| Loss | Covered, all reported | Covered, one in eight |
| --- | --- | --- |
",
    );
    for loss in [0.005, 0.01, 0.02, 0.05] {
        let covered = [(4_000, Threshold::ALL), (32_000, Threshold::new(3))].map(|(packets, threshold)| {
            let covers = |seed: &u64| {
                let seed = seed + self::seed();
                let key = Key::new([seed, 1]);
                let mut carrier = Carrier::new(Path::clean(Delay::Constant(50_000)).losing(loss), seed);
                let (mut sent, mut received) = (Vec::new(), Vec::new());
                for ns in (0..packets).map(|i| i * 100_000) {
                    let (arrival, digest) = (carrier.carry(ns).arrival_ns, key.digest(&[ns]));
                    if threshold.takes(digest.select) {
                        sent.push(Report { name: digest.name, ns });
                        received.extend(arrival.map(|ns| Report { name: digest.name, ns }));
                    }
                }
                let here = Listening { first_ns: 0, last_ns: u64::MAX };
                let matching = match_reports(&mut sent, &mut received, here, here, None);
                let (low, high) = matching.loss().wilson(Z95).expect("packets were sent");
                (low..=high).contains(&loss)
            };
            let covered = (0..1_000).filter(covers).count() as u32;
            assert_covered(covered, "loss");
            f64::from(covered) / 10.0
        });
        let _ = writeln!(page, "| {} % | {:.1} % | {:.1} % |", loss * 100.0, covered[0], covered[1]);
    }
}

fn clocks(page: &mut String) {
    page.push_str(
        "
## Clocks and one-way delay

200 pairs of clocks a row, offset up to 10 ms, skew up to 50 ppm each; packets both ways for ten seconds over paths whose
smallest delays are as given. Hard bounds are asked for at 100 moments of each run: *broken* counts those that did not hold.
*Error* is that of the offset, in the middle; *of its bound* how much of the stated bound it was, at most. Differences of the
smallest delays cannot be seen by any method: half of them is in the error, and always within the bound.

| Packets/s | Least delay there, back | Queues (mean) | Tick | Broken | Median error | Largest | Median bound | Of its bound | Median skew error |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
",
    );
    let rows = [
        (100, 50_000, 50_000, 20_000, 1),
        (1_000, 50_000, 50_000, 20_000, 1),
        (100, 50_000, 50_000, 500_000, 1),
        (100, 100_000, 40_000, 20_000, 1),
        (100, 1_000_000, 200_000, 300_000, 1),
        (100, 50_000, 50_000, 20_000, 1_000),
        (5, 50_000, 50_000, 20_000, 1),
    ];
    for (rate, there, back, queue, tick) in rows {
        let mut dice = Dice::new(rate + there + queue + tick + seed());
        let (mut errors, mut bounds, mut skews) = (Vec::new(), Vec::new(), Vec::new());
        let (mut broken, mut most) = (0, 0f64);
        for seed in 0..200 {
            let mut clock = || Clock {
                offset_ns: (dice.unit() * 20e6 - 10e6) as i64,
                skew_ppm: dice.unit() * 100.0 - 50.0,
                resolution_ns: tick,
            };
            let (a, b) = (clock(), clock());
            let law = |base| Path { fifo: false, ..Path::clean(Delay::Exponential { base, mean: queue }) };
            let mut carriers = [0, 1].map(|way| {
                let base = if way == 0 { there } else { back };
                Carrier::new(law(base), seed * 2 + way + self::seed())
            });
            let (mut forward, mut reverse) = (Vec::new(), Vec::new());
            let every = 1_000_000_000 / rate;
            for i in 0..rate * 10 {
                let (out, home) = (EPOCH_NS + i * every, EPOCH_NS + i * every + every / 3);
                let arrivals = [carriers[0].carry(out).arrival_ns, carriers[1].carry(home).arrival_ns];
                forward.extend(
                    arrivals[0].map(|ns| Passage { sent_ns: a.reading(out), received_ns: b.reading(ns) }),
                );
                reverse.extend(
                    arrivals[1].map(|ns| Passage { sent_ns: b.reading(home), received_ns: a.reading(ns) }),
                );
            }
            let relation = Relation::find(&forward, &reverse, tick).expect("these clocks run evenly");
            for i in 0..100 {
                let now = EPOCH_NS + i * 100_000_000;
                let truth = b.error_at(now) - a.error_at(now) - relation.base_ns() as f64;
                let found = relation.offset_at(a.reading(now));
                broken += u32::from((found.ns - truth).abs() > found.error_ns);
                if i == 50 {
                    errors.push((found.ns - truth).abs());
                    bounds.push(found.error_ns);
                    most = most.max((found.ns - truth).abs() / found.error_ns);
                }
            }
            let rate = (1.0 + b.skew_ppm * 1e-6) / (1.0 + a.skew_ppm * 1e-6) - 1.0;
            skews.push((relation.skew().0 - rate).abs() * 1e6);
        }
        assert_eq!(broken, 0, "hard bounds are hard");
        for values in [&mut errors, &mut bounds, &mut skews] {
            values.sort_unstable_by(f64::total_cmp);
        }
        let micros = |ns: f64| format!("{:.2} µs", ns / 1e3);
        let _ = writeln!(
            page,
            "| {rate} | {}, {} | {} | {tick} ns | {broken} | {} | {} | {} | {:.0} % | {:.3} ppm |",
            micros(there as f64),
            micros(back as f64),
            micros(queue as f64),
            micros(errors[100]),
            micros(errors[199]),
            micros(bounds[100]),
            most * 100.0,
            skews[100],
        );
    }
}

fn aggregator(page: &mut String) {
    page.push_str(
        "
## Lossy difference aggregator

8 runs of a million packets a row, four banks of 1,024 buckets; log-normal delay whose standard deviation is 0.31 of its mean.
Errors are root mean squares of relative errors; *useful* is the share of packets that count.

| Loss | Error of the mean | Error of the standard deviation | Useful |
| --- | --- | --- | --- |
",
    );
    for loss in [0.0, 0.0001, 0.001, 0.01, 0.05] {
        let (mut mean, mut deviation, mut useful) = (0.0, 0.0, 0.0);
        for seed in 0..8 {
            let seed = seed + self::seed();
            let key = Key::new([seed, 99]);
            let law = Delay::LogNormal { base: 0, median: 100_000, sigma: 0.3 };
            let mut carrier = Carrier::new(Path { fifo: false, ..Path::clean(law) }.losing(loss), seed);
            let (mut sender, mut receiver) = (Lda::new(10), Lda::new(10));
            let (mut sum, mut squares, mut arrived) = (0.0, 0.0, 0.0f64);
            for i in 0..1_000_000u64 {
                let (now, digest) = (EPOCH_NS + i * 1_000, key.digest(&[i, seed]));
                sender.add(digest, now);
                if let Some(arrival) = carrier.carry(now).arrival_ns {
                    receiver.add(digest, arrival);
                    let delay = (arrival - now) as f64;
                    (sum, squares, arrived) = (sum + delay, squares + delay * delay, arrived + 1.0);
                }
            }
            let found = sender.compare(&receiver).expect("useful buckets");
            let true_mean = sum / arrived;
            let true_deviation = (squares / arrived - true_mean * true_mean).sqrt();
            mean += ((found.mean_ns - true_mean) / true_mean).powi(2) / 8.0;
            deviation +=
                ((found.deviation_ns.expect("buckets") - true_deviation) / true_deviation).powi(2) / 8.0;
            useful += found.packets as f64 / 8e6;
        }
        // What the aggregator is expected to do at one in a thousand.
        assert!(loss != 0.001 || mean.sqrt() < 0.0006 && deviation.sqrt() < 0.04);
        let _ = writeln!(
            page,
            "| {} % | {:.3} % | {:.1} % | {:.3} |",
            loss * 100.0,
            mean.sqrt() * 100.0,
            deviation.sqrt() * 100.0,
            useful,
        );
    }
}
