//! The programs in the kernel: under test runs, on real ports, against captures. Needs root, or CAP_BPF, CAP_NET_ADMIN and
//! CAP_SYS_ADMIN for the namespaces.

mod cost;
mod differential;
mod dispatch;
mod elsewhere;
mod group;
mod grow;
mod imposed;
mod kernel;
mod net;
mod oracle;
mod ports;
mod rtt;
mod set;
mod short_bench;
mod tcp;

/// Root or nothing: says so, and fails where it must have run.
fn privileged(test: &str) -> bool {
    lab::may_run(test).unwrap_or_else(|error| panic!("{error}"))
}
