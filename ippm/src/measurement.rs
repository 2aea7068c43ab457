//! The currency between a monitoring function (MF) and the Monitoring Controller (MC): what was measured, as
//! absolute values.
//!
//! Counters and histograms are cumulative since their record began, never differences: a batch that is lost,
//! sent twice or read after a restart does no harm, and the reader forms differences where it needs them. A record
//! is named by slot and tag in the tap's tables; the tag changes with each life of the slot.
//!
//! A batch comes from a container that the MC does not trust. [`Batch::check`] states how much it may hold; the MC
//! refuses an encoded batch above [`Batch::MAX_ENCODED_BYTES`] before it decodes and what `check` refuses after.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::flow::{Both, Counters, Direction, EndReason, FlowKey, Leg, PortClass, Role, Service};
use crate::histogram::Histogram;
use crate::time::Timestamp;

/// One life of a slot in one of the tap's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotTag {
    /// Index in the table.
    pub slot: u32,
    /// Changes with each life of the slot, never 0.
    pub tag: u32,
}

/// A flow as its record stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowMeasurement {
    /// What the flow is.
    pub key: FlowKey,
    /// Its record in the table of flows.
    pub id: SlotTag,
    /// The slot of its pair; `None` when it found none.
    pub pair: Option<u32>,
    /// Who opened it.
    pub role: Role,
    /// The role was inferred from port numbers, not seen.
    pub guessed: bool,
    /// Time of the first packet.
    pub first_seen: Timestamp,
    /// Time of the last packet; up to one clock tick (1/HZ) early.
    pub last_seen: Timestamp,
    /// What it carried each way.
    pub counters: Both<Counters>,
    /// All TCP flags seen each way (RFC 9293 section 3.1: FIN is 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64,
    /// CWR 128).
    pub tcp_flags: Both<u8>,
    /// TCP segments sent again. `rx` holds those that neither IP identification nor time stamp tells apart from
    /// late ones.
    pub retransmitted: Both<u64>,
    /// TCP segments to the container that were sent before ones that arrived earlier.
    pub reordered: u64,
}

/// What a pair is at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PairKey {
    /// Index of the host-side port.
    pub ifindex: u32,
    /// The container's address.
    pub local: IpAddr,
    /// The other end's address, as seen at the port.
    pub remote: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Who opened the conversations.
    pub role: Role,
    /// What they are for.
    pub service: Service,
}

/// Totals of a pair since its record began: ended flows, live flows, and packets that found no flow record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairMeasurement {
    /// What the pair is.
    pub key: PairKey,
    /// Its record in the table of pairs.
    pub id: SlotTag,
    /// The role was inferred from port numbers for the flow that began the record.
    pub guessed: bool,
    /// Time of the first packet.
    pub first_seen: Timestamp,
    /// Time of the last packet of any of its flows; up to one clock tick (1/HZ) early.
    pub last_seen: Timestamp,
    /// What it carried each way.
    pub counters: Both<Counters>,
    /// TCP segments sent again, see [`FlowMeasurement::retransmitted`].
    pub retransmitted: Both<u64>,
    /// TCP segments to the container that came late, see [`FlowMeasurement::reordered`].
    pub reordered: u64,
    /// Flow records begun.
    pub flows: u64,
    /// Packets counted here because no flow record was free.
    pub no_slot: u64,
    /// Flows with a live record now.
    pub active_flows: u32,
}

/// Round-trip delays of a pair on one leg since the histogram began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RttMeasurement {
    /// The pair's record.
    pub pair: SlotTag,
    /// The leg, seen from the port.
    pub leg: Leg,
    /// The singletons, cumulative.
    pub histogram: Histogram,
}

/// Packets of one port that belong to no flow and no pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMeasurement {
    /// Index of the host-side port.
    pub ifindex: u32,
    /// By direction and [`PortClass`] number.
    pub counts: Both<[Counters; PortClass::ALL.len()]>,
}

impl PortMeasurement {
    /// The packets of one direction and class.
    pub fn count(&self, direction: Direction, class: PortClass) -> Counters {
        self.counts[direction][usize::from(class.number())]
    }
}

/// What a set of maps counts about itself (`cm_ctl`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetCounters {
    /// Layout version of the records, 0 until the set is ready.
    pub abi: u64,
    /// Odd while counters move from one record to another: sums taken then may count some twice or not at all.
    pub fold_seq: u64,
    /// Flow records begun.
    pub flows_begun: u64,
    /// Flow records ended.
    pub flows_ended: u64,
    /// Packets that found no flow record; they count in their pair.
    pub flow_full: u64,
    /// Packets that found no pair record either; they count in their port's overflow.
    pub pair_full: u64,
    /// Round-trip singletons that found no histogram. They are lost.
    pub hist_full: u64,
    /// Packets whose port had no record; they count in `no_port`.
    pub port_full: u64,
    /// Flow records and singletons that found no room in the ring. They are lost as events, not as counts.
    pub ring_full: u64,
    /// Round-trip singletons taken.
    pub rtt_samples: u64,
    /// Round-trip probes given up because of a retransmission (Karn's rule, RFC 6298 section 3).
    pub probes_cancelled: u64,
    /// Packets of ports without a record.
    pub no_port: Both<Counters>,
    /// Pair records in use.
    pub pairs: u64,
    /// Histogram records in use.
    pub hists: u64,
    /// Flow records that began without a pair, for want of room. Such a flow is in no pair until it gets one.
    pub no_pair: u64,
    /// Round-trip singletons of flows without a pair. They are lost.
    pub rtt_unpaired: u64,
    /// Of the flows that began without a pair, the ones that are still there and have none.
    pub unpaired: u64,
}

/// What happened to a flow's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEventKind {
    /// It began.
    New,
    /// It ended, with the reason.
    End(EndReason),
}

/// A flow's record began or ended; counters are those at that time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEvent {
    /// What happened.
    pub kind: FlowEventKind,
    /// When.
    pub time: Timestamp,
    /// What the flow is.
    pub key: FlowKey,
    /// Its record.
    pub id: SlotTag,
    /// Who opened it.
    pub role: Role,
    /// The role was inferred from port numbers, not seen.
    pub guessed: bool,
    /// Time of the first packet.
    pub first_seen: Timestamp,
    /// Time of the last packet; up to one clock tick (1/HZ) early.
    pub last_seen: Timestamp,
    /// What it carried each way.
    pub counters: Both<Counters>,
    /// All TCP flags seen each way, see [`FlowMeasurement::tcp_flags`].
    pub tcp_flags: Both<u8>,
    /// Its record had no pair's when this was written: of one that ended so, no pair has what it carried.
    pub unpaired: bool,
}

/// One measured round-trip delay (a singleton, RFC 2681 section 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RttSingleton {
    /// The flow it was measured on.
    pub key: FlowKey,
    /// The flow's record.
    pub id: SlotTag,
    /// The leg, seen from the port.
    pub leg: Leg,
    /// When the acknowledgement passed the port.
    pub time: Timestamp,
    /// The delay in nanoseconds.
    pub rtt_ns: u64,
    /// The acknowledgement number that ended it.
    pub ack: u32,
}

/// Which record a monitoring function proposes to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryOf {
    /// A flow, for this reason.
    Flow(EndReason),
    /// A pair.
    Pair,
}

/// A record that a monitoring function proposes to end. The MC decides, and the kernel ends it only when nothing
/// was counted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// Which kind of record, and why.
    pub of: ExpiryOf,
    /// The record.
    pub id: SlotTag,
    /// The record must have seen no packet after this time; [`Timestamp::MAX`] ends it in any case.
    pub if_idle_since: Timestamp,
}

/// What a monitoring container sends at once: what changed since the batch before, in absolute values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// One more than in the batch before it; starts at 1 with each start of the monitoring function.
    pub sequence: u64,
    /// When the tables were read.
    pub taken_at: Timestamp,
    /// A further batch belongs to the same reading of the tables: the limits made it more than one.
    pub more: bool,
    /// The set's own counters.
    pub set: SetCounters,
    /// Ports whose classes changed.
    pub ports: Vec<PortMeasurement>,
    /// Pairs that changed.
    pub pairs: Vec<PairMeasurement>,
    /// Flows that changed.
    pub flows: Vec<FlowMeasurement>,
    /// Histograms that changed.
    pub rtts: Vec<RttMeasurement>,
    /// What the ring told.
    pub events: Vec<FlowEvent>,
    /// What the ring told, from sets loaded with singletons.
    pub singletons: Vec<RttSingleton>,
    /// Records that seem to be over.
    pub expiries: Vec<Expiry>,
}

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// One of its lists is too long.
    #[error("a batch holds {found} {what}, more than {limit}: split it and set `more`")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A counter that no counting reaches: whoever reports it is broken, or lies.
    #[error("a batch says {found} {what}, more than anything can have counted")]
    Absurd {
        /// What was counted.
        what: &'static str,
        /// The value.
        found: u64,
    },
}

impl Batch {
    /// The longest encoding a reader has to accept, in octets: what a batch at all limits takes in the
    /// monitoring container's encoding, and some room. A longer one is refused unread.
    pub const MAX_ENCODED_BYTES: usize = 12 << 20;
    /// Ports in one batch.
    pub const MAX_PORTS: usize = 1_024;
    /// Pairs in one batch.
    pub const MAX_PAIRS: usize = 8_192;
    /// Flows in one batch.
    pub const MAX_FLOWS: usize = 8_192;
    /// Histograms in one batch.
    pub const MAX_RTTS: usize = 1_024;
    /// Flow events in one batch.
    pub const MAX_EVENTS: usize = 8_192;
    /// Singletons in one batch.
    pub const MAX_SINGLETONS: usize = 8_192;
    /// Expiry proposals in one batch.
    pub const MAX_EXPIRIES: usize = 8_192;

    /// The greatest number of bytes, packets and segments that is believed: a terabyte a second takes more than a century to it.
    pub const MAX_COUNT: u64 = 1 << 62;
    /// The same for what is rarer (retransmitted segments, flow records): sums of 65,536 such do not overflow.
    pub const MAX_RARE: u64 = 1 << 48;

    /// Refuses a batch that holds more than a monitoring function may send at once, or counters that cannot be.
    pub fn check(&self) -> Result<(), BatchError> {
        let lists = [
            ("ports", self.ports.len(), Self::MAX_PORTS),
            ("pairs", self.pairs.len(), Self::MAX_PAIRS),
            ("flows", self.flows.len(), Self::MAX_FLOWS),
            ("histograms", self.rtts.len(), Self::MAX_RTTS),
            ("flow events", self.events.len(), Self::MAX_EVENTS),
            ("singletons", self.singletons.len(), Self::MAX_SINGLETONS),
            ("expiry proposals", self.expiries.len(), Self::MAX_EXPIRIES),
        ];
        for (what, found, limit) in lists {
            if found > limit {
                return Err(BatchError::TooMany { what, found, limit });
            }
        }
        let counted = |c: &Both<Counters>| {
            [c.tx.bytes, c.rx.bytes, c.tx.packets, c.rx.packets, c.tx.segments, c.rx.segments]
        };
        let counters = self
            .pairs
            .iter()
            .map(|p| &p.counters)
            .chain(self.flows.iter().map(|f| &f.counters))
            .chain(self.events.iter().map(|e| &e.counters));
        let pairs = self
            .pairs
            .iter()
            .flat_map(|p| [p.retransmitted.tx, p.retransmitted.rx, p.reordered, p.flows, p.no_slot]);
        let flows = self.flows.iter().flat_map(|f| [f.retransmitted.tx, f.retransmitted.rx, f.reordered]);
        for (what, found, most) in counters
            .flat_map(|c| counted(c).map(|n| ("bytes or packets", n, Self::MAX_COUNT)))
            .chain(pairs.chain(flows).map(|n| ("segments or flows", n, Self::MAX_RARE)))
        {
            if found > most {
                return Err(BatchError::Absurd { what, found });
            }
        }
        Ok(())
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
            && self.pairs.is_empty()
            && self.flows.is_empty()
            && self.rtts.is_empty()
            && self.events.is_empty()
            && self.singletons.is_empty()
            && self.expiries.is_empty()
    }
}

#[cfg(test)]
mod tests;
