//! Tables for pairs and histograms that grow under traffic, without a program being exchanged or a record being moved.
//!
//! Behind each of the two tables there is an array of maps, into which further arrays are put: *extents*. Each doubles the table:
//! extent `e` has `size << e` records, from that slot on. The programs find it there from the next packet on, and readers are handed
//! it with the others. Pinned as `more_pairs`, `pairs-1`, `pairs-2`, … and likewise for histograms; an extent is pinned before it is put in
//! place, so that whoever adopts the set finds every one that may have records.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::abi;
use crate::error::Error;
use crate::fault;
use crate::set::{Set, SetSpec, pin_error, replace_pin, value_size};
use crate::sys;

/// Tables that grow by extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extensible {
    /// Pair records.
    Pairs,
    /// Round-trip histograms.
    Histograms,
}

impl Extensible {
    /// Both.
    pub const ALL: [Extensible; 2] = [Self::Pairs, Self::Histograms];
    /// How often a table can be extended: to 64 times its size.
    pub const MOST: u32 = abi::EXTENTS;

    /// Its table's place in [`crate::Descriptors::NAMES`].
    pub(crate) const fn map(self) -> usize {
        match self {
            Self::Pairs => 1,
            Self::Histograms => 3,
        }
    }

    /// Its table's name, of which the pins' are made.
    const fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Histograms => "hists",
        }
    }

    /// What the programs call its extents.
    const fn more(self) -> &'static str {
        match self {
            Self::Pairs => "more_pairs",
            Self::Histograms => "more_hists",
        }
    }

    /// The names of both for programs that have no business with them.
    pub(crate) const NAMES: [&'static str; 2] = [Self::Pairs.more(), Self::Histograms.more()];

    const fn size(self, spec: &SetSpec) -> u32 {
        match self {
            Self::Pairs => spec.pairs,
            Self::Histograms => spec.hists,
        }
    }

    /// How many a set of these sizes has.
    pub(crate) const fn taken(self, spec: &mut SetSpec) -> &mut u32 {
        match self {
            Self::Pairs => &mut spec.pair_extents,
            Self::Histograms => &mut spec.hist_extents,
        }
    }

    /// Whether the table is to be extended so that `used` records have room: open addressing loses one in a hundred and
    /// fifty of them at half full.
    pub const fn is_short(used: u64, slots: u32) -> bool {
        used > slots as u64 / 2
    }
}

/// Which extent a slot beyond the first `size` is in, and where there.
pub(crate) fn place(slot: u32, size: u32) -> (usize, u32) {
    let extent = (slot / size).ilog2();
    (extent as usize, slot - (size << extent))
}

/// One table's.
struct Table {
    /// The array of maps.
    more: OwnedFd,
    /// No fewer than the programs find in it. Held for moments only.
    extents: Mutex<Vec<Arc<OwnedFd>>>,
    /// Held by who adds one, which takes a while.
    adding: Mutex<()>,
}

impl Table {
    fn new(more: OwnedFd, extents: Vec<Arc<OwnedFd>>) -> Self {
        Self { more, extents: Mutex::new(extents), adding: Mutex::default() }
    }

    fn extents(&self) -> MutexGuard<'_, Vec<Arc<OwnedFd>>> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set's extents. A set that takes another's place, with the same tables, shares them.
pub(crate) struct Extents([Table; 2]);

fn share(name: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Share { what: "extend", name, source }
}

fn create(of: Extensible, entries: u32) -> Result<OwnedFd, Error> {
    let size = value_size(of.map());
    let bytes = u64::from(entries) * u64::from(size);
    let flags = sys::F_MMAPABLE | sys::F_INNER_MAP;
    let fd = sys::map_create(sys::MAP_TYPE_ARRAY, size, entries, flags, &format!("cm_{}", of.name()))
        .map_err(|source| Error::Map { name: of.name(), bytes, source })?;
    sys::map_freeze(fd.as_fd()).map_err(|source| Error::Share { what: "freeze", name: of.name(), source })?;
    Ok(fd)
}

impl Extents {
    /// None yet, for each table.
    pub(crate) fn create() -> Result<Self, Error> {
        let table = |of: Extensible| {
            let like = create(of, 1)?;
            let more = sys::map_of_maps(like.as_fd(), abi::EXTENTS, &format!("cm_{}", of.more()));
            let more = more.map_err(|source| Error::Map { name: of.more(), bytes: 64, source })?;
            Ok(Table::new(more, Vec::new()))
        };
        let [pairs, hists] = Extensible::ALL.map(table);
        Ok(Self([pairs?, hists?]))
    }

    /// As pinned. One that was pinned and not yet put in place is.
    pub(crate) fn adopt(dir: &Path, spec: &SetSpec) -> Result<Self, Error> {
        let table = |of: Extensible| {
            let open = |name: &str| {
                let path = dir.join(name);
                sys::obj_get(&path).map_err(|source| pin_error("open", &path, source))
            };
            let (more, mut extents) = (open(of.more())?, Vec::new());
            for extent in 0..abi::EXTENTS {
                let path = dir.join(pin_of(of, extent));
                let fd = match sys::obj_get(&path) {
                    Ok(fd) => fd,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                    Err(source) => return Err(pin_error("open", &path, source)),
                };
                let read = sys::map_info(fd.as_fd()).map_err(|source| pin_error("read", &path, source))?;
                if read != (value_size(of.map()), of.size(spec) << extent) {
                    return Err(Error::Layout { found: 0 });
                }
                // to put it there waits for a grace period, and all but the last one are
                if !is_placed(&more, extent, &fd) {
                    place_extent(&more, extent, &fd).map_err(share(of.more()))?;
                }
                extents.push(Arc::new(fd));
            }
            // what whoever died was about to pin is nobody's
            let next = format!("{}-next", pin_of(of, extents.len() as u32));
            let _ = fs::remove_file(dir.join(next));
            Ok(Table::new(more, extents))
        };
        let [pairs, hists] = Extensible::ALL.map(table);
        Ok(Self([pairs?, hists?]))
    }

    fn table(&self, of: Extensible) -> &Table {
        &self.0[of as usize]
    }

    /// The extents there are.
    pub(crate) fn of(&self, of: Extensible) -> Vec<Arc<OwnedFd>> {
        self.table(of).extents().clone()
    }

    /// `spec` with how many there are.
    pub(crate) fn count(&self, mut spec: SetSpec) -> SetSpec {
        for of in Extensible::ALL {
            *of.taken(&mut spec) = self.table(of).extents().len() as u32;
        }
        spec
    }

    /// The arrays of maps, for the programs, by their names.
    pub(crate) fn more(&self) -> [(&'static str, BorrowedFd<'_>); 2] {
        Extensible::ALL.map(|of| (of.more(), self.table(of).more.as_fd()))
    }

    /// Pins all that there is.
    pub(crate) fn pin(&self, dir: &Path) -> Result<(), Error> {
        for of in Extensible::ALL {
            for (extent, fd) in (0..).zip(self.of(of)) {
                replace_pin(dir, &pin_of(of, extent), fd.as_fd())?;
            }
            replace_pin(dir, of.more(), self.table(of).more.as_fd())?;
        }
        Ok(())
    }
}

fn pin_of(of: Extensible, extent: u32) -> String {
    format!("{}-{}", of.name(), extent + 1)
}

fn place_extent(more: &OwnedFd, extent: u32, fd: &OwnedFd) -> io::Result<()> {
    sys::map_update(more.as_fd(), extent, &fd.as_raw_fd().to_ne_bytes())
}

/// Whether it is what the programs find there; who looks is told the map's number.
fn is_placed(more: &OwnedFd, extent: u32, fd: &OwnedFd) -> bool {
    let mut there = [0; 4];
    let found = sys::map_lookup(more.as_fd(), extent, &mut there).is_ok();
    found && sys::map_id(fd.as_fd()).is_ok_and(|id| id == u32::from_ne_bytes(there))
}

impl Set {
    /// Doubles a table by one more extent, pinned in `dir`, if the set is; returns its slots now. Programs use it at once, readers when they
    /// are handed it. Waits for a grace period.
    pub fn extend(&self, of: Extensible, dir: Option<&Path>) -> Result<u32, Error> {
        let table = self.extents.table(of);
        let _one = table.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let (extent, size) = (table.extents().len() as u32, of.size(&self.spec));
        if extent >= Extensible::MOST {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it has all its extents");
            return Err(Error::Map { name: of.name(), bytes: 0, source });
        }
        let fd = Arc::new(create(of, size << extent)?);
        if let Some(dir) = dir {
            fault::point("extend.made");
            replace_pin(dir, &pin_of(of, extent), fd.as_fd())?;
        }
        fault::point("extend.pinned");
        // who looks through all knows it before anything is counted there
        table.extents().push(fd.clone());
        if let Err(source) = place_extent(&table.more, extent, &fd) {
            table.extents().pop();
            if let Some(dir) = dir {
                // not in use, so the next one may have its name
                let _ = fs::remove_file(dir.join(pin_of(of, extent)));
            }
            return Err(share(of.more())(source));
        }
        fault::point("extend.placed");
        Ok(size << (extent + 1))
    }
}

/// A table and its extents, by borrowed descriptors.
pub(crate) fn whole<'a>(
    first: BorrowedFd<'a>,
    size: u32,
    extents: &'a [Arc<OwnedFd>],
) -> impl Iterator<Item = (u32, u32, BorrowedFd<'a>)> {
    let more = (0..).zip(extents).map(move |(e, fd)| (size << e, size << e, fd.as_fd()));
    std::iter::once((0, size, first)).chain(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_one_place() {
        for size in [1u32, 16, 4096] {
            let mut next = size;
            for extent in 0..Extensible::MOST {
                for i in [0, (size << extent) / 2, (size << extent) - 1] {
                    assert_eq!(place(next + i, size), (extent as usize, i));
                }
                next += size << extent;
            }
            assert_eq!(next, size << Extensible::MOST);
        }
    }
}
