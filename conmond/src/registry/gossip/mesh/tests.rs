//! A mesh in virtual time: datagrams that are late or lost, hosts that are cut off, die and start anew.

use super::super::super::cache::Asked;
use super::super::super::rows::tests::{endpoint, host};
use super::super::super::rows::{EndpointRow, HostRow};
use super::*;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;
const EPOCH_NS: u64 = 1_700_000_000 * S;

fn settings() -> MeshSettings {
    MeshSettings { ttl_ns: 15 * S, round_ns: 200 * MS, grace_ns: 60 * S }
}

fn address(host: usize) -> SocketAddr {
    ([10, 9, 0, host as u8], 9479).into()
}

struct Net {
    now_ns: u64,
    meshes: Vec<Option<Mesh>>,
    lives: Vec<u64>,
    /// Nothing passes to or from these.
    cut: Vec<bool>,
    under_way: BTreeMap<(u64, u64), (SocketAddr, usize, Message)>,
    sequence: u64,
    random: u64,
    loss_percent: u64,
    containers: u64,
    truth: Vec<EndpointRow>,
    longest: usize,
}

impl Net {
    fn new(seed: u64, hosts: usize) -> Self {
        let mut net = Self {
            now_ns: S,
            meshes: (0..hosts).map(|_| None).collect(),
            lives: vec![0; hosts],
            cut: vec![false; hosts],
            under_way: BTreeMap::new(),
            sequence: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            loss_percent: 5,
            containers: 0,
            truth: Vec::new(),
            longest: 0,
        };
        (0..hosts).for_each(|host| net.start(host));
        net
    }

    fn now(&self) -> Now {
        Now { steady_ns: self.now_ns, wall_ns: EPOCH_NS + self.now_ns }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % bound.max(1)
    }

    fn start(&mut self, host: usize) {
        self.lives[host] += 1;
        let life = Life { start_ns: EPOCH_NS + self.now_ns, epoch: 100 * host as u64 + self.lives[host] };
        let seeds = if host == 0 { vec![address(1)] } else { vec![address(0)] };
        let name = format!("h{host}");
        let limits = Limits { grace_ns: 60 * S, ..Limits::default() };
        let mesh = Mesh::new(&name, life, address(host), seeds, settings(), limits, self.now());
        self.meshes[host] = Some(mesh);
        self.publish(host);
    }

    fn row(&self, host_index: usize) -> HostRow {
        host(&format!("h{host_index}"), self.lives[host_index])
    }

    fn publish(&mut self, host: usize) {
        let (now, row) = (self.now(), self.row(host));
        let endpoints = self.truth.iter().filter(|one| one.host == row.name).cloned().collect();
        if let Some(mesh) = &mut self.meshes[host] {
            let out = mesh.publish(Own { host: row, endpoints }, now);
            self.send(host, out);
        }
    }

    fn send(&mut self, from: usize, all: Vec<(SocketAddr, Message)>) {
        for (to, message) in all {
            let SocketAddr::V4(to) = to else { continue };
            self.longest = self.longest.max(message.encode().len());
            let to = usize::from(to.ip().octets()[3]);
            if self.below(100) < self.loss_percent || self.cut[from] || self.cut[to] {
                continue;
            }
            let late = if self.loss_percent > 0 && self.below(20) == 0 {
                self.below(400 * MS)
            } else {
                MS / 5 + self.below(2 * MS)
            };
            self.sequence += 1;
            self.under_way.insert((self.now_ns + late, self.sequence), (address(from), to, message));
        }
    }

    fn run(&mut self, length_ns: u64) {
        let end_ns = self.now_ns + length_ns;
        while self.now_ns < end_ns {
            while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now_ns)
            {
                let (from, to, message) = entry.remove();
                let now = self.now();
                let Some(mesh) = &mut self.meshes[to] else { continue };
                let again = Message::decode(&message.encode()).expect("what is sent can be read");
                assert_eq!(again, message);
                if let Some(answer) = mesh.receive(again, now) {
                    self.send(to, vec![(from, answer)]);
                }
            }
            for host in 0..self.meshes.len() {
                let now = self.now();
                let Some(mesh) = &mut self.meshes[host] else { continue };
                let out = mesh.tick(now);
                self.send(host, out);
            }
            self.now_ns += 5 * MS;
        }
    }

    fn container_changes(&mut self, host: usize) {
        let name = format!("h{host}");
        let which = self.below(4);
        let address = if which == 0 { "172.17.0.2".to_owned() } else { format!("10.0.{host}.{which}") };
        let wall_ns = self.now().wall_ns;
        let running = |row: &&mut EndpointRow| {
            row.host == name && row.address.to_string() == address && row.until_ns.is_none()
        };
        if let Some(row) = self.truth.iter_mut().find(running) {
            row.until_ns = Some(wall_ns.max(row.since_ns + 1));
        }
        if self.below(3) > 0 {
            self.containers += 1;
            let container = format!("c{}", self.containers);
            self.truth.push(endpoint(&name, &container, &address, wall_ns, None));
        }
        self.publish(host);
    }

    /// Lets time pass until every row whose grace is over has gone, which it does with a host's next round.
    fn settle(&mut self) {
        let MeshSettings { grace_ns, round_ns, .. } = settings();
        let goes = |row: &EndpointRow, wall_ns: u64| {
            row.until_ns
                .is_some_and(|until| (until + grace_ns..=until + grace_ns + round_ns).contains(&wall_ns))
        };
        while self.truth.iter().any(|row| goes(row, self.now().wall_ns)) {
            self.run(round_ns);
        }
    }

    /// Every host that lives names everybody on all of them, as it really was.
    fn all_know_all(&mut self) {
        let now = self.now();
        let lives: BTreeSet<String> =
            (0..self.meshes.len()).filter(|i| self.meshes[*i].is_some()).map(|i| format!("h{i}")).collect();
        let addresses: BTreeSet<IpAddr> = self.truth.iter().map(|row| row.address).collect();
        for mesh in self.meshes.iter_mut().flatten() {
            let known: BTreeSet<String> = mesh.hosts.rows.keys().cloned().collect();
            assert_eq!(known, lives, "hosts that {} knows", mesh.name);
            for address in &addresses {
                for ago in [0, 1, 5, 20] {
                    let at_ns = now.wall_ns - ago * S;
                    let had = self.truth.iter().filter(|row| {
                        row.address == *address
                            && lives.contains(&row.host)
                            && row.since_ns <= at_ns
                            && row.until_ns.is_none_or(|until| at_ns < until)
                    });
                    let expected: BTreeSet<(String, String)> =
                        had.map(|row| (row.host.clone(), row.container.clone())).collect();
                    let Asked::Hit(answer) = mesh.cache.ask(*address, at_ns, now) else {
                        panic!("all is held")
                    };
                    let certain = answer.candidates.iter().filter(|one| one.margin_ns >= 0);
                    let named: BTreeSet<(String, String)> = certain
                        .filter(|one| lives.contains(&one.row.host))
                        .map(|one| (one.row.host.clone(), one.row.container.clone()))
                        .collect();
                    assert_eq!(named, expected, "{address} {ago} s ago, says {}", mesh.name);
                }
            }
            let rows = |name: &str| {
                let host = self.truth.iter().filter(|row| row.host == name);
                host.filter(|row| row.until_ns.is_none_or(|until| until + 60 * S > now.wall_ns)).count() + 1
            };
            for (name, node) in &mesh.nodes {
                assert_eq!(node.keys().count(), rows(name), "rows of {name}, says {}", mesh.name);
            }
        }
    }
}

#[test]
fn whatever_befalls_hosts_and_network_all_know_all_after() {
    let count =
        std::env::var("CONMON_REGISTRY_SCHEDULES").map_or(20, |text| text.parse::<u64>().unwrap() / 15);
    for seed in 1..=count {
        let mut net = Net::new(seed, 5);
        for _ in 0..40 {
            let host = net.below(5) as usize;
            match net.below(10) {
                0 => net.cut[host] = true,
                1 => net.cut[host] = false,
                2 => net.meshes[host] = None,
                3 if net.meshes[host].is_none() => net.start(host),
                4 => {
                    let leaving = net.meshes[host].take().map(|mut mesh| mesh.leave());
                    net.send(host, leaving.unwrap_or_default());
                }
                _ => net.container_changes(host),
            }
            let length = net.below(3 * S);
            net.run(length);
        }
        net.cut.fill(false);
        for host in 0..4 {
            if net.meshes[host].is_none() {
                net.start(host);
            }
        }
        net.run(40 * S);
        net.settle();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| net.all_know_all()));
        if let Err(panic) = result {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn more_rows_than_fit_into_a_message_arrive_and_what_was_missed_for_long_is_put_right() {
    let mut net = Net::new(3, 3);
    net.loss_percent = 0;
    let t = net.now().wall_ns;
    for i in 0..900 {
        net.truth.push(endpoint("h0", &format!("c{i}"), &format!("10.0.{}.{}", i / 200, i % 200), t, None));
    }
    net.publish(0);
    net.run(3 * S);
    net.all_know_all();
    assert!(net.longest <= super::super::frame::MAX_MESSAGE, "{} octets", net.longest);
    // One is away while containers end, and longer than their rows are kept.
    net.cut[2] = true;
    for row in net.truth.iter_mut().step_by(2) {
        row.until_ns = Some(t + 10 * S);
    }
    net.run(S);
    net.publish(0);
    net.run(90 * S);
    net.cut[2] = false;
    net.run(5 * S);
    net.all_know_all();
    // What vanishes without an end goes too.
    net.truth.retain(|row| row.until_ns.is_none());
    let gone = net.truth.pop().unwrap();
    net.publish(0);
    net.run(3 * S);
    let now = net.now();
    for mesh in net.meshes.iter_mut().flatten() {
        let Asked::Hit(answer) = mesh.cache.ask(gone.address, now.wall_ns, now) else {
            panic!("all is held")
        };
        assert!(answer.candidates.iter().all(|one| one.margin_ns < 0), "{answer:?}");
    }
}

#[test]
fn news_are_everywhere_within_a_few_rounds() {
    for hosts in [2, 10, 40] {
        let mut net = Net::new(7, hosts);
        net.loss_percent = 0;
        net.run(10 * S);
        let mut worst = 0;
        for i in 0..10 {
            let since_ns = net.now().wall_ns;
            net.truth.push(endpoint("h1", &format!("n{i}"), &format!("10.8.0.{i}"), since_ns, None));
            net.publish(1);
            let address: IpAddr = format!("10.8.0.{i}").parse().unwrap();
            let begin = net.now_ns;
            while !net.meshes.iter().flatten().all(|mesh| mesh.cache.holds(address)) {
                net.run(5 * MS);
                assert!(net.now_ns - begin < 5 * S);
            }
            worst = worst.max(net.now_ns - begin);
        }
        println!("{hosts} hosts: everywhere after {} ms at most", worst / MS);
        assert!(worst <= 200 * MS, "{hosts} hosts: {} ms", worst / MS);
    }
}

#[test]
fn of_two_with_one_name_the_later_one_speaks() {
    let mut net = Net::new(9, 4);
    net.loss_percent = 0;
    net.run(3 * S);
    // h3 becomes another h1, started later.
    let life = Life { start_ns: EPOCH_NS + net.now_ns, epoch: 999 };
    let mut mesh =
        Mesh::new("h1", life, address(3), vec![address(0)], settings(), Limits::default(), net.now());
    let own = Own { host: host("h1", 7), endpoints: Vec::new() };
    let out = mesh.publish(own, net.now());
    net.meshes[3] = Some(mesh);
    net.send(3, out);
    net.run(3 * S);
    assert!(net.meshes[1].as_ref().unwrap().superseded());
    assert!(!net.meshes[3].as_ref().unwrap().superseded());
    let known = net.meshes[0].as_ref().unwrap().hosts.rows["h1"].epoch;
    assert_eq!(known, 7);
}
