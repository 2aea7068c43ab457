//! `top`'s screen: a head with totals and our own cost, the table or one pair, and a foot with the keys. Made for 80 by
//! 24; more width shows more columns and longer names, less shows less.

use conmon::api::{DelaySummary, Endpoint, HookCost, Level, ObservedAt, Pair};
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState};
use unicode_width::UnicodeWidthStr;

use super::app::{App, Screen};
use super::row::{Sort, total_bytes};
use crate::format::{
    ABSENT, age, byte_rate, bytes, compact, compact_delay, count, counted, delay, fit, harmless, packet_rate,
    percent, since, time,
};
use crate::view;

/// A pair that has been silent for so long is drawn faintly.
const SILENT_SECONDS: f64 = 10.0;

/// Styles by meaning. Without colours the attributes have to do.
#[derive(Clone, Copy)]
struct Theme {
    color: bool,
}

impl Theme {
    fn paint(self, color: Color, without: Modifier) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new().add_modifier(without) }
    }

    fn bad(self) -> Style {
        self.paint(Color::Red, Modifier::BOLD).add_modifier(Modifier::BOLD)
    }

    fn warning(self) -> Style {
        self.paint(Color::Yellow, Modifier::BOLD)
    }

    fn key(self) -> Style {
        self.paint(Color::Cyan, Modifier::BOLD)
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
}

/// Draws everything. Tells the state how many rows fit, for paging.
pub fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let theme = Theme { color: app.color };
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    app.page = usize::from(body.height.saturating_sub(1)).max(1);
    frame.render_widget(Paragraph::new(head_lines(app, theme, head.width.into())), head);
    match app.screen {
        Screen::Detail(_) => detail(app, theme, frame, body),
        Screen::Table | Screen::Help => table(app, theme, frame, body),
    }
    frame.render_widget(foot_line(app, theme), foot);
    if app.screen == Screen::Help {
        help(theme, frame);
    }
}

/// Where, how much in all, our own cost, and what is chosen or wrong.
fn head_lines(app: &App, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut place = vec![Span::styled("conmon top", theme.strong())];
    if let Some(status) = &app.status {
        place.push(Span::raw(format!("  {}", harmless(&status.host))));
        if status.instance != conmon::instance::DEFAULT_INSTANCE {
            place.push(Span::raw(format!(" ({})", harmless(&status.instance))));
        }
    }
    if let Some(answer) = &app.answer {
        let pairs = || answer.pairs.iter();
        let octets: f64 = pairs().filter_map(super::row::byte_rate).sum();
        let packets: f64 = pairs().filter_map(view::packet_rate).sum();
        let active: u64 = pairs().map(|pair| pair.active_flows).sum();
        place.push(Span::raw(format!(
            "   {}  {}   {}  {}",
            counted(answer.pairs.len() as u64, "pair", "pairs"),
            counted(active, "active flow", "active flows"),
            byte_rate(octets),
            packet_rate(packets),
        )));
    }
    let mut lines = vec![Line::from(place), cost_line(app, theme)];

    let mut chosen = Vec::new();
    if app.paused {
        chosen.push(Span::styled(format!("PAUSED at {}  ", clock(app.now())), theme.warning()));
    }
    chosen.push(Span::raw(format!(
        "by {}, sorted by {}{}",
        app.level.as_str(),
        app.sort.label(),
        if app.reverse { ", reversed" } else { "" }
    )));
    if app.hidden() > 0 {
        chosen.push(Span::styled(format!("  +{} multicast (a)", app.hidden()), theme.faint()));
    }
    let rows = app.rows().len();
    if rows > app.page && app.screen == Screen::Table {
        chosen.push(Span::raw(format!("  row {} of {rows}", app.selected + 1)));
    }
    if app.editing || !app.filter.is_empty() {
        let cursor = if app.editing { "▏" } else { "" };
        chosen.push(Span::styled(format!("  /{}{cursor}", app.filter), theme.key()));
    }
    let problem = app
        .failure
        .clone()
        .map(|reason| (format!("NO ANSWER since {}: {reason}", clock(app.now())), theme.bad()));
    let problem = problem.or_else(|| {
        let first = app.status.as_ref()?.problems.first()?;
        Some((format!("problem: {first}"), theme.warning()))
    });
    lines.push(match problem.filter(|_| !app.editing) {
        Some((text, style)) => Line::styled(cut(&harmless(&text), width), style),
        None => Line::from(chosen),
    });
    lines
}

fn cost_line(app: &App, theme: Theme) -> Line<'static> {
    let Some(status) = &app.status else { return Line::styled("own cost  …", theme.faint()) };
    let cost = &status.cost;
    let mut parts = Vec::new();
    if let Some(ns) = ns_per_packet(&cost.hooks) {
        parts.push(format!("{ns:.0} ns/packet"));
    }
    if let Some(ratio) = cost.cpu_ratio {
        parts.push(format!("CPU {}", percent(ratio)));
    }
    if let Some(memory) = cost.memory_bytes {
        parts.push(format!("memory {}", bytes(memory)));
    }
    if let Some(memory) = cost.kernel_memory_bytes {
        parts.push(format!("kernel {}", bytes(memory)));
    }
    parts.push(format!("pool {}/{}", status.pool.ready, status.pool.wanted));
    Line::styled(format!("own cost  {}", parts.join("  ")), theme.faint())
}

/// The mean over all hooks, weighted by their packets.
fn ns_per_packet(hooks: &[HookCost]) -> Option<f64> {
    let (mut runs, mut ns) = (0.0, 0.0);
    for hook in hooks {
        if let Some(each) = hook.ns_per_run {
            runs += hook.runs as f64;
            ns += hook.runs as f64 * each;
        }
    }
    (runs > 0.0).then(|| ns / runs)
}

/// One column besides the two names.
struct Column {
    heading: &'static str,
    width: u16,
    sort: Option<Sort>,
    text: fn(&Pair, Timestamp) -> String,
    left: bool,
}

const fn number(
    heading: &'static str,
    width: u16,
    sort: Option<Sort>,
    text: fn(&Pair, Timestamp) -> String,
) -> Column {
    Column { heading, width, sort, text, left: false }
}

const fn words(heading: &'static str, width: u16, text: fn(&Pair, Timestamp) -> String) -> Column {
    Column { heading, width, sort: None, text, left: true }
}

/// In every width, in this order.
const COLUMNS: [Column; 8] = [
    words("PROTO", 6, |pair, _| protocols(pair)),
    number("OUT/s", 5, Some(Sort::Rate), |pair, _| or_absent(pair.sent_bytes_per_second, compact)),
    number("IN/s", 5, Some(Sort::Rate), |pair, _| or_absent(pair.received_bytes_per_second, compact)),
    number("PKT/s", 5, Some(Sort::Packets), |pair, _| or_absent(view::packet_rate(pair), compact)),
    number("RTT50", 6, Some(Sort::RttP50), |pair, _| rtt(pair, |rtt| rtt.p50)),
    number("RTT99", 6, Some(Sort::RttP99), |pair, _| rtt(pair, |rtt| rtt.p99)),
    number("RETR", 5, Some(Sort::Retransmissions), |pair, _| {
        or_absent(pair.retransmitted_segments.map(|number| number as f64), compact)
    }),
    number("SEEN", 4, Some(Sort::Seen), |pair, now| since(pair.last_seen, now)),
];

/// Where there is room, after the others.
const MORE_COLUMNS: [Column; 5] = [
    number("BYTES", 6, Some(Sort::Bytes), |pair, _| compact(total_bytes(pair) as f64)),
    number("NEAR50", 6, None, |pair, _| {
        or_absent(pair.near_rtt_seconds.as_ref(), |near| compact_delay(near.p50))
    }),
    number("FLOWS", 6, None, |pair, _| compact(pair.flows as f64)),
    number("ACTIVE", 6, None, |pair, _| compact(pair.active_flows as f64)),
    words("TENANT", 14, |pair, _| view::tenants(&pair.src, &pair.dst)),
];

/// From this width on there is room for more columns.
const WIDE: u16 = 130;

/// Dropped in this order where the width is short: a number is shown whole or not at all.
const DROPPED: [&str; 8] = ["SEEN", "RETR", "PROTO", "PKT/s", "RTT99", "RTT50", "OUT/s", "IN/s"];

/// The least a name is shown in.
const NAME_WIDTH: u16 = 9;

fn columns(width: u16) -> Vec<&'static Column> {
    let mut columns: Vec<&Column> =
        COLUMNS.iter().chain(MORE_COLUMNS.iter().filter(|_| width >= WIDE)).collect();
    for heading in DROPPED {
        if width_of(&columns) + 2 * NAME_WIDTH <= width {
            break;
        }
        columns.retain(|column| column.heading != heading);
    }
    columns
}

/// What the columns take with the gaps before them, and the gap between the names.
fn width_of(columns: &[&Column]) -> u16 {
    columns.iter().map(|column| column.width + 1).sum::<u16>() + 1
}

fn table(app: &mut App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let now = app.now();
    let columns = columns(area.width);
    let taken = width_of(&columns);
    let (src_width, dst_width) = name_widths(app, area.width.saturating_sub(taken).into());

    let heading = |text: &'static str, sorted: bool| {
        let style = theme.strong();
        Span::styled(
            text,
            if sorted {
                style.add_modifier(Modifier::REVERSED)
            } else {
                style.add_modifier(Modifier::UNDERLINED)
            },
        )
    };
    let by_name = app.sort == Sort::Name;
    let mut header = vec![Cell::from(heading("SRC", by_name)), Cell::from(heading("DST", by_name))];
    header.extend(columns.iter().map(|column| {
        let text = Line::from(heading(column.heading, column.sort == Some(app.sort)));
        Cell::from(if column.left { text } else { text.right_aligned() })
    }));

    // Only what is on the screen is made into cells.
    let last = app.rows().len();
    app.offset = app.offset.min(app.selected).max((app.selected + 1).saturating_sub(app.page));
    app.offset = app.offset.min(last.saturating_sub(app.page));
    let rows: Vec<Row<'_>> = app
        .rows()
        .skip(app.offset)
        .take(app.page)
        .map(|pair| {
            let mut cells = vec![
                Cell::from(fit(&harmless(&view::endpoint(&pair.src)), src_width).into_owned()),
                Cell::from(fit(&harmless(&view::endpoint(&pair.dst)), dst_width).into_owned()),
            ];
            cells.extend(columns.iter().map(|column| {
                let text = (column.text)(pair, now);
                let text = Line::from(fit(&harmless(&text), column.width.into()).into_owned());
                let lost =
                    column.heading == "RETR" && pair.retransmitted_segments.is_some_and(|number| number > 0);
                let cell = Cell::from(if column.left { text } else { text.right_aligned() });
                if lost { cell.style(theme.warning()) } else { cell }
            }));
            let silent = now.duration_since(pair.last_seen).as_secs_f64() >= SILENT_SECONDS;
            Row::new(cells).style(if silent { theme.faint() } else { Style::new() })
        })
        .collect();
    let shown = rows.len();

    let widths = [src_width, dst_width]
        .into_iter()
        .map(|width| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)))
        .chain(columns.iter().map(|column| Constraint::Length(column.width)));
    let widget = Table::new(rows, widths)
        .header(Row::new(header))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let cursor = (shown > 0).then(|| app.selected - app.offset);
    frame.render_stateful_widget(widget, area, &mut TableState::new().with_selected(cursor));

    if shown == 0 {
        let below = Rect { y: area.y + area.height.min(2), height: area.height.saturating_sub(2), ..area };
        frame.render_widget(Paragraph::new(empty_text(app)), below);
    }
}

fn empty_text(app: &App) -> &'static str {
    if !app.filter.is_empty() {
        "No pair contains that text. Esc clears the filter."
    } else if app.hidden() > 0 {
        "Only multicast and link-local traffic so far; `a` shows it."
    } else if app.answer.is_some() {
        "No pairs yet: no watched container has sent a packet.\n`conmonctl containers` tells which are watched, `conmonctl doctor` what is wrong."
    } else {
        "Waiting for conmond's answer."
    }
}

/// Shares the room between the two names by what each needs; both keep half if both need more.
fn name_widths(app: &App, room: usize) -> (usize, usize) {
    let widest = |end: fn(&Pair) -> &Endpoint| {
        app.rows().map(|pair| view::endpoint(end(pair)).width()).max().unwrap_or(0).max(8)
    };
    let (src, dst) = (widest(|pair| &pair.src), widest(|pair| &pair.dst));
    let half = room / 2;
    if src + dst <= room {
        // Air between the names, not at the right edge.
        let src = src.max((half).min(src + 4)).min(room - dst);
        (src, room - src)
    } else if src <= half {
        (src, room - src)
    } else if dst <= room - half {
        (room - dst, dst)
    } else {
        (half, room - half)
    }
}

/// `tcp`, or the first and how many more.
fn protocols(pair: &Pair) -> String {
    match pair.protocols.as_slice() {
        [] => ABSENT.to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{}+{}", first.chars().take(4).collect::<String>(), rest.len()),
    }
}

fn rtt(pair: &Pair, pick: fn(&DelaySummary) -> f64) -> String {
    or_absent(pair.rtt_seconds.as_ref(), |rtt| compact_delay(pick(rtt)))
}

fn or_absent<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| ABSENT.to_owned(), text)
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

fn clock(time: Timestamp) -> String {
    time.strftime("%H:%M:%S UTC").to_string()
}

fn foot_line(app: &App, theme: Theme) -> Line<'static> {
    let keys: &[(&str, &str)] = match app.screen {
        _ if app.editing => &[("Enter", "keep"), ("Esc", "clear"), ("Ctrl-U", "empty")],
        Screen::Help => &[("any key", "back")],
        Screen::Detail(_) => &[("Esc", "back"), ("p", "pause"), ("q", "quit")],
        Screen::Table => &[
            ("q", "quit"),
            ("↑↓", "move"),
            ("Enter", "look"),
            ("/", "filter"),
            ("s", "sort"),
            ("l", "level"),
            ("p", "pause"),
            ("?", "help"),
        ],
    };
    let mut spans = Vec::new();
    for (key, what) in keys {
        spans.push(Span::styled(*key, theme.key()));
        spans.push(Span::raw(format!(" {what}  ")));
    }
    Line::from(spans)
}

fn help(theme: Theme, frame: &mut Frame<'_>) {
    const KEYS: [(&str, &str); 12] = [
        ("↑ ↓  j k", "move; PgUp PgDn, Home End, g G"),
        ("Enter  →", "look at one pair closely"),
        ("/", "filter by name, tenant, address, protocol"),
        ("Esc", "clear the filter; leave a close look"),
        ("s  S", "next, previous order"),
        ("r", "reverse the order"),
        ("l", "group by container, service, tenant, host"),
        ("a", "show or hide multicast and link-local"),
        ("p  Space", "pause: keep the numbers standing"),
        ("q  Ctrl-C", "quit"),
        ("RTT50 99", "round-trip delay, median and 99th percentile"),
        ("RETR", "TCP segments sent again"),
    ];
    let lines: Vec<Line<'_>> = KEYS
        .into_iter()
        .map(|(key, what)| {
            Line::from(vec![Span::styled(format!(" {key:<10} "), theme.key()), Span::raw(what)])
        })
        .collect();
    let area = frame.area();
    let (width, height) = (60.min(area.width), (KEYS.len() as u16 + 2).min(area.height));
    let area = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(Text::from(lines)).block(Block::bordered().title(" Keys ")), area);
}

fn detail(app: &App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let Some(pair) = app.detail() else {
        frame.render_widget(
            Paragraph::new("\nThis pair is no longer there: nothing was heard of it for long."),
            area,
        );
        return;
    };
    let rates = app.rates(pair);
    let roomy = area.height > 22;
    let facts = fact_lines(pair, app.now(), theme);
    let mut legs = leg_lines(pair, theme);
    if roomy {
        legs.push(Line::default());
    }
    let heights = [facts.len() as u16, legs.len() as u16];
    let [top, middle, graph, bottom] = Layout::vertical([
        Constraint::Length(heights[0]),
        Constraint::Length(heights[1]),
        Constraint::Length(if roomy { 4 } else { 2 }),
        Constraint::Min(0),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(facts), top);
    frame.render_widget(Paragraph::new(legs), middle);
    rate_graph(&rates, theme, frame, graph);
    frame.render_widget(Paragraph::new(flow_lines(app, theme, bottom)), bottom);
}

fn fact_lines(pair: &Pair, now: Timestamp, theme: Theme) -> Vec<Line<'static>> {
    let end = |label: &'static str, end: &Endpoint| {
        let mut text = format!("{} {}", end.kind.as_str(), harmless(&end.name));
        for (word, value) in [("tenant", &end.tenant), ("service", &end.service)] {
            if let Some(value) = value {
                text.push_str(&format!(", {word} {}", harmless(value)));
            }
        }
        let addresses: Vec<String> = end.addresses.iter().take(3).map(ToString::to_string).collect();
        if !addresses.is_empty() {
            let more = end.addresses.len() - addresses.len();
            text.push_str(&format!(", {}", addresses.join(" ")));
            if more > 0 {
                text.push_str(&format!(" +{more}"));
            }
        }
        Line::from(vec![Span::styled(format!("{label:<9}"), theme.strong()), Span::raw(text)])
    };
    let fact = |label: &'static str, text: String| {
        Line::from(vec![Span::styled(format!("{label:<9}"), theme.strong()), Span::raw(text)])
    };
    let direction = |count_of: &conmon::api::Count, octets: Option<f64>, packets: Option<f64>| {
        format!(
            "{}, {} packets, {} segments   now {}  {}",
            bytes(count_of.bytes),
            count(count_of.packets),
            count(count_of.segments),
            or_absent(octets, byte_rate),
            or_absent(packets, packet_rate),
        )
    };
    let opened = if pair.role_guessed { " (a guess: the beginning was not seen)" } else { "" };
    let at = match pair.observed_at {
        ObservedAt::Src => "SRC",
        ObservedAt::Dst => "DST",
    };
    vec![
        end("SRC", &pair.src),
        end("DST", &pair.dst),
        fact("opened", format!("by SRC{opened}; {}; counted at {at}'s port", pair.protocols.join(", "))),
        fact("sent", direction(&pair.sent, pair.sent_bytes_per_second, pair.sent_packets_per_second)),
        fact(
            "received",
            direction(&pair.received, pair.received_bytes_per_second, pair.received_packets_per_second),
        ),
        fact(
            "TCP",
            format!(
                "retransmitted {}, reordered {} segments",
                or_absent(pair.retransmitted_segments, count),
                or_absent(pair.reordered_segments, count)
            ),
        ),
        fact(
            "seen",
            format!(
                "first {} ({}), last {} ago; {} flows, {} active",
                time(pair.first_seen),
                since(pair.first_seen, now),
                age(now.duration_since(pair.last_seen).as_secs_f64()).replace("now", "<1s"),
                count(pair.flows),
                count(pair.active_flows),
            ),
        ),
        Line::default(),
    ]
}

/// The round-trip delays, one line for each leg that was measured.
fn leg_lines(pair: &Pair, theme: Theme) -> Vec<Line<'static>> {
    let here = match pair.observed_at {
        ObservedAt::Src => "SRC",
        ObservedAt::Dst => "DST",
    };
    let legs = [
        (format!("{here} port ⇄ DST"), &pair.rtt_seconds),
        (format!("{here} port ⇄ SRC"), &pair.near_rtt_seconds),
        ("handshake".to_owned(), &pair.handshake_rtt_seconds),
        ("near handshake".to_owned(), &pair.near_handshake_rtt_seconds),
    ];
    let mut lines = vec![Line::styled(
        format!(
            "{:<16}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "ROUND TRIP", "MIN", "P50", "P90", "P99", "MAX", "SAMPLES"
        ),
        theme.strong().add_modifier(Modifier::UNDERLINED),
    )];
    for (label, summary) in legs {
        if let Some(summary) = summary {
            let [min, p50, p90, p99, max] =
                [summary.min, summary.p50, summary.p90, summary.p99, summary.max].map(delay);
            lines.push(Line::raw(format!(
                "{label:<16}{min:>9}{p50:>9}{p90:>9}{p99:>9}{max:>9}{:>9}",
                count(summary.count)
            )));
        }
    }
    if lines.len() == 1 {
        lines.push(Line::styled("not measured: no TCP data was acknowledged", theme.faint()));
    } else if let Some(method) = [&pair.rtt_seconds, &pair.near_rtt_seconds].into_iter().flatten().next() {
        let bound =
            or_absent(method.relative_error_ratio, |ratio| format!(", percentiles ±{}", percent(ratio)));
        lines.push(Line::styled(format!("method {}{bound}", harmless(&method.method)), theme.faint()));
    }
    lines
}

fn rate_graph(rates: &[f64], theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let [title, graph] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let shown = &rates[rates.len().saturating_sub(graph.width.into())..];
    let highest = shown.iter().copied().fold(0.0, f64::max);
    let text = match shown.len() {
        0 => "byte rate: no reading yet".to_owned(),
        readings => format!("byte rate, last {readings} readings, up to {}", byte_rate(highest)),
    };
    frame.render_widget(Line::styled(text, theme.strong()), title);
    let values: Vec<u64> = shown.iter().map(|rate| rate.round() as u64).collect();
    frame.render_widget(Sparkline::default().data(&values).style(theme.key()), graph);
}

fn flow_lines(app: &App, theme: Theme, area: Rect) -> Vec<Line<'static>> {
    let title = |text: String| Line::styled(text, theme.strong().add_modifier(Modifier::UNDERLINED));
    if app.level != Level::Container {
        return vec![Line::styled("flows: at container level (l)", theme.faint())];
    }
    let Some(answer) = &app.flows else { return vec![Line::styled("flows: …", theme.faint())] };
    let mut lines = vec![title(format!(
        "{:<42}{:>9}{:>10}  {}",
        format!("FLOWS ({})", count(answer.matched)),
        "SENT",
        "RECEIVED",
        "STATE"
    ))];
    let room = usize::from(area.height).saturating_sub(1);
    for flow in answer.flows.iter().take(room) {
        let ends = format!(
            "{} {} → {}",
            harmless(&flow.protocol),
            view::address(flow.src_address, flow.src_port),
            view::address(flow.dst_address, flow.dst_port)
        );
        lines.push(Line::raw(format!(
            "{:<42}{:>9}{:>10}  {}",
            fit(&ends, 41),
            bytes(flow.sent.bytes),
            bytes(flow.received.bytes),
            flow.end_reason.map_or_else(|| view::state(flow), |reason| reason.as_str().replace('_', " "))
        )));
    }
    lines
}
