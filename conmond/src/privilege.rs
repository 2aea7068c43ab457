//! What the controller may do, and what it gives up.
//!
//! It starts as root, since run folder and BPF file system are root's, and keeps of root's capabilities only those named here.
//! `packaging/conmond.service` and `packaging/compose.yaml` grant no others; docs/privileges.md is about all of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// A capability that is used, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The capability.
    pub capability: Capability,
    /// What it is needed for, as the end of a sentence.
    pub why: &'static str,
    /// What is missing without it; none if nothing works without.
    pub without: Option<&'static str>,
    /// The capability that it was part of before Linux 5.8, and still is. Engines that do not know it by name can grant that one.
    pub part_of: Option<Capability>,
}

/// Everything that is kept.
pub const NEEDS: [Need; 5] = [
    Need {
        capability: Capability::CAP_BPF,
        why: "make maps, load programs, open pins",
        without: None,
        part_of: Some(Capability::CAP_SYS_ADMIN),
    },
    Need {
        capability: Capability::CAP_NET_ADMIN,
        why: "attach programs to ports and control groups, ask for interfaces in containers, listen to connection tracking",
        without: None,
        part_of: None,
    },
    Need {
        capability: Capability::CAP_PERFMON,
        why: "have programs accepted that compute with pointers into maps",
        without: None,
        part_of: Some(Capability::CAP_SYS_ADMIN),
    },
    Need {
        capability: Capability::CAP_CHOWN,
        why: "give each monitoring container's socket to the user it runs as",
        without: Some("monitoring containers cannot call"),
        part_of: None,
    },
    Need {
        capability: Capability::CAP_SYS_ADMIN,
        why: "enter the network namespaces of overlay networks, switch the kernel's run-time statistics of BPF on for moments",
        without: Some("nothing is measured on overlay networks, and `status` shows no ns per packet"),
        part_of: None,
    },
];

/// Needed at the start only, to let the threads that tap and name come before others; a process that has its priority and its limit from its parent
/// does not need it, nor does one on a host that is never busy.
pub const AT_START: Capability = Capability::CAP_SYS_NICE;

/// Kept beside the others where the engine's socket is another user's: a rootless engine's.
const FOR_ANOTHERS_SOCKET: Capability = Capability::CAP_DAC_OVERRIDE;

/// Whether root without capabilities can reach a Unix socket: every folder on the way is root's or open to all, and so is
/// the socket. What is not there yet is judged by what is.
fn is_reachable(socket: &Path) -> bool {
    let open = |path: &Path, bits: u32| {
        fs::symlink_metadata(path).map_or(true, |m| m.uid() == 0 || m.mode() & bits == bits)
    };
    let real = fs::canonicalize(socket).unwrap_or_else(|_| socket.to_owned());
    real.ancestors().skip(1).all(|folder| open(folder, 0o001)) && open(&real, 0o002)
}

/// Gives up every capability but the needed ones, for this thread and those that it starts from now on; and what could give
/// them back. `engine` is the engine's socket, if it is one.
pub fn keep_only_needed(engine: Option<&Path>) -> Result<(), CapsError> {
    let mut keep: CapsHashSet = NEEDS.iter().map(|n| n.capability).collect();
    if engine.is_some_and(|socket| !is_reachable(socket)) {
        keep.insert(FOR_ANOTHERS_SOCKET);
    }
    // a process that is not allowed to change its bounding set has been given one by somebody who knew what for
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(&keep).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Needed capabilities that are not there, themselves or as [a part](Need::part_of) of another.
pub fn missing() -> Vec<Need> {
    NEEDS.into_iter().filter(|n| !has(n.capability) && !n.part_of.is_some_and(has)).collect()
}

/// Those that are there only as a part of another.
pub fn covered() -> Vec<Need> {
    NEEDS.into_iter().filter(|n| !has(n.capability) && n.part_of.is_some_and(has)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_unit_and_the_compose_file_grant_what_is_needed_and_no_more() {
        let mut names: Vec<String> = NEEDS.iter().map(|n| n.capability.to_string()).collect();
        names.sort();
        let unit = include_str!("../../packaging/conmond.service");
        let line = unit.lines().find_map(|l| l.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let mut granted: Vec<&str> = line.split(' ').collect();
        granted.sort_unstable();
        assert_eq!(granted, names);
        let compose = include_str!("../../packaging/compose.yaml");
        assert!(unit.contains("\nNice=-15\n"), "the unit gives what AT_START is for");
        assert!(unit.contains("\nLimitRTPRIO=1\n") && !unit.contains("RestrictRealtime"));
        let line = compose.lines().find_map(|l| l.trim().strip_prefix("cap_add: [")).unwrap();
        // and it names none that another one covers: not all engines know them
        let mut names: Vec<String> =
            NEEDS.iter().filter(|n| n.part_of.is_none()).map(|n| n.capability.to_string()).collect();
        names.push(AT_START.to_string());
        names.sort();
        let mut granted: Vec<String> =
            line.trim_end_matches(']').split(", ").map(|name| format!("CAP_{name}")).collect();
        granted.sort_unstable();
        assert_eq!(granted, names);
        let page = include_str!("../../docs/privileges.md");
        assert!(page.contains(&format!("`{AT_START}`")));
        for need in NEEDS {
            let row = format!("| `{}` | {} |", need.capability, need.why);
            assert!(page.contains(&row), "docs/privileges.md lacks: {row}");
        }
    }

    #[test]
    fn another_users_socket_is_not_reachable() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = std::env::temp_dir().join(format!("conmon-privilege-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("docker.sock");
        fs::write(&socket, "").unwrap();
        assert!(is_reachable(&socket), "root's own");
        std::os::unix::fs::chown(&socket, Some(1000), Some(1000)).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(!is_reachable(&socket), "another's");
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(is_reachable(&socket), "open to all");
        std::os::unix::fs::chown(&dir, Some(1000), None).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!is_reachable(&socket), "in another's folder");
        assert!(!is_reachable(&dir.join("not there yet")));
        fs::remove_dir_all(&dir).unwrap();
    }
}
