//! Colour that means something: each text has a tone, and a tone has one of the sixteen colours that every terminal
//! has. What is said in colour is always said in words or numbers too.

use std::fmt::Write as _;

use clap::ValueEnum;
use unicode_width::UnicodeWidthChar;

/// What a text is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Text.
    #[default]
    Plain,
    /// Headings and names.
    Strong,
    /// What matters less now.
    Faint,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Amiss.
    Bad,
    /// What the user chose or may press.
    Accent,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals, unless NO_COLOR is set or TERM is dumb
    #[default]
    Auto,
    /// Always, in pipes too
    Always,
    /// Never
    Never,
}

impl Color {
    /// Whether to colour what goes to a terminal, or to something else.
    pub fn is_on(self, terminal: bool) -> bool {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        self.decide(terminal, set("NO_COLOR").is_some(), set("TERM").is_none_or(|term| term == "dumb"))
    }

    /// Who asks for colours gets them, whatever the environment says: <https://no-color.org>.
    fn decide(self, terminal: bool, no_color: bool, dumb: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !no_color && !dumb,
        }
    }
}

impl Tone {
    /// The parameters of `CSI … m`.
    fn attributes(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "1;31",
            Self::Accent => "36",
        }
    }

    /// The text in this tone, as a terminal takes it.
    pub fn paint(self, text: &str, color: bool) -> String {
        match self.attributes() {
            attributes if color && !attributes.is_empty() && !text.is_empty() => {
                format!("\u{1b}[{attributes}m{text}\u{1b}[0m")
            }
            _ => text.to_owned(),
        }
    }
}

/// Cuts a line that may hold colours to a terminal's width. What was coloured where it was cut ends there.
pub fn cut(line: &str, width: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let (mut used, mut painted) = (0, false);
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // Only our own colours come here; names were made harmless.
            let sequence: String =
                std::iter::once(c).chain(rest.by_ref().take_while(|c| *c != 'm')).collect();
            painted = sequence != "\u{1b}[0";
            let _ = write!(kept, "{sequence}m");
            continue;
        }
        used += c.width().unwrap_or(0);
        if used > width {
            if painted {
                kept.push_str("\u{1b}[0m");
            }
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        for (color, terminal, no_color, dumb, on) in [
            (Color::Auto, true, false, false, true),
            (Color::Auto, false, false, false, false),
            (Color::Auto, true, true, false, false),
            (Color::Auto, true, false, true, false),
            (Color::Always, false, true, true, true),
            (Color::Never, true, false, false, false),
        ] {
            assert_eq!(color.decide(terminal, no_color, dumb), on, "{color:?} {terminal} {no_color} {dumb}");
        }
    }

    #[test]
    fn only_the_sixteen_colours() {
        for tone in [Tone::Strong, Tone::Faint, Tone::Good, Tone::Warn, Tone::Bad, Tone::Accent] {
            let painted = tone.paint("x", true);
            let inner = painted.strip_prefix("\u{1b}[").and_then(|rest| rest.strip_suffix("mx\u{1b}[0m"));
            for number in inner.unwrap_or("none").split(';') {
                assert!(matches!(number.parse(), Ok(1..=2 | 30..=37)), "{tone:?}: {painted:?}");
            }
            assert_eq!(tone.paint("x", false), "x");
        }
        assert_eq!(Tone::Plain.paint("x", true), "x");
        assert_eq!(Tone::Bad.paint("", true), "");
    }

    #[test]
    fn lines_are_cut_between_colours() {
        let line = format!("ab{}ef", Tone::Warn.paint("cd", true));
        assert_eq!(cut(&line, 9), line);
        assert_eq!(cut(&line, 3), "ab\u{1b}[33mc\u{1b}[0m");
        assert_eq!(cut(&line, 5), "ab\u{1b}[33mcd\u{1b}[0me");
        assert_eq!(cut("容器", 3), "容");
        assert_eq!(cut("abc", 0), "");
    }
}
