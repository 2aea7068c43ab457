//! How two clocks relate, from traffic between them, and how sure that is.
//!
//! No packet arrives before it is sent. So a packet from A to B bounds what B's clock shows more than A's (the *offset*)
//! from above, by its raw delay, and one from B to A bounds it from below. Over a time in which both clocks run evenly the
//! offset is a line, and every line that keeps all these bounds is possible: nothing else is assumed, and no line that
//! breaks one is. That gives **hard** bounds at each moment ([`Relation::bounds_at`]), whatever the queues did.
//!
//! The hulls of the two clouds of points hold all that matters for it (Moon, Skelly and Towsley 1999 use one of them for
//! skew). What no method can see is a difference between the smallest delays of the two directions: it moves the
//! estimate within the bounds, which are as wide as the smallest round trip.

mod hull;
mod minimum;
mod relation;
mod timeline;

pub use minimum::Minimum;
pub use relation::{MAX_SKEW, Relation, RelationError};
pub use timeline::Timeline;

/// A number with a bound of its error that holds for certain, both nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// The estimate.
    pub ns: f64,
    /// How far it can be from the truth.
    pub error_ns: f64,
}

#[cfg(test)]
mod tests;
