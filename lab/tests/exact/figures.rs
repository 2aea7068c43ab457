//! What conmond tells of pairs and ports, and what a capture holds of them.

use anyhow::Result;
use lab::pcap::Packet;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::{AddAssign, Range, Sub};

/// Packets, and octets of their frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub packets: u64,
    pub bytes: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl Sub for Sum {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { packets: self.packets - earlier.packets, bytes: self.bytes - earlier.bytes }
    }
}

/// Sent and received.
pub type Ways = [Sum; 2];
pub const WAYS: [&str; 2] = ["sent", "received"];
pub const SENT: usize = 0;
pub const RECEIVED: usize = 1;

/// A count of conmond's.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
    pub segments: u64,
}

impl Count {
    pub fn sum(self) -> Sum {
        Sum { packets: self.packets, bytes: self.bytes }
    }

    pub fn since(self, earlier: Self) -> Self {
        let Sum { packets, bytes } = self.sum() - earlier.sum();
        Self { packets, bytes, segments: self.segments - earlier.segments }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets ({} segments), {} bytes", self.packets, self.segments, self.bytes)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct Endpoint {
    pub name: String,
    pub addresses: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Pair {
    pub src: Endpoint,
    pub dst: Endpoint,
    pub protocols: BTreeSet<String>,
    pub sent: Count,
    pub received: Count,
    pub active_flows: u64,
    pub observed_at: String,
}

impl Pair {
    pub fn is(&self, src: &str, dst: &str) -> bool {
        self.src.name == src && self.dst.name == dst
    }
}

/// What the ledger has of a port.
#[derive(Clone, Debug, Deserialize)]
pub struct Counted {
    pub interface: String,
    pub sent: Count,
    pub received: Count,
    pub packets_by_class: BTreeMap<String, u64>,
}

impl Counted {
    pub fn of(&self, classes: &[&str]) -> u64 {
        classes.iter().filter_map(|class| self.packets_by_class.get(*class)).sum()
    }
}

/// What a capture has of a port, as the container sees it.
#[derive(Debug, Default)]
pub struct Captured {
    pub all: Ways,
    /// By own address, the other's, and protocol.
    pub pairs: BTreeMap<(IpAddr, IpAddr, &'static str), Ways>,
    /// ARP and the discovery of neighbours and listeners, which make no pair.
    pub discovery: u64,
    pub largest: u32,
}

impl Captured {
    pub fn of(packets: &[Packet], mac: &str, window: &Range<u64>) -> Result<Self> {
        let own = mac.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<Vec<_>, _>>()?;
        let mut captured = Self::default();
        for packet in packets.iter().filter(|packet| window.contains(&packet.time_ns)) {
            let one = Sum { packets: 1, bytes: packet.wire_len.into() };
            let (to, from) = (&packet.data[..6], &packet.data[6..12]);
            let way = if from == own { SENT } else { RECEIVED };
            captured.all[way] += one;
            captured.largest = captured.largest.max(packet.wire_len);
            match ends_of(&packet.data) {
                None => captured.discovery += 1,
                // what a bridge floods is at the port, and is none of the container's
                Some(_) if way == RECEIVED && to != own && to[0] & 1 == 0 => {}
                Some((src, dst, protocol)) => {
                    let (here, there) = if way == SENT { (src, dst) } else { (dst, src) };
                    captured.pairs.entry((here, there, protocol)).or_default()[way] += one;
                }
            }
        }
        Ok(captured)
    }
}

/// Source, destination and protocol of a frame; none where it is of no pair.
fn ends_of(frame: &[u8]) -> Option<(IpAddr, IpAddr, &'static str)> {
    let name = |protocol| match protocol {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        _ => "another protocol",
    };
    let four = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<4>()?));
    let six = |at: usize| Some(IpAddr::from(*frame.get(at..)?.first_chunk::<16>()?));
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((four(26)?, four(30)?, name(*frame.get(23)?))),
        [0x86, 0xdd] => {
            let (mut next, mut at) = (*frame.get(20)?, 54);
            // options for each hop, and fragments
            while next == 0 || next == 44 {
                let length = if next == 0 { (usize::from(*frame.get(at + 1)?) + 1) * 8 } else { 8 };
                (next, at) = (*frame.get(at)?, at + length);
            }
            let discovers = next == 58 && matches!(*frame.get(at)?, 130..=137 | 143);
            if discovers { None } else { Some((six(22)?, six(38)?, name(next))) }
        }
        _ => None,
    }
}
