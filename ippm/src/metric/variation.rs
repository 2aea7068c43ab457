//! Variation of one-way delay. A constant offset between the two clocks cancels in all of these; skew does not: 20 ppm
//! add 200 µs within ten seconds.

use crate::histogram::Histogram;

/// Difference of the delays of consecutive packets: inter-packet delay variation (RFC 3393 section 2.4), with the
/// selection function "each packet and the one sent before it" (RFC 5481 section 4.1). It is undefined, and left out,
/// where one of the two did not arrive.
///
/// `delays` are one-way delays in nanoseconds, of any common offset, by order of sending; `None` for lost. Returns the
/// magnitudes.
pub fn ipdv(delays: impl IntoIterator<Item = Option<i64>>) -> Histogram {
    let mut magnitudes = Histogram::new();
    let mut before = None;
    for delay in delays {
        if let (Some(one), Some(two)) = (before, delay) {
            magnitudes.record(i64::abs_diff(two, one));
        }
        before = delay;
    }
    magnitudes
}

/// Difference of each delay to the smallest: packet delay variation (RFC 5481 section 4.2). The interval is all of
/// `delays`, nanoseconds of any common offset.
pub fn pdv(delays: impl IntoIterator<Item = i64> + Clone) -> Histogram {
    let mut differences = Histogram::new();
    if let Some(smallest) = delays.clone().into_iter().min() {
        for delay in delays {
            differences.record(i64::abs_diff(delay, smallest));
        }
    }
    differences
}

/// The interarrival jitter of RTP (RFC 3550 section 6.4.1, appendix A.8): a running mean of |D|, the difference of
/// spacing at receiver and sender, with weight 1/16, by order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter {
    transit: Option<i64>,
    ns: f64,
}

impl Jitter {
    /// Takes the next arrival: both times in nanoseconds, each on its own clock.
    pub fn arrive(&mut self, sent_ns: u64, received_ns: u64) {
        let transit = received_ns.wrapping_sub(sent_ns) as i64;
        if let Some(before) = self.transit {
            self.ns += (transit.wrapping_sub(before).unsigned_abs() as f64 - self.ns) / 16.0;
        }
        self.transit = Some(transit);
    }

    /// The jitter now, nanoseconds; `None` before the second arrival has been taken is 0 as in the RFC.
    pub const fn ns(&self) -> f64 {
        self.ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_neighbour_leaves_its_differences_undefined() {
        let h = ipdv([Some(100), Some(300), None, Some(1_000), Some(900)]);
        assert_eq!((h.count(), h.min_ns(), h.max_ns(), h.sum_ns()), (2, Some(100), Some(200), 300));
    }

    #[test]
    fn offsets_cancel() {
        let delays = [5i64, 9, 5, 70];
        let moved = delays.map(|d| d - 1_000_000_000_000);
        assert_eq!(ipdv(delays.map(Some)), ipdv(moved.map(Some)));
        assert_eq!(pdv(delays), pdv(moved));
        assert_eq!((pdv(delays).min_ns(), pdv(delays).max_ns()), (Some(0), Some(65)));
        assert!(pdv([]).is_empty());
    }

    #[test]
    fn jitter_follows_the_recursion() {
        let mut jitter = Jitter::default();
        for (sent, received) in [(0, 1_000), (20, 1_036), (40, 1_040), (60, 1_060)] {
            jitter.arrive(sent, received);
        }
        // |D| = 16, 16, 0.
        let by_hand = ((16.0 / 16.0) * 15.0 / 16.0 + 1.0) * 15.0 / 16.0;
        assert!((jitter.ns() - by_hand).abs() < 1e-12);
    }
}
