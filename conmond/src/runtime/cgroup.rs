//! Where a container's control group is, in the host's hierarchy of version 2.
//!
//! Engines name it after the container, so that it is found by the container's identifier, without a question to the engine, and in a
//! container that has the host's hierarchy as well. Where an engine puts it in folders of the user's own (`--cgroup-parent`) the
//! hierarchy is looked through.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are looked at for one container, at most.
const FOLDERS: usize = 20_000;

/// Where engines put control groups if nobody says otherwise, with the container's identifier in place of `ID`.
const USUAL: [&str; 4] =
    ["docker/ID", "system.slice/docker-ID.scope", "machine.slice/libpod-ID.scope", "libpod_parent/libpod-ID"];

/// Where the hierarchy of version 2 is mounted, whole; none on a host that has none, or where only a part of it is seen.
pub fn hierarchy() -> Option<PathBuf> {
    mounted(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// From the kernel's list of mounts: `36 35 0:30 ROOT PLACE OPTIONS … - KIND …`. In a control group namespace of its own a process sees
/// its own group as the root.
fn mounted(list: &str) -> Option<PathBuf> {
    list.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(3);
        let (root, place) = (words.next()?, words.next()?);
        (kind.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(place))
    })
}

/// A container's control group. `everywhere`: not only in the usual places.
pub fn find(hierarchy: &Path, container: &str, everywhere: bool) -> Option<PathBuf> {
    let usual = USUAL.iter().map(|place| hierarchy.join(place.replace("ID", container)));
    usual.into_iter().find(|path| path.is_dir()).or_else(|| {
        let mut waiting = VecDeque::from([hierarchy.to_path_buf()]);
        let mut looked = 0;
        while let Some(folder) = waiting.pop_front().filter(|_| everywhere && looked < FOLDERS) {
            looked += 1;
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if entry.file_name().to_str().is_some_and(|name| is_of(name, container)) {
                    return Some(entry.path());
                }
                waiting.push_back(entry.path());
            }
        }
        None
    })
}

/// Whether a control group of this name is the container's. Podman's monitor of a container has one beside it that names it as well.
fn is_of(name: &str, container: &str) -> bool {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    ["", "docker-", "libpod-"].iter().any(|engine| name.strip_prefix(engine) == Some(container))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f0c8a";

    #[test]
    fn the_whole_hierarchy_is_told_from_a_part_of_it() {
        let line = |root: &str, place: &str, kind: &str| {
            format!("30 23 0:26 {root} {place} rw,relatime shared:9 - {kind} cgroup rw\n")
        };
        let hybrid =
            line("/", "/sys/fs/cgroup/memory", "cgroup") + &line("/", "/sys/fs/cgroup/unified", "cgroup2");
        assert_eq!(mounted(&hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mounted(&line("/docker/x", "/sys/fs/cgroup", "cgroup2")), None, "a container's own");
        assert_eq!(mounted(&line("/", "/sys/fs/cgroup", "cgroup")), None);
        assert_eq!(mounted("nonsense"), None);
    }

    #[test]
    fn a_group_is_found_where_the_engine_puts_it_or_the_user() {
        let root = std::env::temp_dir().join(format!("conmon-cgroup-{}", std::process::id()));
        let make = |place: &str| {
            let path = root.join(place);
            fs::create_dir_all(&path).unwrap();
            path
        };
        make("system.slice/libpod-conmon-4f0c8a.scope");
        make("docker/4f0c8a77");
        assert_eq!(find(&root, ID, true), None, "others' alone");
        let own = make("customers/blue/docker-4f0c8a.scope");
        assert_eq!(find(&root, ID, false), None);
        assert_eq!(find(&root, ID, true), Some(own));
        let usual = make("docker/4f0c8a");
        assert_eq!(find(&root, ID, false), Some(usual));
        fs::remove_dir_all(&root).unwrap();
    }
}
