//! Rows, and waiting for what shall be.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use conmond::registry::{Answer, EndpointRow, HostRow, Own, Protocols, Registry, now};

pub const S: u64 = 1_000_000_000;

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn wall() -> u64 {
    now().wall_ns
}

pub fn host(name: &str, epoch: u64) -> HostRow {
    HostRow {
        name: name.to_owned(),
        api: Some(format!("https://{name}:9443")),
        addresses: vec![ip("192.0.2.1")],
        version: "0.1.0".to_owned(),
        protocol: Protocols { min: 1, max: 1 },
        epoch,
        since_ns: wall(),
    }
}

pub fn endpoint(
    host: &str,
    container: &str,
    address: &str,
    since_ns: u64,
    until_ns: Option<u64>,
) -> EndpointRow {
    EndpointRow {
        host: host.to_owned(),
        container_id: format!("{container}-id"),
        container: container.to_owned(),
        service: Some("web".to_owned()),
        tenant: "default".to_owned(),
        network: "bridge".to_owned(),
        address: ip(address),
        since_ns,
        until_ns,
    }
}

/// A host that has these containers, each with its address and the time it had it.
pub fn own(host: &HostRow, containers: &[(&str, &str, u64, Option<u64>)]) -> Own {
    let row = |&(name, address, since, until): &(&str, &str, u64, Option<u64>)| {
        endpoint(&host.name, name, address, since, until)
    };
    Own { host: host.clone(), endpoints: containers.iter().map(row).collect() }
}

/// `HOST/CONTAINER` of each candidate that had it for certain.
pub fn named(answer: &Answer) -> Vec<String> {
    let certain = answer.candidates.iter().filter(|candidate| candidate.margin_ns >= 0);
    certain.map(|candidate| format!("{}/{}", candidate.row.host, candidate.row.container)).collect()
}

/// Waits until `registry` names those who had `address` at `at`; returns how long that took.
pub async fn names(registry: &dyn Registry, address: &str, at: u64, expected: &[&str]) -> Duration {
    names_at(registry, address, || at, expected).await
}

/// Waits until `registry` names those who have `address` at the time of asking: of a row that vanishes it is known that it was there until
/// it was missed, so a moment before that stays its.
pub async fn names_now(registry: &dyn Registry, address: &str, expected: &[&str]) -> Duration {
    names_at(registry, address, wall, expected).await
}

async fn names_at(
    registry: &dyn Registry,
    address: &str,
    at: impl Fn() -> u64,
    expected: &[&str],
) -> Duration {
    let begin = Instant::now();
    loop {
        let answer = registry.find(ip(address), at()).await;
        if named(&answer) == expected {
            return begin.elapsed();
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{address} is {:?} and not {expected:?} after 30 s: {:#?}",
            named(&answer),
            registry.health(),
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for something else.
pub async fn until(what: &str, mut there: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !there() {
        assert!(begin.elapsed() < Duration::from_secs(30), "not after 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begin.elapsed()
}

/// Names of the hosts there are.
pub fn hosts(registry: &dyn Registry) -> Vec<String> {
    registry.hosts().borrow().rows.keys().cloned().collect()
}
