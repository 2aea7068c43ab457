//! Flow records.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use conmon::api::{Flow, FlowState, FlowsAnswer, ObservedAt};
use jiff::Timestamp;

use super::{View, absent, cut_note, endpoint, hidden_note, or_absent, tenants, yes};
use crate::format::{bytes, count, counted, since, tight, time};
use crate::judge;
use crate::look::Look;
use crate::table::{Table, left, right, toned};
use crate::tone::Tone;

/// The table of flow records, in the answer's order. Without `all`, multicast rows are only counted, and so are records
/// of flows that the port of src has a record of, too.
pub fn flows(answer: &FlowsAnswer, look: Look, all: bool) -> View {
    let multicast = |flow: &&Flow| flow.src.is_multicast() || flow.dst.is_multicast();
    let mut rows: Vec<&Flow> = answer.flows.iter().filter(|flow| all || !multicast(flow)).collect();
    let hidden = answer.flows.len() - rows.len();
    let again = if all { 0 } else { keep_one_of_each(&mut rows) };
    let mut columns = vec![
        left("SRC").name(),
        left("DST").name(),
        left("PROTO").keep(110),
        left("SRC ADDRESS").keep(80),
        left("DST ADDRESS").keep(150),
        right("SENT").keep(140),
        right("RECV").keep(140),
        left("STATE").keep(120),
        right("AGE").keep(50),
        right("SEEN").keep(60),
    ];
    if look.wide {
        columns.extend([
            left("REASON"),
            left("TENANT"),
            right("SENT PKT"),
            right("SENT SEG"),
            right("RECV PKT"),
            right("RECV SEG"),
            right("RETR"),
            right("REORDERED"),
            left("SRC FLAGS"),
            left("DST FLAGS"),
            left("INTERFACE"),
            left("AT"),
            left("GUESSED"),
            left("FIRST SEEN"),
        ]);
    }
    let mut table = Table::new(columns);
    for flow in rows.iter().copied() {
        let ended = flow.state == FlowState::Ended;
        let tone = if ended { Tone::Faint } else { Tone::Plain };
        let mut cells = vec![
            endpoint(&flow.src).into(),
            endpoint(&flow.dst).into(),
            flow.protocol.clone().into(),
            address(flow.src_address, flow.src_port).into(),
            address(flow.dst_address, flow.dst_port).into(),
            tight(bytes(flow.sent.bytes)).into(),
            tight(bytes(flow.received.bytes)).into(),
            toned(tone, if ended { "ended" } else { "active" }),
            since(flow.first_seen, answer.generated_at).into(),
            since(flow.last_seen, answer.generated_at).into(),
        ];
        if look.wide {
            let segments = flow.sent.segments.saturating_add(flow.received.segments);
            let resent = flow.retransmitted_segments;
            cells.extend([
                or_absent(flow.end_reason, |reason| reason.as_str().to_owned()).into(),
                tenants(&flow.src, &flow.dst).into(),
                tight(count(flow.sent.packets)).into(),
                tight(count(flow.sent.segments)).into(),
                tight(count(flow.received.packets)).into(),
                tight(count(flow.received.segments)).into(),
                toned(judge::resent(resent.unwrap_or(0), segments), absent(resent, count)),
                absent(flow.reordered_segments, count).into(),
                or_absent(flow.src_tcp_flags.as_ref(), |flags| flags.join("+")).into(),
                or_absent(flow.dst_tcp_flags.as_ref(), |flags| flags.join("+")).into(),
                or_absent(flow.interface.clone(), |name| name).into(),
                match flow.observed_at {
                    ObservedAt::Src => "src".into(),
                    ObservedAt::Dst => "dst".into(),
                },
                yes(flow.role_guessed).into(),
                time(flow.first_seen).into(),
            ]);
        }
        table.row(cells);
    }
    let empty = answer.flows.is_empty().then(|| "no flows".to_owned());
    View::new(table.render(look))
        .with_note(empty)
        .with_note(hidden_note(hidden))
        .with_note((again > 0).then(|| {
            let records = counted(again as u64, "second record", "second records");
            format!("{records} of flows that both ends' ports counted hidden; --all shows them")
        }))
        .with_note(cut_note(answer.matched, answer.flows.len(), "flows"))
}

/// Leaves out what dst's port has of a flow that src's port has too. Returns how many went.
fn keep_one_of_each(rows: &mut Vec<&Flow>) -> usize {
    let key = |flow: &Flow| {
        let ends = ((flow.src_address, flow.src_port), (flow.dst_address, flow.dst_port));
        (flow.protocol.clone(), ends, flow.icmp_identifier, flow.vlan)
    };
    let mut at_src: HashMap<_, Vec<(Timestamp, Timestamp)>> = HashMap::new();
    for flow in rows.iter().filter(|flow| flow.observed_at == ObservedAt::Src) {
        at_src.entry(key(flow)).or_default().push((flow.first_seen, flow.last_seen));
    }
    let before = rows.len();
    rows.retain(|flow| {
        // Port numbers are used again: it is the same flow if it was there at the same time.
        let same =
            |(first, last): &(Timestamp, Timestamp)| *first <= flow.last_seen && flow.first_seen <= *last;
        flow.observed_at == ObservedAt::Src
            || !at_src.get(&key(flow)).is_some_and(|times| times.iter().any(same))
    });
    before - rows.len()
}

/// `10.0.0.2:80`, `[fd00::2]:80`, or the address alone.
pub fn address(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}
