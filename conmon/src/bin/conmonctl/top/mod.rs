//! The live, full-screen table. Three parts: `feed` asks the daemon each second on a thread of its own, `app` is what is
//! known and chosen (pure: answers and keys in, state out), `draw` turns that into cells. Here they are joined, and the
//! terminal is given back whatever happens: on quitting, on errors, on panics, and on signals.

mod app;
mod draw;
mod feed;
mod row;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use conmon::api::Level;
use conmon::client::Client;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use app::{App, Effect};
use feed::Feed;

/// How long the loop waits for a key before it looks for answers and signals.
const WAIT: Duration = Duration::from_millis(100);

/// Runs `top` until the user quits or a signal ends it.
pub fn run(client: Client, level: Level, show_all: bool) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "`top` needs a terminal; `conmonctl pairs` prints the same rows anywhere"
    );
    // The first answer comes before the screen is taken: what stands in its way is said in plain lines.
    let (feed, first) = Feed::start(client, level)?;
    let mut app =
        App::new(level, show_all, std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    app.take(first);

    let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let end = watch(&mut terminal, &mut app, &feed);
    ratatui::try_restore().context("cannot give the terminal back; `reset` does")?;
    end
}

fn watch(terminal: &mut DefaultTerminal, app: &mut App, feed: &Feed) -> anyhow::Result<ExitCode> {
    let mut stale = true;
    loop {
        if stale {
            terminal.draw(|frame| draw::draw(app, frame)).context("cannot draw on the terminal")?;
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
                Effect::None => {}
            }
        }
        if let Some(signal) = feed.signal() {
            return Ok(ended_by(signal));
        }
        while let Some(update) = feed.next() {
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
