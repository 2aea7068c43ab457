use super::super::rows::tests::{endpoint, host};
use super::*;

const S: u64 = 1_000_000_000;

fn at(ms: u64) -> Now {
    Now { steady_ns: ms * 1_000_000, wall_ns: 1_000_000 * S + ms * 1_000_000 }
}

fn ip() -> IpAddr {
    "10.0.0.1".parse().unwrap()
}

fn pair(name: &str, since: u64, until: Option<u64>, revision: i64) -> Pair {
    let row = endpoint("h", name, "10.0.0.1", since, until);
    Pair { key: keys::endpoint(&row.id()), value: Some(row.encode()), revision }
}

fn reading(pairs: Vec<Pair>, revision: i64) -> Option<Reading> {
    Some(Reading { pairs, more: false, revision })
}

/// All questions that are due, but signs of life.
fn asks(reader: &mut Reader, now: Now) -> Vec<Ask> {
    std::iter::from_fn(|| reader.poll(now)).filter(|ask| *ask != Ask::Progress).collect()
}

/// Connected, hosts read at revision 9.
fn ready() -> Reader {
    let mut reader = Reader::new(Limits::default(), 5 * S, 1);
    assert_eq!(asks(&mut reader, at(0)), [], "there is nobody to ask");
    reader.connect(at(0));
    let Some(Ask::Read { target: Target::Hosts, ticket }) = reader.poll(at(0)) else { panic!("hosts first") };
    let row = Pair { key: keys::host("h"), value: Some(host("h", 1).encode()), revision: 4 };
    reader.read(Target::Hosts, ticket, reading(vec![row], 9), at(0));
    assert_eq!(reader.take_hosts().map(|hosts| hosts.rows.len()), Some(1));
    assert_eq!(asks(&mut reader, at(0)), [Ask::Watch { target: Target::Hosts, ticket, from: 10 }]);
    reader
}

/// Asks for the address and answers with `pairs` of `revision`; gives the ticket.
fn look(reader: &mut Reader, pairs: Vec<Pair>, revision: i64, now: Now) -> i64 {
    assert_eq!(reader.find(ip(), 50, now), None);
    let all = asks(reader, now);
    let [Ask::Read { target, ticket }] = all[..] else { panic!("{all:?}") };
    reader.read(target, ticket, reading(pairs, revision), now);
    assert_eq!(reader.take_answered(), [ip()]);
    ticket
}

fn name(reader: &mut Reader, at_ns: u64, now: Now) -> Option<String> {
    reader.find(ip(), at_ns, now)?.candidates.first().map(|candidate| candidate.row.container.clone())
}

#[test]
fn what_is_read_is_watched_from_the_next_revision_on() {
    let mut reader = ready();
    let ticket = look(&mut reader, vec![pair("a", 10, None, 7)], 12, at(5));
    let target = Target::Address(ip());
    assert_eq!(asks(&mut reader, at(5)), [Ask::Watch { target, ticket, from: 13 }]);
    let events = [pair("a", 10, Some(40), 13), pair("b", 40, None, 13)];
    reader.events(ticket, &events, at(6));
    assert_eq!(reader.take_changed().len(), 1);
    assert_eq!(name(&mut reader, 39, at(7)).as_deref(), Some("a"));
    assert_eq!(name(&mut reader, 40, at(7)).as_deref(), Some("b"));
    assert_eq!(asks(&mut reader, at(7)), [], "nobody is asked again");
}

#[test]
fn nobody_is_not_watched_and_asked_for_again() {
    let mut reader = ready();
    look(&mut reader, Vec::new(), 12, at(5));
    assert_eq!(asks(&mut reader, at(5)), []);
    assert!(reader.find(ip(), 50, at(6)).is_some_and(|answer| answer.candidates.is_empty()));
    look(&mut reader, vec![pair("a", 10, None, 13)], 13, at(30));
    assert_eq!(name(&mut reader, 50, at(31)).as_deref(), Some("a"));
}

#[test]
fn a_watch_that_ended_is_followed_by_a_reading() {
    let mut reader = ready();
    let ticket = look(&mut reader, vec![pair("a", 10, None, 7)], 12, at(5));
    asks(&mut reader, at(5));
    reader.cancelled(ticket, at(6));
    assert_eq!(name(&mut reader, 50, at(6)), None, "somebody asks while it is read anew, and waits");
    let all = asks(&mut reader, at(6));
    let [Ask::Read { target, ticket: again }] = all[..] else { panic!("{all:?}") };
    reader.events(ticket, &[pair("x", 20, None, 13)], at(6));
    reader.read(target, again, reading(vec![pair("b", 30, None, 14)], 15), at(7));
    assert_eq!(
        name(&mut reader, 50, at(8)).as_deref(),
        Some("b"),
        "what the ended watch says late is not heard"
    );
    assert_eq!(reader.counters().resyncs, 1);
}

#[test]
fn without_a_connection_the_answer_is_what_was_known() {
    let mut reader = ready();
    look(&mut reader, vec![pair("a", 10, None, 7)], 12, at(5));
    reader.disconnect(at(100));
    let answer = reader.find(ip(), 50, at(200)).unwrap();
    assert_eq!((answer.candidates.len(), answer.known_as_of_ns), (1, Some(at(5).wall_ns)));
    let unknown = reader.find("10.0.0.2".parse().unwrap(), 50, at(200)).unwrap();
    assert_eq!(unknown.known_as_of_ns, None);
    reader.connect(at(300));
    let all = asks(&mut reader, at(300));
    assert!(matches!(all[..], [Ask::Read { target: Target::Hosts, .. }]), "{all:?}");
    assert_eq!(reader.targets.len(), 3, "hosts, what was in use, what was asked for meanwhile");
}

#[test]
fn a_history_that_goes_backwards_is_noticed() {
    let mut reader = ready();
    look(&mut reader, vec![pair("a", 10, None, 7)], 12, at(5));
    asks(&mut reader, at(5));
    let other: IpAddr = "10.0.0.2".parse().unwrap();
    assert_eq!(reader.find(other, 50, at(6)), None);
    let all = asks(&mut reader, at(6));
    let [Ask::Read { target, ticket }] = all[..] else { panic!("{all:?}") };
    reader.read(target, ticket, reading(Vec::new(), 11), at(7));
    assert_eq!(reader.counters().rewinds, 1);
    let all = asks(&mut reader, at(7));
    assert!(
        matches!(all[..], [Ask::Reconnect, Ask::Read { target: Target::Hosts, .. }]),
        "a new connection: {all:?}"
    );
    assert_eq!((reader.targets.len(), reader.queue.len()), (3, 2), "and everything anew");
}

#[test]
fn a_stream_that_stays_behind_what_was_read_is_of_another_history() {
    let mut reader = ready();
    look(&mut reader, vec![pair("a", 10, None, 7)], 12, at(0));
    asks(&mut reader, at(0));
    for (ms, revision) in [(1000, 11), (2000, 12), (3000, 5), (7000, 6)] {
        reader.progress(revision, at(ms));
        assert_eq!(reader.counters().rewinds, 0, "it may lag for a moment");
    }
    reader.progress(6, at(8000));
    assert_eq!(reader.counters().rewinds, 1);
    assert!(asks(&mut reader, at(8000)).contains(&Ask::Reconnect));
}

#[test]
fn a_stream_without_life_is_given_up() {
    let mut reader = ready();
    look(&mut reader, vec![pair("a", 10, None, 7)], 12, at(0));
    asks(&mut reader, at(0));
    let mut asked = Vec::new();
    for ms in (0..7000).step_by(100) {
        while let Some(ask) = reader.poll(at(ms)) {
            asked.push((ms, ask));
        }
        if ms == 1500 {
            reader.progress(12, at(ms));
            assert_eq!(reader.cache().confirmed_ns(), Some(at(0).wall_ns), "as of when it was asked first");
        }
    }
    let reconnects: Vec<_> = asked.iter().filter(|(_, ask)| *ask == Ask::Reconnect).collect();
    assert_eq!(reconnects, [&(6500, Ask::Reconnect)]);
}

#[test]
fn only_so_many_are_read_at_once() {
    let mut reader = ready();
    for i in 0..1000u32 {
        assert_eq!(reader.find(IpAddr::from((0x0a01_0000 + i).to_be_bytes()), 1, at(1)), None);
    }
    // one was answered at once, of the hosts
    for (ms, many) in (1..).zip([2, 4, 8, 16, 32, 64, 64]) {
        let asked = asks(&mut reader, at(ms));
        assert_eq!(asked.len(), many);
        assert_eq!(asks(&mut reader, at(ms)), [], "until one of them is answered");
        for ask in asked {
            let Ask::Read { target, ticket } = ask else { panic!("{ask:?}") };
            reader.read(target, ticket, reading(Vec::new(), 12), at(ms));
        }
    }
}

#[test]
fn whoever_asks_may_send_the_reading() {
    let mut reader = ready();
    assert_eq!(reader.find(ip(), 50, at(5)), None);
    let Some((target, ticket)) = reader.next_reading(at(5)) else { panic!("there is one to send") };
    assert_eq!(target, Target::Address(ip()));
    assert_eq!(reader.next_reading(at(5)), None);
    assert_eq!(asks(&mut reader, at(5)), [], "it is sent once");
    let reads = reader.counters().reads;
    reader.disconnect(at(6));
    assert_eq!(reader.next_reading(at(6)), None, "there is nobody to ask");
    reader.read(target, ticket, reading(vec![pair("a", 10, None, 7)], 12), at(7));
    assert_eq!(reader.counters().reads, reads, "an answer of a connection that is no more is not taken");
}

#[test]
fn rows_that_are_none_are_counted_and_let_alone() {
    let mut reader = ready();
    let mut lie = pair("a", 10, None, 7);
    lie.value = Some(endpoint("someone-else", "x", "10.0.0.1", 10, None).encode());
    let broken = Pair { value: Some(b"{".to_vec()), ..pair("b", 11, None, 7) };
    look(&mut reader, vec![lie, broken, pair("c", 12, None, 7)], 12, at(5));
    assert_eq!(name(&mut reader, 50, at(6)).as_deref(), Some("c"));
    assert_eq!(reader.counters().malformed, 2);
}
