//! Tables without borders, aligned columns, the way kubectl and docker print them.

use comfy_table::{Cell, CellAlignment, presets};

use crate::format::harmless;

/// A column: its heading and on which side its text stands.
#[derive(Clone, Copy)]
pub enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}
pub use Column::{Left, Right};

/// Rows under headings.
pub struct Table {
    columns: Vec<Column>,
    inner: comfy_table::Table,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: Vec<Column>) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(presets::NOTHING);
        // As wide as it needs to be, whatever the terminal: lines must stay lines for grep and awk.
        inner.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        inner.force_no_tty();
        inner.set_header(columns.iter().map(|column| match *column {
            Left(heading) => Cell::new(heading),
            Right(heading) => Cell::new(heading).set_alignment(CellAlignment::Right),
        }));
        for column in inner.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { columns, inner }
    }

    /// Adds a row; it has a cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.inner.add_row(cells.iter().zip(&self.columns).map(|(text, column)| {
            let cell = Cell::new(harmless(text));
            match column {
                Left(_) => cell,
                Right(_) => cell.set_alignment(CellAlignment::Right),
            }
        }));
    }

    /// The lines, each ended, without blanks at their ends.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in self.inner.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_foreign_text_stays_in_its_cell() {
        let mut table = Table::new(vec![Left("NAME"), Right("RTT"), Left("NOTE")]);
        table.row(vec!["web".into(), "83 µs".into(), "".into()]);
        table.row(vec!["a\nb\u{1b}[2J".into(), "1.24 ms".into(), "x".repeat(200)]);
        let text = table.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "NAME         RTT  NOTE");
        assert_eq!(lines[1], "web        83 µs");
        assert_eq!(lines[2], format!("a\u{fffd}b\u{fffd}[2J  1.24 ms  {}", "x".repeat(200)));
        assert_eq!(lines.len(), 3);
    }
}
