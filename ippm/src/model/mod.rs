//! A seeded network in virtual time: it sends packets over paths with known laws and says both what two observation
//! points see and what really happened. Every claim of accuracy in this crate is a test against it.
//!
//! The same seed gives the same network. Nothing waits and no clock is read: a run of a million packets takes as long as
//! it takes to compute. There are two layers: a [`path::Carrier`] decides the fate of one packet at a time, for
//! estimators that need only times; [`tcp`] and [`datagrams`] send whole conversations and render their packets as
//! frames, for everything that reads headers.
//!
//! It is a model: stacks answer at once or after a constant time, TCP's window is constant, and its sender recovers as
//! RFC 5681 section 3.2 and a fixed timer say, no more.

pub mod datagrams;
pub mod law;
pub mod packet;
pub mod path;
pub mod pcap;
pub mod random;
pub mod tcp;

pub use packet::{Captured, Packet, Transport};

/// Virtual time begins here, nanoseconds: far enough from 0 for any clock offset.
pub const EPOCH_NS: u64 = 1_000_000_000_000;
