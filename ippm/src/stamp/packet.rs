//! The packets of both ways, as octets.

/// Octets of a packet, both ways (RFC 8762 sections 4.2.2 and 4.3.2).
pub const LENGTH: usize = 112;
/// The octets that the message authentication code covers, from the first (RFC 8762 section 4.4).
pub const COVERED: usize = 96;

/// The first 16 octets of HMAC-SHA-256.
pub type Mac = [u8; 16];

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// S and Z bit of an error estimate.
const SYNCHRONIZED: u16 = 1 << 15;
const PTP: u16 = 1 << 14;
/// The largest scale: six bits.
const MAX_SCALE: u8 = 0x3f;

/// Where fields begin, octets from the packet's first. Those of `SENDER` are the reflector's copies from the probe.
mod at {
    pub const SEQ: usize = 0;
    pub const TIME: usize = 16;
    pub const ERROR: usize = 24;
    pub const SSID: usize = 26;
    pub const RECEIVED: usize = 32;
    pub const SENDER_SEQ: usize = 48;
    pub const SENDER_TIME: usize = 64;
    pub const SENDER_ERROR: usize = 72;
    pub const SENDER_TTL: usize = 80;
}

/// Why octets are no packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// Not [`LENGTH`]: not authenticated, with TLVs, or something else.
    #[error("a STAMP packet of {0} octets, not {LENGTH}")]
    Length(usize),
    /// Changed on the way, or made with another key.
    #[error("the authentication code of a STAMP packet is wrong")]
    Mac,
    /// A second has no more than 10^9 nanoseconds.
    #[error("a STAMP time stamp with more nanoseconds than a second has")]
    Time,
    /// NTP time stamps (Z = 0), or a multiplier of 0, which makes a packet corrupt (RFC 4656 section 4.1.2).
    #[error("a STAMP error estimate of other time stamps than PTP's, or with multiplier 0")]
    Error,
}

/// How good the sender of a time stamp thinks it is: `multiplier * 2^(scale - 32)` seconds (RFC 4656 section 4.1.2).
///
/// Its Z bit (RFC 8186 section 2.3) is always 1: time stamps are PTPv2 truncated ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorEstimate {
    /// The S bit: the clock follows an external source. A monotonic clock does not.
    pub synchronized: bool,
    /// Six bits; a larger one is written as 63.
    pub scale: u8,
    /// Not 0; a 0 is written as 1.
    pub multiplier: u8,
}

impl ErrorEstimate {
    /// Of a monotonic clock that counts nanoseconds: not synchronized, and 5/2^32 s, the least that is a nanosecond.
    pub const MONOTONIC: Self = Self { synchronized: false, scale: 0, multiplier: 5 };

    fn to_bits(self) -> u16 {
        let synchronized = if self.synchronized { SYNCHRONIZED } else { 0 };
        let scale = u16::from(self.scale.min(MAX_SCALE)) << 8;
        synchronized | PTP | scale | u16::from(self.multiplier.max(1))
    }

    const fn from_bits(bits: u16) -> Result<Self, StampError> {
        let [high, multiplier] = bits.to_be_bytes();
        if bits & PTP == 0 || multiplier == 0 {
            return Err(StampError::Error);
        }
        Ok(Self { synchronized: bits & SYNCHRONIZED != 0, scale: high & MAX_SCALE, multiplier })
    }
}

/// A probe, from Session-Sender to Session-Reflector.
///
/// ```text
///  0 sequence number   4 zero (12)   16 T1 (8)   24 error estimate (2)   26 SSID (2)   28 zero (68)   96 HMAC (16)
/// ```
///
/// RFC 8762 section 4.2.2, with the SSID of RFC 8972 section 3. Zeros are not looked at when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderPacket {
    /// Counts the session's probes from 0, modulo 2^32.
    pub seq: u32,
    /// T1, nanoseconds of the sender's clock; below 2^32 seconds, and cut to that when written.
    pub sent_ns: u64,
    /// How good T1 is.
    pub error: ErrorEstimate,
    /// The session.
    pub ssid: u16,
}

impl SenderPacket {
    /// As octets, with the code that `mac` gives for the first [`COVERED`].
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> Mac) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        put(&mut bytes, at::SEQ, self.seq.to_be_bytes());
        put(&mut bytes, at::TIME, time(self.sent_ns));
        put(&mut bytes, at::ERROR, self.error.to_bits().to_be_bytes());
        put(&mut bytes, at::SSID, self.ssid.to_be_bytes());
        sealed(bytes, mac)
    }

    /// From octets whose code is right; nothing but the code is looked at before that.
    ///
    /// # Errors
    ///
    /// See [`StampError`].
    pub fn decode(bytes: &[u8], mac: impl FnOnce(&[u8]) -> Mac) -> Result<Self, StampError> {
        let bytes = opened(bytes, mac)?;
        Ok(Self {
            seq: u32::from_be_bytes(get(bytes, at::SEQ)),
            error: ErrorEstimate::from_bits(u16::from_be_bytes(get(bytes, at::ERROR)))?,
            sent_ns: nanoseconds(get(bytes, at::TIME))?,
            ssid: u16::from_be_bytes(get(bytes, at::SSID)),
        })
    }

    /// The session that a packet not checked yet claims to be of, to find the key for [`SenderPacket::decode`]; `None` of
    /// another length.
    pub fn ssid_of(bytes: &[u8]) -> Option<u16> {
        let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
        Some(u16::from_be_bytes(get(bytes, at::SSID)))
    }
}

/// An answer, from Session-Reflector to Session-Sender.
///
/// ```text
///  0 sequence number          4 zero (12)   16 T3 (8)   24 error estimate (2)   26 SSID (2)   28 zero (4)
/// 32 T2 (8)                  40 zero (8)
/// 48 probe's number (4)      52 zero (12)
/// 64 T1 (8)                  72 probe's error estimate (2)   74 zero (6)
/// 80 probe's TTL (1)         81 zero (15)
/// 96 HMAC (16)
/// ```
///
/// RFC 8762 section 4.3.2, with the SSID of RFC 8972 section 3. Zeros are not looked at when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReflectorPacket {
    /// The probe's number again (stateless), or the reflector's own count (stateful; RFC 8762 section 4).
    pub seq: u32,
    /// T3, nanoseconds of the reflector's clock; below 2^32 seconds, and cut to that when written.
    pub sent_ns: u64,
    /// How good T2 and T3 are.
    pub error: ErrorEstimate,
    /// The session.
    pub ssid: u16,
    /// T2, like `sent_ns`.
    pub received_ns: u64,
    /// The probe's number.
    pub sender_seq: u32,
    /// T1 as the probe said, nanoseconds of the sender's clock.
    pub sender_sent_ns: u64,
    /// How good T1 is, as the probe said.
    pub sender_error: ErrorEstimate,
    /// TTL or hop limit with which the probe arrived.
    pub sender_ttl: u8,
}

impl ReflectorPacket {
    /// As octets, with the code that `mac` gives for the first [`COVERED`].
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> Mac) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        put(&mut bytes, at::SEQ, self.seq.to_be_bytes());
        put(&mut bytes, at::TIME, time(self.sent_ns));
        put(&mut bytes, at::ERROR, self.error.to_bits().to_be_bytes());
        put(&mut bytes, at::SSID, self.ssid.to_be_bytes());
        put(&mut bytes, at::RECEIVED, time(self.received_ns));
        put(&mut bytes, at::SENDER_SEQ, self.sender_seq.to_be_bytes());
        put(&mut bytes, at::SENDER_TIME, time(self.sender_sent_ns));
        put(&mut bytes, at::SENDER_ERROR, self.sender_error.to_bits().to_be_bytes());
        put(&mut bytes, at::SENDER_TTL, [self.sender_ttl]);
        sealed(bytes, mac)
    }

    /// From octets whose code is right; nothing but the code is looked at before that.
    ///
    /// # Errors
    ///
    /// See [`StampError`].
    pub fn decode(bytes: &[u8], mac: impl FnOnce(&[u8]) -> Mac) -> Result<Self, StampError> {
        let bytes = opened(bytes, mac)?;
        let [sender_ttl] = get(bytes, at::SENDER_TTL);
        Ok(Self {
            seq: u32::from_be_bytes(get(bytes, at::SEQ)),
            error: ErrorEstimate::from_bits(u16::from_be_bytes(get(bytes, at::ERROR)))?,
            sender_error: ErrorEstimate::from_bits(u16::from_be_bytes(get(bytes, at::SENDER_ERROR)))?,
            sent_ns: nanoseconds(get(bytes, at::TIME))?,
            ssid: u16::from_be_bytes(get(bytes, at::SSID)),
            received_ns: nanoseconds(get(bytes, at::RECEIVED))?,
            sender_seq: u32::from_be_bytes(get(bytes, at::SENDER_SEQ)),
            sender_sent_ns: nanoseconds(get(bytes, at::SENDER_TIME))?,
            sender_ttl,
        })
    }

    /// The session that a packet not checked yet claims to be of; `None` of another length.
    pub fn ssid_of(bytes: &[u8]) -> Option<u16> {
        SenderPacket::ssid_of(bytes)
    }
}

fn put<const N: usize>(bytes: &mut [u8; LENGTH], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

fn get<const N: usize>(bytes: &[u8; LENGTH], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

/// A PTPv2 truncated time stamp (RFC 8877 section 4.3): seconds modulo 2^32, and nanoseconds.
fn time(ns: u64) -> [u8; 8] {
    let seconds = u64::from((ns / SECOND) as u32);
    ((seconds << 32) | (ns % SECOND)).to_be_bytes()
}

fn nanoseconds(stamp: [u8; 8]) -> Result<u64, StampError> {
    let stamp = u64::from_be_bytes(stamp);
    let (seconds, ns) = (stamp >> 32, stamp & u64::from(u32::MAX));
    if ns >= SECOND {
        return Err(StampError::Time);
    }
    // Below 2^32 * 10^9: no overflow.
    Ok(seconds * SECOND + ns)
}

fn sealed(mut bytes: [u8; LENGTH], mac: impl FnOnce(&[u8]) -> Mac) -> [u8; LENGTH] {
    let code = mac(&bytes[..COVERED]);
    put(&mut bytes, COVERED, code);
    bytes
}

fn opened(bytes: &[u8], mac: impl FnOnce(&[u8]) -> Mac) -> Result<&[u8; LENGTH], StampError> {
    let packet: &[u8; LENGTH] = bytes.try_into().map_err(|_| StampError::Length(bytes.len()))?;
    let right = mac(&packet[..COVERED]);
    // All octets, whatever the first ones are: the time that this takes tells a forger nothing.
    let differ = right.iter().zip(&packet[COVERED..]).fold(0, |differ, (a, b)| differ | (a ^ b));
    if std::hint::black_box(differ) == 0 { Ok(packet) } else { Err(StampError::Mac) }
}
