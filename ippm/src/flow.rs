//! What identifies a conversation and how its packets are counted: flow keys, directions, roles, legs, reasons for
//! a flow's end.
//!
//! A flow is a biflow (RFC 5103): one record with counters for both directions. Its key is written from the
//! observed port's side: *local* is the container behind the port, *remote* whoever it talks to. Numbers of the
//! enums are those of `tap/bpf/conmon.h`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::{Add, AddAssign, Index, IndexMut};

use serde::{Deserialize, Serialize};

/// A flow at one port. IPv6 link-local addresses are told apart by the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// The address on the container's side of the port.
    pub local: IpAddr,
    /// The address of the other end, as seen at the port.
    pub remote: IpAddr,
    /// Transport port of the local side. ICMP echo: the identifier, in both ports. Other ICMP: `type << 8 | code`, in
    /// both. 0 for a later fragment, for protocols without ports, and where the header was cut off.
    pub local_port: u16,
    /// Transport port of the remote side, see `local_port`.
    pub remote_port: u16,
    /// IP protocol number of the last header understood.
    pub proto: u8,
    /// VLAN id on the frame (the outermost that is not 0), 0 for none.
    pub vlan: u16,
    /// Index of the host-side port where the flow is observed.
    pub ifindex: u32,
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", proto_name(self.proto))?;
        write_endpoint(f, self.local, self.local_port)?;
        f.write_str(" - ")?;
        write_endpoint(f, self.remote, self.remote_port)?;
        if self.vlan != 0 {
            write!(f, " vlan {}", self.vlan)?;
        }
        write!(f, " at port {}", self.ifindex)
    }
}

fn write_endpoint(f: &mut fmt::Formatter<'_>, address: IpAddr, port: u16) -> fmt::Result {
    match address {
        IpAddr::V4(a) => write!(f, "{a}:{port}"),
        IpAddr::V6(a) => write!(f, "[{a}]:{port}"),
    }
}

/// The usual short name of an IP protocol number, as labels and tables show it; numbers without one as `ip-N`.
pub fn proto_name(proto: u8) -> std::borrow::Cow<'static, str> {
    use crate::packet::proto::*;
    std::borrow::Cow::Borrowed(match proto {
        ICMP => "icmp",
        TCP => "tcp",
        UDP => "udp",
        ICMPV6 => "icmpv6",
        SCTP => "sctp",
        GRE => "gre",
        ESP => "esp",
        AH => "ah",
        IGMP => "igmp",
        other => return std::borrow::Cow::Owned(format!("ip-{other}")),
    })
}

/// The 16 bytes under which the tap keeps an address: network order, IPv4 as `::ffff:a.b.c.d`.
pub fn address_to_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// The address that the tap keeps as these 16 bytes; inverse of [`address_to_bytes`].
pub fn address_from_bytes(bytes: [u8; 16]) -> IpAddr {
    let address = Ipv6Addr::from(bytes);
    match address.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(v4),
        None => IpAddr::V6(address),
    }
}

/// Makes an enum whose numbers are the tap's, with conversions both ways.
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident : $int:ty { $($(#[$vmeta:meta])* $variant:ident = $number:literal $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr($int)]
        pub enum $name { $($(#[$vmeta])* $variant = $number),+ }

        impl $name {
            /// All values, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The value with this number, `None` for a number that has none.
            pub const fn from_number(number: $int) -> Option<$name> {
                match number { $($number => Some($name::$variant),)+ _ => None }
            }

            /// The number that the tap uses.
            pub const fn number(self) -> $int {
                self as $int
            }

            /// The name in labels and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

numbered! {
    /// Direction of a packet as the container sees it.
    Direction: u8 {
        /// From the container: the host-side port's ingress.
        Tx = 0 "tx",
        /// To the container: the host-side port's egress.
        Rx = 1 "rx",
    }
}

numbered! {
    /// Who opened the conversation, seen from the port.
    Role: u8 {
        /// The port's container.
        LocalOpened = 1 "local_opened",
        /// The other end.
        RemoteOpened = 2 "remote_opened",
    }
}

numbered! {
    /// What a conversation is for, where a pair must tell it after its flows have gone.
    Service: u8 {
        /// Anything.
        None = 0 "none",
        /// The opened side's port is 53.
        Dns = 1 "dns",
    }
}

numbered! {
    /// Why a flow record ended: IPFIX flowEndReason, IE 136 (RFC 5102 section 5.11.3).
    EndReason: u8 {
        /// No packet for the idle timeout.
        IdleTimeout = 1 "idle_timeout",
        /// The flow goes on but was reported.
        ActiveTimeout = 2 "active_timeout",
        /// The protocol said so: FIN both ways, or RST.
        EndOfFlowDetected = 3 "end_of_flow_detected",
        /// Metering stopped: the container went, or the tap was removed.
        ForcedEnd = 4 "forced_end",
        /// Room was needed.
        LackOfResources = 5 "lack_of_resources",
    }
}

numbered! {
    /// Which part of a path a round-trip delay covers, seen from the observed port.
    Leg: u8 {
        /// Network and remote end: data from the container, acknowledged by the remote end.
        Away = 0 "away",
        /// The port's own container: data to it, acknowledged by it.
        Near = 1 "near",
        /// Like `Away`, but from SYN or SYN/ACK to its acknowledgement.
        AwayHandshake = 2 "away_handshake",
        /// Like `Near`, but from SYN or SYN/ACK to its acknowledgement.
        NearHandshake = 3 "near_handshake",
    }
}

numbered! {
    /// What a packet that belongs to no flow is counted as, per port.
    PortClass: u8 {
        /// A good IP packet that found no room in the tables for flows and pairs.
        Overflow = 0 "overflow",
        /// ARP.
        Arp = 1 "arp",
        /// Neither IP nor ARP.
        Other = 2 "other",
        /// Claims to be IP and is not.
        Malformed = 3 "malformed",
        /// Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 3810): what ARP and IGMP are for IPv4.
        Nd = 4 "nd",
    }
}

impl Direction {
    /// The other direction.
    #[must_use]
    pub const fn reverse(self) -> Direction {
        match self {
            Direction::Tx => Direction::Rx,
            Direction::Rx => Direction::Tx,
        }
    }
}

/// One value for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Both<T> {
    /// From the container.
    pub tx: T,
    /// To the container.
    pub rx: T,
}

impl<T> Both<T> {
    /// One value for each direction.
    pub const fn new(tx: T, rx: T) -> Self {
        Self { tx, rx }
    }

    /// The same with the directions exchanged: how the other end sees it.
    #[must_use]
    pub fn reverse(self) -> Self {
        Self { tx: self.rx, rx: self.tx }
    }

    /// Applies `f` to both values.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Both<U> {
        Both { tx: f(self.tx), rx: f(self.rx) }
    }
}

impl<T> From<[T; 2]> for Both<T> {
    /// From an array indexed by the number of the direction.
    fn from([tx, rx]: [T; 2]) -> Self {
        Self { tx, rx }
    }
}

impl<T> Index<Direction> for Both<T> {
    type Output = T;

    fn index(&self, direction: Direction) -> &T {
        match direction {
            Direction::Tx => &self.tx,
            Direction::Rx => &self.rx,
        }
    }
}

impl<T> IndexMut<Direction> for Both<T> {
    fn index_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::Tx => &mut self.tx,
            Direction::Rx => &mut self.rx,
        }
    }
}

impl<T: Add<Output = T>> Add for Both<T> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { tx: self.tx + other.tx, rx: self.rx + other.rx }
    }
}

impl<T: AddAssign> AddAssign for Both<T> {
    fn add_assign(&mut self, other: Self) {
        self.tx += other.tx;
        self.rx += other.rx;
    }
}

/// Totals of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counters {
    /// Octets of the frames, from the link header on, as the port's interface counters count.
    pub bytes: u64,
    /// Packets as the host's stack handles them: a segmentation-offload packet is one.
    pub packets: u64,
    /// Packets as a wire would carry them: an offload packet counts each of its segments.
    pub segments: u64,
}

impl Counters {
    /// From the tap's counters; `extra` is the sum of segments less one over the packets.
    pub const fn new(bytes: u64, packets: u64, extra: u64) -> Self {
        Self { bytes, packets, segments: packets.saturating_add(extra) }
    }

    /// What was counted since `earlier`; stops at zero when a counter began anew.
    #[must_use]
    pub const fn since(self, earlier: Counters) -> Counters {
        Counters {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            packets: self.packets.saturating_sub(earlier.packets),
            segments: self.segments.saturating_sub(earlier.segments),
        }
    }

    /// Whether nothing was counted.
    pub const fn is_zero(self) -> bool {
        self.bytes == 0 && self.packets == 0 && self.segments == 0
    }
}

impl Add for Counters {
    type Output = Counters;

    fn add(self, other: Counters) -> Counters {
        Counters {
            bytes: self.bytes.saturating_add(other.bytes),
            packets: self.packets.saturating_add(other.packets),
            segments: self.segments.saturating_add(other.segments),
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Counters>>(iter: I) -> Counters {
        iter.fold(Counters::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel_header() {
        assert_eq!(Direction::ALL.iter().map(|d| d.number()).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(Role::ALL.iter().map(|r| r.number()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(Service::ALL.iter().map(|s| s.number()).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(EndReason::ALL.iter().map(|r| r.number()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(Leg::ALL.iter().map(|l| l.number()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(PortClass::ALL.iter().map(|c| c.number()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        for n in 0..=u8::MAX {
            assert_eq!(EndReason::from_number(n).map(EndReason::number), (1..=5).contains(&n).then_some(n));
            assert_eq!(Leg::from_number(n).map(Leg::number), (n < 4).then_some(n));
        }
    }

    #[test]
    fn names_in_json_are_those_in_labels() {
        for reason in EndReason::ALL {
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{reason}\""));
        }
        for leg in Leg::ALL {
            assert_eq!(serde_json::to_string(leg).unwrap(), format!("\"{leg}\""));
        }
        for class in PortClass::ALL {
            assert_eq!(serde_json::to_string(class).unwrap(), format!("\"{class}\""));
        }
        for role in Role::ALL {
            assert_eq!(serde_json::to_string(role).unwrap(), format!("\"{role}\""));
        }
    }

    #[test]
    fn a_key_reads_well() {
        let mut key = FlowKey {
            local: IpAddr::from([172, 17, 0, 2]),
            remote: IpAddr::from([10, 0, 0, 1]),
            local_port: 40_000,
            remote_port: 53,
            proto: 17,
            vlan: 0,
            ifindex: 7,
        };
        assert_eq!(key.to_string(), "udp 172.17.0.2:40000 - 10.0.0.1:53 at port 7");
        (key.remote, key.vlan, key.proto) = (Ipv6Addr::LOCALHOST.into(), 5, 200);
        assert_eq!(key.to_string(), "ip-200 172.17.0.2:40000 - [::1]:53 vlan 5 at port 7");
    }

    #[test]
    fn counters_add_and_subtract_without_wrapping() {
        let a = Counters::new(100, 2, 3);
        assert_eq!(a.segments, 5);
        assert_eq!((a + a).since(a), a);
        assert_eq!(a.since(a + a), Counters::default());
        assert_eq!(Counters::new(u64::MAX, u64::MAX, u64::MAX) + a, Counters::new(u64::MAX, u64::MAX, 0));
        assert_eq!([a, a, a].into_iter().sum::<Counters>(), a + a + a);
        let both = Both::new(a, Counters::default());
        assert_eq!(both.reverse()[Direction::Rx], both[Direction::Tx]);
        assert_eq!(both.map(|c| c.packets), Both::from([2, 0]));
        assert_eq!(Direction::Tx.reverse(), Direction::Rx);
    }

    proptest! {
        #[test]
        fn addresses_survive_the_tap(v4: [u8; 4], v6: [u8; 16]) {
            let v4 = IpAddr::from(v4);
            prop_assert_eq!(address_from_bytes(address_to_bytes(v4)), v4);
            prop_assert_eq!(&address_to_bytes(v4)[..12], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            prop_assert_eq!(address_to_bytes(address_from_bytes(v6)), v6);
        }
    }
}
