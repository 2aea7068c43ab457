//! Where answers go: rows and JSON to the standard output, notes beside them. A reader that has seen enough (`| head`)
//! is no error.

use std::io::{self, Write as _};

use anyhow::Context as _;
use conmon::client::ClientError;
use serde::Serialize;

use crate::args::{Format, Print};
use crate::look::Look;
use crate::tone::Color;
use crate::view::View;

/// Prints an answer as asked: itself as JSON, or its view.
pub fn print<A: Serialize>(
    options: &Print,
    color: Color,
    answer: &A,
    view: impl FnOnce(&A, Look) -> View,
) -> anyhow::Result<()> {
    if options.output == Format::Json {
        let json = serde_json::to_string_pretty(answer).context("cannot write the answer as JSON")?;
        return print_lines(&(json + "\n"));
    }
    let view = view(answer, Look::new(options, color));
    print_lines(&view.text)?;
    print_notes(&view.notes);
    Ok(())
}

/// Prints sentences beside the rows. When these are out, a note that nobody can read is no failure.
pub fn print_notes(notes: &[String]) {
    for note in notes {
        let _ = writeln!(io::stderr(), "{}", crate::format::harmless(note));
    }
}

/// Prints whole lines at once.
pub fn print_lines(text: &str) -> anyhow::Result<()> {
    print_octets(text.as_bytes())
}

/// Prints octets as they are, at once.
pub fn print_octets(octets: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(octets).and_then(|()| stdout.flush()).context("cannot write the output")
}

/// Whether the reader of our output has gone. Pipes to the daemon that break are not meant.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_none()
        && error.chain().any(|cause| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        })
}
