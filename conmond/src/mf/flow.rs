//! The function `flow`: what flows, pairs and ports carried, when flows began and ended, and which records are over.
//!
//! Expiry is proposed, not done: the MC decides, and the kernel ends a record only when it saw no packet since the
//! time that the proposal names. So a proposal made from a reading that is old by now does no harm, and it is repeated
//! with each scan until the record has gone.

use std::collections::HashMap;
use std::time::Duration;

use ippm::flow::{Both, EndReason};
use ippm::measurement::{Expiry, ExpiryOf, FlowEvent, FlowEventKind, FlowMeasurement, PairMeasurement};
use ippm::packet::proto;
use ippm::time::Timestamp;
use tap::{Events, LiveFlow, QuietPair, Scan, SetSpec};

use super::{Collected, Kind, MonitoringFunction, Tables};
use crate::monitor::protocol::MfSettings;

/// Reports of flows that have gone are kept up to so many.
const REPORTED: usize = 1024;

const FIN: u8 = 1;
const RST: u8 = 4;

/// When a record is over. Pure: times come with the question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    idle: Duration,
    linger: Duration,
    active: Duration,
    pair_idle: Duration,
}

impl Policy {
    pub(super) fn new(settings: &MfSettings) -> Self {
        Self {
            idle: Duration::from_secs(settings.idle_timeout_s.into()),
            linger: Duration::from_millis(settings.end_linger_ms.into()),
            active: Duration::from_secs(settings.active_timeout_s.into()),
            pair_idle: Duration::from_secs(settings.pair_idle_s.into()),
        }
    }

    /// Whether a flow seems to be over at `now`, the time of the scan.
    pub(super) fn flow(&self, now: Timestamp, flow: &LiveFlow) -> Option<Expiry> {
        let expiry =
            |reason, if_idle_since| Some(Expiry { of: ExpiryOf::Flow(reason), id: flow.id, if_idle_since });
        if flow.ending {
            // no packet finds it any more
            return expiry(EndReason::EndOfFlowDetected, Timestamp::MAX);
        }
        let silent = now.since(flow.last_seen);
        if flow.proto == proto::TCP && closed(flow.tcp_flags) && silent >= self.linger {
            return expiry(EndReason::EndOfFlowDetected, now.before(self.linger));
        }
        if silent >= self.idle {
            return expiry(EndReason::IdleTimeout, now.before(self.idle));
        }
        None
    }

    /// Whether a pair without flows, last used at `last`, may give up its record.
    pub(super) fn pair(&self, now: Timestamp, pair: &QuietPair, last: Timestamp) -> Option<Expiry> {
        (now.since(last) >= self.pair_idle).then(|| Expiry {
            of: ExpiryOf::Pair,
            id: pair.id,
            if_idle_since: now.before(self.pair_idle),
        })
    }
}

/// FIN both ways, or RST either way (RFC 9293 section 3.6).
fn closed(flags: Both<u8>) -> bool {
    (flags.tx & flags.rx) & FIN != 0 || (flags.tx | flags.rx) & RST != 0
}

/// When a flow was reported as going on.
#[derive(Clone, Copy, Debug, Default)]
struct Reported {
    first_seen: Timestamp,
    at: Timestamp,
}

/// When each pair was last used, by slot: the pair's own packets and those of its flows.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    tag: u32,
    at: Timestamp,
}

pub(super) struct FlowFunction {
    policy: Policy,
    /// Slots of the flow table.
    slots: u32,
    /// By slot, those that were.
    reported: HashMap<u32, Reported>,
    used: Vec<Used>,
}

impl FlowFunction {
    pub(super) fn new(settings: &MfSettings, spec: &SetSpec) -> Self {
        Self {
            policy: Policy::new(settings),
            slots: spec.flows,
            reported: HashMap::new(),
            used: vec![Used::default(); spec.pair_slots() as usize],
        }
    }

    /// The flow's end by active timeout, when it is due: it is older than the timeout, or was reported so long ago.
    fn goes_on(&mut self, now: Timestamp, flow: &FlowMeasurement) -> Option<FlowEvent> {
        if flow.id.slot >= self.slots {
            return None;
        }
        let known = self.reported.get(&flow.id.slot).filter(|r| r.first_seen == flow.first_seen);
        let last = known.map_or(flow.first_seen, |r| r.at);
        if now.since(last) < self.policy.active {
            return None;
        }
        self.reported.insert(flow.id.slot, Reported { first_seen: flow.first_seen, at: now });
        Some(FlowEvent {
            kind: FlowEventKind::End(EndReason::ActiveTimeout),
            time: now,
            key: flow.key,
            id: flow.id,
            role: flow.role,
            guessed: flow.guessed,
            first_seen: flow.first_seen,
            last_seen: flow.last_seen,
            counters: flow.counters,
            tcp_flags: flow.tcp_flags,
            // it goes on: who has it when it ends is told then
            unpaired: false,
        })
    }

    fn use_pair(&mut self, pair: &PairMeasurement) {
        if let Some(used) = self.used.get_mut(pair.id.slot as usize) {
            let before = if used.tag == pair.id.tag { used.at } else { Timestamp::ZERO };
            *used = Used { tag: pair.id.tag, at: before.max(pair.last_seen) };
        }
    }
}

impl MonitoringFunction for FlowFunction {
    fn kind(&self) -> Kind {
        Kind::Flow
    }

    fn scanned(&mut self, scan: &mut Scan, tables: &dyn Tables, to: &mut Collected) {
        let now = scan.taken_at;
        for flow in &scan.flows {
            to.events.extend(self.goes_on(now, flow));
        }
        for pair in &scan.pairs {
            self.use_pair(pair);
        }
        if self.reported.len() > 2 * tables.fill().0 as usize + REPORTED {
            // of flows that have gone: one that goes on was reported within two timeouts
            let since = now.before(self.policy.active * 2);
            self.reported.retain(|_, r| r.at >= since);
        }
        to.flows.append(&mut scan.flows);
        to.pairs.append(&mut scan.pairs);
        to.ports.append(&mut scan.ports);
        to.expiries.extend(tables.live_flows().filter_map(|f| self.policy.flow(now, &f)));
        // a pair's record holds its past; it goes only for want of room: of that which the table has without extents, which are
        // for pairs in use
        if tables.fill().1 > tables.spec().pairs / 2 {
            to.expiries.extend(tables.quiet_pairs().filter_map(|p| {
                let used = self.used.get(p.id.slot as usize).filter(|u| u.tag == p.id.tag);
                self.policy.pair(now, &p, used.map_or(p.last_seen, |u| u.at.max(p.last_seen)))
            }));
        }
    }

    fn happened(&mut self, events: &mut Events, to: &mut Collected) {
        to.events.append(&mut events.flows);
    }
}

#[cfg(test)]
mod tests;
