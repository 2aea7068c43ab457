//! Reading capture files: pcap and pcapng, as they are or compressed by gzip or zstd, from anything that can be read.
//!
//! Files are read in one pass and never held whole: one buffer, which grows to the largest packet. What is damaged is
//! told in one sentence after everything before it has been handed out. Nothing that a file says is believed before it is
//! checked, and lengths beyond [`MAX_BLOCK`] are taken for damage.

mod buffer;
mod link;
mod open;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;

pub use link::{Link, to_ethernet};
pub use open::{Progress, decompress, open};

use std::io::{self, Read};

use buffer::Buffer;

/// The largest packet or block that is read, octets: far beyond what any interface hands over in one piece.
pub const MAX_BLOCK: usize = 16 << 20;

/// Why reading a capture ended early.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file or stream could not be read.
    #[error("cannot read it: {0}")]
    Read(#[source] io::Error),
    /// It is no capture.
    #[error("it is neither pcap nor pcapng: it begins with {0}")]
    NotACapture(String),
    /// It ends in the middle of something.
    #[error("it ends in the middle of {what}, after {at} octets")]
    Cut {
        /// What was being read.
        what: &'static str,
        /// Octets read, after decompression.
        at: u64,
    },
    /// Something in it cannot be.
    #[error("it is damaged after {at} octets: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
        /// Where, octets after decompression.
        at: u64,
    },
}

/// A captured packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was captured, nanoseconds since 1970, UTC. `None` where the capture does not say.
    pub ns: Option<u64>,
    /// What kind of header it begins with.
    pub link: Link,
    /// Its octets, as many as were captured.
    pub captured: &'a [u8],
    /// How long it was.
    pub length: usize,
}

enum Format {
    Pcap(pcap::Header),
    Pcapng(pcapng::Section),
}

/// Hands out a capture's packets one after another.
pub struct Reader<R> {
    buffer: Buffer<R>,
    format: Format,
    /// The coarsest clock resolution that was met, nanoseconds.
    resolution_ns: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    pub fn new(from: R) -> Result<Self, CaptureError> {
        let mut buffer = Buffer::new(from);
        let Some(magic) = buffer.fill(4)?.and_then(|bytes| bytes.first_chunk::<4>().copied()) else {
            return Err(match buffer.at() + buffer.held() as u64 {
                0 => CaptureError::NotACapture("nothing: it is empty".to_owned()),
                _ => CaptureError::NotACapture("less than four octets".to_owned()),
            });
        };
        let (format, resolution_ns) = if magic == pcapng::MAGIC {
            (Format::Pcapng(pcapng::Section::default()), 1)
        } else if let Some(kind) = pcap::Kind::of(magic) {
            let header = pcap::Header::read(kind, &mut buffer)?;
            (Format::Pcap(header), kind.resolution_ns())
        } else {
            let [a, b, c, d] = magic;
            return Err(CaptureError::NotACapture(format!("{a:02x} {b:02x} {c:02x} {d:02x}")));
        };
        Ok(Self { buffer, format, resolution_ns })
    }

    /// The next packet; `None` at the end. After an error nothing more can be read.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        match &mut self.format {
            Format::Pcap(header) => header.next(&mut self.buffer),
            Format::Pcapng(section) => section.next(&mut self.buffer, &mut self.resolution_ns),
        }
    }

    /// The coarsest resolution of the times so far, nanoseconds. A file may count in finer units than its clock had.
    pub const fn resolution_ns(&self) -> u64 {
        self.resolution_ns
    }
}
