//! Reader of a BPF ring buffer, without any `bpf()` call: two mappings and a poll.
//!
//! Layout (Linux, kernel/bpf/ringbuf.c): page 0 holds the consumer's position, page 1 the producer's, then the data
//! twice in a row so that no record wraps. Each record has an 8-byte header: length with BUSY (1 << 31) and DISCARD
//! (1 << 30) bits, then the page offset.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::mmap::Mapping;

const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const HEADER: u64 = 8;

/// A ring buffer's only consumer.
pub(crate) struct Ring {
    fd: OwnedFd,
    consumer: Mapping,
    producer: Mapping,
    mask: u64,
    page: usize,
}

impl Ring {
    /// `bytes` is the ring's size: a power of two and a multiple of the page size.
    pub(crate) fn new(fd: OwnedFd, bytes: u32) -> io::Result<Self> {
        let page = 4096;
        let consumer = Mapping::new(fd.as_fd(), 0, page, true)?;
        let producer = Mapping::new(fd.as_fd(), page, page + 2 * bytes as usize, false)?;
        Ok(Self { fd, consumer, producer, mask: u64::from(bytes) - 1, page })
    }

    /// For poll: readable when the ring holds records.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes in the ring that wait for the consumer.
    pub(crate) fn pending(&self) -> u64 {
        let producer = self.producer.u64(0).load(Ordering::Acquire);
        producer.saturating_sub(self.consumer.u64(0).load(Ordering::Acquire))
    }

    /// Hands up to `max` records to `each`, oldest first; a record's length is a multiple of 8 here. Returns how many
    /// it handed out.
    pub(crate) fn drain(&mut self, max: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut buffer = Vec::new();
        let mut at = self.consumer.u64(0).load(Ordering::Acquire);
        let mut handed = 0;
        while handed < max {
            if at >= self.producer.u64(0).load(Ordering::Acquire) {
                break;
            }
            let offset = self.page + (at & self.mask) as usize;
            let header = self.producer.u32(offset).load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let len = u64::from(header & !DISCARD);
            if len > self.mask {
                // nothing a kernel writes: stop rather than walk off
                break;
            }
            if header & DISCARD == 0 {
                buffer.clear();
                for i in 0..len.div_ceil(8) as usize {
                    let word = self.producer.u64(offset + HEADER as usize + 8 * i).load(Ordering::Relaxed);
                    buffer.extend_from_slice(&word.to_ne_bytes());
                }
                buffer.truncate(len as usize);
                each(&buffer);
                handed += 1;
            }
            at += (HEADER + len).next_multiple_of(8);
            self.consumer.u64(0).store(at, Ordering::Release);
        }
        handed
    }
}
