//! Who is really at the other end, where the host translates addresses.
//!
//! A port sees packets as they are at the port. A container that calls another's published port sees the host's address
//! (DNAT), and one that is called through a masquerade sees the host's, too (SNAT). The kernel's connection tracking
//! knows both sides of each translated connection; a [`NatWatch`] listens to it and keeps [`Translations`].
//!
//! Docker's userland proxy is no translation: it is a process that receives and sends, so there are two conversations,
//! each with the host.

mod watch;
mod wire;

use std::net::IpAddr;

use ippm::flow::FlowKey;
use ippm::naming::{AddressMap, Lookup};
use ippm::time::Timestamp;

pub use watch::{NatError, NatWatch};

/// An address and a transport port (an ICMP echo's identifier, in both ends).
pub type Place = (IpAddr, u16);

/// A conversation as one of its ends sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen {
    proto: u8,
    near: Place,
    far: Place,
}

/// A tracked connection: how its first packet was addressed when it came, and how the answers are when they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol number.
    pub proto: u8,
    /// Source and destination of what the opener sends.
    pub original: (Place, Place),
    /// Source and destination of what is answered.
    pub reply: (Place, Place),
}

impl Connection {
    /// Whether an end sees another far end than there is.
    pub fn is_translated(&self) -> bool {
        self.original.0 != self.reply.1 || self.original.1 != self.reply.0
    }

    /// What each end sees, and who is really there; an end that sees the truth is left out.
    fn views(&self) -> impl Iterator<Item = (Seen, Place)> {
        let ((caller, called), (answering, answered)) = (self.original, self.reply);
        let caller_sees = Seen { proto: self.proto, near: caller, far: called };
        let called_sees = Seen { proto: self.proto, near: answering, far: answered };
        [(caller_sees, answering), (called_sees, caller)]
            .into_iter()
            .filter(|(seen, real)| seen.far.0 != real.0)
    }
}

/// Translated conversations in time: ports are used again.
#[derive(Debug)]
pub struct Translations {
    real: AddressMap<Place, Seen>,
    limit: usize,
    /// Translated connections told of.
    pub connections: u64,
    /// Conversations that found no room: their far end is named as it is seen.
    pub full: u64,
    /// Times at which the kernel dropped messages, and everything was listed anew.
    pub overruns: u64,
}

impl Default for Translations {
    fn default() -> Self {
        Self::new(65_536)
    }
}

impl Translations {
    /// With room for so many conversations.
    pub fn new(limit: usize) -> Self {
        Self { real: AddressMap::new(4), limit, connections: 0, full: 0, overruns: 0 }
    }

    /// A connection is there since then.
    pub fn open(&mut self, connection: &Connection, since: Timestamp) {
        let mut any = false;
        for (seen, real) in connection.views() {
            any = true;
            if self.real.len() >= self.limit && self.real.intervals(&seen).is_empty() {
                self.full += 1;
                continue;
            }
            self.real.insert(seen, real, since);
        }
        self.connections += u64::from(any);
    }

    /// A connection is no more.
    pub fn close(&mut self, connection: &Connection, until: Timestamp) {
        for (seen, real) in connection.views() {
            self.real.close(&seen, &real, until);
        }
    }

    /// Who is really at the far end of a flow that was seen between `first` and `last`; none if it is who it seems, or
    /// if that cannot be told.
    pub fn real(&self, key: &FlowKey, first: Timestamp, last: Timestamp) -> Option<Place> {
        if self.real.is_empty() {
            return None;
        }
        let seen =
            Seen { proto: key.proto, near: (key.local, key.local_port), far: (key.remote, key.remote_port) };
        match self.real.lookup_range(&seen, first, last) {
            Lookup::Single(real) => Some(*real),
            Lookup::Mixed | Lookup::None => None,
        }
    }

    /// Forgets what ended before then.
    pub fn prune(&mut self, before: Timestamp) {
        self.real.prune(before);
    }

    /// Conversations kept.
    pub fn len(&self) -> usize {
        self.real.len()
    }

    /// Whether nothing is translated.
    pub fn is_empty(&self) -> bool {
        self.real.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        let at: std::net::SocketAddr = text.parse().unwrap();
        (at.ip(), at.port())
    }

    fn connection(from: &str, to: &str, answering: &str, answered: &str) -> Connection {
        Connection {
            proto: 6,
            original: (place(from), place(to)),
            reply: (place(answering), place(answered)),
        }
    }

    fn key(near: &str, far: &str) -> FlowKey {
        let ((local, local_port), (remote, remote_port)) = (place(near), place(far));
        FlowKey { local, remote, local_port, remote_port, proto: 6, vlan: 0, ifindex: 1 }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    #[test]
    fn a_published_port_hides_who_answers_from_the_caller_alone() {
        let mut all = Translations::default();
        let c = connection("10.1.0.2:4000", "10.1.0.1:8080", "10.2.0.2:80", "10.1.0.2:4000");
        assert!(c.is_translated());
        all.open(&c, at(10));
        let caller = key("10.1.0.2:4000", "10.1.0.1:8080");
        assert_eq!(all.real(&caller, at(11), at(12)), Some(place("10.2.0.2:80")));
        assert_eq!(all.real(&key("10.2.0.2:80", "10.1.0.2:4000"), at(11), at(12)), None, "it sees the truth");
        assert_eq!(all.real(&key("10.1.0.2:4001", "10.1.0.1:8080"), at(11), at(12)), None, "another flow");
    }

    #[test]
    fn a_masquerade_hides_the_caller() {
        let mut all = Translations::default();
        all.open(&connection("[fd01::2]:4000", "[fd02::2]:80", "[fd02::2]:80", "[fd02::1]:61000"), at(10));
        assert_eq!(
            all.real(&key("[fd02::2]:80", "[fd02::1]:61000"), at(10), at(20)),
            Some(place("[fd01::2]:4000"))
        );
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn a_port_that_is_used_again_is_whose_it_was_then() {
        let mut all = Translations::default();
        let one = connection("10.1.0.2:4000", "10.1.0.1:8080", "10.2.0.2:80", "10.1.0.2:4000");
        let other = connection("10.1.0.2:4000", "10.1.0.1:8080", "10.3.0.3:80", "10.1.0.2:4000");
        all.open(&one, at(10));
        all.close(&one, at(20));
        all.open(&other, at(30));
        let caller = key("10.1.0.2:4000", "10.1.0.1:8080");
        assert_eq!(all.real(&caller, at(12), at(13)), Some(place("10.2.0.2:80")));
        assert_eq!(all.real(&caller, at(25), at(26)), None);
        assert_eq!(all.real(&caller, at(31), at(32)), Some(place("10.3.0.3:80")));
        assert_eq!(all.real(&caller, at(12), at(32)), None, "both: it cannot be told");
        all.prune(at(25));
        assert_eq!(all.real(&caller, at(12), at(13)), None);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut all = Translations::new(1);
        for port in [1, 2, 3] {
            let from = format!("10.1.0.2:{port}");
            all.open(&connection(&from, "10.1.0.1:8080", "10.2.0.2:80", &from), at(1));
        }
        assert_eq!((all.len(), all.full, all.connections), (1, 2, 3));
    }
}
