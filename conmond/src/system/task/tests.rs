//! Two hosts in one process, with gossip on loopback between them.

use std::collections::BTreeMap;

use conmon::api::{Level, MatrixAnswer};
use ippm::flow::{Both, Counters as Counted, Service};
use ippm::measurement::{FlowEvent, PairKey, PairMeasurement, SlotTag};

use super::*;
use crate::mc::SetId;
use crate::mc::shared::{Info, Published};
use crate::nat::Connection;
use crate::registry::Protocols;
use crate::registry::gossip::frame::ClusterKey;
use crate::registry::gossip::wire::Life;
use crate::registry::gossip::{Gossip, GossipSettings};
use crate::store::{ContainerName, Store, group};

const SET: SetId = SetId(1);

/// The hosts in this process, asked as if over the network.
#[derive(Default)]
struct Network(RwLock<BTreeMap<String, Member>>);

type Member = (Arc<System>, Arc<Shared>);

struct From_ {
    host: String,
    network: Arc<Network>,
}

impl Peers for From_ {
    fn ends(&self, host: Arc<HostRow>, question: EndsQuestion) -> BoxFuture<anyhow::Result<EndsAnswer>> {
        let (network, asker) = (self.network.clone(), self.host.clone());
        Box::pin(async move {
            let system = network.0.read().unwrap().get(&host.name).map(|(system, _)| system.clone());
            let system = system.ok_or_else(|| anyhow::anyhow!("{} does not answer", host.name))?;
            Ok(system.ends(&asker, &question))
        })
    }

    fn clock_session(&self, host: Arc<HostRow>) -> BoxFuture<anyhow::Result<ClockSession>> {
        let network = self.network.0.read().unwrap();
        let session = network.get(&host.name).map(|(system, _)| system.clock_session(&self.host));
        Box::pin(async move { Ok(session.ok_or_else(|| anyhow::anyhow!("{} does not answer", host.name))??) })
    }

    fn pairs(&self, host: Arc<HostRow>, _: Option<Arc<str>>) -> BoxFuture<anyhow::Result<Sheet>> {
        let network = self.network.clone();
        Box::pin(async move {
            let shared = network.0.read().unwrap().get(&host.name).map(|(_, shared)| shared.clone());
            let shared = shared.ok_or_else(|| anyhow::anyhow!("{} does not answer", host.name))?;
            Sheet::of(&pairs(&shared))
        })
    }
}

fn pairs(shared: &Shared) -> PairsAnswer {
    let (rows, interval) = group(&shared.store(), &shared.names(), Level::Container, &Scope::All);
    PairsAnswer {
        generated_at: Wall::now().utc(monotonic()),
        hosts: vec![conmon::api::HostAnswer { name: shared.info.host.clone(), complete: true }],
        rate_interval_seconds: interval,
        pairs: rows.iter().map(|row| row.pair(Wall::now(), interval)).collect(),
    }
}

struct Host {
    shared: Arc<Shared>,
    system: Arc<System>,
    registry: Arc<Gossip>,
}

impl Host {
    /// With one container, on an address of its own and on one that every host's containers have.
    async fn start(network: &Arc<Network>, name: &str, own: &str, routed: &str, join: &[&Host]) -> Self {
        let mut names = Names::new(name, vec![]);
        names.set_host_addresses(vec![own.parse().unwrap(), "172.17.0.1".parse().unwrap()]);
        let id = format!("{name}-id");
        names.set_container(ContainerName {
            id: id.clone(),
            name: format!("app-{name}"),
            tenant: "t".into(),
            service: None,
        });
        names.set_port(7, "veth7", Some(&id));
        let since = monotonic().before(Duration::from_secs(10));
        for address in ["172.17.0.2", routed] {
            names.set_address(address.parse().unwrap(), &id, since);
        }
        let info = Info {
            build: crate::build::Build { version: "0.1.0", revision: None },
            instance: name.into(),
            host: name.into(),
            kernel: String::new(),
            started_at: monotonic(),
            silence: Duration::from_secs(5),
            retention: Duration::from_secs(60),
        };
        let store = Store::new(Duration::from_secs(60));
        let shared = Arc::new(Shared::new(info, store, names, Published::starting(String::new(), 0)));
        let life = Life { start_ns: crate::registry::now().wall_ns, epoch: u64::from(own.as_bytes()[8]) };
        let registry = Gossip::start(GossipSettings {
            name: name.into(),
            life,
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            join: join.iter().map(|host| host.registry.address().to_string()).collect(),
            key: ClusterKey::new(&[7; 32]),
            mesh: Default::default(),
            limits: Default::default(),
        });
        let registry = Arc::new(registry.await.unwrap());
        let row = HostRow {
            name: name.into(),
            api: Some("https://127.0.0.1:9".into()),
            addresses: vec![],
            version: "0".into(),
            protocol: Protocols { min: 1, max: 1 },
            epoch: life.epoch,
            since_ns: life.start_ns,
        };
        let peers = Arc::new(From_ { host: name.into(), network: network.clone() });
        let system = System::start(row, shared.clone(), registry.clone(), peers);
        network.0.write().unwrap().insert(name.into(), (system.clone(), shared.clone()));
        Self { shared, system, registry }
    }

    async fn knows(&self, hosts: usize) {
        let mut seen = self.registry.hosts();
        let all =
            seen.wait_for(|h| h.rows.len() >= hosts && h.rows.values().all(|r| !r.addresses.is_empty()));
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("hosts find each other").unwrap();
        tokio::time::sleep(2 * LOOK).await;
    }

    fn translate(&self, from: &str, to: &str, answering: &str, answered: &str) {
        let at = |text: &str| {
            let at: std::net::SocketAddr = text.parse().unwrap();
            (at.ip(), at.port())
        };
        let connection =
            Connection { proto: 6, original: (at(from), at(to)), reply: (at(answering), at(answered)) };
        lock(&self.system.translations).open(&connection, monotonic().before(Duration::from_millis(100)));
    }

    /// A flow of some packets, reported as its monitor does: that it began, its pair, and that it ended.
    fn see(&self, near: &str, far: &str, role: Role, packets: u64, ended: bool) {
        let at = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
        let (near, far) = (at(near), at(far));
        let counters = Both::new(
            Counted { bytes: 100 * packets, packets, segments: packets },
            Counted { bytes: 0, packets: 0, segments: 0 },
        );
        let now = monotonic();
        let event = |kind| FlowEvent {
            kind,
            time: now,
            key: FlowKey {
                local: near.ip(),
                remote: far.ip(),
                local_port: near.port(),
                remote_port: far.port(),
                proto: 6,
                vlan: 0,
                ifindex: 7,
            },
            id: SlotTag { slot: u32::from(far.port()), tag: 1 },
            role,
            guessed: false,
            first_seen: now,
            last_seen: now,
            counters,
            tcp_flags: Both::default(),
            unpaired: false,
        };
        let key = PairKey {
            ifindex: 7,
            local: near.ip(),
            remote: far.ip(),
            proto: 6,
            role,
            service: Service::None,
        };
        let pair = PairMeasurement {
            key,
            id: SlotTag { slot: 1, tag: 1 },
            guessed: false,
            first_seen: now,
            last_seen: now,
            counters,
            retransmitted: Both::default(),
            reordered: 0,
            flows: 1,
            no_slot: 0,
            active_flows: u32::from(!ended),
        };
        let mut events = vec![event(FlowEventKind::New)];
        if ended {
            events.push(event(FlowEventKind::End(ippm::flow::EndReason::EndOfFlowDetected)));
        }
        let batch = Batch { taken_at: now, pairs: vec![pair], events, ..Batch::default() };
        self.shared.store().apply(SET, &batch);
        self.system.offer(&batch);
    }

    /// The system's pairs as the API writes them.
    async fn matrix(&self) -> MatrixAnswer {
        let (mine, all) = (pairs(&self.shared), MatrixQuery::default());
        let snapshot = self.system.matrix(&mine, &Scope::All, &all, Duration::from_secs(5)).await.unwrap();
        let pieces: Vec<_> = snapshot.written().map(Result::unwrap).collect().await;
        let text = pieces.concat();
        serde_json::from_slice(&text).unwrap()
    }

    /// The rows, once the far ends are as they should be.
    async fn rows(&self, want: &[(&str, &str)]) {
        let mut last = Vec::new();
        for _ in 0..400 {
            last = pairs(&self.shared)
                .pairs
                .into_iter()
                .map(|p| {
                    let name = |e: &conmon::api::Endpoint| {
                        format!("{}@{}", e.name, e.host.as_deref().unwrap_or("-"))
                    };
                    (name(&p.src), name(&p.dst))
                })
                .collect();
            last.sort();
            if last.iter().map(|(a, b)| (a.as_str(), b.as_str())).eq(want.iter().copied()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{want:?} wanted; there is {last:?}; {:?}", self.system.counters());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routed_container_of_another_host_is_named_by_its_address() {
    let network = Arc::new(Network::default());
    let a = Host::start(&network, "a", "192.0.2.1", "10.1.0.2", &[]).await;
    let b = Host::start(&network, "b", "192.0.2.2", "10.2.0.2", &[&a]).await;
    a.knows(2).await;
    b.knows(2).await;
    a.see("10.1.0.2:4000", "10.2.0.2:80", Role::LocalOpened, 5, false);
    b.see("10.2.0.2:80", "10.1.0.2:4000", Role::RemoteOpened, 5, false);
    let want = [("app-a@a", "app-b@b")];
    a.rows(&want).await;
    b.rows(&want).await;

    // as long as it is talked to it is asked for, so that the registry goes on to tell of it
    let hits = || a.registry.health().cache.hits;
    let before = hits();
    a.see("10.1.0.2:4000", "10.2.0.2:80", Role::LocalOpened, 5, false);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if hits() > before {
            break;
        }
    }
    assert!(hits() > before, "nobody asks for an address that is in use");

    let matrix = a.matrix().await;
    assert!(matrix.hosts.iter().all(|h| h.complete) && matrix.hosts.len() == 2, "{:?}", matrix.hosts);
    let [row] = &matrix.pairs[..] else { panic!("{:?}", matrix.pairs) };
    let (src, dst) = (row.views.src.as_ref().unwrap(), row.views.dst.as_ref().unwrap());
    assert_eq!(
        (src.host.as_str(), src.sent.packets, dst.host.as_str(), dst.received.packets),
        ("a", 5, "b", 5)
    );

    // a host that does not answer is named, and the rest is there
    network.0.write().unwrap().remove("b");
    let matrix = a.matrix().await;
    let silent = matrix.hosts.iter().find(|h| h.name == "b").unwrap();
    assert!(!silent.complete && silent.problem.as_deref().unwrap().contains("does not answer"), "{silent:?}");
    assert_eq!((matrix.pairs.len(), matrix.pairs[0].pair.dst.name.as_str()), (1, "app-b"));

    // so is one that the registry has forgotten; and where it is the registry's fault, its part is there
    b.registry.close().await;
    let mut hosts = a.registry.hosts();
    let gone = hosts.wait_for(|h| !h.rows.contains_key("b"));
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("b is forgotten").unwrap();
    tokio::time::sleep(2 * LOOK).await;
    let matrix = a.matrix().await;
    let silent = matrix.hosts.iter().find(|h| h.name == "b").unwrap();
    assert!(
        !silent.complete && silent.problem.as_deref().unwrap().contains("has not told of it"),
        "{silent:?}"
    );
    network.0.write().unwrap().insert("b".into(), (b.system.clone(), b.shared.clone()));
    let matrix = a.matrix().await;
    assert!(matrix.hosts.len() == 2 && matrix.hosts.iter().all(|h| h.complete), "{:?}", matrix.hosts);
    assert_eq!(matrix.pairs[0].views.dst.as_ref().unwrap().received.packets, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_published_ports_and_masquerades_both_ends_are_named_although_it_is_over_already() {
    let network = Arc::new(Network::default());
    let a = Host::start(&network, "a", "192.0.2.1", "10.1.0.2", &[]).await;
    let b = Host::start(&network, "b", "192.0.2.2", "10.2.0.2", &[&a]).await;
    a.knows(2).await;
    b.knows(2).await;
    a.translate("172.17.0.2:4000", "192.0.2.2:8080", "192.0.2.2:8080", "192.0.2.1:61000");
    b.translate("192.0.2.1:61000", "192.0.2.2:8080", "172.17.0.2:80", "192.0.2.1:61000");
    a.see("172.17.0.2:4000", "192.0.2.2:8080", Role::LocalOpened, 5, true);
    b.see("172.17.0.2:80", "192.0.2.1:61000", Role::RemoteOpened, 5, true);
    let want = [("app-a@a", "app-b@b")];
    a.rows(&want).await;
    b.rows(&want).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_used_again_on_another_host_is_the_new_container_s_from_then_on() {
    let network = Arc::new(Network::default());
    let a = Host::start(&network, "a", "192.0.2.1", "10.1.0.2", &[]).await;
    let b = Host::start(&network, "b", "192.0.2.2", "10.9.0.9", &[&a]).await;
    let c = Host::start(&network, "c", "192.0.2.3", "10.3.0.2", &[&a]).await;
    for host in [&a, &b, &c] {
        host.knows(3).await;
    }
    a.see("10.1.0.2:4000", "10.9.0.9:80", Role::LocalOpened, 5, false);
    a.rows(&[("app-a@a", "app-b@b")]).await;
    let moved = "10.9.0.9".parse().unwrap();
    b.shared.names_mut().close_address(moved, "b-id", monotonic());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    c.shared.names_mut().set_address(moved, "c-id", monotonic());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // a new record in the slot of the old one
    a.shared.store().drop_set(SET);
    let mut later = Store::new(Duration::from_secs(60));
    std::mem::swap(&mut *a.shared.store(), &mut later);
    a.see("10.1.0.2:4001", "10.9.0.9:80", Role::LocalOpened, 5, false);
    a.rows(&[("app-a@a", "app-c@c")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_of_hosts_that_talk_are_compared_and_of_others_are_not() {
    let network = Arc::new(Network::default());
    let a = Host::start(&network, "a", "192.0.2.1", "10.1.0.2", &[]).await;
    let b = Host::start(&network, "b", "192.0.2.2", "10.2.0.2", &[&a]).await;
    let c = Host::start(&network, "c", "192.0.2.3", "10.3.0.2", &[&a]).await;
    for host in [&a, &b, &c] {
        host.knows(3).await;
    }
    b.system.reflect(Reflector::start("b", "127.0.0.1:0".parse().unwrap()).unwrap());
    let talk = || {
        a.see("10.1.0.2:4000", "10.2.0.2:80", Role::LocalOpened, 5, false);
        b.see("10.2.0.2:80", "10.1.0.2:4000", Role::RemoteOpened, 5, false);
    };
    let mut known = Vec::new();
    for _ in 0..200 {
        talk();
        tokio::time::sleep(Duration::from_millis(50)).await;
        known = a.system.clocks();
        if known.iter().any(|clock| clock.skew_bound_ppm.is_some()) {
            break;
        }
    }
    let [clock] = &known[..] else { panic!("{known:?}") };
    let (offset, bound) = (clock.offset_seconds.unwrap(), clock.bound_seconds.unwrap());
    // it is one clock
    assert!(clock.host == "b" && offset.abs() <= bound, "{clock:?}");
    assert!(bound < 0.05 && clock.round_trip_seconds.unwrap() < 0.1 && clock.answered > 1, "{clock:?}");
    // the other way nobody answers, and it is said
    let known = b.system.clocks();
    assert!(known[0].host == "a" && known[0].problem.as_deref().unwrap().contains("no session"), "{known:?}");
    assert!(c.system.clocks().is_empty(), "it talks with nobody");
}
