//! How answers are to look, and how texts are made to fit.

use std::io::IsTerminal as _;

use unicode_width::UnicodeWidthStr;

use crate::args::{Format, Print};
use crate::tone::{Color, Tone};

/// The width of prose where no terminal says otherwise, and the most it takes on wide ones: longer lines are hard
/// to read.
const PROSE_WIDTH: usize = 80;

/// How an answer is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// All columns.
    pub wide: bool,
    /// The terminal's width, where the output is one.
    pub width: Option<usize>,
    /// Whether colours are used.
    pub color: bool,
}

impl Look {
    /// What options and the standard output ask for.
    pub fn new(print: &Print, color: Color) -> Self {
        let width = terminal_size().map(|(width, _)| width);
        Self { wide: print.output == Format::Wide, width, color: color.is_on(width.is_some()) }
    }

    /// The width that prose is set in.
    pub fn prose(self) -> usize {
        self.width.unwrap_or(PROSE_WIDTH).clamp(20, PROSE_WIDTH.max(100))
    }

    /// Text in a tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        tone.paint(text, self.color)
    }
}

/// Columns and rows of the terminal that the standard output is; none where it is something else.
pub fn terminal_size() -> Option<(usize, usize)> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    // A serial line knows no size.
    let or = |cells: u16, usual: usize| if cells == 0 { usual } else { usize::from(cells) };
    Some((or(size.ws_col, 80), or(size.ws_row, 24)))
}

/// Prose whose commands to copy stay in one line when it is broken, and numbers with their units.
pub fn glued(line: &str) -> String {
    let mut glued = String::with_capacity(line.len() + 16);
    let (mut quoted, mut number) = (false, false);
    for c in line.chars() {
        quoted ^= c == '`';
        glued.push(if c == ' ' && (quoted || number) { GLUE } else { c });
        number = c.is_ascii_digit() || (number && c == '.');
    }
    glued
}

/// A blank at which prose is not broken.
const GLUE: char = '\u{a0}';

/// Breaks prose at blanks so that its lines fit; all but the first are indented. A word that is too long alone stays
/// whole: it may be an address or a command to copy. Blanks that [`glued`] kept come back.
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut wrapped = String::with_capacity(text.len() + text.len() / 8);
    let (mut used, mut fresh) = (0, true);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.width();
        if !fresh && used + 1 + length > width {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            used = indent;
            fresh = true;
        }
        if !fresh {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.extend(word.chars().map(|c| if c == GLUE { ' ' } else { c }));
        used += length;
        fresh = false;
    }
    wrapped
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A pipe.
    pub const PIPE: Look = Look { wide: false, width: None, color: false };
    /// A pipe, all columns.
    pub const WIDE: Look = Look { wide: true, width: None, color: false };
    /// A small terminal without colours.
    pub const SMALL: Look = Look { wide: false, width: Some(80), color: false };

    #[test]
    fn prose_is_broken_at_blanks() {
        assert_eq!(wrap("one two  three", 7, 0), "one two\nthree");
        assert_eq!(wrap("one two three", 8, 4), "one two\n    three");
        assert_eq!(wrap("a-word-that-is-long b", 5, 2), "a-word-that-is-long\n  b");
        assert_eq!(wrap("", 5, 2), "");
        assert_eq!(wrap(&glued("took 83.1 µs there"), 11, 0), "took\n83.1 µs\nthere");
        assert_eq!(wrap(&glued("try `a b c` now"), 9, 0), "try\n`a b c`\nnow");
        for width in 1..60 {
            let text = "the median is 83.1 µs and containers are called 容器";
            let rejoined = wrap(text, width, 3).split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(rejoined, text, "no word is lost");
        }
    }
}
