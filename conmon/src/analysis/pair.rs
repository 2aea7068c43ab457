//! What one point's packets say of a pair.

use std::net::IpAddr;

use ippm::flow::proto_name;
use ippm::follow::tcp::{Method, Place, Told};
use ippm::histogram::Histogram;
use jiff::Timestamp;

use super::answer::{AnalyzedPair, Between};
use crate::api::{Count, DelayBucket, DelaySummary, Endpoint, EndpointKind, ObservedAt, Pair};

/// Counts and delays of a pair: src opened.
#[derive(Debug, Clone)]
pub(super) struct PairState {
    pub src: IpAddr,
    pub dst: IpAddr,
    protos: Vec<u8>,
    first_ns: u64,
    last_ns: u64,
    counts: [Count; 2],
    tcp: bool,
    resent: [u64; 2],
    reordered: u64,
    /// By the direction of the data, and handshakes' after them.
    rtt: [Histogram; 4],
    delayed: u64,
    pub dns: Histogram,
    pub echo: Histogram,
    pub spin: Histogram,
    pub flows: u64,
    pub active: u64,
    pub guessed: bool,
}

impl PairState {
    pub fn new(src: IpAddr, dst: IpAddr, ns: u64) -> Self {
        Self {
            src,
            dst,
            protos: Vec::new(),
            first_ns: ns,
            last_ns: ns,
            counts: Default::default(),
            tcp: false,
            resent: [0; 2],
            reordered: 0,
            rtt: Default::default(),
            delayed: 0,
            dns: Histogram::new(),
            echo: Histogram::new(),
            spin: Histogram::new(),
            flows: 0,
            active: 0,
            guessed: false,
        }
    }

    pub fn flow(&mut self, proto: u8, guessed: bool) {
        self.flows += 1;
        self.guessed |= guessed;
        if let Err(at) = self.protos.binary_search(&proto) {
            self.protos.insert(at, proto);
        }
    }

    #[inline]
    pub fn count(&mut self, forward: bool, length: usize, ns: u64) {
        let count = &mut self.counts[usize::from(!forward)];
        count.bytes = count.bytes.saturating_add(length as u64);
        count.packets += 1;
        count.segments += 1;
        self.first_ns = self.first_ns.min(ns);
        self.last_ns = self.last_ns.max(ns);
    }

    #[inline]
    pub fn told(&mut self, forward: bool, told: &Told) {
        self.tcp = true;
        match told.place {
            Place::Retransmitted => self.resent[usize::from(!forward)] += 1,
            Place::Reordered => self.reordered += 1,
            Place::New | Place::Nothing => {}
        }
        if let Some(trip) = told.round_trip {
            let at = usize::from(!trip.forward) + if trip.method == Method::Handshake { 2 } else { 0 };
            self.rtt[at].record(trip.ns);
            self.delayed += u64::from(trip.maybe_delayed && trip.method != Method::Handshake);
        }
    }

    pub fn answer(&self) -> AnalyzedPair {
        let [rtt, near, shake, near_shake] = &self.rtt;
        let (ack, handshake) = ("passive_tcp_ack_in_capture", "passive_tcp_handshake_in_capture");
        let tcp = self.tcp.then_some(());
        AnalyzedPair {
            pair: Pair {
                src: endpoint(self.src),
                dst: endpoint(self.dst),
                protocols: self.protos.iter().map(|proto| proto_name(*proto).into_owned()).collect(),
                first_seen: timestamp(self.first_ns),
                last_seen: timestamp(self.last_ns),
                sent: self.counts[0],
                received: self.counts[1],
                retransmitted_segments: tcp.map(|()| self.resent[0] + self.resent[1]),
                sent_retransmitted_segments: tcp.map(|()| self.resent[0]),
                received_retransmitted_segments: tcp.map(|()| self.resent[1]),
                reordered_segments: tcp.map(|()| self.reordered),
                rtt_seconds: summary(rtt, ack),
                near_rtt_seconds: summary(near, ack),
                handshake_rtt_seconds: summary(shake, handshake),
                near_handshake_rtt_seconds: summary(near_shake, handshake),
                flows: self.flows,
                active_flows: self.active,
                role_guessed: self.guessed,
                observed_at: ObservedAt::Src,
                via: Vec::new(),
                sent_bytes_per_second: None,
                received_bytes_per_second: None,
                sent_packets_per_second: None,
                received_packets_per_second: None,
            },
            dns_rtt_seconds: summary(&self.dns, "passive_dns_question_in_capture"),
            echo_rtt_seconds: summary(&self.echo, "passive_icmp_echo_in_capture"),
            spin_rtt_seconds: summary(&self.spin, "passive_quic_spin_bit_in_capture"),
            maybe_delayed_acks: (!rtt.is_empty() || !near.is_empty()).then_some(self.delayed),
            between: Between::default(),
            clock: None,
            translated: Vec::new(),
        }
    }
}

fn endpoint(address: IpAddr) -> Endpoint {
    Endpoint {
        kind: EndpointKind::External,
        name: address.to_string(),
        id: None,
        service: None,
        tenant: None,
        host: None,
        addresses: vec![address],
    }
}

/// A time of a capture; those beyond any calendar are cut to its end.
pub(super) fn timestamp(ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::MAX)
}

fn summary(delays: &Histogram, method: &str) -> Option<DelaySummary> {
    Some(DelaySummary { buckets: Some(DelayBucket::all(delays)), ..DelaySummary::of(delays, method)? })
}

/// Who opened a flow, from its first packet: whether its sender did, and whether that is a guess. The kernel's program
/// judges by the same rules (`role_of` in `tap/bpf/tap.bpf.c`).
pub(super) fn sender_opened(ip: &ippm::packet::Ip) -> (bool, bool) {
    use ippm::packet::{Echo, tcp_flag};
    if let Some(tcp) = &ip.tcp
        && tcp.flags & tcp_flag::SYN != 0
    {
        return (tcp.flags & tcp_flag::ACK == 0, false);
    }
    match ip.echo {
        Some(Echo::Request) => return (true, false),
        Some(Echo::Reply) => return (false, false),
        None => {}
    }
    let (source, destination) = (ip.source_port, ip.destination_port);
    let sender = if (source < 1024) != (destination < 1024) {
        destination < 1024
    } else if ip.tcp.is_some() && source != destination {
        source > destination
    } else {
        true
    };
    (sender, ip.tcp.is_some() || !sender)
}
