//! IP performance metrics as pure code, named after the IETF group whose definitions it implements: packets, flows,
//! histograms, measurements, names of addresses in time, and the catalogue of metrics.
//!
//! No input or output, no clock, no async: whoever calls hands in bytes and times, so everything here can be
//! tested in virtual time and without privilege.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod clock;
pub mod flow;
pub mod follow;
pub mod histogram;
pub mod lda;
pub mod measurement;
pub mod metric;
pub mod model;
pub mod naming;
pub mod oneway;
pub mod packet;
pub mod select;
#[doc(hidden)]
pub mod testpackets;
pub mod time;
