//! A daemon that is reached over TLS: its address, what we show it, and connections that wait to be used again.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::place::Connection;
use super::{Client, ClientError, DEFAULT_TIMEOUT, Place};
use crate::tls::{self, DEFAULT_PORT, Identity, Names, Side, TlsError};

/// Connections to one daemon that wait to be used again. Further ones are closed.
const IDLE_CONNECTIONS: usize = 2;
/// The daemon closes a connection that is idle for ten seconds; one that is nearly so old is not worth trying.
const IDLE_TIME: Duration = Duration::from_secs(8);

/// What a client trusts and what it shows. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    by_any_name: Arc<ClientConfig>,
    by_role: Arc<ClientConfig>,
    token: Option<Arc<str>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // neither key nor token belongs into a log
        f.debug_struct("Credentials").field("token", &self.token.is_some()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Trusts `roots`; shows `identity` (a host's or an operator's certificate), `token` (a tenant's), or both.
    pub fn new(
        roots: RootCertStore,
        identity: Option<&Identity>,
        token: Option<&str>,
    ) -> Result<Self, TlsError> {
        let config = |names| {
            tls::client_config(roots.clone(), identity, names).map(Arc::new).map_err(|error| {
                let path = identity.map_or_else(PathBuf::new, |identity| identity.path.clone());
                TlsError::Certificate { path, why: error.to_string() }
            })
        };
        Ok(Self {
            by_any_name: config(Names::Any)?,
            by_role: config(Names::Role)?,
            token: token.map(Into::into),
        })
    }
}

/// Why an address of a daemon cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address of a conmond: {reason}")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl Client {
    /// A client of the daemon at `https://NAME[:PORT]`, which must show a certificate for that name or address.
    pub fn https(url: &str, credentials: &Credentials) -> Result<Self, AddressError> {
        let (name, port) = parse(url)?;
        let server = ServerName::try_from(name.clone()).map_err(|_| AddressError {
            text: url.to_owned(),
            reason: "the name is none of DNS, and no IP address",
        })?;
        let target = match name.parse::<IpAddr>() {
            Ok(address) => Target::Address(SocketAddr::new(address, port)),
            Err(_) => Target::Name(name.clone(), port),
        };
        let authority = match name.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            _ => format!("{name}:{port}"),
        };
        let connector = TlsConnector::from(Arc::clone(&credentials.by_any_name));
        Ok(Self::remote(Remote::new(authority, target, server, connector, credentials.token.clone())))
    }

    /// A client of the conmond of the host `name`, wherever it is reached: who answers there must show that very
    /// host's certificate.
    pub fn peer(name: &str, address: SocketAddr, credentials: &Credentials) -> Result<Self, AddressError> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| AddressError {
            text: name.to_owned(),
            reason: "a host's name must be one of DNS",
        })?;
        let connector = TlsConnector::from(Arc::clone(&credentials.by_role));
        let authority = format!("{name} ({address})");
        Ok(Self::remote(Remote::new(
            authority,
            Target::Address(address),
            server,
            connector,
            credentials.token.clone(),
        )))
    }

    fn remote(remote: Remote) -> Self {
        Self {
            place: Place::Remote(Arc::new(remote)),
            timeout: DEFAULT_TIMEOUT,
            speaks_for: None,
            tenant: None,
        }
    }
}

#[derive(Debug)]
enum Target {
    Name(String, u16),
    Address(SocketAddr),
}

/// A daemon behind TLS.
pub(super) struct Remote {
    /// As it is called in messages.
    authority: String,
    host: String,
    target: Target,
    server: ServerName<'static>,
    connector: TlsConnector,
    token: Option<Arc<str>>,
    waiting: Mutex<Vec<(Instant, Connection)>>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

impl Remote {
    fn new(
        authority: String,
        target: Target,
        server: ServerName<'static>,
        connector: TlsConnector,
        token: Option<Arc<str>>,
    ) -> Self {
        let host = match &server {
            ServerName::IpAddress(_) => "conmond".to_owned(),
            name => name.to_str().into_owned(),
        };
        Self { authority, host, target, server, connector, token, waiting: Mutex::new(Vec::new()) }
    }

    /// The value of the header `host`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(super) async fn connect(&self) -> Result<Connection, ClientError> {
        let stream = self.reach().await.map_err(|source| ClientError::reach(&self.authority, source))?;
        // Requests are small and wait for their answer.
        let _ = stream.set_nodelay(true);
        let stream = self.connector.connect(self.server.clone(), stream).await;
        let stream = stream.map_err(|source| ClientError::handshake(&self.authority, source))?;
        Connection::open(stream).await.map_err(|source| self.broken("", source))
    }

    async fn reach(&self) -> io::Result<TcpStream> {
        match &self.target {
            Target::Address(address) => TcpStream::connect(address).await,
            Target::Name(name, port) => TcpStream::connect((name.as_str(), *port)).await,
        }
    }

    pub(super) fn broken(&self, target: &str, source: hyper::Error) -> ClientError {
        // A server that refuses our certificate says so after its own handshake is over, when we have begun to ask.
        match tls::find(&source) {
            Some(error) => {
                let complaint = tls::complain(error, Side::Client);
                ClientError::Tls { place: self.authority.clone(), complaint: Box::new(complaint) }
            }
            None => ClientError::Broken {
                place: self.authority.clone(),
                target: target.to_owned(),
                source: source.into(),
            },
        }
    }

    pub(super) fn idle(&self) -> Option<Connection> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(since, connection)| since.elapsed() < IDLE_TIME && !connection.sender.is_closed());
        waiting.pop().map(|(_, connection)| connection)
    }

    pub(super) fn keep(&self, connection: Connection) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < IDLE_CONNECTIONS && !connection.sender.is_closed() {
            waiting.push((Instant::now(), connection));
        }
    }
}

/// Name and port of `https://NAME[:PORT]`, `NAME[:PORT]` or the same with an address.
fn parse(url: &str) -> Result<(String, u16), AddressError> {
    let wrong = |reason| AddressError { text: url.to_owned(), reason };
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("http", _)) => {
            return Err(wrong("conmond answers other hosts over TLS only: write https://NAME:PORT"));
        }
        Some(_) => return Err(wrong("write https://NAME:PORT")),
        None => url,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (name, port) = if let Some(rest) = rest.strip_prefix('[') {
        let (name, after) =
            rest.split_once(']').ok_or_else(|| wrong("a `]` is missing after the IPv6 address"))?;
        (name, after.strip_prefix(':').or_else(|| after.is_empty().then_some("")))
    } else if rest.parse::<std::net::Ipv6Addr>().is_ok() {
        (rest, Some(""))
    } else {
        match rest.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (rest, Some("")),
        }
    };
    let port = match port {
        Some("") if !rest.ends_with(':') => DEFAULT_PORT,
        Some(port) => {
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("the port must be 1 to 65535"))?
        }
        None => return Err(wrong("write https://[ADDRESS]:PORT")),
    };
    if name.is_empty() || name.contains(['/', '@', '?', '#', ' ']) {
        return Err(wrong("write https://NAME:PORT, without a path"));
    }
    Ok((name.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, name, port) in [
            ("https://web1:9000", "web1", 9000),
            ("https://web1", "web1", DEFAULT_PORT),
            ("https://web1/", "web1", DEFAULT_PORT),
            ("web1.example.org:1", "web1.example.org", 1),
            ("10.0.0.1", "10.0.0.1", DEFAULT_PORT),
            ("https://[2001:db8::1]:7", "2001:db8::1", 7),
            ("[::1]", "::1", DEFAULT_PORT),
            ("::1", "::1", DEFAULT_PORT),
        ] {
            assert_eq!(parse(text), Ok((name.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn slips_are_told() {
        for (text, word) in [
            ("http://web1", "over TLS only"),
            ("ftp://web1", "write https://"),
            ("https://web1:", "the port"),
            ("https://web1:0", "the port"),
            ("https://web1:99999", "the port"),
            ("https://web1:9478/v1/pairs", "the port"),
            ("https://web1/v1", "without a path"),
            ("https://", "without a path"),
            ("https://[::1", "`]` is missing"),
            ("https://[::1]x", "[ADDRESS]:PORT"),
            ("https://user@web1", "without a path"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(text), "{text}: {error}");
        }
    }
}
