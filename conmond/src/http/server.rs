//! Accepting and serving connections, each bounded.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use conmon::api::{self, ApiError, Protocol};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tower::ServiceExt;

use super::connection::{Conduct, Impatient};
use super::gate::{Asker, Door};
use super::refusal::{HttpTotals, Reason, Refusals};
use super::secure::{self, MAX_TLS_CONNECTIONS, Strangers, TlsSocket};
use super::socket::{ApiSocket, MetricsSocket};
use super::source::{Scoped, Source};
use super::tls::Tls;
use super::{problem, routes};
use crate::export::prometheus::{ExporterSettings, Exporters};
use crate::scope::Scope;

/// Connections to one socket at a time. Further ones get 503 at once.
pub const MAX_CONNECTIONS: usize = 64;
/// Live streams at a time.
pub const MAX_STREAMS: usize = 16;
/// Calls to the source at a time. Further requests wait for their turn.
pub const MAX_CALLS: usize = 4;
/// A request is answered within this time, with 503 if need be.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that reads nothing of its answer for so long loses the connection.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's head comes within this time; an idle connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a live stream takes no further request after this time, and ends a little later.
const LIFETIME: Duration = Duration::from_secs(300);
/// The largest head of a request, bytes.
const HEAD_BYTES: usize = 32 << 10;
/// Answers under way at the end get this long.
const GRACE: Duration = Duration::from_millis(500);
/// After an error of `accept` that says nothing about the peer (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
    {\"status\":503,\"error\":\"too many connections are open\",\"remedy\":\"close some, or ask again in a moment\"}\n";

/// Serves the API and the metrics. Cheap to clone; clones share all limits and the state of the metrics.
#[derive(Clone)]
pub struct Server {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    /// Private: routes are given it as their asker may see it.
    source: Arc<dyn Source>,
    pub(super) exporters: Exporters,
    pub(super) streams: Arc<Semaphore>,
    pub(super) stall_timeout: Duration,
    calls: Arc<Semaphore>,
    answer_timeout: Duration,
    dropped_streams: AtomicU64,
    refusals: Refusals,
    /// Whether there is a listener for TLS, of which refusals are told.
    secure: AtomicBool,
}

impl Server {
    /// A server of what `source` knows.
    pub fn new(source: Arc<dyn Source>, metrics: ExporterSettings) -> Self {
        Self::with_timeouts(source, metrics, ANSWER_TIMEOUT, STALL_TIMEOUT)
    }

    /// The same with other limits in time, for tests.
    #[doc(hidden)]
    pub fn with_timeouts(
        source: Arc<dyn Source>,
        metrics: ExporterSettings,
        answer_timeout: Duration,
        stall_timeout: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                source,
                exporters: Exporters::new(metrics),
                streams: Arc::new(Semaphore::new(MAX_STREAMS)),
                calls: Arc::new(Semaphore::new(MAX_CALLS)),
                answer_timeout,
                stall_timeout,
                dropped_streams: AtomicU64::new(0),
                refusals: Refusals::default(),
                secure: AtomicBool::new(false),
            }),
        }
    }

    /// Serves the whole API until `shutdown` becomes true (or its sender is gone), and then less than a second more.
    /// The socket is gone afterwards. Fails only when the socket cannot be watched.
    pub async fn serve_unix(
        &self,
        socket: ApiSocket,
        shutdown: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        let listener = socket.listener()?;
        let router = routes::api(Arc::clone(&self.shared), shutdown.clone());
        self.serve(Listener::Unix(listener), router, shutdown).await;
        drop(socket);
        Ok(())
    }

    /// Serves `/metrics` alone, as long as [`Server::serve_unix`] does.
    pub async fn serve_metrics(
        &self,
        socket: MetricsSocket,
        shutdown: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        let listener = socket.listener()?;
        drop(socket);
        self.serve(Listener::Tcp(listener), routes::metrics_only(Arc::clone(&self.shared)), shutdown).await;
        Ok(())
    }

    /// Serves the whole API over TLS, each asker what it may see, as long as [`Server::serve_unix`] does.
    pub async fn serve_tls(&self, socket: TlsSocket, shutdown: watch::Receiver<bool>) -> std::io::Result<()> {
        let (listener, tls) = socket.open()?;
        self.shared.secure.store(true, Ordering::Relaxed);
        let router = routes::api(Arc::clone(&self.shared), shutdown.clone());
        self.serve(Listener::Tls(listener, tls), router, shutdown).await;
        Ok(())
    }

    /// Live streams that were ended because their reader had stopped reading.
    pub fn dropped_streams(&self) -> u64 {
        self.shared.totals().dropped_streams
    }

    /// Connections and requests that were refused for this.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.shared.refusals.get(reason)
    }

    async fn serve(&self, listener: Listener, router: Router, mut shutdown: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(match &listener {
            Listener::Unix(_) | Listener::Tcp(_) => MAX_CONNECTIONS,
            Listener::Tls(..) => MAX_TLS_CONNECTIONS,
        }));
        let strangers = Arc::<Strangers>::default();
        let mut connections = JoinSet::new();
        let mut refresh = interval(secure::REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                () = finished(&mut shutdown) => break,
                Some(_) = connections.join_next() => continue,
                _ = refresh.tick(), if listener.tls().is_some() => {
                    listener.refresh();
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) if is_of_peer(&error) => continue,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (shared, router, shutdown) = (Arc::clone(&self.shared), router.clone(), shutdown.clone());
            if let Stream::Tls(stream, address, tls) = stream {
                let Some(stranger) = strangers.admit(address) else {
                    self.shared.refusals.count(Reason::Busy);
                    continue;
                };
                let places = Arc::clone(&places);
                connections.spawn(async move {
                    shared.converse_tls(stream, &tls, stranger, &places, router, shutdown).await;
                });
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                stream.refuse();
                continue;
            };
            connections.spawn(async move {
                let door = Arrival::local();
                match stream {
                    Stream::Unix(stream) => shared.converse(stream, door, router, shutdown).await,
                    Stream::Tcp(stream) | Stream::Tls(stream, ..) => {
                        shared.converse(stream, door, router, shutdown).await;
                    }
                }
                drop(place);
            });
        }
        drop(listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(GRACE, all).await.is_err() {
            connections.shutdown().await;
        }
    }
}

impl Shared {
    pub(super) fn totals(&self) -> HttpTotals {
        let secure = self.secure.load(Ordering::Relaxed);
        HttpTotals {
            dropped_streams: self.dropped_streams.load(Ordering::Relaxed),
            refused: secure.then(|| Reason::ALL.map(|reason| self.refusals.get(reason))),
        }
    }

    /// Serves one connection over TLS to its end, if it is let in.
    async fn converse_tls(
        &self,
        stream: TcpStream,
        tls: &Tls,
        stranger: secure::Stranger,
        places: &Arc<Semaphore>,
        router: Router,
        shutdown: watch::Receiver<bool>,
    ) {
        // Before what is loaded is taken: a change after that is seen.
        let grounds = tls.grounds();
        let greeted = match secure::greet(stream, &tls.loaded()).await {
            Ok(greeted) => greeted,
            Err(reason) => {
                self.refusals.count(reason);
                return;
            }
        };
        drop(stranger);
        let Ok(_place) = places.try_acquire() else {
            self.refusals.count(Reason::Busy);
            let mut stream = greeted.stream;
            let farewell = async {
                let _ = stream.write_all(BUSY.as_bytes()).await;
                secure::part(stream).await;
            };
            let _ = timeout(GRACE, farewell).await;
            return;
        };
        let arrival = Arrival { door: greeted.door, until: greeted.until, grounds: Some(grounds) };
        self.converse(greeted.stream, arrival, router, shutdown).await;
    }

    /// Serves one connection to its end.
    async fn converse<S>(
        &self,
        stream: S,
        arrival: Arrival,
        router: Router,
        mut shutdown: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let conduct = Arc::new(Conduct::default());
        let Arrival { door, until, mut grounds } = arrival;
        let for_requests = Arc::clone(&conduct);
        let refusals = &self.refusals;
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            let answer = match door.admit(request.headers()) {
                Ok(scope) => {
                    request.extensions_mut().insert(Asker(scope));
                    request.extensions_mut().insert(Arc::clone(&for_requests));
                    Ok(router.clone().oneshot(request.map(Body::new)))
                }
                Err(refused) => {
                    refusals.count(refused.reason);
                    Err(turned_away(refused.error))
                }
            };
            async move {
                let answer = match answer {
                    Ok(routed) => routed.await,
                    Err(problem) => Ok(problem),
                };
                answer.map(signed)
            }
        });
        let io = TokioIo::new(Impatient::new(stream, self.stall_timeout, Arc::clone(&conduct)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let mut old = std::pin::pin!(sleep(LIFETIME));
        let mut outdated = std::pin::pin!(sleep_until(until.unwrap_or_else(Instant::now)));
        let mut ending = false;
        loop {
            tokio::select! {
                _ = connection.as_mut() => break,
                () = finished(&mut shutdown), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                // The certificate that let it in has ended: so does the connection, whatever is under way.
                () = outdated.as_mut(), if until.is_some() => break,
                // What let it in may be good no more: it ends after what it is being told, a stream at once.
                () = changed(&mut grounds) => {
                    if conduct.streams.load(Ordering::Relaxed) || ending {
                        break;
                    }
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = old.as_mut() => {
                    old.as_mut().reset(tokio::time::Instant::now() + LIFETIME);
                    if conduct.streams.load(Ordering::Relaxed) {
                        continue;
                    }
                    if ending {
                        break;
                    }
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                    old.as_mut().reset(tokio::time::Instant::now() + self.answer_timeout);
                }
            }
        }
        if conduct.stalled.load(Ordering::Relaxed) && conduct.streams.load(Ordering::Relaxed) {
            self.dropped_streams.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("a live stream was ended because its reader had stopped reading");
        }
    }

    /// Calls the source on a thread for blocking work, and waits for it no longer than a reader should. A call that
    /// hangs keeps its place among the calls, so hanging calls cannot pile up.
    pub(super) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        scope: Scope,
        what: impl FnOnce(Scoped<'_>, &Shared) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, problem::Problem> {
        let shared = Arc::clone(self);
        let called = async {
            // The semaphore is never closed.
            let place = Arc::clone(&self.calls).acquire_owned().await.ok();
            tokio::task::spawn_blocking(move || {
                let _place = place;
                what(Scoped::new(&*shared.source, &scope), &shared)
            })
            .await
        };
        match timeout(self.answer_timeout, called).await {
            Ok(Ok(result)) => result.map_err(Into::into),
            Ok(Err(error)) => {
                tracing::error!(error = %error, "a call to the controller failed");
                let problem = ApiError::internal("conmond could not put the answer together");
                Err(problem.with_remedy("its log says more; please report it").into())
            }
            Err(_) => {
                let seconds = self.answer_timeout.as_secs_f64();
                let problem = ApiError::unavailable(format!("no answer within {seconds} s"));
                Err(problem.with_remedy("the host is overloaded, or conmond hangs: see its log").into())
            }
        }
    }
}

/// Returns once the daemon is to end.
pub(super) async fn finished(shutdown: &mut watch::Receiver<bool>) {
    // An error means that whoever could have said so is gone: an end, too.
    let _ = shutdown.wait_for(|&end| end).await;
}

/// Returns once those who were let in are to be asked anew.
async fn changed(grounds: &mut Option<watch::Receiver<u64>>) {
    match grounds {
        // Whoever could have said so is gone: the end of all is near.
        Some(grounds) => drop(grounds.changed().await),
        None => std::future::pending().await,
    }
}

/// An answer that ends the connection: who is not known is not kept.
fn turned_away(error: ApiError) -> Response {
    let unknown = error.status == 401;
    let mut answer = problem::Problem(error).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if unknown {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// An answer that says who gave it.
fn signed(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(api::PRODUCT));
    if let Ok(protocol) = HeaderValue::try_from(Protocol::OURS.to_string()) {
        headers.insert(api::header::PROTOCOL, protocol);
    }
    answer
}

/// How a connection came in, and until when that is good.
struct Arrival {
    door: Door,
    until: Option<Instant>,
    grounds: Option<watch::Receiver<u64>>,
}

impl Arrival {
    fn local() -> Self {
        Self { door: Door::Local, until: None, grounds: None }
    }
}

/// Whether `accept` failed for something that happened to this one peer.
fn is_of_peer(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused)
}

enum Listener {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
    Tls(tokio::net::TcpListener, Arc<Tls>),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    /// Before the handshake.
    Tls(TcpStream, IpAddr, Arc<Tls>),
}

impl Listener {
    fn tls(&self) -> Option<&Arc<Tls>> {
        match self {
            Self::Tls(_, tls) => Some(tls),
            Self::Unix(_) | Self::Tcp(_) => None,
        }
    }

    /// Looks at the files on a thread for blocking work.
    fn refresh(&self) {
        if let Some(tls) = self.tls().map(Arc::clone) {
            tokio::task::spawn_blocking(move || tls.refresh());
        }
    }

    async fn accept(&self) -> std::io::Result<Stream> {
        match self {
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Tls(listener, tls) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Stream::Tls(stream, peer.ip(), Arc::clone(tls)))
            }
        }
    }
}

impl Stream {
    /// Says that there are too many connections, without waiting: a few bytes fit into any empty socket.
    fn refuse(&self) {
        let _ = match self {
            Self::Unix(stream) => stream.try_write(BUSY.as_bytes()),
            Self::Tcp(stream) => stream.try_write(BUSY.as_bytes()),
            // nothing can be said before the handshake
            Self::Tls(..) => Ok(0),
        };
    }
}
