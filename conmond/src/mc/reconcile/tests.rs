//! The controller's decisions, from hand-made worlds; no kernel, no engine, no clock.

use std::collections::BTreeMap;

use ippm::measurement::SetCounters;
use tap::{Extensible, SetSpec};

use super::*;
use crate::mac::Mac;
use crate::mc::world::{
    ContainerSeen, Extending, FarEnd, FlowTable, GroupSearch, GroupSeen, LinkSeen, NetworkSeen, PortOwner,
    Room, SetSeen, Wishes,
};
use crate::runtime::{Container, ContainerState, Network, NetworkEndpoint, NetworkMode, Policy};
use crate::switch::Link;

const BRIDGE: u32 = 1;
const PORT: u32 = 7;
const NURSERY: SetId = SetId(1);
const NOW: Timestamp = Timestamp(100_000_000_000);

fn link(ifindex: u32, name: &str, kind: &str, master: Option<u32>) -> LinkSeen {
    let link = Link {
        ifindex,
        name: name.into(),
        master,
        link_netnsid: master.map(|_| 3),
        peer_ifindex: master.map(|_| 2),
        up: true,
        kind: Some(kind.into()),
        mac: None,
        mtu: 1500,
    };
    LinkSeen {
        link,
        made_at: None,
        joined_at: Some(NOW),
        up_at: Some(NOW),
        peer: None,
        look_at: Timestamp::ZERO,
        looked: 0,
        asking: false,
    }
}

fn set(role: SetRole) -> SetSeen {
    let monitor = if role == SetRole::Nursery {
        MonitorSeen::Inline
    } else {
        MonitorSeen::Connected { id: "m".into(), pid: 1, heard_at: NOW }
    };
    SetSeen { recorded: true, ..SetSeen::new(role, monitor) }
}

fn container(id: &str, labels: &[(&str, &str)]) -> ContainerSeen {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let container = Container {
        id: id.into(),
        name: format!("name-{id}"),
        image: String::new(),
        policy: Policy::from_labels(&labels),
        labels,
        state: ContainerState::Running,
        created_at: None,
        started_at: None,
        mode: Some(NetworkMode::Own),
        networks: Vec::new(),
    };
    ContainerSeen { container, ended_at: None, ask_mode_at: Timestamp::ZERO, heard_at: Timestamp::ZERO }
}

/// A bridge with one veth port on it, a nursery and one waiting set.
fn world() -> World {
    let mut world = World::new(Wishes {
        opt_in: false,
        pool: 1,
        monitors: true,
        silence: Duration::from_secs(5),
        linger: Duration::from_secs(60),
        fasten: true,
        room: Room {
            flows: 4096,
            max_flows: 65_536,
            calm: Duration::from_secs(60),
            max_pairs: 65_536,
            max_hists: 2048,
        },
    });
    world.engine = true;
    world.links.insert(BRIDGE, link(BRIDGE, "docker0", "bridge", None));
    world.links.insert(PORT, link(PORT, "veth1", "veth", Some(BRIDGE)));
    world.sets.insert(NURSERY, set(SetRole::Nursery));
    world.sets.insert(SetId(2), set(SetRole::Pool));
    world
}

fn tap_in(set: SetId, tapped_at: Timestamp, hold: TapHold) -> TapSeen {
    TapSeen { set, tapped_at, adopted: false, early: false, hold, programs: 0, heading: None }
}

fn mac() -> Mac {
    Mac([2, 0x42, 0, 0, 0, 2])
}

/// The same with the engine's word of who is on the bridge, and the port's far end looked at.
fn world_with(seen: ContainerSeen) -> World {
    let mut world = world();
    let id = seen.container.id.clone();
    world.taps.insert(PORT, tap_in(NURSERY, NOW, TapHold::Fast));
    if let Some(l) = world.links.get_mut(&PORT) {
        l.peer = Some(FarEnd { mac: Some(mac()), addresses: Vec::new() });
    }
    let network = Network {
        id: "n".into(),
        name: "bridge".into(),
        driver: "bridge".into(),
        bridge: Some("docker0".into()),
        subnets: Vec::new(),
        gateways: Vec::new(),
        internal: false,
        ipv6: false,
    };
    let endpoint = NetworkEndpoint {
        container_id: id.clone(),
        container_name: "c".into(),
        endpoint_id: "e".into(),
        mac: Some(mac()),
        addresses: vec!["172.17.0.2".parse().unwrap()],
    };
    let seen_network =
        NetworkSeen { endpoints: vec![endpoint], as_of: NOW, ..NetworkSeen::new(network, false) };
    world.networks.insert("n".into(), seen_network);
    world.containers.insert(id, seen);
    world
}

fn own(world: &mut World, id: &str) {
    let owner = PortOwner { container: id.into(), network: "n".into(), named_at: NOW, after: None };
    world.owners.insert(PORT, owner);
}

#[test]
fn a_port_is_tapped_before_anybody_knows_whose_it_is() {
    let actions = reconcile(&world(), NOW);
    assert!(actions.contains(&Action::Tap { ifindex: PORT, set: NURSERY }), "{actions:?}");
}

#[test]
fn a_port_that_is_being_tapped_is_left_alone() {
    let tapping = Tapping { set: NURSERY, programs: 0, since: NOW };
    let mut w = world();
    w.tapping.insert(PORT, tapping);
    let touches = |w: &World| {
        let of = |a: &Action| match a {
            Action::Tap { ifindex, .. }
            | Action::Move { ifindex, .. }
            | Action::Untap { ifindex }
            | Action::Forget { ifindex } => *ifindex == PORT,
            _ => false,
        };
        reconcile(w, NOW).iter().any(of)
    };
    assert!(!touches(&w), "it is not tapped twice");
    w.links.remove(&PORT);
    assert!(!touches(&w), "nor forgotten before it comes back");
    // named meanwhile, and its container opted out: nothing before it comes back
    let mut w = world_with(container("a", &[("conmon.enable", "false")]));
    let tap = w.taps.remove(&PORT).unwrap();
    w.tapping.insert(PORT, tapping);
    let named = Action::Name { ifindex: PORT, container: "a".into(), network: "n".into() };
    assert!(reconcile(&w, NOW).contains(&named), "names do not wait for taps");
    own(&mut w, "a");
    assert!(!touches(&w));
    w.tapping.clear();
    w.taps.insert(PORT, tap);
    assert!(reconcile(&w, NOW).contains(&Action::Untap { ifindex: PORT }));
}

#[test]
fn links_that_are_no_ports_of_an_engine_are_left_alone() {
    let mut w = world();
    w.links.insert(20, link(20, "veth9", "veth", None));
    w.links.insert(21, link(21, "virbr0", "bridge", None));
    w.links.insert(22, link(22, "vnet0", "veth", Some(21)));
    w.links.insert(23, link(23, "eth0", "dummy", Some(BRIDGE)));
    let tapped: Vec<u32> = reconcile(&w, NOW)
        .into_iter()
        .filter_map(|a| if let Action::Tap { ifindex, .. } = a { Some(ifindex) } else { None })
        .collect();
    assert_eq!(tapped, [PORT]);
}

/// What an engine has just made, before it joins a bridge.
fn new_port(name: &str) -> World {
    let mut w = world();
    let mut seen = link(PORT, name, "veth", None);
    seen.link.peer_ifindex = Some(PORT - 1);
    seen.link.up = false;
    (seen.made_at, seen.joined_at, seen.up_at) = (Some(NOW), None, None);
    w.links.insert(PORT, seen);
    w
}

#[test]
fn a_port_is_tapped_when_it_is_made_and_given_up_if_it_joins_nothing() {
    let tap = Action::Tap { ifindex: PORT, set: NURSERY };
    let taps = |w: &World, now| reconcile(w, now).contains(&tap);
    let w = new_port("veth12ab34f");
    assert!(taps(&w, NOW));
    assert!(!taps(&w, NOW + Duration::from_secs(2)), "it is not about to join");
    assert!(!taps(&new_port("veth1"), NOW), "somebody else's");
    assert!(!taps(&new_port("veth12ab34fe"), NOW));
    let mut other_end = w.clone();
    other_end.links.get_mut(&PORT).unwrap().link.peer_ifindex = Some(PORT + 1);
    assert!(!taps(&other_end, NOW), "that goes into the container");
    let mut up = w.clone();
    up.links.get_mut(&PORT).unwrap().link.up = true;
    assert!(!taps(&up, NOW));

    let untap = Action::Untap { ifindex: PORT };
    let mut tapped = w;
    tapped.taps.insert(PORT, TapSeen { early: true, ..tap_in(NURSERY, NOW, TapHold::Quick) });
    assert!(!reconcile(&tapped, NOW).contains(&untap));
    assert!(reconcile(&tapped, NOW + Duration::from_secs(2)).contains(&untap));
    let mut elsewhere = tapped.clone();
    elsewhere.links.get_mut(&PORT).unwrap().link.master = Some(BRIDGE + 100);
    assert!(!reconcile(&elsewhere, NOW).contains(&untap), "the engine may tell of the bridge yet");
    assert!(reconcile(&elsewhere, NOW + Duration::from_secs(2)).contains(&untap), "it is no engine's");
    elsewhere.links.get_mut(&PORT).unwrap().link.up = true;
    assert!(reconcile(&elsewhere, NOW).contains(&untap));
    tapped.links.get_mut(&PORT).unwrap().link.master = Some(BRIDGE);
    assert!(!reconcile(&tapped, NOW + Duration::from_secs(2)).contains(&untap));
}

#[test]
fn a_port_that_refused_is_tried_again_later_only() {
    let mut w = world();
    w.refused.insert(PORT, ("busy".into(), NOW + Duration::from_secs(1)));
    assert!(!reconcile(&w, NOW).iter().any(|a| matches!(a, Action::Tap { .. })));
    assert!(reconcile(&w, NOW + Duration::from_secs(2)).iter().any(|a| matches!(a, Action::Tap { .. })));
}

#[test]
fn the_far_ends_address_names_the_port() {
    let mut w = world_with(container("a", &[]));
    let name = Action::Name { ifindex: PORT, container: "a".into(), network: "n".into() };
    assert!(reconcile(&w, NOW).contains(&name));
    // nobody told of that container: the engine is asked, the port is looked at again
    w.containers.clear();
    let actions = reconcile(&w, NOW);
    assert!(actions.contains(&Action::AskEngine) && !actions.contains(&name), "{actions:?}");
    assert!(actions.iter().any(|a| matches!(a, Action::LookLater { ifindex: PORT, .. })));
    // nor of the far end's address: the network is asked
    w.networks.get_mut("n").unwrap().endpoints.clear();
    assert!(reconcile(&w, NOW).contains(&Action::AskNetwork { id: "n".into() }));
    // without an engine nobody is asked
    w.engine = false;
    assert!(!reconcile(&w, NOW).iter().any(|a| matches!(a, Action::AskNetwork { .. } | Action::AskEngine)));
}

/// An address is given to the next container milliseconds after the last one has gone, of which the engine's word may come later
/// than the kernel's of the new port.
#[test]
fn who_had_the_address_before_the_port_was_there_is_not_believed() {
    let mut w = world_with(container("a", &[]));
    let asks = Action::AskNetwork { id: "n".into() };
    let names = |w: &World| reconcile(w, NOW).iter().any(|a| matches!(a, Action::Name { .. }));
    if let Some(l) = w.links.get_mut(&PORT) {
        l.joined_at = Some(NOW);
        l.peer = Some(FarEnd { mac: None, addresses: vec!["172.17.0.2".parse().unwrap()] });
    }
    w.networks.get_mut("n").unwrap().as_of = NOW.before(Duration::from_nanos(1));
    assert!(!names(&w) && reconcile(&w, NOW).contains(&asks));
    w.networks.get_mut("n").unwrap().as_of = NOW;
    assert!(names(&w) && !reconcile(&w, NOW).contains(&asks), "its addresses alone name it");
    // it was there before we looked, and so was the network
    w.networks.get_mut("n").unwrap().as_of = Timestamp::ZERO;
    w.links.get_mut(&PORT).unwrap().joined_at = None;
    assert!(names(&w));
}

#[test]
fn a_far_end_whose_addresses_tell_nothing_is_asked_for_more() {
    let mut w = world_with(container("a", &[]));
    w.networks.get_mut("n").unwrap().endpoints.clear();
    let whole = Action::AskPeer { ifindex: PORT, whole: true };
    let unknown = FarEnd { mac: None, addresses: vec!["192.0.2.9".parse().unwrap()] };
    w.links.get_mut(&PORT).unwrap().peer = Some(unknown);
    assert!(!reconcile(&w, NOW).contains(&whole), "the network first");
    w.links.get_mut(&PORT).unwrap().looked = 2;
    assert!(reconcile(&w, NOW).contains(&whole));
}

#[test]
fn a_named_port_moves_to_its_tenants_set() {
    let mut w = world_with(container("a", &[("conmon.tenant", "blue")]));
    own(&mut w, "a");
    let role = SetRole::Tenant("blue".into());
    assert!(reconcile(&w, NOW).contains(&Action::Assign { set: SetId(2), role: role.clone() }));
    w.sets.get_mut(&SetId(2)).unwrap().role = role;
    assert!(reconcile(&w, NOW).contains(&Action::Move { ifindex: PORT, set: SetId(2) }));
    w.taps.get_mut(&PORT).unwrap().set = SetId(2);
    let left: Vec<Action> = reconcile(&w, NOW).into_iter().filter(|a| !matches!(a, Action::Load)).collect();
    assert_eq!(left, [], "nothing else is to be done");
}

#[test]
fn until_a_set_is_there_the_nursery_counts() {
    let mut w = world_with(container("a", &[]));
    own(&mut w, "a");
    w.sets.remove(&SetId(2));
    let actions = reconcile(&w, NOW);
    assert!(!actions.iter().any(|a| matches!(a, Action::Move { .. } | Action::Untap { .. })), "{actions:?}");
    assert_eq!(actions.iter().filter(|a| **a == Action::Load).count(), 1);
    w.loading = 1;
    assert!(!reconcile(&w, NOW).contains(&Action::Load), "one is on its way");
}

#[test]
fn a_dedicated_monitor_and_the_tenants_are_two_sets() {
    let mut w = world_with(container("a", &[("conmon.monitor", "dedicated")]));
    own(&mut w, "a");
    w.sets.get_mut(&SetId(2)).unwrap().role = SetRole::Tenant("default".into());
    w.sets.insert(SetId(3), set(SetRole::Pool));
    let assign = Action::Assign { set: SetId(3), role: SetRole::Dedicated("a".into()) };
    assert!(reconcile(&w, NOW).contains(&assign));
}

#[test]
fn who_opted_out_is_untapped_and_stays_so() {
    let mut w = world_with(container("a", &[("conmon.enable", "false")]));
    own(&mut w, "a");
    assert!(reconcile(&w, NOW).contains(&Action::Untap { ifindex: PORT }));
    w.taps.clear();
    assert!(!reconcile(&w, NOW).iter().any(|a| matches!(a, Action::Tap { .. })));
    // opt-in turns it round
    let mut w = world_with(container("a", &[]));
    own(&mut w, "a");
    w.wishes.opt_in = true;
    assert!(reconcile(&w, NOW).contains(&Action::Untap { ifindex: PORT }));
}

#[test]
fn a_port_that_went_is_settled() {
    let mut w = world_with(container("a", &[]));
    own(&mut w, "a");
    w.links.remove(&PORT);
    assert!(reconcile(&w, NOW).contains(&Action::Forget { ifindex: PORT }));
}

#[test]
fn a_silent_monitor_is_replaced_a_missing_one_made() {
    let mut w = world();
    let later = NOW + Duration::from_secs(6);
    let replaced = |w: &World| {
        reconcile(w, later).iter().any(|a| matches!(a, Action::ReplaceMonitor { set: SetId(2), .. }))
    };
    assert!(replaced(&w));
    w.engine = false;
    assert!(!replaced(&w), "without an engine there is nobody to make another");
    w.engine = true;
    w.sets.get_mut(&SetId(2)).unwrap().monitor =
        MonitorSeen::Missing { retry_at: NOW + Duration::from_secs(1) };
    assert!(!reconcile(&w, NOW).contains(&Action::StartMonitor { set: SetId(2) }));
    assert!(reconcile(&w, later).contains(&Action::StartMonitor { set: SetId(2) }));
}

#[test]
fn a_set_that_nobody_needs_goes_after_a_while() {
    let mut w = world();
    w.sets.get_mut(&SetId(2)).unwrap().role = SetRole::Tenant("gone".into());
    let mark = Action::MarkIdle { set: SetId(2), since: Some(NOW) };
    assert!(reconcile(&w, NOW).contains(&mark));
    w.sets.get_mut(&SetId(2)).unwrap().idle_since = Some(NOW);
    let retire = Action::Retire { set: SetId(2) };
    assert!(!reconcile(&w, NOW + Duration::from_secs(59)).contains(&retire));
    assert!(reconcile(&w, NOW + Duration::from_secs(60)).contains(&retire));
    // a port is being tapped for it
    w.tapping.insert(PORT, Tapping { set: SetId(2), programs: 0, since: NOW });
    let actions = reconcile(&w, NOW + Duration::from_secs(60));
    assert!(actions.contains(&Action::MarkIdle { set: SetId(2), since: None }) && !actions.contains(&retire));
    w.tapping.clear();
    // its tenant came back in time
    w.containers.insert("a".into(), container("a", &[("conmon.tenant", "gone")]));
    let actions = reconcile(&w, NOW + Duration::from_secs(60));
    assert!(actions.contains(&Action::MarkIdle { set: SetId(2), since: None }) && !actions.contains(&retire));
}

fn tapped(hold: TapHold, since: u64) -> TapSeen {
    let tapped_at = NOW.before(Duration::from_millis(since));
    tap_in(NURSERY, tapped_at, hold)
}

fn fastens(world: &World) -> Option<u32> {
    reconcile(world, NOW).into_iter().find_map(|a| match a {
        Action::Fasten { ifindex } => Some(ifindex),
        _ => None,
    })
}

#[test]
fn a_quick_tap_is_fastened_when_all_is_quiet() {
    let mut world = world();
    world.taps.insert(PORT, tapped(TapHold::Quick, 1_900));
    assert_eq!(fastens(&world), None, "containers may be starting");
    world.taps.insert(PORT, tapped(TapHold::Quick, 2_100));
    assert_eq!(fastens(&world), Some(PORT));
    world.fasten_at = NOW + Duration::from_millis(1);
    assert_eq!(fastens(&world), None, "others want to change devices, too");
    world.fasten_at = NOW;
    world.wishes.fasten = false;
    assert_eq!(fastens(&world), None, "nothing to fasten by");
    world.wishes.fasten = true;
    world.tapping.insert(8, Tapping { set: NURSERY, programs: 0, since: NOW });
    assert_eq!(fastens(&world), None, "a port is being tapped");
    world.tapping.clear();
    world.links.remove(&PORT);
    assert_eq!(fastens(&world), None, "it has gone");
}

#[test]
fn no_port_is_fastened_while_a_container_is_about_to_start() {
    let mut w = world();
    w.taps.insert(PORT, tapped(TapHold::Quick, 5_000));
    let mut made = container("a", &[]);
    made.container.state = ContainerState::Created;
    made.heard_at = NOW.before(Duration::from_secs(29));
    w.containers.insert("a".into(), made.clone());
    assert_eq!(fastens(&w), None);
    made.heard_at = NOW.before(Duration::from_secs(31));
    w.containers.insert("a".into(), made);
    assert_eq!(fastens(&w), Some(PORT), "it is not about to start any more");
}

#[test]
fn one_port_is_fastened_at_a_time_and_left_alone_meanwhile() {
    let mut world = world_with(container("c", &[]));
    own(&mut world, "c");
    world.sets.insert(SetId(3), set(SetRole::Tenant("default".into())));
    world.links.insert(8, link(8, "veth2", "veth", Some(BRIDGE)));
    world.taps.insert(PORT, tapped(TapHold::Busy, 5_000));
    world.taps.insert(8, tapped(TapHold::Quick, 5_000));
    assert_eq!(fastens(&world), None);
    let touches = |world: &World| {
        reconcile(world, NOW)
            .into_iter()
            .any(|a| matches!(a, Action::Move { ifindex: PORT, .. } | Action::Untap { ifindex: PORT }))
    };
    assert!(!touches(&world), "its programs are being exchanged");
    world.taps.insert(PORT, tapped(TapHold::Fast, 5_000));
    assert!(touches(&world), "now it moves to its tenant's set");
    assert_eq!(fastens(&world), Some(8));
    world.taps.insert(PORT, tapped(TapHold::Busy, 5_000));
    world.links.remove(&PORT);
    assert!(reconcile(&world, NOW).contains(&Action::Forget { ifindex: PORT }), "gone is gone");
}

#[test]
fn a_set_without_a_monitoring_container_is_read_by_the_controller_after_a_while() {
    let mut world = world_with(container("c", &[]));
    own(&mut world, "c");
    let mut tenant = set(SetRole::Tenant("default".into()));
    tenant.monitor = MonitorSeen::Missing { retry_at: NOW + Duration::from_secs(600) };
    world.sets.insert(SetId(3), tenant);
    let about = |world: &World, now| -> Vec<Action> {
        let all = reconcile(world, now).into_iter();
        all.filter(|a| {
            matches!(a, Action::MarkUnread { .. } | Action::StandIn { .. } | Action::StandDown { .. })
        })
        .collect()
    };
    let mark = |since| Action::MarkUnread { set: SetId(3), since };
    assert_eq!(about(&world, NOW), [mark(Some(NOW))]);
    world.sets.get_mut(&SetId(3)).unwrap().unread_since = Some(NOW);
    assert_eq!(about(&world, NOW + Duration::from_secs(9)), []);
    assert_eq!(about(&world, NOW + STAND_IN), [Action::StandIn { set: SetId(3) }]);
    // whatever becomes of further attempts, it is read once
    let seen = world.sets.get_mut(&SetId(3)).unwrap();
    seen.standin = true;
    seen.monitor = MonitorSeen::Starting { since: NOW };
    assert_eq!(about(&world, NOW + STAND_IN), []);
    let seen = world.sets.get_mut(&SetId(3)).unwrap();
    seen.monitor = MonitorSeen::Connected { id: "m".into(), pid: 1, heard_at: NOW };
    assert_eq!(about(&world, NOW), [Action::StandDown { set: SetId(3) }]);
    world.sets.get_mut(&SetId(3)).unwrap().standin = false;
    assert_eq!(about(&world, NOW), [mark(None)]);
    // nobody's set waits unread, and is read at once when it becomes somebody's
    let pool = world.sets.get_mut(&SetId(2)).unwrap();
    pool.monitor = MonitorSeen::Missing { retry_at: NOW + Duration::from_secs(600) };
    pool.unread_since = Some(Timestamp::ZERO);
    world.sets.get_mut(&SetId(3)).unwrap().unread_since = None;
    assert_eq!(about(&world, NOW), []);
    world.sets.get_mut(&SetId(2)).unwrap().role = SetRole::Tenant("other".into());
    assert_eq!(about(&world, NOW), [Action::StandIn { set: SetId(2) }]);
}

#[test]
fn a_container_without_a_port_is_asked_for_once() {
    let mut world = world_with(container("c", &[]));
    let asks = |world: &World| reconcile(world, NOW).contains(&Action::AskMode { id: "c".into() });
    assert!(!asks(&world), "known");
    world.containers.get_mut("c").unwrap().container.mode = None;
    assert!(asks(&world));
    world.containers.get_mut("c").unwrap().ask_mode_at = Timestamp(NOW.0 + 1);
    assert!(!asks(&world), "not yet");
    world.containers.get_mut("c").unwrap().ask_mode_at = NOW;
    world.engine = false;
    assert!(!asks(&world), "nobody to ask");
    world.engine = true;
    own(&mut world, "c");
    assert!(!asks(&world), "its port tells enough");
}

#[test]
fn a_table_is_extended_when_it_is_half_full_or_what_is_there_finds_no_room() {
    let room = world().wishes.room;
    let pairs = |used, full| Extending {
        first: 4096,
        slots: 4096,
        used,
        full,
        full_before: 7,
        ..Extending::default()
    };
    let wanted = |table: &Extending| table.wanted(Extensible::Pairs, &room, NOW);
    for (used, full, expected) in [
        (0, 7, false),
        (2048, 7, false),
        (2049, 7, true),
        // keys that happen to collide in a table that is nearly empty would in a larger one, too
        (1024, 100, false),
        (1025, 100, true),
        (1025, 7, false),
    ] {
        assert_eq!(wanted(&pairs(used, full)), expected, "{used} used, {full} found none");
    }
    let full = pairs(4096, 7);
    let of = |slots: u32| Extending { slots, used: slots.into(), ..full.clone() };
    assert!(!wanted(&Extending { busy: true, ..full.clone() }), "one at a time");
    let late = NOW + Duration::from_millis(1);
    assert!(!wanted(&Extending { not_before: late, ..full.clone() }), "it failed a moment ago");
    assert!(wanted(&of(32_768)));
    assert!(!wanted(&of(65_536)), "its bound");
    assert!(!wanted(&of(0)), "nobody knows it");
    // each has its own bound; 64 times what it began with, whatever new ones begin with, is everyone's
    assert!(!full.wanted(Extensible::Histograms, &room, NOW));
    assert!(of(1024).wanted(Extensible::Histograms, &room, NOW));
    let wide = Room { max_pairs: 1 << 20, ..room };
    assert!(
        of(131_072).has_more(Extensible::Pairs, &wide) && !of(262_144).has_more(Extensible::Pairs, &wide)
    );

    // the kernel's counters are what counts; what was there before is no reason
    let spec = SetSpec { pairs: 4096, hists: 1024, pair_extents: 2, ..SetSpec::default() };
    let counters =
        SetCounters { pairs: 9000, hists: 3, no_pair: 5, pair_full: 6, hist_full: 4, ..Default::default() };
    let mut table = Extending::default();
    table.look(Extensible::Pairs, &spec, &counters);
    assert_eq!((table.slots, table.used, table.full, table.lost), (16_384, 9000, 11, 6));
    assert!(wanted(&table));
    let room_for = |table: &Extending, at: Timestamp, counters: &SetCounters| {
        table.clone().mends(counters, &room, at, Duration::from_secs(1))
    };
    let some = SetCounters { unpaired: 2, ..counters };
    assert!(!room_for(&table, NOW, &some), "it is enlarged first");
    assert!(
        room_for(&Extending { error: Some("no memory".into()), ..table.clone() }, NOW, &some),
        "it cannot be"
    );
    let bound = Extending { slots: 65_536, used: 65_535, ..table.clone() };
    assert!(room_for(&bound, NOW, &some) && !room_for(&Extending { used: 65_536, ..bound }, NOW, &some));
    let mut roomy = Extending { slots: 32_768, ..table.clone() };
    assert!(!room_for(&roomy, NOW, &counters), "none lacks one");
    assert!(!room_for(&Extending { busy: true, ..roomy.clone() }, NOW, &some), "soon there is more");
    assert!(roomy.mends(&some, &room, NOW, Duration::from_secs(1)));
    assert!(!room_for(&roomy, NOW, &some), "a moment ago");
    assert!(room_for(&roomy, NOW + Duration::from_secs(1), &some));
    assert!(room_for(&roomy, NOW, &SetCounters { no_pair: 6, ..some }), "another flow");
    assert!(room_for(&roomy, NOW, &SetCounters { unpaired: 1, ..some }), "it helped");
    roomy.has_size();
    assert!(room_for(&roomy, NOW, &some), "more room");
    table.has_size();
    assert_eq!((table.full_before, table.lost_before), (11, 6));
    table.look(Extensible::Histograms, &spec, &counters);
    assert_eq!((table.slots, table.used, table.full, table.lost), (1024, 3, 4, 4));
}

#[test]
fn a_set_whose_tables_are_extended_is_not_retired() {
    let mut w = world();
    let idle = SetSeen {
        idle_since: Some(Timestamp(1)),
        ..SetSeen::new(SetRole::Tenant("gone".into()), MonitorSeen::Inline)
    };
    w.sets.insert(SetId(40), idle);
    let retires =
        |w: &World| reconcile(w, NOW).iter().any(|a| matches!(a, Action::Retire { set: SetId(40) }));
    assert!(retires(&w));
    w.sets.get_mut(&SetId(40)).unwrap().extending[1].busy = true;
    assert!(!retires(&w), "its pins are about to have one more");
}

/// What is asked for the nursery's flow table.
fn growth_of(world: &World, at: Timestamp) -> Option<Action> {
    reconcile(world, at)
        .into_iter()
        .find(|a| matches!(a, Action::Resize { set: NURSERY, .. } | Action::Drain { set: NURSERY }))
}

fn table(world: &mut World) -> &mut FlowTable {
    &mut world.sets.get_mut(&NURSERY).unwrap().table
}

#[test]
fn a_flow_table_grows_when_it_is_nearly_full_and_by_more_when_it_overflows() {
    let mut w = world();
    *table(&mut w) = FlowTable::new(4096);
    for (used, full, before, wanted) in [
        (0, 0, 0, None),
        (3583, 0, 0, None),
        (3584, 0, 0, Some(8192)),
        (3584, 512, 0, Some(8192)),
        (3584, 513, 0, Some(32_768)),
        (3584, 513, 1, Some(8192)),
        (1000, 513, 0, Some(8192)),
        (1000, 9_513, 9_500, None),
        (u64::MAX / 2, u64::MAX, 0, Some(32_768)),
    ] {
        let t = table(&mut w);
        (t.used, t.full, t.full_before) = (used, full, before);
        let wanted = wanted.map(|flows| Action::Resize { set: NURSERY, flows });
        assert_eq!(growth_of(&w, NOW), wanted, "{used} used, {full} overflowed, {before} before");
    }
    table(&mut w).grow_at = NOW + Duration::from_millis(1);
    assert_eq!(growth_of(&w, NOW), None, "it failed a moment ago");
    assert!(growth_of(&w, NOW + Duration::from_millis(1)).is_some());
    *table(&mut w) = FlowTable { used: 60_000, full: 60_000, ..FlowTable::new(16_384) };
    assert_eq!(
        growth_of(&w, NOW),
        Some(Action::Resize { set: NURSERY, flows: 65_536 }),
        "not beyond its bound"
    );
    table(&mut w).slots = 65_536;
    assert_eq!(growth_of(&w, NOW), None, "it has met its bound");
    // what overflowed at its bound does not keep it from being cut, nor make it grow for ever
    let now = pass(&mut w, NOW, 200, 12_000);
    let of = |w: &mut World, full, at| {
        let room = w.wishes.room;
        table(w).look(12_000, full, &room, at);
        growth_of(w, at)
    };
    assert_eq!(of(&mut w, 60_000, now), Some(Action::Resize { set: NURSERY, flows: 15_008 }));
    table(&mut w).slots = 16_384;
    assert_eq!(of(&mut w, 60_000, now), Some(Action::Resize { set: NURSERY, flows: 32_768 }));
    let later = now + Duration::from_secs(70);
    assert_eq!(of(&mut w, 60_000, later), Some(Action::Resize { set: NURSERY, flows: 15_008 }));
}

/// Time passes as the controller lets it, ten seconds at a time, with so many records in use.
fn pass(world: &mut World, from: Timestamp, seconds: u64, used: u64) -> Timestamp {
    let room = world.wishes.room;
    let mut now = from;
    for _ in 0..seconds / 10 {
        now = now + Duration::from_secs(10);
        table(world).look(used, 0, &room, now);
    }
    now
}

#[test]
fn room_that_was_not_needed_for_a_while_is_given_back() {
    let mut w = world();
    let room = w.wishes.room;
    let cut = |w: &World, now| growth_of(w, now);
    let to = |flows| Some(Action::Resize { set: NURSERY, flows });
    *table(&mut w) = FlowTable::new(32_768);
    let now = pass(&mut w, NOW, 30, 20_000);
    let now = pass(&mut w, now, 30, 12_000);
    assert_eq!(cut(&w, now), None, "it was not looked at for long enough");
    let now = pass(&mut w, now, 10, 12_000);
    assert_eq!(cut(&w, now), to(25_008), "there were 20,000 in the last minute");
    let now = pass(&mut w, now, 60, 12_000);
    assert_eq!(cut(&w, now), to(15_008), "four fifths of it are taken, in whole buckets");
    table(&mut w).has_size(15_008, &room, now);
    let now = pass(&mut w, now, 120, 3_000);
    assert_eq!(cut(&w, now), None, "it was cut a moment ago");
    let now = pass(&mut w, now, 500, 3_000);
    assert_eq!(cut(&w, now), to(4096), "to no less than it began with");
    table(&mut w).has_size(4096, &room, now);
    let now = pass(&mut w, now, 1_000, 0);
    assert_eq!(cut(&w, now), None);
    // nearly as large as needed is left alone
    *table(&mut w) = FlowTable::new(16_000);
    let now = pass(&mut w, now, 100, 12_416);
    assert_eq!(cut(&w, now), None);
    let now = pass(&mut w, now, 200, 12_390);
    assert_eq!(cut(&w, now), Some(Action::Resize { set: NURSERY, flows: 15_488 }));
    // a monitor's word does not cut it, nor can it
    *table(&mut w) =
        FlowTable { used: u64::MAX, full: u64::MAX, full_before: u64::MAX, ..FlowTable::new(65_536) };
    let room = w.wishes.room;
    for s in [0, 70, 140] {
        table(&mut w).look(u64::MAX, u64::MAX, &room, now + Duration::from_secs(s));
    }
    assert_eq!(cut(&w, now + Duration::from_secs(140)), None);
    // and so is what grows
    *table(&mut w) = FlowTable { stage: Growth::Making, ..FlowTable::new(32_768) };
    let now = pass(&mut w, now, 100, 12_000);
    assert_eq!(cut(&w, now), None);
}

#[test]
fn records_are_moved_once_no_port_counts_in_the_table_before() {
    let mut w = world();
    w.taps.insert(PORT, tapped(TapHold::Fast, 5_000));
    *table(&mut w) = FlowTable { stage: Growth::Moving, programs: 1, ..FlowTable::new(8192) };
    let moves = |w: &World| reconcile(w, NOW).contains(&Action::Move { ifindex: PORT, set: NURSERY });
    assert!(moves(&w) && growth_of(&w, NOW).is_none(), "first the port");
    // it is under way, to the programs of before
    w.taps.insert(PORT, TapSeen { heading: Some((NURSERY, 0)), ..tapped(TapHold::Busy, 5_000) });
    assert!(!moves(&w) && growth_of(&w, NOW).is_none());
    // from another set, and to the programs of before
    let from = TapSeen { set: SetId(2), heading: Some((NURSERY, 0)), ..tapped(TapHold::Busy, 5_000) };
    w.taps.insert(PORT, from);
    assert!(growth_of(&w, NOW).is_none(), "it would come with programs of the table before");
    w.taps.insert(PORT, TapSeen { programs: 1, ..tapped(TapHold::Fast, 5_000) });
    w.tapping.insert(8, Tapping { set: NURSERY, programs: 0, since: NOW });
    assert!(growth_of(&w, NOW).is_none(), "another is being tapped, by the programs of before");
    w.tapping.insert(8, Tapping { set: NURSERY, programs: 1, since: NOW });
    assert_eq!(growth_of(&w, NOW), Some(Action::Drain { set: NURSERY }));
    assert!(!moves(&w));
    for stage in [Growth::Making, Growth::Draining, Growth::Settling] {
        table(&mut w).stage = stage;
        assert_eq!(growth_of(&w, NOW), None, "{stage:?}");
    }
    // what could not be done is tried again
    *table(&mut w) = FlowTable { stage: Growth::Left, programs: 1, ..FlowTable::new(8192) };
    assert_eq!(growth_of(&w, NOW), Some(Action::Drain { set: NURSERY }));
}

#[test]
fn a_set_that_grows_is_not_retired_and_its_ports_are_not_fastened() {
    let mut w = world();
    w.sets.get_mut(&SetId(2)).unwrap().role = SetRole::Tenant("gone".into());
    let grown = |w: &mut World, stage| {
        let set = w.sets.get_mut(&SetId(2)).unwrap();
        set.idle_since = Some(Timestamp::ZERO);
        set.table = FlowTable { stage, ..FlowTable::new(8192) };
    };
    w.taps.clear();
    grown(&mut w, Growth::Settling);
    assert!(!reconcile(&w, NOW).contains(&Action::Retire { set: SetId(2) }));
    grown(&mut w, Growth::None);
    assert!(reconcile(&w, NOW).contains(&Action::Retire { set: SetId(2) }));
    w.taps.insert(PORT, tapped(TapHold::Quick, 2_100));
    *table(&mut w) = FlowTable { stage: Growth::Moving, ..FlowTable::new(8192) };
    assert_eq!(fastens(&w), None);
    table(&mut w).stage = Growth::None;
    assert_eq!(fastens(&w), Some(PORT));
}

#[test]
fn the_pool_has_as_many_sets_as_are_wanted() {
    let mut world = world();
    let of_sets = |world: &World| -> Vec<Action> {
        let all = reconcile(world, NOW).into_iter();
        all.filter(|a| matches!(a, Action::Load | Action::Retire { .. } | Action::Assign { .. })).collect()
    };
    assert_eq!(of_sets(&world), []);
    world.sets.insert(SetId(3), set(SetRole::Pool));
    assert_eq!(of_sets(&world), [Action::Retire { set: SetId(3) }]);
    // Not while one of them is about to be needed.
    let mut busy = world_with(container("c", &[]));
    busy.sets.insert(SetId(3), set(SetRole::Pool));
    let actions = of_sets(&busy);
    assert!(matches!(actions[..], [Action::Assign { .. }]), "{actions:?}");
    world.sets.remove(&SetId(2));
    world.sets.remove(&SetId(3));
    assert_eq!(of_sets(&world), [Action::Load]);
}

#[test]
fn an_address_is_had_by_who_runs_and_has_it() {
    let address = "172.17.0.2".parse().unwrap();
    let mut world = world_with(container("c", &[]));
    assert!(world.has_address("c", address));
    assert!(!world.has_address("c", "172.17.0.3".parse().unwrap()) && !world.has_address("d", address));
    if let Some(c) = world.containers.get_mut("c") {
        c.container.state = ContainerState::Exited;
    }
    assert!(!world.has_address("c", address));
}

/// What is asked for control groups; a number is what a group has as a port.
fn of_groups(world: &World) -> Vec<Action> {
    let of = |a: &Action| match a {
        Action::TapGroup { .. } => true,
        Action::Move { ifindex, .. } | Action::Forget { ifindex } => tap::is_group(*ifindex),
        _ => false,
    };
    reconcile(world, NOW).into_iter().filter(of).collect()
}

#[test]
fn a_container_on_the_host_s_network_is_tapped_at_its_group_from_before_it_runs_until_it_ends() {
    const GROUP: u32 = 1 << 31 | 77;
    let mut w = world();
    let mut hosted = container("c", &[("conmon.tenant", "shop")]);
    (hosted.container.mode, hosted.container.state) = (Some(NetworkMode::Host), ContainerState::Created);
    w.containers.insert("c".into(), hosted);
    assert_eq!(of_groups(&w), [], "its tenant has no set yet, and the nursery is not for it");
    let shop = |w: &mut World, id| w.sets.insert(id, set(SetRole::Tenant("shop".into())));
    shop(&mut w, SetId(3));
    let tap = |set| Action::TapGroup { container: "c".into(), set };
    assert_eq!(of_groups(&w), [tap(SetId(3))]);
    // somebody is at it; it is not there yet
    let search = |w: &mut World, s| w.searches.insert("c".into(), s);
    search(&mut w, GroupSearch { heading: Some((SetId(3), 0)), ..GroupSearch::default() });
    assert_eq!(of_groups(&w), []);
    search(&mut w, GroupSearch { again_at: Timestamp(NOW.0 + 1), ..GroupSearch::default() });
    assert_eq!(of_groups(&w), []);
    search(&mut w, GroupSearch { again_at: NOW, tried: 9, ..GroupSearch::default() });
    assert_eq!(of_groups(&w), [tap(SetId(3))]);
    // tapped
    w.searches.clear();
    w.groups.insert(GROUP, GroupSeen { container: "c".into(), over: false });
    w.taps.insert(GROUP, tap_in(SetId(3), NOW, TapHold::Fast));
    assert_eq!(of_groups(&w), []);
    w.sets.get_mut(&SetId(3)).unwrap().table.programs = 1;
    assert_eq!(of_groups(&w), [Action::Move { ifindex: GROUP, set: SetId(3) }], "its table has grown");
    w.taps.get_mut(&GROUP).unwrap().programs = 1;
    // the engine has not told of it since our start
    let told = w.containers.remove("c").unwrap();
    assert_eq!(of_groups(&w), []);
    w.containers.insert("c".into(), told);
    w.containers.get_mut("c").unwrap().container.state = ContainerState::Exited;
    assert_eq!(of_groups(&w), [Action::Forget { ifindex: GROUP }]);
    w.containers.get_mut("c").unwrap().container.state = ContainerState::Running;
    assert_eq!(of_groups(&w), []);
    w.groups.get_mut(&GROUP).unwrap().over = true;
    assert_eq!(of_groups(&w), [Action::Forget { ifindex: GROUP }], "started again, it has another group");
}

#[test]
fn a_table_is_not_emptied_while_a_group_is_about_to_be_tapped_with_the_programs_of_before() {
    let mut w = world();
    *table(&mut w) = FlowTable { stage: Growth::Moving, programs: 1, ..FlowTable::new(8192) };
    let heading = |programs| GroupSearch { heading: Some((NURSERY, programs)), ..GroupSearch::default() };
    w.searches.insert("c".into(), heading(0));
    assert_eq!(growth_of(&w, NOW), None);
    w.searches.insert("c".into(), heading(1));
    assert_eq!(growth_of(&w, NOW), Some(Action::Drain { set: NURSERY }));
}
