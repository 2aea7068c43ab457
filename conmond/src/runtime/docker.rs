//! Docker Engine, by its Unix socket.
//!
//! Each call opens a connection of its own and ends within a bound. The interface version is negotiated at every
//! (re)connection, because the engine may have been upgraded meanwhile. Nothing here keeps a task running; [`Docker::watch`]
//! is the caller's to spawn and to drop.

mod convert;
mod events;
mod image;
mod monitor;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::API_DEFAULT_VERSION;
use bollard::errors::Error as ApiError;
use bollard::query_parameters::{
    InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptions,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{EngineVersion, NetworkMembers, RuntimeError, Snapshot};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// The interface version of Docker Engine 20.10.
const OLDEST_API: (usize, usize) = (1, 41);
/// Bound on calls that only ask.
const ASK: Duration = Duration::from_secs(10);
/// Bound on calls that start or stop processes or move megabytes.
const ACT: Duration = Duration::from_secs(120);
/// How many networks are asked for at a time.
const PARALLEL: usize = 8;

/// A Docker Engine, seen by one conmond instance.
#[derive(Clone, Debug)]
pub struct Docker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: PathBuf,
    instance: String,
    /// The client of the last negotiation. The lock is held only to clone or replace it.
    client: Mutex<Option<bollard::Docker>>,
}

impl Docker {
    /// The engine that `DOCKER_HOST` names (none or empty: the default socket). Nothing is sent yet.
    pub fn new(docker_host: Option<&str>, instance: &str) -> Result<Docker, RuntimeError> {
        let socket = match docker_host.map(str::trim).filter(|host| !host.is_empty()) {
            None => DEFAULT_SOCKET,
            Some(host) => match host.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
                Some(path) => path,
                None if host.starts_with('/') => host,
                None => return Err(RuntimeError::NoUnixSocket { host: host.to_owned() }),
            },
        };
        if !is_instance(instance) {
            return Err(RuntimeError::BadInstance { name: instance.to_owned() });
        }
        let inner = Inner { socket: socket.into(), instance: instance.to_owned(), client: Mutex::new(None) };
        Ok(Docker { inner: Arc::new(inner) })
    }

    /// The conmond instance whose monitoring containers this makes and removes.
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }

    /// The engine's socket.
    pub fn socket(&self) -> &Path {
        &self.inner.socket
    }

    /// Asks for the engine's version and agrees on the interface version.
    pub async fn connect(&self) -> Result<EngineVersion, RuntimeError> {
        Ok(self.dial().await?.1)
    }

    async fn dial(&self) -> Result<(bollard::Docker, EngineVersion), RuntimeError> {
        const WHAT: &str = "tell its version";
        let path = self.inner.socket.to_string_lossy();
        let connected = async {
            let client = bollard::Docker::connect_with_unix(&path, ACT.as_secs(), API_DEFAULT_VERSION)?;
            let client = client.negotiate_version().await?;
            let version = client.version().await?;
            Ok((client, version))
        };
        let (client, version) = self.within(WHAT, ASK, connected).await?;
        let agreed = client.client_version();
        let version = EngineVersion {
            engine: version.version.unwrap_or_else(|| "unknown".to_owned()),
            api: agreed.to_string(),
        };
        if (agreed.major_version, agreed.minor_version) < OLDEST_API {
            return Err(RuntimeError::TooOld { version });
        }
        *self.inner.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok((client, version))
    }

    /// All application containers and networks, from lists that the engine keeps beside its locks.
    pub async fn snapshot(&self) -> Result<Snapshot, RuntimeError> {
        let client = self.client().await?;
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let containers = self.within("list containers", ASK, client.list_containers(Some(options))).await?;
        let networks =
            self.within("list networks", ASK, client.list_networks(None::<ListNetworksOptions>)).await?;
        // The container list lags behind while a container starts; its networks know its endpoint at once.
        let ids: Vec<String> = networks
            .iter()
            .filter(|network| network.driver.as_deref() == Some("bridge"))
            .filter_map(|network| network.id.clone())
            .collect();
        let members: Vec<NetworkMembers> = stream::iter(ids)
            .map(|id| async move { self.network_endpoints(&id).await })
            .buffer_unordered(PARALLEL)
            .try_filter_map(|members| std::future::ready(Ok(members)))
            .try_collect()
            .await?;
        let networks = networks.into_iter().filter_map(convert::network).collect();
        Ok(convert::snapshot(containers, networks, &members))
    }

    /// A network and its endpoints, none when there is no such network.
    pub async fn network_endpoints(&self, network_id: &str) -> Result<Option<NetworkMembers>, RuntimeError> {
        let client = self.client().await?;
        let asked = client.inspect_network(network_id, None::<InspectNetworkOptions>);
        let found = present(self.within("show a network", ASK, asked).await)?;
        Ok(found.and_then(convert::members))
    }

    /// When a running container's process was started. Needs the container's lock, so it waits while it starts.
    pub async fn started_at(&self, container_id: &str) -> Result<Option<jiff::Timestamp>, RuntimeError> {
        let client = self.client().await?;
        let asked = client.inspect_container(container_id, None::<InspectContainerOptions>);
        let found = present(self.within("inspect a container", ASK, asked).await)?;
        let state = found.and_then(|container| container.state).filter(|state| state.running == Some(true));
        Ok(state.and_then(|state| state.started_at?.parse().ok()))
    }

    /// The client of the last negotiation, or of a new one.
    async fn client(&self) -> Result<bollard::Docker, RuntimeError> {
        let known = self.inner.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(client) => Ok(client),
            None => Ok(self.dial().await?.0),
        }
    }

    /// Runs a call within its bound and turns its error into a sentence.
    async fn within<T>(
        &self,
        what: &'static str,
        bound: Duration,
        call: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, RuntimeError> {
        match tokio::time::timeout(bound, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(ApiError::RequestTimeoutError)) | Err(_) => {
                Err(RuntimeError::NoAnswer { what, seconds: bound.as_secs() })
            }
            Ok(Err(error)) => Err(self.explain(what, error)),
        }
    }

    fn explain(&self, what: &'static str, error: ApiError) -> RuntimeError {
        let path = self.inner.socket.clone();
        if matches!(error, ApiError::SocketNotFoundError(_)) {
            return RuntimeError::SocketMissing { path };
        }
        match io_kind(&error) {
            Some(io::ErrorKind::NotFound) => RuntimeError::SocketMissing { path },
            Some(io::ErrorKind::PermissionDenied) => RuntimeError::PermissionDenied { path },
            Some(io::ErrorKind::ConnectionRefused) => RuntimeError::NobodyListens { path },
            _ => RuntimeError::Call { what, source: Box::new(error) },
        }
    }
}

/// Turns "no such thing" into none.
fn present<T>(result: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if status_code(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The HTTP status with which the engine said no.
fn status_code(error: &RuntimeError) -> Option<u16> {
    match error {
        RuntimeError::Call { source, .. } => match **source {
            ApiError::DockerResponseServerError { status_code, .. } => Some(status_code),
            _ => None,
        },
        _ => None,
    }
}

/// The operating system's reason, wherever it is in the chain.
fn io_kind(error: &ApiError) -> Option<io::ErrorKind> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    // bollard's variants print their source instead of naming it, so look into this one by hand.
    if let ApiError::HyperLegacyError { err } = error {
        next = Some(err);
    }
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

/// Whether a name may be part of an image's and a container's name.
fn is_instance(name: &str) -> bool {
    let separator = |c: u8| matches!(c, b'-' | b'_' | b'.');
    let bytes = name.as_bytes();
    (1..=40).contains(&bytes.len())
        && bytes.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || separator(*c))
        && bytes.first().is_some_and(|c| !separator(*c))
        && bytes.last().is_some_and(|c| !separator(*c))
        && bytes.windows(2).all(|pair| !(separator(pair[0]) && separator(pair[1])))
}

/// A filter for list calls.
fn filter(key: &str, values: Vec<String>) -> HashMap<String, Vec<String>> {
    HashMap::from([(key.to_owned(), values)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_comes_from_docker_host() {
        let socket = |host| Docker::new(host, "default").map(|d| d.socket().to_owned());
        assert_eq!(socket(None).unwrap(), Path::new("/var/run/docker.sock"));
        assert_eq!(socket(Some("")).unwrap(), Path::new("/var/run/docker.sock"));
        assert_eq!(socket(Some("unix:///x/y.sock")).unwrap(), Path::new("/x/y.sock"));
        assert_eq!(socket(Some("/x/y.sock")).unwrap(), Path::new("/x/y.sock"));
        for host in ["tcp://10.0.0.1:2375", "ssh://me@there", "unix://relative", "npipe:////./pipe/docker"] {
            let error = socket(Some(host)).unwrap_err();
            assert!(matches!(&error, RuntimeError::NoUnixSocket { host: h } if h == host), "{error}");
            assert!(error.to_string().contains("set DOCKER_HOST=unix://"), "{error}");
        }
    }

    #[test]
    fn instance_names_fit_into_image_names() {
        for name in ["default", "a", "ci-7", "a.b_c", &"x".repeat(40)] {
            assert!(Docker::new(None, name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "a--b", "A", "a/b", "a b", "ä", &"x".repeat(41)] {
            assert!(matches!(Docker::new(None, name), Err(RuntimeError::BadInstance { .. })), "{name}");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_and_a_deaf_one_are_told_apart() {
        let dir = std::env::temp_dir().join(format!("conmond-docker-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("sock");
        let docker = Docker::new(path.to_str(), "default").unwrap();
        let missing = docker.connect().await.unwrap_err();
        assert!(matches!(missing, RuntimeError::SocketMissing { .. }), "{missing:?}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let deaf = docker.connect().await.unwrap_err();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(deaf, RuntimeError::NobodyListens { .. }), "{deaf:?}");
    }
}
