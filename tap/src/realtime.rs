//! The real-time class, for threads whose work is a request or two to the kernel, and which come too late if they wait for a processor.

use std::io;

/// `linux/sched.h`.
const SCHED_OTHER: libc::c_int = 0;
const SCHED_FIFO: libc::c_int = 1;
/// The lowest priority of the class: whatever an administrator puts in it comes first.
const LOWEST: libc::c_int = 1;

fn set(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    // the C library's own function does nothing in some of them
    let parameters = (&raw const priority).cast::<libc::sched_param>();
    // SAFETY: the kernel reads one `int`, which is all of its `struct sched_param`, and which outlives the call; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the calling thread, and those that it starts from now on, run as soon as there is something for it to do, before all threads that are not in
/// the class. It needs `CAP_SYS_NICE` or a limit (`RLIMIT_RTPRIO`) of 1; in a control group without a share of the class it is refused.
pub fn enter() -> io::Result<()> {
    set(SCHED_FIFO, LOWEST)
}

/// Has the calling thread, and those that it starts from now on, be scheduled in the ordinary way.
pub fn leave() -> io::Result<()> {
    set(SCHED_OTHER, 0)
}
