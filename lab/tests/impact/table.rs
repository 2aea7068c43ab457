//! The benchmark's output.

use crate::bench::{Cell, Plan, Row};
use crate::quiet::DISTURBED;
use crate::watch::Condition;
use anyhow::{Context, Result};
use lab::{Median, median};

/// Fewer pairs have no interval that can hold with 95 %.
const FEW: usize = 6;

pub fn begin(plan: &Plan) -> Result<()> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    println!(
        "What watching costs two containers that talk: {} rounds, {:?} for each load and condition, in changing\n\
         order; {} processors, Linux {}",
        plan.rounds,
        plan.window,
        std::thread::available_parallelism().context("processors")?,
        kernel.trim(),
    );
    for condition in Condition::ALL {
        println!("  {:<7} {}", condition.name(), condition.description());
    }
    println!(
        "Medians; differences are of pairs, with the base of the same round (95 % interval by order statistics; of less\n\
         than {FEW} pairs their range). * the interval leaves out zero"
    );
    Ok(())
}

/// Prints one load's figures.
pub fn print(row: &Row) {
    println!("\n{}: {}", row.load.name(), row.load.description());
    println!(
        "  {:<15} {:<10} {:<7} {:>5} {:>9}  {:<31} {:<27}",
        "", "", "", "pairs", "median", "difference", "in %"
    );
    let [base, ..] = &row.cells;
    for (m, metric) in row.load.metrics().iter().enumerate() {
        for (condition, cell) in Condition::ALL.iter().zip(&row.cells) {
            let first = *condition == Condition::Base;
            let (name, unit) = if first { (metric.name, metric.unit) } else { ("", "") };
            let pairs = pairs(&base.figures[m], &cell.figures[m]);
            let (count, difference, ratio) = if first {
                (String::new(), String::new(), String::new())
            } else {
                let count = pairs.difference.len().to_string();
                (count, interval(pairs.difference), interval(pairs.percent))
            };
            println!(
                "  {name:<15} {unit:<10} {:<7} {count:>5} {:>9}  {difference:<31} {ratio:<27}",
                condition.name(),
                median(cell.figures[m].clone()).map_or("none".into(), |m| number(m.median)),
            );
        }
    }
    for (condition, cell) in Condition::ALL.iter().zip(&row.cells).skip(1) {
        println!("  {:<7} {}", condition.name(), watcher(*condition, cell));
    }
    let others: Vec<f64> = row.cells.iter().flat_map(|cell| cell.others.iter().copied()).collect();
    let disturbed = others.iter().filter(|&&ratio| ratio >= DISTURBED).count();
    println!(
        "  everybody else on the machine took {:.0} % of a processor; {disturbed} of {} windows were disturbed (over {:.0} %)",
        median(others.clone()).map_or(f64::NAN, |m| m.median) * 100.0,
        others.len(),
        DISTURBED * 100.0
    );
}

/// What the watcher itself took and, of tcpdump, missed.
fn watcher(condition: Condition, cell: &Cell) -> String {
    let ratio = median(cell.watcher.clone()).map_or(f64::NAN, |m| m.median);
    let own = format!("the watcher's own processes took {:.1} % of a processor", ratio * 100.0);
    if condition == Condition::Ours {
        return own;
    }
    let share = |packets: u64| packets as f64 / cell.packets.max(1) as f64 * 100.0;
    let (dropped, lost) = (cell.counts.dropped, cell.packets.saturating_sub(cell.counts.received));
    format!(
        "{own}; of {} packets it dropped {dropped} ({:.2} %), and {lost} ({:.2} %) did not reach it",
        cell.packets,
        share(dropped),
        share(lost)
    )
}

struct Pairs {
    difference: Vec<f64>,
    percent: Vec<f64>,
}

fn pairs(base: &[f64], other: &[f64]) -> Pairs {
    let pairs = || base.iter().zip(other);
    Pairs {
        difference: pairs().map(|(b, o)| o - b).collect(),
        percent: pairs().map(|(b, o)| (o / b - 1.0) * 100.0).collect(),
    }
}

fn interval(values: Vec<f64>) -> String {
    let signed = |value: f64| format!("{}{}", if value < 0.0 { "" } else { "+" }, number(value));
    let count = values.len();
    let Some(m) = median(values) else { return "none".into() };
    let Median { median, low, high } = m;
    let mark = if count >= FEW && m.differs_from_zero() { " *" } else { "" };
    format!("{} ({} to {}){mark}", signed(median), signed(low), signed(high))
}

/// Three digits that matter.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.0995 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
