//! Which threads come first when processors are short, as they are while many containers start: those that tap and name, whose
//! work is microseconds at a time. All others wait their turn like everybody. A few that race with the engine for the kernel's lock for network
//! devices run at once, before all that is not of the real-time class.
//!
//! A thread passes its priority on to the threads that it starts, and giving one up needs no privilege: so the daemon takes it at its
//! start, and each thread that can wait gives it up. Threads that run at once are made then, too, and wait for something to do.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustix::process::{getpriority_process, setpriority_process};
use tap::realtime;

/// The nice value of threads that come first.
const FIRST: i32 = -15;
/// The length of their turns, of those that are brief: the shortest that the kernel knows.
const TURN_NS: u64 = 100_000;
/// The nice value of all others: the one that the daemon was started with, if that is not one that comes first.
static ORDINARY: AtomicI32 = AtomicI32::new(0);

type Task = Box<dyn FnOnce() + Send>;

/// A thread that runs at once, and where it waits for its task.
struct AtOnce {
    task: Sender<Task>,
    thread: JoinHandle<()>,
}

static AT_ONCE: Mutex<Vec<AtOnce>> = Mutex::new(Vec::new());

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
        let _ = realtime::turns_of(0, ordinary);
    }
}

/// Has this thread, if it comes first, do so at once: what it does takes some microseconds, so it is not to wait until another's turn is
/// over, which may be at the kernel's next tick.
pub fn be_brief() {
    let first = nice();
    if first <= FIRST {
        // where the kernel knows nothing of it, it comes first all the same
        let _ = realtime::turns_of(TURN_NS, first);
    }
}

/// Makes threads that run at once, for [`spawn_at_once`], while this thread is the only one. `give_up` gives up what allows it: the threads do not have it
/// either. Where it is not allowed (it needs `CAP_SYS_NICE`, or a limit for real-time priorities of 1) there are none.
pub fn prepare_at_once<E: From<io::Error>>(
    name: &str,
    count: usize,
    give_up: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let allowed = realtime::enter().is_ok();
    let made = give_up().and_then(|()| Ok(make_at_once(name, if allowed { count } else { 0 })?));
    if allowed {
        // to give it up needs no leave
        realtime::leave()?;
    }
    made
}

fn make_at_once(name: &str, count: usize) -> io::Result<()> {
    for _ in 0..count {
        let (task, tasks) = channel::<Task>();
        let wait = move || {
            // none if the daemon ends before
            if let Ok(task) = tasks.recv() {
                task();
            }
        };
        let thread = Builder::new().name(name.into()).spawn(wait)?;
        AT_ONCE.lock().unwrap_or_else(PoisonError::into_inner).push(AtOnce { task, thread });
    }
    Ok(())
}

/// Has a thread do something that [was made](prepare_at_once) to run at once, or an ordinary one of this name if there is no such thread; the answer tells
/// whether there is.
pub fn spawn_at_once(name: &str, task: impl FnOnce() + Send + 'static) -> io::Result<(JoinHandle<()>, bool)> {
    let ready = AT_ONCE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let Some(AtOnce { task: to, thread }) = ready else {
        return Ok((Builder::new().name(name.into()).spawn(task)?, false));
    };
    // it waits for this and nothing else
    let _ = to.send(Box::new(task));
    Ok((thread, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the calling thread; `proc_pid_stat(5)`.
    fn policy_and_priority() -> [u32; 2] {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        [fields[41 - 3].parse().unwrap(), fields[40 - 3].parse().unwrap()]
    }

    #[test]
    fn root_threads_that_were_made_in_time_run_at_once_and_no_others() {
        let told = std::thread::spawn(|| {
            let (tell, told) = channel();
            let ask = |wanted: bool| {
                let tell = tell.clone();
                let (thread, at_once) =
                    spawn_at_once("test", move || tell.send(policy_and_priority()).unwrap()).unwrap();
                thread.join().unwrap();
                assert_eq!(at_once, wanted);
                told.recv().unwrap()
            };
            let without = ask(false);
            prepare_at_once("test", 2, || Ok::<(), io::Error>(())).unwrap();
            (without, [ask(true), ask(true)], ask(false), policy_and_priority())
        });
        let ordinary = [0, 0];
        // FIFO, at the lowest of its priorities
        let real_time = [1, 1];
        assert_eq!(told.join().unwrap(), (ordinary, [real_time; 2], ordinary, ordinary));
    }

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
