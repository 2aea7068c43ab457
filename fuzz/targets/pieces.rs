//! Matching of TCP data by octets, against asking each octet by itself.
#![no_main]

use ippm::oneway::Listening;
use ippm::oneway::octets::{MAX_OVERLAP, Piece, match_pieces, segment_size};
use libfuzzer_sys::fuzz_target;

type Pieces = Vec<(u8, u8, u16)>;

fuzz_target!(|input: (Pieces, Pieces, u32, u8, [u64; 4])| {
    let (sent, received, base, unit, [a, b, c, d]) = input;
    let list = |from: &Pieces| -> Vec<Piece> {
        let piece = |(seq, length, ns): &(u8, u8, u16)| Piece {
            seq: base.wrapping_add(u32::from(*seq)),
            length: u32::from(*length),
            ns: u64::from(*ns),
        };
        from.iter().map(piece).collect()
    };
    let (out, back) = (list(&sent), list(&received));
    let here = Listening { first_ns: a, last_ns: b };
    let there = Listening { first_ns: c, last_ns: d };
    segment_size(out.iter().chain(&back));
    let m = match_pieces(&out, &back, u32::from(unit), here, there, None);
    if out.len() > MAX_OVERLAP || back.len() > MAX_OVERLAP {
        return;
    }
    // Octet by octet.
    let covers = |list: &Pieces, octet: u32| -> Vec<u64> {
        let on = |(seq, length, _): &&(u8, u8, u16)| {
            u32::from(*seq) <= octet && octet < u32::from(*seq) + u32::from(*length)
        };
        list.iter().filter(on).map(|piece| u64::from(piece.2)).collect()
    };
    let (mut sure, mut gone) = (Vec::new(), 0);
    for octet in 0..512 {
        let (times, arrivals) = (covers(&sent, octet), covers(&received, octet));
        if let ([one], Some(first)) = (&times[..], arrivals.iter().min()) {
            sure.push((*one, *first));
        }
        gone += times.len().saturating_sub(arrivals.len()) as u64;
    }
    let found: Vec<(u64, u64)> = m.passages.iter().map(|p| (p.sent_ns, p.received_ns)).collect();
    assert!(found.iter().all(|passage| sure.contains(passage)));
    assert!(sure.iter().all(|passage| found.contains(passage)));
    // A lost stretch counts in segments, one at least, of at most one for each octet.
    let lost = m.lost + m.undecided;
    assert!(lost <= gone && (lost > 0) == (gone > 0), "{lost} {gone}");
});
