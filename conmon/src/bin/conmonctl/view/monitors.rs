//! Monitoring containers and the pool.

use conmon::api::{Monitor, MonitorMode, MonitorState, MonitorsAnswer};

use super::{View, list, or_absent};
use crate::format::{bytes, count, delay};
use crate::table::{Left, Right, Table};

/// The table of monitoring containers.
pub fn monitors(answer: &MonitorsAnswer, wide: bool) -> View {
    let mut columns = vec![
        Left("NAME"),
        Left("TENANT"),
        Left("MODE"),
        Left("STATE"),
        Left("FUNCTIONS"),
        Right("LAST REPORT"),
        Right("RESTARTS"),
        Right("MEMORY"),
    ];
    if wide {
        columns.extend([Left("ID"), Left("LAST REPORT AT")]);
    }
    let mut table = Table::new(columns);
    for monitor in &answer.monitors {
        let mut cells = vec![
            monitor.name.clone(),
            or_absent(monitor.tenant.clone(), |tenant| tenant),
            mode(monitor),
            state(monitor.state).to_owned(),
            list(&monitor.functions),
            or_absent(monitor.last_report_age_seconds, |seconds| format!("{} ago", delay(seconds))),
            count(monitor.restarts.into()),
            or_absent(monitor.memory_bytes, bytes),
        ];
        if wide {
            cells.extend([
                or_absent(monitor.id.as_deref(), |id| id.chars().take(12).collect()),
                or_absent(monitor.last_report_at, crate::format::time),
            ]);
        }
        table.row(cells);
    }
    let pool = answer.pool;
    View::new(table.render()).with_note(Some(format!("pool: {} of {} ready", pool.ready, pool.wanted)))
}

fn mode(monitor: &Monitor) -> String {
    match (monitor.mode, &monitor.container) {
        (MonitorMode::Shared, _) => "shared".to_owned(),
        (MonitorMode::Dedicated, None) => "dedicated".to_owned(),
        (MonitorMode::Dedicated, Some(container)) => format!("dedicated to {container}"),
        (MonitorMode::Host, _) => "host".to_owned(),
    }
}

fn state(state: MonitorState) -> &'static str {
    match state {
        MonitorState::Starting => "starting",
        MonitorState::Ready => "ready",
        MonitorState::Working => "working",
        MonitorState::Silent => "silent",
        MonitorState::Gone => "gone",
    }
}
