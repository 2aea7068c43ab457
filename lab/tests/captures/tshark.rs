//! Packet by packet against tshark, and the packets themselves as tshark reads them, which is the ground that others'
//! figures are checked on.
//!
//! A round trip of ours is looked up at its acknowledgement. tshark reckons from the newest segment that an
//! acknowledgement covers, and analyze from the one it timed, which may be an older one: then ours must be the longer one, and
//! a segment must have passed at just that time. Only where both mean the same segment can they disagree.

use crate::Analysis;
use anyhow::{Context, Result, ensure};
use lab::{find_program, output_text};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

/// A TCP packet as tshark reads it.
pub struct Packet {
    pub flow: Flow,
    pub seq: u32,
    /// With SYN and FIN.
    pub length: u32,
    pub rtt_ns: Option<u64>,
    pub place: Place,
}

/// Source and destination.
pub type Flow = ((IpAddr, u16), (IpAddr, u16));

/// What a segment is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    New,
    Again,
    Late,
}

/// A packet's name.
pub type Name = (u64, Flow);

/// Packets by time and flow.
pub struct Packets(pub HashMap<Name, Packet>);

const FIELDS: &[&str] = &[
    "frame.time_epoch",
    "ip.src",
    "ipv6.src",
    "tcp.srcport",
    "ip.dst",
    "ipv6.dst",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.len",
    "tcp.flags.syn",
    "tcp.flags.fin",
    "tcp.analysis.ack_rtt",
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.analysis.out_of_order",
];

impl Packets {
    pub fn read(file: &Path) -> Result<Self> {
        let mut command = Command::new(find_program("tshark", "tshark")?);
        command.args(["-n", "-r"]).arg(file).args([
            "-Y",
            "tcp and not icmp",
            "-T",
            "fields",
            "-E",
            "separator=,",
        ]);
        for field in FIELDS {
            command.args(["-e", field]);
        }
        let text = output_text(&mut command)?;
        let packets = text.lines().map(|line| packet(line).with_context(|| format!("tshark: {line}")));
        Ok(Self(packets.collect::<Result<_>>()?))
    }

    /// The segment that was timed: it passed when the round trip began, the other way, and the acknowledgement covers it.
    pub fn timed(&self, event: &Event) -> Option<&Packet> {
        let began = event.name.0.checked_sub(event.took_ns?)?;
        let segment = self.0.get(&(began, (event.name.1.1, event.name.1.0)))?;
        let end = segment.seq.wrapping_add(segment.length);
        (segment.length > 0 && event.number.wrapping_sub(end) as i32 >= 0).then_some(segment)
    }
}

fn packet(line: &str) -> Result<(Name, Packet)> {
    let cells: Vec<&str> = line.split(',').collect();
    ensure!(cells.len() == FIELDS.len(), "{} fields", cells.len());
    let address = |v4: &str, v6: &str| -> Result<IpAddr> { Ok(if v4.is_empty() { v6 } else { v4 }.parse()?) };
    let flow = (
        (address(cells[1], cells[2])?, cells[3].parse()?),
        (address(cells[4], cells[5])?, cells[6].parse()?),
    );
    let flag = |at: usize| u32::from(matches!(cells[at], "1" | "True"));
    let said = |at: usize| !cells[at].is_empty();
    let place = match (said(12) || said(13) || said(14), said(15)) {
        (_, true) => Place::Late,
        (true, false) => Place::Again,
        (false, false) => Place::New,
    };
    let rtt_ns = if said(11) { Some(nanoseconds(cells[11])?) } else { None };
    let length = cells[8].parse::<u32>()? + flag(9) + flag(10);
    let packet = Packet { flow, seq: cells[7].parse()?, length, rtt_ns, place };
    Ok(((nanoseconds(cells[0])?, flow), packet))
}

/// A decimal fraction of seconds.
fn nanoseconds(seconds: &str) -> Result<u64> {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let fraction = format!("{fraction:0<9}");
    Ok(whole.parse::<u64>()? * 1_000_000_000 + fraction[..9].parse::<u64>()?)
}

/// One of analyze's events.
pub struct Event {
    pub name: Name,
    pub word: String,
    pub number: u32,
    pub took_ns: Option<u64>,
}

/// Those of TCP.
pub fn events(analysis: &Analysis) -> Result<Vec<Event>> {
    let text = std::fs::read_to_string(&analysis.events)?;
    let lines = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    lines
        .filter(|cells| cells.get(2) == Some(&"tcp"))
        .map(|cells| {
            let end =
                |at: usize| -> Result<(IpAddr, u16)> { Ok((cells[at].parse()?, cells[at + 1].parse()?)) };
            let took: Option<f64> = if cells[9].is_empty() { None } else { Some(cells[9].parse()?) };
            Ok(Event {
                name: (cells[1].parse()?, (end(3)?, end(5)?)),
                word: cells[7].to_owned(),
                number: cells[8].parse()?,
                took_ns: took.map(|seconds| (seconds * 1e9).round() as u64),
            })
        })
        .collect()
}

/// What tshark's and our figures have in common, of all captures.
#[derive(Default)]
pub struct Tally {
    same: u64,
    covers_more: u64,
    none: u64,
    different: u64,
    /// By our place and theirs.
    places: [[u64; 3]; 3],
}

impl Tally {
    pub fn judge(&mut self, name: &str, file: &Path, analysis: &Analysis) -> Result<()> {
        let packets = Packets::read(file)?;
        let events = events(analysis)?;
        let before = (self.same, self.covers_more, self.none, self.different);
        let mut ours: HashMap<Name, Place> = HashMap::new();
        for event in &events {
            match event.word.as_str() {
                "retransmitted" => drop(ours.insert(event.name, Place::Again)),
                "reordered" => drop(ours.insert(event.name, Place::Late)),
                _ => self.trip(&packets, event),
            }
        }
        let theirs = packets.0.values().filter(|packet| packet.rtt_ns.is_some()).count();
        println!(
            "{name}: {} TCP packets; round trips: {} alike, {} whose acknowledgement covers more, {} that tshark has not, \
             {} different; tshark has {theirs}",
            packets.0.len(),
            self.same - before.0,
            self.covers_more - before.1,
            self.none - before.2,
            self.different - before.3
        );
        let mut places = [[0u64; 3]; 3];
        for (name, packet) in packets.0.iter().filter(|(_, packet)| packet.length > 0) {
            let our = ours.get(name).copied().unwrap_or(Place::New);
            places[our as usize][packet.place as usize] += 1;
        }
        println!("{name}: segments new, again, late (rows: analyze, columns: tshark): {places:?}");
        for (all, these) in self.places.iter_mut().flatten().zip(places.iter().flatten()) {
            *all += these;
        }
        Ok(())
    }

    fn trip(&mut self, packets: &Packets, event: &Event) {
        let Some(took) = event.took_ns else { return };
        let theirs = packets.0.get(&event.name).map(|packet| packet.rtt_ns);
        let timed = packets.timed(event).is_some();
        *match theirs {
            Some(Some(theirs)) if theirs.abs_diff(took) <= 1_000 => &mut self.same,
            Some(Some(theirs)) if timed && theirs < took => &mut self.covers_more,
            Some(None) if timed => &mut self.none,
            _ => &mut self.different,
        } += 1;
    }

    pub fn verdict(self) -> Result<()> {
        let comparable = self.same + self.different;
        println!(
            "tshark, all: {} of {comparable} comparable round trips alike; {} cover more, {} tshark has not; places {:?}",
            self.same, self.covers_more, self.none, self.places
        );
        ensure!(comparable > 10_000, "{comparable} comparable round trips: too few to judge");
        ensure!(self.same * 100 >= comparable * 99, "{} of {comparable} alike", self.same);
        ensure!(comparable > self.covers_more + self.none, "most could not be compared");
        let [[new, ..], [again_new, again @ ..], [late_new, late @ ..]] = self.places;
        let missed = self.places[0][1] + self.places[0][2];
        let both: u64 = again.iter().chain(&late).sum();
        let segments = new + again_new + late_new + missed + both;
        let differ = again_new + late_new + missed;
        // how many there are is up to the machine; the classification has its truth in virtual time
        println!("tshark, all: {both} segments that both say were sent again or came late");
        ensure!(
            differ * 100 <= segments,
            "{differ} of {segments} segments are new for one and not for the other"
        );
        Ok(())
    }
}
