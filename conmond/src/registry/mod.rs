//! The registry of many hosts: who had which address when, and which hosts there are.
//!
//! A plug point ([RFD 5](../../../docs/rfd/0005-registry.md)): [`embedded`] for one host, [`gossip`] for some to some hundred without a database, [`etcd`] for thousands. Each host is the only writer of its own rows and
//! hands in all of them whenever one changed; the backend makes the store say just that. Others are looked up when they are needed, and what is
//! looked up is followed, so that the second answer comes from this process's memory.
//!
//! All logic is in pure state machines ([`cache`], [`writer`], [`reader`]) that are run against a simulated store with
//! faults as well as by the backends.

pub mod answer;
pub mod backoff;
pub mod cache;
pub mod desired;
pub mod embedded;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod gossip;
pub mod hosts;
pub mod keys;
pub mod open;
pub mod reader;
pub mod rows;
#[cfg(test)]
mod sim;
mod window;
pub mod writer;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};

pub use answer::{Answer, Candidate};
pub use cache::{CacheCounters, Limits, Now};
pub use hosts::Hosts;
pub use open::open;
pub use reader::ReaderCounters;
pub use rows::{EndpointRow, HostRow, Own, Protocols};
pub use writer::{WriterCounters, WriterSettings};

/// A future that does not borrow more than the registry.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Changes of addresses that are kept for a listener that is slow; one that missed more is told so, and asks anew for what it has in use.
pub const CHANGES: usize = 4096;

/// A registry.
pub trait Registry: Send + Sync {
    /// Makes the registry say just this of this host, from now on. Does not wait: what cannot be written now is written as soon as it can.
    fn publish(&self, own: Own);

    /// The hosts there are.
    fn hosts(&self) -> watch::Receiver<Arc<Hosts>>;

    /// Who had `address` at `at_ns` (since the Unix epoch, on this host's clock). Asks the registry unless that is known
    /// already. When the registry does not answer, this gives what is known, and its age.
    fn find(&self, address: IpAddr, at_ns: u64) -> BoxFuture<'_, Answer>;

    /// As [`find`](Self::find), if nobody needs to be asked. Takes under a microsecond.
    fn cached(&self, address: IpAddr, at_ns: u64) -> Option<Answer>;

    /// Addresses whose answers changed, of those that were asked for lately.
    fn changes(&self) -> broadcast::Receiver<IpAddr>;

    /// How it goes.
    fn health(&self) -> Health;

    /// Takes this host's rows away, as far as the registry can be reached, and ends.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// How a registry goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Which backend.
    pub backend: &'static str,
    /// Whether it answered lately.
    pub reachable: bool,
    /// Up to when what is followed is known, on this host's clock; none before the first answer.
    pub known_as_of_ns: Option<u64>,
    /// Rows of this host that are not known to be written as they shall be.
    pub pending_rows: usize,
    /// Another conmond, started later, writes as this host; this one's rows are not written.
    pub superseded: bool,
    /// What went wrong last, if it goes wrong still.
    pub problem: Option<String>,
    /// Addresses held.
    pub addresses: usize,
    /// Rows held.
    pub rows: usize,
    /// Watches, or peers that are listened to.
    pub watches: usize,
    /// What the cache did.
    pub cache: CacheCounters,
    /// What writing did.
    pub writer: WriterCounters,
    /// What reading did.
    pub reader: ReaderCounters,
}

/// This host's two clocks.
pub fn now() -> Now {
    let steady_ns = crate::clock::monotonic().as_nanos();
    let wall_ns = i128::from(steady_ns) + tap::clock::wall_offset_ns();
    Now { steady_ns, wall_ns: u64::try_from(wall_ns).unwrap_or(0) }
}
