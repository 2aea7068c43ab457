//! An analysis as one page that opens without a network: a table of pairs, and for each the delays that were found as
//! ranges on one logarithmic scale. No script, no font, nothing from elsewhere.

use std::fmt::Write as _;

use conmon::analysis::{AnalysisAnswer, AnalyzedPair, OneWayDelay};
use conmon::api::DelaySummary;

use crate::format::{bytes, count, delay, percent};

/// The plots' width, in their own units.
const WIDTH: f64 = 360.0;
/// And the height of one range.
const ROW: f64 = 16.0;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --line: #d5d9e0; --paper: #fff; --a: #2864c7; --b: #b4540a }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #99a; --line: #363c46; --paper: #15181d; --a: #79a8f5; --b: #e59a54 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 72rem; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 500 } th:first-child, td:first-child { text-align: left }
p, li { color: var(--soft) } svg { vertical-align: middle; width: 22rem; max-width: 100% }
.wide { overflow-x: auto } .scale { fill: var(--soft); font-size: 10px } .rule { stroke: var(--line) }
.whole { stroke: var(--soft) } .bulk { fill: var(--a) } .middle { stroke: var(--b); stroke-width: 2 }
";

/// A range of delays, seconds.
struct Range {
    name: &'static str,
    min: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
    count: u64,
}

/// The page.
pub fn html(answer: &AnalysisAnswer, notes: &[String]) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    let _ = writeln!(page, "<title>Captures analysed</title><style>{STYLE}</style></head><body>");
    page.push_str("<h1>Captures analysed</h1>\n<ul>\n");
    for note in notes {
        let _ = writeln!(page, "<li>{}</li>", escaped(note));
    }
    page.push_str("</ul>\n");
    let ranges: Vec<Vec<Range>> = answer.pairs.iter().map(ranges).collect();
    let scale = Scale::of(ranges.iter().flatten());
    if scale.is_some() {
        page.push_str(
            "<p>Delays are on one logarithmic scale: the line is from the smallest to the largest, the bar from the \
             median to the 99th percentile, the mark is the 90th.</p>\n",
        );
    }
    for (pair, ranges) in answer.pairs.iter().zip(&ranges) {
        write_pair(&mut page, pair, ranges, scale.as_ref());
    }
    page.push_str("</body></html>\n");
    page
}

fn write_pair(page: &mut String, analyzed: &AnalyzedPair, ranges: &[Range], scale: Option<&Scale>) {
    let pair = &analyzed.pair;
    let _ = writeln!(page, "<h2>{} → {}</h2>", escaped(&pair.src.name), escaped(&pair.dst.name));
    let mut facts = vec![
        pair.protocols.join(", "),
        format!("{} there, {} back", bytes(pair.sent.bytes), bytes(pair.received.bytes)),
        format!("{} and {} packets", count(pair.sent.packets), count(pair.received.packets)),
    ];
    if let Some(resent) = pair.retransmitted_segments {
        facts.push(format!("{} sent again", count(resent)));
    }
    if let Some(late) = pair.reordered_segments {
        facts.push(format!("{} late", count(late)));
    }
    let lost = analyzed.between.lost_packets.as_ref();
    let ratio = analyzed.between.loss_ratio.as_ref();
    for (way, lost, ratio) in [
        ("there", lost.and_then(|l| l.forward), ratio.and_then(|r| r.forward)),
        ("back", lost.and_then(|l| l.reverse), ratio.and_then(|r| r.reverse)),
    ] {
        if let (Some(lost), Some(ratio)) = (lost, ratio) {
            facts.push(format!(
                "{} lost {way} ({}, for 95 % between {} and {})",
                count(lost),
                percent(ratio.value),
                percent(ratio.low),
                percent(ratio.high)
            ));
        }
    }
    if let Some(bound) = analyzed.between.error_bound() {
        facts.push(format!("one-way delays certain within {}", delay(bound)));
    }
    let _ = writeln!(page, "<p>{}</p>", escaped(&facts.join("; ")));
    let Some(scale) = scale.filter(|_| !ranges.is_empty()) else { return };
    page.push_str(
        "<div class=\"wide\"><table><tr><th>delay</th><th>min</th><th>p50</th><th>p90</th><th>p99</th><th>max</th>\
         <th>count</th><th></th></tr>\n",
    );
    for range in ranges {
        let _ = write!(page, "<tr><td>{}</td>", range.name);
        for value in [range.min, range.p50, range.p90, range.p99, range.max] {
            let _ = write!(page, "<td>{}</td>", delay(value));
        }
        let _ = writeln!(page, "<td>{}</td><td>{}</td></tr>", count(range.count), scale.plot(range));
    }
    let _ =
        writeln!(page, "<tr><td></td><td colspan=\"6\"></td><td>{}</td></tr></table></div>", scale.axis());
}

fn ranges(analyzed: &AnalyzedPair) -> Vec<Range> {
    let pair = &analyzed.pair;
    let round = |name, summary: &Option<DelaySummary>| {
        let s = summary.as_ref()?;
        Some(Range { name, min: s.min, p50: s.p50, p90: s.p90, p99: s.p99, max: s.max, count: s.count })
    };
    let one_way = |name, delays: Option<&OneWayDelay>| {
        let d = delays?;
        Some(Range { name, min: d.min, p50: d.p50, p90: d.p90, p99: d.p99, max: d.max, count: d.count })
    };
    let ways = analyzed.between.one_way_delay_seconds.as_ref();
    [
        one_way("one way, there", ways.and_then(|w| w.forward.as_ref())),
        one_way("one way, back", ways.and_then(|w| w.reverse.as_ref())),
        round("round trip to dst", &pair.rtt_seconds),
        round("round trip to src", &pair.near_rtt_seconds),
        round("handshake, dst", &pair.handshake_rtt_seconds),
        round("handshake, src", &pair.near_handshake_rtt_seconds),
        round("DNS", &analyzed.dns_rtt_seconds),
        round("ICMP echo", &analyzed.echo_rtt_seconds),
        round("spin bit", &analyzed.spin_rtt_seconds),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A logarithmic scale over whole decades.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of<'a>(ranges: impl Iterator<Item = &'a Range>) -> Option<Self> {
        let mut ends: Option<(f64, f64)> = None;
        for range in ranges {
            let (low, high) = ends.unwrap_or((f64::INFINITY, 0.0));
            ends = Some((low.min(range.min), high.max(range.max)));
        }
        let (low, high) = ends?;
        // From a nanosecond to a day: what is outside stands at the end.
        let decade = |seconds: f64| seconds.clamp(1e-9, 86_400.0).log10();
        let (low, high) = (decade(low).floor() as i32, decade(high).ceil() as i32);
        Some(Self { low, high: high.max(low + 1) })
    }

    fn x(&self, seconds: f64) -> f64 {
        let at = (seconds.max(1e-12).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        at.clamp(0.0, 1.0) * WIDTH
    }

    fn plot(&self, range: &Range) -> String {
        let [min, p50, p90, p99, max] =
            [range.min, range.p50, range.p90, range.p99, range.max].map(|v| self.x(v));
        let middle = ROW / 2.0;
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {ROW}\" role=\"img\" aria-label=\"{}\">{}\
             <line class=\"whole\" x1=\"{min:.1}\" x2=\"{max:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
             <rect class=\"bulk\" x=\"{p50:.1}\" width=\"{:.1}\" y=\"4\" height=\"8\"/>\
             <line class=\"middle\" x1=\"{p90:.1}\" x2=\"{p90:.1}\" y1=\"2\" y2=\"14\"/></svg>",
            range.name,
            self.rules(ROW),
            (p99 - p50).max(1.5),
        )
    }

    fn rules(&self, height: f64) -> String {
        (self.low..=self.high).fold(String::new(), |mut rules, decade| {
            let x = self.x(10f64.powi(decade));
            let _ =
                write!(rules, "<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{height}\"/>");
            rules
        })
    }

    fn axis(&self) -> String {
        let mut axis = format!("<svg viewBox=\"0 0 {WIDTH} 14\" aria-hidden=\"true\">");
        for decade in self.low..=self.high {
            let seconds = 10f64.powi(decade);
            let anchor = match decade {
                d if d == self.low => "start",
                d if d == self.high => "end",
                _ => "middle",
            };
            let _ = write!(
                axis,
                "<text class=\"scale\" x=\"{:.1}\" y=\"11\" text-anchor=\"{anchor}\">{}</text>",
                self.x(seconds),
                delay(seconds)
            );
        }
        axis + "</svg>"
    }
}

fn escaped(text: &str) -> String {
    crate::format::harmless(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
