//! The packet parser and what is computed from its verdict, on any octets.
#![no_main]

use ippm::flow::Direction;
use ippm::packet::{Class, parse, parse_captured};
use ippm::select::{Key, Tuple, signature};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (longer, frame) = input;
    assert_eq!(parse(frame), parse_captured(frame, frame.len()));
    let length = frame.len() + usize::from(longer);
    let parsed = parse_captured(frame, length);
    let Class::Ip(ip) = parsed.class else { return };
    let payload = ip.payload.map_or(&[][..], |payload| payload.of(frame));
    assert!(payload.len() <= frame.len());
    let key = Key::new([1, 2]);
    for tuple in [Tuple::Same, Tuple::Translated] {
        assert_eq!(signature(&key, &ip, payload, tuple), signature(&key, &ip, payload, tuple));
    }
    let (out, back) =
        (ip.flow_key(Direction::Tx, parsed.vlan, 1), ip.flow_key(Direction::Rx, parsed.vlan, 1));
    assert_eq!(out.vlan, back.vlan);
    // Between points of which one captured less: never more is told than of the whole.
    let cut = &frame[..frame.len() / 2];
    if let Class::Ip(part) = parse_captured(cut, length).class {
        assert_eq!((part.source, part.destination), (ip.source, ip.destination));
    }
});
