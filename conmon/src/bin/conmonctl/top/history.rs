//! What the last answers said of each pair: its rates, for graphs, and whether it has retransmitted lately.

use std::collections::{HashMap, VecDeque};

use conmon::api::Pair;

use super::rows::RowKey;
use crate::judge;

/// How many readings of rates are kept.
const RATES: usize = 120;
/// How many readings "lately" is.
const LATELY: usize = 10;

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
            // Counters that fell began anew.
            if self.resent.back().is_some_and(|last| last.0 > now.0 || last.1 > now.1) {
                self.resent.clear();
            }
            self.resent.push_back(now);
            if self.resent.len() > LATELY + 1 {
                self.resent.pop_front();
            }
        }
    }

    /// Retransmitted segments, and all segments, in the last readings.
    pub fn lately_resent(&self) -> (u64, u64) {
        match (self.resent.front(), self.resent.back()) {
            (Some(first), Some(last)) => (last.0 - first.0, last.1 - first.1),
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

        pair.retransmitted_segments = Some(3);
        pair.sent.segments = 5;
        history.take(std::slice::from_ref(&pair));
        assert_eq!(history.of(&key).map(Readings::lately_resent), Some((0, 0)), "counters began anew");
        history.take(&[]);
        assert!(history.of(&key).is_none());
    }
}
