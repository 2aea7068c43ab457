//! Puts the hosts' pairs together: one row for each pair of the system, with both ends' counters.
//!
//! Hosts are asked for pairs of containers whatever the level: a host does not know which of its groups' packets another
//! one has counted, too. What they answered stays as it came ([`Sheet`]); a row says in whose answer its lines are, and is
//! unpacked when it is written. So a row of the answer, which is of 1.5 KB, is held in some hundreds of octets.

mod level;
mod row;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::{BuildHasher, Hash};

use conmon::api::{EndpointKind, Level, MatrixPair, MatrixQuery, ObservedAt};
use foldhash::quality::RandomState;

use super::sheet::{self, Sheet};
use level::Groups;
pub(super) use row::empty;

/// Rows that are worth a thread of their own to be put in order.
const WORTH_A_THREAD: usize = 1 << 16;

/// A name's beginning by which rows are ordered first.
const NAME_BYTES: usize = 64;

/// A row while rows are put in order: its bytes, its place, and where src's name is in [`Matrix::names`].
type Rank = (u64, u32, u32);

/// A thing of a host's answer: the answer's number, and the thing's in it.
#[derive(Clone, Copy, Debug)]
struct At {
    part: u32,
    number: u32,
}

/// A host's answer.
#[derive(Clone, Debug)]
struct Part {
    host: String,
    sheet: Sheet,
}

/// An end of the system's. Two are the same if kind, name, id and host are: what a host knows of another's container may lack the rest.
#[derive(Clone, Copy, Debug)]
struct End {
    at: At,
    /// Where its name begins in [`Matrix::names`].
    name: u32,
    /// Texts. The word of the end's own host counts, and another's where that has said nothing.
    service: Option<At>,
    tenant: Option<At>,
}

/// The system's pair of two ends.
#[derive(Clone, Copy, Debug)]
struct Row {
    ends: [u32; 2],
    /// The first line that was counted at src's port, and at dst's. The row's values are src's, where there is one.
    views: [Option<At>; 2],
    /// Both ways, as the row tells them.
    bytes: u64,
}

/// The system's pairs.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    parts: Vec<Part>,
    ends: Vec<End>,
    /// Of each end a letter for its kind and its name's beginning, and a zero: what rows of the same bytes are ordered by first lies together.
    names: String,
    /// Ends by two hashes of what makes them the same, with seeds of this process: who does not know them cannot make two ends of one.
    numbers: HashMap<[u64; 2], u32, RandomState>,
    seeds: [RandomState; 2],
    rows: Vec<Row>,
    /// Rows by their ends.
    places: HashMap<[u32; 2], u32, RandomState>,
    /// Lines at ends where there was one already: of two hosts that both say to be the same end's (one that is known by two names, or an
    /// outside peer that both know by one name); neither's packets are the other's.
    more: HashMap<[u32; 2], Vec<At>>,
    /// Once rows were put together at a level.
    groups: Option<Groups>,
    /// Places in the order of the answer, once it was made.
    order: Vec<u32>,
}

impl Matrix {
    /// Adds a host's pairs.
    ///
    /// A conversation between two hosts is in both hosts' pairs, observed at src's port by the one and at dst's by the other: it
    /// becomes one row, whose values are src's. What only one host saw, or what lies within a host, is that host's row.
    pub fn add(&mut self, host: &str, sheet: Sheet) {
        let part = self.parts.len() as u32;
        let hashes: Vec<[u64; 2]> =
            (0..sheet.text_count()).map(|text| self.hashes(sheet.text(text))).collect();
        // first all hashes, then all places: so the memory of several places is waited for at the same time
        let identities: Vec<[u64; 2]> = sheet.ends().iter().map(|end| self.identity(&hashes, end)).collect();
        let ends: Vec<u32> = (0u32..)
            .zip(identities)
            .map(|(number, identity)| self.end(host, &sheet, At { part, number }, identity))
            .collect();
        for (line, number) in sheet.lines().iter().zip(0..) {
            let (ends, at) = (line.ends.map(|end| ends[end as usize]), At { part, number });
            let view = view(line.observed_at);
            match self.places.entry(ends) {
                Place::Vacant(free) => {
                    free.insert(self.rows.len() as u32);
                    let mut views = [None; 2];
                    views[view] = Some(at);
                    self.rows.push(Row { ends, views, bytes: line.bytes });
                }
                Place::Occupied(held) => {
                    let row = &mut self.rows[*held.get() as usize];
                    match (view, row.views) {
                        (0, [None, _]) => row.bytes = line.bytes,
                        (1, [Some(_), _]) => {}
                        _ => row.bytes = row.bytes.saturating_add(line.bytes),
                    }
                    match &mut row.views[view] {
                        Some(_) => self.more.entry(ends).or_default().push(at),
                        none => *none = Some(at),
                    }
                }
            }
        }
        self.parts.push(Part { host: host.to_owned(), sheet });
    }

    fn hashes(&self, of: impl Hash) -> [u64; 2] {
        [0, 1].map(|i| self.seeds[i].hash_one(&of))
    }

    /// What makes an end the same as another, by the hashes of its answer's texts.
    fn identity(&self, texts: &[[u64; 2]], end: &sheet::End) -> [u64; 2] {
        let text = |number: u32| texts[number as usize];
        self.hashes((end.kind, text(end.name), end.id.map(text), end.host.map(text)))
    }

    /// The number of an end of the answer that is being added.
    fn end(&mut self, teller: &str, sheet: &Sheet, at: At, identity: [u64; 2]) -> u32 {
        let end = sheet.ends()[at.number as usize];
        let place = |number: Option<u32>| number.map(|number| At { number, ..at });
        // there is nothing at the last place: such a one has no name
        let name = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let said = End { at, name, service: place(end.service), tenant: place(end.tenant) };
        match self.numbers.entry(identity) {
            Place::Vacant(free) => {
                let number = self.ends.len() as u32;
                free.insert(number);
                let name = sheet.text(end.name);
                self.names.push(char::from(b'a' + end.kind as u8));
                self.names.push_str(&name[..name.floor_char_boundary(NAME_BYTES)]);
                self.names.push('\0');
                self.ends.push(said);
                number
            }
            Place::Occupied(held) => {
                let known = &mut self.ends[*held.get() as usize];
                let by_its_host = end.host.is_some_and(|host| sheet.text(host) == teller);
                let (first, second) = if by_its_host { (said, *known) } else { (*known, said) };
                known.service = first.service.or(second.service);
                known.tenant = first.tenant.or(second.tenant);
                *held.get()
            }
        }
    }

    /// Keeps what is asked for, puts it together at the level, and orders it: the row with most bytes first. Delays cannot be put together
    /// without their distributions: they are there where a row is of one pair alone.
    pub fn select(mut self, query: &MatrixQuery) -> Self {
        self.numbers = HashMap::default();
        self.places = HashMap::default();
        if let Some(tenant) = &query.tenant {
            let is_its: Vec<bool> =
                self.ends.iter().map(|end| self.text(end.tenant) == Some(tenant.as_str())).collect();
            self.rows.retain(|row| row.ends.iter().any(|end| is_its[*end as usize]));
        }
        let level = query.level.unwrap_or_default();
        if level != Level::Container {
            self.groups = Some(Groups::of(&self, level));
        }
        self.order = self.in_order();
        self
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.groups.as_ref().map_or(self.rows.len(), Groups::len)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes `into` the row at this place in the order of [`Self::select`].
    pub fn read(&self, at: usize, into: &mut MatrixPair) {
        let place = self.order[at];
        match &self.groups {
            Some(groups) => groups.read(self, place, into),
            None => self.unpack(&self.rows[place as usize], into),
        }
    }

    /// Rows in their order.
    #[cfg(test)]
    pub fn pairs(&self) -> impl Iterator<Item = MatrixPair> {
        (0..self.len()).map(|at| {
            let mut row = row::empty();
            self.read(at, &mut row);
            row
        })
    }

    fn text(&self, at: Option<At>) -> Option<&str> {
        at.map(|at| self.parts[at.part as usize].sheet.text(at.number))
    }

    /// All places, in order.
    fn in_order(&self) -> Vec<u32> {
        let mut order: Vec<Rank> = match &self.groups {
            Some(groups) => groups.ranks().collect(),
            None => {
                let name = |row: &Row| self.ends[row.ends[0] as usize].name;
                (0..).zip(&self.rows).map(|(place, row)| (row.bytes, place, name(row))).collect()
            }
        };
        order.sort_unstable_by(|a, b| b.cmp(a));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let share = order.len().div_ceil(processors).max(WORTH_A_THREAD);
        std::thread::scope(|scope| {
            let mut rest = &mut order[..];
            while rest.len() > share {
                let equal = rest[share - 1..].windows(2).take_while(|two| two[0].0 == two[1].0).count();
                let (part, others) = rest.split_at_mut(share + equal);
                scope.spawn(|| self.order_by_name(part));
                rest = others;
            }
            self.order_by_name(rest);
        });
        order.into_iter().map(|(_, place, _)| place).collect()
    }

    /// Orders rows of the same bytes by src's kind and name, and where those are the same by all words of both ends. The words are far away
    /// in memory.
    fn order_by_name(&self, order: &mut [Rank]) {
        let mut named = Vec::new();
        for same in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            named.clear();
            named.extend(same.iter().map(|rank| (self.name(rank.2), *rank)));
            named.sort_unstable_by(|a, b| a.0.cmp(b.0).then_with(|| self.compare(a.1.1, b.1.1)));
            same.iter_mut().zip(&named).for_each(|(into, (_, rank))| *into = *rank);
        }
    }

    fn name(&self, at: u32) -> &str {
        self.names.get(at as usize..).and_then(|names| names.split('\0').next()).unwrap_or_default()
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        match &self.groups {
            Some(groups) => groups.compare(self, a, b),
            None => {
                let ends = |place: u32| self.rows[place as usize].ends.map(|end| self.words(end));
                ends(a).cmp(&ends(b))
            }
        }
    }

    /// What an end is called, in the order in which ends are sorted.
    fn words(&self, end: u32) -> Words<'_> {
        let End { at, service, tenant, .. } = self.ends[end as usize];
        let sheet = &self.parts[at.part as usize].sheet;
        let end = sheet.ends()[at.number as usize];
        let text = |number: Option<u32>| number.map(|number| sheet.text(number));
        (end.kind, sheet.text(end.name), text(end.id), self.text(service), self.text(tenant), text(end.host))
    }
}

/// Kind, name, id, service, tenant, host.
type Words<'a> = (EndpointKind, &'a str, Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>);

fn view(at: ObservedAt) -> usize {
    match at {
        ObservedAt::Src => 0,
        ObservedAt::Dst => 1,
    }
}

#[cfg(test)]
mod tests;
