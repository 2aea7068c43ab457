//! Where the daemon is, and connecting to it.

use std::fmt;
use std::path::{Path, PathBuf};
#[cfg(feature = "tls")]
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::ClientError;
#[cfg(feature = "tls")]
use super::remote::Remote;

/// Where the daemon is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// On this host.
    Unix(PathBuf),
    /// Behind TLS, on this host or another.
    #[cfg(feature = "tls")]
    Remote(Arc<Remote>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(socket) => write!(f, "{}", socket.display()),
            #[cfg(feature = "tls")]
            Self::Remote(remote) => write!(f, "{remote}"),
        }
    }
}

impl Place {
    /// The value of the header `host`.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "conmond",
            #[cfg(feature = "tls")]
            Self::Remote(remote) => remote.host(),
        }
    }

    /// A connection on which a request may be sent.
    pub(super) async fn connect(&self) -> Result<Connection, ClientError> {
        match self {
            Self::Unix(socket) => unix(socket).await,
            #[cfg(feature = "tls")]
            Self::Remote(remote) => remote.connect().await,
        }
    }

    /// A connection that was used before and is still open.
    pub(super) fn idle(&self) -> Option<Connection> {
        match self {
            Self::Unix(_) => None,
            #[cfg(feature = "tls")]
            Self::Remote(remote) => remote.idle(),
        }
    }

    /// Takes a connection back whose answer was read to its end.
    #[cfg_attr(not(feature = "tls"), allow(clippy::unused_self, reason = "kept only with TLS"))]
    pub(super) fn keep(&self, connection: Connection) {
        match self {
            // Opening one costs next to nothing.
            Self::Unix(_) => drop(connection),
            #[cfg(feature = "tls")]
            Self::Remote(remote) => remote.keep(connection),
        }
    }
}

async fn unix(socket: &Path) -> Result<Connection, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| ClientError::connect(socket, error))?;
    Connection::open(stream).await.map_err(|source| ClientError::Broken {
        place: socket.display().to_string(),
        target: String::new(),
        source: source.into(),
    })
}

/// A connection, and the task that drives it; the task ends with whoever holds this.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Connection {
    pub(super) async fn open<S>(stream: S) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            // What breaks the connection also fails the request or the body, and is reported there.
            drop(connection.await);
        });
        Ok(Self { sender, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
