//! Ports in other network namespaces: the host-side ends of containers on an overlay network hang at a bridge in a namespace that the
//! engine made for that network.
//!
//! An interface's index says who it is within its own namespace only. As a port it has a number that is made of the index and the
//! namespace's name; the programs that are put on it know the namespace's part.
//!
//! They are held by TCX alone: a link, once it is there, is exchanged and removed from any namespace.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::{Hold, Links, Port, links, pin_error, ports_dir};
use crate::abi::{ELSEWHERE, GROUP};
use crate::error::Error;
use crate::fnv;
use crate::set::Set;
use crate::sys;

const MASK: u32 = ELSEWHERE - 1;

/// Whether a port's number is that of an interface of another network namespace.
pub fn is_elsewhere(number: u32) -> bool {
    number & (GROUP | ELSEWHERE) == ELSEWHERE
}

/// Another network namespace, as the numbers of its ports tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(u32);

impl Namespace {
    /// The one that has this name for as long as anybody knows of its ports. Ports of two namespaces may have the same number by
    /// chance: of `n` of them, with a probability of some `n²/2³¹`.
    pub fn named(name: &str) -> Self {
        let hash = fnv::hash(name.as_bytes());
        // 0 is that of programs which do not add anything
        Self(((hash ^ hash >> 30) & MASK).max(1))
    }

    /// The number that its interface of this index has as a port.
    pub fn number(self, ifindex: u32) -> u32 {
        ELSEWHERE | (ifindex.wrapping_add(self.0) & MASK)
    }
}

/// What the indices are counted from in the namespace of a port that is there.
pub(super) fn base_of(links: &Links, number: u32) -> io::Result<u32> {
    match sys::link_info(links.tx.as_fd())? {
        (_, 0) => Err(io::ErrorKind::NotFound.into()),
        (_, ifindex) => Ok(number.wrapping_sub(ifindex) & MASK),
    }
}

/// Whether the interface is there.
pub(super) fn holds(links: &Links) -> bool {
    matches!(sys::link_info(links.tx.as_fd()), Ok((_, ifindex)) if ifindex != 0)
}

impl Port {
    /// Puts the programs of a set on an interface of the calling thread's network namespace, which is `namespace` and not that of
    /// the process; pins under `set_dir`. The port's number is [`Namespace::number`]'s.
    ///
    /// Needs TCX: Linux 6.6.
    pub fn attach_elsewhere(
        namespace: Namespace,
        ifindex: u32,
        set: &Set,
        set_dir: &Path,
    ) -> Result<Self, Error> {
        let dir = ports_dir(set_dir);
        std::fs::create_dir_all(&dir).map_err(|source| pin_error("make", &dir, source))?;
        let programs = set.programs_elsewhere(namespace.0)?;
        let links = links(&programs, ifindex)?;
        let port =
            Self { ifindex: namespace.number(ifindex), hold: Hold::Tcx(links), dir: Some(dir.clone()) };
        if let Hold::Tcx(links) = &port.hold {
            port.pin_links(&dir, links)?;
        }
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_apart_from_indices_and_groups() {
        let one = Namespace::named("1-8e5bc990c0");
        for ifindex in [1, 2, 77, 1 << 20, i32::MAX as u32] {
            let number = one.number(ifindex);
            assert!(is_elsewhere(number), "{number:#x}");
            assert!(!super::super::is_group(number));
            assert_eq!(number.wrapping_sub(ifindex) & MASK, one.0);
        }
        assert!(!is_elsewhere(7));
        assert!(!is_elsewhere(GROUP | ELSEWHERE | 7), "a group's number may have any low bits");
    }

    #[test]
    fn namespaces_are_told_apart_and_names_keep_their_numbers() {
        let names: Vec<String> = (0..2_000).map(|i| format!("1-net{i:06x}")).collect();
        let numbers: std::collections::BTreeSet<_> = names.iter().map(|n| Namespace::named(n)).collect();
        assert!(numbers.len() >= 1_995, "{}", numbers.len());
        assert!(numbers.iter().all(|n| n.0 != 0 && n.0 & !MASK == 0));
        // pinned by an earlier build
        assert_eq!(Namespace::named("1-8e5bc990c0"), Namespace(0x2f6aa5b3));
    }
}
