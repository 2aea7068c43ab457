//! STAMP, the Simple Two-way Active Measurement Protocol (RFC 8762) with the session identifier of RFC 8972, in
//! authenticated mode: the packets of both ways, and the sender's side of a session, whose exchanges tell how two hosts'
//! clocks relate ([`crate::clock`]) and how long a round trip takes.
//!
//! An exchange has four times: T1 the probe is sent, T2 it arrives, T3 the answer is sent, T4 it arrives. T1 and T4 are of
//! the sender's clock, T2 and T3 of the reflector's.
//!
//! What is ours within the RFCs: time stamps are PTPv2 truncated ones (Z = 1) of each host's own *monotonic* clock, and say
//! so with S = 0; packets carry no TLVs. A packet with other time stamps is refused.
//!
//! The message authentication code is a function of the caller, which knows the key: HMAC-SHA-256 over the first
//! [`COVERED`] octets, cut to its first 16 (RFC 8762 section 4.4). Both ways use the same key. A probe that is sent back
//! as it is does not pass for an answer; but an answer passes for a probe, since what must be zero is ignored
//! when read, so a reflector must answer on a port of its own that no answers are sent to.

mod exchanges;
mod packet;

pub use exchanges::{Counters, Exchanges, Refused};
pub use packet::{COVERED, ErrorEstimate, LENGTH, Mac, ReflectorPacket, SenderPacket, StampError};

#[cfg(test)]
mod tests;
