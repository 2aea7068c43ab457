use super::super::rows::tests::{endpoint, host};
use super::*;

const S: u64 = 1_000_000_000;

fn at(ms: u64) -> Now {
    Now { steady_ns: 1000 * S + ms * 1_000_000, wall_ns: 1_000_000 * S + ms * 1_000_000 }
}

fn own(epoch: u64, containers: &[&str]) -> Own {
    let row = |(i, name): (usize, &&str)| endpoint("h", name, &format!("10.0.0.{i}"), 5, None);
    Own { host: host("h", epoch), endpoints: containers.iter().enumerate().map(row).collect() }
}

/// A writer that has written `containers` on lease 7 by revision 20.
fn settled(containers: &[&str]) -> Writer {
    let mut writer = Writer::new(WriterSettings::default(), 1);
    writer.publish(own(3, containers), at(0));
    assert_eq!(writer.poll(at(0)), Some(Ask::Grant));
    writer.told(Told::Granted(7), at(1));
    assert_eq!(writer.poll(at(1)), Some(Ask::ReadSeal));
    writer.told(Told::Sealed(None), at(2));
    let write = write(&mut writer, at(2));
    assert_eq!((write.lease, write.seal_revision, write.ops.len()), (7, 0, 1 + containers.len()));
    writer.told(Told::Written(20), at(3));
    assert_eq!(writer.poll(at(3)), None);
    assert_eq!(writer.pending(), 0);
    writer
}

fn write(writer: &mut Writer, now: Now) -> Write {
    match writer.poll(now) {
        Some(Ask::Write(write)) => write,
        other => panic!("not a write: {other:?}"),
    }
}

fn sealed(epoch: u64, sequence: u64, revision: i64, lease: i64) -> Told {
    let seal = Seal { epoch, since_ns: 1_000 + epoch, sequence };
    Told::Sealed(Some(Sealed { seal: Some(seal), revision, lease }))
}

#[test]
fn changes_that_come_together_go_together_and_not_before_their_time() {
    let mut writer = settled(&["a"]);
    writer.publish(own(3, &["a", "b"]), at(100));
    assert_eq!(writer.deadline(at(100)), Some(at(120).steady_ns));
    assert_eq!(writer.poll(at(119)), None);
    writer.publish(own(3, &["a", "b", "c"]), at(119));
    let write = write(&mut writer, at(120));
    assert_eq!((write.ops.len(), write.seal_revision, write.seal.sequence), (2, 20, 2));
    assert_eq!(writer.poll(at(121)), None, "one question at a time");
}

#[test]
fn a_write_without_an_answer_is_found_out_about_and_done_once() {
    for happened in [true, false] {
        let mut writer = settled(&["a"]);
        writer.publish(own(3, &["a", "b"]), at(100));
        let first = write(&mut writer, at(120));
        writer.told(Told::Failed, at(2120));
        let now = at(3000);
        assert_eq!(writer.poll(now), Some(Ask::Renew(7)));
        writer.told(Told::Renewed(true), now);
        assert_eq!(writer.poll(now), Some(Ask::ReadSeal));
        if happened {
            writer.told(sealed(3, 2, 33, 7), now);
            assert_eq!(writer.poll(now), None);
            assert_eq!((writer.pending(), writer.counters().writes), (0, 2));
        } else {
            writer.told(sealed(3, 1, 20, 7), now);
            assert_eq!(write(&mut writer, now), first, "the very same, guarded by the same revision");
        }
    }
}

#[test]
fn a_store_with_another_memory_gets_everything_anew() {
    // Wiped; restored to before the last write, our lease among what came back.
    for (found, former) in [(Told::Sealed(None), vec![7]), (sealed(3, 1, 15, 7), vec![7])] {
        let mut writer = settled(&["a", "b"]);
        let now = at(5001);
        assert_eq!(writer.poll(now), Some(Ask::Renew(7)));
        writer.told(Told::Renewed(true), now);
        assert_eq!(writer.poll(now), Some(Ask::ReadSeal), "with each renewal");
        writer.told(found.clone(), now);
        assert_eq!(writer.poll(now), Some(Ask::Grant));
        writer.told(Told::Granted(8), now);
        assert_eq!(writer.poll(now), Some(Ask::ReadSeal));
        let revision = if let Told::Sealed(Some(sealed)) = &found { sealed.revision } else { 0 };
        writer.told(found, now);
        let write = write(&mut writer, now);
        assert_eq!((write.lease, write.seal_revision, write.ops.len()), (8, revision, 3));
        writer.told(Told::Written(40), now);
        for lease in former {
            assert_eq!(writer.poll(now), Some(Ask::Revoke(lease)), "what was not written anew goes");
            writer.told(Told::Revoked, now);
        }
        assert_eq!((writer.poll(now), writer.counters().rewrites), (None, 2));
    }
}

#[test]
fn a_lost_lease_is_replaced() {
    let mut writer = settled(&["a"]);
    assert_eq!(writer.poll(at(6000)), Some(Ask::Renew(7)));
    writer.told(Told::Renewed(false), at(6000));
    assert_eq!(writer.poll(at(6000)), Some(Ask::Grant));
}

#[test]
fn the_conmond_that_started_later_writes() {
    // The later one takes over, and ends the lease of the one before.
    let mut later = Writer::new(WriterSettings::default(), 1);
    later.publish(own(3, &["a"]), at(0));
    later.poll(at(0));
    later.told(Told::Granted(8), at(0));
    later.poll(at(0));
    later.told(sealed(2, 9, 15, 5), at(0));
    assert_eq!(write(&mut later, at(0)).seal_revision, 15);
    later.told(Told::Written(30), at(0));
    assert_eq!(later.poll(at(0)), Some(Ask::Revoke(5)));

    // The earlier one is refused, sees why, and is silent until the other is gone.
    let mut earlier = settled(&["a"]);
    earlier.publish(own(3, &["a", "b"]), at(100));
    write(&mut earlier, at(120));
    earlier.told(Told::Refused, at(121));
    assert_eq!(earlier.poll(at(121)), Some(Ask::ReadSeal));
    earlier.told(sealed(9, 1, 30, 8), at(121));
    assert!(earlier.superseded());
    assert_eq!(earlier.poll(at(122)), Some(Ask::Revoke(7)));
    earlier.told(Told::Revoked, at(122));
    assert_eq!(earlier.poll(at(123)), None);
    assert_eq!(earlier.poll(at(6000)), Some(Ask::ReadSeal));
    earlier.told(sealed(9, 2, 31, 8), at(6000));
    assert_eq!(earlier.poll(at(6001)), None);
    assert_eq!(earlier.poll(at(12_000)), Some(Ask::ReadSeal));
    earlier.told(Told::Sealed(None), at(12_000));
    assert!(!earlier.superseded());
    assert_eq!(earlier.poll(at(12_000)), Some(Ask::Grant));
}

#[test]
fn failures_make_it_wait() {
    let mut writer = Writer::new(WriterSettings::default(), 1);
    writer.publish(own(3, &[]), at(0));
    let (mut asks, mut now) = (0, 0);
    while now < 60_000 {
        if writer.poll(at(now)).is_some() {
            asks += 1;
            writer.told(Told::Failed, at(now));
        }
        now += 10;
    }
    assert!((12..=40).contains(&asks), "{asks} in a minute");
    assert_eq!(writer.counters().failures, asks);
}
