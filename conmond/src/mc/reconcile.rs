//! From what is to what shall be: a pure function from the world to actions.
//!
//! It is level-triggered: it looks at states only, never at what happened. So it serves the first start, a restart of
//! ours or of the engine's, and lost messages alike, and may be called at any time.
//!
//! The caller does the actions, writes into the world what came of them, and calls again until none is left. Actions
//! that take long (the engine's, taps) leave a mark in the world (`asked`, `Starting`, `loading`, `tapping`), so that they
//! are not asked for twice.

mod groups;

use std::time::Duration;

use ippm::time::Timestamp;

use super::world::{
    ContainerSeen, Growth, MonitorSeen, SetId, SetRole, SetSeen, TapHold, TapSeen, Tapping, World,
};
use crate::runtime::ContainerState;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put a set's programs on a port.
    Tap {
        /// The port.
        ifindex: u32,
        /// The set.
        set: SetId,
    },
    /// Look for a container's control group, and put a set's programs on it.
    TapGroup {
        /// The container.
        container: String,
        /// The set.
        set: SetId,
    },
    /// Exchange a port's programs for another set's.
    Move {
        /// The port.
        ifindex: u32,
        /// The set it shall be counted by.
        set: SetId,
    },
    /// Take the programs off a port that shall not be watched.
    Untap {
        /// The port.
        ifindex: u32,
    },
    /// Give a port that was tapped in haste a tap that nobody else can take away.
    Fasten {
        /// The port.
        ifindex: u32,
    },
    /// The port has gone: settle its records.
    Forget {
        /// The port.
        ifindex: u32,
    },
    /// Ask the kernel for the port's far end.
    AskPeer {
        /// The port.
        ifindex: u32,
        /// For its Ethernet address, too: its addresses have not told whose it is.
        whole: bool,
    },
    /// The port is this container's.
    Name {
        /// The port.
        ifindex: u32,
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// Nobody is known for the port: look again at this time.
    LookLater {
        /// The port.
        ifindex: u32,
        /// When.
        at: Timestamp,
    },
    /// Ask the engine who is on a network.
    AskNetwork {
        /// The network.
        id: String,
    },
    /// Ask the engine for everything.
    AskEngine,
    /// A waiting set gets its role.
    Assign {
        /// The set.
        set: SetId,
        /// The role.
        role: SetRole,
    },
    /// Load another set for the pool.
    Load,
    /// Have a monitoring container made for a set.
    StartMonitor {
        /// The set.
        set: SetId,
    },
    /// A set's monitoring container is dead or silent: replace it.
    ReplaceMonitor {
        /// The set.
        set: SetId,
        /// Why.
        why: String,
    },
    /// Note since when nobody needs a set, or that somebody does again.
    MarkIdle {
        /// The set.
        set: SetId,
        /// Since when.
        since: Option<Timestamp>,
    },
    /// Note since when no monitoring container reads a set, or that one does again.
    MarkUnread {
        /// The set.
        set: SetId,
        /// Since when.
        since: Option<Timestamp>,
    },
    /// Read a set in place of its monitoring container, which cannot be had.
    StandIn {
        /// The set.
        set: SetId,
    },
    /// The set has its own monitoring container again: stop reading it.
    StandDown {
        /// The set.
        set: SetId,
    },
    /// Ask the engine whose network a container uses.
    AskMode {
        /// The container.
        id: String,
    },
    /// Give a set a flow table of another size.
    Resize {
        /// The set.
        set: SetId,
        /// Records in the table.
        flows: u32,
    },
    /// No port counts in the table before any more: have its records moved.
    Drain {
        /// The set.
        set: SetId,
    },
    /// Nobody needs the set any more: remove it and its monitor.
    Retire {
        /// The set.
        set: SetId,
    },
}

/// How long to wait before looking for a port's container again.
fn patience(looked: u32) -> Duration {
    match looked {
        0..=9 => Duration::from_millis(20),
        10..=29 => Duration::from_millis(200),
        _ => Duration::from_secs(5),
    }
}

/// What is to be done now.
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    ports(world, now, &mut actions);
    groups::groups(world, now, &mut actions);
    actions.extend(fasten(world, now));
    networks(world, &mut actions);
    modes(world, now, &mut actions);
    sets(world, now, &mut actions);
    actions.extend(world.sets.iter().filter_map(|(id, set)| growth(world, *id, set, now)));
    monitors(world, now, &mut actions);
    actions
}

/// The set that shall count a port: none if its container opted out.
fn desired_set(world: &World, ifindex: u32) -> Option<SetId> {
    let nursery = world.set_with(&SetRole::Nursery);
    let owner = world.owners.get(&ifindex).and_then(|o| world.containers.get(&o.container));
    match owner {
        None => nursery,
        Some(c) if !world.wants(&c.container) => None,
        // until a set is there, the nursery counts
        Some(c) => world.usable_set_with(&world.role_for(&c.container)).or(nursery),
    }
}

fn ports(world: &World, now: Timestamp, actions: &mut Vec<Action>) {
    for ifindex in world.taps.keys() {
        if !world.links.contains_key(ifindex) && !world.groups.contains_key(ifindex) {
            actions.push(Action::Forget { ifindex: *ifindex });
        }
    }
    let mut ask_engine = false;
    for (ifindex, seen) in &world.links {
        let (ifindex, tap) = (*ifindex, world.taps.get(ifindex));
        let watched = seen.link.is_veth() && world.watched_bridge(&seen.link).is_some();
        if !watched && tap.is_none() && !world.may_become_port(seen, now) {
            continue;
        }
        // tapped before it joined a bridge, and it did not join one that is watched
        let stray = tap.is_some_and(|t| t.early) && !watched && !world.is_joining(seen, now);
        match (desired_set(world, ifindex).filter(|_| !stray), tap) {
            // what is to be done beside will still be when it is tapped
            _ if world.tapping.contains_key(&ifindex) => {}
            (Some(set), None) => {
                let refused = world.refused.get(&ifindex).is_some_and(|(_, again)| *again > now);
                // a port that opted out stays off; one that was never tapped is tapped first and named after
                if !refused {
                    actions.push(Action::Tap { ifindex, set });
                }
            }
            // its programs are busy; what is to be done will still be when they are not
            (_, Some(tap)) if tap.hold == TapHold::Busy => {}
            // never back to the nursery: who is known now and has no set yet stays where it is
            (Some(set), Some(tap)) if tap.set != set && world.set_with(&SetRole::Nursery) != Some(set) => {
                actions.push(Action::Move { ifindex, set });
            }
            (None, Some(_)) => actions.push(Action::Untap { ifindex }),
            (Some(_), Some(tap))
                if world.sets.get(&tap.set).is_some_and(|s| s.table.programs != tap.programs) =>
            {
                actions.push(Action::Move { ifindex, set: tap.set });
            }
            _ => {}
        }

        if world.owners.contains_key(&ifindex) || !watched || seen.look_at > now {
            continue;
        }
        let there = seen.link.link_netnsid.is_some() && seen.link.peer_ifindex.is_some();
        if !there || !seen.link.up || seen.asking {
            continue;
        }
        match (&seen.peer, world.endpoint_of(seen)) {
            (None, _) => actions.push(Action::AskPeer { ifindex, whole: seen.looked > 0 }),
            (Some(_), Some((network, endpoint))) => {
                if world.containers.contains_key(&endpoint.container_id) {
                    actions.push(Action::Name {
                        ifindex,
                        container: endpoint.container_id.clone(),
                        network: network.to_owned(),
                    });
                } else if world.engine {
                    ask_engine = true;
                    actions.push(Action::LookLater { ifindex, at: now + patience(seen.looked) });
                }
            }
            (Some(peer), None) => {
                if peer.mac.is_none() && seen.looked >= 2 {
                    actions.push(Action::AskPeer { ifindex, whole: true });
                }
                let bridge = world.watched_bridge(&seen.link);
                let networks = world.networks.iter().filter(|(_, n)| n.network.bridge.as_deref() == bridge);
                let mut known = false;
                for (id, network) in networks {
                    known = true;
                    if world.engine && !network.asked && !network.stale {
                        actions.push(Action::AskNetwork { id: id.clone() });
                    }
                }
                ask_engine |= !known && world.engine && seen.looked < 3;
                actions.push(Action::LookLater { ifindex, at: now + patience(seen.looked) });
            }
        }
    }
    if ask_engine {
        actions.push(Action::AskEngine);
    }
}

/// After so long without a new port the containers that were starting have started.
const QUIET: Duration = Duration::from_secs(2);

/// A container that was made so long ago and is not started is not about to be.
const MADE: Duration = Duration::from_secs(30);

/// Whether no container is starting, and nothing is being done to a port: nobody is known to need the lock for network devices.
pub fn is_calm(world: &World, now: Timestamp) -> bool {
    let busy = |t: &TapSeen| t.hold == TapHold::Busy || (!t.adopted && now - t.tapped_at < QUIET);
    let starts = |c: &ContainerSeen| c.container.state == ContainerState::Created && now - c.heard_at < MADE;
    world.tapping.is_empty() && !world.taps.values().any(busy) && !world.containers.values().any(starts)
}

/// The next port to fasten. One at a time, and not while containers start: fastening holds the lock that every change of a network
/// device needs for some 30 ms, so that taps of new ports, and the engine, would have to wait.
fn fasten(world: &World, now: Timestamp) -> Option<Action> {
    if !world.wishes.fasten || world.fasten_at > now {
        return None;
    }
    if !is_calm(world, now) {
        return None;
    }
    let growing = |t: &TapSeen| world.sets.get(&t.set).is_some_and(|s| s.table.stage != Growth::None);
    let (ifindex, _) = world
        .taps
        .iter()
        .find(|(ifindex, t)| t.hold == TapHold::Quick && world.links.contains_key(ifindex) && !growing(t))?;
    Some(Action::Fasten { ifindex: *ifindex })
}

/// What a set's flow table needs next.
fn growth(world: &World, id: SetId, set: &SetSeen, now: Timestamp) -> Option<Action> {
    let table = &set.table;
    match table.stage {
        Growth::None => {
            let flows = table.wanted(&world.wishes.room, now)?;
            Some(Action::Resize { set: id, flows })
        }
        Growth::Moving | Growth::Left if table.grow_at <= now => {
            let behind = |t: &TapSeen| {
                let heading = t.heading.filter(|(to, _)| *to == id);
                (t.set == id && t.programs != table.programs)
                    || heading.is_some_and(|(_, programs)| programs != table.programs)
            };
            let will_be = |t: &Tapping| t.set == id && t.programs != table.programs;
            let searched = world.searches.values().filter_map(|s| s.heading);
            let heads_behind =
                searched.into_iter().any(|(to, programs)| to == id && programs != table.programs);
            let any = heads_behind || world.taps.values().any(behind) || world.tapping.values().any(will_be);
            (!any).then_some(Action::Drain { set: id })
        }
        _ => None,
    }
}

fn networks(world: &World, actions: &mut Vec<Action>) {
    if !world.engine {
        return;
    }
    for (id, network) in &world.networks {
        if network.stale && !network.asked && network.network.bridge.is_some() {
            actions.push(Action::AskNetwork { id: id.clone() });
        }
    }
}

/// A container that runs without a port that we know of: perhaps it has none, and the engine can tell.
fn modes(world: &World, now: Timestamp, actions: &mut Vec<Action>) {
    if !world.engine {
        return;
    }
    for (id, seen) in &world.containers {
        let unknown = seen.container.mode.is_none() && seen.container.state.is_alive();
        if unknown && seen.ask_mode_at <= now && !world.owners.values().any(|o| o.container == *id) {
            actions.push(Action::AskMode { id: id.clone() });
        }
    }
}

fn sets(world: &World, now: Timestamp, actions: &mut Vec<Action>) {
    let needed = world.needed_roles();
    let mut waiting: Vec<SetId> =
        world.sets.iter().filter(|(_, s)| s.role == SetRole::Pool).map(|(id, _)| *id).collect();
    // a set whose monitor already called comes first
    waiting.sort_by_key(|id| {
        let called = matches!(world.sets[id].monitor, MonitorSeen::Connected { .. });
        (!called, *id)
    });
    let mut waiting = waiting.into_iter();
    for role in &needed {
        if world.set_with(role).is_none()
            && let Some(set) = waiting.next()
        {
            actions.push(Action::Assign { set, role: role.clone() });
        }
    }
    let unserved = needed.iter().filter(|r| world.set_with(r).is_none()).count();
    let pool = world.sets.values().filter(|s| s.role == SetRole::Pool).count();
    let wanted = world.wishes.pool.max(unserved);
    if pool + world.loading < wanted && world.loading == 0 && world.load_again_at <= now {
        actions.push(Action::Load);
    }
    // One too many, such as one that was retired when we died: the newest, whose monitor may not be there yet.
    let free = world.sets.iter().rev().find(|(_, s)| s.role == SetRole::Pool && !s.is_changing());
    if let Some((id, _)) = free.filter(|_| pool > wanted && unserved == 0 && world.loading == 0) {
        actions.push(Action::Retire { set: *id });
    }
    for (id, set) in &world.sets {
        if !matches!(set.role, SetRole::Tenant(_) | SetRole::Dedicated(_)) {
            continue;
        }
        let counts = world.taps.values().any(|t| t.set == *id);
        let used = counts || needed.contains(&set.role) || world.tapping.values().any(|t| t.set == *id);
        match (used, set.idle_since) {
            (true, Some(_)) => actions.push(Action::MarkIdle { set: *id, since: None }),
            (false, None) => actions.push(Action::MarkIdle { set: *id, since: Some(now) }),
            (false, Some(since)) if now - since >= world.wishes.linger && !set.is_changing() => {
                actions.push(Action::Retire { set: *id });
            }
            _ => {}
        }
    }
}

/// So long a set waits for its monitoring container before the controller reads it: longer than replacing one takes.
const STAND_IN: Duration = Duration::from_secs(10);

/// The controller reads what no monitoring container reads, so that no tenant stays unmeasured.
fn standins(set: (SetId, &SetSeen), now: Timestamp) -> Option<Action> {
    let (id, set) = (set.0, set.1);
    if set.role == SetRole::Nursery {
        return None;
    }
    let serves = set.role != SetRole::Pool;
    match (&set.monitor, set.unread_since) {
        (MonitorSeen::Connected { .. }, _) if set.standin => Some(Action::StandDown { set: id }),
        (MonitorSeen::Connected { .. }, Some(_)) => Some(Action::MarkUnread { set: id, since: None }),
        (MonitorSeen::Connected { .. }, None) => None,
        (_, None) => Some(Action::MarkUnread { set: id, since: Some(now) }),
        (_, Some(since)) if serves && !set.standin && now - since >= STAND_IN => {
            Some(Action::StandIn { set: id })
        }
        _ => None,
    }
}

fn monitors(world: &World, now: Timestamp, actions: &mut Vec<Action>) {
    for (id, set) in &world.sets {
        actions.extend(standins((*id, set), now));
        match &set.monitor {
            MonitorSeen::Missing { retry_at }
                if world.engine && world.wishes.monitors && *retry_at <= now =>
            {
                actions.push(Action::StartMonitor { set: *id });
            }
            MonitorSeen::Started { since, .. } if now - *since > world.wishes.silence && world.engine => {
                let why = "it did not call".to_owned();
                actions.push(Action::ReplaceMonitor { set: *id, why });
            }
            MonitorSeen::Connected { heard_at, .. }
                if now - *heard_at > world.wishes.silence && world.engine =>
            {
                let why = format!("it was silent for {} ms", (now - *heard_at).as_millis());
                actions.push(Action::ReplaceMonitor { set: *id, why });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
