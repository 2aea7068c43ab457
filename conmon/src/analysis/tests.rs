use std::net::IpAddr;

use ippm::model::law::{Clock, Delay};
use ippm::model::packet::{Ends, render};
use ippm::model::path::Path;
use ippm::model::pcap::file as pcap;
use ippm::model::tcp::Connection;
use ippm::model::{datagrams, tcp};
use ippm::packet::tcp_flag;
use ippm::testpackets::Frame;

use super::*;

fn one(frames: &[(u64, Vec<u8>)]) -> AnalysisAnswer {
    alone(&analyze("a", &pcap(frames)[..], For::Alone, |_| {}))
}

fn two(a: &[(u64, Vec<u8>)], b: &[(u64, Vec<u8>)], clocks: Clocks, most: usize) -> AnalysisAnswer {
    let read = |name, frames| analyze(name, &pcap(frames)[..], For::Comparison(most), |_| {});
    together(read("a", a), read("b", b), clocks)
}

const AHEAD: Clock = Clock { offset_ns: 7_500_000, skew_ppm: -40.0, resolution_ns: 1 };

/// Two captures of a TCP connection: delays within the stated bound of the truth, losses the true ones, the clock found;
/// with offload and without, whichever capture is named first.
#[test]
fn two_captures_of_a_connection_give_the_truth() {
    for (seed, loss) in [(1, 0.0), (2, 0.01), (3, 0.03)] {
        let path = Path::clean(Delay::Exponential { base: 150_000, mean: 40_000 }).losing(loss);
        let back = Path::clean(Delay::Exponential { base: 90_000, mean: 10_000 });
        let plain = Connection::over(path, back, seed);
        for law in [plain, plain.offloaded()] {
            let outcome = tcp::run(&law);
            let a = render(&outcome.client, Ends::default(), Clock::TRUE);
            let b = render(&outcome.server, Ends::default(), AHEAD);
            for turned in [false, true] {
                let answer = if turned {
                    two(&b, &a, Clocks::Apart, MAX_RECORDS)
                } else {
                    two(&a, &b, Clocks::Apart, MAX_RECORDS)
                };
                let pair = &answer.pairs[0];
                assert_eq!(answer.pairs.len(), 1);
                let between = &pair.between;
                let lost = |forward: bool| {
                    outcome.journeys.iter().filter(|j| j.forward == forward && j.arrival_ns.is_none()).count()
                        as u64
                };
                let found = between.lost_packets.as_ref().expect("both ways");
                assert!(
                    found.forward.expect("sent").abs_diff(lost(true)) <= 1,
                    "seed {seed}: {found:?} {}",
                    lost(true)
                );
                assert_eq!(found.reverse, Some(lost(false)));

                let clock = pair.clock.expect("traffic both ways");
                let sign = if turned { -1.0 } else { 1.0 };
                let span = outcome.client.last().expect("packets").ns - ippm::model::EPOCH_NS;
                let truth = sign * (AHEAD.offset_ns as f64 + span as f64 / 2.0 * AHEAD.skew_ppm * 1e-6) / 1e9;
                assert!(
                    (clock.offset_seconds - truth).abs() <= clock.bound_seconds + 5e-9,
                    "{clock:?} {truth}"
                );
                assert!(clock.bound_seconds < 300e-6, "{clock:?}");

                let delays = between.one_way_delay_seconds.as_ref().expect("clocks are related");
                for (forward, found) in [(true, &delays.forward), (false, &delays.reverse)] {
                    let found = found.as_ref().expect("both ways");
                    let least = outcome
                        .journeys
                        .iter()
                        .filter(|j| j.forward == forward)
                        .filter_map(|j| Some(j.arrival_ns? - j.sent_ns))
                        .min()
                        .expect("arrivals") as f64
                        / 1e9;
                    assert!(
                        (found.summary.min - least).abs() <= found.error_bound,
                        "seed {seed}: {found:?} {least}"
                    );
                    assert!(found.coverage_ratio > 0.1 && found.coverage_ratio <= 1.0, "{found:?}");
                }
            }
        }
    }
}

#[test]
fn one_clock_gives_exact_delays() {
    let stream = datagrams::Stream {
        count: 5_000,
        interval_ns: 100_000,
        poisson: false,
        payload: 100,
        forward: Path::clean(Delay::Uniform(200_000, 300_000)).losing(0.02).duplicating(0.01, 20_000),
        reverse: Some(Path::clean(Delay::Constant(50_000))),
        seed: 5,
    };
    let outcome = datagrams::run(&stream);
    let a = render(&outcome.client, Ends::default(), Clock::TRUE);
    let b = render(&outcome.server, Ends::default(), Clock::TRUE);
    let answer = two(&a, &b, Clocks::Same, MAX_RECORDS);
    let between = &answer.pairs[0].between;
    let mut truth: Vec<u64> = outcome
        .journeys
        .iter()
        .filter(|j| j.forward)
        .filter_map(|j| Some(j.arrival_ns? - j.sent_ns))
        .collect();
    truth.sort_unstable();
    let delays = between.one_way_delay_seconds.as_ref().and_then(|d| d.forward.as_ref()).expect("delays");
    let rank = |q: f64| truth[(q * truth.len() as f64).ceil() as usize - 1] as f64 / 1e9;
    assert_eq!(
        (delays.summary.p50, delays.summary.p99, delays.summary.count),
        (rank(0.5), rank(0.99), truth.len() as u64)
    );
    assert_eq!(delays.error_bound, 1e-9);
    assert_eq!(answer.clock, None);
    let loss = between.loss_ratio.as_ref().and_then(|l| l.forward).expect("packets were sent");
    assert!((loss.value - 0.02).abs() < 0.006 && loss.low < loss.value && loss.value < loss.high, "{loss:?}");
    let copies = outcome.journeys.iter().filter(|j| j.copy_ns.is_some()).count() as u64;
    assert!(
        between.duplicated_packets.as_ref().and_then(|d| d.forward).expect("known").abs_diff(copies) <= 1
    );
    let back = between.one_way_delay_seconds.as_ref().and_then(|d| d.reverse.as_ref()).expect("delays");
    assert_eq!((back.summary.min, back.summary.max), (50e-6, 50e-6));
}

/// With a hundredth of the records the sample says the same within its error, and says that it is one.
#[test]
fn large_captures_are_sampled_alike() {
    let stream = datagrams::Stream {
        count: 40_000,
        interval_ns: 50_000,
        poisson: true,
        payload: 64,
        forward: Path::clean(Delay::Exponential { base: 100_000, mean: 50_000 }).losing(0.05),
        reverse: Some(Path::clean(Delay::Constant(80_000))),
        seed: 8,
    };
    let outcome = datagrams::run(&stream);
    let a = render(&outcome.client, Ends::default(), Clock::TRUE);
    let b = render(&outcome.server, Ends::default(), AHEAD);
    let answer = two(&a, &b, Clocks::Apart, 10_000);
    let between = &answer.pairs[0].between;
    let delays = between.one_way_delay_seconds.as_ref().and_then(|d| d.forward.as_ref()).expect("delays");
    assert!((0.04..0.14).contains(&delays.coverage_ratio), "{delays:?}");
    let loss = between.loss_ratio.as_ref().and_then(|l| l.forward).expect("packets were sent");
    assert!((loss.value - 0.05).abs() < 0.015, "{loss:?}");
    assert!(answer.notes.iter().any(|note| note.contains("sample")), "{:?}", answer.notes);
}

#[test]
fn traffic_one_way_gives_loss_and_variation_and_no_delay() {
    let stream = datagrams::Stream {
        count: 2_000,
        interval_ns: 100_000,
        poisson: false,
        payload: 64,
        forward: Path::clean(Delay::Uniform(100_000, 200_000)).losing(0.05),
        reverse: None,
        seed: 3,
    };
    let outcome = datagrams::run(&stream);
    let a = render(&outcome.client, Ends::default(), Clock::TRUE);
    let b = render(&outcome.server, Ends::default(), AHEAD);
    let answer = two(&a, &b, Clocks::Apart, MAX_RECORDS);
    let between = &answer.pairs[0].between;
    assert_eq!(between.one_way_delay_seconds, None);
    let lost = outcome.journeys.iter().filter(|j| j.arrival_ns.is_none()).count() as u64;
    assert!(between.lost_packets.as_ref().and_then(|l| l.forward).expect("known").abs_diff(lost) <= 3);
    let variation = between.delay_variation_seconds.as_ref().and_then(|v| v.forward).expect("known");
    assert!((variation.pdv_p50 - 50e-6).abs() < 15e-6, "{variation:?}");
    assert!(answer.notes.iter().any(|note| note.contains("--same-clock")));
}

/// What goes one way only, from the second capture's side, has delays all the same, by the clocks that other pairs relate;
/// and does not spoil that relation.
#[test]
fn a_pair_of_one_direction_goes_by_the_clocks_of_the_others() {
    let path = Path::clean(Delay::Exponential { base: 80_000, mean: 10_000 });
    let connection = tcp::run(&Connection::over(path, path, 2));
    let stream = datagrams::Stream {
        count: 100,
        interval_ns: 50_000,
        poisson: false,
        payload: 64,
        forward: Path::clean(Delay::Constant(300_000)),
        reverse: None,
        seed: 6,
    };
    let one_way = datagrams::run(&stream);
    let ends =
        Ends { client: (IpAddr::from([10, 0, 0, 7]), 7_000), server: (IpAddr::from([239, 1, 1, 1]), 7_000) };
    let both = |connection, one_way, clock| {
        let mut frames = render(connection, Ends::default(), clock);
        frames.extend(render(one_way, ends, clock));
        frames.sort();
        frames
    };
    let a = both(&connection.client, &one_way.server, Clock::TRUE);
    let b = both(&connection.server, &one_way.client, AHEAD);
    for (first, second) in [(&a, &b), (&b, &a)] {
        let answer = two(first, second, Clocks::Apart, MAX_RECORDS);
        assert_eq!(answer.pairs.len(), 2);
        let clock = answer.clock.expect("the connection relates the clocks");
        assert!(clock.bound_seconds < 150e-6, "{clock:?}");
        let pair = answer.pairs.iter().find(|pair| pair.pair.src.name == "10.0.0.7").expect("the stream");
        let delays =
            pair.between.one_way_delay_seconds.as_ref().and_then(|d| d.forward.as_ref()).expect("delays");
        assert_eq!(delays.summary.count, 100);
        assert!((delays.summary.p50 - 300e-6).abs() <= delays.error_bound, "{delays:?}");
        assert_eq!(pair.between.lost_packets.as_ref().and_then(|lost| lost.forward), Some(0));
    }
}

/// Behind an address translator, with offload at one end and other ports: the same truth as without, and both tuples told;
/// whoever else talks is nobody's translation.
#[test]
fn pairs_are_found_again_behind_an_address_translator() {
    let path = Path::clean(Delay::Exponential { base: 150_000, mean: 20_000 }).losing(0.01);
    let back = Path::clean(Delay::Exponential { base: 90_000, mean: 10_000 });
    let address = |d| IpAddr::from([192, 0, 2, d]);
    // The server's address is the lesser one in front of the translator and the greater one behind it.
    let before =
        Ends { client: (IpAddr::from([10, 0, 0, 9]), 40_000), server: (IpAddr::from([10, 0, 0, 2]), 80) };
    let behind = Ends { client: (address(1), 61_007), server: (address(200), 8_080) };
    let other = Ends { client: (address(1), 50_000), server: (address(201), 8_080) };
    for seed in 1..4 {
        let law = Connection::over(path, back, seed).offloaded();
        let outcome = tcp::run(&law);
        let stream = datagrams::Stream {
            count: 500,
            interval_ns: 200_000,
            poisson: false,
            payload: 64,
            forward: Path::clean(Delay::Constant(200_000)).losing(0.1),
            reverse: None,
            seed,
        };
        let datagrams = datagrams::run(&stream);
        let noise = tcp::run(&Connection::over(back, back, 1_000 + seed));
        let mut a = render(&outcome.client, before, Clock::TRUE);
        a.extend(render(&datagrams.client, before, Clock::TRUE));
        let mut b = render(&outcome.server, behind, AHEAD);
        b.extend(render(&datagrams.server, behind, AHEAD));
        b.extend(render(&noise.server, other, AHEAD));
        a.sort();
        b.sort();

        let answer = two(&a, &b, Clocks::Apart, MAX_RECORDS);
        assert_eq!(answer.pairs.len(), 2, "the pair, and what only the second saw");
        let pair = answer.pairs.iter().find(|pair| pair.pair.src.name == "10.0.0.9").expect("the pair");
        let [translation] = &pair.translated[..] else { panic!("{:?}", pair.translated) };
        assert_eq!((translation.src, translation.dst, translation.flows), (address(1), address(200), 2));
        let [from, to] = translation.example;
        assert_eq!((from.src.ip(), from.dst.ip()), (before.client.0, before.server.0));
        assert_eq!((to.src, to.dst), (behind.client.into(), behind.server.into()));
        let lost = |forward| {
            outcome.journeys.iter().filter(|j| j.forward == forward && j.arrival_ns.is_none()).count() as u64
        };
        let wanted = lost(true) + datagrams.journeys.iter().filter(|j| j.arrival_ns.is_none()).count() as u64;
        let found = pair.between.lost_packets.as_ref().expect("both ways");
        assert!(found.forward.expect("sent").abs_diff(wanted) <= 2, "seed {seed}: {found:?} {wanted}");
        assert_eq!(found.reverse, Some(lost(false)));
        let clock = pair.clock.expect("traffic both ways");
        assert!((clock.offset_seconds - 7.5e-3).abs() <= clock.bound_seconds + 1e-6, "{clock:?}");
        assert!(
            answer.notes.iter().any(|note| note.contains("addresses are translated")),
            "{:?}",
            answer.notes
        );
        // As without a translator.
        let plain = two(&a, &render(&outcome.server, before, AHEAD), Clocks::Apart, MAX_RECORDS);
        let count = |a: &AnalysisAnswer| {
            let pair = a.pairs.iter().find(|pair| pair.pair.src.name == "10.0.0.9").expect("the pair");
            pair.between.lost_packets.as_ref().and_then(|lost| lost.reverse)
        };
        assert_eq!(count(&plain), count(&answer));
    }
}

/// Two flows of one pair that carry the same are not each other's loss or duplicates.
#[test]
fn alike_packets_of_two_flows_are_told_apart() {
    let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let datagram = |port| Frame::between(a, b).udp((port, 7)).payload(&[7; 64]).build();
    let sent: Vec<_> = (0..40).map(|i| (1_000 + i, datagram(1_000 + i as u16))).collect();
    let received: Vec<_> = (0..40).map(|i| (5_000 + i, datagram(1_000 + i as u16))).collect();
    let answer = two(&sent, &received, Clocks::Same, MAX_RECORDS);
    let delays = answer.pairs[0].between.one_way_delay_seconds.as_ref().and_then(|d| d.forward.as_ref());
    assert_eq!(delays.map(|d| (d.summary.count, d.summary.min)), Some((40, 4e-6)));
}

#[test]
fn events_are_what_the_summaries_count() {
    let path = Path::clean(Delay::Constant(100_000)).losing(0.02).reordering(0.01, 50_000);
    let outcome = tcp::run(&Connection::over(path, Path::clean(Delay::Constant(70_000)), 4));
    let bytes = pcap(&render(&outcome.client, Ends::default(), Clock::TRUE));
    let mut events = Vec::new();
    let read = analyze_telling("a", &bytes[..], For::Alone, |_| {}, |event| events.push(*event));
    let pair = &alone(&read).pairs[0].pair;
    let count = |word: &str| events.iter().filter(|event| event.kind.word() == word).count() as u64;
    let of = |summary: &Option<crate::api::DelaySummary>| summary.as_ref().map_or(0, |s| s.count);
    assert_eq!(count("acknowledged"), of(&pair.rtt_seconds) + of(&pair.near_rtt_seconds));
    assert_eq!(count("handshake"), of(&pair.handshake_rtt_seconds) + of(&pair.near_handshake_rtt_seconds));
    assert_eq!(Some(count("retransmitted")), pair.retransmitted_segments);
    assert_eq!(Some(count("reordered")), pair.reordered_segments);
    let counts = ["acknowledged", "retransmitted", "handshake"].map(count);
    assert!(counts[0] > 10 && counts[1] > 5 && counts[2] > 0, "{counts:?}");
    assert!(events.is_sorted_by_key(|event| event.ns));
}

#[test]
fn captures_of_other_traffic_have_nothing_between_them() {
    let path = Path::clean(Delay::Constant(50_000));
    let outcome = tcp::run(&Connection::over(path, path, 1));
    // The same addresses behind a translator would not make it the same: it carries something else.
    let another = tcp::run(&Connection { isn: (5, 6), ..Connection::over(path, path, 1) });
    let other = Ends { client: (IpAddr::from([10, 9, 9, 9]), 1_234), ..Ends::default() };
    let a = render(&outcome.client, Ends::default(), Clock::TRUE);
    let b = render(&another.server, other, Clock::TRUE);
    let answer = two(&a, &b, Clocks::Apart, MAX_RECORDS);
    assert_eq!(answer.pairs.len(), 2);
    assert!(answer.pairs.iter().all(|pair| pair.between == Between::default()));
    assert!(answer.notes.iter().any(|note| note == "the captures have no packet in common"));
}

/// One capture: what the model's connection did, at the client's port.
#[test]
fn one_capture_tells_round_trips_and_what_was_sent_again() {
    let path = Path::clean(Delay::Constant(100_000)).losing(0.01);
    let law = Connection::over(path, Path::clean(Delay::Constant(70_000)), 4);
    let outcome = tcp::run(&law);
    let answer = one(&render(&outcome.client, Ends::default(), Clock::TRUE));
    let pair = &answer.pairs[0].pair;
    assert_eq!(pair.src.name, "10.0.0.1");
    assert!(!pair.role_guessed);
    assert_eq!(pair.sent.packets + pair.received.packets, outcome.client.len() as u64);
    let again = outcome.journeys.iter().filter(|j| j.forward && j.again).count() as u64;
    assert_eq!(pair.sent_retransmitted_segments, Some(again));
    assert_eq!(pair.received_retransmitted_segments, Some(0));
    let rtt = pair.rtt_seconds.as_ref().expect("round trips");
    // There, 10 µs of stack, and back; queues of the model move packets apart by nanoseconds.
    assert!((rtt.min - 180e-6).abs() < 1e-6, "{rtt:?}");
    let shake = pair.handshake_rtt_seconds.as_ref().expect("a handshake");
    assert!((shake.max - 180e-6).abs() < 1e-6, "{shake:?}");
    assert_eq!((pair.flows, pair.active_flows), (1, 1));
    assert_eq!(answer.captures[0].ledger.sum(), answer.captures[0].packets);
}

#[test]
fn questions_and_answers_have_round_trips() {
    let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 53]));
    let dns = |answer: bool| {
        let payload = [0x12, 0x34, if answer { 0x81 } else { 1 }, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let frame =
            if answer { Frame::between(b, a).udp((53, 999)) } else { Frame::between(a, b).udp((999, 53)) };
        frame.payload(&payload).build()
    };
    let ping = |reply: bool| {
        let frame = if reply { Frame::between(b, a) } else { Frame::between(a, b) };
        frame.echo(reply, 7, 1).payload(&[0; 40]).build()
    };
    let answer = one(&[
        (1_000_000_000, dns(false)),
        (1_002_000_000, dns(true)),
        (1_003_000_000, ping(false)),
        (1_003_500_000, ping(true)),
        (1_004_000_000, Frame::not_ip(ippm::packet::ethertype::ARP).padded(60).build()),
    ]);
    assert_eq!(answer.pairs.len(), 1);
    let pair = &answer.pairs[0];
    assert_eq!(pair.pair.protocols, ["icmp", "udp"]);
    assert_eq!(pair.dns_rtt_seconds.as_ref().map(|d| d.max), Some(0.002));
    assert_eq!(pair.echo_rtt_seconds.as_ref().map(|d| d.max), Some(0.0005));
    assert_eq!(answer.captures[0].ledger.arp, 1);
}

#[test]
fn ports_used_again_are_another_flow() {
    let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let syn = |seq| Frame::between(a, b).tcp((40_000, 80), seq, 0, tcp_flag::SYN).build();
    let answer = one(&[(1, syn(100)), (2, syn(100)), (3, syn(900_000))]);
    assert_eq!(answer.pairs[0].pair.flows, 2);
    assert_eq!(answer.pairs[0].pair.retransmitted_segments, Some(1));
}

#[test]
fn damage_leaves_what_came_before() {
    let path = Path::clean(Delay::Constant(100_000));
    let outcome = tcp::run(&Connection::over(path, path, 1));
    let frames = render(&outcome.client, Ends::default(), Clock::TRUE);
    let whole = pcap(&frames);
    let read = analyze("a", &whole[..whole.len() - 3], For::Alone, |_| {});
    assert!(read.damage().is_some());
    let answer = alone(&read);
    assert_eq!(answer.captures[0].packets, frames.len() as u64 - 1);
    assert!(answer.captures[0].damaged && answer.captures[0].damage.is_some());
    assert_eq!(answer.pairs.len(), 1);
}

#[test]
fn answers_come_back_from_json() {
    let path = Path::clean(Delay::Constant(100_000)).losing(0.02);
    let outcome = tcp::run(&Connection::over(path, path, 1));
    let a = render(&outcome.client, Ends::default(), Clock::TRUE);
    let b = render(&outcome.server, Ends::default(), AHEAD);
    let answer = two(&a, &b, Clocks::Apart, MAX_RECORDS);
    let json = serde_json::to_value(&answer).expect("JSON");
    assert!(json["pairs"][0]["one_way_delay_seconds"]["forward"]["error_bound"].is_f64());
    assert!(json["pairs"][0]["loss_ratio"]["reverse"]["high"].is_f64());
    assert!(json["pairs"][0]["lost_packets"]["forward"].is_u64());
    assert!(json["one_way_delay_seconds"]["forward"]["p99"].is_f64());
    assert!(json["clock"]["bound_seconds"].is_f64());
    assert_eq!(json["captures"][0]["damaged"], false);
    assert_eq!(serde_json::from_value::<AnalysisAnswer>(json).expect("the same shape"), answer);
}

/// Whatever octets the captures hold: an answer, in which every packet is somewhere.
#[test]
fn mutated_captures_are_analysed() {
    let mut random = ippm::testpackets::Random::new(44);
    let path = Path::clean(Delay::Exponential { base: 80_000, mean: 10_000 }).losing(0.02);
    let mut law = Connection::over(path, path, 2);
    (law.forward_bytes, law.reverse_bytes) = (40_000, 10_000);
    let outcome = tcp::run(&law);
    let whole = [
        pcap(&render(&outcome.client, Ends::default(), Clock::TRUE)),
        pcap(&render(&outcome.server, Ends::default(), AHEAD)),
    ];
    let mut read = 0;
    for _ in 0..1_500 {
        let captures = [0, 1].map(|at: usize| {
            let mut bytes = whole[at].clone();
            for _ in 0..random.below(12) {
                let at = 24 + random.below(bytes.len() - 24);
                match random.below(6) {
                    0 => bytes.truncate(at.max(100)),
                    1..=3 => bytes[at] = random.bits() as u8,
                    _ => bytes[at] ^= 1 << random.below(8),
                }
            }
            analyze("x", &bytes[..], For::Comparison(50 + random.below(2_000)), |_| {})
        });
        let [a, b] = captures;
        let clocks = if random.once_in(2) { Clocks::Same } else { Clocks::Apart };
        let answer = together(a, b, clocks);
        for capture in &answer.captures {
            assert_eq!(capture.ledger.sum(), capture.packets);
            read += capture.packets;
        }
        let pairs: u64 =
            answer.pairs.iter().map(|pair| pair.pair.sent.packets + pair.pair.received.packets).sum();
        assert!(pairs <= answer.captures.iter().map(|capture| capture.ledger.pairs).sum());
        serde_json::to_string(&answer).expect("every number is one");
    }
    assert!(read > 10_000, "{read}");
}
