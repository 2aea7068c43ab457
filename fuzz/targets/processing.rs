//! A middle box's two ports: any sightings, held against looking at each name by itself.
#![no_main]

use ippm::oneway::Listening;
use ippm::processing::{Processing, Sighting, match_ports};
use libfuzzer_sys::fuzz_target;

type Port = Vec<(u8, u8, u64)>;

fuzz_target!(|input: (Port, Port, [u64; 4], Option<u64>, bool)| {
    let (first, second, [a, b, c, d], timeout, near) = input;
    let list = |port: &Port| -> Vec<Sighting> {
        let scale = if near { 0x3fff_ffff } else { u64::MAX };
        let one = |(name, way, ns): &(u8, u8, u64)| Sighting {
            name: u64::from(*name),
            way: u32::from(*way),
            ns: *ns & scale,
        };
        port.iter().map(one).collect()
    };
    let listened = [Listening { first_ns: a, last_ns: b }, Listening { first_ns: c, last_ns: d }];
    let (mut first, mut second) = (list(&first), list(&second));
    let found = match_ports(&mut first, &mut second, listened, timeout);
    assert_eq!(sum(&found), (first.len() + second.len()) as u64);
    let (mut passages, mut alone, mut alike) = ([Vec::new(), Vec::new()], 0, 0);
    for name in 0..=255 {
        let at = |port: usize, list: &[Sighting]| -> Vec<(u64, usize)> {
            list.iter().filter(|s| s.name == name).map(|s| (s.ns, port)).collect()
        };
        let mut all = at(0, &first);
        all.extend(at(1, &second));
        all.sort_unstable();
        while !all.is_empty() {
            let length = 1 + all.windows(2).take_while(|two| two[1].0 - two[0].0 <= found.timeout_ns).count();
            match all.drain(..length).collect::<Vec<_>>()[..] {
                [_] => alone += 1,
                [one, other] if one.1 != other.1 => passages[one.1].push((one.0, other.0)),
                _ => alike += length as u64,
            }
        }
    }
    for (way, mut expected) in found.ways.iter().zip(passages) {
        expected.sort_unstable();
        let passages: Vec<(u64, u64)> = way.passages.iter().map(|p| (p.sent_ns, p.received_ns)).collect();
        assert_eq!(passages, expected);
        assert_eq!(way.times().count(), passages.len() as u64);
    }
    assert_eq!(found.ambiguous, alike);
    let singles: u64 = found.ways.iter().map(|way| way.dropped + way.created).sum();
    assert_eq!(singles + found.undecided, alone);
});

fn sum(found: &Processing) -> u64 {
    let way = |way: &ippm::processing::Through| way.passages.len() as u64 * 2 + way.dropped + way.created;
    found.ways.iter().map(way).sum::<u64>() + found.ambiguous + found.undecided
}
