//! The ledger against a real interface: packets that passed it, and packets that it never saw.

mod netns;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use conmon::api::{EngineStatus, Pool};
use conmond::clock::monotonic;
use conmond::http::Source;
use conmond::mc::cost::Cost;
use conmond::mc::janitor::{Janitor, Job};
use conmond::mc::shared::{Info, PortInfo, Published, Shared};
use conmond::mc::view::View;
use conmond::mc::{SetId, SetRole};
use conmond::scope::Scope;
use conmond::store::{Journal, Names, Store};
use conmond::switch::{LinkQuery, Namespaces};
use ippm::flow::Direction;
use netns::{Netns, privileged};
use tap::{Attach, Port, Set, SetSpec};

const SET: SetId = SetId(1);

fn published(ports: Vec<PortInfo>, spec: SetSpec) -> Published {
    Published {
        engine: EngineStatus {
            name: "docker".to_owned(),
            address: "unix:///nowhere".to_owned(),
            connected: true,
            version: None,
            error: None,
        },
        ready: true,
        problems: Vec::new(),
        containers: Vec::new(),
        monitors: Arc::default(),
        heard: BTreeMap::new(),
        pool: Pool::default(),
        sets: Arc::new(vec![conmond::mc::shared::SetInfo {
            id: SET,
            role: SetRole::Nursery,
            tenant: None,
            spec,
            max_flows: spec.flows,
            outgrown: 0,
            grows: false,
            extends: [(false, 0); 2],
        }]),
        ports: Arc::new(ports),
        attachment: "tcx".to_owned(),
        nat_error: None,
        translations: Default::default(),
        counting_since: None,
        restarts: BTreeMap::new(),
        gone_monitors_cpu: Duration::ZERO,
        refused: Vec::new(),
        untapped: 0,
    }
}

fn shared(set: &Arc<Set>, ports: Vec<PortInfo>) -> Arc<Shared> {
    let info = Info {
        build: conmond::build::Build::default(),
        instance: format!("ledger-test-{}", std::process::id()),
        host: "h".to_owned(),
        kernel: "6.18".to_owned(),
        started_at: monotonic(),
        silence: Duration::from_secs(5),
        retention: Duration::from_secs(60),
    };
    let names = Names::new("h", Vec::new());
    let shared = Shared::new(info, Store::new(Duration::from_secs(60)), names, published(ports, set.spec()));
    shared.set_loaded(SET, Some(set.clone()));
    Arc::new(shared)
}

/// Taps a link of the calling thread's namespace.
fn tap(set: &Set, ifindex: u32, interface: &str) -> (Port, PortInfo) {
    let mut query = LinkQuery::open(Namespaces::default()).unwrap();
    let before = query.link_stats(ifindex).unwrap().unwrap();
    let port = Port::attach(ifindex, set.programs(), Attach::Auto, None).unwrap();
    let after = query.link_stats(ifindex).unwrap().unwrap();
    let info = PortInfo {
        ifindex,
        interface: interface.to_owned(),
        container: None,
        tenant: None,
        service: None,
        set: SET,
        tapped_at: monotonic(),
        baseline: Some((before, after)),
    };
    (port, info)
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    f.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend_from_slice(&from.to_be_bytes());
    f.extend_from_slice(&to.to_be_bytes());
    f.extend_from_slice(&[0, 8, 0, 0]);
    f
}

fn ping(from: &Netns, count: u32) -> Command {
    let mut c = Command::new("ip");
    c.args(["netns", "exec", &from.name, "ping", "-q", "-c", &count.to_string(), "-i", "0.002", "10.9.0.1"]);
    c.stdout(Stdio::null());
    c
}

#[test]
fn root_the_ledger_balances_until_something_is_miscounted() {
    if !privileged() {
        return;
    }
    let (host, container) = (Netns::new("lh"), Netns::new("lc"));
    // what IPv6 says of itself when the link comes up may come while it is tapped, which would leave some packets open
    for netns in [&host, &container] {
        netns.within(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
    }
    host.ip("link add vh type veth peer name vc");
    host.ip(&format!("link set vc netns {}", container.name));
    host.ip("addr add 10.9.0.1/24 dev vh");
    container.ip("addr add 10.9.0.2/24 dev vc");
    host.ip("link set vh up");
    container.ip("link set vc up");
    let ifindex = host.ifindex("vh");

    let spec =
        SetSpec { flows: 64, pairs: 16, ports: 16, hists: 16, ring_bytes: 64 << 10, ..SetSpec::default() };
    let set = Arc::new(Set::create(spec).unwrap());
    let (port, info) = host.within(|| tap(&set, ifindex, "vh"));
    let shared = shared(&set, vec![info]);
    let cost = Cost::start(shared.clone());
    let view = View::new(shared.clone(), cost, None);
    let ledger = |what: &str| {
        let answer = host.within(|| view.ledger(&Scope::All)).unwrap();
        assert!(answer.ledger.balanced, "{what}: {answer:#?}");
        let l = &answer.ledger;
        assert_eq!(l.observed, l.selected + l.not_selected + l.lost.values().sum::<u64>(), "{what}");
        answer
    };

    ledger("before any packet");
    assert!(ping(&container, 50).status().unwrap().success());
    let answer = ledger("50 pings");
    assert!(answer.ledger.selected >= 100 && answer.ledger.not_selected >= 2, "echoes and ARP: {answer:#?}");
    assert_eq!(answer.ports[0].interface_sent_packets, Some(answer.ports[0].sent.packets));

    let mut busy = ping(&container, 400).spawn().unwrap();
    let mut asked = 0;
    while busy.try_wait().unwrap().is_none() {
        ledger("while packets pass");
        asked += 1;
    }
    assert!(asked > 5, "{asked}");

    // records that the kernel gives up: flows into pairs, pairs into the store
    let dir = std::env::temp_dir().join(format!("conmon-ledger-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (journal, _, _) = Journal::open(&dir.join("journal"), |_| false).unwrap();
    let janitor =
        Janitor::start(shared.store_handle(), shared.names_handle(), shared.delays_handle(), journal)
            .unwrap();
    janitor.send(Job::Add(SET, set.clone()));
    let before = ledger("before settling");
    for address in ["10.9.0.1", "10.9.0.2"] {
        janitor.send(Job::Address(address.parse::<IpAddr>().unwrap()));
    }
    janitor.finish();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(!shared.store().retired().is_empty(), "the pair left the kernel");
    let after = ledger("after settling");
    assert!(shared.store().settled()[&ifindex].tx.packets >= 450, "all echoes are in the store now");
    assert!(after.ledger.observed >= before.ledger.observed);

    // the tap counts what the interface never saw
    host.within(|| (0..3).for_each(|i| set.test_run(Direction::Tx, &udp(1000 + i, 9), ifindex, 0).unwrap()));
    let answer = host.within(|| view.ledger(&Scope::All)).unwrap();
    assert!(!answer.ledger.balanced);
    assert_eq!(answer.ports[0].sent.packets, answer.ports[0].interface_sent_packets.unwrap() + 3);
    let doctor = host.within(|| view.doctor(&Scope::All)).unwrap();
    let check = doctor.checks.iter().find(|c| c.name == "ledger").unwrap();
    assert!(!check.ok && check.detail.contains("vh: 3 packets too many from the container"), "{check:?}");
    assert_eq!(doctor.ledger.map(|l| l.balanced), Some(false));

    // and the interface sees what no tap counts
    host.within(|| port.detach()).unwrap();
    assert!(ping(&container, 20).status().unwrap().success());
    let answer = host.within(|| view.ledger(&Scope::All)).unwrap();
    assert!(
        !answer.ledger.balanced
            && answer.ledger.observed > answer.ledger.selected + answer.ledger.not_selected
    );
}

#[test]
fn root_a_hundred_ports_with_eight_thousand_flows_are_read_in_no_time() {
    if !privileged() {
        return;
    }
    let host = Netns::new("lm");
    let ports: Vec<(u32, String)> = (0..50)
        .flat_map(|i| {
            host.ip(&format!("link add a{i} type veth peer name b{i}"));
            [
                (host.ifindex(&format!("a{i}")), format!("a{i}")),
                (host.ifindex(&format!("b{i}")), format!("b{i}")),
            ]
        })
        .collect();
    let set = Arc::new(Set::create(SetSpec { flows: 16_384, ..SetSpec::default() }).unwrap());
    let (_taps, infos): (Vec<Port>, Vec<PortInfo>) =
        host.within(|| ports.iter().map(|(ifindex, name)| tap(&set, *ifindex, name)).unzip());
    host.within(|| {
        for i in 0..8_000u16 {
            set.test_run(Direction::Tx, &udp(1024 + i, 9), ports[usize::from(i) % 100].0, 0).unwrap();
        }
    });
    let shared = shared(&set, infos);
    let view = View::new(shared.clone(), Cost::start(shared), None);
    let (sender, times) = channel();
    let answer = host.within(|| {
        let _ = view.ledger(&Scope::All);
        let began = Instant::now();
        let answer = view.ledger(&Scope::All).unwrap();
        sender.send(began.elapsed()).unwrap();
        answer
    });
    // not balanced, hence read three times over, with 22 ms of pauses
    assert_eq!((answer.ports.len(), answer.ledger.balanced, answer.ledger.selected), (100, false, 8_000));
    let each = (times.recv().unwrap() - Duration::from_millis(22)) / 3;
    eprintln!("100 ports, 8,000 flows: {each:?}");
    assert!(each < Duration::from_millis(50), "{each:?}");
}
