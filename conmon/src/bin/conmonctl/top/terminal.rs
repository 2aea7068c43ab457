//! Taking the terminal, and giving it back whatever happens: on the way out, on errors, and on panics of any thread.

use std::io::{self, stdout};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::output::Output;

/// The whole screen.
pub type Screen = Terminal<CrosstermBackend<Output<io::Stdout>>>;

/// What other threads panicked about while the screen was taken.
static ELSEWHERE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Does something with the whole screen. On return, and before a panic is reported, the terminal is as it was.
pub fn with<T>(work: impl FnOnce(&mut Screen) -> anyhow::Result<T>) -> anyhow::Result<T> {
    report_panics_on_a_terminal_given_back();
    let taken = enable_raw_mode().and_then(|()| execute!(stdout(), EnterAlternateScreen));
    let screen = taken.and_then(|()| Terminal::new(CrosstermBackend::new(Output::new(stdout()))));
    let done = match screen {
        Ok(mut screen) => work(&mut screen),
        Err(error) => Err(error).context("cannot take over the terminal"),
    };
    let given_back = give_back().context("cannot give the terminal back; `reset` does");
    let panics = ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner).join("; ");
    anyhow::ensure!(panics.is_empty(), "{panics}");
    let done = done?;
    given_back?;
    Ok(done)
}

fn give_back() -> io::Result<()> {
    // First what has most effect on whoever types next.
    let cooked = disable_raw_mode();
    execute!(stdout(), LeaveAlternateScreen, Show)?;
    cooked
}

/// A panic of the thread that has the screen gives it back and is then reported as usual. One of another thread is kept
/// until the screen is given back in order: its report would be drawn over, and the terminal taken away from the one
/// that draws.
fn report_panics_on_a_terminal_given_back() {
    let usual = std::panic::take_hook();
    let with_the_screen = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if std::thread::current().id() == with_the_screen {
            // There is nobody to tell that this failed too.
            let _ = give_back();
            usual(info);
        } else {
            ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::pty::{ENTER_SCREEN, LEAVE_SCREEN, Pty};

    /// Says in the child which of the tests below is to panic for good.
    const PANIC: &str = "CONMONCTL_TEST_PANIC";

    /// Runs one test of this executable, alone, on a terminal; returns what was written there and to its other output.
    fn on_a_terminal(test: &str) -> (Pty, String) {
        let pty = Pty::new(80, 24);
        let child = Command::new(std::env::current_exe().expect("this executable"))
            .args(["--exact", &format!("top::terminal::tests::{test}"), "--nocapture"])
            .env(PANIC, "1")
            .stdin(pty.slave())
            .stdout(pty.slave())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the test runs");
        let mut pty = pty;
        pty.drain();
        let output = child.wait_with_output().expect("an end");
        assert!(!output.status.success(), "it panics for good");
        (pty, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_reported() {
        if std::env::var_os(PANIC).is_some() {
            let _ = with::<()>(|_| panic!("on purpose"));
            return;
        }
        let (pty, said) = on_a_terminal("a_panic_gives_the_terminal_back_before_it_is_reported");
        let written = pty.written();
        let (entered, left) = (written.find(ENTER_SCREEN), written.find(LEAVE_SCREEN));
        assert!(entered.is_some() && entered < left, "{written:?}");
        assert!(pty.is_cooked());
        assert!(said.contains("on purpose"), "{said}");
    }

    #[test]
    fn a_panic_elsewhere_is_told_when_the_terminal_is_given_back() {
        if std::env::var_os(PANIC).is_some() {
            let done = with(|_| {
                let other = std::thread::spawn(|| panic!("on another thread"));
                assert!(other.join().is_err());
                // The screen is still ours.
                execute!(stdout(), ratatui::crossterm::style::Print("drawn on"))?;
                Ok(())
            });
            panic!("{:#}", done.expect_err("the panic is an error"));
        }
        let (pty, said) = on_a_terminal("a_panic_elsewhere_is_told_when_the_terminal_is_given_back");
        let written = pty.written();
        let order = [ENTER_SCREEN, "drawn on", LEAVE_SCREEN].map(|text| written.find(text));
        assert!(order.is_sorted() && order[0].is_some(), "{written:?}");
        assert_eq!(written.matches(LEAVE_SCREEN).count(), 2, "once by `with`, once by the test's own panic");
        assert!(pty.is_cooked());
        assert!(said.contains("on another thread"), "{said}");
    }
}
