//! What the kernel tells of a running process.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A line of `/proc/PID/status`.
fn status(pid: &str, key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("{key} in {text}"))?.trim().to_owned())
}

/// The numbers in that line, each thread's, since each has its own.
pub fn of_all_threads(pid: &str, key: &str) -> Result<BTreeSet<u64>> {
    let radix = if key.starts_with("Cap") { 16 } else { 10 };
    let mut all = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let id = thread.file_name().to_string_lossy().into_owned();
        for word in status(&format!("{pid}/task/{id}"), key)?.split_whitespace() {
            all.insert(u64::from_str_radix(word, radix).with_context(|| format!("{key}: {word}"))?);
        }
    }
    Ok(all)
}

/// A thread's name, and the rest of what `proc_pid_stat(5)` tells of it, from the third field on.
fn threads(pid: &str) -> Result<Vec<(String, Vec<String>)>> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let stat = fs::read_to_string(thread.path().join("stat"))?;
        let (name, rest) = stat.rsplit_once(')').with_context(|| stat.clone())?;
        let name = name.split_once('(').map_or(name, |(_, name)| name);
        all.push((name.to_owned(), rest.split_whitespace().map(str::to_owned).collect()));
    }
    Ok(all)
}

/// A field by its number in the manual.
fn field(fields: &[String], number: usize) -> Result<&str> {
    fields.get(number - 3).map(String::as_str).with_context(|| format!("no field {number} in {fields:?}"))
}

/// The names of threads that are not in the ordinary scheduling class.
pub fn real_time_threads(pid: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, fields) in threads(pid)? {
        if field(&fields, 41)? != "0" {
            names.push(name);
        }
    }
    Ok(names)
}

/// The nice values of the threads of this name.
pub fn nice_of(pid: &str, name: &str) -> Result<Vec<i32>> {
    let threads = threads(pid)?;
    let of_name = threads.iter().filter(|(own, _)| own == name);
    of_name.map(|(_, fields)| Ok(field(fields, 19)?.parse()?)).collect()
}

/// Open descriptors by number, and what they are of.
pub fn descriptors(pid: &str) -> Result<BTreeMap<u32, String>> {
    let mut all = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let Ok(target) = fs::read_link(descriptor.path()) else { continue };
        let number = descriptor.file_name().to_string_lossy().parse()?;
        all.insert(number, target.to_string_lossy().into_owned());
    }
    Ok(all)
}

/// The kind of what a descriptor is of: a file's is its name.
pub fn kind(target: &str) -> String {
    match target.split_once(':') {
        Some(("anon_inode", what)) => what.trim_matches(['[', ']']).to_owned(),
        Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
        _ => Path::new(target).file_name().map_or(target.to_owned(), |n| n.to_string_lossy().into_owned()),
    }
}

/// The numbers that the kernel gives the BPF maps of which a process has descriptors.
pub fn maps(pid: &str) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for (descriptor, target) in descriptors(pid)? {
        if kind(&target) == "bpf-map" {
            let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}"))?;
            let id = text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
            all.insert(id.with_context(|| format!("no number of a map in {text}"))?);
        }
    }
    ensure!(!all.is_empty(), "process {pid} has no map");
    Ok(all)
}

/// BPF maps in a process's memory.
pub struct Mapping {
    at: u64,
    pub length: usize,
    /// Whether it may write there, or may have that changed.
    pub writable: bool,
}

pub fn mappings(pid: &str) -> Result<Vec<Mapping>> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut all, mut at) = (Vec::new(), None);
    for line in text.lines() {
        if line.ends_with("anon_inode:bpf-map") {
            let (first, rest) = line.split_once('-').with_context(|| line.to_owned())?;
            let last = rest.split(' ').next().unwrap_or_default();
            at = Some((u64::from_str_radix(first, 16)?, u64::from_str_radix(last, 16)?));
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && let Some((first, last)) = at.take()
        {
            let writable = flags.split_whitespace().any(|flag| ["wr", "mw"].contains(&flag));
            all.push(Mapping { at: first, length: usize::try_from(last - first)?, writable });
        }
    }
    Ok(all)
}

/// Whether an address stands in the BPF maps that a process has mapped: there they are IPv6, or mapped to it.
pub fn knows(pid: &str, address: Ipv4Addr) -> Result<bool> {
    let wanted = address.to_ipv6_mapped().octets();
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    for mapping in mappings(pid)? {
        let mut content = vec![0; mapping.length];
        memory.read_exact_at(&mut content, mapping.at)?;
        if content.windows(wanted.len()).any(|octets| octets == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether we may raise limits, and so may who we start.
pub fn may_raise_limits() -> Result<bool> {
    // linux/capability.h
    const CAP_SYS_RESOURCE: u64 = 24;
    let ours = of_all_threads("self", "CapEff")?;
    Ok(ours.iter().all(|mask| mask & 1 << CAP_SYS_RESOURCE != 0))
}

/// Whether a process's control group has a share of the time for real-time threads: a group of version 1 has none until it is given
/// some, where the kernel has such shares at all.
pub fn real_time_allowed(pid: &str) -> Result<bool> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let of_cpu = |line: &&str| line.split(':').nth(1).is_some_and(|list| list.split(',').any(|c| c == "cpu"));
    let Some(path) = groups.lines().find(of_cpu).and_then(|line| line.splitn(3, ':').nth(2)) else {
        return Ok(true);
    };
    match fs::read_to_string(format!("/sys/fs/cgroup/cpu{path}/cpu.rt_runtime_us")) {
        Ok(share) => Ok(share.trim() != "0"),
        Err(_) => Ok(true),
    }
}
