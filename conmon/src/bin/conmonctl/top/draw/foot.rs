//! The keys: the most needed in the last line, all of them in the help.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::super::app::App;
use super::theme::Theme;
use crate::tone::Tone;

/// The last line: as many keys as fit, those for leaving and for help first.
pub fn line(app: &App, theme: Theme, width: usize) -> Line<'static> {
    // Key, what it does, and how much it is needed.
    let keys: &[(&str, &str, u8)] = if app.editing {
        &[("Enter", "keep", 0), ("Esc", "clear", 0), ("↑↓", "move", 2), ("!word", "without it", 3)]
    } else if app.help {
        &[("any key", "back", 0)]
    } else if app.close.is_some() {
        let span =
            if app.close.as_ref().is_some_and(|close| close.late) { "all time" } else { "last minute" };
        &[
            ("Esc", "back", 0),
            ("q", "quit", 1),
            ("↑↓", "next pair", 3),
            ("w", span, 2),
            ("PgDn", "more", 5),
            ("p", "pause", 4),
            ("?", "help", 1),
        ]
    } else {
        &[
            ("q", "quit", 0),
            ("↑↓", "move", 6),
            ("Enter", "look", 2),
            ("/", "find", 3),
            ("< >", "sort", 4),
            ("r", "reverse", 8),
            ("l", "level", 5),
            ("p", "pause", 7),
            ("?", "help", 1),
        ]
    };
    let taken = |(key, what, _): &(&str, &str, u8)| key.width() + 1 + what.width();
    let mut by_need: Vec<usize> = (0..keys.len()).collect();
    by_need.sort_by_key(|at| keys[*at].2);
    let mut shown = vec![false; keys.len()];
    let mut used = 0;
    for at in by_need {
        let more = taken(&keys[at]) + if used > 0 { 2 } else { 0 };
        if used + more > width {
            break;
        }
        used += more;
        shown[at] = true;
    }
    let mut spans = Vec::new();
    for ((key, what, _), _) in keys.iter().zip(shown).filter(|(_, shown)| *shown) {
        if !spans.is_empty() {
            spans.push(Span::raw("  "));
        }
        spans.push(theme.span(Tone::Accent, *key));
        spans.push(Span::raw(format!(" {what}")));
    }
    Line::from(spans)
}

/// All keys, and what the short headings and the colours mean.
pub fn help(theme: Theme, frame: &mut Frame<'_>) {
    const KEYS: [(&str, &str); 20] = [
        ("↑ ↓  j k", "move; PgUp PgDn, Home End, g G"),
        ("Enter  →", "look at one pair closely"),
        ("Esc  ←", "leave the close look; clear the filter"),
        ("w", "close look: delays of the last minute, of all time"),
        ("/", "find by name, tenant, service, protocol, address:"),
        ("", "several words: all of them; !word: without it"),
        ("< >  S s", "sort by the column before, after"),
        ("r", "reverse the order"),
        ("l  Tab", "group by container, service, host, tenant; L back"),
        ("a", "show or hide multicast and link-local traffic"),
        ("p  Space", "pause: keep the numbers standing"),
        ("Ctrl-L", "draw anew"),
        ("q  Ctrl-C", "quit"),
        ("", ""),
        ("OUT IN", "bytes per second from SRC, from DST"),
        ("RTT50 99", "round trip to DST: median, 99th percentile;"),
        ("", "faint: seen at DST's port, so only the way into it"),
        ("", "yellow from 50 ms, red from 200 ms"),
        ("NEAR50", "round trip between port and SRC, median"),
        ("RETR", "TCP segments sent again; coloured: of late, red 1 %"),
    ];
    let lines = KEYS.into_iter().map(|(key, what)| {
        Line::from(vec![theme.span(Tone::Accent, format!(" {key:<10} ")), Span::raw(what)])
    });
    let area = frame.area();
    let (width, height) = (66.min(area.width), (KEYS.len() as u16 + 2).min(area.height));
    let area = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" Keys ");
    frame.render_widget(Paragraph::new(Text::from_iter(lines)).block(block), area);
}
