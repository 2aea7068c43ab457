//! What the engine tells, written into the world.

use std::collections::BTreeMap;

use super::standin::{ASK_MODE, retry_after};
use super::*;
use crate::clock::Wall;
use crate::config::Prefix;
use crate::discovery::step;
use crate::mc::world::{ContainerSeen, NetworkSeen};
use crate::monitor::user;
use crate::runtime::{
    Container, ContainerAction, ContainerState, EventTime, Monitor, NetworkMembers, NetworkMode, OVERLAY,
    Policy, RuntimeError, Snapshot,
};

/// So long after its start the daemon may hear for the first time of containers that ran before.
const NEWCOMER: Duration = Duration::from_secs(30);

impl Work {
    pub(super) fn take_answer(&mut self, answer: Answer) {
        self.dirty = true;
        match answer {
            Answer::Event(event) => {
                if let Some((_, meanwhile)) = &mut self.snapshot {
                    // the snapshot may be older than this: it is told again after it
                    meanwhile.push(event.clone());
                }
                self.take_event(event);
            }
            Answer::Snapshot(result) => self.take_snapshot(result),
            Answer::Members(id, result) => self.take_members(&id, result),
            Answer::Mode(id, result) => self.take_mode(&id, result),
            Answer::Sandbox(result) => self.take_sandbox(result),
            Answer::Started(set, result) => self.take_started(set, result),
            Answer::Monitors(result) => self.take_monitors(result),
        }
    }

    pub(super) fn ask_snapshot(&mut self) {
        if self.snapshot.is_some() {
            self.snapshot_again = true;
            return;
        }
        self.snapshot = Some((monotonic(), Vec::new()));
        self.ask(Ask::Snapshot);
    }

    fn take_event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Connected { version, .. } => {
                self.world.engine = true;
                self.engine_error = None;
                self.engine_address.clone_from(&version.address);
                self.engine_version = Some(version.clone());
                self.shared.tell(
                    EventKind::EngineConnected,
                    format!("the engine answers: {version}"),
                    |_| {},
                );
                self.ask_snapshot();
                self.monitors_listed = false;
                self.ask(Ask::Monitors);
            }
            EngineEvent::Disconnected { error, .. } => {
                if self.world.engine {
                    self.shared.tell(
                        EventKind::EngineLost,
                        format!("the engine does not answer: {error}"),
                        |_| {},
                    );
                }
                self.world.engine = false;
                for network in self.world.networks.values_mut() {
                    network.asked = false;
                }
                self.engine_error = Some(error);
            }
            EngineEvent::Container { action, id, name, labels, at } => {
                self.take_container(action, id, name, labels, at)
            }
            EngineEvent::Monitor { action, id, slot, instance, .. } => {
                if instance == self.shared.info.instance {
                    self.take_monitor_event(&action, &id, &slot);
                }
            }
            EngineEvent::NetworkConnect { network_id, container_id, at, .. } => {
                let told = at.told;
                match self.world.networks.get_mut(&network_id) {
                    Some(network) if network.network.driver == "host" => {
                        if let Some(seen) = self.world.containers.get_mut(&container_id) {
                            seen.container.mode = Some(NetworkMode::Host);
                        }
                        self.expect_group(&container_id);
                    }
                    Some(network) => {
                        network.connects.insert(container_id.clone(), told);
                        network.stale = true;
                        self.ask_sandbox(&container_id);
                    }
                    None => self.ask_snapshot(),
                }
            }
            EngineEvent::NetworkDisconnect { network_id, container_id, .. } => {
                if let Some(network) = self.world.networks.get_mut(&network_id) {
                    network.connects.remove(&container_id);
                    network.endpoints.retain(|e| e.container_id != container_id);
                    network.stale = true;
                }
                let gone =
                    |c: &mut ContainerSeen| c.container.networks.retain(|e| e.network_id != network_id);
                if let Some(c) = self.world.containers.get_mut(&container_id) {
                    gone(c);
                }
            }
            EngineEvent::NetworkCreated { .. } | EngineEvent::NetworksChanged { .. } => self.ask_snapshot(),
            EngineEvent::NetworkRemoved { network_id, .. } => {
                self.world.networks.remove(&network_id);
                self.tell_own_networks();
            }
        }
    }

    fn take_container(
        &mut self,
        action: ContainerAction,
        id: String,
        name: String,
        labels: BTreeMap<String, String>,
        at: EventTime,
    ) {
        use ContainerAction as A;
        if action == A::Destroy {
            self.end_container(&id);
            self.world.containers.remove(&id);
            return;
        }
        let seen = self.world.containers.entry(id.clone()).or_insert_with(|| ContainerSeen {
            container: Container {
                id: id.clone(),
                name: name.clone(),
                image: String::new(),
                policy: Policy::from_labels(&labels),
                labels,
                state: ContainerState::Created,
                created_at: None,
                started_at: None,
                mode: None,
                networks: Vec::new(),
            },
            ended_at: None,
            ask_mode_at: monotonic() + ASK_MODE,
            heard_at: monotonic(),
        });
        let renamed = seen.container.name != name;
        let before = renamed.then(|| std::mem::replace(&mut seen.container.name, name.clone()));
        let tenant = seen.container.policy.tenant.clone();
        let tell = |shared: &Shared, kind, text: String| {
            shared.tell(kind, text, |e| {
                e.container = Some(name.clone());
                e.tenant = Some(tenant.clone());
            });
        };
        match action {
            A::Start | A::Restart => {
                seen.container.state = ContainerState::Running;
                seen.ended_at = None;
                seen.ask_mode_at = monotonic() + ASK_MODE;
                if action == A::Start {
                    seen.container.started_at = Some(at.engine);
                    tell(&self.shared, EventKind::ContainerStarted, format!("{name} has started"));
                }
                self.expect_group(&id);
            }
            A::Pause => seen.container.state = ContainerState::Paused,
            A::Unpause => seen.container.state = ContainerState::Running,
            A::Die { .. } => {
                seen.container.state = ContainerState::Exited;
                seen.container.started_at = None;
                // told again after a snapshot, it is no news
                if self.end_container(&id)
                    && let Some(name) = self.container_name(&id)
                {
                    let (container, told_ns) = (&name.name, at.told.as_nanos());
                    step!("container_ended", monotonic().as_nanos(), container, told_ns);
                    self.shared.stopped(at, name);
                }
            }
            A::Rename { ref old_name } => {
                // Podman does not say what the name was
                let old_name = before.as_ref().filter(|_| old_name.is_empty()).unwrap_or(old_name);
                tell(&self.shared, EventKind::ContainerRenamed, format!("{old_name} is now {name}"));
            }
            A::Create | A::Kill { .. } | A::Stop | A::Update | A::OutOfMemory | A::Destroy => {}
        }
        if renamed && let Some(name) = self.container_name(&id) {
            self.shared.name_container(name);
        }
    }

    /// The container's process is gone: what was counted with it is settled before another gets its addresses. False
    /// when that was known.
    fn end_container(&mut self, id: &str) -> bool {
        let Some(seen) = self.world.containers.get_mut(id) else { return false };
        if seen.ended_at.is_some() {
            return false;
        }
        let now = monotonic();
        seen.ended_at = Some(now);
        self.end_group(id);
        let Some(seen) = self.world.containers.get_mut(id) else { return false };
        let mut addresses: Vec<std::net::IpAddr> =
            seen.container.networks.iter().flat_map(|e| e.addresses.iter().copied()).collect();
        for network in self.world.networks.values_mut() {
            network.connects.remove(id);
            for endpoint in network.endpoints.extract_if(.., |e| e.container_id == id) {
                addresses.extend(endpoint.addresses);
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            self.send(Job::Address(address));
            self.closing.push((now + ADDRESS_LINGER, address, id.to_owned()));
        }
        true
    }

    fn take_snapshot(&mut self, result: Result<Snapshot, RuntimeError>) {
        let (asked_at, meanwhile) = self.snapshot.take().unwrap_or((monotonic(), Vec::new()));
        match result {
            Ok(snapshot) => {
                self.apply_snapshot(snapshot, asked_at);
                self.snapshots += 1;
                self.engine_error = None;
                for event in meanwhile {
                    if !matches!(event, EngineEvent::Connected { .. } | EngineEvent::Disconnected { .. }) {
                        self.take_event(event);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the engine's containers are not known"
                );
                self.engine_error = Some(chain(&error));
                // the watcher reports the engine's return; a refusal while it answers is tried again
                self.snapshot_retry_at = self.world.engine.then(|| monotonic() + Duration::from_millis(500));
            }
        }
        if std::mem::take(&mut self.snapshot_again) {
            self.ask_snapshot();
        }
    }

    fn apply_snapshot(&mut self, snapshot: Snapshot, asked_at: Timestamp) {
        let first = self.snapshots == 0;
        let now = monotonic();
        // Who ended while nobody told of it: their addresses may be others' by now.
        let over = |c: &&Container| !c.state.is_alive() && c.state != ContainerState::Created;
        for id in snapshot.containers.iter().filter(over).map(|c| c.id.clone()) {
            self.end_container(&id);
        }
        let mut containers = BTreeMap::new();
        for mut container in snapshot.containers {
            let before = self.world.containers.get(&container.id);
            if let Some(before) = before {
                container.started_at = container.started_at.or(before.container.started_at);
                container.mode = container.mode.or_else(|| before.container.mode.clone());
            }
            let ask_mode_at = before.map_or(now, |b| b.ask_mode_at);
            let heard_at = before.map_or(now, |b| b.heard_at);
            let ended_at = if container.state.is_alive() || container.state == ContainerState::Created {
                None
            } else {
                before.and_then(|b| b.ended_at).or(Some(now))
            };
            containers
                .insert(container.id.clone(), ContainerSeen { container, ended_at, ask_mode_at, heard_at });
        }
        let gone: Vec<String> =
            self.world.containers.keys().filter(|id| !containers.contains_key(*id)).cloned().collect();
        for id in gone {
            self.end_container(&id);
        }
        self.world.containers = containers;
        let known: Vec<String> = self.world.containers.keys().cloned().collect();
        for id in known {
            let Some(name) = self.container_name(&id) else { continue };
            let seen = &self.world.containers[&id];
            let alive = seen.container.state.is_alive();
            let addresses: Vec<_> =
                seen.container.networks.iter().flat_map(|e| e.addresses.iter().copied()).collect();
            // the first list may have been made before the engine called it running
            let is_older = self.is_older_than_we(&id);
            let mut names = self.shared.names_mut();
            names.set_container(name);
            for address in addresses.into_iter().filter(|_| alive) {
                let is_known = names.owner_at(address, now) == Some(id.as_str());
                if first || (is_older && !is_known) {
                    let since = self.since_of(&id, address, &mut names);
                    names.set_address(address, &id, since);
                } else if !is_known {
                    names.set_address(address, &id, asked_at);
                }
            }
        }
        if first {
            self.end_of_the_former(now);
        }
        let mut networks = BTreeMap::new();
        for network in snapshot.networks {
            let before = self.world.networks.remove(&network.id);
            let stale = network.bridge.is_some();
            let seen = match before {
                Some(before) => NetworkSeen { network, stale, ..before },
                None => NetworkSeen::new(network, stale),
            };
            networks.insert(seen.network.id.clone(), seen);
        }
        self.world.networks = networks;
        self.tell_own_networks();
    }

    /// Addresses of the bridges' networks are this host's to name: what another host has by the same is another's. A bridge that is joined
    /// with others', by a tunnel or a wire, shares its addresses with them.
    pub(super) fn tell_own_networks(&mut self) {
        self.tell_overlays();
        let alone = |bridge: &String| !self.world.reaches_beyond(bridge);
        let bridges = self.world.networks.values().filter(|n| n.network.driver == "bridge");
        let bridges = bridges.filter(|n| n.network.bridge.as_ref().is_none_or(alone));
        let prefixes = |n: &NetworkSeen| -> Vec<Prefix> {
            n.network.subnets.iter().filter_map(|subnet| subnet.parse().ok()).collect()
        };
        let overlays = self.world.networks.values().filter(|n| n.network.driver == OVERLAY);
        let overlays: Vec<_> = overlays.flat_map(prefixes).collect();
        // the engine keeps local and swarm-wide networks apart, and gives both the same addresses
        let is_alone = |own: &Prefix| !overlays.iter().any(|overlay| overlay.overlaps(own));
        let own = bridges.flat_map(prefixes).filter(is_alone).collect();
        let mut names = self.shared.names_mut();
        if names.own_networks() != own {
            names.set_own_networks(own);
        }
    }

    /// Containers that an earlier daemon knew and that ended while nobody looked: what is counted of their addresses is settled
    /// before others get them.
    fn end_of_the_former(&mut self, now: Timestamp) {
        let lives = |id: &String| self.world.containers.get(id).is_some_and(|c| c.container.state.is_alive());
        let over: Vec<_> = self.shared.names().open_addresses().filter(|(_, owner)| !lives(owner)).collect();
        for (address, owner) in over {
            self.send(Job::Address(address));
            self.closing.push((now + ADDRESS_LINGER, address, owner));
        }
    }

    /// Whether a container was made before this daemon was started, as far as that matters: while it is new, such a container may be
    /// heard of for the first time although it was counted before.
    fn is_older_than_we(&self, id: &str) -> bool {
        if monotonic() - self.started > NEWCOMER {
            return false;
        }
        let created_at = self.world.containers.get(id).and_then(|seen| seen.container.created_at);
        created_at.is_some_and(|at| Wall::now().monotonic(at) < self.started)
    }

    /// Since when a container that nobody told us of has its address: it was counted under it before we came.
    ///
    /// An earlier daemon knew everybody of its time. Who is not among them has come after; if another had the address then,
    /// after that one, which had it until this one was made at the latest. One that was made before, and started again while
    /// nobody looked, has it from now on: whose was counted meanwhile cannot be told.
    fn since_of(&self, id: &str, address: std::net::IpAddr, names: &mut crate::store::Names) -> Timestamp {
        // the engine's list tells whole seconds: it was made in the one that begins then
        const RESOLUTION: Duration = Duration::from_secs(1);
        let created_at = self.world.containers.get(id).and_then(|seen| seen.container.created_at);
        let created_at = created_at.map(|at| Wall::now().monotonic(at)).filter(|at| *at < self.started);
        let known_until = self.known_until.min(self.started);
        let other = names.owner_at(address, known_until).filter(|owner| *owner != id).map(str::to_owned);
        match (other, created_at) {
            (Some(other), Some(created_at)) if created_at > known_until => {
                names.close_address(address, &other, created_at);
                (created_at + RESOLUTION).min(self.started)
            }
            (Some(other), _) => {
                names.close_address(address, &other, known_until + RESOLUTION);
                self.started
            }
            (None, Some(created_at)) => created_at.max(known_until),
            (None, None) => self.started,
        }
    }

    /// The same of a container of whose joining nobody has told yet: the list of those on the network was quicker. It had the address at no time
    /// before it was heard of, before it came, or before another's end who had it.
    fn since_unheard(&self, id: &str, address: std::net::IpAddr, came_after: Timestamp) -> Timestamp {
        let heard_at = self.world.containers.get(id).map_or(Timestamp::ZERO, |seen| seen.heard_at);
        let of_another =
            |(_, of, owner): &&(Timestamp, std::net::IpAddr, String)| *of == address && owner != id;
        let ended = self.closing.iter().filter(of_another).map(|(at, ..)| at.before(ADDRESS_LINGER)).max();
        self.started.max(heard_at).max(came_after).max(ended.unwrap_or(Timestamp::ZERO))
    }

    fn take_members(&mut self, id: &str, result: Result<Option<NetworkMembers>, RuntimeError>) {
        let Some(network) = self.world.networks.get_mut(id) else { return };
        network.asked = false;
        // who was not there when this was asked has come since
        let (before, there) = (network.as_of, std::mem::take(&mut network.endpoints));
        let came_after = |id: &str| match there.iter().any(|e| e.container_id == id) {
            true => Timestamp::ZERO,
            false => before,
        };
        match result {
            Ok(Some(members)) => {
                network.network = members.network;
                network.endpoints = members.endpoints;
                network.as_of = network.asked_at;
                let now = monotonic();
                let endpoints = network.endpoints.clone();
                let connects = network.connects.clone();
                let mut unknown = false;
                for endpoint in endpoints {
                    if let Some(name) = self.container_name(&endpoint.container_id) {
                        let owner = endpoint.container_id.as_str();
                        let told = connects.get(owner).copied();
                        // the snapshot may have come before the engine called it running, its first packets before us
                        let is_older = self.is_older_than_we(owner);
                        let mut names = self.shared.names_mut();
                        names.set_container(name);
                        for address in endpoint.addresses {
                            if names.owner_at(address, now) != Some(owner) {
                                let since = match told {
                                    Some(told) => told,
                                    None if is_older => self.since_of(owner, address, &mut names),
                                    None => self.since_unheard(owner, address, came_after(owner)),
                                };
                                names.set_address(address, owner, since);
                            }
                        }
                    } else {
                        unknown = true;
                    }
                }
                self.tell_own_networks();
                // look again at once for whoever waits for this
                let bridge = self.world.networks.get(id).and_then(|n| n.network.bridge.clone());
                for seen in self.world.links.values_mut().filter(|s| s.peer.is_some()) {
                    seen.look_at = seen.look_at.min(now);
                }
                if unknown && bridge.is_some() && self.world.engine && self.has_stranger(id) {
                    self.ask_snapshot();
                }
            }
            Ok(None) => {
                self.world.networks.remove(id);
            }
            Err(error) => {
                network.endpoints = there;
                tracing::debug!(
                    network = id,
                    error = &error as &dyn std::error::Error,
                    "a network's members are not known"
                );
                // whoever waits for it has it asked for again, in a while
            }
        }
    }

    /// Whether some endpoint of a network is of a container that nobody told of. Monitoring containers have no
    /// network, so it is an application's.
    fn has_stranger(&self, network: &str) -> bool {
        self.world
            .networks
            .get(network)
            .is_some_and(|n| n.endpoints.iter().any(|e| !self.world.containers.contains_key(&e.container_id)))
            && self.snapshot.is_none()
    }

    fn take_started(&mut self, set: SetId, result: Result<(String, Option<u32>), RuntimeError>) {
        let now = monotonic();
        let process = result.as_ref().ok().and_then(|(_, pid)| i32::try_from((*pid)?).ok());
        if let Some(pid) = process {
            self.admit(set, pid);
        }
        let Some(seen) = self.world.sets.get_mut(&set) else {
            if let Ok((id, _)) = result {
                self.ask(Ask::RemoveMonitor { id });
            }
            return;
        };
        match result {
            Ok((id, pid)) => {
                self.monitor_error = None;
                seen.monitor = match &seen.monitor {
                    // it was quicker than the engine's answer
                    MonitorSeen::Connected { pid: connected, heard_at, .. } if pid == Some(*connected) => {
                        MonitorSeen::Connected { id, pid: *connected, heard_at: *heard_at }
                    }
                    _ => MonitorSeen::Started { id, pid, since: now },
                };
            }
            Err(error) => {
                let text = chain(&error);
                let again = retry_after(&error);
                tracing::error!(set = %set, error = text, again_after = ?again, "a monitoring container could not be started");
                self.monitor_error = Some(text);
                seen.monitor = MonitorSeen::Missing { retry_at: now + again };
                if matches!(error, RuntimeError::Forbidden { .. }) {
                    // no use in waiting for it
                    seen.unread_since = Some(Timestamp::ZERO);
                }
            }
        }
    }

    fn take_monitor_event(&mut self, action: &ContainerAction, id: &str, slot: &str) {
        let ContainerAction::Die { exit_code } = action else { return };
        let Some(set) = SetId::parse(slot) else { return };
        let Some(seen) = self.world.sets.get_mut(&set) else { return };
        let name = format!("conmon-pm-{}-{set}", self.shared.info.instance);
        let ours = match &seen.monitor {
            MonitorSeen::Started { id: ours, .. } | MonitorSeen::Connected { id: ours, .. } => {
                *ours == id || *ours == name
            }
            MonitorSeen::Inline | MonitorSeen::Missing { .. } | MonitorSeen::Starting { .. } => false,
        };
        if !ours {
            return;
        }
        seen.monitor = MonitorSeen::Missing { retry_at: monotonic() };
        let why = exit_code.map_or_else(|| "it ended".to_owned(), |c| format!("it ended with exit code {c}"));
        tracing::warn!(monitor = name, why, "a monitor died");
        self.count_restart(set);
        self.shared.tell(EventKind::MonitorLost, format!("{name} is lost: {why}"), |e| {
            e.monitor = Some(name.clone())
        });
    }

    /// The engine told a monitor's process: it may call, and nobody else.
    fn admit(&self, set: SetId, pid: i32) {
        let Some(served) = self.hands.get(&set).and_then(|hand| hand.served.as_ref()) else { return };
        self.callers.set(set, pid);
        if let Err(error) = served.give_to(user::of(pid)) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%set, error, "a monitoring container cannot call");
        }
    }

    fn take_monitors(&mut self, result: Result<Vec<(Monitor, Option<u32>, bool)>, RuntimeError>) {
        let now = monotonic();
        let all = match result {
            Ok(all) => all,
            Err(error) => {
                self.monitor_error = Some(chain(&error));
                if self.world.engine {
                    // leave it to the retry of each set
                    for seen in self.world.sets.values_mut() {
                        if matches!(seen.monitor, MonitorSeen::Starting { .. }) {
                            seen.monitor = MonitorSeen::Missing { retry_at: now + Duration::from_secs(5) };
                        }
                    }
                }
                return;
            }
        };
        self.monitors_listed = true;
        let mut served = std::collections::BTreeSet::new();
        for (monitor, pid, same_build) in all {
            let set = SetId::parse(&monitor.slot).filter(|s| self.world.sets.contains_key(s));
            let usable = same_build && monitor.state.is_alive();
            let process = pid.and_then(|p| i32::try_from(p).ok());
            match set {
                Some(set) if usable => {
                    served.insert(set);
                    if let Some(pid) = process {
                        self.admit(set, pid);
                    }
                    if let Some(seen) = self.world.sets.get_mut(&set) {
                        match &mut seen.monitor {
                            MonitorSeen::Connected { id, .. } => *id = monitor.id,
                            MonitorSeen::Started { .. } => {}
                            other => *other = MonitorSeen::Started { id: monitor.id, pid, since: now },
                        }
                    }
                }
                // of another build, or dead: one is made in its place, and until then this one is not let in again
                Some(set) => {
                    if let Some(pid) = process {
                        self.callers.refuse(set, pid);
                    }
                }
                // of a set that is no more
                None => self.ask(Ask::RemoveMonitor { id: monitor.id }),
            }
        }
        for (id, seen) in &mut self.world.sets {
            if seen.monitor != MonitorSeen::Inline && !served.contains(id) && self.monitors_listed {
                // asked for by this daemon, and made since the list was
                let making = matches!(seen.monitor, MonitorSeen::Starting { since } if since > self.started);
                if !making {
                    seen.monitor = MonitorSeen::Missing { retry_at: now };
                }
            }
        }
    }
}
