//! Selection of TCP by places in its sequence space, which no segmentation or receive offload can move.
//!
//! A sender's port sees pieces of up to 64 KiB, the receiver's may see other pieces, and neither is what crosses the
//! wire. So not packets are selected but octets: every 2^k-th of a flow's sequence space, beginning at a place that a
//! keyed digest of the flow gives. The report of such a *grid point* is the time of the first packet that covers it.

/// The grid of one direction of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    phase: u32,
    shift: u8,
}

impl Grid {
    /// The largest distance of grid points: 2^30 octets, so that there are four at least.
    pub const MAX_SHIFT: u8 = 30;

    /// A point at each sequence number that is `flow_digest` modulo 2^`shift`. Shifts above [`Grid::MAX_SHIFT`] count
    /// as that. Grids nest: the points of a larger shift are among those of a smaller one.
    pub const fn new(flow_digest: u64, shift: u8) -> Self {
        let shift = if shift > Self::MAX_SHIFT { Self::MAX_SHIFT } else { shift };
        Self { phase: flow_digest as u32, shift }
    }

    /// Distance of the points in octets.
    pub const fn step(self) -> u32 {
        1 << self.shift
    }

    /// The points that `length` octets from sequence number `seq` on cover, in their order.
    pub fn covered(self, seq: u32, length: u32) -> impl Iterator<Item = u32> {
        let step = self.step();
        let first = self.phase.wrapping_sub(seq) & (step - 1);
        let count = if length > first { (length - 1 - first) / step + 1 } else { 0 };
        let start = seq.wrapping_add(first);
        (0..count).map(move |i| start.wrapping_add(i.wrapping_mul(step)))
    }
}
