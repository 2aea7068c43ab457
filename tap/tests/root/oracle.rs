//! What the tap must find, written anew from its metric definitions on top of `ippm`'s parser: a slow, plain model without
//! slots, atomics or verifier. Fed the same packets, it and the programs must agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ippm::flow::{Both, Counters, Direction, FlowKey, Leg, PortClass, Role, Service};
use ippm::measurement::PairKey;
use ippm::packet::{Class, Echo, Ip, Parsed, Tcp, parse_captured, tcp_flag};

/// One round-trip delay that the model takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Singleton {
    pub key: FlowKey,
    pub leg: Leg,
    pub ack: u32,
    /// The sequence number that the probe ended at; `ack` is that or beyond.
    pub end: u32,
    /// When the acknowledgement passed.
    pub time_ns: u64,
    /// Since the probe passed.
    pub rtt_ns: u64,
}

/// All that one flow must show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowTruth {
    pub role: Role,
    pub guessed: bool,
    pub bytes: [u64; 2],
    pub packets: [u64; 2],
    pub segments: [u64; 2],
    pub tcp_flags: [u8; 2],
    pub retransmitted: [u64; 2],
    pub reordered: u64,
}

impl FlowTruth {
    fn new((role, guessed): (Role, bool)) -> Self {
        Self {
            role,
            guessed,
            bytes: [0; 2],
            packets: [0; 2],
            segments: [0; 2],
            tcp_flags: [0; 2],
            retransmitted: [0; 2],
            reordered: 0,
        }
    }

    /// What was measured, in the same form.
    pub fn of(m: &ippm::measurement::FlowMeasurement) -> Self {
        let of = |f: fn(&Counters) -> u64| [f(&m.counters.tx), f(&m.counters.rx)];
        Self {
            role: m.role,
            guessed: m.guessed,
            bytes: of(|c| c.bytes),
            packets: of(|c| c.packets),
            segments: of(|c| c.segments),
            tcp_flags: [m.tcp_flags.tx, m.tcp_flags.rx],
            retransmitted: [m.retransmitted.tx, m.retransmitted.rx],
            reordered: m.reordered,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Way {
    /// One beyond the highest sequence number seen.
    right: Option<u32>,
    /// Initial sequence number, when the SYN without ACK came this way.
    isn: Option<u32>,
    probe: Option<Probe>,
    /// Where the segments end that could be a probe by now, and whether it is a handshake's.
    candidates: Vec<(u32, bool)>,
}

#[derive(Clone, Debug)]
struct Probe {
    sent_ns: u64,
    end: u32,
    handshake: bool,
}

#[derive(Clone, Debug, Default)]
struct Conversation {
    ways: [Way; 2],
    /// Identification and time stamp of the newest segment to the container.
    newest: Option<(u16, u32)>,
}

/// Of sequence numbers.
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The model of one set.
#[derive(Default)]
pub struct Oracle {
    live: HashMap<FlowKey, (FlowTruth, Conversation)>,
    ended: Vec<(FlowKey, FlowTruth)>,
    pub singletons: Vec<Singleton>,
    /// What could be taken, whichever segments are chosen to be probes.
    pub eligible: Vec<(FlowKey, Leg, u32)>,
    pub cancelled: u64,
    pub classes: BTreeMap<(Direction, PortClass), Counters>,
}

impl Oracle {
    /// One packet at the hook: what is known of its octets, its length, its wire segments.
    pub fn packet(
        &mut self,
        direction: Direction,
        captured: &[u8],
        length: usize,
        segments: u32,
        ifindex: u32,
        time_ns: u64,
    ) {
        let Parsed { vlan, class } = parse_captured(captured, length);
        let count = Counters { bytes: length as u64, packets: 1, segments: u64::from(segments.max(1)) };
        let class = match class {
            Class::Ip(ip) => {
                return self.ip(direction, &ip, ip.flow_key(direction, vlan, ifindex), count, time_ns);
            }
            Class::Arp => PortClass::Arp,
            Class::Other => PortClass::Other,
            Class::Malformed => PortClass::Malformed,
            Class::Nd => PortClass::Nd,
        };
        *self.classes.entry((direction, class)).or_default() += count;
    }

    fn ip(&mut self, direction: Direction, ip: &Ip, key: FlowKey, count: Counters, now: u64) {
        let d = usize::from(direction.number());
        if let Some(tcp) = &ip.tcp
            && self.live.get(&key).is_some_and(|(_, c)| is_another(&c.ways[d], tcp))
            && let Some((truth, _)) = self.live.remove(&key)
        {
            self.ended.push((key, truth));
        }
        let (truth, conversation) = self
            .live
            .entry(key)
            .or_insert_with(|| (FlowTruth::new(role_of(ip, &key, direction)), Conversation::default()));
        truth.bytes[d] += count.bytes;
        truth.packets[d] += count.packets;
        truth.segments[d] += count.segments;
        let Some(tcp) = &ip.tcp else { return };
        truth.tcp_flags[d] |= tcp.flags;
        if tcp.flags & tcp_flag::RST != 0 {
            return;
        }

        // the acknowledgement of the other way's probe
        if tcp.flags & tcp_flag::ACK != 0 {
            let other = &mut conversation.ways[1 - d];
            let leg = |handshake| match (direction, handshake) {
                (Direction::Rx, false) => Leg::Away,
                (Direction::Tx, false) => Leg::Near,
                (Direction::Rx, true) => Leg::AwayHandshake,
                (Direction::Tx, true) => Leg::NearHandshake,
            };
            if other.right.is_some_and(|right| !before(right, tcp.ack)) {
                let ended = other.candidates.extract_if(.., |(end, _)| !before(tcp.ack, *end));
                let legs: BTreeSet<_> = ended.map(|(_, handshake)| leg(handshake)).collect();
                self.eligible.extend(legs.into_iter().map(|leg| (key, leg, tcp.ack)));
            }
            if let (Some(probe), Some(right)) = (&other.probe, other.right)
                && !before(tcp.ack, probe.end)
                && !before(right, tcp.ack)
            {
                let leg = leg(probe.handshake);
                let rtt_ns = now.saturating_sub(probe.sent_ns);
                self.singletons.push(Singleton {
                    key,
                    leg,
                    ack: tcp.ack,
                    end: probe.end,
                    time_ns: now,
                    rtt_ns,
                });
                other.probe = None;
            }
        }

        let has = |flag: u8| u32::from(tcp.flags & flag != 0);
        let length = tcp.payload.wrapping_add(has(tcp_flag::SYN)).wrapping_add(has(tcp_flag::FIN));
        if length == 0 {
            return;
        }
        let end = tcp.seq.wrapping_add(length);
        let [tx, rx] = &mut conversation.ways;
        let (way, other) = if d == 0 { (tx, rx) } else { (rx, tx) };
        let stamp = tcp.timestamps.filter(|_| tcp.timestamps_first).map_or(0, |t| t.value);
        let known = conversation.newest;
        match way.right {
            Some(right) if before(tcp.seq, right) => {
                // sent before what came already: late, or again
                let late =
                    direction == Direction::Rx && known.is_some_and(|k| is_older((ip.ip_id, stamp), k));
                if late {
                    truth.reordered += count.segments;
                } else {
                    truth.retransmitted[d] += count.segments;
                }
                way.candidates.clear();
                if way.probe.take().is_some() {
                    self.cancelled += 1;
                }
                if before(right, end) {
                    way.right = Some(end);
                }
                if !late && direction == Direction::Rx {
                    conversation.newest = Some((ip.ip_id, stamp));
                }
            }
            _ => {
                way.right = Some(end);
                let syn = tcp.flags & tcp_flag::SYN != 0;
                if syn && tcp.flags & tcp_flag::ACK == 0 {
                    // the record has room for one: in a simultaneous open it is the later one's
                    (way.isn, other.isn) = (Some(tcp.seq), None);
                }
                if direction == Direction::Rx {
                    conversation.newest = Some((ip.ip_id, stamp));
                }
                let end = if syn { tcp.seq.wrapping_add(1) } else { end };
                way.candidates.push((end, syn));
                if way.probe.is_none() {
                    way.probe = Some(Probe { sent_ns: now, end, handshake: syn });
                }
            }
        }
    }

    /// Every flow, ended ones too, by key; each key's list sorted.
    pub fn flows(&self) -> BTreeMap<FlowKey, Vec<FlowTruth>> {
        let mut all: BTreeMap<FlowKey, Vec<FlowTruth>> = BTreeMap::new();
        let live = self.live.iter().map(|(k, (t, _))| (k, t));
        for (key, truth) in live.chain(self.ended.iter().map(|(k, t)| (k, t))) {
            all.entry(*key).or_default().push(truth.clone());
        }
        all.values_mut().for_each(|list| list.sort());
        all
    }

    /// Sums by pair: counters and flows begun.
    pub fn pairs(&self) -> BTreeMap<PairKey, (Both<Counters>, u64)> {
        let mut all: BTreeMap<PairKey, (Both<Counters>, u64)> = BTreeMap::new();
        for (key, flows) in self.flows() {
            for f in flows {
                let (sums, begun) = all.entry(pair_of(&key, f.role)).or_default();
                let of =
                    |d: usize| Counters { bytes: f.bytes[d], packets: f.packets[d], segments: f.segments[d] };
                *sums += Both::new(of(0), of(1));
                *begun += 1;
            }
        }
        all
    }

    /// Everything counted, both ways.
    pub fn totals(&self) -> Both<Counters> {
        let mut all: Both<Counters> =
            self.pairs().values().map(|(c, _)| *c).fold(Both::default(), |a, b| a + b);
        for ((direction, _), count) in &self.classes {
            all[*direction] += *count;
        }
        all
    }
}

/// A SYN that cannot be of the conversation followed so far.
fn is_another(way: &Way, tcp: &Tcp) -> bool {
    let Some(right) = way.right else { return false };
    if tcp.flags & (tcp_flag::SYN | tcp_flag::ACK) != tcp_flag::SYN {
        return false;
    }
    match way.isn {
        Some(isn) => isn != tcp.seq,
        None => tcp.seq.wrapping_add(1) != right,
    }
}

/// Whether a segment left its sender before another: the time stamps say it where both have one and they differ, else
/// the IPv4 identifications do.
fn is_older((id, stamp): (u16, u32), (other_id, other_stamp): (u16, u32)) -> bool {
    if stamp != 0 && other_stamp != 0 && stamp != other_stamp {
        return before(stamp, other_stamp);
    }
    id != 0 && other_id != 0 && (id.wrapping_sub(other_id) as i16) < 0
}

fn role_of(ip: &Ip, key: &FlowKey, direction: Direction) -> (Role, bool) {
    let (sender, receiver) = match direction {
        Direction::Tx => (Role::LocalOpened, Role::RemoteOpened),
        Direction::Rx => (Role::RemoteOpened, Role::LocalOpened),
    };
    if let Some(tcp) = &ip.tcp
        && tcp.flags & tcp_flag::SYN != 0
    {
        return (if tcp.flags & tcp_flag::ACK == 0 { sender } else { receiver }, false);
    }
    match ip.echo {
        Some(Echo::Request) => return (sender, false),
        Some(Echo::Reply) => return (receiver, false),
        None => {}
    }
    let (local, remote) = (key.local_port, key.remote_port);
    let by_port = if local < remote { Role::RemoteOpened } else { Role::LocalOpened };
    let one_well_known = (local < 1024) != (remote < 1024);
    match &ip.tcp {
        Some(_) if local != remote => (by_port, true),
        Some(_) => (sender, true),
        None if one_well_known => (by_port, by_port != sender),
        None => (sender, false),
    }
}

fn pair_of(key: &FlowKey, role: Role) -> PairKey {
    let opened = if role == Role::LocalOpened { key.remote_port } else { key.local_port };
    let dns = opened == 53 && matches!(key.proto, 6 | 17);
    PairKey {
        ifindex: key.ifindex,
        local: key.local,
        remote: key.remote,
        proto: key.proto,
        role,
        service: if dns { Service::Dns } else { Service::None },
    }
}
