//! `conmonctl analyze`: capture files read, without a daemon and without privilege.

mod csv;
mod progress;
mod view;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use conmon::analysis::{AnalysisAnswer, Analyzed, Clocks, For, MAX_RECORDS, alone, analyze, together};
use conmon::capture;

use crate::args::{Analyze, AnalyzeFormat, Format, Print};
use crate::format::harmless;
use crate::look::Look;
use crate::output::{print_lines, print_notes};
use crate::tone::Color;
use progress::Bar;

/// Reads, prints, and fails if a capture was damaged.
pub fn run(options: &Analyze, color: Color) -> anyhow::Result<ExitCode> {
    let stdin = options.captures.iter().filter(|path| path.as_os_str() == "-").count();
    anyhow::ensure!(stdin < 2, "only one capture can come from the standard input");
    let purpose = if options.captures.len() == 2 { For::Comparison(MAX_RECORDS) } else { For::Alone };
    let mut read = Vec::new();
    for path in &options.captures {
        read.push(read_one(path, purpose, options.quiet)?);
    }
    let damages: Vec<String> = options
        .captures
        .iter()
        .zip(&read)
        .filter_map(|(path, one)| Some(format!("{}: {}", path.display(), one.damage()?)))
        .collect();
    let second = if read.len() == 2 { read.pop() } else { None };
    let first = read.pop().context("no capture was named")?;
    let clocks = if options.same_clock { Clocks::Same } else { Clocks::Apart };
    let mut answer = match second {
        None => alone(&first),
        Some(second) => together(first, second, clocks),
    };
    let found = answer.pairs.len();
    answer.pairs.truncate(options.limit.unwrap_or(usize::MAX));
    print(options, color, &answer, found)?;
    for damage in &damages {
        let sentence = harmless(damage);
        writeln!(io::stderr(), "conmonctl: {sentence}; what was read before that is shown")?;
    }
    Ok(if damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_one(path: &Path, purpose: For, quiet: bool) -> anyhow::Result<Analyzed> {
    let name = path.display().to_string();
    let (from, progress) = capture::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut bar = Bar::new(&name, progress, quiet);
    let analyzed = analyze(&name, from, purpose, |packets| bar.show(packets));
    bar.clear();
    Ok(analyzed)
}

fn print(options: &Analyze, color: Color, answer: &AnalysisAnswer, found: usize) -> anyhow::Result<()> {
    let format = match options.output {
        AnalyzeFormat::Json => {
            let json = serde_json::to_string_pretty(answer).context("cannot write the answer as JSON")?;
            return print_lines(&(json + "\n"));
        }
        AnalyzeFormat::Csv => return print_lines(&csv::csv(answer)),
        AnalyzeFormat::Wide => Format::Wide,
        AnalyzeFormat::Table => Format::Table,
    };
    let view = view::view(answer, found, Look::new(&Print { output: format }, color));
    print_lines(&view.text)?;
    print_notes(&view.notes);
    Ok(())
}
