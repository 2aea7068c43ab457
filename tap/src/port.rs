//! A tapped port: the two programs of a set on a container's host-side interface.
//!
//! There are two ways to put them there:
//! - **clsact**: classifiers of a qdisc, there in some 0.1 ms. Whoever deletes the qdisc deletes the tap.
//! - **TCX** (Linux 6.6): a link for each direction, which nobody else can take away. The kernel waits for an RCU grace period
//!   for each, some 30 ms in all, and holds the lock for network devices all the while, against everybody.
//!
//! So a port that appears is tapped by classifiers at once, and [fastened](Port::fasten) by TCX when there is
//! time. In between both are there, and each packet passes both; the programs see to it that it is counted once.
//!
//! Where many ports come at once, their classifiers are those that all of them [share](Port::attach_shared): one request to the kernel
//! for each port, not three.
//!
//! Pins are `SET/taps/IFINDEX-{tx,rx}` of the links, and of a program as a mark that there are classifiers:
//! `IFINDEX-clsact`, and `IFINDEX-clsact-shared`. The mark is there before filters of the port's own and goes after
//! them, so that nothing outlives a crash without one. The qdisc is not taken away with them: while it is, the kernel drops packets
//! ([`crate::dispatch`] takes its own when nothing is sent). The directory that holds the pins is the set the port
//! belongs to: moving a port renames the pins, then exchanges the programs, so that an adopter who first
//! [mends](Port::mend) and then puts every port to its directory's programs repairs whatever a crash left half done.
//!
//! A container without an interface of its own is tapped at its control group, by a link for each direction, with programs that know
//! the group's number: [`Port::attach_group`]. Its pins bear that number in place of an interface's.
//!
//! A port in another network namespace is tapped by TCX, from within that namespace: [`Port::attach_elsewhere`].
//!
//! Nothing is ever missed: a new program replaces the old one between two packets.

mod elsewhere;
mod group;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ippm::flow::Direction;

use crate::dispatch::{Dispatcher, Names};
use crate::error::Error;
use crate::fault;
use crate::janitor::{Command, Janitor};
use crate::netlink::{self, Blocks};
use crate::set::{DIRECTIONS, Programs, Set, pin_error};
use crate::sys;

pub use elsewhere::{Namespace, is_elsewhere};
pub use group::{group_number, is_group};

/// How programs get onto a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// TCX, clsact where the kernel has no TCX.
    #[default]
    Auto,
    /// clsact, to be fastened later; TCX where the kernel has no clsact.
    Quick,
    /// TCX only.
    Tcx,
    /// clsact only.
    Clsact,
}

/// Whether the kernel has TCX: Linux 6.6 or later, where the programs' loader may use it.
pub fn has_tcx(programs: &Programs) -> bool {
    // an interface that cannot be: only a kernel that knows the attach type looks for it
    let made = sys::link_create_tcx(programs.of(Direction::Tx), i32::MAX as u32, sys::TCX_INGRESS, true);
    made.is_err_and(|e| e.raw_os_error() == Some(libc::ENODEV))
}

/// Links, by direction.
struct Links {
    tx: OwnedFd,
    rx: OwnedFd,
}

/// Classifiers at both directions.
#[derive(Clone)]
enum Filters {
    /// The port's own, with their mark.
    Own(&'static str),
    /// Those that ports share. Without a dispatcher they go on as they are.
    Shared(Blocks, Option<Arc<Dispatcher>>),
}

impl Filters {
    const ALL_KINDS: [&str; 3] = [CLSACT, OLD_CLSACT, SHARED];

    fn pin_kind(&self) -> &'static str {
        match self {
            Self::Own(mark) => mark,
            Self::Shared(..) => SHARED,
        }
    }

    /// Whether they are at the port.
    fn are_at(&self, ifindex: u32) -> bool {
        match self {
            Self::Own(_) => netlink::has_filter(ifindex),
            Self::Shared(blocks, _) => netlink::blocks_of(ifindex).is_ok_and(|of| of == Some(*blocks)),
        }
    }
}

/// The kinds of pins in a directory of ports, by interface.
fn pinned(dir: &Path) -> Result<BTreeMap<u32, Vec<String>>, Error> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(pin_error("list", dir, source)),
    };
    let mut pinned: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for name in list.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let Some((number, kind)) = name.split_once('-') else { continue };
        let Ok(ifindex) = number.parse() else { continue };
        pinned.entry(ifindex).or_default().push(kind.to_owned());
    }
    Ok(pinned)
}

const CLSACT: &str = "clsact";
/// An earlier build's, where it had made the qdisc.
const OLD_CLSACT: &str = "clsact-ours";
const SHARED: &str = "clsact-shared";

enum Hold {
    Tcx(Links),
    Clsact(Filters),
    /// Being fastened: the set's `overlap` is on.
    Both(Links, Filters),
    /// On a control group.
    Group(Links),
}

/// A tapped port. Dropping it leaves a pinned tap in place, and removes one that is not pinned (TCX only).
pub struct Port {
    /// The port's number: the interface's index, where that is one of this network namespace.
    ifindex: u32,
    hold: Hold,
    dir: Option<PathBuf>,
}

/// Where a set's ports are pinned.
fn ports_dir(set_dir: &Path) -> PathBuf {
    // not `ports`: a map of that name is pinned beside it
    set_dir.join("taps")
}

fn direction_name(direction: Direction) -> &'static str {
    direction.as_str()
}

fn links(programs: &Programs, ifindex: u32) -> Result<Links, Error> {
    let made = |direction| {
        link(programs, ifindex, direction).map_err(|source| {
            // a kernel that does not know the attach type calls it invalid
            if source.raw_os_error() == Some(libc::EINVAL) && !has_tcx(programs) {
                return Error::NoTcx { ifindex };
            }
            Error::Attach { ifindex, direction: direction_name(direction), source }
        })
    };
    let tx = made(Direction::Tx)?;
    fault::point("links.tx");
    let rx = made(Direction::Rx)?;
    fault::point("links.rx");
    Ok(Links { tx, rx })
}

/// Filters of the port's own, with their mark in `dir`. `unbinds`: if need be the port is taken off those that it shared, packets or not.
fn filters(programs: &Programs, ifindex: u32, dir: Option<&Path>, unbinds: bool) -> Result<Filters, Error> {
    let mark = dir.map(|dir| dir.join(format!("{ifindex}-{CLSACT}")));
    if let Some(mark) = &mark {
        pin(mark, programs.of(Direction::Tx))?;
    }
    fault::point("filters.marked");
    let all = DIRECTIONS.map(|direction| (direction, programs.of(direction)));
    let add = || netlink::add_filters(ifindex, all);
    let put = match (add(), dir.and_then(|dir| dir.parent()?.parent())) {
        // the qdisc that was there is just being taken away
        (Err((_, e)), _) if e.raw_os_error() == Some(libc::EINVAL) => add(),
        // it has no room for others' filters
        (Err((direction, e)), Some(root)) if unbinds && e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let unbound = netlink::remove_blocks(ifindex, Names::of(root).blocks);
            unbound.map_err(|source| (direction, source)).and_then(|()| add())
        }
        (put, _) => put,
    };
    if let Err((direction, source)) = put {
        if let Some(mark) = mark {
            let _ = fs::remove_file(mark);
        }
        return Err(Error::Attach { ifindex, direction: direction_name(direction), source });
    }
    fault::point("filters.put");
    Ok(Filters::Own(CLSACT))
}

fn remove_filters(ifindex: u32, filters: &Filters) -> Result<(), (Direction, io::Error)> {
    if let Filters::Shared(blocks, dispatcher) = filters {
        match dispatcher {
            // from now on the port runs no program there
            Some(dispatcher) => dispatcher.release(ifindex),
            None => netlink::remove_blocks(ifindex, *blocks).map_err(|source| (Direction::Tx, source))?,
        }
        fault::point("unfilter.shared");
        return Ok(());
    }
    for direction in DIRECTIONS {
        netlink::remove_filter(ifindex, direction).map_err(|source| (direction, source))?;
        fault::point(match direction {
            Direction::Tx => "unfilter.tx",
            Direction::Rx => "unfilter.rx",
        });
    }
    Ok(())
}

/// Pins; what an interface that had this number before left there is dead and goes.
fn pin(path: &Path, fd: BorrowedFd<'_>) -> Result<(), Error> {
    match sys::obj_pin(fd, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path).map_err(|source| pin_error("remove", path, source))?;
            sys::obj_pin(fd, path)
        }
        other => other,
    }
    .map_err(|source| pin_error("pin", path, source))
}

/// From the container the tap comes before other programs, which may drop what the interface has counted already; to
/// the container after them.
fn link(programs: &Programs, ifindex: u32, direction: Direction) -> io::Result<OwnedFd> {
    let (at, first) = match direction {
        Direction::Tx => (sys::TCX_INGRESS, true),
        Direction::Rx => (sys::TCX_EGRESS, false),
    };
    sys::link_create_tcx(programs.of(direction), ifindex, at, first)
}

/// Whether this kernel knows TCX at all, asked without a program, of the network namespace's loopback interface.
pub fn kernel_has_tcx() -> bool {
    const LOOPBACK: u32 = 1;
    // a kernel that does not know TCX calls the attach type invalid
    !matches!(sys::tcx_query(LOOPBACK, sys::TCX_INGRESS), Err(e) if e.raw_os_error() == Some(libc::EINVAL))
}

/// How many programs, anybody's, are on an interface of this network namespace by TCX: from the container, to the
/// container. None on a kernel that has no TCX; filters of a clsact qdisc are not among them.
pub fn tcx_programs(ifindex: u32) -> Result<[u32; 2], Error> {
    let count = |at| match sys::tcx_query(ifindex, at) {
        // a kernel that does not know TCX calls the attach type invalid
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(0),
        other => other.map_err(|source| Error::Query { ifindex, source }),
    };
    Ok([count(sys::TCX_INGRESS)?, count(sys::TCX_EGRESS)?])
}

impl Port {
    /// Attaches `programs` to both directions of an interface of this network namespace; pins under `set_dir`.
    pub fn attach(
        ifindex: u32,
        programs: &Programs,
        how: Attach,
        set_dir: Option<&Path>,
    ) -> Result<Self, Error> {
        // a kernel without the qdisc, or without its BPF classifier; or a qdisc that is bound to filters that are shared
        let has_no_clsact = |e: &Error| match e {
            Error::Attach { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP))
            }
            _ => false,
        };
        let dir = set_dir.map(ports_dir);
        if let Some(dir) = &dir {
            fs::create_dir_all(dir).map_err(|source| pin_error("make", dir, source))?;
        }
        let tcx = || links(programs, ifindex).map(Hold::Tcx);
        let clsact = |unbinds| filters(programs, ifindex, dir.as_deref(), unbinds).map(Hold::Clsact);
        let hold = match how {
            Attach::Clsact => clsact(true)?,
            Attach::Tcx => tcx()?,
            Attach::Auto => match tcx() {
                Err(Error::NoTcx { .. }) => clsact(true)?,
                other => other?,
            },
            Attach::Quick => match clsact(false) {
                Err(e) if has_no_clsact(&e) => match tcx() {
                    Err(none @ Error::NoTcx { .. }) => clsact(true).map_err(|_| none)?,
                    other => other?,
                },
                other => other?,
            },
        };
        let port = Self { ifindex, hold, dir };
        if let (Some(dir), Hold::Tcx(links)) = (&port.dir, &port.hold) {
            port.pin_links(dir, links)?;
        }
        Ok(port)
    }

    /// Attaches `programs` to both directions of an interface of this network namespace, on the filters that ports share; pins under
    /// `set_dir`. None if they are not to be had: another port has its place, the interface has a clsact qdisc already, or the dispatcher
    /// does not [serve](Dispatcher::serves).
    pub fn attach_shared(
        dispatcher: &Arc<Dispatcher>,
        ifindex: u32,
        programs: &Programs,
        set_dir: &Path,
    ) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Attach { ifindex, direction: direction_name(Direction::Tx), source };
        if !dispatcher.serves() {
            return Ok(None);
        }
        // Nothing that can wait comes before this: while we prepare ourselves the engine may get the lock. A port without a mark that a crash
        // leaves is bound already for the next owner, who looks at all ports, and it is found by the blocks where all of it goes.
        let bound = match dispatcher.put(ifindex, programs) {
            Ok(true) => dispatcher.bind(ifindex),
            other => other,
        };
        match bound {
            Ok(true) => {}
            // it was refused its place, or has a qdisc of somebody else's
            Ok(false) => {
                dispatcher.forget(ifindex);
                return Ok(None);
            }
            Err(error) => {
                // it may be bound all the same
                dispatcher.release(ifindex);
                return Err(failed(error));
            }
        }
        fault::point("shared.bound");
        let dir = ports_dir(set_dir);
        let hold = Hold::Clsact(Filters::Shared(dispatcher.blocks(), Some(dispatcher.clone())));
        let port = Self { ifindex, hold, dir: Some(dir.clone()) };
        let marked = fs::create_dir_all(&dir)
            .map_err(|source| pin_error("make", &dir, source))
            .and_then(|()| pin(&dir.join(port.pin_name(SHARED)), programs.of(Direction::Tx)));
        fault::point("shared.marked");
        match marked {
            Ok(()) => Ok(Some(port)),
            Err(error) => {
                let _ = port.detach();
                Err(error)
            }
        }
    }

    fn pin_links(&self, dir: &Path, links: &Links) -> Result<(), Error> {
        pin(&dir.join(self.pin_name("tx")), links.tx.as_fd())?;
        fault::point("links.pin-tx");
        pin(&dir.join(self.pin_name("rx")), links.rx.as_fd())?;
        fault::point("links.pin-rx");
        Ok(())
    }

    fn pin_name(&self, kind: &str) -> String {
        format!("{}-{kind}", self.ifindex)
    }

    fn pin_names(&self) -> Vec<String> {
        let kinds: &[&str] = match &self.hold {
            Hold::Tcx(_) | Hold::Group(_) => &["tx", "rx"],
            Hold::Clsact(filters) => &[filters.pin_kind()],
            Hold::Both(_, filters) => &["tx", "rx", filters.pin_kind()],
        };
        kinds.iter().map(|kind| self.pin_name(kind)).collect()
    }

    fn unpin(&self, kinds: &[&str]) -> Result<(), Error> {
        let Some(dir) = &self.dir else { return Ok(()) };
        for kind in kinds {
            let path = dir.join(self.pin_name(kind));
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(pin_error("remove", &path, source)),
            }
        }
        Ok(())
    }

    /// Exchanges classifiers for links under traffic; a port that has links already is left as it is. Takes some 40 ms, in
    /// most of which no network device of the host can be changed by anybody. No other port of the set may be
    /// fastened at the same time. After an error the port is tapped as before, and this may be tried again.
    pub fn fasten(&mut self, set: &Set) -> Result<(), Error> {
        self.overlap(set)?;
        self.settle(set)
    }

    /// The first half of fastening: links beside the classifiers.
    pub fn overlap(&mut self, set: &Set) -> Result<(), Error> {
        let Hold::Clsact(filters) = &self.hold else { return Ok(()) };
        let filters = filters.clone();
        set.janitor().run(&[Command::Overlap(true)])?;
        fault::point("overlap.on");
        let made = links(set.programs(), self.ifindex).and_then(|links| match &self.dir {
            Some(dir) => self.pin_links(dir, &links).map(|()| links),
            None => Ok(links),
        });
        match made {
            Ok(links) => {
                self.hold = Hold::Both(links, filters);
                Ok(())
            }
            Err(error) => {
                // the links have gone with their descriptors; a pin that is left of them goes before that is relied on
                self.unpin(&["tx", "rx"])?;
                Janitor::grace_period();
                set.janitor().run(&[Command::Overlap(false)])?;
                Err(error)
            }
        }
    }

    /// The second half of fastening: the classifiers go. The qdisc stays for the time being.
    pub fn settle(&mut self, set: &Set) -> Result<(), Error> {
        let Hold::Both(_, filters) = &self.hold else { return Ok(()) };
        let filters = filters.clone();
        remove_filters(self.ifindex, &filters).map_err(|(direction, source)| Error::Attach {
            ifindex: self.ifindex,
            direction: direction_name(direction),
            source,
        })?;
        // a packet that was marked may still be on its way to where a classifier was
        Janitor::grace_period();
        fault::point("settle.grace");
        set.janitor().run(&[Command::Overlap(false)])?;
        fault::point("settle.overlap-off");
        self.unpin(&[filters.pin_kind()])?;
        fault::point("settle.unpinned");
        if let Hold::Both(links, _) = std::mem::replace(&mut self.hold, Hold::Clsact(filters)) {
            self.hold = Hold::Tcx(links);
        }
        Ok(())
    }

    /// The interface's index; of a control group, and of an interface in another network namespace, the number that it has as a port.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// `tcx` or `clsact`; `cgroup` for a control group.
    pub fn how(&self) -> &'static str {
        match self.hold {
            Hold::Tcx(_) => "tcx",
            Hold::Clsact(_) | Hold::Both(..) => "clsact",
            Hold::Group(_) => "cgroup",
        }
    }

    /// Whether it is on the filters that ports share.
    pub fn is_shared(&self) -> bool {
        matches!(&self.hold, Hold::Clsact(Filters::Shared(..)) | Hold::Both(_, Filters::Shared(..)))
    }

    /// Whether it is held by links alone: there is nothing to fasten.
    pub fn is_fast(&self) -> bool {
        matches!(self.hold, Hold::Tcx(_) | Hold::Group(_))
    }

    /// Moves the port to this set, or to its newest programs, see [`Port::move_to`].
    pub fn move_to_set(&mut self, set: &Set, set_dir: Option<&Path>) -> Result<(), Error> {
        match &self.hold {
            Hold::Group(_) => self.move_to(&set.group_programs(self.ifindex)?, set_dir),
            Hold::Tcx(links) if is_elsewhere(self.ifindex) => {
                let base = elsewhere::base_of(links, self.ifindex)
                    .map_err(|source| Error::Query { ifindex: self.ifindex, source })?;
                self.move_to(&*set.programs_elsewhere(base)?, set_dir)
            }
            _ => self.move_to(set.programs(), set_dir),
        }
    }

    /// Moves the port to another set, or to another build of its own set's programs. Not while it is being fastened: a packet that
    /// passes two hooks must find one set's programs there.
    pub fn move_to(&mut self, programs: &Programs, set_dir: Option<&Path>) -> Result<(), Error> {
        let ifindex = self.ifindex;
        let failed = |direction: Direction| {
            move |source| Error::Update { ifindex, direction: direction_name(direction), source }
        };
        if matches!(self.hold, Hold::Both(..)) {
            return Err(failed(Direction::Tx)(io::Error::other("the port is being fastened")));
        }
        if let (Some(from), Some(set_dir)) = (&self.dir, set_dir) {
            let to = ports_dir(set_dir);
            if *from != to {
                fs::create_dir_all(&to).map_err(|source| pin_error("make", &to, source))?;
                for name in self.pin_names() {
                    let (a, b) = (from.join(&name), to.join(&name));
                    fs::rename(&a, &b).map_err(|source| pin_error("move", &a, source))?;
                    fault::point("move.renamed");
                }
                self.dir = Some(to);
            }
        }
        let all = DIRECTIONS.map(|direction| (direction, programs.of(direction)));
        let links = match &self.hold {
            Hold::Tcx(links) | Hold::Group(links) | Hold::Both(links, _) => links,
            Hold::Clsact(Filters::Own(_)) => {
                netlink::replace_filters(ifindex, all)
                    .map_err(|(direction, source)| failed(direction)(source))?;
                fault::point("move.both");
                return Ok(());
            }
            Hold::Clsact(Filters::Shared(_, dispatcher)) => {
                let put = match dispatcher {
                    Some(dispatcher) => dispatcher.put(ifindex, programs),
                    None => Err(io::Error::other("there is no dispatcher")),
                };
                return match put.map_err(failed(Direction::Tx))? {
                    true => Ok(()),
                    false => Err(failed(Direction::Tx)(io::Error::other("another port has its place"))),
                };
            }
        };
        for (direction, program) in all {
            let link = match direction {
                Direction::Tx => &links.tx,
                Direction::Rx => &links.rx,
            };
            sys::link_update(link.as_fd(), program).map_err(failed(direction))?;
            fault::point(match direction {
                Direction::Tx => "move.tx",
                Direction::Rx => "move.rx",
            });
        }
        Ok(())
    }

    /// Whether the interface, or the control group, is still there with the tap on it.
    pub fn is_alive(&self) -> bool {
        match &self.hold {
            Hold::Tcx(links) if is_elsewhere(self.ifindex) => elsewhere::holds(links),
            Hold::Tcx(links) | Hold::Both(links, _) => {
                matches!(sys::link_info(links.tx.as_fd()), Ok((_, ifindex)) if ifindex == self.ifindex)
            }
            Hold::Clsact(filters) => filters.are_at(self.ifindex),
            Hold::Group(links) => group::holds(links, self.ifindex),
        }
    }

    /// Removes the tap and its pins. Filters that ports share go, where there is no dispatcher, [with all of them](Dispatcher::remove).
    pub fn detach(self) -> Result<(), Error> {
        match &self.hold {
            Hold::Clsact(Filters::Shared(_, None)) | Hold::Both(_, Filters::Shared(_, None)) => {}
            Hold::Clsact(filters) | Hold::Both(_, filters) => {
                // an interface that has gone took its filters along
                let _ = remove_filters(self.ifindex, filters);
                if let Filters::Shared(_, Some(dispatcher)) = filters
                    && !dispatcher.is_bound(self.ifindex)
                {
                    dispatcher.forget(self.ifindex);
                }
            }
            Hold::Tcx(_) | Hold::Group(_) => {}
        }
        fault::point("detach.unfiltered");
        let names = self.pin_names();
        let kinds: Vec<&str> = names.iter().filter_map(|n| Some(n.split_once('-')?.1)).collect();
        self.unpin(&kinds)
    }

    /// Completes the moves between these sets that a crash cut in the middle: of a port's two links one was in its new set's
    /// directory already, the direction from the container, and the other in the old one's. To be called before any
    /// of them is [adopted](Port::adopt), which takes half a port for none.
    pub fn mend(set_dirs: &[PathBuf]) -> Result<(), Error> {
        let dirs: Vec<PathBuf> = set_dirs.iter().map(|dir| ports_dir(dir)).collect();
        let mut moved: BTreeMap<u32, &Path> = BTreeMap::new();
        let mut left: BTreeMap<u32, &Path> = BTreeMap::new();
        for dir in &dirs {
            let pinned = pinned(dir)?;
            for (ifindex, kinds) in pinned {
                let has = |kind: &str| kinds.iter().any(|k| k == kind);
                match (has("tx"), has("rx")) {
                    (true, false) => drop(moved.insert(ifindex, dir)),
                    (false, true) => drop(left.insert(ifindex, dir)),
                    _ => {}
                }
            }
        }
        for (ifindex, from) in left {
            let Some(to) = moved.get(&ifindex) else { continue };
            let name = format!("{ifindex}-rx");
            let from = from.join(&name);
            fs::rename(&from, to.join(&name)).map_err(|source| pin_error("move", &from, source))?;
        }
        Ok(())
    }

    /// Every port pinned under a set's directory. Pins whose interface has gone, or of which only one direction is
    /// there, are removed. A port that was being fastened is to be [settled](Port::settle). Ports that the dispatcher has can be moved
    /// only with it.
    pub fn adopt(set_dir: &Path, dispatcher: Option<&Arc<Dispatcher>>) -> Result<Vec<Self>, Error> {
        let dir = ports_dir(set_dir);
        let mut ports = Vec::new();
        for (ifindex, kinds) in pinned(&dir)? {
            let has = |kind: &str| kinds.iter().any(|k| k == kind);
            let open = |kind: &str| sys::obj_get(&dir.join(format!("{ifindex}-{kind}"))).ok();
            let filters = match Filters::ALL_KINDS.map(has) {
                [true, ..] => Some(Filters::Own(CLSACT)),
                [_, true, _] => Some(Filters::Own(OLD_CLSACT)),
                [.., true] => {
                    // the folder above is the dispatcher's
                    let blocks = Names::of(set_dir.parent().unwrap_or(set_dir)).blocks;
                    Some(Filters::Shared(blocks, dispatcher.cloned()))
                }
                _ => None,
            };
            let (tx, rx) = (open("tx"), open("rx"));
            let hold = match (tx, rx, filters) {
                (Some(tx), Some(rx), None) if is_group(ifindex) => Some(Hold::Group(Links { tx, rx })),
                (Some(tx), Some(rx), None) => Some(Hold::Tcx(Links { tx, rx })),
                (Some(tx), Some(rx), Some(filters)) => Some(Hold::Both(Links { tx, rx }, filters)),
                (tx, rx, filters) => {
                    for kind in ["tx", "rx"].into_iter().filter(|kind| has(kind)) {
                        let _ = fs::remove_file(dir.join(format!("{ifindex}-{kind}")));
                    }
                    // with its last descriptor a link has gone for good before the call returns, with its last pin some time later
                    drop((tx, rx));
                    filters.map(Hold::Clsact)
                }
            };
            let Some(hold) = hold else { continue };
            let port = Self { ifindex, hold, dir: Some(dir.clone()) };
            if port.is_alive() {
                if let Hold::Clsact(Filters::Shared(_, Some(dispatcher)))
                | Hold::Both(_, Filters::Shared(_, Some(dispatcher))) = &port.hold
                {
                    dispatcher.keep(ifindex);
                }
                ports.push(port);
            } else {
                port.detach()?;
            }
        }
        Ok(ports)
    }
}
