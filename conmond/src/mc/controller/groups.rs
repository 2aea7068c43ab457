//! Control groups of containers that use the host's network: looked for and tapped by the rigger, named at once, since they are found by
//! whose they are.

use super::*;
use crate::mc::rigger::GroupJob;
use crate::mc::world::{GroupSearch, GroupSeen};

/// A group is there some 100 ms after the engine told that its container connects to the host's network; so often it is looked for
/// every 20 ms, and every 2 s after that.
const EAGER: u32 = 100;
/// The whole hierarchy is looked through each time that the usual places were looked at so often.
const EVERYWHERE: u32 = 10;

impl Work {
    pub(super) fn tap_group(&mut self, container: String, set: SetId) {
        let (programs, dir) = (self.programs_of(set), self.set_dir(set));
        let search = self.world.searches.entry(container.clone()).or_default();
        let Some(hierarchy) = self.hierarchy.clone() else {
            search.again_at = Timestamp(u64::MAX);
            search.why = Some(
                "this host has no control groups of version 2, or conmond sees a part of them only".into(),
            );
            return;
        };
        search.again_at = monotonic() + Duration::from_millis(20);
        let Some(hand) = self.hands.get(&set) else { return };
        search.heading = Some((set, programs));
        let everywhere = search.tried % EVERYWHERE == EVERYWHERE - 1;
        let job =
            GroupJob { container, hierarchy, everywhere, id: set, set: hand.set.clone(), programs, dir };
        self.rigger.send(RiggerJob::Group(job));
    }

    pub(super) fn take_group(&mut self, job: GroupJob, found: Result<Port, String>) {
        self.dirty = true;
        let wanted = self.world.containers.get(&job.container).is_some_and(|c| c.ended_at.is_none());
        let port = match found {
            Ok(port) if wanted && self.world.sets.contains_key(&job.id) && port.is_alive() => port,
            // it ended meanwhile; should it have been started again, its new group is looked for
            Ok(port) => {
                self.world.searches.remove(&job.container);
                return self.rigger.send(RiggerJob::Detach(port));
            }
            Err(why) => {
                let search = self.world.searches.entry(job.container).or_default();
                let pause = Duration::from_millis(if search.tried < EAGER { 20 } else { 2000 });
                search.heading = None;
                search.again_at = monotonic() + pause;
                search.tried = search.tried.saturating_add(1);
                search.why = Some(why);
                return;
            }
        };
        self.world.searches.remove(&job.container);
        let (ifindex, how, now) = (port.ifindex(), port.how(), monotonic());
        let tap = TapSeen {
            set: job.id,
            tapped_at: now,
            adopted: false,
            early: false,
            hold: TapHold::Fast,
            programs: job.programs,
            heading: None,
        };
        self.ports.insert(ifindex, Tapped { port: Some(port), how, before: None, baseline: None });
        self.world.taps.insert(ifindex, tap);
        let network = self.host_network(&job.container);
        let owner = PortOwner { container: job.container, network, named_at: now, after: None };
        self.take_over_group(ifindex, &owner);
        let (id, name) = (owner.container.clone(), self.group_name(ifindex).unwrap_or_default());
        self.world.owners.insert(ifindex, owner);
        if let Some(container) = self.container_name(&id) {
            let mut names = self.shared.names_mut();
            names.set_container(container);
            names.set_port(ifindex, &name, Some(&id));
        }
        self.unsaved = true;
        self.shared.tell(EventKind::PortTapped, format!("{name} is tapped"), |e| {
            e.interface = Some(name.clone());
            e.container = self.world.containers.get(&id).map(|c| c.container.name.clone());
        });
    }

    /// A group that is tapped already.
    pub(super) fn take_over_group(&mut self, ifindex: u32, owner: &PortOwner) {
        let group = GroupSeen { container: owner.container.clone(), over: false };
        self.world.groups.insert(ifindex, group);
    }

    /// The container ended: its group goes, and if it starts again it has another.
    pub(super) fn end_group(&mut self, container: &str) {
        for group in self.world.groups.values_mut().filter(|g| g.container == container) {
            group.over = true;
        }
        self.world.searches.remove(container);
    }

    /// A container is about to have a group: it is looked for at once.
    pub(super) fn expect_group(&mut self, container: &str) {
        if let Some(search) = self.world.searches.get_mut(container).filter(|s| s.heading.is_none()) {
            *search = GroupSearch::default();
        }
    }

    /// Groups that went without anybody's telling.
    pub(super) fn look_at_groups(&mut self) {
        for (ifindex, group) in &mut self.world.groups {
            let port = self.ports.get(ifindex).and_then(|t| t.port.as_ref());
            let unknown = self.snapshots > 0 && !self.world.containers.contains_key(&group.container);
            if unknown || port.is_some_and(|port| !port.is_alive()) {
                (group.over, self.dirty) = (true, true);
            }
        }
    }

    /// What stands where a port's interface is named.
    pub(super) fn group_name(&self, ifindex: u32) -> Option<String> {
        let group = self.world.groups.get(&ifindex)?;
        let names = self.shared.names();
        let name = names.container(&group.container).map(|c| c.name.as_str());
        let seen = self.world.containers.get(&group.container).map(|c| c.container.name.as_str());
        Some(format!("cgroup:{}", seen.or(name).unwrap_or(&group.container)))
    }

    /// The network under which the engine lists a container on the host's.
    fn host_network(&self, container: &str) -> String {
        let hosts = |id: &&String| self.world.networks.get(*id).is_some_and(|n| n.network.driver == "host");
        let places = self.world.containers.get(container).map(|c| &c.container.networks);
        let mut own = places.into_iter().flatten().map(|place| &place.network_id);
        own.find(hosts).or_else(|| self.world.networks.keys().find(hosts)).cloned().unwrap_or_default()
    }
}
