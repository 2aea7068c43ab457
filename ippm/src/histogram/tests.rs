use proptest::prelude::*;

use super::*;

/// The bucket function as `tap/bpf/conmon.h` words it, digit by digit.
fn bucket_in_words(ns: u64) -> usize {
    let v = ns >> 6;
    if v < 16 {
        return v as usize;
    }
    let mut floor_log2 = 0;
    while v >> (floor_log2 + 1) != 0 {
        floor_log2 += 1;
    }
    let e = floor_log2 - 4;
    (16 * (e + 1) + ((v >> e) & 15) as usize).min(399)
}

/// Delays of all magnitudes, thickly around bucket edges.
fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0u32..40, any::<u64>()).prop_map(|(bits, x)| x & ((1 << bits) - 1)),
        2 => (0..BUCKETS, 0u64..3).prop_map(|(b, d)| (bucket_bounds(b).0 + d).saturating_sub(1)),
        1 => 100_000u64..200_000,
        1 => any::<u64>(),
    ]
}

fn of(values: &[u64]) -> Histogram {
    let mut h = Histogram::new();
    values.iter().for_each(|&v| h.record(v));
    h
}

#[test]
fn bounds_and_bucket_function_agree_everywhere() {
    let mut expected_start = 0;
    for i in 0..BUCKETS {
        let (low, high) = bucket_bounds(i);
        assert_eq!(low, expected_start, "no gap before bucket {i}");
        assert_eq!(bucket_of(low), i);
        assert_eq!(bucket_of(high - 1), i);
        expected_start = high;
    }
    assert_eq!(bucket_bounds(0), (0, 64));
    assert_eq!(bucket_bounds(16), (1024, 1088));
    assert_eq!(bucket_bounds(32), (2048, 2176));
    assert_eq!(bucket_bounds(399), (31 << 29, u64::MAX));
    assert_eq!(bucket_bounds(4000), bucket_bounds(399));
    assert_eq!(bucket_of((1 << 34) - 1), 399);
    assert_eq!(bucket_of(1 << 34), 399);
    assert_eq!(bucket_of(u64::MAX), 399);
}

#[test]
fn an_empty_histogram_claims_nothing() {
    let h = Histogram::new();
    assert_eq!(
        (h.count(), h.min_ns(), h.max_ns(), h.mean_ns(), h.quantile(0.5)),
        (0, None, None, None, None)
    );
    assert_eq!(h.count_below(u64::MAX), 0);
    let mut merged = h.clone();
    merged.merge(&h);
    assert_eq!(merged, h);
    assert_eq!(of(&[5, 70]).subtract(&h), of(&[5, 70]));
}

#[test]
fn one_value_is_exact_at_every_quantile() {
    let h = of(&[123_456_789]);
    for q in [0.0, 0.01, 0.5, 0.99, 1.0] {
        assert_eq!(h.quantile(q), Some(123_456_789));
    }
    assert_eq!(h.quantile(f64::NAN), None);
}

#[test]
fn counts_from_outside_are_checked() {
    assert_eq!(Histogram::from_counts([(400, 1)], 0, 0, 0), Err(HistogramError::NoSuchBucket(400)));
    assert_eq!(Histogram::from_counts([(3, 1), (3, 1)], 0, 0, 0), Err(HistogramError::OutOfOrder(3)));
    assert_eq!(Histogram::from_counts([(3, 1), (2, 1)], 0, 0, 0), Err(HistogramError::OutOfOrder(2)));
    assert_eq!(Histogram::from_counts([(3, 0), (7, 0)], 9, 9, 9), Ok(Histogram::new()));
    // Extremes read before the kernel wrote them: moved into the buckets that hold something.
    let torn = Histogram::from_counts([(16, 2), (32, 1)], 4300, 0, 0).unwrap();
    assert_eq!((torn.count(), torn.min_ns(), torn.max_ns()), (3, Some(1024), Some(2048)));
    let torn = Histogram::from_counts([(16, 1)], 1024, 1080, 1030).unwrap();
    assert_eq!((torn.min_ns(), torn.max_ns()), (Some(1080), Some(1080)));
}

#[test]
fn a_restarted_counter_gives_no_negative_difference() {
    let earlier = of(&[100, 100, 5000, 9000]);
    let later = of(&[100, 7000]);
    let difference = later.subtract(&earlier);
    assert_eq!(difference.iter().collect::<Vec<_>>(), vec![(bucket_of(7000) as u16, 1)]);
    assert_eq!(difference.sum_ns(), 0);
    assert!(of(&[100]).subtract(&earlier).is_empty());
}

#[test]
fn the_wire_is_refused_when_it_lies() {
    let good = serde_json::to_string(&of(&[5, 70, 70])).unwrap();
    assert_eq!(good, r#"{"sum_ns":145,"min_ns":5,"max_ns":70,"buckets":[[0,1],[1,2]]}"#);
    let bad = |buckets: &str| {
        let text = format!(r#"{{"sum_ns":0,"min_ns":0,"max_ns":0,"buckets":[{buckets}]}}"#);
        serde_json::from_str::<Histogram>(&text).unwrap_err().to_string()
    };
    assert!(bad("[400,1]").contains("does not exist"));
    assert!(bad("[1,1],[0,1]").contains("out of order"));
    assert!(bad(&vec!["[1,1]"; 401].join(",")).contains("at most 400"));
}

#[test]
fn sums_saturate() {
    let mut h = Histogram::new();
    h.record_many(u64::MAX, u64::MAX);
    h.record_many(u64::MAX, u64::MAX);
    h.merge(&h.clone());
    assert_eq!((h.count(), h.sum_ns(), h.max_ns()), (u64::MAX, u64::MAX, Some(u64::MAX)));
}

#[test]
fn the_bucket_function_is_the_one_in_words_at_each_edge() {
    for bits in 0..64 {
        for near in [-2i64, -1, 0, 1, 2] {
            let ns = (1u64 << bits).saturating_add_signed(near);
            assert_eq!(bucket_of(ns), bucket_in_words(ns), "{ns}");
        }
    }
}

proptest! {
    #[test]
    fn a_recorder_counts_the_same(values in prop::collection::vec(delay(), 0..200)) {
        let mut recorder = Recorder::default();
        values.iter().for_each(|ns| recorder.record(*ns));
        prop_assert_eq!(recorder.histogram(), of(&values));
    }

    #[test]
    fn bucket_function_is_that_of_the_header(ns in delay()) {
        prop_assert_eq!(bucket_of(ns), bucket_in_words(ns));
        let (low, high) = bucket_bounds(bucket_of(ns));
        prop_assert!(low <= ns && (ns < high || high == u64::MAX));
    }

    #[test]
    fn quantiles_keep_the_stated_bound(values in prop::collection::vec(delay(), 1..300), q in 0.0..=1.0f64) {
        let h = of(&values);
        let mut sorted = values;
        sorted.sort_unstable();
        let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
        let truth = sorted[rank - 1];
        let estimate = h.quantile(q).unwrap();
        prop_assert!((sorted[0]..=sorted[sorted.len() - 1]).contains(&estimate));
        let error = estimate.abs_diff(truth);
        if truth < 1024 {
            prop_assert!(error <= ABSOLUTE_ERROR_NS, "{estimate} for {truth}");
        } else if bucket_of(truth) < BUCKETS - 1 {
            prop_assert!(error as f64 <= truth as f64 * RELATIVE_ERROR, "{estimate} for {truth}");
        } else {
            prop_assert!(estimate >= bucket_bounds(BUCKETS - 1).0);
        }
    }

    #[test]
    fn quantiles_do_not_fall(values in prop::collection::vec(delay(), 1..100)) {
        let h = of(&values);
        let all: Vec<_> = (0..=100).map(|q| h.quantile(f64::from(q) / 100.0).unwrap()).collect();
        prop_assert!(all.is_sorted(), "{all:?}");
    }

    #[test]
    fn merging_is_recording_all(
        a in prop::collection::vec(delay(), 0..60),
        b in prop::collection::vec(delay(), 0..60),
    ) {
        let (ha, hb) = (of(&a), of(&b));
        let mut ab = ha.clone();
        ab.merge(&hb);
        let mut ba = hb.clone();
        ba.merge(&ha);
        prop_assert_eq!(&ab, &ba);
        prop_assert_eq!(ab, of(&[a, b].concat()));
    }

    #[test]
    fn subtracting_gives_back_what_came_since(
        a in prop::collection::vec(0u64..1 << 36, 1..60),
        b in prop::collection::vec(0u64..1 << 36, 0..60),
    ) {
        let earlier = of(&a);
        let mut later = earlier.clone();
        later.merge(&of(&b));
        let difference = later.subtract(&earlier);
        let truth = of(&b);
        prop_assert_eq!(difference.count(), truth.count());
        prop_assert_eq!(difference.sum_ns(), truth.sum_ns());
        prop_assert!(difference.iter().eq(truth.iter()));
        if let (Some(min), Some(max)) = (truth.min_ns(), truth.max_ns()) {
            let (dmin, dmax) = (difference.min_ns().unwrap(), difference.max_ns().unwrap());
            prop_assert!(dmin <= min && bucket_of(dmin) == bucket_of(min), "{dmin} for {min}");
            prop_assert!(dmax >= max && bucket_of(dmax) == bucket_of(max), "{dmax} for {max}");
            let mut sorted = b.clone();
            sorted.sort_unstable();
            let median = sorted[sorted.len().div_ceil(2) - 1];
            let estimate = difference.quantile(0.5).unwrap();
            prop_assert!(bucket_of(median) == BUCKETS - 1
                || estimate.abs_diff(median) as f64 <= (median as f64 * RELATIVE_ERROR).max(32.0));
        }
    }

    #[test]
    fn counts_below_an_edge_are_exact(values in prop::collection::vec(delay(), 0..100), edge in 0..BUCKETS) {
        let edge = bucket_bounds(edge).0;
        let truth = values.iter().filter(|&&v| v < edge).count() as u64;
        prop_assert_eq!(of(&values).count_below(edge), truth);
    }

    #[test]
    fn the_wire_keeps_everything(values in prop::collection::vec(delay(), 0..200)) {
        let h = of(&values);
        let bytes = postcard::to_stdvec(&h).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<Histogram>(&bytes).unwrap(), &h);
        let text = serde_json::to_string(&h).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Histogram>(&text).unwrap(), &h);
        prop_assert_eq!(h.ranges().map(|(_, _, c)| c).sum::<u64>(), h.count());
        let rebuilt = Histogram::from_counts(
            h.iter(), h.sum_ns(), h.min_ns().unwrap_or(0), h.max_ns().unwrap_or(0)).unwrap();
        prop_assert_eq!(rebuilt, h);
    }
}
