//! Who is there: hosts, their containers with addresses and times, and who talks to whom. The truth that answers are held to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use conmond::registry::{EndpointRow, HostRow, Own, Protocols};

use crate::plan::{EPOCH_NS, Plan, Rng, S};

/// Those that ended are told of for so long, as the controller does.
const TOLD_NS: u64 = 120 * S;

/// A container.
#[derive(Clone, Copy, Debug)]
pub struct Container {
    /// No other has it.
    pub serial: u64,
    /// Where among its host's containers: who takes its part later has the same place.
    pub place: u32,
    /// Which of its host's addresses.
    pub offset: u32,
    /// Since when, wall time.
    pub since_ns: u64,
    /// Until when, wall time.
    pub until_ns: Option<u64>,
}

/// A host's containers: those that run, and those that ended lately.
#[derive(Clone, Debug, Default)]
struct Crew {
    all: Vec<Container>,
    next_offset: u32,
}

/// Everybody.
pub struct Cast {
    plan: Plan,
    crews: Vec<Crew>,
    serial: u64,
    /// Containers that ended since the beginning.
    pub ended: u64,
    /// Containers that began since the first ones.
    pub begun: u64,
}

impl Cast {
    /// All hosts with all their containers, which began within the hour before.
    pub fn new(plan: Plan, rng: &mut Rng) -> Self {
        let crews = vec![Crew::default(); plan.hosts as usize];
        let mut cast = Self { plan, crews, serial: 0, ended: 0, begun: 0 };
        for host in 0..plan.hosts {
            for place in 0..plan.containers {
                cast.begin(host, place, EPOCH_NS - rng.below(3600 * S));
            }
        }
        cast.begun = 0;
        cast
    }

    /// A container begins in a place whose last one has ended. Returns its address.
    pub fn begin(&mut self, host: u32, place: u32, since_ns: u64) -> IpAddr {
        self.serial += 1;
        self.begun += 1;
        let crew = &mut self.crews[host as usize];
        crew.all.retain(|one| one.until_ns.is_none_or(|until| until + TOLD_NS > since_ns));
        let taken: BTreeSet<u32> =
            crew.all.iter().filter(|one| one.until_ns.is_none()).map(|one| one.offset).collect();
        while taken.contains(&crew.next_offset) {
            crew.next_offset = (crew.next_offset + 1) % self.plan.pool;
        }
        let offset = crew.next_offset;
        crew.next_offset = (offset + 1) % self.plan.pool;
        crew.all.push(Container { serial: self.serial, place, offset, since_ns, until_ns: None });
        self.address(host, offset)
    }

    /// The container of a place ends. Returns whether one was running there.
    pub fn end(&mut self, host: u32, place: u32, until_ns: u64) -> bool {
        let all = &mut self.crews[host as usize].all;
        let Some(one) = all.iter_mut().find(|one| one.place == place && one.until_ns.is_none()) else {
            return false;
        };
        one.until_ns = Some(until_ns);
        self.ended += 1;
        true
    }

    /// The address of who runs in a place.
    pub fn running(&self, (host, place): (u32, u32)) -> Option<IpAddr> {
        let one = self.crews[host as usize].all.iter().find(|o| o.place == place && o.until_ns.is_none())?;
        Some(self.address(host, one.offset))
    }

    /// The name of whoever had an address; `at_ns` at most two minutes ago.
    pub fn who_had(&self, address: IpAddr, at_ns: u64) -> Option<String> {
        let IpAddr::V4(v4) = address else { return None };
        let number = u32::from(v4) - u32::from(Ipv4Addr::new(10, 0, 0, 0));
        let (host, offset) = (number / self.plan.pool, number % self.plan.pool);
        let had = |one: &&Container| {
            one.offset == offset && one.since_ns <= at_ns && one.until_ns.is_none_or(|until| at_ns < until)
        };
        self.crews[host as usize].all.iter().find(had).map(|one| name(one.serial))
    }

    fn address(&self, host: u32, offset: u32) -> IpAddr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + host * self.plan.pool + offset).into()
    }

    /// What a host says of itself, as long as such texts are in practice.
    pub fn own(&self, host: u32, wall_ns: u64) -> Own {
        let name_of_host = host_name(host);
        let told = |one: &&Container| one.until_ns.is_none_or(|until| wall_ns - until <= TOLD_NS);
        let row = |one: &Container| EndpointRow {
            host: name_of_host.clone(),
            // The engine's ids have 64 digits.
            container_id: format!("{:064x}", u128::from(one.serial).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c)),
            container: name(one.serial),
            service: Some(format!("service-{:03}", one.place % 100)),
            tenant: format!("tenant-{:02}", one.place % 20),
            network: format!("tenant-{:02}_default", one.place % 20),
            address: self.address(host, one.offset),
            since_ns: one.since_ns,
            until_ns: one.until_ns,
        };
        let endpoints = self.crews[host as usize].all.iter().filter(told).map(row).collect();
        Own { host: host_row(host), endpoints }
    }
}

fn name(serial: u64) -> String {
    format!("service-{serial:09}-1")
}

/// A host's name.
pub fn host_name(host: u32) -> String {
    format!("node-{host:05}.cluster.example")
}

fn host_row(host: u32) -> HostRow {
    let name = host_name(host);
    HostRow {
        api: Some(format!("https://{name}:9443")),
        name,
        addresses: vec![IpAddr::from((0xac10_0000 + host).to_be_bytes())],
        version: "0.1.0".to_owned(),
        protocol: Protocols { min: 1, max: 1 },
        epoch: u64::from(host).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        since_ns: EPOCH_NS,
    }
}

/// Whom a host's containers talk to: places anywhere but on the host itself, each once.
pub fn peers(plan: &Plan, host: u32, rng: &mut Rng) -> Vec<(u32, u32)> {
    let all = u64::from(plan.hosts) * u64::from(plan.containers);
    let mut drawn = BTreeSet::new();
    while (drawn.len() as u64) < u64::from(plan.peers) {
        let popular = rng.below(100) < plan.popular_percent;
        // The popular are one container in a hundred, spread evenly.
        let one = if popular { rng.below(all.div_ceil(100)) * 100 } else { rng.below(all) };
        let place = ((one / u64::from(plan.containers)) as u32, (one % u64::from(plan.containers)) as u32);
        if place.0 != host {
            drawn.insert(place);
        }
    }
    drawn.into_iter().collect()
}
