use super::*;
use crate::model::EPOCH_NS;
use crate::model::law::Delay;
use crate::model::path::{Carrier, Path};
use crate::model::random::Dice;
use crate::select::Key;

const LAW: Delay = Delay::LogNormal { base: 50_000, median: 100_000, sigma: 0.3 };

/// Packets of many flows, of lengths after Zipf's law, over one path; what both points counted, and the mean delay of the
/// flow in question, which has `packets`.
fn run(seed: u64, packets: u64, loss: f64, offset_ns: i64) -> (SharedCounters, SharedCounters, f64) {
    let key = Key::new([seed, 5]);
    let mut carrier = Carrier::new(Path { fifo: false, ..Path::clean(LAW) }.losing(loss), seed);
    let mut dice = Dice::new(seed);
    let (mut sender, mut receiver) =
        (SharedCounters::new(4_096, 50, seed), SharedCounters::new(4_096, 50, seed));
    let (mut sum, mut arrived) = (0.0, 0.0);
    for i in 0..20_000u64 {
        // Flow 0 is the one in question, of 1 + rank^-1 the others.
        let flow = if i < packets { 0 } else { 2_000f64.powf(dice.unit()) as u64 };
        let (now, digest) = (EPOCH_NS + i * 1_000, key.digest(&[i]));
        sender.add(flow, digest, now);
        if let Some(arrival) = carrier.carry(now).arrival_ns {
            receiver.add(flow, digest, arrival.wrapping_add_signed(offset_ns));
            if flow == 0 {
                (sum, arrived) = (sum + (arrival - now) as f64, arrived + 1.0);
            }
        }
    }
    (sender, receiver, sum / arrived)
}

#[test]
fn alone_a_flow_is_exact() {
    let (mut sender, mut receiver) = (SharedCounters::new(1_000, 20, 1), SharedCounters::new(1_000, 20, 1));
    let key = Key::new([1, 2]);
    for i in 0..500u64 {
        sender.add(7, key.digest(&[i]), i);
        receiver.add(7, key.digest(&[i]), i + 1_000 + i % 3);
    }
    let shared = sender.compare(&receiver, 0).expect("one kind");
    let found = shared.flow(7, 500).expect("packets");
    assert!((found.mean_ns - 1_000.998).abs() < 1e-6, "{found:?}");
    assert_eq!((found.standard_error_ns, found.useful), (0.0, 1.0));
    assert_eq!(shared.flow(7, 0), None);
}

/// A known offset of 10 ms is taken off exactly; one that is not known drowns the flow, and the interval says so.
#[test]
fn an_offset_is_taken_off() {
    let (sender, receiver, mean) = run(3, 2_000, 0.0, 10_000_000);
    let (other, plain, _) = run(3, 2_000, 0.0, 0);
    let at = |sender: &SharedCounters, receiver: &SharedCounters, offset| {
        sender.compare(receiver, offset).expect("one kind").flow(0, 2_000).expect("packets")
    };
    let (known, without) = (at(&sender, &receiver, 10_000_000), at(&other, &plain, 0));
    assert!((known.mean_ns - without.mean_ns).abs() < 1e-3, "{known:?} {without:?}");
    let unknown = at(&sender, &receiver, 0);
    assert!(unknown.standard_error_ns > 20.0 * known.standard_error_ns);
    assert!((unknown.mean_ns - mean - 1e7).abs() < 4.0 * unknown.standard_error_ns);
}

#[test]
fn counters_of_another_kind_are_not_compared() {
    let one = SharedCounters::new(100, 10, 1);
    for other in
        [SharedCounters::new(101, 10, 1), SharedCounters::new(100, 11, 1), SharedCounters::new(100, 10, 2)]
    {
        assert!(one.compare(&other, 0).is_none());
    }
    assert_eq!(SharedCounters::new(0, 0, 1).buckets().len(), 1);
    let empty = SharedCounters::new(0, 0, 1);
    assert!(empty.compare(&empty, 0).expect("one kind").flow(1, 5).is_none());
}
