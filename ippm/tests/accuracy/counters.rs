//! Intervals of what counters tell: aggregators, shared counters, tables of names.

use std::fmt::Write as _;

use ippm::difference::NameTable;
use ippm::lda::shared::SharedCounters;
use ippm::lda::{FlowLda, Lda};
use ippm::model::EPOCH_NS;
use ippm::model::law::{Clock, Delay};
use ippm::model::path::{Carrier, Path};
use ippm::model::random::Dice;
use ippm::select::{Digest, Key};

use crate::{assert_covered, seed};

const LAW: Delay = Delay::LogNormal { base: 50_000, median: 100_000, sigma: 0.5 };
/// Behind by 10 ms and fast by 50 ppm: 10 ms stay in every mean.
const SKEWED: Clock = Clock { offset_ns: -10_000_000, skew_ppm: 50.0, resolution_ns: 1 };

pub fn write(page: &mut String) {
    aggregators(page);
    shared(page);
    names(page);
}

fn carrier(loss: f64, seed: u64) -> Carrier {
    Carrier::new(Path { fifo: false, ..Path::clean(LAW) }.losing(loss).reordering(0.01, 200_000), seed)
}

/// Sends packets and says the true mean of the raw delays.
fn send(packets: u64, loss: f64, seed: u64, mut at: impl FnMut(Digest, u64, Option<u64>)) -> f64 {
    let (key, mut carrier) = (Key::new([seed, 99]), carrier(loss, seed));
    let (mut sum, mut arrived) = (0.0, 0.0);
    for i in 0..packets {
        let now = EPOCH_NS + i * 10_000;
        let arrival = carrier.carry(now).arrival_ns.map(|ns| SKEWED.reading(ns));
        at(key.digest(&[i]), now, arrival);
        if let Some(arrival) = arrival {
            (sum, arrived) = (sum + (arrival as i64 - now as i64) as f64, arrived + 1.0);
        }
    }
    sum / arrived
}

fn aggregators(page: &mut String) {
    page.push_str(
        "
## Aggregators: 95 % intervals

1,000 intervals each: how many of them cover the mean of all packets that arrived. Log-normal delay, 1 % held back; the receiver's
clock 10 ms behind and 50 ppm fast. *Whole*: 5,000 packets, four banks of 256 buckets. *Flow*: 400 packets of one flow, its own
eight buckets. A flow of which nothing was lost has no interval: its mean is *exact*, and is required to be. Of the others, *told* is
the share in which two buckets or more were useful, as an interval needs, and *covered* is of these.

| Loss | Whole, covered | Flow, exact | Flow, told of the others | Flow, covered |
| --- | --- | --- | --- | --- |
",
    );
    for loss in [0.001, 0.01, 0.05] {
        let mut whole = 0;
        for run in 0..1_000 {
            let (mut sender, mut receiver) = (Lda::new(8), Lda::new(8));
            let mean = send(5_000, loss, run + seed(), |digest, sent, arrival| {
                sender.add(digest, sent);
                arrival.into_iter().for_each(|ns| receiver.add(digest, ns));
            });
            let (low, high) = sender.compare(&receiver).and_then(|e| e.interval_ns()).expect("buckets");
            whole += u32::from(low <= mean && mean <= high);
        }
        assert_covered(whole, &format!("aggregator, loss {loss}"));
        // So many losses that about half of the buckets are left, at most.
        let flow = flow_intervals(loss / 5.0);
        assert_covered(flow.covered, &format!("aggregator of a flow, loss {}", loss / 5.0));
        let _ = writeln!(
            page,
            "| {} %, flow {} % | {:.1} % | {:.1} % | {:.1} % | {:.1} % |",
            loss * 100.0,
            loss * 20.0,
            f64::from(whole) / 10.0,
            f64::from(flow.exact) * 100.0 / f64::from(flow.runs),
            100_000.0 / f64::from(flow.runs - flow.exact),
            f64::from(flow.covered) / 10.0
        );
    }
}

/// What became of the runs until 1,000 intervals were told.
struct FlowIntervals {
    runs: u32,
    /// Runs of which nothing was lost.
    exact: u32,
    /// Of the 1,000.
    covered: u32,
}

fn flow_intervals(loss: f64) -> FlowIntervals {
    let mut found = FlowIntervals { runs: 0, exact: 0, covered: 0 };
    let mut told = 0;
    while told < 1_000 {
        let (mut sender, mut receiver, mut lost) = (FlowLda::default(), FlowLda::default(), false);
        let mean = send(400, loss, u64::from(found.runs) + seed() + 5_000, |digest, sent, arrival| {
            sender.add(digest, sent);
            lost |= arrival.is_none();
            arrival.into_iter().for_each(|ns| receiver.add(digest, ns));
        });
        found.runs += 1;
        let interval = sender.compare(&receiver).and_then(|e| e.interval_ns());
        if !lost {
            let (low, high) = interval.expect("nothing was lost");
            // To a double's rounding.
            assert!(high - low < 2e-3 && (low - mean).abs() < 1e-3, "{low} to {high}, {mean}");
            found.exact += 1;
        } else if let Some((low, high)) = interval {
            told += 1;
            found.covered += u32::from(low <= mean && mean <= high);
        }
    }
    found
}

fn shared(page: &mut String) {
    page.push_str(
        "
## Shared counters: 95 % intervals

A reconstruction of COLATE's idea, not its published algorithm. 1,000 runs of 20,000 packets of some 2,000 flows after Zipf's law in 4,096 counters,
100 for each flow; delay as above, clocks alike. In how many runs the interval covers the true mean of one flow's delays, and its median
half width.

| Packets of the flow | Loss | Covered | Half width, of the mean |
| --- | --- | --- | --- |
",
    );
    for (packets, loss) in [(500, 0.0), (2_000, 0.0), (2_000, 0.001), (2_000, 0.01), (8_000, 0.0)] {
        let (mut covered, mut widths) = (0, Vec::new());
        for run in 0..1_000 {
            let seed = run + seed();
            let (key, mut carrier, mut dice) = (Key::new([seed, 5]), carrier(loss, seed), Dice::new(seed));
            let (mut sender, mut receiver) =
                (SharedCounters::new(4_096, 100, seed), SharedCounters::new(4_096, 100, seed));
            let (mut sum, mut arrived) = (0.0, 0.0);
            for i in 0..20_000u64 {
                // Flow 0 is the one in question; the others' share is that of 1/rank.
                let flow = if i < packets { 0 } else { 2_000f64.powf(dice.unit()) as u64 };
                let (now, digest) = (EPOCH_NS + i * 10_000, key.digest(&[i]));
                sender.add(flow, digest, now);
                if let Some(arrival) = carrier.carry(now).arrival_ns {
                    receiver.add(flow, digest, arrival);
                    if flow == 0 {
                        (sum, arrived) = (sum + (arrival - now) as f64, arrived + 1.0);
                    }
                }
            }
            let (mean, shared) = (sum / arrived, sender.compare(&receiver, 0).expect("one kind"));
            let (low, high) = shared.flow(0, packets).expect("packets").interval_ns();
            covered += u32::from(low <= mean && mean <= high);
            widths.push((high - low) / 2.0 / mean);
        }
        assert_covered(covered, &format!("shared counters, {packets} packets, loss {loss}"));
        widths.sort_unstable_by(f64::total_cmp);
        let _ = writeln!(
            page,
            "| {packets} | {} % | {:.1} % | {:.1} % |",
            loss * 100.0,
            f64::from(covered) / 10.0,
            widths[500] * 100.0
        );
    }
}

fn names(page: &mut String) {
    page.push_str(
        "
## Tables of names: which packets were lost

400 runs of 10,000 packets a row; tables made for 120 differences (204 cells, 4,896 octets). *All told* is how often the table says that it told all;
*wrong* are names it told that were not lost, *missed* those it did not though it said that it told all.

| Loss | Lost, all runs | All told | Wrong | Missed |
| --- | --- | --- | --- | --- |
",
    );
    for loss in [0.001, 0.005, 0.01, 0.02] {
        let (mut all, mut complete) = (0, 0);
        for run in 0..400 {
            let seed = run + seed();
            let (key, mut carrier) = (Key::new([seed, 7]), carrier(loss, seed));
            let (mut sender, mut receiver) = (NameTable::new(120, seed), NameTable::new(120, seed));
            let mut lost = std::collections::BTreeSet::new();
            for i in 0..10_000u64 {
                let name = key.digest(&[i]).name;
                sender.add(name);
                match carrier.carry(i * 10_000).arrival_ns {
                    Some(_) => receiver.add(name),
                    None => drop(lost.insert(name)),
                }
            }
            let found = sender.difference(&receiver).expect("tables of one kind");
            assert!(found.second_only.is_empty() && found.first_only.iter().all(|name| lost.contains(name)));
            if found.complete {
                complete += 1;
                assert_eq!(found.first_only.len(), lost.len());
            }
            all += lost.len();
        }
        let share = f64::from(complete) / 4.0;
        let _ = writeln!(page, "| {} % | {all} | {share:.1} % | 0 | 0 |", loss * 100.0);
    }
}
