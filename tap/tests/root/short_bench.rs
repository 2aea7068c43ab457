//! The cost bench in its short form, so that it cannot rot, and the statistics it uses.

use std::time::Duration;

use crate::cost::{LOADS, VARIANTS, hot, median, run, sizes};

#[test]
fn intervals_are_those_of_the_tables() {
    // ranks for 95 %: n = 10: 2 and 9, n = 15: 4 and 12, n = 30: 10 and 21
    for (n, low, high) in [(1, 1, 1), (3, 1, 3), (5, 1, 5), (10, 2, 9), (15, 4, 12), (30, 10, 21)] {
        let m = median((1..=n).rev().map(f64::from).collect()).unwrap();
        assert_eq!((m.low, m.high), (f64::from(low), f64::from(high)), "{n}");
        assert_eq!(m.median, f64::from(n + 1) / 2.0);
    }
    assert!(median(Vec::new()).is_none());
}

#[test]
fn root_the_cost_bench_runs() {
    if !crate::privileged("root_the_cost_bench_runs") {
        return;
    }
    sizes();
    hot(1000);
    let rows = run(1, Duration::from_millis(100), |_| true);
    assert_eq!(rows.len(), LOADS.len());
    for row in rows {
        for (variant, runs) in VARIANTS.iter().zip(row.runs) {
            assert!(runs[0] >= 100, "{}: {variant} ran {} times", row.load, runs[0]);
        }
        for ns in row.ns {
            // any machine: the point is that figures come out
            assert!(
                ns[0].is_some_and(|m| m.median.is_finite() && m.median < 10_000.0),
                "{}: {ns:?}",
                row.load
            );
        }
    }
}
