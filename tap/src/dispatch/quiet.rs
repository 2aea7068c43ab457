//! Ports are taken off the filters when nothing is sent to them, since else packets would be lost.
//!
//! While a qdisc is put on a device that is up or taken from it, be it only clsact, which has no queue, the kernel has all of the device's
//! queues drop what comes (`qdisc_graft` calls `dev_deactivate`), for some milliseconds. It is what the port sends that is dropped: what goes to
//! the container. A qdisc whose port has an empty place does nothing but run the dispatcher, which finds nothing; it can wait. Until it has gone
//! nobody else gets that place, since the port would run his programs.
//!
//! It owns the list of places, and of such ports among them. These are known to the kernel, too: the next owner finds them by the blocks.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Dispatcher, Names, place_of};
use crate::error::Error;
use crate::fault;
use crate::netlink::{self, State};

/// Who has been sent nothing for so long is quiet. What comes at random with a rate r is then lost with a probability of `exp(-r T) r W`, W being
/// the kernel's time without a queue: for W = 15 ms, more than was seen, at most 0.6 %, at one packet a second.
const SILENCE: Duration = Duration::from_secs(1);
/// Of ports that have waited for so long, less is asked:
const LONG: Duration = Duration::from_secs(30);
/// nothing for so long. At most 2.2 %, at four packets a second.
const SHORT_SILENCE: Duration = Duration::from_millis(250);
/// Ports that are looked at in one go.
const LOOKS: usize = 64;
/// So long [`Dispatcher::remove`] waits for ports to be quiet.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A list of the kernel's that changed while it was made may lack some.
const LISTS: usize = 8;

/// Who has which place. A port that is bound to the filters runs what is in its place, so that no other gets that.
#[derive(Default)]
pub(super) struct Places {
    all: BTreeMap<u32, Place>,
    /// Where the next look begins.
    next: u32,
}

enum Place {
    /// The programs are this port's.
    Port(u32),
    /// There is no program: the port needs none, and may be bound still.
    Left(u32, Leftover),
    /// It is just being taken off the filters. Who taps it in this moment would believe it to be bound.
    Unbinding(u32, Leftover),
}

impl Places {
    /// Gives a port its place. False if that is another's, or not to be had in this moment.
    pub(super) fn take(&mut self, ifindex: u32) -> bool {
        let place = self.all.entry(place_of(ifindex)).or_insert(Place::Port(ifindex));
        match place {
            Place::Port(its) => *its == ifindex,
            Place::Left(its, _) if *its == ifindex => {
                *place = Place::Port(ifindex);
                true
            }
            Place::Left(..) | Place::Unbinding(..) => false,
        }
    }

    pub(super) fn has(&self, ifindex: u32) -> bool {
        matches!(self.all.get(&place_of(ifindex)), Some(Place::Port(its)) if *its == ifindex)
    }

    pub(super) fn is_in_use(&self, place: u32) -> bool {
        matches!(self.all.get(&place), Some(Place::Port(_)))
    }

    /// The port is there, and needs no program. Not for one whose place is another's.
    pub(super) fn leave(&mut self, ifindex: u32) {
        let left = || Place::Left(ifindex, Leftover::new(Instant::now()));
        let place = self.all.entry(place_of(ifindex)).or_insert_with(left);
        if matches!(place, Place::Port(its) if *its == ifindex) {
            *place = left();
        }
    }

    pub(super) fn forget(&mut self, ifindex: u32) {
        let place = place_of(ifindex);
        if let Some(Place::Port(its) | Place::Left(its, _)) = self.all.get(&place)
            && *its == ifindex
        {
            self.all.remove(&place);
        }
    }

    fn left(&self) -> impl Iterator<Item = u32> {
        self.all.values().filter_map(|place| match place {
            Place::Left(ifindex, _) => Some(*ifindex),
            _ => None,
        })
    }

    /// Those whose turn it is to be looked at.
    fn turn(&mut self) -> Vec<u32> {
        let is_later = |ifindex: &u32| place_of(*ifindex) >= self.next;
        let turn: Vec<u32> =
            self.left().filter(is_later).chain(self.left().filter(|i| !is_later(i))).take(LOOKS).collect();
        self.next = turn.last().map_or(0, |last| place_of(*last) + 1);
        turn
    }

    fn leftover(&mut self, ifindex: u32) -> Option<&mut Leftover> {
        match self.all.get_mut(&place_of(ifindex)) {
            Some(Place::Left(its, leftover)) if *its == ifindex => Some(leftover),
            _ => None,
        }
    }

    /// Nobody gets the place of a leftover from now on. False if it is none any more.
    fn unbind(&mut self, ifindex: u32) -> bool {
        let Some(leftover) = self.leftover(ifindex).copied() else { return false };
        self.all.insert(place_of(ifindex), Place::Unbinding(ifindex, leftover));
        true
    }

    /// It could not be taken off.
    fn leave_as_it_was(&mut self, ifindex: u32) {
        if let Some(Place::Unbinding(its, leftover)) = self.all.get(&place_of(ifindex))
            && *its == ifindex
        {
            let left = Place::Left(ifindex, *leftover);
            self.all.insert(place_of(ifindex), left);
        }
    }
}

#[derive(Clone, Copy)]
struct Leftover {
    left_at: Instant,
    /// What it had sent at the last look, since when.
    sent: Option<(u64, Instant)>,
}

impl Leftover {
    fn new(now: Instant) -> Self {
        Self { left_at: now, sent: None }
    }

    /// How long it has sent nothing, by this count and those before.
    fn silence(&mut self, sent: u64, now: Instant) -> Duration {
        match self.sent {
            Some((before, since)) if before == sent => now - since,
            _ => {
                self.sent = Some((sent, now));
                Duration::ZERO
            }
        }
    }

    /// How long it is to have sent nothing.
    fn asked(&self, now: Instant) -> Duration {
        if now - self.left_at < LONG { SILENCE } else { SHORT_SILENCE }
    }

    fn is_quiet(&mut self, state: &State, asked: Duration, now: Instant) -> bool {
        self.silence(state.sent, now) >= asked || !state.is_up
    }
}

/// A port that was taken off the filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tidied {
    /// Its interface.
    pub ifindex: u32,
    /// Packets to it that were dropped meanwhile, by its own counter.
    pub dropped: u64,
}

/// What became of ports when everything was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Packets to ports that were dropped while these were taken off the filters, by the ports' own counters.
    pub dropped: u64,
    /// Interfaces that were sent something all the time. They have a clsact qdisc without filters.
    pub left: Vec<u32>,
}

impl Dispatcher {
    /// Takes a port off the filters that needs them no more and is quiet, the one that comes next. None if there is no such port now.
    ///
    /// To be called a few times a second, while there are [leftovers](Self::has_leftovers), when nobody is in need of the kernel's lock for network
    /// devices: it is held for some milliseconds.
    pub fn tidy(&self) -> Result<Option<Tidied>, Error> {
        let mut failed = None;
        let turn = self.places().turn();
        for ifindex in turn {
            match self.tidy_one(ifindex) {
                Ok(Some(tidied)) => return Ok(Some(tidied)),
                Ok(None) => {}
                // it waits; others need not
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), |error| Err(self.failed("remove ports from")(error)))
    }

    /// An interface has gone: if its port was left bound to the filters, another may have its place.
    pub fn is_gone(&self, ifindex: u32) {
        let mut places = self.places();
        if places.leftover(ifindex).is_some() {
            places.forget(ifindex);
        }
    }

    /// Whether ports may be bound to the filters that need them no more.
    pub fn has_leftovers(&self) -> bool {
        self.places().left().next().is_some()
    }

    fn tidy_one(&self, ifindex: u32) -> io::Result<Option<Tidied>> {
        let state = netlink::state_of(ifindex)?;
        {
            let mut places = self.places();
            let Some(leftover) = places.leftover(ifindex) else { return Ok(None) };
            let Some(state) = &state else {
                places.forget(ifindex);
                return Ok(None);
            };
            let now = Instant::now();
            if !leftover.is_quiet(state, leftover.asked(now), now) || !places.unbind(ifindex) {
                return Ok(None);
            }
        }
        let Some(state) = state else { return Ok(None) };
        let unbound = unbind(ifindex, self.names.blocks, state);
        fault::point("tidy.unbound");
        match &unbound {
            Ok(Some(_)) => drop(self.places().all.remove(&place_of(ifindex))),
            Ok(None) | Err(_) => self.places().leave_as_it_was(ifindex),
        }
        unbound
    }

    /// Takes the filters of the sets below `root` away, and the device that holds them; and the qdiscs of ports that were bound to them, those without
    /// a mark too, as soon as they are quiet. All of it may have gone before.
    pub fn remove(root: &Path) -> Result<Removed, Error> {
        let names = Names::of(root);
        let (blocks, holder) = (names.blocks, &names.holder);
        let remove = || {
            netlink::remove_block_filters(blocks)?;
            fault::point("dispatch.unfiltered");
            let removed = unbind_all(bound_to(&names)?, blocks)?;
            netlink::remove_holder(holder)?;
            Ok(removed)
        };
        remove().map_err(|source| Error::Dispatch { what: "remove", holder: holder.clone(), source })
    }
}

/// Interfaces of this network namespace that are bound to the filters, but for the device that holds them. A device that goes while the
/// kernel lists all may hide another: what two lists agree on is so.
pub(super) fn bound_to(names: &Names) -> io::Result<Vec<u32>> {
    let its = nix::net::if_::if_nametoindex(names.holder.as_str()).unwrap_or_default();
    let list = || {
        let mut bound = netlink::bound_to(names.blocks)?;
        bound.retain(|ifindex| *ifindex != its);
        Ok::<_, io::Error>(bound)
    };
    let mut last = list()?;
    for _ in 0..LISTS {
        let next = list()?;
        if next == last {
            break;
        }
        last = next;
    }
    Ok(last)
}

/// Takes an interface off the blocks if it has sent nothing since it was in this state. None if it has.
fn unbind(ifindex: u32, blocks: netlink::Blocks, before: State) -> io::Result<Option<Tidied>> {
    match netlink::state_of(ifindex)? {
        Some(now) if now.sent == before.sent || !now.is_up => {}
        Some(_) => return Ok(None),
        None => return Ok(Some(Tidied { ifindex, dropped: 0 })),
    }
    netlink::remove_blocks(ifindex, blocks)?;
    let after = netlink::state_of(ifindex)?.unwrap_or(before);
    Ok(Some(Tidied { ifindex, dropped: after.dropped.saturating_sub(before.dropped) }))
}

fn unbind_all(bound: Vec<u32>, blocks: netlink::Blocks) -> io::Result<Removed> {
    let (begun, mut dropped) = (Instant::now(), 0);
    let mut ports: BTreeMap<u32, Leftover> =
        bound.into_iter().map(|ifindex| (ifindex, Leftover::new(begun))).collect();
    while !ports.is_empty() && begun.elapsed() < PATIENCE {
        let mut removed = Vec::new();
        for (ifindex, port) in &mut ports {
            let Some(state) = netlink::state_of(*ifindex)? else {
                removed.push(*ifindex);
                continue;
            };
            if port.is_quiet(&state, SHORT_SILENCE, Instant::now())
                && let Some(tidied) = unbind(*ifindex, blocks, state)?
            {
                dropped += tidied.dropped;
                removed.push(*ifindex);
            }
        }
        ports.retain(|ifindex, _| !removed.contains(ifindex));
        thread::sleep(LOOK_EVERY);
    }
    Ok(Removed { dropped, left: ports.into_keys().collect() })
}
