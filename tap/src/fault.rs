//! Fault points: named steps at which a test has the process die, to see what a crash there leaves.
//!
//! Without the feature `faults` a point is an empty function, so what is shipped has none. With it, the variable
//! `CONMON_FAULT_FILE` names a file; while that is there, each point reads it. It holds the name of a point and, when
//! not its next passing is meant, which one: `fasten.links`, `set.pin 3`. Whoever reads itself in it removes the file, so that a
//! test sees that the point was reached, and kills its own process with SIGKILL: nothing is unwound, flushed or
//! undone, as in a crash.
//!
//! The crate `fail` was looked at: its points panic, return or sleep, but cannot kill, and a panic runs the very destructors that
//! a crash does not; and they are armed before the start or through an interface of the process, where a test wants to arm one
//! under traffic.

/// Dies here if this point is armed.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Dies here if this point is armed.
#[cfg(feature = "faults")]
pub fn point(name: &str) {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock, PoisonError};

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    /// One passing at a time: several threads may count one point down.
    static PASSING: Mutex<()> = Mutex::new(());

    let Some(file) = FILE.get_or_init(|| std::env::var_os("CONMON_FAULT_FILE").map(PathBuf::from)) else {
        return;
    };
    let _one = PASSING.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(text) = fs::read_to_string(file) else { return };
    match after_passing(&text, name) {
        Passing::Other => {}
        Passing::Later(left) => {
            let _ = fs::write(file, left);
        }
        Passing::Now => {
            let _ = fs::remove_file(file);
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            // the signal comes before the call returns to this thread; to others at any moment
            loop {
                std::thread::park();
            }
        }
    }
}

/// What a passing means to an armed file.
#[cfg(any(feature = "faults", test))]
#[derive(Debug, PartialEq, Eq)]
enum Passing {
    /// Another point is armed, or none.
    Other,
    /// This point, but a later passing: what the file is to hold now.
    Later(String),
    /// This passing.
    Now,
}

#[cfg(any(feature = "faults", test))]
fn after_passing(text: &str, name: &str) -> Passing {
    let mut words = text.split_ascii_whitespace();
    if words.next() != Some(name) {
        return Passing::Other;
    }
    match words.next().and_then(|n| n.parse::<u32>().ok()) {
        Some(n) if n > 1 => Passing::Later(format!("{name} {}\n", n - 1)),
        _ => Passing::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_passing_of_the_named_point_is_meant() {
        assert_eq!(after_passing("set.pin 3\n", "set.pin"), Passing::Later("set.pin 2\n".into()));
        assert_eq!(after_passing("set.pin 1\n", "set.pin"), Passing::Now);
        assert_eq!(after_passing("set.pin", "set.pin"), Passing::Now);
        for other in ["set.pinned", "", "set.pi 2", "other set.pin"] {
            assert_eq!(after_passing(other, "set.pin"), Passing::Other, "{other:?}");
        }
    }
}
