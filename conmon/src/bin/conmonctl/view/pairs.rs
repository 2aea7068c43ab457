//! Who talks to whom.

use conmon::api::{DelaySummary, ObservedAt, Pair, PairsAnswer};

use super::{View, endpoint, hidden_note, incomplete_note, list, or_absent, tenants, yes};
use crate::format::{ABSENT, byte_rate, bytes, count, delay, rate, since};
use crate::table::{Left, Right, Table};

/// The table of pairs, the one with most bytes first. Without `all`, multicast rows are only counted.
pub fn pairs(answer: &PairsAnswer, wide: bool, all: bool) -> View {
    let mut rows: Vec<&Pair> = answer
        .pairs
        .iter()
        .filter(|pair| all || !(pair.src.is_multicast() || pair.dst.is_multicast()))
        .collect();
    rows.sort_by_key(|pair| std::cmp::Reverse(pair.sent.bytes.saturating_add(pair.received.bytes)));
    let hidden = answer.pairs.len() - rows.len();

    let mut columns = vec![
        Left("SRC"),
        Left("DST"),
        Left("PROTO"),
        Right("SENT"),
        Right("RECEIVED"),
        Right("OUT"),
        Right("IN"),
        Right("PACKETS"),
        Right("RTT P50"),
        Right("RTT P99"),
        Right("RETRANS"),
        Right("SEEN"),
    ];
    if wide {
        columns.extend([
            Left("TENANT"),
            Left("SRC ADDRESSES"),
            Left("DST ADDRESSES"),
            Right("SENT PKTS"),
            Right("SENT SEGS"),
            Right("RECV PKTS"),
            Right("RECV SEGS"),
            Right("REORDERED"),
            Right("RTT MIN"),
            Right("RTT MAX"),
            Right("SAMPLES"),
            Right("NEAR P50"),
            Right("HANDSHAKE P50"),
            Right("FLOWS"),
            Right("ACTIVE"),
            Left("AT"),
            Left("GUESSED"),
            Left("FIRST SEEN"),
        ]);
    }
    let mut table = Table::new(columns);
    for pair in rows.iter().copied() {
        let mut cells = vec![
            endpoint(&pair.src),
            endpoint(&pair.dst),
            list(&pair.protocols),
            bytes(pair.sent.bytes),
            bytes(pair.received.bytes),
            or_absent(pair.sent_bytes_per_second, byte_rate),
            or_absent(pair.received_bytes_per_second, byte_rate),
            or_absent(packet_rate(pair), rate),
            quantile(&pair.rtt_seconds, |rtt| rtt.p50),
            quantile(&pair.rtt_seconds, |rtt| rtt.p99),
            or_absent(pair.retransmitted_segments, count),
            since(pair.last_seen, answer.generated_at),
        ];
        if wide {
            cells.extend([
                tenants(&pair.src, &pair.dst),
                list(&pair.src.addresses),
                list(&pair.dst.addresses),
                count(pair.sent.packets),
                count(pair.sent.segments),
                count(pair.received.packets),
                count(pair.received.segments),
                or_absent(pair.reordered_segments, count),
                quantile(&pair.rtt_seconds, |rtt| rtt.min),
                quantile(&pair.rtt_seconds, |rtt| rtt.max),
                pair.rtt_seconds.as_ref().map_or_else(|| ABSENT.to_owned(), |rtt| count(rtt.count)),
                quantile(&pair.near_rtt_seconds, |rtt| rtt.p50),
                quantile(&pair.handshake_rtt_seconds, |rtt| rtt.p50),
                count(pair.flows),
                count(pair.active_flows),
                match pair.observed_at {
                    ObservedAt::Src => "src".to_owned(),
                    ObservedAt::Dst => "dst".to_owned(),
                },
                yes(pair.role_guessed),
                crate::format::time(pair.first_seen),
            ]);
        }
        table.row(cells);
    }
    let empty =
        (rows.is_empty() && hidden == 0).then(|| "no pairs yet: no container has sent a packet".to_owned());
    View::new(table.render())
        .with_note(empty)
        .with_note(hidden_note(hidden))
        .with_note(incomplete_note(&answer.hosts))
}

/// Packets per second, both directions.
pub fn packet_rate(pair: &Pair) -> Option<f64> {
    Some(pair.sent_packets_per_second? + pair.received_packets_per_second?)
}

fn quantile(summary: &Option<DelaySummary>, pick: impl FnOnce(&DelaySummary) -> f64) -> String {
    or_absent(summary.as_ref(), |summary| delay(pick(summary)))
}
