//! What the traffic generator reports: one JSON object per run, on the last line of its stdout. The same types write
//! it (in `labgen`) and read it (in tests).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `udp-send` did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UdpSent {
    /// The sender's identity, the first eight bytes of each datagram.
    pub id: u64,
    /// Datagrams the kernel took; their serial numbers are 0 to `sent - 1`.
    pub sent: u64,
    /// Payload bytes of each datagram.
    pub size_bytes: usize,
    /// Attempts the kernel refused (an address not yet usable, a port unreachable); each was made again.
    pub refused: u64,
    /// Nanoseconds since 1970 UTC at the first datagram taken.
    pub first_ns: u64,
    /// Nanoseconds since 1970 UTC at the last datagram taken.
    pub last_ns: u64,
    /// Processor time of the process, its system calls included, in nanoseconds.
    pub cpu_ns: u64,
    /// The connection that was opened at once, where one was asked for.
    pub tcp: Option<TcpOpened>,
}

/// The connection `udp-send --tcp` opens at its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TcpOpened {
    /// Whether the connection came about; `error` tells why not.
    pub connected: bool,
    /// Nanoseconds since 1970 UTC at the call of `connect`.
    pub start_ns: u64,
    /// Nanoseconds `connect` took.
    pub connect_ns: u64,
    /// What the system said.
    pub error: Option<String>,
}

/// What `udp-flows` or `tcp-scan` did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowsSent {
    /// Different flows.
    pub flows: u64,
    /// Packets the kernel took: datagrams, or SYNs.
    pub packets: u64,
    /// Payload bytes of each datagram.
    pub size_bytes: usize,
    /// Attempts the kernel refused; those of datagrams were made again.
    pub refused: u64,
}

/// What `udp-sink` received, by sender.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UdpReceived {
    /// Datagrams received.
    pub datagrams: u64,
    /// Payload bytes received.
    pub bytes: u64,
    /// Datagrams too short to carry an identity and a serial number.
    pub foreign: u64,
    /// Datagrams that reached the socket and were dropped because its buffer was full.
    pub dropped_at_socket: u64,
    /// Processor time of the process, its system calls included, in nanoseconds.
    pub cpu_ns: u64,
    /// Received by each sender, by the sender's identity.
    pub senders: BTreeMap<u64, FromSender>,
}

/// What `udp-sink` received from one sender.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FromSender {
    /// Datagrams received, repetitions included.
    pub datagrams: u64,
    /// Datagrams whose serial number had been received before.
    pub repeated: u64,
    /// Datagrams whose serial number was below one received before.
    pub late: u64,
    /// Serial numbers received.
    pub serials: Ranges,
    /// Source address of the last datagram.
    pub address: String,
    /// Nanoseconds since 1970 UTC at the first datagram.
    pub first_ns: u64,
    /// Nanoseconds since 1970 UTC at the last datagram.
    pub last_ns: u64,
}

/// What a TCP sink received.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TcpReceived {
    /// Each connection that has ended, and those still open when the sink was stopped.
    pub connections: Vec<TcpConnection>,
}

/// One connection at a TCP sink.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TcpConnection {
    /// The sender's identity, the first eight bytes of the stream; absent when fewer came.
    pub id: Option<u64>,
    /// The peer's address.
    pub address: String,
    /// Bytes received, the identity included.
    pub bytes: u64,
    /// Numbers received in unbroken order after the identity: 0 to `serials - 1`.
    pub serials: u64,
    /// Whether every byte was the one expected.
    pub intact: bool,
    /// Whether the peer closed its side.
    pub closed: bool,
}

/// What `tcp-stream` sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TcpSent {
    /// The sender's identity.
    pub id: u64,
    /// Bytes written, the identity included.
    pub bytes: u64,
    /// From the connection to the peer's close, in seconds.
    pub seconds: f64,
    /// Bits per second over that time.
    pub bits_per_second: f64,
    /// Whether the peer closed after it had read everything.
    pub delivered: bool,
}

/// What a request/response client measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Requests sent.
    pub requests: u64,
    /// Requests without an answer within a second.
    pub lost: u64,
    /// Round-trip times in nanoseconds, from the request's send call to the return of the receive call.
    pub round_trip_ns: Summary,
}

/// Statistics of many values, and their histogram.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many values.
    pub count: u64,
    /// Smallest value, exact.
    pub min: u64,
    /// Greatest value, exact.
    pub max: u64,
    /// Mean, exact.
    pub mean: f64,
    /// Half of the values are at most this; at most 0.2 % above the true value, as the other percentiles.
    pub p50: u64,
    /// 90 of 100 values are at most this.
    pub p90: u64,
    /// 99 of 100 values are at most this.
    pub p99: u64,
    /// 999 of 1,000 values are at most this.
    pub p999: u64,
    /// Buckets that are not empty: greatest value of the bucket, and how many values fell into it.
    pub histogram: Vec<(u64, u64)>,
}

/// A set of serial numbers as ranges, first and last included, in order and never touching.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds a number; false when it was there already.
    pub fn insert(&mut self, n: u64) -> bool {
        // Almost always the next number.
        if let Some(last) = self.0.last_mut()
            && last.1.checked_add(1) == Some(n)
        {
            last.1 = n;
            return true;
        }
        let at = self.0.partition_point(|&(first, _)| first <= n);
        if at > 0 && self.0[at - 1].1 >= n {
            return false;
        }
        let joins_left = at > 0 && self.0[at - 1].1 + 1 == n;
        let joins_right = self.0.get(at).is_some_and(|&(first, _)| first - 1 == n);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = n,
            (false, true) => self.0[at].0 = n,
            (false, false) => self.0.insert(at, (n, n)),
        }
        true
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Greatest number of the set.
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|&(_, last)| last)
    }

    /// Whether the set is exactly 0 to `count - 1`.
    pub fn is_whole(&self, count: u64) -> bool {
        match self.0.as_slice() {
            [] => count == 0,
            [(0, last)] => last + 1 == count,
            _ => false,
        }
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }
}

/// Gathers values into a log-linear histogram: values below 1,024 are exact, above there are 512 buckets for each
/// doubling, so a bucket is at most 0.2 % wide: what programs in the path cost is a few of these.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    buckets: BTreeMap<u32, u64>,
    count: u64,
    sum: u128,
    min: Option<u64>,
    max: u64,
}

/// Buckets for each doubling, as a power of two.
const LINEAR_BITS: u32 = 9;

impl Recorder {
    /// Adds a value.
    pub fn record(&mut self, value: u64) {
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = self.max.max(value);
    }

    /// The statistics of what was gathered.
    pub fn summary(&self) -> Summary {
        let histogram: Vec<(u64, u64)> =
            self.buckets.iter().map(|(&b, &n)| (greatest(b).min(self.max), n)).collect();
        // The value of rank ceil(n * count / 1000), counted from 1.
        let per_mille = |n: u64| {
            let rank = (u128::from(self.count) * u128::from(n)).div_ceil(1000).max(1);
            let mut seen = 0u128;
            let found = histogram.iter().find(|(_, count)| {
                seen += u128::from(*count);
                seen >= rank
            });
            found.map_or(0, |&(value, _)| value)
        };
        Summary {
            count: self.count,
            min: self.min.unwrap_or(0),
            max: self.max,
            mean: if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 },
            p50: per_mille(500),
            p90: per_mille(900),
            p99: per_mille(990),
            p999: per_mille(999),
            histogram,
        }
    }
}

fn bucket(value: u64) -> u32 {
    let doublings = (u64::BITS - value.leading_zeros()).saturating_sub(LINEAR_BITS + 1);
    (doublings << LINEAR_BITS) + (value >> doublings) as u32
}

fn greatest(bucket: u32) -> u64 {
    let doublings = (bucket >> LINEAR_BITS).saturating_sub(1);
    let mantissa = u64::from(bucket - (doublings << LINEAR_BITS));
    let above = (u128::from(mantissa) + 1) << doublings;
    u64::try_from(above - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_agree_with_a_plain_set() {
        // A small multiplicative generator: the order is scrambled, and the same in every run.
        let mut state = 12_345u64;
        let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
        for _ in 0..3000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let n = (state >> 33) % 1000;
            assert_eq!(ranges.insert(n), set.insert(n), "{n}");
        }
        assert_eq!(ranges.count(), set.len() as u64);
        assert_eq!(ranges.last(), set.last().copied());
        for pair in ranges.as_slice().windows(2) {
            assert!(pair[0].1 + 1 < pair[1].0, "{pair:?} touch");
        }
        let members: BTreeSet<u64> = ranges.as_slice().iter().flat_map(|&(a, b)| a..=b).collect();
        assert_eq!(members, set);
    }

    #[test]
    fn whole_means_from_zero_and_without_a_gap() {
        let mut ranges = Ranges::default();
        assert!(ranges.is_whole(0));
        for n in [1, 2, 0] {
            ranges.insert(n);
        }
        assert!(ranges.is_whole(3) && !ranges.is_whole(4));
        ranges.insert(u64::MAX);
        assert!(!ranges.insert(u64::MAX) && !ranges.is_whole(4));
    }

    #[test]
    fn buckets_hold_their_values_and_are_narrow() {
        for value in (0..2000).chain([1 << 20, (1 << 20) + 12_345, u64::MAX / 3, u64::MAX - 1, u64::MAX]) {
            let top = greatest(bucket(value));
            assert!(top >= value, "{value} in a bucket that ends at {top}");
            assert!(
                u128::from(top - value) * 1000 <= u128::from(value) * 2,
                "{value} in a bucket up to {top}"
            );
            if top < u64::MAX {
                assert!(bucket(top + 1) > bucket(value));
            }
        }
    }

    #[test]
    fn percentiles_are_ranks() {
        let mut recorder = Recorder::default();
        assert_eq!(recorder.summary(), Summary::default());
        (1..=100).for_each(|v| recorder.record(v));
        let summary = recorder.summary();
        assert_eq!((summary.p50, summary.p90, summary.p99, summary.p999), (50, 90, 99, 100));
        assert_eq!((summary.count, summary.min, summary.max), (100, 1, 100));
        assert!((summary.mean - 50.5).abs() < 1e-9);
        assert_eq!(summary.histogram.iter().map(|(_, n)| n).sum::<u64>(), 100);
    }
}
