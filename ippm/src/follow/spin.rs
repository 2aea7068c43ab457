//! Round trips from QUIC's spin bit (RFC 9000 section 17.4, RFC 9312 section 3.8.1): the client inverts it once each round trip
//! and the server sends back what it got, so in each direction edges are one round trip apart, the whole way and
//! application delays included.
//!
//! Endpoints may keep it still or set it at random; at least one in 16 must not spin. A bit that never turns gives no round trip; random
//! ones give absurdly short ones, which [`SpinFollower::looks_random`] tells.

/// The fixed bit and the spin bit of a short header's first octet (RFC 9000 section 17.3.1).
const LONG: u8 = 0x80;
const FIXED: u8 = 0x40;
const SPIN: u8 = 0x20;

/// An edge this much sooner than the last round trip is taken for packets that overtook each other at an edge.
const TOO_SOON: u64 = 8;
/// Between edges farther apart nothing was sent for a while: no round trip.
const IDLE_NS: u64 = 2_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    spin: Option<bool>,
    edge: Option<u64>,
    last: u64,
}

/// One UDP flow that may be QUIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinFollower {
    quic: bool,
    sides: [Side; 2],
    packets: u32,
    edges: u32,
}

impl SpinFollower {
    /// Takes a datagram that passed at `ns`; says the round trip that it completes, nanoseconds. Nothing is taken for QUIC
    /// before a long header with a version of QUIC was seen (RFC 8999 section 5.1).
    pub fn datagram(&mut self, forward: bool, payload: &[u8], ns: u64) -> Option<u64> {
        let first = *payload.first()?;
        if first & LONG != 0 {
            let version: &[u8; 4] = payload.get(1..5)?.first_chunk()?;
            // Version 1 (RFC 9000) and 2 (RFC 9369), and the drafts that were deployed.
            self.quic |= matches!(u32::from_be_bytes(*version), 1 | 0x6b33_43cf | 0xff00_0000..=0xff00_00ff);
            return None;
        }
        if !self.quic || first & FIXED == 0 {
            return None;
        }
        let spin = first & SPIN != 0;
        let side = &mut self.sides[usize::from(!forward)];
        self.packets = self.packets.saturating_add(1);
        if side.spin.replace(spin) == Some(!spin) {
            self.edges = self.edges.saturating_add(1);
            let took = side.edge.map(|edge| ns.saturating_sub(edge));
            if let Some(took) = took
                && took < side.last / TOO_SOON
            {
                return None;
            }
            side.edge = Some(ns);
            let took = took.filter(|took| *took < IDLE_NS)?;
            side.last = took;
            return Some(took);
        }
        None
    }

    /// Whether more than a third of the packets turned the bit: an endpoint that sets it at random turns it half the time,
    /// and one that spins once in each round trip's packets.
    pub const fn looks_random(&self) -> bool {
        self.packets >= 16 && self.edges.saturating_mul(3) > self.packets
    }
}
