//! Application containers, one row for each network they are on.

use conmon::api::{Container, ContainersAnswer, Network};

use super::{View, absent, list, or_absent};
use crate::format::{ABSENT, delay, tight, time};
use crate::look::Look;
use crate::table::{Cell, Table, left, right, toned};
use crate::tone::Tone;

/// The table of containers.
pub fn containers(answer: &ContainersAnswer, look: Look) -> View {
    let mut columns = vec![
        left("NAME").name(),
        left("TENANT").keep(110),
        left("SERVICE").keep(60),
        left("STATE").keep(140),
        left("NETWORK").keep(70),
        left("ADDRESSES").keep(120),
        left("TAPPED").keep(130),
        left("MONITOR").keep(50),
    ];
    if look.wide {
        columns.extend([
            left("ID"),
            left("INTERFACE"),
            left("JOINED AT"),
            left("TAPPED AT"),
            left("LINK UP AT"),
            left("NAMED AT"),
            right("TAPPED AFTER"),
            right("NAMED AFTER"),
            left("NOTE"),
        ]);
    }
    let mut table = Table::new(columns);
    for container in &answer.containers {
        if container.networks.is_empty() {
            table.row(row(container, None, look.wide));
        }
        for network in &container.networks {
            table.row(row(container, Some(network), look.wide));
        }
    }
    let empty = answer.containers.is_empty().then(|| "no containers: the engine knows none".to_owned());
    let mut view = View::new(table.render(look)).with_note(empty);
    for container in answer.containers.iter().filter(|_| !look.wide) {
        // Sentences have no place in a narrow table, and are too important to be left out.
        view = view.with_note(container.note.as_ref().map(|note| format!("{}: {note}", container.name)));
    }
    view
}

fn row(container: &Container, network: Option<&Network>, wide: bool) -> Vec<Cell> {
    let mut cells = vec![
        container.name.clone().into(),
        container.tenant.clone().into(),
        or_absent(container.service.clone(), |service| service).into(),
        container.state.clone().into(),
        or_absent(network, |network| network.name.clone()).into(),
        or_absent(network, |network| list(&network.addresses)).into(),
        network.map_or_else(|| ABSENT.into(), tapped),
        or_absent(container.monitor.clone(), |monitor| monitor).into(),
    ];
    if wide {
        let at = |pick: fn(&Network) -> Option<jiff::Timestamp>| or_absent(network.and_then(pick), time);
        let after = |pick: fn(&Network) -> Option<f64>| absent(network.and_then(pick), delay);
        cells.extend([
            container.id.chars().take(12).collect::<String>().into(),
            or_absent(network.and_then(|network| network.interface.clone()), |interface| interface).into(),
            at(|network| network.joined_at).into(),
            at(|network| network.tapped_at).into(),
            at(|network| network.link_up_at).into(),
            at(|network| network.named_at).into(),
            after(|network| network.tapped_after_seconds).into(),
            after(|network| network.named_after_seconds).into(),
            container.note.clone().unwrap_or_default().into(),
        ]);
    }
    cells
}

/// Whether the tap was there before the link came up, and so before the first packet.
fn tapped(network: &Network) -> Cell {
    match (network.tapped_at, network.link_up_at) {
        (None, _) => toned(Tone::Warn, ABSENT),
        (Some(tapped), Some(up)) if tapped <= up => "before link up".into(),
        (Some(tapped), Some(up)) => {
            let after = tight(delay(tapped.duration_since(up).as_secs_f64()));
            toned(Tone::Warn, format!("{after} after link up"))
        }
        // The container ran before the daemon did.
        (Some(_), None) => "while running".into(),
    }
}
