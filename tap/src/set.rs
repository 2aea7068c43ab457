//! A set: one tenant's maps and the programs that fill them.
//!
//! Pinned as `DIR/{flows,pairs,ports,hists,ctl,ring,settings}`, with its [extents](crate::Extensible), and `older` while its flow table grows; a set that is
//! pinned goes on counting when its owner dies, and the next owner adopts it: it loads its own build of the programs over the same maps.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ippm::flow::Direction;

use crate::abi::{self, Settings};
use crate::dispatch::TARGETS;
use crate::error::Error;
use crate::extents::{Extensible, Extents};
use crate::fault;
use crate::grow::{self, OLDER};
use crate::janitor::{Command, Janitor};
use crate::{buckets, object, sys};

/// How large a set is. Every table's size is a power of two, but the flow table's: any number of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// Flow records, 192 bytes each and four for a tag; a multiple of [16](crate::table_size).
    pub flows: u32,
    /// Pair records to begin with, 192 bytes each.
    pub pairs: u32,
    /// Port records, 256 bytes each.
    pub ports: u32,
    /// Round-trip histograms to begin with, 1,664 bytes each.
    pub hists: u32,
    /// How often the table for pairs was doubled.
    pub pair_extents: u32,
    /// How often the one for histograms was.
    pub hist_extents: u32,
    /// Bytes of the ring.
    pub ring_bytes: u32,
    /// Follow TCP: round-trip delay, retransmission, reordering.
    pub rtt: bool,
    /// In a busy direction of a flow, draw some segments whose round trips are taken, instead of one after the other.
    pub paced: bool,
    /// Write every round-trip singleton to the ring: for truth tests, costs about as much as all the rest.
    pub samples: bool,
}

impl Default for SetSpec {
    fn default() -> Self {
        Self {
            flows: 8192,
            pairs: 1024,
            ports: 256,
            hists: 1024,
            pair_extents: 0,
            hist_extents: 0,
            ring_bytes: 256 << 10,
            rtt: true,
            paced: true,
            samples: false,
        }
    }
}

impl SetSpec {
    /// Pair records that there is room for, extents included.
    pub const fn pair_slots(&self) -> u32 {
        self.pairs << self.pair_extents
    }

    /// Histograms that there is room for, extents included.
    pub const fn hist_slots(&self) -> u32 {
        self.hists << self.hist_extents
    }

    /// Bytes of kernel memory that the set takes.
    pub fn kernel_bytes(&self) -> u64 {
        buckets::table_bytes(self.flows)
            + u64::from(self.pair_slots()) * size_of::<abi::Pair>() as u64
            + u64::from(self.ports) * size_of::<abi::PortSlot>() as u64
            + u64::from(self.hist_slots()) * size_of::<abi::Hist>() as u64
            + u64::from(self.ring_bytes)
            + 2 * 4096
    }

    fn settings(&self) -> io::Result<Settings> {
        let mut secret = [0u64; 6];
        for word in &mut secret {
            let mut bytes = [0u8; 8];
            io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
            // odd: a multiplier must not lose bits
            *word = u64::from_ne_bytes(bytes) | 1;
        }
        let mut flags = abi::flag::NEW_RECORDS;
        if self.rtt {
            flags |= abi::flag::RTT;
        }
        if self.paced {
            flags |= abi::flag::PACED;
        }
        if self.samples {
            flags |= abi::flag::SAMPLES;
        }
        Ok(Settings {
            flow_buckets: self.flows / abi::PLACES,
            pair_mask: self.pairs - 1,
            port_mask: self.ports - 1,
            hist_mask: self.hists - 1,
            secret,
            flags,
            older_buckets: 0,
            group: 0,
            elsewhere: 0,
        })
    }
}

/// The two, in the order in which they are put on a port.
pub(crate) const DIRECTIONS: [Direction; 2] = [Direction::Tx, Direction::Rx];

/// The attachable programs of a set.
pub struct Programs {
    /// For a port's ingress: packets from the container.
    pub(crate) tx: OwnedFd,
    /// For a port's egress: packets to the container.
    pub(crate) rx: OwnedFd,
}

impl Programs {
    /// Programs that do nothing, at both hooks: the baseline of cost figures.
    pub fn empty(set: &Set) -> Result<Self, Error> {
        let wiring = wiring(&set.maps, &set.extents, &set.settings, None);
        let mut fds = object::load(&["cm_empty", "cm_empty"], &wiring)?.into_iter();
        match (fds.next(), fds.next()) {
            (Some(tx), Some(rx)) => Ok(Self { tx, rx }),
            _ => Err(Error::Object("no programs".into())),
        }
    }

    /// The direction's program.
    pub fn of(&self, direction: Direction) -> BorrowedFd<'_> {
        match direction {
            Direction::Tx => self.tx.as_fd(),
            Direction::Rx => self.rx.as_fd(),
        }
    }
}

/// What a reader is handed: the frozen arrays and the ring, and how large they are.
pub struct Descriptors {
    /// In the order of [`Descriptors::NAMES`], then the extents for pairs, then those for histograms.
    pub fds: Vec<OwnedFd>,
    /// The set's sizes.
    pub spec: SetSpec,
}

impl Descriptors {
    /// What each descriptor is.
    pub const NAMES: [&'static str; 6] = ["flows", "pairs", "ports", "hists", "ctl", "ring"];
    /// So many there can be.
    pub const MOST: usize = Self::NAMES.len() + 2 * Extensible::MOST as usize;

    /// How many there are for a set of these sizes; none if no set can have them.
    pub fn count(spec: &SetSpec) -> Option<usize> {
        let extents = [spec.pair_extents, spec.hist_extents];
        let good = extents.iter().all(|n| *n <= Extensible::MOST);
        good.then(|| Self::NAMES.len() + extents.iter().sum::<u32>() as usize)
    }
}

/// One tenant's maps and programs.
pub struct Set {
    pub(crate) spec: SetSpec,
    /// In the order of [`Descriptors::NAMES`].
    pub(crate) maps: [OwnedFd; 6],
    pub(crate) extents: Arc<Extents>,
    /// As pinned: they do not tell of a table before.
    pub(crate) settings: OwnedFd,
    programs: Programs,
    janitor: OwnedFd,
    janitor_one: OwnedFd,
    pub(crate) older: Option<Older>,
    /// The programs for ports in other network namespaces, by [`Settings::elsewhere`].
    elsewhere: Mutex<BTreeMap<u32, Arc<Programs>>>,
}

/// The set with the flow table that this one's takes the place of, while there may be records in that yet.
pub(crate) struct Older {
    pub(crate) set: Arc<Set>,
    pub(crate) mover: OwnedFd,
}

pub(crate) const SETTINGS: &str = "settings";

/// Other network namespaces for which programs are kept that are not on a port, for the next one.
const MOST_LOADED: usize = 16;

/// Type, value size and whether a map is shared by mmap, by its place in [`Descriptors::NAMES`].
pub(crate) fn value_size(i: usize) -> u32 {
    match i {
        0 => size_of::<abi::Flow>() as u32,
        1 => size_of::<abi::Pair>() as u32,
        2 => size_of::<abi::PortSlot>() as u32,
        3 => size_of::<abi::Hist>() as u32,
        4 => size_of::<abi::Ctl>() as u32,
        _ => 0,
    }
}

fn entries(spec: &SetSpec, i: usize) -> u32 {
    [buckets::entries(spec.flows), spec.pairs, spec.ports, spec.hists, 1, spec.ring_bytes][i]
}

pub(crate) fn create_map(spec: &SetSpec, i: usize) -> Result<OwnedFd, Error> {
    let name = Descriptors::NAMES[i];
    let (kind, flags) = match value_size(i) {
        0 => (sys::MAP_TYPE_RINGBUF, 0),
        _ => (sys::MAP_TYPE_ARRAY, sys::F_MMAPABLE),
    };
    let entries = entries(spec, i);
    let bytes = u64::from(entries) * u64::from(value_size(i).max(1));
    let fd = sys::map_create(kind, value_size(i), entries, flags, &format!("cm_{name}"))
        .map_err(|source| Error::Map { name, bytes, source })?;
    if kind == sys::MAP_TYPE_ARRAY {
        sys::map_freeze(fd.as_fd()).map_err(|source| Error::Share { what: "freeze", name, source })?;
    }
    Ok(fd)
}

impl Set {
    /// Makes the maps, freezes them and loads the programs. Attaches nothing.
    pub fn create(spec: SetSpec) -> Result<Self, Error> {
        for (name, n) in [
            ("flows", spec.flows),
            ("pairs", spec.pairs),
            ("ports", spec.ports),
            ("hists", spec.hists),
            ("ring", spec.ring_bytes),
        ] {
            let ok = match name {
                "flows" => buckets::is_size(n),
                "ring" => n.is_power_of_two() && n >= 4096,
                _ => n.is_power_of_two(),
            };
            if !ok {
                let source = io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "sizes are powers of two, the ring's at least 4096, the flow table's a multiple of 16",
                );
                return Err(Error::Map { name: "tables", bytes: u64::from(n), source });
            }
        }
        let mut maps = Vec::with_capacity(6);
        for i in 0..6 {
            maps.push(create_map(&spec, i)?);
        }
        let maps: [OwnedFd; 6] = maps.try_into().map_err(|_| Error::Object("six maps".into()))?;
        let settings = settings_map(&spec.settings().map_err(settings_failed)?)?;
        let spec = SetSpec { pair_extents: 0, hist_extents: 0, ..spec };
        let set = Self::with_maps(spec, maps, Arc::new(Extents::create()?), settings, None)?;
        // marks the layout in ctl, and proves that the janitor runs
        set.janitor().run(&[Command::FlowSlots(spec.flows)])?;
        Ok(set)
    }

    /// Loads the programs over these maps. With `older`, the set of before, they take over what its flow table knows.
    pub(crate) fn with_maps(
        spec: SetSpec,
        maps: [OwnedFd; 6],
        extents: Arc<Extents>,
        settings: OwnedFd,
        older: Option<Arc<Set>>,
    ) -> Result<Self, Error> {
        let mut names = vec!["cm_tx", "cm_rx", "cm_janitor", "cm_janitor_one"];
        let settings_with;
        let mut fds = match &older {
            None => object::load(&names, &wiring(&maps, &extents, &settings, None))?,
            Some(set) => {
                names.push("cm_mover");
                let plain = read_settings(settings.as_fd())?;
                settings_with = settings_map(&with_older(plain, set.spec.flows))?;
                object::load(&names, &wiring(&maps, &extents, &settings_with, Some(set.flows())))?
            }
        }
        .into_iter();
        let (Some(tx), Some(rx), Some(janitor), Some(janitor_one)) =
            (fds.next(), fds.next(), fds.next(), fds.next())
        else {
            return Err(Error::Object("no programs".into()));
        };
        let older = older.zip(fds.next()).map(|(set, mover)| Older { set, mover });
        let programs = Programs { tx, rx };
        let elsewhere = Mutex::default();
        Ok(Self { spec, maps, extents, settings, programs, janitor, janitor_one, older, elsewhere })
    }

    /// The programs for a control group, over the same maps; `number` is the port's.
    pub(crate) fn group_programs(&self, number: u32) -> Result<Programs, Error> {
        self.more_programs(["cm_group_tx", "cm_group_rx"], |plain| Settings { group: number, ..plain })
    }

    /// The programs for the interfaces of another network namespace, over the same maps. They are loaded once.
    pub(crate) fn programs_elsewhere(&self, base: u32) -> Result<Arc<Programs>, Error> {
        let mut loaded = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = loaded.get(&base) {
            return Ok(programs.clone());
        }
        // links hold their programs themselves: those of a network that has gone are not to be kept for ever
        if loaded.len() >= MOST_LOADED {
            loaded.pop_first();
        }
        let programs =
            self.more_programs(["cm_tx", "cm_rx"], |plain| Settings { elsewhere: base, ..plain })?;
        Ok(loaded.entry(base).or_insert(Arc::new(programs)).clone())
    }

    fn more_programs(
        &self,
        names: [&'static str; 2],
        settings: impl FnOnce(Settings) -> Settings,
    ) -> Result<Programs, Error> {
        let plain = settings(read_settings(self.settings.as_fd())?);
        let (settings, older) = match &self.older {
            None => (plain, None),
            Some(older) => (with_older(plain, older.set.spec.flows), Some(older.set.flows())),
        };
        let settings = settings_map(&settings)?;
        let mut fds = object::load(&names, &wiring(&self.maps, &self.extents, &settings, older))?.into_iter();
        match (fds.next(), fds.next()) {
            (Some(tx), Some(rx)) => Ok(Programs { tx, rx }),
            _ => Err(Error::Object("no programs".into())),
        }
    }

    /// The set's sizes now.
    pub fn spec(&self) -> SetSpec {
        self.extents.count(self.spec)
    }

    pub(crate) fn flows(&self) -> BorrowedFd<'_> {
        self.maps[0].as_fd()
    }

    /// The programs to attach.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Who ends and frees the set's records.
    pub fn janitor(&self) -> Janitor<'_> {
        Janitor::new(self.janitor.as_fd(), self.janitor_one.as_fd())
    }

    pub(crate) fn janitor_fd(&self) -> BorrowedFd<'_> {
        self.janitor.as_fd()
    }

    pub(crate) fn clone_maps(&self) -> Result<[OwnedFd; 6], Error> {
        let failed = |source| Error::Share { what: "share", name: "maps", source };
        let mut maps = Vec::with_capacity(self.maps.len());
        for map in &self.maps {
            maps.push(map.try_clone().map_err(failed)?);
        }
        maps.try_into().map_err(|_| failed(io::Error::other("six maps")))
    }

    /// Descriptors for a reader in this or another process.
    pub fn descriptors(&self) -> io::Result<Descriptors> {
        let mut fds = Vec::with_capacity(Descriptors::MOST);
        for map in &self.maps {
            fds.push(map.try_clone()?);
        }
        let mut spec = self.spec;
        // the table may be extended in this moment: what is told is what is handed over
        for of in Extensible::ALL {
            let extents = self.extents.of(of);
            *of.taken(&mut spec) = extents.len() as u32;
            for extent in extents {
                fds.push(extent.try_clone()?);
            }
        }
        Ok(Descriptors { fds, spec })
    }

    /// Pins the maps in `dir`, which is made. Pins of the set with another flow table are replaced; what this one has in
    /// the table before is pinned first, see [`Set::adopt`].
    pub fn pin(&self, dir: &Path) -> Result<(), Error> {
        fs::create_dir_all(dir).map_err(|source| pin_error("make", dir, source))?;
        fault::point("set.dir");
        if let Some(older) = &self.older {
            replace_pin(dir, OLDER, older.set.flows())?;
        }
        for (name, map) in Descriptors::NAMES.iter().zip(&self.maps) {
            replace_pin(dir, name, map.as_fd())?;
        }
        replace_pin(dir, SETTINGS, self.settings.as_fd())?;
        self.extents.pin(dir)
    }

    /// Adopts a pinned set: opens its maps and loads this build's programs over them. Refuses another layout.
    pub fn adopt(dir: &Path) -> Result<Self, Error> {
        let open = |name: &str| {
            let path = dir.join(name);
            sys::obj_get(&path).map_err(|source| pin_error("open", &path, source))
        };
        let mut maps = Vec::with_capacity(6);
        let mut sizes = [0u32; 6];
        for (i, name) in Descriptors::NAMES.iter().enumerate() {
            let fd = open(name)?;
            let (size, entries) =
                sys::map_info(fd.as_fd()).map_err(|source| pin_error("read", &dir.join(name), source))?;
            if size != value_size(i) {
                return Err(Error::Layout { found: 0 });
            }
            sizes[i] = entries;
            maps.push(fd);
        }
        let maps: [OwnedFd; 6] = maps.try_into().map_err(|_| Error::Object("six maps".into()))?;
        let mut ctl = [0u8; size_of::<abi::Ctl>()];
        sys::map_lookup(maps[4].as_fd(), 0, &mut ctl)
            .map_err(|source| pin_error("read", &dir.join("ctl"), source))?;
        let ctl = abi::from_bytes::<abi::Ctl>(&ctl).ok_or(Error::Layout { found: 0 })?;
        if ctl.abi != abi::ABI {
            return Err(Error::Layout { found: ctl.abi });
        }
        let mut settings = open(SETTINGS)?;
        let kept = read_settings(settings.as_fd())?;
        let flows = buckets::flows_in(sizes[0]).ok_or(Error::Layout { found: 0 })?;
        if kept.flow_buckets != flows / abi::PLACES {
            // a crash came between the pins of the table and of its settings
            settings = settings_map(&Settings { flow_buckets: flows / abi::PLACES, ..kept })?;
            replace_pin(dir, SETTINGS, settings.as_fd())?;
        }
        let flags = kept.flags;
        let spec = SetSpec {
            flows,
            pairs: sizes[1],
            ports: sizes[2],
            hists: sizes[3],
            pair_extents: 0,
            hist_extents: 0,
            ring_bytes: sizes[5],
            rtt: flags & abi::flag::RTT != 0,
            paced: flags & abi::flag::PACED != 0,
            samples: flags & abi::flag::SAMPLES != 0,
        };
        let extents = Arc::new(Extents::adopt(dir, &spec)?);
        let older = grow::adopt_older(dir, spec, &maps, &extents, &kept)?;
        let flow_slots = older.as_ref().map_or(spec.flows, |o| o.spec.flows);
        let set = Self::with_maps(spec, maps, extents, settings, older)?;
        if ctl.flow_slots == 0 {
            set.janitor().run(&[Command::FlowSlots(flow_slots)])?;
        }
        Ok(set)
    }

    /// Removes a pinned set's directory with all that is in it, attached ports included: their links go with
    /// their last pin.
    pub fn unpin(dir: &Path) -> Result<(), Error> {
        let list = match fs::read_dir(dir) {
            Ok(list) => list,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(pin_error("list", dir, source)),
        };
        for entry in list.flatten() {
            let path = entry.path();
            let removed = if entry.file_type().is_ok_and(|t| t.is_dir()) {
                Self::unpin(&path)
            } else {
                fs::remove_file(&path).map_err(|source| pin_error("remove", &path, source))
            };
            match removed {
                Ok(()) => fault::point("set.unpin"),
                Err(Error::Pin { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        fs::remove_dir(dir).map_err(|source| pin_error("remove", dir, source))
    }

    /// For tests and benchmarks: runs the direction's program once over a frame, as if it passed interface `ifindex`
    /// with `gso_segs` segments.
    pub fn test_run(
        &self,
        direction: Direction,
        frame: &[u8],
        ifindex: u32,
        gso_segs: u32,
    ) -> io::Result<()> {
        // struct __sk_buff of linux/bpf.h: ifindex at 40, gso_segs at 164
        let mut ctx = [0u8; 192];
        ctx[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        ctx[164..168].copy_from_slice(&gso_segs.to_ne_bytes());
        sys::test_run(self.programs.of(direction), frame, Some(&ctx), 1).map(drop)
    }
}

fn wiring<'a>(
    maps: &'a [OwnedFd; 6],
    extents: &'a Extents,
    settings: &'a OwnedFd,
    older: Option<BorrowedFd<'a>>,
) -> Vec<(&'static str, BorrowedFd<'a>)> {
    let mut all: Vec<(&'static str, BorrowedFd<'a>)> =
        Descriptors::NAMES.iter().zip(maps).map(|(name, fd)| (*name, fd.as_fd())).collect();
    all.extend(extents.more());
    // what does not look into a table before must be given one all the same
    all.push(("older", older.unwrap_or(maps[0].as_fd())));
    // nor does any program of a set look into the dispatcher's places
    all.push((TARGETS, maps[0].as_fd()));
    all.push((".rodata", settings.as_fd()));
    all
}

/// The same for programs that look into the table before, of so many records, too.
fn with_older(plain: Settings, flows: u32) -> Settings {
    Settings { flags: plain.flags | abi::flag::OLDER, older_buckets: flows / abi::PLACES, ..plain }
}

fn settings_failed(source: io::Error) -> Error {
    Error::Map { name: SETTINGS, bytes: size_of::<Settings>() as u64, source }
}

/// A map of settings, which nobody can change any more.
pub(crate) fn settings_map(settings: &Settings) -> Result<OwnedFd, Error> {
    let (size, flags) = (size_of::<Settings>() as u32, sys::F_RDONLY_PROG);
    let map = sys::map_create(sys::MAP_TYPE_ARRAY, size, 1, flags, "cm_settings").map_err(settings_failed)?;
    sys::map_update(map.as_fd(), 0, abi::bytes_of(settings)).map_err(settings_failed)?;
    sys::map_freeze(map.as_fd()).map_err(settings_failed)?;
    Ok(map)
}

pub(crate) fn read_settings(map: BorrowedFd<'_>) -> Result<Settings, Error> {
    let mut bytes = [0u8; size_of::<Settings>()];
    sys::map_lookup(map, 0, &mut bytes).map_err(settings_failed)?;
    abi::from_bytes(&bytes).ok_or_else(|| settings_failed(io::Error::other("too short")))
}

/// Pins a map in place of what is pinned there: at every moment one of the two is.
pub(crate) fn replace_pin(dir: &Path, name: &str, fd: BorrowedFd<'_>) -> Result<(), Error> {
    let (path, next) = (dir.join(name), dir.join(format!("{name}-next")));
    let _ = fs::remove_file(&next);
    sys::obj_pin(fd, &next).map_err(|source| pin_error("pin", &next, source))?;
    fault::point("set.pin-next");
    fs::rename(&next, &path).map_err(|source| pin_error("pin", &path, source))?;
    fault::point("set.pin");
    Ok(())
}

pub(crate) fn pin_error(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Pin { what, path: path.display().to_string(), source }
}
