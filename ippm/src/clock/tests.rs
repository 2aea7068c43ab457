use super::*;
use crate::model::EPOCH_NS;
use crate::model::law::{Clock, Delay};
use crate::model::path::{Carrier, Path};
use crate::model::random::Dice;
use crate::oneway::Passage;

/// Probes both ways, as both clocks saw them.
fn probes(
    seed: u64,
    a: Clock,
    b: Clock,
    path: Path,
    back: Path,
    count: u64,
    every: u64,
) -> (Vec<Passage>, Vec<Passage>) {
    let mut carriers = [Carrier::new(path, seed * 2), Carrier::new(back, seed * 2 + 1)];
    let (mut forward, mut reverse) = (Vec::new(), Vec::new());
    for i in 0..count {
        let now = EPOCH_NS + i * every;
        if let Some(arrival) = carriers[0].carry(now).arrival_ns {
            forward.push(Passage { sent_ns: a.reading(now), received_ns: b.reading(arrival) });
        }
        let now = now + every / 3;
        if let Some(arrival) = carriers[1].carry(now).arrival_ns {
            reverse.push(Passage { sent_ns: b.reading(now), received_ns: a.reading(arrival) });
        }
    }
    (forward, reverse)
}

fn clocks(dice: &mut Dice, resolution_ns: u64) -> (Clock, Clock) {
    let mut clock = || Clock {
        offset_ns: (dice.unit() * 20e6 - 10e6) as i64,
        skew_ppm: dice.unit() * 100.0 - 50.0,
        resolution_ns,
    };
    (clock(), clock())
}

/// 1,000 networks: no bound is ever broken, and no estimate is farther from the truth than it says.
#[test]
fn hard_bounds_hold_always() {
    let mut dice = Dice::new(77);
    for seed in 0..1_000 {
        let resolution = [1, 1_000][seed as usize % 2];
        let (a, b) = clocks(&mut dice, resolution);
        let path =
            Path::clean(Delay::Exponential { base: 50_000 + dice.below(200_000) as u64, mean: 300_000 });
        let back = Path::clean(Delay::LogNormal {
            base: 20_000 + dice.below(200_000) as u64,
            median: 30_000,
            sigma: 1.5,
        });
        let count = 2 + dice.below(400) as u64;
        let (forward, reverse) = probes(seed, a, b, path.losing(0.05), back.losing(0.05), count, 10_000_000);
        if forward.is_empty() || reverse.is_empty() {
            continue;
        }
        let relation = Relation::find(&forward, &reverse, resolution).expect("these clocks run evenly");
        let (_, slowest, fastest) = relation.skew();
        let truth = (1.0 + b.skew_ppm * 1e-6) / (1.0 + a.skew_ppm * 1e-6) - 1.0;
        assert!(
            (slowest - 1e-9..=fastest + 1e-9).contains(&truth),
            "seed {seed}: {slowest} {truth} {fastest}"
        );
        let first = forward[0].sent_ns.min(reverse[0].received_ns);
        let last = forward[forward.len() - 1].sent_ns.max(reverse[reverse.len() - 1].received_ns);
        for i in 0..200u64 {
            // Also before and after the packets.
            let now = EPOCH_NS - 100_000_000 + (count + 20) * 10_000_000 * i / 200;
            let shown = a.reading(now);
            let truth = b.error_at(now) - a.error_at(now) - relation.base_ns() as f64;
            let (low, high) = relation.bounds_at(shown);
            assert!(low <= truth && truth <= high, "seed {seed}: {low} {truth} {high}");
            let estimate = relation.offset_at(shown);
            assert!((estimate.ns - truth).abs() <= estimate.error_ns, "seed {seed}");
            if first <= shown && shown <= last {
                assert!(estimate.error_ns <= relation.worst_error_ns() + 1e-6);
            }
        }
        for passage in forward.iter().step_by(7) {
            let delay = relation.forward_delay(passage);
            assert!(delay.ns + delay.error_ns + 2.0 * resolution as f64 >= 0.0, "no delay below zero");
        }
    }
}

/// A symmetric path of 500 µs mean queueing, 5 % of the packets of which find it empty: offset within microseconds,
/// skew within a tenth of a ppm, where one exchange errs by hundreds of microseconds.
#[test]
fn estimates_are_far_better_than_their_bounds_on_symmetric_paths() {
    let mut dice = Dice::new(5);
    let (mut offset, mut skew) = (0f64, 0f64);
    for seed in 0..50 {
        let (a, b) = clocks(&mut dice, 1);
        let path = Path { fifo: false, ..Path::clean(Delay::Exponential { base: 100_000, mean: 500_000 }) };
        let (forward, reverse) = probes(seed, a, b, path, path, 3_000, 10_000_000);
        let relation = Relation::find(&forward, &reverse, 1).expect("these clocks run evenly");
        let middle = relation.middle_ns();
        let now = EPOCH_NS + 15_000_000_000;
        let truth = b.error_at(now) - a.error_at(now) - relation.base_ns() as f64;
        let at = relation.offset_at(a.reading(now));
        assert!(middle.abs_diff(a.reading(now)) < 1_000_000_000);
        offset = offset.max((at.ns - truth).abs());
        let rate = (1.0 + b.skew_ppm * 1e-6) / (1.0 + a.skew_ppm * 1e-6) - 1.0;
        skew = skew.max((relation.skew().0 - rate).abs() * 1e6);
        assert!(at.error_ns < 120_000.0, "{}", at.error_ns);
    }
    assert!(offset < 5_000.0, "{offset} ns");
    assert!(skew < 1.0, "{skew} ppm");
}

#[test]
fn one_direction_tells_nothing() {
    let p = [Passage { sent_ns: 5, received_ns: 9 }];
    assert_eq!(Relation::find(&p, &[], 1).err(), Some(RelationError::OneDirection));
    assert_eq!(Relation::find(&[], &p, 1).err(), Some(RelationError::OneDirection));
}

#[test]
fn a_clock_that_is_set_is_found_out_and_bounds_hold_on_both_sides() {
    let path = Path::clean(Delay::Exponential { base: 50_000, mean: 20_000 });
    let before = Clock { offset_ns: 3_000_000, skew_ppm: 10.0, resolution_ns: 1 };
    let after = Clock { offset_ns: -2_000_000, ..before };
    let (mut forward, mut reverse) = probes(1, Clock::TRUE, before, path, path, 1_024, 1_000_000);
    let step = EPOCH_NS + 512_000_000;
    let shift = (before.offset_ns - after.offset_ns) as u64;
    for p in &mut forward {
        if p.sent_ns >= step {
            p.received_ns -= shift;
        }
    }
    for p in &mut reverse {
        if p.received_ns >= step {
            p.sent_ns -= shift;
        }
    }
    assert_eq!(Relation::find(&forward, &reverse, 1).err(), Some(RelationError::NotEven));
    let timeline = Timeline::find(&forward, &reverse, 1).expect("each part is even");
    assert!(timeline.windows().len() >= 2);
    for (now, clock) in [(step - 100_000_000, before), (step + 100_000_000, after)] {
        let relation = timeline.at(now);
        let truth = clock.error_at(now) - relation.base_ns() as f64;
        let (low, high) = relation.bounds_at(now);
        assert!(low <= truth && truth <= high);
    }
}

#[test]
fn clocks_of_different_epochs_lose_no_precision() {
    let a = Clock { offset_ns: 0, skew_ppm: 0.0, resolution_ns: 1 };
    let day = Clock { offset_ns: 1_700_000_000_123_456_789, skew_ppm: 0.0, resolution_ns: 1 };
    let shift = |ns: u64| (ns as i64 + day.offset_ns) as u64;
    let path = Path::clean(Delay::Exponential { base: 1_000, mean: 500 });
    let (mut forward, mut reverse) = probes(2, a, a, path, path, 500, 1_000_000);
    for p in &mut forward {
        p.received_ns = shift(p.received_ns);
    }
    for p in &mut reverse {
        p.sent_ns = shift(p.sent_ns);
    }
    let relation = Relation::find(&forward, &reverse, 1).expect("even");
    let (other, error) = relation.other_time(EPOCH_NS);
    assert!((other as i64 - shift(EPOCH_NS) as i64).abs() as f64 <= error && error < 1_100.0, "{error}");
}

#[test]
fn the_minimum_filter_bounds_too() {
    let mut dice = Dice::new(8);
    for seed in 0..300 {
        let (a, b) = clocks(&mut dice, 1);
        let path = Path::clean(Delay::Exponential { base: 80_000, mean: 100_000 });
        let (forward, reverse) = probes(seed, a, b, path, path, 50, 10_000_000);
        let mut minimum = Minimum::default();
        for p in &forward {
            minimum.forward(p.raw_delay_ns(), p.sent_ns);
        }
        for p in &reverse {
            minimum.reverse(p.raw_delay_ns(), p.received_ns);
        }
        let found = minimum.offset(101e-6).expect("both directions");
        for i in 0..50 {
            let now = EPOCH_NS + i * 10_000_000;
            let truth = b.error_at(now) - a.error_at(now);
            assert!((found.ns - truth).abs() <= found.error_ns + 1.0, "seed {seed}");
        }
    }
    assert_eq!(Minimum::default().offset(1e-4), None);
}
