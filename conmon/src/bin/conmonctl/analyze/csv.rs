//! Comma-separated values (RFC 4180, with line feeds alone): an analysis, one line a pair; or events, one line each.

use std::fmt::Write as _;

use conmon::analysis::{AnalysisAnswer, AnalyzedPair, Event};
use ippm::flow::proto_name;
use ippm::time::seconds;

use super::columns::{COLUMNS, Pick};

/// All lines, the heading first.
pub fn csv(answer: &AnalysisAnswer) -> String {
    let mut text = COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
    text.push('\n');
    for pair in &answer.pairs {
        let values: Vec<String> = COLUMNS.iter().map(|(_, pick)| quoted(value(*pick, pair))).collect();
        text.push_str(&values.join(","));
        text.push('\n');
    }
    text
}

fn value(pick: Pick, pair: &AnalyzedPair) -> String {
    match pick {
        Pick::Text(of) => of(pair),
        Pick::Time(of) => of(pair).to_string(),
        Pick::Count(of) => some(of(pair)),
        Pick::Number(of) => some(of(pair)),
    }
}

fn quoted(value: String) -> String {
    if value.contains([',', '"', '\n', '\r']) { format!("\"{}\"", value.replace('"', "\"\"")) } else { value }
}

fn some<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// The heading of events' lines.
pub const EVENTS: &str = "capture,time_ns,protocol,src,src_port,dst,dst_port,event,number,seconds\n";

/// An event's line. `number` is the acknowledgement's or sequence number, `seconds` the round trip that ended.
pub fn event(capture: usize, event: &Event, line: &mut String) {
    line.clear();
    let ((src, src_port), (dst, dst_port)) = (event.source, event.destination);
    let _ = writeln!(
        line,
        "{capture},{},{},{src},{src_port},{dst},{dst_port},{},{},{}",
        event.ns,
        proto_name(event.proto),
        event.kind.word(),
        some(event.kind.number()),
        some(event.kind.took_ns().map(seconds))
    );
}
