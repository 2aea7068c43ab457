//! From the engine's records to ours. Pure, and forgiving: what is not there is none, what makes no sense is left out.
//!
//! Identifiers and interfaces' names become parts of paths and names are shown: none goes on that could do harm there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Component, PathBuf};

use bollard::models;
use bollard::models::{ContainerSummaryStateEnum, EventMessage, EventMessageTypeEnum};
use ippm::time::Timestamp;

use super::answer;
use crate::runtime::{
    Container, ContainerAction, ContainerState, Endpoint, EngineEvent, EventTime, LABEL_INSTANCE, LABEL_ROLE,
    LABEL_SLOT, Network, NetworkEndpoint, NetworkMembers, NetworkMode, OVERLAY, Policy, ROLE_MONITOR,
    Snapshot, overlay_name,
};

/// Attributes of container events that are not labels.
const NOT_LABELS: &[&str] = &[
    "name",
    "image",
    "exitCode",
    "signal",
    "execID",
    "execDuration",
    "oldName",
    "comment",
    "imageID",
    "imageRef",
    // Podman's
    "containerExitCode",
    "podId",
];

/// Whether these are the labels of a monitoring container, this instance's or another's.
pub fn is_monitor<'a>(get: impl Fn(&str) -> Option<&'a String>) -> bool {
    get(LABEL_ROLE).is_some_and(|role| role == ROLE_MONITOR)
}

pub fn snapshot(
    summaries: Vec<models::ContainerSummary>,
    networks: Vec<Network>,
    members: &[NetworkMembers],
) -> Snapshot {
    // Podman's list has a network's name where Docker's has its identifier.
    let by_name = networks.iter().map(|n| (n.name.as_str(), n));
    let known: HashMap<&str, &Network> = by_name.chain(networks.iter().map(|n| (n.id.as_str(), n))).collect();
    let mut ids = HashSet::new();
    let containers = summaries.into_iter().filter_map(|summary| container(summary, &known));
    let mut containers: Vec<Container> = containers.filter(|c| ids.insert(c.id.clone())).collect();
    let places: HashMap<String, usize> =
        containers.iter().enumerate().map(|(place, container)| (container.id.clone(), place)).collect();
    for NetworkMembers { network, endpoints } in members {
        for found in endpoints {
            let Some(container) =
                places.get(&found.container_id).and_then(|place| containers.get_mut(*place))
            else {
                continue;
            };
            let known = container.networks.iter().position(|e| e.network_id == network.id);
            // The list may know a gateway; for the rest the network is the better witness.
            let gateway = known.and_then(|at| container.networks[at].gateway);
            let endpoint = Endpoint {
                network_id: network.id.clone(),
                network_name: network.name.clone(),
                bridge: network.bridge.clone(),
                endpoint_id: found.endpoint_id.clone(),
                mac: found.mac,
                addresses: found.addresses.clone(),
                gateway,
            };
            match known {
                Some(at) => container.networks[at] = endpoint,
                None => container.networks.push(endpoint),
            }
        }
    }
    Snapshot { containers, networks }
}

fn container(summary: models::ContainerSummary, networks: &HashMap<&str, &Network>) -> Option<Container> {
    let labels: BTreeMap<String, String> = summary.labels.unwrap_or_default().into_iter().collect();
    if is_monitor(|key| labels.get(key)) {
        return None;
    }
    let endpoints = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mode = summary.host_config.and_then(|host| host.network_mode);
    let mut places: Vec<Endpoint> = endpoints
        .into_iter()
        .filter_map(|(name, endpoint)| {
            let named = identifier(endpoint.network_id)?;
            let network = networks.get(named.as_str());
            let v4 = endpoint.ip_address.as_deref().and_then(address);
            let v6 = endpoint.global_ipv6_address.as_deref().and_then(address);
            let mac = endpoint.mac_address.and_then(|mac| mac.parse().ok());
            let endpoint_id = identifier(endpoint.endpoint_id);
            // what does not run has places without anything in them; Podman never names an endpoint
            if endpoint_id.is_none() && mac.is_none() {
                return None;
            }
            Some(Endpoint {
                bridge: network.and_then(|network| network.bridge.clone()),
                network_id: network.map_or(named, |network| network.id.clone()),
                network_name: answer::name(&name),
                endpoint_id: endpoint_id.unwrap_or_default(),
                mac,
                addresses: v4.into_iter().chain(v6).collect(),
                gateway: endpoint.gateway.as_deref().and_then(address),
            })
        })
        .collect();
    places.sort_by(|a, b| a.network_name.cmp(&b.network_name));
    Some(Container {
        id: identifier(summary.id)?,
        name: answer::name(&own_name(&summary.names.unwrap_or_default())),
        image: answer::name(&summary.image.unwrap_or_default()),
        policy: Policy::from_labels(&labels),
        labels,
        state: state(summary.state),
        created_at: summary.created.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
        started_at: None,
        mode: mode.map(|mode| NetworkMode::parse(&answer::name(&mode))),
        networks: places,
    })
}

pub fn state(state: Option<ContainerSummaryStateEnum>) -> ContainerState {
    use ContainerSummaryStateEnum::*;
    match state {
        Some(RUNNING | STOPPING) => ContainerState::Running,
        Some(PAUSED) => ContainerState::Paused,
        Some(RESTARTING) => ContainerState::Restarting,
        Some(EXITED) => ContainerState::Exited,
        Some(REMOVING | DEAD) => ContainerState::Dead,
        Some(CREATED | EMPTY) | None => ContainerState::Created,
    }
}

/// A container's names are `/NAME`, and `/OTHER/ALIAS` for each link from another container.
fn own_name(names: &[String]) -> String {
    let stripped = names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
    stripped.min_by_key(|name| name.matches('/').count()).unwrap_or_default().to_owned()
}

pub fn network(network: models::Network) -> Option<Network> {
    let models::Network { id, name, driver, options, ipam, internal, enable_ipv6, .. } = network;
    network_of(id, name, driver, options, ipam, internal, enable_ipv6)
}

pub fn members(network: models::NetworkInspect) -> Option<NetworkMembers> {
    let models::NetworkInspect { id, name, driver, options, ipam, internal, enable_ipv6, containers, .. } =
        network;
    let mut endpoints: Vec<NetworkEndpoint> = containers
        .unwrap_or_default()
        .into_iter()
        // Before a container has joined, Docker lists its endpoint as `ep-ENDPOINT`; Swarm's balancers are listed as `lb-NETWORK` and
        // `ingress-sbox`. Whoever is a container has a number for an identifier.
        .filter(|(id, _)| answer::is_id(id) && id.bytes().all(|b| b.is_ascii_hexdigit()))
        // Podman lists containers that do not run, too.
        .filter(|(_, e)| [&e.endpoint_id, &e.mac_address].into_iter().flatten().any(|text| !text.is_empty()))
        .map(|(container_id, endpoint)| {
            let v4 = endpoint.ipv4_address.as_deref().and_then(address);
            let v6 = endpoint.ipv6_address.as_deref().and_then(address);
            NetworkEndpoint {
                container_id,
                container_name: answer::name(&endpoint.name.unwrap_or_default()),
                endpoint_id: identifier(endpoint.endpoint_id).unwrap_or_default(),
                mac: endpoint.mac_address.and_then(|mac| mac.parse().ok()),
                addresses: v4.into_iter().chain(v6).collect(),
            }
        })
        .collect();
    endpoints.sort_by(|a, b| a.container_id.cmp(&b.container_id));
    let network = network_of(id, name, driver, options, ipam, internal, enable_ipv6)?;
    Some(NetworkMembers { network, endpoints })
}

fn network_of(
    given: Option<String>,
    name: Option<String>,
    driver: Option<String>,
    options: Option<HashMap<String, String>>,
    ipam: Option<models::Ipam>,
    internal: Option<bool>,
    ipv6: Option<bool>,
) -> Option<Network> {
    let id = identifier(given)?;
    let driver = answer::name(&driver.unwrap_or_default());
    let ranges = ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let gateways = ranges.iter().filter_map(|range| range.gateway.as_deref().and_then(address)).collect();
    let bridge = match driver.as_str() {
        "bridge" => {
            let given = options.unwrap_or_default().remove("com.docker.network.bridge.name");
            // Without a name the engine makes one of the identifier's first 12 digits.
            Some(text(given).unwrap_or_else(|| format!("br-{}", id.get(..12).unwrap_or(&id))))
                .filter(|name| answer::is_interface(name))
        }
        OVERLAY => Some(overlay_name(&id)),
        _ => None,
    };
    Some(Network {
        name: answer::name(&name.unwrap_or_default()),
        bridge,
        subnets: ranges.into_iter().filter_map(|range| range.subnet.filter(|text| is_range(text))).collect(),
        gateways,
        internal: internal.unwrap_or(false),
        ipv6: ipv6.unwrap_or(false),
        id,
        driver,
    })
}

/// What an event says, none when it says nothing that we follow. It was `told` and `received` then.
pub fn event(message: EventMessage, told: Timestamp, received: Timestamp) -> Option<EngineEvent> {
    let engine = match (message.time_nano, message.time) {
        (Some(ns), _) => jiff::Timestamp::from_nanosecond(ns.into()).ok(),
        (None, Some(seconds)) => jiff::Timestamp::from_second(seconds).ok(),
        (None, None) => None,
    };
    let engine = engine.unwrap_or_else(jiff::Timestamp::now);
    let at = EventTime { engine, received, told };
    let actor = message.actor?;
    let id = identifier(actor.id)?;
    let mut attributes = actor.attributes.unwrap_or_default();
    match message.typ? {
        EventMessageTypeEnum::CONTAINER => {
            let action = container_action(message.action?.as_str(), &attributes)?;
            let name = answer::name(&attributes.remove("name").unwrap_or_default());
            if is_monitor(|key| attributes.get(key)) {
                let mut label = |key| attributes.remove(key).unwrap_or_default();
                let (instance, slot) = (label(LABEL_INSTANCE), label(LABEL_SLOT));
                return Some(EngineEvent::Monitor { action, id, instance, slot, at });
            }
            let labels =
                attributes.into_iter().filter(|(key, _)| !NOT_LABELS.contains(&key.as_str())).collect();
            Some(EngineEvent::Container { action, id, name, labels, at })
        }
        EventMessageTypeEnum::NETWORK => network_event(message.action?.as_str(), id, attributes, at),
        _ => None,
    }
}

fn container_action(action: &str, attributes: &HashMap<String, String>) -> Option<ContainerAction> {
    let number = |key: &str| attributes.get(key).and_then(|value| value.parse::<i64>().ok());
    Some(match action {
        "create" => ContainerAction::Create,
        "start" => ContainerAction::Start,
        "die" => ContainerAction::Die { exit_code: number("exitCode") },
        "kill" => ContainerAction::Kill { signal: number("signal").and_then(|n| i32::try_from(n).ok()) },
        "stop" => ContainerAction::Stop,
        // Docker's word, and Podman's
        "destroy" | "remove" => ContainerAction::Destroy,
        "rename" => {
            let old = attributes.get("oldName").map_or("", String::as_str);
            ContainerAction::Rename { old_name: answer::name(old.strip_prefix('/').unwrap_or(old)) }
        }
        "pause" => ContainerAction::Pause,
        "unpause" => ContainerAction::Unpause,
        "restart" => ContainerAction::Restart,
        "update" => ContainerAction::Update,
        "oom" => ContainerAction::OutOfMemory,
        // exec_create, exec_start, exec_die, health_status, attach, top, resize, …: nothing changes for us.
        _ => return None,
    })
}

fn network_event(
    action: &str,
    network_id: String,
    mut attributes: HashMap<String, String>,
    at: EventTime,
) -> Option<EngineEvent> {
    // These networks have no ports, and monitoring containers are on one of them.
    if attributes.get("type").is_some_and(|driver| driver == "null" || driver == "host") {
        return None;
    }
    let network_name = answer::name(&attributes.remove("name").unwrap_or_default());
    match action {
        // Podman tells whom, where Docker tells to what
        "connect" | "disconnect" if attributes.contains_key("podId") => {
            Some(EngineEvent::NetworksChanged { container_id: network_id, at })
        }
        "connect" | "disconnect" => {
            let container_id = identifier(attributes.remove("container"))?;
            Some(if action == "connect" {
                EngineEvent::NetworkConnect { network_id, network_name, container_id, at }
            } else {
                EngineEvent::NetworkDisconnect { network_id, network_name, container_id, at }
            })
        }
        "create" => Some(EngineEvent::NetworkCreated { network_id, network_name, at }),
        "destroy" | "remove" => Some(EngineEvent::NetworkRemoved { network_id, network_name, at }),
        _ => None,
    }
}

/// The engine writes "nothing" as an empty string.
fn text(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn identifier(value: Option<String>) -> Option<String> {
    value.filter(|value| answer::is_id(value))
}

/// An address, with or without the prefix length behind it.
fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.split('/').next()?.parse().ok()?;
    // nobody's
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}

/// Whether this is an address range: `address/bits`.
fn is_range(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        address
            .parse::<IpAddr>()
            .is_ok_and(|a| bits.parse().is_ok_and(|bits: u8| bits <= if a.is_ipv4() { 32 } else { 128 }))
    })
}

/// A file of the engine's, by its whole path.
pub fn file(path: String) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.is_absolute() && plain).then_some(path)
}

#[cfg(test)]
mod mutation;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "d29f0837dd969fe798851fa8c76beb206f90cd2b72f0d5c0075e8159a2153df0";
    const NET: &str = "8e5bc990c0a8db79645faf64e11abeaab2c4eade906b4bee0d883fa1610a59aa";
    const RECEIVED: Timestamp = Timestamp(77);

    fn read(kind: &str, id: &str, action: &str, attributes: serde_json::Value) -> Option<EngineEvent> {
        let message = json!({"Type": kind, "Action": action, "Actor": {"ID": id, "Attributes": attributes},
            "scope": "local", "time": 1_795_408_198, "timeNano": 1_795_408_198_560_045_876_i64});
        event(serde_json::from_value(message).expect("an event message"), RECEIVED, RECEIVED)
    }

    fn at() -> EventTime {
        let engine = jiff::Timestamp::from_nanosecond(1_795_408_198_560_045_876).expect("a time");
        EventTime { engine, received: RECEIVED, told: RECEIVED }
    }

    #[test]
    fn labels_are_what_remains_of_the_attributes() {
        let attributes = json!({"conmon.tenant": "x", "image": "bb:1", "name": "aa", "exitCode": "137"});
        let want = EngineEvent::Container {
            action: ContainerAction::Die { exit_code: Some(137) },
            id: ID.into(),
            name: "aa".into(),
            labels: [("conmon.tenant".to_owned(), "x".to_owned())].into(),
            at: at(),
        };
        assert_eq!(read("container", ID, "die", attributes), Some(want));
    }

    #[test]
    fn every_action_we_follow() {
        use ContainerAction::*;
        let wanted = [
            ("create", Some(Create)),
            ("start", Some(Start)),
            ("kill", Some(Kill { signal: Some(15) })),
            ("stop", Some(Stop)),
            ("destroy", Some(Destroy)),
            ("rename", Some(Rename { old_name: "before".into() })),
            ("pause", Some(Pause)),
            ("unpause", Some(Unpause)),
            ("restart", Some(Restart)),
            ("update", Some(Update)),
            ("oom", Some(OutOfMemory)),
            ("exec_start: sh -c start", None),
            ("exec_die", None),
            ("health_status: healthy", None),
            ("attach", None),
        ];
        for (name, want) in wanted {
            let attributes = json!({"name": "n", "signal": "15", "oldName": "/before"});
            let got = read("container", ID, name, attributes).map(|event| match event {
                EngineEvent::Container { action, labels, .. } => {
                    assert!(labels.is_empty(), "{labels:?}");
                    action
                }
                other => panic!("{other:?}"),
            });
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn monitors_are_never_taken_for_applications() {
        let attributes =
            json!({"name": "conmon-pm-ci-s1", LABEL_ROLE: "monitor", LABEL_INSTANCE: "ci", LABEL_SLOT: "s1"});
        let want = EngineEvent::Monitor {
            action: ContainerAction::Start,
            id: ID.into(),
            instance: "ci".into(),
            slot: "s1".into(),
            at: at(),
        };
        assert_eq!(read("container", ID, "start", attributes), Some(want));
    }

    #[test]
    fn network_events() {
        let attributes = json!({"container": ID, "name": "bridge", "type": "bridge"});
        let want = EngineEvent::NetworkConnect {
            network_id: NET.into(),
            network_name: "bridge".into(),
            container_id: ID.into(),
            at: at(),
        };
        assert_eq!(read("network", NET, "connect", attributes), Some(want));
        for driver in ["null", "host"] {
            let attributes = json!({"container": ID, "name": "n", "type": driver});
            assert_eq!(read("network", NET, "connect", attributes), None);
        }
        assert_eq!(
            read("network", NET, "disconnect", json!({"name": "n", "type": "bridge"})),
            None,
            "whose?"
        );
        assert!(matches!(
            read("network", NET, "destroy", json!({"name": "n", "type": "bridge"})),
            Some(EngineEvent::NetworkRemoved { .. })
        ));
        assert_eq!(read("volume", "v", "create", json!({})), None);
    }

    #[test]
    fn podmans_words_are_understood() {
        let attributes = json!({"conmon.tenant": "x", "containerExitCode": "0", "image": "docker.io/library/bb:1",
            "name": "aa", "podId": ""});
        let told = read("container", ID, "remove", attributes);
        let Some(EngineEvent::Container { action: ContainerAction::Destroy, labels, .. }) = told else {
            panic!("{told:?}")
        };
        assert_eq!(labels.into_iter().collect::<Vec<_>>(), [("conmon.tenant".to_owned(), "x".to_owned())]);
        let attributes = json!({"containerExitCode": "0", "image": "", "name": "aa", "podId": ""});
        let want = EngineEvent::NetworksChanged { container_id: ID.into(), at: at() };
        assert_eq!(read("network", ID, "connect", attributes), Some(want));
        for action in ["init", "cleanup", "mount", "sync"] {
            assert_eq!(read("container", ID, action, json!({"name": "aa", "podId": ""})), None, "{action}");
        }
    }

    #[test]
    fn podmans_lists_are_understood() {
        let networks =
            vec![network(serde_json::from_value(network_json()).expect("a network")).expect("ours")];
        let place = |mac: &str, ip: &str| json!({"NetworkID": "front", "EndpointID": "", "MacAddress": mac, "IPAddress": ip});
        let summaries: Vec<models::ContainerSummary> = serde_json::from_value(json!([
            {"Id": ID, "Names": ["/aa"], "State": "running", "NetworkSettings": {"Networks": {
                "front": place("86:31:0f:e0:89:ff", "10.5.0.5")}}},
            {"Id": "b", "Names": ["/bb"], "State": "created", "NetworkSettings": {"Networks": {
                "front": place("", "")}}}]))
        .expect("summaries");
        let all = snapshot(summaries, networks, &[]);
        let [aa, bb] = &all.containers[..] else { panic!("{:?}", all.containers) };
        let [place] = &aa.networks[..] else { panic!("{aa:?}") };
        assert_eq!((place.network_id.as_str(), place.bridge.as_deref()), (NET, Some("br-8e5bc990c0a8")));
        assert_eq!(place.mac, "86:31:0f:e0:89:ff".parse().ok());
        assert_eq!((bb.networks.len(), &bb.mode), (0, &None), "it does not run");
        let mut inspected = network_json();
        inspected["Containers"] = json!({
            ID: {"Name": "aa", "EndpointID": "", "MacAddress": "86:31:0f:e0:89:ff", "IPv4Address": "10.5.0.5/24"},
            "b": {"Name": "bb", "EndpointID": "", "MacAddress": "", "IPv4Address": "", "IPv6Address": ""}});
        let members = members(serde_json::from_value(inspected).expect("a network")).expect("ours");
        let ids: Vec<_> = members.endpoints.iter().map(|e| e.container_id.as_str()).collect();
        assert_eq!(ids, [ID]);
    }

    #[test]
    fn whose_network_a_container_uses() {
        use NetworkMode::*;
        let modes = [
            ("default", Own),
            ("bridge", Own),
            ("front", Own),
            ("host", Host),
            ("none", Nothing),
            ("container:abc", Container("abc".into())),
            ("ns:/run/netns/x", Other("ns:/run/netns/x".into())),
            ("slirp4netns", Other("slirp4netns".into())),
        ];
        for (word, mode) in modes {
            assert_eq!(NetworkMode::parse(word), mode, "{word}");
        }
    }

    #[test]
    fn an_empty_event_is_nothing() {
        assert_eq!(event(serde_json::from_value(json!({})).expect("an event"), RECEIVED, RECEIVED), None);
    }

    fn network_json() -> serde_json::Value {
        json!({"Name": "front", "Id": NET, "Driver": "bridge", "EnableIPv6": true, "Internal": false,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.5.0.0/24", "Gateway": "10.5.0.1"},
                {"Subnet": "fd00:5::/64", "Gateway": "fd00:5::1/64"}]}, "Options": {}})
    }

    #[test]
    fn a_bridge_is_named_by_its_option_or_its_identifier() {
        let read = |value| network(serde_json::from_value(value).expect("a network")).expect("ours");
        let plain = read(network_json());
        assert_eq!(plain.bridge.as_deref(), Some("br-8e5bc990c0a8"));
        assert_eq!(plain.subnets, ["10.5.0.0/24", "fd00:5::/64"]);
        assert_eq!(plain.gateways, ["10.5.0.1".parse::<IpAddr>().unwrap(), "fd00:5::1".parse().unwrap()]);
        assert!(plain.ipv6 && !plain.internal);
        let mut value = network_json();
        value["Options"] = json!({"com.docker.network.bridge.name": "docker0"});
        assert_eq!(read(value.clone()).bridge.as_deref(), Some("docker0"));
        value["Driver"] = json!("macvlan");
        assert_eq!(read(value).bridge, None);
    }

    #[test]
    fn the_network_completes_what_the_list_does_not_know_yet() {
        let mut inspected = network_json();
        inspected["Containers"] = json!({
            ID: {"Name": "aa", "EndpointID": "e1", "MacAddress": "02:42:0a:05:00:02",
                "IPv4Address": "10.5.0.2/24", "IPv6Address": "fd00:5::2/64"},
            "ep-77": {"Name": "x", "EndpointID": "77", "MacAddress": "02:42:0a:05:00:03", "IPv4Address": "", "IPv6Address": ""}});
        let members = members(serde_json::from_value(inspected).expect("a network")).expect("ours");
        assert_eq!(members.endpoints.len(), 1, "no endpoint without a container");
        let networks =
            vec![network(serde_json::from_value(network_json()).expect("a network")).expect("ours")];
        let summaries: Vec<models::ContainerSummary> = serde_json::from_value(json!([
            {"Id": ID, "Names": ["/other/alias", "/aa"], "Image": "bb:1", "Created": 1_795_408_198, "State": "created",
                "Labels": {"com.docker.compose.project": "shop"}, "NetworkSettings": {"Networks": {
                    "front": {"NetworkID": "", "EndpointID": ""},
                    "far": {"NetworkID": "f", "EndpointID": "e9", "MacAddress": "", "IPAddress": "192.0.2.4", "Gateway": "192.0.2.1"}}}},
            {"Id": "m", "Names": ["/conmon-pm-x-1"], "Labels": {LABEL_ROLE: "monitor"}, "State": "running"}]))
        .expect("summaries");
        let all = snapshot(summaries, networks, &[members]);
        let [aa] = &all.containers[..] else { panic!("{:?}", all.containers) };
        assert_eq!(
            (aa.name.as_str(), aa.policy.tenant.as_str(), aa.state),
            ("aa", "shop", ContainerState::Created)
        );
        assert_eq!(aa.created_at, jiff::Timestamp::from_second(1_795_408_198).ok());
        let [far, front] = &aa.networks[..] else { panic!("{:?}", aa.networks) };
        assert_eq!((far.bridge.as_deref(), far.mac, far.gateway), (None, None, "192.0.2.1".parse().ok()));
        assert_eq!(front.bridge.as_deref(), Some("br-8e5bc990c0a8"));
        assert_eq!(front.mac, "02:42:0a:05:00:02".parse().ok());
        assert_eq!(front.addresses, ["10.5.0.2".parse::<IpAddr>().unwrap(), "fd00:5::2".parse().unwrap()]);
    }
}
