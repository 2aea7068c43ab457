//! An analysis as one page that opens without a network: the captures, all pairs in a table, and for each of the largest
//! its delays as distributions on one logarithmic scale. No script, no font, nothing from elsewhere.

use std::fmt::Write as _;

use conmon::analysis::{AnalysisAnswer, AnalyzedPair, Capture, LossRatio, Ways};
use conmon::api::DelaySummary;

use super::plot::Scale;
use crate::format::{ABSENT, bytes, count, delay, percent, time};

/// So many pairs have a section of their own.
const SECTIONS: usize = 50;
/// And so many a row.
const ROWS: usize = 1_000;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6270; --line: #dde1e7; --paper: #fff; --fill: #f5f7fa; --a: #2864c7; --b: #b4540a; --c: #a01b3a }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3b0; --line: #363c46; --paper: #15181d; --fill: #1c2027; --a: #79a8f5; --b: #e59a54; --c: #f07a93 } }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 76rem; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.5rem; margin: 0 0 1rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem } h2 small { color: var(--soft); font-weight: 400 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
th { color: var(--soft); font-weight: 500 } th:first-child, td:first-child { text-align: left }
p, li { color: var(--soft); max-width: 60rem } ul { padding-left: 1.2rem } a { color: var(--a); text-decoration: none }
.wide { overflow-x: auto } .fault { color: var(--c); border-left: 3px solid var(--c); padding: .3rem .8rem; background: var(--fill) }
.facts { display: flex; flex-wrap: wrap; gap: .5rem; margin: .3rem 0 .8rem } .facts div { background: var(--fill); border-radius: 4px; padding: .35rem .8rem }
.facts b { display: block; font-weight: 500; font-variant-numeric: tabular-nums } .facts span { color: var(--soft); font-size: 12px }
svg { vertical-align: middle; width: 26rem; max-width: 100% } .scale { fill: var(--soft); font-size: 9px } .rule { stroke: var(--line) }
.whole { stroke: var(--soft) } .bulk { fill: var(--a); opacity: .75 } .middle { stroke: var(--ink); stroke-width: 1.5 } .late { stroke: var(--b); stroke-width: 1.5 }
.key-middle { color: var(--ink); font-weight: 600 } .key-late { color: var(--b); font-weight: 600 }
.share { display: inline-block; height: .6em; background: var(--a); opacity: .5; margin-left: .5em; vertical-align: baseline }
";

/// The page. `notes` are those of the table, `faults` what is wrong with the captures.
pub fn html(answer: &AnalysisAnswer, notes: &[String], faults: &[String]) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\">");
    let _ = writeln!(page, "<title>Captures analysed</title><style>{STYLE}</style></head><body>");
    page.push_str("<h1>Captures analysed</h1>\n");
    for fault in faults {
        let _ = writeln!(page, "<p class=\"fault\">{}; what could be read is shown</p>", escaped(fault));
    }
    write_captures(&mut page, &answer.captures);
    // The first notes are the captures again.
    let more = notes.get(answer.captures.len()..).unwrap_or_default();
    if !more.is_empty() {
        page.push_str("<ul>\n");
        for note in more {
            let _ = writeln!(page, "<li>{}</li>", escaped(note));
        }
        page.push_str("</ul>\n");
    }
    write_pairs(&mut page, answer);
    let delays: Vec<Vec<(&str, &DelaySummary)>> = answer.pairs.iter().take(SECTIONS).map(delays).collect();
    let scale = Scale::of(delays.iter().flatten().map(|(_, delays)| *delays));
    if scale.is_some() {
        page.push_str(
            "<p>All delays are on one logarithmic scale. Bars tell how they are distributed, the line goes from the \
             smallest to the largest; the marks are the <span class=\"key-middle\">median</span> and the <span \
             class=\"key-late\">99th percentile</span>.</p>\n",
        );
    }
    for (number, (pair, delays)) in answer.pairs.iter().zip(&delays).enumerate() {
        write_pair(&mut page, number, pair, delays, scale.as_ref());
    }
    page.push_str("</body></html>\n");
    page
}

fn write_captures(page: &mut String, captures: &[Capture]) {
    page.push_str(
        "<div class=\"wide\"><table><tr><th>capture</th><th>packets</th><th>octets</th><th>first packet</th><th>lasts</th>\
         <th>unit of time</th></tr>\n",
    );
    for capture in captures {
        let lasts = capture
            .first
            .zip(capture.last)
            .map(|(first, last)| delay((last - first).total(jiff::Unit::Second).unwrap_or(0.0)));
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&capture.file),
            count(capture.packets),
            bytes(capture.bytes),
            capture.first.map_or_else(absent, time),
            lasts.unwrap_or_else(absent),
            delay(capture.resolution_seconds)
        );
    }
    page.push_str("</table></div>\n");
}

fn write_pairs(page: &mut String, answer: &AnalysisAnswer) {
    if answer.pairs.is_empty() {
        return;
    }
    let two = answer.captures.len() > 1;
    page.push_str("<h2>Pairs</h2>\n<div class=\"wide\"><table><tr><th>pair</th><th>protocols</th><th>there</th><th>back</th><th></th>");
    if two {
        page.push_str("<th>lost there</th><th>lost back</th><th>one way p50</th><th>back p50</th>");
    }
    page.push_str("<th>RTT p50</th><th>RTT p99</th><th>sent again</th><th>late</th><th>flows</th></tr>\n");
    let octets = |pair: &AnalyzedPair| pair.pair.sent.bytes.saturating_add(pair.pair.received.bytes);
    let most = answer.pairs.iter().map(octets).max().unwrap_or(0).max(1);
    for (number, analyzed) in answer.pairs.iter().take(ROWS).enumerate() {
        let pair = &analyzed.pair;
        let name = format!("{} \u{2192} {}", escaped(&pair.src.name), escaped(&pair.dst.name));
        let name = if number < SECTIONS { format!("<a href=\"#p{number}\">{name}</a>") } else { name };
        let width = octets(analyzed) as f64 / most as f64 * 80.0;
        let _ = write!(
            page,
            "<tr><td>{name}</td><td>{}</td><td>{}</td><td>{}</td><td style=\"text-align:left\"><span class=\"share\" \
             style=\"width:{width:.0}px\"></span></td>",
            escaped(&pair.protocols.join(", ")),
            bytes(pair.sent.bytes),
            bytes(pair.received.bytes),
        );
        let mut cell = |text: Option<String>| {
            let _ = write!(page, "<td>{}</td>", text.unwrap_or_else(absent));
        };
        if two {
            let between = &analyzed.between;
            let one = |ways: &Option<Ways<u64>>, forward| ways.as_ref()?.one(forward).map(|n| count(*n));
            let median = |forward| {
                let ways = between.one_way_delay_seconds.as_ref()?;
                ways.one(forward).map(|d| delay(d.summary.p50))
            };
            cell(one(&between.lost_packets, true));
            cell(one(&between.lost_packets, false));
            cell(median(true));
            cell(median(false));
        }
        cell(pair.rtt_seconds.as_ref().map(|rtt| delay(rtt.p50)));
        cell(pair.rtt_seconds.as_ref().map(|rtt| delay(rtt.p99)));
        cell(pair.retransmitted_segments.map(count));
        cell(pair.reordered_segments.map(count));
        cell(Some(count(pair.flows)));
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    for (most, what) in [(SECTIONS, "of their own"), (ROWS, "in this table")] {
        if answer.pairs.len() > most {
            let _ = writeln!(
                page,
                "<p>Only the {} pairs with most octets have a place {what}.</p>",
                count(most as u64)
            );
        }
    }
}

fn write_pair(
    page: &mut String,
    number: usize,
    analyzed: &AnalyzedPair,
    delays: &[(&str, &DelaySummary)],
    scale: Option<&Scale>,
) {
    let pair = &analyzed.pair;
    let _ = writeln!(
        page,
        "<h2 id=\"p{number}\">{} \u{2192} {} <small>{}</small></h2>",
        escaped(&pair.src.name),
        escaped(&pair.dst.name),
        escaped(&pair.protocols.join(", "))
    );
    page.push_str("<div class=\"facts\">");
    for (what, value) in facts(analyzed) {
        let _ = write!(page, "<div><b>{}</b><span>{what}</span></div>", escaped(&value));
    }
    page.push_str("</div>\n");
    let Some(scale) = scale.filter(|_| !delays.is_empty()) else { return };
    page.push_str(
        "<div class=\"wide\"><table><tr><th>delay</th><th>min</th><th>p50</th><th>p90</th><th>p99</th><th>max</th>\
         <th>count</th><th></th></tr>\n",
    );
    for (name, delays) in delays {
        let _ = write!(page, "<tr><td>{name}</td>");
        for value in [delays.min, delays.p50, delays.p90, delays.p99, delays.max] {
            let _ = write!(page, "<td>{}</td>", delay(value));
        }
        let _ = writeln!(page, "<td>{}</td><td>{}</td></tr>", count(delays.count), scale.plot(name, delays));
    }
    let _ =
        writeln!(page, "<tr><td></td><td colspan=\"6\"></td><td>{}</td></tr></table></div>", scale.axis());
}

/// What is known of a pair beside its delays: what it is, and how much.
fn facts(analyzed: &AnalyzedPair) -> Vec<(&'static str, String)> {
    let pair = &analyzed.pair;
    let mut facts = vec![
        ("there", format!("{}, {} packets", bytes(pair.sent.bytes), count(pair.sent.packets))),
        ("back", format!("{}, {} packets", bytes(pair.received.bytes), count(pair.received.packets))),
        ("flows", count(pair.flows)),
    ];
    let both = pair.sent_retransmitted_segments.zip(pair.received_retransmitted_segments);
    if let Some((there, back)) = both {
        facts.push(("sent again, there and back", format!("{} and {}", count(there), count(back))));
    }
    facts.extend(pair.reordered_segments.map(|late| ("late", count(late))));
    let between = &analyzed.between;
    let lost = |forward| {
        let lost = between.lost_packets.as_ref()?.one(forward)?;
        let LossRatio { value, low, high } = between.loss_ratio.as_ref()?.one(forward)?;
        let (value, low, high) = (percent(*value), percent(*low), percent(*high));
        Some(format!("{} ({value}; for 95 % between {low} and {high})", count(*lost)))
    };
    facts.extend(lost(true).map(|lost| ("lost there", lost)));
    facts.extend(lost(false).map(|lost| ("lost back", lost)));
    let ways = |ways: &Option<Ways<u64>>| {
        let ways = ways.as_ref()?;
        Some(format!(
            "{} and {}",
            ways.forward.map_or_else(absent, count),
            ways.reverse.map_or_else(absent, count)
        ))
    };
    facts.extend(
        ways(&between.reordered_packets).map(|late| ("overtaken between the points, there and back", late)),
    );
    facts.extend(ways(&between.duplicated_packets).map(|twice| ("doubled, there and back", twice)));
    facts.extend(between.error_bound().map(|bound| ("one-way delays are certain within", delay(bound))));
    let seen = |t: &conmon::analysis::Translation| {
        ("the second capture saw", format!("{} \u{2192} {}", t.src, t.dst))
    };
    facts.extend(analyzed.translated.iter().map(seen));
    if pair.role_guessed {
        facts.push(("who opened", "guessed".to_owned()));
    }
    facts
}

fn delays(analyzed: &AnalyzedPair) -> Vec<(&'static str, &DelaySummary)> {
    let pair = &analyzed.pair;
    let ways = analyzed.between.one_way_delay_seconds.as_ref();
    let one_way = |forward| ways.and_then(|ways| Some(&ways.one(forward)?.summary));
    [
        ("one way, there", one_way(true)),
        ("one way, back", one_way(false)),
        ("round trip to dst", pair.rtt_seconds.as_ref()),
        ("round trip to src", pair.near_rtt_seconds.as_ref()),
        ("handshake, dst", pair.handshake_rtt_seconds.as_ref()),
        ("handshake, src", pair.near_handshake_rtt_seconds.as_ref()),
        ("DNS", analyzed.dns_rtt_seconds.as_ref()),
        ("ICMP echo", analyzed.echo_rtt_seconds.as_ref()),
        ("spin bit", analyzed.spin_rtt_seconds.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, delays)| Some((name, delays?)))
    .collect()
}

fn absent() -> String {
    ABSENT.to_owned()
}

fn escaped(text: &str) -> String {
    crate::format::harmless(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
