//! The head: where this is and how much in all; our own cost, or what is wrong; what was chosen. A narrow terminal gets
//! fewer facts, a low one fewer lines.

use conmon::api::{HookCost, Status};
use jiff::Timestamp;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::super::app::App;
use super::theme::Theme;
use crate::format::{byte_rate, bytes, counted, harmless, packet_rate, percent};
use crate::order;
use crate::tone::Tone;
use crate::view;

/// From this height on the head has all its lines.
const ROOMY: u16 = 12;

/// The head's lines.
pub fn lines(app: &App, theme: Theme, width: usize, height: u16) -> Vec<Line<'static>> {
    let trouble = trouble(app);
    let mut lines = Vec::new();
    if height >= ROOMY {
        lines.push(facts(theme, where_and_how_much(app), width));
    }
    match trouble {
        // Nobody must miss it, whatever the height.
        Some((tone, text)) if height >= 4 => lines.extend(said(theme, tone, &text, width, height)),
        _ if height >= ROOMY && app.close.is_none() => lines.push(facts(theme, cost(app), width)),
        _ => {}
    }
    if height >= 6 && (app.close.is_none() || app.paused) {
        lines.push(facts(theme, chosen(app), width));
    }
    lines
}

/// A fact, its tone, and the blanks before it.
type Fact = (Tone, String, usize);

/// As many facts as fit, each whole. The first one may be cut: it is a name.
fn facts(theme: Theme, facts: Vec<Fact>, width: usize) -> Line<'static> {
    let mut used = 0;
    let mut spans: Vec<Span<'static>> = Vec::new();
    for (tone, text, gap) in facts {
        if text.is_empty() {
            continue;
        }
        if spans.is_empty() {
            let text = crate::format::fit(&text, width).into_owned();
            used = text.width();
            spans.push(theme.span(tone, text));
        } else if used + gap + text.width() <= width {
            used += gap + text.width();
            spans.push(Span::raw(" ".repeat(gap)));
            spans.push(theme.span(tone, text));
        }
    }
    Line::from(spans)
}

fn where_and_how_much(app: &App) -> Vec<Fact> {
    let mut facts = vec![(Tone::Strong, "conmon top".to_owned(), 0)];
    if let Some(pair) = app.close_pair() {
        let ends = format!("{} → {}", view::endpoint(&pair.src), view::endpoint(&pair.dst));
        return vec![(Tone::Strong, harmless(&ends).into_owned(), 0)];
    }
    if let Some(status) = &app.status {
        let instance = match status.instance.as_str() {
            conmon::instance::DEFAULT_INSTANCE => String::new(),
            // What is called after its host need not say so twice.
            instance if instance == status.host => String::new(),
            instance => format!(" ({})", harmless(instance)),
        };
        facts.push((Tone::Plain, format!("{}{instance}", harmless(&status.host)), 2));
    }
    if let Some(answer) = &app.answer {
        let pairs = || answer.pairs.iter();
        let octets: f64 = pairs().filter_map(order::byte_rate).sum();
        let packets: f64 = pairs().filter_map(order::packet_rate).sum();
        let active: u64 = pairs().map(|pair| pair.active_flows).sum();
        facts.extend([
            (Tone::Plain, counted(answer.pairs.len() as u64, "pair", "pairs"), 3),
            (Tone::Plain, counted(active, "active flow", "active flows"), 2),
            (Tone::Plain, byte_rate(octets), 3),
            (Tone::Plain, packet_rate(packets), 2),
        ]);
    }
    facts
}

fn cost(app: &App) -> Vec<Fact> {
    let Some(status) = &app.status else { return vec![(Tone::Faint, "own cost  …".to_owned(), 0)] };
    let cost = &status.cost;
    let parts = [
        ns_per_packet(&cost.hooks).map(|ns| format!("{ns:.0} ns/packet")),
        cost.cpu_ratio.map(|ratio| format!("CPU {}", percent(ratio))),
        cost.memory_bytes.map(|memory| format!("memory {}", bytes(memory))),
        cost.kernel_memory_bytes.map(|memory| format!("kernel {}", bytes(memory))),
        Some(format!("pool {}/{}", status.pool.ready, status.pool.wanted)),
    ];
    let begin = [(Tone::Faint, "own cost".to_owned(), 0)];
    begin.into_iter().chain(parts.into_iter().flatten().map(|part| (Tone::Faint, part, 2))).collect()
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

/// What is wrong, in words.
fn trouble(app: &App) -> Option<(Tone, String)> {
    if let Some(reason) = &app.failure {
        let since = clock(app.now());
        return Some((Tone::Bad, format!("NO ANSWER since {since}, asking again each second: {reason}")));
    }
    if app.back.is_some() {
        return Some((
            Tone::Good,
            format!("conmond answers again{}", started(app.status.as_deref(), app.now())),
        ));
    }
    let first = app.status.as_ref()?.problems.first()?;
    Some((Tone::Warn, format!("problem: {first}")))
}

/// Whether the silence was a restart's.
fn started(status: Option<&Status>, now: Timestamp) -> String {
    let Some(status) = status else { return String::new() };
    let age = now.duration_since(status.started_at).as_secs_f64();
    if (0.0..120.0).contains(&age) {
        format!("; it was started {age:.0} s ago, the kernel counted on meanwhile")
    } else {
        String::new()
    }
}

/// A sentence in as many lines as it needs, three at most, fewer where the screen is low.
fn said(theme: Theme, tone: Tone, text: &str, width: usize, height: u16) -> Vec<Line<'static>> {
    let most = if height >= ROOMY { 3 } else { 1 };
    let text = crate::look::wrap(&crate::look::glued(&harmless(text)), width.max(1), 0);
    let mut lines: Vec<String> = text.lines().map(|line| crate::tone::cut(line, width)).collect();
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            *last = crate::tone::cut(last, width.saturating_sub(2)) + " …";
        }
    }
    lines.into_iter().map(|line| Line::styled(line, theme.style(tone))).collect()
}

fn chosen(app: &App) -> Vec<Fact> {
    let mut facts = Vec::new();
    if app.paused {
        facts.push((Tone::Warn, format!("PAUSED at {}", clock(app.now())), 0));
    }
    if app.close.is_some() {
        return facts;
    }
    if app.editing || !app.filter.is_empty() {
        let cursor = if app.editing { "▏" } else { "" };
        facts.push((Tone::Accent, format!("/{}{cursor}", app.filter), 2));
    }
    // Until the new level's rows come, the old one's are on the screen.
    let level = if app.shown == app.level { "" } else { " …" };
    facts.push((Tone::Plain, format!("by {}{level}", app.level.as_str()), 2));
    let reversed = if app.reverse { ", reversed" } else { "" };
    facts.push((Tone::Plain, format!("sorted by {}{reversed}", app.sort.label()), 2));
    let rows = app.rows().len();
    if rows > app.page {
        facts.push((Tone::Plain, format!("row {} of {rows}", app.selected + 1), 2));
    } else if !app.filter.is_empty() {
        facts.push((Tone::Plain, counted(rows as u64, "row", "rows"), 2));
    }
    if app.hidden() > 0 {
        facts.push((Tone::Faint, format!("+{} multicast (a)", app.hidden()), 2));
    }
    facts
}

fn clock(time: Timestamp) -> String {
    time.strftime("%H:%M:%S UTC").to_string()
}
