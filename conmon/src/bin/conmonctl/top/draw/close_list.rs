//! What a pair is made of: its flows, or at other levels than the containers' the pairs of containers.

use conmon::api::{Flow, FlowState, FlowsAnswer, Pair};
use jiff::Timestamp;
use ratatui::text::{Line, Span};

use super::super::app::App;
use super::super::close::Close;
use super::heading;
use super::theme::Theme;
use crate::format::{ABSENT, compact, compact_delay, count, fit, harmless, since};
use crate::judge;
use crate::order::byte_rate;
use crate::tone::Tone;
use crate::view;

/// From this width on flows have more columns.
const WIDE: usize = 100;

/// The list as it is shown.
pub struct List {
    /// Heading and rows.
    pub lines: Vec<Line<'static>>,
    /// The first row that is shown.
    pub scroll: usize,
    /// How many rows are shown.
    pub page: usize,
}

/// As many lines of it as there is room for.
pub fn lines(app: &App, close: &Close, theme: Theme, width: usize, room: usize) -> List {
    let page = room.saturating_sub(1);
    let answer = close.answer.as_ref();
    let now = answer.map_or(app.now(), |answer| answer.generated_at);
    let flows = answer.and_then(|answer| answer.flows.as_ref());
    let parts = answer.and_then(|answer| answer.parts.as_ref());
    let (title, rows) = match (flows, parts) {
        (Some(flows), _) => flow_list(flows, now, theme, width),
        (None, Some(parts)) => part_list(parts, theme, width),
        (None, None) => (Line::styled("…", theme.style(Tone::Faint)), Vec::new()),
    };
    let scroll = close.scroll.min(rows.len().saturating_sub(page));
    let mut lines = vec![title];
    lines.extend(rows.into_iter().skip(scroll).take(page));
    lines.truncate(room);
    List { lines, scroll, page: page.max(1) }
}

fn flow_list(
    answer: &FlowsAnswer,
    now: Timestamp,
    theme: Theme,
    width: usize,
) -> (Line<'static>, Vec<Line<'static>>) {
    let wide = width >= WIDE;
    let fixed = if wide { 8 + 8 + 7 + 6 + 6 + 2 + 17 } else { 7 + 7 + 5 + 2 + 7 };
    let ends = width.saturating_sub(fixed).clamp(10, 80);
    let row = |name: &str, cells: [&str; 6]| {
        let [sent, received, resent, age, seen, state] = cells;
        let name = fit(name, ends).into_owned();
        if wide {
            format!("{name:<ends$}{sent:>8}{received:>8}{resent:>7}{age:>6}{seen:>6}  {state}")
        } else {
            format!("{name:<ends$}{sent:>7}{received:>7}{seen:>5}  {state}")
        }
    };
    let title = match answer.flows.len() as u64 {
        shown if shown < answer.matched => format!("FLOWS ({} largest of {})", shown, count(answer.matched)),
        shown => format!("FLOWS ({shown})"),
    };
    let title = heading(theme, &row(&title, ["SENT", "RECV", "RETR", "AGE", "SEEN", "STATE"]), width);
    let line = |flow: &Flow| {
        let ends = format!(
            "{} {} → {}",
            harmless(&flow.protocol),
            view::address(flow.src_address, flow.src_port),
            view::address(flow.dst_address, flow.dst_port)
        );
        let state = match (flow.state, flow.end_reason) {
            (FlowState::Active, _) => "active".to_owned(),
            (FlowState::Ended, Some(reason)) if wide => reason.as_str().replace('_', " "),
            (FlowState::Ended, _) => "ended".to_owned(),
        };
        let resent = flow.retransmitted_segments.map_or_else(|| ABSENT.to_owned(), |n| compact(n as f64));
        let text = row(
            &ends,
            [
                &compact(flow.sent.bytes as f64),
                &compact(flow.received.bytes as f64),
                &resent,
                &since(flow.first_seen, now),
                &since(flow.last_seen, now),
                &state,
            ],
        );
        let tone = if flow.state == FlowState::Ended { Tone::Faint } else { Tone::Plain };
        Line::styled(text, theme.style(tone))
    };
    (title, answer.flows.iter().map(line).collect())
}

fn part_list(parts: &[Pair], theme: Theme, width: usize) -> (Line<'static>, Vec<Line<'static>>) {
    let mut parts: Vec<&Pair> = parts.iter().collect();
    parts.sort_by(|a, b| byte_rate(b).unwrap_or(0.0).total_cmp(&byte_rate(a).unwrap_or(0.0)));
    let ends = width.saturating_sub(7 + 7 + 8 + 8 + 7).clamp(10, 80);
    let row = |name: &str, cells: [&str; 4]| {
        let [out, back, p50, p99] = cells;
        format!("{:<ends$}{out:>7}{back:>7}{p50:>8}{p99:>8}", fit(name, ends))
    };
    let title = row(&format!("PAIRS OF CONTAINERS ({})", parts.len()), ["OUT/s", "IN/s", "RTT50", "RTT99"]);
    let title = heading(theme, &format!("{title}{:>7}", "RETR"), width);
    let line = |pair: &Pair| {
        let ends = format!("{} → {}", view::endpoint(&pair.src), view::endpoint(&pair.dst));
        let rate = |rate: Option<f64>| rate.map_or_else(|| ABSENT.to_owned(), compact);
        let rtt = |pick: fn(&conmon::api::DelaySummary) -> f64| {
            pair.rtt_seconds.as_ref().map_or_else(|| ABSENT.to_owned(), |rtt| compact_delay(pick(rtt)))
        };
        let cells = [
            &*rate(pair.sent_bytes_per_second),
            &rate(pair.received_bytes_per_second),
            &rtt(|rtt| rtt.p50),
            &rtt(|rtt| rtt.p99),
        ];
        let resent = pair.retransmitted_segments;
        let tone = judge::resent(resent.unwrap_or(0), judge::segments(pair));
        Line::from(vec![
            Span::raw(row(&harmless(&ends), cells)),
            theme.span(tone, format!("{:>7}", rate(resent.map(|number| number as f64)))),
        ])
    };
    (title, parts.into_iter().map(line).collect())
}
