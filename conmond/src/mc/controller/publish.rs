//! The picture of the world that others see.

use std::collections::BTreeSet;

use conmon::api;

use super::*;
use crate::clock::Wall;
use crate::mc::shared::{PortInfo, Published, SetInfo, Translated};
use crate::mc::world::{ContainerSeen, Growth, Tapping};
use crate::runtime::ContainerState;

impl Work {
    pub(super) fn picture(&self) -> Published {
        let mut refused: Vec<(String, String)> =
            self.world.refused.iter().map(|(i, (why, _))| (self.interface(*i), why.clone())).collect();
        refused.sort();
        let watched = |s: &&LinkSeen| s.link.is_veth() && self.world.watched_bridge(&s.link).is_some();
        let untapped = self
            .world
            .links
            .values()
            .filter(watched)
            .filter(|s| !self.is_tapped_or_will_be(s.link.ifindex) && !self.opted_out(s.link.ifindex))
            .count();
        let pool = self.world.sets.values().filter(|s| s.role == SetRole::Pool);
        let ports = self.world.taps.iter().map(|(ifindex, tap)| self.port_view(*ifindex, tap));
        let ready = pool.filter(|s| matches!(s.monitor, MonitorSeen::Connected { .. })).count();
        Published {
            engine: api::EngineStatus {
                name: self.engine_version.as_ref().map(|v| v.kind).unwrap_or_default().name().into(),
                address: self.engine_address.clone(),
                connected: self.world.engine,
                version: self.engine_version.as_ref().map(|v| v.engine.clone()),
                error: self.engine_error.clone(),
            },
            ready: self.snapshots > 0 || self.engine_error.is_some(),
            problems: self.problems(),
            containers: self.containers_view(|_| true),
            monitors: Arc::new(self.monitors_view()),
            heard: self
                .world
                .sets
                .iter()
                .filter_map(|(id, s)| match s.monitor {
                    MonitorSeen::Connected { heard_at, .. } => Some((*id, heard_at)),
                    _ => None,
                })
                .collect(),
            pool: api::Pool { ready: ready as u32, wanted: self.world.wishes.pool as u32 },
            sets: Arc::new(self.sets_view()),
            ports: Arc::new(ports.collect()),
            attachment: self.attachment().to_owned(),
            nat_error: self.nat_error.clone(),
            translations: self.translations(|t| Translated {
                known: t.len() as u64,
                full: t.full,
                overruns: t.overruns,
            }),
            counting_since: self.world.taps.values().map(|t| t.tapped_at).min(),
            restarts: self.restarts.clone(),
            gone_monitors_cpu: self.gone_cpu,
            refused,
            untapped,
        }
    }

    /// The picture before, with these containers as they are now: it is made quickly. All else in it is as it was.
    pub(super) fn picture_with(&self, before: &Published, ids: &[String]) -> Published {
        let mut picture = before.clone();
        let views = self.containers_view(|c| ids.contains(&c.container.id));
        picture.containers.retain(|c| !ids.contains(&c.id));
        picture.containers.extend(views);
        picture
    }

    /// What a port's programs are attached by in the end.
    fn attachment(&self) -> &'static str {
        if self.world.wishes.fasten && !self.attachment.is_empty() { "tcx" } else { self.attachment }
    }

    /// One that the tapper has for long is not tapped, whatever comes.
    fn is_tapped_or_will_be(&self, ifindex: u32) -> bool {
        let now = monotonic();
        let will_be = |t: &Tapping| now - t.since < AT_LATEST;
        self.world.taps.contains_key(&ifindex) || self.world.tapping.get(&ifindex).is_some_and(will_be)
    }

    fn opted_out(&self, ifindex: u32) -> bool {
        let owner = self.world.owners.get(&ifindex).and_then(|o| self.world.containers.get(&o.container));
        owner.is_some_and(|c| !self.world.wants(&c.container))
    }

    pub(super) fn tenant_of(&self, role: &SetRole) -> Option<String> {
        match role {
            SetRole::Nursery | SetRole::Pool => None,
            SetRole::Tenant(t) => Some(t.clone()),
            SetRole::Dedicated(id) => {
                self.world.containers.get(id).map(|c| c.container.policy.tenant.clone())
            }
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(error) = &self.engine_error
            && !self.world.engine
        {
            all.push(format!("the engine does not answer ({error}); counting goes on, new containers are named when it is back"));
        } else if let Some(error) = &self.engine_error {
            all.push(format!(
                "the engine does not tell of its containers ({error}); counting goes on without names"
            ));
        }
        all.extend(self.monitor_problem());
        if let Some(error) = &self.load_error {
            all.push(format!("no set can be loaded for new tenants ({error})"));
        }
        all.extend(self.grow_problem());
        all.extend(self.extend_problem());
        for (network, why) in &self.overlays_failed {
            all.push(format!("the overlay network {network} is not watched: {why}"));
        }
        for (ifindex, (why, _)) in &self.world.refused {
            all.push(format!("{} is not tapped: {why}", self.interface(*ifindex)));
        }
        all
    }

    fn port_view(&self, ifindex: u32, tap: &TapSeen) -> PortInfo {
        let owner = self.world.owners.get(&ifindex).and_then(|o| self.world.containers.get(&o.container));
        PortInfo {
            ifindex,
            interface: self.interface(ifindex),
            container: owner.map(|c| (c.container.id.clone(), c.container.name.clone())),
            tenant: owner.map(|c| c.container.policy.tenant.clone()),
            service: owner.and_then(|c| c.container.policy.service.clone()),
            set: tap.set,
            tapped_at: tap.tapped_at,
            baseline: self.baseline(ifindex),
        }
    }

    fn containers_view(&self, wanted: impl Fn(&ContainerSeen) -> bool) -> Vec<Arc<api::Container>> {
        let wall = Wall::now();
        // looked through once, not once for each container: there may be hundreds, and somebody waits for a stop to be seen
        let mut endpoints: HashMap<&str, Vec<Place<'_>>> = HashMap::new();
        for (id, network) in &self.world.networks {
            for endpoint in &network.endpoints {
                let place = Place { id, name: &network.network.name, addresses: &endpoint.addresses };
                endpoints.entry(&endpoint.container_id).or_default().push(place);
            }
        }
        let mut ports: HashMap<&str, Vec<(u32, &PortOwner)>> = HashMap::new();
        for (ifindex, owner) in &self.world.owners {
            ports.entry(&owner.container).or_default().push((*ifindex, owner));
        }
        let of = |c: &ContainerSeen| {
            let id = c.container.id.as_str();
            let endpoints = endpoints.get(id).map_or(&[][..], Vec::as_slice);
            Arc::new(self.container_view(c, wall, endpoints, ports.get(id).map_or(&[][..], Vec::as_slice)))
        };
        self.world.containers.values().filter(|c| wanted(c)).map(of).collect()
    }

    fn container_view(
        &self,
        seen: &ContainerSeen,
        wall: Wall,
        endpoints: &[Place<'_>],
        ports: &[(u32, &PortOwner)],
    ) -> api::Container {
        let c = &seen.container;
        let mut networks: BTreeMap<&str, api::Network> = BTreeMap::new();
        let blank = |name: &str, addresses: &[std::net::IpAddr]| api::Network {
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            interface: None,
            joined_at: None,
            link_up_at: None,
            tapped_at: None,
            named_at: None,
            tapped_by: None,
            tapped_after_seconds: None,
            named_after_seconds: None,
        };
        for endpoint in &c.networks {
            networks.insert(&endpoint.network_id, blank(&endpoint.network_name, &endpoint.addresses));
        }
        for place in endpoints {
            networks.insert(place.id, blank(place.name, place.addresses));
        }
        let mut tenant_sets = BTreeSet::new();
        for (ifindex, owner) in ports {
            let Some(view) = networks.get_mut(owner.network.as_str()) else { continue };
            view.interface = Some(self.interface(*ifindex));
            view.named_at = Some(wall.utc(owner.named_at));
            view.named_after_seconds = owner.after.map(|a| a.as_secs_f64());
            if let Some(link) = self.world.links.get(ifindex) {
                view.joined_at = link.joined_at.map(|t| wall.utc(t));
                view.link_up_at = link.up_at.map(|t| wall.utc(t));
            }
            if let Some(tap) = self.world.taps.get(ifindex) {
                tenant_sets.insert(tap.set);
                view.tapped_at = Some(wall.utc(tap.tapped_at));
                let joined = self.world.links.get(ifindex).and_then(|l| l.joined_at);
                view.tapped_by = self.ports.get(ifindex).map(|t| t.how.to_owned());
                view.tapped_after_seconds = joined.map(|j| (tap.tapped_at - j).as_secs_f64());
            }
        }
        let monitor = tenant_sets
            .iter()
            .find(|id| self.world.sets.get(id).is_some_and(|s| s.role != SetRole::Nursery))
            .map(|id| self.reader_name(*id));
        let note = self.note(seen, &networks);
        let mut places: Vec<api::Network> = networks.into_values().collect();
        places.sort_by(|a, b| a.name.cmp(&b.name));
        api::Container {
            name: c.name.clone(),
            id: c.id.clone(),
            tenant: c.policy.tenant.clone(),
            service: c.policy.service.clone(),
            state: state_word(c.state).to_owned(),
            note,
            networks: places,
            monitor,
        }
    }

    fn sets_view(&self) -> Vec<SetInfo> {
        let view = |(id, s): (&SetId, &SetSeen)| {
            Some(SetInfo {
                id: *id,
                role: s.role.clone(),
                tenant: self.tenant_of(&s.role),
                spec: self.hands.get(id)?.set.spec(),
                max_flows: self.world.wishes.room.max_flows,
                outgrown: s.table.full_before,
                grows: matches!(s.table.stage, Growth::Making | Growth::Moving | Growth::Draining),
                extends: tap::Extensible::ALL.map(|of| {
                    let table = &s.extending[of as usize];
                    (table.has_more(of, &self.world.wishes.room) && table.error.is_none(), table.lost_before)
                }),
            })
        };
        self.world.sets.iter().filter_map(view).collect()
    }

    fn monitors_view(&self) -> Vec<(SetId, api::Monitor, Alive)> {
        let mut all = Vec::new();
        for (id, set) in &self.world.sets {
            let (state, container_id) = match &set.monitor {
                _ if set.standin => (api::MonitorState::Working, None),
                MonitorSeen::Inline => (api::MonitorState::Working, None),
                MonitorSeen::Missing { .. } => (api::MonitorState::Gone, None),
                MonitorSeen::Starting { .. } => (api::MonitorState::Starting, None),
                MonitorSeen::Started { id, .. } => (api::MonitorState::Starting, Some(id.clone())),
                MonitorSeen::Connected { id, .. } if set.role == SetRole::Pool => {
                    (api::MonitorState::Ready, Some(id.clone()))
                }
                MonitorSeen::Connected { id, .. } => (api::MonitorState::Working, Some(id.clone())),
            };
            let mode = match &set.role {
                SetRole::Nursery => api::MonitorMode::Host,
                _ if set.standin => api::MonitorMode::Host,
                SetRole::Dedicated(_) => api::MonitorMode::Dedicated,
                SetRole::Tenant(_) | SetRole::Pool => api::MonitorMode::Shared,
            };
            let container = match &set.role {
                SetRole::Dedicated(id) => self.world.containers.get(id).map(|c| c.container.name.clone()),
                _ => None,
            };
            let alive = self.alive.get(id).copied().unwrap_or_default();
            let name = self.reader_name(*id);
            let monitor = api::Monitor {
                name,
                id: container_id,
                tenant: self.tenant_of(&set.role),
                container,
                mode,
                state,
                functions: vec!["flow".to_owned(), "rtt".to_owned()],
                last_report_at: None,
                last_report_age_seconds: None,
                restarts: set.restarts,
                memory_bytes: alive.memory_bytes.filter(|_| set.role != SetRole::Nursery && !set.standin),
            };
            all.push((*id, monitor, alive));
        }
        all
    }
}

/// A container's place on a network, as the network tells.
struct Place<'a> {
    id: &'a str,
    name: &'a str,
    addresses: &'a [std::net::IpAddr],
}

fn state_word(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Paused => "paused",
        ContainerState::Restarting => "restarting",
        ContainerState::Exited => "exited",
        ContainerState::Dead => "dead",
    }
}
