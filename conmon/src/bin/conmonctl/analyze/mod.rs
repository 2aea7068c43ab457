//! `conmonctl analyze`: capture files read, without a daemon and without privilege.

mod columns;
mod csv;
mod html;
mod parquet;
mod plot;
mod progress;
mod view;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use conmon::analysis::{
    AnalysisAnswer, Analyzed, Clocks, For, MAX_RECORDS, alone, analyze, analyze_telling, together,
};
use conmon::capture;

use crate::args::{Analyze, AnalyzeFormat, Format, Print};
use crate::format::harmless;
use crate::look::Look;
use crate::output::{print_notes, print_octets};
use crate::tone::Color;
use progress::Bar;

/// Reads, prints, and fails if something is wrong with a capture.
pub fn run(options: &Analyze, color: Color) -> anyhow::Result<ExitCode> {
    let stdin = options.captures.iter().filter(|path| path.as_os_str() == "-").count();
    anyhow::ensure!(stdin < 2, "only one capture can come from the standard input");
    let purpose = if options.captures.len() == 2 { For::Comparison(MAX_RECORDS) } else { For::Alone };
    anyhow::ensure!(
        options.output != AnalyzeFormat::Parquet || options.to.is_some() || !io::stdout().is_terminal(),
        "a Parquet file is not for a terminal: name a file with --to FILE"
    );
    let mut events = options.events.as_deref().map(Events::create).transpose()?;
    let mut read = Vec::new();
    for path in &options.captures {
        read.push(read_one(path, purpose, options.quiet, events.as_mut())?);
    }
    if let Some(events) = events {
        events.finish()?;
    }
    let each = options.captures.iter().zip(&read);
    let faults: Vec<String> = each
        .flat_map(|(path, one)| {
            one.faults().into_iter().map(move |fault| format!("{}: {fault}", path.display()))
        })
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
    // Only the page has plots.
    if options.output != AnalyzeFormat::Html {
        answer.drop_distributions();
    }
    print(options, color, &answer, found, &faults)?;
    for fault in &faults {
        writeln!(io::stderr(), "conmonctl: {}; what could be read is shown", harmless(fault))?;
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_one(path: &Path, purpose: For, quiet: bool, events: Option<&mut Events>) -> anyhow::Result<Analyzed> {
    let name = path.display().to_string();
    let (from, progress) = capture::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut bar = Bar::new(&name, progress, quiet);
    let every = |packets| bar.show(packets);
    let analyzed = match events {
        None => analyze(&name, from, purpose, every),
        Some(events) => {
            events.capture += 1;
            analyze_telling(&name, from, purpose, every, |event| events.write(event))
        }
    };
    bar.clear();
    Ok(analyzed)
}

/// The file of events. What went wrong with it is told when all is read.
struct Events {
    name: String,
    file: BufWriter<File>,
    /// The capture that is being read, from 1.
    capture: usize,
    line: String,
    failed: io::Result<()>,
}

impl Events {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = File::create(path).with_context(|| format!("cannot write {name}"))?;
        let mut file = BufWriter::new(file);
        let failed = file.write_all(csv::EVENTS.as_bytes());
        Ok(Self { name, file, capture: 0, line: String::new(), failed })
    }

    fn write(&mut self, event: &conmon::analysis::Event) {
        if self.failed.is_ok() {
            csv::event(self.capture, event, &mut self.line);
            self.failed = self.file.write_all(self.line.as_bytes());
        }
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.failed.and_then(|()| self.file.flush()).with_context(|| format!("cannot write {}", self.name))
    }
}

/// Puts an answer where it is wanted.
fn put(options: &Analyze, octets: &[u8]) -> anyhow::Result<()> {
    match &options.to {
        None => print_octets(octets),
        Some(path) => {
            std::fs::write(path, octets).with_context(|| format!("cannot write {}", path.display()))
        }
    }
}

fn print(
    options: &Analyze,
    color: Color,
    answer: &AnalysisAnswer,
    found: usize,
    faults: &[String],
) -> anyhow::Result<()> {
    let format = match options.output {
        AnalyzeFormat::Json => {
            let json = serde_json::to_string_pretty(answer).context("cannot write the answer as JSON")?;
            return put(options, (json + "\n").as_bytes());
        }
        AnalyzeFormat::Html => {
            let page = html::html(answer, &view::notes(answer, found), faults);
            return put(options, page.as_bytes());
        }
        AnalyzeFormat::Csv => return put(options, csv::csv(answer).as_bytes()),
        AnalyzeFormat::Parquet => return put(options, &parquet::parquet(answer)?),
        AnalyzeFormat::Wide => Format::Wide,
        AnalyzeFormat::Table => Format::Table,
    };
    let view = view::view(answer, found, Look::new(&Print { output: format }, color));
    put(options, view.text.as_bytes())?;
    print_notes(&view.notes);
    Ok(())
}
