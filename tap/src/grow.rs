//! A set's flow table gets another size: it is replaced by a larger or a smaller one, under traffic, and no packet is counted twice or not at all.
//!
//! 1. [`Set::resized`] makes the other table, and programs over it and all the other maps.
//! 2. [`Set::pin`] pins it, with the table before as `older`.
//! 3. The ports are [moved](crate::Port::move_to) to the new programs. A flow's first packet there takes over what its older
//!    record knows: who opened it, where its sequence numbers are, its outstanding probes.
//! 4. [`Set::drain`] moves the older records into the new table, what they counted included.
//! 5. [`Set::drained`] loads programs that do not look into the older table any more; the ports are moved to those, and it goes.
//!
//! Until 4 the table before is the one that monitors read; from its beginning on none of their readings is good, until
//! they have the new one (`flow_slots` in `ctl`). Whoever dies in between leaves `older` among the pins: adopting the set
//! begins at 3.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ippm::flow::EndReason;
use ippm::measurement::SlotTag;
use ippm::time::Timestamp;

use crate::abi::{self, Settings};
use crate::buckets;
use crate::error::Error;
use crate::extents::Extents;
use crate::fault;
use crate::janitor::{Command, Janitor, move_flows};
use crate::look::each_record;
use crate::set::{Set, SetSpec, create_map, pin_error, read_settings, settings_map};
use crate::sys;

/// The pin of the flow table before.
pub(crate) const OLDER: &str = "older";

/// What became of the records of the table before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// They are in the new table.
    pub moved: u64,
    /// They were over, or found no room there: folded into their pairs.
    pub folded: u64,
}

impl Set {
    /// The set with a flow table of another [size](crate::table_size) over the same pairs, ports, histograms and ring.
    pub fn resized(self: &Arc<Self>, flows: u32) -> Result<Self, Error> {
        let spec = SetSpec { flows, ..self.spec };
        if !buckets::is_size(flows) || flows == self.spec.flows {
            // readers tell the tables from each other by their sizes
            let source = io::Error::new(io::ErrorKind::InvalidInput, "another size, a multiple of 16");
            return Err(Error::Map { name: "flows", bytes: u64::from(flows), source });
        }
        let mut maps = self.clone_maps()?;
        maps[0] = create_map(&spec, 0)?;
        let plain = read_settings(self.settings.as_fd())?;
        let settings = settings_map(&Settings { flow_buckets: flows / abi::PLACES, ..plain })?;
        Self::with_maps(spec, maps, self.extents.clone(), settings, Some(self.clone()))
    }

    /// Size of the flow table before this one's, while records may be in it.
    pub fn older_flows(&self) -> Option<u32> {
        self.older.as_ref().map(|o| o.set.spec.flows)
    }

    /// Moves every record of the table before into this set's. No port may have that table's programs any more, and nobody
    /// else may end or free records of the set meanwhile. Waits for a grace period. May be called again after an error.
    pub fn drain(&self) -> Result<Drained, Error> {
        let Some(older) = &self.older else { return Ok(Drained::default()) };
        // packets that were on their way when the programs were exchanged
        Janitor::grace_period();
        self.janitor().run(&[Command::FlowSlots(self.spec.flows)])?;
        fault::point("drain.switched");
        let all = in_use(&older.set)?;
        for some in all.chunks(abi::CMDS) {
            move_flows(older.mover.as_fd(), some)?;
            fault::point("drain.moved");
        }
        let left = in_use(&older.set)?;
        // nothing counts there: it need not be waited for
        let janitor = older.set.janitor();
        let end = left.iter().map(|id| Command::EndFlow(*id, Timestamp::MAX));
        let free = left.iter().map(|id| Command::FreeFlow(*id, EndReason::LackOfResources));
        if !left.is_empty() {
            janitor.run(&end.collect::<Vec<_>>())?;
            janitor.run(&free.collect::<Vec<_>>())?;
        }
        fault::point("drain.folded");
        Ok(Drained { moved: (all.len() - left.len()) as u64, folded: left.len() as u64 })
    }

    /// The same set once it is drained, without the table before.
    pub fn drained(&self) -> Result<Self, Error> {
        let settings = self.settings.try_clone().map_err(|source| Error::Share {
            what: "share",
            name: "settings",
            source,
        })?;
        Self::with_maps(self.spec, self.clone_maps()?, self.extents.clone(), settings, None)
    }

    /// Removes the pin of the table before, which has been drained.
    pub fn unpin_older(dir: &Path) -> Result<(), Error> {
        let path = dir.join(OLDER);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(pin_error("remove", &path, source))
            }
            _ => Ok(()),
        }
    }
}

/// Every flow record in use.
fn in_use(set: &Set) -> Result<Vec<SlotTag>, Error> {
    let mut all = Vec::new();
    each_record(set, |slot, f| all.push(SlotTag { slot, tag: f.tag }))?;
    Ok(all)
}

/// The set with the flow table before, if one is pinned in `dir` whose records were not all moved when its owner died.
pub(crate) fn adopt_older(
    dir: &Path,
    spec: SetSpec,
    maps: &[OwnedFd; 6],
    extents: &Arc<Extents>,
    settings: &Settings,
) -> Result<Option<Arc<Set>>, Error> {
    let path = dir.join(OLDER);
    let older = match sys::obj_get(&path) {
        Ok(older) => older,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(pin_error("open", &path, source)),
    };
    let failed = |source| pin_error("read", &path, source);
    if sys::map_id(older.as_fd()).map_err(failed)? == sys::map_id(maps[0].as_fd()).map_err(failed)? {
        // the new table had not been pinned yet, so no port has its programs
        Set::unpin_older(dir)?;
        return Ok(None);
    }
    let (size, entries) = sys::map_info(older.as_fd()).map_err(failed)?;
    let flows = buckets::flows_in(entries).filter(|_| size as usize == size_of::<abi::Flow>());
    let flows = flows.ok_or(Error::Layout { found: 0 })?;
    let share = |source| Error::Share { what: "share", name: "maps", source };
    let mut all = Vec::with_capacity(maps.len());
    all.push(older);
    for map in maps.iter().skip(1) {
        all.push(map.try_clone().map_err(share)?);
    }
    let all: [OwnedFd; 6] = all.try_into().map_err(|_| Error::Object("six maps".into()))?;
    let settings = settings_map(&Settings { flow_buckets: flows / abi::PLACES, ..*settings })?;
    let set = Set::with_maps(SetSpec { flows, ..spec }, all, extents.clone(), settings, None)?;
    Ok(Some(Arc::new(set)))
}
