//! A tapped port: the two programs of a set on a container's host-side interface.
//!
//! With TCX (Linux 6.6) each direction is a link, pinned as `SET/taps/IFINDEX-{tx,rx}`. The directory that
//! holds the pin is the set the port belongs to: moving a port renames the pins, then exchanges the programs, so that an
//! adopter who puts every link to its directory's programs repairs whatever a crash left half done. On
//! older kernels the programs are classifiers of a `clsact` qdisc, and the pin (`IFINDEX-clsact`) is of the
//! program, as a mark only.
//!
//! Nothing is ever missed: a new program replaces the old one between two packets.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ippm::flow::Direction;

use crate::error::Error;
use crate::netlink;
use crate::set::{Programs, pin_error};
use crate::sys;

/// How programs get onto a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// TCX, clsact where the kernel has no TCX.
    #[default]
    Auto,
    /// TCX only.
    Tcx,
    /// clsact only.
    Clsact,
}

enum Hold {
    /// Links, by direction.
    Tcx {
        tx: OwnedFd,
        rx: OwnedFd,
    },
    Clsact,
}

/// A tapped port. Dropping it leaves a pinned tap in place, and removes one that is not pinned (TCX only).
pub struct Port {
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

/// From the container the tap comes before other programs, which may drop what the interface has counted already; to
/// the container after them.
fn link(programs: &Programs, ifindex: u32, direction: Direction) -> io::Result<OwnedFd> {
    let (at, first) = match direction {
        Direction::Tx => (sys::TCX_INGRESS, true),
        Direction::Rx => (sys::TCX_EGRESS, false),
    };
    sys::link_create_tcx(programs.of(direction), ifindex, at, first)
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
    ///
    pub fn attach(
        ifindex: u32,
        programs: &Programs,
        how: Attach,
        set_dir: Option<&Path>,
    ) -> Result<Self, Error> {
        let failed = |direction: Direction| {
            move |source| Error::Attach { ifindex, direction: direction_name(direction), source }
        };
        let hold = match how {
            Attach::Clsact => Self::attach_clsact(ifindex, programs)?,
            Attach::Tcx | Attach::Auto => match link(programs, ifindex, Direction::Tx) {
                Ok(tx) => {
                    let rx = link(programs, ifindex, Direction::Rx).map_err(failed(Direction::Rx))?;
                    Hold::Tcx { tx, rx }
                }
                // a kernel that does not know TCX calls the attach type invalid
                Err(e) if how == Attach::Auto && e.raw_os_error() == Some(libc::EINVAL) => {
                    Self::attach_clsact(ifindex, programs)?
                }
                Err(e) => return Err(failed(Direction::Tx)(e)),
            },
        };
        let mut port = Self { ifindex, hold, dir: None };
        if let Some(dir) = set_dir {
            port.pin(dir, programs)?;
        }
        Ok(port)
    }

    fn attach_clsact(ifindex: u32, programs: &Programs) -> Result<Hold, Error> {
        let failed = |direction: Direction| {
            move |source| Error::Attach { ifindex, direction: direction_name(direction), source }
        };
        netlink::add_clsact(ifindex).map_err(failed(Direction::Tx))?;
        for direction in [Direction::Tx, Direction::Rx] {
            netlink::set_filter(ifindex, direction, programs.of(direction)).map_err(failed(direction))?;
        }
        Ok(Hold::Clsact)
    }

    fn pin(&mut self, set_dir: &Path, programs: &Programs) -> Result<(), Error> {
        let dir = ports_dir(set_dir);
        fs::create_dir_all(&dir).map_err(|source| pin_error("make", &dir, source))?;
        for (name, fd) in self.pins(programs) {
            let path = dir.join(name);
            match sys::obj_pin(fd, &path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    // of an interface that had this number before: its link is dead
                    fs::remove_file(&path).map_err(|source| pin_error("remove", &path, source))?;
                    sys::obj_pin(fd, &path).map_err(|source| pin_error("pin", &path, source))?;
                }
                Err(source) => return Err(pin_error("pin", &path, source)),
            }
        }
        self.dir = Some(dir);
        Ok(())
    }

    fn pins<'a>(&'a self, programs: &'a Programs) -> Vec<(String, BorrowedFd<'a>)> {
        match &self.hold {
            Hold::Tcx { tx, rx } => {
                vec![
                    (format!("{}-tx", self.ifindex), tx.as_fd()),
                    (format!("{}-rx", self.ifindex), rx.as_fd()),
                ]
            }
            Hold::Clsact => vec![(format!("{}-clsact", self.ifindex), programs.of(Direction::Tx))],
        }
    }

    fn pin_names(&self) -> Vec<String> {
        match self.hold {
            Hold::Tcx { .. } => vec![format!("{}-tx", self.ifindex), format!("{}-rx", self.ifindex)],
            Hold::Clsact => vec![format!("{}-clsact", self.ifindex)],
        }
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// `tcx` or `clsact`.
    pub fn how(&self) -> &'static str {
        match self.hold {
            Hold::Tcx { .. } => "tcx",
            Hold::Clsact => "clsact",
        }
    }

    /// Moves the port to another set, or to another build of its own set's programs.
    pub fn move_to(&mut self, programs: &Programs, set_dir: Option<&Path>) -> Result<(), Error> {
        if let (Some(from), Some(set_dir)) = (&self.dir, set_dir) {
            let to = ports_dir(set_dir);
            if *from != to {
                fs::create_dir_all(&to).map_err(|source| pin_error("make", &to, source))?;
                for name in self.pin_names() {
                    let (a, b) = (from.join(&name), to.join(&name));
                    fs::rename(&a, &b).map_err(|source| pin_error("move", &a, source))?;
                }
                self.dir = Some(to);
            }
        }
        let ifindex = self.ifindex;
        for direction in [Direction::Tx, Direction::Rx] {
            let failed =
                move |source| Error::Update { ifindex, direction: direction_name(direction), source };
            let program = programs.of(direction);
            match (&self.hold, direction) {
                (Hold::Tcx { tx, .. }, Direction::Tx) => {
                    sys::link_update(tx.as_fd(), program).map_err(failed)?
                }
                (Hold::Tcx { rx, .. }, Direction::Rx) => {
                    sys::link_update(rx.as_fd(), program).map_err(failed)?
                }
                (Hold::Clsact, _) => netlink::set_filter(ifindex, direction, program).map_err(failed)?,
            }
        }
        Ok(())
    }

    /// Whether the interface is still there with the tap on it.
    pub fn is_alive(&self) -> bool {
        match &self.hold {
            Hold::Tcx { tx, .. } => {
                matches!(sys::link_info(tx.as_fd()), Ok((_, ifindex)) if ifindex == self.ifindex)
            }
            Hold::Clsact => netlink::has_filter(self.ifindex),
        }
    }

    /// Removes the tap and its pins.
    pub fn detach(self) -> Result<(), Error> {
        if let Some(dir) = &self.dir {
            for name in self.pin_names() {
                let path = dir.join(name);
                match fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(pin_error("remove", &path, source)),
                }
            }
        }
        if matches!(self.hold, Hold::Clsact) {
            for direction in [Direction::Tx, Direction::Rx] {
                // an interface that has gone took its filters along
                let _ = netlink::remove_filter(self.ifindex, direction);
            }
        }
        Ok(())
    }

    /// Every port pinned under a set's directory. Pins whose interface has gone, or of which only one direction is
    /// there, are removed.
    pub fn adopt(set_dir: &Path) -> Result<Vec<Self>, Error> {
        let dir = ports_dir(set_dir);
        let list = match fs::read_dir(&dir) {
            Ok(list) => list,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(pin_error("list", &dir, source)),
        };
        let mut names: Vec<String> =
            list.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort_unstable();
        let mut ports = Vec::new();
        let mut stale = Vec::new();
        for name in &names {
            let Some((number, kind)) = name.split_once('-') else { continue };
            let Ok(ifindex) = number.parse::<u32>() else { continue };
            let hold = match kind {
                "tx" if names.contains(&format!("{ifindex}-rx")) => {
                    let open = |d: &str| sys::obj_get(&dir.join(format!("{ifindex}-{d}")));
                    match (open("tx"), open("rx")) {
                        (Ok(tx), Ok(rx)) => Hold::Tcx { tx, rx },
                        _ => {
                            stale.push(name.clone());
                            continue;
                        }
                    }
                }
                "rx" if names.contains(&format!("{ifindex}-tx")) => continue,
                "clsact" => Hold::Clsact,
                _ => {
                    stale.push(name.clone());
                    continue;
                }
            };
            let port = Self { ifindex, hold, dir: Some(dir.clone()) };
            if port.is_alive() {
                ports.push(port);
            } else {
                port.detach()?;
            }
        }
        for name in stale {
            let _ = fs::remove_file(dir.join(name));
        }
        Ok(ports)
    }
}
