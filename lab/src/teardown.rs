//! Taking a lab apart, whatever state it is in. Nothing here needs the lab's own memory: everything is found by its
//! name, so the same code serves a regular end, a guard that saw its owner die, and a sweep days later.
//!
//! Order matters: first the processes (all at once, so that no engine restarts what was killed), then what they held:
//! mounts, shim sockets, control groups, namespaces, BPF pins, folders. Every step goes on after a failure, and the
//! failures are reported together.

use crate::names::{LabId, PREFIX, start_time};
use crate::netns::NETNS_DIR;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where each lab leaves a note about itself, so that a sweep finds its folder.
pub(crate) const NOTES_DIR: &str = "/run/conmon-lab";
/// Where shims of containerd bind their sockets, outside any folder of ours.
const SHIM_SOCKETS: &str = "/run/containerd/s/";
/// Where conmond pins links and maps, a folder per instance.
const PINS_DIR: &str = "/sys/fs/bpf/conmon";
const CGROUP_DIR: &str = "/sys/fs/cgroup";
/// Longest wait for killed processes to be gone and for what they held to be free.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a lab writes about itself at start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Owner's process id.
    pub pid: u32,
    /// Owner's start time in clock ticks since boot.
    pub start_time: u64,
    /// The lab's folder.
    pub dir: PathBuf,
}

pub(crate) fn note_path(id: LabId) -> PathBuf {
    Path::new(NOTES_DIR).join(format!("{id}.json"))
}

/// What a teardown removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Containers, by their control groups.
    pub containers: usize,
    /// Processes ended, those inside containers included.
    pub processes: usize,
    /// Mounts undone.
    pub mounts: usize,
    /// Network namespaces removed.
    pub namespaces: usize,
    /// Control groups removed, over all hierarchies.
    pub cgroups: usize,
    /// Folders of BPF pins removed.
    pub pins: usize,
    /// Folders removed.
    pub folders: usize,
}

impl Removed {
    /// Whether there was nothing to remove.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another teardown removed.
    pub fn add(&mut self, other: Self) {
        self.containers += other.containers;
        self.processes += other.processes;
        self.mounts += other.mounts;
        self.namespaces += other.namespaces;
        self.cgroups += other.cgroups;
        self.pins += other.pins;
        self.folders += other.folders;
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.containers, "container", "containers"),
            (self.processes, "process", "processes"),
            (self.mounts, "mount", "mounts"),
            (self.namespaces, "network namespace", "network namespaces"),
            (self.cgroups, "control group", "control groups"),
            (self.pins, "folder of BPF pins", "folders of BPF pins"),
            (self.folders, "folder", "folders"),
        ];
        let mut first = true;
        for (count, one, many) in parts.into_iter().filter(|(count, ..)| *count > 0) {
            write!(f, "{}{count} {}", if first { "" } else { ", " }, if count == 1 { one } else { many })?;
            first = false;
        }
        if first { f.write_str("nothing") } else { Ok(()) }
    }
}

/// Removes everything of one lab. `dir` is its folder, where that is known.
pub fn destroy(id: LabId, dir: Option<&Path>) -> Result<Removed> {
    let mut failures = Vec::new();
    let mut removed = Removed { containers: count_containers(id), ..Removed::default() };
    let mut keep = |step: &str, result: Result<usize>| match result {
        Ok(count) => count,
        Err(error) => {
            failures.push(format!("{step}: {error:#}"));
            0
        }
    };
    removed.processes = keep("end processes", end_processes(id));
    let sockets = dir.map(shim_sockets).unwrap_or_default();
    removed.mounts = keep("undo mounts", undo_mounts(id, dir));
    for socket in sockets {
        keep("remove shim socket", remove_file(&socket));
    }
    removed.cgroups = keep("remove control groups", remove_cgroups(id));
    removed.namespaces = keep("remove namespaces", remove_namespaces(id));
    removed.pins = keep("remove BPF pins", remove_pins(id));
    removed.folders = dir.map_or(0, |dir| keep("remove folder", remove_folder(dir)));
    if !failures.is_empty() {
        // The note stays, so the next sweep tries again.
        bail!("lab {id} could not be removed whole: {}", failures.join("; "));
    }
    remove_file(&note_path(id))?;
    Ok(removed)
}

/// Removes every lab whose owner is dead; labs of living processes are left alone. Returns what went, by lab.
pub fn sweep() -> Result<BTreeMap<LabId, Removed>> {
    fs::create_dir_all(NOTES_DIR).with_context(|| format!("cannot make {NOTES_DIR}: labs need root"))?;
    // Two sweeps at once would trip over each other.
    let lock = File::create(Path::new(NOTES_DIR).join("sweep.lock")).context("sweep lock")?;
    lock.lock().context("sweep lock")?;
    let mut removed = BTreeMap::new();
    for (id, note) in known_labs() {
        if owner_lives(id, note.as_ref()) {
            continue;
        }
        let dir = note.map_or_else(|| std::env::temp_dir().join(id.name()), |note| note.dir);
        removed.insert(id, destroy(id, Some(&dir))?);
    }
    Ok(removed)
}

/// The labs on this machine, and whether their owners live.
pub fn labs() -> BTreeMap<LabId, bool> {
    known_labs().into_iter().map(|(id, note)| (id, owner_lives(id, note.as_ref()))).collect()
}

/// Process ids are used again, so the note's start time decides; without a note any process of that id counts.
fn owner_lives(id: LabId, note: Option<&Note>) -> bool {
    match note {
        Some(note) => start_time(note.pid) == Some(note.start_time),
        None => start_time(id.pid).is_some(),
    }
}

/// Everything on this machine that belongs to the lab, in words, for tests and for diagnosis; empty after a teardown.
pub fn traces(id: LabId, dir: Option<&Path>) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(processes_of(id).into_iter().map(|pid| format!("process {pid}")));
    found.extend(mounts_of(id, dir).into_iter().map(|m| format!("mount {}", m.display())));
    found.extend(cgroups_of(id).into_iter().map(|c| format!("control group {}", c.display())));
    found
        .extend(children(Path::new(NETNS_DIR), id).into_iter().map(|n| format!("namespace {}", n.display())));
    found.extend(children(Path::new(PINS_DIR), id).into_iter().map(|p| format!("pins {}", p.display())));
    let files = dir.map(Path::to_path_buf).into_iter().chain([note_path(id)]);
    found.extend(files.filter(|f| f.exists()).map(|f| format!("file {}", f.display())));
    found
}

fn known_labs() -> BTreeMap<LabId, Option<Note>> {
    let mut labs = BTreeMap::new();
    for name in entries(Path::new(NOTES_DIR)) {
        if let Some(id) = name.strip_suffix(".json").and_then(LabId::parse) {
            let note = fs::read(note_path(id)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            labs.insert(id, note);
        }
    }
    let mut places = vec![PathBuf::from(NETNS_DIR), PathBuf::from(PINS_DIR), std::env::temp_dir()];
    places.extend(hierarchies());
    for id in places.iter().flat_map(|place| entries(place)).filter_map(|name| LabId::of(&name)) {
        labs.entry(id).or_insert(None);
    }
    labs
}

/// Ends every process in the lab's namespaces and control groups, and waits until they are gone. Asked again and
/// again, because a process may fork while we look.
fn end_processes(id: LabId) -> Result<usize> {
    let start = Instant::now();
    let mut ended = HashSet::new();
    loop {
        let alive = processes_of(id);
        if alive.is_empty() {
            return Ok(ended.len());
        }
        if start.elapsed() > PATIENCE {
            bail!("processes {alive:?} do not end");
        }
        for pid in alive {
            ended.insert(pid);
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(error) => bail!("cannot kill process {pid}: {error}"),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn processes_of(id: LabId) -> Vec<i32> {
    let namespaces: HashSet<u64> = children(Path::new(NETNS_DIR), id)
        .iter()
        .filter_map(|ns| fs::metadata(ns).ok())
        .map(|m| m.ino())
        .collect();
    let myself = std::process::id();
    let pids = entries(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<u32>().ok());
    let ours = pids.filter(|&pid| pid != myself && start_time(pid).is_some()).filter(|pid| {
        let in_namespace =
            || fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| namespaces.contains(&m.ino()));
        let in_group =
            || fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|t| group_names(&t, id));
        in_namespace() || in_group() || is_rooted(*pid, id)
    });
    ours.filter_map(|pid| i32::try_from(pid).ok()).collect()
}

/// Whether a process's root file system lies in a folder of the lab: a container of Podman's whose own monitor process
/// was killed first.
fn is_rooted(pid: u32, id: LabId) -> bool {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let root = table.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    root.is_some_and(|line| line.split(['/', ':', ',', ' ']).any(|part| id.owns(part)))
}

/// Whether a `/proc/PID/cgroup` file names a control group of the lab.
fn group_names(text: &str, id: LabId) -> bool {
    let path_of = |line: &str| line.splitn(3, ':').nth(2).map(str::to_string);
    text.lines().filter_map(path_of).any(|path| path.split('/').any(|part| id.owns(part)))
}

fn mounts_of(id: LabId, dir: Option<&Path>) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let ours = |point: &PathBuf| {
        dir.is_some_and(|dir| point.starts_with(dir))
            || point.strip_prefix(NETNS_DIR).is_ok_and(|name| name.to_str().is_some_and(|name| id.owns(name)))
    };
    points.filter(ours).collect()
}

/// Undoes the octal escapes (`\040`) of the kernel's mount table.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.first_chunk::<3>().filter(|_| byte == b'\\');
        let value =
            escaped.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        bytes.push(value.unwrap_or(byte));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

fn undo_mounts(id: LabId, dir: Option<&Path>) -> Result<usize> {
    let mut count = 0;
    // Later mounts lie on or under earlier ones. The namespaces' own mounts are undone with the namespaces.
    for point in mounts_of(id, dir).into_iter().rev().filter(|point| !point.starts_with(NETNS_DIR)) {
        match umount2(&point, MntFlags::MNT_DETACH) {
            Ok(()) => count += 1,
            // Went away with the mount above it, or with its process.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => bail!("{}: {error}", point.display()),
        }
    }
    Ok(count)
}

/// Sockets of containerd's shims: killed shims leave them behind, outside the lab's folder.
fn shim_sockets(dir: &Path) -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    for host in entries(dir) {
        let tasks = dir.join(host).join("containerd/state/io.containerd.runtime.v2.task/moby");
        for task in entries(&tasks) {
            // Up to containerd 1.6 the address is the whole file `address`, later a field of `bootstrap.json`.
            for file in ["address", "bootstrap.json"] {
                let text = fs::read_to_string(tasks.join(&task).join(file)).unwrap_or_default();
                if let Some(at) = text.find(SHIM_SOCKETS) {
                    let end = text[at..].find(['"', '\n']).map_or(text.len(), |n| at + n);
                    sockets.push(PathBuf::from(text[at..end].trim()));
                }
            }
        }
    }
    sockets
}

/// The roots of all cgroup hierarchies: one per controller (v1), or the one (v2).
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(CGROUP_DIR);
    let below = entries(&root).into_iter().map(|name| root.join(name));
    let below: Vec<PathBuf> = below
        .filter(|p| fs::symlink_metadata(p).is_ok_and(|m| m.is_dir()) && p.join("cgroup.procs").exists())
        .collect();
    below.into_iter().chain([root.clone()]).collect()
}

fn cgroups_of(id: LabId) -> Vec<PathBuf> {
    hierarchies().iter().flat_map(|h| children(h, id)).collect()
}

fn count_containers(id: LabId) -> usize {
    let is_container = |name: &String| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let names = cgroups_of(id).into_iter().flat_map(|group| entries(&group));
    names.filter(is_container).collect::<HashSet<_>>().len()
}

fn remove_cgroups(id: LabId) -> Result<usize> {
    let start = Instant::now();
    let mut count = 0;
    for group in cgroups_of(id) {
        loop {
            match remove_cgroup(&group, &mut count) {
                Ok(()) => break,
                Err(error) if start.elapsed() > PATIENCE => bail!("{}: {error}", group.display()),
                // Busy until the last process has left it.
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    Ok(count)
}

fn remove_cgroup(group: &Path, count: &mut usize) -> std::io::Result<()> {
    for child in entries(group) {
        let child = group.join(child);
        if fs::symlink_metadata(&child).is_ok_and(|m| m.is_dir()) {
            remove_cgroup(&child, count)?;
        }
    }
    match fs::remove_dir(group) {
        Ok(()) => *count += 1,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn remove_namespaces(id: LabId) -> Result<usize> {
    let mut count = 0;
    for ns in children(Path::new(NETNS_DIR), id) {
        match umount2(&ns, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(error) => bail!("{}: {error}", ns.display()),
        }
        count += remove_file(&ns)?;
    }
    Ok(count)
}

fn remove_pins(id: LabId) -> Result<usize> {
    let mut count = 0;
    for pins in children(Path::new(PINS_DIR), id) {
        fs::remove_dir_all(&pins).with_context(|| pins.display().to_string())?;
        count += 1;
    }
    Ok(count)
}

fn remove_folder(dir: &Path) -> Result<usize> {
    // A folder on which something is still mounted would lose what lies below.
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    if table.lines().filter_map(|l| l.split(' ').nth(4)).any(|point| unescape(point).starts_with(dir)) {
        bail!("{} still holds mounts", dir.display());
    }
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(1),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| dir.display().to_string()),
    }
}

fn remove_file(file: &Path) -> Result<usize> {
    match fs::remove_file(file) {
        Ok(()) => Ok(1),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", file.display())),
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(read) = fs::read_dir(dir) else { return Vec::new() };
    read.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn children(dir: &Path, id: LabId) -> Vec<PathBuf> {
    debug_assert!(id.name().starts_with(PREFIX));
    entries(dir).into_iter().filter(|name| id.owns(name)).map(|name| dir.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LabId = LabId { pid: 12, number: 3 };

    #[test]
    fn control_groups_are_told_by_their_path() {
        let inside = "9:name=systemd:/conmon-lab-12-3-h1/624c\n0::/conmon-lab-12-3-h1/624c\n";
        assert!(group_names(inside, ID));
        assert!(group_names("0::/user.slice/conmon-lab-12-3-h1\n", ID));
        assert!(!group_names("0::/conmon-lab-12-30-h1/624c\n", ID));
        assert!(!group_names("0::/docker/624c\n", ID));
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/a\\04"), PathBuf::from("/a\\04"));
    }

    #[test]
    fn removed_things_are_told_in_words() {
        assert_eq!(Removed::default().to_string(), "nothing");
        let mut removed = Removed { containers: 1, mounts: 2, ..Removed::default() };
        removed.add(Removed { namespaces: 1, ..Removed::default() });
        assert_eq!(removed.to_string(), "1 container, 2 mounts, 1 network namespace");
    }

    #[test]
    fn shim_sockets_are_read_from_both_kinds_of_note() {
        let dir = std::env::temp_dir().join(format!("shim-sockets-{}", std::process::id()));
        let tasks = dir.join("h1/containerd/state/io.containerd.runtime.v2.task/moby");
        fs::create_dir_all(tasks.join("aa")).unwrap();
        fs::create_dir_all(tasks.join("bb")).unwrap();
        fs::write(tasks.join("aa/address"), "unix:///run/containerd/s/1234").unwrap();
        fs::write(tasks.join("bb/bootstrap.json"), r#"{"address":"unix:///run/containerd/s/5678","v":2}"#)
            .unwrap();
        let mut sockets = shim_sockets(&dir);
        sockets.sort();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            sockets,
            [PathBuf::from("/run/containerd/s/1234"), PathBuf::from("/run/containerd/s/5678")]
        );
    }

    #[test]
    fn a_lab_that_never_was_leaves_no_traces() {
        let id = LabId { pid: u32::MAX, number: 0 };
        assert!(traces(id, Some(Path::new("/nonexistent/lab"))).is_empty());
    }
}
