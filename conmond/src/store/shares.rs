//! Whose share of a pair's record is whose, where the record's far end is not who is really there.
//!
//! The kernel counts a pair by the addresses that its port sees. Behind one address of the host there may be several
//! published ports, so several containers. Flows tell them apart: each translated flow's counters are its real far end's share
//! of the pair. What no flow accounts for stays with the address that was seen, so that a record's parts always
//! sum up to the record.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use conmon::api::Endpoint;
use ippm::flow::{Both, Counters, FlowKey, Role, Service};
use ippm::measurement::{FlowEvent, PairKey, PairMeasurement, SlotTag};
use ippm::packet::proto;
use ippm::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LiveFlow, Names, PairRecord, Store};
use crate::mc::SetId;
use crate::nat::{Place, Real, RemoteEnd};

/// Addresses remembered by which a far end was called.
const VIA: usize = 8;

/// What a pair's flows with one real far end counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    counters: Both<Counters>,
    pub(super) flows: u64,
    #[serde(skip)]
    active_flows: u32,
    #[serde(skip)]
    last: Both<Counters>,
    via: BTreeSet<Place>,
}

/// Who is really at the far end of some of a pair's flows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// Its own address.
    pub address: IpAddr,
    /// Who it is, where it is on another host.
    pub abroad: Option<Arc<RemoteEnd>>,
}

impl From<&Real> for Who {
    fn from(real: &Real) -> Self {
        Self { address: real.place.0, abroad: real.abroad.clone() }
    }
}

/// The far end of a record: who is really there, else whose address it is.
pub fn far_end(
    names: &Names,
    key: &PairKey,
    real: Option<&Who>,
    (first, last): (Timestamp, Timestamp),
) -> Endpoint {
    match real {
        Some(Who { address, abroad: Some(end) }) => end.endpoint(*address),
        _ => {
            let address = real.map_or(key.remote, |who| who.address);
            names.remote(address, first, last, key.service, key.role == Role::LocalOpened)
        }
    }
}

/// Shares by real far end.
pub type Shares = BTreeMap<Who, Share>;

impl Share {
    pub(super) fn add(&mut self, key: &FlowKey, role: Role, counters: Both<Counters>) {
        self.counters += counters;
        self.flows += 1;
        if self.via.len() < VIA {
            self.via.insert(seen_at(key, role));
        }
    }

    fn add_live(&mut self, live: &LiveFlow, last: Both<Counters>) {
        self.add(&live.flow.key, live.flow.role, live.flow.counters);
        self.active_flows += u32::from(live.freed_at.is_none());
        self.last += last;
    }

    fn join(&mut self, other: &Share) {
        self.counters += other.counters;
        self.flows += other.flows;
        self.active_flows += other.active_flows;
        self.last += other.last;
        self.via.extend(other.via.iter().take(VIA.saturating_sub(self.via.len())));
    }
}

/// What is seen in the place of a flow's far end.
fn seen_at(key: &FlowKey, role: Role) -> Place {
    // who calls chose the port; who answers sees one drawn at random
    (key.remote, if role == Role::LocalOpened { key.remote_port } else { 0 })
}

/// The pair that a flow belongs to.
pub fn pair_of(key: &FlowKey, role: Role) -> PairKey {
    let opened = if role == Role::LocalOpened { key.remote_port } else { key.local_port };
    let dns = opened == 53 && matches!(key.proto, proto::UDP | proto::TCP);
    PairKey {
        ifindex: key.ifindex,
        local: key.local,
        remote: key.remote,
        proto: key.proto,
        role,
        service: if dns { Service::Dns } else { Service::None },
    }
}

/// A part of a pair's record.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The far end, where it is another than was seen.
    pub real: Option<Who>,
    /// What was seen in its place.
    pub via: Vec<Place>,
    /// The values of this part. Delays, retransmission and reordering are of the whole record only, since the kernel does not
    /// keep them apart: not there if `partial`.
    pub record: Cow<'a, PairRecord>,
    /// Counted over the last interval.
    pub last: Both<Counters>,
    /// There are other parts.
    pub partial: bool,
}

impl Part<'static> {
    /// What is known of a pair whose record was not read yet, by the begin of one of its flows.
    pub(super) fn of_begun(event: &FlowEvent, real: Option<&Real>) -> Self {
        let pair = PairMeasurement {
            key: pair_of(&event.key, event.role),
            // no record of the kernel has the tag 0
            id: SlotTag { slot: 0, tag: 0 },
            guessed: event.guessed,
            first_seen: event.first_seen,
            last_seen: event.last_seen,
            counters: event.counters,
            retransmitted: Both::default(),
            reordered: 0,
            flows: 1,
            no_slot: 0,
            active_flows: 1,
        };
        Self {
            real: real.map(Who::from),
            via: real.map(|_| seen_at(&event.key, event.role)).into_iter().collect(),
            record: Cow::Owned(PairRecord { pair, rtts: [const { None }; 4] }),
            last: Both::default(),
            partial: false,
        }
    }
}

fn less(all: Both<Counters>, some: Both<Counters>) -> Both<Counters> {
    Both::new(all.tx.since(some.tx), all.rx.since(some.rx))
}

fn at_most(some: Both<Counters>, all: Both<Counters>) -> Both<Counters> {
    let one = |a: Counters, b: Counters| Counters {
        bytes: a.bytes.min(b.bytes),
        packets: a.packets.min(b.packets),
        segments: a.segments.min(b.segments),
    };
    Both::new(one(some.tx, all.tx), one(some.rx, all.rx))
}

/// The parts of a record, whose sum it is.
pub fn split<'a>(record: &'a PairRecord, last: Both<Counters>, shares: Option<&Shares>) -> Vec<Part<'a>> {
    let whole = |real, via| vec![Part { real, via, record: Cow::Borrowed(record), last, partial: false }];
    let Some(shares) = shares.filter(|s| !s.is_empty()) else { return whole(None, Vec::new()) };
    let via = |share: &Share| share.via.iter().copied().collect::<Vec<_>>();
    let told: u64 = shares.values().map(|s| s.flows).sum();
    if let Some((real, share)) = shares.first_key_value()
        && shares.len() == 1
        && told >= record.pair.flows
    {
        return whole(Some(real.clone()), via(share));
    }
    let part = |counters, flows, active_flows| {
        let pair = PairMeasurement {
            counters,
            flows,
            active_flows,
            retransmitted: Both::default(),
            reordered: 0,
            no_slot: 0,
            ..record.pair.clone()
        };
        Cow::Owned(PairRecord { pair, rtts: [const { None }; 4] })
    };
    let (mut left, mut last_left) = (record.pair.counters, last);
    let (mut flows_left, mut active_left) = (record.pair.flows, record.pair.active_flows);
    let mut parts = Vec::new();
    for (real, share) in shares {
        let counters = at_most(share.counters, left);
        let some_last = at_most(share.last, last_left);
        (left, last_left) = (less(left, counters), less(last_left, some_last));
        flows_left = flows_left.saturating_sub(share.flows);
        active_left = active_left.saturating_sub(share.active_flows);
        parts.push(Part {
            real: Some(real.clone()),
            via: via(share),
            record: part(counters, share.flows, share.active_flows),
            last: some_last,
            partial: true,
        });
    }
    if left != Both::default() || flows_left > 0 {
        let record = part(left, flows_left, active_left);
        parts.push(Part { real: None, via: Vec::new(), record, last: last_left, partial: true });
    }
    parts
}

impl Store {
    /// Shares of every pair that has any, live flows' and ended ones'.
    pub fn shares(&self) -> HashMap<(SetId, PairKey), Shares> {
        let mut all = self.ended_shares.clone();
        for (set, live) in self.not_ended() {
            let current = self.sets.get(&set).is_some_and(|r| live.last_at > r.before);
            let last = if current { live.last } else { Both::default() };
            let share = all.entry((set, pair_of(&live.flow.key, live.flow.role))).or_default();
            share.entry(Who::from(&live.real)).or_default().add_live(live, last);
        }
        all
    }

    /// Translated flows whose ends were not told yet, each with its set.
    fn not_ended(&self) -> impl Iterator<Item = (SetId, &LiveFlow)> {
        let folded = self.folded.iter().map(|((set, _), live)| (*set, live));
        self.translated.iter().map(|((set, _), live)| (*set, live)).chain(folded)
    }

    /// Shares of one pair.
    pub fn shares_of(&self, set: SetId, key: &PairKey) -> Shares {
        let mut all = self.ended_shares.get(&(set, *key)).cloned().unwrap_or_default();
        for (_, live) in self.not_ended().filter(|(s, _)| *s == set) {
            if pair_of(&live.flow.key, live.flow.role) == *key {
                all.entry(Who::from(&live.real)).or_default().add_live(live, Both::default());
            }
        }
        all
    }

    /// What ended flows counted for their real far ends, to be saved: the kernel adds them up without.
    pub fn saved_shares(&self) -> Vec<SavedShare> {
        let mut all: Vec<SavedShare> = self
            .ended_shares
            .iter()
            .flat_map(|((set, key), shares)| {
                shares.iter().map(|(real, share)| SavedShare {
                    set: set.0,
                    pair: *key,
                    real: real.address,
                    abroad: real.abroad.as_deref().cloned(),
                    share: share.clone(),
                })
            })
            .collect();
        all.sort_by(|a, b| (a.set, a.pair, a.real, &a.abroad).cmp(&(b.set, b.pair, b.real, &b.abroad)));
        all
    }

    /// Takes over what an earlier daemon saved.
    pub fn restore_shares(&mut self, saved: Vec<SavedShare>) {
        for s in saved {
            let shares = self.ended_shares.entry((SetId(s.set), s.pair)).or_default();
            let who = Who { address: s.real, abroad: s.abroad.map(Arc::new) };
            shares.entry(who).or_default().join(&s.share);
        }
    }
}

/// A share as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedShare {
    set: u32,
    pair: PairKey,
    real: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    abroad: Option<RemoteEnd>,
    share: Share,
}
