//! The API's client: HTTP/1.1 over the daemon's Unix socket, one connection for each request, every step bounded in
//! time and size. Errors say what to do, since they are what a user sees when the daemon is not there.

mod error;
mod events;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

pub use error::ClientError;
pub use events::EventStream;

use crate::api::{self, path};

/// The largest answer that is read; well above what a daemon within its own bounds can send.
const ANSWER_LIMIT_BYTES: usize = 256 << 20;

/// The time a request may take unless said otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one daemon. Cheap to make and to clone: it holds no connection.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the daemon that listens on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: DEFAULT_TIMEOUT }
    }

    /// The same with another limit for the time from connecting to the answer's last byte (of the event stream: to
    /// the answer's head).
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Application containers.
    pub async fn containers(
        &self,
        query: &api::ContainersQuery,
    ) -> Result<api::ContainersAnswer, ClientError> {
        self.get(path::CONTAINERS, query).await
    }

    /// Monitoring containers and the pool.
    pub async fn monitors(&self) -> Result<api::MonitorsAnswer, ClientError> {
        self.get(path::MONITORS, &()).await
    }

    /// Who talks to whom.
    pub async fn pairs(&self, query: &api::PairsQuery) -> Result<api::PairsAnswer, ClientError> {
        self.get(path::PAIRS, query).await
    }

    /// Flow records.
    pub async fn flows(&self, query: &api::FlowsQuery) -> Result<api::FlowsAnswer, ClientError> {
        self.get(path::FLOWS, query).await
    }

    /// The newest measurements.
    pub async fn measurements(
        &self,
        query: &api::MeasurementsQuery,
    ) -> Result<api::MeasurementsAnswer, ClientError> {
        self.get(path::MEASUREMENTS, query).await
    }

    /// The daemon's health. A daemon that is starting answers too (with HTTP status 503).
    pub async fn health(&self) -> Result<api::Health, ClientError> {
        let (status, body) = self.exchange(path::HEALTH, "application/json").await?;
        if status.is_success() || status == hyper::StatusCode::SERVICE_UNAVAILABLE {
            decode(path::HEALTH, &body)
        } else {
            Err(refusal(path::HEALTH, status, &body))
        }
    }

    /// Where every packet was counted.
    pub async fn ledger(&self) -> Result<api::LedgerAnswer, ClientError> {
        self.get(path::LEDGER, &()).await
    }

    /// What the daemon is and what it costs.
    pub async fn status(&self) -> Result<api::Status, ClientError> {
        self.get(path::STATUS, &()).await
    }

    /// Checks with remedies.
    pub async fn doctor(&self) -> Result<api::DoctorAnswer, ClientError> {
        self.get(path::DOCTOR, &()).await
    }

    /// The daemon's metrics in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let (status, body) = self.exchange(path::METRICS, "text/plain").await?;
        if !status.is_success() {
            return Err(refusal(path::METRICS, status, &body));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The live stream of events.
    pub async fn events(&self, query: &api::EventsQuery) -> Result<EventStream, ClientError> {
        let target = target(path::EVENTS, query)?;
        let deadline = Instant::now() + self.timeout;
        let (response, connection) = self.send(&target, api::NDJSON, deadline).await?;
        let status = response.status();
        if !status.is_success() {
            let body = self.body(&target, response, deadline).await?;
            return Err(refusal(&target, status, &body));
        }
        Ok(EventStream::new(self.socket.clone(), response.into_body(), connection))
    }

    async fn get<Q: Serialize, A: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<A, ClientError> {
        let target = target(path, query)?;
        let (status, body) = self.exchange(&target, "application/json").await?;
        if !status.is_success() {
            return Err(refusal(&target, status, &body));
        }
        decode(&target, &body)
    }

    async fn exchange(&self, target: &str, accept: &str) -> Result<(hyper::StatusCode, Bytes), ClientError> {
        let deadline = Instant::now() + self.timeout;
        let (response, _connection) = self.send(target, accept, deadline).await?;
        let status = response.status();
        let body = self.body(target, response, deadline).await?;
        Ok((status, body))
    }

    async fn send(
        &self,
        target: &str,
        accept: &str,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Connection), ClientError> {
        let exchange = async {
            let stream =
                UnixStream::connect(&self.socket).await.map_err(|e| ClientError::connect(&self.socket, e))?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|source| self.broken(target, source))?;
            let connection = Connection(tokio::spawn(async move {
                // What breaks the connection also fails the request or the body, and is reported there.
                drop(connection.await);
            }));
            let request = Request::get(target)
                .header(header::HOST, "conmond")
                .header(header::ACCEPT, accept)
                .header(header::USER_AGENT, concat!("conmon/", env!("CARGO_PKG_VERSION")))
                .body(Empty::<Bytes>::new())
                .map_err(|source| ClientError::Request { target: target.to_owned(), source })?;
            let response =
                sender.send_request(request).await.map_err(|source| self.broken(target, source))?;
            Ok((response, connection))
        };
        timeout_at(deadline, exchange).await.map_err(|_| self.late(target))?
    }

    async fn body(
        &self,
        target: &str,
        response: Response<Incoming>,
        end: Instant,
    ) -> Result<Bytes, ClientError> {
        let whole = Limited::new(response.into_body(), ANSWER_LIMIT_BYTES).collect();
        match timeout_at(end, whole).await.map_err(|_| self.late(target))? {
            Ok(body) => Ok(body.to_bytes()),
            Err(source) if source.is::<LengthLimitError>() => {
                Err(ClientError::TooLarge { target: target.to_owned(), limit_bytes: ANSWER_LIMIT_BYTES })
            }
            Err(source) => {
                Err(ClientError::Broken { socket: self.socket.clone(), target: target.to_owned(), source })
            }
        }
    }

    fn broken(&self, target: &str, source: hyper::Error) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), target: target.to_owned(), source: source.into() }
    }

    fn late(&self, target: &str) -> ClientError {
        ClientError::Timeout { socket: self.socket.clone(), target: target.to_owned(), after: self.timeout }
    }
}

/// The task that drives a connection; it ends with whoever uses the connection.
#[derive(Debug)]
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn target<Q: Serialize>(path: &str, query: &Q) -> Result<String, ClientError> {
    let query = serde_urlencoded::to_string(query).map_err(|source| ClientError::Query { source })?;
    Ok(if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") })
}

fn decode<A: DeserializeOwned>(target: &str, body: &[u8]) -> Result<A, ClientError> {
    serde_json::from_slice(body).map_err(|source| ClientError::Decode { target: target.to_owned(), source })
}

fn refusal(target: &str, status: hyper::StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<api::ApiError>(body) {
        Ok(problem) => ClientError::Api(problem),
        // Not one of our handlers: an unknown route, or something else than conmond on that socket.
        Err(_) => ClientError::Refused { target: target.to_owned(), status: status.as_u16() },
    }
}
