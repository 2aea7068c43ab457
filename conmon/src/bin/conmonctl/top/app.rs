//! What `top` knows and what the user chose. Answers and keys go in; what is drawn follows from the fields alone.

use conmon::api::{Level, Pair, PairsAnswer, Status};
use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::close::Close;
use super::draw::columns;
use super::feed::{Request, Update};
use super::history::History;
use super::rows::{RowKey, Rows};
use crate::order::Order;

/// The longest filter.
const FILTER_LIMIT: usize = 64;
/// For so many answers after a silence the daemon's return is told.
const BACK_ANSWERS: u8 = 5;

/// What a key asks of the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Draw.
    None,
    /// Ask the daemon for something else now.
    Ask,
    /// Draw every cell anew: something else has written on the screen.
    Redraw,
    /// Give the terminal back and end.
    Quit,
}

/// The state of `top`.
#[derive(Debug)]
pub struct App {
    /// The keys, over everything.
    pub help: bool,
    /// The pair that is looked at closely, in place of the table.
    pub close: Option<Close>,
    /// The level that is asked for.
    pub level: Level,
    /// The order of rows.
    pub sort: Order,
    /// Whether the order is reversed.
    pub reverse: bool,
    /// Only rows that have these words, lower case.
    pub filter: String,
    /// Whether keys go into the filter.
    pub editing: bool,
    /// Whether multicast rows are shown.
    pub show_all: bool,
    /// Whether answers are ignored.
    pub paused: bool,
    /// Whether colours are used.
    pub color: bool,
    /// The row the cursor is on, as an index into [`App::rows`].
    pub selected: usize,
    /// The first row on the screen; drawing moves it.
    pub offset: usize,
    /// How many rows the screen holds; drawing sets it.
    pub page: usize,
    /// The newest answer.
    pub answer: Option<PairsAnswer>,
    /// The level of that answer.
    pub shown: Level,
    /// The daemon's own state.
    pub status: Option<Box<Status>>,
    /// Why the last request had no answer.
    pub failure: Option<String>,
    /// How many answers ago a silence ended, while that is told.
    pub back: Option<u8>,
    /// Earlier readings.
    pub history: History,
    known: Rows,
    /// Indices into the answer's pairs, filtered and ordered.
    rows: Vec<usize>,
    hidden: usize,
    widest: [usize; 2],
    cursor: Option<RowKey>,
}

impl App {
    /// Nothing known yet.
    pub fn new(level: Level, show_all: bool, color: bool) -> Self {
        Self {
            help: false,
            close: None,
            level,
            sort: Order::Rate,
            reverse: false,
            filter: String::new(),
            editing: false,
            show_all,
            paused: false,
            color,
            selected: 0,
            offset: 0,
            page: 1,
            answer: None,
            shown: level,
            status: None,
            failure: None,
            back: None,
            history: History::default(),
            known: Rows::default(),
            rows: Vec::new(),
            hidden: 0,
            widest: [0; 2],
            cursor: None,
        }
    }

    /// What the daemon is to be asked for.
    pub fn request(&self) -> Request {
        Request { level: self.level, close: self.close.as_ref().map(|close| close.key.clone()) }
    }

    /// Takes in what has come.
    pub fn take(&mut self, update: Update) {
        match update {
            // A close look that was begun on a standing screen shall not stay empty.
            Update::Close(key, answer) => {
                if let Some(close) = self.close.as_mut().filter(|close| close.key == key)
                    && (!self.paused || close.answer.is_none())
                {
                    close.take(*answer);
                }
            }
            Update::Failed(reason) => {
                self.failure = Some(reason);
                self.back = None;
            }
            Update::Pairs(level, answer) => {
                // Whether it answers is told on a standing screen, too.
                self.back = match (self.failure.take(), self.back) {
                    (Some(_), _) => Some(0),
                    (None, back) => back.map(|answers| answers + 1).filter(|answers| *answers < BACK_ANSWERS),
                };
                if !self.paused && level == self.level {
                    self.history.take(&answer.pairs);
                    self.known = Rows::of(&answer.pairs);
                    self.answer = Some(answer);
                    self.shown = level;
                    self.arrange();
                }
            }
            Update::Status(status) if !self.paused => self.status = Some(status),
            Update::Status(_) => {}
        }
    }

    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> Effect {
        if key.kind == KeyEventKind::Release {
            return Effect::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Effect::Quit,
                KeyCode::Char('l') => return Effect::Redraw,
                KeyCode::Char('u') if self.editing => self.set_filter(String::new()),
                _ => {}
            }
            return Effect::None;
        }
        if self.help {
            self.help = false;
            return Effect::None;
        }
        if self.editing {
            return self.edit(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('p' | ' ') => return self.pause(),
            code if self.close.is_some() => return self.close_key(code),
            code => return self.table_key(code),
        }
        Effect::None
    }

    fn table_key(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Char('/') => self.editing = true,
            KeyCode::Esc => self.set_filter(String::new()),
            KeyCode::Char('s' | '>') => self.order(columns::next(self.sort, 1)),
            KeyCode::Char('S' | '<') => self.order(columns::next(self.sort, -1)),
            KeyCode::Char('r') => {
                self.reverse = !self.reverse;
                self.arrange();
            }
            KeyCode::Char('a') => {
                self.show_all = !self.show_all;
                self.arrange();
            }
            KeyCode::Char('l') | KeyCode::Tab => return self.group(1),
            KeyCode::Char('L') | KeyCode::BackTab => return self.group(3),
            KeyCode::Enter | KeyCode::Right => return self.look_closely(),
            code => self.move_by(code),
        }
        Effect::None
    }

    /// The next level, or with three steps of four the one before.
    fn group(&mut self, steps: usize) -> Effect {
        const LEVELS: [Level; 4] = [Level::Container, Level::Service, Level::Host, Level::Tenant];
        let at = LEVELS.iter().position(|level| *level == self.level).unwrap_or(0);
        self.level = LEVELS[(at + steps) % LEVELS.len()];
        // A paused screen that changed its level would stay as it was.
        self.paused = false;
        Effect::Ask
    }

    fn look_closely(&mut self) -> Effect {
        // Between two levels the rows are still those of the one before.
        let Some(cursor) = self.cursor.clone().filter(|_| self.shown == self.level) else {
            return Effect::None;
        };
        let late = self.close.as_ref().is_some_and(|close| close.late);
        self.close = Some(Close::at(cursor, late));
        Effect::Ask
    }

    fn close_key(&mut self, code: KeyCode) -> Effect {
        let Some(close) = &mut self.close else { return Effect::None };
        match code {
            KeyCode::Esc | KeyCode::Enter | KeyCode::Left | KeyCode::Backspace => {
                self.close = None;
                return Effect::Ask;
            }
            KeyCode::Char('w') => close.late = !close.late,
            KeyCode::PageUp => close.scroll = close.scroll.saturating_sub(self.page),
            // Drawing keeps it within the list.
            KeyCode::PageDown => close.scroll = close.scroll.saturating_add(self.page),
            KeyCode::Up | KeyCode::Down | KeyCode::Char('k' | 'j') => {
                let before = self.cursor.clone();
                self.move_by(code);
                if self.cursor != before {
                    return self.look_closely();
                }
            }
            _ => {}
        }
        Effect::None
    }

    fn move_by(&mut self, code: KeyCode) {
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.move_to(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.move_to(self.selected + 1),
            KeyCode::PageUp => self.move_to(self.selected.saturating_sub(self.page)),
            KeyCode::PageDown => self.move_to(self.selected + self.page),
            KeyCode::Home | KeyCode::Char('g') => self.move_to(0),
            KeyCode::End | KeyCode::Char('G') => self.move_to(usize::MAX),
            _ => {}
        }
    }

    fn edit(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Enter => self.editing = false,
            KeyCode::Esc => {
                self.editing = false;
                self.set_filter(String::new());
            }
            KeyCode::Backspace => {
                // As editors do it: what takes the last thing back leaves.
                self.editing = self.filter.pop().is_some();
                self.arrange();
            }
            KeyCode::Char(c) if self.filter.len() < FILTER_LIMIT && !c.is_control() => {
                self.filter.extend(c.to_lowercase());
                self.arrange();
            }
            KeyCode::Up
            | KeyCode::Down
            | KeyCode::PageUp
            | KeyCode::PageDown
            | KeyCode::Home
            | KeyCode::End => {
                self.move_by(code);
            }
            _ => {}
        }
        Effect::None
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.arrange();
    }

    fn pause(&mut self) -> Effect {
        self.paused = !self.paused;
        if self.paused { Effect::None } else { Effect::Ask }
    }

    fn order(&mut self, sort: Order) {
        self.sort = sort;
        self.reverse = false;
        self.arrange();
    }

    fn move_to(&mut self, row: usize) {
        self.selected = row.min(self.rows.len().saturating_sub(1));
        self.cursor = self.row(self.selected).map(RowKey::of);
    }

    /// Filters and orders anew. The cursor stays on its row, wherever that goes; if it has gone, at its place.
    fn arrange(&mut self) {
        let pairs = self.answer.as_ref().map_or(&[][..], |answer| &answer.pairs);
        let mut rows: Vec<usize> =
            (0..pairs.len()).filter(|at| self.show_all || !self.known.is_multicast(*at)).collect();
        self.hidden = pairs.len() - rows.len();
        if !self.filter.is_empty() {
            rows.retain(|at| self.known.admits(*at, &pairs[*at], &self.filter));
        }
        self.sort.arrange(pairs, &self.known.names, self.reverse, &mut rows);
        let found = self.cursor.as_ref().and_then(|key| rows.iter().position(|at| key.is(&pairs[*at])));
        self.widest = self.known.widest(&rows);
        self.rows = rows;
        self.move_to(found.unwrap_or(self.selected));
    }

    /// The rows, filtered and in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &Pair> {
        let pairs = self.answer.as_ref().map_or(&[][..], |answer| &answer.pairs);
        self.rows.iter().map(move |at| &pairs[*at])
    }

    fn row(&self, at: usize) -> Option<&Pair> {
        self.answer.as_ref()?.pairs.get(*self.rows.get(at)?)
    }

    /// How many multicast rows are hidden.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The columns that the widest names of the rows take, src and dst.
    pub fn widest(&self) -> [usize; 2] {
        self.widest
    }

    /// The pair that is looked at closely as it was last seen; none if it has gone.
    pub fn close_pair(&self) -> Option<&Pair> {
        let close = self.close.as_ref()?;
        match &close.answer {
            Some(answer) => answer.pair.as_ref(),
            // Until its own answer comes, the table's row does.
            None => self.answer.as_ref()?.pairs.iter().find(|pair| close.key.is(pair)),
        }
    }

    /// When what is shown was true.
    pub fn now(&self) -> Timestamp {
        self.answer.as_ref().map_or(Timestamp::UNIX_EPOCH, |answer| answer.generated_at)
    }
}
