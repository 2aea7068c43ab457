//! What Podman tells only by its own interface.
//!
//! Podman speaks Docker's interface, with differences that are smoothed over where the records are converted. Two
//! things it does not say there at all: the bridge that a network has, and which containers use another's network. Its
//! own interface (`libpod`) is asked for those. And of an import's changes it wants each in a parameter of its own, which
//! Docker's clients do not do.

use std::collections::HashMap;

use hyper::Method;
use serde::Deserialize;

use super::{ACT, Docker, answer, transport};
use crate::runtime::{Network, NetworkMembers, RuntimeError};

/// Of the oldest release whose interface we speak; later ones serve it too.
const NETWORKS: &str = "/v4.0.0/libpod/networks/json";
const CONTAINERS: &str = "/v4.0.0/libpod/containers/json?all=true";

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
        network.name = answer::name(&known.name);
        if known.driver == "bridge" && answer::is_interface(&known.network_interface) {
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
        self.list("list networks", NETWORKS, |network: &PodmanNetwork| !network.id.is_empty()).await
    }

    /// The names of the networks that each container, by its identifier, has a place of its own on.
    pub(super) async fn podman_places(&self) -> Result<HashMap<String, Vec<String>>, RuntimeError> {
        let is_one = |container: &PodmanContainer| !container.id.is_empty();
        let all = self.list("list containers", CONTAINERS, is_one).await?;
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
        self.within(what, ACT, transport::ask(&socket, Method::POST, &path, archive.into())).await.map(drop)
    }
}

fn import_path(tag: &str, changes: &[String]) -> String {
    let mut query = vec![("fromSrc", "-"), ("repo", tag)];
    query.extend(changes.iter().map(|change| ("changes", change.as_str())));
    format!("/v1.41/images/create?{}", serde_urlencoded::to_string(query).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

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
