//! A TCP connection between two ends, seen at each end's port: what the sender hands over in one piece (segmentation
//! offload) crosses the path as segments and may be put together again on the other side (receive offload).
//!
//! The sender keeps a constant window, sends again on the third duplicate acknowledgement and on partial ones (RFC 5681
//! section 3.2, RFC 6582) and after a fixed time; the receiver acknowledges what it gets at once, or, where the law says
//! so, every second segment in order and a lone one after a while (RFC 5681 section 4.2). Time stamps are echoed as RFC 7323
//! section 4.3 says.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::EPOCH_NS;
use super::packet::{Captured, Packet, Transport};
use super::path::{Carrier, Path};
use crate::packet::tcp_flag::{ACK, PSH, SYN};

/// A connection and the network under it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connection {
    /// Octets that the client sends.
    pub forward_bytes: u64,
    /// Octets that the server sends.
    pub reverse_bytes: u64,
    /// Octets in a segment.
    pub mss: u32,
    /// Octets that may be unacknowledged.
    pub window: u64,
    /// The most segments that a sender hands over in one piece; 1 for no offload.
    pub gso_segments: u32,
    /// The most segments that a receiver's side puts together; 1 for no offload.
    pub gro_segments: u32,
    /// How long the receiver's side waits for more to put together, nanoseconds.
    pub gro_ns: u64,
    /// From one segment of a piece to the next on the wire, nanoseconds.
    pub wire_ns: u64,
    /// Time between a packet's passing an end's port and the answer's passing it, nanoseconds.
    pub stack_ns: u64,
    /// How long an acknowledgement waits for a second segment, nanoseconds; 0 for not at all.
    pub ack_delay_ns: u64,
    /// Retransmission timeout, nanoseconds.
    pub rto_ns: u64,
    /// From the client to the server.
    pub forward: Path,
    /// Back.
    pub reverse: Path,
    /// Initial sequence numbers of client and server.
    pub isn: (u32, u32),
    /// Decides everything random.
    pub seed: u64,
}

impl Connection {
    /// A connection over these paths that sends a megabyte forward and a tenth of it back, without offload.
    pub const fn over(forward: Path, reverse: Path, seed: u64) -> Self {
        Self {
            forward_bytes: 1_000_000,
            reverse_bytes: 100_000,
            mss: 1_448,
            window: 64 << 10,
            gso_segments: 1,
            gro_segments: 1,
            gro_ns: 0,
            wire_ns: 1_200,
            stack_ns: 10_000,
            ack_delay_ns: 0,
            rto_ns: 200_000_000,
            forward,
            reverse,
            isn: (0xffff_0000, 77),
            seed,
        }
    }

    /// The same with offload at both ends: pieces of up to 44 segments, and 20 µs of waiting for more.
    #[must_use]
    pub const fn offloaded(mut self) -> Self {
        (self.gso_segments, self.gro_segments, self.gro_ns) = (44, 44, 20_000);
        self
    }
}

/// What became of one segment on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journey {
    /// Direction.
    pub forward: bool,
    /// Sequence number of its first octet.
    pub seq: u32,
    /// Octets of data.
    pub payload: u32,
    /// SYN, SYN/ACK.
    pub syn: bool,
    /// Its sequence space was sent before.
    pub again: bool,
    /// When it passed its sender's port, true time.
    pub sent_ns: u64,
    /// When it passed the receiver's port (the piece it is in), `None` for lost.
    pub arrival_ns: Option<u64>,
    /// When its copy did.
    pub copy_ns: Option<u64>,
}

/// Both ports' packets, by time, and the truth.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the client's port saw.
    pub client: Vec<Captured>,
    /// What the server's port saw.
    pub server: Vec<Captured>,
    /// The truth table, in the order of sending.
    pub journeys: Vec<Journey>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A segment arrives: journey, whether it is the copy.
    Arrive(usize, bool),
    /// What an end holds back to put together is handed on; its generation.
    Flush(bool, u64),
    /// An acknowledgement has waited long enough; its generation.
    Acknowledge(bool, u64),
    /// A retransmission timer runs out; its generation.
    Timeout(bool, u64),
}

#[derive(Default)]
struct End {
    bytes: u64,
    /// Offsets in the own stream; SYN is octet 0 and data begins at 1.
    una: u64,
    next: u64,
    recover: u64,
    duplicates: u32,
    timer: u64,
    /// What was received: next expected, and pieces beyond it.
    expected: u64,
    beyond: BTreeMap<u64, u64>,
    /// TS.Recent and Last.ACK.sent (RFC 7323 section 4.3), the latter as a stream offset.
    recent: u32,
    acked: u64,
    /// An acknowledgement waits; and counts how often one was sent.
    waits: bool,
    acknowledgements: u64,
    ip_id: u16,
    isn: u32,
    established: bool,
    held: Vec<(usize, bool)>,
    generation: u64,
}

struct Run<'a> {
    law: &'a Connection,
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    ends: [End; 2],
    carriers: [Carrier; 2],
    packets: Vec<Packet>,
    outcome: Outcome,
}

/// Runs the connection until all that is sent is acknowledged.
pub fn run(law: &Connection) -> Outcome {
    let end = |bytes, isn| End { bytes, isn, ..End::default() };
    let mut run = Run {
        law,
        heap: BinaryHeap::new(),
        order: 0,
        ends: [end(law.forward_bytes, law.isn.0), end(law.reverse_bytes, law.isn.1)],
        carriers: [
            Carrier::new(law.forward, law.seed.wrapping_mul(2)),
            Carrier::new(law.reverse, law.seed.wrapping_mul(2).wrapping_add(1)),
        ],
        packets: Vec::new(),
        outcome: Outcome::default(),
    };
    run.transmit(true, EPOCH_NS, 0, 1, SYN);
    while let Some(Reverse((now, _, event))) = run.heap.pop() {
        match event {
            Event::Arrive(journey, copy) => run.arrive(now, journey, copy),
            Event::Flush(forward, generation) => {
                if run.ends[usize::from(forward)].generation == generation {
                    run.flush(now, forward);
                }
            }
            Event::Acknowledge(forward, generation) => run.acknowledge(now, forward, generation),
            Event::Timeout(forward, generation) => run.timeout(now, forward, generation),
        }
    }
    run.outcome.client.sort_by_key(|c| c.ns);
    run.outcome.server.sort_by_key(|c| c.ns);
    run.outcome
}

impl Run<'_> {
    fn at(&mut self, ns: u64, event: Event) {
        self.order += 1;
        self.heap.push(Reverse((ns, self.order, event)));
    }

    fn sender(&mut self, forward: bool) -> &mut End {
        &mut self.ends[usize::from(!forward)]
    }

    fn seen_at_sender(&mut self, forward: bool) -> &mut Vec<Captured> {
        if forward { &mut self.outcome.client } else { &mut self.outcome.server }
    }

    /// Sends `length` octets of sequence space from stream offset `from` as one piece at `now`.
    fn transmit(&mut self, forward: bool, now: u64, from: u64, length: u64, flags: u8) {
        let law = self.law;
        let value = (now / 1_000_000) as u32;
        let other_isn = self.ends[usize::from(forward)].isn;
        let end = self.sender(forward);
        let again = length > 0 && from < end.next;
        let syn = flags & SYN != 0;
        let payload = if syn { 0 } else { length as u32 };
        let ack = if end.expected > 0 { other_isn.wrapping_add(end.expected as u32) } else { 0 };
        let flags = flags | if end.expected > 0 { ACK } else { 0 };
        let seq = end.isn.wrapping_add(from as u32);
        let timestamps = (value, end.recent);
        (end.acked, end.waits) = (end.expected, false);
        end.acknowledgements += 1;
        let pieces = payload.div_ceil(law.mss).max(1);
        let ip_id = end.ip_id;
        end.ip_id = end.ip_id.wrapping_add(pieces as u16);
        end.next = end.next.max(from + length);
        if length > 0 {
            end.timer += 1;
            let timer = end.timer;
            self.at(now + law.rto_ns, Event::Timeout(forward, timer));
        }
        let transport = Transport::Tcp { seq, ack, flags, timestamps };
        let packet = Packet { forward, transport, payload, ip_id };
        self.seen_at_sender(forward).push(Captured { ns: now, packet });
        for piece in 0..pieces {
            let at = piece * law.mss;
            let part = Packet {
                transport: Transport::Tcp { seq: seq.wrapping_add(at), ack, flags, timestamps },
                payload: (payload - at).min(law.mss),
                ip_id: ip_id.wrapping_add(piece as u16),
                ..packet
            };
            let fate = self.carriers[usize::from(!forward)].carry(now + u64::from(piece) * law.wire_ns);
            let journey = self.outcome.journeys.len();
            self.packets.push(part);
            self.outcome.journeys.push(Journey {
                forward,
                seq: seq.wrapping_add(at),
                payload: part.payload,
                syn,
                again,
                sent_ns: now,
                arrival_ns: None,
                copy_ns: None,
            });
            for (copy, ns) in [(false, fate.arrival_ns), (true, fate.copy_ns)] {
                if let Some(ns) = ns {
                    self.at(ns, Event::Arrive(journey, copy));
                }
            }
        }
    }

    fn arrive(&mut self, now: u64, journey: usize, copy: bool) {
        let packet = self.packets[journey];
        let (gro, wait) = (self.law.gro_segments, self.law.gro_ns);
        let forward = packet.forward;
        let end = &mut self.ends[usize::from(forward)];
        if gro <= 1 {
            end.held.push((journey, copy));
            return self.flush(now, forward);
        }
        let fits = end.held.last().is_none_or(|(last, _)| follows(&self.packets[*last], &packet));
        if !fits || end.held.len() >= gro as usize {
            self.flush(now, forward);
        }
        let end = &mut self.ends[usize::from(forward)];
        end.held.push((journey, copy));
        if end.held.len() == 1 {
            end.generation += 1;
            let generation = end.generation;
            self.at(now + wait, Event::Flush(forward, generation));
        }
        if packet.payload == 0 {
            self.flush(now, forward);
        }
    }

    /// Hands what an end holds to it, as one packet.
    fn flush(&mut self, now: u64, forward: bool) {
        let end = &mut self.ends[usize::from(forward)];
        end.generation += 1;
        let held = std::mem::take(&mut end.held);
        let Some((first, _)) = held.first() else { return };
        let mut packet = self.packets[*first];
        packet.payload = held.iter().map(|(journey, _)| self.packets[*journey].payload).sum();
        for (journey, copy) in &held {
            let journey = &mut self.outcome.journeys[*journey];
            *(if *copy { &mut journey.copy_ns } else { &mut journey.arrival_ns }) = Some(now);
        }
        let seen = if forward { &mut self.outcome.server } else { &mut self.outcome.client };
        seen.push(Captured { ns: now, packet });
        self.receive(now + self.law.stack_ns, &packet);
    }

    /// An end takes a packet; what it answers passes its port at `now`.
    fn receive(&mut self, now: u64, packet: &Packet) {
        let Transport::Tcp { seq, ack, flags, timestamps } = packet.transport else { return };
        let me = usize::from(packet.forward);
        let own = !packet.forward;
        let peer_isn = self.ends[1 - me].isn;
        let end = &mut self.ends[me];
        let syn = flags & SYN != 0;
        let from = offset(end.expected, seq, peer_isn);
        let length = u64::from(packet.payload) + u64::from(syn);
        let mut answer = length > 0;
        if from <= end.acked {
            end.recent = end.recent.max(timestamps.0);
        }
        // In order, with nothing missing before it and nothing held beyond.
        let plain = from == end.expected && end.beyond.is_empty() && !syn;
        if length > 0 {
            let piece = end.beyond.entry(from).or_default();
            *piece = (*piece).max(from + length);
            while let Some((&start, &stop)) = end.beyond.first_key_value() {
                if start > end.expected {
                    break;
                }
                end.expected = end.expected.max(stop);
                end.beyond.pop_first();
            }
        }
        if syn && !end.established {
            end.established = true;
            if packet.forward {
                return self.transmit(own, now, 0, 1, SYN);
            }
        }
        if flags & ACK != 0 {
            let acked = offset(end.una, ack, end.isn);
            if acked > end.una {
                let partial = acked < end.recover;
                end.una = acked;
                end.duplicates = 0;
                end.timer += 1;
                let timer = end.timer;
                if end.una < end.next {
                    self.at(now + self.law.rto_ns, Event::Timeout(own, timer));
                }
                if partial {
                    self.again(now, own);
                    answer = false;
                }
            } else if acked == end.una && length == 0 && end.una < end.next {
                end.duplicates += 1;
                if end.duplicates == 3 && end.una >= end.recover {
                    end.recover = end.next;
                    self.again(now, own);
                    answer = false;
                }
            }
        }
        if self.fill(now, own) {
            answer = false;
        }
        let wait = self.law.ack_delay_ns;
        let segments = packet.payload.div_ceil(self.law.mss);
        let end = self.sender(own);
        if answer && plain && wait > 0 && segments < 2 && !end.waits {
            end.waits = true;
            let generation = end.acknowledgements;
            return self.at(now + wait, Event::Acknowledge(own, generation));
        }
        if answer {
            let next = self.sender(own).next;
            self.transmit(own, now, next, 0, 0);
        }
    }

    /// Sends the acknowledgement that waited, unless another one took its place.
    fn acknowledge(&mut self, now: u64, forward: bool, generation: u64) {
        let end = self.sender(forward);
        if end.acknowledgements == generation {
            let next = end.next;
            self.transmit(forward, now, next, 0, 0);
        }
    }

    /// Sends what the window has room for; whether anything was sent.
    fn fill(&mut self, now: u64, forward: bool) -> bool {
        let mss = u64::from(self.law.mss);
        let most = mss * u64::from(self.law.gso_segments);
        let window = self.law.window;
        let mut sent = false;
        loop {
            let end = self.sender(forward);
            let all = end.bytes + 1;
            let room = (end.una + window).saturating_sub(end.next);
            let length = most.min(all.saturating_sub(end.next)).min(room);
            // No silly windows: a full segment, or the last.
            let last = end.next + length == all;
            if end.una == 0 || length == 0 || (length < mss && !last) {
                return sent;
            }
            let from = end.next;
            self.transmit(forward, now, from, length, PSH);
            sent = true;
        }
    }

    /// Sends the first unacknowledged segment again.
    fn again(&mut self, now: u64, forward: bool) {
        let mss = u64::from(self.law.mss);
        let end = self.sender(forward);
        let (from, next) = (end.una, end.next);
        if from == 0 {
            self.transmit(forward, now, 0, 1, SYN);
        } else {
            self.transmit(forward, now, from, mss.min(next - from), PSH);
        }
    }

    fn timeout(&mut self, now: u64, forward: bool, generation: u64) {
        let end = self.sender(forward);
        if end.timer != generation || end.una >= end.next {
            return;
        }
        end.recover = end.next;
        end.duplicates = 0;
        self.again(now, forward);
    }
}

/// The stream offset nearest to `around` that a sequence number stands for.
fn offset(around: u64, number: u32, isn: u32) -> u64 {
    let difference = number.wrapping_sub(isn.wrapping_add(around as u32)) as i32;
    around.saturating_add_signed(i64::from(difference))
}

/// Whether receive offload would put `b` behind `a`: next in sequence, and otherwise the same.
fn follows(a: &Packet, b: &Packet) -> bool {
    match (a.transport, b.transport) {
        (
            Transport::Tcp { seq, ack, timestamps, flags },
            Transport::Tcp { seq: seq2, ack: ack2, timestamps: timestamps2, flags: flags2 },
        ) => {
            a.payload > 0
                && b.payload > 0
                && seq.wrapping_add(a.payload) == seq2
                && ack == ack2
                && timestamps == timestamps2
                && flags == flags2
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
