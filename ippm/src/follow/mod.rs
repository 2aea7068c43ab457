//! Following conversations at one observation point: round-trip delay, what was sent again and what came late.
//!
//! Each follower is a small machine that takes one packet at a time with its time, and says what that packet completes.
//! All state is bounded: one outstanding measurement in each direction of a TCP connection, a few unanswered questions of
//! a flow. [`table::FlowTable`] keeps the followers of many flows.

pub mod question;
pub mod spin;
pub mod stamps;
pub mod table;
pub mod tcp;

#[cfg(test)]
mod tests;
