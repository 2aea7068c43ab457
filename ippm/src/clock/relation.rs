//! Offset and skew of one clock against another while both run evenly.

use super::Bounded;
use super::hull::{LowerHull, Point};
use crate::oneway::Passage;

/// Clocks that differ in rate by more than this ratio are refused: even a free-running crystal is a hundred times better.
pub const MAX_SKEW: f64 = 0.01;

/// Outward rounding of every bound, nanoseconds: far more than floating point can err here.
const ROUNDING_NS: f64 = 0.5;

/// Why no relation was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    /// Without packets both ways one side of the offset has no bound.
    #[error("packets of one direction alone do not tell how two clocks relate")]
    OneDirection,
    /// No two clocks that run evenly can have shown these times.
    #[error("no constant difference in rate explains the times: a clock was set, or its rate was changed")]
    NotEven,
}

/// How far clock B is ahead of clock A, as a function of what A shows.
#[derive(Clone, Debug)]
pub struct Relation {
    origin_ns: u64,
    origin_offset: i64,
    /// Of the packets from A to B: the offset lies below.
    above: LowerHull,
    /// Of the packets from B to A, turned upside down: the offset lies above its negative.
    below: LowerHull,
    slopes: (f64, f64),
    /// The estimate: offset at the origin beyond `origin_offset`, and slope.
    line: (f64, f64),
    span: (f64, f64),
}

impl Relation {
    /// From packets that A's side sent to B's (`forward`) and B's to A's (`reverse`), each with its sender's clock and its
    /// receiver's. `slack_ns` is the coarser of the clocks' resolutions: readings are taken to be cut to it.
    ///
    /// Room and time: those of sorting the packets.
    pub fn find(forward: &[Passage], reverse: &[Passage], slack_ns: u64) -> Result<Self, RelationError> {
        let (Some(first), Some(_)) = (forward.first(), reverse.first()) else {
            return Err(RelationError::OneDirection);
        };
        let (origin_ns, origin_offset) = (first.sent_ns, first.raw_delay_ns());
        let slack = i64::try_from(slack_ns).unwrap_or(i64::MAX);
        let time = |ns: u64| ns.wrapping_sub(origin_ns) as i64;
        let above: Vec<Point> = forward
            .iter()
            .map(|p| Point {
                t: time(p.sent_ns),
                x: p.raw_delay_ns().wrapping_sub(origin_offset).saturating_add(slack),
            })
            .collect();
        let below: Vec<Point> = reverse
            .iter()
            .map(|p| Point {
                t: time(p.received_ns),
                x: p.raw_delay_ns().wrapping_add(origin_offset).saturating_add(slack),
            })
            .collect();
        let mean = |points: &[Point]| points.iter().map(|p| p.t as f64).sum::<f64>() / points.len() as f64;
        let means = (mean(&above), mean(&below));
        let ends = above.iter().chain(&below).map(|p| p.t);
        let span = (ends.clone().min().unwrap_or(0) as f64, ends.max().unwrap_or(0) as f64);
        let mut relation = Self {
            origin_ns,
            origin_offset,
            above: LowerHull::of(above),
            below: LowerHull::of(below),
            slopes: (0.0, 0.0),
            line: (0.0, 0.0),
            span,
        };
        let high = relation.extreme_slope(1.0).ok_or(RelationError::NotEven)?;
        let low = relation.extreme_slope(-1.0).ok_or(RelationError::NotEven)?;
        relation.slopes = (low.min(high), high.max(low));
        relation.line = relation.middle_line(means);
        Ok(relation)
    }

    /// The largest (`side` 1) or smallest (-1) slope of a possible line.
    ///
    /// A line of slope b fits iff for each point above (t, x) and each below (s, y): x - y - b (t - s) ≥ 0. The least of
    /// these is concave in b; from outside, Newton's steps along the pair that is least come down to where it is 0.
    fn extreme_slope(&self, side: f64) -> Option<f64> {
        let mut b = side * MAX_SKEW;
        loop {
            let (up, down) = (self.above.lowest(b)?, self.below.lowest(-b)?);
            // `below` is upside down: its x is -y.
            let room = up.x as f64 + down.x as f64;
            let apart = up.t as f64 - down.t as f64;
            if room - b * apart >= -ROUNDING_NS {
                return Some(b);
            }
            let next = room / apart;
            // The step must lead inwards; else no slope on this side of b, and so none at all, fits.
            if apart * side <= 0.0 || (b - next) * side <= 0.0 || next.abs() > MAX_SKEW {
                return None;
            }
            b = next;
        }
    }

    /// The line halfway between the clouds, of the slope that the hulls have where most points are.
    fn middle_line(&self, means: (f64, f64)) -> (f64, f64) {
        let slope = (self.above.slope_at(means.0) - self.below.slope_at(means.1)) / 2.0;
        let slope = slope.clamp(self.slopes.0, self.slopes.1);
        ((self.ceiling(slope, 0.0) + self.floor(slope, 0.0)) / 2.0, slope)
    }

    /// The highest value at `t` of lines of this slope below the points above.
    fn ceiling(&self, slope: f64, t: f64) -> f64 {
        self.above.lowest(slope).map_or(f64::INFINITY, |p| p.x as f64 + slope * (t - p.t as f64))
    }

    /// The lowest value at `t` of lines of this slope above the points below.
    fn floor(&self, slope: f64, t: f64) -> f64 {
        self.below.lowest(-slope).map_or(f64::NEG_INFINITY, |p| slope * (t - p.t as f64) - p.x as f64)
    }

    fn time(&self, ns: u64) -> f64 {
        ns.wrapping_sub(self.origin_ns) as i64 as f64
    }

    /// Between what two values the offset of B against A lies for certain when A shows `ns`; nanoseconds, relative to
    /// [`Relation::base_ns`].
    fn relative_bounds(&self, t: f64) -> (f64, f64) {
        // The highest value at t of a possible line: the best slope is that of the hull's edge there, as near to it
        // as the other cloud allows.
        let high = self.above.slope_at(t).clamp(self.slopes.0, self.slopes.1);
        let low = (-self.below.slope_at(t)).clamp(self.slopes.0, self.slopes.1);
        (self.floor(low, t) - ROUNDING_NS, self.ceiling(high, t) + ROUNDING_NS)
    }

    /// A round number near the offset, nanoseconds. Offsets between a clock that counts from boot and one that tells the
    /// time of day are too large for a double's precision; sums are made relative to this.
    pub const fn base_ns(&self) -> i64 {
        self.origin_offset
    }

    /// Between what two values the offset lies for certain when A shows `ns`, nanoseconds from [`Relation::base_ns`].
    /// Outside the time that packets were seen in, bounds grow with the possible skew.
    pub fn bounds_at(&self, ns: u64) -> (f64, f64) {
        self.relative_bounds(self.time(ns))
    }

    /// The estimate of the offset when A shows `ns`, nanoseconds from [`Relation::base_ns`], with its hard bound.
    pub fn offset_at(&self, ns: u64) -> Bounded {
        let t = self.time(ns);
        let estimate = self.line.0 + self.line.1 * t;
        let (low, high) = self.relative_bounds(t);
        Bounded { ns: estimate, error_ns: (high - estimate).max(estimate - low) }
    }

    /// The hard bound of [`Relation::offset_at`] over all the time that packets were seen in, nanoseconds. The bounds are
    /// convex, so the ends are worst.
    pub fn worst_error_ns(&self) -> f64 {
        [self.span.0, self.span.1]
            .map(|t| {
                let (low, high) = self.relative_bounds(t);
                let estimate = self.line.0 + self.line.1 * t;
                (high - estimate).max(estimate - low)
            })
            .into_iter()
            .fold(0.0, f64::max)
    }

    /// The middle of the time that packets were seen in, by A's clock.
    pub fn middle_ns(&self) -> u64 {
        self.origin_ns.wrapping_add_signed(((self.span.0 + self.span.1) / 2.0) as i64)
    }

    /// How much faster B runs than A, as a ratio: estimate, and the smallest and largest that are possible.
    pub const fn skew(&self) -> (f64, f64, f64) {
        (self.line.1, self.slopes.0, self.slopes.1)
    }

    /// What B shows when A shows `ns`: nanoseconds, and the hard bound of its error.
    pub fn other_time(&self, ns: u64) -> (u64, f64) {
        let offset = self.offset_at(ns);
        let moved = i128::from(ns) + i128::from(self.origin_offset) + offset.ns.round() as i128;
        (moved.clamp(0, i128::from(u64::MAX)) as u64, offset.error_ns + 0.5)
    }

    /// One-way delay of a packet from A's side to B's.
    pub fn forward_delay(&self, passage: &Passage) -> Bounded {
        let offset = self.offset_at(passage.sent_ns);
        let raw = passage.raw_delay_ns().wrapping_sub(self.origin_offset) as f64;
        Bounded { ns: raw - offset.ns, error_ns: offset.error_ns }
    }

    /// One-way delay of a packet from B's side to A's.
    pub fn reverse_delay(&self, passage: &Passage) -> Bounded {
        let offset = self.offset_at(passage.received_ns);
        let raw = passage.raw_delay_ns().wrapping_add(self.origin_offset) as f64;
        Bounded { ns: raw + offset.ns, error_ns: offset.error_ns }
    }

    /// Points that bound the offset, of both directions: the hulls' vertices.
    pub fn vertices(&self) -> usize {
        self.above.vertices().len() + self.below.vertices().len()
    }
}
