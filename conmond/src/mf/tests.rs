use ippm::flow::EndReason;
use ippm::flow::Leg;
use ippm::histogram::Histogram;
use ippm::measurement::{ExpiryOf, SlotTag};
use proptest::prelude::*;

use super::*;

fn expiry(slot: u32) -> Expiry {
    Expiry {
        of: ExpiryOf::Flow(EndReason::IdleTimeout),
        id: SlotTag { slot, tag: 1 },
        if_idle_since: Timestamp(5),
    }
}

fn rtt(slot: u32) -> RttMeasurement {
    RttMeasurement { pair: SlotTag { slot, tag: 1 }, leg: Leg::Away, histogram: Histogram::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Batches are within the limits, in order, numbered, and together what was collected; `more` on all but the last.
    #[test]
    fn batches_are_cut_at_the_limits(expiries in 0..30_000u32, rtts in 0..5_000u32) {
        let mut collected = Collected {
            taken_at: Timestamp(9),
            set: SetCounters { abi: 1, ..SetCounters::default() },
            expiries: (0..expiries).map(expiry).collect(),
            rtts: (0..rtts).map(rtt).collect(),
            ..Collected::default()
        };
        let whole = collected.clone();
        let (mut all, mut sequence, mut more) = (Collected::default(), 0, true);
        while more {
            sequence += 1;
            let mut batch = collected.take_batch(sequence);
            prop_assert_eq!(batch.check(), Ok(()));
            prop_assert_eq!((batch.sequence, batch.taken_at, batch.set), (sequence, whole.taken_at, whole.set));
            all.expiries.append(&mut batch.expiries);
            all.rtts.append(&mut batch.rtts);
            more = batch.more;
        }
        let needed = (expiries as usize).div_ceil(Batch::MAX_EXPIRIES).max((rtts as usize).div_ceil(Batch::MAX_RTTS));
        prop_assert_eq!(sequence as usize, needed.max(1));
        prop_assert_eq!(all.expiries, whole.expiries);
        prop_assert_eq!(all.rtts, whole.rtts);
        prop_assert!(collected.is_empty());
    }
}

#[test]
fn kinds_have_names_of_their_own_and_start_as_themselves() {
    let (settings, spec) = (MfSettings::default(), SetSpec { flows: 1, pairs: 1, ..SetSpec::default() });
    for kind in Kind::ALL {
        assert_eq!(kind.start(&settings, &spec).kind(), kind);
        assert_eq!(Kind::ALL.iter().filter(|k| k.as_str() == kind.as_str()).count(), 1);
    }
}

#[test]
fn rtt_takes_delays_and_leaves_the_rest() {
    let (settings, spec) = (MfSettings::default(), SetSpec::default());
    let mut function = Kind::Rtt.start(&settings, &spec);
    let mut to = Collected::default();
    struct Nothing;
    impl Tables for Nothing {
        fn live_flows(&self) -> Box<dyn Iterator<Item = LiveFlow> + '_> {
            Box::new(std::iter::empty())
        }
        fn quiet_pairs(&self) -> Box<dyn Iterator<Item = QuietPair> + '_> {
            Box::new(std::iter::empty())
        }
        fn fill(&self) -> (u32, u32) {
            (0, 0)
        }
        fn spec(&self) -> SetSpec {
            SetSpec::default()
        }
    }
    let mut scan = Scan { rtts: vec![rtt(4)], ..Scan::default() };
    function.scanned(&mut scan, &Nothing, &mut to);
    assert_eq!(to.rtts, [rtt(4)]);
    to.rtts.clear();
    assert!(to.is_empty() && scan.rtts.is_empty());
}

#[test]
fn events_outlive_what_is_reported_again() {
    let mut collected = Collected { expiries: vec![expiry(1)], rtts: vec![rtt(1)], ..Collected::default() };
    collected.keep_events();
    assert!(collected.is_empty());
}
