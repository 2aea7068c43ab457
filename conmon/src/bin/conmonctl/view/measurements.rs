//! Measurements as they were reported.

use conmon::api::{Measurement, MeasurementsAnswer};

use super::{View, absent, cut_note, endpoint, or_absent};
use crate::format::{ABSENT, count, delay, since, tight, time};
use crate::look::Look;
use crate::table::{Cell, Table, left, right};

/// The table of measurements, newest first.
pub fn measurements(answer: &MeasurementsAnswer, look: Look) -> View {
    let mut columns = vec![
        left("METRIC").name(),
        left("SRC").name(),
        left("DST").name(),
        left("PROTO").keep(90),
        right("VALUE"),
        left("UNIT").keep(80),
        right("SINGLETONS").keep(70),
        left("METHOD").keep(50),
        right("AGE").keep(60),
    ];
    if look.wide {
        columns.extend([
            right("MIN"),
            right("P90"),
            right("P99"),
            right("MAX"),
            left("MONITOR"),
            left("TIME"),
        ]);
    }
    let mut table = Table::new(columns);
    for measurement in &answer.measurements {
        let mut cells: Vec<Cell> = vec![
            measurement.metric.clone().into(),
            endpoint(&measurement.src).into(),
            endpoint(&measurement.dst).into(),
            measurement.protocol.clone().into(),
            value(measurement).into(),
            measurement.unit.clone().into(),
            absent(measurement.summary.as_ref().map(|summary| summary.count), count).into(),
            measurement.method.clone().into(),
            since(measurement.time, answer.generated_at).into(),
        ];
        if look.wide {
            let of = |pick: fn(&conmon::api::DelaySummary) -> f64| {
                absent(measurement.summary.as_ref(), |summary| number(pick(summary), &measurement.unit))
            };
            cells.extend([
                of(|summary| summary.min).into(),
                of(|summary| summary.p90).into(),
                of(|summary| summary.p99).into(),
                of(|summary| summary.max).into(),
                or_absent(measurement.monitor.clone(), |monitor| monitor).into(),
                time(measurement.time).into(),
            ]);
        }
        table.row(cells);
    }
    let empty = answer.measurements.is_empty().then(|| "no measurements".to_owned());
    View::new(table.render(look)).with_note(empty).with_note(cut_note(
        answer.matched,
        answer.measurements.len(),
        "measurements",
    ))
}

/// The single value, or the median of several.
fn value(measurement: &Measurement) -> String {
    match (&measurement.value, &measurement.summary) {
        (Some(value), _) => tight(number(*value, &measurement.unit)),
        (None, Some(summary)) => format!("p50={}", tight(number(summary.p50, &measurement.unit))),
        (None, None) => ABSENT.to_owned(),
    }
}

/// Delays for people; counts to the last digit, since this is what was reported.
fn number(value: f64, unit: &str) -> String {
    if unit == "seconds" { delay(value) } else { format!("{value}") }
}
