//! One pass over a capture: flows, pairs, round trips, and what is kept for a comparison.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;

use ippm::follow::question::{Questions, dns};
use ippm::follow::spin::SpinFollower;
use ippm::follow::table::{BiKey, FlowTable, Limits};
use ippm::follow::tcp::{Method, Place, TcpFollower};
use ippm::oneway::Listening;
use ippm::packet::{Class, Echo, Ip, parse_captured, proto};

use super::answer::{DISORDER_NS, Ledger};
use super::collect::Collector;
use super::event::{Event, EventKind};
use super::pair::{PairState, sender_opened};
use crate::capture::{Link, Packet, to_ethernet};

/// Flows that are followed at one time; the one that was quiet longest ends for a new one.
const MAX_FLOWS: usize = 1 << 18;
/// Quiet flows end after this, nanoseconds.
const IDLE_NS: u64 = 300_000_000_000;
/// Pairs that are told apart. Packets of further ones are counted as overflow.
const MAX_PAIRS: usize = 1 << 16;

/// Ports at which questions and answers are DNS.
const DNS: u16 = 53;

/// A flow that is followed.
struct Flow {
    pair: u32,
    src_first: bool,
    record: u32,
    tcp: TcpFollower,
    /// FIN by direction, or RST.
    closed: [bool; 2],
    questions: Option<Box<Questions>>,
    spin: Option<Box<Spin>>,
}

#[derive(Default)]
struct Spin {
    follower: SpinFollower,
    trips: Vec<u64>,
    dropped: bool,
}

/// Round trips of a spin bit that are held back until the bit is known not to be random.
const HELD_TRIPS: usize = 16;
/// No pair: there was no room for it.
const NO_PAIR: u32 = u32::MAX;

/// Counts one capture.
pub(super) struct Meter {
    flows: FlowTable<Flow>,
    index: HashMap<(IpAddr, IpAddr), u32>,
    pub pairs: Vec<PairState>,
    pub ledger: Ledger,
    pub packets: u64,
    pub bytes: u64,
    first_ns: u64,
    last_ns: u64,
    /// Packets that stand more than [`DISORDER_NS`] behind later ones, and how much at most.
    pub disordered: u64,
    pub disorder_ns: u64,
    /// The first link layer that nothing could be made of.
    pub unknown_link: Option<Link>,
    pub collector: Option<Collector>,
    scratch: Vec<u8>,
}

impl Meter {
    /// Keeps records for a comparison if it is given a collector.
    pub fn new(collector: Option<Collector>) -> Self {
        let limits = Limits { flows: MAX_FLOWS, idle_ns: IDLE_NS };
        Self {
            // A capture's author cannot know where its flows meet.
            flows: FlowTable::new(limits, RandomState::new().build_hasher().finish()),
            index: HashMap::new(),
            pairs: Vec::new(),
            ledger: Ledger::default(),
            packets: 0,
            bytes: 0,
            first_ns: u64::MAX,
            last_ns: 0,
            disordered: 0,
            disorder_ns: 0,
            unknown_link: None,
            collector,
            scratch: Vec::new(),
        }
    }

    /// When it listened.
    pub fn listening(&self) -> Option<Listening> {
        (self.first_ns <= self.last_ns)
            .then_some(Listening { first_ns: self.first_ns, last_ns: self.last_ns })
    }

    /// Flows that ended for want of a place.
    pub fn evicted(&self) -> u64 {
        self.flows.evicted()
    }

    /// Takes a packet.
    pub fn packet(&mut self, packet: &Packet<'_>, tell: &mut impl FnMut(&Event)) {
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(packet.length as u64);
        let Some(ns) = packet.ns else {
            self.ledger.untimed += 1;
            return;
        };
        self.first_ns = self.first_ns.min(ns);
        self.last_ns = self.last_ns.max(ns);
        let behind = self.last_ns - ns;
        if behind > DISORDER_NS {
            self.disordered += 1;
            self.disorder_ns = self.disorder_ns.max(behind);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        match to_ethernet(packet.link, packet.captured, packet.length, &mut scratch) {
            None => {
                self.ledger.unknown_link += 1;
                self.unknown_link.get_or_insert(packet.link);
            }
            Some((frame, length)) => self.frame(frame, length, packet.length, ns, tell),
        }
        self.scratch = scratch;
    }

    fn frame(&mut self, frame: &[u8], length: usize, counted: usize, ns: u64, tell: &mut impl FnMut(&Event)) {
        let parsed = parse_captured(frame, length);
        match &parsed.class {
            Class::Ip(ip) => {
                let in_pair = self.ip(ip, parsed.vlan, frame, counted, ns, tell);
                *(if in_pair { &mut self.ledger.pairs } else { &mut self.ledger.overflow }) += 1;
            }
            Class::Arp => self.ledger.arp += 1,
            Class::Other => self.ledger.other += 1,
            Class::Malformed => self.ledger.malformed += 1,
            Class::Nd => self.ledger.nd += 1,
        }
    }

    fn ip(
        &mut self,
        ip: &Ip,
        vlan: u16,
        frame: &[u8],
        counted: usize,
        ns: u64,
        tell: &mut impl FnMut(&Event),
    ) -> bool {
        let ends = ((ip.source, ip.source_port), (ip.destination, ip.destination_port));
        let (key, straight) = BiKey::of(ends.0, ends.1, ip.proto, vlan);
        let mut fresh = false;
        let begin = || {
            fresh = true;
            Flow::new()
        };
        // How a flow ended is of no use here: what it told is in its pair.
        let flow = self.flows.packet(key, ns, begin, &mut |_| {});
        let forward = straight == flow.src_first;
        let reused = !fresh && ip.tcp.as_ref().is_some_and(|tcp| flow.tcp.is_reuse(forward, tcp));
        if fresh || reused {
            *flow = Flow::new();
            let (sender, guessed) = sender_opened(ip);
            flow.src_first = straight == sender;
            let pair = if sender { (ip.source, ip.destination) } else { (ip.destination, ip.source) };
            flow.pair = match self.index.get(&pair) {
                Some(at) => *at,
                None if self.pairs.len() < MAX_PAIRS => {
                    self.pairs.push(PairState::new(pair.0, pair.1, ns));
                    let at = (self.pairs.len() - 1) as u32;
                    self.index.insert(pair, at);
                    at
                }
                None => NO_PAIR,
            };
            if let Some(pair) = self.pairs.get_mut(flow.pair as usize) {
                pair.flow(ip.proto, guessed);
                if let Some(collector) = &mut self.collector {
                    let ends = if straight { [ends.0, ends.1] } else { [ends.1, ends.0] };
                    flow.record = collector.flow(key, ends, flow.pair, flow.src_first);
                }
            }
        }
        let Some(pair) = self.pairs.get_mut(flow.pair as usize) else { return false };
        let forward = straight == flow.src_first;
        pair.count(forward, counted, ns);
        let payload = ip.payload.map_or(&[][..], |payload| payload.of(frame));
        if let Some(collector) = &mut self.collector {
            collector.packet(flow.record, straight, ip, payload, ns);
        }
        let mut tell = |kind| {
            tell(&Event { ns, proto: ip.proto, source: ends.0, destination: ends.1, kind });
        };
        match ip.proto {
            proto::TCP => {
                if let Some(tcp) = &ip.tcp {
                    let told = flow.tcp.segment(forward, tcp, ip.ip_id, true, ns);
                    pair.told(forward, &told);
                    if let Some(trip) = told.round_trip {
                        let (took_ns, handshake) = (trip.ns, trip.method == Method::Handshake);
                        tell(EventKind::Acknowledged { ack: tcp.ack, took_ns, handshake });
                    }
                    match told.place {
                        Place::Retransmitted => tell(EventKind::Retransmitted { seq: tcp.seq }),
                        Place::Reordered => tell(EventKind::Reordered { seq: tcp.seq }),
                        Place::New | Place::Nothing => {}
                    }
                    flow.closed[usize::from(!forward)] |= tcp.flags & ippm::packet::tcp_flag::FIN != 0;
                    if tcp.flags & ippm::packet::tcp_flag::RST != 0 {
                        flow.closed = [true; 2];
                    }
                }
            }
            proto::UDP if !ip.later_fragment => flow.datagram(ip, forward, payload, pair, ns, &mut tell),
            proto::ICMP | proto::ICMPV6 => flow.echo(ip, frame, pair, ns, &mut tell),
            _ => {}
        }
        true
    }

    /// The capture is at its end: flows that were not closed are active still.
    pub fn finish(&mut self) {
        let pairs = &mut self.pairs;
        self.flows.finish(&mut |ended| {
            if let Some(pair) = pairs.get_mut(ended.value.pair as usize) {
                pair.active += u64::from(ended.value.closed != [true; 2]);
                let held = ended.value.spin.filter(|spin| !spin.dropped);
                held.iter().flat_map(|spin| &spin.trips).for_each(|took| pair.spin.record(*took));
            }
        });
    }
}

impl Flow {
    fn new() -> Self {
        Self {
            pair: NO_PAIR,
            src_first: false,
            record: u32::MAX,
            tcp: TcpFollower::default(),
            closed: [false; 2],
            questions: None,
            spin: None,
        }
    }

    fn datagram(
        &mut self,
        ip: &Ip,
        forward: bool,
        payload: &[u8],
        pair: &mut PairState,
        ns: u64,
        tell: &mut impl FnMut(EventKind),
    ) {
        if ip.source_port == DNS || ip.destination_port == DNS {
            let Some((number, answer)) = dns(payload) else { return };
            let questions = self.questions.get_or_insert_default();
            if !answer {
                questions.ask(number, ns);
            } else if let Some(took) = questions.answer(number, ns) {
                pair.dns.record(took);
                tell(EventKind::Answered { took_ns: took });
            }
            return;
        }
        // A flow without a long header among its first packets is not followed further.
        let long = payload.first().is_some_and(|first| first & 0xc0 == 0xc0);
        if self.spin.is_none() && !long {
            return;
        }
        let spin = self.spin.get_or_insert_default();
        if spin.dropped {
            return;
        }
        if let Some(took) = spin.follower.datagram(forward, payload, ns) {
            spin.trips.push(took);
        }
        if spin.follower.looks_random() {
            (spin.dropped, spin.trips) = (true, Vec::new());
        } else if spin.trips.len() >= HELD_TRIPS {
            spin.trips.drain(..).for_each(|took| pair.spin.record(took));
        }
    }

    fn echo(
        &mut self,
        ip: &Ip,
        frame: &[u8],
        pair: &mut PairState,
        ns: u64,
        tell: &mut impl FnMut(EventKind),
    ) {
        let (Some(kind), Some(payload)) = (ip.echo, ip.payload) else { return };
        // The sequence number stands right before the payload (RFC 792, RFC 4443 section 4.1).
        let Some(&[a, b]) = payload.at.checked_sub(2).and_then(|at| frame.get(at..at + 2)) else { return };
        let (number, questions) = (u16::from_be_bytes([a, b]), self.questions.get_or_insert_default());
        match kind {
            Echo::Request => questions.ask(number, ns),
            Echo::Reply => {
                if let Some(took) = questions.answer(number, ns) {
                    pair.echo.record(took);
                    tell(EventKind::Echoed { took_ns: took });
                }
            }
        }
    }
}
