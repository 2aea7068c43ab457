//! What conmond is, what it watches, and what it costs.

use conmon::api::{Fill, Speed, Status};

use super::{View, or_absent};
use crate::format::{bytes, count, counted, delay, harmless, percent, since, time};
use crate::table::{Left, Right, Table};

/// A summary, then how fast conmond followed, then what each program in the packets' path costs, then how full the
/// kernel's tables are.
pub fn status(status: &Status, wide: bool, now: jiff::Timestamp) -> View {
    let counts = &status.counts;
    let engine = &status.engine;
    let mut lines = vec![
        (
            "conmond",
            format!(
                "{}, instance {}, host {}, kernel {}, pid {}, up {}",
                status.version,
                status.instance,
                status.host,
                status.kernel,
                status.pid,
                since(status.started_at, now)
            ),
        ),
        (
            "engine",
            match (engine.connected, &engine.version, &engine.error) {
                (true, version, _) => {
                    format!("{} {} on {}", engine.name, version.as_deref().unwrap_or("?"), engine.address)
                }
                (false, _, Some(error)) => {
                    format!("{} on {} does not answer: {error}", engine.name, engine.address)
                }
                (false, _, None) => format!("{} on {} does not answer", engine.name, engine.address),
            },
        ),
        (
            "watching",
            format!(
                "{} of {}, {} by {}, {}, {}",
                counted(counts.containers, "container", "containers"),
                counted(counts.tenants, "tenant", "tenants"),
                counted(counts.ports, "port", "ports"),
                status.attachment,
                counted(counts.pairs, "pair", "pairs"),
                counted(counts.active_flows, "active flow", "active flows"),
            ),
        ),
    ];
    if let Some(begin) = status.counting_since {
        lines.push(("counting", format!("since {} ({})", time(begin), since(begin, now))));
    }
    lines.push((
        "monitors",
        format!("{} in all; pool {} of {} ready", counts.monitors, status.pool.ready, status.pool.wanted),
    ));
    let cost = &status.cost;
    lines.push((
        "cost",
        format!(
            "CPU {}, memory {}, kernel memory {}",
            or_absent(cost.cpu_ratio, percent),
            or_absent(cost.memory_bytes, bytes),
            or_absent(cost.kernel_memory_bytes, bytes)
        ),
    ));
    for problem in &status.problems {
        lines.push(("problem", problem.clone()));
    }
    let mut text: String =
        lines.iter().map(|(name, value)| format!("{name:<9} {}\n", harmless(value))).collect();

    text.push_str(&speed(&status.speed));
    text.push('\n');
    let mut hooks = Table::new(vec![Left("HOOK"), Right("PACKETS"), Right("TIME/PACKET")]);
    for hook in &cost.hooks {
        hooks.row(vec![
            hook.name.clone(),
            count(hook.runs),
            or_absent(
                hook.ns_per_run,
                |ns| if ns < 999.5 { format!("{ns:.1} ns") } else { delay(ns * 1e-9) },
            ),
        ]);
    }
    text.push_str(&hooks.render());
    if let Some(sampled) = cost.sampled_at {
        text.push_str(&format!("sampled {} ago\n", since(sampled, now)).replace("now ago", "just now"));
    }

    text.push('\n');
    let mut sets = Table::new(vec![
        Left("SET"),
        Left("TENANT"),
        Right("FLOWS"),
        Right("PAIRS"),
        Right("PORTS"),
        Right("HISTOGRAMS"),
        Right("MEMORY"),
    ]);
    for set in &status.sets {
        sets.row(vec![
            set.name.clone(),
            or_absent(set.tenant.clone(), |tenant| tenant),
            fill(set.flows, wide),
            fill(set.pairs, wide),
            fill(set.ports, wide),
            fill(set.histograms, wide),
            bytes(set.memory_bytes),
        ]);
    }
    text.push_str(&sets.render());
    View::new(text)
}

/// Nothing before the first port or container came or went.
fn speed(speed: &Speed) -> String {
    let rows = [
        ("tapped, after its port joined", &speed.tapped_after_seconds),
        ("named, after the engine told", &speed.named_after_seconds),
        ("seen stopped, after the engine told", &speed.stopped_after_seconds),
        ("counting ended, after its port went", &speed.ended_after_seconds),
    ];
    let rows: Vec<_> = rows.into_iter().filter_map(|(what, delays)| Some((what, delays.as_ref()?))).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(vec![
        Left("SPEED"),
        Right("TIMES"),
        Right("P50"),
        Right("P90"),
        Right("P99"),
        Right("MAX"),
    ]);
    for (what, d) in rows {
        let [p50, p90, p99, max] = [d.p50, d.p90, d.p99, d.max].map(delay);
        table.row(vec![what.to_owned(), count(d.count), p50, p90, p99, max]);
    }
    format!("\n{}", table.render())
}

fn fill(fill: Fill, wide: bool) -> String {
    if wide { format!("{}/{}", fill.used, fill.capacity) } else { percent(fill.ratio()) }
}
