//! Followers of conversations: any segments, questions and datagrams, and what they say held against all that passed.
#![no_main]

use std::net::IpAddr;

use ippm::follow::question::{OUTSTANDING, Questions, dns};
use ippm::follow::spin::SpinFollower;
use ippm::follow::stamps::StampFollower;
use ippm::follow::table::{BiKey, FlowTable, Limits};
use ippm::follow::tcp::{Method, Place, TcpFollower};
use ippm::packet::{Tcp, TcpTimestamps};
use libfuzzer_sys::fuzz_target;

type Segment = (u8, u8, u8, u8, u8, Option<(u8, u8)>, u8);
type Input<'a> = (u32, Vec<Segment>, Vec<(bool, u8)>, Vec<(bool, &'a [u8], u32)>, Vec<(u8, u8)>);

fuzz_target!(|input: Input| {
    let (base, segments, questions, datagrams, packets) = input;
    tcp(base, &segments);
    answers(&questions);
    spin(&datagrams);
    table(&packets);
});

fn tcp(base: u32, segments: &[Segment]) {
    let (mut follower, mut stamps) = (TcpFollower::default(), StampFollower::default());
    let (mut now, mut seen) = (0u64, Vec::<(bool, Tcp, u64)>::new());
    for (flags, forward, seq, ack, payload, timestamps, later) in segments {
        now += u64::from(*later);
        let forward = forward & 1 == 0;
        let tcp = Tcp {
            seq: base.wrapping_add(u32::from(*seq)),
            ack: base.wrapping_add(u32::from(*ack)),
            flags: *flags,
            payload: u32::from(*payload),
            timestamps: timestamps.map(|(value, echo)| TcpTimestamps {
                value: base.wrapping_add(value.into()),
                echo: base.wrapping_add(echo.into()),
            }),
            timestamps_first: true,
        };
        follower.is_reuse(forward, &tcp);
        let told = follower.segment(forward, &tcp, u16::from(*ack), *later & 1 == 0, now);
        let length = tcp.payload + u32::from(flags & 2 != 0) + u32::from(flags & 1 != 0);
        assert!(told.place != Place::New || length > 0);
        assert!(told.place != Place::Reordered || *later & 1 == 0);
        for trip in [told.round_trip, stamps.segment(forward, &tcp, now)].into_iter().flatten() {
            assert_eq!(trip.forward, !forward);
            let began = now - trip.ns;
            let mut timed = seen.iter().filter(|(way, other, at)| {
                *way != forward && *at == began && (other.payload > 0 || other.flags & 3 != 0)
            });
            assert!(timed.clone().next().is_some());
            if trip.method == Method::TimeStamps {
                let echo = tcp.timestamps.map(|stamps| stamps.echo);
                assert!(timed.any(|(_, other, _)| other.timestamps.map(|stamps| stamps.value) == echo));
                // The first with this value: none of the other way had it before.
                assert!(seen.iter().all(|(way, other, at)| {
                    *way == forward
                        || *at >= began
                        || other.flags & 4 != 0
                        || other.timestamps.map(|stamps| stamps.value) != echo
                }));
            }
        }
        seen.push((forward, tcp, now));
    }
}

fn answers(questions: &[(bool, u8)]) {
    let (mut open, mut timed) = (Questions::default(), 0);
    for (now, (question, number)) in questions.iter().enumerate() {
        if *question {
            open.ask(u16::from(*number), now as u64);
        } else if let Some(took) = open.answer(u16::from(*number), now as u64) {
            timed += 1;
            assert_eq!(questions[now - took as usize], (true, *number));
        }
    }
    let asked = questions.iter().filter(|(question, _)| *question).count();
    assert!(timed + open.given_up() as usize <= asked);
    assert!(open.given_up() as usize <= asked.saturating_sub(OUTSTANDING));
}

fn spin(datagrams: &[(bool, &[u8], u32)]) {
    let (mut follower, mut now) = (SpinFollower::default(), 0u64);
    for (forward, payload, later) in datagrams {
        now += u64::from(*later);
        dns(payload);
        if let Some(took) = follower.datagram(*forward, payload, now) {
            assert!(took <= now);
        }
        follower.looks_random();
    }
}

fn table(packets: &[(u8, u8)]) {
    let mut table: FlowTable<u64> = FlowTable::new(Limits { flows: 8, idle_ns: 200 }, 7);
    let (mut now, mut told) = (0, 0);
    for (port, later) in packets {
        now += u64::from(*later);
        let end = |port: u8| (IpAddr::from([10, 0, 0, 1]), u16::from(port));
        let (key, _) = BiKey::of(end(port & 31), end(port >> 5), 6, 0);
        *table.packet(key, now, || 0, &mut |ended| told += ended.value) += 1;
        assert!(table.len() <= 8);
    }
    table.finish(&mut |ended| told += ended.value);
    assert_eq!(told, packets.len() as u64);
}
