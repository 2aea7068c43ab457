//! What single packets tell, as they pass: each round trip, each segment that was sent again or came late.

use std::net::IpAddr;

/// Something that a packet completed or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The packet's time, nanoseconds since 1970, UTC.
    pub ns: u64,
    /// Its protocol's number.
    pub proto: u8,
    /// Where it came from.
    pub source: (IpAddr, u16),
    /// Where it went.
    pub destination: (IpAddr, u16),
    /// What it told.
    pub kind: EventKind,
}

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It acknowledged data of the other direction that was timed.
    Acknowledged {
        /// Its acknowledgement number.
        ack: u32,
        /// Since the data passed, nanoseconds.
        took_ns: u64,
        /// The data were a SYN.
        handshake: bool,
    },
    /// It answers a DNS question.
    Answered {
        /// Since the question passed, nanoseconds.
        took_ns: u64,
    },
    /// It answers an ICMP echo request.
    Echoed {
        /// Since the request passed, nanoseconds.
        took_ns: u64,
    },
    /// Its data were sent before.
    Retransmitted {
        /// Its sequence number.
        seq: u32,
    },
    /// It left its sender before one that came earlier.
    Reordered {
        /// Its sequence number.
        seq: u32,
    },
}

impl EventKind {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Acknowledged { handshake: false, .. } => "acknowledged",
            Self::Acknowledged { handshake: true, .. } => "handshake",
            Self::Answered { .. } => "dns",
            Self::Echoed { .. } => "echo",
            Self::Retransmitted { .. } => "retransmitted",
            Self::Reordered { .. } => "reordered",
        }
    }

    /// The sequence or acknowledgement number, where it has one.
    pub const fn number(&self) -> Option<u32> {
        match self {
            Self::Acknowledged { ack, .. } => Some(*ack),
            Self::Retransmitted { seq } | Self::Reordered { seq } => Some(*seq),
            Self::Answered { .. } | Self::Echoed { .. } => None,
        }
    }

    /// The round trip that it ended, nanoseconds.
    pub const fn took_ns(&self) -> Option<u64> {
        match self {
            Self::Acknowledged { took_ns, .. } | Self::Answered { took_ns } | Self::Echoed { took_ns } => {
                Some(*took_ns)
            }
            Self::Retransmitted { .. } | Self::Reordered { .. } => None,
        }
    }
}
