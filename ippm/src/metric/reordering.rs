//! Reordering (RFC 4737).

use crate::histogram::Histogram;

/// What was found about the order of a stream's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reordering {
    /// Packets that arrived.
    pub arrived: u64,
    /// Those that arrived after one that was sent later: Type-P-Reordered (section 3.3).
    pub reordered: u64,
    /// The largest reordering extent (section 4.2.1): how many packets before it, counted back to the first that was
    /// sent later than it.
    pub largest_extent: u64,
    /// How much later than the first such packet each reordered one arrived: late time (section 4.3).
    pub late: Histogram,
}

/// Judges a stream. `arrivals` are `(order, received_ns)` by order of arrival; `order` is whatever grows with sending: a
/// sequence number, or the time of sending. Equal ones are in order. Copies of a packet must have been left out.
pub fn judge(arrivals: impl IntoIterator<Item = (u64, u64)>) -> Reordering {
    let mut found = Reordering::default();
    // The arrivals that were newer than all before them: `order` grows, and so does the place of arrival.
    let mut newest: Vec<(u64, u64, u64)> = Vec::new();
    for (order, received_ns) in arrivals {
        let place = found.arrived;
        found.arrived += 1;
        match newest.last() {
            Some((largest, ..)) if order < *largest => {
                found.reordered += 1;
                let first = newest.partition_point(|(other, ..)| *other <= order);
                if let Some((_, first_place, first_ns)) = newest.get(first) {
                    found.largest_extent = found.largest_extent.max(place - first_place);
                    found.late.record(received_ns.saturating_sub(*first_ns));
                }
            }
            _ => newest.push((order, place, received_ns)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn extents_count_back_to_the_first_that_was_newer() {
        // 4, 5 and 6 come behind 7: extents 4, 5 and 6.
        let orders = [1u64, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11];
        let found = judge(orders.iter().enumerate().map(|(i, s)| (*s, i as u64 * 100)));
        assert_eq!((found.arrived, found.reordered, found.largest_extent), (11, 3, 6));
        assert_eq!((found.late.min_ns(), found.late.max_ns()), (Some(400), Some(600)));
    }

    proptest! {
        #[test]
        fn agrees_with_brute_force(orders in prop::collection::vec(0u64..30, 0..60)) {
            let found = judge(orders.iter().enumerate().map(|(i, s)| (*s, i as u64)));
            let (mut reordered, mut extent) = (0, 0);
            for (i, order) in orders.iter().enumerate() {
                if let Some(j) = orders[..i].iter().position(|other| other > order) {
                    reordered += 1;
                    extent = extent.max((i - j) as u64);
                }
            }
            prop_assert_eq!((found.reordered, found.largest_extent), (reordered, extent));
        }
    }
}
