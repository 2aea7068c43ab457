//! Matching of TCP data by its place in the sequence space.
//!
//! The two points see the same octets cut into different pieces. So the sequence space is cut at every edge that either
//! point saw, and each part between two cuts is asked how often it was sent and how often it arrived. What was sent once
//! and arrived is a certain match; what was sent more often is not matched (Karn's rule), but that it arrived less often
//! than it was sent is loss.
//!
//! Losses are counted in segments: a lost stretch counts as its length over the segment size, rounded up. The segment size is
//! found in what was seen ([`segment_size`]): a part that is lost was, as a rule, one segment, and its edges are those of
//! its neighbours or of what was sent again.
//!
//! Sequence numbers are taken to be less than 2^31 from their predecessors in the same list, and the two lists' first ones
//! from each other: captures of one connection that begin more than 2 GiB apart in its data cannot be matched.

use std::collections::HashMap;

use super::{Listening, Matching, Passage, widest};

/// Data as a point saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Sequence number of its first octet.
    pub seq: u32,
    /// Octets; pieces without any are left out.
    pub length: u32,
    /// When, by the point's clock, nanoseconds.
    pub ns: u64,
}

/// A piece with its place in a sequence space that does not wrap.
#[derive(Clone, Copy)]
struct Placed {
    from: i64,
    to: i64,
    ns: u64,
}

/// Matches one direction of one connection: what its sender's point and its receiver's point saw, each by time.
///
/// `known_raw` is a range of raw delays that is known otherwise; what is matched here widens it. `unit` is the octets of a full segment, at least 1: [`segment_size`] where it is not known better. Time is that of
/// sorting, room 40 octets a piece.
pub fn match_pieces(
    sent: &[Piece],
    received: &[Piece],
    unit: u32,
    sender: Listening,
    receiver: Listening,
    known_raw: Option<(i64, i64)>,
) -> Matching {
    let unit = i64::from(unit.max(1));
    let segments = |length: i64| (length + unit - 1).div_euclid(unit).unsigned_abs();
    let base = sent.first().or(received.first()).map_or(0, |piece| piece.seq);
    let (sent, received) = (placed(sent, base), placed(received, base));
    let mut matching = Matching {
        sent: sent.iter().map(|piece| segments(piece.to - piece.from)).sum(),
        ..Matching::default()
    };

    // First the certain matches, for they tell how the points' times relate; then what that decides.
    let mut sure: Vec<(usize, usize)> = Vec::new();
    sweep(&sent, &received, |_, out, back| {
        if let ([one], Some(first)) = (out, back.iter().min_by_key(|at| received[**at].ns)) {
            sure.push((*one, *first));
        }
    });
    sure.sort_unstable();
    sure.dedup();
    matching.passages = sure
        .iter()
        .map(|(one, first)| Passage { sent_ns: sent[*one].ns, received_ns: received[*first].ns })
        .collect();
    matching.passages.sort_unstable_by_key(|p| (p.sent_ns, p.received_ns));
    let raw = widest(matching.raw_range_ns(), known_raw);

    let mut lost = Runs::default();
    sweep(&sent, &received, |(from, to), out, back| {
        if out.len() > 1 {
            matching.ambiguous += segments(to - from) * out.len().min(back.len()) as u64;
        }
        let mut earliest = out.to_vec();
        earliest.sort_unstable_by_key(|at| sent[*at].ns);
        for at in &earliest[..out.len().saturating_sub(back.len())] {
            lost.add(*at, from, to);
        }
        if back.len() > out.len() {
            let mut times: Vec<u64> = back.iter().map(|at| received[*at].ns).collect();
            times.sort_unstable();
            for ns in &times[out.len()..] {
                if raw.is_some_and(|raw| sender.would_see_sending(*ns, raw)) {
                    *(if out.is_empty() { &mut matching.unsent } else { &mut matching.duplicates }) +=
                        segments(to - from);
                }
            }
        }
    });
    for (at, from, to) in lost.runs {
        let decided = raw.is_some_and(|raw| receiver.would_see_arrival(sent[at].ns, raw));
        *(if decided { &mut matching.lost } else { &mut matching.undecided }) += segments(to - from);
    }
    matching
}

/// Stretches of sent pieces that were lost: parts of one piece that follow each other are one, so that cuts which others
/// made do not count.
#[derive(Default)]
struct Runs {
    /// Piece, from, to.
    runs: Vec<(usize, i64, i64)>,
}

impl Runs {
    fn add(&mut self, at: usize, from: i64, to: i64) {
        // Few pieces overlap in one place: the one to go on with is among the last.
        let last = self.runs.iter_mut().rev().take(8).find(|run| run.0 == at && run.2 == from);
        match last {
            Some(run) => run.2 = to,
            None => self.runs.push((at, from, to)),
        }
    }
}

/// Calls `part((from, to), sent, received)` for each part between two cuts that was seen at all, with the pieces that
/// cover it, by sequence.
fn sweep(sent: &[Placed], received: &[Placed], mut part: impl FnMut((i64, i64), &[usize], &[usize])) {
    // At an edge pieces end before others begin: no part is empty.
    let mut edges: Vec<(i64, bool, bool, usize)> = Vec::with_capacity(2 * (sent.len() + received.len()));
    for (side, pieces) in [(false, sent), (true, received)] {
        for (at, piece) in pieces.iter().enumerate() {
            edges.extend([(piece.from, true, side, at), (piece.to, false, side, at)]);
        }
    }
    edges.sort_unstable();
    let (mut out, mut back): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut reached = 0;
    for (place, begins, side, at) in edges {
        if place > reached && !(out.is_empty() && back.is_empty()) {
            part((reached, place), &out, &back);
        }
        reached = place;
        let open = if side { &mut back } else { &mut out };
        if begins {
            open.push(at);
        } else {
            open.retain(|other| *other != at);
        }
    }
}

fn placed(pieces: &[Piece], base: u32) -> Vec<Placed> {
    let mut around = 0i64;
    let mut placed = Vec::with_capacity(pieces.len());
    for piece in pieces.iter().filter(|piece| piece.length > 0) {
        let step = piece.seq.wrapping_sub(base.wrapping_add(around as u32)) as i32;
        let from = around + i64::from(step);
        let to = from + i64::from(piece.length);
        around = around.max(to);
        placed.push(Placed { from, to, ns: piece.ns });
    }
    placed
}

/// The octets of a full segment, guessed from the lengths that both points saw: the smallest length of which more
/// than half of the pieces that are not shorter are multiples; else the largest length seen, so that each part counts once.
pub fn segment_size<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> u32 {
    /// Distinct lengths looked at, most frequent first.
    const LENGTHS: usize = 64;
    let mut counts: HashMap<u32, u64> = HashMap::new();
    for piece in pieces {
        *counts.entry(piece.length).or_default() += 1;
    }
    counts.remove(&0);
    let mut counts: Vec<(u32, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|(length, count)| (std::cmp::Reverse(*count), *length));
    let largest = counts.iter().map(|(length, _)| *length).max().unwrap_or(1);
    let mut candidates: Vec<u32> = counts.iter().take(LENGTHS).map(|(length, _)| *length).collect();
    candidates.sort_unstable();
    let most_are_multiples = |unit: u32| {
        let longer = counts.iter().filter(|(length, _)| *length >= unit);
        let (all, multiples) = longer.fold((0, 0), |(all, multiples), (length, count)| {
            (all + count, multiples + if length % unit == 0 { *count } else { 0 })
        });
        multiples * 2 > all
    };
    candidates.into_iter().find(|unit| most_are_multiples(*unit)).unwrap_or(largest)
}
