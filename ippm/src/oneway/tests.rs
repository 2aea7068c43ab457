use proptest::prelude::*;

use super::octets::{Piece, match_pieces, segment_size};
use super::packets::{Report, match_reports};
use super::*;
use crate::metric::proportion::Z95;
use crate::metric::reordering;
use crate::model::law::{Clock, Delay, Loss};
use crate::model::path::Path;
use crate::model::tcp::Connection;
use crate::model::{Captured, Transport, datagrams, tcp};
use crate::select::digest::digest;

fn listening(seen: &[Captured], clock: Clock) -> Listening {
    Listening {
        first_ns: clock.reading(seen.first().expect("packets").ns),
        last_ns: clock.reading(seen.last().expect("packets").ns),
    }
}

fn stream(seed: u64, count: u64, path: Path) -> datagrams::Stream {
    datagrams::Stream {
        count,
        interval_ns: 100_000,
        poisson: true,
        payload: 64,
        forward: path,
        reverse: None,
        seed,
    }
}

fn reports(seen: &[Captured], clock: Clock) -> Vec<Report> {
    seen.iter()
        .filter_map(|c| match c.packet.transport {
            Transport::Udp { serial } => Some(Report { name: digest(1, &[serial]), ns: clock.reading(c.ns) }),
            Transport::Tcp { .. } => None,
        })
        .collect()
}

/// Every count and every raw delay is that of the truth table, whatever the network and the clocks do.
#[test]
fn datagrams_are_matched_without_error() {
    let clock = Clock { offset_ns: -10_000_000, skew_ppm: 50.0, resolution_ns: 1 };
    for (seed, loss, reordering) in [(1, 0.0, 0.0), (2, 0.001, 0.001), (3, 0.05, 0.01), (4, 0.02, 0.0)] {
        let path = Path::clean(Delay::LogNormal { base: 200_000, median: 50_000, sigma: 0.6 })
            .losing(loss)
            .reordering(reordering, 400_000)
            .duplicating(0.002, 30_000);
        let outcome = datagrams::run(&stream(seed, 50_000, path));
        let matching = match_reports(
            &mut reports(&outcome.client, Clock::TRUE),
            &mut reports(&outcome.server, clock),
            listening(&outcome.client, Clock::TRUE),
            listening(&outcome.server, clock),
            None,
        );
        let lost: Vec<_> = outcome.journeys.iter().filter(|j| j.arrival_ns.is_none()).collect();
        let copies = outcome.journeys.iter().filter(|j| j.copy_ns.is_some()).count() as u64;
        assert_eq!(matching.lost + matching.undecided, lost.len() as u64, "seed {seed}");
        assert!(matching.undecided < 20, "only ends are undecided: {}", matching.undecided);
        assert!(matching.duplicates.abs_diff(copies) <= 1);
        assert_eq!((matching.ambiguous, matching.unsent), (0, 0));
        let mut truth: Vec<(u64, u64)> =
            outcome.journeys.iter().filter_map(|j| Some((j.sent_ns, clock.reading(j.arrival_ns?)))).collect();
        truth.sort_unstable();
        let found: Vec<(u64, u64)> = matching.passages.iter().map(|p| (p.sent_ns, p.received_ns)).collect();
        assert!(found == truth, "each raw delay is the true one");

        let mut arrivals: Vec<(u64, u64)> =
            matching.passages.iter().map(|p| (p.received_ns, p.sent_ns)).collect();
        arrivals.sort_unstable();
        let found = reordering::judge(arrivals.iter().map(|(received, sent)| (*sent, *received)));
        let (mut newest, mut late) = (0, 0);
        let mut by_arrival: Vec<(u64, u64)> =
            outcome.journeys.iter().filter_map(|j| Some((j.arrival_ns?, j.serial))).collect();
        by_arrival.sort_unstable();
        for (_, serial) in by_arrival {
            late += u64::from(serial < newest);
            newest = newest.max(serial);
        }
        assert_eq!(found.reordered, late, "seed {seed}");
    }
}

/// A capture that began later or ended earlier makes no loss.
#[test]
fn the_ends_of_captures_are_undecided() {
    let path = Path::clean(Delay::Exponential { base: 1_000_000, mean: 200_000 }).losing(0.01);
    let outcome = datagrams::run(&stream(9, 20_000, path));
    let from = outcome.server[3_000].ns;
    let to = outcome.server[15_000].ns;
    let cut: Vec<Captured> = outcome.server.iter().filter(|c| (from..=to).contains(&c.ns)).copied().collect();
    let matching = match_reports(
        &mut reports(&outcome.client, Clock::TRUE),
        &mut reports(&cut, Clock::TRUE),
        listening(&outcome.client, Clock::TRUE),
        listening(&cut, Clock::TRUE),
        None,
    );
    let sent_between = |a: u64, b: u64| {
        outcome.journeys.iter().filter(|j| j.arrival_ns.is_none() && j.sent_ns >= a && j.sent_ns <= b).count()
            as u64
    };
    let (least, most) = (sent_between(from - 1_000_000, to - 4_000_000), sent_between(from - 4_000_000, to));
    assert!((least..=most).contains(&matching.lost), "{least} {} {most}", matching.lost);
    assert!(matching.undecided > 7_000);
    assert_eq!(
        matching.sent,
        matching.passages.len() as u64 + matching.ambiguous + matching.lost + matching.undecided
    );
}

#[test]
fn intervals_of_loss_cover_its_probability() {
    let mut covered = 0;
    for seed in 0..1_000 {
        let path = Path::clean(Delay::Constant(50_000)).losing(0.02);
        let outcome = datagrams::run(&stream(seed, 4_000, path));
        let matching = match_reports(
            &mut reports(&outcome.client, Clock::TRUE),
            &mut reports(&outcome.server, Clock::TRUE),
            listening(&outcome.client, Clock::TRUE),
            listening(&outcome.server, Clock::TRUE),
            None,
        );
        let (low, high) = matching.loss().wilson(Z95).expect("packets were sent");
        covered += u32::from((low..=high).contains(&0.02));
    }
    assert!((930..=970).contains(&covered), "{covered} of 1,000");
}

#[test]
fn packets_that_look_alike_are_never_matched_but_their_loss_is_seen() {
    let here = Listening { first_ns: 0, last_ns: 1_000 };
    let report = |name, ns| Report { name, ns };
    let mut sent =
        vec![report(1, 10), report(2, 20), report(2, 30), report(3, 40), report(3, 50), report(4, 60)];
    let mut received =
        vec![report(1, 15), report(2, 36), report(3, 44), report(3, 55), report(3, 56), report(5, 70)];
    let matching = match_reports(&mut sent, &mut received, here, here, None);
    assert_eq!(matching.passages, [Passage { sent_ns: 10, received_ns: 15 }]);
    assert_eq!((matching.sent, matching.ambiguous), (6, 3));
    assert_eq!((matching.lost, matching.undecided), (2, 0), "one of the twos, and the four");
    assert_eq!((matching.duplicates, matching.unsent), (1, 1));
    let mut nothing = Vec::new();
    let alone = match_reports(&mut sent, &mut nothing, here, here, None);
    assert_eq!((alone.lost, alone.undecided, alone.loss().ratio()), (0, 6, None));
    let known = match_reports(&mut sent, &mut nothing, here, here, Some((1, 5)));
    assert_eq!((known.lost, known.undecided), (6, 0), "other packets tell how the times relate");
}

fn pieces(seen: &[Captured], forward: bool, clock: Clock) -> Vec<Piece> {
    seen.iter()
        .filter(|c| c.packet.forward == forward && c.packet.payload > 0)
        .filter_map(|c| match c.packet.transport {
            Transport::Tcp { seq, .. } => {
                Some(Piece { seq, length: c.packet.payload, ns: clock.reading(c.ns) })
            }
            Transport::Udp { .. } => None,
        })
        .collect()
}

/// Loss of TCP segments is the truth, with and without offload; each delay is that of octets that really passed so.
#[test]
fn tcp_data_is_matched_whatever_offload_does() {
    let clock = Clock { offset_ns: 10_000_000, skew_ppm: -50.0, resolution_ns: 1 };
    for seed in 0..12 {
        let loss = [0.0, 0.001, 0.01, 0.05][seed as usize % 4];
        let path = Path::clean(Delay::Exponential { base: 100_000, mean: 20_000 })
            .losing(loss)
            .reordering(0.002, 100_000);
        for law in [Connection::over(path, path, seed), Connection::over(path, path, seed).offloaded()] {
            let outcome = tcp::run(&law);
            let (here, there) = (listening(&outcome.client, Clock::TRUE), listening(&outcome.server, clock));
            let sent = pieces(&outcome.client, true, Clock::TRUE);
            let received = pieces(&outcome.server, true, clock);
            let unit = segment_size(sent.iter().chain(&received));
            assert_eq!(unit, law.mss, "seed {seed}");
            let matching = match_pieces(&sent, &received, unit, here, there, None);
            let journeys: Vec<_> = outcome.journeys.iter().filter(|j| j.forward && j.payload > 0).collect();
            let lost = journeys.iter().filter(|j| j.arrival_ns.is_none()).count() as u64;
            assert_eq!(matching.sent, journeys.len() as u64);
            assert_eq!(matching.lost + matching.undecided, lost, "seed {seed}, offload {}", law.gso_segments);
            assert_eq!((matching.unsent, matching.duplicates), (0, 0));
            let truth: std::collections::HashSet<(u64, u64)> =
                journeys.iter().filter_map(|j| Some((j.sent_ns, clock.reading(j.arrival_ns?)))).collect();
            assert!(matching.passages.iter().all(|p| truth.contains(&(p.sent_ns, p.received_ns))));
            assert!(matching.passages.len() * 50 > truth.len() * 40 || loss > 0.0);
        }
    }
}

#[test]
fn bursts_of_loss_are_counted_in_segments() {
    let mut path = Path::clean(Delay::Constant(80_000));
    path.loss = Loss::Bursts { begin: 0.005, end: 0.3 };
    let clean = Path::clean(Delay::Constant(80_000));
    let law = Connection::over(path, clean, 21).offloaded();
    let outcome = tcp::run(&law);
    let sent = pieces(&outcome.client, true, Clock::TRUE);
    let received = pieces(&outcome.server, true, Clock::TRUE);
    let here = listening(&outcome.client, Clock::TRUE);
    let matching =
        match_pieces(&sent, &received, law.mss, here, listening(&outcome.server, Clock::TRUE), None);
    let lost =
        outcome.journeys.iter().filter(|j| j.forward && j.payload > 0 && j.arrival_ns.is_none()).count();
    assert!(lost > 5);
    assert_eq!(matching.lost + matching.undecided, lost as u64);
}

#[test]
fn a_segment_size_is_found_among_pieces() {
    let of = |lengths: &[u32]| {
        let pieces: Vec<Piece> =
            lengths.iter().map(|length| Piece { seq: 0, length: *length, ns: 0 }).collect();
        segment_size(&pieces)
    };
    assert_eq!(of(&[1448, 2896, 14480, 200, 1448]), 1448);
    assert_eq!(of(&[30, 30, 30]), 30);
    assert_eq!(of(&[17, 31, 53, 211, 307]), 307, "no common size: each part counts once");
    assert_eq!(of(&[]), 1);
}

proptest! {
    /// The ledger balances for any input: nothing sent is counted twice or not at all.
    #[test]
    fn every_report_is_somewhere(
        sent in prop::collection::vec((0u64..20, 0u64..1_000), 0..60),
        received in prop::collection::vec((0u64..20, any::<u64>()), 0..60),
        first: u64, last: u64,
    ) {
        let list = |from: &[(u64, u64)]| -> Vec<Report> {
            from.iter().map(|(name, ns)| Report { name: *name, ns: *ns }).collect()
        };
        let here = Listening { first_ns: 0, last_ns: 1_000 };
        let there = Listening { first_ns: first, last_ns: last };
        let m = match_reports(&mut list(&sent), &mut list(&received), here, there, None);
        prop_assert_eq!(m.sent, sent.len() as u64);
        prop_assert_eq!(m.sent, m.passages.len() as u64 + m.ambiguous + m.lost + m.undecided);
        prop_assert!(m.passages.len() as u64 + m.ambiguous + m.duplicates + m.unsent <= received.len() as u64);
    }

    #[test]
    fn any_pieces_are_matched_without_panic(
        sent in prop::collection::vec((any::<u32>(), 0u32..70_000, any::<u64>()), 0..40),
        received in prop::collection::vec((any::<u32>(), 0u32..70_000, any::<u64>()), 0..40),
        unit in 0u32..3_000,
    ) {
        let list = |from: &[(u32, u32, u64)]| -> Vec<Piece> {
            from.iter().map(|(seq, length, ns)| Piece { seq: *seq, length: *length, ns: *ns }).collect()
        };
        let here = Listening { first_ns: 0, last_ns: u64::MAX };
        let m = match_pieces(&list(&sent), &list(&received), unit, here, here, None);
        let octets: u64 = sent.iter().map(|(_, length, _)| u64::from(*length)).sum();
        prop_assert!(m.lost + m.undecided + m.ambiguous <= octets);
    }
}
