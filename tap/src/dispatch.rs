//! The dispatcher: one pair of filters for all ports that are held by classifiers, and a place for each port that says which programs are meant.
//!
//! A port is bound to the filters by one request to the kernel, and moved to another set's programs by none. Both matter while containers
//! start: each request waits for the lock for network devices, behind all that the engine wants of it.
//!
//! It owns `DIR/dispatch/{tx,rx}`, arrays of programs that are pinned beside the sets, and the device that holds the filters. All of that
//! outlives its owner, and is taken over by the next.
//!
//! What it does not do is take a qdisc off a port just so, see [`quiet`].

mod quiet;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ippm::flow::Direction;

use crate::abi;
use crate::cost::{Runs, read};
use crate::error::Error;
use crate::extents::Extensible;
use crate::fault;
use crate::fnv;
use crate::netlink::{self, Blocks, Unbound};
use crate::set::{DIRECTIONS, Descriptors, Programs, pin_error};
use crate::{object, sys};

use quiet::{Places, bound_to};
pub use quiet::{Removed, Tidied};

/// The map that is one of the arrays in the dispatcher's programs.
pub(crate) const TARGETS: &str = "targets";

/// What is where for the sets below a folder.
pub(crate) struct Names {
    pub(crate) blocks: Blocks,
    holder: String,
}

impl Names {
    /// Of the same folder the same, in every build.
    pub(crate) fn of(root: &Path) -> Self {
        let hash = fnv::hash(root.as_os_str().as_encoded_bytes());
        // small numbers are other people's
        let blocks = Blocks { tx: hash | 0x8000_0001, rx: (hash | 0x8000_0000) & !1 };
        let last = root.file_name().unwrap_or_default().to_string_lossy();
        // the kernel takes 15 octets
        let plain = format!("conmon-{last}");
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let holder =
            if plain.len() < 16 && plain.bytes().all(is_name) { plain } else { format!("conmon-{hash:08x}") };
        Self { blocks, holder }
    }
}

/// The dispatcher of the sets below a folder, in the network namespace in which it was made.
pub struct Dispatcher {
    names: Names,
    /// By direction.
    targets: [OwnedFd; 2],
    programs: [OwnedFd; 2],
    places: Mutex<Places>,
    /// The filters are where they should be.
    serves: AtomicBool,
    /// Ready to ask, in the dispatcher's network namespace.
    sockets: Mutex<Vec<OwnedFd>>,
}

/// Sockets that are kept.
const SOCKETS: usize = 8;

fn place_of(ifindex: u32) -> u32 {
    ifindex & (abi::TARGETS - 1)
}

fn pin_of(root: &Path, direction: Direction) -> PathBuf {
    root.join(Dispatcher::DIR).join(direction.as_str())
}

impl Dispatcher {
    /// Where its pins are, beside the sets'.
    pub const DIR: &str = "dispatch";

    /// Makes the dispatcher of the sets below `root`, or takes over what an earlier one left; then it takes ports.
    pub fn start(root: &Path) -> Result<Arc<Self>, Error> {
        let dispatcher = Self::over(root, Self::targets(root)?)?;
        dispatcher.serve()?;
        Ok(Arc::new(dispatcher))
    }

    /// Takes over what an earlier one left, for the ports that it has; it takes no others. None if there is nothing.
    pub fn adopt(root: &Path) -> Result<Option<Arc<Self>>, Error> {
        let is_there = || DIRECTIONS.into_iter().all(|direction| pin_of(root, direction).exists());
        let has_ports = || netlink::bound_to(Names::of(root).blocks).is_ok_and(|bound| !bound.is_empty());
        if !is_there() && !has_ports() {
            return Ok(None);
        }
        Self::over(root, Self::targets(root)?).map(|made| Some(Arc::new(made)))
    }

    /// The arrays, made if they are not there.
    fn targets(root: &Path) -> Result<[OwnedFd; 2], Error> {
        let dir = root.join(Self::DIR);
        fs::create_dir_all(&dir).map_err(|source| pin_error("make", &dir, source))?;
        let [tx, rx] = DIRECTIONS.map(|direction| {
            let path = pin_of(root, direction);
            if let Ok(there) = sys::obj_get(&path) {
                return Ok(there);
            }
            let bytes = u64::from(abi::TARGETS) * 8;
            let made = sys::map_create(sys::MAP_TYPE_PROG_ARRAY, 4, abi::TARGETS, 0, "cm_targets")
                .map_err(|source| Error::Map { name: TARGETS, bytes, source })?;
            sys::obj_pin(made.as_fd(), &path).map_err(|source| pin_error("pin", &path, source))?;
            Ok(made)
        });
        fault::point("dispatch.pinned");
        Ok([tx?, rx?])
    }

    fn over(root: &Path, targets: [OwnedFd; 2]) -> Result<Self, Error> {
        let program = |targets: BorrowedFd<'_>| {
            // it has no business with any other map
            let mut wiring = vec![(TARGETS, targets), ("older", targets), (".rodata", targets)];
            wiring.extend(Descriptors::NAMES.map(|name| (name, targets)));
            wiring.extend(Extensible::NAMES.map(|name| (name, targets)));
            let loaded = object::load(&["cm_dispatch"], &wiring)?.pop();
            loaded.ok_or_else(|| Error::Object("no programs".into()))
        };
        let programs = [program(targets[0].as_fd())?, program(targets[1].as_fd())?];
        let serves = AtomicBool::new(false);
        let (places, sockets) = Default::default();
        let dispatcher = Self { names: Names::of(root), targets, programs, places, serves, sockets };
        // before anybody else gets a place of theirs
        for ifindex in
            bound_to(&dispatcher.names).map_err(dispatcher.failed("see what ports are bound to"))?
        {
            dispatcher.places().leave(ifindex);
        }
        Ok(dispatcher)
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let holder = self.names.holder.clone();
        move |source| Error::Dispatch { what, holder, source }
    }

    /// Sees to it that there is a device that holds the filters, with this build's programs. To be called again when somebody removed it.
    pub fn serve(&self) -> Result<(), Error> {
        let Names { blocks, holder } = &self.names;
        let failed = |what| move |source| Error::Dispatch { what, holder: holder.clone(), source };
        netlink::make_holder(holder).map_err(failed("make"))?;
        let ifindex =
            nix::net::if_::if_nametoindex(holder.as_str()).map_err(|e| failed("find")(io::Error::from(e)))?;
        fault::point("dispatch.holder");
        if !self.bind(ifindex).map_err(failed("put filters on"))? {
            return Err(failed("put filters on")(io::Error::other("it has a clsact qdisc that is not ours")));
        }
        fault::point("dispatch.bound");
        for (direction, program) in DIRECTIONS.into_iter().zip(&self.programs) {
            netlink::set_block_filter(*blocks, direction, program.as_fd())
                .map_err(failed("put filters on"))?;
            fault::point("dispatch.filter");
        }
        self.serves.store(true, Ordering::Release);
        Ok(())
    }

    /// Binds an interface of this network namespace to the filters. False if it has a qdisc already that is not.
    pub(crate) fn bind(&self, ifindex: u32) -> io::Result<bool> {
        let sockets = || self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = sockets().pop();
        let socket = kept.map_or_else(netlink::open, Ok)?;
        let bound = netlink::bind_blocks(socket.as_fd(), ifindex, self.names.blocks);
        if !matches!(bound, Err(Unbound::Unanswered(_))) {
            let mut sockets = sockets();
            if sockets.len() < SOCKETS {
                sockets.push(socket);
            }
        }
        Ok(bound?)
    }

    /// Whether an interface of this network namespace is bound to the filters.
    pub fn is_bound(&self, ifindex: u32) -> bool {
        netlink::blocks_of(ifindex).is_ok_and(|of| of == Some(self.names.blocks))
    }

    /// Whether the device is there, bound to the filters.
    pub fn is_whole(&self) -> bool {
        nix::net::if_::if_nametoindex(self.names.holder.as_str()).is_ok_and(|holder| self.is_bound(holder))
    }

    /// It takes no more ports, until it [serves](Self::serve) again.
    pub fn pause(&self) {
        self.serves.store(false, Ordering::Release);
    }

    /// Whether it takes ports.
    pub fn serves(&self) -> bool {
        self.serves.load(Ordering::Acquire)
    }

    /// The name of the device that holds the filters.
    pub fn holder(&self) -> &str {
        &self.names.holder
    }

    /// Runs of the direction's program, with what it went on as.
    pub fn runs(&self, direction: Direction) -> Result<Runs, Error> {
        read(self.programs[usize::from(direction == Direction::Rx)].as_fd())
    }

    pub(crate) fn blocks(&self) -> Blocks {
        self.names.blocks
    }

    /// Not to be held while the kernel is asked for anything that takes its lock: who taps a new port waits for it.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What passes this port goes on as these programs from now on. False if another port has its place.
    pub(crate) fn put(&self, ifindex: u32, programs: &Programs) -> io::Result<bool> {
        if !self.places().take(ifindex) {
            return Ok(false);
        }
        for (direction, targets) in DIRECTIONS.into_iter().zip(&self.targets) {
            let program = programs.of(direction).as_raw_fd();
            sys::map_update(targets.as_fd(), place_of(ifindex), &program.to_ne_bytes())?;
            fault::point(match direction {
                Direction::Tx => "dispatch.put-tx",
                Direction::Rx => "dispatch.put-rx",
            });
        }
        Ok(true)
    }

    /// A port that an earlier owner had has its place; what is there is as it was.
    pub(crate) fn keep(&self, ifindex: u32) {
        self.places().take(ifindex);
    }

    /// Empties a port's place, which nobody else gets as long as the port is bound: it runs no program from now on, and is taken off the
    /// filters when it is [quiet](Self::tidy).
    pub(crate) fn release(&self, ifindex: u32) {
        let mut places = self.places();
        if places.has(ifindex) {
            self.empty(place_of(ifindex));
            places.leave(ifindex);
        }
    }

    /// A port that is not bound needs no place.
    pub(crate) fn forget(&self, ifindex: u32) {
        let mut places = self.places();
        if places.has(ifindex) {
            self.empty(place_of(ifindex));
        }
        places.forget(ifindex);
    }

    fn empty(&self, place: u32) {
        for targets in &self.targets {
            // what stays is emptied by the next owner, or goes with the array
            if let Err(error) = sys::map_delete(targets.as_fd(), place) {
                tracing::debug!(place, %error, "a place of the dispatcher is not emptied");
            }
        }
    }

    /// How many places hold a program, by direction.
    pub fn filled(&self) -> io::Result<[usize; 2]> {
        let mut filled = [0; 2];
        for (targets, filled) in self.targets.iter().zip(&mut filled) {
            for place in 0..abi::TARGETS {
                match sys::map_lookup(targets.as_fd(), place, &mut [0; 4]) {
                    Ok(()) => *filled += 1,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(filled)
    }

    /// Empties all places that no port has: what a crash left there holds the programs and the maps of sets that have gone.
    pub fn sweep(&self) {
        let places = self.places();
        (0..abi::TARGETS).filter(|place| !places.is_in_use(*place)).for_each(|place| self.empty(place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_folder_s_own_and_fit_the_kernel() {
        let of = |root: &str| Names::of(Path::new(root));
        let default = of("/sys/fs/bpf/conmon/default");
        assert_eq!(default.holder, "conmon-default");
        let long = of("/sys/fs/bpf/conmon/an-instance-with-a-long-name");
        assert!(long.holder.len() == 15 && long.holder.starts_with("conmon-"), "{}", long.holder);
        assert!(of("/sys/fs/bpf/conmon/a.b/c").holder.ends_with("-c"));
        assert!(of("/sys/fs/bpf/conmon/a.b").holder.len() == 15, "a dot is no part of a name");
        for names in [default, long] {
            let Blocks { tx, rx } = names.blocks;
            assert!(tx != rx && tx != u32::MAX && tx > 1 << 31 && rx >= 1 << 31, "{tx:#x} {rx:#x}");
        }
        // an earlier build's ports are on these
        let blocks = of("/sys/fs/bpf/conmon/default").blocks;
        assert_eq!(blocks, Blocks { tx: 0xe62cd7bd, rx: 0xe62cd7bc });
    }
}
