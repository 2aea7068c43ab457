//! How fast the store answers: at once, or a given number of calls in a second, first come, first served.

use std::collections::VecDeque;

use crate::host::Call;
use crate::plan::S;

/// A call on its way.
#[derive(Clone, Debug)]
pub struct Job {
    /// No other has it.
    pub id: u64,
    /// Who asks.
    pub host: u32,
    /// On which of its connections.
    pub number: u64,
    /// When it was sent, steady.
    pub sent_ns: u64,
    /// What is asked.
    pub call: Call,
}

/// Calls that wait, and how fast they are answered.
#[derive(Debug, Default)]
pub struct Service {
    /// Calls answered in a second; none: however many come.
    pub calls_per_second: Option<u32>,
    waiting: VecDeque<(Job, u64)>,
    backlog_ns: u64,
}

impl Service {
    /// How long the store is busy with a call that stands for `weight` of them, ns; none if it is never busy.
    pub fn takes(&self, weight: f64) -> Option<u64> {
        self.calls_per_second.map(|calls| (weight * S as f64 / f64::from(calls)) as u64)
    }

    /// How long it is busy with what waits, ns.
    pub const fn backlog_ns(&self) -> u64 {
        self.backlog_ns
    }

    /// A call waits. Returns whether it is the first, and so begins to be answered now.
    pub fn queue(&mut self, job: Job, cost_ns: u64) -> bool {
        self.backlog_ns += cost_ns;
        self.waiting.push_back((job, cost_ns));
        self.waiting.len() == 1
    }

    /// The first that waits.
    pub fn first(&self) -> Option<&Job> {
        self.waiting.front().map(|(job, _)| job)
    }

    /// What the first that waits takes, ns.
    pub fn first_cost_ns(&self) -> Option<u64> {
        self.waiting.front().map(|(_, cost_ns)| *cost_ns)
    }

    /// Takes out the first that waits.
    pub fn done(&mut self) -> Option<Job> {
        let (job, cost_ns) = self.waiting.pop_front()?;
        self.backlog_ns -= cost_ns;
        Some(job)
    }
}
