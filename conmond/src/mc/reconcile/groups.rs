//! Control groups: containers that use the host's network have no port, and are tapped where their sockets are.

use ippm::time::Timestamp;

use super::Action;
use crate::mc::world::{ContainerSeen, TapHold, World};
use crate::runtime::{ContainerState, NetworkMode};

/// What is to be done about control groups.
pub(super) fn groups(world: &World, now: Timestamp, actions: &mut Vec<Action>) {
    for (number, group) in &world.groups {
        let ifindex = *number;
        let container = world.containers.get(&group.container);
        match world.taps.get(number) {
            // its programs are busy; what is to be done will still be when they are not
            Some(tap) if tap.hold == TapHold::Busy => {}
            // while the engine has not told of a container, a group that was taken over stays as it is
            Some(_) if group.over || container.is_some_and(|c| !shall_be_tapped(world, c)) => {
                actions.push(Action::Forget { ifindex });
            }
            Some(tap) => {
                let set = container.and_then(|c| world.usable_set_with(&world.role_for(&c.container)));
                let set = set.unwrap_or(tap.set);
                let programs = world.sets.get(&set).map_or(tap.programs, |s| s.table.programs);
                if set != tap.set || programs != tap.programs {
                    actions.push(Action::Move { ifindex, set });
                }
            }
            // the tap was lost
            None => actions.push(Action::Forget { ifindex }),
        }
    }
    for (id, seen) in &world.containers {
        if !shall_be_tapped(world, seen) || world.groups.values().any(|g| g.container == *id) {
            continue;
        }
        let waits = |s: &crate::mc::world::GroupSearch| s.heading.is_some() || s.again_at > now;
        if world.searches.get(id).is_some_and(waits) {
            continue;
        }
        // it is known whose it is from the beginning: no need for the nursery
        if let Some(set) = world.usable_set_with(&world.role_for(&seen.container)) {
            actions.push(Action::TapGroup { container: id.clone(), set });
        }
    }
}

/// A container on the host's network, to be watched, that runs or is about to: its group is there before its process is.
fn shall_be_tapped(world: &World, seen: &ContainerSeen) -> bool {
    let c = &seen.container;
    let may_run = c.state.is_alive() || c.state == ContainerState::Created;
    c.mode == Some(NetworkMode::Host) && may_run && world.wants(c)
}
