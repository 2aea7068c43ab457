//! Flow records.

use std::net::{IpAddr, SocketAddr};

use conmon::api::{Flow, FlowState, FlowsAnswer, ObservedAt};

use super::{View, cut_note, endpoint, hidden_note, or_absent, tenants, yes};
use crate::format::{bytes, count, since, time};
use crate::table::{Left, Right, Table};

/// The table of flow records, in the answer's order. Without `all`, multicast rows are only counted.
pub fn flows(answer: &FlowsAnswer, wide: bool, all: bool) -> View {
    let rows: Vec<&Flow> = answer
        .flows
        .iter()
        .filter(|flow| all || !(flow.src.is_multicast() || flow.dst.is_multicast()))
        .collect();
    let mut columns = vec![
        Left("SRC"),
        Left("DST"),
        Left("PROTO"),
        Left("SRC ADDRESS"),
        Left("DST ADDRESS"),
        Right("SENT"),
        Right("RECEIVED"),
        Left("STATE"),
        Right("AGE"),
        Right("SEEN"),
    ];
    if wide {
        columns.extend([
            Left("TENANT"),
            Right("SENT PKTS"),
            Right("SENT SEGS"),
            Right("RECV PKTS"),
            Right("RECV SEGS"),
            Right("RETRANS"),
            Right("REORDERED"),
            Left("SRC FLAGS"),
            Left("DST FLAGS"),
            Left("INTERFACE"),
            Left("AT"),
            Left("GUESSED"),
            Left("FIRST SEEN"),
        ]);
    }
    let mut table = Table::new(columns);
    for flow in rows.iter().copied() {
        let mut cells = vec![
            endpoint(&flow.src),
            endpoint(&flow.dst),
            flow.protocol.clone(),
            address(flow.src_address, flow.src_port),
            address(flow.dst_address, flow.dst_port),
            bytes(flow.sent.bytes),
            bytes(flow.received.bytes),
            state(flow),
            since(flow.first_seen, answer.generated_at),
            since(flow.last_seen, answer.generated_at),
        ];
        if wide {
            cells.extend([
                tenants(&flow.src, &flow.dst),
                count(flow.sent.packets),
                count(flow.sent.segments),
                count(flow.received.packets),
                count(flow.received.segments),
                or_absent(flow.retransmitted_segments, count),
                or_absent(flow.reordered_segments, count),
                or_absent(flow.src_tcp_flags.as_ref(), |flags| flags.join("+")),
                or_absent(flow.dst_tcp_flags.as_ref(), |flags| flags.join("+")),
                or_absent(flow.interface.clone(), |name| name),
                match flow.observed_at {
                    ObservedAt::Src => "src".to_owned(),
                    ObservedAt::Dst => "dst".to_owned(),
                },
                yes(flow.role_guessed),
                time(flow.first_seen),
            ]);
        }
        table.row(cells);
    }
    let empty = answer.flows.is_empty().then(|| "no flows".to_owned());
    View::new(table.render())
        .with_note(empty)
        .with_note(hidden_note(answer.flows.len() - rows.len()))
        .with_note(cut_note(answer.matched, answer.flows.len(), "flows"))
}

/// `10.0.0.2:80`, `[fd00::2]:80`, or the address alone.
pub fn address(address: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

/// `active`, or why it ended.
pub fn state(flow: &Flow) -> String {
    match (flow.state, flow.end_reason) {
        (FlowState::Active, _) => "active".to_owned(),
        (FlowState::Ended, None) => "ended".to_owned(),
        (FlowState::Ended, Some(reason)) => format!("ended ({})", reason.as_str().replace('_', " ")),
    }
}
