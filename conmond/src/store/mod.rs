//! What was measured, as it stands: the newest cumulative values of every live record, and totals of those that ended.
//!
//! Records come as absolute values, so a report that is lost, repeated, or sent again in full after a monitor was
//! replaced changes nothing. A pair's record that the kernel gave up is *retired*: its totals move here, and to the
//! journal first, so that a crash between the two neither loses nor doubles them.

mod journal;
mod names;
mod pairs;
mod shares;
mod snapshot;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conmon::api::{Endpoint, EndpointKind};
use ippm::flow::{Both, Counters, EndReason, FlowKey, Role, Service};
use ippm::histogram::Histogram;
use ippm::measurement::{
    Batch, FlowEvent, FlowEventKind, FlowMeasurement, PairKey, PairMeasurement, PortMeasurement,
    RttMeasurement, SetCounters, SlotTag,
};
use ippm::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use journal::{Journal, JournalError};
pub use names::{ContainerName, Elsewhere, Names, PortName, SavedNames};
pub use pairs::{Delay, ProtocolSums, Totals, at_level, ended_flow, flow_view, group, is_copy, measurements};
pub use shares::{Part, SavedShare, Share, Shares, Who, far_end, split};
pub use snapshot::{Changing, Snapshots};

use crate::mc::SetId;
use crate::nat::{Place, Real, Translations};

/// Ended flows whose far end another host may still name, and for how long.
const LATE_FLOWS: usize = 8192;
const LATE: Duration = Duration::from_secs(5);
/// Flows that were read before it was known who is at their far end, and are looked at again: without an answer for as long, since they may
/// wait for a neighbour,
const AWAITED: usize = 8192;
/// with another host's address until that host has been asked often enough,
const ASKED: Duration = Duration::from_secs(30);
/// and any until what the kernel told of its connection is known.
const FRESH: Duration = Duration::from_millis(200);
/// Flows that began since their set's tables were read last, and for how long they are worth telling if those are not read again. Where
/// more begin, the reading tells of them.
const BEGUN_FLOWS: usize = 4096;
const BEGUN: Duration = Duration::from_secs(5);
/// How early a time of a last packet may be, at least: the kernel's clock ticks.
const TICK: Duration = Duration::from_millis(10);
/// The end of a flow whose record is freed is told by the reading that is so much later.
const END_COMES: Duration = Duration::from_secs(5);
/// Ended flows that are kept for `conmonctl flows`; the oldest go first.
const ENDED_FLOWS: usize = 8192;

/// One life of a pair's record in one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PairLife {
    /// The set, by number.
    pub set: u32,
    /// The slot and its tag.
    pub id: SlotTag,
    /// Time of the first packet: tells lives of equal keys apart.
    pub first_seen: Timestamp,
}

/// A pair's record, with its delays by leg number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairRecord {
    /// The newest values.
    pub pair: PairMeasurement,
    /// Histograms by leg number.
    pub rtts: [Option<Histogram>; 4],
}

/// A live record and what it counted over the last interval.
#[derive(Clone, Debug)]
pub struct LivePair {
    /// The record.
    pub record: PairRecord,
    /// Counted between the two newest readings of its set.
    pub last: Both<Counters>,
    /// The reading that `last` belongs to.
    pub last_at: Timestamp,
}

/// A record that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetiredPair {
    /// Which record it was.
    pub life: PairLife,
    /// Its last values.
    pub record: PairRecord,
    /// Its ends, named when it ended.
    pub local: conmon::api::Endpoint,
    /// The other end.
    pub remote: conmon::api::Endpoint,
    /// What was seen in the other end's place, where its address was translated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Place>,
    /// It is a part of the record, see [`Part`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// It is of copies, see [`Names::is_copy`]: counted at the port, and no row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_copy: bool,
}

impl RetiredPair {
    /// Stands for pairs of a port that were forgotten: their sums, without names.
    fn remainder(ifindex: u32, counters: Both<Counters>) -> Self {
        let nobody = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let end = Endpoint {
            kind: EndpointKind::External,
            name: "forgotten".to_owned(),
            id: None,
            service: None,
            tenant: None,
            host: None,
            addresses: Vec::new(),
        };
        // no record of the kernel has the tag 0
        let id = SlotTag { slot: 0, tag: 0 };
        let key = PairKey {
            ifindex,
            local: nobody,
            remote: nobody,
            proto: 0,
            role: Role::LocalOpened,
            service: Service::None,
        };
        let pair = PairMeasurement {
            key,
            id,
            guessed: false,
            first_seen: Timestamp::ZERO,
            last_seen: Timestamp::ZERO,
            counters,
            retransmitted: Both::default(),
            reordered: 0,
            flows: 0,
            no_slot: 0,
            active_flows: 0,
        };
        Self {
            life: PairLife { set: 0, id, first_seen: Timestamp::ZERO },
            record: PairRecord { pair, rtts: [const { None }; 4] },
            local: end.clone(),
            remote: end,
            via: Vec::new(),
            partial: false,
            is_copy: false,
        }
    }

    fn is_remainder(&self) -> bool {
        self.life.id.tag == 0
    }
}

/// An open flow record whose far end is another than is seen.
#[derive(Clone, Debug)]
struct LiveFlow {
    /// The newest values.
    flow: FlowMeasurement,
    /// Who is really at the far end.
    real: Real,
    /// Counted between the two newest reports of it.
    last: Both<Counters>,
    last_at: Timestamp,
    /// When the kernel gave its record up, if it did: its end is on its way.
    freed_at: Option<Timestamp>,
}

/// A closed flow record.
#[derive(Clone, Debug)]
pub struct EndedFlow {
    /// The set it was in.
    pub set: SetId,
    /// Its last values.
    pub event: FlowEvent,
    /// Who was really at the far end, where its address was translated.
    pub real: Option<Real>,
}

/// What a flow waits for whose far end is who it seems, as far as is known yet.
enum Awaits {
    /// The other host's, or a neighbour's.
    Answer,
    /// The kernel's word of its connection, if it is translated.
    Kernel,
}

/// What a flow waits for at this time, if all is known that the kernel told before `heard`.
fn awaits(
    flow: &FlowMeasurement,
    masks: &HashSet<IpAddr>,
    now: Timestamp,
    heard: Timestamp,
) -> Option<Awaits> {
    let age = now - flow.first_seen;
    // nothing was answered yet: its packets may wait for a neighbour's address, and the kernel tells of it only then
    let waits = flow.counters.rx.packets == 0 && age < LATE;
    let is_asked_for = masks.contains(&flow.key.remote) && age < ASKED;
    if waits || is_asked_for {
        return Some(Awaits::Answer);
    }
    let is_heard = age >= FRESH && heard >= flow.first_seen + FRESH;
    (!is_heard && heard < Timestamp::MAX).then_some(Awaits::Kernel)
}

/// Whether what the kernel told of an ended flow's connection is known where all is that was told before `heard`.
fn is_heard(event: &FlowEvent, heard: Timestamp) -> bool {
    heard >= event.time.min(event.first_seen + FRESH)
}

/// What one set last reported.
#[derive(Clone, Debug, Default)]
pub struct SetReport {
    /// Its own counters.
    pub counters: SetCounters,
    /// When the newest batch was taken.
    pub taken_at: Timestamp,
    /// When the tables were read last: rates are over the time between two readings.
    pub read_at: Timestamp,
    /// And the time before.
    pub before: Timestamp,
    /// Sequence number of the last batch.
    pub sequence: u64,
    /// Batches that came.
    pub batches: u64,
    /// Flow records open at the last reading.
    pub flows: u32,
    /// When its flow table grew last: flows in readings of before are in other places now.
    pub flows_moved_at: Timestamp,
    /// When a table was last seen to have had no room for something.
    pub tables_short_at: Timestamp,
    /// When the ring was.
    pub ring_short_at: Timestamp,
    /// Flows with which one did not wait until it was known who is at their far end, because too many did.
    pub unresolved: u64,
}

/// A sign of life follows the batch of the same reading by less than this.
const SAME_READING: Duration = Duration::from_millis(20);

impl SetReport {
    fn read(&mut self, at: Timestamp) {
        if at > self.read_at {
            self.before = self.read_at;
            self.read_at = at;
        }
    }

    /// New counters tell whether anything found no room since the last ones. Of a daemon that starts they tell of before, too.
    fn short(&mut self, at: Timestamp, new: &SetCounters) {
        let tables = |c: &SetCounters| [c.flow_full, c.pair_full, c.port_full, c.hist_full];
        if tables(new).iter().zip(tables(&self.counters)).any(|(new, old)| *new > old) {
            self.tables_short_at = at;
        }
        if new.ring_full > self.counters.ring_full {
            self.ring_short_at = at;
        }
    }

    /// Length of the last interval, none before the second reading.
    pub fn interval(&self) -> Option<Duration> {
        (self.before > Timestamp::ZERO && self.read_at > self.before).then(|| self.read_at - self.before)
    }
}

/// Slots of a set's tables that are taken, as far as was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Open flow records.
    pub flows: u64,
    /// Live pairs.
    pub pairs: u64,
    /// Ports that counted something.
    pub ports: u64,
    /// Delay histograms.
    pub histograms: u64,
}

/// Everything measured.
pub struct Store {
    pairs: HashMap<(SetId, u32), LivePair>,
    retired: Vec<RetiredPair>,
    /// Lives that ended: a late report must not bring them back.
    buried: HashSet<PairLife>,
    buried_order: VecDeque<PairLife>,
    /// Translated flows alone: all others are in the kernel's tables, for whoever lists them.
    translated: HashMap<(SetId, u32), LiveFlow>,
    /// Translated flows whose records were given up when those of their set were moved to another table: their ends are on the way.
    folded: HashMap<(SetId, FlowKey), LiveFlow>,
    /// Flows whose far end is who it seems, as far as is known yet, and when they were read. Who is silent from then on is not read again.
    awaited: HashMap<(SetId, u32), (FlowMeasurement, Timestamp)>,
    ended: VecDeque<EndedFlow>,
    /// Flows that began since the last reading: a new pair is told of before its record is read.
    begun: VecDeque<(SetId, FlowEvent)>,
    /// Ended ones whose far end another host may still name, each with when it was put here.
    late: VecDeque<(SetId, FlowEvent, Timestamp)>,
    /// Addresses of other hosts: who is behind one is asked for.
    masks: HashSet<IpAddr>,
    /// Shares of flows that ended in pairs that live.
    ended_shares: HashMap<(SetId, PairKey), Shares>,
    /// Pairs whose records were given up with all their flows, and when the last packet was: ends of those come later.
    settled: HashMap<(SetId, PairKey), Timestamp>,
    shares_changed: bool,
    translations: Arc<Mutex<Translations>>,
    /// What of them flows that wait were compared with last.
    looked_at: u64,
    ports: HashMap<(SetId, u32), PortMeasurement>,
    sets: HashMap<SetId, SetReport>,
    retention: Duration,
    /// Records refused because they made no sense.
    pub refused: u64,
    /// Ended pairs forgotten after the retention time.
    pub forgotten: u64,
}

impl Store {
    /// An empty store that keeps ended pairs for `retention`.
    pub fn new(retention: Duration) -> Self {
        Self {
            pairs: HashMap::new(),
            retired: Vec::new(),
            buried: HashSet::new(),
            buried_order: VecDeque::new(),
            translated: HashMap::new(),
            folded: HashMap::new(),
            awaited: HashMap::new(),
            ended: VecDeque::new(),
            begun: VecDeque::new(),
            late: VecDeque::new(),
            masks: HashSet::new(),
            ended_shares: HashMap::new(),
            settled: HashMap::new(),
            shares_changed: false,
            translations: Arc::default(),
            looked_at: 0,
            ports: HashMap::new(),
            sets: HashMap::new(),
            retention,
            refused: 0,
            forgotten: 0,
        }
    }

    /// What is known of translated addresses, to be filled by who listens to the kernel.
    pub fn translations(&self) -> Arc<Mutex<Translations>> {
        self.translations.clone()
    }

    fn real(&self, key: &FlowKey, first: Timestamp, last: Timestamp) -> Option<Real> {
        self.translations.lock().unwrap_or_else(PoisonError::into_inner).real(key, first, last)
    }

    /// What the kernel told of connections before then is known. To be asked before who is at a far end: what is heard in between is then found.
    fn heard_until(&self) -> Timestamp {
        self.translations.lock().unwrap_or_else(PoisonError::into_inner).heard_until()
    }

    /// Whether shares of ended flows changed since the last call.
    pub fn take_shares_changed(&mut self) -> bool {
        std::mem::take(&mut self.shares_changed)
    }

    /// Takes a report of a set's monitor.
    pub fn apply(&mut self, set: SetId, batch: &Batch) {
        let report = self.sets.entry(set).or_default();
        report.taken_at = report.taken_at.max(batch.taken_at);
        // batches come between readings, too, with what the ring told
        if !batch.pairs.is_empty() {
            report.read(batch.taken_at);
        }
        report.short(batch.taken_at, &batch.set);
        report.counters = batch.set;
        report.sequence = batch.sequence;
        report.batches += 1;
        let moved_at = report.flows_moved_at;
        let heard = self.heard_until();
        for pair in &batch.pairs {
            self.apply_pair(set, pair, batch.taken_at);
        }
        for rtt in &batch.rtts {
            self.apply_rtt(set, rtt);
        }
        if batch.taken_at > moved_at {
            for flow in &batch.flows {
                self.apply_flow(set, flow, batch.taken_at, heard);
            }
        }
        for port in &batch.ports {
            self.ports.insert((set, port.ifindex), port.clone());
        }
        for event in &batch.events {
            match event.kind {
                // without a pair it is in no row when it is read, so it does not come and go
                FlowEventKind::New if !event.unpaired && self.begun.len() < BEGUN_FLOWS => {
                    self.begun.push_back((set, event.clone()));
                }
                FlowEventKind::New | FlowEventKind::End(EndReason::ActiveTimeout) => {}
                FlowEventKind::End(_) => self.end_flow(set, event, heard),
            }
        }
    }

    /// Flows whose pairs may have no record here yet, each with who is really at its far end; without those whose far end is yet to
    /// be told by another host.
    pub fn begun(&self) -> impl Iterator<Item = (&FlowEvent, Option<Real>)> {
        self.begun.iter().filter_map(|(_, event)| {
            let real = self.real(&event.key, event.first_seen, event.last_seen);
            (real.is_some() || !self.masks.contains(&event.key.remote)).then_some((event, real))
        })
    }

    /// A set's tables were read at this time, whether anything had changed or not, and so many flow records were open.
    pub fn scanned(&mut self, set: SetId, at: Timestamp, flows: u32) {
        let report = self.sets.entry(set).or_default();
        report.flows = flows;
        if at - report.read_at >= SAME_READING {
            report.read(at);
        }
        self.settle_lost(set, at);
        self.settle(|of| of == set, at);
        self.begun.retain(|(of, event)| event.time > at || (*of != set && at - event.time < BEGUN));
    }

    fn apply_pair(&mut self, set: SetId, pair: &PairMeasurement, taken_at: Timestamp) {
        let life = PairLife { set: set.0, id: pair.id, first_seen: pair.first_seen };
        if self.buried.contains(&life) {
            return;
        }
        let slot = self.pairs.entry((set, pair.id.slot)).or_insert_with(|| LivePair {
            record: PairRecord { pair: pair.clone(), rtts: [const { None }; 4] },
            last: Both::default(),
            last_at: Timestamp::ZERO,
        });
        if slot.record.pair.id != pair.id || slot.record.pair.first_seen != pair.first_seen {
            // Another life in the slot of one that was never retired: nothing frees a pair without retiring it.
            self.refused += 1;
            *slot = LivePair {
                record: PairRecord { pair: pair.clone(), rtts: [const { None }; 4] },
                last: Both::default(),
                last_at: Timestamp::ZERO,
            };
        }
        let old = slot.record.pair.counters;
        let fresh = slot.last_at == Timestamp::ZERO;
        slot.last = if fresh {
            // rates need two readings, unless the record began within the interval
            let begun = self
                .sets
                .get(&set)
                .is_some_and(|s| s.before > Timestamp::ZERO && pair.first_seen >= s.before);
            if begun { pair.counters } else { Both::default() }
        } else {
            Both::new(pair.counters.tx.since(old.tx), pair.counters.rx.since(old.rx))
        };
        slot.last_at = taken_at;
        slot.record.pair = pair.clone();
    }

    /// Whether any far end may be another than is seen.
    pub fn has_far_ends(&self) -> bool {
        !self.masks.is_empty() || !self.translations.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// A flow's record as it is before it is given up together with its pair.
    pub fn last_word(&mut self, set: SetId, flow: &FlowMeasurement, now: Timestamp) {
        self.apply_flow(set, flow, now, self.heard_until());
    }

    fn apply_flow(&mut self, set: SetId, flow: &FlowMeasurement, taken_at: Timestamp, heard: Timestamp) {
        let place = (set, flow.id.slot);
        let known = self
            .translated
            .get(&place)
            .filter(|l| l.flow.id == flow.id && l.flow.first_seen == flow.first_seen);
        let real =
            known.map(|l| l.real.clone()).or_else(|| self.real(&flow.key, flow.first_seen, flow.last_seen));
        let Some(real) = real else {
            // the slot's flow of before, if it was translated, has ended
            self.translated.remove(&place);
            self.await_far_end(set, flow, taken_at, heard);
            return;
        };
        let last = match known {
            Some(l) => {
                let (new, old) = (flow.counters, l.flow.counters);
                Both::new(new.tx.since(old.tx), new.rx.since(old.rx))
            }
            None => Both::default(),
        };
        let live = LiveFlow { flow: flow.clone(), real, last, last_at: taken_at, freed_at: None };
        self.translated.insert(place, live);
    }

    /// It may become known yet who is at a flow's far end; from then on its share of the pair is that one's.
    fn await_far_end(&mut self, set: SetId, flow: &FlowMeasurement, taken_at: Timestamp, heard: Timestamp) {
        let place = (set, flow.id.slot);
        self.awaited.remove(&place);
        let room = match awaits(flow, &self.masks, taken_at, heard) {
            Some(Awaits::Answer) => AWAITED,
            // those that mostly wait for nothing
            Some(Awaits::Kernel) => AWAITED / 2,
            None => return,
        };
        if self.awaited.len() < room {
            self.awaited.insert(place, (flow.clone(), taken_at));
        } else if self.has_far_ends() {
            self.lost_trace_of(set);
        }
    }

    /// Flows of these sets that were read, or had ended, before it became known who is at their far end.
    fn settle(&mut self, of: impl Fn(SetId) -> bool, now: Timestamp) {
        let heard = self.heard_until();
        self.settle_awaited(&of, now, heard);
        self.settle_ended(&of, now, heard);
    }

    fn settle_awaited(&mut self, of: impl Fn(SetId) -> bool, now: Timestamp, heard: Timestamp) {
        let known: Vec<_> = {
            let all = self.translations.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known =
                |flow: &FlowMeasurement| all.real(&flow.key, flow.first_seen, flow.last_seen).is_some();
            self.awaited.extract_if(|(set, _), (flow, _)| of(*set) && is_known(flow)).collect()
        };
        for (place, (flow, taken_at)) in known {
            if !self.translated.contains_key(&place) {
                self.apply_flow(place.0, &flow, taken_at, heard);
            }
        }
        self.awaited
            .retain(|(set, _), (flow, _)| !of(*set) || awaits(flow, &self.masks, now, heard).is_some());
    }

    fn end_flow(&mut self, set: SetId, event: &FlowEvent, heard: Timestamp) {
        let place = (set, event.id.slot);
        // another may have its slot by now, and have been read
        if self.awaited.get(&place).is_some_and(|(flow, _)| flow.first_seen == event.first_seen) {
            self.awaited.remove(&place);
        }
        let is_it = |live: &LiveFlow| live.flow.first_seen == event.first_seen;
        let live = if self.translated.get(&place).is_some_and(is_it) {
            self.translated.remove(&place)
        } else if self.folded.get(&(set, event.key)).is_some_and(is_it) {
            self.folded.remove(&(set, event.key))
        } else {
            None
        };
        let real = live.map(|l| l.real).or_else(|| self.real(&event.key, event.first_seen, event.last_seen));
        match &real {
            // what no pair has is nobody's share of one
            Some(_) if event.unpaired => {}
            Some(real) => self.keep_share_of(set, event, real),
            // over before anybody could be asked, or before the kernel was heard
            None if self.masks.contains(&event.key.remote) || !is_heard(event, heard) => {
                if self.late.len() >= LATE_FLOWS
                    && let Some((of, _, since)) = self.late.pop_front()
                    && event.time - since < LATE
                {
                    self.lost_trace_of(of);
                }
                self.late.push_back((set, event.clone(), event.time));
            }
            None => {}
        }
        if self.ended.len() >= ENDED_FLOWS {
            self.ended.pop_front();
        }
        self.ended.push_back(EndedFlow { set, event: event.clone(), real });
    }

    /// A flow is no longer waited for whose far end may still be told of.
    fn lost_trace_of(&mut self, set: SetId) {
        if let Some(report) = self.sets.get_mut(&set) {
            report.unresolved += 1;
        }
    }

    /// Addresses behind which there may be others, whom another host names: ends of flows with them wait for that.
    pub fn set_masks(&mut self, masks: HashSet<IpAddr>) {
        self.masks = masks;
    }

    /// Whether a live pair has this far end, or a flow that began since the tables were read last.
    pub fn has_remote(&self, address: IpAddr) -> bool {
        self.pairs.values().any(|live| live.record.pair.key.remote == address)
            || self.begun.iter().any(|(_, event)| event.key.remote == address)
    }

    /// Far ends may have been learnt: flows that were read or had ended before have theirs.
    pub fn settle_late(&mut self, now: Timestamp) {
        let revision = self.translations.lock().unwrap_or_else(PoisonError::into_inner).revision();
        if std::mem::replace(&mut self.looked_at, revision) != revision {
            self.settle(|_| true, now);
        }
    }

    fn settle_ended(&mut self, of: impl Fn(SetId) -> bool, now: Timestamp, heard: Timestamp) {
        for (set, event, since) in std::mem::take(&mut self.late) {
            if !of(set) {
                self.late.push_back((set, event, since));
                continue;
            }
            match self.real(&event.key, event.first_seen, event.last_seen) {
                Some(real) => {
                    if !event.unpaired {
                        self.keep_share_of(set, &event, &real);
                    }
                    let same = |e: &&mut EndedFlow| {
                        e.set == set && e.event.id == event.id && e.event.first_seen == event.first_seen
                    };
                    if let Some(ended) = self.ended.iter_mut().rev().find(same) {
                        ended.real = Some(real);
                    }
                }
                None if !is_heard(&event, heard) => self.late.push_back((set, event, since)),
                None if self.masks.contains(&event.key.remote) && now - since < LATE => {
                    self.late.push_back((set, event, since));
                }
                None => {}
            }
        }
    }

    /// An ended flow's share of its pair, unless that was given up with all its flows.
    fn keep_share_of(&mut self, set: SetId, event: &FlowEvent, real: &Real) {
        let pair = (set, shares::pair_of(&event.key, event.role));
        if self.settled.get(&pair).is_none_or(|last_seen| event.first_seen > *last_seen + TICK) {
            self.keep_share(set, &event.key, event.role, real, event.counters);
        }
    }

    fn keep_share(&mut self, set: SetId, key: &FlowKey, role: Role, real: &Real, counters: Both<Counters>) {
        let shares = self.ended_shares.entry((set, shares::pair_of(key, role))).or_default();
        shares.entry(Who::from(real)).or_default().add(key, role, counters);
        self.shares_changed = true;
    }

    fn apply_rtt(&mut self, set: SetId, rtt: &RttMeasurement) {
        if let Some(live) = self.pairs.get_mut(&(set, rtt.pair.slot)).filter(|l| l.record.pair.id == rtt.pair)
        {
            live.record.rtts[usize::from(rtt.leg.number())] = Some(rtt.histogram.clone());
        }
    }

    /// A pair's record ended with these values; what was live of it is gone.
    pub fn retire(&mut self, retired: RetiredPair) {
        let life = retired.life;
        if self
            .pairs
            .get(&(SetId(life.set), life.id.slot))
            .is_some_and(|l| l.record.pair.id == life.id && l.record.pair.first_seen == life.first_seen)
        {
            self.pairs.remove(&(SetId(life.set), life.id.slot));
        }
        self.bury(life);
        let (set, key) = (SetId(life.set), retired.record.pair.key);
        self.shares_changed |= self.ended_shares.remove(&(set, key)).is_some();
        let of_it = |flow: &FlowMeasurement| shares::pair_of(&flow.key, flow.role) == key;
        self.translated.retain(|(of, _), live| *of != set || !of_it(&live.flow));
        self.folded.retain(|(of, _), live| *of != set || !of_it(&live.flow));
        self.awaited.retain(|(of, _), (flow, _)| *of != set || !of_it(flow));
        let may_be_told =
            self.masks.contains(&key.remote) || self.heard_until() < retired.record.pair.last_seen + FRESH;
        if may_be_told || !retired.via.is_empty() {
            self.settled.insert((set, key), retired.record.pair.last_seen);
        }
        self.restore(retired);
    }

    /// Takes over a record that an earlier daemon retired. Ended records of the same ends at the same port are one, and
    /// so are those whose ports have gone (their ifindex is 0): the ledger needs to know what a port that is there has
    /// counted.
    pub fn restore(&mut self, retired: RetiredPair) {
        let same = |r: &&mut RetiredPair| {
            r.record.pair.key == retired.record.pair.key
                && r.local.name == retired.local.name
                && r.local.id == retired.local.id
                && r.remote.kind == retired.remote.kind
                && r.remote.name == retired.remote.name
                && r.remote.id == retired.remote.id
        };
        if let Some(known) = self.retired.iter_mut().find(same) {
            let (into, from) = (&mut known.record.pair, &retired.record.pair);
            into.first_seen = into.first_seen.min(from.first_seen);
            into.last_seen = into.last_seen.max(from.last_seen);
            into.counters += from.counters;
            into.retransmitted += from.retransmitted;
            into.reordered += from.reordered;
            into.flows += from.flows;
            into.no_slot += from.no_slot;
            known.partial |= retired.partial;
            for via in &retired.via {
                if !known.via.contains(via) {
                    known.via.push(*via);
                }
            }
            for (into, from) in known.record.rtts.iter_mut().zip(&retired.record.rtts) {
                match (into, from) {
                    (Some(into), Some(from)) => into.merge(from),
                    (into @ None, Some(from)) => *into = Some(from.clone()),
                    _ => {}
                }
            }
        } else {
            self.retired.push(retired);
        }
    }

    fn bury(&mut self, life: PairLife) {
        if self.buried.insert(life) {
            self.buried_order.push_back(life);
        }
        if self.buried_order.len() > 65_536
            && let Some(oldest) = self.buried_order.pop_front()
        {
            self.buried.remove(&oldest);
        }
    }

    /// A port's record was freed, its counts are in the ledger no more. Pairs that were counted there are kept for
    /// their names' sake.
    pub fn drop_port(&mut self, set: SetId, ifindex: u32) {
        self.ports.remove(&(set, ifindex));
        self.leave_ports(|i| i == ifindex);
    }

    /// Ports that an earlier daemon knew have gone unless `is_there`: what was counted there is told by name alone.
    pub fn keep_ports(&mut self, is_there: impl Fn(u32) -> bool) {
        self.leave_ports(|ifindex| !is_there(ifindex));
    }

    fn leave_ports(&mut self, gone: impl Fn(u32) -> bool) {
        let left: Vec<RetiredPair> = self
            .retired
            .extract_if(.., |r| r.record.pair.key.ifindex != 0 && gone(r.record.pair.key.ifindex))
            .collect();
        for mut r in left.into_iter().filter(|r| !r.is_remainder()) {
            r.record.pair.key.ifindex = 0;
            self.restore(r);
        }
    }

    /// What was counted at each port in pairs that the kernel gave up since.
    pub fn settled(&self) -> HashMap<u32, Both<Counters>> {
        let mut all: HashMap<u32, Both<Counters>> = HashMap::new();
        for pair in self.retired.iter().map(|r| &r.record.pair).filter(|p| p.key.ifindex != 0) {
            *all.entry(pair.key.ifindex).or_default() += pair.counters;
        }
        all
    }

    /// The kernel freed these flows: their ends come by the ring, unless it is full.
    pub fn drop_flows(&mut self, set: SetId, ids: &[SlotTag], now: Timestamp) {
        for id in ids {
            if let Some(live) = self.translated.get_mut(&(set, id.slot)).filter(|l| l.flow.id == *id) {
                live.freed_at.get_or_insert(now);
            }
        }
    }

    /// Flows of a set whose end was lost: their last report is what is known of them.
    fn settle_lost(&mut self, set: SetId, at: Timestamp) {
        let lost = |of: SetId, live: &LiveFlow| {
            of == set && live.freed_at.is_some_and(|freed| at - freed > END_COMES)
        };
        let translated = self.translated.extract_if(|(of, _), live| lost(*of, live)).map(|(_, live)| live);
        let folded = self.folded.extract_if(|(of, _), live| lost(*of, live)).map(|(_, live)| live);
        let ended: Vec<LiveFlow> = translated.chain(folded).collect();
        for live in ended.iter().filter(|live| live.flow.pair.is_some()) {
            self.keep_share(set, &live.flow.key, live.flow.role, &live.real, live.flow.counters);
        }
    }

    /// Whether a flow is one of those whose far end is another than is seen.
    pub fn is_translated(&self, set: SetId, id: SlotTag) -> bool {
        self.translated.get(&(set, id.slot)).is_some_and(|l| l.flow.id == id)
    }

    /// Whether a set has any such flow.
    pub fn has_translated(&self, set: SetId) -> bool {
        self.translated.keys().any(|(s, _)| *s == set)
    }

    /// A set's flow records were moved to another table: where each of them is now. What is reported of readings before `at`
    /// tells places in the table of before.
    pub fn moved(&mut self, set: SetId, at: Timestamp, flows: Vec<(FlowKey, SlotTag, Timestamp)>) {
        self.sets.entry(set).or_default().flows_moved_at = at;
        self.awaited.retain(|(s, _), _| *s != set);
        let mut left: HashMap<FlowKey, LiveFlow> = HashMap::new();
        for (_, live) in self.translated.extract_if(|(s, _), _| *s == set) {
            left.insert(live.flow.key, live);
        }
        for (key, id, first_seen) in flows {
            if let Some(mut live) = left.remove(&key) {
                (live.flow.id, live.flow.first_seen) = (id, first_seen);
                self.translated.insert((set, id.slot), live);
            }
        }
        // for want of room their records were folded into their pairs
        for (key, mut live) in left {
            live.freed_at.get_or_insert(at);
            self.folded.insert((set, key), live);
        }
    }

    /// The set is gone, all its records retired.
    pub fn drop_set(&mut self, set: SetId) {
        self.sets.remove(&set);
        self.translated.retain(|(s, _), _| *s != set);
        self.folded.retain(|(s, _), _| *s != set);
        self.awaited.retain(|(s, _), _| *s != set);
        self.ports.retain(|(s, _), _| *s != set);
        self.ended_shares.retain(|(s, _), _| *s != set);
        self.settled.retain(|(s, _), _| *s != set);
    }

    /// Forgets ended pairs whose last packet is older than the retention time. Returns whether any went. Their sums stay
    /// in one remainder for each port, for as long as the port is there.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        self.settled.retain(|_, last_seen| now - *last_seen < self.retention);
        let retention = self.retention;
        let old = |r: &mut RetiredPair| !r.is_remainder() && now - r.record.pair.last_seen > retention;
        let gone: Vec<RetiredPair> = self.retired.extract_if(.., old).collect();
        self.forgotten += gone.len() as u64;
        for pair in gone.iter().map(|r| &r.record.pair).filter(|p| p.key.ifindex != 0) {
            self.restore(RetiredPair::remainder(pair.key.ifindex, pair.counters));
        }
        !gone.is_empty()
    }

    /// Live pairs with the set they are in.
    pub fn live(&self) -> impl Iterator<Item = (SetId, &LivePair)> + '_ {
        self.pairs.iter().map(|((set, _), live)| (*set, live))
    }

    /// Ended pairs, and remainders of those that were forgotten: what the journal must hold.
    pub fn retired(&self) -> &[RetiredPair] {
        &self.retired
    }

    /// Flow records open in all sets, as of their last readings.
    pub fn active_flows(&self) -> u64 {
        self.sets.values().map(|s| u64::from(s.flows)).sum()
    }

    /// Closed flow records, the newest last.
    pub fn ended(&self) -> impl Iterator<Item = &EndedFlow> + '_ {
        self.ended.iter()
    }

    /// What belongs to no pair, by port.
    pub fn ports(&self) -> impl Iterator<Item = (SetId, &PortMeasurement)> + '_ {
        self.ports.iter().map(|((set, _), p)| (*set, p))
    }

    /// What a set reported last.
    pub fn set(&self, set: SetId) -> Option<&SetReport> {
        self.sets.get(&set)
    }

    /// Slots taken, by set.
    pub fn fills(&self) -> HashMap<SetId, Taken> {
        let mut all: HashMap<SetId, Taken> = HashMap::new();
        for (set, report) in &self.sets {
            all.entry(*set).or_default().flows = u64::from(report.flows);
        }
        for ((set, _), live) in &self.pairs {
            let taken = all.entry(*set).or_default();
            taken.pairs += 1;
            taken.histograms += live.record.rtts.iter().flatten().count() as u64;
        }
        for (set, _) in self.ports.keys() {
            all.entry(*set).or_default().ports += 1;
        }
        all
    }
}

#[cfg(test)]
mod tests;
