//! Ports in other network namespaces: two interfaces of one index are two ports; each is what its interface counts, through a move, a growing
//! table and the owner's death; and an interface that goes leaves nothing.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tap::{Namespace, Port, Set, SetSpec, is_elsewhere};

use crate::net::{Net, inside};
use crate::ports::{assert_exact_at, everything, pins, reader, stop};
use crate::{kernel, privileged};

const SPEC: SetSpec = SetSpec {
    flows: 256,
    pairs: 256,
    ports: 16,
    hists: 256,
    pair_extents: 0,
    hist_extents: 0,
    ring_bytes: 256 << 10,
    rtt: true,
    paced: true,
    samples: false,
};

fn attach(net: &Net, namespace: Namespace, set: &Set, dir: &Path) -> Port {
    let ifindex = net.port("p1");
    inside(&net.host, || Port::attach_elsewhere(namespace, ifindex, set, dir)).unwrap()
}

#[test]
fn root_ports_of_two_namespaces_are_told_apart() {
    const NAME: &str = "root_ports_of_two_namespaces_are_told_apart";
    if !privileged(NAME) {
        return;
    }
    if !kernel::has_tcx() {
        return lab::skipped(NAME, "this kernel has no TCX");
    }
    let nets = [Net::new(), Net::new()];
    assert_eq!(nets[0].port("p1"), nets[1].port("p1"), "one index in both namespaces");
    let names = ["1-0123456789", "1-abcdef0123"].map(Namespace::named);
    let numbers = [0, 1].map(|i| names[i].number(nets[i].port("p1")));
    assert!(numbers.iter().all(|n| is_elsewhere(*n)) && numbers[0] != numbers[1]);

    let (dir, other) = (pins(&nets[0], "set"), pins(&nets[0], "other"));
    let made = |dir: &Path| {
        let set = Arc::new(Set::create(SPEC).unwrap());
        set.pin(dir).unwrap();
        set
    };
    let (first, second) = (made(&dir), made(&other));
    let mut ports = [0, 1].map(|i| attach(&nets[i], names[i], &first, &dir));
    for (port, number) in ports.iter().zip(numbers) {
        assert_eq!(
            (port.ifindex(), port.how(), port.is_alive(), port.is_fast()),
            (number, "tcx", true, true)
        );
    }
    nets.iter().for_each(Net::up);
    let mut loads = everything(&nets[0]);
    loads.extend(everything(&nets[1]));
    thread::sleep(Duration::from_millis(400));
    // one of them goes to another set, the other one's table grows; from here, where neither interface is
    ports[1].move_to_set(&second, Some(&other)).unwrap();
    thread::sleep(Duration::from_millis(200));
    let larger = Arc::new(first.resized(1024).unwrap());
    larger.pin(&dir).unwrap();
    ports[0].move_to_set(&larger, Some(&dir)).unwrap();
    thread::sleep(Duration::from_millis(200));
    larger.drain().unwrap();
    Set::unpin_older(&dir).unwrap();
    let larger = Arc::new(larger.drained().unwrap());
    ports[0].move_to_set(&larger, Some(&dir)).unwrap();
    thread::sleep(Duration::from_millis(200));

    // the owner dies; what passes meanwhile is counted, and the next owner goes on
    drop((ports, first, second, larger));
    thread::sleep(Duration::from_millis(200));
    let sets = [&dir, &other].map(|dir| Set::adopt(dir).unwrap());
    let mut ports = Vec::new();
    for (dir, set) in [&dir, &other].into_iter().zip(&sets) {
        let mut adopted = Port::adopt(dir, None).unwrap();
        assert_eq!(adopted.len(), 1);
        adopted[0].move_to_set(set, Some(dir)).unwrap();
        ports.append(&mut adopted);
    }
    assert_eq!(ports.iter().map(Port::ifindex).collect::<Vec<_>>(), numbers);
    thread::sleep(Duration::from_millis(200));
    stop(loads);
    let (mut a, mut b) = (reader(&sets[0]), reader(&sets[1]));
    for (net, number) in nets.iter().zip(numbers) {
        let all = assert_exact_at("two namespaces", net, "p1", number, &mut [&mut a, &mut b]);
        assert!(all.tx.0 > 2_000 && all.rx.0 > 2_000, "too little traffic: {all:?}");
    }
    a.forget();
    assert!(!a.scan().unwrap().rtts.is_empty(), "round trips are measured there, too");

    // its interface goes: the tap is dead, and what is pinned of it goes with the next owner
    nets[1].host.ip(&["link", "del", "p1"]).unwrap();
    assert!(ports[0].is_alive() && !ports[1].is_alive());
    drop(ports);
    assert_eq!(Port::adopt(&other, None).unwrap().len(), 0);
    assert_eq!(std::fs::read_dir(other.join("taps")).unwrap().count(), 0, "pins are left");
    let left = Port::adopt(&dir, None).unwrap();
    left.into_iter().for_each(|port| port.detach().unwrap());
    drop(sets);
    Set::unpin(&dir).unwrap();
    Set::unpin(&other).unwrap();
}
