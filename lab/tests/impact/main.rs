//! The benchmark of what watching costs applications in its short form, so that it cannot rot.

mod bench;
mod load;
mod quiet;
mod stage;
mod table;
mod watch;

use anyhow::{Result, ensure};
use load::Load;
use std::time::Duration;
use watch::Condition;

/// A round with every load under every condition. That each condition took effect is checked in the course of it, as in
/// every run: which programs are on the ports, that conmond counted just the datagrams that were sent, that tcpdump
/// saw every request and response.
#[test]
fn root_the_impact_bench_runs() -> Result<()> {
    lab::root_test("the impact bench", |lab| {
        let plan = bench::Plan { rounds: 1, window: Duration::from_millis(200), patience: Duration::ZERO };
        let rows = bench::run(lab, &plan, |_| true)?;
        ensure!(rows.len() == Load::ALL.len());
        for row in &rows {
            for (condition, cell) in Condition::ALL.iter().zip(&row.cells) {
                let what = format!("{}, {}", row.load.name(), condition.name());
                for figures in &cell.figures {
                    ensure!(
                        matches!(figures[..], [one] if one.is_finite() && one > 0.0),
                        "{what}: {figures:?}"
                    );
                }
                ensure!(cell.packets > 100, "{what}: {} packets", cell.packets);
                let tcpdump = matches!(condition, Condition::Inside | Condition::Mirror);
                ensure!((cell.counts.received > 0) == tcpdump, "{what}: {:?}", cell.counts);
            }
        }
        for condition in Condition::ALL {
            let took: f64 = rows.iter().map(|row| row.cells[condition as usize].watcher[0]).sum();
            ensure!((took > 0.0) == (condition != Condition::Base), "{}: {took}", condition.name());
        }
        Ok(())
    })
}

#[test]
fn each_condition_comes_at_each_place_and_after_each_other() {
    let orders: Vec<_> = (0..4).map(Condition::order).collect();
    for one in Condition::ALL {
        for place in 0..4 {
            assert_eq!(orders.iter().filter(|order| order[place] == one).count(), 1, "{one:?} at {place}");
        }
        for other in Condition::ALL.into_iter().filter(|other| *other != one) {
            let after = |order: &&[Condition; 4]| order.windows(2).any(|two| two == [other, one]);
            assert_eq!(orders.iter().filter(after).count(), 1, "{one:?} after {other:?}");
        }
    }
    assert_eq!(Condition::order(7), Condition::order(3));
}
