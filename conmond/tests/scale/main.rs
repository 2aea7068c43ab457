//! Many hosts in short: the simulation of `cargo bench -p conmond --bench scale` with fifty hosts, all of them with readers, held to the truth.

mod cast;
mod events;
mod figures;
mod host;
mod plan;
mod service;
mod store;
mod truth;
mod world;

use figures::{Figures, Restart, table};
use plan::{MIN, MS, Plan, S};
use truth::{everybody_knows, watched, watches_are_needed};
use world::World;

/// Addresses are taken again within minutes.
fn plan() -> Plan {
    Plan { hosts: 50, readers: 50, containers: 20, pool: 32, peers: 60, ..Plan::goal(50, 5.0) }
}

#[test]
fn ten_minutes_of_fifty_hosts_are_as_they_should_be() {
    let mut world = World::new(plan());
    world.run_until(5 * S);
    let first = u64::from(world.plan.hosts) * u64::from(world.plan.containers + 1);
    assert_eq!(world.store.counts.puts, first, "a row for each host and each container");
    let end_ns = 10 * MIN;
    // Who ended before the one is deleted; who ended after the other is not.
    world.run_until(end_ns - 121 * S);
    let surely = world.cast.ended;
    world.run_until(end_ns - 119 * S);
    let perhaps = world.cast.ended;
    world.run_until(end_ns - 5 * S);
    world.churning = false;
    world.run_until(end_ns);

    let (counts, cast) = (world.store.counts, &world.cast);
    assert!((400..600).contains(&cast.ended), "5 % of 1,000 in each of ten minutes: {}", cast.ended);
    assert_eq!(counts.puts, first + cast.ended + cast.begun, "each beginning and each end is written once");
    assert!((surely..=perhaps).contains(&counts.deletes), "{surely} <= {} <= {perhaps}", counts.deletes);
    // What comes within 70 ms goes together, and nothing is written for nothing.
    let changes = cast.ended + cast.begun + counts.deletes;
    let transactions = counts.transactions - u64::from(world.plan.hosts);
    assert!(transactions <= changes && transactions * 100 > changes * 97, "{transactions} of {changes}");
    // Each host has its row and its seal there.
    assert_eq!(world.store.live().0, first + 50 + cast.begun - counts.deletes);
    assert_eq!(cast.begun, cast.ended, "all places are taken");

    let named = everybody_knows(&mut world);
    assert!(named > 50 * 60 * 20, "hardly anything was named: {named}");
    watches_are_needed(&world);
}

#[test]
fn what_nobody_needs_any_more_is_not_watched_for_long() {
    let mut world = World::new(plan());
    world.run_until(16 * MIN);
    watches_are_needed(&world);
    world.churning = false;
    world.talking = false;
    world.run_until(28 * MIN);
    for host in world.readers() {
        assert_eq!(watched(&world, host).len(), 0);
        let far = world.hosts[host as usize].far.as_deref().unwrap();
        assert_eq!(
            (far.reader.watching(), far.reader.cache().len()),
            (1, 0),
            "the hosts, and nobody's address"
        );
    }
}

#[test]
fn an_address_that_is_asked_for_once_is_let_go_after_ten_minutes_though_it_is_in_use() {
    let mut world = World::new(Plan { asked_every_ns: None, churn_percent: 0.5, ..plan() });
    world.run_until(9 * MIN);
    watches_are_needed(&world);
    world.run_until(12 * MIN);
    for host in world.readers() {
        let (watched, in_use) = (watched(&world, host), world.in_use(host));
        let told = in_use.intersection(&watched.into_iter().collect()).count();
        // Those that changed hands within ten minutes were asked for then.
        assert!(told * 4 < in_use.len(), "host {host} is told of {told} of {}", in_use.len());
    }
}

#[test]
fn after_a_restart_of_the_store_all_that_is_held_is_read_once_and_followed() {
    let mut world = World::new(plan());
    world.run_until(3 * MIN);
    let held = |world: &World| -> u64 {
        let fars = world.hosts.iter().filter_map(|host| host.far.as_deref());
        fars.map(|far| far.reader.cache().len() as u64 + 1).sum()
    };
    let before = held(&world);
    let restart = Restart::watch(&mut world, 3 * S, None, MS, 20 * S);
    assert!(restart.in_step_ns.1.is_some_and(|after| after < 6 * S), "{restart:?}");
    world.run_until(world.now_ns + 5 * S);
    let reads = restart.counts.reads;
    // Those who talk to somebody new meanwhile ask, too.
    assert!(reads <= before + before / 10 && reads * 100 >= before * 98, "{reads} readings of {before}");
    assert_eq!((restart.counts.leases_lost, restart.counts.lease_deletes), (0, 0));
    world.churning = false;
    world.run_until(world.now_ns + 35 * S);
    everybody_knows(&mut world);
    watches_are_needed(&world);
}

#[test]
fn the_same_seed_is_the_same_simulation() {
    let run = |seed| {
        let mut world = World::new(Plan { hosts: 20, readers: 5, seed, ..plan() });
        let figures = Figures::of(&mut world, 2 * MIN);
        (table(&[figures]), world.store.counts)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}
