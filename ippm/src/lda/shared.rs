//! Mean delay of each of many flows from counters that all of them share: fixed memory, however many flows there are.
//!
//! This is a **reconstruction** of what COLATE (Shahzad and Liu, SIGMETRICS 2014) does, from its abstract and in the family
//! of randomised counter sharing; it is not that algorithm's published text, and no figure of that paper is claimed.
//!
//! Each flow owns a few of the counters, chosen by a digest of its key, and each of its packets adds its time to one of
//! them, chosen by the packet's digest, so that two points choose the same. The difference of two points' sums over
//! a flow's counters is the sum of its packets' delays and of what other flows have in them. The latter is as much as in any other
//! counters, on average, and is taken off; how much that varies from counter to counter is seen in the others, too, and
//! gives the interval. As with [`super::Lda`], a counter is used only where both points counted the same packets.
//!
//! Where there is room for it, [`super::FlowLda`] for each flow is exact and costs less for the same error: this is for when
//! there is none. Flows of few packets drown in the noise of the others; the interval says so. A deviation is not told.

use super::Bucket;
use crate::metric::proportion::Z95;
use crate::select::Digest;
use crate::select::digest::digest;

/// One point's counters of one interval, 24 octets each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedCounters {
    buckets: Vec<Bucket>,
    own: u32,
    secret: u64,
}

impl SharedCounters {
    /// `counters` in all (1 to 2^24), of which each flow owns `own` (1 to 1,024, and at most half of all). More own counters
    /// gather more of other flows, fewer make the noise less normal and the interval less true; 100 serve well. Both points need the same
    /// numbers and secret.
    pub fn new(counters: usize, own: u32, secret: u64) -> Self {
        let counters = counters.clamp(1, 1 << 24);
        let own = own.min(1_024).min((counters / 2) as u32).max(1);
        Self { buckets: vec![Bucket::default(); counters], own, secret }
    }

    /// Adds a packet that passed at `ns` by the point's clock; `flow` names its flow the same at both points.
    #[inline]
    pub fn add(&mut self, flow: u64, packet: Digest, ns: u64) {
        let which = ((u128::from(packet.name) * u128::from(self.own)) >> 64) as u64;
        let at = self.place(flow, which);
        if let Some(bucket) = self.buckets.get_mut(at) {
            bucket.add(packet.name, ns);
        }
    }

    #[inline]
    fn place(&self, flow: u64, which: u64) -> usize {
        ((u128::from(digest(self.secret, &[flow, which])) * self.buckets.len() as u128) >> 64) as usize
    }

    /// The counters, to be sent.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Takes the sender's counters (`self`) from the receiver's. `offset_ns` is what the receiver's clock shows too much, as
    /// far as that is known: what stays of it is a part of every delay, and so of the noise. `None` where the counters
    /// are not of one kind.
    pub fn compare<'a>(&'a self, receiver: &SharedCounters, offset_ns: i64) -> Option<Shared<'a>> {
        if (self.buckets.len(), self.own, self.secret)
            != (receiver.buckets.len(), receiver.own, receiver.secret)
        {
            return None;
        }
        let sums = self.buckets.iter().zip(&receiver.buckets).map(|(sent, received)| {
            let offsets = (offset_ns as u64).wrapping_mul(sent.count);
            let sum = received.sum_ns.wrapping_sub(sent.sum_ns).wrapping_sub(offsets) as i64;
            (sent.count == received.count && sent.names == received.names).then_some(sum as f64)
        });
        let sums: Vec<Option<f64>> = sums.collect();
        let useful = || sums.iter().flatten();
        let count = useful().count() as f64;
        let mean = useful().sum::<f64>() / count.max(1.0);
        let squares = useful().map(|sum| (sum - mean).powi(2)).sum();
        let (sent, lost) =
            self.buckets.iter().zip(&receiver.buckets).fold((0, 0), |(sent, lost), (a, b)| {
                (sent + a.count, lost + a.count.saturating_sub(b.count))
            });
        let arrived = 1.0 - lost as f64 / (sent as f64).max(1.0);
        Some(Shared { counters: self, sums, count, mean, squares, arrived })
    }
}

/// Two points' counters, compared.
#[derive(Clone, Debug)]
pub struct Shared<'a> {
    counters: &'a SharedCounters,
    /// Sums of delays, of useful counters.
    sums: Vec<Option<f64>>,
    /// Of the useful ones: how many, their mean, and the sum of squares around it.
    count: f64,
    mean: f64,
    squares: f64,
    /// The share of all packets that arrived.
    arrived: f64,
}

/// A flow's mean delay, reconstructed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconstruction {
    /// Mean of the delays, nanoseconds.
    pub mean_ns: f64,
    /// Its standard error, nanoseconds: that of what other flows left in its counters, and of how many of its packets are in the
    /// useful ones, as if its delays were alike.
    pub standard_error_ns: f64,
    /// The share of the flow's own counters that were useful.
    pub useful: f64,
}

impl Reconstruction {
    /// The interval that covers the truth in about 95 % of cases, nanoseconds.
    pub fn interval_ns(&self) -> (f64, f64) {
        let half = Z95 * self.standard_error_ns;
        (self.mean_ns - half, self.mean_ns + half)
    }
}

impl Shared<'_> {
    /// The mean delay of a flow that had so many packets (by its flow record). `None` without packets or useful
    /// counters, or with fewer than two others to tell the noise by.
    pub fn flow(&self, flow: u64, packets: u64) -> Option<Reconstruction> {
        let own = u64::from(self.counters.own);
        let mut places: Vec<usize> = (0..own).map(|which| self.counters.place(flow, which)).collect();
        let useful_of = |places: &[usize]| places.iter().filter_map(|at| *self.sums.get(*at)?).count() as f64;
        let useful = useful_of(&places) / own as f64;
        // Two of a flow's counters may be one.
        places.sort_unstable();
        places.dedup();
        let sums = || places.iter().filter_map(|at| *self.sums.get(*at)?);
        let (inside, others) = (sums().count() as f64, self.count - sums().count() as f64);
        // A counter in which nothing was lost holds by so much less of the flow than one of which that is not known.
        let share = packets as f64 * useful * self.arrived;
        if inside < 1.0 || others < 2.0 || packets == 0 {
            return None;
        }
        let sum: f64 = sums().sum();
        // Mean and variance of the others, from those of all.
        let noise = (self.mean * self.count - sum) / others;
        let squares = self.squares
            - sums().map(|sum| (sum - self.mean).powi(2)).sum::<f64>()
            - others * (noise - self.mean).powi(2);
        let variance = (squares / (others - 1.0)).max(0.0);
        let mean_ns = (sum - inside * noise) / share;
        let foreign = variance * inside * (1.0 + inside / others);
        let counted = mean_ns.powi(2) * share * (1.0 - useful);
        Some(Reconstruction { mean_ns, standard_error_ns: (foreign + counted).sqrt() / share, useful })
    }
}

#[cfg(test)]
mod tests;
