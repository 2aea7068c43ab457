//! What watching costs an application: `cargo bench -p lab`, as root. Two containers talk while nobody watches, while conmond
//! does, and while tcpdump does, in the container and beside it.
//! `CONMON_BENCH_ROUNDS` sets the number of rounds (32), `CONMON_BENCH_LOADS` picks loads by parts of their names,
//! `CONMON_BENCH_PATIENCE` is how many seconds may be spent on waiting for others on the machine to be quiet (150).

#[path = "../tests/impact/bench.rs"]
mod bench;
#[path = "../tests/impact/load.rs"]
mod load;
#[path = "../tests/impact/quiet.rs"]
mod quiet;
#[path = "../tests/impact/stage.rs"]
mod stage;
#[path = "../tests/impact/table.rs"]
mod table;
#[path = "../tests/impact/watch.rs"]
mod watch;

use anyhow::{Context, Result};
use std::str::FromStr;
use std::time::Duration;

/// A multiple of four, so that every condition comes equally often at every place; at least 30 pairs.
const ROUNDS: usize = 32;
const WINDOW: Duration = Duration::from_secs(1);
/// Seconds. On a quiet machine nothing of it is spent, and the rounds take 12 minutes.
const PATIENCE: u64 = 150;

fn main() -> Result<()> {
    let plan = bench::Plan {
        rounds: setting("CONMON_BENCH_ROUNDS")?.unwrap_or(ROUNDS),
        window: WINDOW,
        patience: Duration::from_secs(setting("CONMON_BENCH_PATIENCE")?.unwrap_or(PATIENCE)),
    };
    let loads = std::env::var("CONMON_BENCH_LOADS").unwrap_or_default();
    lab::root_test("bench impact", |lab| {
        bench::run(lab, &plan, |load| loads.split(',').any(|part| load.contains(part))).map(drop)
    })
}

fn setting<T: FromStr>(name: &str) -> Result<Option<T>> {
    let value = std::env::var(name).ok();
    let parsed =
        value.map(|text| text.parse().ok().with_context(|| format!("{name}={text:?} is not a number")));
    parsed.transpose()
}
