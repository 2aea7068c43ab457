//! Very many readers and a store that answers so many readings in a second, in virtual time.

use std::collections::VecDeque;

use super::super::rows::tests::endpoint;
use super::*;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;
/// The etcd backend's bound on a call.
const CALL_NS: u64 = 2 * S;
const ADDRESSES: u8 = 200;

struct Member {
    reader: Reader,
    backoff: Backoff,
    connection: u64,
    /// Readings on their way, the oldest first: when they were asked for.
    calls: VecDeque<(i64, u64)>,
}

impl Member {
    fn new(seed: u64) -> Self {
        let mut reader = Reader::new(Limits::default(), 5 * S, seed);
        reader.connect(at(0));
        for last in 0..ADDRESSES {
            assert_eq!(reader.find(address(last), 1, at(0)), None);
        }
        Self { reader, backoff: Backoff::new(5 * S, seed), connection: 0, calls: VecDeque::new() }
    }

    fn lose(&mut self, now: Now) {
        self.connection += 1;
        self.calls.clear();
        self.backoff.failed(now);
        self.reader.disconnect(now);
    }
}

fn at(ns: u64) -> Now {
    Now { steady_ns: ns, wall_ns: S + ns }
}

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn answer(target: Target) -> Reading {
    let row = |address: IpAddr| {
        let row = endpoint("h", "a", &address.to_string(), 1, None);
        Pair { key: keys::endpoint(&row.id()), value: Some(row.encode()), revision: 1 }
    };
    let pairs = match target {
        Target::Hosts => Vec::new(),
        Target::Address(address) => vec![row(address)],
    };
    Reading { pairs, more: false, revision: 1 }
}

/// How long it takes until all follow all, ns, and how many connections were lost on the way.
fn storm(members: u64, answers_per_second: u64, patience_ns: u64) -> (Option<u64>, u64) {
    let mut all: Vec<Member> = (1..=members).map(Member::new).collect();
    let mut waiting: VecDeque<(usize, u64, Target, i64)> = VecDeque::new();
    let (mut now_ns, mut budget, mut lost) = (0, 0, 0);
    while now_ns < patience_ns {
        now_ns += MS;
        let now = at(now_ns);
        for (i, member) in all.iter_mut().enumerate() {
            if member.calls.front().is_some_and(|(_, asked_ns)| asked_ns + CALL_NS <= now_ns) {
                lost += 1;
                member.lose(now);
            }
            if !member.reader.connected() && !member.backoff.waits(now) {
                member.reader.connect(now);
            }
            while let Some(ask) = member.reader.poll(now) {
                match ask {
                    Ask::Read { target, ticket } => {
                        member.calls.push_back((ticket, now_ns));
                        waiting.push_back((i, member.connection, target, ticket));
                    }
                    Ask::Progress => member.reader.progress(1, now),
                    Ask::Reconnect => member.lose(now),
                    Ask::Watch { .. } | Ask::Unwatch { .. } => {}
                }
            }
        }
        budget += answers_per_second;
        while budget >= 1000 {
            let Some((i, connection, target, ticket)) = waiting.pop_front() else { break };
            // what nobody waits for any more costs nothing
            if all[i].connection == connection {
                budget -= 1000;
                all[i].calls.retain(|(call, _)| *call != ticket);
                all[i].backoff.succeeded();
                all[i].reader.read(target, ticket, Some(answer(target)), now);
            }
        }
        // an idle second is not made up for
        budget = budget.min(answers_per_second.max(1000));
        if all.iter().all(|member| member.reader.watching() == usize::from(ADDRESSES) + 1) {
            return (Some(now_ns), lost);
        }
    }
    (None, lost)
}

#[test]
fn readers_together_ask_no_more_of_a_store_than_it_answers_in_time() {
    // 50 of them have 64 readings on their way: 3,200, which takes 8 s at 400 a second, and a call is given up after 2 s
    for (answers_per_second, slack) in [(100_000, 3.0), (2_000, 1.2), (400, 1.2), (50, 1.2)] {
        let ideal_ns = 50 * (u64::from(ADDRESSES) + 1) * S / answers_per_second;
        let (took_ns, lost) = storm(50, answers_per_second, 3 * ideal_ns);
        let took_ns =
            took_ns.unwrap_or_else(|| panic!("{answers_per_second}/s: never; {lost} connections lost"));
        assert_eq!(lost, 0, "{answers_per_second}/s");
        assert!(
            took_ns as f64 <= ideal_ns as f64 * slack,
            "{answers_per_second}/s: {took_ns} ns of {ideal_ns}"
        );
    }
}
