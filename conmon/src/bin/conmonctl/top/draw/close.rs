//! The close look: who and since when, how much each way, how fast by leg and method, the distributions, and the flows
//! or pairs that it is made of. Whatever height there is: facts first, then graphs, then the list.

use std::collections::VecDeque;

use conmon::api::{Count, DelaySummary, Endpoint, ObservedAt, Pair};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span, Text};
use unicode_width::UnicodeWidthStr;

use super::super::app::App;
use super::super::close::{Close, Sample};
use super::bars::{bars, sparkline};
use super::theme::Theme;
use super::{close_list, heading};
use crate::format::{
    ABSENT, byte_rate, bytes, count, counted, delay, fit, harmless, packet_rate, percent, share, since,
};
use crate::judge;
use crate::legs::{Leg, legs};
use crate::tone::{Tone, cut};

/// The labels' width.
const LABEL: usize = 9;
/// Lines that the list keeps, heading included, before there is a graph.
const LIST: usize = 4;
/// Rows of bars, at least and at most.
const BARS: [usize; 2] = [2, 8];
/// From this width on the two legs' distributions stand side by side.
const SIDE_BY_SIDE: usize = 64;
/// The least and most width of a distribution that says something.
const GRAPH: [usize; 2] = [20, 100];

/// Draws it. Tells the state how many lines the list has, for paging.
pub fn draw(app: &mut App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let (Some(pair), Some(close)) = (app.close_pair(), &app.close) else {
        let text = "This pair is no longer there: nothing was heard of it for long, or conmond began anew. Esc goes back.";
        frame.render_widget(Text::from(crate::look::wrap(text, width.max(1), 0)), area);
        return;
    };
    let samples = close.samples(pair);
    let mut lines = facts(app, close, pair, theme, width);
    lines.extend(delays(close, pair, &samples, theme, width));
    let left = height.saturating_sub(lines.len() + LIST);
    lines.extend(distributions(pair, &samples, theme, width, left));
    let left = height.saturating_sub(lines.len());
    let list = close_list::lines(app, close, theme, width, left);
    lines.extend(list.lines);
    frame.render_widget(Text::from(lines), area);
    app.page = list.page;
    if let Some(close) = &mut app.close {
        close.scroll = list.scroll;
    }
}

/// A labelled line. It may be cut at its end, and is seen to be.
fn fact(theme: Theme, label: &str, tone: Tone, text: &str, width: usize) -> Line<'static> {
    let (text, room) = (harmless(text), width.saturating_sub(LABEL));
    let text =
        if text.width() <= room { text.into_owned() } else { cut(&text, room.saturating_sub(1)) + "…" };
    Line::from(vec![theme.span(Tone::Strong, format!("{label:<LABEL$}")), theme.span(tone, text)])
}

fn facts(app: &App, close: &Close, pair: &Pair, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let readings = app.history.of(&close.key);
    let (lately, segments) = readings.map(|readings| readings.lately_resent()).unwrap_or_default();
    let none = VecDeque::new();
    let (sent, received) = readings.map_or((&none, &none), |readings| (&readings.sent, &readings.received));
    let resent_tone = judge::resent(lately, segments);
    vec![
        fact(theme, "SRC", Tone::Plain, &end(&pair.src, width.saturating_sub(LABEL)), width),
        fact(theme, "DST", Tone::Plain, &end(&pair.dst, width.saturating_sub(LABEL)), width),
        fact(theme, "opened", Tone::Plain, &opened(app, close, pair), width),
        fact(theme, "counted", Tone::Plain, &place(close, pair, width), width),
        traffic(
            theme,
            "sent",
            &pair.sent,
            (pair.sent_bytes_per_second, pair.sent_packets_per_second),
            sent,
            width,
        ),
        traffic(
            theme,
            "received",
            &pair.received,
            (pair.received_bytes_per_second, pair.received_packets_per_second),
            received,
            width,
        ),
        fact(theme, "resent", resent_tone, &resent(pair, lately), width),
    ]
}

/// `container shop-web-1, tenant shop, service web, 172.18.0.2`: as many addresses as fit, each whole.
fn end(end: &Endpoint, room: usize) -> String {
    let mut text = format!("{} {}", end.kind.as_str(), end.name);
    for (word, value) in [("tenant", &end.tenant), ("service", &end.service)] {
        if let Some(value) = value.as_ref().filter(|value| **value != end.name) {
            text.push_str(&format!(", {word} {value}"));
        }
    }
    for (at, address) in end.addresses.iter().enumerate() {
        let more = format!("{} {address}", if at == 0 { "," } else { "" });
        let rest = end.addresses.len() - at - 1;
        let room = if rest > 0 { room.saturating_sub(format!(" +{rest}").len()) } else { room };
        if at > 0 && text.width() + more.width() > room {
            text.push_str(&format!(" +{}", rest + 1));
            break;
        }
        text.push_str(&more);
    }
    text
}

fn opened(app: &App, close: &Close, pair: &Pair) -> String {
    let now = close.answer.as_ref().map_or(app.now(), |answer| answer.generated_at);
    let ago = |then| since(then, now).replace("now", "<1s");
    format!(
        "by SRC ({}); {}; {}, {} active; first {}, last {} ago",
        if pair.role_guessed { "guess" } else { "seen" },
        pair.protocols.join(", "),
        counted(pair.flows, "flow", "flows"),
        count(pair.active_flows),
        ago(pair.first_seen),
        ago(pair.last_seen),
    )
}

/// Where the packets were counted and who read the counts.
fn place(close: &Close, pair: &Pair, width: usize) -> String {
    let at = match pair.observed_at {
        ObservedAt::Src => "at SRC's port",
        ObservedAt::Dst => "at DST's port",
    };
    let Some(container) = close.answer.as_ref().and_then(|answer| answer.container.as_ref()) else {
        return at.to_owned();
    };
    let interfaces: Vec<&str> =
        container.networks.iter().filter_map(|network| network.interface.as_deref()).collect();
    let place = format!("{at} {}", interfaces.join(" "));
    match &container.monitor {
        Some(monitor) => {
            let room = width.saturating_sub(LABEL + place.trim_end().width() + ", read by ".len());
            format!("{}, read by {}", place.trim_end(), fit(monitor, room))
        }
        None => format!("{}, read by conmond itself", place.trim_end()),
    }
}

/// Rates, their trend in whatever room is left, and totals.
fn traffic(
    theme: Theme,
    label: &str,
    total: &Count,
    (octets, packets): (Option<f64>, Option<f64>),
    rates: &VecDeque<f32>,
    width: usize,
) -> Line<'static> {
    let now = format!(
        "{:>9} {:>11}",
        octets.map_or_else(|| ABSENT.to_owned(), byte_rate),
        packets.map_or_else(|| ABSENT.to_owned(), packet_rate)
    );
    let mut total_text = format!("{} in {} packets", bytes(total.bytes), count(total.packets));
    let more = format!(", {} segments", count(total.segments));
    let taken = LABEL + now.width() + 2;
    if width >= taken + total_text.width() + more.width() + 14 {
        total_text.push_str(&more);
    }
    let room = width.saturating_sub(taken + total_text.width() + 2).min(60);
    let mut spans = vec![theme.span(Tone::Strong, format!("{label:<LABEL$}")), Span::raw(now)];
    if room >= 4 {
        let rates: Vec<f32> = rates.iter().copied().collect();
        spans.push(theme.span(Tone::Accent, format!("  {}", sparkline(&rates, room))));
    }
    let used: usize = spans.iter().map(|span| span.content.width()).sum();
    if used + 2 + total_text.width() <= width {
        spans.push(Span::raw(format!("  {total_text}")));
    }
    Line::from(spans)
}

fn resent(pair: &Pair, lately: u64) -> String {
    let Some(retransmitted) = pair.retransmitted_segments else {
        return "- (only TCP tells)".to_owned();
    };
    let segments = judge::segments(pair);
    let mut text = format!("{} of {} segments", count(retransmitted), count(segments));
    if retransmitted > 0 {
        text.push_str(&format!(", {}", share(retransmitted, segments)));
        if let (Some(sent), Some(received)) =
            (pair.sent_retransmitted_segments, pair.received_retransmitted_segments)
        {
            text.push_str(&format!(" ({} by SRC, {} by DST)", count(sent), count(received)));
        }
        text.push_str(&match lately {
            0 => "; none lately".to_owned(),
            lately => format!("; {} lately", count(lately)),
        });
    }
    match pair.reordered_segments {
        Some(reordered) if reordered > 0 => format!("{text}; {} came late", count(reordered)),
        _ => text,
    }
}

/// What a leg is called, short.
fn leg_name(leg: &Leg<'_>, pair: &Pair) -> &'static str {
    let to_dst = std::ptr::eq(leg.to, &raw const pair.dst);
    match (leg.away, leg.handshake, to_dst) {
        (true, false, true) => "away ⇄ DST",
        (true, false, false) => "away ⇄ SRC",
        (false, false, true) => "near ⇄ DST",
        (false, false, false) => "near ⇄ SRC",
        (true, true, _) => "away, handshake",
        (false, true, _) => "near, handshake",
    }
}

/// The statistics that are shown of a leg, in seconds.
struct Statistics {
    values: [f64; 5],
    count: u64,
}

impl From<&DelaySummary> for Statistics {
    fn from(of: &DelaySummary) -> Self {
        Self { values: [of.min, of.p50, of.p90, of.p99, of.max], count: of.count }
    }
}

impl From<&Sample> for Statistics {
    fn from(of: &Sample) -> Self {
        let at = |q| of.histogram.quantile(q).unwrap_or(0) as f64 / 1e9;
        Self { values: [at(0.0), at(0.5), at(0.9), at(0.99), at(1.0)], count: of.histogram.count() }
    }
}

/// The round trips in numbers, one line for each leg that was measured, and how they were.
fn delays(
    close: &Close,
    pair: &Pair,
    samples: &[Option<Sample>; 4],
    theme: Theme,
    width: usize,
) -> Vec<Line<'static>> {
    let legs = legs(pair);
    let Some(first) = legs.iter().find_map(|leg| leg.summary) else {
        let why = if pair.protocols.iter().any(|protocol| protocol == "tcp") {
            "not measured: no TCP data was acknowledged"
        } else {
            "not measured: only TCP has acknowledgements that can be timed"
        };
        return vec![fact(theme, "delay", Tone::Faint, why, width)];
    };
    let span = if close.late {
        format!("RTT, last {:.0} s", close.late_seconds())
    } else {
        "RTT, all time".to_owned()
    };
    let error = first.relative_error_ratio.map_or_else(String::new, |ratio| format!("±{}", percent(ratio)));
    let title = format!(
        "{span:<16}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}  {error}",
        "MIN", "P50", "P90", "P99", "MAX", "COUNT"
    );
    let mut lines = vec![heading(theme, &title, width)];
    for (leg, sample) in legs.iter().zip(samples) {
        let Some(summary) = leg.summary else { continue };
        let statistics = match (close.late, sample) {
            (false, _) => Some(Statistics::from(summary)),
            (true, Some(sample)) => Some(Statistics::from(sample)),
            (true, None) => None,
        };
        let mut spans = vec![Span::raw(format!("{:<16}", leg_name(leg, pair)))];
        match statistics {
            None => spans.push(theme.span(Tone::Faint, format!("{:>9}  none in this time", ABSENT))),
            Some(of) => {
                spans.extend(
                    of.values
                        .into_iter()
                        .map(|seconds| theme.span(judge::delay(seconds), format!("{:>9}", delay(seconds)))),
                );
                spans.push(Span::raw(format!("{:>9}", count(of.count))));
            }
        }
        lines.push(whole_spans(spans, width));
    }
    lines.push(Line::styled(fit(&methods(&legs), width).into_owned(), theme.style(Tone::Faint)));
    lines
}

/// As many spans as fit whole: a number that is cut is another number.
fn whole_spans(spans: Vec<Span<'static>>, width: usize) -> Line<'static> {
    let mut used = 0;
    let fits = |span: &Span<'static>| {
        used += span.content.width();
        used <= width
    };
    Line::from(spans.into_iter().take_while(fits).collect::<Vec<_>>())
}

/// How the delays were measured, data and handshakes.
fn methods(legs: &[Leg<'_>; 4]) -> String {
    let of = |handshake: bool| {
        let found = legs.iter().filter(|leg| leg.handshake == handshake).find_map(|leg| leg.summary);
        found.map(|summary| harmless(&summary.method).into_owned())
    };
    match (of(false), of(true)) {
        (Some(data), Some(shake)) => format!("how: {data}; handshakes: {shake}"),
        (Some(one), None) | (None, Some(one)) => format!("how: {one}"),
        (None, None) => String::new(),
    }
}

/// The distributions of away and near: beside one another where there is room, else the first alone.
fn distributions(
    pair: &Pair,
    samples: &[Option<Sample>; 4],
    theme: Theme,
    width: usize,
    room: usize,
) -> Vec<Line<'static>> {
    let height = room.saturating_sub(2).min(BARS[1]);
    let data: Vec<(Leg<'_>, &Sample)> = legs(pair)
        .into_iter()
        .zip(samples)
        .take(2)
        .filter_map(|(leg, sample)| Some((leg, sample.as_ref()?)))
        .collect();
    if height < BARS[0] || data.is_empty() || width < GRAPH[0] {
        return Vec::new();
    }
    let shown = if width >= SIDE_BY_SIDE { data.len() } else { 1 };
    let each = ((width - 3 * (shown - 1)) / shown).min(GRAPH[1]);
    let mut lines: Vec<Vec<Span<'static>>> = vec![Vec::new(); height + 2];
    for (at, (leg, sample)) in data.into_iter().take(shown).enumerate() {
        let gap = if at > 0 { "   " } else { "" };
        let drawn = bars(&sample.histogram, each, height);
        let name = fit(leg_name(&leg, pair), each);
        let title = format!("{gap}{name}{:>room$}", drawn.span, room = each - name.width());
        lines[0].push(theme.span(Tone::Faint, title));
        for (line, row) in lines[1..].iter_mut().zip(&drawn.rows) {
            line.push(Span::raw(gap));
            line.extend(toned(theme, row, &drawn.seconds));
        }
        lines[height + 1].push(theme.span(Tone::Faint, format!("{gap}{}", drawn.axis)));
    }
    lines.into_iter().map(Line::from).collect()
}

/// Bars in the colour of the delay they stand for.
fn toned(theme: Theme, row: &[char], seconds: &[f64]) -> Vec<Span<'static>> {
    let tone = |at: usize| match judge::delay(seconds[at]) {
        Tone::Plain => Tone::Accent,
        slow => slow,
    };
    let mut spans: Vec<(Tone, String)> = Vec::new();
    for (at, c) in row.iter().enumerate() {
        match spans.last_mut().filter(|(last, _)| *last == tone(at)) {
            Some((_, text)) => text.push(*c),
            None => spans.push((tone(at), c.to_string())),
        }
    }
    spans.into_iter().map(|(tone, text)| theme.span(tone, text)).collect()
}
