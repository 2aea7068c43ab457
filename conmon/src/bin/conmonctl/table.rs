//! Tables without borders, aligned columns, the way kubectl and docker print them. Each number is one word, so that
//! `awk` and `sort -h` find it.
//!
//! In a pipe a table is as wide as it needs to be: lines stay lines. On a terminal that is too narrow the least
//! important columns are left out, then names are shortened in their middle; a number is shown whole or not at all.

use unicode_width::UnicodeWidthStr;

use crate::format::{fit, harmless};
use crate::look::Look;
use crate::tone::Tone;

/// Between columns.
const GAP: usize = 2;
/// Names are shortened so far before columns of some importance go.
const FAIR_NAME: usize = 12;
/// And so far at all.
const SHORTEST_NAME: usize = 6;
/// Columns below this importance go before names are shortened.
const IMPORTANT: u8 = 100;
/// From this importance on they go after all else.
pub const NEEDED: u8 = 254;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    heading: &'static str,
    right: bool,
    keep: u8,
    name: bool,
}

/// A column of words.
pub const fn left(heading: &'static str) -> Column {
    Column { heading, right: false, keep: u8::MAX, name: false }
}

/// A column of numbers.
pub const fn right(heading: &'static str) -> Column {
    Column { heading, right: true, keep: u8::MAX, name: false }
}

impl Column {
    /// How important it is: the least important goes first where the terminal is narrow. Without it, it stays.
    pub const fn keep(self, keep: u8) -> Self {
        Self { keep, ..self }
    }

    /// Holds names: they may be shortened.
    pub const fn name(self) -> Self {
        Self { name: true, ..self }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

/// A cell in a tone.
pub fn toned(tone: Tone, text: impl Into<String>) -> Cell {
    Cell { text: text.into(), tone }
}

/// Rows under headings.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; it has a cell for each column.
    pub fn row(&mut self, mut cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        for cell in &mut cells {
            if let std::borrow::Cow::Owned(text) = harmless(&cell.text) {
                cell.text = text;
            }
        }
        self.rows.push(cells);
    }

    /// The lines, each ended, without blanks at their ends.
    pub fn render(&self, look: Look) -> String {
        let mut widths: Vec<Option<usize>> = (0..self.columns.len())
            .map(|at| {
                let cells = self.rows.iter().map(|row| row[at].text.width()).max().unwrap_or(0);
                Some(cells.max(self.columns[at].heading.width()))
            })
            .collect();
        if let Some(room) = look.width.filter(|_| !look.wide) {
            self.fit(&mut widths, room);
        }
        let mut text = String::new();
        let headings: Vec<Cell> = self.columns.iter().map(|c| toned(Tone::Strong, c.heading)).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            self.line(row, &widths, look, &mut text);
        }
        text
    }

    fn fit(&self, widths: &mut [Option<usize>], room: usize) {
        let whole = widths.to_vec();
        self.drop_columns(widths, room, IMPORTANT);
        self.shorten_names(widths, room, FAIR_NAME);
        self.drop_columns(widths, room, NEEDED);
        self.shorten_names(widths, room, SHORTEST_NAME);
        self.drop_columns(widths, room, u8::MAX);
        // Names take what columns that went have left.
        for (width, (whole, column)) in widths.iter_mut().zip(whole.iter().zip(&self.columns)) {
            if column.name && width.is_some() {
                *width = *whole;
            }
        }
        self.shorten_names(widths, room, SHORTEST_NAME);
    }

    fn drop_columns(&self, widths: &mut [Option<usize>], room: usize, below: u8) {
        while taken(widths) > room {
            let least = (0..widths.len())
                .filter(|at| widths[*at].is_some() && self.columns[*at].keep < below)
                .min_by_key(|at| self.columns[*at].keep);
            let Some(least) = least else { return };
            widths[least] = None;
        }
    }

    fn shorten_names(&self, widths: &mut [Option<usize>], room: usize, shortest: usize) {
        while taken(widths) > room {
            let widest = (0..widths.len())
                .filter(|at| self.columns[*at].name && widths[*at].is_some_and(|width| width > shortest))
                .max_by_key(|at| widths[*at]);
            let Some(widest) = widest else { return };
            widths[widest] = widths[widest].map(|width| width - 1);
        }
    }

    fn line(&self, cells: &[Cell], widths: &[Option<usize>], look: Look, text: &mut String) {
        // Blanks are kept back until something follows them.
        let mut blanks = 0;
        for ((cell, column), width) in cells.iter().zip(&self.columns).zip(widths) {
            let Some(width) = *width else { continue };
            let shown = if column.name { fit(&cell.text, width) } else { cell.text.as_str().into() };
            let padding = width.saturating_sub(shown.width());
            let before = if column.right { padding } else { 0 };
            if !shown.is_empty() {
                text.extend(std::iter::repeat_n(' ', blanks + before));
                text.push_str(&look.paint(cell.tone, &shown));
                blanks = padding - before;
            } else {
                blanks += width;
            }
            blanks += GAP;
        }
        text.push('\n');
    }
}

fn taken(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    let columns = shown.clone().count();
    shown.sum::<usize>() + GAP * columns.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::tests::{PIPE, SMALL, WIDE};

    #[test]
    fn columns_align_and_foreign_text_stays_in_its_cell() {
        let mut table = Table::new(vec![left("NAME"), right("RTT"), left("NOTE")]);
        table.row(vec!["web".into(), "83µs".into(), "".into()]);
        table.row(vec!["a\nb\u{1b}[2J".into(), "1.24ms".into(), "x".repeat(200).into()]);
        let text = table.render(PIPE);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "NAME        RTT  NOTE");
        assert_eq!(lines[1], "web        83µs");
        assert_eq!(lines[2], format!("a\u{fffd}b\u{fffd}[2J  1.24ms  {}", "x".repeat(200)));
        assert_eq!(lines.len(), 3);
    }

    fn example() -> Table {
        let mut table = Table::new(vec![
            left("NAME").name(),
            right("SENT").keep(150),
            right("AGE").keep(50),
            right("MORE").keep(40),
        ]);
        table.row(vec!["shop-postgres-1".into(), "12.3MB".into(), "5m".into(), "1234".into()]);
        table
    }

    #[test]
    fn what_does_not_fit_is_left_out_least_important_first() {
        let at = |width| example().render(Look { width: Some(width), ..SMALL });
        assert_eq!(at(34), "NAME               SENT  AGE  MORE\nshop-postgres-1  12.3MB   5m  1234\n");
        assert_eq!(at(33), "NAME               SENT  AGE\nshop-postgres-1  12.3MB   5m\n");
        assert_eq!(at(27), "NAME               SENT\nshop-postgres-1  12.3MB\n");
        assert_eq!(at(20), "NAME            SENT\nshop-p…res-1  12.3MB\n");
        assert_eq!(at(19), "NAME\nshop-postgres-1\n", "a short name would say too little");
        assert_eq!(at(5), "NAME\nsho…-1\n");
        assert_eq!(example().render(PIPE), at(34), "lines stay lines in pipes");
        assert_eq!(example().render(Look { width: Some(5), ..WIDE }), at(34), "wide is wide");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(vec![left("A"), right("B"), left("C")]);
        table.row(vec![toned(Tone::Bad, "x"), toned(Tone::Warn, "12"), "".into()]);
        let plain = table.render(PIPE);
        let coloured = table.render(Look { color: true, ..PIPE });
        assert_eq!(plain, "A   B  C\nx  12\n");
        assert_eq!(
            coloured,
            "\u{1b}[1mA\u{1b}[0m   \u{1b}[1mB\u{1b}[0m  \u{1b}[1mC\u{1b}[0m\n\u{1b}[1;31mx\u{1b}[0m  \u{1b}[33m12\u{1b}[0m\n"
        );
    }
}
