//! Thousands of faults in virtual time: the product's own [`Writer`](super::writer::Writer), [`Reader`](super::reader::Reader) and
//! [`Cache`](super::cache::Cache) against a model of etcd. `CONMON_REGISTRY_SCHEDULES` says how many, `CONMON_REGISTRY_SEED` where to begin.

mod host;
mod store;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use super::cache::Asked;
use super::desired::Desired;
use super::rows::Own;
use host::{GRACE_NS, S};
use world::{EPOCH_NS, Event, World};

/// Faults happen for so long.
const FAULTS_NS: u64 = 60 * S;
/// And so long after the last one everything is as it should be.
const CONVERGES_NS: u64 = 45 * S;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn schedule(seed: u64) -> World {
    let mut world = World::new(seed, 4);
    let faults = 3 + world.rng.below(10);
    for _ in 0..faults {
        let at = 2 * S + world.rng.below(FAULTS_NS - 2 * S);
        world.after(at, Event::Fault);
    }
    if world.rng.chance(20) {
        world.hosts[3].dead = true;
    }
    world.run_until(FAULTS_NS);
    if world.hosts[3].dead {
        world.hosts[3].life = None;
    }
    world.heal_all();
    world.run_until(FAULTS_NS + 5 * S);
    world.rest();
    world.run_until(FAULTS_NS + 5 * S + CONVERGES_NS);
    world
}

/// What must be once everything is well again.
fn converged(world: &World) {
    let now = world.now();
    let mut expected = BTreeMap::new();
    for host in &world.hosts {
        let Some(life) = &host.life else { continue };
        let endpoints = world.truth.iter().filter(|row| row.host == host.name).cloned().collect();
        let desired = Desired::new(&Own { host: life.row.clone(), endpoints }, now.wall_ns, GRACE_NS);
        expected.extend(desired.keys.iter().map(|(key, wanted)| (key.clone(), wanted.value().to_vec())));
        assert_eq!(life.writer.pending(), 0, "{} has something to write still", host.name);
        assert!(!life.writer.superseded(), "{} is silent", host.name);
    }
    let stored = world.store.rows();
    let keys = |rows: &BTreeMap<String, Vec<u8>>| rows.keys().cloned().collect::<BTreeSet<_>>();
    let (have, want) = (keys(&stored), keys(&expected));
    assert_eq!(have, want, "lost {:?}, left over {:?}", &want - &have, &have - &want);
    assert_eq!(stored, expected, "an older value");
    let lives = world.hosts.iter().filter(|host| host.life.is_some()).count();
    assert_eq!(world.store.leases(), lives, "a lease for each host, and no more");
}

/// Whoever is asked names everybody, at any time of the last while, as it really was.
fn everybody_knows(world: &mut World) {
    let end_ns = world.now_ns;
    let moments: Vec<u64> = (0..40).map(|i| EPOCH_NS + end_ns - CONVERGES_NS - 5 * S - i * S / 4).collect();
    let lives: BTreeSet<String> =
        world.hosts.iter().filter(|host| host.life.is_some()).map(|host| host.name.clone()).collect();
    for address in world.pool.clone() {
        for host in 0..world.hosts.len() {
            let now = world.now();
            let Some(life) = &mut world.hosts[host].life else { continue };
            let _ = life.reader.find(address, now.wall_ns, now);
        }
        world.poke();
    }
    world.run_until(end_ns + 5 * S);
    let now = world.now();
    for host in &mut world.hosts {
        let Some(life) = &mut host.life else { continue };
        if let Some(hosts) = life.reader.take_hosts() {
            host.known_hosts = hosts;
        }
        let known: BTreeSet<String> = host.known_hosts.rows.keys().cloned().collect();
        assert_eq!(known, lives, "the hosts that {} knows", host.name);
        for address in &world.pool {
            let mut at = moments.clone();
            at.push(EPOCH_NS + end_ns);
            for at_ns in at {
                let had = world.truth.iter().filter(|row| {
                    row.address == *address
                        && lives.contains(&row.host)
                        && row.since_ns <= at_ns
                        && row.until_ns.is_none_or(|until| at_ns < until)
                });
                let expected: BTreeSet<_> =
                    had.map(|row| (row.host.clone(), row.container.clone())).collect();
                let answer = match life.reader.ask(*address, at_ns, now) {
                    Asked::Hit(answer) => answer,
                    Asked::Miss(Some(answer)) => answer,
                    Asked::Miss(None) => panic!("{} does not hold {address}", host.name),
                };
                let certain = answer
                    .candidates
                    .iter()
                    .filter(|candidate| candidate.margin_ns >= 0 && lives.contains(&candidate.row.host));
                let named: Vec<_> = certain.map(|c| (c.row.host.clone(), c.row.container.clone())).collect();
                let once: BTreeSet<_> = named.iter().cloned().collect();
                assert_eq!(once.len(), named.len(), "nobody is named twice");
                let claims = life.reader.cache().claims(*address);
                assert_eq!(once, expected, "{address} at {at_ns}, says {}: {claims:#?}", host.name);
            }
        }
    }
}

#[test]
fn whatever_befalls_the_store_names_are_right_and_all_converges() {
    let (first, count) = (number("CONMON_REGISTRY_SEED", 1), number("CONMON_REGISTRY_SCHEDULES", 100));
    let (mut asks, mut named) = (0, 0);
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for seed in first..first + count {
        let result = std::panic::catch_unwind(|| {
            let mut world = schedule(seed);
            converged(&world);
            everybody_knows(&mut world);
            // Rows that ended go when their grace is over, and nothing else does.
            let end_ns = world.now_ns;
            world.run_until(end_ns + GRACE_NS);
            converged(&world);
            (world.asks, world.named, std::mem::take(&mut world.faults_done))
        });
        match result {
            Ok((a, n, done)) => {
                asks += a;
                named += n;
                done.into_iter().for_each(|(fault, times)| *faults.entry(fault).or_default() += times);
            }
            Err(panic) => {
                eprintln!("CONMON_REGISTRY_SEED={seed} CONMON_REGISTRY_SCHEDULES=1 shows it again");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{count} schedules, {asks} answers, {named} names, faults {faults:?}");
    assert!(named > count * 100, "hardly anything was named: {named}");
}
