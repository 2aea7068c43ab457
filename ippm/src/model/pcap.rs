//! Rendered packets as a capture file: pcap (draft-ietf-opsawg-pcap), little-endian, nanoseconds, Ethernet.

/// What a file begins with.
pub fn header() -> Vec<u8> {
    [0xa1b2_3c4du32, 2 | 4 << 16, 0, 0, 262_144, 1].iter().flat_map(|field| field.to_le_bytes()).collect()
}

/// The packets' records, each `(nanoseconds, frame)`, to follow a [`header`] or other records.
pub fn records(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let octets = frames.iter().map(|(_, frame)| 16 + frame.len()).sum();
    let mut out = Vec::with_capacity(octets);
    for (ns, frame) in frames {
        let length = frame.len() as u32;
        for field in [(ns / 1_000_000_000) as u32, (ns % 1_000_000_000) as u32, length, length] {
            out.extend(field.to_le_bytes());
        }
        out.extend(frame);
    }
    out
}

/// A whole file.
pub fn file(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    [header(), records(frames)].concat()
}
