//! The lossy difference aggregator: mean and variance of one-way delay from a few counters at two points, whatever the
//! number of packets, and without anything in the packets (Kompella, Levchenko, Snoeren and Varghese, SIGCOMM 2009), with
//! two changes.
//!
//! Each point adds the time of each packet into one of a bank's buckets, chosen by the packet's digest. Where a bucket
//! holds the same packets at both points, the difference of its sums is the sum of their delays. One lost packet spoils its
//! bucket; so there are banks that sample less, and of which more buckets survive much loss. Delay is independent of the
//! digest, so the packets of all useful buckets are one random sample.
//!
//! - A bucket is useful only if the *names* of its packets add up to the same too, not just their number: a packet that
//!   is counted in another interval at the other point, and one the other way, would leave the number and falsify the sum.
//! - Variance is that of the buckets' means around the common mean, each weighted by its packets, and not that of pairs of
//!   buckets less the mean's square: a constant part of the delay, or of the clocks' difference, does not drown it.

pub mod shared;

use crate::metric::proportion::Proportion;
use crate::metric::student::t95;
use crate::select::Digest;

/// Banks by the share of packets that each takes: disjoint, so that they may be pooled.
pub const SHARES: [f64; 4] = [0.889, 0.1, 0.01, 0.001];

/// The least digests of each bank but the first, as parts of 2^64: sums of [`SHARES`].
const EDGES: [u64; 4] = [edge(0.889), edge(0.989), edge(0.999), u64::MAX];

const fn edge(share: f64) -> u64 {
    (share * 18_446_744_073_709_551_616.0) as u64
}

/// Packets of one bucket: 24 octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// How many.
    pub count: u64,
    /// Sum of their times, nanoseconds, modulo 2^64: differences are right as long as the delays' sum is below 2^63.
    pub sum_ns: u64,
    /// Sum of their names, modulo 2^64.
    pub names: u64,
}

impl Bucket {
    #[inline]
    fn add(&mut self, name: u64, ns: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum_ns = self.sum_ns.wrapping_add(ns);
        self.names = self.names.wrapping_add(name);
    }
}

/// One point's counters of one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lda {
    /// Bank after bank.
    buckets: Vec<Bucket>,
    mask: usize,
}

impl Lda {
    /// With 2^`bits` buckets in each bank; more than 2^24 count as that.
    pub fn new(bits: u8) -> Self {
        let size = 1usize << bits.min(24);
        Self { buckets: vec![Bucket::default(); size * SHARES.len()], mask: size - 1 }
    }

    /// Adds a packet that passed at `ns` by the point's clock. Both points must use the same key for digests.
    #[inline]
    pub fn add(&mut self, digest: Digest, ns: u64) {
        let bank = usize::from(digest.select >= EDGES[0])
            + usize::from(digest.select >= EDGES[1])
            + usize::from(digest.select >= EDGES[2]);
        let at = bank * (self.mask + 1) + (digest.name as usize & self.mask);
        if let Some(bucket) = self.buckets.get_mut(at) {
            bucket.add(digest.name, ns);
        }
    }

    /// The counters, to be sent.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// What the sender's (`self`) and the receiver's counters say together. `None` where they are not of one size or
    /// have no useful bucket.
    pub fn compare(&self, receiver: &Lda) -> Option<Estimate> {
        if self.mask != receiver.mask {
            return None;
        }
        compare(&self.buckets, &receiver.buckets)
    }
}

/// Delay as two points' counters tell it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Mean of the raw delays, nanoseconds: with what the receiver's clock shows too much.
    pub mean_ns: f64,
    /// Standard error of the mean for all packets sent, 0 where none was lost and all were counted.
    pub standard_error_ns: Option<f64>,
    /// Standard deviation of the delays, nanoseconds; of one bucket none can be told.
    pub deviation_ns: Option<f64>,
    /// Its relative standard error.
    pub deviation_relative_error: Option<f64>,
    /// Packets in useful buckets.
    pub packets: u64,
    /// Useful buckets.
    pub buckets: u64,
    /// Packets that the receiver's counters lack, of all: too small by what was duplicated or crossed the interval's ends.
    pub loss: Proportion,
}

impl Estimate {
    /// The interval that covers the mean of all packets that arrived in about 95 % of cases, nanoseconds; `None` of one bucket.
    pub fn interval_ns(&self) -> Option<(f64, f64)> {
        let half = self.standard_error_ns? * t95(self.buckets.saturating_sub(1));
        Some((self.mean_ns - half, self.mean_ns + half))
    }
}

/// Compares buckets of two points, one by one.
fn compare(sender: &[Bucket], receiver: &[Bucket]) -> Option<Estimate> {
    let mut useful: Vec<(f64, f64)> = Vec::new();
    let mut loss = Proportion::default();
    for (sent, received) in sender.iter().zip(receiver) {
        loss += Proportion { hits: sent.count.saturating_sub(received.count), trials: sent.count };
        if sent.count > 0 && sent.count == received.count && sent.names == received.names {
            let sum = received.sum_ns.wrapping_sub(sent.sum_ns) as i64;
            useful.push((sent.count as f64, sum as f64));
        }
    }
    let packets: f64 = useful.iter().map(|(count, _)| count).sum();
    if packets < 1.0 {
        return None;
    }
    let mean = useful.iter().map(|(_, sum)| sum).sum::<f64>() / packets;
    let spread: f64 = useful.iter().map(|(count, sum)| (sum - count * mean).powi(2)).sum();
    let k = useful.len() as f64;
    // The centred sums lose one degree of freedom of k.
    let variance = (k > 1.0).then(|| spread / packets * k / (k - 1.0));
    // What is not in the sample varies; the sample is drawn without replacement.
    let rest = (1.0 - packets / loss.trials as f64).max(0.0);
    Some(Estimate {
        mean_ns: mean,
        standard_error_ns: variance.map(|variance| (variance / packets * rest).sqrt()),
        deviation_ns: variance.map(f64::sqrt),
        deviation_relative_error: (k > 1.0).then(|| (0.5 / k).sqrt()),
        packets: packets as u64,
        buckets: useful.len() as u64,
        loss,
    })
}

/// A flow's own aggregator: eight buckets (192 octets), for flows whose delay is wanted by itself. Of L lost packets about
/// exp(-L/8) of the buckets stay useful: without loss the mean is exact, and with a few losses it is that of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLda {
    buckets: [Bucket; 8],
}

impl FlowLda {
    /// Adds a packet of the flow that passed at `ns` by the point's clock.
    #[inline]
    pub fn add(&mut self, digest: Digest, ns: u64) {
        self.buckets[(digest.name & 7) as usize].add(digest.name, ns);
    }

    /// The counters, to be sent.
    pub const fn buckets(&self) -> &[Bucket; 8] {
        &self.buckets
    }

    /// What the sender's (`self`) and the receiver's counters say together. `None` without a useful bucket.
    pub fn compare(&self, receiver: &FlowLda) -> Option<Estimate> {
        compare(&self.buckets, &receiver.buckets)
    }
}

#[cfg(test)]
mod tests;
