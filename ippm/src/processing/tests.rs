use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::model::Captured;
use crate::model::datagrams::{self, Stream};
use crate::model::law::{Clock, Delay};
use crate::model::packet::{Ends, render};
use crate::model::path::{Carrier, Path};
use crate::model::random::Dice;
use crate::model::tcp::{self, Connection};
use crate::packet::{Class, parse};
use crate::select::{Key, Tuple, signature};

/// What a translator's outer port shows in place of the client.
fn outside() -> Ends {
    Ends { client: (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 61_234), ..Ends::default() }
}

/// A port's frames as sightings: named without addresses, ways by link addresses or, as here, by addresses and ports.
fn sightings(
    frames: &[(u64, Vec<u8>)],
    ways: &mut HashMap<(IpAddr, u16, IpAddr, u16), u32>,
) -> Vec<Sighting> {
    let key = Key::new([8, 9]);
    let each = frames.iter().map(|(ns, frame)| {
        let Class::Ip(ip) = parse(frame).class else { panic!("IP") };
        let payload = ip.payload.map_or(&[][..], |payload| payload.of(frame));
        let next = ways.len() as u32;
        let tuple = (ip.source, ip.source_port, ip.destination, ip.destination_port);
        let way = *ways.entry(tuple).or_insert(next);
        Sighting { name: signature(&key, &ip, payload, Tuple::Translated).name, ns: *ns, way }
    });
    each.collect()
}

fn listened(ports: [&[Sighting]; 2]) -> [Listening; 2] {
    ports.map(|seen| {
        let times = || seen.iter().map(|s| s.ns);
        Listening { first_ns: times().min().unwrap_or(0), last_ns: times().max().unwrap_or(0) }
    })
}

/// A stream through the box, into its first port; or, turned round, into its second. Streams differ in length, for
/// without addresses equal content is one packet.
fn stream(
    count: u64,
    interval_ns: u64,
    path: Path,
    payload: u32,
    forward: bool,
    seed: u64,
) -> datagrams::Outcome {
    let law = Stream { count, interval_ns, poisson: true, payload, forward: path, reverse: None, seed };
    let mut outcome = datagrams::run(&law);
    if !forward {
        std::mem::swap(&mut outcome.client, &mut outcome.server);
        for seen in outcome.client.iter_mut().chain(&mut outcome.server) {
            seen.packet.forward = false;
        }
    }
    outcome
}

/// Datagrams both ways through an address translator that keeps each for a while, drops some and makes some of its own: every
/// processing time, drop and creation is that of the truth table.
#[test]
fn a_translators_times_are_those_of_the_truth() {
    for seed in 0..5 {
        let inside =
            Path { fifo: false, ..Path::clean(Delay::LogNormal { base: 5_000, median: 20_000, sigma: 1.0 }) };
        let streams = [
            stream(20_000, 100_000, inside.losing(0.01), 64, true, seed),
            stream(20_000, 100_000, inside.losing(0.003), 72, false, seed + 100),
        ];
        // The box's own, seen where they leave only.
        let made = stream(100, 19_000_000, Path::clean(Delay::Constant(1)), 100, true, seed).server;
        let all = |port: fn(&datagrams::Outcome) -> &Vec<Captured>| -> Vec<Captured> {
            streams.iter().flat_map(port).copied().collect()
        };
        let (inner, mut outer) = (all(|o| &o.client), all(|o| &o.server));
        outer.extend(&made);
        let mut ways = [HashMap::new(), HashMap::new()];
        let mut first = sightings(&render(&inner, Ends::default(), Clock::TRUE), &mut ways[0]);
        let mut second = sightings(&render(&outer, outside(), Clock::TRUE), &mut ways[1]);
        let seen = listened([&first, &second]);
        let found = match_ports(&mut first, &mut second, seen, None);
        assert_eq!((found.timeout_ns, found.ambiguous), (LEAST_TIMEOUT_NS, 0));
        assert!(found.is_measurable());

        for (i, (way, stream)) in found.ways.iter().zip(&streams).enumerate() {
            let journeys = &stream.journeys;
            let mut truth: Vec<(u64, u64)> =
                journeys.iter().filter_map(|j| Some((j.sent_ns, j.arrival_ns?))).collect();
            truth.sort_unstable();
            let times: Vec<(u64, u64)> = way.passages.iter().map(|p| (p.sent_ns, p.received_ns)).collect();
            assert!(times == truth, "seed {seed}: each processing time is the true one");
            let other = seen[1 - i];
            let decided = other.first_ns..=other.last_ns - found.timeout_ns;
            let lost = journeys.iter().filter(|j| j.arrival_ns.is_none() && decided.contains(&j.sent_ns));
            assert_eq!(way.dropped, lost.count() as u64, "seed {seed}");
        }
        let decided = seen[0].first_ns + found.timeout_ns..=seen[0].last_ns;
        let own = made.iter().filter(|c| decided.contains(&c.ns)).count() as u64;
        assert!(own > 50);
        assert_eq!((found.ways[0].created, found.ways[1].created), (own, 0), "seed {seed}");
    }
}

/// TCP through a translator: acknowledgements alike are ambiguous and never matched wrongly.
#[test]
fn tcp_is_matched_without_error() {
    for seed in 0..10 {
        let inside = Path::clean(Delay::Exponential { base: 3_000, mean: 10_000 }).losing(0.01);
        let outcome = tcp::run(&Connection::over(inside, inside, seed));
        let mut ways = [HashMap::new(), HashMap::new()];
        let mut first = sightings(&render(&outcome.client, Ends::default(), Clock::TRUE), &mut ways[0]);
        let mut second = sightings(&render(&outcome.server, outside(), Clock::TRUE), &mut ways[1]);
        let seen = listened([&first, &second]);
        let found = match_ports(&mut first, &mut second, seen, None);
        for (way, forward) in found.ways.iter().zip([true, false]) {
            let truth: std::collections::HashSet<(u64, u64)> = outcome
                .journeys
                .iter()
                .filter(|j| j.forward == forward)
                .filter_map(|j| Some((j.sent_ns, j.arrival_ns?)))
                .collect();
            assert!(way.passages.iter().all(|p| truth.contains(&(p.sent_ns, p.received_ns))), "seed {seed}");
            assert_eq!(way.created, 0);
        }
        assert!(found.coverage().is_some_and(|share| share > 0.7), "seed {seed}: {:?}", found.coverage());
    }
}

/// A queue that keeps packets for a second: the timeout finds its length by itself.
#[test]
fn the_timeout_grows_with_the_times() {
    let mut dice = Dice::new(4);
    let mut first: Vec<Sighting> =
        (0..2_000u64).map(|i| Sighting { name: dice.bits(), ns: i * 10_000_000, way: 0 }).collect();
    // One in twenty waits up to 0.9 s, the others some 80 ms.
    let times: Vec<u64> = (0..2_000)
        .map(|_| if dice.chance(0.05) { 300_000_000 + dice.below(600_000_000) as u64 } else { 80_000_000 })
        .collect();
    let mut second: Vec<Sighting> =
        first.iter().zip(&times).map(|(s, took)| Sighting { ns: s.ns + took, ..*s }).collect();
    let here = Listening { first_ns: 0, last_ns: u64::MAX };
    let found = match_ports(&mut first, &mut second, [here, here], None);
    assert_eq!(found.ways[0].passages.len(), 2_000);
    assert!(found.timeout_ns > 900_000_000 && found.timeout_ns <= MOST_TIMEOUT_NS, "{}", found.timeout_ns);
    assert_eq!(found.ways[0].times().max_ns(), times.iter().copied().max());
}

/// A firewall that drops one flow whole: its way is that of others with the same link addresses. Where ways are flows,
/// nobody can say.
#[test]
fn a_flow_that_is_dropped_whole_is_known_by_its_way() {
    let mut dice = Dice::new(5);
    let names: Vec<u64> = (0..1_000).map(|_| dice.bits()).collect();
    let here = Listening { first_ns: 0, last_ns: 10_000_000_000 };
    for (own_way, dropped, undecided) in [(0, 500, 0), (1, 0, 500)] {
        let sighting = |(i, name): (usize, &u64)| {
            let way = if i % 2 == 0 { 0 } else { own_way };
            Sighting { name: *name, ns: 1_000_000 + i as u64 * 1_000, way }
        };
        let mut first: Vec<Sighting> = names.iter().enumerate().map(sighting).collect();
        let mut second: Vec<Sighting> =
            first.iter().step_by(2).map(|s| Sighting { ns: s.ns + 7_000, ..*s }).collect();
        let found = match_ports(&mut first, &mut second, [here, here], None);
        assert_eq!((found.ways[0].dropped, found.undecided), (dropped, undecided));
        assert_eq!(found.ways[0].passages.len(), 500);
    }
}

#[test]
fn what_hands_nothing_on_is_not_measurable() {
    let mut dice = Dice::new(6);
    let mut port = || -> Vec<Sighting> {
        (0..1_000u64)
            .map(|i| Sighting { name: dice.bits(), ns: i * 1_000_000, way: (i % 2) as u32 })
            .collect()
    };
    let (mut first, mut second) = (port(), port());
    let here = Listening { first_ns: 0, last_ns: 999_000_000 };
    let found = match_ports(&mut first, &mut second, [here, here], None);
    assert_eq!((found.undecided, found.coverage(), found.is_measurable()), (2_000, Some(0.0), false));
    assert_eq!(match_ports(&mut [], &mut [], [here, here], None).coverage(), None);
}

#[test]
fn packets_alike_are_told_apart_by_time_or_not_at_all() {
    let here = Listening { first_ns: 0, last_ns: 10_000 };
    let at = |ns| Sighting { name: 1, ns, way: 0 };
    let found = match_ports(&mut [at(10), at(500)], &mut [at(20), at(530)], [here, here], Some(100));
    assert_eq!(found.ways[0].times().sum_ns(), 40);
    let found = match_ports(&mut [at(10), at(50)], &mut [at(20), at(60)], [here, here], Some(100));
    assert_eq!((found.ambiguous, found.ways[0].passages.len()), (4, 0));
}

/// A packet that a carrier brings twice: neither the first nor the copy is said to be the one that entered.
#[test]
fn copies_are_ambiguous() {
    let mut carrier = Carrier::new(Path::clean(Delay::Constant(5_000)).duplicating(0.1, 2_000), 7);
    let (mut first, mut second, mut copies) = (Vec::new(), Vec::new(), 0);
    for i in 0..1_000u64 {
        let now = i * 1_000_000;
        let fate = carrier.carry(now);
        first.push(Sighting { name: i * 7_919, ns: now, way: 0 });
        let leaves = [fate.arrival_ns, fate.copy_ns].into_iter().flatten();
        second.extend(leaves.map(|ns| Sighting { name: i * 7_919, ns, way: 0 }));
        copies += u64::from(fate.copy_ns.is_some());
    }
    let here = Listening { first_ns: 0, last_ns: 2_000_000_000 };
    let found = match_ports(&mut first, &mut second, [here, here], None);
    assert_eq!((found.ambiguous, found.ways[0].passages.len() as u64), (3 * copies, 1_000 - copies));
}

proptest! {
    /// Whatever two ports claim: each sighting is in one place, and ports that change places change nothing but the ways.
    #[test]
    fn every_sighting_is_somewhere(
        first in prop::collection::vec((0u64..20, 0u64..1_000, 0u32..3), 0..60),
        second in prop::collection::vec((0u64..20, 1_000u64..2_000, 0u32..3), 0..60),
        timeout in 0u64..2_000, ends in any::<[u16; 4]>(),
    ) {
        let list = |from: &[(u64, u64, u32)]| -> Vec<Sighting> {
            from.iter().map(|(name, ns, way)| Sighting { name: *name, ns: *ns, way: *way }).collect()
        };
        let [a, b, c, d] = ends.map(u64::from);
        let seen = [Listening { first_ns: a, last_ns: b }, Listening { first_ns: c, last_ns: d }];
        let found = match_ports(&mut list(&first), &mut list(&second), seen, Some(timeout));
        let of = |way: &Through| 2 * way.passages.len() as u64 + way.dropped + way.created;
        let sum = found.ways.iter().map(of).sum::<u64>() + found.ambiguous + found.undecided;
        prop_assert_eq!(sum, (first.len() + second.len()) as u64);
        let turned = match_ports(&mut list(&second), &mut list(&first), [seen[1], seen[0]], Some(timeout));
        prop_assert_eq!(&found.ways[0], &turned.ways[1]);
        prop_assert_eq!((found.ambiguous, found.undecided), (turned.ambiguous, turned.undecided));
    }
}
