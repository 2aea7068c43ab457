//! TCP at one point, as the kernel's programs follow it (`follow_tcp` in `tap/bpf/tap.bpf.c`).
//!
//! At most one round trip is outstanding in each direction. It begins with a segment that brings new data and ends with
//! the first acknowledgement that covers it; it is given up when a segment comes that is not new, sent again or late
//! (Karn's rule, RFC 6298 section 3). The handshake's are kept apart, for there the answer is the stack's alone.
//!
//! A round trip at a point covers one leg: from the point to the far end of that direction and back. The legs of both
//! directions together are the whole.

use crate::packet::{Tcp, tcp_flag};

/// How a round trip was found. Those of different methods tell different things, and are not to be mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// From SYN or SYN/ACK to what acknowledges it: the answer is the stack's alone.
    Handshake,
    /// From new data to the first acknowledgement that covers it.
    Acknowledgement,
    /// From a new TSval to its echo ([`super::stamps`]).
    TimeStamps,
}

impl Method {
    /// The label, as it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "passive_tcp_handshake",
            Self::Acknowledgement => "passive_tcp_ack",
            Self::TimeStamps => "passive_tcp_time_stamps",
        }
    }
}

/// A round trip that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// The direction of the data; the acknowledgement came the other way.
    pub forward: bool,
    /// How it was found.
    pub method: Method,
    /// How long it took, nanoseconds.
    pub ns: u64,
    /// The acknowledgement carried no data and took more than [`DELAYED`] times the shortest round trip of this direction:
    /// its sender may have waited for something to send with it (RFC 1122 section 4.2.3.2), up to 500 ms.
    pub maybe_delayed: bool,
}

/// Beyond how many times the shortest round trip an acknowledgement may be a delayed one.
pub const DELAYED: u64 = 4;

/// What a segment's place in the sequence space says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It takes no sequence space.
    Nothing,
    /// New.
    New,
    /// Sent again.
    Retransmitted,
    /// It left its sender before one that was seen earlier.
    Reordered,
}

/// What one segment told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// A round trip that it ended.
    pub round_trip: Option<RoundTrip>,
    /// Its place.
    pub place: Place,
    /// A round trip was given up because of it.
    pub cancelled: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// Right edge of what was sent.
    right: Option<u32>,
    /// Right edge of the segment that is timed, when it passed, and whether it is a handshake's.
    probe: Option<(u32, u64, bool)>,
    /// Time stamp and IPv4 identification of the newest segment with data.
    newest: (u32, u16),
    /// Initial sequence number, from a SYN without ACK.
    isn: Option<u32>,
    shortest: u64,
}

/// One connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpFollower {
    /// By direction: client to server is 0.
    sides: [Side; 2],
}

impl TcpFollower {
    /// Whether a segment opens another connection between the same ports: a SYN with another initial sequence number.
    pub fn is_reuse(&self, forward: bool, tcp: &Tcp) -> bool {
        let side = &self.sides[usize::from(!forward)];
        let syn = tcp.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        match (syn, side.right, side.isn) {
            (true, Some(_), Some(isn)) => tcp.seq != isn,
            (true, Some(right), None) => tcp.seq.wrapping_add(1) != right,
            _ => false,
        }
    }

    /// Takes a segment that passed at `ns`. `ip_id` is 0 where there is none. `may_reorder` is false where nothing lies
    /// between the sender of this direction and the point: what is not new there was sent again.
    pub fn segment(&mut self, forward: bool, tcp: &Tcp, ip_id: u16, may_reorder: bool, ns: u64) -> Told {
        let mut told = Told { round_trip: None, place: Place::Nothing, cancelled: false };
        if tcp.flags & tcp_flag::RST != 0 {
            return told;
        }
        let (syn, fin) = (tcp.flags & tcp_flag::SYN != 0, tcp.flags & tcp_flag::FIN != 0);
        let length = tcp.payload.wrapping_add(u32::from(syn)).wrapping_add(u32::from(fin));
        if tcp.flags & tcp_flag::ACK != 0 {
            told.round_trip = self.acknowledge(!forward, tcp, length, ns);
        }
        if length == 0 {
            return told;
        }
        let end = tcp.seq.wrapping_add(length);
        let newest = (tcp.timestamps.map_or(0, |t| t.value), ip_id);
        let side = &mut self.sides[usize::from(!forward)];
        match side.right {
            Some(right) if before(tcp.seq, right) => {
                let reordered = may_reorder && is_older(newest, side.newest);
                told.place = if reordered { Place::Reordered } else { Place::Retransmitted };
                told.cancelled = side.probe.take().is_some();
                if before(right, end) {
                    side.right = Some(end);
                }
                if !reordered {
                    side.newest = newest;
                }
            }
            _ => {
                told.place = Place::New;
                side.right = Some(end);
                side.newest = newest;
                if syn && tcp.flags & tcp_flag::ACK == 0 {
                    side.isn = Some(tcp.seq);
                }
                if side.probe.is_none() {
                    let edge = if syn { tcp.seq.wrapping_add(1) } else { end };
                    side.probe = Some((edge, ns, syn));
                }
            }
        }
        told
    }

    fn acknowledge(&mut self, forward: bool, tcp: &Tcp, length: u32, ns: u64) -> Option<RoundTrip> {
        let side = &mut self.sides[usize::from(!forward)];
        let ((edge, began, handshake), right) = (side.probe?, side.right?);
        if before(tcp.ack, edge) || before(right, tcp.ack) {
            return None;
        }
        side.probe = None;
        let took = ns.saturating_sub(began);
        let maybe_delayed = maybe_delayed(&mut side.shortest, took, length);
        let method = if handshake { Method::Handshake } else { Method::Acknowledgement };
        Some(RoundTrip { forward, method, ns: took, maybe_delayed })
    }
}

/// Whether a round trip that was ended by a segment of `length` counts as [`RoundTrip::maybe_delayed`]; keeps the shortest.
pub(super) fn maybe_delayed(shortest: &mut u64, took: u64, length: u32) -> bool {
    let maybe = length == 0 && *shortest > 0 && took > shortest.saturating_mul(DELAYED);
    if *shortest == 0 || took < *shortest {
        *shortest = took;
    }
    maybe
}

/// Whether sequence number `a` comes before `b` (RFC 9293 section 3.4); time stamps are compared so too (RFC 7323 section
/// 4.2).
pub(super) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Whether a segment left its sender before the newest one seen. Time stamps do not go back (RFC 7323 section 5.4), so
/// they decide where they differ; IPv4 identifications count up where the sender cares.
fn is_older(this: (u32, u16), newest: (u32, u16)) -> bool {
    if this.0 != 0 && newest.0 != 0 && this.0 != newest.0 {
        return before(this.0, newest.0);
    }
    this.1 != 0 && newest.1 != 0 && (this.1.wrapping_sub(newest.1) as i16) < 0
}
