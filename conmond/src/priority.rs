//! Which threads come first when processors are short, as they are while many containers start: those that tap and name, whose
//! work is microseconds at a time. All others wait their turn like everybody.
//!
//! A thread passes its priority on to the threads that it starts, and giving one up needs no privilege: so the daemon takes it at its
//! start, and each thread that can wait gives it up.

use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{getpriority_process, setpriority_process};

/// The nice value of threads that come first.
const FIRST: i32 = -15;
/// The nice value of all others: the one that the daemon was started with, if that is not one that comes first.
static ORDINARY: AtomicI32 = AtomicI32::new(0);

fn nice() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// Has this thread, and those that it starts from now on, come first. False where that is not allowed (it needs `CAP_SYS_NICE`, or
/// to have been started so); everything works then, more slowly on a busy host.
pub fn come_first() -> bool {
    let before = nice();
    ORDINARY.store(before.max(0), Ordering::Relaxed);
    before <= FIRST || setpriority_process(None, FIRST).is_ok()
}

/// Has this thread, and those that it starts from now on, wait its turn.
pub fn wait_turn() {
    let ordinary = ORDINARY.load(Ordering::Relaxed);
    if nice() < ordinary {
        // to give it up needs no leave
        let _ = setpriority_process(None, ordinary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_one_thread_comes_first_and_one_it_starts_waits_its_turn() {
        let before = nice();
        let first = std::thread::spawn(|| {
            assert!(come_first(), "as root");
            let heir = std::thread::spawn(|| {
                let inherited = nice();
                wait_turn();
                (inherited, nice())
            });
            (heir.join().unwrap(), nice())
        });
        assert_eq!(first.join().unwrap(), ((FIRST, before.max(0)), FIRST));
        assert_eq!(nice(), before, "each thread has its own");
    }
}
