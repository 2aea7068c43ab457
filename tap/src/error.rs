//! What can go wrong with the kernel, as sentences that say what is needed.

use std::io;

/// An operation on the kernel that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The carried object could not be read: a build fault.
    #[error("the built-in BPF object is damaged: {0}; build again")]
    Object(String),
    /// A map could not be made.
    #[error("cannot make the BPF map `{name}` of {bytes} bytes{}", hint(source))]
    Map {
        /// Its name.
        name: &'static str,
        /// Its size.
        bytes: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A map could not be frozen or mapped.
    #[error("cannot {what} the BPF map `{name}`{}", hint(source))]
    Share {
        /// freeze, map
        what: &'static str,
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a program.
    #[error("the kernel refuses the BPF program `{name}`{}; ConMon needs Linux 5.15 or later", hint(source))]
    Program {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program could not be attached.
    #[error("cannot attach to port {ifindex} ({direction}){}", hint(source))]
    Attach {
        /// The port.
        ifindex: u32,
        /// tx or rx
        direction: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// TCX was asked for where the kernel has none.
    #[error(
        "cannot attach to port {ifindex}: this kernel has no TCX, which Linux 6.6 brought; leave `tap` at `auto`, or set it to `clsact`"
    )]
    NoTcx {
        /// The port.
        ifindex: u32,
    },
    /// A port in another network namespace was to be tapped without TCX.
    #[error(
        "cannot attach to port {ifindex}: ports of overlay networks, which are in another network namespace, are tapped by TCX only; set `tap` to `auto`"
    )]
    OnlyTcx {
        /// The port.
        ifindex: u32,
    },
    /// The network namespace that a port is in could not be entered.
    #[error("cannot enter the network namespace of port {ifindex}; it takes CAP_SYS_ADMIN")]
    Enter {
        /// The port.
        ifindex: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An attached program could not be exchanged for another.
    #[error("cannot move port {ifindex} ({direction}) to another set{}", hint(source))]
    Update {
        /// The port.
        ifindex: u32,
        /// tx or rx
        direction: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program could not be attached to a control group.
    #[error("cannot attach to the control group {path}{}", hint(source))]
    Group {
        /// The group's folder.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel does not tell what is on a port.
    #[error("cannot ask which programs are on port {ifindex}{}", hint(source))]
    Query {
        /// The port.
        ifindex: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What many ports share could not be made ready.
    #[error("cannot {what} the device `{holder}`, which holds the filters that ports share{}", hint(source))]
    Dispatch {
        /// make, find, put filters on, remove
        what: &'static str,
        /// The device.
        holder: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something could not be pinned, opened or removed under the BPF file system.
    #[error("cannot {what} {path}{}", hint(source))]
    Pin {
        /// pin, open, remove, list
        what: &'static str,
        /// The path.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A pinned set has another layout.
    #[error("the pinned set has record layout {found}, this build uses {ABI}: it cannot go on counting where the other build stopped", ABI = crate::ABI)]
    Layout {
        /// The version found.
        found: u64,
    },
    /// A descriptor is not the map it is said to be.
    #[error("the descriptor handed over as `{name}` cannot be mapped: {source}")]
    Descriptor {
        /// The map's name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The janitor program did not run.
    #[error("the janitor program did not run{}", hint(source))]
    Janitor {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Run-time statistics are not to be had.
    #[error("the kernel's BPF run-time statistics are not available{}", hint(source))]
    Cost {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What to do about an error of the kernel, as the end of a sentence.
fn hint(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            ": not permitted; it takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)"
        }
        Some(libc::ENOMEM) => ": not enough memory; set smaller tables (`tables` in the configuration)",
        Some(libc::ENOENT) => ": not there",
        Some(libc::ENODEV) => ": the port has gone",
        Some(libc::ENOSYS) => ": this kernel is built without BPF",
        _ => "",
    }
}
