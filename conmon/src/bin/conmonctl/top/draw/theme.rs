//! Tones as the terminal's styles.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use crate::tone::Tone;

/// How tones are shown. Without colours attributes have to do.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    /// Whether there are colours.
    pub color: bool,
}

impl Theme {
    /// A tone's style.
    pub fn style(self, tone: Tone) -> Style {
        let paint = |color: Color, without: Modifier| {
            if self.color { Style::new().fg(color) } else { Style::new().add_modifier(without) }
        };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Faint => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => paint(Color::Green, Modifier::empty()),
            Tone::Warn => paint(Color::Yellow, Modifier::BOLD),
            Tone::Bad => paint(Color::Red, Modifier::UNDERLINED).add_modifier(Modifier::BOLD),
            Tone::Accent => paint(Color::Cyan, Modifier::BOLD),
        }
    }

    /// Text in a tone.
    pub fn span(self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }
}
