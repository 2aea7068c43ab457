//! The BPF file system, where pins are.

use std::io;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Where the BPF file system is by custom.
pub const BPF_FS: &str = "/sys/fs/bpf";

/// Whether the BPF file system is mounted at its place.
pub fn is_mounted() -> io::Result<bool> {
    Ok(statfs(BPF_FS)?.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts it unless it is there. Returns whether it was mounted now. Most hosts have it; minimal ones and containers do not.
pub fn mount_if_missing() -> io::Result<bool> {
    if is_mounted()? {
        return Ok(false);
    }
    mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), None::<&str>)?;
    Ok(true)
}
