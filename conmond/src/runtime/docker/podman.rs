//! What Podman tells only by its own interface.
//!
//! Podman speaks Docker's interface, with differences that are smoothed over where the records are converted. Two
//! things it does not say there at all: the bridge that a network has, and which containers use another's network. Its
//! own interface (`libpod`) is asked for those. And of an import's changes it wants each in a parameter of its own, which
//! Docker's clients do not do. These are requests of our own: each a connection, one request, one answer.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{ACT, ASK, ApiError, Docker};
use crate::runtime::{Network, NetworkMembers, RuntimeError};

/// The oldest release whose interface we speak; later ones serve it too.
const LIBPOD: &str = "/v4.0.0/libpod";
/// More than any answer has; an engine that sends more is broken.
const LONGEST: u64 = 64 << 20;

/// A network as Podman has it.
#[derive(Debug, Deserialize)]
pub struct PodmanNetwork {
    id: String,
    name: String,
    driver: String,
    #[serde(default)]
    network_interface: String,
}

/// Which networks a container has a place of its own on.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PodmanContainer {
    id: String,
    networks: Option<Vec<String>>,
}

/// Gives networks the name and the bridge that Podman has for them: to Docker's clients it calls the default one
/// `bridge`, and names no bridges.
pub fn complete<'a>(networks: impl Iterator<Item = &'a mut Network>, known: &[PodmanNetwork]) {
    for network in networks {
        let Some(known) = known.iter().find(|k| k.id == network.id) else { continue };
        network.name.clone_from(&known.name);
        if known.driver == "bridge" && !known.network_interface.is_empty() {
            network.bridge = Some(known.network_interface.clone());
        }
    }
}

/// Endpoints that look like one: Podman shows a container that uses another's network at the other's own place. They
/// are told apart by who has a place of its own.
pub fn keep_own(members: &mut NetworkMembers, places: &HashMap<String, Vec<String>>) {
    members.endpoints.retain(|e| places.get(&e.container_id).is_none_or(|own| !own.is_empty()));
}

impl Docker {
    pub(super) async fn podman_networks(&self) -> Result<Vec<PodmanNetwork>, RuntimeError> {
        self.podman("list networks", "/networks/json").await
    }

    /// The names of the networks that each container, by its identifier, has a place of its own on.
    pub(super) async fn podman_places(&self) -> Result<HashMap<String, Vec<String>>, RuntimeError> {
        let all: Vec<PodmanContainer> = self.podman("list containers", "/containers/json?all=true").await?;
        Ok(all.into_iter().map(|c| (c.id, c.networks.unwrap_or_default())).collect())
    }

    /// Imports an image from an archive of its only layer.
    pub(super) async fn podman_import(
        &self,
        what: &'static str,
        tag: &str,
        changes: &[String],
        archive: Vec<u8>,
    ) -> Result<(), RuntimeError> {
        let socket = self.socket();
        let path = import_path(tag, changes);
        self.within(what, ACT, async { Ok(request(&socket, "POST", &path, &archive).await?) }).await.map(drop)
    }

    async fn podman<T: DeserializeOwned>(&self, what: &'static str, path: &str) -> Result<T, RuntimeError> {
        let (socket, path) = (self.socket(), format!("{LIBPOD}{path}"));
        let body = self.within(what, ASK, async { Ok(request(&socket, "GET", &path, &[]).await?) }).await?;
        let read = serde_json::from_slice(&body).map_err(|error| ApiError::from(io::Error::from(error)));
        read.map_err(|source| RuntimeError::Call { what, source: Box::new(source) })
    }
}

/// One request. HTTP/1.0, so that the answer comes in one piece and ends with the connection.
async fn request(socket: &Path, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    split(&answer).map(<[u8]>::to_vec)
}

fn import_path(tag: &str, changes: &[String]) -> String {
    let mut query = vec![("fromSrc", "-"), ("repo", tag)];
    query.extend(changes.iter().map(|change| ("changes", change.as_str())));
    format!("/v1.41/images/create?{}", serde_urlencoded::to_string(query).unwrap_or_default())
}

/// The body of an answer that says yes.
fn split(answer: &[u8]) -> io::Result<&[u8]> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the engine's answer is not HTTP");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(broken)?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| broken())?;
    let status = head.strip_prefix("HTTP/1.").and_then(|h| h.split(' ').nth(1)).ok_or_else(broken)?;
    if status != "200" {
        return Err(io::Error::other(format!("the engine answered with status {status}")));
    }
    Ok(&answer[end + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_or_refused() {
        assert_eq!(split(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n[]").expect("a body"), b"[]");
        let refused = split(b"HTTP/1.1 403 Forbidden\r\n\r\nno").expect_err("no").to_string();
        assert!(refused.contains("403"), "{refused}");
        for broken in [&b""[..], b"HTTP/1.0 200", b"hello\r\n\r\n", b"\xff\r\n\r\n"] {
            assert!(split(broken).is_err());
        }
    }

    #[test]
    fn each_change_of_an_import_is_a_parameter() {
        let path = import_path("a:1", &["USER 1:1".to_owned(), "LABEL a=b&c".to_owned()]);
        let want = "/v1.41/images/create?fromSrc=-&repo=a%3A1&changes=USER+1%3A1&changes=LABEL+a%3Db%26c";
        assert_eq!(path, want);
    }

    #[test]
    fn networks_get_their_own_names_and_bridges() {
        let network = |id: &str, name: &str| Network {
            id: id.into(),
            name: name.into(),
            driver: "bridge".into(),
            bridge: Some(format!("br-{id}")),
            subnets: Vec::new(),
            gateways: Vec::new(),
            internal: false,
            ipv6: false,
        };
        let mut ours = [network("1", "bridge"), network("2", "lan"), network("3", "late")];
        let known = serde_json::from_str::<Vec<PodmanNetwork>>(
            r#"[{"id":"1","name":"podman","driver":"bridge","network_interface":"podman0","dns_enabled":false},
                {"id":"2","name":"lan","driver":"macvlan","network_interface":"eth0"}]"#,
        )
        .expect("networks");
        complete(ours.iter_mut(), &known);
        let told: Vec<_> = ours.iter().map(|n| (n.name.as_str(), n.bridge.as_deref())).collect();
        assert_eq!(told, [("podman", Some("podman0")), ("lan", Some("br-2")), ("late", Some("br-3"))]);
    }
}
