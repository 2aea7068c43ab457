//! How far reading has come, on a terminal's one line.

use std::io::{self, IsTerminal as _, Write as _};

use conmon::capture::Progress;

use crate::format::{count, harmless, percent};

/// The line; nothing where the standard error is no terminal.
pub struct Bar {
    name: String,
    progress: Progress,
    on: bool,
    shown: usize,
}

impl Bar {
    /// Of a capture that is being read.
    pub fn new(name: &str, progress: Progress, quiet: bool) -> Self {
        let on = !quiet && io::stderr().is_terminal();
        Self { name: harmless(name).into_owned(), progress, on, shown: 0 }
    }

    /// Shows the number of packets read, and the share of the file.
    pub fn show(&mut self, packets: u64) {
        if !self.on {
            return;
        }
        let share = self.progress.ratio().map(|ratio| format!(", {}", percent(ratio))).unwrap_or_default();
        let line = format!("{}: {} packets{share}", self.name, count(packets));
        let width = self.shown.max(line.chars().count());
        // A terminal that is gone is no reason to stop reading.
        let _ = write!(io::stderr(), "\r{line:<width$}");
        self.shown = line.chars().count();
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown > 0 {
            let _ = write!(io::stderr(), "\r{:width$}\r", "", width = self.shown);
            self.shown = 0;
        }
    }
}
