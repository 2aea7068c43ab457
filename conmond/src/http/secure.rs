//! The TLS listener: from a TCP connection to one that is known, or refused.
//!
//! Before a client is known it can take little from us: so many handshakes at a time, and of one address, each for so
//! long. Plain HTTP is told that it is in the wrong place; everything else that is no TLS gets at most an alert.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conmon::tls::{self, Side};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::gate::Door;
use super::refusal::Reason;
use super::socket::ListenError;
use super::tls::{Loaded, Tls, end_of};

/// Connections over TLS at a time. Further ones get 503.
pub const MAX_TLS_CONNECTIONS: usize = 256;
/// Handshakes at a time. Further connections are closed at once.
pub const MAX_HANDSHAKES: usize = 64;
/// Handshakes with one address at a time.
pub const MAX_HANDSHAKES_OF_ONE: usize = 16;
/// A handshake is over within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the files are looked at.
pub(super) const REFRESH: Duration = Duration::from_secs(2);
/// Who was refused may take so long to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is read of somebody who was refused, so that the connection is not reset over our last words.
const FAREWELL_BYTES: usize = 64 << 10;

const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
    {\"status\":400,\"error\":\"this port speaks TLS only\",\"remedy\":\"ask with https://, and a client certificate or a tenant's token\"}\n";

/// The port for the API over TLS, bound and listening.
#[derive(Debug)]
pub struct TlsSocket {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<Tls>,
}

impl TlsSocket {
    /// Listens on `address`. Port 0 takes a free one.
    pub fn bind(address: SocketAddr, tls: Arc<Tls>) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Tls { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn open(self) -> std::io::Result<(tokio::net::TcpListener, Arc<Tls>)> {
        Ok((tokio::net::TcpListener::from_std(self.listener)?, self.tls))
    }
}

/// A client that went through the handshake.
pub(super) struct Greeted {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) door: Door,
    /// When its certificate ends.
    pub(super) until: Option<Instant>,
}

/// Takes a connection through its handshake.
pub(super) async fn greet(stream: TcpStream, loaded: &Loaded) -> Result<Greeted, Reason> {
    let begin = Instant::now();
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE_TIMEOUT, shake(stream, loaded)).await {
        Ok(Ok(greeted)) => Ok(greeted),
        Ok(Err((reason, stream))) => {
            if let Some(stream) = stream {
                let left = FAREWELL.min(HANDSHAKE_TIMEOUT.saturating_sub(begin.elapsed()));
                let _ = timeout(left, part(stream)).await;
            }
            Err(reason)
        }
        Err(_) => Err(Reason::Slow),
    }
}

async fn shake(mut stream: TcpStream, loaded: &Loaded) -> Result<Greeted, (Reason, Option<TcpStream>)> {
    let mut first = [0; 1];
    match stream.peek(&mut first).await {
        Ok(1) => {}
        _ => return Err((Reason::NotTls, None)),
    }
    // Requests of HTTP begin with a capital letter, TLS with the number of the record for handshakes.
    if first[0].is_ascii_uppercase() {
        let _ = stream.write_all(PLAIN.as_bytes()).await;
        return Err((Reason::NotTls, Some(stream)));
    }
    let accepted = TlsAcceptor::from(Arc::clone(&loaded.server)).accept(stream).into_fallible().await;
    let stream = accepted.map_err(|(error, stream)| {
        let complaint = tls::find(&error).map(|error| tls::complain(error, Side::Server));
        if let Some(complaint) = &complaint {
            tracing::debug!(peer = ?stream.peer_addr().ok(), problem = complaint.problem, "a TLS handshake failed");
        }
        let reason = match complaint.map(|complaint| complaint.kind) {
            Some("no_certificate") => Reason::NoCertificate,
            Some("expired" | "not_yet_valid" | "unknown_ca" | "wrong_purpose" | "bad_certificate" | "wrong_name") => {
                Reason::BadCertificate
            }
            _ => Reason::NotTls,
        };
        (reason, Some(stream))
    })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[CertificateDer<'_>]>::first);
    let until = certificate.and_then(|certificate| end_of(certificate)).map(|end| {
        let left = end.duration_since(jiff::Timestamp::now());
        Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO).min(FAR)
    });
    let role = certificate.map(|certificate| tls::role(certificate));
    let door = Door::Tls { role, tokens: Arc::clone(&loaded.tokens) };
    Ok(Greeted { stream, door, until })
}

/// A time that no connection reaches.
const FAR: Duration = Duration::from_secs(366 * 86_400);

/// Ends a connection so that what was written last is read: no more is sent, and what still comes is read for a while.
pub(super) async fn part<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut junk = [0; 4096];
    let mut read = 0;
    while read < FAREWELL_BYTES {
        match stream.read(&mut junk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => read += count,
        }
    }
}

/// Who is shaking hands, by address: one that does it slowly cannot keep all others out.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<HashMap<IpAddr, usize>>);

/// One handshake's place.
#[derive(Debug)]
pub(super) struct Stranger {
    address: IpAddr,
    all: Arc<Strangers>,
}

impl Strangers {
    /// A place for a handshake with this address, if there is one.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let address = address.to_canonical();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = all.values().sum();
        let of_one = all.get(&address).copied().unwrap_or_default();
        if total >= MAX_HANDSHAKES || of_one >= MAX_HANDSHAKES_OF_ONE {
            return None;
        }
        *all.entry(address).or_default() += 1;
        Some(Stranger { address, all: Arc::clone(self) })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}
