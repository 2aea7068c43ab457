//! Round trips by TCP's time stamps option (RFC 7323 section 3), at one point.
//!
//! A segment carries its sender's clock (TSval), and what answers it brings that back (TSecr). The first segment with a
//! new TSval is timed until the first segment of the other direction that echoes it. What is echoed is the TSval of the
//! segment that moved the receiver's window last (section 4.3), so the echo of a TSval cannot come before a segment with it
//! arrived, and retransmissions need not be left out: they carry a newer one. Round trips are therefore found where those by
//! sequence numbers ([`super::tcp`]) are given up, during loss. Two segments of one TSval cannot be told apart, though:
//! when data is sent again within one tick of the sender's clock, the round trip is given up.
//!
//! The clock ticks each millisecond with Linux: no more than one round trip in that time. Flows without the option have
//! none. At most one round trip is outstanding in each direction.

use super::tcp::{Method, RoundTrip, before, maybe_delayed};
use crate::packet::{Tcp, tcp_flag};

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// The newest TSval that was seen.
    newest: Option<u32>,
    /// The TSval that is timed, and when it passed first.
    probe: Option<(u32, u64)>,
    /// Right edge of what was sent.
    right: Option<u32>,
    shortest: u64,
}

/// The time stamps of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct StampFollower {
    /// By direction: client to server is 0.
    sides: [Side; 2],
}

impl StampFollower {
    /// Takes a segment that passed at `ns`; says the round trip that it ended, whose error is that of the two stamps.
    ///
    /// A connection that is seen from the middle on is timed from its second TSval on: of the first one, earlier segments
    /// may have passed before.
    pub fn segment(&mut self, forward: bool, tcp: &Tcp, ns: u64) -> Option<RoundTrip> {
        let stamps = tcp.timestamps?;
        if tcp.flags & tcp_flag::RST != 0 {
            return None;
        }
        let syn = tcp.flags & tcp_flag::SYN != 0;
        let length = tcp.payload.wrapping_add(u32::from(syn) + u32::from(tcp.flags & tcp_flag::FIN != 0));
        // TSecr is valid only with ACK (section 3.2).
        let ended =
            (tcp.flags & tcp_flag::ACK != 0).then(|| self.echo(!forward, stamps.echo, length, ns)).flatten();
        let side = &mut self.sides[usize::from(!forward)];
        let newer = side.newest.map(|newest| before(newest, stamps.value));
        if newer.unwrap_or(true) {
            side.newest = Some(stamps.value);
        }
        if length == 0 {
            return ended;
        }
        let end = tcp.seq.wrapping_add(length);
        let again = side.right.is_some_and(|right| before(tcp.seq, right));
        if side.right.is_none_or(|right| before(right, end)) {
            side.right = Some(end);
        }
        match side.probe {
            Some((value, _)) if again && value == stamps.value => side.probe = None,
            None if newer.unwrap_or(syn) => side.probe = Some((stamps.value, ns)),
            _ => {}
        }
        ended
    }

    fn echo(&mut self, forward: bool, echo: u32, length: u32, ns: u64) -> Option<RoundTrip> {
        let side = &mut self.sides[usize::from(!forward)];
        let (value, began) = side.probe?;
        if before(echo, value) {
            return None;
        }
        side.probe = None;
        // A newer one: that which was timed was lost, or its acknowledgement.
        if echo != value {
            return None;
        }
        let took = ns.saturating_sub(began);
        let maybe_delayed = maybe_delayed(&mut side.shortest, took, length);
        Some(RoundTrip { forward, method: Method::TimeStamps, ns: took, maybe_delayed })
    }
}
