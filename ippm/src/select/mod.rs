//! Which packets are reported, and how a report names its packet so that another observation point names it the same.
//!
//! Selection is hash-based: a packet is taken when a keyed digest of its invariant content
//! (RFC 5475 section 6.2) lies below a threshold. Both points take the same packets without
//! talking to each other, and thresholds nest: of two points with different ones the coarser selects a subset of what
//! the finer does. The key must be secret: who knows it can choose which of his packets are measured (RFC 5475
//! section 6.2.3).
//!
//! Two digests with different keys are used, one to select and one to name, so that the names of the selected packets
//! are spread over all 64 bits.

pub mod digest;
mod grid;
mod signature;

pub use digest::{Digest, Key};
pub use grid::Grid;
pub use signature::{PREFIX, TCP_PREFIX, Tuple, signature};

/// Takes one of each 2^`level` packets, by their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u8);

impl Threshold {
    /// Takes every packet.
    pub const ALL: Threshold = Threshold(0);
    /// The coarsest.
    pub const MAX_LEVEL: u8 = 63;

    /// One of each 2^`level` packets; levels above [`Threshold::MAX_LEVEL`] count as that.
    pub const fn new(level: u8) -> Self {
        Self(if level > Self::MAX_LEVEL { Self::MAX_LEVEL } else { level })
    }

    /// log2 of one over the share of packets taken.
    pub const fn level(self) -> u8 {
        self.0
    }

    /// Whether a packet with this selection digest is taken.
    pub const fn takes(self, digest: u64) -> bool {
        digest.leading_zeros() >= self.0 as u32
    }

    /// The next coarser one: it takes half of the packets, all of which this one takes.
    #[must_use]
    pub const fn coarser(self) -> Self {
        Self::new(self.0 + 1)
    }

    /// The share of packets that is taken, as selection by an ideal hash would have it.
    pub fn share(self) -> f64 {
        0.5f64.powi(i32::from(self.0))
    }
}

#[cfg(test)]
mod tests;
