//! Monitoring functions (MF): each takes what was read from a set's tables and ring and says what it means.
//!
//! A function opens nothing, waits for nothing and reads no clock; who hosts it (a monitoring container, or the
//! controller for ports whose tenant is not known yet) reads the set, calls it and sends what it collected. A new
//! one is a file here and a row in [`Kind`].

use ippm::measurement::{
    Batch, Expiry, FlowEvent, FlowMeasurement, PairMeasurement, PortMeasurement, RttMeasurement,
    RttSingleton, SetCounters,
};
use ippm::time::Timestamp;
use serde::{Deserialize, Serialize};
use tap::{Events, LiveFlow, QuietPair, Reader, Scan, SetSpec};

use crate::monitor::protocol::MfSettings;

mod flow;
mod rtt;

/// Which monitoring function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Flows, pairs and ports: what they carried, when they began and ended.
    Flow,
    /// Round-trip delays of TCP.
    Rtt,
}

impl Kind {
    /// All there are, in the order in which they run.
    pub const ALL: [Kind; 2] = [Kind::Flow, Kind::Rtt];

    /// Its name in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Rtt => "rtt",
        }
    }

    /// A new one at work.
    pub fn start(self, settings: &MfSettings, spec: &SetSpec) -> Box<dyn MonitoringFunction> {
        match self {
            Self::Flow => Box::new(flow::FlowFunction::new(settings, spec)),
            Self::Rtt => Box::new(rtt::RttFunction),
        }
    }
}

/// What a function may ask about the tables, as they were at the last scan.
pub trait Tables {
    /// The live flows.
    fn live_flows(&self) -> Box<dyn Iterator<Item = LiveFlow> + '_>;
    /// The pairs without a live flow.
    fn quiet_pairs(&self) -> Box<dyn Iterator<Item = QuietPair> + '_>;
    /// Slots in use: flows, pairs.
    fn fill(&self) -> (u32, u32);
    /// How large they are.
    fn spec(&self) -> SetSpec;
}

impl Tables for Reader {
    fn live_flows(&self) -> Box<dyn Iterator<Item = LiveFlow> + '_> {
        Box::new(Reader::live_flows(self))
    }

    fn quiet_pairs(&self) -> Box<dyn Iterator<Item = QuietPair> + '_> {
        Box::new(Reader::quiet_pairs(self))
    }

    fn fill(&self) -> (u32, u32) {
        Reader::fill(self)
    }

    fn spec(&self) -> SetSpec {
        Reader::spec(self)
    }
}

/// One method of measuring.
pub trait MonitoringFunction: Send {
    /// Which one.
    fn kind(&self) -> Kind;
    /// After a scan: moves what it is about from `scan` to `to`, and adds what it concludes.
    fn scanned(&mut self, scan: &mut Scan, tables: &dyn Tables, to: &mut Collected);
    /// After reading the ring: moves what it is about from `events` to `to`.
    fn happened(&mut self, events: &mut Events, to: &mut Collected);
}

/// What the functions found in one reading, before it is cut into batches.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of Batch")]
pub struct Collected {
    pub taken_at: Timestamp,
    pub set: SetCounters,
    pub ports: Vec<PortMeasurement>,
    pub pairs: Vec<PairMeasurement>,
    pub flows: Vec<FlowMeasurement>,
    pub rtts: Vec<RttMeasurement>,
    pub events: Vec<FlowEvent>,
    pub singletons: Vec<RttSingleton>,
    pub expiries: Vec<Expiry>,
}

impl Collected {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
            && self.pairs.is_empty()
            && self.flows.is_empty()
            && self.rtts.is_empty()
            && self.events.is_empty()
            && self.singletons.is_empty()
            && self.expiries.is_empty()
    }

    /// Drops what the next scan of a new reader reports again: all but what is told once.
    pub fn keep_events(&mut self) {
        let Self { events, singletons, .. } = std::mem::take(self);
        *self = Self { events, singletons, ..Self::default() };
    }

    /// Takes the next batch out: as much as one may hold, `more` when something is left. `sequence` is the caller's.
    pub fn take_batch(&mut self, sequence: u64) -> Batch {
        let mut batch = Batch {
            sequence,
            taken_at: self.taken_at,
            more: false,
            set: self.set,
            ports: take(&mut self.ports, Batch::MAX_PORTS),
            pairs: take(&mut self.pairs, Batch::MAX_PAIRS),
            flows: take(&mut self.flows, Batch::MAX_FLOWS),
            rtts: take(&mut self.rtts, Batch::MAX_RTTS),
            events: take(&mut self.events, Batch::MAX_EVENTS),
            singletons: take(&mut self.singletons, Batch::MAX_SINGLETONS),
            expiries: take(&mut self.expiries, Batch::MAX_EXPIRIES),
        };
        batch.more = !self.is_empty();
        batch
    }
}

/// The first `n` of a list, in order.
fn take<T>(from: &mut Vec<T>, n: usize) -> Vec<T> {
    if from.len() <= n {
        return std::mem::take(from);
    }
    let rest = from.split_off(n);
    std::mem::replace(from, rest)
}

#[cfg(test)]
mod tests;
