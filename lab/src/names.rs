//! Names of everything a lab makes. Each one begins with `conmon-lab-PID-N`, where PID is the process that owns the
//! lab and N counts the labs of that process, so whoever finds a leftover can tell whether its owner still lives.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// What every name begins with.
pub const PREFIX: &str = "conmon-lab-";

/// Identity of one lab: the process that owns it, and a number within that process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabId {
    /// Process id of the owner.
    pub pid: u32,
    /// Counts the labs of one process from 0.
    pub number: u32,
}

impl LabId {
    /// The next identity of this process.
    pub fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self { pid: std::process::id(), number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Name of the lab as a whole: `conmon-lab-PID-N`.
    pub fn name(&self) -> String {
        format!("{PREFIX}{self}")
    }

    /// Name of one part of the lab: `conmon-lab-PID-N-PART`.
    pub fn part(&self, part: &str) -> String {
        format!("{PREFIX}{self}-{part}")
    }

    /// Whether `name` is the lab's own name or that of one of its parts.
    pub fn owns(&self, name: &str) -> bool {
        Self::of(name) == Some(*self)
    }

    /// The lab a name belongs to; `None` if it is not a lab's name.
    pub fn of(name: &str) -> Option<Self> {
        name.strip_prefix(PREFIX).and_then(Self::parse)
    }

    /// Reads `PID-N`, with or without `-PART` behind it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(3, '-');
        let pid = number(fields.next()?)?;
        let number = number(fields.next()?)?;
        Some(Self { pid, number })
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.number)
    }
}

fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Start time of a process in clock ticks since boot; `None` when there is no such process or it is a zombie.
/// Together with the process id it names a process for good: ids are reused, the pair is not.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Whether a name can be used for a host or a namespace: it becomes part of paths, control groups and instance names,
/// and of those conmond takes at most 32 characters.
pub fn is_valid_part(part: &str) -> bool {
    (1..=10).contains(&part.len())
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !part.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let id = LabId { pid: 12, number: 3 };
        assert_eq!(id.name(), "conmon-lab-12-3");
        assert_eq!(id.part("h-1"), "conmon-lab-12-3-h-1");
        assert_eq!(LabId::of("conmon-lab-12-3-h-1"), Some(id));
        assert_eq!(LabId::of("conmon-lab-12-3"), Some(id));
        assert!(
            id.owns("conmon-lab-12-3-x") && !id.owns("conmon-lab-12-30-x") && !id.owns("conmon-lab-123-3")
        );
        for other in [
            "conmon-lab-",
            "conmon-lab-12",
            "conmon-lab-x-1",
            "conmon-lab-+1-2",
            "lab-1-2",
            "conmon-lab--1-2",
        ] {
            assert_eq!(LabId::of(other), None, "{other}");
        }
    }

    #[test]
    fn start_time_tells_the_living_from_the_dead() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(u32::MAX), None);
    }

    #[test]
    fn labs_of_one_process_differ() {
        assert_ne!(LabId::next(), LabId::next());
    }
}
