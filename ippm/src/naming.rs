//! Whose address it was, and when.
//!
//! An address is used again seconds after its container died. So an owner is kept with the time it had the address,
//! and a packet or flow is named by its own time, not by when somebody asks.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use crate::time::Timestamp;

/// The time for which an owner had an address: from `since` up to but without `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval<O> {
    /// The first moment.
    pub since: Timestamp,
    /// The first moment no longer; [`Timestamp::MAX`] while no end is known.
    pub until: Timestamp,
    /// Who had it.
    pub owner: O,
}

/// The answer for a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// Nobody had the address at any time of the stretch.
    None,
    /// One owner had it, and nobody else; not necessarily all the time.
    Single(T),
    /// Several owners had it, one after the other.
    Mixed,
}

/// Owners of addresses in time.
///
/// `A` is the address, or an address with what tells equal addresses apart (a network, a VLAN). Per address, the
/// intervals never overlap, and neighbours that touch have different owners. Memory is bounded by
/// [`AddressMap::prune`] and, between its calls, by a limit of intervals per address: beyond it the oldest goes
/// and is counted.
#[derive(Clone, Debug)]
pub struct AddressMap<O, A = IpAddr> {
    /// No list is empty; each ascends by time.
    addresses: HashMap<A, Vec<Interval<O>>>,
    per_address: usize,
    forgotten: u64,
}

impl<O, A> Default for AddressMap<O, A> {
    /// With 64 intervals per address: an address handed out anew every second is remembered for a minute.
    fn default() -> Self {
        Self::new(64)
    }
}

impl<O, A> AddressMap<O, A> {
    /// An empty map that keeps at most `per_address` intervals (at least 1) for each address.
    pub fn new(per_address: usize) -> Self {
        Self { addresses: HashMap::new(), per_address: per_address.max(1), forgotten: 0 }
    }

    /// Intervals dropped because their address had too many.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Addresses with at least one interval.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}

impl<O: PartialEq, A: Eq + Hash> AddressMap<O, A> {
    /// `owner` has `address` from `since` on, until closed or until the next owner known to have begun later.
    ///
    /// Whoever else had the address at `since` had it until then. When `owner` itself had it at `since`, nothing
    /// changes: saying the same twice is harmless, even after the end was told.
    pub fn insert(&mut self, address: A, owner: O, since: Timestamp) {
        if since == Timestamp::MAX {
            return;
        }
        let list = self.addresses.entry(address).or_default();
        let mut next = list.partition_point(|i| i.since <= since);
        let until = list.get(next).map_or(Timestamp::MAX, |i| i.since);
        if let Some(before) = next.checked_sub(1) {
            if list[before].owner == owner {
                if list[before].until > since {
                    return;
                }
            } else {
                list[before].until = list[before].until.min(since);
                if list[before].since == since {
                    list.remove(before);
                    next = before;
                }
            }
        }
        match next.checked_sub(1) {
            Some(before) if list[before].owner == owner && list[before].until == since => {
                list[before].until = until;
                next = before;
            }
            _ => list.insert(next, Interval { since, until, owner }),
        }
        if list.get(next + 1).is_some_and(|after| after.since == until && after.owner == list[next].owner) {
            list[next].until = list[next + 1].until;
            list.remove(next + 1);
        }
        if list.len() > self.per_address {
            let surplus = list.len() - self.per_address;
            list.drain(..surplus);
            self.forgotten += surplus as u64;
        }
    }

    /// `owner` no longer has `address` from `until` on. Returns whether it had it at `until`: a late or repeated
    /// message about an owner that has long been followed by another changes nothing.
    pub fn close(&mut self, address: &A, owner: &O, until: Timestamp) -> bool {
        let Some(list) = self.addresses.get_mut(address) else { return false };
        let Some(i) = position(list, until).filter(|&i| list[i].owner == *owner) else { return false };
        list[i].until = until;
        if list[i].since == until {
            list.remove(i);
        }
        if list.is_empty() {
            self.addresses.remove(address);
        }
        true
    }

    /// The end that was told of `owner` was none: it has had `address` all the time and still does at `at`. Returns whether
    /// it is so now; not if somebody else had it since, or if it never had.
    pub fn resume(&mut self, address: &A, owner: &O, at: Timestamp) -> bool {
        let Some(list) = self.addresses.get_mut(address) else { return false };
        let next = list.partition_point(|i| i.since <= at);
        let until = list.get(next).map_or(Timestamp::MAX, |i| i.since);
        let Some(last) = next.checked_sub(1).map(|i| &mut list[i]) else { return false };
        if last.owner != *owner {
            return false;
        }
        if last.until <= at {
            last.until = until;
            if list.get(next).is_some_and(|after| after.owner == *owner) {
                list[next - 1].until = list[next].until;
                list.remove(next);
            }
        }
        true
    }

    /// Who had `address` at time `at`.
    pub fn lookup_at(&self, address: &A, at: Timestamp) -> Option<&O> {
        let list = self.addresses.get(address)?;
        position(list, at).map(|i| &list[i].owner)
    }

    /// Who had `address` between `first` and `last`, both included: the life of a flow. The order of the two does
    /// not matter: a coarse clock may put a flow's last packet before its first.
    pub fn lookup_range(&self, address: &A, first: Timestamp, last: Timestamp) -> Lookup<&O> {
        let (first, last) = (first.min(last), first.max(last));
        let Some(list) = self.addresses.get(address) else { return Lookup::None };
        let from = list.partition_point(|i| i.until <= first);
        let mut owners = list[from..].iter().take_while(|i| i.since <= last).map(|i| &i.owner);
        let Some(owner) = owners.next() else { return Lookup::None };
        if owners.all(|other| other == owner) { Lookup::Single(owner) } else { Lookup::Mixed }
    }

    /// Forgets what ended at or before `before`, and gives the number of intervals forgotten. What goes on beyond
    /// `before`, or has no known end, stays whole.
    pub fn prune(&mut self, before: Timestamp) -> usize {
        let mut pruned = 0;
        self.addresses.retain(|_, list| {
            let ended = list.partition_point(|i| i.until <= before && i.until < Timestamp::MAX);
            list.drain(..ended);
            pruned += ended;
            !list.is_empty()
        });
        pruned
    }

    /// The intervals of `address`, ascending.
    pub fn intervals(&self, address: &A) -> &[Interval<O>] {
        self.addresses.get(address).map_or(&[], Vec::as_slice)
    }

    /// All addresses with their intervals, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&A, &[Interval<O>])> {
        self.addresses.iter().map(|(address, list)| (address, list.as_slice()))
    }
}

/// The interval that holds `at`.
fn position<O>(list: &[Interval<O>], at: Timestamp) -> Option<usize> {
    let i = list.partition_point(|i| i.since <= at).checked_sub(1)?;
    (at < list[i].until).then_some(i)
}

#[cfg(test)]
mod tests;
