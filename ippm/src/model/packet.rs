//! A packet of the model: its headers as values, and as a frame.

use std::net::{IpAddr, Ipv4Addr};

use super::law::Clock;
use crate::testpackets::Frame;

/// Transport header of a modelled packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP; the payload begins with this serial number.
    Udp {
        /// Counts the packets of the stream from 0.
        serial: u64,
    },
    /// TCP with the time stamps option.
    Tcp {
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
        /// Flags.
        flags: u8,
        /// TSval and TSecr.
        timestamps: (u32, u32),
    },
}

/// A packet as one observation point sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whether it goes from the client (who opens) to the server.
    pub forward: bool,
    /// Transport header.
    pub transport: Transport,
    /// Octets of payload.
    pub payload: u32,
    /// IPv4 identification.
    pub ip_id: u16,
}

/// A packet and when, in true time, an observation point saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// True time, nanoseconds.
    pub ns: u64,
    /// What was seen.
    pub packet: Packet,
}

/// The addresses and ports of a modelled conversation, as one observation point sees them: behind an address
/// translator they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who opened.
    pub client: (IpAddr, u16),
    /// Who was called.
    pub server: (IpAddr, u16),
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            client: (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000),
            server: (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5_000),
        }
    }
}

impl Packet {
    /// The frame: Ethernet, IP, transport, payload. The payload is a function of the byte's place in the stream, so a
    /// segment that is sent again carries the same, however it is cut.
    pub fn frame(&self, ends: Ends) -> Vec<u8> {
        let (from, to) = if self.forward { (ends.client, ends.server) } else { (ends.server, ends.client) };
        let frame = Frame::between(from.0, to.0).ip_id(self.ip_id);
        let ports = (from.1, to.1);
        let length = self.payload as usize;
        match self.transport {
            Transport::Udp { serial } => {
                let mut payload = serial.to_be_bytes().to_vec();
                payload.resize(length.max(8), 0x5a);
                frame.udp(ports).payload(&payload)
            }
            Transport::Tcp { seq, ack, flags, timestamps: (value, echo) } => {
                let payload: Vec<u8> = (0..self.payload).map(|i| byte_at(seq.wrapping_add(i))).collect();
                frame.tcp(ports, seq, ack, flags).tcp_timestamps(value, echo).payload(&payload)
            }
        }
        .build()
    }
}

fn byte_at(place: u32) -> u8 {
    (place.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// Sorts what a point saw by time and reads the point's clock: `(reading, frame)`.
pub fn render(seen: &[Captured], ends: Ends, clock: Clock) -> Vec<(u64, Vec<u8>)> {
    let mut seen = seen.to_vec();
    seen.sort_by_key(|c| c.ns);
    seen.iter().map(|c| (clock.reading(c.ns), c.packet.frame(ends))).collect()
}
