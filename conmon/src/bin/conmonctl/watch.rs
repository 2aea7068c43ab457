//! The same answer again and again (`--watch`). On a terminal each one takes the place of the one before, as watch(1)
//! does it; elsewhere they follow one another, tables with an empty line between, JSON as one document a line.
//!
//! The first request must succeed, like one without `--watch`. After that conmond may come and go: what it does not
//! answer is said, and it is asked again.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::args::{Format, Show};
use crate::format::{harmless, time};
use crate::look::{Look, terminal_size};
use crate::output::{print, print_lines, print_notes};
use crate::tone::{Color, Tone, cut};
use crate::view::View;

/// Asks and prints: once, or with `--watch` until the output cannot be written any more. Returns the answer.
pub async fn show<A: Serialize>(
    options: &Show,
    color: Color,
    ask: impl AsyncFn() -> anyhow::Result<A>,
    view: impl Fn(&A, Look) -> View,
) -> anyhow::Result<A> {
    let mut answer = Ok(ask().await?);
    let Some(period) = options.watch else {
        let answer = answer?;
        print(&options.print, color, &answer, view)?;
        return Ok(answer);
    };
    let mut before = None;
    loop {
        match options.print.output {
            Format::Json => document(&answer, &mut before)?,
            _ => match terminal_size() {
                Some(size) => {
                    let look = Look::new(&options.print, color);
                    print_lines(&frame(&answer, period, size, look, before.is_none(), &view))?;
                    before = Some(String::new());
                }
                None => rows(&answer, Look::new(&options.print, color), &mut before, &view)?,
            },
        }
        pause(period)?;
        answer = ask().await;
    }
}

/// One line of JSON, or a trouble on the other output; a trouble that lasts is told once.
fn document<A: Serialize>(answer: &anyhow::Result<A>, before: &mut Option<String>) -> anyhow::Result<()> {
    match answer {
        Ok(answer) => {
            *before = None;
            let json = serde_json::to_string(answer).context("cannot write the answer as JSON")?;
            print_lines(&(json + "\n"))
        }
        Err(error) => {
            trouble(error, before);
            Ok(())
        }
    }
}

fn rows<A>(
    answer: &anyhow::Result<A>,
    look: Look,
    before: &mut Option<String>,
    view: &impl Fn(&A, Look) -> View,
) -> anyhow::Result<()> {
    match answer {
        Ok(answer) => {
            let view = view(answer, look);
            let gap = if before.is_some() { "\n" } else { "" };
            *before = Some(String::new());
            print_lines(&format!("{gap}{}", view.text))?;
            print_notes(&view.notes);
        }
        Err(error) => trouble(error, before),
    }
    Ok(())
}

fn trouble(error: &anyhow::Error, before: &mut Option<String>) {
    let text = format!("conmonctl: {error:#}");
    if before.as_ref() != Some(&text) {
        print_notes(std::slice::from_ref(&text));
        *before = Some(text);
    }
}

/// What takes the place of the screen: a line that says what this is, then as much of the view and its notes as fits.
/// Each line is written over the old one and ended there, so nothing flickers.
fn frame<A>(
    answer: &anyhow::Result<A>,
    period: Duration,
    (width, height): (usize, usize),
    look: Look,
    first: bool,
    view: &impl Fn(&A, Look) -> View,
) -> String {
    let mut lines = vec![look.paint(Tone::Faint, &head(period, width))];
    match answer {
        Ok(answer) => {
            let view = view(answer, look);
            lines.extend(view.text.lines().map(str::to_owned));
            lines.extend(view.notes.iter().map(|note| look.paint(Tone::Faint, &harmless(note))));
        }
        Err(error) => {
            let said = format!("no answer, asking again: {error:#}");
            let said = crate::look::wrap(&crate::look::glued(&harmless(&said)), width, 0);
            lines.extend(said.lines().map(|line| look.paint(Tone::Bad, line)));
        }
    }
    // A line end in the last row would move everything up.
    let room = height.saturating_sub(1).max(1);
    if lines.len() > room {
        let hidden = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(look.paint(Tone::Faint, &format!("… {hidden} more lines; a taller window shows them")));
    }
    let mut text = String::from(if first { "\u{1b}[H\u{1b}[2J" } else { "\u{1b}[H" });
    for line in lines {
        text.push_str(&cut(&line, width));
        text.push_str("\u{1b}[K\n");
    }
    text.push_str("\u{1b}[J");
    text
}

/// `every 2 s: conmonctl pairs --watch`, and the time at the right edge.
fn head(period: Duration, width: usize) -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let what = format!("every {} s: conmonctl {}", period.as_secs_f64(), harmless(&arguments.join(" ")));
    let now = time(jiff::Timestamp::now());
    let now = now.get(..19).map_or_else(String::new, |text| text.replace('T', " ") + " UTC");
    let room = width.saturating_sub(now.chars().count() + 2);
    format!("{:room$}  {now}", crate::format::fit(&what, room))
}

/// Waits. A reader that goes away meanwhile is noticed at once, not with the next answer.
fn pause(period: Duration) -> anyhow::Result<()> {
    io::stdout().flush().context("cannot write the output")?;
    let stdout = io::stdout();
    let mut wait = [PollFd::new(&stdout, PollFlags::empty())];
    let moment = Timespec {
        tv_sec: i64::try_from(period.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: period.subsec_nanos().into(),
    };
    match poll(&mut wait, Some(&moment)) {
        // Pipes say ERR; a terminal whose window was closed says HUP.
        Ok(_) if wait[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
            Err(io::Error::from(io::ErrorKind::BrokenPipe)).context("the reader has gone")
        }
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("cannot wait"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::tests::SMALL;

    fn lines(count: usize) -> impl Fn(&(), Look) -> View {
        move |(), _| View {
            text: (0..count).map(|at| format!("row {at} {}\n", "x".repeat(at * 10))).collect(),
            notes: vec!["a note".to_owned()],
        }
    }

    fn screen(count: usize, size: (usize, usize), first: bool) -> String {
        frame(&Ok(()), Duration::from_millis(1500), size, SMALL, first, &lines(count))
    }

    #[test]
    fn frames_overwrite_the_one_before_without_clearing() {
        let (first, next) = (screen(3, (80, 24), true), screen(3, (80, 24), false));
        assert!(first.starts_with("\u{1b}[H\u{1b}[2Jevery 1.5 s: conmonctl "), "{first:?}");
        assert!(next.starts_with("\u{1b}[Hevery") && !next.contains("[2J"), "{next:?}");
        assert!(next.ends_with("row 2 xxxxxxxxxxxxxxxxxxxx\u{1b}[K\na note\u{1b}[K\n\u{1b}[J"), "{next:?}");
    }

    #[test]
    fn frames_fit_any_window() {
        for (width, height) in [(80, 24), (20, 5), (7, 2), (1, 1), (0, 0), (300, 100)] {
            let text = screen(60, (width, height), false).replace("\u{1b}[H", "").replace("\u{1b}[J", "");
            let rows: Vec<&str> = text.split_terminator("\u{1b}[K\n").collect();
            assert!(rows.len() <= height.saturating_sub(1).max(1), "{width}x{height}: {rows:?}");
            assert!(rows.iter().all(|row| row.chars().count() <= width), "{width}x{height}: {rows:?}");
        }
        assert!(screen(60, (80, 24), false).contains("… 40 more lines; a taller window shows them"));
    }

    #[test]
    fn silence_is_said_in_the_frame() {
        let error: anyhow::Result<()> = Err(anyhow::anyhow!("conmond is not running \u{1b}[2J"));
        let text = frame(&error, Duration::from_secs(2), (80, 24), SMALL, false, &lines(1));
        assert!(text.contains("no answer, asking again: conmond is not running \u{fffd}[2J"), "{text:?}");
    }
}
