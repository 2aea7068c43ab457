//! The real-time class, for threads whose work is a request or two to the kernel, and which come too late if they wait for a processor; and short
//! turns in the ordinary class, for those whose work is a little more.

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

/// `struct sched_attr` of `linux/sched/types.h`, as its first version.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Has the calling thread, and those that it starts from now on, take turns of so many nanoseconds at this nice value (0: the kernel's own length).
/// Who wants short turns gets them sooner: it need not wait for the end of another's (Linux 6.12; before, the kernel takes no note of it).
pub fn turns_of(ns: u64, nice: i32) -> io::Result<()> {
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: SCHED_OTHER.unsigned_abs(),
        flags: 0,
        nice,
        priority: 0,
        runtime: ns,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says, which outlive the call; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
