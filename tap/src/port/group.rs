//! Ports that are control groups: a container that uses the host's network has no interface of its own, but its sockets are
//! made in its control group, and the kernel runs programs for each packet that they send and receive (cgroup v2).
//!
//! What is counted there is what passes the container's sockets: IP packets, without a link header. What the kernel sends or takes in
//! the socket's place is not the socket's: resets for ports that nobody listens at, and the end of a TCP connection that was closed
//! already (TIME_WAIT), one or two segments of each.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ippm::flow::Direction;

use super::{Hold, Links, Port, pin_error, ports_dir};
use crate::abi;
use crate::error::Error;
use crate::fault;
use crate::set::Set;
use crate::sys;

/// Whether a port's number is a control group's, and no interface's.
pub fn is_group(number: u32) -> bool {
    number & abi::GROUP != 0
}

/// The number that a control group has as a port; `group` is its folder.
pub fn group_number(group: &Path) -> io::Result<u32> {
    number_of(&fs::File::open(group)?)
}

/// The inode's number is the group's own. The kernel takes the low half of it from one number to the next, so that it comes again
/// after 2^31 groups at the earliest.
fn number_of(folder: &fs::File) -> io::Result<u32> {
    Ok(short(folder.metadata()?.ino()))
}

fn short(id: u64) -> u32 {
    id as u32 | abi::GROUP
}

/// Whether the group of this number is there, with these links on it.
pub(super) fn holds(links: &Links, number: u32) -> bool {
    sys::link_group(links.tx.as_fd()).is_ok_and(|id| id != 0 && short(id) == number)
}

impl Port {
    /// Puts the programs of a set on a control group, whose folder `group` is; pins under `set_dir`. The port's number is
    /// [`group_number`]'s. The kernel looks through the programs anew: that takes it tens of milliseconds.
    pub fn attach_group(group: &Path, set: &Set, set_dir: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Group { path: group.display().to_string(), source };
        let folder = fs::File::open(group).map_err(failed)?;
        let number = number_of(&folder).map_err(failed)?;
        let dir = ports_dir(set_dir);
        fs::create_dir_all(&dir).map_err(|source| pin_error("make", &dir, source))?;
        let programs = set.group_programs(number)?;
        let link = |direction, at| {
            sys::link_create_group(programs.of(direction), folder.as_fd(), at).map_err(failed)
        };
        let tx = link(Direction::Tx, sys::CGROUP_EGRESS)?;
        fault::point("group.tx");
        let rx = link(Direction::Rx, sys::CGROUP_INGRESS)?;
        let port = Self { ifindex: number, hold: Hold::Group(Links { tx, rx }), dir: Some(dir.clone()) };
        if let Hold::Group(links) = &port.hold {
            port.pin_links(&dir, links)?;
        }
        Ok(port)
    }
}
