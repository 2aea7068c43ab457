//! Measurements as they were reported.

use conmon::api::{Measurement, MeasurementsAnswer};

use super::{View, cut_note, endpoint, or_absent};
use crate::format::{ABSENT, count, delay, since, time};
use crate::table::{Left, Right, Table};

/// The table of measurements, newest first.
pub fn measurements(answer: &MeasurementsAnswer, wide: bool) -> View {
    let mut columns = vec![
        Left("METRIC"),
        Left("SRC"),
        Left("DST"),
        Left("PROTO"),
        Right("VALUE"),
        Left("UNIT"),
        Left("METHOD"),
        Right("AGE"),
    ];
    if wide {
        columns.extend([
            Right("MIN"),
            Right("P90"),
            Right("P99"),
            Right("MAX"),
            Left("MONITOR"),
            Left("TIME"),
        ]);
    }
    let mut table = Table::new(columns);
    for measurement in &answer.measurements {
        let mut cells = vec![
            measurement.metric.clone(),
            endpoint(&measurement.src),
            endpoint(&measurement.dst),
            measurement.protocol.clone(),
            value(measurement),
            measurement.unit.clone(),
            measurement.method.clone(),
            since(measurement.time, answer.generated_at),
        ];
        if wide {
            let of = |pick: fn(&conmon::api::DelaySummary) -> f64| {
                or_absent(measurement.summary.as_ref(), |summary| number(pick(summary), &measurement.unit))
            };
            cells.extend([
                of(|summary| summary.min),
                of(|summary| summary.p90),
                of(|summary| summary.p99),
                of(|summary| summary.max),
                or_absent(measurement.monitor.clone(), |monitor| monitor),
                time(measurement.time),
            ]);
        }
        table.row(cells);
    }
    let empty = answer.measurements.is_empty().then(|| "no measurements".to_owned());
    View::new(table.render()).with_note(empty).with_note(cut_note(
        answer.matched,
        answer.measurements.len(),
        "measurements",
    ))
}

/// The single value, or the median of several with their number.
fn value(measurement: &Measurement) -> String {
    match (&measurement.value, &measurement.summary) {
        (Some(value), _) => number(*value, &measurement.unit),
        (None, Some(summary)) => {
            format!("p50 {} of {}", number(summary.p50, &measurement.unit), count(summary.count))
        }
        (None, None) => ABSENT.to_owned(),
    }
}

/// Delays for people; counts to the last digit, since this is what was reported.
fn number(value: f64, unit: &str) -> String {
    if unit == "seconds" { delay(value) } else { format!("{value}") }
}
