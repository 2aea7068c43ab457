//! The other hosts' clocks against this one's.

use conmon::api::{ClocksAnswer, HostClock};

use super::{View, absent};
use crate::format::{ABSENT, age, count, delay, harmless, tight};
use crate::look::Look;
use crate::table::{Cell, NEEDED, Table, left, right, toned};
use crate::tone::Tone;

/// A row for each host.
pub fn clocks(answer: &ClocksAnswer, look: Look) -> View {
    let mut columns = vec![
        left("HOST").name(),
        right("AHEAD BY").keep(NEEDED),
        right("±").keep(NEEDED),
        right("FASTER BY").keep(150),
        right("±").keep(60),
        right("LEAST RTT").keep(140),
        right("ANSWERED").keep(100),
        right("AGE").keep(120),
    ];
    if look.wide {
        columns.extend([right("SENT"), right("WINDOW"), right("PARTS")]);
    }
    let mut table = Table::new(columns);
    for clock in &answer.clocks {
        let mut cells: Vec<Cell> = vec![
            harmless(&clock.host).into_owned().into(),
            absent(clock.offset_seconds, signed).into(),
            absent(clock.bound_seconds, delay).into(),
            absent(clock.skew_ppm, |ppm| format!("{ppm:+.2} ppm")).into(),
            absent(clock.skew_bound_ppm, |ppm| format!("{ppm:.2}")).into(),
            absent(clock.round_trip_seconds, delay).into(),
            answered(clock),
            clock.age_seconds.map_or_else(|| ABSENT.to_owned(), age).into(),
        ];
        if look.wide {
            cells.extend([
                tight(count(clock.sent)).into(),
                tight(delay(clock.window_seconds)).into(),
                clock.parts.to_string().into(),
            ]);
        }
        table.row(cells);
    }
    let none = "no other host's clock is known: there is a session with each host that this one's containers talk with, \
                where hosts share a registry (docs/hosts.md)";
    let mut view = View::new(table.render(look)).with_note(answer.clocks.is_empty().then(|| none.to_owned()));
    for clock in &answer.clocks {
        let why = clock.problem.as_deref();
        view = view.with_note(why.map(|why| format!("{}: {}", harmless(&clock.host), harmless(why))));
    }
    view
}

/// A difference with its sign; what rounds to nothing has none.
fn signed(seconds: f64) -> String {
    let text = delay(seconds.abs());
    if seconds < 0.0 { format!("-{text}") } else { text }
}

/// The share of test packets that were answered, those of the last moment aside.
fn answered(clock: &HostClock) -> Cell {
    if clock.sent == 0 {
        return ABSENT.into();
    }
    let ratio = clock.answered as f64 / clock.sent as f64;
    let tone = if ratio < 0.9 { Tone::Warn } else { Tone::Plain };
    toned(tone, crate::format::percent(ratio))
}
