//! STAMP: packets of both ways from any octets, and a session that is answered anything, held against a plain list.
#![no_main]

use std::collections::BTreeMap;

use ippm::oneway::Passage;
use ippm::stamp::{
    COVERED, Counters, ErrorEstimate, Exchanges, LENGTH, Mac, ReflectorPacket, Refused, SenderPacket,
    StampError,
};
use libfuzzer_sys::fuzz_target;

const SSID: u16 = 7;

/// Whether a probe is sent or answered, how many probes back, what is wrong with the answer, and times.
type Step = (bool, u16, u8, [u32; 3]);

fuzz_target!(|input: (&[u8], u64, Vec<Step>)| {
    let (bytes, window, steps) = input;
    packets(bytes);
    session(window, &steps);
});

/// A code that fits, whatever the octets are.
fn fitting(bytes: &[u8]) -> impl Fn(&[u8]) -> Mac {
    move |covered| {
        assert_eq!(covered.len(), COVERED);
        std::array::from_fn(|i| bytes[COVERED + i])
    }
}

fn packets(bytes: &[u8]) {
    let wrong = |covered: &[u8]| fitting(bytes)(covered).map(|octet| !octet);
    let refused = if bytes.len() == LENGTH { StampError::Mac } else { StampError::Length(bytes.len()) };
    assert_eq!(SenderPacket::decode(bytes, wrong), Err(refused));
    assert_eq!(ReflectorPacket::decode(bytes, wrong), Err(refused));
    // What must be zero is lost, and nothing else.
    if let Ok(probe) = SenderPacket::decode(bytes, fitting(bytes)) {
        assert_eq!(SenderPacket::ssid_of(bytes), Some(probe.ssid));
        let octets = probe.encode(fitting(bytes));
        assert_eq!(SenderPacket::decode(&octets, fitting(bytes)), Ok(probe));
        assert_eq!((&octets[..4], &octets[16..28]), (&bytes[..4], &bytes[16..28]));
    }
    if let Ok(answer) = ReflectorPacket::decode(bytes, fitting(bytes)) {
        let octets = answer.encode(fitting(bytes));
        assert_eq!(ReflectorPacket::decode(&octets, fitting(bytes)), Ok(answer));
        for range in [0..4, 16..28, 32..40, 48..52, 64..74, 80..81, 96..112] {
            assert_eq!(octets[range.clone()], bytes[range]);
        }
    }
}

fn session(window: u64, steps: &[Step]) {
    let mut session = Exchanges::new(SSID, window);
    let mut open: BTreeMap<u32, u64> = BTreeMap::new();
    let mut kept: Vec<[Passage; 2]> = Vec::new();
    let mut counters = Counters::default();
    let mut now = 1 << 32;
    for (send, back, wrong, [took, held, theirs]) in steps {
        if *send {
            now += u64::from(*took);
            let probe = session.next(now);
            assert_eq!((u64::from(probe.seq), probe.sent_ns, probe.ssid), (counters.sent, now, SSID));
            counters.sent += 1;
            open.insert(probe.seq, now);
            if probe.seq >= 1_024 {
                open.remove(&(probe.seq - 1_024));
            }
            continue;
        }
        let seq = (counters.sent as u32).wrapping_sub(u32::from(*back));
        let sent = open.get(&seq).copied();
        let received_ns = u64::from(*theirs);
        let packet = ReflectorPacket {
            seq,
            sent_ns: if *wrong == 1 { received_ns.saturating_sub(1) } else { received_ns + u64::from(*held) },
            error: ErrorEstimate::MONOTONIC,
            ssid: if *wrong == 2 { SSID + 1 } else { SSID },
            received_ns,
            sender_seq: seq,
            sender_sent_ns: sent.unwrap_or(0) + u64::from(*wrong == 3),
            sender_error: ErrorEstimate::MONOTONIC,
            sender_ttl: 64,
        };
        // Not in order, and at times before the probe was sent.
        let t4 = sent.unwrap_or(now) + u64::from(*took) - u64::from(*wrong == 4);
        let expected = match (sent, packet.sent_ns < received_ns) {
            _ if *wrong == 2 => Err(Refused::Session),
            (None, _) => Err(Refused::Unknown),
            (Some(_), _) if *wrong == 3 => Err(Refused::Sent),
            (Some(sent), false) if t4 >= sent => Ok(sent),
            _ => Err(Refused::Order),
        };
        assert_eq!(session.answered(&packet, t4), expected.map(|_| ()));
        let Ok(sent_ns) = expected else {
            counters.refused += 1;
            continue;
        };
        counters.answered += 1;
        open.remove(&seq);
        kept.push([Passage { sent_ns, received_ns }, Passage { sent_ns: packet.sent_ns, received_ns: t4 }]);
        // Stable: of the same T4, the one that was taken first stays first.
        kept.sort_by_key(|[_, reverse]| reverse.received_ns);
        let newest = kept.last().map_or(0, |[_, reverse]| reverse.received_ns);
        kept.retain(|[_, reverse]| newest - reverse.received_ns <= window);
        kept.drain(..kept.len().saturating_sub(4_096));
    }
    assert_eq!(session.counters(), counters);
    let [forward, reverse] = session.passages();
    assert_eq!(forward, kept.iter().map(|[forward, _]| *forward).collect::<Vec<_>>());
    assert_eq!(reverse, kept.iter().map(|[_, reverse]| *reverse).collect::<Vec<_>>());
    let round_trip = |[out, home]: &[Passage; 2]| {
        (home.received_ns - out.sent_ns).checked_sub(home.sent_ns - out.received_ns)
    };
    assert_eq!(session.round_trip_ns(), kept.iter().filter_map(round_trip).min());
    if let Ok(timeline) = session.timeline(1) {
        assert!(timeline.windows().len() >= 1 && !kept.is_empty());
        timeline.at(now).offset_at(now);
    }
}
