//! Application containers, one row for each network they are on.

use conmon::api::{Container, ContainersAnswer, Network};

use super::{View, list, or_absent};
use crate::format::{ABSENT, delay, time};
use crate::table::{Left, Right, Table};

/// The table of containers.
pub fn containers(answer: &ContainersAnswer, wide: bool) -> View {
    let mut columns = vec![
        Left("NAME"),
        Left("TENANT"),
        Left("SERVICE"),
        Left("STATE"),
        Left("NETWORK"),
        Left("ADDRESSES"),
        Left("TAPPED"),
        Left("MONITOR"),
        Left("NOTE"),
    ];
    if wide {
        columns.extend([
            Left("ID"),
            Left("INTERFACE"),
            Left("JOINED AT"),
            Left("TAPPED AT"),
            Left("LINK UP AT"),
            Left("NAMED AT"),
            Right("TAPPED AFTER"),
            Right("NAMED AFTER"),
        ]);
    }
    let mut table = Table::new(columns);
    for container in &answer.containers {
        if container.networks.is_empty() {
            table.row(row(container, None, wide));
        }
        for network in &container.networks {
            table.row(row(container, Some(network), wide));
        }
    }
    let empty = answer.containers.is_empty().then(|| "no containers: the engine knows none".to_owned());
    View::new(table.render()).with_note(empty)
}

fn row(container: &Container, network: Option<&Network>, wide: bool) -> Vec<String> {
    let mut cells = vec![
        container.name.clone(),
        container.tenant.clone(),
        or_absent(container.service.clone(), |service| service),
        container.state.clone(),
        or_absent(network, |network| network.name.clone()),
        or_absent(network, |network| list(&network.addresses)),
        or_absent(network, tapped),
        or_absent(container.monitor.clone(), |monitor| monitor),
        container.note.clone().unwrap_or_default(),
    ];
    if wide {
        let at = |pick: fn(&Network) -> Option<jiff::Timestamp>| or_absent(network.and_then(pick), time);
        let after = |pick: fn(&Network) -> Option<f64>| or_absent(network.and_then(pick), delay);
        cells.extend([
            container.id.chars().take(12).collect(),
            or_absent(network.and_then(|network| network.interface.clone()), |interface| interface),
            at(|network| network.joined_at),
            at(|network| network.tapped_at),
            at(|network| network.link_up_at),
            at(|network| network.named_at),
            after(|network| network.tapped_after_seconds),
            after(|network| network.named_after_seconds),
        ]);
    }
    cells
}

/// Whether the tap was there before the link came up, and so before the first packet.
fn tapped(network: &Network) -> String {
    match (network.tapped_at, network.link_up_at) {
        (None, _) => ABSENT.to_owned(),
        (Some(tapped), Some(up)) if tapped <= up => "before link up".to_owned(),
        (Some(tapped), Some(up)) => {
            format!("{} after link up", delay(tapped.duration_since(up).as_secs_f64()))
        }
        // The container ran before the daemon did.
        (Some(_), None) => "while running".to_owned(),
    }
}
