//! What conmond is, what it watches, and what it costs.

use conmon::api::{Fill, Speed, Status};

use super::{View, absent, or_absent};
use crate::format::{bytes, count, counted, delay, harmless, percent, since, tight, time};
use crate::look::{Look, wrap};
use crate::table::{Cell, Table, left, right, toned};
use crate::tone::Tone;

/// From this share on a table is close to where detail is lost.
const FULL_RATIO: f64 = 0.9;
/// The names' width.
const INDENT: usize = 10;

/// A summary, then how fast conmond followed, then what each program in the packets' path costs, then how full the
/// kernel's tables are.
pub fn status(status: &Status, look: Look, now: jiff::Timestamp) -> View {
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
                "{} of {}, {}{}, {}, {}",
                counted(counts.containers, "container", "containers"),
                counted(counts.tenants, "tenant", "tenants"),
                counted(counts.ports, "port", "ports"),
                // before the first tap nobody knows how
                if status.attachment.is_empty() {
                    String::new()
                } else {
                    format!(" by {}", status.attachment)
                },
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
    let room = look.width.unwrap_or(usize::MAX).max(INDENT + 20) - INDENT;
    let mut text = String::new();
    for (name, value) in &lines {
        let tone = if *name == "problem" { Tone::Bad } else { Tone::Strong };
        let value = wrap(&harmless(value), room, 0).replace('\n', &format!("\n{:INDENT$}", ""));
        text.push_str(&format!("{} {value}\n", look.paint(tone, &format!("{name:<9}"))));
    }

    text.push_str(&speed(&status.speed, look));
    text.push('\n');
    let mut hooks = Table::new(vec![left("HOOK"), right("PACKETS"), right("TIME/PACKET")]);
    for hook in &cost.hooks {
        let each = |ns| if ns < 999.5 { format!("{ns:.1} ns") } else { delay(ns * 1e-9) };
        hooks.row(vec![
            hook.name.clone().into(),
            tight(count(hook.runs)).into(),
            absent(hook.ns_per_run, each).into(),
        ]);
    }
    text.push_str(&hooks.render(look));
    if let Some(sampled) = cost.sampled_at {
        text.push_str(&format!("sampled {} ago\n", since(sampled, now)).replace("now ago", "just now"));
    }

    text.push('\n');
    let mut sets = Table::new(vec![
        left("SET"),
        left("TENANT").name(),
        right("FLOWS"),
        right("PAIRS"),
        right("PORTS"),
        right("HISTOGRAMS"),
        right("MEMORY").keep(100),
    ]);
    for set in &status.sets {
        sets.row(vec![
            set.name.clone().into(),
            or_absent(set.tenant.clone(), |tenant| tenant).into(),
            fill(set.flows, look),
            fill(set.pairs, look),
            fill(set.ports, look),
            fill(set.histograms, look),
            tight(bytes(set.memory_bytes)).into(),
        ]);
    }
    text.push_str(&sets.render(look));
    View::new(text)
}

/// Nothing before the first port or container came or went.
fn speed(speed: &Speed, look: Look) -> String {
    let rows = [
        ("tapped, after its port joined", &speed.tapped_after_seconds),
        ("named, after the engine told", &speed.named_after_seconds),
        ("seen stopped, after the engine told", &speed.stopped_after_seconds),
        ("seen stopped, after the word came", &speed.reacted_after_seconds),
        ("counting ended, after its port went", &speed.ended_after_seconds),
    ];
    let rows: Vec<_> = rows.into_iter().filter_map(|(what, delays)| Some((what, delays.as_ref()?))).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(vec![
        left("SPEED"),
        right("TIMES"),
        right("P50"),
        right("P90"),
        right("P99"),
        right("MAX"),
    ]);
    for (what, d) in rows {
        let [p50, p90, p99, max] = [d.p50, d.p90, d.p99, d.max].map(delay);
        let cells = [count(d.count), p50, p90, p99, max].map(|text| tight(text).into());
        table.row([vec![what.to_owned().into()], cells.into()].concat());
    }
    format!("\n{}", table.render(look))
}

fn fill(fill: Fill, look: Look) -> Cell {
    let text =
        if look.wide { format!("{}/{}", fill.used, fill.capacity) } else { tight(percent(fill.ratio())) };
    toned(if fill.ratio() >= FULL_RATIO { Tone::Bad } else { Tone::Plain }, text)
}
