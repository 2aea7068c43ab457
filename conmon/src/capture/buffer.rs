//! A buffer that holds whole records of a stream.

use std::io::{self, Read};

use super::{CaptureError, MAX_BLOCK};

const CHUNK: usize = 256 << 10;

pub(super) struct Buffer<R> {
    from: R,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Octets before `start`.
    consumed: u64,
}

impl<R: Read> Buffer<R> {
    pub fn new(from: R) -> Self {
        Self { from, bytes: vec![0; CHUNK], start: 0, end: 0, consumed: 0 }
    }

    /// Octets handed out so far.
    pub fn at(&self) -> u64 {
        self.consumed
    }

    /// Octets read and not handed out.
    pub fn held(&self) -> usize {
        self.end - self.start
    }

    /// The next `length` octets, which stay to be taken; `None` if the stream ends before.
    #[inline(never)]
    pub fn fill(&mut self, length: usize) -> Result<Option<&[u8]>, CaptureError> {
        if length > MAX_BLOCK {
            let what = format!("something claims to be {length} octets long");
            return Err(CaptureError::Damaged { what, at: self.consumed });
        }
        while self.held() < length {
            self.make_room(length);
            let room = &mut self.bytes[self.end..];
            match self.from.read(room) {
                Ok(0) => return Ok(None),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CaptureError::Read(error)),
            }
        }
        Ok(self.bytes.get(self.start..self.start + length))
    }

    /// Takes `length` octets that [`Buffer::fill`] showed.
    #[inline]
    pub fn take(&mut self, length: usize) -> &[u8] {
        let length = length.min(self.held());
        let taken = &self.bytes[self.start..self.start + length];
        self.start += length;
        self.consumed += length as u64;
        taken
    }

    /// Room grows with what was really read: a claimed length alone takes no memory.
    fn make_room(&mut self, length: usize) {
        if self.end < self.bytes.len() && self.start + length <= self.bytes.len() {
            return;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }

    /// The next `length` octets of what must be whole, taken; `None` if the stream ends before the first of them.
    #[inline]
    pub fn whole(&mut self, length: usize, what: &'static str) -> Result<Option<&[u8]>, CaptureError> {
        // nearly always it is there
        if (self.held() < length || length > MAX_BLOCK) && self.fill(length)?.is_none() {
            return match self.held() {
                0 => Ok(None),
                held => Err(CaptureError::Cut { what, at: self.consumed + held as u64 }),
            };
        }
        Ok(Some(self.take(length)))
    }
}
