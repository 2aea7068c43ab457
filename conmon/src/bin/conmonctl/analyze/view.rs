//! An analysis as a table.

use conmon::analysis::{AnalysisAnswer, AnalyzedPair, Between, Capture, ClockRelation};
use conmon::api::DelaySummary;

use crate::format::{ABSENT, bytes, count, counted, delay, percent, tight, time};
use crate::look::Look;
use crate::table::{Cell, Column, Table, left, right};
use crate::view::{View, endpoint, protocols};

/// One row a pair, and what is to be said about captures and clocks. `found` pairs are there, of which the answer may
/// hold fewer.
pub fn view(answer: &AnalysisAnswer, found: usize, look: Look) -> View {
    let two = answer.captures.len() > 1;
    let translated = answer.pairs.iter().any(|pair| !pair.translated.is_empty());
    let mut table = Table::new(columns(two, translated, look.wide));
    for pair in &answer.pairs {
        let mut cells = cells(pair, two, look.wide);
        if translated {
            cells.insert(2, seen_as(pair).into());
        }
        table.row(cells);
    }
    let notes = notes(answer, found);
    View { text: if answer.pairs.is_empty() { String::new() } else { table.render(look) }, notes }
}

/// What is to be said about captures and clocks.
pub fn notes(answer: &AnalysisAnswer, found: usize) -> Vec<String> {
    let mut notes: Vec<String> = answer.captures.iter().map(captured).collect();
    if answer.captures.len() > 1 {
        notes.push(relation(answer.clock.as_ref(), &answer.between));
    }
    notes.extend(answer.notes.iter().cloned());
    for pair in &answer.pairs {
        notes.extend(pair.translated.iter().map(|translation| {
            let [before, behind] = translation.example;
            format!(
                "{} > {} is {} > {} in the second capture: {}, {} > {} is {} > {} there",
                pair.pair.src.name,
                pair.pair.dst.name,
                translation.src,
                translation.dst,
                counted(translation.flows, "flow", "flows"),
                before.src,
                before.dst,
                behind.src,
                behind.dst
            )
        }));
    }
    let more = found.saturating_sub(answer.pairs.len());
    if more > 0 {
        notes.push(format!("{more} more pairs; --limit shows them"));
    }
    notes
}

fn columns(two: bool, translated: bool, wide: bool) -> Vec<Column> {
    let mut columns = vec![
        left("SRC").name(),
        left("DST").name(),
        left("PROTO").keep(120),
        right("SENT").keep(140),
        right("RECV").keep(140),
    ];
    if translated {
        columns.insert(2, left("SECOND SAW").keep(170));
    }
    if two {
        columns.extend([
            right("OUT50").keep(200),
            right("OUT99").keep(180),
            right("BACK50").keep(200),
            right("BACK99").keep(180),
            right("LOST>").keep(190),
            right("LOST<").keep(190),
            right("LATE>").keep(60),
            right("LATE<").keep(60),
        ]);
    }
    columns.extend([
        right("RTT50").keep(160),
        right("RTT99").keep(150),
        right("NEAR50").keep(100),
        right("RETR").keep(130),
        right("REORD").keep(110),
        right("FLOWS").keep(80),
    ]);
    if wide {
        columns.extend([
            right("SENT PKT"),
            right("RECV PKT"),
            right("RTT MIN"),
            right("RTT MAX"),
            right("SINGLETONS"),
            right("DELAYED"),
            right("SHAKE50"),
            right("DNS50"),
            right("ECHO50"),
            right("SPIN50"),
            right("ACTIVE"),
            left("GUESSED"),
            left("FIRST SEEN"),
            left("LAST SEEN"),
        ]);
        if two {
            columns.extend([
                right("OUT MIN"),
                right("BACK MIN"),
                right("BOUND"),
                right("COVERED>"),
                right("COVERED<"),
            ]);
        }
    }
    columns
}

fn cells(analyzed: &AnalyzedPair, two: bool, wide: bool) -> Vec<Cell> {
    let pair = &analyzed.pair;
    let statistic = |summary: &Option<DelaySummary>, pick: fn(&DelaySummary) -> f64| {
        or_absent(summary.as_ref().map(|summary| tight(delay(pick(summary)))))
    };
    let number = |number: Option<u64>| or_absent(number.map(|number| tight(count(number))));
    let mut cells: Vec<Cell> = vec![
        endpoint(&pair.src).into(),
        endpoint(&pair.dst).into(),
        protocols(&pair.protocols).into(),
        tight(bytes(pair.sent.bytes)).into(),
        tight(bytes(pair.received.bytes)).into(),
    ];
    let between = &analyzed.between;
    let way = |forward: bool, pick: fn(&DelaySummary) -> f64| {
        let delays = between.one_way_delay_seconds.as_ref().and_then(|ways| ways.one(forward));
        or_absent(delays.map(|delays| tight(delay(pick(&delays.summary)))))
    };
    if two {
        cells.extend([
            way(true, |d| d.p50),
            way(true, |d| d.p99),
            way(false, |d| d.p50),
            way(false, |d| d.p99),
            number(between.lost_packets.as_ref().and_then(|ways| ways.forward)),
            number(between.lost_packets.as_ref().and_then(|ways| ways.reverse)),
            number(between.reordered_packets.as_ref().and_then(|ways| ways.forward)),
            number(between.reordered_packets.as_ref().and_then(|ways| ways.reverse)),
        ]);
    }
    cells.extend([
        statistic(&pair.rtt_seconds, |rtt| rtt.p50),
        statistic(&pair.rtt_seconds, |rtt| rtt.p99),
        statistic(&pair.near_rtt_seconds, |rtt| rtt.p50),
        number(pair.retransmitted_segments),
        number(pair.reordered_segments),
        number(Some(pair.flows)),
    ]);
    if wide {
        cells.extend([
            number(Some(pair.sent.packets)),
            number(Some(pair.received.packets)),
            statistic(&pair.rtt_seconds, |rtt| rtt.min),
            statistic(&pair.rtt_seconds, |rtt| rtt.max),
            number(pair.rtt_seconds.as_ref().map(|rtt| rtt.count)),
            number(analyzed.maybe_delayed_acks),
            statistic(&pair.handshake_rtt_seconds, |rtt| rtt.p50),
            statistic(&analyzed.dns_rtt_seconds, |rtt| rtt.p50),
            statistic(&analyzed.echo_rtt_seconds, |rtt| rtt.p50),
            statistic(&analyzed.spin_rtt_seconds, |rtt| rtt.p50),
            number(Some(pair.active_flows)),
            (if pair.role_guessed { "yes" } else { "no" }).into(),
            time(pair.first_seen).into(),
            time(pair.last_seen).into(),
        ]);
        if two {
            let covered = |forward: bool| {
                let delays = between.one_way_delay_seconds.as_ref().and_then(|ways| ways.one(forward));
                or_absent(delays.map(|delays| tight(percent(delays.coverage_ratio))))
            };
            cells.extend([
                way(true, |d| d.min),
                way(false, |d| d.min),
                or_absent(between.error_bound().map(|bound| tight(delay(bound)))),
                covered(true),
                covered(false),
            ]);
        }
    }
    cells
}

/// What the second capture saw in a pair's place.
fn seen_as(pair: &AnalyzedPair) -> String {
    match &pair.translated[..] {
        [] => ABSENT.to_owned(),
        [one] => format!("{} > {}", one.src, one.dst),
        [one, more @ ..] => format!("{} > {} and {} more", one.src, one.dst, more.len()),
    }
}

fn or_absent(text: Option<String>) -> Cell {
    text.unwrap_or_else(|| ABSENT.to_owned()).into()
}

fn captured(capture: &Capture) -> String {
    let packets = counted(capture.packets, "packet", "packets");
    let span = match (capture.first, capture.last) {
        (Some(first), Some(last)) => {
            format!(
                ", {} from {}",
                delay((last - first).total(jiff::Unit::Second).unwrap_or(0.0)),
                time(first)
            )
        }
        _ => String::new(),
    };
    format!("{}: {packets}, {}{span}", capture.file, bytes(capture.bytes))
}

fn relation(clock: Option<&ClockRelation>, between: &Between) -> String {
    let Some(clock) = clock else {
        return match &between.one_way_delay_seconds {
            Some(_) => "clocks: taken to be one".to_owned(),
            None => "clocks: their relation is not known".to_owned(),
        };
    };
    let side = if clock.offset_seconds < 0.0 { "behind" } else { "ahead of" };
    let windows = match clock.windows {
        0 | 1 => String::new(),
        windows => format!("; set or steered meanwhile, {windows} parts"),
    };
    format!(
        "clocks: the second is {} {side} the first, for certain within {}; its rate differs by {:+.3} ppm{windows}",
        delay(clock.offset_seconds.abs()),
        delay(clock.bound_seconds),
        clock.skew_ppm,
    )
}
