//! What is counted, in the form in which it is added up.

use std::collections::BTreeMap;

use conmon::api::Count;
use ippm::histogram::Histogram;

use crate::export::series::Totals;
use crate::http::{ClassTotals, EachWay, PairRow};

/// Totals of pairs.
#[derive(Debug, Clone, Default)]
pub(super) struct PairTotals {
    pub(super) protocols: BTreeMap<u8, ProtocolSum>,
    pub(super) retransmitted: EachWay<Option<u64>>,
    pub(super) reordered: EachWay<Option<u64>>,
    pub(super) rtt: Histogram,
    pub(super) near_rtt: Histogram,
    pub(super) handshake_rtt: Histogram,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProtocolSum {
    pub(super) counts: EachWay<Count>,
    pub(super) flows: u64,
    /// None where nothing is there that could have open flows.
    pub(super) active_flows: Option<u64>,
}

impl From<PairRow> for PairTotals {
    fn from(row: PairRow) -> Self {
        let mut protocols: BTreeMap<u8, ProtocolSum> = BTreeMap::new();
        for one in row.protocols {
            let sum = protocols.entry(one.protocol).or_default();
            sum.counts.sent += one.sent;
            sum.counts.received += one.received;
            sum.flows = sum.flows.saturating_add(one.flows);
            sum.active_flows = Some(sum.active_flows.unwrap_or(0).saturating_add(one.active_flows));
        }
        Self {
            protocols,
            retransmitted: row.retransmitted,
            reordered: row.reordered,
            rtt: row.rtt,
            near_rtt: row.near_rtt,
            handshake_rtt: row.handshake_rtt,
        }
    }
}

fn add_counted(sum: &mut EachWay<Option<u64>>, other: EachWay<Option<u64>>) {
    for (sum, other) in [(&mut sum.sent, other.sent), (&mut sum.received, other.received)] {
        if let Some(other) = other {
            *sum = Some(sum.unwrap_or(0).saturating_add(other));
        }
    }
}

impl Totals for PairTotals {
    fn add(&mut self, other: &Self) {
        for (&protocol, one) in &other.protocols {
            let sum = self.protocols.entry(protocol).or_default();
            sum.counts.sent += one.counts.sent;
            sum.counts.received += one.counts.received;
            sum.flows = sum.flows.saturating_add(one.flows);
            if let Some(active) = one.active_flows {
                sum.active_flows = Some(sum.active_flows.unwrap_or(0).saturating_add(active));
            }
        }
        add_counted(&mut self.retransmitted, other.retransmitted);
        add_counted(&mut self.reordered, other.reordered);
        self.rtt.merge(&other.rtt);
        self.near_rtt.merge(&other.near_rtt);
        self.handshake_rtt.merge(&other.handshake_rtt);
    }

    fn began_anew(&self, earlier: &Self) -> bool {
        self.weight() < earlier.weight()
    }

    fn remains(&self) -> Self {
        let mut remains = self.clone();
        for sum in remains.protocols.values_mut() {
            sum.active_flows = None;
        }
        remains
    }

    fn weight(&self) -> u64 {
        self.protocols.values().fold(0, |sum, one| {
            sum.saturating_add(one.counts.sent.bytes).saturating_add(one.counts.received.bytes)
        })
    }
}

/// Totals of ports.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PortTotals {
    pub(super) sent: ClassTotals,
    pub(super) received: ClassTotals,
}

/// The classes by name.
pub(super) fn classes(totals: &ClassTotals) -> [(&'static str, Count); 5] {
    [
        ("overflow", totals.overflow),
        ("arp", totals.arp),
        ("other", totals.other),
        ("malformed", totals.malformed),
        ("nd", totals.nd),
    ]
}

impl Totals for PortTotals {
    fn add(&mut self, other: &Self) {
        for (sum, other) in [(&mut self.sent, other.sent), (&mut self.received, other.received)] {
            sum.overflow += other.overflow;
            sum.arp += other.arp;
            sum.other += other.other;
            sum.malformed += other.malformed;
            sum.nd += other.nd;
        }
    }

    fn began_anew(&self, earlier: &Self) -> bool {
        self.weight() < earlier.weight()
    }

    fn remains(&self) -> Self {
        *self
    }

    fn weight(&self) -> u64 {
        let all = classes(&self.sent).into_iter().chain(classes(&self.received));
        all.fold(0, |sum, (_, count)| sum.saturating_add(count.bytes))
    }
}

/// Totals of sets.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SetTotals {
    pub(super) flows_full: u64,
    pub(super) pairs_full: u64,
    pub(super) unpaired_flows: u64,
    pub(super) unresolved_flows: u64,
    pub(super) ports_full: u64,
    pub(super) lost_singletons: u64,
    pub(super) cancelled_probes: u64,
    pub(super) ring_dropped: u64,
}

impl SetTotals {
    fn each(&self) -> [u64; 8] {
        [
            self.flows_full,
            self.pairs_full,
            self.unpaired_flows,
            self.unresolved_flows,
            self.ports_full,
            self.lost_singletons,
            self.cancelled_probes,
            self.ring_dropped,
        ]
    }
}

impl Totals for SetTotals {
    fn add(&mut self, other: &Self) {
        self.flows_full = self.flows_full.saturating_add(other.flows_full);
        self.pairs_full = self.pairs_full.saturating_add(other.pairs_full);
        self.unpaired_flows = self.unpaired_flows.saturating_add(other.unpaired_flows);
        self.unresolved_flows = self.unresolved_flows.saturating_add(other.unresolved_flows);
        self.ports_full = self.ports_full.saturating_add(other.ports_full);
        self.lost_singletons = self.lost_singletons.saturating_add(other.lost_singletons);
        self.cancelled_probes = self.cancelled_probes.saturating_add(other.cancelled_probes);
        self.ring_dropped = self.ring_dropped.saturating_add(other.ring_dropped);
    }

    fn began_anew(&self, earlier: &Self) -> bool {
        self.each().into_iter().zip(earlier.each()).any(|(now, before)| now < before)
    }

    fn remains(&self) -> Self {
        *self
    }

    fn weight(&self) -> u64 {
        self.each().into_iter().fold(0, u64::saturating_add)
    }
}
