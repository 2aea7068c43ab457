//! The registry's backends for real: one contract for all, faults of a real etcd. No test needs root.

mod contract;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
mod etcd_process;
#[cfg(feature = "etcd")]
mod faults;
mod gossip;
#[cfg(feature = "etcd")]
mod lookup;
#[cfg(feature = "etcd")]
mod proxy;
mod support;
#[cfg(feature = "etcd")]
mod tls;
