//! The ledger: what the maps hold for each port, held against what the port's interface counted meanwhile.
//!
//! Both sides are read anew for each question: the interfaces before and after the maps, and the maps without knowledge
//! of earlier readings, so that a fault in what monitors remember shows up here, too. What the kernel
//! gave up already (ended pairs) is in the store, which is held still meanwhile. Packets count; octets are shown.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use conmon::api::{ApiError, Count, Ledger, LedgerAnswer, PortLedger};
use ippm::flow::{Both, Counters, Direction, PortClass};
use tap::Census;

use crate::clock::Wall;
use crate::mc::controller::chain;
use crate::mc::shared::{PortInfo, Shared};
use crate::mc::world::SetId;
use crate::scope::Scope;
use crate::switch::{LinkQuery, LinkStats};

/// A packet between its interface's counter and the tap (or the other way round) is in neither or in both for some
/// microseconds: what does not add up is read again after these pauses before it is called a fault.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(20)];

/// While a flow table grows its records are on their way to the larger one for some tenths of a second, and cannot be read as a whole.
const MOVING: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(500),
];

/// The ledger, and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Reckoning {
    /// What the API answers.
    pub answer: LedgerAnswer,
    /// Ports whose counts are not what their interfaces counted, each with how far off it is.
    pub off: Vec<String>,
    /// Ports with nothing to compare with: their taps' beginnings are not known.
    pub without_baseline: Vec<String>,
}

/// Everything counted at one port, by where it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    flow: Both<Counters>,
    pair: Both<Counters>,
    classes: Both<[Counters; PortClass::ALL.len()]>,
}

impl Counted {
    fn direction(&self, d: Direction) -> Counters {
        self.flow[d] + self.pair[d] + self.classes[d].iter().copied().sum()
    }

    fn both_ways(sums: Both<Counters>) -> u64 {
        sums.tx.packets + sums.rx.packets
    }

    fn class(&self, class: PortClass) -> u64 {
        let at = usize::from(class.number());
        self.classes.tx[at].packets + self.classes.rx[at].packets
    }
}

/// What all maps hold, and packets that found no port record.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    ports: HashMap<u32, Counted>,
    no_port: Both<u64>,
}

impl Tables {
    /// Adds what one set holds.
    pub fn add_census(&mut self, census: &Census) {
        for (ifindex, counted) in &census.ports {
            let port = self.ports.entry(*ifindex).or_default();
            port.flow += counted.flows;
            port.pair += counted.pairs;
            for d in Direction::ALL {
                for (into, from) in port.classes[*d].iter_mut().zip(counted.classes[*d]) {
                    *into += from;
                }
            }
        }
        self.no_port.tx += census.set.no_port.tx.packets;
        self.no_port.rx += census.set.no_port.rx.packets;
    }

    /// Adds ended pairs, which the kernel has no more.
    pub fn add_settled(&mut self, settled: &HashMap<u32, Both<Counters>>) {
        for (ifindex, counters) in settled {
            self.ports.entry(*ifindex).or_default().pair += *counters;
        }
    }
}

/// Reads all sets, and what the store has of pairs that left them. Where a set's records are being moved all the time: which.
fn read_tables(shared: &Shared) -> Result<Result<Tables, SetId>, ApiError> {
    let sets = shared.sets();
    // a pair leaves the kernel and enters the store under this lock
    let store = shared.store();
    let mut tables = Tables::default();
    for (id, set) in &sets {
        let census = set.census().map_err(|e| {
            ApiError::internal(format!("the tables of set {id} cannot be read: {}", chain(&e)))
        })?;
        match census {
            Some(census) => tables.add_census(&census),
            None => return Ok(Err(*id)),
        }
    }
    tables.add_settled(&store.settled());
    Ok(Ok(tables))
}

/// An interface's counters before and after the maps were read.
type Seen = HashMap<u32, (LinkStats, LinkStats)>;

fn read_links(query: &mut LinkQuery, ports: &[PortInfo]) -> Result<HashMap<u32, LinkStats>, ApiError> {
    let mut all = HashMap::with_capacity(ports.len());
    for port in ports.iter().filter(|port| !tap::is_group(port.ifindex)) {
        let stats = query.link_stats(port.ifindex).map_err(|e| {
            ApiError::unavailable(format!("the counters of {} cannot be read: {e}", port.interface))
        })?;
        if let Some(stats) = stats {
            all.insert(port.ifindex, stats);
        }
    }
    Ok(all)
}

/// Reads everything and compares, of the ports that the asker may see. What is off is read again before it is told.
pub fn reckon(shared: &Shared, query: &mut LinkQuery, scope: &Scope) -> Result<Reckoning, ApiError> {
    let (mut pauses, mut moving) = (PAUSES.iter(), MOVING.iter());
    loop {
        let published = shared.published();
        let seen = |port: &&PortInfo| scope.admits(port.tenant.as_deref());
        let ports: Vec<PortInfo> = published.ports.iter().filter(seen).cloned().collect();
        let before = read_links(query, &ports)?;
        let tables = match read_tables(shared)? {
            Ok(tables) => tables,
            Err(set) => {
                let Some(pause) = moving.next() else {
                    let what = format!("records of set {set} are being moved all the time");
                    return Err(ApiError::unavailable(what).with_remedy("ask again in a moment"));
                };
                std::thread::sleep(*pause);
                continue;
            }
        };
        let after = read_links(query, &ports)?;
        // a port that went meanwhile has nothing to be compared with
        let seen: Seen = before.into_iter().filter_map(|(i, b)| Some((i, (b, *after.get(&i)?)))).collect();
        let reckoning = compare(&ports, &tables, &seen);
        if reckoning.answer.ledger.balanced {
            return Ok(reckoning);
        }
        match pauses.next() {
            Some(pause) => std::thread::sleep(*pause),
            None => return Ok(reckoning),
        }
    }
}

/// What an interface may have counted between the tap's beginning and the reading of the maps, in packets.
fn bounds(port: &PortInfo, (before, after): (LinkStats, LinkStats)) -> Option<Both<(u64, u64)>> {
    let (first, last) = port.baseline?;
    let span = |before: u64, after: u64, first: u64, last: u64| {
        // Traffic while the tap was put on: what was under way then passed one of the two in time and the other not.
        // That is no more than came in as much time again, and one packet on each CPU.
        let slack = match last.saturating_sub(first) {
            0 => 0,
            during => during + cpus(),
        };
        (before.saturating_sub(last).saturating_sub(slack), after.saturating_sub(first).saturating_add(slack))
    };
    let tx = span(before.rx_packets, after.rx_packets, first.rx_packets, last.rx_packets);
    let rx = span(before.tx_packets, after.tx_packets, first.tx_packets, last.tx_packets);
    // what the port's far end refused had passed the tap
    let dropped = after.tx_dropped.saturating_sub(first.tx_dropped);
    Some(Both::new(tx, (rx.0, rx.1.saturating_add(dropped))))
}

fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

/// The two sides of the ledger.
pub fn compare(ports: &[PortInfo], tables: &Tables, seen: &Seen) -> Reckoning {
    let mut ledger = Ledger { balanced: true, ..Ledger::default() };
    let mut rows = Vec::new();
    let mut missing: Both<Vec<(usize, u64)>> = Both::default();
    let (mut off, mut without_baseline) = (Vec::new(), Vec::new());
    let mut lost = BTreeMap::new();
    for port in ports {
        // a control group has no interface that counts beside us
        let is_group = tap::is_group(port.ifindex);
        let stats = seen.get(&port.ifindex);
        if stats.is_none() && !is_group {
            continue;
        }
        let counted = tables.ports.get(&port.ifindex).copied().unwrap_or_default();
        let bounds = stats.and_then(|stats| bounds(port, *stats));
        if bounds.is_none() && !is_group {
            without_baseline.push(port.interface.clone());
        }
        let observed = |d: Direction| {
            let packets = counted.direction(d).packets;
            // the interface's counter was read a moment before and a moment after; in between it was any of these
            bounds.map_or(packets, |b| packets.clamp(b[d].0, b[d].1.max(b[d].0)))
        };
        for d in Direction::ALL {
            let (ours, theirs) = (counted.direction(*d).packets, observed(*d));
            ledger.observed += theirs;
            let way = match d {
                Direction::Tx => "from",
                Direction::Rx => "to",
            };
            if ours > theirs {
                ledger.balanced = false;
                off.push(format!(
                    "{}: {} packets too many {way} the container",
                    port.interface,
                    ours - theirs
                ));
            } else if theirs > ours {
                missing[*d].push((rows.len(), theirs - ours));
            }
        }
        ledger.selected += Counted::both_ways(counted.flow) + Counted::both_ways(counted.pair);
        for class in [PortClass::Arp, PortClass::Nd, PortClass::Other] {
            ledger.not_selected += counted.class(class);
        }
        for class in [PortClass::Overflow, PortClass::Malformed] {
            *lost.entry(class.to_string()).or_insert(0) += counted.class(class);
        }
        rows.push(row(
            port,
            &counted,
            bounds.is_some().then(|| Both::new(observed(Direction::Tx), observed(Direction::Rx))),
        ));
    }
    // packets without a port record bear no port: they make up for what ports miss, as far as they go
    let mut explained = 0;
    for d in Direction::ALL {
        let total: u64 = missing[*d].iter().map(|(_, n)| n).sum();
        if total <= tables.no_port[*d] {
            explained += total;
            continue;
        }
        ledger.balanced = false;
        let way = if *d == Direction::Tx { "from" } else { "to" };
        off.extend(
            missing[*d].iter().map(|(at, n)| {
                format!("{}: {n} packets {way} the container are missing", rows[*at].interface)
            }),
        );
    }
    lost.insert("no_port".to_owned(), explained);
    lost.retain(|_, packets| *packets > 0);
    ledger.lost = lost;
    let generated_at = Wall::now().utc(crate::clock::monotonic());
    Reckoning { answer: LedgerAnswer { generated_at, ledger, ports: rows }, off, without_baseline }
}

fn row(port: &PortInfo, counted: &Counted, interface: Option<Both<u64>>) -> PortLedger {
    let count = |c: Counters| Count { bytes: c.bytes, packets: c.packets, segments: c.segments };
    let mut by_class = BTreeMap::from([
        ("flow".to_owned(), Counted::both_ways(counted.flow)),
        ("pair".to_owned(), Counted::both_ways(counted.pair)),
    ]);
    by_class.extend(PortClass::ALL.iter().map(|class| (class.to_string(), counted.class(*class))));
    PortLedger {
        interface: port.interface.clone(),
        container: port.container.as_ref().map(|(_, name)| name.clone()),
        tenant: port.tenant.clone(),
        sent: count(counted.direction(Direction::Tx)),
        received: count(counted.direction(Direction::Rx)),
        packets_by_class: by_class,
        interface_sent_packets: interface.map(|i| i.tx),
        interface_received_packets: interface.map(|i| i.rx),
    }
}

#[cfg(test)]
mod tests;
