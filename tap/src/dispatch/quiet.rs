//! Ports are taken off the filters when nothing is sent to them, since else packets would be lost.
//!
//! While a qdisc is put on a device that is up or taken from it, be it only clsact, which has no queue, the kernel has all of the device's
//! queues drop what comes (`qdisc_graft` calls `dev_deactivate`), for some milliseconds. It is what the port sends that is dropped: what goes to
//! the container. A qdisc whose port has an empty place does nothing but run the dispatcher, which finds nothing; it can wait.
//!
//! It owns the list of such ports. What is in it is known to the kernel, too: the next owner finds them by the blocks.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Dispatcher, Names, place_of};
use crate::error::Error;
use crate::fault;
use crate::netlink::{self, State};

/// Who has been sent nothing for so long is quiet. What comes at random with a rate r is then lost with a probability of `exp(-r T) r W`, W being
/// the kernel's time without a queue: for W = 5 ms at most 0.2 %, at one packet a second.
const SILENCE: Duration = Duration::from_secs(1);
/// Of ports that have waited for so long, less is asked:
const LONG: Duration = Duration::from_secs(30);
/// nothing for so long. At most 2 %, at ten packets a second.
const SHORT_SILENCE: Duration = Duration::from_millis(100);
/// Ports that are looked at in one go.
const LOOKS: usize = 64;
/// So long [`Dispatcher::remove`] waits for ports to be quiet.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Has a place while its port is taken off the filters: no interface has this number.
const NOBODY: u32 = 0;

/// Ports that have no place any more.
#[derive(Default)]
pub(super) struct Leftovers {
    ports: BTreeMap<u32, Leftover>,
    /// Where the next look begins.
    next: u32,
}

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
    /// Takes a port off the filters that has no place any more and is quiet, the one that comes next. None if there is no such port now.
    ///
    /// To be called now and then, while there are [leftovers](Self::has_leftovers), when nobody is in need of the kernel's lock for network devices: it is
    /// held for some milliseconds. May take 0.1 s more.
    pub fn tidy(&self) -> Result<Option<Tidied>, Error> {
        self.tidy_one().map_err(|source| Error::Dispatch {
            what: "remove ports from",
            holder: self.names.holder.clone(),
            source,
        })
    }

    /// Whether ports are bound to the filters that have no place.
    pub fn has_leftovers(&self) -> bool {
        !self.leftovers().ports.is_empty()
    }

    /// How many there are.
    pub fn leftover(&self) -> usize {
        self.leftovers().ports.len()
    }

    fn leftovers(&self) -> MutexGuard<'_, Leftovers> {
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leave(&self, ifindex: u32) {
        self.leftovers().ports.entry(ifindex).or_insert_with(|| Leftover::new(Instant::now()));
    }

    fn forget(&self, ifindex: u32) {
        self.leftovers().ports.remove(&ifindex);
    }

    fn tidy_one(&self) -> io::Result<Option<Tidied>> {
        let mut patient = Vec::new();
        for ifindex in self.turn() {
            let Some(state) = self.look(ifindex)? else { continue };
            let now = Instant::now();
            let (silence, waits) = match self.leftovers().ports.get_mut(&ifindex) {
                Some(port) => (port.silence(state.sent, now), now - port.left_at),
                None => continue,
            };
            if !state.is_up || silence >= SILENCE {
                return self.unbind(ifindex, state);
            }
            if waits >= LONG {
                patient.push((ifindex, state));
            }
        }
        if patient.is_empty() {
            return Ok(None);
        }
        thread::sleep(SHORT_SILENCE);
        for (ifindex, before) in patient {
            if self.look(ifindex)?.is_some_and(|now| now.sent == before.sent) {
                return self.unbind(ifindex, before);
            }
        }
        Ok(None)
    }

    /// Those whose turn it is to be looked at.
    fn turn(&self) -> Vec<u32> {
        let mut leftovers = self.leftovers();
        let Leftovers { ports, next } = &*leftovers;
        let turn: Vec<u32> =
            ports.range(next..).chain(ports.range(..next)).map(|(ifindex, _)| *ifindex).take(LOOKS).collect();
        leftovers.next = turn.last().map_or(0, |last| last + 1);
        turn
    }

    /// None if the interface has gone, or has a place again.
    fn look(&self, ifindex: u32) -> io::Result<Option<State>> {
        let state = match self.taken().get(&place_of(ifindex)) {
            Some(its) if *its == ifindex => None,
            _ => netlink::state_of(ifindex)?,
        };
        if state.is_none() {
            self.forget(ifindex);
        }
        Ok(state)
    }

    /// Takes it off, if it is as it was before. Nobody can have its place meanwhile: it would believe to be bound.
    fn unbind(&self, ifindex: u32, before: State) -> io::Result<Option<Tidied>> {
        let place = place_of(ifindex);
        // where another port has its place that is as good
        if *self.taken().entry(place).or_insert(NOBODY) == ifindex {
            return Ok(None);
        }
        let unbound = unbind(ifindex, self.names.blocks, before);
        {
            let mut taken = self.taken();
            if taken.get(&place) == Some(&NOBODY) {
                taken.remove(&place);
            }
        }
        fault::point("tidy.unbound");
        if let Ok(Some(_)) | Err(_) = &unbound {
            self.forget(ifindex);
        }
        unbound
    }

    /// Takes the filters of the sets below `root` away, and the device that holds them; and the qdiscs of ports that were bound to them, those without
    /// a mark too, as soon as they are quiet. All of it may have gone before.
    pub fn remove(root: &Path) -> Result<Removed, Error> {
        let Names { blocks, holder } = Names::of(root);
        let remove = || {
            netlink::remove_block_filters(blocks)?;
            fault::point("dispatch.unfiltered");
            let its = nix::net::if_::if_nametoindex(holder.as_str()).unwrap_or_default();
            let mut bound = netlink::bound_to(blocks)?;
            bound.retain(|ifindex| *ifindex != its);
            let removed = unbind_all(bound, blocks)?;
            netlink::remove_holder(&holder)?;
            Ok(removed)
        };
        remove().map_err(|source| Error::Dispatch { what: "remove", holder, source })
    }
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
            let is_quiet = !state.is_up || port.silence(state.sent, Instant::now()) >= SHORT_SILENCE;
            if is_quiet && let Some(tidied) = unbind(*ifindex, blocks, state)? {
                dropped += tidied.dropped;
                removed.push(*ifindex);
            }
        }
        removed.iter().for_each(|ifindex| drop(ports.remove(ifindex)));
        thread::sleep(LOOK_EVERY);
    }
    Ok(Removed { dropped, left: ports.into_keys().collect() })
}
