//! Puts the hosts' pairs together: one row for each pair of the system, with both ends' counters.
//!
//! Hosts are asked for pairs of containers whatever the level: a host does not know which of its groups' packets another
//! one has counted, too. Rows are held as [`Line`]s, some 0.5 KB each, and written one by one.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use conmon::api::{Count, EndpointKind, HostView, Level, MatrixPair, MatrixQuery, ObservedAt, Views};
use foldhash::quality::RandomState;

use super::sheet::{End, Line, Sheet, Words};

/// What one end's host counted: the host's name, from src to dst, and back.
type View = (u32, [Count; 2]);

/// A row: the pair, and what was counted at src's and at dst's port.
#[derive(Clone, Debug)]
struct Row {
    line: Line,
    views: [Option<View>; 2],
}

/// The system's pairs.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    words: Words,
    rows: Vec<Row>,
    /// Rows by their ends.
    places: HashMap<[u32; 2], u32, RandomState>,
    /// Places in the order of the answer, once it was made.
    order: Vec<u32>,
}

impl Matrix {
    /// Adds a host's pairs.
    ///
    /// A conversation between two hosts is in both hosts' pairs, observed at src's port by the one and at dst's by the other: it
    /// becomes one row, whose values are src's. What only one host saw, or what lies within a host, is that host's row.
    pub fn add(&mut self, host: &str, sheet: Sheet) {
        let host = self.words.texts.number(host.to_owned());
        let lines: Vec<Line> = sheet.into_lines(&mut self.words, Some(host)).collect();
        for line in lines {
            let mut views = [None; 2];
            views[at(line.observed_at)] = Some((host, line.counts));
            let place = self.rows.len() as u32;
            match self.places.entry(line.ends) {
                Entry::Vacant(free) => {
                    free.insert(place);
                    self.rows.push(Row { line, views });
                }
                Entry::Occupied(held) => {
                    let row = &mut self.rows[*held.get() as usize];
                    let seen = &mut row.views[at(line.observed_at)];
                    match seen {
                        // two hosts that both say to be the same end's: a host that is known by two names, or an outside peer
                        // that both know by one name; neither's packets are the other's
                        Some((_, counts)) => *counts = sums(*counts, line.counts),
                        None => *seen = Some((host, line.counts)),
                    }
                    join(&mut self.words, &mut row.line, line);
                }
            }
        }
    }

    /// Keeps what is asked for, puts it together at the level, and orders it: the row with most bytes first. Delays cannot be put together
    /// without their distributions: they are there where a row is of one pair alone.
    pub fn select(mut self, query: &MatrixQuery) -> Self {
        if let Some(tenant) = &query.tenant {
            let tenant = self.words.texts.number(tenant.clone());
            let ends = &self.words.ends;
            let is_its = |end: &u32| ends.get(*end).tenant == Some(tenant);
            self.rows.retain(|row| row.line.ends.iter().any(is_its));
        }
        let level = query.level.unwrap_or_default();
        if level != Level::Container {
            self.group(level);
        }
        self.places = HashMap::default();
        self.sort();
        self
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows from a place in the order of [`Self::select`] on, as the API has them.
    pub fn pairs(&self, from: usize) -> impl Iterator<Item = MatrixPair> {
        self.order.iter().skip(from).map(|place| {
            let row = &self.rows[*place as usize];
            let view = |view: &Option<View>| {
                view.as_ref().map(|(host, [sent, received])| HostView {
                    host: self.words.texts.get(*host).clone(),
                    sent: *sent,
                    received: *received,
                })
            };
            let views = Views { src: view(&row.views[0]), dst: view(&row.views[1]) };
            MatrixPair { pair: self.words.pair(&row.line), views }
        })
    }

    fn group(&mut self, level: Level) {
        let ends: Vec<u32> = (0..self.words.ends.len() as u32)
            .map(|number| {
                let end = *self.words.ends.get(number);
                self.words.number_of(at_level(end, level), false)
            })
            .collect();
        let rows = std::mem::take(&mut self.rows);
        self.places = HashMap::default();
        let mut gathered: HashMap<u32, Gathered> = HashMap::new();
        for mut row in rows {
            row.line.ends = row.line.ends.map(|end| ends[end as usize]);
            let place = self.rows.len() as u32;
            match self.places.entry(row.line.ends) {
                Entry::Vacant(free) => {
                    free.insert(place);
                    self.rows.push(row);
                }
                Entry::Occupied(held) => {
                    let into = &mut self.rows[*held.get() as usize];
                    let all = gathered.entry(*held.get()).or_insert_with(|| Gathered::of(&self.words, into));
                    all.add(&self.words, &row);
                    add(into, &row);
                }
            }
        }
        for (place, all) in gathered {
            all.put(&mut self.words, &mut self.rows[place as usize]);
        }
    }

    /// Puts places in order, and leaves the rows, which are long, where they are.
    fn sort(&mut self) {
        let bytes = |row: &Row| row.line.counts[0].bytes.saturating_add(row.line.counts[1].bytes);
        let mut order: Vec<(u64, u32)> = self.rows.iter().map(bytes).zip(0..).collect();
        let line = |place: u32| &self.rows[place as usize].line;
        order.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| self.compare(line(a.1), line(b.1))));
        self.order = order.into_iter().map(|(_, place)| place).collect();
    }

    fn compare(&self, a: &Line, b: &Line) -> Ordering {
        let text = |number: Option<u32>| number.map(|number| self.words.texts.get(number));
        let end = |number: u32| {
            let end = self.words.ends.get(number);
            (
                end.kind,
                text(Some(end.name)),
                text(end.id),
                text(end.service),
                text(end.tenant),
                text(end.host),
            )
        };
        let ends = |line: &Line| line.ends.map(end);
        ends(a).cmp(&ends(b))
    }
}

fn at(at: ObservedAt) -> usize {
    match at {
        ObservedAt::Src => 0,
        ObservedAt::Dst => 1,
    }
}

/// The end that stands for this one at a level, as [`crate::store::at_level`] has it.
fn at_level(end: End, level: Level) -> End {
    let kept = End { id: None, ..end };
    match (level, end.kind) {
        (Level::Service, EndpointKind::Container) => match end.service {
            Some(name) => End { kind: EndpointKind::Service, name, host: None, ..kept },
            None => end,
        },
        (Level::Tenant, EndpointKind::Container) => match end.tenant {
            Some(name) => End { kind: EndpointKind::Tenant, name, service: None, host: None, ..kept },
            None => end,
        },
        (Level::Host, EndpointKind::Container | EndpointKind::Host) => match end.host {
            Some(name) => End { kind: EndpointKind::Host, name, service: None, tenant: None, ..kept },
            None => end,
        },
        _ => end,
    }
}

fn sums(a: [Count; 2], b: [Count; 2]) -> [Count; 2] {
    let [mut sent, mut received] = a;
    sent += b[0];
    received += b[1];
    [sent, received]
}

/// A sum of what is there.
fn sum<T: Copy>(a: &mut Option<T>, b: Option<T>, plus: impl Fn(T, T) -> T) {
    *a = a.zip(b).map(|(a, b)| plus(a, b)).or(*a).or(b);
}

/// What the rows of a group have in lists, while they are put together: a list is numbered when it is whole, for what has a number is held.
#[derive(Default)]
struct Gathered {
    addresses: [BTreeSet<IpAddr>; 2],
    hosts: [BTreeSet<u32>; 2],
    protocols: BTreeSet<u32>,
    via: BTreeSet<u32>,
}

impl Gathered {
    fn of(words: &Words, row: &Row) -> Self {
        let mut all = Self::default();
        all.add(words, row);
        all
    }

    fn add(&mut self, words: &Words, row: &Row) {
        for (into, list) in self.addresses.iter_mut().zip(row.line.addresses) {
            into.extend(words.addresses.get(list));
        }
        for (into, view) in self.hosts.iter_mut().zip(row.views) {
            into.extend(view.map(|(host, _)| host));
        }
        self.protocols.extend(words.lists.get(row.line.protocols));
        self.via.extend(words.lists.get(row.line.via));
    }

    fn put(self, words: &mut Words, row: &mut Row) {
        row.line.addresses = self.addresses.map(|all| words.addresses.number(all.into_iter().collect()));
        row.line.protocols = words.lists.number(self.protocols.into_iter().collect());
        row.line.via = words.lists.number(self.via.into_iter().collect());
        for (view, hosts) in row.views.iter_mut().zip(self.hosts) {
            if let Some((host, _)) = view {
                let names: Vec<&str> = hosts.iter().map(|number| words.texts.get(*number).as_str()).collect();
                let names = names.join(",");
                *host = words.texts.number(names);
            }
        }
    }
}

/// Adds a row's numbers to another's of the same ends at a level.
fn add(into: &mut Row, row: &Row) {
    for (into, from) in into.views.iter_mut().zip(row.views) {
        match (into, from) {
            (Some((_, counts)), Some((_, more))) => *counts = sums(*counts, more),
            (into @ None, from) => *into = from,
            (Some(_), None) => {}
        }
    }
    let (a, b) = (&mut into.line, &row.line);
    for (a, b) in a.segments.iter_mut().zip(b.segments) {
        sum(a, b, u64::saturating_add);
    }
    for (a, b) in a.rates.iter_mut().zip(b.rates) {
        sum(a, b, |a, b| a + b);
    }
    a.delays = None;
    a.guessed |= b.guessed;
    a.counts = sums(a.counts, b.counts);
    a.flows = [0, 1].map(|i| a.flows[i].saturating_add(b.flows[i]));
    a.seen_ns = [a.seen_ns[0].min(b.seen_ns[0]), a.seen_ns[1].max(b.seen_ns[1])];
}

/// One pair of two views: src's, with what only dst's knows.
fn join(words: &mut Words, held: &mut Line, other: Line) {
    let other = match (held.observed_at, other.observed_at) {
        (ObservedAt::Dst, ObservedAt::Src) => std::mem::replace(held, other),
        _ => other,
    };
    if held.observed_at == other.observed_at {
        held.counts = sums(held.counts, other.counts);
        held.flows = [0, 1].map(|i| held.flows[i].saturating_add(other.flows[i]));
    }
    widen(words, held, &other);
}

/// Times, addresses and words of both.
fn widen(words: &mut Words, kept: &mut Line, other: &Line) {
    kept.seen_ns = [kept.seen_ns[0].min(other.seen_ns[0]), kept.seen_ns[1].max(other.seen_ns[1])];
    for (into, from) in kept.addresses.iter_mut().zip(other.addresses) {
        if *into != from {
            let mut all = words.addresses.get(*into).clone();
            all.extend_from_slice(words.addresses.get(from));
            all.sort_unstable();
            all.dedup();
            *into = words.addresses.number(all);
        }
    }
    for (into, from) in [(&mut kept.protocols, other.protocols), (&mut kept.via, other.via)] {
        if *into != from {
            let mut all = words.lists.get(*into).clone();
            for text in words.lists.get(from) {
                if !all.contains(text) {
                    all.push(*text);
                }
            }
            *into = words.lists.number(all);
        }
    }
}

#[cfg(test)]
mod tests;
