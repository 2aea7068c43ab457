//! The API's client: HTTP/1.1 over the daemon's Unix socket, one connection for each request, or over TLS, where
//! connections are used again; every step bounded in time and size. Errors say what to do, since they are what a user
//! sees when the daemon is not there. `conmonctl` and the controllers of other hosts use the same.

mod error;
mod events;
mod place;
#[cfg(feature = "tls")]
mod remote;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

pub use error::ClientError;
pub use events::EventStream;
#[cfg(feature = "tls")]
pub use remote::{AddressError, Credentials};

use crate::api::{self, Protocol, path};
use place::{Connection, Place};

/// The largest answer that is read; well above what a daemon within its own bounds can send.
const ANSWER_LIMIT_BYTES: usize = 256 << 20;

/// The same of one host's pairs among those of many: that of a host with 100,000 pairs in JSON, or with 500,000 in fewer octets.
const PAIRS_LIMIT_BYTES: usize = 192 << 20;

/// The time a request may take unless said otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one daemon. Cheap to make and to clone; clones share connections that wait to be used again.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
    timeout: Duration,
    speaks_for: Option<Arc<str>>,
    tenant: Option<Arc<str>>,
}

impl Client {
    /// A client of the daemon that listens on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { place: Place::Unix(socket.into()), timeout: DEFAULT_TIMEOUT, speaks_for: None, tenant: None }
    }

    /// The same with another limit for the time from connecting to the answer's last byte (of the event stream: to
    /// the answer's head).
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, asking as the controller of the host `name`. The other side refuses it unless our certificate is that
    /// host's.
    pub fn speaking_for(mut self, name: &str) -> Self {
        self.speaks_for = Some(name.into());
        self
    }

    /// The same, asking only for what this tenant may see.
    pub fn for_tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.into());
        self
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

    /// Who talks to whom, in a form of this media type if the other side knows it, else in JSON: the form, and the answer's octets.
    pub async fn pairs_as(&self, media_type: &str) -> Result<(PairsForm, Bytes), ClientError> {
        let accept = format!("{media_type}, application/json;q=0.5");
        let deadline = Instant::now() + self.timeout;
        let (response, connection) = self.send(path::PAIRS, &accept, None, deadline).await?;
        let (status, head) = (response.status(), response.headers().get(header::CONTENT_TYPE).cloned());
        let body = self.body_within(path::PAIRS, response, deadline, PAIRS_LIMIT_BYTES).await?;
        self.place.keep(connection);
        if !status.is_success() {
            return Err(refusal(path::PAIRS, status, &body));
        }
        let is_asked_for = head.is_some_and(|head| head.as_bytes() == media_type.as_bytes());
        Ok((if is_asked_for { PairsForm::AsAsked } else { PairsForm::Json }, body))
    }

    /// Who talks to whom on all hosts.
    pub async fn matrix(&self, query: &api::MatrixQuery) -> Result<api::MatrixAnswer, ClientError> {
        self.get(path::MATRIX, query).await
    }

    /// The ends that another host has of conversations with this one.
    pub async fn ends(&self, question: &api::EndsQuestion) -> Result<api::EndsAnswer, ClientError> {
        self.ask(path::ENDS, question).await
    }

    /// The clocks of other hosts that talk with this one.
    pub async fn clocks(&self) -> Result<api::ClocksAnswer, ClientError> {
        self.get(path::CLOCKS, &()).await
    }

    /// A session in which another host answers this one's test packets.
    pub async fn clock_session(&self) -> Result<api::ClockSession, ClientError> {
        self.ask(path::CLOCK_SESSION, &serde_json::json!({})).await
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
        let (status, body) = self.exchange(path::HEALTH, "application/json", None).await?;
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
        let (status, body) = self.exchange(path::METRICS, "text/plain", None).await?;
        if !status.is_success() {
            return Err(refusal(path::METRICS, status, &body));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The live stream of events.
    pub async fn events(&self, query: &api::EventsQuery) -> Result<EventStream, ClientError> {
        let target = target(path::EVENTS, query)?;
        let deadline = Instant::now() + self.timeout;
        let (response, connection) = self.send(&target, api::NDJSON, None, deadline).await?;
        let status = response.status();
        if !status.is_success() {
            let body = self.body(&target, response, deadline).await?;
            return Err(refusal(&target, status, &body));
        }
        Ok(EventStream::new(self.place.to_string(), response.into_body(), connection))
    }

    /// The answer to a question that is too long for an address: what one controller asks another. It must be one that may
    /// be asked twice, since a connection that was kept may have been closed by the other side meanwhile.
    pub async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
    ) -> Result<A, ClientError> {
        let body = serde_json::to_vec(question)
            .map_err(|source| ClientError::Question { target: path.to_owned(), source })?;
        let (status, body) = self.exchange(path, "application/json", Some(body.into())).await?;
        if !status.is_success() {
            return Err(refusal(path, status, &body));
        }
        decode(path, &body)
    }

    async fn get<Q: Serialize, A: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<A, ClientError> {
        let target = target(path, query)?;
        let (status, body) = self.exchange(&target, "application/json", None).await?;
        if !status.is_success() {
            return Err(refusal(&target, status, &body));
        }
        decode(&target, &body)
    }

    async fn exchange(
        &self,
        target: &str,
        accept: &str,
        question: Option<Bytes>,
    ) -> Result<(hyper::StatusCode, Bytes), ClientError> {
        let deadline = Instant::now() + self.timeout;
        let (response, connection) = self.send(target, accept, question, deadline).await?;
        let status = response.status();
        let body = self.body(target, response, deadline).await?;
        self.place.keep(connection);
        Ok((status, body))
    }

    async fn send(
        &self,
        target: &str,
        accept: &str,
        question: Option<Bytes>,
        deadline: Instant,
    ) -> Result<(Response<Incoming>, Connection), ClientError> {
        let exchange = async {
            if let Some(mut connection) = self.place.idle()
                && connection.sender.ready().await.is_ok()
            {
                // The daemon may just have closed it; nothing is changed by asking twice.
                let request = self.request(target, accept, question.as_ref())?;
                if let Ok(response) = connection.sender.send_request(request).await {
                    return Ok((response, connection));
                }
            }
            let mut connection = self.place.connect().await.map_err(|error| error.about(target))?;
            let response =
                connection.sender.send_request(self.request(target, accept, question.as_ref())?).await;
            Ok((response.map_err(|source| self.broken(target, source))?, connection))
        };
        let (response, connection) =
            timeout_at(deadline, exchange).await.map_err(|_| self.late(target))??;
        self.check_protocol(&response)?;
        Ok((response, connection))
    }

    fn request(
        &self,
        target: &str,
        accept: &str,
        question: Option<&Bytes>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = match question {
            None => Request::get(target),
            Some(_) => Request::post(target).header(header::CONTENT_TYPE, "application/json"),
        };
        request = request
            .header(header::HOST, self.place.host())
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, api::PRODUCT)
            .header(api::header::PROTOCOL, Protocol::OURS.to_string());
        #[cfg(feature = "tls")]
        if let Place::Remote(remote) = &self.place
            && let Some(token) = remote.token()
        {
            let mut value = header::HeaderValue::try_from(format!("Bearer {token}")).map_err(|source| {
                ClientError::Request { target: target.to_owned(), source: source.into() }
            })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(name) = &self.speaks_for {
            request = request.header(api::header::HOST, &**name);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header(api::header::TENANT, &**tenant);
        }
        request
            .body(question.cloned().map_or_else(Full::default, Full::new))
            .map_err(|source| ClientError::Request { target: target.to_owned(), source })
    }

    /// Refuses an answer of a daemon that speaks no protocol of ours. One that says nothing is older than the question.
    fn check_protocol(&self, response: &Response<Incoming>) -> Result<(), ClientError> {
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let theirs = match text(api::header::PROTOCOL) {
            None => Protocol::FIRST,
            // what cannot be read is nothing that this version knows
            Some(text) => text.parse().unwrap_or(Protocol { min: u32::MAX, max: u32::MAX }),
        };
        if theirs.common(Protocol::OURS).is_some() {
            return Ok(());
        }
        let version = text(header::SERVER.as_str()).unwrap_or("conmond").to_owned();
        Err(ClientError::Version { place: self.place.to_string(), version, theirs })
    }

    async fn body(
        &self,
        target: &str,
        response: Response<Incoming>,
        end: Instant,
    ) -> Result<Bytes, ClientError> {
        self.body_within(target, response, end, ANSWER_LIMIT_BYTES).await
    }

    async fn body_within(
        &self,
        target: &str,
        response: Response<Incoming>,
        end: Instant,
        limit_bytes: usize,
    ) -> Result<Bytes, ClientError> {
        let whole = Limited::new(response.into_body(), limit_bytes).collect();
        match timeout_at(end, whole).await.map_err(|_| self.late(target))? {
            Ok(body) => Ok(body.to_bytes()),
            Err(source) if source.is::<LengthLimitError>() => {
                Err(ClientError::TooLarge { target: target.to_owned(), limit_bytes })
            }
            Err(source) => {
                Err(ClientError::Broken { place: self.place.to_string(), target: target.to_owned(), source })
            }
        }
    }

    fn broken(&self, target: &str, source: hyper::Error) -> ClientError {
        match &self.place {
            #[cfg(feature = "tls")]
            Place::Remote(remote) => remote.broken(target, source),
            Place::Unix(socket) => ClientError::Broken {
                place: socket.display().to_string(),
                target: target.to_owned(),
                source: source.into(),
            },
        }
    }

    fn late(&self, target: &str) -> ClientError {
        ClientError::Timeout { place: self.place.to_string(), target: target.to_owned(), after: self.timeout }
    }
}

/// In which form pairs came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairsForm {
    /// In that which was asked for.
    AsAsked,
    /// In JSON, [`api::PairsAnswer`].
    Json,
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
