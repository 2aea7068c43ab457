//! What a capture's packets are kept as until another capture's are compared with them: reports of packets and pieces of
//! TCP data, bounded.
//!
//! Everything is kept at first. When there is more than the bound, half of it is given up, and half again: of packets
//! those whose name's digest says so, of TCP data those blocks of sequence space (64 KiB each). Both captures give up the
//! same, so what is left of both is compared without loss of truth, only of sample.

use std::collections::HashMap;
use std::net::IpAddr;

use ippm::follow::table::BiKey;
use ippm::oneway::octets::Piece;
use ippm::oneway::packets::Report;
use ippm::packet::Ip;
use ippm::select::digest::digest;
use ippm::select::{Key, Threshold, Tuple, signature};

use super::translated::Sketch;

/// Records of one capture that are kept: 64 MiB of them.
pub const MAX_RECORDS: usize = 4 << 20;

/// log2 of the octets of sequence space that are kept or given up together.
const BLOCK_BITS: u32 = 16;

/// Both captures must name packets the same, whatever addresses they have there; who steers his packets' selection in a file of ours gains nothing.
const KEY: Key = Key::new([0x636f_6e6d_6f6e, 0x0061_6e61_6c79_7a65]);
const SELECT_SEED: u64 = 0x7365_6c65_6374;

/// One flow's records, by the direction of its key.
#[derive(Debug, Default)]
pub(super) struct FlowRecords {
    /// The pair it counts in.
    pub pair: u32,
    /// Whether the key's first end is the pair's src.
    pub src_first: bool,
    /// The key's ends, in its order.
    pub ends: Option<[(IpAddr, u16); 2]>,
    /// What it is known by where its addresses are others.
    pub sketch: Sketch,
    pub pieces: [Vec<Piece>; 2],
    pub reports: [Vec<Report>; 2],
}

/// One capture's records.
pub(super) struct Collector {
    index: HashMap<BiKey, u32>,
    flows: Vec<(BiKey, FlowRecords)>,
    threshold: Threshold,
    records: usize,
    most: usize,
    refused: u64,
}

/// A flow for each so many records at most.
const RECORDS_A_FLOW: usize = 16;

/// No place: there were too many flows.
const NO_PLACE: u32 = u32::MAX;

impl Collector {
    pub fn new(most: usize) -> Self {
        let (index, flows) = (HashMap::new(), Vec::new());
        Self { index, flows, threshold: Threshold::ALL, records: 0, most: most.max(1), refused: 0 }
    }

    /// The place of a flow that begins; there may be none left for it.
    pub fn flow(&mut self, key: BiKey, ends: [(IpAddr, u16); 2], pair: u32, src_first: bool) -> u32 {
        if let Some(at) = self.index.get(&key) {
            return *at;
        }
        if self.flows.len() > self.most / RECORDS_A_FLOW {
            self.refused += 1;
            return NO_PLACE;
        }
        let records = FlowRecords { pair, src_first, ends: Some(ends), ..FlowRecords::default() };
        self.flows.push((key, records));
        let at = (self.flows.len() - 1) as u32;
        self.index.insert(key, at);
        at
    }

    /// Flows for which there was no place: they are not compared.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Keeps a packet of a flow at its place.
    pub fn packet(&mut self, flow: u32, straight: bool, ip: &Ip, payload: &[u8], ns: u64) {
        let Some((_, flow)) = self.flows.get_mut(flow as usize) else { return };
        let way = usize::from(!straight);
        match &ip.tcp {
            Some(tcp) if tcp.payload > 0 => {
                let piece = Piece { seq: tcp.seq, length: tcp.payload, ns };
                flow.sketch.data(straight, tcp);
                let before = flow.pieces[way].len();
                keep_piece(self.threshold, piece, &mut flow.pieces[way]);
                self.records += flow.pieces[way].len() - before;
            }
            _ => {
                // Reports are compared flow by flow, so that addresses are not needed to tell them apart.
                let name = signature(&KEY, ip, payload, Tuple::Translated).name;
                flow.sketch.add(straight, name);
                if keeps_report(self.threshold, name) {
                    flow.reports[way].push(Report { name, ns });
                    self.records += 1;
                }
            }
        }
        if self.records > self.most {
            self.raise(self.threshold.coarser());
        }
    }

    /// The share of packets that is kept.
    pub const fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// Gives up what a coarser threshold does not take.
    pub fn raise(&mut self, threshold: Threshold) {
        if threshold <= self.threshold {
            return;
        }
        self.threshold = threshold;
        self.records = 0;
        for (_, flow) in &mut self.flows {
            for pieces in &mut flow.pieces {
                let all = std::mem::take(pieces);
                for piece in all {
                    keep_piece(threshold, piece, pieces);
                }
                self.records += pieces.len();
            }
            for reports in &mut flow.reports {
                reports.retain(|report| keeps_report(threshold, report.name));
                reports.shrink_to_fit();
                self.records += reports.len();
            }
        }
    }

    /// All flows, in the order of their beginning.
    pub fn into_flows(self) -> Vec<(BiKey, FlowRecords)> {
        self.flows
    }
}

fn keeps_report(threshold: Threshold, name: u64) -> bool {
    threshold == Threshold::ALL || threshold.takes(digest(SELECT_SEED, &[name]))
}

/// Keeps those parts of a piece that lie in blocks which are kept.
fn keep_piece(threshold: Threshold, piece: Piece, into: &mut Vec<Piece>) {
    if threshold == Threshold::ALL {
        into.push(piece);
        return;
    }
    let (mut seq, mut left) = (piece.seq, piece.length);
    while left > 0 {
        let length = left.min((1 << BLOCK_BITS) - (seq & ((1 << BLOCK_BITS) - 1)));
        if threshold.takes(digest(SELECT_SEED, &[u64::from(seq >> BLOCK_BITS)])) {
            into.push(Piece { seq, length, ns: piece.ns });
        }
        seq = seq.wrapping_add(length);
        left -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_raised_late_or_early_keep_the_same() {
        let pieces: Vec<Piece> = (0..400u32)
            .map(|i| Piece { seq: 0xfff0_0000u32.wrapping_add(i * 40_000), length: 40_000, ns: u64::from(i) })
            .collect();
        let at_once = |level| {
            let mut kept = Vec::new();
            for piece in &pieces {
                keep_piece(Threshold::new(level), *piece, &mut kept);
            }
            kept
        };
        let mut stepwise = pieces.clone();
        for level in 1..=3 {
            let mut kept = Vec::new();
            for piece in stepwise {
                keep_piece(Threshold::new(level), piece, &mut kept);
            }
            stepwise = kept;
        }
        assert_eq!(stepwise, at_once(3));
        let octets = |pieces: &[Piece]| pieces.iter().map(|p| u64::from(p.length)).sum::<u64>();
        let share = octets(&at_once(2)) as f64 / octets(&pieces) as f64;
        assert!((share - 0.25).abs() < 0.1, "{share}");
    }
}
