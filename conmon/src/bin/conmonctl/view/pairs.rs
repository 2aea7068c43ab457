//! Who talks to whom.

use std::net::IpAddr;

use conmon::api::{DelaySummary, ObservedAt, Pair, PairsAnswer};

use super::{View, absent, delays, endpoint, hidden_note, incomplete_note, list, protocols, tenants, yes};
use crate::format::{byte_rate, bytes, count, rate, since, tight};
use crate::judge;
use crate::look::Look;
use crate::order::{Order, by_name, packet_rate};
use crate::table::{Cell, Column, NEEDED, Table, left, right, toned};

/// Which rows, and in which order.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// Multicast rows too; without it they are only counted.
    pub all: bool,
    /// The order.
    pub sort: Order,
    /// The other way round.
    pub reverse: bool,
    /// At most so many.
    pub limit: Option<usize>,
}

impl Choice {
    /// Orders and cuts the pairs themselves. JSON hides none of them.
    pub fn apply(self, pairs: &mut Vec<Pair>) {
        let mut rows: Vec<usize> = (0..pairs.len()).collect();
        self.sort.arrange(pairs, &by_name(pairs), self.reverse, &mut rows);
        let mut from: Vec<Option<Pair>> = pairs.drain(..).map(Some).collect();
        pairs
            .extend(rows.into_iter().take(self.limit.unwrap_or(usize::MAX)).filter_map(|at| from[at].take()));
    }
}

/// The table of pairs.
pub fn pairs(answer: &PairsAnswer, look: Look, choice: Choice) -> View {
    let multicast = |pair: &Pair| pair.src.is_multicast() || pair.dst.is_multicast();
    let mut rows: Vec<usize> =
        (0..answer.pairs.len()).filter(|at| choice.all || !multicast(&answer.pairs[*at])).collect();
    let hidden = answer.pairs.len() - rows.len();
    choice.sort.arrange(&answer.pairs, &by_name(&answer.pairs), choice.reverse, &mut rows);
    let found = rows.len();
    rows.truncate(choice.limit.unwrap_or(usize::MAX));

    let mut table = Table::new(columns(look.wide, choice.sort));
    for pair in rows.iter().map(|at| &answer.pairs[*at]) {
        let mut cells = cells(pair, answer, look.wide);
        if look.wide {
            cells.extend(more_cells(pair));
        }
        table.row(cells);
    }
    let empty =
        (found == 0 && hidden == 0).then(|| "no pairs yet: no container has sent a packet".to_owned());
    let cut = (found > rows.len()).then(|| format!("{} more pairs; --limit shows them", found - rows.len()));
    View::new(table.render(look))
        .with_note(empty)
        .with_note(cut)
        .with_note(hidden_note(hidden))
        .with_note(incomplete_note(&answer.hosts))
}

/// The column that the order is about stays, however narrow the terminal.
fn columns(wide: bool, sort: Order) -> Vec<Column> {
    let by = |orders: &[Order], keep: u8| if orders.contains(&sort) { NEEDED } else { keep };
    let volume = by(&[Order::Bytes], 140);
    let rates = by(&[Order::Rate], 90);
    let mut columns = vec![
        left("SRC").name(),
        left("DST").name(),
        left("PROTO").keep(by(&[Order::Proto], 120)),
        right("SENT").keep(by(&[Order::Sent], volume)),
        right("RECV").keep(by(&[Order::Recv], volume)),
        right("OUT/s").keep(by(&[Order::Out], rates)),
        right("IN/s").keep(by(&[Order::In], rates)),
        right("PKT/s").keep(by(&[Order::Packets], 70)),
        right("RTT50").keep(by(&[Order::Rtt50], 160)),
        right("RTT99").keep(by(&[Order::Rtt99], 150)),
        right("RETR").keep(by(&[Order::Retr], 130)),
        right("SEEN").keep(by(&[Order::Seen], 80)),
    ];
    if wide {
        columns.extend([
            left("TENANT"),
            left("SRC ADDRESSES"),
            left("DST ADDRESSES"),
            right("SENT PKT"),
            right("SENT SEG"),
            right("RECV PKT"),
            right("RECV SEG"),
            right("REORDERED"),
            right("RTT MIN"),
            right("RTT90"),
            right("RTT MAX"),
            right("SINGLETONS"),
            right("NEAR50"),
            right("NEAR99"),
            right("SHAKE50"),
            right("FLOWS"),
            right("ACTIVE"),
            left("AT"),
            left("GUESSED"),
            left("FIRST SEEN"),
        ]);
    }
    columns
}

fn cells(pair: &Pair, answer: &PairsAnswer, wide: bool) -> Vec<Cell> {
    let resent = pair.retransmitted_segments;
    let rtt = |pick| delays(pair.rtt_seconds.as_ref(), pick);
    vec![
        endpoint(&pair.src).into(),
        endpoint(&pair.dst).into(),
        if wide { list(&pair.protocols) } else { protocols(&pair.protocols) }.into(),
        tight(bytes(pair.sent.bytes)).into(),
        tight(bytes(pair.received.bytes)).into(),
        absent(pair.sent_bytes_per_second, byte_rate).into(),
        absent(pair.received_bytes_per_second, byte_rate).into(),
        absent(packet_rate(pair), rate).into(),
        rtt(|rtt| rtt.p50),
        rtt(|rtt| rtt.p99),
        toned(judge::resent(resent.unwrap_or(0), judge::segments(pair)), absent(resent, count)),
        since(pair.last_seen, answer.generated_at).into(),
    ]
}

/// The first few: an end outside may have thousands. JSON has them all.
fn addresses(all: &[IpAddr]) -> String {
    const SHOWN: usize = 4;
    match all.len().checked_sub(SHOWN) {
        Some(more) if more > 1 => format!("{},+{more}", list(&all[..SHOWN])),
        _ => list(all),
    }
}

fn more_cells(pair: &Pair) -> Vec<Cell> {
    let rtt = |pick: fn(&DelaySummary) -> f64| delays(pair.rtt_seconds.as_ref(), pick);
    let near = |pick: fn(&DelaySummary) -> f64| delays(pair.near_rtt_seconds.as_ref(), pick);
    vec![
        tenants(&pair.src, &pair.dst).into(),
        addresses(&pair.src.addresses).into(),
        addresses(&pair.dst.addresses).into(),
        tight(count(pair.sent.packets)).into(),
        tight(count(pair.sent.segments)).into(),
        tight(count(pair.received.packets)).into(),
        tight(count(pair.received.segments)).into(),
        absent(pair.reordered_segments, count).into(),
        rtt(|rtt| rtt.min),
        rtt(|rtt| rtt.p90),
        rtt(|rtt| rtt.max),
        absent(pair.rtt_seconds.as_ref().map(|rtt| rtt.count), count).into(),
        near(|near| near.p50),
        near(|near| near.p99),
        delays(pair.handshake_rtt_seconds.as_ref(), |shake| shake.p50),
        tight(count(pair.flows)).into(),
        tight(count(pair.active_flows)).into(),
        match pair.observed_at {
            ObservedAt::Src => "src".into(),
            ObservedAt::Dst => "dst".into(),
        },
        yes(pair.role_guessed).into(),
        crate::format::time(pair.first_seen).into(),
    ]
}
