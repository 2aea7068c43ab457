//! What happens in the simulation, and in which order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use conmond::registry::reader;

use crate::host::Got;
use crate::service::Job;
use crate::store::Notice;

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// A host has something to do.
    Wake(u32),
    /// A call comes to the store.
    Arrives(Job),
    /// The store is done with the first of those that wait.
    Served,
    /// A call's answer is at its host.
    Answered(Job, Option<Got>),
    /// A host has waited long enough.
    GivenUp(u64),
    /// A request on a stream comes to the store.
    Stream(u32, u64, reader::Ask),
    /// A watch tells a host something, on one of its connections.
    Heard(u64, Notice),
    /// A stream's sign of life is at its host: everything up to a revision was told.
    Alive(u32, u64, i64),
    /// A host's connection has ended.
    Broken(u32),
    /// A container ends.
    Ends,
    /// Another begins.
    Begins(u32, u32),
    /// The controller looks at its names.
    Look(u32),
    /// A reader's containers begin to talk to whoever runs in a place.
    Talks(u32, (u32, u32)),
    /// A reader's containers go on talking.
    GoesOn(u32),
    /// Leases may have run out.
    Tick,
    /// The store is there again.
    Up,
}

/// What is yet to happen: the earliest first, and of those at one moment the one that was put in first.
#[derive(Default)]
pub struct Queue {
    due: BinaryHeap<Reverse<Due>>,
    sequence: u64,
}

impl Queue {
    /// Something will happen at a moment.
    pub fn push(&mut self, at_ns: u64, event: Event) {
        self.sequence += 1;
        self.due.push(Reverse(Due { at: (at_ns, self.sequence), event }));
    }

    /// What happens next, if it does by `end_ns`, and when.
    pub fn pop(&mut self, end_ns: u64) -> Option<(u64, Event)> {
        self.due.peek().filter(|Reverse(due)| due.at.0 <= end_ns)?;
        self.due.pop().map(|Reverse(due)| (due.at.0, due.event))
    }
}

struct Due {
    at: (u64, u64),
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}
