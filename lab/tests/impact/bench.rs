//! Rounds: in each one every condition takes its turn and every load runs under it, so that each figure has a partner of
//! the same round in the base. What is compared are these pairs.

use crate::load::{Load, Window};
use crate::quiet::{self, DISTURBED, Others, Patience};
use crate::stage::Stage;
use crate::table;
use crate::watch::{Condition, Watch, cpu_ns, packet_threads};
use anyhow::{Context, Result, ensure};
use lab::{Counts, Lab};
use std::time::{Duration, Instant};

/// How it is measured.
pub struct Plan {
    /// Each gives one pair for each comparison.
    pub rounds: usize,
    /// How long a load runs under each condition in each round.
    pub window: Duration,
    /// How long in all to wait for others on the machine to be quiet and to measure again what they disturbed.
    pub patience: Duration,
}

/// Everything that was measured of one load under one condition, a value a round.
#[derive(Default)]
pub struct Cell {
    /// The load's figures, by metric.
    pub figures: Vec<Vec<f64>>,
    /// What the watcher's processes took of one processor.
    pub watcher: Vec<f64>,
    /// What everybody else took of one processor.
    pub others: Vec<f64>,
    /// Packets at the client's port, by the interface's counters.
    pub packets: u64,
    /// What tcpdump counted, where it watched.
    pub counts: Counts,
}

/// One load's figures, by the conditions' order in [`Condition::ALL`].
pub struct Row {
    pub load: Load,
    pub cells: [Cell; 4],
}

/// Measures and prints.
pub fn run(lab: &Lab, plan: &Plan, wanted: impl Fn(&str) -> bool) -> Result<Vec<Row>> {
    let begun = Instant::now();
    let stage = Stage::set(lab)?;
    let cells = |load: Load| {
        Condition::ALL.map(|_| Cell { figures: vec![Vec::new(); load.metrics().len()], ..Cell::default() })
    };
    let wanted = Load::ALL.into_iter().filter(|load| wanted(load.name()));
    let mut rows: Vec<Row> = wanted.map(|load| Row { load, cells: cells(load) }).collect();
    table::begin(plan)?;
    let mut patience = Patience::new(plan.patience);
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        for condition in Condition::order(round) {
            under(&stage, condition, plan.window, &mut patience, &mut rows)
                .with_context(|| format!("round {round}, condition {}", condition.name()))?;
        }
    }
    rows.iter().for_each(table::print);
    println!("\n{} rounds in {:.0} s", plan.rounds, begun.elapsed().as_secs_f64());
    Ok(rows)
}

/// Runs every load under one condition.
fn under(
    stage: &Stage,
    condition: Condition,
    window: Duration,
    patience: &mut Patience,
    rows: &mut [Row],
) -> Result<()> {
    let watch = condition.begin(stage)?;
    let mut sent = Vec::new();
    for Row { load, cells } in rows {
        let (begun, longest) = (Instant::now(), patience.of_window());
        let mut packets = 0;
        let (once, ran) = loop {
            let this = Instant::now();
            let (once, ran) = measured(stage, &watch, *load, window).with_context(|| load.name())?;
            // What was sent in a window that counts for nothing was sent, too.
            packets += ran.packets[0];
            if once.others < DISTURBED || begun.elapsed() >= longest {
                patience.spend(this - begun);
                break (once, ran);
            }
            quiet::wait(stage, &watch.pids(), longest.saturating_sub(begun.elapsed()))?;
        };
        cells[condition as usize].add(once, ran);
        sent.push((*load, packets));
    }
    watch.end(stage, &sent)
}

/// What is known of one window beside the load's own figures.
struct Once {
    watcher: f64,
    others: f64,
    packets: u64,
    counts: Counts,
}

impl Cell {
    fn add(&mut self, once: Once, window: Window) {
        for (values, figure) in self.figures.iter_mut().zip(window.figures) {
            values.push(figure);
        }
        self.watcher.push(once.watcher);
        self.others.push(once.others);
        self.packets += once.packets;
        self.counts = self.counts + once.counts;
    }
}

fn measured(stage: &Stage, watch: &Watch, load: Load, window: Duration) -> Result<(Once, Window)> {
    let (client, _) = load.ends(stage);
    let sum = |pids: &[u32]| pids.iter().map(|&pid| cpu_ns(pid)).sum::<u64>();
    let (watchers, threads) = (watch.pids(), packet_threads());
    let (packets, counts) = (stage.packets(client)?, watch.counts()?);
    let others = Others::look(stage, watchers.clone())?;
    let (begun, watcher) = (Instant::now(), sum(&watchers));
    let ran = load.run(stage, window, || Ok(sum(&watchers) + sum(&threads)))?;
    let watcher = sum(&watchers).saturating_sub(watcher) as f64 / begun.elapsed().as_nanos() as f64;
    let others = others.ratio()?;
    let counts = watch.counts()? - counts;
    // One at a time fills no queue on the way, and nothing may be missing.
    if watch.is_tcpdump() && matches!(load, Load::UdpRequests | Load::TcpRequests) {
        let sent = ran.packets.iter().sum::<u64>();
        ensure!(counts.received >= sent, "tcpdump saw {counts:?} of {sent} packets at least");
    }
    Ok((Once { watcher, others, packets: stage.packets(client)? - packets, counts }, ran))
}
