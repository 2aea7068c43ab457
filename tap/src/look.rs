//! Looks at a set's tables as they are now, for whoever owns the set: a part of a table is mapped for as long as it is read,
//! single records are asked for, and nothing is remembered. So it costs no memory, whatever a table's size.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::mem::offset_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use ippm::flow::{Both, Counters, PortClass};
use ippm::histogram::Histogram;
use ippm::measurement::{FlowMeasurement, PairMeasurement, SetCounters, SlotTag};

use crate::abi::{self, Ctl, Flow, Hist, Pair, Plain, PortSlot, state};
use crate::error::Error;
use crate::extents::{self, Extensible};
use crate::mmap::walk;
use crate::reader::{RETRIES, Sums, flow_measurement, pair_measurement, read_histogram, set_counters};
use crate::set::{Descriptors, Set};
use crate::sys;

/// So often a census is taken anew when records moved meanwhile.
const WALKS: u32 = 5;

/// Place of each table among a set's maps.
const FLOWS: usize = 0;
const PAIRS: usize = 1;
const PORTS: usize = 2;
const HISTS: usize = 3;
const CTL: usize = 4;

/// Calls `each` with every flow record in use, in the order of their slots. Each counter is exact when it is read; the
/// counters of one record may be a packet apart. While the set's flow table grows, a record that is moved in this
/// very moment may come twice.
pub fn each_flow(set: &Set, mut each: impl FnMut(FlowMeasurement)) -> Result<(), Error> {
    let mut one = |slot, flow: &Flow| {
        if let Some(flow) = flow_measurement(slot, flow) {
            each(flow);
        }
    };
    if let Some(older) = &set.older {
        each_record(&older.set, &mut one)?;
    }
    each_record(set, one)
}

/// Calls `each` with every record in use of the set's own flow table.
pub(crate) fn each_record(set: &Set, mut each: impl FnMut(u32, &Flow)) -> Result<(), Error> {
    set.walk::<Flow>(FLOWS, set.spec.flows, |slot, read| {
        if read.state(offset_of!(Flow, state)) >= state::LIVE {
            let flow = read.whole();
            // a record that is freed meanwhile is zero in parts
            if flow.tag != 0 && flow.state >= state::LIVE {
                each(slot, &flow);
            }
        }
    })
}

/// What was counted at one port, by where it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCensus {
    /// In flow records.
    pub flows: Both<Counters>,
    /// In pairs: what ended flows left there, and packets that found no flow record.
    pub pairs: Both<Counters>,
    /// In no flow and no pair, by class.
    pub classes: Both<[Counters; PortClass::ALL.len()]>,
}

/// Everything that a set has counted and not given up.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// By the port's interface.
    pub ports: HashMap<u32, PortCensus>,
    /// The set's own counters; `rtt_samples` is not counted here.
    pub set: SetCounters,
}

/// What [`Set::find`] found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Flows.
    pub flows: Vec<SlotTag>,
    /// Pairs.
    pub pairs: Vec<SlotTag>,
}

/// One record of a mapped table.
struct Record<'a, T> {
    table: &'a crate::mmap::Table<T>,
    at: u32,
}

impl<T: Plain> Record<'_, T> {
    fn state(&self, offset: usize) -> u32 {
        self.table.u32(self.at, offset)
    }

    fn field(&self, offset: usize) -> u32 {
        self.table.u32(self.at, offset)
    }

    fn whole(&self) -> T {
        self.table.get(self.at)
    }
}

/// A pair's own record, and its histograms by leg number.
pub type PairNow = (PairMeasurement, [Option<Histogram>; 4]);

impl Set {
    /// Every record of a map, of whose table `entries` are in the map itself.
    fn walk<T: Plain>(
        &self,
        map: usize,
        entries: u32,
        mut each: impl FnMut(u32, &Record<'_, T>),
    ) -> Result<(), Error> {
        let extents = self.extents_of(map);
        for (begin, entries, fd) in extents::whole(self.maps[map].as_fd(), entries, &extents) {
            walk(fd, entries, |first, table| {
                for at in 0..table.len() {
                    each(begin + first + at, &Record { table, at });
                }
            })
            .map_err(|source| Error::Descriptor { name: Descriptors::NAMES[map], source })?;
        }
        Ok(())
    }

    fn extents_of(&self, map: usize) -> Vec<Arc<OwnedFd>> {
        let of = Extensible::ALL.into_iter().find(|of| of.map() == map);
        of.map(|of| self.extents.of(of)).unwrap_or_default()
    }

    fn record<T: Plain>(&self, map: usize, slot: u32) -> Result<T, Error> {
        self.record_in(self.maps[map].as_fd(), map, slot)
    }

    /// The record of a slot of a table that has `size` in the map itself; none if there is no such slot.
    fn record_beyond<T: Plain>(&self, map: usize, slot: u32, size: u32) -> Result<Option<T>, Error> {
        if slot < size {
            return self.record(map, slot).map(Some);
        }
        let (extent, at) = extents::place(slot, size);
        let extents = self.extents_of(map);
        extents.get(extent).map(|fd| self.record_in(fd.as_fd(), map, at)).transpose()
    }

    fn record_in<T: Plain>(&self, fd: BorrowedFd<'_>, map: usize, slot: u32) -> Result<T, Error> {
        let failed = |source| Error::Descriptor { name: Descriptors::NAMES[map], source };
        let mut bytes = vec![0; size_of::<T>()];
        sys::map_lookup(fd, slot, &mut bytes).map_err(failed)?;
        abi::from_bytes(&bytes).ok_or_else(|| failed(io::Error::other("a record is too short")))
    }

    fn ctl(&self) -> Result<Ctl, Error> {
        self.record(CTL, 0)
    }

    /// The set's own counters now, but for `rtt_samples`.
    pub fn counters(&self) -> Result<SetCounters, Error> {
        Ok(set_counters(&self.ctl()?, 0))
    }

    /// What is counted where. `None` when records were being moved all the while.
    pub fn census(&self) -> Result<Option<Census>, Error> {
        let mut walks = 0;
        for _ in 0..RETRIES {
            let before = self.ctl()?.fold_seq;
            if before & 1 == 1 {
                std::thread::yield_now();
                continue;
            }
            let mut all: HashMap<u32, PortCensus> = HashMap::new();
            let mut flow = |_, f: &Flow| {
                let port = all.entry(f.key.ifindex).or_default();
                port.flows += Sums::of_flow(f).counters();
            };
            if let Some(older) = &self.older {
                each_record(&older.set, &mut flow)?;
            }
            each_record(self, flow)?;
            self.walk::<Pair>(PAIRS, self.spec.pairs, |_, read| {
                if read.state(offset_of!(Pair, state)) >= state::LIVE {
                    let p = read.whole();
                    all.entry(p.key.ifindex).or_default().pairs += Sums::of_pair(&p).counters();
                }
            })?;
            self.walk::<PortSlot>(PORTS, self.spec.ports, |_, read| {
                if read.state(offset_of!(PortSlot, state)) == state::LIVE {
                    let p = read.whole();
                    all.entry(p.ifindex).or_default().classes =
                        Both::new(abi::classes(&p.count[0]), abi::classes(&p.count[1]));
                }
            })?;
            fence(Ordering::Acquire);
            let ctl = self.ctl()?;
            if ctl.fold_seq == before {
                return Ok(Some(Census { ports: all, set: set_counters(&ctl, 0) }));
            }
            // whoever asks holds others up meanwhile
            walks += 1;
            if walks == WALKS {
                break;
            }
        }
        Ok(None)
    }

    /// Flows and pairs of a port, between two addresses, that are `wanted`.
    pub fn find(&self, wanted: impl Fn(u32, IpAddr, IpAddr) -> bool) -> Result<Found, Error> {
        let mut found = Found::default();
        each_record(self, |slot, f| {
            if wanted(f.key.ifindex, abi::address(f.key.local), abi::address(f.key.remote)) {
                found.flows.push(SlotTag { slot, tag: f.tag });
            }
        })?;
        self.walk::<Pair>(PAIRS, self.spec.pairs, |slot, read| {
            if read.state(offset_of!(Pair, state)) >= state::LIVE {
                let p = read.whole();
                if p.tag != 0 && wanted(p.key.ifindex, abi::address(p.key.local), abi::address(p.key.remote))
                {
                    found.pairs.push(SlotTag { slot, tag: p.tag });
                }
            }
        })?;
        Ok(found)
    }

    /// The flows that began without a pair, for want of room, and have none yet; so many at most.
    pub fn unpaired(&self, most: usize) -> Result<Vec<SlotTag>, Error> {
        let mut found = Vec::new();
        self.walk::<Flow>(FLOWS, self.spec.flows, |slot, read| {
            if found.len() < most
                && read.state(offset_of!(Flow, state)) == state::LIVE
                && read.field(offset_of!(Flow, pair)) == abi::NONE
            {
                let f = read.whole();
                if f.state == state::LIVE && f.tag != 0 && f.pair == abi::NONE {
                    found.push(SlotTag { slot, tag: f.tag });
                }
            }
        })?;
        Ok(found)
    }

    /// Which of these pair slots any flow points to that has not been freed.
    pub fn pointed_to(&self, pairs: &HashSet<u32>) -> Result<HashSet<u32>, Error> {
        let mut found = HashSet::new();
        if pairs.is_empty() {
            return Ok(found);
        }
        for set in [Some(self), self.older.as_ref().map(|o| &*o.set)].into_iter().flatten() {
            set.walk::<Flow>(FLOWS, set.spec.flows, |_, read| {
                if read.state(offset_of!(Flow, state)) != state::FREE {
                    let pair = read.field(offset_of!(Flow, pair));
                    if pairs.contains(&pair) {
                        found.insert(pair);
                    }
                }
            })?;
        }
        Ok(found)
    }

    /// A pair's own record with its histograms by leg number: what ended flows left in it, not what live ones still hold.
    pub fn pair_now(&self, slot: u32) -> Result<Option<PairNow>, Error> {
        let Some(p) = self.record_beyond::<Pair>(PAIRS, slot, self.spec.pairs)? else { return Ok(None) };
        if p.state < state::LIVE {
            return Ok(None);
        }
        let mut rtts = [const { None }; 4];
        for (rtt, at) in rtts.iter_mut().zip(p.hist) {
            if let Some(at) = at.checked_sub(1) {
                let hist = self.record_beyond::<Hist>(HISTS, at, self.spec.hists)?;
                *rtt = hist.and_then(|h| read_histogram(&h));
            }
        }
        Ok(pair_measurement(slot, &p, Sums::of_pair(&p), p.last_seen_ns, 0).map(|pair| (pair, rtts)))
    }

    /// The ports that anything was counted for.
    pub fn counted_ports(&self) -> Result<BTreeSet<u32>, Error> {
        let mut all = BTreeSet::new();
        let mut flow = |_, f: &Flow| {
            all.insert(f.key.ifindex);
        };
        if let Some(older) = &self.older {
            each_record(&older.set, &mut flow)?;
        }
        each_record(self, flow)?;
        self.walk::<Pair>(PAIRS, self.spec.pairs, |_, read| {
            if read.state(offset_of!(Pair, state)) >= state::LIVE {
                all.insert(read.whole().key.ifindex);
            }
        })?;
        self.walk::<PortSlot>(PORTS, self.spec.ports, |_, read| {
            if read.state(offset_of!(PortSlot, state)) == state::LIVE {
                all.insert(read.field(offset_of!(PortSlot, ifindex)));
            }
        })?;
        Ok(all)
    }

    /// The slot of a port's record.
    pub fn port_slot(&self, ifindex: u32) -> Result<Option<u32>, Error> {
        let mut found = None;
        self.walk::<PortSlot>(PORTS, self.spec.ports, |slot, read| {
            if read.state(offset_of!(PortSlot, state)) == state::LIVE
                && read.field(offset_of!(PortSlot, ifindex)) == ifindex
            {
                found = Some(slot);
            }
        })?;
        Ok(found)
    }

    /// A flow's record as it is now; none if it has been freed.
    pub fn flow_now(&self, id: SlotTag) -> Result<Option<FlowMeasurement>, Error> {
        if id.slot >= self.spec.flows {
            return Ok(None);
        }
        let f: Flow = self.record(FLOWS, id.slot)?;
        let lives = f.state >= state::LIVE && f.tag == id.tag;
        Ok(lives.then(|| flow_measurement(id.slot, &f)).flatten())
    }
}
