//! Genuine answers with values changed at random: whatever an engine writes, nothing panics, and nothing harmful goes on.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ID: &str = "d29f0837dd969fe798851fa8c76beb206f90cd2b72f0d5c0075e8159a2153df0";
const OTHER: &str = "0a1b0837dd969fe798851fa8c76beb206f90cd2b72f0d5c0075e8159a2153df0";
const NET: &str = "8e5bc990c0a8db79645faf64e11abeaab2c4eade906b4bee0d883fa1610a59aa";

/// One change of a value somewhere in an answer, of which there are so many.
#[derive(Clone, Debug)]
enum Change {
    Put(Value),
    Remove,
    /// What is somewhere else in it.
    Copy(usize),
    /// The last entry of a list once more.
    Repeat,
    /// Under another name.
    Rename(String),
}

fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("../../x".to_owned()),
        Just("/".to_owned()),
        Just("a\u{1b}[2J\u{202e}\n".to_owned()),
        Just("é".repeat(12)),
        Just("x".repeat(3000)),
        Just("0.0.0.0/0".to_owned()),
        Just("999.1.1.1".to_owned()),
        Just("ff:ff:ff:ff:ff:ff:ff".to_owned()),
        Just("container:".to_owned()),
        Just("9999-99-99T99:99:99Z".to_owned()),
        Just(ID.to_owned()),
        ".{0,20}",
        "[0-9a-f:./]{1,40}",
    ]
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        Just(json!(1e300)),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, 1, "x", {}])),
        Just((0..100).fold(json!(1), |inner, _| json!([inner]))),
        odd_text().prop_map(Value::from),
        odd_text().prop_map(|text| json!({ text: 7 })),
    ]
}

fn changes() -> impl Strategy<Value = Vec<(usize, Change)>> {
    let change = prop_oneof![
        4 => odd_value().prop_map(Change::Put),
        1 => Just(Change::Remove),
        2 => any::<usize>().prop_map(Change::Copy),
        1 => Just(Change::Repeat),
        2 => odd_text().prop_map(Change::Rename),
    ];
    prop::collection::vec((any::<usize>(), change), 0..8)
}

/// The places of all values, each by its way.
fn places(value: &Value, here: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
    all.push(here.clone());
    let fields: Vec<(String, &Value)> = match value {
        Value::Array(list) => list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in fields {
        here.push(name);
        places(value, here, all);
        here.pop();
    }
}

fn at<'a>(mut value: &'a mut Value, way: &[String]) -> Option<&'a mut Value> {
    for name in way {
        value = match value {
            Value::Array(list) => list.get_mut(name.parse::<usize>().ok()?)?,
            Value::Object(fields) => fields.get_mut(name)?,
            _ => return None,
        };
    }
    Some(value)
}

fn mutate(value: &mut Value, changes: &[(usize, Change)]) {
    for (place, change) in changes {
        let mut all = Vec::new();
        places(value, &mut Vec::new(), &mut all);
        let way = &all[place % all.len()];
        match change {
            Change::Put(odd) => *at(value, way).expect("a place") = odd.clone(),
            Change::Copy(from) => {
                let copy = at(value, &all[from % all.len()]).expect("a place").clone();
                *at(value, way).expect("a place") = copy;
            }
            Change::Repeat => {
                if let Some(list) = at(value, way).and_then(Value::as_array_mut) {
                    list.extend(list.last().cloned());
                }
            }
            Change::Remove | Change::Rename(_) => {
                let Some((name, parent)) = way.split_last() else { continue };
                let Some(Value::Object(fields)) = at(value, parent) else { continue };
                if let (Some(gone), Change::Rename(odd)) = (fields.remove(name), change) {
                    fields.insert(odd.clone(), gone);
                }
            }
        }
    }
}

/// Docker's `/containers/json`.
fn containers() -> Value {
    let one = |id: &str, name: &str, last: u8| {
        json!({"Id": id, "Names": [format!("/{name}"), "/other/alias"], "Image": "busybox:1",
            "ImageID": "sha256:65ad0d468eb1c558bf7f4e64e790f586e9eda649ee9f130cd0e835b292bbc5ac",
            "Command": "sleep 600", "Created": 1_795_408_198,
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
            "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "db", "conmon.enable": "true",
                "conmon.monitor": "shared"},
            "State": "running", "Status": "Up 2 seconds", "HostConfig": {"NetworkMode": "front"},
            "NetworkSettings": {"Networks": {"front": {"IPAMConfig": null, "Links": null, "Aliases": null,
                "MacAddress": format!("02:42:0a:05:00:0{last}"), "DriverOpts": null, "GwPriority": 0, "NetworkID": NET,
                "EndpointID": OTHER, "Gateway": "10.5.0.1", "IPAddress": format!("10.5.0.{last}"), "IPPrefixLen": 24,
                "IPv6Gateway": "fd00:5::1", "GlobalIPv6Address": format!("fd00:5::{last}"), "GlobalIPv6PrefixLen": 64,
                "DNSNames": null}}},
            "Mounts": [{"Type": "volume", "Name": "v", "Source": "", "Destination": "/v", "Driver": "local", "Mode": "",
                "RW": true, "Propagation": ""}]})
    };
    json!([one(ID, "one", 2), one(OTHER, "two", 3)])
}

/// Docker's `/networks/ID`.
fn network_shown() -> Value {
    json!({"Name": "front", "Id": NET, "Created": "2026-11-22T10:09:58.123456789Z", "Scope": "local", "Driver": "bridge",
        "EnableIPv4": true, "EnableIPv6": true,
        "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "10.5.0.0/24", "Gateway": "10.5.0.1"},
            {"Subnet": "fd00:5::/64", "Gateway": "fd00:5::1/64"}]},
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
        "Containers": {
            ID: {"Name": "one", "EndpointID": OTHER, "MacAddress": "02:42:0a:05:00:02", "IPv4Address": "10.5.0.2/24",
                "IPv6Address": "fd00:5::2/64"},
            "ep-77": {"Name": "x", "EndpointID": "77", "MacAddress": "", "IPv4Address": "", "IPv6Address": ""}},
        "Options": {"com.docker.network.bridge.name": "br-front"}, "Labels": {}})
}

/// Docker's `/containers/ID/json`, as far as it is read.
fn inspected() -> Value {
    json!({"Id": ID, "Created": "2026-11-22T10:09:58.1Z", "State": {"Status": "running", "Running": true, "Paused": false,
            "OOMKilled": false, "Pid": 4711, "ExitCode": 0, "StartedAt": "2026-11-22T10:09:58.2Z", "FinishedAt": "0001-01-01T00:00:00Z"},
        "Name": "/one", "HostConfig": {"NetworkMode": "front", "LogConfig": {"Type": "json-file", "Config": {}}},
        "NetworkSettings": {"SandboxKey": "/var/run/docker/netns/0123456789ab", "Networks": {}}})
}

fn message() -> Value {
    json!({"Type": "container", "Action": "die", "Actor": {"ID": ID, "Attributes": {"name": "one", "exitCode": "137",
        "container": OTHER, "com.docker.compose.project": "shop"}}, "scope": "local", "time": 1_795_408_198,
        "timeNano": 1_795_408_198_560_045_876_i64})
}

fn is_shown(text: &str) -> bool {
    text.chars().count() <= 256 && !text.contains(char::is_control)
}

fn check_network(network: &Network) {
    assert!(
        answer::is_id(&network.id) && is_shown(&network.name) && is_shown(&network.driver),
        "{network:?}"
    );
    assert!(network.bridge.as_deref().is_none_or(answer::is_interface), "{network:?}");
    assert!(network.subnets.iter().all(|subnet| is_range(subnet)), "{network:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_list_is_read_or_refused(listed in changes(), shown in changes(), cut in prop::option::weighted(0.1, any::<usize>())) {
        let (mut list, mut network) = (containers(), network_shown());
        mutate(&mut list, &listed);
        mutate(&mut network, &shown);
        let mut text = list.to_string().into_bytes();
        if let Some(cut) = cut {
            text.truncate(cut % text.len());
        }
        let members: Vec<NetworkMembers> =
            answer::one(network.to_string().as_bytes()).ok().and_then(members).into_iter().collect();
        let networks: Vec<Network> = members.iter().map(|members| members.network.clone()).collect();
        for found in &members {
            check_network(&found.network);
            for endpoint in &found.endpoints {
                prop_assert!(answer::is_id(&endpoint.container_id) && is_shown(&endpoint.container_name));
            }
        }
        let read = answer::list(&text, |summary: &models::ContainerSummary| summary.id.is_some());
        let Ok(read) = read else { return Ok(()) };
        let all = snapshot(read.entries, networks, &members);
        let mut ids = HashSet::new();
        for container in &all.containers {
            prop_assert!(answer::is_id(&container.id) && ids.insert(&container.id), "{container:?}");
            prop_assert!(is_shown(&container.name) && is_shown(&container.image) && is_shown(&container.policy.tenant));
            for place in &container.networks {
                prop_assert!(answer::is_id(&place.network_id) && is_shown(&place.network_name), "{place:?}");
                prop_assert!(place.bridge.as_deref().is_none_or(answer::is_interface), "{place:?}");
                prop_assert!(place.addresses.iter().all(|a| !a.is_unspecified() && !a.is_multicast()));
            }
        }
        all.networks.iter().for_each(check_network);
    }

    #[test]
    fn a_changed_thing_is_read_or_refused(shown in changes(), told in changes()) {
        let (mut container, mut told_of) = (inspected(), message());
        mutate(&mut container, &shown);
        mutate(&mut told_of, &told);
        if let Ok(container) = answer::one::<models::ContainerInspectResponse>(container.to_string().as_bytes()) {
            let key = container.network_settings.and_then(|network| network.sandbox_key).and_then(file);
            prop_assert!(key.is_none_or(|key| key.is_absolute() && !key.to_string_lossy().contains("/../")));
        }
        let Ok(read) = serde_json::from_value::<EventMessage>(told_of) else { return Ok(()) };
        match event(read, Timestamp(5), Timestamp(7)) {
            Some(EngineEvent::Container { id, name, .. }) => prop_assert!(answer::is_id(&id) && is_shown(&name)),
            Some(EngineEvent::NetworkConnect { network_id, network_name, container_id, .. }) => {
                prop_assert!(answer::is_id(&network_id) && answer::is_id(&container_id) && is_shown(&network_name));
            }
            _ => {}
        }
    }
}

#[test]
fn what_is_changed_in_nothing_is_read_whole() {
    let read =
        answer::list(containers().to_string().as_bytes(), |s: &models::ContainerSummary| s.id.is_some());
    let read = read.expect("a list");
    assert!(read.left_out.is_none());
    let shown =
        answer::one(network_shown().to_string().as_bytes()).ok().and_then(members).expect("a network");
    let all = snapshot(read.entries, vec![shown.network.clone()], &[shown]);
    let [one, two] = &all.containers[..] else { panic!("{all:?}") };
    assert_eq!(
        (one.name.as_str(), two.name.as_str(), one.policy.service.as_deref()),
        ("one", "two", Some("db"))
    );
    assert_eq!((one.networks[0].addresses.len(), one.networks[0].bridge.as_deref()), (2, Some("br-front")));
}
