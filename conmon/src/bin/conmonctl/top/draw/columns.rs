//! The table's columns: what they show, how important they are, and which fit.

use std::collections::VecDeque;

use conmon::api::{DelaySummary, ObservedAt, Pair};
use jiff::Timestamp;

use super::super::history::Readings;
use super::bars::sparkline;
use crate::format::{ABSENT, compact, compact_delay, since};
use crate::judge;
use crate::order::{Order, packet_rate};
use crate::tone::Tone;
use crate::view;

/// What a cell is made of.
pub struct Source<'a> {
    /// The pair.
    pub pair: &'a Pair,
    /// Its earlier readings.
    pub readings: Option<&'a Readings>,
    /// When.
    pub now: Timestamp,
    /// The column's width.
    pub width: usize,
}

/// One column besides the two names.
pub struct Column {
    /// Its heading.
    pub heading: &'static str,
    /// The cells it takes, without the blank before it.
    pub width: u16,
    /// The orders that are about it.
    pub orders: &'static [Order],
    /// The most important column has 0.
    rank: u8,
    /// Words stand left, numbers right.
    pub left: bool,
    /// Text and tone of a cell.
    pub cell: fn(&Source<'_>) -> (String, Tone),
}

/// Columns of this rank or above are shown only where the names are shown whole.
const EXTRA: u8 = 10;
/// The least a name is shown in, where there are columns beside it.
const SHORT_NAME: usize = 10;
/// The most that names are given before extra columns are.
const LONG_NAME: usize = 32;
/// The trend takes what is left, up to this.
const LONGEST_TREND: u16 = 40;

/// In the order of the screen.
const COLUMNS: [Column; 17] = [
    words("PROTO", 6, 5, &[Order::Proto], |of| (protocols(of.pair), Tone::Plain)),
    number("OUT/s", 5, 1, &[Order::Out, Order::Rate], |of| plain(of.pair.sent_bytes_per_second)),
    number("IN/s", 5, 0, &[Order::In, Order::Rate], |of| plain(of.pair.received_bytes_per_second)),
    words("TREND", 12, 10, &[], |of| (trend(of), Tone::Accent)),
    number("PKT/s", 5, 4, &[Order::Packets], |of| plain(packet_rate(of.pair))),
    number("RTT50", 6, 2, &[Order::Rtt50], |of| rtt(of.pair, |rtt| rtt.p50)),
    number("RTT90", 6, 14, &[Order::Rtt90], |of| rtt(of.pair, |rtt| rtt.p90)),
    number("RTT99", 6, 3, &[Order::Rtt99], |of| rtt(of.pair, |rtt| rtt.p99)),
    number("NEAR50", 6, 13, &[Order::Near50], |of| statistic(&of.pair.near_rtt_seconds, |near| near.p50)),
    number("SHAKE50", 7, 15, &[Order::Shake50], |of| {
        statistic(&of.pair.handshake_rtt_seconds, |shake| shake.p50)
    }),
    number("RETR", 5, 6, &[Order::Retr], resent),
    number("SENT", 6, 12, &[Order::Sent, Order::Bytes], |of| plain(Some(of.pair.sent.bytes as f64))),
    number("RECV", 6, 11, &[Order::Recv, Order::Bytes], |of| plain(Some(of.pair.received.bytes as f64))),
    number("FLOWS", 6, 17, &[Order::Flows], |of| plain(Some(of.pair.flows as f64))),
    number("ACTIVE", 6, 18, &[Order::Active], |of| plain(Some(of.pair.active_flows as f64))),
    number("SEEN", 4, 7, &[Order::Seen], |of| (since(of.pair.last_seen, of.now), Tone::Plain)),
    words("TENANT", 14, 16, &[Order::Tenant], |of| (view::tenants(&of.pair.src, &of.pair.dst), Tone::Plain)),
];

const fn number(
    heading: &'static str,
    width: u16,
    rank: u8,
    orders: &'static [Order],
    cell: fn(&Source<'_>) -> (String, Tone),
) -> Column {
    Column { heading, width, orders, rank, left: false, cell }
}

const fn words(
    heading: &'static str,
    width: u16,
    rank: u8,
    orders: &'static [Order],
    cell: fn(&Source<'_>) -> (String, Tone),
) -> Column {
    Column { heading, width, orders, rank, left: true, cell }
}

impl Column {
    /// A heading that fills its column needs a cell more for its marker.
    fn width_when(&self, sort: Order) -> u16 {
        let full = self.orders.contains(&sort) && self.heading.len() >= usize::from(self.width);
        self.width + u16::from(full)
    }
}

/// The order some steps further, column by column, round and round.
pub fn next(sort: Order, steps: isize) -> Order {
    let mut orders = vec![Order::Src, Order::Dst];
    for column in &COLUMNS {
        for order in column.orders {
            // What is about two columns comes after both.
            orders.retain(|known| known != order);
            orders.push(*order);
        }
    }
    let at = orders.iter().position(|order| *order == sort).unwrap_or(0);
    orders[(at as isize + steps).rem_euclid(orders.len() as isize) as usize]
}

/// How a width is shared out.
pub struct Shares {
    /// The columns that are shown, with their widths.
    pub columns: Vec<(&'static Column, u16)>,
    /// The widths of the two names.
    pub names: [usize; 2],
}

/// Shares a width out: the important columns first, then the names up to what they need, then more columns. The column
/// that is sorted by is always there.
pub fn share(width: usize, widest: [usize; 2], sort: Order) -> Shares {
    let need = widest.map(|widest| widest.clamp(SHORT_NAME, LONG_NAME));
    let mut chosen = vec![false; COLUMNS.len()];
    let mut ranked: Vec<usize> = (0..COLUMNS.len()).collect();
    let rank = |at: &usize| if COLUMNS[*at].orders.contains(&sort) { 0 } else { COLUMNS[*at].rank + 1 };
    ranked.sort_by_key(rank);
    // The blank between the names.
    let mut used = 1;
    let mut full = false;
    for at in ranked {
        let taken = usize::from(COLUMNS[at].width_when(sort)) + 1;
        let extra = rank(&at) > EXTRA;
        let names = if extra { need.iter().sum() } else { 2 * SHORT_NAME };
        if used + taken + names <= width && !full {
            chosen[at] = true;
            used += taken;
        } else {
            // No lesser column in the place of one that is needed more.
            full |= !extra;
        }
    }
    let names = share_names(width.saturating_sub(used), widest);
    let mut left = width.saturating_sub(used + names.iter().sum::<usize>());
    let columns = COLUMNS
        .iter()
        .zip(chosen)
        .filter(|(_, chosen)| *chosen)
        .map(|(column, _)| {
            let more =
                if column.heading == "TREND" { left.min((LONGEST_TREND - column.width).into()) } else { 0 };
            left -= more;
            (column, column.width_when(sort) + u16::try_from(more).unwrap_or(0))
        })
        .collect();
    Shares { columns, names }
}

/// Shares the room between the two names by what each needs; both keep half if both need more.
fn share_names(room: usize, widest: [usize; 2]) -> [usize; 2] {
    let [src, dst] = widest.map(|widest| widest.max(8));
    let half = room / 2;
    if src + dst <= room {
        [src, dst]
    } else if src <= half {
        [src, room - src]
    } else if dst <= room - half {
        [room - dst, dst]
    } else {
        [half, room - half]
    }
}

fn plain(value: Option<f64>) -> (String, Tone) {
    (value.map_or_else(|| ABSENT.to_owned(), compact), Tone::Plain)
}

fn statistic(summary: &Option<DelaySummary>, pick: fn(&DelaySummary) -> f64) -> (String, Tone) {
    let text = summary.as_ref().map_or_else(|| ABSENT.to_owned(), |summary| compact_delay(pick(summary)));
    (text, judge::statistic(summary.as_ref(), pick))
}

/// At dst's port the way to dst is a short one: such values are there, but do not stand out.
fn rtt(pair: &Pair, pick: fn(&DelaySummary) -> f64) -> (String, Tone) {
    let (text, tone) = statistic(&pair.rtt_seconds, pick);
    let tone = if tone == Tone::Plain && pair.observed_at == ObservedAt::Dst { Tone::Faint } else { tone };
    (text, tone)
}

/// All that were ever sent again; the tone tells of late.
fn resent(of: &Source<'_>) -> (String, Tone) {
    let (lately, segments) = of.readings.map(Readings::lately_resent).unwrap_or_default();
    (plain(of.pair.retransmitted_segments.map(|number| number as f64)).0, judge::resent(lately, segments))
}

/// `tcp`, or the first and how many more.
fn protocols(pair: &Pair) -> String {
    match pair.protocols.as_slice() {
        [] => ABSENT.to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{}+{}", first.chars().take(4).collect::<String>(), rest.len()),
    }
}

/// The byte rate both ways of the last readings.
fn trend(of: &Source<'_>) -> String {
    let Some(readings) = of.readings else { return String::new() };
    sparkline(&both(&readings.sent, &readings.received), of.width)
}

fn both(sent: &VecDeque<f32>, received: &VecDeque<f32>) -> Vec<f32> {
    // Both are of the same answers, so the newest belong together.
    let both = sent.iter().rev().zip(received.iter().rev()).map(|(a, b)| a + b);
    let mut both: Vec<f32> = both.collect();
    both.reverse();
    both
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_order_is_reached_once_in_the_order_of_the_screen() {
        let mut seen = vec![Order::Src];
        loop {
            let next = next(seen[seen.len() - 1], 1);
            if next == Order::Src {
                break;
            }
            assert!(!seen.contains(&next), "{seen:?}");
            seen.push(next);
        }
        assert_eq!(seen.len(), Order::value_variants().len());
        for order in seen {
            assert_eq!(next(next(order, 1), -1), order);
        }
    }

    #[test]
    fn widths_are_never_overdrawn_and_the_sorted_column_stays() {
        for order in Order::value_variants() {
            for width in 0..300 {
                let shares = share(width, [16, 40], *order);
                let columns: usize = shares.columns.iter().map(|(_, width)| usize::from(*width) + 1).sum();
                let taken = columns + 1 + shares.names.iter().sum::<usize>();
                assert!(taken <= width.max(1), "{taken} of {width}");
                let there = shares.columns.iter().any(|(column, _)| column.orders.contains(order));
                let about_names = matches!(order, Order::Src | Order::Dst);
                assert!(there || about_names || width < 40, "{order:?} at {width}");
            }
        }
    }

    #[test]
    fn at_80_cells_the_important_columns_are_there() {
        let headings = |width| {
            let columns = share(width, [16, 16], Order::Rate).columns;
            columns.iter().map(|(column, _)| column.heading).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(headings(80), "PROTO OUT/s IN/s PKT/s RTT50 RTT99 RETR SEEN");
        assert_eq!(headings(120), "PROTO OUT/s IN/s TREND PKT/s RTT50 RTT99 NEAR50 RETR SENT RECV SEEN");
        assert_eq!(headings(40), "OUT/s IN/s");
        assert_eq!(headings(48), "OUT/s IN/s RTT50 RTT99");
        assert_eq!(headings(200).split(' ').count(), COLUMNS.len());
    }
}
