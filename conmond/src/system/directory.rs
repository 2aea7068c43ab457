//! What of other hosts' addresses is known here, out of the registry's answers: names for addresses that are one container's, and
//! hosts to ask where an address alone does not tell. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use conmon::api::EndpointKind;
use ippm::naming::Lookup;
use ippm::time::Timestamp;

use crate::nat::RemoteEnd;
use crate::registry::{Answer, Candidate, EndpointRow, HostRow, Hosts};
use crate::store::Elsewhere;

/// Addresses on other hosts are kept for this long after they were given up.
const LINGER: Duration = Duration::from_secs(600);
/// A host that the registry no longer tells of is asked for its part, and missed in the whole, for this long: the registry may have lost its
/// memory, or heard nothing of a host that others still reach.
const MISSED: Duration = Duration::from_secs(120);
/// Most addresses that several hosts have.
const SHARED: usize = 16_384;

/// Other hosts' addresses.
#[derive(Debug, Default)]
pub struct Directory {
    own: String,
    elsewhere: Elsewhere,
    /// Addresses that containers of several hosts have, and which.
    shared: HashMap<IpAddr, Vec<String>>,
    hosts: Arc<Hosts>,
    /// Hosts that the registry told of, and since when it does no longer.
    left: BTreeMap<String, (Arc<HostRow>, Timestamp)>,
    changed: bool,
    masks_changed: bool,
    /// Addresses that several hosts have and that found no room: nobody is asked for them.
    pub full: u64,
}

fn remote_end(row: &EndpointRow) -> RemoteEnd {
    RemoteEnd {
        kind: EndpointKind::Container,
        host: row.host.clone(),
        name: row.container.clone(),
        id: Some(row.container_id.clone()),
        service: row.service.clone(),
        tenant: Some(row.tenant.clone()),
    }
}

impl Directory {
    /// Of the host of this name.
    pub fn new(own: &str) -> Self {
        Self { own: own.to_owned(), ..Self::default() }
    }

    /// The hosts there are.
    pub fn set_hosts(&mut self, hosts: Arc<Hosts>, now: Timestamp) {
        for (name, row) in self.hosts.rows.iter().filter(|(name, _)| **name != self.own) {
            if !hosts.rows.contains_key(name) {
                self.left.insert(name.clone(), (row.clone(), now));
            }
        }
        self.left.retain(|name, _| !hosts.rows.contains_key(name));
        let mut by_address: HashMap<IpAddr, BTreeSet<&str>> = HashMap::new();
        for row in hosts.rows.values() {
            for address in &row.addresses {
                by_address.entry(*address).or_default().insert(&row.name);
            }
        }
        // an address that this host or several have (each engine's own bridge) is nobody's name
        self.elsewhere.hosts = by_address
            .into_iter()
            .filter(|(_, names)| names.len() == 1 && !names.contains(self.own.as_str()))
            .filter_map(|(address, names)| Some((address, names.first()?.to_string())))
            .collect();
        self.hosts = hosts;
        self.changed = true;
        self.masks_changed = true;
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&Arc<HostRow>> {
        self.hosts.rows.get(name)
    }

    /// All other hosts.
    pub fn others(&self) -> impl Iterator<Item = &Arc<HostRow>> {
        self.hosts.rows.values().filter(|row| row.name != self.own)
    }

    /// Other hosts that were known lately, and since when the registry does not tell of them any more.
    pub fn left(&self) -> impl Iterator<Item = (&Arc<HostRow>, Timestamp)> {
        self.left.values().map(|(row, since)| (row, *since))
    }

    /// Whether the registry has to be asked for an address: nobody knows yet whose it was, or which hosts to ask.
    pub fn is_unknown(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> bool {
        self.hosts.at(address).next().is_none()
            && !self.shared.contains_key(&address)
            && matches!(self.elsewhere.containers.lookup_range(&address, first, last), Lookup::None)
    }

    /// Who had an address, if one alone did.
    pub fn end_of(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> Option<&RemoteEnd> {
        match self.elsewhere.containers.lookup_range(&address, first, last) {
            Lookup::Single(end) => Some(end),
            Lookup::None | Lookup::Mixed => None,
        }
    }

    /// Whose container that was.
    pub fn host_of(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> Option<&str> {
        self.end_of(address, first, last).map(|end| end.host.as_str())
    }

    /// What the registry says of who had an address at this time. `seen`: a packet of it was seen then, so somebody had it, whatever
    /// the clocks of the two hosts say; else it is the registry's own word that something changed. `monotonic` puts a row's time on this
    /// host's clock. Returns whether it has changed hands: who had it at this time, as far as was known, has ended, or
    /// somebody else has it. A host that is lost takes its containers' names along, not what they say.
    pub fn take(
        &mut self,
        address: IpAddr,
        (at, seen): (Timestamp, bool),
        answer: &Answer,
        monotonic: impl Fn(u64) -> Timestamp,
    ) -> bool {
        let before = self.elsewhere.containers.lookup_at(&address, at).cloned();
        let mut changed_hands = false;
        let others: Vec<_> = answer
            .candidates
            .iter()
            .filter(|c| c.row.host != self.own && (seen || c.margin_ns >= 0))
            .collect();
        if others.len() < 2 && self.shared.remove(&address).is_some() {
            self.masks_changed = true;
        }
        match &others[..] {
            [] => {
                // whoever had it has given it up; without the registry's word nobody has
                let open = before.as_ref().filter(|_| !seen && answer.known_as_of_ns.is_some());
                if let Some(end) = open {
                    self.elsewhere.containers.close(&address, end, at);
                    let is_told = |c: &Candidate| c.row.until_ns.is_some() && remote_end(&c.row) == **end;
                    changed_hands = answer.candidates.iter().any(is_told);
                    self.changed = true;
                }
            }
            [one] => {
                let since = monotonic(one.row.since_ns).min(at);
                let end = Arc::new(remote_end(&one.row));
                let is_another = before.as_ref().is_some_and(|before| *before != end);
                changed_hands = is_another || one.row.until_ns.is_some();
                self.elsewhere.containers.insert(address, end.clone(), since);
                // its host was lost for a while, and its rows with it
                self.elsewhere.containers.resume(&address, &end, at);
                if let Some(until) = one.until_ns.map(monotonic) {
                    let until = if seen { until.max(at + Duration::from_nanos(1)) } else { until };
                    self.elsewhere.containers.close(&address, &end, until);
                }
                self.changed = true;
            }
            _ => {
                if self.shared.len() >= SHARED && !self.shared.contains_key(&address) {
                    self.full += 1;
                    return false;
                }
                let hosts: BTreeSet<String> = others.iter().map(|c| c.row.host.clone()).collect();
                let hosts: Vec<String> = hosts.into_iter().collect();
                self.masks_changed |= self.shared.insert(address, hosts.clone()) != Some(hosts);
            }
        }
        changed_hands
    }

    /// Hosts that may be behind an address that does not tell by itself.
    pub fn to_ask(&self, address: IpAddr) -> Vec<String> {
        let of_hosts = self.hosts.at(address).map(|row| row.name.clone());
        let of_containers = self.shared.get(&address).into_iter().flatten().cloned();
        let all: BTreeSet<String> = of_hosts.chain(of_containers).filter(|host| *host != self.own).collect();
        all.into_iter().collect()
    }

    /// Whether a host has an address, as far as the registry knows.
    pub fn is_of(&self, address: IpAddr, host: &str) -> bool {
        self.hosts.at(address).any(|row| row.name == host)
            || self.shared.get(&address).is_some_and(|hosts| hosts.iter().any(|h| h == host))
    }

    /// Addresses behind which there may be others, whom their host names, if those changed since the last call.
    pub fn masks(&mut self) -> Option<HashSet<IpAddr>> {
        if !std::mem::take(&mut self.masks_changed) {
            return None;
        }
        let is_own =
            |address: &IpAddr| self.host(&self.own).is_some_and(|own| own.addresses.contains(address));
        let of_hosts = self.others().flat_map(|row| row.addresses.iter().copied()).filter(|a| !is_own(a));
        Some(of_hosts.chain(self.shared.keys().copied()).collect())
    }

    /// Names by address, if they changed since the last call.
    pub fn changed(&mut self) -> Option<Arc<Elsewhere>> {
        std::mem::take(&mut self.changed).then(|| Arc::new(self.elsewhere.clone()))
    }

    /// Forgets what was given up long ago.
    pub fn prune(&mut self, now: Timestamp) {
        self.changed |= self.elsewhere.containers.prune(now.before(LINGER)) > 0;
        self.left.retain(|_, (_, since)| now - *since < MISSED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::rows::tests::{endpoint, host};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn candidate(host: &str, name: &str, since: u64, until: Option<u64>) -> Candidate {
        let row = Arc::new(endpoint(host, name, "10.0.0.1", since, until));
        Candidate { row, until_ns: until, margin_ns: 1 }
    }

    fn directory() -> Directory {
        let mut hosts = Hosts::default();
        let row = |name: &str, own: &str| HostRow {
            addresses: vec![address(own), address("172.17.0.1")],
            ..host(name, 1)
        };
        hosts.load(vec![row("a", "192.0.2.1"), row("b", "192.0.2.2"), row("c", "192.0.2.3")]);
        let mut directory = Directory::new("a");
        directory.set_hosts(Arc::new(hosts), Timestamp(0));
        directory
    }

    fn named(directory: &Directory, at: u64) -> Option<String> {
        let at = Timestamp(at);
        match directory.elsewhere.containers.lookup_range(&address("10.0.0.1"), at, at) {
            Lookup::Single(end) => Some(format!("{}@{}", end.name, end.host)),
            _ => None,
        }
    }

    #[test]
    fn a_host_s_own_address_is_its_name_and_one_that_several_have_is_nobody_s() {
        let mut d = directory();
        assert_eq!(d.elsewhere.hosts.get(&address("192.0.2.2")).map(String::as_str), Some("b"));
        assert!(!d.elsewhere.hosts.contains_key(&address("172.17.0.1")));
        assert!(!d.elsewhere.hosts.contains_key(&address("192.0.2.1")), "this host's own");
        assert_eq!(d.to_ask(address("192.0.2.2")), ["b"]);
        assert_eq!(d.to_ask(address("172.17.0.1")), ["b", "c"]);
        assert!(d.is_of(address("192.0.2.3"), "c") && !d.is_of(address("192.0.2.3"), "b"));
        let masks = d.masks().unwrap();
        assert!(masks.contains(&address("192.0.2.2")) && !masks.contains(&address("192.0.2.1")));
        assert!(
            !masks.contains(&address("172.17.0.1")),
            "this host's, too: nobody else is called by it from here"
        );
        assert_eq!(d.masks(), None, "nothing new");
    }

    #[test]
    fn a_host_that_the_registry_tells_of_no_longer_is_missed_for_a_while() {
        let mut d = directory();
        let all = d.hosts.clone();
        let without = |names: &[&str]| {
            let mut hosts = Hosts::default();
            let rest = all.rows.values().filter(|row| !names.contains(&row.name.as_str()));
            hosts.load(rest.map(|row| HostRow::clone(row)).collect());
            Arc::new(hosts)
        };
        let left = |d: &Directory| d.left().map(|(row, at)| (row.name.clone(), at.0)).collect::<Vec<_>>();
        d.set_hosts(without(&["a", "b"]), Timestamp(5));
        d.set_hosts(without(&["a", "b", "c"]), Timestamp(7));
        assert_eq!(left(&d), [("b".to_owned(), 5), ("c".to_owned(), 7)], "this host itself is never missed");
        d.set_hosts(without(&["b"]), Timestamp(9));
        assert_eq!(left(&d), [("b".to_owned(), 5)], "c is back");
        d.prune(Timestamp(4) + MISSED);
        assert_eq!(left(&d).len(), 1);
        d.prune(Timestamp(5) + MISSED);
        assert_eq!(left(&d), []);
    }

    #[test]
    fn an_address_of_one_container_is_its_name_for_as_long_as_it_had_it() {
        let mut d = directory();
        let at = address("10.0.0.1");
        assert!(d.is_unknown(at, Timestamp(150), Timestamp(150)));
        let answer = |candidates| Answer { candidates, ..Answer::default() };
        d.take(at, (Timestamp(150), true), &answer(vec![candidate("b", "web", 100, Some(200))]), Timestamp);
        assert!(!d.is_unknown(at, Timestamp(150), Timestamp(150)));
        assert!(d.is_unknown(at, Timestamp(250), Timestamp(250)), "somebody else's, to be asked for");
        d.take(at, (Timestamp(250), true), &answer(vec![candidate("c", "db", 220, None)]), Timestamp);
        let names = [150, 210, 250].map(|at| named(&d, at));
        assert_eq!(names, [Some("web@b".to_owned()), None, Some("db@c".to_owned())]);
        // a clock that is ahead: it had the address at the time of the packet, whatever its host's clock said
        d.take(at, (Timestamp(90), true), &answer(vec![candidate("b", "web", 100, Some(200))]), Timestamp);
        assert_eq!(named(&d, 95).as_deref(), Some("web@b"));
        assert!(d.changed().is_some() && d.changed().is_none());
    }

    #[test]
    fn who_gave_an_address_up_has_it_no_longer() {
        let mut d = directory();
        let at = address("10.0.0.1");
        let known = |candidates| Answer { candidates, known_as_of_ns: Some(1), ..Answer::default() };
        d.take(at, (Timestamp(150), true), &known(vec![candidate("b", "web", 100, None)]), Timestamp);
        assert_eq!(named(&d, 1000).as_deref(), Some("web@b"));
        // the registry tells of a change, and nobody has it
        let silent = d.take(at, (Timestamp(200), false), &Answer::default(), Timestamp);
        assert!(!silent);
        assert_eq!(named(&d, 1000).as_deref(), Some("web@b"), "a registry that does not answer says nothing");
        let over = Candidate { margin_ns: -1, ..candidate("b", "web", 100, Some(199)) };
        assert!(d.take(at, (Timestamp(200), false), &known(vec![over]), Timestamp), "it has changed hands");
        assert_eq!((named(&d, 150).as_deref(), named(&d, 201)), (Some("web@b"), None));
        assert!(d.is_unknown(at, Timestamp(300), Timestamp(300)), "the next one is asked for");
        // its host is lost: its rows are gone, and nobody says that it ended
        let mut lost = directory();
        lost.take(at, (Timestamp(150), true), &known(vec![candidate("b", "web", 100, None)]), Timestamp);
        assert!(
            !lost.take(at, (Timestamp(200), false), &known(vec![]), Timestamp) && named(&lost, 201).is_none()
        );
        // its host was lost only, and is back with the same row
        assert!(!d.take(
            at,
            (Timestamp(400), false),
            &known(vec![candidate("b", "web", 100, None)]),
            Timestamp
        ));
        let next = known(vec![candidate("c", "db", 450, None)]);
        assert!(
            d.take(at, (Timestamp(500), true), &next, Timestamp)
                && !d.take(at, (Timestamp(500), true), &next, Timestamp)
        );
        assert_eq!((named(&d, 449).as_deref(), named(&d, 450).as_deref()), (Some("web@b"), Some("db@c")));
    }

    #[test]
    fn an_address_of_several_is_asked_for_and_this_host_s_own_claim_is_no_other_s() {
        let mut d = directory();
        let at = address("10.0.0.1");
        let both = vec![candidate("b", "x", 1, None), candidate("c", "y", 1, None)];
        d.take(at, (Timestamp(5), true), &Answer { candidates: both, ..Answer::default() }, Timestamp);
        assert_eq!((d.to_ask(at), named(&d, 5)), (vec!["b".to_owned(), "c".to_owned()], None));
        let ours = vec![candidate("a", "x", 1, None), candidate("c", "y", 1, None)];
        d.take(at, (Timestamp(5), true), &Answer { candidates: ours, ..Answer::default() }, Timestamp);
        assert_eq!((d.to_ask(at).len(), named(&d, 5).as_deref()), (0, Some("y@c")));
    }
}
