//! Tries, as an intruder in a container would, what it should not be able to do, and reports how each attempt ended.
//!
//! Every attempt is complete: nothing but a lack of rights, or of what it is aimed at, makes it fail. Run by root on the host
//! against the same process it shows that, and what not even root can do.

use super::{Args, report, resolve};
use anyhow::{Context, Result};
use nix::libc::{self, c_int, c_long};
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
/// For who hangs up at once if it is not busy: an end of patience is not an answer.
const LONG_PATIENCE: Duration = Duration::from_secs(20);

/// Each attempt and the error that it ended with; `done` for one that succeeded.
type Attempts = BTreeMap<String, String>;

fn note<T>(attempts: &mut Attempts, what: String, result: io::Result<T>) {
    attempts.insert(what, result.map_or_else(|error| error.to_string(), |_| "done".to_owned()));
}

/// `--to` is somebody to talk to, `--controller` a monitor's controller's socket, `--sockets` other Unix sockets to connect to,
/// `--files` files to write to, `--places` files and folders to find, `--pins` BPF maps to open and to write, `--maps` numbers of
/// others to open, each list separated by commas; `--pid` (1) is the process to take over, and its BPF maps.
pub fn run(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?;
    let pid: i32 = args.number("pid", 1)?;
    let mut list = |name: &str| -> Vec<String> {
        let text = args.text(name).unwrap_or_default();
        text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let [controllers, sockets, files, places, pins, maps] =
        ["controller", "sockets", "files", "places", "pins", "maps"].map(&mut list);
    args.finish()?;
    let mut attempts = Attempts::new();
    note(&mut attempts, format!("tcp {to}"), TcpStream::connect_timeout(&to, PATIENCE));
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"?", to));
    note(&mut attempts, format!("udp {to}"), sent);
    for socket in controllers {
        note(&mut attempts, format!("controller {socket}"), is_greeted(&socket));
    }
    for socket in sockets {
        // who may connect may ask: servers that wait for a request are no more closed than those that speak first
        note(&mut attempts, format!("socket {socket}"), UnixStream::connect(&socket));
    }
    for file in files {
        let opened = File::options().write(true).create(true).truncate(false).open(&file);
        note(&mut attempts, format!("write {file}"), opened);
    }
    for place in places {
        note(&mut attempts, format!("find {place}"), fs::metadata(&place));
    }

    note(&mut attempts, "bpf load".to_owned(), load_program());
    for pin in pins {
        let opened = open_pin(&pin);
        if let Ok(map) = &opened {
            write_to(&mut attempts, &pin, map.as_fd());
        }
        note(&mut attempts, format!("bpf pin {pin}"), opened);
    }
    for map in maps {
        let id = map.parse().with_context(|| format!("{map:?} is no number of a map"))?;
        note(&mut attempts, format!("bpf map {map}"), open_map(id));
    }
    // one of our own shows what a map allows that is not frozen
    let own = create_map();
    if let Ok(own) = &own {
        write_to(&mut attempts, "own", own.as_fd());
    }
    note(&mut attempts, "bpf create".to_owned(), own);

    let process = pidfd_open(pid);
    let mut taken = 0;
    for number in descriptors(pid) {
        let copy = process.as_ref().map_err(copied).and_then(|p| take(p.as_fd(), number));
        if let Ok(copy) = &copy {
            write_to(&mut attempts, &number.to_string(), copy.as_fd());
            taken += 1;
        }
        note(&mut attempts, format!("take {number}"), copy);
    }
    if taken == 0 {
        // a filter of system calls asks for no descriptor
        note(&mut attempts, "update without a descriptor".to_owned(), update(-1, MAP_TYPE_ARRAY, 8));
    }
    let memory = File::options().write(true).open(format!("/proc/{pid}/mem"));
    note(&mut attempts, "memory by /proc".to_owned(), memory);
    note(&mut attempts, "memory by process_vm_writev".to_owned(), write_memory(pid));
    note(&mut attempts, "trace".to_owned(), trace(pid));
    report(&attempts)
}

/// Whether a controller says anything: it takes every call of the monitors' user, greets its monitor, and hangs up on others
/// without a word.
fn is_greeted(socket: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LONG_PATIENCE))?;
    match stream.read(&mut [0])? {
        0 => Err(io::ErrorKind::ConnectionAborted.into()),
        _ => Ok(()),
    }
}

fn copied(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn result(returned: c_long) -> io::Result<c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// # Safety
/// What was returned must be a new descriptor that nobody else owns, if it is no error.
unsafe fn descriptor(returned: c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(result(returned)?).map_err(io::Error::other)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

// linux/bpf.h
const BPF_MAP_CREATE: c_long = 0;
const BPF_MAP_UPDATE_ELEM: c_long = 2;
const BPF_PROG_LOAD: c_long = 5;
const BPF_OBJ_GET: c_long = 7;
const BPF_MAP_GET_FD_BY_ID: c_long = 14;
const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_RINGBUF: u32 = 27;
const F_MMAPABLE: u32 = 1 << 10;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;

/// The beginning of `union bpf_attr`; the rest is zero.
type Attr = [u64; 16];

/// Two of its 32-bit fields in a row.
fn two(first: u32, second: u32) -> u64 {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// # Safety
/// What `attr` points to must be valid for what the command does with it.
unsafe fn bpf(command: c_long, attr: &mut Attr) -> c_long {
    // SAFETY: `attr` is as long as is said; what it points to is the caller's promise.
    unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) }
}

/// The shortest program: `r0 = 0; exit`.
fn load_program() -> io::Result<OwnedFd> {
    let code = [two(0xb7, 0), two(0x95, 0)];
    let mut attr = Attr::default();
    attr[0] = two(PROG_TYPE_SOCKET_FILTER, 2);
    attr[1] = code.as_ptr() as u64;
    attr[2] = c"GPL".as_ptr() as u64;
    // SAFETY: code and licence live until the call returns, which is a new descriptor's number.
    unsafe { descriptor(bpf(BPF_PROG_LOAD, &mut attr)) }
}

fn open_pin(path: &str) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    let mut attr = Attr::default();
    attr[0] = path.as_ptr() as u64;
    // SAFETY: the path lives until the call returns, which is a new descriptor's number.
    unsafe { descriptor(bpf(BPF_OBJ_GET, &mut attr)) }
}

fn open_map(id: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::default();
    attr[0] = two(id, 0);
    // SAFETY: no pointers; a new descriptor's number is returned.
    unsafe { descriptor(bpf(BPF_MAP_GET_FD_BY_ID, &mut attr)) }
}

/// An array of one element, as a set's are but for not being frozen.
fn create_map() -> io::Result<OwnedFd> {
    let mut attr = Attr::default();
    attr[0] = two(MAP_TYPE_ARRAY, 4);
    attr[1] = two(8, 1);
    attr[2] = two(F_MMAPABLE, 0);
    // SAFETY: no pointers; a new descriptor's number is returned.
    unsafe { descriptor(bpf(BPF_MAP_CREATE, &mut attr)) }
}

/// Writes zeros to element 0; to a ring, which has no elements, without saying where.
fn update(map: RawFd, kind: u32, value_size: usize) -> io::Result<()> {
    let (key, value) = (0u32, vec![0u8; value_size.next_multiple_of(8)]);
    let mut attr = Attr::default();
    attr[0] = two(map.cast_unsigned(), 0);
    attr[1] = if kind == MAP_TYPE_RINGBUF { 0 } else { std::ptr::from_ref(&key) as u64 };
    attr[2] = value.as_ptr() as u64;
    // SAFETY: key and value, which is as long as the map's, live until the call returns.
    result(unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }).map(drop)
}

const PAGE: usize = 4096;

/// Maps a page of a BPF map.
fn map_page(map: BorrowedFd<'_>, page: usize, protection: c_int) -> io::Result<()> {
    let offset = libc::off_t::try_from(page * PAGE).map_err(io::Error::other)?;
    // SAFETY: a new mapping of one page at no particular place; nothing else is touched.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), PAGE, protection, libc::MAP_SHARED, map.as_raw_fd(), offset)
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page mapped above, that nobody uses.
    unsafe { libc::munmap(at, PAGE) };
    Ok(())
}

/// Tries every way of writing to a BPF map whose descriptor one has, and to read it by one of them. Tells its type
/// (`enum bpf_map_type`), too.
fn write_to(attempts: &mut Attempts, name: &str, map: BorrowedFd<'_>) {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).unwrap_or_default();
    let field = |key: &str| -> Option<u32> {
        about.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok())
    };
    let kind = field("map_type").unwrap_or_default();
    let size = field("value_size").and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE);
    attempts.insert(format!("type of {name}"), kind.to_string());
    note(attempts, format!("update {name}"), update(map.as_raw_fd(), kind, size));
    // a ring's are: how far it was read, how far it was written, and the records
    let pages = if kind == MAP_TYPE_RINGBUF { 0..3 } else { 0..1 };
    for page in pages {
        for (what, more) in [("read", 0), ("write", libc::PROT_WRITE)] {
            let mapped = map_page(map, page, libc::PROT_READ | more);
            note(attempts, format!("map {name} page {page} to {what}"), mapped);
        }
    }
}

/// The descriptors of a process that are BPF maps; all that it may have where one cannot tell.
fn descriptors(pid: i32) -> Vec<RawFd> {
    let mut all = Vec::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        if target.to_string_lossy().contains("bpf-map") {
            all.extend(descriptor.file_name().to_string_lossy().parse::<RawFd>());
        }
    }
    if all.is_empty() { (3..32).collect() } else { all }
}

fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: integers only; a new descriptor's number is returned.
    unsafe { descriptor(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }
}

/// A copy of another process's descriptor.
fn take(process: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: integers only; a new descriptor's number is returned.
    unsafe { descriptor(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0)) }
}

/// Writes an octet where the process misses nothing: at the far end of its stack.
fn write_memory(pid: i32) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).and_then(|line| line.split('-').next());
    // who may not read where that is may not write either, wherever it is
    let base = stack.and_then(|first| usize::from_str_radix(first, 16).ok()).unwrap_or_default();
    let to = [RemoteIoVec { base, len: 1 }];
    Ok(process_vm_writev(Pid::from_raw(pid), &[IoSlice::new(&[0])], &to).map(drop)?)
}

/// As `PTRACE_ATTACH`, but that the process runs on. It ends with this thread.
fn trace(pid: i32) -> io::Result<()> {
    let (seize, pid, none) = (c_long::from(libc::PTRACE_SEIZE), c_long::from(pid), 0 as c_long);
    // SAFETY: integers only; no address and no option are given.
    result(unsafe { libc::syscall(libc::SYS_ptrace, seize, pid, none, none) }).map(drop)
}
