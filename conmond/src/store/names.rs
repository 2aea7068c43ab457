//! Who is behind a port and who had an address when: what turns measurements into names.
//!
//! Saved on every change, so that what was counted for a container that went while the daemon was away still bears its
//! name.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use conmon::api::{Endpoint, EndpointKind};
use ippm::flow::Service;
use ippm::naming::{AddressMap, Interval, Lookup};
use ippm::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{ExternalPrefix, Prefix};
use crate::nat::RemoteEnd;

/// A container as names go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerName {
    /// The engine's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// Its compose service.
    pub service: Option<String>,
}

/// A port as names go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortName {
    /// The host-side interface's name.
    pub interface: String,
    /// The container's id, once known.
    pub container: Option<String>,
}

/// All names.
#[derive(Clone, Default)]
pub struct Names {
    host: String,
    containers: HashMap<String, ContainerName>,
    ports: BTreeMap<u32, PortName>,
    addresses: AddressMap<String>,
    host_addresses: Vec<IpAddr>,
    own_networks: Vec<Prefix>,
    external: Vec<ExternalPrefix>,
    elsewhere: Arc<Elsewhere>,
    /// Ports that are not there any more, each with when it was missed first. Not saved.
    missed: BTreeMap<u32, Timestamp>,
    changes: u64,
    revision: u64,
}

/// Addresses on other hosts, as far as they were asked for. Not saved: who has asked the registry once can ask again.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// Of containers that are reached by their own address.
    pub containers: AddressMap<Arc<RemoteEnd>>,
    /// Of hosts themselves, each with its name.
    pub hosts: HashMap<IpAddr, String>,
}

/// What is kept in the file: containers, ports, and since when until when a container had an address.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SavedNames {
    containers: Vec<ContainerName>,
    ports: BTreeMap<u32, PortName>,
    addresses: Vec<(IpAddr, String, Timestamp, Timestamp)>,
}

impl Names {
    /// Names on the host of this name.
    pub fn new(host: &str, external: Vec<ExternalPrefix>) -> Self {
        Self { host: host.to_owned(), external, ..Self::default() }
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A number that is another whenever containers' names or anybody's addresses here are others.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn touch(&mut self) {
        self.changes += 1;
        self.revision += 1;
    }

    /// A number that is another whenever anything to be saved is.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What to save.
    pub fn saved(&self) -> SavedNames {
        let mut containers: Vec<ContainerName> = self.containers.values().cloned().collect();
        containers.sort_by(|a, b| a.id.cmp(&b.id));
        let addresses = self
            .addresses
            .iter()
            .flat_map(|(a, list)| list.iter().map(move |i| (*a, i.owner.clone(), i.since, i.until)))
            .collect();
        SavedNames { containers, ports: self.ports.clone(), addresses }
    }

    /// Takes over what an earlier daemon saved.
    pub fn restore(&mut self, saved: SavedNames) {
        for c in saved.containers {
            self.containers.insert(c.id.clone(), c);
        }
        self.ports.extend(saved.ports);
        for (address, owner, since, until) in saved.addresses {
            self.addresses.insert(address, owner.clone(), since);
            if until != Timestamp::MAX {
                self.addresses.close(&address, &owner, until);
            }
        }
    }

    /// A container's name is this from now on.
    pub fn set_container(&mut self, name: ContainerName) {
        if self.containers.get(&name.id) != Some(&name) {
            self.touch();
            self.containers.insert(name.id.clone(), name);
        }
    }

    /// The name of a container.
    pub fn container(&self, id: &str) -> Option<&ContainerName> {
        self.containers.get(id)
    }

    /// A port is there; `container` once it is known.
    pub fn set_port(&mut self, ifindex: u32, interface: &str, container: Option<&str>) {
        let name = PortName { interface: interface.to_owned(), container: container.map(str::to_owned) };
        self.missed.remove(&ifindex);
        if self.ports.get(&ifindex) != Some(&name) {
            self.changes += 1;
            self.ports.insert(ifindex, name);
        }
    }

    /// The port's records are settled: its name is of no use any more.
    pub fn drop_port(&mut self, ifindex: u32) {
        self.missed.remove(&ifindex);
        self.changes += u64::from(self.ports.remove(&ifindex).is_some());
    }

    /// Forgets ports that have been missed since `before` or longer: nothing that was counted at them is told of any more.
    pub fn forget_ports(&mut self, now: Timestamp, before: Timestamp, is_there: impl Fn(u32) -> bool) {
        for ifindex in self.ports.keys().filter(|ifindex| !is_there(**ifindex)) {
            self.missed.entry(*ifindex).or_insert(now);
        }
        self.missed.retain(|ifindex, _| !is_there(*ifindex));
        let over: Vec<u32> = self.missed.iter().filter(|(_, at)| **at < before).map(|(i, _)| *i).collect();
        for ifindex in over {
            self.drop_port(ifindex);
        }
    }

    /// A port's name.
    pub fn port(&self, ifindex: u32) -> Option<&PortName> {
        self.ports.get(&ifindex)
    }

    /// A container has an address since then.
    pub fn set_address(&mut self, address: IpAddr, container: &str, since: Timestamp) {
        if self.addresses.lookup_at(&address, since).is_none_or(|o| o != container) {
            self.touch();
        }
        self.addresses.insert(address, container.to_owned(), since);
    }

    /// Who has an address at this time.
    pub fn owner_at(&self, address: IpAddr, at: Timestamp) -> Option<&str> {
        self.addresses.lookup_at(&address, at).map(String::as_str)
    }

    /// Addresses of which no end is known, each with whose it is.
    pub fn open_addresses(&self) -> impl Iterator<Item = (IpAddr, String)> {
        let last = |(address, list): (&IpAddr, &[Interval<String>])| {
            let open = list.last().filter(|i| i.until == Timestamp::MAX)?;
            Some((*address, open.owner.clone()))
        };
        self.addresses.iter().filter_map(last)
    }

    /// A container no longer has an address.
    pub fn close_address(&mut self, address: IpAddr, container: &str, until: Timestamp) {
        if self.addresses.close(&address, &container.to_owned(), until) {
            self.touch();
        }
    }

    /// The host's own addresses.
    pub fn set_host_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.revision += u64::from(self.host_addresses != addresses);
        self.host_addresses = addresses;
    }

    /// Who has which address on other hosts is this from now on.
    pub fn set_elsewhere(&mut self, elsewhere: Arc<Elsewhere>) {
        self.elsewhere = elsewhere;
    }

    /// Every address of a container with since when until when it had it ([`Timestamp::MAX`] if it still has).
    pub fn intervals(&self) -> impl Iterator<Item = (IpAddr, &ContainerName, Timestamp, Timestamp)> {
        self.addresses.iter().flat_map(move |(address, list)| {
            let named = move |i: &Interval<String>| {
                Some((*address, self.containers.get(&i.owner)?, i.since, i.until))
            };
            list.iter().filter_map(named)
        })
    }

    /// Whether an address is one of the host's own.
    pub fn is_of_host(&self, address: IpAddr) -> bool {
        self.host_addresses.contains(&address)
    }

    /// The host's own addresses.
    pub fn host_addresses(&self) -> &[IpAddr] {
        &self.host_addresses
    }

    /// The networks whose addresses are given out on this host alone.
    pub fn own_networks(&self) -> &[Prefix] {
        &self.own_networks
    }

    /// The networks whose addresses are given out on this host alone are these from now on.
    pub fn set_own_networks(&mut self, networks: Vec<Prefix>) {
        self.own_networks = networks;
    }

    /// Whether an address is somebody's here, or could be nobody's elsewhere: a container had it at any time between the two, it is the
    /// host's, or in a network of this host, whose addresses other hosts give out, too, to others.
    pub fn is_here(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> bool {
        is_group(address)
            || self.is_of_host(address)
            || self.own_networks.iter().any(|network| network.contains(address))
            || !matches!(self.addresses.lookup_range(&address, first, last), Lookup::None)
    }

    /// Who here had an address between the two times, as another host is told: a container, or the host itself.
    pub fn end_during(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> Option<RemoteEnd> {
        let id = match self.addresses.lookup_range(&address, first, last) {
            Lookup::Single(id) => Some(id),
            Lookup::Mixed => return None,
            Lookup::None => None,
        };
        if let Some(c) = id.and_then(|id| self.containers.get(id)) {
            return Some(RemoteEnd {
                kind: EndpointKind::Container,
                host: self.host.clone(),
                name: c.name.clone(),
                id: Some(c.id.clone()),
                service: c.service.clone(),
                tenant: Some(c.tenant.clone()),
            });
        }
        self.is_of_host(address).then(|| RemoteEnd::of_host(&self.host))
    }

    /// Forgets addresses given up before `before`, and containers that no port, no address and nobody in `keep` names.
    pub fn prune(&mut self, before: Timestamp, keep: impl Fn(&str) -> bool) {
        self.changes += u64::from(self.addresses.prune(before) > 0);
        let mut used: std::collections::HashSet<String> =
            self.ports.values().filter_map(|p| p.container.clone()).collect();
        used.extend(self.addresses.iter().flat_map(|(_, list)| list.iter().map(|i| i.owner.clone())));
        let before = self.containers.len();
        self.containers.retain(|id, _| used.contains(id) || keep(id));
        self.changes += u64::from(self.containers.len() != before);
    }

    fn container_endpoint(&self, c: &ContainerName, address: IpAddr) -> Endpoint {
        Endpoint {
            kind: EndpointKind::Container,
            name: c.name.clone(),
            id: Some(c.id.clone()),
            service: c.service.clone(),
            tenant: Some(c.tenant.clone()),
            host: Some(self.host.clone()),
            addresses: vec![address],
        }
    }

    /// The container's side of something counted at a port.
    ///
    /// What is sent to a group (neighbour discovery, mDNS) reaches every port: it is the group that was called.
    pub fn local(&self, ifindex: u32, address: IpAddr) -> Endpoint {
        if is_group(address) {
            return Endpoint {
                kind: EndpointKind::External,
                name: Endpoint::MULTICAST.to_owned(),
                id: None,
                service: None,
                tenant: None,
                host: None,
                addresses: vec![address],
            };
        }
        if let Some(c) =
            self.ports.get(&ifindex).and_then(|p| p.container.as_ref()).and_then(|id| self.containers.get(id))
        {
            return self.container_endpoint(c, address);
        }
        // counted at a container's port, so a container it is
        let name =
            self.ports.get(&ifindex).map_or_else(|| format!("port {ifindex}"), |p| p.interface.clone());
        Endpoint {
            kind: EndpointKind::Container,
            name,
            id: None,
            service: None,
            tenant: None,
            host: Some(self.host.clone()),
            addresses: vec![address],
        }
    }

    /// Whether what came to a port, and was never answered there, is a copy of what went to another container of this host: a bridge
    /// that has not learnt where an address is sends to all its ports. It is no conversation of this port's container, and the
    /// one whose address it is has it at its own port.
    pub fn is_copy(&self, ifindex: u32, address: IpAddr, (first, last): (Timestamp, Timestamp)) -> bool {
        let Lookup::Single(owner) = self.addresses.lookup_range(&address, first, last) else { return false };
        let at_port = self.ports.get(&ifindex).and_then(|port| port.container.as_ref());
        // Whose it is has a port of its own, where it is counted: this one may be a router's before somebody who has none. One that nobody
        // is known for may be the owner's, which will be known in a moment, unless it is known to have others.
        at_port != Some(owner) && self.ports.values().any(|port| port.container.as_ref() == Some(owner))
    }

    /// The other side, who had the address between `first` and `last`.
    pub fn remote(
        &self,
        address: IpAddr,
        first: Timestamp,
        last: Timestamp,
        service: Service,
        opened: bool,
    ) -> Endpoint {
        let plain = |kind, name: &str| Endpoint {
            kind,
            name: name.to_owned(),
            id: None,
            service: None,
            tenant: None,
            host: None,
            addresses: vec![address],
        };
        if is_group(address) {
            return plain(EndpointKind::External, Endpoint::MULTICAST);
        }
        match self.addresses.lookup_range(&address, first, last) {
            Lookup::Single(id) => {
                if let Some(c) = self.containers.get(id) {
                    return self.container_endpoint(c, address);
                }
            }
            // one record over two owners: whose packets they were cannot be told
            Lookup::Mixed => return plain(EndpointKind::External, "reused address"),
            Lookup::None => {}
        }
        if self.host_addresses.contains(&address) {
            return Endpoint { host: Some(self.host.clone()), ..plain(EndpointKind::Host, &self.host) };
        }
        match self.elsewhere.containers.lookup_range(&address, first, last) {
            Lookup::Single(end) => return end.endpoint(address),
            Lookup::Mixed => return plain(EndpointKind::External, "reused address"),
            Lookup::None => {}
        }
        if let Some(host) = self.elsewhere.hosts.get(&address) {
            return RemoteEnd::of_host(host).endpoint(address);
        }
        if service == Service::Dns && opened {
            return plain(EndpointKind::Dns, "dns");
        }
        let name = self
            .external
            .iter()
            .filter(|p| p.prefix.contains(address))
            .max_by_key(|p| p.prefix.length())
            .map_or("external", |p| p.name.as_str());
        plain(EndpointKind::External, name)
    }
}

/// Destinations that are nobody's alone.
fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let external = vec![
            ExternalPrefix { name: "office".into(), prefix: "10.0.0.0/8".parse().unwrap() },
            ExternalPrefix { name: "lab".into(), prefix: "10.9.0.0/16".parse().unwrap() },
        ];
        let mut names = Names::new("h", external);
        for (id, name) in [("a", "web"), ("b", "db")] {
            names.set_container(ContainerName {
                id: id.into(),
                name: name.into(),
                tenant: "t".into(),
                service: None,
            });
        }
        names
    }

    fn remote(names: &Names, address: &str, first: u64, last: u64) -> String {
        let e =
            names.remote(address.parse().unwrap(), Timestamp(first), Timestamp(last), Service::None, true);
        format!("{}:{}", e.kind.as_str(), e.name)
    }

    #[test]
    fn ports_are_forgotten_when_they_have_been_missed_for_long_and_their_containers_with_them() {
        let mut n = names();
        n.set_port(7, "veth7", Some("a"));
        n.set_port(8, "veth8", Some("b"));
        let (at, nobody) = (|s: u64| Timestamp(s * 1_000_000_000), |_: &str| false);
        // seven goes at 100 s, and is looked for every 10 s; eight stays, but for a moment
        for s in (100..=1000).step_by(10) {
            n.forget_ports(at(s), at(s - 60), |port| port == 8 && s != 500);
            n.prune(at(s), nobody);
            assert_eq!(n.port(7).is_some(), s <= 160, "{s}");
            assert_eq!(n.container("a").is_some(), s <= 160, "{s}");
            assert!(n.port(8).is_some() && n.container("b").is_some(), "{s}");
        }
        // the number is another's now
        n.set_port(7, "veth7", Some("c"));
        n.forget_ports(at(1010), at(1005), |_| true);
        assert!(n.port(7).is_some());
        let changes = n.changes();
        n.set_port(7, "veth7", Some("c"));
        n.forget_ports(at(1020), at(1015), |_| true);
        assert_eq!(n.changes(), changes, "nothing to be saved is another");
    }

    #[test]
    fn a_reused_address_names_who_had_it_then() {
        let mut n = names();
        let address = "172.17.0.2".parse().unwrap();
        n.set_address(address, "a", Timestamp(100));
        n.close_address(address, "a", Timestamp(200));
        n.set_address(address, "b", Timestamp(300));
        assert_eq!(remote(&n, "172.17.0.2", 150, 160), "container:web");
        assert_eq!(remote(&n, "172.17.0.2", 300, 310), "container:db");
        assert_eq!(remote(&n, "172.17.0.2", 150, 310), "external:reused address");
        assert_eq!(remote(&n, "172.17.0.2", 10, 20), "external:external");
    }

    #[test]
    fn what_a_bridge_floods_is_no_conversation_of_who_overhears_it() {
        let address: IpAddr = "172.17.0.2".parse().unwrap();
        let known = || {
            let mut n = names();
            n.set_address(address, "a", Timestamp(100));
            n
        };
        let mut n = known();
        n.set_port(7, "veth7", Some("a"));
        n.set_port(8, "veth8", Some("b"));
        n.set_port(9, "veth9", None);
        let span = (Timestamp(150), Timestamp(160));
        assert!(!n.is_copy(7, address, span), "its own");
        assert!(n.is_copy(8, address, span), "another's");
        assert!(n.is_copy(9, address, span), "nobody's port, and the owner has another");
        let mut router = known();
        router.set_port(8, "veth8", Some("b"));
        assert!(!router.is_copy(8, address, span), "the owner has no port at which it would be counted");
        let nobodys = "172.17.0.99".parse().unwrap();
        assert!(!n.is_copy(8, nobodys, span), "an address of nobody's may be the container's own");
        let before = (Timestamp(10), Timestamp(20));
        assert!(!n.is_copy(8, address, before), "it was nobody's then");
        let mut unnamed = known();
        unnamed.set_port(7, "veth7", None);
        assert!(!unnamed.is_copy(7, address, span), "it will be named in a moment");
    }

    #[test]
    fn addresses_without_a_known_end_are_listed() {
        let mut n = names();
        let [one, two] = ["172.17.0.2", "172.17.0.3"].map(|a| a.parse().unwrap());
        n.set_address(one, "a", Timestamp(100));
        n.close_address(one, "a", Timestamp(200));
        n.set_address(two, "a", Timestamp(100));
        n.set_address(two, "b", Timestamp(300));
        let open: Vec<_> = n.open_addresses().collect();
        assert_eq!(open, [(two, "b".to_owned())]);
    }

    #[test]
    fn the_longest_prefix_names_an_outside_peer() {
        let mut n = names();
        n.set_host_addresses(vec!["172.17.0.1".parse().unwrap()]);
        assert_eq!(remote(&n, "10.1.1.1", 0, 1), "external:office");
        assert_eq!(remote(&n, "10.9.1.1", 0, 1), "external:lab");
        assert_eq!(remote(&n, "8.8.8.8", 0, 1), "external:external");
        assert_eq!(remote(&n, "224.0.0.251", 0, 1), "external:multicast");
        assert_eq!(remote(&n, "ff02::16", 0, 1), "external:multicast");
        assert_eq!(remote(&n, "172.17.0.1", 0, 1), "host:h");
    }

    #[test]
    fn what_was_saved_names_the_same() {
        let mut n = names();
        n.set_port(7, "veth1", Some("a"));
        n.set_address("172.17.0.2".parse().unwrap(), "a", Timestamp(100));
        n.set_address("fd00::2".parse().unwrap(), "b", Timestamp(100));
        n.close_address("fd00::2".parse().unwrap(), "b", Timestamp(200));
        let text = serde_json::to_string(&n.saved()).unwrap();
        let mut other = Names::new("h", vec![]);
        other.restore(serde_json::from_str(&text).unwrap());
        assert_eq!(other.local(7, "172.17.0.2".parse().unwrap()).name, "web");
        assert_eq!(remote(&other, "172.17.0.2", 150, 160), "container:web");
        assert_eq!(remote(&other, "fd00::2", 150, 160), "container:db");
        assert_eq!(remote(&other, "fd00::2", 250, 260), "external:external");
    }
}
