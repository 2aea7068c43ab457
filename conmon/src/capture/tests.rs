use std::io::{Cursor, Read, Write as _};

use super::open::decompress;
use super::*;
use ippm::testpackets::Random;

/// What is told of one packet: time, octets, length.
type Seen = (Option<u64>, Vec<u8>, usize);

fn read_all(bytes: impl Read) -> (Vec<Seen>, Option<CaptureError>) {
    let mut reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut all = Vec::new();
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => all.push((packet.ns, packet.captured.to_vec(), packet.length)),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, n: u16) -> Vec<u8> {
        if self.0 { n.to_be_bytes().to_vec() } else { n.to_le_bytes().to_vec() }
    }

    fn u32(self, n: u32) -> Vec<u8> {
        if self.0 { n.to_be_bytes().to_vec() } else { n.to_le_bytes().to_vec() }
    }
}

fn packets() -> Vec<(u64, Vec<u8>)> {
    (0..20u64)
        .map(|i| (1_700_000_000_000_000_000 + i * 1_000_123_000, vec![i as u8; 14 + 37 * i as usize]))
        .collect()
}

fn pcap(order: Order, nano: bool) -> Vec<u8> {
    let mut out = order.u32(if nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
    out.extend(order.u16(2));
    out.extend(order.u16(4));
    for field in [0, 0, 262_144, 1] {
        out.extend(order.u32(field));
    }
    for (ns, octets) in packets() {
        out.extend(order.u32((ns / 1_000_000_000) as u32));
        out.extend(order.u32((ns % 1_000_000_000) as u32 / if nano { 1 } else { 1_000 }));
        out.extend(order.u32(octets.len() as u32));
        out.extend(order.u32(octets.len() as u32 + 5));
        out.extend(octets);
    }
    out
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let length = 12 + body.len().next_multiple_of(4) as u32;
    let mut out = order.u32(kind);
    out.extend(order.u32(length));
    out.extend(body);
    out.resize(length as usize - 4, 0);
    out.extend(order.u32(length));
    out
}

fn section(order: Order) -> Vec<u8> {
    let mut body = order.u32(0x1a2b_3c4d);
    body.extend(order.u16(1));
    body.extend(order.u16(0));
    body.extend([0xff; 8]);
    block(order, 0x0a0d_0d0a, &body)
}

fn interface(order: Order, resolution: Option<u8>) -> Vec<u8> {
    let mut body = order.u16(1);
    body.extend(order.u16(0));
    body.extend(order.u32(0));
    if let Some(resolution) = resolution {
        body.extend(order.u16(9));
        body.extend(order.u16(1));
        body.extend([resolution, 0, 0, 0]);
        body.extend([0; 4]);
    }
    block(order, 1, &body)
}

fn enhanced(order: Order, interface: u32, ticks: u64, octets: &[u8]) -> Vec<u8> {
    let mut body = order.u32(interface);
    for field in [(ticks >> 32) as u32, ticks as u32, octets.len() as u32, octets.len() as u32 + 5] {
        body.extend(order.u32(field));
    }
    body.extend(octets);
    block(order, 6, &body)
}

fn pcapng(order: Order) -> Vec<u8> {
    let mut out = section(order);
    out.extend(interface(order, None));
    out.extend(interface(order, Some(9)));
    out.extend(block(order, 0x0bad, b"what nobody knows is stepped over"));
    for (i, (ns, octets)) in packets().into_iter().enumerate() {
        let (id, unit) = if i % 2 == 0 { (0, 1_000) } else { (1, 1) };
        out.extend(enhanced(order, id, ns / unit, &octets));
    }
    out
}

#[test]
fn both_formats_in_both_byte_orders_and_units() {
    let expected: Vec<Seen> =
        packets().into_iter().map(|(ns, octets)| (Some(ns), octets.clone(), octets.len() + 5)).collect();
    for order in [Order(true), Order(false)] {
        for bytes in [pcap(order, false), pcap(order, true), pcapng(order)] {
            let (found, error) = read_all(&bytes[..]);
            assert!(error.is_none(), "{error:?}");
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn sections_follow_each_other_and_may_turn_the_byte_order() {
    let mut bytes = pcapng(Order(true));
    bytes.extend(pcapng(Order(false)));
    let (found, error) = read_all(&bytes[..]);
    assert!(error.is_none());
    assert_eq!(found.len(), 2 * packets().len());
}

#[test]
fn a_packet_without_time_says_so() {
    let order = Order(false);
    let mut bytes = section(order);
    bytes.extend(interface(order, None));
    let mut body = order.u32(6);
    body.extend([9; 6]);
    bytes.extend(block(order, 3, &body));
    let (found, error) = read_all(&bytes[..]);
    assert!(error.is_none());
    assert_eq!(found.iter().map(|seen| (seen.0, seen.2)).collect::<Vec<_>>(), [(None, 6)]);
}

#[test]
fn units_of_time_are_powers_of_two_or_ten() {
    for (unit, ticks, ns) in
        [(0x80 | 10, 1_536, 1_500_000_000), (3, 2_500, 2_500_000_000), (0, 3, 3_000_000_000)]
    {
        let order = Order(true);
        let mut bytes = section(order);
        bytes.extend(interface(order, Some(unit)));
        bytes.extend(enhanced(order, 0, ticks, &[1; 20]));
        let mut reader = Reader::new(&bytes[..]).expect("a capture");
        assert_eq!(reader.next_packet().expect("whole").expect("a packet").ns, Some(ns));
    }
}

#[test]
fn cut_anywhere_everything_before_is_handed_out() {
    for bytes in [pcap(Order(false), true), pcapng(Order(true))] {
        let (all, _) = read_all(&bytes[..]);
        let mut last = 0;
        for length in 0..bytes.len() {
            let (found, error) = read_all(&bytes[..length]);
            assert!(found.len() >= last && found[..] == all[..found.len()]);
            last = found.len();
            let whole = error.is_none();
            assert!(!whole || read_all(&bytes[..length]).0.len() == found.len());
            if let Some(error) = error {
                assert!(!error.to_string().contains('\n') && error.to_string().len() < 120, "{error}");
            }
        }
        assert_eq!(last + 1, all.len());
    }
}

#[test]
fn what_is_no_capture_says_so() {
    for (bytes, sentence) in [
        (&b""[..], "it is neither pcap nor pcapng: it begins with nothing: it is empty"),
        (&b"abc"[..], "it is neither pcap nor pcapng: it begins with less than four octets"),
        (&b"hello, world"[..], "it is neither pcap nor pcapng: it begins with 68 65 6c 6c"),
        (&[0xa1, 0xb2, 0xc3, 0xd4, 0, 2][..], "it ends in the middle of its header, after 6 octets"),
    ] {
        assert_eq!(read_all(bytes).1.expect("an error").to_string(), sentence);
    }
}

#[test]
fn absurd_lengths_are_damage_and_take_no_memory() {
    let order = Order(false);
    let mut bytes = pcap(order, false);
    let good = packets().len();
    bytes.extend(order.u32(1));
    bytes.extend(order.u32(2));
    bytes.extend(order.u32(0xffff_fff0));
    bytes.extend(order.u32(4));
    let (found, error) = read_all(&bytes[..]);
    assert_eq!(found.len(), good);
    assert!(error.expect("damage").to_string().contains("claims to be 4294967280 octets long"));
    let mut bytes = pcapng(order);
    bytes.extend(order.u32(6));
    bytes.extend(order.u32(0x7fff_fffc));
    bytes.extend([0; 100]);
    let (found, error) = read_all(&bytes[..]);
    assert_eq!(found.len(), good);
    assert!(matches!(error, Some(CaptureError::Damaged { .. })));
}

#[test]
fn compressed_captures_are_read_whole_and_in_several_members() {
    let plain = pcapng(Order(false));
    let (expected, _) = read_all(&plain[..]);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let zstd =
        |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    let (head, tail) = plain.split_at(plain.len() / 2);
    for bytes in [
        plain.clone(),
        gzip(&plain),
        zstd(&plain),
        [gzip(head), gzip(tail)].concat(),
        [zstd(head), zstd(tail)].concat(),
    ] {
        let (found, error) = read_all(decompress(Cursor::new(bytes.clone())).expect("memory"));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(found, expected);
        if !bytes.starts_with(&MAGIC) {
            let cut = bytes[..bytes.len() - 9].to_vec();
            let (_, error) = read_all(decompress(Cursor::new(cut)).expect("memory"));
            assert!(error.is_some(), "what is cut is not whole");
        }
    }
}

/// Found by fuzzing: a gzip stream that is damaged in its middle told nothing of what came before.
#[test]
fn a_damaged_gzip_stream_is_read_up_to_the_damage() {
    let plain: Vec<u8> = pcap(Order(false), true);
    let half = plain.len() / 2;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&plain[..half]).expect("memory");
    encoder.flush().expect("memory");
    let at = encoder.get_ref().len();
    encoder.write_all(&plain[half..]).expect("memory");
    let mut bytes = encoder.finish().expect("memory");
    // A block of the kind that there is not (RFC 1951 section 3.2.3).
    bytes[at] = 0b111;
    let (found, error) = read_all(decompress(Cursor::new(bytes)).expect("memory"));
    assert!(matches!(error, Some(CaptureError::Read(_))), "{error:?}");
    let (before, _) = read_all(&plain[..half - 1_024]);
    assert!(before.len() > 5 && found.len() >= before.len(), "{} of {}", found.len(), before.len());
}

const MAGIC: [u8; 4] = pcapng::MAGIC;

/// Any octet changed, swapped or cut: an answer or one sentence, no panic, and never more packets than octets.
#[test]
fn mutated_captures_are_read_or_refused() {
    let mut random = Random::new(20);
    let whole =
        [pcap(Order(true), true), pcap(Order(false), false), pcapng(Order(true)), pcapng(Order(false))];
    let (mut refused, mut read) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = whole[random.below(4)].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.bits() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes.truncate(at.max(4)),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        let (found, error) = read_all(&bytes[..]);
        assert!(found.len() <= bytes.len());
        *(if error.is_some() { &mut refused } else { &mut read }) += 1;
    }
    assert!(refused > 1_000 && read > 1_000, "{refused} {read}");
}

#[test]
fn other_link_layers_become_ethernet() {
    let mut scratch = Vec::new();
    let ip = [0x45, 0, 0, 20, 9, 9];
    let cooked = [&[0; 14][..], &[0x08, 0x00], &ip].concat();
    let cooked2 = [&[0x08, 0x00][..], &[0; 18], &ip].concat();
    let loopback = [&[0, 0, 0, 2][..], &ip].concat();
    for (link, bytes) in [
        (Link::Raw, ip.to_vec()),
        (Link::Cooked, cooked),
        (Link::Cooked2, cooked2),
        (Link::Loopback, loopback),
    ] {
        let (frame, length) = to_ethernet(link, &bytes, bytes.len() + 10, &mut scratch).expect("known");
        assert_eq!((&frame[12..14], &frame[14..], length), (&[8, 0][..], &ip[..], 14 + 6 + 10));
    }
    assert_eq!(to_ethernet(Link::of(999), &ip, 6, &mut scratch), None);
    assert_eq!(to_ethernet(Link::Cooked, &[0; 15], 15, &mut scratch), None);
}
