//! What ships beside an executable and is written from its command line's grammar: completion scripts and man pages.
//! Used by both executables, so that neither can describe an option it does not have.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

pub use clap_complete::Shell;

/// A part of the manual that no option describes: environment, files, exit status, examples.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Its heading, as a sentence would have it: `Exit status`.
    pub heading: &'static str,
    /// What is explained, and how. Both in whole lines.
    pub entries: &'static [(&'static str, &'static str)],
}

/// The sections as they stand below `--help`.
pub fn after_help(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        let width = section.entries.iter().map(|(term, _)| term.len()).max().unwrap_or(0);
        let _ = writeln!(text, "{}{}:", if text.is_empty() { "" } else { "\n" }, section.heading);
        for (term, explanation) in section.entries {
            let _ = writeln!(text, "  {term:width$}  {explanation}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Writes the completion script of `command` for a shell.
///
/// # Errors
/// Those of the writer.
pub fn write_completions(mut command: Command, shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    out.write_all(&script)
}

/// Writes a man page for `command` and one for each verb that is not hidden into `folder`, which is made if it is not
/// there; the sections stand on the first page. Returns the files written.
///
/// # Errors
/// When the folder or a file in it cannot be written.
pub fn write_pages(
    command: Command,
    number: &str,
    sections: &[Section],
    folder: &Path,
) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    // The sections are set with their own headings; as help text they would stand a second time.
    let mut command = command.disable_help_subcommand(true).after_help(None::<&str>);
    command.build();
    let mut files = Vec::new();
    pages(&command, number, sections, folder, &mut files)?;
    Ok(files)
}

/// The page with a title line that readers of all kinds understand: the generator writes an absent date as nothing, and
/// what follows would be taken for it.
fn with_title(page: &[u8], name: &str, number: &str) -> Vec<u8> {
    let title = format!(
        ".TH \"{}\" \"{number}\" \"\" \"ConMon {}\" \"ConMon\"",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION")
    );
    let page = String::from_utf8_lossy(page);
    let lines = page.lines().map(|line| if line.starts_with(".TH ") { title.as_str() } else { line });
    lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()
}

fn pages(
    command: &Command,
    number: &str,
    sections: &[Section],
    folder: &Path,
    files: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone()).section(number).render(&mut page)?;
    let mut page = with_title(&page, &name, number);
    let mut rest = Roff::new();
    for section in sections {
        rest.control("SH", [section.heading.to_uppercase().as_str()]);
        for (term, explanation) in section.entries {
            rest.control("TP", []).text([bold(*term)]).text([roman(*explanation)]);
        }
    }
    rest.to_writer(&mut page)?;
    let file = folder.join(format!("{name}.{number}"));
    std::fs::write(&file, page)?;
    files.push(file);
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages(verb, number, &[], folder, files)?;
    }
    Ok(())
}
