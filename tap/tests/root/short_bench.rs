//! The cost bench in its short form, so that it cannot rot.

use std::time::Duration;

use crate::cost::{LOADS, VARIANTS, hot, left, run, sizes};
use crate::kernel;

#[test]
fn root_the_cost_bench_runs() {
    if !crate::privileged("root_the_cost_bench_runs") {
        return;
    }
    sizes();
    hot(1000);
    if kernel::has_tcx() {
        let (packets, ns) = left(2, Duration::from_millis(300));
        assert!(packets > 1_000 && ns[0].is_some() && ns[1].is_some(), "{packets} packets, {ns:?}");
    }
    let rows = run(1, Duration::from_millis(300), |_| true);
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
