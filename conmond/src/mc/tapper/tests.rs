use super::*;

/// What comes out, in order.
fn some(desk: &Desk<u32>, count: usize) -> Vec<u32> {
    std::iter::from_fn(|| desk.next()).take(count).collect()
}

#[test]
fn ports_on_their_bridge_come_first_and_each_kind_in_its_order() {
    let desk = Desk::default();
    for (ifindex, joined) in [(1, false), (2, false), (3, true), (4, false), (5, true)] {
        desk.push(ifindex, joined, ifindex);
    }
    desk.has_joined(4);
    // of a port that is not here any more
    desk.has_joined(9);
    assert_eq!(some(&desk, 2), [3, 4]);
    desk.has_joined(2);
    desk.push(6, false, 6);
    assert_eq!(some(&desk, 4), [2, 5, 1, 6]);
}

#[test]
fn what_waits_at_the_end_is_left_and_nobody_waits_for_more() {
    let desk = Arc::new(Desk::default());
    desk.push(1, true, 1);
    desk.push(2, true, 2);
    assert_eq!(desk.next(), Some(1));
    let idle = Arc::new(Desk::<u32>::default());
    let waits = std::thread::spawn({
        let idle = idle.clone();
        move || idle.next()
    });
    for desk in [desk.clone(), idle] {
        desk.close();
    }
    assert_eq!(desk.next(), None);
    assert_eq!(waits.join().unwrap(), None);
}

#[test]
fn each_port_is_handed_out_once() {
    let desk = Arc::new(Desk::default());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (desk, taken) = (desk.clone(), taken.clone());
            std::thread::spawn(move || {
                while let Some(port) = desk.next() {
                    taken.lock().unwrap().push(port);
                    if port == 999 {
                        desk.close();
                    }
                }
            })
        })
        .collect();
    (0..1000).for_each(|i| desk.push(i, false, i));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut taken = taken.lock().unwrap().clone();
    taken.sort_unstable();
    assert_eq!(taken, (0..1000).collect::<Vec<_>>());
}
