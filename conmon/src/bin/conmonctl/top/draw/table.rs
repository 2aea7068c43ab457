//! The table of pairs. Only what is on the screen is made into cells.

use conmon::api::Pair;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span, Text};
use unicode_width::UnicodeWidthStr;

use super::super::app::App;
use super::super::rows::RowKey;
use super::columns::{Shares, Source, share};
use super::theme::Theme;
use crate::format::{fit, harmless};
use crate::order::Order;
use crate::tone::Tone;
use crate::view;

/// A pair that has been silent for so long is drawn faintly.
const SILENT_SECONDS: f64 = 10.0;

/// Draws it.
pub fn draw(app: &mut App, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let rows = app.rows().len();
    app.offset = app.offset.min(app.selected).max((app.selected + 1).saturating_sub(app.page));
    app.offset = app.offset.min(rows.saturating_sub(app.page));

    let shares = share(area.width.into(), app.widest(), app.sort);
    let mut lines = vec![header(app, theme, &shares)];
    for (at, pair) in app.rows().enumerate().skip(app.offset).take(app.page) {
        lines.push(row(app, theme, &shares, pair, at == app.selected, area.width.into()));
    }
    frame.render_widget(Text::from(lines), area);
    if rows == 0 {
        let below = Rect { y: area.y + area.height.min(2), height: area.height.saturating_sub(2), ..area };
        let text = crate::look::wrap(empty_text(app), area.width.max(1).into(), 0);
        frame.render_widget(Text::from(text), below);
    }
}

/// `▼` where the largest or last comes first, `▲` where the smallest or first does.
fn marker(app: &App) -> &'static str {
    if app.sort.is_words() == app.reverse { "▼" } else { "▲" }
}

fn header(app: &App, theme: Theme, shares: &Shares) -> Line<'static> {
    let style = |sorted: bool| {
        let modifier = if sorted { Modifier::REVERSED } else { Modifier::UNDERLINED };
        theme.style(Tone::Strong).add_modifier(modifier)
    };
    let mut spans = Vec::new();
    // Behind words, before numbers: the marker never takes a place that a column's width did not foresee.
    let mut heading = |text: &str, sorted: bool, left: bool, gap: usize, width: usize| {
        let mark = if sorted { marker(app) } else { "" };
        let text = if left { format!("{text}{mark}") } else { format!("{mark}{text}") };
        let text = fit(&text, width + if left { 0 } else { gap }).into_owned();
        let room = (gap + width).saturating_sub(text.width());
        let (before, after) = if left { (gap, room.saturating_sub(gap)) } else { (room, 0) };
        spans.push(Span::raw(" ".repeat(before)));
        spans.push(Span::styled(text, style(sorted)));
        spans.push(Span::raw(" ".repeat(after)));
    };
    heading("SRC", app.sort == Order::Src, true, 0, shares.names[0]);
    heading("DST", app.sort == Order::Dst, true, 1, shares.names[1]);
    for (column, width) in &shares.columns {
        heading(column.heading, column.orders.contains(&app.sort), column.left, 1, (*width).into());
    }
    Line::from(spans)
}

fn row(app: &App, theme: Theme, shares: &Shares, pair: &Pair, selected: bool, width: usize) -> Line<'static> {
    let now = app.now();
    let silent = now.duration_since(pair.last_seen).as_secs_f64() >= SILENT_SECONDS;
    let usual = if silent { Tone::Faint } else { Tone::Plain };
    let mut used = 0;
    let mut spans = Vec::new();
    let mut cell = |text: &str, tone: Tone, left: bool, gap: usize, width: usize| {
        let text = fit(&harmless(text), width).into_owned();
        let padding = width - text.width();
        let text = if left {
            format!("{:gap$}{text}{:padding$}", "", "")
        } else {
            format!("{:gap$}{:padding$}{text}", "", "")
        };
        used += gap + width;
        let tone = match tone {
            // Under the cursor, which reverses, only what is amiss stands out.
            Tone::Accent | Tone::Faint | Tone::Plain if selected => Tone::Plain,
            Tone::Plain => usual,
            tone => tone,
        };
        spans.push(theme.span(tone, text));
    };
    cell(&view::endpoint(&pair.src), Tone::Plain, true, 0, shares.names[0]);
    cell(&view::endpoint(&pair.dst), Tone::Plain, true, 1, shares.names[1]);
    let readings = app.history.of(&RowKey::of(pair));
    for (column, width) in &shares.columns {
        let width = usize::from(*width);
        let (text, tone) = (column.cell)(&Source { pair, readings, now, width });
        cell(&text, tone, column.left, 1, width);
    }
    // The cursor goes from edge to edge.
    spans.push(Span::raw(" ".repeat(width.saturating_sub(used))));
    let line = Line::from(spans);
    if selected { line.patch_style(Style::new().add_modifier(Modifier::REVERSED)) } else { line }
}

fn empty_text(app: &App) -> &'static str {
    if !app.filter.is_empty() {
        "No pair has these words. Esc clears the filter."
    } else if app.hidden() > 0 {
        "Only multicast and link-local traffic so far; `a` shows it."
    } else if app.answer.is_some() {
        "No pairs yet: no watched container has sent a packet. `conmonctl containers` tells which are watched, `conmonctl doctor` what is wrong."
    } else {
        "Waiting for conmond's answer."
    }
}
