//! One-way measures of two observation points: what left one and reached the other, and when.
//!
//! Both points report what they saw; nothing here knows which clock is right. Times are those of each point's own clock,
//! and a *raw* delay is the difference of two clocks' readings. Differences of raw delays, loss, duplication and order
//! need no more; delays proper need [`crate::clock`].
//!
//! Two ways of matching, by what can be told apart:
//!
//! - [`packets`]: by signature, for everything that nobody cuts or joins: datagrams, ICMP, TCP segments without data.
//! - [`octets`]: by place in the sequence space, for TCP data, which offload cuts and joins at will.
//!
//! Both end in a [`Matching`] and treat the ends of the captures alike ([`Listening`]).

mod listening;
pub mod octets;
pub mod packets;

pub use listening::Listening;

use crate::metric::proportion::Proportion;

/// A packet that was seen at both points, for certain the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When it passed the point nearer to its sender, by that point's clock, nanoseconds.
    pub sent_ns: u64,
    /// When it passed the other, by that one's clock.
    pub received_ns: u64,
}

impl Passage {
    /// Difference of the two readings, nanoseconds: delay plus what the receiving clock shows too much.
    pub const fn raw_delay_ns(&self) -> i64 {
        self.received_ns.wrapping_sub(self.sent_ns) as i64
    }
}

/// What became of one direction's packets between two points.
///
/// `sent = passages' packets + ambiguous + lost + undecided`, in packets as the sender's point saw them for
/// [`packets`], in segments for [`octets`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// Certain matches, by time of sending. With duplicates the first arrival counts (RFC 7679 section 3.5).
    pub passages: Vec<Passage>,
    /// Packets that the sender's point saw.
    pub sent: u64,
    /// Sent and arrived, but there were several alike: no delay is taken from them.
    pub ambiguous: u64,
    /// Sent and never seen at the other point, though that one listened long enough: for the longest raw delay that any
    /// matched packet took. That is the waiting time (RFC 7680 section 2.4) after which a packet counts as lost.
    pub lost: u64,
    /// Sent when the other point may not have listened: neither lost nor arrived.
    pub undecided: u64,
    /// Arrivals beyond the first of each packet: duplication (RFC 5560 section 4).
    pub duplicates: u64,
    /// Seen at the receiver's point only, though the sender's listened: not captured there, or made on the way.
    pub unsent: u64,
}

impl Matching {
    /// Loss among the packets whose fate is known (RFC 7680 section 2.7: the loss ratio).
    pub const fn loss(&self) -> Proportion {
        Proportion { hits: self.lost, trials: self.sent.saturating_sub(self.undecided) }
    }

    /// Smallest and largest raw delay.
    pub fn raw_range_ns(&self) -> Option<(i64, i64)> {
        let raw = || self.passages.iter().map(Passage::raw_delay_ns);
        Some((raw().min()?, raw().max()?))
    }

    /// The share of what was sent of which a delay is known.
    pub fn coverage(&self) -> Option<f64> {
        let others = self.ambiguous + self.lost + self.undecided;
        (self.sent > 0).then(|| self.sent.saturating_sub(others) as f64 / self.sent as f64)
    }

    /// Adds another matching's counts and passages.
    pub fn add(&mut self, other: Matching) {
        self.passages.extend(other.passages);
        self.sent += other.sent;
        self.ambiguous += other.ambiguous;
        self.lost += other.lost;
        self.undecided += other.undecided;
        self.duplicates += other.duplicates;
        self.unsent += other.unsent;
    }
}

/// The smallest range that holds both.
fn widest(one: Option<(i64, i64)>, other: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (one, other) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (range, None) | (None, range) => range,
    }
}

#[cfg(test)]
mod tests;
