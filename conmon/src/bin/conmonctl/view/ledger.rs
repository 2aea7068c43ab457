//! Where every packet was counted.

use conmon::api::{Ledger, LedgerAnswer, PortLedger};

use super::{View, or_absent};
use crate::format::bytes;
use crate::table::{Left, Right, Table};

/// The ledger, then a table of ports. Packets are shown to the last digit: the point is that they add up.
pub fn ledger(answer: &LedgerAnswer, wide: bool) -> View {
    let mut text = lines(&answer.ledger);
    text.push('\n');
    let classes: Vec<&str> = {
        let mut classes: Vec<&str> =
            answer.ports.iter().flat_map(|port| port.packets_by_class.keys().map(String::as_str)).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    };
    let mut columns = vec![
        Left("INTERFACE"),
        Left("CONTAINER"),
        Right("SENT PKTS"),
        Right("SENT"),
        Right("RECV PKTS"),
        Right("RECEIVED"),
        Left("INTERFACE AGREES"),
    ];
    if wide {
        columns.extend([
            Left("TENANT"),
            Right("INTERFACE SENT"),
            Right("INTERFACE RECV"),
            Left("PACKETS BY CLASS"),
        ]);
    }
    let mut table = Table::new(columns);
    for port in &answer.ports {
        let mut cells = vec![
            port.interface.clone(),
            or_absent(port.container.clone(), |name| name),
            port.sent.packets.to_string(),
            bytes(port.sent.bytes),
            port.received.packets.to_string(),
            bytes(port.received.bytes),
            agreement(port),
        ];
        if wide {
            let by_class: Vec<String> = classes
                .iter()
                .filter_map(|class| {
                    port.packets_by_class.get(*class).map(|packets| format!("{class}={packets}"))
                })
                .collect();
            cells.extend([
                or_absent(port.tenant.clone(), |tenant| tenant),
                or_absent(port.interface_sent_packets, |packets| packets.to_string()),
                or_absent(port.interface_received_packets, |packets| packets.to_string()),
                by_class.join(" "),
            ]);
        }
        table.row(cells);
    }
    text.push_str(&table.render());
    View::new(text)
}

/// The ledger in lines, losses by reason.
pub fn lines(ledger: &Ledger) -> String {
    let lost: u64 = ledger.lost.values().fold(0, |sum, packets| sum.saturating_add(*packets));
    let mut text = format!(
        "observed      {}\nselected      {}\nnot selected  {}\nlost          {lost}\n",
        ledger.observed, ledger.selected, ledger.not_selected
    );
    for (reason, packets) in &ledger.lost {
        text.push_str(&format!("  {:<11} {packets}\n", crate::format::harmless(reason)));
    }
    text.push_str(if ledger.balanced {
        "balanced      yes: every packet is accounted for\n"
    } else {
        "balanced      NO: observed differs from selected + not selected + lost\n"
    });
    text
}

/// How far our counters are from the interface's own, both directions.
fn agreement(port: &PortLedger) -> String {
    let (Some(sent), Some(received)) = (port.interface_sent_packets, port.interface_received_packets) else {
        return crate::format::ABSENT.to_owned();
    };
    let difference = |ours: u64, theirs: u64| i128::from(ours) - i128::from(theirs);
    match (difference(port.sent.packets, sent), difference(port.received.packets, received)) {
        (0, 0) => "yes".to_owned(),
        (sent, received) => format!("sent {sent:+}, received {received:+}"),
    }
}
