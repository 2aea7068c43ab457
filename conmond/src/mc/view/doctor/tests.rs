use std::sync::Arc;
use std::time::Duration;

use ippm::measurement::Batch;

use super::*;
use crate::mc::view::tests::{SHOP, published, shared};

/// The named check over what `change` made of a sound world.
fn checked(name: &str, change: impl FnOnce(&mut Published)) -> Check {
    let mut p = published();
    change(&mut p);
    let shared = shared(p.clone());
    all(&shared, &p).into_iter().find(|c| c.name == name).unwrap()
}

fn all(shared: &Shared, p: &Published) -> Vec<Check> {
    let reckoning = Err(ApiError::unavailable("not asked for"));
    checks(shared, p, Path::new("/nonexistent/conmon-pins"), &Clocks::now(), None, &reckoning)
}

fn fails(name: &str, says: &str, change: impl FnOnce(&mut Published)) {
    assert!(checked(name, |_| {}).ok, "{name} is well in a sound world: {:?}", checked(name, |_| {}));
    let check = checked(name, change);
    assert!(!check.ok && check.remedy.is_some(), "{check:?}");
    assert!(check.detail.contains(says), "{check:?}");
}

#[test]
fn every_check_of_the_published_world_can_fail() {
    fails("engine", "refused", |p| {
        p.engine.connected = false;
        p.engine.error = Some("connection refused".to_owned());
    });
    fails("kernel", "neither TCX nor clsact", |p| p.attachment.clear());
    fails("kernel", "xdp", |p| p.attachment = "xdp".to_owned());
    fails("nat", "operation not permitted", |p| p.nat_error = Some("operation not permitted".to_owned()));
    fails("nat", "5 translated conversations found no room", |p| p.translations.full = 5);
    fails("taps", "veth9 is refused: no memory", |p| {
        p.refused.push(("veth9".to_owned(), "no memory".to_owned()))
    });
    fails("taps", "2 ports", |p| p.untapped = 2);
    fails("names", "veth7 has had no name", |p| {
        Arc::make_mut(&mut p.ports)[0].container = None;
        Arc::make_mut(&mut p.ports)[0].tapped_at = monotonic().before(Duration::from_secs(3));
    });
    fails("monitors", "pm-s2 does not report", |p| {
        p.heard.insert(SHOP, monotonic().before(Duration::from_secs(60)));
    });
    fails("monitors", "tenant shop's monitoring container was replaced 4 times", |p| {
        p.restarts.insert("shop".to_owned(), 4);
    });
    let young = checked("names", |p| Arc::make_mut(&mut p.ports)[0].container = None);
    assert!(young.ok, "a port may be new: {young:?}");
}

#[test]
fn a_missing_capability_is_told_with_what_it_is_for() {
    assert!(capabilities(&[], &[]).ok);
    let check = capabilities(&NEEDS[3..], &[]);
    assert!(
        !check.ok && check.detail.contains("CAP_CHOWN") && check.detail.contains("no ns per packet"),
        "{check:?}"
    );
    let check = capabilities(&[], &NEEDS[..1]);
    assert!(check.ok && check.detail.contains("CAP_BPF as part of CAP_SYS_ADMIN"), "{check:?}");
    assert!(!check.detail.starts_with("CAP_BPF"), "{check:?}");
}

#[test]
fn full_tables_and_dropped_events_are_told() {
    let p = published();
    let shared = shared(p.clone());
    let of = |name: &str| all(&shared, &p).into_iter().find(|c| c.name == name).unwrap();
    assert!(of("tables").ok && of("ring").ok);
    let mut batch = Batch { taken_at: monotonic(), ..Batch::default() };
    batch.set.pair_full = 3;
    batch.set.ring_full = 7;
    shared.store().apply(SHOP, &batch);
    assert!(
        of("tables").detail.contains("tenant shop: 3 packets found no pair record"),
        "{:?}",
        of("tables")
    );
    assert!(of("ring").detail.contains("tenant shop: 7 flow events"), "{:?}", of("ring"));
    assert!(!of("tables").ok && !of("ring").ok);

    batch.set.pair_full = 0;
    batch.ports = (0..9)
        .map(|i| ippm::measurement::PortMeasurement { ifindex: 100 + i, counts: Default::default() })
        .collect();
    shared.store().apply(SHOP, &batch);
    assert!(of("tables").detail.contains("9 of 10 ports are taken"), "{:?}", of("tables"));
}

#[test]
fn a_flow_table_that_may_grow_is_not_full_and_one_at_its_bound_says_so() {
    let mut p = published();
    let of = |p: &Published, flow_full: u64| {
        let shared = shared(p.clone());
        let mut batch = Batch { taken_at: monotonic(), ..Batch::default() };
        batch.set.flow_full = flow_full;
        shared.store().apply(SHOP, &batch);
        shared.store().scanned(SHOP, monotonic(), 9);
        all(&shared, p).into_iter().find(|c| c.name == "tables").unwrap()
    };
    assert!(of(&p, 0).detail.contains("9 of 10 flows are taken"), "{:?}", of(&p, 0));
    assert!(of(&p, 5).detail.contains("5 packets found no flow record"), "{:?}", of(&p, 5));
    assert!(of(&p, 5).detail.contains("grown to its bound of 10 (tables.max_flows)"), "{:?}", of(&p, 5));
    // what came before the table got as large as that is not known apart while records are on their way to it
    Arc::make_mut(&mut p.sets).iter_mut().for_each(|set| set.grows = true);
    assert!(!of(&p, 5).detail.contains("grown to its bound"), "{:?}", of(&p, 5));
    Arc::make_mut(&mut p.sets).iter_mut().for_each(|set| set.grows = false);
    for set in Arc::make_mut(&mut p.sets) {
        (set.max_flows, set.outgrown) = (20, 4);
    }
    let growing = of(&p, 5);
    assert!(growing.ok, "{growing:?}");
    assert!(
        growing.detail.contains("packets count in their pair only, from before flow tables grew"),
        "{growing:?}"
    );
}

#[test]
fn tables_that_grow_by_extents_are_not_full_and_at_their_bound_say_what_has_no_row() {
    let mut p = published();
    let of = |p: &Published, counters: ippm::measurement::SetCounters| {
        let shared = shared(p.clone());
        let batch = Batch { taken_at: monotonic(), set: counters, ..Batch::default() };
        shared.store().apply(SHOP, &batch);
        all(&shared, p).into_iter().find(|c| c.name == "tables").unwrap()
    };
    let counters = ippm::measurement::SetCounters {
        no_pair: 9,
        unpaired: 4,
        pair_full: 3,
        hist_full: 2,
        ..Default::default()
    };
    let bound = of(&p, counters);
    assert!(!bound.ok, "{bound:?}");
    for words in [
        "tenant shop: 4 flows found no pair record and are in no row of pairs; the table has its 10 records and no more",
        "3 packets found no pair record",
        "2 round-trip delays found no histogram",
    ] {
        assert!(bound.detail.contains(words), "{words}: {bound:?}");
    }
    // once there is more room, what was lost before is told and no fault
    Arc::make_mut(&mut p.sets).iter_mut().for_each(|set| set.extends = [(true, 3), (true, 2)]);
    let grown = of(&p, counters);
    assert!(grown.ok, "{grown:?}");
    let sets = p.sets.len() as u64;
    let lost = format!(
        "{} packets count in their port's overflow only and {} round-trip delays are lost, from before",
        3 * sets,
        2 * sets
    );
    assert!(grown.detail.contains(&lost), "{grown:?}");
    // and what is lost after that is one again
    let again = of(&p, ippm::measurement::SetCounters { hist_full: 5, ..counters });
    assert!(again.detail.contains("3 round-trip delays found no histogram"), "{again:?}");
}

#[test]
fn what_found_no_room_is_told_for_good_and_a_fault_for_a_while() {
    let p = published();
    let shared = shared(p.clone());
    let at = monotonic();
    let counters = ippm::measurement::SetCounters { port_full: 2, ring_full: 3, ..Default::default() };
    let mut batch = Batch { taken_at: at, set: counters, ..Batch::default() };
    shared.store().apply(SHOP, &batch);
    let both = |now| [tables(&shared, &p, now), ring(&shared, &p, now)];
    assert!(both(at + PAST).iter().all(|check| !check.ok));
    let later = at + PAST + Duration::from_secs(1);
    // the same again is no news
    batch.taken_at = later;
    shared.store().apply(SHOP, &batch);
    let [tables, ring] = both(later);
    assert!(tables.ok && ring.ok, "{tables:?}, {ring:?}");
    let words = "more than 10 min ago: tenant shop: 2 packets found no port record";
    assert!(tables.detail.contains(words), "{tables:?}");
    let words = "in the last 10 min; before, tenant shop: 3 flow events found no room";
    assert!(ring.detail.contains(words), "{ring:?}");
    batch.set.ring_full += 1;
    shared.store().apply(SHOP, &batch);
    let [tables, ring] = both(later);
    assert!(tables.ok && !ring.ok, "{tables:?}, {ring:?}");
}

#[test]
fn kernels_are_told_apart() {
    assert_eq!(release("6.18.44-fc-v595"), Some((6, 18)));
    assert_eq!(release("5.15"), Some((5, 15)));
    assert_eq!(release("linux"), None);
    let p = published();
    assert!(!kernel("5.10.0-30-amd64", &p).ok);
    assert!(kernel("5.15.0-1-generic", &p).ok);
    assert!(!kernel("", &p).ok);
}

#[test]
fn pins_of_nobody_are_told() {
    let dir = std::env::temp_dir().join(format!("conmon-pins-{}", std::process::id()));
    let p = published();
    let shared = shared(p);
    assert!(pins(&shared, &dir).ok, "nothing loaded, nothing pinned");
    fs::create_dir_all(dir.join("s9")).unwrap();
    let found = pins(&shared, &dir);
    fs::remove_dir_all(&dir).unwrap();
    assert!(!found.ok && found.detail.contains("s9 is of no set"), "{found:?}");
}

#[test]
fn clocks_that_were_set_or_slept_are_told() {
    let second = 1_000_000_000;
    let then = Clocks { slept_ns: 5 * second, wall_ns: 1_000 * second };
    assert!(clock(&then, &then).ok);
    assert!(clock(&then, &Clocks { wall_ns: then.wall_ns + second / 2, ..then }).ok, "steering is no step");
    let set = clock(&then, &Clocks { wall_ns: then.wall_ns - 60 * second, ..then });
    assert!(!set.ok && set.detail.contains("-60.0 s"), "{set:?}");
    let slept = clock(&then, &Clocks { slept_ns: 15 * second, wall_ns: then.wall_ns + 10 * second });
    assert!(
        !slept.ok && slept.detail.contains("slept for 10.0 s") && !slept.detail.contains("was set"),
        "{slept:?}"
    );
    assert!(!clock(&then, &Clocks { slept_ns: -5 * second, ..then }).ok);
    assert!(clock(&Clocks::now(), &Clocks::now()).ok);
}

#[test]
fn long_lists_are_cut() {
    let names: Vec<String> = (0..8).map(|i| i.to_string()).collect();
    assert_eq!(list(&names), "0; 1; 2; 3; 4; and 3 more");
}
