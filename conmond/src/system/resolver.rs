//! Which far ends are to be asked for, of whom, and when again. Pure: no I/O and no clock.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use conmon::api::{Conversation, End, EndsAnswer, EndsQuestion};
use ippm::flow::{FlowKey, Role};
use ippm::time::{Timestamp, nanos, seconds};

use super::ends::{socket, taken};
use crate::nat::{Place, RemoteEnd, Seen, Side, Wire};

/// Conversations that are asked for at one time.
const ROOM: usize = 16_384;
/// When a conversation is asked for again after an answer that named nobody: the other host may not have heard of it yet.
const AGAIN: [Duration; 7] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(600),
    Duration::from_secs(2),
    Duration::from_secs(10),
];
/// A conversation that nobody could name is left alone for this long.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// What the resolver must know of this host.
pub trait Known {
    /// Hosts that may be behind an address: those whose own it is, and those that have a container with it.
    fn hosts(&self, address: IpAddr) -> Vec<String>;
    /// Whether the far end is known already.
    fn is_known(&self, seen: &Seen, at: Timestamp) -> bool;
    /// Whether what the kernel told of a conversation with this first packet has been heard of.
    fn has_heard(&self, first: Timestamp, now: Timestamp) -> bool;
    /// What there is between hosts of what is seen here.
    fn wire(&self, seen: Seen, side: Side, first: Timestamp, last: Timestamp) -> Wire;
    /// The near end; none while it has no name.
    fn near(&self, key: &FlowKey) -> Option<End>;
}

/// A flow whose far end may be on another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// As its port sees it.
    pub key: FlowKey,
    /// Who opened it.
    pub role: Role,
    /// The first packet.
    pub first: Timestamp,
    /// The newest packet.
    pub last: Timestamp,
}

impl Flow {
    fn side(&self) -> Side {
        match self.role {
            Role::LocalOpened => Side::Opener,
            Role::RemoteOpened => Side::Called,
        }
    }
}

#[derive(Clone, Debug)]
struct Waiting {
    flow: Flow,
    /// Asked one after the other: an address may be several hosts'.
    hosts: Vec<String>,
    tries: usize,
    due: Timestamp,
    asked: bool,
}

/// A far end that became known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// What the near end sees.
    pub seen: Seen,
    /// The far end's own place.
    pub place: Place,
    /// Who it is.
    pub end: Arc<RemoteEnd>,
    /// Since when.
    pub since: Timestamp,
}

/// Questions for one host.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// The host.
    pub host: String,
    /// What is asked.
    pub question: EndsQuestion,
    /// What each conversation is here.
    pub seen: Vec<Seen>,
}

/// What it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Far ends that became known by asking.
    pub learnt: u64,
    /// Conversations that nobody could name.
    pub given_up: u64,
    /// Conversations not asked for, for want of room.
    pub full: u64,
    /// Answers that made no sense.
    pub refused: u64,
}

/// The far ends that are asked for.
#[derive(Debug)]
pub struct Resolver {
    waiting: HashMap<Seen, Waiting>,
    room: usize,
    /// What it did.
    pub counters: Counters,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(ROOM)
    }
}

impl Resolver {
    /// With room for so many conversations.
    pub fn new(room: usize) -> Self {
        Self { waiting: HashMap::new(), room, counters: Counters::default() }
    }

    /// A flow was seen.
    pub fn seen(&mut self, flow: Flow, now: Timestamp, known: &impl Known) {
        let seen = Seen::of(&flow.key);
        if let Some(waiting) = self.waiting.get_mut(&seen) {
            if flow.first > waiting.flow.first && !waiting.asked {
                // its ports are used again, by another
                *waiting =
                    Waiting { flow, hosts: known.hosts(flow.key.remote), tries: 0, due: now, asked: false };
            } else {
                waiting.flow.last = waiting.flow.last.max(flow.last);
            }
            return;
        }
        if known.is_known(&seen, flow.last) {
            return;
        }
        let hosts = known.hosts(flow.key.remote);
        if hosts.is_empty() {
            return;
        }
        if self.waiting.len() >= self.room {
            self.counters.full += 1;
            return;
        }
        self.waiting.insert(seen, Waiting { flow, hosts, tries: 0, due: now, asked: false });
    }

    /// When something is due next.
    pub fn due(&self) -> Option<Timestamp> {
        self.waiting.values().filter(|w| !w.asked).map(|w| w.due).min()
    }

    /// What is to be asked now. Each is to be [`answered`](Self::answered).
    pub fn questions(&mut self, now: Timestamp, known: &impl Known) -> Vec<Asking> {
        let mut by_host: BTreeMap<String, Vec<Asking>> = BTreeMap::new();
        let given_up = |w: &Waiting| w.tries >= (AGAIN.len() + 1) * w.hosts.len().max(1);
        self.waiting.retain(|_, w| w.asked || w.due > now || !given_up(w));
        for (seen, waiting) in self.waiting.iter_mut().filter(|(_, w)| !w.asked && w.due <= now) {
            let flow = &waiting.flow;
            let host = waiting.hosts.get(waiting.tries % waiting.hosts.len().max(1));
            let near = known.near(&flow.key).filter(|_| known.has_heard(flow.first, now));
            let (Some(host), Some(near)) = (host, near) else {
                waiting.put_off(now, &mut self.counters);
                continue;
            };
            // anew each time: the kernel's word of a translation comes after the first packet
            let wire = known.wire(*seen, flow.side(), flow.first, flow.last);
            let age = |at: Timestamp| seconds(nanos(now - at));
            let conversation = Conversation {
                protocol: wire.proto,
                opener: socket(wire.opener),
                called: socket(wire.called),
                asker_opened: flow.side() == Side::Opener,
                first_seen_age_seconds: age(flow.first),
                last_seen_age_seconds: age(flow.last),
                asker: near,
            };
            let all = by_host.entry(host.clone()).or_default();
            let fresh = || Asking {
                host: host.clone(),
                question: EndsQuestion { conversations: Vec::new() },
                seen: Vec::new(),
            };
            if all.last().is_none_or(|asking| asking.seen.len() >= EndsQuestion::MOST) {
                all.push(fresh());
            }
            if let Some(asking) = all.last_mut() {
                asking.question.conversations.push(conversation);
                asking.seen.push(*seen);
            }
            waiting.asked = true;
        }
        by_host.into_values().flatten().collect()
    }

    /// What a host answered, or that it did not.
    pub fn answered(&mut self, asking: &Asking, answer: Option<&EndsAnswer>, now: Timestamp) -> Vec<Learnt> {
        let fitting = answer.filter(|a| a.host == asking.host && a.ends.len() == asking.seen.len());
        self.counters.refused += u64::from(answer.is_some() && fitting.is_none());
        let mut learnt = Vec::new();
        for (i, seen) in asking.seen.iter().enumerate() {
            let Some(waiting) = self.waiting.get_mut(seen) else { continue };
            waiting.asked = false;
            let end = fitting.and_then(|answer| answer.ends[i].as_ref());
            let taken = end.and_then(|end| taken(&asking.host, end));
            self.counters.refused += u64::from(end.is_some() && taken.is_none());
            match taken {
                Some((place, end)) => {
                    learnt.push(Learnt { seen: *seen, place, end: Arc::new(end), since: waiting.flow.first });
                    self.waiting.remove(seen);
                    self.counters.learnt += 1;
                }
                None => waiting.put_off(now, &mut self.counters),
            }
        }
        learnt
    }

    /// Conversations that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl Waiting {
    fn put_off(&mut self, now: Timestamp, counters: &mut Counters) {
        let round = self.tries / self.hosts.len().max(1);
        let last_of_round = (self.tries + 1).is_multiple_of(self.hosts.len().max(1));
        self.tries += 1;
        self.due = match AGAIN.get(round) {
            _ if !last_of_round => now,
            Some(pause) => now + *pause,
            None => {
                counters.given_up += 1;
                now + GIVEN_UP
            }
        };
    }
}

#[cfg(test)]
mod tests;
