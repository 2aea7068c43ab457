//! Packets for tests: a builder of frames with right lengths and checksums, and a seeded mutator that breaks them where
//! parsers break. Used by the tests of several crates, so that all of them mean the same packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{ethertype, proto, tcp_flag};

/// A frame under construction. Begins with an address pair ([`Frame::between`]) and ends with [`Frame::build`].
#[derive(Clone, Debug)]
pub struct Frame {
    vlans: Vec<(u16, u16)>,
    network: Network,
    transport: Transport,
    payload: Vec<u8>,
    padded: usize,
}

#[derive(Clone, Debug)]
enum Network {
    V4 { source: Ipv4Addr, destination: Ipv4Addr, options: Vec<u8>, id: u16, fragment: u16 },
    V6 { source: Ipv6Addr, destination: Ipv6Addr, extensions: Vec<Extension> },
    None { ethertype: u16 },
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp { ports: (u16, u16), seq: u32, ack: u32, flags: u8, options: Vec<u8> },
    Udp { ports: (u16, u16) },
    Sctp { ports: (u16, u16) },
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    Raw { proto: u8 },
}

/// An IPv6 extension header.
#[derive(Clone, Debug)]
pub struct Extension {
    kind: u8,
    /// All but the first octet, which names the next header.
    rest: Vec<u8>,
}

impl Extension {
    /// A header of this kind (hop-by-hop, routing, destination options, mobility, HIP, shim6, or authentication) with
    /// `length` in its length field and zeros as its content.
    pub fn new(kind: u8, length: u8) -> Self {
        let octets =
            if kind == proto::AH { (usize::from(length) + 2) * 4 } else { (usize::from(length) + 1) * 8 };
        let mut rest = vec![0; octets - 1];
        rest[0] = length;
        Self { kind, rest }
    }

    /// A fragment header; `offset` in units of 8 octets.
    pub fn fragment(offset: u16, more: bool, id: u32) -> Self {
        let mut rest = vec![0];
        rest.extend((offset << 3 | u16::from(more)).to_be_bytes());
        rest.extend(id.to_be_bytes());
        Self { kind: proto::FRAGMENT, rest }
    }

    fn is_later_fragment(&self) -> bool {
        self.kind == proto::FRAGMENT && (self.rest[1] != 0 || self.rest[2] & 0xf8 != 0)
    }
}

impl Frame {
    /// A frame from one address to the other: IPv4 when both are, else IPv6.
    pub fn between(source: IpAddr, destination: IpAddr) -> Self {
        let network = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Network::V4 { source, destination, options: Vec::new(), id: 0, fragment: 0 }
            }
            (source, destination) => {
                Network::V6 { source: to_v6(source), destination: to_v6(destination), extensions: Vec::new() }
            }
        };
        Self::of(network)
    }

    /// A frame that is not IP: `payload` follows the EtherType.
    pub fn not_ip(ethertype: u16) -> Self {
        Self::of(Network::None { ethertype })
    }

    fn of(network: Network) -> Self {
        let transport = Transport::Raw { proto: proto::NO_NEXT };
        Self { vlans: Vec::new(), network, transport, payload: Vec::new(), padded: 0 }
    }

    /// Adds a VLAN tag inside those there: its EtherType, and priority and id as one number.
    #[must_use]
    pub fn vlan(mut self, ethertype: u16, tci: u16) -> Self {
        self.vlans.push((ethertype, tci));
        self
    }

    /// IPv4 options, filled up with zeros to a multiple of 4, at most 40 octets.
    #[must_use]
    pub fn ip_options(mut self, bytes: &[u8]) -> Self {
        if let Network::V4 { options, .. } = &mut self.network {
            *options = fill4(bytes);
        }
        self
    }

    /// IPv4 identification.
    #[must_use]
    pub fn ip_id(mut self, value: u16) -> Self {
        if let Network::V4 { id, .. } = &mut self.network {
            *id = value;
        }
        self
    }

    /// Makes it a fragment, `offset` in units of 8 octets. One with an offset carries the payload alone, without a
    /// transport header.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        match &mut self.network {
            Network::V4 { fragment, .. } => *fragment = offset & 0x1fff | u16::from(more) << 13,
            Network::V6 { extensions, .. } => extensions.push(Extension::fragment(offset, more, 1)),
            Network::None { .. } => {}
        }
        self
    }

    /// Adds an IPv6 extension header after those there.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        if let Network::V6 { extensions, .. } = &mut self.network {
            extensions.push(extension);
        }
        self
    }

    /// TCP.
    #[must_use]
    pub fn tcp(mut self, ports: (u16, u16), seq: u32, ack: u32, flags: u8) -> Self {
        self.transport = Transport::Tcp { ports, seq, ack, flags, options: Vec::new() };
        self
    }

    /// TCP options, filled up with zeros to a multiple of 4, at most 40 octets.
    #[must_use]
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        if let Transport::Tcp { options, .. } = &mut self.transport {
            *options = fill4(bytes);
        }
        self
    }

    /// The TCP time stamps option where Linux puts it in data segments.
    #[must_use]
    pub fn tcp_timestamps(self, value: u32, echo: u32) -> Self {
        let mut bytes = vec![1, 1, 8, 10];
        bytes.extend(value.to_be_bytes());
        bytes.extend(echo.to_be_bytes());
        self.tcp_options(&bytes)
    }

    /// UDP.
    #[must_use]
    pub fn udp(mut self, ports: (u16, u16)) -> Self {
        self.transport = Transport::Udp { ports };
        self
    }

    /// SCTP: the common header; chunks are the payload.
    #[must_use]
    pub fn sctp(mut self, ports: (u16, u16)) -> Self {
        self.transport = Transport::Sctp { ports };
        self
    }

    /// ICMP on IPv4, ICMPv6 on IPv6, with the four octets after the checksum.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.transport = Transport::Icmp { kind, code, rest };
        self
    }

    /// An echo request or reply of the address family's ICMP.
    #[must_use]
    pub fn echo(self, reply: bool, id: u16, sequence: u16) -> Self {
        let kind = match (self.is_v6(), reply) {
            (false, false) => 8,
            (false, true) => 0,
            (true, false) => 128,
            (true, true) => 129,
        };
        let ([i0, i1], [s0, s1]) = (id.to_be_bytes(), sequence.to_be_bytes());
        self.icmp(kind, 0, [i0, i1, s0, s1])
    }

    /// Another protocol, whose header is part of the payload.
    #[must_use]
    pub fn protocol(mut self, proto: u8) -> Self {
        self.transport = Transport::Raw { proto };
        self
    }

    /// What follows the headers.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// Ethernet padding up to this length, which no length field counts.
    #[must_use]
    pub fn padded(mut self, length: usize) -> Self {
        self.padded = length;
        self
    }

    fn is_v6(&self) -> bool {
        matches!(self.network, Network::V6 { .. })
    }

    /// The octets on the wire, without frame check sequence.
    pub fn build(&self) -> Vec<u8> {
        let mut out = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
        for (kind, tci) in &self.vlans {
            out.extend(kind.to_be_bytes());
            out.extend(tci.to_be_bytes());
        }
        match &self.network {
            Network::V4 { source, destination, options, id, fragment } => {
                out.extend(ethertype::IPV4.to_be_bytes());
                let body = self.body(&source.octets(), &destination.octets(), fragment & 0x1fff != 0);
                let header_length = 20 + options.len();
                let mut h = vec![0x40 | (header_length / 4) as u8, 0];
                h.extend(((header_length + body.len()) as u16).to_be_bytes());
                h.extend(id.to_be_bytes());
                h.extend(fragment.to_be_bytes());
                h.extend([64, self.transport_proto(), 0, 0]);
                h.extend(source.octets());
                h.extend(destination.octets());
                h.extend(options);
                let sum = checksum(&[&h]);
                h[10..12].copy_from_slice(&sum.to_be_bytes());
                out.extend(h);
                out.extend(body);
            }
            Network::V6 { source, destination, extensions } => {
                out.extend(ethertype::IPV6.to_be_bytes());
                let later = extensions.iter().any(Extension::is_later_fragment);
                let body = self.body(&source.octets(), &destination.octets(), later);
                let mut kinds: Vec<u8> = extensions.iter().map(|e| e.kind).collect();
                kinds.push(self.transport_proto());
                let chain: Vec<u8> = extensions
                    .iter()
                    .zip(&kinds[1..])
                    .flat_map(|(e, next)| std::iter::once(*next).chain(e.rest.iter().copied()))
                    .collect();
                out.extend([0x60, 0, 0, 0]);
                out.extend(((chain.len() + body.len()) as u16).to_be_bytes());
                // neighbour discovery and reports of listeners are good with these only (RFC 4861, RFC 3810)
                let hops = match self.transport {
                    Transport::Icmp { kind: 133..=137, .. } => 255,
                    Transport::Icmp { kind: 130..=132 | 143, .. } => 1,
                    _ => 64,
                };
                out.extend([kinds[0], hops]);
                out.extend(source.octets());
                out.extend(destination.octets());
                out.extend(chain);
                out.extend(body);
            }
            Network::None { ethertype } => {
                out.extend(ethertype.to_be_bytes());
                out.extend(&self.payload);
            }
        }
        if out.len() < self.padded {
            out.resize(self.padded, 0);
        }
        out
    }

    fn transport_proto(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => proto::TCP,
            Transport::Udp { .. } => proto::UDP,
            Transport::Sctp { .. } => proto::SCTP,
            Transport::Icmp { .. } if self.is_v6() => proto::ICMPV6,
            Transport::Icmp { .. } => proto::ICMP,
            Transport::Raw { proto } => proto,
        }
    }

    /// Transport header and payload, checksum filled in.
    fn body(&self, source: &[u8], destination: &[u8], later_fragment: bool) -> Vec<u8> {
        if later_fragment {
            return self.payload.clone();
        }
        let mut b = Vec::new();
        let sum_at = match &self.transport {
            Transport::Tcp { ports, seq, ack, flags, options } => {
                b.extend(ports.0.to_be_bytes());
                b.extend(ports.1.to_be_bytes());
                b.extend(seq.to_be_bytes());
                b.extend(ack.to_be_bytes());
                b.extend([((5 + options.len() / 4) << 4) as u8, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                b.extend(options);
                Some(16)
            }
            Transport::Udp { ports } => {
                b.extend(ports.0.to_be_bytes());
                b.extend(ports.1.to_be_bytes());
                b.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                b.extend([0, 0]);
                Some(6)
            }
            Transport::Sctp { ports } => {
                b.extend(ports.0.to_be_bytes());
                b.extend(ports.1.to_be_bytes());
                b.extend([0, 0, 0, 1, 0, 0, 0, 0]);
                None
            }
            Transport::Icmp { kind, code, rest } => {
                b.extend([*kind, *code, 0, 0]);
                b.extend(rest);
                Some(2)
            }
            Transport::Raw { .. } => None,
        };
        b.extend(&self.payload);
        if let Some(at) = sum_at {
            let mut pseudo = Vec::new();
            if self.transport_proto() != proto::ICMP {
                pseudo.extend(source);
                pseudo.extend(destination);
                pseudo.extend((b.len() as u32).to_be_bytes());
                pseudo.extend(u32::from(self.transport_proto()).to_be_bytes());
            }
            let sum = match checksum(&[&pseudo, &b]) {
                // 0 means none in UDP (RFC 768); the other zero of one's complement is sent instead.
                0 if matches!(self.transport, Transport::Udp { .. }) => 0xffff,
                sum => sum,
            };
            b[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        if matches!(self.transport, Transport::Sctp { .. }) {
            let sum = crc32c(&b);
            b[8..12].copy_from_slice(&sum.to_le_bytes());
        }
        b
    }
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    }
}

fn fill4(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4).min(40), 0);
    bytes
}

/// The Internet checksum (RFC 1071) over the parts as one. All but the last must have even lengths.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// CRC32c (RFC 9260 appendix A), which SCTP uses.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Repeatable random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Always gives the same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`, 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// One of the values.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.bits() as u8).collect()
    }
}

/// An endless supply of frames: each a valid one of random structure, most of them then broken in up to three places.
#[derive(Clone, Debug)]
pub struct Mutator {
    random: Random,
}

impl Mutator {
    /// Always gives the same frames for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    /// A valid frame of random structure.
    pub fn valid(&mut self) -> Frame {
        let r = &mut self.random;
        if r.once_in(16) {
            let kind = r.pick(&[ethertype::ARP, 0x88cc, 0x8847, 0x8863, 0x0026, 0x9100]);
            let length = r.below(60);
            let payload = r.bytes(length);
            return self.tagged(Frame::not_ip(kind)).payload(&payload);
        }
        let v6 = r.once_in(2);
        // Few addresses and ports, so that frames of one run share flows.
        let mut address = || -> IpAddr {
            let host = r.below(4) as u8 + 1;
            if v6 {
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into()
            } else {
                Ipv4Addr::new(172, 17, 0, host).into()
            }
        };
        let mut frame = Frame::between(address(), address());
        if r.once_in(4) {
            let length = r.below(41);
            frame = frame.ip_options(&r.bytes(length));
        }
        frame = frame.ip_id(r.bits() as u16);
        let extensions = if v6 && r.once_in(2) { r.below(10) } else { 0 };
        for _ in 0..extensions {
            let kind = r.pick(&[
                proto::HOP_BY_HOP,
                proto::ROUTING,
                proto::DESTINATION,
                proto::AH,
                proto::MOBILITY,
                proto::HIP,
                proto::SHIM6,
            ]);
            let length = if r.once_in(8) { r.bits() as u8 } else { r.below(4) as u8 };
            frame = frame.extension(Extension::new(kind, length));
        }
        if r.once_in(8) {
            let offset = if r.once_in(2) { 0 } else { r.below(0x2000) as u16 };
            frame = frame.fragment(offset, r.once_in(2));
        }
        let ports = (r.pick(&[53, 80, 40_000, 65_535]), r.pick(&[53, 443, 40_001, 0]));
        frame = match r.below(8) {
            0..3 => {
                let flags = r.pick(&[
                    tcp_flag::SYN,
                    tcp_flag::SYN | tcp_flag::ACK,
                    tcp_flag::ACK,
                    tcp_flag::ACK | tcp_flag::PSH,
                    tcp_flag::FIN | tcp_flag::ACK,
                    tcp_flag::RST,
                ]);
                let tcp = frame.tcp(ports, r.bits() as u32, r.bits() as u32, flags);
                match r.below(4) {
                    0 => tcp,
                    1 => {
                        let length = r.below(41);
                        tcp.tcp_options(&r.bytes(length))
                    }
                    // As Linux sends it with SYN: maximum segment size, SACK permitted, time stamps, window scale.
                    2 => tcp.tcp_options(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 1, 3, 3, 7]),
                    _ => tcp.tcp_timestamps(r.bits() as u32, r.bits() as u32),
                }
            }
            3 => frame.udp(ports),
            4 => frame.sctp(ports),
            5 => frame.echo(r.once_in(2), r.bits() as u16, 1),
            6 => {
                let kind = if r.once_in(4) { r.pick(&[130, 133, 135, 136, 143]) } else { r.bits() as u8 };
                let code = r.below(4) as u8;
                frame.icmp(kind, code, [0; 4])
            }
            _ => {
                frame.protocol(r.pick(&[proto::ESP, proto::AH, proto::GRE, proto::IGMP, proto::NO_NEXT, 255]))
            }
        };
        let length = if r.once_in(8) { r.below(1400) } else { r.below(64) };
        let payload = r.bytes(length);
        let padded = if r.once_in(2) { 60 } else { 0 };
        self.tagged(frame).payload(&payload).padded(padded)
    }

    fn tagged(&mut self, mut frame: Frame) -> Frame {
        if self.random.once_in(4) {
            for _ in 0..=self.random.below(3) {
                let kind = self.random.pick(&[ethertype::VLAN, ethertype::QINQ]);
                let id = self.random.pick(&[0, 1, 5, 0xfff]);
                let priority = self.random.below(16) as u16;
                frame = frame.vlan(kind, id | priority << 12);
            }
        }
        frame
    }

    /// A frame, valid one time in four.
    pub fn frame(&mut self) -> Vec<u8> {
        let mut bytes = self.valid().build();
        if !self.random.once_in(4) {
            for _ in 0..=self.random.below(3) {
                self.break_once(&mut bytes);
            }
        }
        bytes
    }

    fn break_once(&mut self, bytes: &mut Vec<u8>) {
        let r = &mut self.random;
        if bytes.is_empty() {
            return;
        }
        // Nearly all decisions are made on the octets of the headers.
        let front = bytes.len().min(100);
        match r.below(9) {
            0 => {
                let at = r.below(front);
                bytes[at] ^= 1 << r.below(8);
            }
            1 => {
                let at = r.below(front);
                bytes[at] = r.pick(&[0, 1, 4, 5, 6, 0x0f, 0x40, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xff]);
            }
            2 => {
                let at = r.below(bytes.len());
                bytes[at] = r.bits() as u8;
            }
            3 => {
                let length = r.below(bytes.len() + 1);
                bytes.truncate(length);
            }
            4 => {
                let length = r.below(front + 1);
                bytes.truncate(length);
            }
            5 => {
                let length = r.below(64);
                let more = r.bytes(length);
                bytes.extend(more);
            }
            6 => {
                // A length or offset field at an edge: what there is, one less, one more, or an extreme.
                let at = r.below(front.saturating_sub(1));
                let there = bytes.len().saturating_sub(r.pick(&[0, 14, 18, 22, 34, 54])) as u16;
                let value =
                    r.pick(&[0, 1, 19, 20, 21, there, there.wrapping_sub(1), there.wrapping_add(1), 0xffff]);
                if let Some(field) = bytes.get_mut(at..at + 2) {
                    field.copy_from_slice(&value.to_be_bytes());
                }
            }
            7 => {
                let value = r.pick(&[
                    ethertype::IPV4,
                    ethertype::IPV6,
                    ethertype::ARP,
                    ethertype::VLAN,
                    ethertype::QINQ,
                    0,
                ]);
                let at = r.pick(&[12, 16, 20]);
                if let Some(field) = bytes.get_mut(at..at + 2) {
                    field.copy_from_slice(&value.to_be_bytes());
                }
            }
            _ => {
                // Another header where there was this one.
                let at = r.pick(&[20, 23, 24, 27, 28, 54, 58, 62]);
                if let Some(field) = bytes.get_mut(at) {
                    *field = r.pick(&[0, 1, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 135, 139, 140]);
                }
            }
        }
    }
}

impl Iterator for Mutator {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        Some(self.frame())
    }
}
