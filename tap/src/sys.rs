//! The `bpf()` system call, as far as the tap needs it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use aya_obj::generated::bpf_insn;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_MAP_FREEZE: libc::c_long = 22;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_ENABLE_STATS: libc::c_long = 32;

pub const MAP_TYPE_ARRAY: u32 = 2;
pub const MAP_TYPE_PROG_ARRAY: u32 = 3;
pub const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
pub const MAP_TYPE_RINGBUF: u32 = 27;
pub const F_RDONLY_PROG: u32 = 1 << 7;
pub const F_MMAPABLE: u32 = 1 << 10;
pub const F_INNER_MAP: u32 = 1 << 12;
pub const PROG_TYPE_SCHED_CLS: u32 = 3;
pub const PROG_TYPE_CGROUP_SKB: u32 = 8;
pub const CGROUP_INGRESS: u32 = 0;
pub const CGROUP_EGRESS: u32 = 1;
pub const TCX_INGRESS: u32 = 46;
pub const TCX_EGRESS: u32 = 47;

/// The attribute union's first 128 bytes: what every command here fits in; zero where not set.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Attr([0; 128])
    }

    fn u32(mut self, at: usize, v: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&v.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, v: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&v.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(at, fd.as_raw_fd() as u32)
    }

    fn name(mut self, at: usize, name: &str) -> Self {
        let n = name.len().min(15);
        self.0[at..at + n].copy_from_slice(&name.as_bytes()[..n]);
        self
    }

    fn get_u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// # Safety
    /// Every pointer written into the attribute must be valid for what the command does with it.
    unsafe fn call(&mut self, command: libc::c_long) -> io::Result<libc::c_long> {
        loop {
            // SAFETY: the attribute is 128 readable and writable bytes; its pointers are the caller's promise.
            let r = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
            if r >= 0 {
                return Ok(r);
            }
            let e = io::Error::last_os_error();
            // a program load is interrupted when the verifier sees a signal
            if e.raw_os_error() != Some(libc::EAGAIN) || command != BPF_PROG_LOAD {
                return Err(e);
            }
        }
    }

    /// # Safety
    /// As for `call`, and the command must return a new descriptor.
    unsafe fn call_fd(&mut self, command: libc::c_long) -> io::Result<OwnedFd> {
        // SAFETY: the caller's promise.
        let fd = unsafe { self.call(command)? };
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

pub fn map_create(kind: u32, value_size: u32, entries: u32, flags: u32, name: &str) -> io::Result<OwnedFd> {
    let key_size = if kind == MAP_TYPE_RINGBUF { 0 } else { 4 };
    let mut a = Attr::new()
        .u32(0, kind)
        .u32(4, key_size)
        .u32(8, value_size)
        .u32(12, entries)
        .u32(16, flags)
        .name(28, name);
    // SAFETY: no pointers.
    unsafe { a.call_fd(BPF_MAP_CREATE) }
}

/// An array of so many maps that are `like` this one but for their sizes.
pub fn map_of_maps(like: BorrowedFd<'_>, entries: u32, name: &str) -> io::Result<OwnedFd> {
    let mut a = Attr::new()
        .u32(0, MAP_TYPE_ARRAY_OF_MAPS)
        .u32(4, 4)
        .u32(8, 4)
        .u32(12, entries)
        .fd(20, like)
        .name(28, name);
    // SAFETY: no pointers.
    unsafe { a.call_fd(BPF_MAP_CREATE) }
}

/// Writes one element of an array map that is not frozen.
pub fn map_update(map: BorrowedFd<'_>, index: u32, value: &[u8]) -> io::Result<()> {
    let mut a =
        Attr::new().fd(0, map).u64(8, std::ptr::from_ref(&index) as u64).u64(16, value.as_ptr() as u64);
    // SAFETY: key and value live until the call returns; the value is as long as the map's (the caller made both).
    unsafe { a.call(BPF_MAP_UPDATE_ELEM).map(drop) }
}

/// Empties one place of an array of programs, if there is something.
pub fn map_delete(map: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let mut a = Attr::new().fd(0, map).u64(8, std::ptr::from_ref(&index) as u64);
    // SAFETY: the key lives until the call returns.
    match unsafe { a.call(BPF_MAP_DELETE_ELEM) } {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Reads one element of an array map; `value` is as long as the map's values are.
pub fn map_lookup(map: BorrowedFd<'_>, index: u32, value: &mut [u8]) -> io::Result<()> {
    let (size, _) = map_info(map)?;
    if size as usize != value.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut a =
        Attr::new().fd(0, map).u64(8, std::ptr::from_ref(&index) as u64).u64(16, value.as_mut_ptr() as u64);
    // SAFETY: key and value live until the call returns; the value is as long as the map's, checked above.
    unsafe { a.call(BPF_MAP_LOOKUP_ELEM).map(drop) }
}

pub fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe { Attr::new().fd(0, map).call(BPF_MAP_FREEZE).map(drop) }
}

/// Loads type information.
pub fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut a = Attr::new().u64(0, btf.as_ptr() as u64).u32(16, btf.len() as u32);
    // SAFETY: the bytes live until the call returns.
    unsafe { a.call_fd(BPF_BTF_LOAD) }
}

/// Loads a classifier. `types`: type information, and of each function its first instruction and type
/// (`struct bpf_func_info`). On refusal the verifier's last words go to the debug log.
pub fn prog_load(
    name: &str,
    (kind, attach): (u32, u32),
    instructions: &[bpf_insn],
    types: Option<(BorrowedFd<'_>, &[[u32; 2]])>,
) -> io::Result<OwnedFd> {
    let license = c"Dual BSD/GPL";
    let mut base = Attr::new()
        .u32(0, kind)
        .u32(4, instructions.len() as u32)
        .u64(8, instructions.as_ptr() as u64)
        .u64(16, license.as_ptr() as u64)
        .name(48, name)
        .u32(68, attach);
    if let Some((btf, functions)) = types {
        base = base
            .fd(72, btf)
            .u32(76, size_of::<[u32; 2]>() as u32)
            .u64(80, functions.as_ptr() as u64)
            .u32(88, functions.len() as u32);
    }
    // SAFETY: instructions, licence and function table live until the call returns.
    let refused = match unsafe { base.clone().call_fd(BPF_PROG_LOAD) } {
        Ok(fd) => return Ok(fd),
        Err(e) => e,
    };
    let mut log = vec![0u8; 1 << 20];
    let mut a = base.u32(24, 1).u32(28, log.len() as u32).u64(32, log.as_mut_ptr() as u64);
    // SAFETY: as above, and the log buffer lives as long.
    if let Ok(fd) = unsafe { a.call_fd(BPF_PROG_LOAD) } {
        return Ok(fd);
    }
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[end.saturating_sub(3000)..end]);
    tracing::debug!(program = name, verifier = %text, "the kernel refused a program");
    Err(refused)
}

fn path_attr(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

pub fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_attr(path)?;
    // SAFETY: the path lives until the call returns.
    unsafe { Attr::new().u64(0, path.as_ptr() as u64).fd(8, fd).call(BPF_OBJ_PIN).map(drop) }
}

pub fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = path_attr(path)?;
    // SAFETY: the path lives until the call returns.
    unsafe { Attr::new().u64(0, path.as_ptr() as u64).call_fd(BPF_OBJ_GET) }
}

/// Attaches before all programs that are there, or after them.
pub fn link_create_tcx(prog: BorrowedFd<'_>, ifindex: u32, attach: u32, first: bool) -> io::Result<OwnedFd> {
    const BPF_F_BEFORE: u32 = 1 << 3;
    let flags = if first { BPF_F_BEFORE } else { 0 };
    // SAFETY: no pointers.
    unsafe { Attr::new().fd(0, prog).u32(4, ifindex).u32(8, attach).u32(12, flags).call_fd(BPF_LINK_CREATE) }
}

/// Attaches to a control group, whose folder `group` is an open descriptor of.
pub fn link_create_group(prog: BorrowedFd<'_>, group: BorrowedFd<'_>, attach: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    unsafe { Attr::new().fd(0, prog).fd(4, group).u32(8, attach).call_fd(BPF_LINK_CREATE) }
}

/// How many programs are at a TCX hook of an interface.
pub fn tcx_query(ifindex: u32, attach: u32) -> io::Result<u32> {
    let mut a = Attr::new().u32(0, ifindex).u32(4, attach);
    // SAFETY: no pointers: without a place for their ids, the programs are only counted.
    unsafe { a.call(BPF_PROG_QUERY)? };
    Ok(a.get_u32(24))
}

pub fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe { Attr::new().fd(0, link).fd(4, prog).call(BPF_LINK_UPDATE).map(drop) }
}

/// Runs a program over `data`, `repeat` times. Returns its verdict and the mean duration in ns.
pub fn test_run(
    prog: BorrowedFd<'_>,
    data: &[u8],
    ctx: Option<&[u8]>,
    repeat: u32,
) -> io::Result<(u32, u32)> {
    let mut a =
        Attr::new().fd(0, prog).u32(8, data.len() as u32).u64(16, data.as_ptr() as u64).u32(32, repeat);
    if let Some(ctx) = ctx {
        a = a.u32(40, ctx.len() as u32).u64(48, ctx.as_ptr() as u64);
    }
    // SAFETY: data and context live until the call returns and are only read: no output buffers are given.
    unsafe { a.call(BPF_PROG_TEST_RUN)? };
    Ok((a.get_u32(4), a.get_u32(36)))
}

/// Run-time statistics are on until the descriptor is closed.
pub fn enable_stats() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; type 0 is BPF_STATS_RUN_TIME.
    unsafe { Attr::new().call_fd(BPF_ENABLE_STATS) }
}

fn info(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<()> {
    let mut a = Attr::new().fd(0, fd).u32(4, into.len() as u32).u64(8, into.as_mut_ptr() as u64);
    // SAFETY: the buffer is writable for the length given and zeroed, as the command wants it.
    unsafe { a.call(BPF_OBJ_GET_INFO_BY_FD).map(drop) }
}

fn u32_in(b: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_in(b: &[u8], at: usize) -> u64 {
    u64::from(u32_in(b, at)) | u64::from(u32_in(b, at + 4)) << 32
}

/// What the kernel tells of a program (`struct bpf_prog_info`).
pub struct ProgInfo {
    /// Bytes of machine code.
    pub machine_code: u32,
    /// Run time in ns while statistics were on.
    pub run_time_ns: u64,
    /// Runs counted while statistics were on.
    pub runs: u64,
    /// Instructions the verifier walked through; 0 before Linux 5.16.
    pub verified: u32,
}

pub fn prog_info(prog: BorrowedFd<'_>) -> io::Result<ProgInfo> {
    let mut b = [0u8; 232];
    info(prog, &mut b)?;
    Ok(ProgInfo {
        machine_code: u32_in(&b, 16),
        run_time_ns: u64_in(&b, 192),
        runs: u64_in(&b, 200),
        verified: u32_in(&b, 216),
    })
}

/// A map's value size and number of entries.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut b = [0u8; 80];
    info(map, &mut b)?;
    Ok((u32_in(&b, 12), u32_in(&b, 16)))
}

/// The kernel's number for a map.
pub fn map_id(map: BorrowedFd<'_>) -> io::Result<u32> {
    let mut b = [0u8; 80];
    info(map, &mut b)?;
    Ok(u32_in(&b, 4))
}

/// A TCX link's program id and interface (0 once the interface has gone).
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut b = [0u8; 40];
    info(link, &mut b)?;
    Ok((u32_in(&b, 8), u32_in(&b, 16)))
}

/// The number of the control group that a link is on, 0 once that has gone.
pub fn link_group(link: BorrowedFd<'_>) -> io::Result<u64> {
    let mut b = [0u8; 40];
    info(link, &mut b)?;
    Ok(u64_in(&b, 16))
}

/// Returns when every program run that began before the call has ended (an RCU grace period).
pub fn grace_period() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes integers only.
    let r = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
