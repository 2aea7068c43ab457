//! The API's answers as tables. Each view is a pure function of an answer, so it can be tested as text; numbers are for
//! people here, and JSON is printed from the answer itself.

mod clocks;
mod containers;
mod doctor;
mod events;
mod flows;
mod ledger;
mod matrix;
mod measurements;
mod monitors;
mod pairs;
mod status;
#[cfg(test)]
mod tests;

pub use clocks::clocks;
pub use containers::containers;
pub use doctor::doctor;
pub use events::event;
pub use flows::{address, flows};
pub use ledger::ledger;
pub use matrix::matrix;
pub use measurements::measurements;
pub use monitors::monitors;
pub use pairs::{Choice, pairs};
pub use status::status;

use conmon::api::{DelaySummary, Endpoint, EndpointKind};

use crate::format::{ABSENT, delay, tight};
use crate::judge;
use crate::table::{Cell, toned};

/// A table, and what is to be said about it. Notes go to the other output, so that a pipe sees rows only.
#[derive(Debug, PartialEq, Eq)]
pub struct View {
    /// The table's lines.
    pub text: String,
    /// Sentences.
    pub notes: Vec<String>,
}

impl View {
    fn new(text: String) -> Self {
        Self { text, notes: Vec::new() }
    }

    fn with_note(mut self, note: Option<String>) -> Self {
        self.notes.extend(note);
        self
    }
}

/// An endpoint's name; what is no container says so.
pub fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint.kind {
        EndpointKind::Host => format!("{} (host)", endpoint.name),
        _ => endpoint.name.clone(),
    }
}

/// What a column of protocols has room for: `tcp`, or the first and how many more.
pub fn protocols(protocols: &[String]) -> String {
    match protocols {
        [] => ABSENT.to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}+{}", rest.len()),
    }
}

/// The tenants of a conversation.
pub fn tenants(src: &Endpoint, dst: &Endpoint) -> String {
    match (src.tenant.as_deref(), dst.tenant.as_deref()) {
        (Some(src), Some(dst)) if src != dst => format!("{src} → {dst}"),
        (Some(tenant), _) | (None, Some(tenant)) => tenant.to_owned(),
        (None, None) => ABSENT.to_owned(),
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        ABSENT.to_owned()
    } else {
        items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
    }
}

/// One statistic of a sample, as a table has it, in the tone it deserves.
fn delays(summary: Option<&DelaySummary>, pick: fn(&DelaySummary) -> f64) -> Cell {
    toned(judge::statistic(summary, pick), absent(summary.map(pick), delay))
}

/// A quantity as a table has it: one word.
fn absent<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| tight(text(value)))
}

fn or_absent<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| ABSENT.to_owned(), text)
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn hidden_note(hidden: usize) -> Option<String> {
    (hidden > 0).then(|| {
        let rows = if hidden == 1 { "1 row" } else { &format!("{hidden} rows") };
        format!("{rows} of multicast and link-local traffic hidden; --all shows them")
    })
}

fn incomplete_note(hosts: &[conmon::api::HostAnswer]) -> Option<String> {
    let missing: Vec<&str> =
        hosts.iter().filter(|host| !host.complete).map(|host| host.name.as_str()).collect();
    (!missing.is_empty()).then(|| format!("incomplete: {} did not answer in full", missing.join(", ")))
}

fn cut_note(matched: u64, shown: usize, what: &str) -> Option<String> {
    let more = matched.saturating_sub(shown as u64);
    (more > 0).then(|| format!("{more} more {what}; --limit shows them"))
}
