//! Matching by signature.

use super::{Listening, Matching, Passage, widest};

/// A packet as a point reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    /// Its name: [`crate::select::Digest::name`] of its signature.
    pub name: u64,
    /// When, by the point's clock, nanoseconds.
    pub ns: u64,
}

/// Packets of one name.
struct Alike<'a> {
    sent: &'a [Report],
    received: &'a [Report],
}

/// Matches one direction's reports of two points. Both lists are sorted in place; time and room are those of sorting.
///
/// A name that was sent once is matched with its first arrival. One that was sent more often is never matched, for
/// nobody can say which arrival is which; but that fewer arrived than were sent is loss all the same, and the other way
/// round duplication. `known_raw` is a range of raw delays that is known otherwise; what is matched here widens it. The losses of such a name are taken to be the earliest: what was sent again was, as a rule, lost.
pub fn match_reports(
    sent: &mut [Report],
    received: &mut [Report],
    sender: Listening,
    receiver: Listening,
    known_raw: Option<(i64, i64)>,
) -> Matching {
    sent.sort_unstable();
    received.sort_unstable();
    let mut matching = Matching { sent: sent.len() as u64, ..Matching::default() };
    for alike in groups(sent, received) {
        if let ([one], [first, ..]) = (alike.sent, alike.received) {
            matching.passages.push(Passage { sent_ns: one.ns, received_ns: first.ns });
        }
    }
    matching.passages.sort_unstable_by_key(|p| (p.sent_ns, p.received_ns));
    let raw = widest(matching.raw_range_ns(), known_raw);
    for Alike { sent, received } in groups(sent, received) {
        let (out, back) = (sent.len(), received.len());
        if out > 1 {
            matching.ambiguous += out.min(back) as u64;
        }
        for report in &sent[..out.saturating_sub(back)] {
            // Where nothing was matched nothing is known about how the points' times relate.
            let decided = raw.is_some_and(|raw| receiver.would_see_arrival(report.ns, raw));
            *(if decided { &mut matching.lost } else { &mut matching.undecided }) += 1;
        }
        for report in received.get(out..).unwrap_or_default() {
            if raw.is_some_and(|raw| sender.would_see_sending(report.ns, raw)) {
                *(if out > 0 { &mut matching.duplicates } else { &mut matching.unsent }) += 1;
            }
        }
    }
    matching
}

fn groups<'a>(mut sent: &'a [Report], mut received: &'a [Report]) -> impl Iterator<Item = Alike<'a>> {
    std::iter::from_fn(move || {
        let name = match (sent.first(), received.first()) {
            (None, None) => return None,
            (Some(one), None) | (None, Some(one)) => one.name,
            (Some(one), Some(other)) => one.name.min(other.name),
        };
        Some(Alike { sent: take(&mut sent, name), received: take(&mut received, name) })
    })
}

fn take<'a>(list: &mut &'a [Report], name: u64) -> &'a [Report] {
    let count = list.iter().take_while(|report| report.name == name).count();
    let (taken, rest) = list.split_at(count);
    *list = rest;
    taken
}
