//! Monitoring containers and the pool.

use conmon::api::{Monitor, MonitorMode, MonitorState, MonitorsAnswer};

use super::{View, absent, list, or_absent};
use crate::format::{bytes, count, delay, tight};
use crate::look::Look;
use crate::table::{Cell, Table, left, right, toned};
use crate::tone::Tone;

/// The table of monitoring containers.
pub fn monitors(answer: &MonitorsAnswer, look: Look) -> View {
    let mut columns = vec![
        left("NAME").name(),
        left("TENANT").keep(140),
        left("MODE").keep(60),
        left("STATE").keep(150),
        left("FUNCTIONS").keep(50),
        right("REPORT AGE").keep(130),
        right("RESTARTS").keep(120),
        right("MEMORY").keep(110),
    ];
    if look.wide {
        columns.extend([left("ID"), left("LAST REPORT AT")]);
    }
    let mut table = Table::new(columns);
    for monitor in &answer.monitors {
        let mut cells = vec![
            monitor.name.clone().into(),
            or_absent(monitor.tenant.clone(), |tenant| tenant).into(),
            mode(monitor).into(),
            state(monitor.state),
            list(&monitor.functions).into(),
            absent(monitor.last_report_age_seconds, delay).into(),
            toned(
                if monitor.restarts > 0 { Tone::Warn } else { Tone::Plain },
                tight(count(monitor.restarts.into())),
            ),
            absent(monitor.memory_bytes, bytes).into(),
        ];
        if look.wide {
            cells.extend([
                or_absent(monitor.id.as_deref(), |id| id.chars().take(12).collect()).into(),
                or_absent(monitor.last_report_at, crate::format::time).into(),
            ]);
        }
        table.row(cells);
    }
    let pool = answer.pool;
    View::new(table.render(look)).with_note(Some(format!("pool: {} of {} ready", pool.ready, pool.wanted)))
}

fn mode(monitor: &Monitor) -> String {
    match (monitor.mode, &monitor.container) {
        (MonitorMode::Shared, _) => "shared".to_owned(),
        (MonitorMode::Dedicated, None) => "dedicated".to_owned(),
        (MonitorMode::Dedicated, Some(container)) => format!("dedicated to {container}"),
        (MonitorMode::Host, _) => "host".to_owned(),
    }
}

fn state(state: MonitorState) -> Cell {
    match state {
        MonitorState::Starting => "starting".into(),
        MonitorState::Ready => "ready".into(),
        MonitorState::Working => "working".into(),
        MonitorState::Silent => toned(Tone::Bad, "silent"),
        MonitorState::Gone => toned(Tone::Warn, "gone"),
    }
}
