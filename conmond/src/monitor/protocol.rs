//! What the Monitoring Controller (MC) and a passive monitoring (PM) container say to each other, and how it lies on
//! their Unix stream.
//!
//! A message is a length (u32, little-endian) and that many octets of postcard. Each side begins with its `Hello`,
//! whose first field is the version; the MC goes on with `Set`, which descriptors accompany by `SCM_RIGHTS`: six in the
//! order of [`tap::Descriptors::NAMES`], and the set's extents. Everything from the container is bounded before it is read, while it is
//! decoded and after: the container is not trusted.

use std::marker::PhantomData;
use std::time::Duration;

use ippm::measurement::{
    Batch, Expiry, ExpiryOf, FlowEvent, FlowMeasurement, PairMeasurement, PortMeasurement, RttMeasurement,
    RttSingleton, SetCounters,
};
use ippm::time::Timestamp;
use serde::de::{self, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use tap::SetSpec;

use crate::mf::Kind;
/// Besides root, the only user that may connect.
pub use crate::runtime::MONITOR_UID;

/// Version of messages and records in one number: changes with either. Sides of different versions part at once.
pub const VERSION: u32 = (1 << 16) | (tap::ABI as u32 & 0xffff);
/// Name of the MC's socket in the directory that a PM container sees.
pub const SOCKET: &str = "mc.sock";
/// The longest message to a monitor, in octets.
pub const MAX_TO_MONITOR: usize = 64 << 10;
/// The longest message from a monitor, in octets: a batch and what is around it.
pub const MAX_FROM_MONITOR: usize = Batch::MAX_ENCODED_BYTES;

const LENGTH: usize = 4;

/// How monitoring functions are to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MfSettings {
    /// Time from one reading of the tables to the next, in milliseconds.
    pub scan_interval_ms: u32,
    /// A flow without a packet for so long is over (RFC 5102 flowEndReason 1), in seconds.
    pub idle_timeout_s: u32,
    /// A TCP flow is over when it was closed (FIN both ways, or RST) and silent for so long, in milliseconds.
    pub end_linger_ms: u32,
    /// A flow that goes on is reported as ended for this reason and goes on (RFC 5102 flowEndReason 2), in seconds.
    pub active_timeout_s: u32,
    /// A pair without a flow and without a packet for so long gives up its record when records are short, in seconds.
    pub pair_idle_s: u32,
    /// Which functions run.
    pub functions: Vec<Kind>,
}

impl Default for MfSettings {
    fn default() -> Self {
        Self {
            scan_interval_ms: 1000,
            idle_timeout_s: 30,
            end_linger_ms: 2000,
            active_timeout_s: 60,
            pair_idle_s: 600,
            functions: Kind::ALL.to_vec(),
        }
    }
}

impl MfSettings {
    /// From one reading of the tables to the next, at least 10 ms.
    pub fn scan_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.scan_interval_ms.max(10)))
    }

    /// A monitor says something at every scan; one that says nothing for so long hangs.
    pub fn silence(&self) -> Duration {
        (self.scan_interval() * 5).max(Duration::from_secs(5))
    }
}

/// [`SetSpec`] as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of SetSpec")]
pub struct SpecOnWire {
    pub flows: u32,
    pub pairs: u32,
    pub ports: u32,
    pub hists: u32,
    pub pair_extents: u32,
    pub hist_extents: u32,
    pub ring_bytes: u32,
    pub rtt: bool,
    pub paced: bool,
    pub samples: bool,
}

impl From<SetSpec> for SpecOnWire {
    fn from(s: SetSpec) -> Self {
        let SetSpec {
            flows,
            pairs,
            ports,
            hists,
            pair_extents,
            hist_extents,
            ring_bytes,
            rtt,
            paced,
            samples,
        } = s;
        Self { flows, pairs, ports, hists, pair_extents, hist_extents, ring_bytes, rtt, paced, samples }
    }
}

impl From<SpecOnWire> for SetSpec {
    fn from(s: SpecOnWire) -> Self {
        let SpecOnWire {
            flows,
            pairs,
            ports,
            hists,
            pair_extents,
            hist_extents,
            ring_bytes,
            rtt,
            paced,
            samples,
        } = s;
        Self { flows, pairs, ports, hists, pair_extents, hist_extents, ring_bytes, rtt, paced, samples }
    }
}

/// From the MC to a monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMonitor {
    /// First of all. `version` stays the first field in every version.
    Hello {
        /// [`VERSION`] of the MC.
        version: u32,
        /// How to work.
        settings: MfSettings,
    },
    /// What to read; [descriptors](tap::Descriptors) come with it. A further one replaces the one before.
    Set {
        /// Sizes of what the descriptors are.
        spec: SpecOnWire,
        /// Returned with every batch read from this set.
        generation: u64,
    },
    /// Nothing more to do: exit.
    Bye,
}

/// From a monitor to the MC.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "one lives at a time, between the socket and who takes it apart"
)]
pub enum FromMonitor {
    /// First of all. `version` stays the first field in every version.
    Hello {
        /// [`VERSION`] of the monitor.
        version: u32,
        /// Its process id as it sees it.
        pid: u32,
    },
    /// What changed.
    Batch {
        /// Of the set it was read from.
        generation: u64,
        /// The measurements.
        #[serde(with = "BoundedBatch")]
        batch: Batch,
    },
    /// At every scan, whether anything changed or not.
    Alive(Alive),
}

/// How a monitor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// When it said so.
    pub at: Timestamp,
    /// Resident memory of the process in bytes; `None` when it cannot tell.
    pub memory_bytes: Option<u64>,
    /// CPU time of the process since it started, user and system, in nanoseconds.
    pub cpu_ns: u64,
    /// Scans done since the set was mapped.
    pub scans: u64,
    /// Scans given up because the janitor was at work all the while; the next one reported what they would have.
    pub scans_missed: u64,
    /// How long the last scan took, in nanoseconds.
    pub scan_ns: u64,
    /// Flow slots in use at the last scan.
    pub flows: u32,
    /// Pair slots in use at the last scan.
    pub pairs: u32,
    /// Records in the ring that made no sense.
    pub unreadable: u64,
}

/// [`Batch`] with its lists bounded while they are decoded: what a list may hold at most is known before room is made
/// for more.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Batch")]
struct BoundedBatch {
    sequence: u64,
    taken_at: Timestamp,
    more: bool,
    set: SetCounters,
    #[serde(deserialize_with = "at_most::<_, _, { Batch::MAX_PORTS }>")]
    ports: Vec<PortMeasurement>,
    #[serde(deserialize_with = "at_most::<_, _, { Batch::MAX_PAIRS }>")]
    pairs: Vec<PairMeasurement>,
    #[serde(deserialize_with = "at_most::<_, _, { Batch::MAX_FLOWS }>")]
    flows: Vec<FlowMeasurement>,
    #[serde(deserialize_with = "at_most::<_, _, { Batch::MAX_RTTS }>")]
    rtts: Vec<RttMeasurement>,
    #[serde(deserialize_with = "at_most::<_, _, { Batch::MAX_EVENTS }>")]
    events: Vec<FlowEvent>,
    #[serde(deserialize_with = "at_most::<_, _, { Batch::MAX_SINGLETONS }>")]
    singletons: Vec<RttSingleton>,
    #[serde(deserialize_with = "at_most::<_, _, { Batch::MAX_EXPIRIES }>")]
    expiries: Vec<Expiry>,
}

fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = seq.next_element()? {
                if all.len() == MAX {
                    return Err(de::Error::invalid_length(MAX + 1, &self));
                }
                all.push(one);
            }
            Ok(all)
        }
    }

    from.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// Why what came is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than the receiver accepts.
    #[error("a message of {found} octets, more than {limit}: split it")]
    TooLong {
        /// What the sender announced, in octets.
        found: usize,
        /// What is accepted, in octets.
        limit: usize,
    },
    /// Not what the version says.
    #[error("a message of {len} octets cannot be decoded: {source}")]
    Decode {
        /// The message's length in octets.
        len: usize,
        /// What is wrong with it.
        source: postcard::Error,
    },
    /// There is more than the message.
    #[error("{extra} octets behind the end of a message")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A batch breaks a limit.
    #[error(transparent)]
    Batch(#[from] ippm::measurement::BatchError),
    /// Too long to send.
    #[error("a message cannot be encoded: {0}")]
    Encode(postcard::Error),
}

/// A message with its length before it, ready to send.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(message, vec![0; LENGTH]).map_err(FrameError::Encode)?;
    let len = bytes.len() - LENGTH;
    match u32::try_from(len) {
        Ok(n) if len <= limit => bytes[..LENGTH].copy_from_slice(&n.to_le_bytes()),
        _ => return Err(FrameError::TooLong { found: len, limit }),
    }
    Ok(bytes)
}

/// One message out of its octets, all of them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let (message, rest) =
        postcard::take_from_bytes(bytes).map_err(|source| FrameError::Decode { len: bytes.len(), source })?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing { extra: rest.len() });
    }
    Ok(message)
}

/// Cuts a stream into messages. Takes no more room than what has arrived of the message under way, whatever length
/// it announces.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    limit: usize,
}

impl Frames {
    /// Accepts messages of up to `limit` octets.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), limit }
    }

    /// Takes over what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message and its length in octets; `None` until more arrives. After an error the stream has lost
    /// its place and must be closed.
    pub fn pop<T: DeserializeOwned>(&mut self) -> Result<Option<(T, usize)>, FrameError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let len = u32::from_le_bytes(*length) as usize;
        if len > self.limit {
            return Err(FrameError::TooLong { found: len, limit: self.limit });
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let message = decode(body)?;
        self.buffer.drain(..LENGTH + len);
        if self.buffer.capacity() > (1 << 20) && self.buffer.len() < (1 << 16) {
            // one long message must not hold its room for ever
            self.buffer.shrink_to(1 << 16);
        }
        Ok(Some((message, len)))
    }
}

/// Whether a batch names only slots that its set has: what a sound monitoring function never breaks, and what tables
/// in the MC rely on.
pub fn fits(batch: &Batch, spec: &SetSpec) -> bool {
    batch.flows.iter().all(|f| f.id.slot < spec.flows && f.pair.is_none_or(|p| p < spec.pair_slots()))
        && batch.pairs.iter().all(|p| p.id.slot < spec.pair_slots())
        && batch.rtts.iter().all(|r| r.pair.slot < spec.pair_slots())
        && batch.expiries.iter().all(|e| match e.of {
            ExpiryOf::Flow(_) => e.id.slot < spec.flows,
            ExpiryOf::Pair => e.id.slot < spec.pair_slots(),
        })
}

#[cfg(test)]
mod tests;
