//! Who is really at the other end, where the host translates addresses.
//!
//! A port sees packets as they are at the port. A container that calls another's published port sees the host's address
//! (DNAT), and one that is called through a masquerade sees the host's, too (SNAT). The kernel's connection tracking
//! knows both sides of each translated connection; a [`NatWatch`] listens to it and keeps [`Translations`].
//!
//! Docker's userland proxy is no translation: it is a process that receives and sends, so there are two conversations,
//! each with the host.

mod abroad;
mod watch;
mod wire;

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ippm::flow::FlowKey;
use ippm::naming::{AddressMap, Lookup};
use ippm::time::Timestamp;

pub use abroad::{Abroad, RemoteEnd};
pub use watch::{NatError, NatWatch};

use crate::netlink::{Ear, When};

/// An address and a transport port (an ICMP echo's identifier, in both ends).
pub type Place = (IpAddr, u16);

/// A conversation as one of its ends sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// IP protocol number.
    pub proto: u8,
    /// The end's own place.
    pub near: Place,
    /// The other's, as it is seen.
    pub far: Place,
}

impl Seen {
    /// As the container behind a port sees it.
    pub fn of(key: &FlowKey) -> Self {
        Self { proto: key.proto, near: (key.local, key.local_port), far: (key.remote, key.remote_port) }
    }
}

/// A conversation as it is between hosts, where both of them see the same of it: behind the translation of the one, and before
/// that of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wire {
    /// IP protocol number.
    pub proto: u8,
    /// Where its opener's packets come from there.
    pub opener: Place,
    /// Where they go to.
    pub called: Place,
}

/// Which end of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The one that opened it.
    Opener,
    /// The one that was called.
    Called,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Opener => Self::Called,
            Self::Called => Self::Opener,
        }
    }
}

impl Wire {
    /// The conversation that `seen` is, where nothing on this host translates it, and its near end is on this side.
    pub fn plain(seen: Seen, near: Side) -> Self {
        let (opener, called) = match near {
            Side::Opener => (seen.near, seen.far),
            Side::Called => (seen.far, seen.near),
        };
        Self { proto: seen.proto, opener, called }
    }

    /// The place of an end.
    pub fn place(&self, side: Side) -> Place {
        match side {
            Side::Opener => self.opener,
            Side::Called => self.called,
        }
    }
}

/// Who is really at a flow's far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Real {
    /// Its own address and port.
    pub place: Place,
    /// Who it is, where it is on another host: its address may be somebody else's here.
    pub abroad: Option<Arc<RemoteEnd>>,
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

    /// What each end sees, and what is between hosts, where that differs.
    fn wires(&self) -> impl Iterator<Item = (Seen, Side, Wire)> {
        let ((caller, called), (answering, answered)) = (self.original, self.reply);
        let proto = self.proto;
        // the caller's packets leave with the reply's destination for their source; those for the called came as the original is
        let caller_sees = (
            Seen { proto, near: caller, far: called },
            Side::Opener,
            Wire { proto, opener: answered, called: answering },
        );
        let called_sees = (
            Seen { proto, near: answering, far: answered },
            Side::Called,
            Wire { proto, opener: caller, called },
        );
        [caller_sees, called_sees].into_iter().filter(|(seen, side, wire)| *wire != Wire::plain(*seen, *side))
    }
}

/// The port sees a packet this long, at the most, before the kernel tells of the connection that it began.
const BEFORE: Duration = Duration::from_millis(200);
/// The same where the packet waits for a neighbour's address: the kernel asks three times, a second apart.
const WAITED: Duration = Duration::from_secs(5);

/// Translated conversations in time: ports are used again.
#[derive(Debug)]
pub struct Translations {
    real: AddressMap<Place, Seen>,
    /// What there is between hosts of what an end here sees, and the other way round.
    wires: AddressMap<Wire, (Seen, Side)>,
    ends: AddressMap<Seen, (Wire, Side)>,
    /// Ends that other hosts told of.
    pub abroad: Abroad,
    ear: Weak<Ear>,
    limit: usize,
    /// Translated connections told of.
    pub connections: u64,
    /// Connections that found no room: their far ends are named as they are seen.
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
        Self {
            real: AddressMap::new(4),
            wires: AddressMap::new(4),
            ends: AddressMap::new(4),
            abroad: Abroad::new(limit),
            ear: Weak::new(),
            limit,
            connections: 0,
            full: 0,
            overruns: 0,
        }
    }

    /// Who fills it from now on, as long as that is there.
    pub fn hear_by(&mut self, ear: &Arc<Ear>) {
        self.ear = Arc::downgrade(ear);
    }

    /// All that the kernel had told of connections before this time is in it. Where nobody listens there is nothing to wait for.
    pub fn heard_until(&self) -> Timestamp {
        self.ear.upgrade().map_or(Timestamp::MAX, |ear| ear.heard_until())
    }

    /// Changes whenever something was told of.
    pub fn revision(&self) -> u64 {
        self.connections.wrapping_add(self.abroad.told)
    }

    /// The kernel told of a new connection. Its first packets were at the port before: by as much as it takes to be told of it, and where they
    /// had to wait for a neighbour's address on the bridge, by up to the seconds after which the kernel gives that up.
    pub fn begin(&mut self, connection: &Connection, told: When) {
        let waited = told.after.before(WAITED);
        let over = |until: Timestamp| until <= waited;
        let is_first =
            connection.views().all(|(seen, _)| self.real.intervals(&seen).iter().all(|i| over(i.until)))
                && connection.wires().all(|(seen, side, wire)| {
                    self.wires.intervals(&(seen, side)).iter().all(|i| over(i.until))
                        && self.ends.intervals(&(wire, side)).iter().all(|i| over(i.until))
                });
        self.open(connection, if is_first { waited } else { told.read.before(BEFORE) });
    }

    /// A connection is there since then.
    pub fn open(&mut self, connection: &Connection, since: Timestamp) {
        let (mut any, mut full) = (false, false);
        for (seen, real) in connection.views() {
            any = true;
            if self.real.len() >= self.limit && self.real.intervals(&seen).is_empty() {
                full = true;
                continue;
            }
            self.real.insert(seen, real, since);
        }
        for (seen, side, wire) in connection.wires() {
            any = true;
            // a connection has two ends
            if self.wires.len() >= 2 * self.limit && self.wires.intervals(&(seen, side)).is_empty() {
                full = true;
                continue;
            }
            self.wires.insert((seen, side), wire, since);
            self.ends.insert((wire, side), seen, since);
        }
        self.connections += u64::from(any);
        self.full += u64::from(full);
    }

    /// A connection is no more.
    pub fn close(&mut self, connection: &Connection, until: Timestamp) {
        for (seen, real) in connection.views() {
            self.real.close(&seen, &real, until);
        }
        for (seen, side, wire) in connection.wires() {
            self.wires.close(&(seen, side), &wire, until);
            self.ends.close(&(wire, side), &seen, until);
        }
    }

    /// Who is really at the far end of a flow that was seen between `first` and `last`; none if it is who it seems, or
    /// if that cannot be told.
    pub fn real(&self, key: &FlowKey, first: Timestamp, last: Timestamp) -> Option<Real> {
        if self.real.is_empty() && self.abroad.is_empty() {
            return None;
        }
        let seen = Seen::of(key);
        match self.real.lookup_range(&seen, first, last) {
            Lookup::Single(real) => Some(Real { place: *real, abroad: None }),
            Lookup::Mixed => None,
            Lookup::None => self.abroad.real(&seen, first, last),
        }
    }

    /// Whether it is known who was at the far end at this time, where that is another than is seen.
    pub fn knows(&self, seen: &Seen, at: Timestamp) -> bool {
        self.real.lookup_at(seen, at).is_some() || self.abroad.knows(seen, at)
    }

    /// What there is between hosts of a conversation that an end here sees so.
    pub fn wire(&self, seen: Seen, side: Side, first: Timestamp, last: Timestamp) -> Wire {
        match self.wires.lookup_range(&(seen, side), first, last) {
            Lookup::Single(wire) => *wire,
            Lookup::Mixed | Lookup::None => Wire::plain(seen, side),
        }
    }

    /// What the end on this side, which is here, saw of a conversation between hosts at some time between `first` and `last`.
    pub fn end(&self, wire: Wire, side: Side, first: Timestamp, last: Timestamp) -> Option<Seen> {
        match self.ends.lookup_range(&(wire, side), first, last) {
            Lookup::Single(seen) => Some(*seen),
            Lookup::Mixed | Lookup::None => None,
        }
    }

    /// Forgets what ended before then.
    pub fn prune(&mut self, before: Timestamp) {
        self.real.prune(before);
        self.wires.prune(before);
        self.ends.prune(before);
        self.abroad.prune(before);
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

    fn real(all: &Translations, key: &FlowKey, first: u64, last: u64) -> Option<Place> {
        all.real(key, at(first), at(last)).map(|real| real.place)
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
        assert_eq!(real(&all, &caller, 11, 12), Some(place("10.2.0.2:80")));
        assert_eq!(real(&all, &key("10.2.0.2:80", "10.1.0.2:4000"), 11, 12), None, "it sees the truth");
        assert_eq!(real(&all, &key("10.1.0.2:4001", "10.1.0.1:8080"), 11, 12), None, "another flow");
    }

    #[test]
    fn what_waited_for_a_neighbour_is_the_connection_s_unless_it_may_be_the_one_before() {
        let mut all = Translations::default();
        let one = connection("10.1.0.2:4000", "10.1.0.1:8080", "10.2.0.2:80", "10.1.0.2:4000");
        let other = connection("10.1.0.2:4000", "10.1.0.1:8080", "10.3.0.3:80", "10.1.0.2:4000");
        let caller = key("10.1.0.2:4000", "10.1.0.1:8080");
        all.begin(&one, When { after: at(100), read: at(100) });
        assert_eq!(
            real(&all, &caller, 97, 98),
            Some(place("10.2.0.2:80")),
            "told of two seconds after its packets"
        );
        assert_eq!(real(&all, &caller, 90, 94), None);
        all.close(&one, at(110));
        all.begin(&other, When { after: at(112), read: at(112) });
        assert_eq!(real(&all, &caller, 109, 109), Some(place("10.2.0.2:80")));
        assert_eq!(real(&all, &caller, 111, 111), None, "whose this was nobody knows");
        assert_eq!(real(&all, &caller, 112, 113), Some(place("10.3.0.3:80")));
        // told of when nobody read it
        let later = connection("10.1.0.2:4001", "10.1.0.1:8080", "10.3.0.3:80", "10.1.0.2:4001");
        all.begin(&later, When { after: at(120), read: at(150) });
        let caller = key("10.1.0.2:4001", "10.1.0.1:8080");
        assert_eq!(real(&all, &caller, 120, 121), Some(place("10.3.0.3:80")));
        assert_eq!(real(&all, &caller, 110, 111), None);
    }

    #[test]
    fn a_masquerade_hides_the_caller() {
        let mut all = Translations::default();
        all.open(&connection("[fd01::2]:4000", "[fd02::2]:80", "[fd02::2]:80", "[fd02::1]:61000"), at(10));
        assert_eq!(
            real(&all, &key("[fd02::2]:80", "[fd02::1]:61000"), 10, 20),
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
        assert_eq!(real(&all, &caller, 12, 13), Some(place("10.2.0.2:80")));
        assert_eq!(real(&all, &caller, 25, 26), None);
        assert_eq!(real(&all, &caller, 31, 32), Some(place("10.3.0.3:80")));
        assert_eq!(real(&all, &caller, 12, 32), None, "both: it cannot be told");
        all.prune(at(25));
        assert_eq!(real(&all, &caller, 12, 13), None);
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

    #[test]
    fn two_hosts_see_the_same_of_a_conversation_between_them() {
        // a container calls a published port of another host, from behind a masquerade
        let mut near = Translations::default();
        near.open(
            &connection("10.1.0.2:4000", "192.0.2.2:8080", "192.0.2.2:8080", "192.0.2.1:61000"),
            at(10),
        );
        let mut far = Translations::default();
        far.open(&connection("192.0.2.1:61000", "192.0.2.2:8080", "10.1.0.2:80", "192.0.2.1:61000"), at(10));
        let caller = Seen { proto: 6, near: place("10.1.0.2:4000"), far: place("192.0.2.2:8080") };
        let called = Seen { proto: 6, near: place("10.1.0.2:80"), far: place("192.0.2.1:61000") };
        let wire = near.wire(caller, Side::Opener, at(11), at(12));
        assert_eq!(wire, far.wire(called, Side::Called, at(11), at(12)));
        assert_eq!(far.end(wire, Side::Called, at(11), at(12)), Some(called));
        assert_eq!(near.end(wire, Side::Opener, at(11), at(12)), Some(caller));
        assert_eq!(near.end(wire, Side::Called, at(11), at(12)), None, "the called is not here");
        assert_eq!(near.end(wire, Side::Opener, at(8), at(9)), None, "it was not yet there");
        // untranslated: what is seen is what there is
        let plain = Seen { proto: 17, ..called };
        assert_eq!(far.wire(plain, Side::Called, at(11), at(12)), Wire::plain(plain, Side::Called));
    }
}
