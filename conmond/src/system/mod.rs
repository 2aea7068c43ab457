//! Many hosts as one system: who is at the far end of what leaves this one, and what all of them have counted.
//!
//! Each controller knows its own containers. What a port sees of a peer on another host is an address: the container's own
//! where networks are routed, else one of that host's, behind which a published port or a masquerade hides it. The first is
//! looked up in the registry; for the second the two hosts compare what both see, the conversation as it is between them
//! ([`crate::nat::Wire`]), and each names its own end. Nothing in the data's path waits for any of it.

mod directory;
mod ends;
pub mod matrix;
mod publish;
mod resolver;
mod task;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use conmon::api::{EndsAnswer, EndsQuestion, PairsAnswer};

use crate::registry::HostRow;

pub use resolver::Counters;
pub use task::{System, SystemCounters};

/// A future of its own.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The other hosts' controllers.
pub trait Peers: Send + Sync {
    /// Asks a host for its ends of conversations with this one.
    fn ends(&self, host: Arc<HostRow>, question: EndsQuestion) -> BoxFuture<anyhow::Result<EndsAnswer>>;
    /// Asks a host for its pairs of containers.
    fn pairs(&self, host: Arc<HostRow>) -> BoxFuture<anyhow::Result<PairsAnswer>>;
}
