//! Rows of a level above containers: the pairs between the containers of two services, hosts or tenants as one.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use conmon::api::{Count, EndpointKind, HostView, Level, MatrixPair};
use foldhash::quality::RandomState;

use super::row::{self, put_numbers, put_words};
use super::{Matrix, Rank, Row, Words, view};
use crate::system::sheet::Line;

/// The level's rows.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    level: Level,
    rows: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Group {
    /// Where the first pair is, whose ends stand for the group's.
    first: u32,
    bytes: u64,
    /// All together, where there is another one.
    sum: Option<Box<MatrixPair>>,
}

impl Groups {
    /// Of all pairs.
    pub(super) fn of(matrix: &Matrix, level: Level) -> Self {
        let mut ends: HashMap<Words<'_>, u32, RandomState> = HashMap::default();
        let numbers: Vec<u32> = (0..matrix.ends.len() as u32)
            .map(|end| {
                let next = ends.len() as u32;
                *ends.entry(at_level(matrix.words(end), level)).or_insert(next)
            })
            .collect();
        drop(ends);
        let mut places: HashMap<[u32; 2], u32, RandomState> = HashMap::default();
        let mut rows: Vec<Group> = Vec::new();
        let mut sums: HashMap<u32, Sum<'_>, RandomState> = HashMap::default();
        for (row, place) in matrix.rows.iter().zip(0..) {
            let ends = row.ends.map(|end| numbers[end as usize]);
            match places.entry(ends) {
                Entry::Vacant(free) => {
                    free.insert(rows.len() as u32);
                    rows.push(Group { first: place, bytes: row.bytes, sum: None });
                }
                Entry::Occupied(held) => {
                    let group = &mut rows[*held.get() as usize];
                    group.bytes = group.bytes.saturating_add(row.bytes);
                    let first = &matrix.rows[group.first as usize];
                    sums.entry(*held.get()).or_insert_with(|| Sum::of(matrix, first)).add(matrix, row);
                }
            }
        }
        for (place, sum) in sums {
            let group = &mut rows[place as usize];
            let mut row = row::empty();
            matrix.unpack(&matrix.rows[group.first as usize], &mut row);
            group.sum = Some(Box::new(sum.whole(matrix, row)));
        }
        Self { level, rows }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn ranks(&self) -> impl Iterator<Item = Rank> {
        // not a container's name, by which its group is called no more
        (0..).zip(&self.rows).map(|(place, group)| (group.bytes, place, u32::MAX))
    }

    pub(super) fn compare(&self, matrix: &Matrix, a: u32, b: u32) -> Ordering {
        let ends = |place: u32| self.ends(matrix, &self.rows[place as usize]);
        ends(a).cmp(&ends(b))
    }

    fn ends<'a>(&self, matrix: &'a Matrix, group: &Group) -> [Words<'a>; 2] {
        matrix.rows[group.first as usize].ends.map(|end| at_level(matrix.words(end), self.level))
    }

    /// Makes `into` the row at this place.
    pub(super) fn read(&self, matrix: &Matrix, place: u32, into: &mut MatrixPair) {
        let group = &self.rows[place as usize];
        match &group.sum {
            Some(sum) => into.clone_from(sum),
            None => matrix.unpack(&matrix.rows[group.first as usize], into),
        }
        let ends = self.ends(matrix, group);
        for (into, end) in [&mut into.pair.src, &mut into.pair.dst].into_iter().zip(ends) {
            put_words(into, end);
        }
    }
}

/// The end that stands for this one at a level, as [`crate::store::at_level`] has it.
fn at_level(end: Words<'_>, level: Level) -> Words<'_> {
    let (kind, _, _, service, tenant, host) = end;
    match (level, kind) {
        (Level::Service, EndpointKind::Container) => match service {
            Some(name) => (EndpointKind::Service, name, None, service, tenant, None),
            None => end,
        },
        (Level::Tenant, EndpointKind::Container) => match tenant {
            Some(name) => (EndpointKind::Tenant, name, None, None, tenant, None),
            None => end,
        },
        (Level::Host, EndpointKind::Container | EndpointKind::Host) => match host {
            Some(name) => (EndpointKind::Host, name, None, None, None, host),
            None => end,
        },
        _ => end,
    }
}

/// Pairs of one group, while they are put together.
struct Sum<'a> {
    /// Their numbers and times. Whatever else is in it is of no meaning.
    numbers: Option<Line>,
    views: [Option<[Count; 2]>; 2],
    addresses: [HashSet<IpAddr, RandomState>; 2],
    protocols: BTreeSet<&'a str>,
    via: BTreeSet<&'a str>,
    /// Whose answers are of src's port, and of dst's.
    parts: [HashSet<u32, RandomState>; 2],
}

impl<'a> Sum<'a> {
    fn of(matrix: &'a Matrix, row: &Row) -> Self {
        let mut sum = Self {
            numbers: None,
            views: [None; 2],
            addresses: Default::default(),
            protocols: BTreeSet::new(),
            via: BTreeSet::new(),
            parts: Default::default(),
        };
        sum.add(matrix, row);
        sum
    }

    fn add(&mut self, matrix: &'a Matrix, row: &Row) {
        let (mut base, mut told) = (None, [false; 2]);
        matrix.each_line(row, |number, line| {
            let (sheet, at) = (&matrix.parts[number as usize].sheet, view(line.observed_at));
            for (all, list) in self.addresses.iter_mut().zip(line.addresses) {
                all.extend(sheet.addresses(list));
            }
            self.protocols.extend(sheet.texts(line.protocols));
            self.via.extend(sheet.texts(line.via));
            // a row's view is called by who told it first
            if !std::mem::replace(&mut told[at], true) {
                self.parts[at].insert(number);
            }
            match &mut self.views[at] {
                Some(view) => add_counts(view, line.counts),
                none => *none = Some(line.counts),
            }
            match (base, &mut self.numbers) {
                // the row's values are of its first line, and what another one of that side has counted
                (None, None) => self.numbers = Some(line.clone()),
                (None, Some(all)) => add_numbers(all, &line),
                (Some(side), Some(all)) if side == at => {
                    add_counts(&mut all.counts, line.counts);
                    add_all(&mut all.flows, line.flows);
                }
                (Some(_), _) => {}
            }
            if let Some(all) = &mut self.numbers {
                let [first, last] = line.seen_ns;
                all.seen_ns = [all.seen_ns[0].min(first), all.seen_ns[1].max(last)];
            }
            base.get_or_insert(at);
        });
    }

    /// `row` is the first pair's.
    fn whole(self, matrix: &Matrix, mut row: MatrixPair) -> MatrixPair {
        let MatrixPair { pair, views } = &mut row;
        if let Some(numbers) = &self.numbers {
            put_numbers(numbers, pair);
        }
        (pair.rtt_seconds, pair.near_rtt_seconds) = (None, None);
        (pair.handshake_rtt_seconds, pair.near_handshake_rtt_seconds) = (None, None);
        for (end, all) in [&mut pair.src, &mut pair.dst].into_iter().zip(self.addresses) {
            end.addresses = all.into_iter().collect();
            end.addresses.sort_unstable();
        }
        let all = |texts: BTreeSet<&str>| texts.into_iter().map(str::to_owned).collect();
        (pair.protocols, pair.via) = (all(self.protocols), all(self.via));
        let told = self.views.into_iter().zip(self.parts);
        for (view, (counts, parts)) in [&mut views.src, &mut views.dst].into_iter().zip(told) {
            let hosts: BTreeSet<&str> =
                parts.into_iter().map(|part| matrix.parts[part as usize].host.as_str()).collect();
            *view = counts.map(|[sent, received]| HostView {
                host: hosts.into_iter().collect::<Vec<_>>().join(","),
                sent,
                received,
            });
        }
        row
    }
}

fn add_numbers(into: &mut Line, from: &Line) {
    add_counts(&mut into.counts, from.counts);
    add_all(&mut into.flows, from.flows);
    for (a, b) in into.segments.iter_mut().zip(from.segments) {
        sum(a, b, u64::saturating_add);
    }
    for (a, b) in into.rates.iter_mut().zip(from.rates) {
        sum(a, b, |a, b| a + b);
    }
    into.guessed |= from.guessed;
}

fn add_counts(into: &mut [Count; 2], from: [Count; 2]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
}

fn add_all(into: &mut [u64; 2], from: [u64; 2]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into = into.saturating_add(from));
}

/// A sum of what is there.
fn sum<T: Copy>(a: &mut Option<T>, b: Option<T>, plus: impl Fn(T, T) -> T) {
    *a = a.zip(b).map(|(a, b)| plus(a, b)).or(*a).or(b);
}
