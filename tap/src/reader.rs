//! What a monitoring container does with its descriptors: map the arrays, read what changed, sum pairs.
//!
//! No `bpf()` call is made here, and no capability is needed. A scan is consistent: the janitor moves counters from
//! ended flows into pairs under a sequence lock, and a scan that met it is done again, so that nothing is
//! counted twice or not at all.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ippm::flow::{Both, Counters, EndReason, Leg, Role, Service};
use ippm::histogram::Histogram;
use ippm::measurement::{
    FlowEvent, FlowEventKind, FlowMeasurement, PairKey, PairMeasurement, PortMeasurement, RttMeasurement,
    RttSingleton, SetCounters, SlotTag,
};
use ippm::time::Timestamp;

use crate::abi::{self, Ctl, Flow, Hist, Pair, PortSlot, Record, state};
use crate::clock;
use crate::error::Error;
use crate::mmap::{Table, Tables};
use crate::ring::Ring;
use crate::set::{Descriptors, SetSpec};
use crate::slots::Slots;

/// How often a scan that met the janitor is done again before it is given up for this time.
pub(crate) const RETRIES: usize = 64;

/// Flows that one scan reports at most; further ones come with the next. Pairs, which have their sums, all come.
const FLOWS_AT_ONCE: usize = 65_536;

/// Sums of one flow or of a pair's live flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    bytes: [u64; 2],
    packets: [u64; 2],
    extra: [u64; 2],
    retransmitted: [u64; 2],
    reordered: u64,
}

impl Sums {
    pub(crate) fn of_flow(f: &Flow) -> Self {
        Self {
            bytes: f.bytes,
            packets: f.packets,
            extra: f.extra,
            retransmitted: f.retransmitted.map(u64::from),
            reordered: u64::from(f.reordered),
        }
    }

    pub(crate) fn of_pair(p: &Pair) -> Self {
        Self {
            bytes: p.bytes,
            packets: p.packets,
            extra: p.extra,
            retransmitted: p.retransmitted,
            reordered: p.reordered,
        }
    }

    fn zip(self, other: Sums, f: impl Fn(u64, u64) -> u64) -> Sums {
        let both = |a: [u64; 2], b: [u64; 2]| [f(a[0], b[0]), f(a[1], b[1])];
        Sums {
            bytes: both(self.bytes, other.bytes),
            packets: both(self.packets, other.packets),
            extra: both(self.extra, other.extra),
            retransmitted: both(self.retransmitted, other.retransmitted),
            reordered: f(self.reordered, other.reordered),
        }
    }

    // wrapping: sums of differences, exact whatever the order
    fn plus(self, other: Sums) -> Sums {
        self.zip(other, u64::wrapping_add)
    }

    fn minus(self, other: Sums) -> Sums {
        self.zip(other, u64::wrapping_sub)
    }

    pub(crate) fn counters(&self) -> Both<Counters> {
        let of = |d: usize| abi::counters(self.bytes[d], self.packets[d], self.extra[d]);
        Both::new(of(0), of(1))
    }
}

/// [`Sums`] of one flow, whose rare counters are as short as in its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FlowSums {
    bytes: [u64; 2],
    packets: [u64; 2],
    extra: [u64; 2],
    retransmitted: [u32; 2],
    reordered: u32,
}

impl FlowSums {
    fn of(f: &Flow) -> Self {
        let Flow { bytes, packets, extra, retransmitted, reordered, .. } = *f;
        Self { bytes, packets, extra, retransmitted, reordered }
    }

    fn long(&self) -> Sums {
        let Self { bytes, packets, extra, retransmitted, reordered } = *self;
        let (retransmitted, reordered) = (retransmitted.map(u64::from), u64::from(reordered));
        Sums { bytes, packets, extra, retransmitted, reordered }
    }
}

/// What is known of a flow slot since it was read last.
#[derive(Clone, Copy, Debug, Default)]
struct FlowSlot {
    tag: u32,
    pair: u32,
    first_seen: u64,
    last_seen: u64,
    sums: FlowSums,
    tcp_flags: [u8; 2],
    proto: u8,
    ending: bool,
    changed: bool,
}

/// What is known of a pair slot.
#[derive(Clone, Copy, Debug, Default)]
struct PairSlot {
    tag: u32,
    first_seen: u64,
    /// Sum over live flows that point here.
    live: Sums,
    active: u32,
    /// Greatest `last_seen` of any of its flows.
    last_seen: u64,
    /// What was reported last.
    reported: Sums,
    reported_active: u32,
    reported_flows: u64,
}

/// What is known of a histogram slot.
#[derive(Clone, Copy, Debug, Default)]
struct HistSlot {
    /// Of the pair: a pair that comes back has the same key, so the same tag.
    tag: u32,
    first_seen: u64,
    sum_ns: u64,
    count: u64,
    reported: bool,
}

/// What changed since the scan before, and what went.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// When the tables were read.
    pub taken_at: Timestamp,
    /// The set's own counters.
    pub set: SetCounters,
    /// Flows that are new or counted packets.
    pub flows: Vec<FlowMeasurement>,
    /// Pairs whose totals changed.
    pub pairs: Vec<PairMeasurement>,
    /// Histograms that grew.
    pub rtts: Vec<RttMeasurement>,
    /// Ports whose classes grew.
    pub ports: Vec<PortMeasurement>,
}

/// A live flow's age, for whoever decides when it is over.
#[derive(Clone, Copy, Debug)]
pub struct LiveFlow {
    /// Its record.
    pub id: SlotTag,
    /// Time of the first packet.
    pub first_seen: Timestamp,
    /// Time of the last packet, up to a tick early.
    pub last_seen: Timestamp,
    /// All TCP flags seen each way.
    pub tcp_flags: Both<u8>,
    /// IP protocol.
    pub proto: u8,
    /// Out of matching already: a newer connection took its place.
    pub ending: bool,
}

/// A pair without live flows.
#[derive(Clone, Copy, Debug)]
pub struct QuietPair {
    /// Its record.
    pub id: SlotTag,
    /// Time of the last packet.
    pub last_seen: Timestamp,
}

/// Records read from the ring.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Flows that began or ended.
    pub flows: Vec<FlowEvent>,
    /// Round-trip singletons, from sets that write them.
    pub singletons: Vec<RttSingleton>,
    /// Records that made no sense.
    pub unreadable: u64,
}

/// One reader of one set.
pub struct Reader {
    spec: SetSpec,
    flows: Table<Flow>,
    pairs: Tables<Pair>,
    ports: Table<PortSlot>,
    hists: Tables<Hist>,
    ctl: Table<Ctl>,
    ring: Ring,
    flow_slots: Slots<FlowSlot>,
    /// Where the next report of changed flows goes on.
    next_flow: usize,
    pair_slots: Vec<PairSlot>,
    hist_slots: Vec<HistSlot>,
    port_counts: Vec<(u32, u64)>,
    scanned: u64,
    tick: u64,
}

impl Reader {
    /// Maps what the descriptors give.
    pub fn new(descriptors: Descriptors) -> Result<Self, Error> {
        let Descriptors { mut fds, spec } = descriptors;
        let wanted = Descriptors::count(&spec);
        if wanted != Some(fds.len()) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, format!("{} of {wanted:?}", fds.len()));
            return Err(Error::Descriptor { name: "extents", source });
        }
        let mut extents = fds.split_off(Descriptors::NAMES.len()).into_iter().map(Arc::new);
        let pair_extents: Vec<Arc<OwnedFd>> = extents.by_ref().take(spec.pair_extents as usize).collect();
        let hist_extents: Vec<Arc<OwnedFd>> = extents.collect();
        let six: Result<[OwnedFd; 6], _> = fds.try_into();
        let [flows, pairs, ports, hists, ctl, ring] = six.map_err(|_| Error::Object("six maps".into()))?;
        let failed = |name| move |source| Error::Descriptor { name, source };
        Ok(Self {
            flows: Table::new(flows.as_fd(), spec.flows).map_err(failed("flows"))?,
            pairs: Tables::new(pairs.as_fd(), spec.pairs, &pair_extents).map_err(failed("pairs"))?,
            ports: Table::new(ports.as_fd(), spec.ports).map_err(failed("ports"))?,
            hists: Tables::new(hists.as_fd(), spec.hists, &hist_extents).map_err(failed("hists"))?,
            ctl: Table::new(ctl.as_fd(), 1).map_err(failed("ctl"))?,
            ring: Ring::new(ring, spec.ring_bytes).map_err(failed("ring"))?,
            flow_slots: Slots::new(spec.flows),
            next_flow: 0,
            pair_slots: vec![PairSlot::default(); spec.pair_slots() as usize],
            hist_slots: vec![HistSlot::default(); spec.hist_slots() as usize],
            port_counts: vec![(0, 0); spec.ports as usize],
            scanned: 0,
            tick: clock::tick_ns(),
            spec,
        })
    }

    /// The set's sizes.
    pub fn spec(&self) -> SetSpec {
        self.spec
    }

    /// Bytes of tables that are mapped: the kernel's memory, though it shows as this process's.
    pub fn mapped_bytes(&self) -> u64 {
        self.flows.mapped_bytes()
            + self.pairs.mapped_bytes()
            + self.ports.mapped_bytes()
            + self.hists.mapped_bytes()
            + self.ctl.mapped_bytes()
    }

    /// For poll: readable when the ring holds records.
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.fd()
    }

    /// Bytes waiting in the ring.
    pub fn ring_pending(&self) -> u64 {
        self.ring.pending()
    }

    /// Forgets what was reported: the next scan reports everything there is.
    pub fn forget(&mut self) {
        for place in 0..self.flow_slots.len() {
            if let Some((_, flow)) = self.flow_slots.at_mut(place) {
                flow.changed = true;
            }
        }
        for slot in &mut self.pair_slots {
            slot.reported = Sums::default();
            slot.reported_flows = u64::MAX;
        }
        for slot in &mut self.hist_slots {
            slot.reported = false;
        }
        self.port_counts.fill((0, 0));
    }

    /// The set's own counters now; round-trip singletons as of the last scan.
    pub fn counters(&self) -> SetCounters {
        let samples = self.hist_slots.iter().fold(0, |all: u64, h| all.wrapping_add(h.count));
        set_counters(&self.ctl.get(0), samples)
    }

    /// Whether the records are in the table that this reader has: not once the set has another flow table.
    fn is_current(&self) -> bool {
        let slots = self.ctl.u64(0, offset_of!(Ctl, flow_slots));
        slots == 0 || slots == u64::from(self.spec.flows)
    }

    fn fold_seq(&self) -> u64 {
        self.ctl.u64(0, offset_of!(Ctl, fold_seq))
    }

    /// Reads the tables. `None` when the janitor was at work all the while: nothing is lost, the next scan reports it; and
    /// when the set's records are in another flow table by now: a reader of that one reports them.
    pub fn scan(&mut self) -> Option<Scan> {
        for _ in 0..RETRIES {
            let before = self.fold_seq();
            if before & 1 == 1 {
                std::thread::yield_now();
                continue;
            }
            if !self.is_current() {
                return None;
            }
            let taken_at = clock::monotonic();
            let coarse = clock::coarse().as_nanos();
            self.read_flows();
            let (mut pairs, mut freed) = (Vec::new(), Vec::new());
            for slot in 0..self.pairs.len() {
                if self.pairs.u32(slot, offset_of!(Pair, state)) >= state::LIVE {
                    pairs.push((slot, self.pairs.get(slot)));
                } else if self.pair_slots[slot as usize].tag != 0 {
                    freed.push(slot);
                }
            }
            std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
            if self.fold_seq() != before {
                continue;
            }
            // not before: a pair that was freed together with its flows has live sums until those are seen to be free
            for slot in freed {
                self.pair_slots[slot as usize] = PairSlot::default();
            }
            self.scanned = coarse;
            let rtts = self.changed_histograms(&pairs);
            return Some(Scan {
                taken_at,
                set: self.counters(),
                flows: self.changed_flows(),
                rtts,
                pairs: self.changed_pairs(&pairs),
                ports: self.changed_ports(),
            });
        }
        None
    }

    /// Brings `flow_slots` and the pairs' live sums up to date.
    fn read_flows(&mut self) {
        // A packet later in the tick of the scan before does not change last_seen: look again at anything that young.
        let young = self.scanned.saturating_sub(2 * self.tick);
        for i in 0..self.flows.len() {
            let known = self.flow_slots.get(i).copied();
            let now = self.flows.u32(i, offset_of!(Flow, state));
            if now < state::LIVE {
                if let Some(known) = known {
                    self.forget_flow(i, known);
                }
                continue;
            }
            let known = known.unwrap_or_default();
            let tag = self.flows.u32(i, offset_of!(Flow, tag));
            let last_seen = self.flows.u64(i, offset_of!(Flow, last_seen_ns));
            let ending = now == state::ENDING;
            // without a pair it may be given one at any time
            if tag == known.tag
                && last_seen < young
                && last_seen == known.last_seen
                && ending == known.ending
                && known.pair != abi::NONE
            {
                continue;
            }
            let f = self.flows.get(i);
            if f.tag == 0 || f.state < state::LIVE {
                continue;
            }
            let same = known.tag == f.tag && known.first_seen == f.first_seen_ns;
            if known.tag != 0 && !same {
                self.forget_flow(i, known);
            }
            let old = if same { known.sums } else { FlowSums::default() };
            let sums = FlowSums::of(&f);
            if let Some(pair) = self.pair_slots.get_mut(f.pair as usize) {
                // one that has just been given a pair brings all that it counted
                let there = same && known.pair == f.pair;
                let before = if there { old } else { FlowSums::default() };
                pair.live = pair.live.plus(sums.long().minus(before.long()));
                pair.active += u32::from(!there);
                pair.last_seen = pair.last_seen.max(f.last_seen_ns);
            }
            let flow = FlowSlot {
                tag: f.tag,
                pair: f.pair,
                first_seen: f.first_seen_ns,
                last_seen: f.last_seen_ns,
                sums,
                tcp_flags: f.tcp_flags,
                proto: f.key.proto,
                ending,
                changed: !same || sums != old || known.pair != f.pair || known.changed,
            };
            self.flow_slots.set(i, flow);
        }
    }

    fn forget_flow(&mut self, slot: u32, known: FlowSlot) {
        if let Some(pair) = self.pair_slots.get_mut(known.pair as usize) {
            pair.live = pair.live.minus(known.sums.long());
            pair.active = pair.active.saturating_sub(1);
        }
        self.flow_slots.clear(slot);
    }

    fn changed_flows(&mut self) -> Vec<FlowMeasurement> {
        let mut changed = Vec::new();
        for _ in 0..self.flow_slots.len() {
            if changed.len() == FLOWS_AT_ONCE {
                break;
            }
            if self.next_flow >= self.flow_slots.len() {
                self.next_flow = 0;
            }
            let place = self.next_flow;
            self.next_flow += 1;
            let Some((i, slot)) = self.flow_slots.at_mut(place) else { break };
            if !std::mem::take(&mut slot.changed) {
                continue;
            }
            let f = self.flows.get(i);
            if f.tag != slot.tag || f.first_seen_ns != slot.first_seen {
                // went in this moment; its end is an event
                continue;
            }
            // the values that the pair's sum has, not newer ones
            let sums = slot.sums.long();
            changed.extend(flow_measurement(i, &f).map(|now| FlowMeasurement {
                // of an extent that this reader has not: its next one will tell
                pair: now.pair.filter(|pair| *pair < self.pairs.len()),
                counters: sums.counters(),
                retransmitted: Both::from(sums.retransmitted),
                reordered: sums.reordered,
                ..now
            }));
        }
        changed
    }

    fn changed_pairs(&mut self, pairs: &[(u32, Pair)]) -> Vec<PairMeasurement> {
        let mut changed = Vec::new();
        for (slot, p) in pairs {
            let known = &mut self.pair_slots[*slot as usize];
            if known.tag != p.tag || known.first_seen != p.first_seen_ns {
                // another life: live sums are of flows that point here now
                known.tag = p.tag;
                known.first_seen = p.first_seen_ns;
                known.reported = Sums::default();
                known.reported_flows = u64::MAX;
            }
            let total = Sums::of_pair(p).plus(known.live);
            if total == known.reported
                && known.active == known.reported_active
                && p.flows == known.reported_flows
            {
                continue;
            }
            known.reported = total;
            known.reported_active = known.active;
            known.reported_flows = p.flows;
            changed.extend(pair_measurement(*slot, p, total, known.last_seen, known.active));
        }
        changed
    }

    fn changed_histograms(&mut self, pairs: &[(u32, Pair)]) -> Vec<RttMeasurement> {
        let mut changed = Vec::new();
        for (i, slot) in (0..).zip(&mut self.hist_slots) {
            if slot.count > 0 && self.hists.u32(i, offset_of!(Hist, state)) != state::LIVE {
                *slot = HistSlot::default();
            }
        }
        for (slot, p) in pairs {
            for (leg, at) in Leg::ALL.iter().zip(p.hist) {
                let Some(at) = at.checked_sub(1).filter(|at| *at < self.hists.len()) else { continue };
                let sum_ns = self.hists.u64(at, offset_of!(Hist, sum_ns));
                let known = self.hist_slots[at as usize];
                let same =
                    known.tag == p.tag && known.first_seen == p.first_seen_ns && known.sum_ns == sum_ns;
                if same && known.reported {
                    continue;
                }
                let h = self.hists.get(at);
                let counts = h.bucket.iter().enumerate().map(|(i, n)| (i as u16, u64::from(*n)));
                let Ok(histogram) = Histogram::from_counts(counts, h.sum_ns, h.min_ns, h.max_ns) else {
                    continue;
                };
                self.hist_slots[at as usize] = HistSlot {
                    tag: p.tag,
                    first_seen: p.first_seen_ns,
                    sum_ns,
                    count: histogram.count(),
                    reported: true,
                };
                changed.push(RttMeasurement {
                    pair: SlotTag { slot: *slot, tag: p.tag },
                    leg: *leg,
                    histogram,
                });
            }
        }
        changed
    }

    fn changed_ports(&mut self) -> Vec<PortMeasurement> {
        let mut changed = Vec::new();
        for i in 0..self.ports.len() {
            if self.ports.u32(i, offset_of!(PortSlot, state)) != state::LIVE {
                continue;
            }
            let p = self.ports.get(i);
            let packets = p.count.iter().flatten().map(|c| c.packets).fold(0, u64::wrapping_add);
            let known = &mut self.port_counts[i as usize];
            if *known == (p.ifindex, packets) {
                continue;
            }
            *known = (p.ifindex, packets);
            let counts = Both::new(abi::classes(&p.count[0]), abi::classes(&p.count[1]));
            changed.push(PortMeasurement { ifindex: p.ifindex, counts });
        }
        changed
    }

    /// The live flows as of the last scan.
    pub fn live_flows(&self) -> impl Iterator<Item = LiveFlow> + '_ {
        self.flow_slots.iter().map(|(slot, f)| LiveFlow {
            id: SlotTag { slot, tag: f.tag },
            first_seen: Timestamp(f.first_seen),
            last_seen: Timestamp(f.last_seen.max(f.first_seen)),
            tcp_flags: Both::from(f.tcp_flags),
            proto: f.proto,
            ending: f.ending,
        })
    }

    /// The pairs that had no live flow at the last scan.
    pub fn quiet_pairs(&self) -> impl Iterator<Item = QuietPair> + '_ {
        self.pair_slots.iter().enumerate().filter(|(_, p)| p.tag != 0 && p.active == 0).map(|(i, p)| {
            QuietPair {
                id: SlotTag { slot: i as u32, tag: p.tag },
                last_seen: Timestamp(p.last_seen.max(p.first_seen)),
            }
        })
    }

    /// Slots in use: flows, pairs.
    pub fn fill(&self) -> (u32, u32) {
        let pairs = self.pair_slots.iter().filter(|p| p.tag != 0).count();
        (self.flow_slots.len() as u32, pairs as u32)
    }

    /// Takes up to `max` records out of the ring.
    pub fn events(&mut self, max: usize) -> Events {
        let mut events = Events::default();
        self.ring.drain(max, |bytes| {
            let read = abi::from_bytes::<Record>(bytes).and_then(|r| event(&r));
            match read {
                Some(Event::Flow(e)) => events.flows.push(e),
                Some(Event::Singleton(s)) => events.singletons.push(s),
                None => events.unreadable += 1,
            }
        });
        events
    }
}

/// A flow's record as it was read; `None` if it makes no sense.
pub(crate) fn flow_measurement(slot: u32, f: &Flow) -> Option<FlowMeasurement> {
    let sums = Sums::of_flow(f);
    Some(FlowMeasurement {
        key: f.key.to_ippm(),
        id: SlotTag { slot, tag: f.tag },
        pair: (f.pair != abi::NONE).then_some(f.pair),
        role: Role::from_number(f.role)?,
        guessed: f.guessed != 0,
        first_seen: Timestamp(f.first_seen_ns),
        last_seen: Timestamp(f.last_seen_ns.max(f.first_seen_ns)),
        counters: sums.counters(),
        tcp_flags: Both::from(f.tcp_flags),
        retransmitted: Both::from(sums.retransmitted),
        reordered: sums.reordered,
    })
}

pub(crate) fn read_histogram(h: &Hist) -> Option<Histogram> {
    let counts = h.bucket.iter().enumerate().map(|(i, n)| (i as u16, u64::from(*n)));
    Histogram::from_counts(counts, h.sum_ns, h.min_ns, h.max_ns).ok()
}

pub(crate) fn pair_measurement(
    slot: u32,
    p: &Pair,
    total: Sums,
    last_seen: u64,
    active: u32,
) -> Option<PairMeasurement> {
    Some(PairMeasurement {
        key: PairKey {
            ifindex: p.key.ifindex,
            local: abi::address(p.key.local),
            remote: abi::address(p.key.remote),
            proto: p.key.proto,
            role: Role::from_number(p.key.role)?,
            service: Service::from_number(p.key.service)?,
        },
        id: SlotTag { slot, tag: p.tag },
        guessed: p.key.guessed != 0,
        first_seen: Timestamp(p.first_seen_ns),
        last_seen: Timestamp(p.last_seen_ns.max(last_seen).max(p.first_seen_ns)),
        counters: total.counters(),
        retransmitted: Both::from(total.retransmitted),
        reordered: total.reordered,
        flows: p.flows,
        no_slot: p.no_slot,
        active_flows: active,
    })
}

/// A set's own counters, with the number of its histograms' singletons as somebody counted them.
pub(crate) fn set_counters(c: &Ctl, samples: u64) -> SetCounters {
    let of = |d: usize| abi::counters(c.no_port[d].bytes, c.no_port[d].packets, c.no_port[d].extra);
    SetCounters {
        abi: c.abi,
        fold_seq: c.fold_seq,
        flows_begun: c.flows_begun,
        flows_ended: c.flows_ended,
        flow_full: c.flow_full,
        pair_full: c.pair_full,
        hist_full: c.hist_full,
        port_full: c.port_full,
        ring_full: c.ring_full,
        rtt_samples: c.rtt_freed.wrapping_add(samples),
        probes_cancelled: c.probes_cancelled,
        no_port: Both::new(of(0), of(1)),
        pairs: c.pairs_begun.saturating_sub(c.pairs_ended),
        hists: c.hists_begun.saturating_sub(c.hists_ended),
        no_pair: c.no_pair,
        rtt_unpaired: c.rtt_unpaired,
        unpaired: c.no_pair.saturating_sub(c.no_pair_over),
    }
}

enum Event {
    Flow(FlowEvent),
    Singleton(RttSingleton),
}

fn event(r: &Record) -> Option<Event> {
    let id = SlotTag { slot: r.slot, tag: r.tag };
    let kind = match r.kind {
        abi::record::NEW_FLOW => FlowEventKind::New,
        abi::record::END_FLOW => FlowEventKind::End(EndReason::from_number(r.reason)?),
        abi::record::RTT_SAMPLE => {
            return Some(Event::Singleton(RttSingleton {
                key: r.key.to_ippm(),
                id,
                leg: Leg::from_number(r.leg)?,
                time: Timestamp(r.time_ns),
                rtt_ns: r.rtt_ns,
                ack: r.ack,
            }));
        }
        _ => return None,
    };
    let of = |d: usize| abi::counters(r.bytes[d], r.packets[d], r.extra[d]);
    Some(Event::Flow(FlowEvent {
        kind,
        time: Timestamp(r.time_ns),
        key: r.key.to_ippm(),
        id,
        role: Role::from_number(r.role)?,
        guessed: r.guessed != 0,
        first_seen: Timestamp(r.first_seen_ns),
        last_seen: Timestamp(r.last_seen_ns.max(r.first_seen_ns)),
        counters: Both::new(of(0), of(1)),
        tcp_flags: Both::from(r.tcp_flags),
        unpaired: r.unpaired != 0,
    }))
}
