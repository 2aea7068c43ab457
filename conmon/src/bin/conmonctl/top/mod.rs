//! The live, full-screen table. `feed` asks the daemon each second on a thread of its own, `app` is what is known and
//! chosen (pure: answers and keys in, state out), `draw` turns that into cells, `terminal` takes the screen and gives it
//! back whatever happens. Here they are joined.

mod app;
mod close;
mod draw;
mod feed;
mod history;
mod output;
mod rows;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use conmon::api::Level;
use conmon::client::Client;
use ratatui::crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::Top;
use crate::tone::Color;
use app::{App, Effect};
use feed::Feed;
use terminal::Screen;

/// How long the loop waits for a key before it looks for answers and signals.
const WAIT: Duration = Duration::from_millis(100);

/// Runs `top` until the user quits or a signal ends it.
pub fn run(client: Client, options: &Top, color: Color) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "`top` needs a terminal; `conmonctl pairs` prints the same rows anywhere"
    );
    let level = Level::from(options.level);
    // The first answer comes before the screen is taken: what stands in its way is said in plain lines.
    let (feed, first) = Feed::start(client, level)?;
    let color = color.is_on(true);
    // The library below looks at NO_COLOR by itself; `--color` has the last word.
    ratatui::crossterm::style::force_color_output(color);
    let mut app = App::new(level, options.all, color);
    app.sort = options.sort;
    app.take(first);
    terminal::with(|screen| watch(screen, &mut app, &feed))
}

fn watch(screen: &mut Screen, app: &mut App, feed: &Feed) -> anyhow::Result<ExitCode> {
    let mut stale = true;
    loop {
        if stale {
            screen.draw(|frame| draw::draw(app, frame)).context("cannot draw on the terminal")?;
            stale = false;
        }
        if !wait_for_keys()? {
            return Ok(ended_by(rustix::process::Signal::HUP.as_raw()));
        }
        while event::poll(Duration::ZERO).context("cannot read the keyboard")? {
            stale = true;
            // Any other event, a resize say, asks for no more than drawing anew.
            let Event::Key(key) = event::read().context("cannot read the keyboard")? else { continue };
            match app.key(key) {
                Effect::Quit => return Ok(ExitCode::SUCCESS),
                Effect::Ask => feed.ask(app.request()),
                Effect::Redraw => screen.clear().context("cannot draw on the terminal")?,
                Effect::None => {}
            }
        }
        if let Some(signal) = feed.signal() {
            return Ok(ended_by(signal));
        }
        while let Some(update) = feed.next()? {
            app.take(update);
            stale = true;
        }
    }
}

/// Waits for keys, for a moment. False when the terminal has gone: reading events from it then would never return.
fn wait_for_keys() -> anyhow::Result<bool> {
    let stdin = io::stdin();
    let mut wait = [PollFd::new(&stdin, PollFlags::IN)];
    let moment = Timespec { tv_sec: 0, tv_nsec: i64::from(WAIT.subsec_nanos()) };
    match poll(&mut wait, Some(&moment)) {
        Ok(_) => Ok(!wait[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)),
        // The window's size has changed, perhaps.
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error).context("cannot wait for the keyboard"),
    }
}

/// What shells make of a process that a signal ended.
fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
