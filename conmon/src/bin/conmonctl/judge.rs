//! What deserves a colour, and why just there. The bounds are facts of TCP, not taste, so that a colour can be
//! explained.

use conmon::api::{DelaySummary, Pair};

use crate::tone::Tone;

/// Above the longest time for which Linux holds an acknowledgement back (40 ms) with some air: the network or the
/// peer's stack is slow, not its thrift.
pub const SLOW_SECONDS: f64 = 0.05;
/// TCP's least retransmission timeout on Linux: a sender may take such a delay for a loss.
pub const VERY_SLOW_SECONDS: f64 = 0.2;
/// One segment in a hundred sent again: the throughput of the usual congestion controls collapses about there.
pub const LOSSY_RATIO: f64 = 0.01;

/// The tone of a round-trip delay.
pub fn delay(seconds: f64) -> Tone {
    match seconds {
        _ if seconds >= VERY_SLOW_SECONDS => Tone::Bad,
        _ if seconds >= SLOW_SECONDS => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// The tone of one statistic of a sample that may be absent.
pub fn statistic(summary: Option<&DelaySummary>, pick: fn(&DelaySummary) -> f64) -> Tone {
    summary.map_or(Tone::Plain, |summary| delay(pick(summary)))
}

/// The tone of so many retransmitted segments of so many.
pub fn resent(retransmitted: u64, segments: u64) -> Tone {
    match retransmitted {
        0 => Tone::Plain,
        _ if retransmitted as f64 >= LOSSY_RATIO * segments as f64 => Tone::Bad,
        _ => Tone::Warn,
    }
}

/// The segments of a pair, both ways.
pub fn segments(pair: &Pair) -> u64 {
    pair.sent.segments.saturating_add(pair.received.segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let tones = [0.0, 0.049, 0.05, 0.199, 0.2, 9.0].map(delay);
        assert_eq!(tones, [Tone::Plain, Tone::Plain, Tone::Warn, Tone::Warn, Tone::Bad, Tone::Bad]);
        assert_eq!(delay(f64::NAN), Tone::Plain);
        assert_eq!(resent(0, 0), Tone::Plain);
        assert_eq!(resent(1, 101), Tone::Warn);
        assert_eq!(resent(1, 100), Tone::Bad);
        assert_eq!(statistic(None, |summary| summary.p99), Tone::Plain);
    }
}
