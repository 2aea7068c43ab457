use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn scans_keep_their_rhythm_and_are_not_made_up_for() {
    let t = Instant::now();
    let mut s = Schedule::new(t, ms(1000));
    assert!(s.scan_due(t));
    s.scanned(t + ms(3), true);
    assert_eq!(s.scan_at(), t + ms(1000), "from when it was due, not from when it was done");
    assert!(!s.scan_due(t + ms(999)));
    s.scanned(t + ms(5500), true);
    assert_eq!(s.scan_at(), t + ms(6500), "one for all that were missed");
}

#[test]
fn a_scan_that_failed_is_tried_again_soon() {
    let t = Instant::now();
    let mut s = Schedule::new(t, ms(1000));
    s.scanned(t, false);
    assert_eq!(s.scan_at(), t + RING_PAUSE);
}

#[test]
fn the_ring_rests_after_it_was_read() {
    let t = Instant::now();
    let mut s = Schedule::new(t, ms(1000));
    assert!(s.ring_due(t));
    assert_eq!(s.ring_pause(t), None);
    s.ring_read(t);
    assert!(!s.ring_due(t + ms(19)));
    assert_eq!(s.ring_pause(t + ms(19)), Some(t + RING_PAUSE));
    assert!(s.ring_due(t + ms(20)));
}

#[test]
fn poll_is_never_asked_to_wait_too_short() {
    let t = Instant::now();
    let wait = |d: Duration| until(t, t + d).as_millis();
    assert_eq!(wait(Duration::ZERO), Some(0));
    assert_eq!(wait(Duration::from_micros(1)), Some(1), "0 would spin");
    assert_eq!(wait(ms(20)), Some(20));
    assert_eq!(wait(Duration::from_secs(1 << 20)), Some(65_535));
    assert_eq!(until(t + ms(5), t).as_millis(), Some(0));
}

#[test]
fn the_ring_is_read_as_far_as_a_batch_can_carry() {
    let mut to = Collected::default();
    assert_eq!(room(&to), Batch::MAX_EVENTS.min(Batch::MAX_SINGLETONS));
    let key = ippm::flow::FlowKey {
        local: [10, 0, 0, 1].into(),
        remote: [10, 0, 0, 2].into(),
        local_port: 1,
        remote_port: 2,
        proto: 6,
        vlan: 0,
        ifindex: 3,
    };
    let id = ippm::measurement::SlotTag { slot: 0, tag: 1 };
    let one = ippm::measurement::RttSingleton {
        key,
        id,
        leg: ippm::flow::Leg::Away,
        time: Default::default(),
        rtt_ns: 1,
        ack: 1,
    };
    to.singletons = vec![one; Batch::MAX_SINGLETONS];
    assert_eq!(room(&to), 0);
}

#[test]
fn a_process_knows_its_memory() {
    assert!(resident_bytes().is_some_and(|n| n > 100 << 10));
}
