//! The parser in the kernel and the one in `ippm` give the same verdict on the same octets, and the record-keeping built on
//! it adds up to the model's. `CONMON_FUZZ_PACKETS` sets how many frames (200,000), `CONMON_FUZZ_SEED` which ones.

use std::collections::{BTreeMap, BTreeSet};

use ippm::flow::{Both, Counters, Direction, EndReason, PortClass, Role, Service};
use ippm::measurement::PairKey;
use ippm::testpackets::{Mutator, Random};
use ippm::time::Timestamp;
use tap::{Command, Reader, Set, SetSpec};

use crate::oracle::{FlowTruth, Oracle};
use crate::privileged;

/// Frames compared at once.
const BATCH: usize = 512;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
        Err(_) => default,
    }
}

type PairSums = BTreeMap<PairKey, (Both<Counters>, u64)>;

/// A loaded set, its reader, and what the reader said in all so far of what is not freed with the flows.
pub struct Bench {
    set: Set,
    reader: Reader,
    classes: BTreeMap<(Direction, PortClass), Counters>,
    hist_full: u64,
    paced: bool,
    /// Round trips taken so far, where all could be compared.
    pub taken: usize,
}

impl Bench {
    /// With room for every batch.
    pub fn new() -> Self {
        Self::with_room_for(8192, false)
    }

    /// With so many slots for flows, a multiple of 16.
    pub fn with_room_for(flows: u32, paced: bool) -> Self {
        let spec = SetSpec {
            flows,
            // five hundred in 4,096 are enough for one in some thousand batches to find eight places taken
            pairs: 16_384,
            ports: 16,
            hists: 4096,
            pair_extents: 0,
            hist_extents: 0,
            ring_bytes: 1 << 20,
            rtt: true,
            paced,
            samples: true,
        };
        let set = Set::create(spec).unwrap();
        let reader = Reader::new(set.descriptors().unwrap()).unwrap();
        Self { set, reader, classes: BTreeMap::new(), hist_full: 0, paced, taken: 0 }
    }

    /// Runs the program once. `false`: the kernel takes no such frame for a test run, because it is empty, fills a page, or
    /// its fixed IP header is cut. (`ports::root_odd_frames_on_a_real_port` has these.)
    pub fn run(&self, direction: Direction, frame: &[u8], segments: u32) -> bool {
        match self.set.test_run(direction, frame, 1, segments) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput && !is_testable(frame) => false,
            Err(e) => panic!("test run of {frame:02x?}: {e}"),
        }
    }

    /// Compares all there is with the model, then frees it. `false` when a packet found no slot, so that only sums could
    /// be compared.
    pub fn compare(&mut self, truth: &Oracle) -> Result<bool, String> {
        let scan = self.reader.scan().unwrap();
        let events = self.reader.events(usize::MAX);
        let exact = scan.flows.len() == truth.flows().values().map(Vec::len).sum::<usize>();
        let mut differences = Vec::new();

        for port in &scan.ports {
            for direction in [Direction::Tx, Direction::Rx] {
                for class in PortClass::ALL {
                    let at = (direction, *class);
                    let all = port.count(direction, *class);
                    let new = all.since(self.classes.insert(at, all).unwrap_or_default());
                    let wanted = truth.classes.get(&at).copied().unwrap_or_default();
                    if new != wanted {
                        differences.push(format!("{direction} {class}: tap {new:?}, model {wanted:?}"));
                    }
                }
            }
        }

        let mut pairs = BTreeMap::new();
        for p in &scan.pairs {
            pairs.insert(p.key, (p.counters, p.flows));
        }
        let wanted = truth.pairs();
        // a packet that found no slot has no record that remembers who opened the conversation: its own header alone
        // says so, and it may be counted in the pair of the other role
        let (pairs, wanted) = if exact { (pairs, wanted) } else { (roleless(pairs), roleless(wanted)) };
        let keys: BTreeSet<_> = pairs.keys().chain(wanted.keys()).collect();
        for key in keys {
            let (tap, model) = (pairs.get(key), wanted.get(key));
            if tap != model {
                differences.push(format!("{key:?}: tap {tap:?}, model {model:?}"));
            }
        }

        if exact {
            let mut flows: BTreeMap<_, Vec<FlowTruth>> = BTreeMap::new();
            for f in &scan.flows {
                flows.entry(f.key).or_default().push(FlowTruth::of(f));
            }
            flows.values_mut().for_each(|list| list.sort());
            let wanted = truth.flows();
            for key in flows.keys().chain(wanted.keys()) {
                if flows.get(key) != wanted.get(key) {
                    differences.push(format!("{key}: tap {:?}, model {:?}", flows.get(key), wanted.get(key)));
                }
            }
            let tap: Vec<_> = events.singletons.iter().map(|s| (s.key, s.leg, s.ack)).collect();
            self.taken += tap.len();
            if self.paced {
                // some of what could be, in its order
                let mut eligible = truth.eligible.iter();
                if let Some(s) = tap.iter().find(|s| !eligible.any(|e| e == *s)) {
                    differences.push(format!("{s:?} of {tap:?} cannot be: model {:?}", truth.eligible));
                }
            } else {
                let model: Vec<_> = truth.singletons.iter().map(|s| (s.key, s.leg, s.ack)).collect();
                if tap != model {
                    differences.push(format!("singletons: tap {tap:?}, model {model:?}"));
                }
            }
            let in_histograms: u64 = scan.rtts.iter().map(|r| r.histogram.count()).sum();
            let lost = scan.set.hist_full + scan.set.rtt_unpaired - self.hist_full;
            if in_histograms + lost != tap.len() as u64 {
                differences.push(format!("{in_histograms} in histograms, {lost} lost, taken {}", tap.len()));
            }
        } else if scan.set.flow_full == 0 {
            differences.push(format!("{} flows, model {}", scan.flows.len(), truth.flows().len()));
        }
        if events.unreadable + scan.set.ring_full > 0 {
            differences.push(format!("ring: {} unreadable, {} lost", events.unreadable, scan.set.ring_full));
        }
        self.hist_full = scan.set.hist_full + scan.set.rtt_unpaired;

        // nothing runs but us: no grace period
        let flows: Vec<_> = scan.flows.iter().map(|f| f.id).collect();
        let pairs: Vec<_> = scan.pairs.iter().map(|p| p.id).collect();
        let mut commands: Vec<Command> =
            flows.iter().map(|id| Command::EndFlow(*id, Timestamp::MAX)).collect();
        commands.extend(flows.iter().map(|id| Command::FreeFlow(*id, EndReason::LackOfResources)));
        commands.extend(pairs.iter().map(|id| Command::EndPair(*id)));
        self.set.janitor().run(&commands).unwrap();
        let folded = self.reader.scan().unwrap();
        for p in &folded.pairs {
            let before =
                scan.pairs.iter().find(|b| b.id == p.id).map(|b| (b.counters, b.retransmitted, b.reordered));
            if before != Some((p.counters, p.retransmitted, p.reordered)) {
                differences.push(format!("folded: {p:?}, before {before:?}"));
            }
        }
        self.set.janitor().run(&pairs.iter().map(|id| Command::FreePair(*id)).collect::<Vec<_>>()).unwrap();
        let _ = (self.reader.scan(), self.reader.events(usize::MAX));
        if self.reader.fill() != (0, 0) {
            differences.push(format!("{:?} slots left", self.reader.fill()));
        }
        if differences.is_empty() { Ok(exact) } else { Err(differences.join("\n")) }
    }
}

/// Sums by pair, whoever opened it and whatever for; without the numbers of flows.
fn roleless(pairs: PairSums) -> PairSums {
    let mut all = PairSums::new();
    for (key, (counters, _)) in pairs {
        let key = PairKey { role: Role::LocalOpened, service: Service::None, ..key };
        all.entry(key).or_default().0 += counters;
    }
    all
}

fn is_testable(frame: &[u8]) -> bool {
    let fixed = match frame.get(12..14) {
        Some([8, 0]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 1,
    };
    (14 + fixed..3000).contains(&frame.len())
}

#[derive(Clone)]
struct Run {
    direction: Direction,
    frame: Vec<u8>,
    segments: u32,
}

fn compare(bench: &mut Bench, runs: &[Run]) -> Result<bool, String> {
    let mut truth = Oracle::default();
    for r in runs {
        if bench.run(r.direction, &r.frame, r.segments) {
            truth.packet(r.direction, &r.frame, r.frame.len(), r.segments, 1, 0);
        }
    }
    bench.compare(&truth)
}

#[test]
fn root_both_parsers_agree() {
    if !privileged("root_both_parsers_agree") {
        return;
    }
    let (packets, seed) = (number("CONMON_FUZZ_PACKETS", 200_000), number("CONMON_FUZZ_SEED", 1));
    let mut bench = Bench::new();
    let (mut frames, mut random) = (Mutator::new(seed), Random::new(seed));
    let (mut done, mut inexact, mut batches) = (0, 0, 0);
    while done < packets {
        let mut next = || Run {
            direction: random.pick(&[Direction::Tx, Direction::Rx]),
            frame: frames.frame(),
            segments: random.pick(&[0, 0, 0, 1, 2, 45]),
        };
        let runs: Vec<Run> = (0..BATCH).map(|_| next()).collect();
        match compare(&mut bench, &runs) {
            Ok(exact) => inexact += u64::from(!exact),
            Err(all) => {
                // one by one, to name the frame
                for r in &runs {
                    if let Err(one) = compare(&mut bench, std::slice::from_ref(r)) {
                        panic!("seed {seed}, {} {:02x?}\n{one}", r.direction, r.frame);
                    }
                }
                panic!("seed {seed}, a batch but none of its frames alone, after {done} frames:\n{all}");
            }
        }
        done += BATCH as u64;
        batches += 1;
    }
    assert!(
        inexact * 20 <= batches,
        "{inexact} of {batches} batches overflowed: too many to call it a comparison"
    );
    println!("{done} frames agree; {inexact} of {batches} batches compared by sums only");
}

#[test]
fn root_totals_are_those_of_the_frames() {
    if !privileged("root_totals_are_those_of_the_frames") {
        return;
    }
    // the bench itself: a frame too much or too few is found
    let mut bench = Bench::new();
    let frame =
        ippm::testpackets::Frame::between([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).udp((1, 2)).build();
    let mut truth = Oracle::default();
    assert!(bench.run(Direction::Tx, &frame, 3));
    truth.packet(Direction::Tx, &frame, frame.len(), 3, 1, 0);
    assert_eq!(truth.totals(), Both::new(Counters::new(42, 1, 2), Default::default()));
    assert_eq!(bench.compare(&truth), Ok(true));
    assert!(bench.run(Direction::Tx, &frame, 0));
    assert!(bench.compare(&Oracle::default()).is_err());
}
