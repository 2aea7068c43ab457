//! Many hosts as one system: who is at the far end of what leaves this one, and what all of them have counted.
//!
//! Each controller knows its own containers. What a port sees of a peer on another host is an address: the container's own
//! where networks are routed, else one of that host's, behind which a published port or a masquerade hides it. The first is
//! looked up in the registry; for the second the two hosts compare what both see, the conversation as it is between them
//! ([`crate::nat::Wire`]), and each names its own end. Nothing in the data's path waits for any of it.

mod clocks;
mod directory;
mod ends;
mod lookups;
mod matrix;
mod over_tls;
mod publish;
mod resolver;
pub mod sheet;
mod task;
mod written;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use conmon::api::{ClockSession, EndsAnswer, EndsQuestion, MatrixHost, MatrixQuery, PairsAnswer};

use crate::registry::HostRow;

pub use clocks::Reflector;
pub use lookups::{LookupCounters, Lookups, Outcome, Sighting};
pub use matrix::Matrix;
pub use over_tls::OverTls;
pub use resolver::Counters;
pub use sheet::Sheet;
pub use task::{System, SystemCounters};

/// A future of its own.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The other hosts' controllers.
pub trait Peers: Send + Sync {
    /// Asks a host for its ends of conversations with this one.
    fn ends(&self, host: Arc<HostRow>, question: EndsQuestion) -> BoxFuture<anyhow::Result<EndsAnswer>>;
    /// Asks a host for a session of test packets.
    fn clock_session(&self, host: Arc<HostRow>) -> BoxFuture<anyhow::Result<ClockSession>>;
    /// Asks a host for its pairs of containers; all of them, or what this tenant may see.
    fn pairs(&self, host: Arc<HostRow>, tenant: Option<Arc<str>>) -> BoxFuture<anyhow::Result<Sheet>>;
}

/// The whole system's pairs, and which hosts' are in it.
#[derive(Debug)]
pub struct Snapshot {
    /// When it was put together.
    pub generated_at: jiff::Timestamp,
    /// Every host that is known, and what of it is there.
    pub hosts: Vec<MatrixHost>,
    /// The pairs.
    pub matrix: Matrix,
}

/// The matrix of a host that knows no others.
pub fn alone(mine: &PairsAnswer, query: &MatrixQuery) -> anyhow::Result<Snapshot> {
    let host = |h: &conmon::api::HostAnswer| MatrixHost {
        name: h.name.clone(),
        complete: h.complete,
        age_seconds: Some(0.0),
        problem: (!h.complete).then(|| INCOMPLETE.to_owned()),
    };
    let hosts: Vec<MatrixHost> = mine.hosts.iter().map(host).collect();
    let mut matrix = Matrix::default();
    matrix.add(hosts.first().map_or("", |h| &h.name), Sheet::of(mine)?);
    Ok(Snapshot { generated_at: mine.generated_at, hosts, matrix: matrix.select(query) })
}

/// Why a host's part is not complete although it answered.
const INCOMPLETE: &str =
    "not all of its monitors answer, or its engine does not; `conmonctl doctor` there says more";
