//! A terminal to run a program on: a pseudo-terminal, its modes, and what a user sees on it. Shared by inclusion.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

pub const ENTER_SCREEN: &str = "\u{1b}[?1049h";
pub const LEAVE_SCREEN: &str = "\u{1b}[?1049l";

/// What is waited for comes within this, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// The user's side of a terminal.
pub struct Pty {
    master: File,
    name: String,
    columns: u16,
    rows: u16,
    /// Everything that was written on it so far.
    bytes: Vec<u8>,
    /// Where the window's size changed last: what was written before is not on the screen any more.
    resized: usize,
}

impl Pty {
    pub fn new(columns: u16, rows: u16) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a usable terminal");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let mut pty = Self { master: File::from(master), name, columns, rows, bytes: Vec::new(), resized: 0 };
        pty.resize(columns, rows);
        pty
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a size");
        (self.columns, self.rows, self.resized) = (columns, rows, self.bytes.len());
    }

    /// The program's side.
    pub fn slave(&self) -> File {
        fs::OpenOptions::new().read(true).write(true).open(&self.name).expect("the other side")
    }

    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("keys");
    }

    /// Waits until the screen shows this, and returns the screen.
    pub fn shows(&mut self, text: &str) -> String {
        self.until(&format!("{text:?} to be shown"), |pty| pty.screen().contains(text))
    }

    /// Waits until the screen no longer shows this, and returns the screen.
    pub fn hides(&mut self, text: &str) -> String {
        self.until(&format!("{text:?} to go"), |pty| !pty.screen().contains(text))
    }

    /// Waits until this was written so many times.
    pub fn writes(&mut self, text: &str, times: usize) -> String {
        self.until(&format!("{text:?} {times} times"), |pty| pty.written().matches(text).count() >= times)
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is_so(self) {
                return screen;
            }
            assert!(Instant::now() < deadline, "waited for {what} in vain:\n{screen}");
            assert!(self.more(), "waited for {what} until the program ended:\n{screen}");
        }
    }

    /// Reads until everybody has closed the other side. Returns everything that was ever written, as it was written.
    pub fn drain(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.more() {
            assert!(Instant::now() < deadline, "somebody still has the terminal open:\n{}", self.screen());
        }
        self.written()
    }

    /// Everything that was written so far, as it was written.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// False when nobody is there to write any more.
    fn more(&mut self) -> bool {
        let mut wait = [PollFd::new(&self.master, PollFlags::IN)];
        let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if poll(&mut wait, Some(&moment)).is_ok_and(|ready| ready == 0) {
            return true;
        }
        let mut more = [0; 4096];
        match self.master.read(&mut more) {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.bytes.extend_from_slice(&more[..length]);
                true
            }
        }
    }

    /// Whether lines are edited and echoed, as a shell's user expects.
    pub fn is_cooked(&self) -> bool {
        tcgetattr(&self.master)
            .is_ok_and(|mode| mode.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO))
    }

    /// What is on the screen: as much of a terminal as conmonctl uses. Placing the cursor, clearing, text; colours
    /// leave no trace.
    fn screen(&self) -> String {
        let (columns, rows) = (usize::from(self.columns), usize::from(self.rows));
        let mut grid = vec![vec![' '; columns]; rows];
        let (mut row, mut column) = (0, 0);
        let written = String::from_utf8_lossy(&self.bytes[self.resized..]).into_owned();
        let mut chars = written.chars();
        while let Some(c) = chars.next() {
            match c {
                '\u{1b}' => {
                    let mut parameters = String::new();
                    let mut last = ' ';
                    for c in chars.by_ref().skip_while(|c| *c == '[') {
                        if c.is_ascii_alphabetic() {
                            last = c;
                            break;
                        }
                        parameters.push(c);
                    }
                    let numbers: Vec<usize> =
                        parameters.split(';').map(|number| number.parse().unwrap_or(0)).collect();
                    let number = |at: usize| numbers.get(at).copied().unwrap_or(0).max(1) - 1;
                    match last {
                        'H' => (row, column) = (number(0), number(1)),
                        'J' if parameters == "2" => grid.iter_mut().for_each(|line| line.fill(' ')),
                        'J' => {
                            grid.iter_mut().skip(row + 1).for_each(|line| line.fill(' '));
                            grid.get_mut(row).into_iter().flatten().skip(column).for_each(|cell| *cell = ' ');
                        }
                        'K' => {
                            grid.get_mut(row).into_iter().flatten().skip(column).for_each(|cell| *cell = ' ');
                        }
                        _ => {}
                    }
                }
                '\r' => column = 0,
                '\n' if row + 1 < rows => row += 1,
                '\n' => {
                    grid.rotate_left(1);
                    grid.iter_mut().last().into_iter().flatten().for_each(|cell| *cell = ' ');
                }
                c => {
                    if let Some(cell) = grid.get_mut(row).and_then(|line| line.get_mut(column)) {
                        *cell = c;
                    }
                    column += 1;
                }
            }
        }
        let lines: Vec<String> =
            grid.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect();
        lines.join("\n")
    }
}
