//! What the programs cost per packet and hook, beside an empty program: `cargo bench -p tap`, as root.
//! `CONMON_BENCH_ROUNDS` sets the number of rounds (15), `CONMON_BENCH_LOADS` picks loads by parts of their names.

#[path = "../tests/root/cost.rs"]
#[allow(dead_code, reason = "shared with the tests, which look at the figures that this prints")]
mod cost;
#[path = "../tests/root/net.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod net;

fn main() {
    let rounds = std::env::var("CONMON_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(15);
    let loads = std::env::var("CONMON_BENCH_LOADS").unwrap_or_default();
    if !lab::may_run("bench cost").unwrap_or_else(|e| panic!("{e}")) {
        return;
    }
    cost::sizes();
    cost::hot(1_000_000);
    if tap::kernel_has_tcx() {
        cost::left(rounds, std::time::Duration::from_millis(250));
    }
    cost::run(rounds, std::time::Duration::from_millis(250), |load| {
        loads.split(',').any(|part| load.contains(part))
    });
}
