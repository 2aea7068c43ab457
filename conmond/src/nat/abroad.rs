//! Who is at the far end of a conversation, where that is on another host and its controller told.

use std::net::IpAddr;
use std::sync::Arc;

use conmon::api::{Endpoint, EndpointKind};
use ippm::naming::{AddressMap, Lookup};
use ippm::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Place, Real, Seen};

/// An end on another host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RemoteEnd {
    /// What it is: a container, or the host itself.
    pub kind: EndpointKind,
    /// The host.
    pub host: String,
    /// Its name.
    pub name: String,
    /// The container's id.
    pub id: Option<String>,
    /// Its compose service.
    pub service: Option<String>,
    /// Its tenant.
    pub tenant: Option<String>,
}

impl RemoteEnd {
    /// A host itself.
    pub fn of_host(host: &str) -> Self {
        Self {
            kind: EndpointKind::Host,
            host: host.to_owned(),
            name: host.to_owned(),
            id: None,
            service: None,
            tenant: None,
        }
    }

    /// As the API has it, with the address it has in a conversation.
    pub fn endpoint(&self, address: IpAddr) -> Endpoint {
        Endpoint {
            kind: self.kind,
            name: self.name.clone(),
            id: self.id.clone(),
            service: self.service.clone(),
            tenant: self.tenant.clone(),
            host: Some(self.host.clone()),
            addresses: vec![address],
        }
    }
}

/// Far ends that other hosts told of, in time: ports are used again.
#[derive(Debug)]
pub struct Abroad {
    ends: AddressMap<(Place, Arc<RemoteEnd>), Seen>,
    limit: usize,
    /// Conversations that were told of.
    pub told: u64,
    /// Conversations that found no room: their far end is named as it is seen.
    pub full: u64,
}

impl Abroad {
    /// With room for so many conversations.
    pub fn new(limit: usize) -> Self {
        Self { ends: AddressMap::new(4), limit, told: 0, full: 0 }
    }

    /// Since then the far end of what is seen so is this one, and that its own place.
    pub fn insert(&mut self, seen: Seen, place: Place, end: Arc<RemoteEnd>, since: Timestamp) {
        if self.ends.len() >= self.limit && self.ends.intervals(&seen).is_empty() {
            self.full += 1;
            return;
        }
        self.told += 1;
        self.ends.insert(seen, (place, end), since);
    }

    /// A conversation is over.
    pub fn close(&mut self, seen: &Seen, until: Timestamp) {
        if let Some(end) = self.ends.lookup_at(seen, until).cloned() {
            self.ends.close(seen, &end, until);
        }
    }

    /// Whether it is known who was at the far end at this time.
    pub fn knows(&self, seen: &Seen, at: Timestamp) -> bool {
        self.ends.lookup_at(seen, at).is_some()
    }

    pub(super) fn real(&self, seen: &Seen, first: Timestamp, last: Timestamp) -> Option<Real> {
        match self.ends.lookup_range(seen, first, last) {
            Lookup::Single((place, end)) => Some(Real { place: *place, abroad: Some(end.clone()) }),
            Lookup::Mixed | Lookup::None => None,
        }
    }

    /// Forgets what ended before then.
    pub fn prune(&mut self, before: Timestamp) {
        self.ends.prune(before);
    }

    /// Conversations kept.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether nobody abroad is known.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(port: u16) -> Seen {
        let place = |text: &str, port| (text.parse().unwrap(), port);
        Seen { proto: 6, near: place("10.1.0.2", port), far: place("192.0.2.2", 8080) }
    }

    #[test]
    fn a_port_used_again_is_whose_it_was_then() {
        let end = |name: &str| Arc::new(RemoteEnd { name: name.to_owned(), ..RemoteEnd::of_host("b") });
        let mut all = Abroad::new(2);
        let place = ("10.1.0.2".parse().unwrap(), 80);
        all.insert(seen(1), place, end("x"), Timestamp(10));
        all.close(&seen(1), Timestamp(20));
        all.insert(seen(1), place, end("y"), Timestamp(30));
        let who = |first, last| {
            let real = all.real(&seen(1), Timestamp(first), Timestamp(last))?;
            Some(real.abroad.unwrap().name.clone())
        };
        assert_eq!((who(11, 12).as_deref(), who(31, 40).as_deref()), (Some("x"), Some("y")));
        assert_eq!((who(22, 25), who(11, 31)), (None, None), "nobody; and it cannot be told");
        all.insert(seen(2), place, end("x"), Timestamp(10));
        all.insert(seen(3), place, end("x"), Timestamp(10));
        assert_eq!((all.len(), all.full), (2, 1));
    }
}
