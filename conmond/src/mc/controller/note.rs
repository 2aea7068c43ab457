//! What is out of the ordinary about a container, in words: above all, what of its traffic is measured, what is not,
//! and why.

use std::collections::BTreeMap;

use conmon::api;

use super::*;
use crate::mc::world::ContainerSeen;
use crate::runtime::NetworkMode;

impl Work {
    pub(super) fn note(&self, seen: &ContainerSeen, places: &BTreeMap<&str, api::Network>) -> Option<String> {
        let c = &seen.container;
        let mut notes = c.policy.problems.clone();
        if !self.world.wants(c) {
            let how = if c.policy.enable.is_some() { "its label conmon.enable" } else { "--opt-in" };
            notes.push(format!("not watched, by {how}"));
        } else if c.state.is_alive() {
            let untapped: Vec<(&str, &str)> = places
                .iter()
                .filter(|(_, place)| place.tapped_at.is_none())
                .filter_map(|(id, place)| {
                    let network = &self.world.networks.get(*id)?.network;
                    Some((place.name.as_str(), network.driver.as_str()))
                })
                .collect();
            let tapped = places.values().any(|place| place.tapped_at.is_some());
            let sharer = |other: &str| self.container_by(other);
            let search = self.world.searches.get(&c.id).and_then(|s| s.why.as_deref());
            notes.extend(coverage(c.mode.as_ref(), tapped, &untapped, search, sharer));
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// A container's name, by its identifier, the beginning of it, or its name.
    fn container_by(&self, other: &str) -> Option<String> {
        let all = &self.world.containers;
        let exact = all.get(other).or_else(|| all.values().find(|c| c.container.name == other));
        let found = exact.or_else(|| all.iter().find(|(id, _)| id.starts_with(other)).map(|(_, c)| c));
        Some(found?.container.name.clone())
    }
}

/// What is measured of a container that runs and is to be watched; none where all of it is. `untapped`: name and kind of
/// each network on which it has a place and no port that is tapped. `no_group`: why its control group is not.
fn coverage(
    mode: Option<&NetworkMode>,
    tapped: bool,
    untapped: &[(&str, &str)],
    no_group: Option<&str>,
    name_of: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    match mode {
        Some(NetworkMode::Host) if tapped => Some(
            "uses the host's own network: what its sockets send and receive is measured at its control group; what it \
             exchanges with containers is counted at their ports, too, as the host's"
                .to_owned(),
        ),
        Some(NetworkMode::Host) => {
            let why = no_group.map_or_else(String::new, |why| format!(" ({why})"));
            Some(format!(
                "uses the host's own network: it has no port, and its control group is not tapped{why}, so that nothing tells its \
                 packets from the host's; what it exchanges with containers is measured at their ports, as the host's"
            ))
        }
        Some(NetworkMode::Nothing) => Some("has no network: there is nothing to measure".to_owned()),
        Some(NetworkMode::Container(other)) => Some(match name_of(other) {
            Some(name) => {
                format!("uses {name}'s network: its traffic is counted at {name}'s port, as {name}'s")
            }
            None => "uses the network of another container, which is not there: nothing of it is measured"
                .to_owned(),
        }),
        Some(NetworkMode::Other(word)) => Some(format!(
            "uses a network that the engine did not make ({word}): it has no port on a bridge of this host, and is \
             not measured"
        )),
        Some(NetworkMode::Own) | None => {
            let each = untapped.iter().filter_map(|(name, kind)| place(name, kind));
            let mut all: Vec<String> = each.collect();
            if all.is_empty() && !tapped {
                all.push(match mode {
                    Some(_) => "is connected to no network: there is nothing to measure".to_owned(),
                    None => "whose network it uses is not known yet".to_owned(),
                });
            }
            (!all.is_empty()).then(|| all.join("; "))
        }
    }
}

/// Why a container's place on a network has no tap.
fn place(name: &str, kind: &str) -> Option<String> {
    match kind {
        "bridge" => Some(format!("its port on {name} is not tapped yet")),
        "macvlan" | "ipvlan" => Some(format!(
            "on {name}, of kind {kind}, it has no port on a bridge of this host: its traffic there passes by and is not \
             measured"
        )),
        "overlay" => Some(format!(
            "on {name}, of kind overlay, its port is on a bridge in another network namespace and is not tapped yet (it takes \
             Linux 6.6, and `tap` not at `clsact`)"
        )),
        // the mode has said it
        "host" | "null" => None,
        other => Some(format!(
            "on {name}, of kind {other}, it has no port on a bridge that is watched: it is not measured there"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(mode: Option<NetworkMode>, tapped: bool, untapped: &[(&str, &str)]) -> Option<String> {
        coverage(mode.as_ref(), tapped, untapped, Some("no version 2"), |other| {
            (other == "abc").then(|| "web".to_owned())
        })
    }

    #[test]
    fn each_way_to_have_no_port_has_its_words() {
        let own = Some(NetworkMode::Own);
        assert_eq!(words(own.clone(), true, &[]), None, "all of it is measured");
        assert_eq!(words(None, true, &[]), None);
        let told = |mode, untapped: &[_]| words(mode, false, untapped).unwrap_or_default();
        assert!(told(Some(NetworkMode::Host), &[("host", "host")]).contains("is not tapped (no version 2)"));
        let grouped = words(Some(NetworkMode::Host), true, &[]).unwrap_or_default();
        assert!(grouped.contains("measured at its control group"), "{grouped}");
        assert!(told(Some(NetworkMode::Nothing), &[("none", "null")]).contains("no network"));
        let shares = |id: &str| told(Some(NetworkMode::Container(id.to_owned())), &[]);
        assert!(shares("abc").contains("counted at web's port"));
        assert!(shares("xyz").contains("not there"));
        assert!(told(Some(NetworkMode::Other("pasta".into())), &[]).contains("(pasta)"));
        assert!(told(own.clone(), &[("net", "bridge")]).contains("port on net is not tapped yet"));
        assert!(told(own.clone(), &[("lan", "macvlan")]).contains("kind macvlan"));
        assert!(told(own.clone(), &[("swarm", "overlay")]).contains("another network namespace"));
        assert!(told(own.clone(), &[("x", "weave")]).contains("kind weave"));
        assert!(told(own.clone(), &[]).contains("no network"));
        assert!(told(None, &[]).contains("not known yet"));
        let both = words(own, true, &[("lan", "macvlan")]).unwrap_or_default();
        assert!(both.starts_with("on lan, of kind macvlan"), "one tapped, one not: {both}");
    }
}
