use super::*;
use crate::model::EPOCH_NS;
use crate::model::law::{Clock, Delay};
use crate::model::path::{Carrier, Path};
use crate::select::Key;

struct Run {
    estimate: Estimate,
    mean: f64,
    deviation: f64,
    lost: u64,
}

fn run(seed: u64, packets: u64, bits: u8, path: Path, clock: Clock) -> Run {
    let key = Key::new([seed, 99]);
    let mut carrier = Carrier::new(path, seed);
    let (mut sender, mut receiver) = (Lda::new(bits), Lda::new(bits));
    let (mut sum, mut squares, mut arrived) = (0.0, 0.0, 0.0f64);
    for i in 0..packets {
        let now = EPOCH_NS + i * 1_000;
        let digest = key.digest(&[i, seed]);
        sender.add(digest, now);
        if let Some(arrival) = carrier.carry(now).arrival_ns {
            receiver.add(digest, clock.reading(arrival));
            let delay = (arrival - now) as f64;
            (sum, squares, arrived) = (sum + delay, squares + delay * delay, arrived + 1.0);
        }
    }
    let mean = sum / arrived;
    Run {
        estimate: sender.compare(&receiver).expect("useful buckets"),
        mean,
        deviation: (squares / arrived - mean * mean).sqrt(),
        lost: packets - arrived as u64,
    }
}

const LAW: Delay = Delay::LogNormal { base: 0, median: 100_000, sigma: 0.3 };

fn path(loss: f64) -> Path {
    Path { fifo: false, ..Path::clean(LAW) }.losing(loss)
}

/// 1,024 buckets, a million packets, loss 1e-3: the mean within 0.06 %, the standard deviation within 4 %, as root mean
/// squares over runs.
#[test]
fn a_million_packets_with_a_thousandth_lost() {
    let (mut mean, mut deviation) = (0.0, 0.0);
    let runs = 8;
    for seed in 0..runs {
        let run = run(seed, 1_000_000, 10, path(0.001), Clock::TRUE);
        mean += ((run.estimate.mean_ns - run.mean) / run.mean).powi(2);
        deviation += ((run.estimate.deviation_ns.expect("buckets") - run.deviation) / run.deviation).powi(2);
        assert_eq!((run.estimate.loss.hits, run.estimate.loss.trials), (run.lost, 1_000_000));
        let share = run.estimate.packets as f64 / 1e6;
        // N p exp(-pL/m), summed over the banks, is 0.373 + 0.1 and a little.
        assert!((0.42..0.53).contains(&share), "{share}");
    }
    let rms = |sum: f64| (sum / runs as f64).sqrt();
    assert!(rms(mean) < 0.0006, "{}", rms(mean));
    assert!(rms(deviation) < 0.04, "{}", rms(deviation));
}

#[test]
fn without_loss_the_mean_is_exact() {
    let run = run(3, 100_000, 8, path(0.0), Clock::TRUE);
    assert!((run.estimate.mean_ns - run.mean).abs() < 1e-6 * run.mean);
    assert_eq!(run.estimate.packets, 100_000);
    assert_eq!(run.estimate.standard_error_ns, Some(0.0));
}

/// A clock that is 10 ms off moves the mean by as much and the deviation not at all.
#[test]
fn a_clock_offset_does_not_drown_the_deviation() {
    let ahead = Clock { offset_ns: 10_000_000, ..Clock::TRUE };
    let (one, other) =
        (run(4, 200_000, 10, path(0.001), Clock::TRUE), run(4, 200_000, 10, path(0.001), ahead));
    assert!((other.estimate.mean_ns - one.estimate.mean_ns - 10_000_000.0).abs() < 1.0);
    let (a, b) = (one.estimate.deviation_ns.expect("buckets"), other.estimate.deviation_ns.expect("buckets"));
    assert!((a - b).abs() < 1e-3 * a, "{a} {b}");
}

/// 95 % intervals of the mean, with 5 % loss and without: how many of 1,000 cover it.
#[test]
fn intervals_of_the_mean_cover_it() {
    for loss in [0.01, 0.05] {
        let mut covered = 0;
        for seed in 0..1_000 {
            let run = run(seed, 5_000, 8, path(loss), Clock::TRUE);
            let half = 1.96 * run.estimate.standard_error_ns.expect("buckets");
            covered += u32::from((run.estimate.mean_ns - run.mean).abs() <= half);
        }
        assert!((930..=970).contains(&covered), "loss {loss}: {covered}");
    }
}

/// Two packets that change places over the interval's end: numbers agree, names do not.
#[test]
fn packets_of_other_intervals_spoil_their_bucket_and_nothing_else() {
    let (mut sender, mut receiver) = (Lda::new(0), Lda::new(0));
    let digest = |name| Digest { select: 0, name };
    sender.add(digest(1), 1_000);
    receiver.add(digest(2), 500_000);
    assert_eq!(sender.compare(&receiver), None);
    let other = Digest { select: u64::MAX, name: 7 };
    sender.add(other, 2_000);
    receiver.add(other, 2_300);
    let estimate = sender.compare(&receiver).expect("the other bank's bucket");
    assert_eq!((estimate.mean_ns, estimate.packets, estimate.deviation_ns), (300.0, 1, None));
    assert_eq!(sender.compare(&Lda::new(3)), None, "another size");
}
