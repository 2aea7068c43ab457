//! What readers say and watch, held to what is and was. Panics where they differ.

use std::collections::BTreeSet;
use std::net::IpAddr;

use conmond::registry::cache::Asked;
use conmond::registry::reader::Target;

use crate::plan::{EPOCH_NS, MIN, S};
use crate::world::World;

/// Every reader names whoever had an address that it holds, now and in the 100 s before, as it was. To be asked when nothing has
/// changed for some seconds. Returns how many names were right.
pub fn everybody_knows(world: &mut World) -> usize {
    let now = world.now();
    let mut named = 0;
    for host in world.readers() {
        let in_use = world.in_use(host);
        let Some(far) = &mut world.hosts[host as usize].far else { continue };
        let held: Vec<IpAddr> = far.reader.cache().addresses().collect();
        assert!(
            in_use.iter().all(|address| held.contains(address)),
            "host {host} lacks somebody it talks to"
        );
        for address in held {
            for at_ns in (0..20).map(|i| EPOCH_NS + world.now_ns - i * 5 * S) {
                let (Asked::Hit(answer) | Asked::Miss(Some(answer))) = far.reader.ask(address, at_ns, now)
                else {
                    panic!("host {host} does not hold {address}")
                };
                let certain = answer.candidates.iter().filter(|candidate| candidate.margin_ns >= 0);
                let names: Vec<&str> = certain.map(|candidate| candidate.row.container.as_str()).collect();
                let truth = world.cast.who_had(address, at_ns);
                assert_eq!(
                    names,
                    truth.iter().map(String::as_str).collect::<Vec<_>>(),
                    "{address}, host {host}"
                );
                named += names.len();
            }
        }
    }
    named
}

/// The addresses a host watches.
pub fn watched(world: &World, host: u32) -> BTreeSet<IpAddr> {
    let address = |target| match target {
        Target::Address(address) => Some(address),
        Target::Hosts => None,
    };
    world.store.watched(host).filter_map(address).collect()
}

/// What is watched is needed, or was until lately, and what is needed is watched.
pub fn watches_are_needed(world: &World) {
    for host in world.readers() {
        let (watched, in_use) = (watched(world, host), world.in_use(host));
        let far = world.hosts[host as usize].far.as_deref().unwrap();
        assert_eq!(watched.len() + 1, far.reader.watching(), "the store and host {host} agree");
        let left = in_use.iter().find(|address| !watched.contains(address));
        assert_eq!(left, None, "host {host} is not told of somebody it talks to");
        for address in watched {
            let asked_ns = far.asked.get(&address).copied().unwrap_or(0);
            assert!(asked_ns + 10 * MIN + 2 * S > world.now_ns, "{address} is of no use to host {host}");
        }
    }
}
