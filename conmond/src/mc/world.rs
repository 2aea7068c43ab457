//! What the controller knows: links, networks, containers, taps, sets and their monitors. Plain data; it is changed by
//! what is observed and by what was done, and read by [`super::reconcile`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ippm::measurement::SetCounters;
use ippm::time::Timestamp;
use tap::{Extensible, SetSpec};

use crate::mac::Mac;
use crate::runtime::{Container, ContainerState, Network, NetworkEndpoint};
use crate::switch::Link;

/// Names a set for as long as it lives; its pins, its monitor's slot and its run folder bear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl SetId {
    /// The set that a pin or slot name means.
    pub fn parse(name: &str) -> Option<SetId> {
        name.strip_prefix('s')?.parse().ok().map(SetId)
    }
}

/// Whom a set serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetRole {
    /// Ports whose container is not known yet. The controller runs the monitoring functions itself.
    Nursery,
    /// Nobody yet.
    Pool,
    /// A tenant's containers.
    Tenant(String),
    /// One container, by its id.
    Dedicated(String),
}

/// A link, and what was found out about it.
#[derive(Clone, Debug)]
pub struct LinkSeen {
    /// Its newest state.
    pub link: Link,
    /// When the kernel told that it was made; none when it was there before we looked.
    pub made_at: Option<Timestamp>,
    /// When it joined its bridge; none when it was there before we looked.
    pub joined_at: Option<Timestamp>,
    /// When it came up; none when it was up before we looked.
    pub up_at: Option<Timestamp>,
    /// The far end, once asked for.
    pub peer: Option<FarEnd>,
    /// When to ask (again) for the far end or look (again) for its container.
    pub look_at: Timestamp,
    /// How often we looked in vain.
    pub looked: u32,
    /// The far end was asked for and the answer is not here yet.
    pub asking: bool,
}

/// What is known of the far end of a port, the interface inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FarEnd {
    /// Its Ethernet address; none where it was not asked for.
    pub mac: Option<Mac>,
    /// Its addresses, IPv4 before IPv6, link-local ones included.
    pub addresses: Vec<IpAddr>,
}

/// A network and who is on it.
#[derive(Clone, Debug)]
pub struct NetworkSeen {
    /// The network.
    pub network: Network,
    /// Its endpoints as last told.
    pub endpoints: Vec<NetworkEndpoint>,
    /// The endpoints changed since, or might have.
    pub stale: bool,
    /// They were asked for and the answer is not here yet.
    pub asked: bool,
    /// When they were last asked for.
    pub asked_at: Timestamp,
    /// When the answer was asked for that they are of.
    pub as_of: Timestamp,
    /// When the engine told of a container's connecting, by container.
    pub connects: BTreeMap<String, Timestamp>,
}

impl NetworkSeen {
    /// A network of which only this is known.
    pub fn new(network: Network, stale: bool) -> Self {
        Self {
            network,
            endpoints: Vec::new(),
            stale,
            asked: false,
            asked_at: Timestamp::ZERO,
            as_of: Timestamp::ZERO,
            connects: BTreeMap::new(),
        }
    }
}

/// A container, and when we heard of it.
#[derive(Clone, Debug)]
pub struct ContainerSeen {
    /// As the engine told last.
    pub container: Container,
    /// When it ended, by our clock.
    pub ended_at: Option<Timestamp>,
    /// Not before this is the engine asked whose network it uses.
    pub ask_mode_at: Timestamp,
    /// When we first heard of it.
    pub heard_at: Timestamp,
}

/// A port that is being tapped: nothing else may be done to it until that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tapping {
    /// The set that shall count it.
    pub set: SetId,
    /// Which programs of the set's it gets, see [`FlowTable::programs`].
    pub programs: u32,
    /// Since when.
    pub since: Timestamp,
}

/// A tapped port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapSeen {
    /// The set that counts it.
    pub set: SetId,
    /// Since when it is tapped.
    pub tapped_at: Timestamp,
    /// It was adopted: counting went on from an earlier daemon.
    pub adopted: bool,
    /// It was tapped before it joined a bridge, and has not joined one since.
    pub early: bool,
    /// How firmly the programs sit.
    pub hold: TapHold,
    /// Which programs of the set's it has, see [`FlowTable::programs`].
    pub programs: u32,
    /// Which programs, and of which set, it is being moved to.
    pub heading: Option<(SetId, u32)>,
}

/// A tapped control group: that of a container which uses the host's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSeen {
    /// The container.
    pub container: String,
    /// It is over: the container ended, or the group is not there any more.
    pub over: bool,
}

/// The search for the control group of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSearch {
    /// The set, and which of its programs, that it is about to be tapped with; none while nobody is at it.
    pub heading: Option<(SetId, u32)>,
    /// Not before this is it looked for (again).
    pub again_at: Timestamp,
    /// How often that was in vain.
    pub tried: u32,
    /// Why, the last time.
    pub why: Option<String>,
}

/// How firmly a tap's programs sit on their port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapHold {
    /// By classifiers, which are quickly there and can be deleted by anybody.
    Quick,
    /// It is being fastened or moved: nothing may be done to the port until that has ended.
    Busy,
    /// As firmly as they ever will.
    Fast,
}

/// Whose a port is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortOwner {
    /// The container.
    pub container: String,
    /// The network through which the port connects it.
    pub network: String,
    /// When this was known.
    pub named_at: Timestamp,
    /// From the engine's word, or the link's coming up if that was later, to `named_at`.
    pub after: Option<Duration>,
}

/// A set and its monitor.
#[derive(Clone, Debug)]
pub struct SetSeen {
    /// Whom it serves.
    pub role: SetRole,
    /// Who runs its monitoring functions.
    pub monitor: MonitorSeen,
    /// How often its monitor was replaced.
    pub restarts: u32,
    /// Since when nobody needs it.
    pub idle_since: Option<Timestamp>,
    /// Since when no monitoring container of its own reads it.
    pub unread_since: Option<Timestamp>,
    /// The controller reads it, in place of a monitoring container that cannot be had.
    pub standin: bool,
    /// Its role is on disk: a daemon that adopts it will know whose records it holds, so ports may be moved to it.
    pub recorded: bool,
    /// Its flow table.
    pub table: FlowTable,
    /// Its tables for pairs and for histograms, in the order of [`Extensible::ALL`].
    pub extending: [Extending; 2],
    /// Some of these were extended, which its readers have not been told.
    pub to_hand_out: bool,
}

impl SetSeen {
    /// A set that has just been loaded or adopted.
    pub fn new(role: SetRole, monitor: MonitorSeen) -> Self {
        Self {
            role,
            monitor,
            restarts: 0,
            idle_since: None,
            unread_since: None,
            standin: false,
            recorded: false,
            table: FlowTable::new(0),
            extending: Default::default(),
            to_hand_out: false,
        }
    }

    /// Whether one of its tables is being exchanged or extended.
    pub fn is_changing(&self) -> bool {
        self.table.stage != Growth::None || self.extending.iter().any(|table| table.busy)
    }
}

/// One of a set's tables that grow by extents: how full it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extending {
    /// Records that it began with.
    pub first: u32,
    /// Records it has room for; 0 if that is not known.
    pub slots: u32,
    /// Records in use.
    pub used: u64,
    /// What found no record.
    pub full: u64,
    /// The same when it had got its size, or was taken over.
    pub full_before: u64,
    /// Of what found no record, what cannot be made good: packets that count in no pair, round trips.
    pub lost: u64,
    /// The same when it had got its size, or was taken over.
    pub lost_before: u64,
    /// It is being extended.
    pub busy: bool,
    /// Not before this is it extended (again).
    pub not_before: Timestamp,
    /// Why it could not be extended the last time.
    pub error: Option<String>,
    /// Of pairs: how many flows had begun without one, and had none, when those were given some for the last time; and not before then
    /// are they again, if that has not changed.
    pub mended: (u64, u64, Timestamp),
}

impl Extending {
    /// What the kernel's counters say of it now.
    pub fn look(&mut self, of: Extensible, spec: &SetSpec, counters: &SetCounters) {
        let none = counters.no_pair.saturating_add(counters.pair_full);
        match of {
            Extensible::Pairs => {
                (self.first, self.slots) = (spec.pairs, spec.pair_slots());
                (self.used, self.full, self.lost) = (counters.pairs, none, counters.pair_full);
            }
            Extensible::Histograms => {
                (self.first, self.slots) = (spec.hists, spec.hist_slots());
                (self.used, self.full, self.lost) = (counters.hists, counters.hist_full, counters.hist_full);
            }
        }
    }

    /// It has got its size: what found no record before is no reason to grow now, nor a fault.
    pub fn has_size(&mut self) {
        (self.full_before, self.lost_before) = (self.full, self.lost);
        // flows that did not find a pair in it before may now
        self.mended.2 = Timestamp::ZERO;
    }

    /// Whether it shall be twice as large: it is half full, or a good part of it is and something found no record.
    pub fn wanted(&self, of: Extensible, room: &Room, now: Timestamp) -> bool {
        let short = Extensible::is_short(self.used, self.slots)
            || (self.full > self.full_before && Extensible::is_short(2 * self.used, self.slots));
        short && self.has_more(of, room) && !self.busy && now >= self.not_before
    }

    /// Whether it may be extended once more.
    pub fn has_more(&self, of: Extensible, room: &Room) -> bool {
        let most = match of {
            Extensible::Pairs => room.max_pairs,
            Extensible::Histograms => room.max_hists,
        };
        let most = u64::from(most).min(u64::from(self.first) << Extensible::MOST);
        self.slots > 0 && u64::from(self.slots) * 2 <= most
    }

    /// Whether flows without a pair are to be given one now: it is not being extended, there is room, and it was not tried in vain a moment
    /// ago. Then it is not `again` for so long, if nothing changes.
    pub fn mends(&mut self, counters: &SetCounters, room: &Room, now: Timestamp, again: Duration) -> bool {
        let (begun, unpaired, not_before) = self.mended;
        let news = (begun, unpaired) != (counters.no_pair, counters.unpaired) || now >= not_before;
        // one that can grow is enlarged before it is fuller than half
        let grows = self.has_more(Extensible::Pairs, room) && self.error.is_none();
        let has_room =
            !Extensible::is_short(self.used, self.slots) || (!grows && self.used < u64::from(self.slots));
        let mends = counters.unpaired > 0 && news && !self.busy && has_room;
        if mends {
            self.mended = (counters.no_pair, counters.unpaired, now + again);
        }
        mends
    }
}

/// A set's flow table: how full it is, and whether it is being given another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTable {
    /// Records it has room for; 0 if that is not known.
    pub slots: u32,
    /// Records in use, as last reported.
    pub used: u64,
    /// Packets that found no record, as last reported.
    pub full: u64,
    /// The same when it had got its size, or was taken over.
    pub full_before: u64,
    /// The same when the present span of `peak` began: what overflowed long ago is no reason to grow.
    pub full_since: u64,
    /// How far its exchange has come.
    pub stage: Growth,
    /// Which programs of the set's are the newest: a port that has others is to be moved to them.
    pub programs: u32,
    /// Not before this is it exchanged (again).
    pub grow_at: Timestamp,
    /// Not before this is it cut (again).
    pub cut_at: Timestamp,
    /// How many records were in use at one time, at most.
    pub peak: Peak,
}

/// The greatest of what was seen in this span of time and in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    most: [u64; 2],
    since: Timestamp,
    /// A whole span is over.
    known: bool,
}

impl Peak {
    /// True when another span begins.
    fn see(&mut self, used: u64, span: Duration, now: Timestamp) -> bool {
        let first = self.since == Timestamp::ZERO;
        let begins = first || now - self.since >= span;
        if begins {
            (self.most, self.since, self.known) = ([used, self.most[0]], now, !first);
        } else {
            self.most[0] = self.most[0].max(used);
        }
        begins
    }

    /// None until it was looked at for a whole span.
    fn known(&self) -> Option<u64> {
        self.known.then(|| self.most[0].max(self.most[1]))
    }
}

/// How far the exchange of a flow table for one of another size has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It keeps its size.
    None,
    /// The new table is being made, or the janitor ends what it is at.
    Making,
    /// The janitor waits; the ports are moved to the new programs.
    Moving,
    /// Records are in the table before yet: they could not be moved.
    Left,
    /// The janitor moves records.
    Draining,
    /// Programs are being loaded that do not look into the table before.
    Settling,
}

impl FlowTable {
    /// One with so many records.
    pub fn new(slots: u32) -> Self {
        Self {
            slots,
            used: 0,
            full: 0,
            full_before: 0,
            full_since: 0,
            stage: Growth::None,
            programs: 0,
            grow_at: Timestamp::ZERO,
            cut_at: Timestamp::ZERO,
            peak: Peak::default(),
        }
    }

    /// What the kernel's counters say of it now, which alone decides on cutting it: a monitor may be away, or lie.
    pub fn look(&mut self, used: u64, full: u64, room: &Room, now: Timestamp) {
        (self.used, self.full) = (used, full);
        if self.peak.see(used, room.calm, now) {
            self.full_since = full;
        }
    }

    /// It has got another size: what was seen of the one before tells nothing of it.
    pub fn has_size(&mut self, slots: u32, room: &Room, now: Timestamp) {
        if slots < self.slots {
            self.not_cut_again(room, now);
        }
        (self.slots, self.peak) = (slots, Peak::default());
    }

    /// It is not cut for a while: it was, or that failed, or it was wanted larger after all.
    pub fn not_cut_again(&mut self, room: &Room, now: Timestamp) {
        self.cut_at = now + room.calm * CUT_AGAIN;
    }

    /// The size that it shall have, if that is another than it has. Records find room until seven eighths are taken. Where many
    /// come at once, nobody knows how many more there are; so the step is a large one, and room that turns out not to be needed
    /// is given back: so much is left that four fifths are taken.
    pub fn wanted(&self, room: &Room, now: Timestamp) -> Option<u32> {
        if self.stage != Growth::None || self.slots == 0 || now < self.grow_at {
            return None;
        }
        let slots = u64::from(self.slots);
        let overflowed = self.full.saturating_sub(self.full_before.max(self.full_since)) > slots / 8;
        let factor = match (self.used >= slots - slots / 8, overflowed) {
            _ if self.slots >= room.max_flows => return self.cut(room, now),
            (true, true) => 8,
            // keys that happen to collide in a table that is far from full have another chance in a larger one
            (true, false) | (false, true) => 2,
            (false, false) => return self.cut(room, now),
        };
        Some(self.slots.saturating_mul(factor).min(room.max_flows))
    }

    /// A smaller size, if for some time less than 77 % of the table were needed.
    fn cut(&self, room: &Room, now: Timestamp) -> Option<u32> {
        let most = self.peak.known().filter(|_| now >= self.cut_at)?;
        let enough = tap::table_size(most.saturating_add(most / 4)).max(room.flows);
        (u64::from(enough) * 32 <= u64::from(self.slots) * 31).then_some(enough)
    }
}

/// So many times as long as it must have been calm for a flow table to be cut, it is not cut again: it may be wanted larger meanwhile.
const CUT_AGAIN: u32 = 10;

/// How large tables may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Records to begin with, and the least that a table is cut to.
    pub flows: u32,
    /// The most that one grows to.
    pub max_flows: u32,
    /// Room that was not needed for so long is given back.
    pub calm: Duration,
    /// The most that tables for pairs are extended to.
    pub max_pairs: u32,
    /// The same of tables for histograms.
    pub max_hists: u32,
}

/// A monitoring container's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorSeen {
    /// The controller's own thread.
    Inline,
    /// None; one may be asked for from then on.
    Missing {
        /// Not before.
        retry_at: Timestamp,
    },
    /// The engine is making it.
    Starting {
        /// Since when.
        since: Timestamp,
    },
    /// It runs and has not called yet, or its connection broke.
    Started {
        /// The engine's id for it.
        id: String,
        /// Its process on the host.
        pid: Option<u32>,
        /// Since when.
        since: Timestamp,
    },
    /// It is connected.
    Connected {
        /// The engine's id for it.
        id: String,
        /// Its process on the host.
        pid: u32,
        /// When it last said anything.
        heard_at: Timestamp,
    },
}

/// What the controller is told to want.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Watch only containers labelled `conmon.enable=true`.
    pub opt_in: bool,
    /// Sets that shall wait with a started monitor.
    pub pool: usize,
    /// Whether monitoring containers can be made at all (image there, engine willing).
    pub monitors: bool,
    /// How long a monitor may be silent, or take to call.
    pub silence: Duration,
    /// How long a tenant's set outlives its last container.
    pub linger: Duration,
    /// Whether quick taps are to be fastened: the kernel can do it, and nobody forbade it.
    pub fasten: bool,
    /// How large flow tables may be.
    pub room: Room,
}

/// Everything the controller knows.
#[derive(Clone, Debug)]
pub struct World {
    /// What is wanted.
    pub wishes: Wishes,
    /// The engine answers.
    pub engine: bool,
    /// Links of our namespace by ifindex.
    pub links: BTreeMap<u32, LinkSeen>,
    /// Networks by id.
    pub networks: BTreeMap<String, NetworkSeen>,
    /// Containers by id.
    pub containers: BTreeMap<String, ContainerSeen>,
    /// Tapped ports by ifindex.
    pub taps: BTreeMap<u32, TapSeen>,
    /// Ports that are being tapped, by ifindex; none of them is among `taps`.
    pub tapping: BTreeMap<u32, Tapping>,
    /// Ports that could not be tapped, why, and when to try again.
    pub refused: BTreeMap<u32, (String, Timestamp)>,
    /// Tapped control groups, by their number as ports.
    pub groups: BTreeMap<u32, GroupSeen>,
    /// Control groups that are looked for, by container.
    pub searches: BTreeMap<String, GroupSearch>,
    /// Whose each port is.
    pub owners: BTreeMap<u32, PortOwner>,
    /// Sets by id.
    pub sets: BTreeMap<SetId, SetSeen>,
    /// Sets being loaded.
    pub loading: usize,
    /// Loading failed: when to try again.
    pub load_again_at: Timestamp,
    /// Not before this is the next port fastened.
    pub fasten_at: Timestamp,
}

impl World {
    /// An empty world.
    pub fn new(wishes: Wishes) -> Self {
        Self {
            wishes,
            engine: false,
            links: BTreeMap::new(),
            networks: BTreeMap::new(),
            containers: BTreeMap::new(),
            taps: BTreeMap::new(),
            tapping: BTreeMap::new(),
            refused: BTreeMap::new(),
            groups: BTreeMap::new(),
            searches: BTreeMap::new(),
            owners: BTreeMap::new(),
            sets: BTreeMap::new(),
            loading: 0,
            load_again_at: Timestamp::ZERO,
            fasten_at: Timestamp::ZERO,
        }
    }

    /// The bridge that a port belongs to, if it is one whose ports we watch.
    pub fn watched_bridge(&self, link: &Link) -> Option<&str> {
        let master = self.links.get(&link.master?)?;
        let name = master.link.name.as_str();
        let known = self.networks.values().any(|n| n.network.bridge.as_deref() == Some(name));
        (master.link.is_bridge() && (known || is_engine_bridge(name))).then_some(name)
    }

    /// Whether a bridge has a port that leads off this host: a tunnel (VXLAN, Geneve, GRE), a VLAN, a bond, or a wire. What is a virtual
    /// machine's or a container's is not one.
    pub fn reaches_beyond(&self, bridge: &str) -> bool {
        let is_it = |l: &&LinkSeen| l.link.is_bridge() && l.link.name == bridge;
        let Some(number) = self.links.values().find(is_it).map(|l| l.link.ifindex) else { return false };
        self.links.values().any(|l| l.link.master == Some(number) && l.link.leads_off())
    }

    /// Whether a link that was just made may become a port of a watched bridge: an engine makes such a pair under a name like this,
    /// both ends here and down, the end that stays with the greater number, and has it join its bridge some steps later. To tap
    /// it at once is to be there before it joins, whatever the engine's other containers keep the kernel busy with.
    pub fn may_become_port(&self, seen: &LinkSeen, now: Timestamp) -> bool {
        becomes_port(&seen.link) && self.is_joining(seen, now)
    }

    /// Whether a link is as new, and as idle, as one that joins a bridge in these moments, or has joined one that the engine has not
    /// told of yet.
    pub fn is_joining(&self, seen: &LinkSeen, now: Timestamp) -> bool {
        let is_young = seen.made_at.is_some_and(|made| now - made < JOINING);
        is_young && !seen.link.up
    }

    /// Whether a container shall be watched.
    pub fn wants(&self, container: &Container) -> bool {
        container.policy.enable.unwrap_or(!self.wishes.opt_in)
    }

    /// The role of the set that shall count a container's ports.
    pub fn role_for(&self, container: &Container) -> SetRole {
        if container.policy.dedicated {
            SetRole::Dedicated(container.id.clone())
        } else {
            SetRole::Tenant(container.policy.tenant.clone())
        }
    }

    /// The set with a role that ports may be counted by.
    pub fn usable_set_with(&self, role: &SetRole) -> Option<SetId> {
        self.set_with(role).filter(|id| self.sets[id].recorded)
    }

    /// The set with a role.
    pub fn set_with(&self, role: &SetRole) -> Option<SetId> {
        self.sets.iter().find(|(_, s)| s.role == *role).map(|(id, _)| *id)
    }

    /// Roles that a watched container needs, alive or about to be.
    pub fn needed_roles(&self) -> BTreeSet<SetRole> {
        let alive = |c: &&ContainerSeen| {
            c.container.state.is_alive() || c.container.state == ContainerState::Restarting
        };
        let mut roles: BTreeSet<SetRole> = self
            .containers
            .values()
            .filter(alive)
            .filter(|c| self.wants(&c.container))
            .map(|c| self.role_for(&c.container))
            .collect();
        for owner in self.owners.values() {
            if let Some(c) = self.containers.get(&owner.container).filter(|c| self.wants(&c.container)) {
                roles.insert(self.role_for(&c.container));
            }
        }
        roles
    }

    /// Whether a container runs and has an address, by what the engine was asked last.
    pub fn has_address(&self, container: &str, address: IpAddr) -> bool {
        let runs = self.containers.get(container).is_some_and(|c| c.container.state.is_alive());
        let mut endpoints = self.networks.values().flat_map(|n| &n.endpoints);
        runs && endpoints.any(|e| e.container_id == container && e.addresses.contains(&address))
    }

    /// The endpoint behind a port: the one on the port's bridge with the far end's Ethernet address, else with one of its
    /// addresses. With the network's id. Of a network that was asked before the port joined the bridge nothing is believed: who
    /// had the port's address then is another.
    pub fn endpoint_of(&self, seen: &LinkSeen) -> Option<(&str, &NetworkEndpoint)> {
        let bridge = self.watched_bridge(&seen.link)?;
        let peer = seen.peer.as_ref()?;
        let here = || {
            self.networks
                .iter()
                .filter(|(_, n)| n.network.bridge.as_deref() == Some(bridge))
                .filter(|(_, n)| seen.joined_at.is_none_or(|joined| n.as_of >= joined))
                .flat_map(|(id, n)| n.endpoints.iter().map(move |e| (id.as_str(), e)))
        };
        here()
            .find(|(_, e)| e.mac.is_some() && e.mac == peer.mac)
            .or_else(|| here().find(|(_, e)| e.addresses.iter().any(|a| peer.addresses.contains(a))))
    }
}

/// A link that has not joined a bridge for this long after it was made is not about to.
const JOINING: Duration = Duration::from_secs(2);

/// Whether a link, if it was made just now, looks like the end of a pair that an engine is going to join to a bridge.
pub fn becomes_port(link: &Link) -> bool {
    let stays = link.link_netnsid.is_none() && link.peer_ifindex.is_some_and(|peer| peer < link.ifindex);
    link.is_veth() && stays && link.master.is_none() && !link.up && is_engine_port(&link.name)
}

/// Names that Docker gives to both ends of a pair: `veth` and seven hexadecimal digits.
fn is_engine_port(name: &str) -> bool {
    name.strip_prefix("veth").is_some_and(|n| n.len() == 7 && n.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Bridges that engines name. Docker: `docker0`, `br-` and the first twelve digits of the network's id. Podman: `podman`
/// and a number, with CNI `cni-podman` and a number. They are watched even before the engine tells of the network.
pub fn is_engine_bridge(name: &str) -> bool {
    let counted = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    name == "docker0"
        || counted("podman")
        || counted("cni-podman")
        || name
            .strip_prefix("br-")
            .is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::Link;

    /// A world of which only links are known: number, name, kind, master.
    fn linked(links: &[(u32, &str, Option<&str>, Option<u32>)]) -> World {
        let mut world = World::new(Wishes {
            opt_in: false,
            pool: 0,
            monitors: false,
            silence: Duration::ZERO,
            linger: Duration::ZERO,
            fasten: false,
            room: Room::default(),
        });
        for (ifindex, name, kind, master) in links {
            let link = Link {
                ifindex: *ifindex,
                name: (*name).to_owned(),
                master: *master,
                link_netnsid: None,
                peer_ifindex: None,
                up: true,
                kind: kind.map(str::to_owned),
                mac: None,
                mtu: 1500,
            };
            let seen = LinkSeen {
                link,
                made_at: None,
                joined_at: None,
                up_at: None,
                peer: None,
                look_at: Timestamp::ZERO,
                looked: 0,
                asking: false,
            };
            world.links.insert(*ifindex, seen);
        }
        world
    }

    #[test]
    fn a_bridge_reaches_beyond_by_what_leads_off() {
        let bridge = (2, "br0", Some("bridge"), None);
        let reaches = |port| linked(&[bridge, (3, "br1", Some("bridge"), None), port]).reaches_beyond("br0");
        assert!(reaches((9, "vx0", Some("vxlan"), Some(2))));
        assert!(reaches((9, "eth0", None, Some(2))), "a wire");
        assert!(!reaches((9, "eth0", None, None)), "a wire that is no port");
        assert!(!reaches((9, "vx0", Some("vxlan"), Some(3))), "another bridge's");
        assert!(!reaches((9, "veth0", Some("veth"), Some(2))), "a container's");
        assert!(!reaches((9, "tap0", Some("tun"), Some(2))), "a virtual machine's");
        assert!(!linked(&[]).reaches_beyond("br0"), "no such bridge");
    }

    #[test]
    fn bridges_of_engines_are_known_by_their_names() {
        for name in ["docker0", "br-8e5bc990c0a8", "podman0", "podman12", "cni-podman0"] {
            assert!(is_engine_bridge(name), "{name}");
        }
        for name in
            ["", "docker1", "br-lan", "br-8e5bc990c0a", "podman", "podmanx", "cni-podman", "cni0", "virbr0"]
        {
            assert!(!is_engine_bridge(name), "{name}");
        }
    }
}
