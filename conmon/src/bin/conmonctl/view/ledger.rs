//! Where every packet was counted.

use conmon::api::{Ledger, LedgerAnswer, PortLedger};

use super::{View, or_absent};
use crate::format::{bytes, tight};
use crate::look::Look;
use crate::table::{Cell, Table, left, right, toned};
use crate::tone::Tone;

/// The ledger, then a table of ports. Packets are shown to the last digit: the point is that they add up.
pub fn ledger(answer: &LedgerAnswer, look: Look) -> View {
    let mut text = lines(&answer.ledger, look);
    text.push('\n');
    let classes: Vec<&str> = {
        let mut classes: Vec<&str> =
            answer.ports.iter().flat_map(|port| port.packets_by_class.keys().map(String::as_str)).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    };
    let mut columns = vec![
        left("INTERFACE").keep(150),
        left("CONTAINER").name(),
        right("SENT PKT"),
        right("SENT").keep(81),
        right("RECV PKT"),
        right("RECV").keep(80),
        left("INTERFACE AGREES"),
    ];
    if look.wide {
        columns.extend([
            left("TENANT"),
            right("INTERFACE SENT"),
            right("INTERFACE RECV"),
            left("PACKETS BY CLASS"),
        ]);
    }
    let mut table = Table::new(columns);
    for port in &answer.ports {
        let mut cells = vec![
            port.interface.clone().into(),
            or_absent(port.container.clone(), |name| name).into(),
            port.sent.packets.to_string().into(),
            tight(bytes(port.sent.bytes)).into(),
            port.received.packets.to_string().into(),
            tight(bytes(port.received.bytes)).into(),
            agreement(port),
        ];
        if look.wide {
            let by_class: Vec<String> = classes
                .iter()
                .filter_map(|class| {
                    port.packets_by_class.get(*class).map(|packets| format!("{class}={packets}"))
                })
                .collect();
            cells.extend([
                or_absent(port.tenant.clone(), |tenant| tenant).into(),
                or_absent(port.interface_sent_packets, |packets| packets.to_string()).into(),
                or_absent(port.interface_received_packets, |packets| packets.to_string()).into(),
                by_class.join(" ").into(),
            ]);
        }
        table.row(cells);
    }
    text.push_str(&table.render(look));
    View::new(text)
}

/// The ledger in lines, losses by reason.
pub fn lines(ledger: &Ledger, look: Look) -> String {
    let lost: u64 = ledger.lost.values().fold(0, |sum, packets| sum.saturating_add(*packets));
    let mut text = format!(
        "observed      {}\nselected      {}\nnot selected  {}\nlost          {lost}\n",
        ledger.observed, ledger.selected, ledger.not_selected
    );
    for (reason, packets) in &ledger.lost {
        text.push_str(&format!("  {:<11} {packets}\n", crate::format::harmless(reason)));
    }
    text.push_str("balanced      ");
    text.push_str(&if ledger.balanced {
        look.paint(Tone::Good, "yes: every packet is accounted for") + "\n"
    } else {
        look.paint(Tone::Bad, "NO: observed differs from selected + not selected + lost") + "\n"
    });
    text
}

/// How far our counters are from the interface's own, both directions.
fn agreement(port: &PortLedger) -> Cell {
    let (Some(sent), Some(received)) = (port.interface_sent_packets, port.interface_received_packets) else {
        return crate::format::ABSENT.into();
    };
    let difference = |ours: u64, theirs: u64| i128::from(ours) - i128::from(theirs);
    match (difference(port.sent.packets, sent), difference(port.received.packets, received)) {
        (0, 0) => "yes".into(),
        (sent, received) => toned(Tone::Bad, format!("sent {sent:+}, received {received:+}")),
    }
}
