//! METRICS: every metric this version emits, as data: name, definition, unit, kind, labels. The Prometheus endpoint
//! takes names and help texts from here, and `docs/metrics.md` is written from it, so neither can say something else.
//!
//! Names are `conmon_<thing>_<unit>`, with `_total` after a counter's; units are base units. A metric whose unit is a
//! count of things names the things.

use std::fmt::Write as _;

/// How a metric's value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; begins at 0 with the thing that its labels name.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values by size, with their sum, in the buckets of [`DELAY_EDGES_NS`].
    Histogram,
}

impl Kind {
    /// The name that the Prometheus text format uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// What a metric is counted or measured in. Its name ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Octets.
    Bytes,
    /// Seconds.
    Seconds,
    /// A share between 0 and 1.
    Ratio,
    /// 1 for yes, 0 for no; the name ends in what is asked.
    Bool,
    /// Always 1: the labels are the value.
    Info,
    /// A number of the things that this word names.
    Count(&'static str),
}

impl Unit {
    /// The word at the end of the name (before `_total`).
    pub const fn suffix(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
            Unit::Ratio => "ratio",
            Unit::Bool => "connected",
            Unit::Info => "info",
            Unit::Count(things) => things,
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Unit::Bool => "1 or 0",
            Unit::Info => "always 1",
            other => other.suffix(),
        }
    }
}

/// A dimension of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub values: &'static str,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// What its value does.
    pub kind: Kind,
    /// What it is counted in.
    pub unit: Unit,
    /// Its dimensions.
    pub labels: &'static [Label],
    /// One sentence, for the `# HELP` line.
    pub help: &'static str,
    /// The exact definition: method, what is left out, error.
    pub definition: &'static str,
    /// Where the definition comes from; empty when it is our own.
    pub source: &'static str,
}

impl Metric {
    /// The name without `_total`: what a library that adds the ending of counters itself wants.
    pub fn family(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }

    /// The names of the labels.
    pub fn label_names(&self) -> impl ExactSizeIterator<Item = &'static str> {
        self.labels.iter().map(|l| l.name)
    }
}

/// Upper edges of the exported buckets of delays: each octave from 8.192 µs to 8.6 s. All are edges of
/// [`Histogram`](crate::histogram::Histogram)'s buckets, so the exported counts
/// ([`count_below`](crate::histogram::Histogram::count_below)) are exact; a value equal to an edge counts above it.
pub const DELAY_EDGES_NS: [u64; 21] = {
    let mut edges = [0; 21];
    let mut i = 0;
    while i < edges.len() {
        edges[i] = 1 << (13 + i);
        i += 1;
    }
    edges
};

const SRC: Label = Label {
    name: "src",
    values: "the side that opened the conversation: a service by default, a container on request; `host`, \
             `external` and `dns` for what is none; `other` for what is above the limit of series",
};
const DST: Label = Label { name: "dst", values: "the other side, like `src`" };
const TENANT: Label = Label { name: "tenant", values: "the tenant whose tap measured it" };
const PROTO: Label =
    Label { name: "proto", values: "`tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, …, or `ip-N`" };
const DIRECTION: Label =
    Label { name: "direction", values: "`sent` (by `src`, to `dst`) or `received` (by `src`, from `dst`)" };
const SERVICE: Label = Label { name: "service", values: "the service whose container is behind the port" };
const PORT_DIRECTION: Label =
    Label { name: "direction", values: "`sent` or `received`, as the container behind the port sees it" };
const CLASS: Label = Label {
    name: "class",
    values: "`overflow` (IP, but the tables for flows and pairs were full), `arp`, `other` (neither IP nor ARP), \
             `malformed` (claims to be IP and is not), `nd` (IPv6 neighbour discovery and multicast listener discovery)",
};
const TABLE: Label = Label { name: "table", values: "`flows`, `pairs` or `ports`" };
const ANY_TABLE: Label = Label { name: "table", values: "`flows`, `pairs`, `ports` or `histograms`" };
const COMPONENT: Label = Label { name: "component", values: "`controller` or `monitors`" };
const REASON: Label = Label {
    name: "reason",
    values: "busy, slow, not_tls, no_certificate, bad_certificate, no_credentials, bad_token, not_allowed or protocol",
};
const READ: Label = Label { name: "result", values: "`answered` or `failed`" };
const CACHE: Label = Label { name: "result", values: "`hit` (answered from memory) or `miss`" };
const FAR_END: Label = Label {
    name: "result",
    values: "`learnt`, `given_up` (no host could name it), `refused` (an answer that made no sense) or `nobody` (an address that no host has: peers outside are among them)",
};
const PENDING: Label =
    Label { name: "by", values: "`address` (the registry is asked) or `conversation` (other hosts are)" };
const ROOM: Label = Label { name: "room", values: "`addresses`, `conversations`, `ends` or `reports`" };
const PEER: Label = Label { name: "host", values: "the other host" };
const HOOK: Label = Label { name: "hook", values: "the program's name and direction" };

macro_rules! metrics {
    ($($id:ident: $kind:ident $unit:expr, $name:literal [$($label:ident),*]
        $help:literal; $definition:literal; $source:literal;)+) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
                definition: $definition,
                source: $source,
            };
        )+

        /// Every metric this version emits.
        pub const METRICS: &[Metric] = &[$($id),+];
    };
}

metrics! {
    PAIR_BYTES: Counter Unit::Bytes, "conmon_pair_bytes_total" [SRC, DST, TENANT, PROTO, DIRECTION]
        "Octets of frames between the two sides of a pair.";
        "Length of the frames from the link header on, as the port's interface counters count them: a packet with \
         offloaded segmentation counts its own length, once. Every IP packet that passes the observed port counts in \
         exactly one pair, or in the port's class `overflow`.";
        "RFC 7011 section 2 (Flow, Observation Point); RFC 5103 section 5.1 (direction by initiator); RFC 7133, \
         layer2OctetTotalCount (IE 353)";
    PAIR_PACKETS: Counter Unit::Count("packets"), "conmon_pair_packets_total" [SRC, DST, TENANT, PROTO, DIRECTION]
        "Packets between the two sides of a pair, as the host's stack handles them.";
        "A packet with offloaded segmentation, up to 64 KiB or more, is one packet. A fragment is one packet.";
        "RFC 7011 section 2; RFC 5103 section 5.1; RFC 7012, packetTotalCount (IE 86)";
    PAIR_SEGMENTS: Counter Unit::Count("segments"), "conmon_pair_segments_total" [SRC, DST, TENANT, PROTO, DIRECTION]
        "Packets between the two sides of a pair, as a wire would carry them.";
        "Like packets, but a packet with offloaded segmentation counts the segments it stands for, as the kernel \
         states them with the packet.";
        "RFC 7011 section 2; RFC 5103 section 5.1";
    PAIR_RETRANSMITTED: Counter Unit::Count("segments"),
        "conmon_pair_retransmitted_segments_total" [SRC, DST, TENANT, DIRECTION]
        "TCP segments that carried again what the observed port had already seen.";
        "A segment with data, SYN or FIN that begins before the highest sequence number seen in its direction, in wire \
         segments. Towards the observed container, one that IP identification or the time stamps option shows to be \
         merely late counts as reordered instead; where neither tells, it counts here. What was lost before it \
         reached the port and sent again passes the port once, so it is not counted.";
        "RFC 9293 section 3.8.1";
    PAIR_REORDERED: Counter Unit::Count("segments"),
        "conmon_pair_reordered_segments_total" [SRC, DST, TENANT, DIRECTION]
        "TCP segments towards the observed container that were sent before ones that arrived earlier.";
        "The order of sending is told by IP identification or the time stamps option; a segment on which neither \
         decides counts as retransmitted. Only the direction towards the observed container has this count.";
        "RFC 4737 section 3 (reordered packet singleton)";
    PAIR_FLOWS: Counter Unit::Count("flows"), "conmon_pair_flows_total" [SRC, DST, TENANT, PROTO]
        "Flow records begun between the two sides of a pair.";
        "A flow is both directions of one 5-tuple at one port and VLAN. A flow that pauses longer than the idle \
         timeout begins a new record. Packets that found no free flow record begin none.";
        "RFC 7011 section 2; RFC 5103 section 2 (Biflow)";
    PAIR_ACTIVE_FLOWS: Gauge Unit::Count("flows"), "conmon_pair_active_flows" [SRC, DST, TENANT, PROTO]
        "Flows between the two sides of a pair that have a live record.";
        "Includes flows that ended without saying so, until the idle timeout.";
        "RFC 5103 section 2";
    PAIR_RTT: Histogram Unit::Seconds, "conmon_pair_rtt_seconds" [SRC, DST, TENANT]
        "Round-trip delay from src's port to dst and back, measured on TCP data.";
        "From the moment a TCP segment with data by src passes the port until the first acknowledgement of all of it \
         passes in return. One segment at a time is followed in each flow and direction, of a busy one some that are \
         drawn; one that is sent again gives no value. The delay contains dst's stack, with its delayed acknowledgements, and the path \
         there and back. A pair of which only dst has an observed port is measured there: then the path is that between \
         dst's port and dst. Taken by a passive method with the kernel's clock at the hook; each value is exact to that \
         clock, and counted in a bucket whose edges are exact.";
        "RFC 2681 section 2.4 (Type-P-Round-trip-Delay, Type-P: TCP data); RFC 7799 section 3.6; RFC 6298 section 3 \
         (Karn's algorithm)";
    PAIR_NEAR_RTT: Histogram Unit::Seconds, "conmon_pair_near_rtt_seconds" [SRC, DST, TENANT]
        "Round-trip delay from src's port to src's own container and back, measured on TCP data.";
        "Like conmon_pair_rtt_seconds, but for data by dst, acknowledged by src: it contains src's stack and the link \
         between port and container, nothing of the network. At a port of dst it is the other leg: from there to \
         src and back. The two are never mixed; their sum is what the sender's socket sees.";
        "RFC 2681 section 2.4; RFC 7799 section 3.6; RFC 6298 section 3";
    PAIR_HANDSHAKE_RTT: Histogram Unit::Seconds, "conmon_pair_handshake_rtt_seconds" [SRC, DST, TENANT]
        "Round-trip delay from src's port to dst and back, measured on TCP handshakes.";
        "From src's SYN passing the port until the SYN/ACK that acknowledges it. A handshake whose SYN was sent again \
         gives no value. Contains no delayed acknowledgement, and dst's application has no part in it.";
        "RFC 2681 section 2.4 (Type-P: TCP SYN); RFC 9293 section 3.5; RFC 6298 section 3";

    PORT_PACKETS: Counter Unit::Count("packets"),
        "conmon_port_class_packets_total" [SERVICE, TENANT, PORT_DIRECTION, CLASS]
        "Packets of observed ports that belong to no flow and no pair.";
        "For every port: the packets of its pairs and of its classes together are the packets that passed it.";
        "RFC 7011 section 2 (Observation Point)";
    PORT_BYTES: Counter Unit::Bytes, "conmon_port_class_bytes_total" [SERVICE, TENANT, PORT_DIRECTION, CLASS]
        "Octets of frames of observed ports that belong to no flow and no pair.";
        "Counted like conmon_pair_bytes_total.";
        "RFC 7011 section 2; RFC 7133, layer2OctetTotalCount (IE 353)";

    TABLE_FULL: Counter Unit::Count("packets"), "conmon_table_full_packets_total" [TENANT, TABLE]
        "Packets that found no free record in a table of the tap and were counted more coarsely.";
        "No packet is lost by it: without a flow record it counts in its pair, without a pair record in its port's \
         class `overflow`, without a port record in the set's own counters.";
        "";
    UNPAIRED_FLOWS: Counter Unit::Count("flows"), "conmon_unpaired_flows_total" [TENANT]
        "Flow records that began without a pair record, for want of room.";
        "Such a flow is in no row of pairs and has no round trips until it is given a pair, as soon as the table was enlarged. What it \
         counts meanwhile is its pair's then, or, if it ends before, its port's class `overflow`.";
        "";
    UNRESOLVED_FLOWS: Counter Unit::Count("flows"), "conmon_unresolved_flows_total" [TENANT]
        "Flows that were not waited for until it was known who is really at their far end, because too many were.";
        "Where an address is translated, who is behind it is told of by the kernel's connection tracking or another host, up to seconds later. \
         Such a flow, if it was translated, is counted under the address that was seen; no total changes by it. One that \
         is read several times within its first seconds counts each time.";
        "";
    LOST_SINGLETONS: Counter Unit::Count("singletons"), "conmon_lost_singletons_total" [TENANT]
        "Round-trip delays that were measured and then lost because no histogram was free, or the flow had no pair.";
        "They are missing in the delay histograms and nowhere else.";
        "RFC 2681 section 3";
    CANCELLED_PROBES: Counter Unit::Count("probes"), "conmon_cancelled_rtt_probes_total" [TENANT]
        "Round-trip delays not measured because the segment followed was sent again.";
        "An acknowledgement would not tell which of the two it answers, so no value is taken.";
        "RFC 6298 section 3 (Karn's algorithm)";
    RING_DROPPED: Counter Unit::Count("records"), "conmon_ring_dropped_records_total" [TENANT]
        "Flow events that found no room in the ring to the monitoring container.";
        "The event is missing in the event stream; what it would have said is in the counters all the same.";
        "RFC 7011 section 2 (Flow Record)";
    TABLE_FILL: Gauge Unit::Ratio, "conmon_table_fill_ratio" [TENANT, ANY_TABLE]
        "Share of a tap table's records that are taken.";
        "Records that are ending count as taken.";
        "";

    MONITORS: Gauge Unit::Count("monitors"), "conmon_monitors" []
        "Monitoring containers that run, those waiting in the pool included.";
        "One that was started and has not yet said hello is not counted.";
        "";
    MONITOR_RESTARTS: Counter Unit::Count("restarts"), "conmon_monitor_restarts_total" [TENANT]
        "Monitoring containers that died or hung and were replaced.";
        "The kernel counts on meanwhile: nothing is missing after a replacement but events that the ring had no room \
         for.";
        "";
    CONTAINERS: Gauge Unit::Count("containers"), "conmon_containers" [TENANT]
        "Application containers that are watched.";
        "Running containers with at least one observed port.";
        "";
    TAPS: Gauge Unit::Count("taps"), "conmon_taps" [TENANT]
        "Observed ports.";
        "A port counts when its programs are attached in both directions. Ports whose container is not known yet have \
         an empty tenant.";
        "RFC 7011 section 2 (Observation Point)";
    TAP_DELAY: Histogram Unit::Seconds, "conmon_tap_delay_seconds" []
        "Time from a port joining a watched bridge until it was observed in both directions.";
        "From reading the kernel's message about the link until the second program is attached; 0 where it was attached \
         before the port joined. Ports that were there at the start are not counted.";
        "";
    NAMING_DELAY: Histogram Unit::Seconds, "conmon_naming_delay_seconds" []
        "Time from the engine's event about a container's network until its port had a name.";
        "From the engine's own time of the event, or the link's coming up if that is later, until packets of the port \
         are shown under the container's name. Ports that were there at the start are not counted.";
        "";
    STOP_DELAY: Histogram Unit::Seconds, "conmon_stop_delay_seconds" []
        "Time from the engine's event that a container ended until that was acted on and shown.";
        "From the engine's own time of the event until the end of what was counted with its addresses is under way \
         and answers show the container as ended.";
        "";
    REACTION_DELAY: Histogram Unit::Seconds, "conmon_reaction_delay_seconds" []
        "Time from reading the engine's event that a container ended until that was acted on and shown.";
        "What conmond itself takes of `conmon_stop_delay_seconds`; the rest is the engine's, between the time in its \
         event and the event's arrival.";
        "";
    END_DELAY: Histogram Unit::Seconds, "conmon_end_delay_seconds" []
        "Time from a tapped port's going until nothing was counted in its records any more.";
        "From reading the kernel's message that the link is gone until its flows and pairs are ended in the kernel's \
         tables. They are folded and freed after a grace period, which is not in it.";
        "";
    TAP_DROPS: Counter Unit::Count("packets"), "conmon_tap_dropped_packets_total" []
        "Packets to containers that their ports dropped while a qdisc was put on them or taken off for a tap.";
        "By the difference of the interface's own counter (`tx_dropped`), so what it drops for other reasons in these milliseconds \
         is in it. The kernel drops what is sent in that moment, so it is done when nothing was sent for a while, where that can be.";
        "";
    ENGINE_CONNECTED: Gauge Unit::Bool, "conmon_engine_connected" []
        "Whether the event stream of the container engine is connected.";
        "While it is not, ports are still tapped and counted, without names.";
        "";
    STREAMS_DROPPED: Counter Unit::Count("streams"), "conmon_api_dropped_streams_total" []
        "Live streams of the API that were ended because their reader was too slow.";
        "A reader may connect again; nothing waits for it.";
        "";
    API_REFUSED: Counter Unit::Count("refusals"), "conmon_api_refusals_total" [REASON]
        "Connections and requests to the API over TLS that were refused.";
        "Only there where conmond listens for TLS (`listen`). docs/security.md says what each reason is.";
        "";

    REGISTRY_CONNECTED: Gauge Unit::Bool, "conmon_registry_connected" []
        "Whether the registry that binds this host to others answers.";
        "Only there where conmond has a registry of many hosts, as are all metrics of the registry and of far ends. With gossip: \
         whether any other host is heard.";
        "";
    REGISTRY_AGE: Gauge Unit::Seconds, "conmon_registry_age_seconds" []
        "How old what is known of the registry is.";
        "Since the moment up to which all changes of what is in use are known, by this host's clock. No series before the \
         first answer.";
        "";
    REGISTRY_HOSTS: Gauge Unit::Count("hosts"), "conmon_registry_hosts" []
        "Other hosts that the registry tells of.";
        "A host that is lost is no longer told of when its lease has ended.";
        "";
    REGISTRY_PENDING: Gauge Unit::Count("rows"), "conmon_registry_pending_rows" []
        "This host's addresses that the registry is not known to have as they are.";
        "They are written when the registry answers again.";
        "";
    REGISTRY_READS: Counter Unit::Count("reads"), "conmon_registry_reads_total" [READ]
        "Questions to the registry.";
        "Each reads one address, or all hosts. With gossip there are none: all is known already.";
        "";
    REGISTRY_RESYNCS: Counter Unit::Count("resyncs"), "conmon_registry_resyncs_total" []
        "Addresses in use that were read anew because the registry could not tell what had changed.";
        "After a lost connection, a compaction, or a registry that came back with an older memory.";
        "";
    REGISTRY_LOOKUPS: Counter Unit::Count("lookups"), "conmon_registry_lookups_total" [CACHE]
        "Looks for who had an address.";
        "One that the cache answers takes less than a microsecond; others wait for the registry.";
        "";
    FAR_ENDS: Counter Unit::Count("ends"), "conmon_far_ends_total" [FAR_END]
        "Far ends of conversations with other hosts, by how they became known or did not.";
        "Other hosts are asked for those that an address alone does not tell: behind published ports and masquerades, and addresses that several \
         hosts have. `nobody` counts look-ups of addresses.";
        "";
    FAR_ENDS_PENDING: Gauge Unit::Count("ends"), "conmon_pending_far_ends" [PENDING]
        "Far ends that are not known yet and are being asked for.";
        "Addresses that are nobody's are given up after some 20 s, conversations after 13 s, and are asked for again later if they go on.";
        "";
    FAR_ENDS_DROPPED: Counter Unit::Count("ends"), "conmon_dropped_far_ends_total" [ROOM]
        "Far ends for which there was no room, so that they have no name.";
        "Their pairs bear the address; no count is touched. `reports` are told again with the next.";
        "";

    CLOCK_OFFSET: Gauge Unit::Seconds, "conmon_clock_offset_seconds" [PEER]
        "How far the other host's clock is ahead of this one's.";
        "The time of day, from exchanges of test packets over the last 30 s: the middle of what is possible. Hosts that talk with this one have a \
         series.";
        "RFC 8762; RFC 7679 section 2.2 (synchronization)";
    CLOCK_OFFSET_BOUND: Gauge Unit::Seconds, "conmon_clock_offset_bound_seconds" [PEER]
        "How far conmon_clock_offset_seconds can be from the truth.";
        "For certain, while both clocks run evenly: half of the least round trip, and what the time since then adds.";
        "";
    TEST_PACKETS_REFUSED: Counter Unit::Count("packets"), "conmon_refused_test_packets_total" []
        "Test packets of other hosts that were not answered.";
        "Those of no session, or without its key's proof: somebody else sends to this port, or a session is over at one end.";
        "RFC 8762 section 4.4";

    HOOK_RUNS: Counter Unit::Count("runs"), "conmon_hook_sampled_runs_total" [HOOK]
        "Runs of a tap program while the kernel measured run times.";
        "The kernel's run-time statistics cost about as much as the programs, so they are on for moments only. The \
         quotient of conmon_hook_sampled_run_time_seconds_total and this is the mean time for each packet.";
        "";
    HOOK_TIME: Counter Unit::Seconds, "conmon_hook_sampled_run_time_seconds_total" [HOOK]
        "Time that a tap program ran while the kernel measured run times.";
        "As the kernel states it, with its own clock readings in it (some 30 ns for each run).";
        "";
    CPU: Counter Unit::Seconds, "conmon_cpu_seconds_total" [COMPONENT]
        "Processor time used by user space.";
        "User and system time, without the tap programs, which run in the time of whoever sends or receives.";
        "";
    MEMORY: Gauge Unit::Bytes, "conmon_memory_bytes" [COMPONENT]
        "Resident memory of user space.";
        "Resident set size, without the mapped tables of the tap, which conmon_kernel_memory_bytes holds.";
        "";
    KERNEL_MEMORY: Gauge Unit::Bytes, "conmon_kernel_memory_bytes" []
        "Memory that the tap's tables and programs hold in the kernel.";
        "The sum of what the kernel states for each map and program (`memlock` in their fdinfo).";
        "";
    BUILD: Gauge Unit::Info, "conmon_build_info" [VERSION, REVISION]
        "The running build.";
        "Always 1.";
        "";
}

const VERSION: Label = Label { name: "version", values: "the version" };
const REVISION: Label =
    Label { name: "revision", values: "the source revision, `unknown` when built without" };

/// The metric with this name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|m| m.name == name)
}

/// The catalogue as a document: `docs/metrics.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Written from `ippm/src/catalogue.rs`; do not edit (`UPDATE_GOLDEN=1 cargo test -p ippm` writes it anew).\n\n\
         Each metric is exported under this name in the Prometheus text format. Counters begin at 0 when what their \
         labels name is first seen, and the series goes when it is no longer there. What was not measured has no \
         series: absent is not zero.\n\n\
         Histograms of delays have the edges ",
    );
    let edges: Vec<String> =
        DELAY_EDGES_NS.iter().map(|&ns| format!("{}", crate::time::seconds(ns))).collect();
    let _ = write!(
        out,
        "{} … {} s (each twice the one before). Counts at the edges are exact; a value equal to an edge counts above \
         it. Inside, values are kept in buckets of which the middle is at most 1/32 of the value away (32 ns below \
         1.024 µs); that is the error of the quantiles that API and command line show.\n\n",
        edges[0],
        edges[edges.len() - 1],
    );
    out.push_str("| Name | Kind | Unit | Meaning |\n| --- | --- | --- | --- |\n");
    for m in METRICS {
        let _ = writeln!(
            out,
            "| [`{0}`](#{0}) | {1} | {2} | {3} |",
            m.name,
            m.kind.as_str(),
            m.unit.describe(),
            m.help
        );
    }
    for m in METRICS {
        let _ = write!(out, "\n## {}\n\n{} {}\n\n", m.name, m.help, m.definition);
        let _ = writeln!(out, "- Kind: {}; unit: {}", m.kind.as_str(), m.unit.describe());
        if !m.source.is_empty() {
            let _ = writeln!(out, "- Defined after: {}", m.source);
        }
        for label in m.labels {
            let _ = writeln!(out, "- `{}`: {}", label.name, label.values);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::histogram::{bucket_bounds, bucket_of};

    #[test]
    fn the_document_is_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, markdown()).expect("docs/metrics.md can be written");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == markdown(),
            "docs/metrics.md is out of date: run UPDATE_GOLDEN=1 cargo test -p ippm"
        );
    }

    #[test]
    fn names_follow_the_rules() {
        let mut seen = HashSet::new();
        for m in METRICS {
            assert!(seen.insert(m.family()), "{} is there twice", m.name);
            assert!(m.name.starts_with("conmon_"), "{}", m.name);
            assert!(m.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", m.name);
            assert_eq!(m.name.ends_with("_total"), m.kind == Kind::Counter, "{}", m.name);
            assert!(m.family().ends_with(m.unit.suffix()), "{} does not end in its unit", m.name);
            for ending in ["_count", "_sum", "_bucket", "_created"] {
                assert!(!m.family().ends_with(ending), "{} ends like a part of a histogram", m.name);
            }
            assert!(m.kind != Kind::Histogram || m.unit == Unit::Seconds, "{} has edges in seconds", m.name);
        }
    }

    #[test]
    fn texts_and_labels_are_whole() {
        for m in METRICS {
            for text in [m.help, m.definition] {
                assert!(
                    text.ends_with('.') && !text.contains("  ") && !text.contains('\n'),
                    "{}: {text}",
                    m.name
                );
            }
            let mut seen = HashSet::new();
            for label in m.labels {
                assert!(seen.insert(label.name), "{} has {} twice", m.name, label.name);
                assert!(!["le", "job", "instance", "quantile"].contains(&label.name), "{}", m.name);
                assert!(
                    !label.values.is_empty() && !label.values.contains("  "),
                    "{} {}",
                    m.name,
                    label.name
                );
            }
        }
    }

    #[test]
    fn look_up_by_name() {
        assert_eq!(metric("conmon_pair_bytes_total"), Some(&PAIR_BYTES));
        assert_eq!(PAIR_BYTES.family(), "conmon_pair_bytes");
        assert_eq!(
            PAIR_RTT.label_names().collect::<Vec<_>>(),
            ["src", "dst", "tenant"],
            "delays are not split by protocol: only TCP has them"
        );
        assert_eq!(metric("conmon_pair_bytes"), None);
    }

    #[test]
    fn exported_edges_are_edges_of_buckets() {
        for edge in DELAY_EDGES_NS {
            assert_eq!(bucket_bounds(bucket_of(edge)).0, edge);
        }
        assert!(DELAY_EDGES_NS.is_sorted());
    }
}
