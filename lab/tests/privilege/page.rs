//! docs/privileges.md: its tables, and a running process held to them.

use crate::process::{descriptors, kind, of_all_threads};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The page's sections on the two kinds of processes.
pub const CONTROLLER: &str = "conmond, the controller";
pub const MONITOR: &str = "PM containers";

/// The rows of the table whose first column has this head, in this section of the page, without that head.
fn table(section: &str, head: &str) -> Result<Vec<Vec<String>>> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/privileges.md"))?;
    let lines = page.lines().skip_while(|line| line.strip_prefix("## ") != Some(section)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    let rows = lines.skip_while(|line| !line.starts_with(&format!("| {head} |"))).skip(2);
    let rows: Vec<Vec<String>> = rows
        .map_while(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    ensure!(!rows.is_empty(), "the page has no table {head:?} in its section {section:?}");
    Ok(rows)
}

/// What stands in a cell as code.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// What who starts a process decides.
pub struct Started {
    /// The mode of the system call filter that is put on it.
    pub filter: BTreeSet<u64>,
    /// Capabilities that it is not given, since it has another that covers them.
    pub covered: &'static [&'static str],
    /// What stays in its bounding set, out of its reach, since it was not given `CAP_SETPCAP` to take it away.
    pub out_of_reach: &'static [&'static str],
}

/// A process's rights against the page's table of them.
pub fn has_the_rights(section: &str, pid: &str, started: &Started) -> Result<()> {
    let mut told = BTreeSet::new();
    for row in table(section, "`/proc/PID/status`")? {
        let [fields, value, ..] = &row[..] else { bail!("{row:?} tells no value") };
        for field in names(fields) {
            let wanted = match value.as_str() {
                "those above" => {
                    let mut mask = documented_capabilities(started.covered)?;
                    if field == "CapBnd" {
                        for name in started.out_of_reach {
                            mask |= bit(name)?;
                        }
                    }
                    BTreeSet::from([mask])
                }
                "as started" => started.filter.clone(),
                number => BTreeSet::from([number.parse().with_context(|| format!("{field}: {number}"))?]),
            };
            let found = of_all_threads(pid, field)?;
            ensure!(found == wanted, "{section}: {field} is {found:x?}, not {wanted:x?} as the page has it");
            told.insert(field.to_owned());
        }
    }
    let all = ["Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];
    ensure!(told == all.map(str::to_owned).into(), "{section}: the page tells of {told:?}, not of {all:?}");
    Ok(())
}

/// The bit of a capability in a mask.
fn bit(name: &str) -> Result<u64> {
    // linux/capability.h
    let numbers = BTreeMap::from([
        ("CAP_CHOWN", 0),
        ("CAP_NET_ADMIN", 12),
        ("CAP_SYS_ADMIN", 21),
        ("CAP_SYS_NICE", 23),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
    ]);
    let number = numbers.get(name).with_context(|| format!("{name}: its number is not known here"))?;
    Ok(1 << number)
}

/// The mask of the capabilities that the page lists, but for some.
fn documented_capabilities(but: &[&str]) -> Result<u64> {
    let mut mask = 0;
    for row in table(CONTROLLER, "Capability")? {
        let listed = row.first().into_iter().flat_map(|cell| names(cell));
        for name in listed.filter(|name| !but.contains(name)) {
            mask |= bit(name)?;
        }
    }
    ensure!(mask != 0, "the page lists no capability");
    Ok(mask)
}

/// A process's open descriptors against the page's table of them; `log` is where its standard streams may go beside
/// `/dev/null` and pipes.
pub fn has_the_descriptors(section: &str, pid: &str, log: &Path) -> Result<()> {
    let before = descriptors(pid)?;
    std::thread::sleep(Duration::from_millis(300));
    // what is opened, read and closed again is none that it has
    let mut open = descriptors(pid)?;
    open.retain(|number, target| before.get(number) == Some(target));
    // nor is a file that was open when the tests were started, which it was left
    let left = descriptors("self")?;
    open.retain(|number, target| *number < 3 || !target.starts_with('/') || left.get(number) != Some(target));
    for (number, target) in open.extract_if(..3, |_, _| true) {
        let fine = target == "/dev/null" || target.starts_with("pipe:") || Path::new(&target) == log;
        ensure!(fine, "{section}: standard stream {number} is {target}");
    }
    let mut kinds = BTreeMap::<String, Vec<String>>::new();
    for target in open.into_values() {
        kinds.entry(kind(&target)).or_default().push(target);
    }
    for row in table(section, "Descriptor")? {
        let [descriptor, number, ..] = &row[..] else { bail!("{row:?} tells no number") };
        let found: Vec<String> = names(descriptor).filter_map(|name| kinds.remove(name)).flatten().collect();
        let fine = match number.as_str() {
            "any" => true,
            "some" => !found.is_empty(),
            number => {
                found.len() == number.parse::<usize>().with_context(|| format!("{descriptor}: {number}"))?
            }
        };
        ensure!(fine, "{section}: not {number} of {descriptor}, as the page has it: {found:?}");
    }
    ensure!(kinds.is_empty(), "{section}: descriptors that the page does not tell of: {kinds:?}");
    Ok(())
}
