//! The HTTP API: owns the sockets it is served on and everything a reader can do to them. It asks a [`Source`] (the
//! controller) and nothing else, never the kernel or the engine. Every request passes the gate first: who asks decides
//! what is answered ([`crate::scope`]), on the Unix socket as over TLS.
//!
//! One task accepts on each socket, one serves each connection; calls to the source run on threads for blocking work.
//! Whatever a peer does is bounded: the number of connections, streams and calls at a time, the size of a request, the
//! time to send it, to answer it and to read the answer. When the shutdown signal comes, streams end, answers under
//! way get half a second, and then every connection is closed.

mod connection;
mod events;
mod gate;
mod problem;
mod query;
mod refusal;
mod routes;
mod secure;
mod server;
mod socket;
mod source;
mod tls;

pub use refusal::{HttpTotals, Reason};
pub use secure::{HANDSHAKE_TIMEOUT, MAX_HANDSHAKES, MAX_HANDSHAKES_OF_ONE, MAX_TLS_CONNECTIONS, TlsSocket};
pub use server::{ANSWER_TIMEOUT, MAX_CALLS, MAX_CONNECTIONS, MAX_STREAMS, STALL_TIMEOUT, Server};
pub use socket::{ApiSocket, ListenError, MetricsSocket, api_group};
pub(crate) use source::Scoped;
pub use source::{
    ClassTotals, EachWay, End, HookRow, HostsMetrics, PairRow, PortRow, ProtocolTotals, SelfMetrics, SetRow,
    Source, Subscription, Usage,
};
pub use tls::{FilesError, Tls, TlsFiles, TlsState};
