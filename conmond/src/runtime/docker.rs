//! Docker Engine, or Podman's service, by its Unix socket.
//!
//! Each call opens a connection of its own and ends within a bound. The interface version is negotiated at every
//! (re)connection, because the engine may have been upgraded meanwhile. Nothing here keeps a task running; [`Docker::watch`]
//! is the caller's to spawn and to drop.

mod answer;
mod convert;
mod events;
mod image;
mod monitor;
mod podman;
mod sockets;
mod transport;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::API_DEFAULT_VERSION;
use bollard::errors::Error as ApiError;
use bollard::models;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::Method;
use serde::de::DeserializeOwned;

use super::{EngineKind, EngineVersion, NetworkMembers, NetworkMode, RuntimeError, Snapshot};

/// What Podman's service calls the part of it that runs containers.
const PODMAN: &str = "Podman Engine";
/// The interface version of Docker Engine 20.10 and of Podman 4.
const OLDEST_API: (usize, usize) = (1, 41);
/// Bound on calls that only ask.
const ASK: Duration = Duration::from_secs(10);
/// Bound on calls that start or stop processes or move megabytes.
const ACT: Duration = Duration::from_secs(120);
/// How many networks are asked for at a time.
const PARALLEL: usize = 8;
/// Longer answers are read beside the tasks, which have events to tell.
const LONG: usize = 1 << 20;

/// A Docker Engine or Podman, seen by one conmond instance.
#[derive(Clone, Debug)]
pub struct Docker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The socket that was asked for; none: the usual one that is there.
    socket: Option<PathBuf>,
    instance: String,
    /// The client of the last negotiation, and with whom. The lock is held only to clone or replace it.
    client: Mutex<Option<(bollard::Docker, EngineKind)>>,
}

impl Docker {
    /// The engine that `DOCKER_HOST` names (none or empty: the usual sockets are looked for). Nothing is sent yet.
    pub fn new(docker_host: Option<&str>, instance: &str) -> Result<Docker, RuntimeError> {
        let socket = match docker_host.map(str::trim).filter(|host| !host.is_empty()) {
            None => None,
            Some(host) => match host.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
                Some(path) => Some(path),
                None if host.starts_with('/') => Some(host),
                None => return Err(RuntimeError::NoUnixSocket { host: host.to_owned() }),
            },
        };
        if !is_instance(instance) {
            return Err(RuntimeError::BadInstance { name: instance.to_owned() });
        }
        let inner = Inner {
            socket: socket.map(PathBuf::from),
            instance: instance.to_owned(),
            client: Mutex::new(None),
        };
        Ok(Docker { inner: Arc::new(inner) })
    }

    /// The conmond instance whose monitoring containers this makes and removes.
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }

    /// The engine's socket: the one asked for, else the usual one that is there, else Docker's.
    pub fn socket(&self) -> PathBuf {
        let usual = || sockets::look(Path::new("/")).socket.unwrap_or_else(|| sockets::DOCKER.into());
        self.inner.socket.clone().unwrap_or_else(usual)
    }

    /// Asks for the engine's version and agrees on the interface version.
    pub async fn connect(&self) -> Result<EngineVersion, RuntimeError> {
        Ok(self.dial().await?.1)
    }

    async fn dial(&self) -> Result<(bollard::Docker, EngineVersion), RuntimeError> {
        const WHAT: &str = "tell its version";
        let socket = self.socket();
        let path = socket.to_string_lossy();
        let connected = async {
            // an address for the sake of the requests' form: the transport knows where to
            let client = bollard::Docker::connect_with_custom_transport(
                transport::to(socket.clone()),
                Some("http://localhost"),
                ACT.as_secs(),
                API_DEFAULT_VERSION,
            )?;
            let client = client.negotiate_version().await?;
            let version = client.version().await?;
            Ok((client, version))
        };
        let (client, version) = self.within(WHAT, ASK, connected).await?;
        let agreed = client.client_version();
        let parts = version.components.unwrap_or_default();
        let kind = match parts.iter().any(|part| part.name == PODMAN) {
            true => EngineKind::Podman,
            false => EngineKind::Docker,
        };
        let version = EngineVersion {
            kind,
            engine: version.version.map_or_else(|| "unknown".to_owned(), |text| answer::name(&text)),
            api: agreed.to_string(),
            address: format!("unix://{path}"),
        };
        if (agreed.major_version, agreed.minor_version) < OLDEST_API {
            return Err(RuntimeError::TooOld { version });
        }
        *self.inner.client.lock().unwrap_or_else(PoisonError::into_inner) = Some((client.clone(), kind));
        Ok((client, version))
    }

    /// All application containers and networks, from lists that the engine keeps beside its locks.
    pub async fn snapshot(&self) -> Result<Snapshot, RuntimeError> {
        let kind = self.client_and_kind().await?.1;
        let summaries = self.summaries("list containers", "/containers/json?all=true").await?;
        let listed =
            self.list("list networks", "/networks", |network: &models::Network| network.id.is_some()).await?;
        let mut networks: Vec<_> = listed.into_iter().filter_map(convert::network).collect();
        let mut places = None;
        if kind == EngineKind::Podman {
            podman::complete(networks.iter_mut(), &self.podman_networks().await?);
            places = Some(self.podman_places().await?);
        }
        // The container list lags behind while a container starts; its networks know its endpoint at once.
        let ids: Vec<String> =
            networks.iter().filter(|network| network.has_ports()).map(|network| network.id.clone()).collect();
        let members: Vec<NetworkMembers> = stream::iter(ids)
            .map(|id| async move {
                match self.network_endpoints(&id).await {
                    // one network must not hide the others
                    Err(error @ (RuntimeError::Nonsense { .. } | RuntimeError::TooMuch { .. })) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(network = id, error, "a network's members are not known");
                        Ok(None)
                    }
                    members => members,
                }
            })
            .buffer_unordered(PARALLEL)
            .try_filter_map(|members| std::future::ready(Ok(members)))
            .try_collect()
            .await?;
        let mut snapshot = convert::snapshot(summaries, networks, &members);
        if let Some(places) = places {
            self.podman_modes(&mut snapshot, &places).await;
        }
        Ok(snapshot)
    }

    /// Podman's list does not say whose network a container uses. Those with a place of their own use their own; the few
    /// others are asked one by one, and left unknown where that fails: they are asked again.
    async fn podman_modes(&self, snapshot: &mut Snapshot, places: &HashMap<String, Vec<String>>) {
        for container in &mut snapshot.containers {
            let own = places.get(&container.id).is_some_and(|networks| !networks.is_empty());
            if own {
                container.mode = Some(NetworkMode::Own);
                continue;
            }
            // whatever places are shown are another's
            container.networks.clear();
            if container.state.is_alive() {
                container.mode = self.network_mode(&container.id).await.ok().flatten();
            }
        }
    }

    /// A network and its endpoints, none when there is no such network.
    pub async fn network_endpoints(&self, network_id: &str) -> Result<Option<NetworkMembers>, RuntimeError> {
        let kind = self.client_and_kind().await?.1;
        let found = self.one("show a network", "/networks/", network_id, "").await?;
        let mut members = found.and_then(convert::members);
        if let Some(members) = members.as_mut().filter(|_| kind == EngineKind::Podman) {
            podman::complete(std::iter::once(&mut members.network), &self.podman_networks().await?);
            podman::keep_own(members, &self.podman_places().await?);
        }
        Ok(members)
    }

    /// When a running container's process was started. Needs the container's lock, so it waits while it starts.
    pub async fn started_at(&self, container_id: &str) -> Result<Option<jiff::Timestamp>, RuntimeError> {
        let state = self.inspect(container_id).await?.and_then(|container| container.state);
        let state = state.filter(|state| state.running == Some(true));
        Ok(state.and_then(|state| state.started_at?.parse().ok()))
    }

    /// Whose network a container uses, none when it is not there. Needs the container's lock as well.
    pub async fn network_mode(&self, container_id: &str) -> Result<Option<NetworkMode>, RuntimeError> {
        let found = self.inspect(container_id).await?.and_then(|container| container.host_config);
        Ok(found.map(|host| NetworkMode::parse(host.network_mode.as_deref().unwrap_or_default())))
    }

    /// The file of a running container's network namespace, none when it is not there or does not run. Needs the lock as well.
    pub async fn sandbox(&self, container_id: &str) -> Result<Option<PathBuf>, RuntimeError> {
        let found = self.inspect(container_id).await?.and_then(|container| container.network_settings);
        Ok(found.and_then(|network| network.sandbox_key).and_then(convert::file))
    }

    async fn inspect(
        &self,
        container_id: &str,
    ) -> Result<Option<models::ContainerInspectResponse>, RuntimeError> {
        self.one("inspect a container", "/containers/", container_id, "/json").await
    }

    async fn summaries(
        &self,
        what: &'static str,
        path: &str,
    ) -> Result<Vec<models::ContainerSummary>, RuntimeError> {
        self.list(what, path, |container: &models::ContainerSummary| container.id.is_some()).await
    }

    /// A list, without entries that make no sense.
    async fn list<T: DeserializeOwned + Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        is_one: fn(&T) -> bool,
    ) -> Result<Vec<T>, RuntimeError> {
        let body = self.ask(what, path).await?;
        let list = beside(body.len(), move || answer::list(&body, is_one)).await;
        let list = list.map_err(|why| RuntimeError::Nonsense { what, why })?;
        if let Some((count, why)) = list.left_out {
            tracing::warn!(
                asked = what,
                count,
                why,
                "entries of the engine's list make no sense and are left out"
            );
        }
        Ok(list.entries)
    }

    /// A thing by its identifier, none when it is not there.
    async fn one<T: DeserializeOwned + Send + 'static>(
        &self,
        what: &'static str,
        before: &str,
        id: &str,
        after: &str,
    ) -> Result<Option<T>, RuntimeError> {
        let Some(body) = self.about(what, before, id, after).await? else { return Ok(None) };
        let read = beside(body.len(), move || answer::one(&body)).await;
        read.map(Some).map_err(|why| RuntimeError::Nonsense { what, why })
    }

    /// What is answered of a thing, none when it is not there.
    async fn about(
        &self,
        what: &'static str,
        before: &str,
        id: &str,
        after: &str,
    ) -> Result<Option<Vec<u8>>, RuntimeError> {
        match answer::is_id(id) {
            true => present(self.ask(what, &format!("{before}{id}{after}")).await),
            false => Ok(None),
        }
    }

    /// What bollard would hold whole and read whole or not at all is asked by ourselves.
    async fn ask(&self, what: &'static str, path: &str) -> Result<Vec<u8>, RuntimeError> {
        self.client().await?;
        let socket = self.socket();
        self.within(what, ASK, transport::ask(&socket, Method::GET, path, Bytes::new())).await
    }

    /// The client of the last negotiation, or of a new one.
    async fn client(&self) -> Result<bollard::Docker, RuntimeError> {
        Ok(self.client_and_kind().await?.0)
    }

    async fn client_and_kind(&self) -> Result<(bollard::Docker, EngineKind), RuntimeError> {
        let known = self.inner.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(known) => Ok(known),
            None => self.dial().await.map(|(client, version)| (client, version.kind)),
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
        let missing = || match &self.inner.socket {
            Some(path) => RuntimeError::SocketMissing { looked: vec![path.clone()], rootless: Vec::new() },
            None => {
                let sockets::Found { looked, rootless, .. } = sockets::look(Path::new("/"));
                RuntimeError::SocketMissing { looked, rootless }
            }
        };
        if matches!(error, ApiError::SocketNotFoundError(_)) {
            return missing();
        }
        if let Some(bound) = too_much(&error) {
            return RuntimeError::TooMuch { what, octets: bound };
        }
        let nonsense = |why: &dyn std::fmt::Display| RuntimeError::Nonsense {
            what,
            why: answer::words(&why.to_string()),
        };
        let error = match error {
            ApiError::JsonDataError { message, .. } => return nonsense(&message),
            ApiError::JsonSerdeError { err } => return nonsense(&err),
            ApiError::HyperResponseError { err } if err.is_parse() => return nonsense(&err),
            ApiError::APIVersionParseError {} => return nonsense(&"it names no version of its interface"),
            ApiError::DockerResponseServerError { status_code, message } => {
                ApiError::DockerResponseServerError { status_code, message: answer::words(&message) }
            }
            error => error,
        };
        if let ApiError::DockerResponseServerError { status_code: 403 | 405, .. } = &error {
            return RuntimeError::Forbidden { what, source: Box::new(error) };
        }
        match io_kind(&error) {
            Some(io::ErrorKind::NotFound) => missing(),
            Some(io::ErrorKind::PermissionDenied) => RuntimeError::PermissionDenied { path: self.socket() },
            Some(io::ErrorKind::ConnectionRefused) => RuntimeError::NobodyListens { path: self.socket() },
            _ => RuntimeError::Call { what, source: Box::new(error) },
        }
    }
}

/// Reads an answer of this length.
async fn beside<T: Send + 'static>(length: usize, read: impl FnOnce() -> T + Send + 'static) -> T {
    if length > LONG { image::blocking(read).await } else { read() }
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
    io_error(error).map(io::Error::kind)
}

/// How much may have come, if more came.
fn too_much(error: &ApiError) -> Option<u64> {
    Some(io_error(error)?.get_ref()?.downcast_ref::<transport::TooMuch>()?.bound)
}

fn io_error(error: &ApiError) -> Option<&io::Error> {
    // bollard's variants stand for their source instead of naming it, so look into these by hand.
    let mut next: Option<&(dyn std::error::Error + 'static)> = match error {
        ApiError::IOError { err } => Some(err),
        ApiError::HyperResponseError { err } => Some(err),
        error => Some(error),
    };
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
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

/// A filter as a parameter of calls.
fn filters(key: &str, values: Vec<String>) -> String {
    let filters = serde_json::json!({ key: values }).to_string();
    serde_urlencoded::to_string([("filters", filters)]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_comes_from_docker_host() {
        let socket = |host| Docker::new(host, "default").map(|d| d.socket());
        // unless another engine's is there and Docker's is not
        let usual = sockets::look(Path::new("/")).socket.unwrap_or_else(|| sockets::DOCKER.into());
        assert_eq!(socket(None).unwrap(), usual);
        assert_eq!(socket(Some("")).unwrap(), usual);
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
        assert!(
            missing.to_string().contains(&format!("no engine socket at {};", path.display())),
            "{missing}"
        );
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let deaf = docker.connect().await.unwrap_err();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(deaf, RuntimeError::NobodyListens { .. }), "{deaf:?}");
    }
}
