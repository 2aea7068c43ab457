//! Read-only views of frozen array maps.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::abi::Plain;
use crate::extents::{place, whole};

/// Mapped memory, unmapped on drop.
pub(crate) struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only ever accessed through atomics, from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset`.
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: usize, len: usize, writable: bool) -> io::Result<Self> {
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a fresh shared mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast())
            .map(|at| Self { at, len })
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))
    }

    /// The word at a byte offset that is a multiple of 8.
    pub(crate) fn u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: in bounds, aligned (mappings are page aligned), and shared memory is accessed atomically only.
        unsafe { AtomicU64::from_ptr(self.at.as_ptr().add(offset).cast()) }
    }

    /// The word at a byte offset that is a multiple of 4.
    pub(crate) fn u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len);
        // SAFETY: as for `u64`.
        unsafe { AtomicU32::from_ptr(self.at.as_ptr().add(offset).cast()) }
    }

    /// Copies a record word by word: a word is never torn, the record as a whole may be.
    pub(crate) fn read<T: Plain>(&self, offset: usize) -> T {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let mut value = MaybeUninit::<T>::uninit();
        let words = value.as_mut_ptr().cast::<u64>();
        for i in 0..size_of::<T>() / 8 {
            let word = self.u64(offset + 8 * i).load(Ordering::Relaxed);
            // SAFETY: within `value`, which is as long as the words copied.
            unsafe { words.add(i).write_unaligned(word) };
        }
        // SAFETY: every byte was written, and every bit pattern is a valid T.
        unsafe { value.assume_init() }
    }
}

/// So many elements are mapped at once: what a whole table is counts as the memory of who maps it.
const WINDOW: u32 = 16_384;

/// Maps an array a part at a time. `each` gets the number of the part's first element, and the part.
pub(crate) fn walk<T: Plain>(
    fd: BorrowedFd<'_>,
    entries: u32,
    mut each: impl FnMut(u32, &Table<T>),
) -> io::Result<()> {
    const { assert!((size_of::<T>() * WINDOW as usize).is_multiple_of(4096)) };
    let mut first = 0;
    while first < entries {
        let n = WINDOW.min(entries - first);
        each(first, &Table::part(fd, first, n)?);
        first += n;
    }
    Ok(())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no reference outlives self.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// A table and its extents: records by slot, whichever array they are in.
pub(crate) struct Tables<T> {
    tables: Vec<Table<T>>,
}

impl<T: Plain> Tables<T> {
    /// Maps the table of `size` records and each of its extents.
    pub(crate) fn new<'a>(first: BorrowedFd<'a>, size: u32, extents: &'a [Arc<OwnedFd>]) -> io::Result<Self> {
        let all = whole(first, size, extents).map(|(_, entries, fd)| Table::new(fd, entries));
        Ok(Self { tables: all.collect::<io::Result<_>>()? })
    }

    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.tables.iter().map(Table::mapped_bytes).sum()
    }

    /// Slots, of all together.
    pub(crate) fn len(&self) -> u32 {
        self.tables.iter().map(Table::len).sum()
    }

    fn at(&self, i: u32) -> (&Table<T>, u32) {
        let first = &self.tables[0];
        if i < first.entries {
            return (first, i);
        }
        let (extent, at) = place(i, first.entries);
        (&self.tables[1 + extent], at)
    }

    /// As [`Table::get`].
    pub(crate) fn get(&self, i: u32) -> T {
        let (table, at) = self.at(i);
        table.get(at)
    }

    /// As [`Table::u32`].
    pub(crate) fn u32(&self, i: u32, offset: usize) -> u32 {
        let (table, at) = self.at(i);
        table.u32(at, offset)
    }

    /// As [`Table::u64`].
    pub(crate) fn u64(&self, i: u32, offset: usize) -> u64 {
        let (table, at) = self.at(i);
        table.u64(at, offset)
    }
}

/// An array map's elements.
pub(crate) struct Table<T> {
    mapping: Mapping,
    entries: u32,
    record: PhantomData<T>,
}

impl<T: Plain> Table<T> {
    pub(crate) fn new(fd: BorrowedFd<'_>, entries: u32) -> io::Result<Self> {
        let page = 4096;
        let len = (size_of::<T>() * entries as usize).next_multiple_of(page);
        Ok(Self { mapping: Mapping::new(fd, 0, len, false)?, entries, record: PhantomData })
    }

    /// Maps `entries` elements from the one numbered `first` on, which must lie at the beginning of a page.
    fn part(fd: BorrowedFd<'_>, first: u32, entries: u32) -> io::Result<Self> {
        let offset = size_of::<T>() * first as usize;
        let len = (size_of::<T>() * entries as usize).next_multiple_of(4096);
        Ok(Self { mapping: Mapping::new(fd, offset, len, false)?, entries, record: PhantomData })
    }

    /// Bytes mapped.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.mapping.len as u64
    }

    pub(crate) fn len(&self) -> u32 {
        self.entries
    }

    /// A copy of a record, see [`Mapping::read`].
    pub(crate) fn get(&self, i: u32) -> T {
        assert!(i < self.entries);
        self.mapping.read(size_of::<T>() * i as usize)
    }

    /// One aligned field of a record, by its byte offset.
    pub(crate) fn u32(&self, i: u32, offset: usize) -> u32 {
        assert!(i < self.entries);
        self.mapping.u32(size_of::<T>() * i as usize + offset).load(Ordering::Acquire)
    }

    /// One aligned field of a record, by its byte offset.
    pub(crate) fn u64(&self, i: u32, offset: usize) -> u64 {
        assert!(i < self.entries);
        self.mapping.u64(size_of::<T>() * i as usize + offset).load(Ordering::Acquire)
    }
}
