//! Reader for classic pcap files (draft-ietf-opsawg-pcap), both byte orders, microsecond and nanosecond times.

use anyhow::{Context, Result, bail};
use std::path::Path;

/// Size of the file header, in bytes.
const FILE_HEADER: usize = 24;
/// Size of the header before each packet, in bytes.
const PACKET_HEADER: usize = 16;

/// One captured packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Time of capture, nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// Length on the wire, in bytes, from the link header on.
    pub wire_len: u32,
    /// What was kept of the packet, from the link header on.
    pub data: Vec<u8>,
}

/// Reads a whole capture file.
pub fn read(path: &Path) -> Result<Vec<Packet>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the capture {}", path.display()))?;
    parse(&bytes).with_context(|| format!("capture {}", path.display()))
}

/// Reads a capture from memory. A last packet cut short is an error: a truth with a hole is none.
pub fn parse(bytes: &[u8]) -> Result<Vec<Packet>> {
    let Some(magic) = bytes.first_chunk::<4>() else { bail!("file too short for a pcap header") };
    let (little, nanos) = match magic {
        [0x4d, 0x3c, 0xb2, 0xa1] => (true, true),
        [0xa1, 0xb2, 0x3c, 0x4d] => (false, true),
        [0xd4, 0xc3, 0xb2, 0xa1] => (true, false),
        [0xa1, 0xb2, 0xc3, 0xd4] => (false, false),
        other => bail!("not a pcap file: magic {other:02x?}"),
    };
    if bytes.len() < FILE_HEADER {
        bail!("file too short for a pcap header");
    }
    let word = |at: usize| -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk::<4>()?;
        Some(if little { u32::from_le_bytes(raw) } else { u32::from_be_bytes(raw) })
    };
    let mut packets = Vec::new();
    let mut at = FILE_HEADER;
    while at < bytes.len() {
        let header = (word(at), word(at + 4), word(at + 8), word(at + 12));
        let (Some(seconds), Some(fraction), Some(kept), Some(wire_len)) = header else {
            bail!("packet header at byte {at} is cut short");
        };
        let start = at + PACKET_HEADER;
        let end = start.saturating_add(kept as usize);
        let Some(data) = bytes.get(start..end) else { bail!("packet at byte {at} is cut short") };
        let fraction_ns = u64::from(fraction) * if nanos { 1 } else { 1000 };
        let time_ns = u64::from(seconds) * 1_000_000_000 + fraction_ns;
        packets.push(Packet { time_ns, wire_len, data: data.to_vec() });
        at = end;
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(magic: u32, little: bool, packets: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let word = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut out = word(magic).to_vec();
        out.extend([0; 20]);
        for (seconds, fraction, wire, data) in packets {
            for v in [*seconds, *fraction, data.len() as u32, *wire] {
                out.extend(word(v));
            }
            out.extend(*data);
        }
        out
    }

    #[test]
    fn reads_both_orders_and_both_resolutions() {
        for little in [true, false] {
            for (magic, ns) in [(0xa1b2_3c4d, 7), (0xa1b2_c3d4, 7_000)] {
                let bytes = file(magic, little, &[(2, 7, 1500, b"abc"), (3, 0, 4, b"defg")]);
                let packets = parse(&bytes).unwrap();
                assert_eq!(packets.len(), 2);
                assert_eq!(
                    packets[0],
                    Packet { time_ns: 2_000_000_000 + ns, wire_len: 1500, data: b"abc".to_vec() }
                );
                assert_eq!(packets[1].data, b"defg");
            }
        }
    }

    #[test]
    fn refuses_what_is_cut_short_or_foreign() {
        let whole = file(0xa1b2_3c4d, true, &[(2, 7, 1500, b"abc")]);
        for cut in [0, 3, 10, 23, 30, whole.len() - 1] {
            assert!(parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(parse(&whole[..24]).unwrap().is_empty());
        assert!(parse(&[0x0a; 40]).is_err());
    }

    #[test]
    fn a_huge_length_is_an_error_not_an_allocation() {
        let mut bytes = file(0xa1b2_3c4d, true, &[]);
        bytes.extend([0xff; 16]);
        assert!(parse(&bytes).is_err());
    }
}
