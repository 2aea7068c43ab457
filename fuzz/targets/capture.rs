//! The capture readers: pcap, pcapng, gzip and zstd, whole or octet by octet.
#![no_main]

use std::io::{Cursor, Read};

use conmon::capture::{MAX_BLOCK, Reader, decompress, to_ethernet};
use ippm::packet::parse_captured;
use libfuzzer_sys::fuzz_target;

/// Decompressed octets that are read: what is compressed can be a thousand times as long.
const MOST: u64 = 1 << 20;

struct OneByOne<R>(R);

impl<R: Read> Read for OneByOne<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

fn read(from: impl Read) -> (u64, u64, Option<String>) {
    let mut reader = match Reader::new(from) {
        Ok(reader) => reader,
        Err(error) => return (0, 0, Some(error.to_string())),
    };
    let (mut packets, mut octets) = (0, 0);
    loop {
        match reader.next_packet() {
            Ok(None) => return (packets, octets, None),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return (packets, octets, Some(error.to_string()));
            }
            Ok(Some(packet)) => {
                assert!(packet.captured.len() <= packet.length && packet.captured.len() <= MAX_BLOCK);
                packets += 1;
                octets += packet.captured.len() as u64;
                let mut room = Vec::new();
                if let Some((frame, length)) =
                    to_ethernet(packet.link, packet.captured, packet.length, &mut room)
                {
                    parse_captured(frame, length);
                }
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let open = || decompress(Cursor::new(data.to_vec())).map(|from| from.take(MOST));
    let (Ok(whole), Ok(bits)) = (open(), open()) else { return };
    let once = read(whole);
    if data.len() < 4_096 {
        let again = read(OneByOne(bits));
        // A decoder that meets damage keeps back what it decoded in the same call.
        if once.2.as_ref().is_some_and(|error| error.starts_with("cannot read it")) {
            assert!(once.0 <= again.0 && once.1 <= again.1);
        } else {
            assert_eq!(once, again);
        }
    }
});
