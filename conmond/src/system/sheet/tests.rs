use conmon::api::HostAnswer;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;

fn text() -> impl Strategy<Value = String> {
    "[a-c]{0,2}"
}

prop_compose! {
    fn an_end()(
        kind in prop_oneof![Just(EndpointKind::Container), Just(EndpointKind::External), Just(EndpointKind::Host)],
        name in text(), id in proptest::option::of(text()), host in proptest::option::of(text()),
        addresses in proptest::collection::vec(any::<IpAddr>(), 0..3),
    ) -> Endpoint {
        // service and tenant are the container's: who is the same has the same
        let known = |what: &str| id.as_ref().map(|id| format!("{what}-{name}-{id}-{host:?}"));
        Endpoint { kind, service: known("s"), tenant: known("t"), name, id: id.clone(), host: host.clone(), addresses }
    }
}

prop_compose! {
    fn a_delay()(count in 1u64.., p50 in 0.0..1.0f64, ratio in proptest::option::of(0.0..0.1f64), method in text())
        -> DelaySummary
    {
        DelaySummary {
            min: p50 / 2.0, p50, p90: p50 * 2.0, p99: p50 * 3.0, max: p50 * 4.0, count, method,
            relative_error_ratio: ratio, buckets: None,
        }
    }
}

prop_compose! {
    pub fn a_pair()(
        (src, dst) in (an_end(), an_end()),
        counts in any::<[u64; 6]>(),
        segments in any::<[Option<u64>; 4]>(),
        rates in proptest::array::uniform4(proptest::option::of(0.0..1e9f64)),
        delays in proptest::array::uniform4(proptest::option::of(a_delay())),
        (protocols, via) in (proptest::collection::vec(text(), 0..3), proptest::collection::vec(text(), 0..2)),
        seen in any::<[u32; 2]>(), flows in any::<[u64; 2]>(), (guessed, at_src) in any::<(bool, bool)>(),
    ) -> Pair {
        let at = |seconds: u32| jiff::Timestamp::new(seconds.into(), 123).unwrap();
        let count = |i: usize| Count { bytes: counts[i], packets: counts[i + 1], segments: counts[i + 2] };
        let [rtt_seconds, near_rtt_seconds, handshake_rtt_seconds, near_handshake_rtt_seconds] = delays;
        Pair {
            src, dst, protocols, via,
            first_seen: at(seen[0]), last_seen: at(seen[1]),
            sent: count(0), received: count(3),
            retransmitted_segments: segments[0], sent_retransmitted_segments: segments[1],
            received_retransmitted_segments: segments[2], reordered_segments: segments[3],
            rtt_seconds, near_rtt_seconds, handshake_rtt_seconds, near_handshake_rtt_seconds,
            flows: flows[0], active_flows: flows[1], role_guessed: guessed,
            observed_at: if at_src { ObservedAt::Src } else { ObservedAt::Dst },
            sent_bytes_per_second: rates[0], received_bytes_per_second: rates[1],
            sent_packets_per_second: rates[2], received_packets_per_second: rates[3],
        }
    }
}

pub fn answer(pairs: Vec<Pair>) -> PairsAnswer {
    PairsAnswer {
        generated_at: jiff::Timestamp::UNIX_EPOCH,
        hosts: vec![HostAnswer { name: "h".into(), complete: true }],
        rate_interval_seconds: None,
        pairs,
    }
}

proptest! {
    #[test]
    fn no_octets_are_believed_that_speak_of_nothing(mut octets in proptest::collection::vec(any::<u8>(), 0..200), at in any::<proptest::sample::Index>(), pairs in proptest::collection::vec(a_pair(), 1..3)) {
        read_all(&octets);
        // one octet of a true one is another
        let mut whole = octets_of(&answer(pairs)).unwrap();
        let place = at.index(whole.len());
        octets.push(77);
        whole[place] = octets[0];
        read_all(&whole);
        whole.truncate(place);
        read_all(&whole);
    }
}

pub fn one_pair() -> Pair {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    a_pair().new_tree(&mut runner).unwrap().current()
}

/// Everything that is to be had of these octets, if they are a sheet.
fn read_all(octets: &[u8]) {
    let Ok(sheet) = Sheet::from_octets(octets) else { return };
    for entry in sheet.lines() {
        let line = sheet.line(entry).unwrap();
        for end in line.ends.map(|end| sheet.ends()[end as usize]) {
            let texts = [Some(end.name), end.id, end.service, end.tenant, end.host];
            texts.into_iter().flatten().for_each(|text| drop(sheet.text(text).to_owned()));
        }
        line.addresses.into_iter().for_each(|list| assert!(sheet.addresses(list).count() < 1000));
        [line.protocols, line.via].into_iter().for_each(|list| assert!(sheet.texts(list).count() < 1000));
    }
}

#[test]
fn a_text_that_is_no_name_is_refused() {
    let named = |len: usize| {
        let mut pair = one_pair();
        pair.src.name = "x".repeat(len);
        Sheet::of(&answer(vec![pair]))
    };
    assert!(named(4096).is_ok());
    assert!(format!("{:#}", named(4097).unwrap_err()).contains("a text of 4097 octets is too long"));
}
