//! The pcap format (draft-ietf-opsawg-pcap): a header, then a record for each packet.

use std::io::Read;

use super::buffer::Buffer;
use super::{CaptureError, Link, MAX_BLOCK, Packet};

/// Byte order and time unit, by the magic number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    big_endian: bool,
    nanoseconds: bool,
}

impl Kind {
    pub fn of(magic: [u8; 4]) -> Option<Self> {
        let (big_endian, nanoseconds) = match magic {
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, false),
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, false),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, true),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, true),
            _ => return None,
        };
        Some(Self { big_endian, nanoseconds })
    }

    pub const fn resolution_ns(self) -> u64 {
        if self.nanoseconds { 1 } else { 1_000 }
    }

    #[inline]
    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..at + 4).and_then(|b| b.first_chunk().copied()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

pub(super) struct Header {
    kind: Kind,
    link: Link,
}

impl Header {
    pub fn read<R: Read>(kind: Kind, buffer: &mut Buffer<R>) -> Result<Self, CaptureError> {
        let what = "its header";
        let bytes = buffer.whole(24, what)?.ok_or(CaptureError::Cut { what, at: 0 })?;
        // The upper bits tell of frame check sequences.
        let link = Link::of(kind.u32(bytes, 20) & 0xffff);
        Ok(Self { kind, link })
    }

    pub fn next<'a, R: Read>(&self, buffer: &'a mut Buffer<R>) -> Result<Option<Packet<'a>>, CaptureError> {
        let at = buffer.at();
        let Some(record) = buffer.whole(16, "a packet's header")?.and_then(|r| r.first_chunk::<16>()) else {
            return Ok(None);
        };
        let kind = self.kind;
        let field = |at| kind.u32(record, at);
        let (seconds, fraction, captured, length) =
            (field(0), field(4), field(8) as usize, field(12) as usize);
        let per_second = 1_000_000_000 / kind.resolution_ns();
        if u64::from(fraction) >= per_second {
            let what = format!("a packet's time has {fraction} parts of a second, of {per_second}");
            return Err(CaptureError::Damaged { what, at });
        }
        if captured > MAX_BLOCK {
            let what = format!("a packet claims to be {captured} octets long");
            return Err(CaptureError::Damaged { what, at });
        }
        let end = buffer.at();
        let Some(captured) = buffer.whole(captured, "a packet")? else {
            return Err(CaptureError::Cut { what: "a packet", at: end });
        };
        let ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * kind.resolution_ns();
        Ok(Some(Packet { ns: Some(ns), link: self.link, captured, length: length.max(captured.len()) }))
    }
}
