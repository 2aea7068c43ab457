use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::testpackets::{Extension, Frame as Packet, Mutator, checksum, crc32c};

const A4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
const B4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 3));
const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
const B6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3));

fn v4() -> Packet {
    Packet::between(A4, B4)
}

fn v6() -> Packet {
    Packet::between(A6, B6)
}

fn ip(bytes: &[u8]) -> Ip {
    match parse(bytes).class {
        Class::Ip(ip) => ip,
        other => panic!("{other:?} from {bytes:02x?}"),
    }
}

fn key(bytes: &[u8]) -> (u8, u16, u16) {
    let ip = ip(bytes);
    (ip.proto, ip.source_port, ip.destination_port)
}

/// A frame with some octets replaced.
fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn tcp_over_both_families() {
    for packet in [v4(), v6()] {
        let bytes = packet.ip_id(77).tcp((40_000, 80), 0xfeed_beef, 9, 0x18).payload(b"hello").build();
        let ip = ip(&bytes);
        assert_eq!((ip.proto, ip.source_port, ip.destination_port), (6, 40_000, 80));
        let tcp = ip.tcp.unwrap();
        assert_eq!((tcp.seq, tcp.ack, tcp.flags, tcp.payload), (0xfeed_beef, 9, 0x18, 5));
        assert_eq!((tcp.timestamps, tcp.timestamps_first), (None, false));
    }
    assert_eq!(ip(&v4().ip_id(77).udp((1, 2)).build()).ip_id, 77);
}

#[test]
fn a_flow_has_one_key_both_ways() {
    let there = ip(&v4().udp((40_000, 53)).build());
    let back = ip(&Packet::between(B4, A4).udp((53, 40_000)).build());
    let key = there.flow_key(Direction::Tx, 0, 7);
    assert_eq!(key, back.flow_key(Direction::Rx, 0, 7));
    assert_eq!((key.local, key.remote, key.local_port, key.remote_port), (A4, B4, 40_000, 53));
    assert_eq!((key.proto, key.vlan, key.ifindex), (17, 0, 7));
    // The other end's port sees it the other way round.
    let theirs = there.flow_key(Direction::Rx, 0, 8);
    assert_eq!((theirs.local, theirs.local_port), (B4, 53));
}

#[test]
fn padding_is_not_payload() {
    let bytes = v4().tcp((1, 2), 0, 0, 16).padded(60).build();
    assert_eq!(bytes.len(), 60);
    assert_eq!(ip(&bytes).tcp.unwrap().payload, 0);
    // Even when a transport header could be read from it.
    let bytes = v4().protocol(proto::UDP).payload(&[0, 1, 0, 2]).padded(60).build();
    assert_eq!(key(&bytes), (17, 0, 0));
}

#[test]
fn vlan_tags() {
    let udp = || v4().udp((5, 6));
    for (packet, vlan) in [
        (udp(), 0),
        (udp().vlan(ethertype::VLAN, 5), 5),
        (udp().vlan(ethertype::VLAN, 0xe005), 5),
        (udp().vlan(ethertype::QINQ, 7).vlan(ethertype::VLAN, 5), 7),
        (udp().vlan(ethertype::VLAN, 0xe000).vlan(ethertype::VLAN, 5), 5),
    ] {
        let bytes = packet.build();
        assert_eq!(parse(&bytes).vlan, vlan);
        assert_eq!(key(&bytes), (17, 5, 6));
    }
    let three = udp().vlan(ethertype::VLAN, 1).vlan(ethertype::VLAN, 2).vlan(ethertype::VLAN, 3).build();
    assert_eq!(parse(&three), Parsed { vlan: 1, class: Class::Other });
    let arp = Packet::not_ip(ethertype::ARP).vlan(ethertype::VLAN, 9).payload(&[0; 28]).build();
    assert_eq!(parse(&arp), Parsed { vlan: 9, class: Class::Arp });
    assert_eq!(parse(&udp().vlan(ethertype::VLAN, 5).build()[..17]), Parsed { vlan: 0, class: Class::Other });
}

#[test]
fn what_is_not_ip() {
    assert_eq!(parse(&Packet::not_ip(0x88cc).payload(&[0; 40]).build()).class, Class::Other);
    assert_eq!(parse(&Packet::not_ip(38).payload(&[0x42; 40]).build()).class, Class::Other);
    assert_eq!(parse(&[]).class, Class::Other);
    assert_eq!(parse(&[0; 13]).class, Class::Other);
}

#[test]
fn neighbour_and_listener_discovery_is_told_by_its_type_and_hop_limit() {
    let with = |packet: Packet, hops: u8| {
        let mut bytes = packet.build();
        bytes[14 + 7] = hops;
        parse(&bytes).class
    };
    for kind in 0..=255u8 {
        for hops in [0, 1, 64, 254, 255] {
            let class = with(v6().icmp(kind, 0, [0; 4]).payload(&[0; 16]), hops);
            let expected = match hops {
                255 => (133..=137).contains(&kind),
                1 => matches!(kind, 130..=132 | 143),
                _ => false,
            };
            assert_eq!(class == Class::Nd, expected, "type {kind}, hop limit {hops}: {class:?}");
        }
        // an IPv4 packet's type is another thing, and its protocol 58 nothing
        assert!(matches!(parse(&v4().icmp(kind, 0, [0; 4]).build()).class, Class::Ip(_)), "type {kind}");
        let mut bytes = v4().icmp(kind, 0, [0; 4]).build();
        (bytes[14 + 8], bytes[14 + 9]) = (255, proto::ICMPV6);
        assert!(matches!(parse(&bytes).class, Class::Ip(_)), "type {kind}");
    }
    // a report has a hop-by-hop option before it (RFC 3810 section 5)
    let report = v6().extension(Extension::new(proto::HOP_BY_HOP, 0)).icmp(143, 0, [0; 4]);
    assert_eq!(with(report, 1), Class::Nd);
    // what does not hold the whole header is no discovery
    let mut cut = v6().icmp(135, 0, [0; 4]).build();
    cut[14 + 7] = 255;
    assert_eq!(parse(&cut).class, Class::Nd);
    assert!(matches!(parse(&cut[..cut.len() - 1]).class, Class::Ip(_)));
}

#[test]
fn only_a_wrong_ip_header_is_malformed() {
    let good = v4().udp((5, 6)).payload(&[0; 30]).build();
    let six = v6().udp((5, 6)).payload(&[0; 30]).build();
    for (what, bytes) in [
        ("IPv4 header cut", good[..14 + 19].to_vec()),
        ("version 5", with(good.clone(), 14, &[0x55])),
        ("header length 16", with(good.clone(), 14, &[0x44])),
        ("header length 0", with(good.clone(), 14, &[0x40])),
        ("options beyond the end", with(good[..14 + 20].to_vec(), 14, &[0x46])),
        ("total length below 20", with(good.clone(), 16, &[0, 19])),
        ("total length 1", with(good.clone(), 16, &[0, 1])),
        ("IPv6 header cut", six[..14 + 39].to_vec()),
        ("IPv6 version 4", with(six.clone(), 14, &[0x45])),
    ] {
        assert_eq!(parse(&bytes).class, Class::Malformed, "{what}");
    }
    for (what, bytes, ports) in [
        ("total length beyond the end", with(good.clone(), 16, &[0xff, 0xff]), (17, 5, 6)),
        ("total length 0: a super-packet", with(good.clone(), 16, &[0, 0]), (17, 5, 6)),
        ("total length without a whole UDP header", with(good.clone(), 16, &[0, 27]), (17, 0, 0)),
        ("total length with just a UDP header", with(good.clone(), 16, &[0, 28]), (17, 5, 6)),
        ("IPv6 length beyond the end", with(six.clone(), 18, &[0xff, 0xff]), (17, 5, 6)),
        ("IPv6 length 0", with(six.clone(), 18, &[0, 0]), (17, 5, 6)),
        ("IPv6 length 7", with(six.clone(), 18, &[0, 7]), (17, 0, 0)),
        ("UDP header cut", good[..14 + 27].to_vec(), (17, 0, 0)),
        ("nothing after the IP header", good[..14 + 20].to_vec(), (17, 0, 0)),
    ] {
        assert_eq!(key(&bytes), ports, "{what}");
    }
}

#[test]
fn ipv4_options_are_stepped_over() {
    for length in [0, 4, 12, 40] {
        let bytes = v4().ip_options(&vec![1; length]).tcp((5, 6), 1, 2, 16).payload(b"x").build();
        let ip = ip(&bytes);
        assert_eq!((ip.source_port, ip.destination_port, ip.tcp.unwrap().payload), (5, 6, 1));
    }
}

#[test]
fn fragments() {
    for packet in [v4(), v6()] {
        let first = packet.clone().fragment(0, true).udp((5, 6)).payload(&[0; 16]).build();
        assert_eq!(key(&first), (17, 5, 6));
        assert!(!ip(&first).later_fragment);
        let later = packet.fragment(3, false).udp((5, 6)).payload(&[0xff; 16]).build();
        assert_eq!(key(&later), (17, 0, 0));
        assert!(ip(&later).later_fragment);
    }
}

#[test]
fn ipv6_extension_headers() {
    let chain =
        [proto::HOP_BY_HOP, proto::ROUTING, proto::DESTINATION, proto::MOBILITY, proto::HIP, proto::SHIM6];
    let mut packet = v6();
    for kind in chain {
        packet = packet.extension(Extension::new(kind, 1));
    }
    packet = packet.extension(Extension::new(proto::AH, 4)).fragment(0, true);
    assert_eq!(key(&packet.clone().udp((5, 6)).build()), (17, 5, 6), "eight are followed");
    let nine = packet.extension(Extension::new(proto::DESTINATION, 0));
    assert_eq!(key(&nine.udp((5, 6)).build()), (60, 0, 0), "nine are not");

    // A chain that runs past the end stops where it has come to.
    let bytes = v6().extension(Extension::new(proto::ROUTING, 2)).udp((5, 6)).build();
    assert_eq!(key(&bytes), (17, 5, 6));
    assert_eq!(key(&bytes[..14 + 40 + 7]), (43, 0, 0));
    assert_eq!(key(&bytes[..14 + 40 + 8]), (17, 0, 0));
    let beyond = with(bytes, 14 + 40 + 1, &[255]);
    assert_eq!(key(&beyond), (17, 0, 0));

    // What follows a later fragment's header is no header.
    let later = v6().fragment(1, true).protocol(proto::DESTINATION).payload(&[17; 32]).build();
    assert_eq!(key(&later), (60, 0, 0));
    assert_eq!(key(&v6().protocol(proto::NO_NEXT).build()), (59, 0, 0));
    assert_eq!(key(&v6().protocol(proto::ESP).payload(&[1; 32]).build()), (50, 0, 0));
    // In IPv4 they are protocols like any other.
    assert_eq!(key(&v4().protocol(proto::AH).payload(&[17; 32]).build()), (51, 0, 0));
}

#[test]
fn headers_beyond_the_bound_are_not_looked_at() {
    // 14 + 40 + (120 + 1) * 8 = 1,022; one more unit of 8 is beyond 1,023.
    assert_eq!(key(&v6().extension(Extension::new(proto::HOP_BY_HOP, 120)).udp((5, 6)).build()), (17, 5, 6));
    assert_eq!(key(&v6().extension(Extension::new(proto::HOP_BY_HOP, 121)).udp((5, 6)).build()), (17, 0, 0));
}

#[test]
fn tcp_header_lengths() {
    let good = v4().tcp((5, 6), 1, 2, 16).payload(&[0; 8]).build();
    let doff = |words: u8| with(good.clone(), 14 + 20 + 12, &[words << 4]);
    assert_eq!(ip(&good).tcp.unwrap().payload, 8);
    assert_eq!(ip(&doff(7)).tcp.unwrap().payload, 0);
    for bytes in [doff(4), doff(0), doff(8)] {
        assert_eq!(key(&bytes), (6, 5, 6), "the ports hold");
        assert_eq!(ip(&bytes).tcp, None, "the rest does not");
    }
    assert_eq!(key(&good[..14 + 20 + 19]), (6, 0, 0));
}

#[test]
fn tcp_timestamps_are_found_wherever_they_are() {
    let of = |options: &[u8]| ip(&v4().tcp((5, 6), 1, 2, 16).tcp_options(options).build()).tcp.unwrap();
    let found = Some(TcpTimestamps { value: 7, echo: 9 });
    let option = [8, 10, 0, 0, 0, 7, 0, 0, 0, 9];
    let after = |front: &[u8]| [front, &option].concat();
    assert_eq!((of(&after(&[1, 1])).timestamps, of(&after(&[1, 1])).timestamps_first), (found, true));
    let syn = of(&after(&[2, 4, 5, 180, 4, 2]));
    assert_eq!((syn.timestamps, syn.timestamps_first), (found, false));
    assert_eq!(of(&option).timestamps, found);
    for (what, options) in [
        ("end of list", after(&[0])),
        ("length 0", after(&[5, 0])),
        ("length 1", after(&[5, 1])),
        ("length beyond the end", after(&[5, 39])),
        ("option cut", vec![1, 1, 1, 1, 8, 10, 0, 0]),
        ("wrong length", vec![8, 9, 0, 0, 0, 7, 0, 0, 0, 9]),
        ("one octet left", vec![1, 1, 1, 8]),
    ] {
        assert_eq!(of(&options).timestamps, None, "{what}");
    }
}

#[test]
fn sctp_and_others() {
    assert_eq!(key(&v4().sctp((5, 6)).build()), (132, 5, 6));
    assert_eq!(key(&v6().sctp((5, 6)).build()[..14 + 40 + 11]), (132, 0, 0));
    assert_eq!(key(&v4().protocol(proto::GRE).payload(&[1; 30]).build()), (47, 0, 0));
}

#[test]
fn icmp() {
    for (packet, proto, error) in [(v4(), 1, 3), (v6(), 58, 1)] {
        let request = ip(&packet.clone().echo(false, 0x1234, 1).build());
        assert_eq!((request.proto, request.source_port, request.destination_port), (proto, 0x1234, 0x1234));
        assert_eq!(request.echo, Some(Echo::Request));
        assert_eq!(ip(&packet.clone().echo(true, 0x1234, 1).build()).echo, Some(Echo::Reply));
        let quoting = packet.clone().icmp(error, 4, [0; 4]).payload(&v4().udp((5, 6)).build()[14..]).build();
        let port = u16::from(error) << 8 | 4;
        assert_eq!(key(&quoting), (proto, port, port));
        assert_eq!(ip(&quoting).echo, None);
        let cut = packet.protocol(proto).payload(&[8, 0, 0, 0, 1, 2, 3]).build();
        assert_eq!(key(&cut), (proto, 0, 0));
    }
}

#[test]
fn a_cut_capture_keeps_the_lengths() {
    let whole = v4().tcp((5, 6), 1, 2, 16).tcp_timestamps(3, 4).payload(&[0; 1000]).build();
    let cut = parse_captured(&whole[..96], whole.len());
    assert_eq!(cut, parse(&whole));
    let headers_cut = parse_captured(&whole[..14 + 20 + 24], whole.len());
    let Class::Ip(ip) = headers_cut.class else { panic!("{headers_cut:?}") };
    let tcp = ip.tcp.unwrap();
    assert_eq!((tcp.payload, tcp.timestamps), (1000, None));
    // Options that were there but not captured are no fault.
    let options = v4().ip_options(&[1; 40]).udp((5, 6)).build();
    let Class::Ip(ip) = parse_captured(&options[..40], options.len()).class else { panic!("malformed") };
    assert_eq!((ip.proto, ip.source_port), (17, 0));
}

#[test]
fn addresses_are_written_as_the_tap_keeps_them() {
    let mapped = IpAddr::V6(Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped());
    let ip = ip(&Packet::between(mapped, B6).udp((5, 6)).build());
    assert_eq!(ip.source, IpAddr::from([1, 2, 3, 4]));
    assert_eq!(ip.destination, B6);
}

#[test]
fn the_builder_writes_right_checksums() {
    // RFC 9260 appendix A gives no vector; this is the one everybody quotes.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let bytes = v4().ip_options(&[1; 4]).udp((5, 6)).payload(b"odd").build();
    assert_eq!(checksum(&[&bytes[14..38]]), 0, "IPv4 header");
    for (packet, proto) in [
        (v4().udp((5, 6)).payload(b"odd"), 17u8),
        (v6().udp((5, 6)).payload(b"odd"), 17),
        (v4().tcp((5, 6), 1, 2, 16).payload(b"odd"), 6),
        (v6().echo(false, 1, 2).payload(b"odd"), 58),
    ] {
        let bytes = packet.build();
        let (addresses, body) =
            if bytes[12] == 8 { (&bytes[26..34], &bytes[34..]) } else { (&bytes[22..54], &bytes[54..]) };
        let length = (body.len() as u32).to_be_bytes();
        assert_eq!(checksum(&[addresses, &length, &[0, 0, 0, proto], body]), 0, "protocol {proto}");
    }
    assert_eq!(checksum(&[&v4().echo(false, 1, 2).payload(b"odd").build()[34..]]), 0, "ICMP");
}

/// How often the mutated packets came to each end of the parser.
#[derive(Debug, Default)]
struct Reached {
    arp: u32,
    other: u32,
    malformed: u32,
    nd: u32,
    tcp: u32,
    tcp_header_broken: u32,
    timestamps: u32,
    timestamps_elsewhere: u32,
    ports: u32,
    no_ports: u32,
    echo: u32,
    later_fragment: u32,
    chain_broken: u32,
    vlan: u32,
}

/// `IPPM_PACKETS` sets how many; a million take some seconds.
#[test]
fn mutated_packets_get_a_consistent_verdict_and_reach_every_end() {
    let count = std::env::var("IPPM_PACKETS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    let mut reached = Reached::default();
    for (n, bytes) in Mutator::new(1).take(count).enumerate() {
        let parsed = parse(&bytes);
        assert!(parsed.vlan < 0x1000, "packet {n}: {bytes:02x?}");
        reached.vlan += u32::from(parsed.vlan != 0);
        match &parsed.class {
            Class::Arp => reached.arp += 1,
            Class::Other => reached.other += 1,
            Class::Malformed => reached.malformed += 1,
            Class::Nd => reached.nd += 1,
            Class::Ip(ip) => {
                check(ip, &bytes);
                let ports = ip.source_port != 0 || ip.destination_port != 0;
                reached.ports += u32::from(ports);
                reached.no_ports += u32::from(!ports);
                reached.echo += u32::from(ip.echo.is_some());
                reached.later_fragment += u32::from(ip.later_fragment);
                reached.chain_broken += u32::from(
                    matches!(ip.source, IpAddr::V6(_)) && is_extension(ip.proto) && !ip.later_fragment,
                );
                reached.tcp_header_broken += u32::from(ip.proto == proto::TCP && ports && ip.tcp.is_none());
                if let Some(tcp) = &ip.tcp {
                    reached.tcp += 1;
                    reached.timestamps += u32::from(tcp.timestamps_first);
                    reached.timestamps_elsewhere +=
                        u32::from(tcp.timestamps.is_some() && !tcp.timestamps_first);
                }
            }
        }
        // A cut capture of the same packet never says something else, only less.
        let kept = bytes.len() * (n % 8) / 8;
        if let (Class::Ip(whole), Class::Ip(cut)) =
            (&parsed.class, parse_captured(&bytes[..kept], bytes.len()).class)
        {
            assert_eq!((cut.source, cut.destination), (whole.source, whole.destination));
            assert!(cut.source_port == 0 || cut.source_port == whole.source_port, "packet {n}: {bytes:02x?}");
            if let (Some(cut), Some(whole)) = (cut.tcp, &whole.tcp) {
                assert_eq!((cut.seq, cut.payload), (whole.seq, whole.payload));
            }
        }
    }
    let Reached {
        arp,
        other,
        malformed,
        nd,
        tcp,
        tcp_header_broken,
        timestamps,
        timestamps_elsewhere,
        ports,
        no_ports,
        echo,
        later_fragment,
        chain_broken,
        vlan,
    } = reached;
    for (name, times) in [
        ("arp", arp),
        ("other", other),
        ("malformed", malformed),
        ("nd", nd),
        ("tcp", tcp),
        ("tcp_header_broken", tcp_header_broken),
        ("timestamps", timestamps),
        ("timestamps_elsewhere", timestamps_elsewhere),
        ("ports", ports),
        ("no_ports", no_ports),
        ("echo", echo),
        ("later_fragment", later_fragment),
        ("chain_broken", chain_broken),
        ("vlan", vlan),
    ] {
        assert!(times as usize >= count / 1000, "{name}: {times} of {count}");
    }
}

/// What holds for every IP packet.
fn check(ip: &Ip, bytes: &[u8]) {
    let has_ports = ip.source_port != 0 || ip.destination_port != 0;
    let known = [proto::TCP, proto::UDP, proto::SCTP, proto::ICMP, proto::ICMPV6].contains(&ip.proto);
    assert!(!has_ports || known, "{ip:?}");
    assert!(!ip.later_fragment || (!has_ports && ip.tcp.is_none() && ip.echo.is_none()), "{ip:?}");
    assert!(ip.tcp.is_none() || ip.proto == proto::TCP, "{ip:?}");
    if let Some(tcp) = &ip.tcp {
        assert!(tcp.payload as usize + ETHERNET + 40 <= bytes.len(), "{ip:?}");
        assert!(!tcp.timestamps_first || tcp.timestamps.is_some(), "{ip:?}");
    }
    if ip.proto == proto::ICMP || ip.proto == proto::ICMPV6 {
        assert_eq!(ip.source_port, ip.destination_port);
    }
}

proptest! {
    #[test]
    fn any_bytes_get_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..4, more in 0usize..3000) {
        let mut bytes = bytes;
        let kinds = [ethertype::IPV4, ethertype::IPV6, ethertype::VLAN, ethertype::ARP];
        if let Some(field) = bytes.get_mut(12..14) {
            field.copy_from_slice(&kinds[kind].to_be_bytes());
        }
        if let Some(version) = bytes.get_mut(14) {
            *version = if kind == 1 { 0x60 } else { 0x40 | *version & 0xf };
        }
        if let Class::Ip(ip) = parse(&bytes).class {
            check(&ip, &bytes);
        }
        let length = bytes.len() + more;
        if let Class::Ip(ip) = parse_captured(&bytes, length).class {
            prop_assert!(ip.tcp.is_none_or(|tcp| tcp.payload as usize <= length));
        }
    }

    #[test]
    fn what_is_built_is_what_is_read(
        v6: bool,
        tags in 0usize..=2,
        ids in prop::array::uniform2(0u16..0x1000),
        ports: (u16, u16),
        seq: u32,
        ack: u32,
        flags: u8,
        timestamps in prop::option::of(any::<(u32, u32)>()),
        options in 0usize..=40,
        extensions in 0usize..=8,
        payload in 0usize..1400,
        padded in 0usize..100,
    ) {
        let (source, destination) = if v6 { (A6, B6) } else { (A4, B4) };
        let mut packet = Packet::between(source, destination).ip_options(&vec![1; options]);
        for id in &ids[..tags] {
            packet = packet.vlan(ethertype::VLAN, *id);
        }
        for i in 0..extensions {
            packet = packet.extension(Extension::new([proto::HOP_BY_HOP, proto::AH][i % 2], i as u8));
        }
        packet = packet.tcp(ports, seq, ack, flags).payload(&vec![0xaa; payload]).padded(padded);
        if let Some((value, echo)) = timestamps {
            packet = packet.tcp_timestamps(value, echo);
        }
        let built = packet.build();
        let parsed = parse(&built);
        prop_assert_eq!(parsed.vlan, ids[..tags].iter().copied().find(|&id| id != 0).unwrap_or(0));
        let Class::Ip(found) = parsed.class else { panic!("{parsed:?}") };
        let kept = found.payload.expect("the header fits");
        prop_assert_eq!(kept.length as usize, payload);
        prop_assert_eq!(kept.of(&built), &vec![0xaa; payload][..]);
        let expected = Ip {
            source,
            destination,
            proto: proto::TCP,
            source_port: ports.0,
            destination_port: ports.1,
            ip_id: 0,
            later_fragment: false,
            tcp: Some(Tcp {
                seq,
                ack,
                flags,
                payload: payload as u32,
                timestamps: timestamps.map(|(value, echo)| TcpTimestamps { value, echo }),
                timestamps_first: timestamps.is_some(),
            }),
            echo: None,
            payload: Some(kept),
        };
        prop_assert_eq!(found, expected);
    }
}
