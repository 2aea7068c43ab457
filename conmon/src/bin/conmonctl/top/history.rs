//! What the last answers said of each pair: its rates, for graphs, and whether it has retransmitted lately.

use std::collections::{HashMap, VecDeque};

use conmon::api::Pair;
use jiff::Timestamp;

use super::rows::RowKey;
use crate::judge;

/// How many readings of rates are kept.
const RATES: usize = 120;
/// How many readings "lately" is.
const LATELY: usize = 10;

/// For so many readings a daemon that has come back may take to have all of a pair again.
const RETURNING: u8 = 10;
/// A pair's first packet keeps its time, but for what clocks are corrected by between two answers, seconds.
const SAME_BEGIN_SECONDS: f64 = 1.0;

/// What a reading of a counter that only grows is worth. A daemon that was restarted tells less than before until it has
/// taken over everything; what comes back then must not look like what has happened meanwhile.
#[derive(Debug, Default)]
pub struct Continuity {
    begin: Option<Timestamp>,
    highest: u64,
    returning: u8,
}

/// What [`Continuity`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It follows the ones before.
    Next,
    /// It is the first of its kind: there is no difference to earlier ones.
    First,
    /// It is not whole: neither it nor earlier ones tell of what follows.
    Partial,
}

impl Continuity {
    /// Judges a reading of a pair.
    pub fn judge(&mut self, first_seen: Timestamp, total: u64) -> Reading {
        let same =
            |begin: Timestamp| first_seen.duration_since(begin).as_secs_f64().abs() < SAME_BEGIN_SECONDS;
        let known = self.begin.is_some_and(same);
        if known && total < self.highest && self.returning < RETURNING {
            self.returning += 1;
            return Reading::Partial;
        }
        let reading = if known && total >= self.highest && self.returning == 0 {
            Reading::Next
        } else {
            Reading::First
        };
        *self = Self { begin: Some(first_seen), highest: total, returning: 0 };
        reading
    }
}

/// Of all pairs in the newest answer.
#[derive(Debug, Default)]
pub struct History {
    of: HashMap<RowKey, Readings>,
}

/// Of one pair.
#[derive(Debug, Default)]
pub struct Readings {
    /// Bytes per second from src to dst, oldest first.
    pub sent: VecDeque<f32>,
    /// Bytes per second from dst to src, oldest first.
    pub received: VecDeque<f32>,
    /// Retransmitted segments, and all segments, so far.
    resent: VecDeque<(u64, u64)>,
    continuity: Continuity,
}

impl Readings {
    fn take(&mut self, pair: &Pair) {
        let keep = |rates: &mut VecDeque<f32>, rate: Option<f64>| {
            rates.extend(rate.map(|rate| rate as f32));
            if rates.len() > RATES {
                rates.pop_front();
            }
        };
        keep(&mut self.sent, pair.sent_bytes_per_second);
        keep(&mut self.received, pair.received_bytes_per_second);
        if let Some(retransmitted) = pair.retransmitted_segments {
            let now = (retransmitted, judge::segments(pair));
            let reading = self.continuity.judge(pair.first_seen, now.1);
            if reading != Reading::Next {
                self.resent.clear();
            }
            if reading != Reading::Partial {
                self.resent.push_back(now);
            }
            if self.resent.len() > LATELY + 1 {
                self.resent.pop_front();
            }
        }
    }

    /// Retransmitted segments, and all segments, in the last readings.
    pub fn lately_resent(&self) -> (u64, u64) {
        match (self.resent.front(), self.resent.back()) {
            (Some(first), Some(last)) => (last.0.saturating_sub(first.0), last.1.saturating_sub(first.1)),
            _ => (0, 0),
        }
    }
}

impl History {
    /// Adds an answer. Pairs that are not in it are forgotten.
    pub fn take(&mut self, pairs: &[Pair]) {
        let mut kept = HashMap::with_capacity(pairs.len());
        for pair in pairs {
            let key = RowKey::of(pair);
            let mut readings = self.of.remove(&key).unwrap_or_default();
            readings.take(pair);
            kept.insert(key, readings);
        }
        self.of = kept;
    }

    /// One pair's.
    pub fn of(&self, key: &RowKey) -> Option<&Readings> {
        self.of.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers;

    #[test]
    fn readings_are_bounded_and_lately_is_lately() {
        let mut history = History::default();
        let mut pair = answers::pairs(300.0).pairs.swap_remove(0);
        let key = RowKey::of(&pair);
        let segments = judge::segments(&pair);
        for at in 0..200 {
            pair.retransmitted_segments = Some(if at < 150 { at } else { 150 });
            pair.sent.segments += 100;
            history.take(std::slice::from_ref(&pair));
            if at == 150 {
                assert_eq!(history.of(&key).map(Readings::lately_resent), Some((10, 1000)));
            }
        }
        let readings = history.of(&key).expect("known");
        assert_eq!((readings.sent.len(), readings.received.len()), (RATES, RATES));
        assert_eq!(readings.lately_resent(), (0, 1000));
        assert!(judge::segments(&pair) > segments);

        // A daemon that was restarted has only some of it, then all again.
        let whole = pair.clone();
        pair.retransmitted_segments = Some(3);
        (pair.sent.segments, pair.received.segments) = (5, 5);
        for pair in [&pair, &pair, &whole] {
            history.take(std::slice::from_ref(pair));
            assert_eq!(
                history.of(&key).map(Readings::lately_resent),
                Some((0, 0)),
                "what came back is not new"
            );
        }
        history.take(&[]);
        assert!(history.of(&key).is_none());
    }

    #[test]
    fn readings_that_are_not_whole_are_told_from_ones_that_begin_anew() {
        let begin: Timestamp = "2026-11-23T04:00:00Z".parse().expect("a time");
        let later = begin + jiff::SignedDuration::from_secs(100);
        let jitter = begin + jiff::SignedDuration::from_micros(7);
        let mut of = Continuity::default();
        for (first_seen, total, reading) in [
            (begin, 100, Reading::First),
            (begin, 150, Reading::Next),
            (jitter, 150, Reading::Next),
            (begin, 20, Reading::Partial),
            (begin, 90, Reading::Partial),
            (begin, 160, Reading::First),
            (begin, 161, Reading::Next),
            (later, 5, Reading::First),
            (later, 6, Reading::Next),
        ] {
            assert_eq!(of.judge(first_seen, total), reading, "{total}");
        }
        let partial = (0..20).take_while(|_| of.judge(later, 1) == Reading::Partial).count();
        assert_eq!(partial, usize::from(RETURNING), "what does not come back is given up");
        assert_eq!(of.judge(later, 2), Reading::Next);
    }
}
