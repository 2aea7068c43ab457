//! The pcapng format (draft-ietf-opsawg-pcapng): blocks, in sections, from several interfaces.
//!
//! Enhanced packet blocks (section 4.3), simple ones (4.4, which have no time) and the obsolete packet block (appendix A)
//! are packets; all other blocks but section headers and interface descriptions are stepped over.

use std::io::Read;

use super::buffer::Buffer;
use super::{CaptureError, Link, Packet};

/// A section header's block type, the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE: u32 = 3;
const ENHANCED: u32 = 6;

/// Interfaces of one section that are believed.
const MAX_INTERFACES: usize = 1 << 16;

#[derive(Clone, Copy)]
struct Interface {
    link: Link,
    /// Ticks of a second: 10 or 2 to a power.
    ticks: u64,
    /// Seconds added to each time.
    offset: i64,
}

#[derive(Default)]
pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

/// Where a packet lies in its block.
struct Found {
    interface: usize,
    ticks: Option<u64>,
    at: usize,
    captured: usize,
    length: usize,
}

impl Section {
    pub fn next<'a, R: Read>(
        &mut self,
        buffer: &'a mut Buffer<R>,
        resolution_ns: &mut u64,
    ) -> Result<Option<Packet<'a>>, CaptureError> {
        let (found, length) = loop {
            let at = buffer.at();
            let Some((kind, length)) = self.block(buffer)? else { return Ok(None) };
            let damaged = |what: &str| CaptureError::Damaged { what: what.to_owned(), at };
            let Some(block) = buffer.fill(length)? else {
                return Err(CaptureError::Cut { what: "a block", at: at + buffer.held() as u64 });
            };
            let body = block.get(8..length - 4).ok_or_else(|| damaged("a block is too short"))?;
            if self.u32(block, length - 4) as usize != length {
                return Err(damaged("a block's two lengths differ"));
            }
            match kind {
                INTERFACE => {
                    let interface =
                        self.interface(body).ok_or_else(|| damaged("an interface makes no sense"))?;
                    if self.interfaces.len() >= MAX_INTERFACES {
                        return Err(damaged("it has more than 65,536 interfaces"));
                    }
                    self.interfaces.push(interface);
                    *resolution_ns = (*resolution_ns).max(1_000_000_000u64.div_ceil(interface.ticks));
                }
                ENHANCED | SIMPLE | PACKET => {
                    let found =
                        self.find(kind, body).ok_or_else(|| damaged("a packet is longer than its block"))?;
                    break (found, length);
                }
                _ => {}
            }
            buffer.take(length);
        };
        let at = buffer.at();
        let Some(interface) = self.interfaces.get(found.interface).copied() else {
            let what = format!("a packet is from interface {}, which was not described", found.interface);
            return Err(CaptureError::Damaged { what, at });
        };
        let block = buffer.take(length);
        let start = 8 + found.at;
        let captured = block.get(start..start + found.captured).unwrap_or_default();
        let ns = found.ticks.and_then(|ticks| interface.ns(ticks));
        Ok(Some(Packet { ns, link: interface.link, captured, length: found.length.max(captured.len()) }))
    }

    /// Type and length of the next block; a section header's is taken into account. `None` at the end.
    fn block<R: Read>(&mut self, buffer: &mut Buffer<R>) -> Result<Option<(u32, usize)>, CaptureError> {
        let at = buffer.at();
        let Some(head) = buffer.fill(12)? else {
            return match buffer.held() {
                0 => Ok(None),
                held => Err(CaptureError::Cut { what: "a block", at: at + held as u64 }),
            };
        };
        if head.starts_with(&MAGIC) {
            self.big_endian = match head.get(8..12) {
                Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
                Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
                _ => {
                    let what = "a section's byte order cannot be told".to_owned();
                    return Err(CaptureError::Damaged { what, at });
                }
            };
            self.interfaces.clear();
        }
        let (kind, length) = (self.u32(head, 0), self.u32(head, 4) as usize);
        if length < 12 || length % 4 != 0 {
            let what = format!("a block claims to be {length} octets long");
            return Err(CaptureError::Damaged { what, at });
        }
        Ok(Some((kind, length)))
    }

    fn interface(&self, body: &[u8]) -> Option<Interface> {
        let link = Link::of(u32::from(self.u16(body.get(..2)?)));
        let mut interface = Interface { link, ticks: 1_000_000, offset: 0 };
        let mut options = body.get(8..)?;
        while let (Some(code), Some(length)) = (options.get(..2), options.get(2..4)) {
            let (code, length) = (self.u16(code), usize::from(self.u16(length)));
            let value = options.get(4..4 + length)?;
            match (code, value) {
                (0, _) => break,
                // if_tsresol, section 4.2: a power of 2 or of 10.
                (9, [unit]) => {
                    let power = u32::from(unit & 0x7f);
                    interface.ticks =
                        if unit & 0x80 != 0 { 1u64.checked_shl(power)? } else { 10u64.checked_pow(power)? };
                }
                (14, value) => interface.offset = self.u64(value)? as i64,
                _ => {}
            }
            options = options.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(interface)
    }

    fn find(&self, kind: u32, body: &[u8]) -> Option<Found> {
        let field = |at: usize| body.get(at..at + 4).map(|bytes| self.u32(bytes, 0));
        let found = match kind {
            SIMPLE => {
                let length = field(0)? as usize;
                // Its captured length is not told but by the block's (and the interface's snap length).
                let captured = length.min(body.len() - 4);
                Found { interface: 0, ticks: None, at: 4, captured, length }
            }
            _ => {
                let ticks = u64::from(field(4)?) << 32 | u64::from(field(8)?);
                let interface =
                    if kind == PACKET { usize::from(self.u16(body.get(..2)?)) } else { field(0)? as usize };
                let (captured, length) = (field(12)? as usize, field(16)? as usize);
                Found { interface, ticks: Some(ticks), at: 20, captured, length }
            }
        };
        (found.at.checked_add(found.captured)? <= body.len()).then_some(found)
    }

    fn u16(&self, bytes: &[u8]) -> u16 {
        let bytes = bytes.first_chunk().copied().unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..at + 4).and_then(|b| b.first_chunk().copied()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u64(&self, bytes: &[u8]) -> Option<u64> {
        let bytes: [u8; 8] = *bytes.first_chunk()?;
        Some(if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }
}

impl Interface {
    /// `None` for times that no calendar has.
    fn ns(&self, ticks: u64) -> Option<u64> {
        let ns = match self.ticks {
            1_000_000_000 => i128::from(ticks),
            per_second => i128::from(ticks) * 1_000_000_000 / i128::from(per_second),
        };
        u64::try_from(ns + i128::from(self.offset) * 1_000_000_000).ok()
    }
}
