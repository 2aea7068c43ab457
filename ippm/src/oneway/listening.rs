//! When a point listened, and so which of the other point's packets it would have seen.

/// The time from a point's first packet to its last, of anything, by its own clock: then it listened for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The first packet it captured.
    pub first_ns: u64,
    /// The last.
    pub last_ns: u64,
}

impl Listening {
    /// Whether a packet that was sent at `sent_ns` (the other clock) would have been seen here, had it arrived: if it
    /// had taken the smallest raw delay, not before this point listened, and if the largest, not after.
    pub fn would_see_arrival(&self, sent_ns: u64, raw: (i64, i64)) -> bool {
        let at = |delay: i64| i128::from(sent_ns) + i128::from(delay);
        at(raw.0) >= i128::from(self.first_ns) && at(raw.1) <= i128::from(self.last_ns)
    }

    /// Whether a packet that arrived at the other point at `received_ns` (its clock) would have been seen here when it
    /// was sent.
    pub fn would_see_sending(&self, received_ns: u64, raw: (i64, i64)) -> bool {
        let at = |delay: i64| i128::from(received_ns) - i128::from(delay);
        at(raw.1) >= i128::from(self.first_ns) && at(raw.0) <= i128::from(self.last_ns)
    }
}
