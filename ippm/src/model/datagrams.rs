//! A stream of datagrams with serial numbers, one way or both, seen at both ends of a path.

use super::EPOCH_NS;
use super::packet::{Captured, Packet, Transport};
use super::path::{Carrier, Path};
use super::random::Dice;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    /// How many datagrams in each direction that has a path.
    pub count: u64,
    /// Mean distance between them, nanoseconds.
    pub interval_ns: u64,
    /// Distances are exponential (RFC 2330 section 11.1.1) rather than equal (RFC 3432).
    pub poisson: bool,
    /// Octets of payload, at least 8.
    pub payload: u32,
    /// From the client's end to the server's.
    pub forward: Path,
    /// Back, if anything goes back.
    pub reverse: Option<Path>,
    /// Decides everything random.
    pub seed: u64,
}

/// What became of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journey {
    /// Direction.
    pub forward: bool,
    /// Serial number within its direction.
    pub serial: u64,
    /// True time of sending.
    pub sent_ns: u64,
    /// True time of arrival, `None` for lost.
    pub arrival_ns: Option<u64>,
    /// True time of its copy's arrival.
    pub copy_ns: Option<u64>,
}

/// Both ends' packets, by time, and the truth.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What the client's end saw.
    pub client: Vec<Captured>,
    /// What the server's end saw.
    pub server: Vec<Captured>,
    /// The truth table, by direction and serial number.
    pub journeys: Vec<Journey>,
}

/// Sends the stream.
pub fn run(stream: &Stream) -> Outcome {
    let mut outcome = Outcome::default();
    send(stream, true, &stream.forward, &mut outcome);
    if let Some(reverse) = &stream.reverse {
        send(stream, false, reverse, &mut outcome);
    }
    outcome.client.sort_by_key(|c| c.ns);
    outcome.server.sort_by_key(|c| c.ns);
    outcome
}

fn send(stream: &Stream, forward: bool, path: &Path, outcome: &mut Outcome) {
    let seed = stream.seed.wrapping_mul(4).wrapping_add(u64::from(forward));
    let mut carrier = Carrier::new(*path, seed);
    let mut dice = Dice::new(seed.wrapping_add(2));
    let mut now = EPOCH_NS + if forward { 0 } else { stream.interval_ns / 2 };
    for serial in 0..stream.count {
        let fate = carrier.carry(now);
        let packet = Packet {
            forward,
            transport: Transport::Udp { serial },
            payload: stream.payload.max(8),
            ip_id: serial as u16,
        };
        let (near, far) = if forward {
            (&mut outcome.client, &mut outcome.server)
        } else {
            (&mut outcome.server, &mut outcome.client)
        };
        near.push(Captured { ns: now, packet });
        far.extend([fate.arrival_ns, fate.copy_ns].into_iter().flatten().map(|ns| Captured { ns, packet }));
        outcome.journeys.push(Journey {
            forward,
            serial,
            sent_ns: now,
            arrival_ns: fate.arrival_ns,
            copy_ns: fate.copy_ns,
        });
        let gap = if stream.poisson {
            stream.interval_ns as f64 * dice.exponential()
        } else {
            stream.interval_ns as f64
        };
        now += gap as u64;
    }
}
