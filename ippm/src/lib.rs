//! IP performance metrics as pure code, named after the IETF group whose definitions it implements: packets, flows,
//! histograms, measurements, names of addresses in time, and the catalogue of metrics; and the passive methods: which packets
//! are reported ([`select`]), what became of them between two points ([`oneway`], [`lda`], [`difference`]), how clocks relate
//! ([`clock`]), round trips at one point ([`follow`]), how long a box between two ports
//! keeps packets ([`processing`]), who sends most ([`heavy`]); and the one active method: probes between hosts that have no
//! traffic to relate their clocks by ([`stamp`]). [`model`] is the network they are held to.
//!
//! No input or output, no clock, no async: whoever calls hands in bytes and times, so everything here can be
//! tested in virtual time and without privilege.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod clock;
pub mod difference;
pub mod flow;
pub mod follow;
pub mod heavy;
pub mod histogram;
pub mod lda;
pub mod measurement;
pub mod metric;
pub mod model;
pub mod naming;
pub mod oneway;
pub mod packet;
pub mod processing;
pub mod select;
pub mod stamp;
#[doc(hidden)]
pub mod testpackets;
pub mod time;
