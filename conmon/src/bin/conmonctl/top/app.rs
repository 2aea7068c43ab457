//! What `top` knows and what the user chose. Answers and keys go in; what is drawn follows from the fields alone.

use std::collections::{HashMap, VecDeque};

use conmon::api::{FlowsAnswer, FlowsQuery, Level, Pair, PairsAnswer, Status};
use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::feed::{Request, Update};
use super::row::{RowKey, Sort, byte_rate, contains};

/// How many readings of a pair's rate are kept for its graph.
const HISTORY: usize = 120;
/// How many flows a close look shows.
const FLOWS: u32 = 20;
/// The longest filter.
const FILTER_LIMIT: usize = 64;

/// What a key asks of the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Draw.
    None,
    /// Ask the daemon for something else now.
    Ask,
    /// Give the terminal back and end.
    Quit,
}

/// What covers the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Screen {
    /// The table.
    Table,
    /// One pair.
    Detail(RowKey),
    /// The keys, over the table.
    Help,
}

/// The state of `top`.
#[derive(Debug)]
pub struct App {
    /// The screen.
    pub screen: Screen,
    /// The level that is asked for.
    pub level: Level,
    /// The order of rows.
    pub sort: Sort,
    /// Whether the order is reversed.
    pub reverse: bool,
    /// Only rows that contain this, lower case.
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
    /// The daemon's own state.
    pub status: Option<Box<Status>>,
    /// The flows of the pair that is looked at closely.
    pub flows: Option<FlowsAnswer>,
    /// Why the last request had no answer.
    pub failure: Option<String>,
    history: HashMap<RowKey, VecDeque<f64>>,
    /// Indices into the answer's pairs, filtered and ordered.
    rows: Vec<usize>,
    hidden: usize,
    cursor: Option<RowKey>,
}

impl App {
    /// Nothing known yet.
    pub fn new(level: Level, show_all: bool, color: bool) -> Self {
        Self {
            screen: Screen::Table,
            level,
            sort: Sort::Rate,
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
            status: None,
            flows: None,
            failure: None,
            history: HashMap::new(),
            rows: Vec::new(),
            hidden: 0,
            cursor: None,
        }
    }

    /// What the daemon is to be asked for.
    pub fn request(&self) -> Request {
        Request { level: self.level, flows: self.flows_query() }
    }

    /// Takes in what has come.
    pub fn take(&mut self, update: Update) {
        if self.paused {
            return;
        }
        match update {
            Update::Pairs(level, answer) if level == self.level => {
                self.failure = None;
                self.remember(&answer);
                self.answer = Some(answer);
                self.arrange();
            }
            Update::Flows(query, answer) if self.flows_query().as_ref() == Some(&query) => {
                self.flows = Some(answer);
            }
            Update::Status(status) => self.status = Some(status),
            Update::Failed(reason) => self.failure = Some(reason),
            // Answers to what was asked before the user chose something else.
            Update::Pairs(..) | Update::Flows(..) => {}
        }
    }

    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> Effect {
        if key.kind == KeyEventKind::Release {
            return Effect::None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Effect::Quit;
        }
        if self.editing {
            self.edit(key);
            return Effect::None;
        }
        match self.screen {
            Screen::Help => {
                self.screen = Screen::Table;
                Effect::None
            }
            Screen::Detail(_) => match key.code {
                KeyCode::Char('q') => Effect::Quit,
                KeyCode::Esc | KeyCode::Enter | KeyCode::Left | KeyCode::Backspace => {
                    self.screen = Screen::Table;
                    self.flows = None;
                    Effect::Ask
                }
                KeyCode::Char('p' | ' ') => self.pause(),
                _ => Effect::None,
            },
            Screen::Table => self.table_key(key.code),
        }
    }

    fn table_key(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.screen = Screen::Help,
            KeyCode::Char('/') => self.editing = true,
            KeyCode::Esc => {
                self.filter.clear();
                self.arrange();
            }
            KeyCode::Char('s') => self.order(self.sort.step(1)),
            KeyCode::Char('S') => self.order(self.sort.step(-1)),
            KeyCode::Char('r') => {
                self.reverse = !self.reverse;
                self.arrange();
            }
            KeyCode::Char('a') => {
                self.show_all = !self.show_all;
                self.arrange();
            }
            KeyCode::Char('p' | ' ') => return self.pause(),
            KeyCode::Char('l') => {
                self.level = match self.level {
                    Level::Container => Level::Service,
                    Level::Service => Level::Tenant,
                    Level::Tenant => Level::Host,
                    Level::Host => Level::Container,
                };
                // A paused screen that changed its level would stay empty.
                self.paused = false;
                return Effect::Ask;
            }
            KeyCode::Enter | KeyCode::Right => {
                if let Some(cursor) = self.cursor.clone() {
                    self.screen = Screen::Detail(cursor);
                    self.flows = None;
                    return Effect::Ask;
                }
            }
            KeyCode::Up | KeyCode::Char('k') => self.move_to(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.move_to(self.selected + 1),
            KeyCode::PageUp => self.move_to(self.selected.saturating_sub(self.page)),
            KeyCode::PageDown => self.move_to(self.selected + self.page),
            KeyCode::Home | KeyCode::Char('g') => self.move_to(0),
            KeyCode::End | KeyCode::Char('G') => self.move_to(usize::MAX),
            _ => {}
        }
        Effect::None
    }

    fn edit(&mut self, key: KeyEvent) {
        match key.code {
            KeyCode::Enter => self.editing = false,
            KeyCode::Esc => {
                self.editing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => self.filter.clear(),
            KeyCode::Char(c) if self.filter.len() < FILTER_LIMIT && !c.is_control() => {
                self.filter.extend(c.to_lowercase());
            }
            _ => {}
        }
        self.arrange();
    }

    fn pause(&mut self) -> Effect {
        self.paused = !self.paused;
        if self.paused { Effect::None } else { Effect::Ask }
    }

    fn order(&mut self, sort: Sort) {
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
        let multicast = |pair: &Pair| pair.src.is_multicast() || pair.dst.is_multicast();
        let mut rows: Vec<usize> =
            (0..pairs.len()).filter(|at| self.show_all || !multicast(&pairs[*at])).collect();
        self.hidden = pairs.len() - rows.len();
        rows.retain(|at| self.filter.is_empty() || contains(&pairs[*at], &self.filter));
        rows.sort_by(|a, b| self.sort.compare(&pairs[*a], &pairs[*b], self.reverse));
        let found =
            self.cursor.as_ref().and_then(|key| rows.iter().position(|at| RowKey::of(&pairs[*at]) == *key));
        self.rows = rows;
        self.move_to(found.unwrap_or(self.selected));
    }

    fn remember(&mut self, answer: &PairsAnswer) {
        let mut kept = HashMap::with_capacity(answer.pairs.len());
        for pair in &answer.pairs {
            let key = RowKey::of(pair);
            let mut rates = self.history.remove(&key).unwrap_or_default();
            if let Some(rate) = byte_rate(pair) {
                rates.push_back(rate);
            }
            if rates.len() > HISTORY {
                rates.pop_front();
            }
            kept.insert(key, rates);
        }
        self.history = kept;
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

    /// The pair that is looked at closely, if it is still there.
    pub fn detail(&self) -> Option<&Pair> {
        let Screen::Detail(key) = &self.screen else { return None };
        self.answer.as_ref()?.pairs.iter().find(|pair| RowKey::of(pair) == *key)
    }

    /// The readings of a pair's byte rate, oldest first.
    pub fn rates(&self, pair: &Pair) -> Vec<f64> {
        self.history.get(&RowKey::of(pair)).map(|rates| rates.iter().copied().collect()).unwrap_or_default()
    }

    /// When what is shown was true.
    pub fn now(&self) -> Timestamp {
        self.answer.as_ref().map_or(Timestamp::UNIX_EPOCH, |answer| answer.generated_at)
    }

    /// Flows are between containers: only at that level does a row say whose to ask for.
    fn flows_query(&self) -> Option<FlowsQuery> {
        if self.level != Level::Container {
            return None;
        }
        let pair = self.detail()?;
        let end = |end: &conmon::api::Endpoint| Some(end.id.clone().unwrap_or_else(|| end.name.clone()));
        Some(FlowsQuery {
            src: end(&pair.src),
            dst: end(&pair.dst),
            limit: Some(FLOWS),
            ..FlowsQuery::default()
        })
    }
}
