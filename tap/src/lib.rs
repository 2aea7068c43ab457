//! Kernel observation points: the BPF programs on a container's port, their loader, and the readers of their maps.
//!
//! This crate is the only place of what ships with C, with `unsafe` and with raw kernel bytes. The contract between the two sides
//! is `bpf/conmon.h`; [`abi`] mirrors it, everything above speaks the types of `ippm`.
//!
//! - [`Set`]: one tenant's maps and programs, loaded, pinned, adopted after a restart.
//! - [`Port`]: a host-side port with a set's programs attached, moved between sets without missing a packet.
//! - [`Dispatcher`]: one pair of filters for many ports, while containers start.
//! - [`Reader`]: what a monitoring container does with the descriptors it is handed: map, read, sum; no `bpf()` call.
//! - [`each_flow`], [`Census`]: a set's flows and sums as they are now.
//! - [`Janitor`]: ends and frees records, in the kernel, at the controller's word.
//! - [`fault`]: steps at which a test kills the process; not in what is shipped.
//! - [`heap`]: the process's own memory.
//! - [`cost`]: what the programs cost, from the kernel's run-time statistics.

pub mod abi;
mod buckets;
pub mod clock;
pub mod cost;
mod dispatch;
mod error;
mod extents;
pub mod fault;
pub mod filesystem;
mod fnv;
mod grow;
pub mod heap;
mod janitor;
mod look;
mod mmap;
mod netlink;
mod object;
mod port;
mod reader;
pub mod realtime;
mod ring;
mod set;
mod slots;
mod sys;

pub use buckets::{table_bytes, table_size};
pub use dispatch::{Dispatcher, Removed, Tidied};
pub use error::Error;
pub use extents::Extensible;
pub use grow::Drained;
pub use janitor::{Command, Janitor};
pub use look::{Census, Found, PairNow, PortCensus, each_flow};
pub use port::{
    Attach, Namespace, Port, group_number, has_tcx, is_elsewhere, is_group, kernel_has_tcx, tcx_programs,
};
pub use reader::{Events, LiveFlow, QuietPair, Reader, Scan};
pub use set::{Descriptors, Programs, Set, SetSpec};

/// Version of the records' layout; sets of another version are not adopted.
pub const ABI: u64 = abi::ABI;
