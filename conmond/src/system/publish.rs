//! What this host says of itself in the registry, out of its names. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use conmon::api::Container;
use ippm::time::Timestamp;

use crate::clock::Wall;
use crate::registry::{EndpointRow, HostRow, Own};
use crate::store::Names;

/// An address that was given up is told of for this long: flows are reported after their packets.
const GRACE: Duration = Duration::from_secs(120);
/// What an address's network is called when it is not known any more.
const GONE: &str = "unknown";

/// The names of the networks in which containers have their addresses.
pub type Networks = HashMap<(String, IpAddr), String>;

/// Notes the networks of containers there are; those of containers that have gone lately are kept.
pub fn note_networks<'a>(networks: &mut Networks, containers: impl Iterator<Item = &'a Container>) {
    for container in containers {
        for network in &container.networks {
            for address in &network.addresses {
                networks.insert((container.id.clone(), *address), network.name.clone());
            }
        }
    }
}

/// Everything there is to say: `host` with the addresses it has now, and each container's addresses. Forgets the networks of those who are
/// told of no more.
pub fn own(host: &HostRow, names: &Names, networks: &mut Networks, wall: Wall, now: Timestamp) -> Own {
    let unix = |at: Timestamp| u64::try_from(wall.utc(at).as_nanosecond()).unwrap_or(0);
    let addresses: Vec<IpAddr> = {
        let mut all: Vec<IpAddr> =
            names.host_addresses().iter().copied().filter(|address| is_reachable(*address)).collect();
        all.sort();
        all.dedup();
        all.truncate(crate::registry::rows::MAX_HOST_ADDRESSES);
        all
    };
    let mut kept = Networks::new();
    let mut endpoints = Vec::new();
    for (address, container, since, until) in names.intervals() {
        if until != Timestamp::MAX && now - until > GRACE {
            continue;
        }
        let key = (container.id.clone(), address);
        let network = networks.get(&key).cloned();
        if let Some(network) = &network {
            kept.insert(key, network.clone());
        }
        // one that is over before it began by the coarser clock is nobody's
        let until_ns = (until != Timestamp::MAX).then(|| unix(until).max(unix(since) + 1));
        endpoints.push(EndpointRow {
            host: host.name.clone(),
            container_id: container.id.clone(),
            container: container.name.clone(),
            service: container.service.clone(),
            tenant: container.tenant.clone(),
            network: network.unwrap_or_else(|| GONE.to_owned()),
            address,
            since_ns: unix(since),
            until_ns,
        });
    }
    *networks = kept;
    endpoints.sort_by(|a, b| {
        (a.address, a.since_ns, &a.container_id).cmp(&(b.address, b.since_ns, &b.container_id))
    });
    Own { host: HostRow { addresses, ..host.clone() }, endpoints }
}

/// Whether others can see a host or its containers by this address.
pub fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local() && !a.is_unspecified(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local() && !a.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::rows::tests::host;
    use crate::store::ContainerName;

    #[test]
    fn each_address_is_told_with_its_time_and_forgotten_after_the_grace() {
        let mut names = Names::new("a", vec![]);
        names.set_container(ContainerName {
            id: "x".into(),
            name: "web".into(),
            tenant: "shop".into(),
            service: Some("front".into()),
        });
        let (one, two): (IpAddr, IpAddr) = ([172, 18, 0, 2].into(), [172, 18, 0, 3].into());
        let second = |n: u64| Timestamp(n * 1_000_000_000);
        names.set_address(one, "x", second(10));
        names.set_address(two, "x", second(10));
        names.close_address(two, "x", second(20));
        names.set_host_addresses(["127.0.0.1", "192.0.2.1", "fe80::1"].map(|a| a.parse().unwrap()).to_vec());
        let mut networks = Networks::new();
        networks.insert(("x".into(), one), "shop_net".into());
        networks.insert(("x".into(), two), "shop_net".into());
        networks.insert(("gone".into(), two), "old".into());
        let wall = Wall::by_offset_ns(1_000_000_000_000_000_000);
        let said = own(&host("a", 1), &names, &mut networks, wall, second(30));
        assert_eq!(said.host.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let base = 1_000_000_000_000_000_000;
        let rows: Vec<_> = said
            .endpoints
            .iter()
            .map(|r| (r.address, r.network.as_str(), r.since_ns - base, r.until_ns))
            .collect();
        assert_eq!(
            rows,
            [
                (one, "shop_net", 10_000_000_000, None),
                (two, "shop_net", 10_000_000_000, Some(base + 20_000_000_000))
            ]
        );
        assert!(said.endpoints.iter().all(|row| row.check().is_ok()) && networks.len() == 2);
        let said = own(&host("a", 1), &names, &mut networks, wall, second(20 + 121));
        assert_eq!((said.endpoints.len(), networks.len()), (1, 1));
    }
}
