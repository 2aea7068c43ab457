//! The close look at one pair: what was asked for it beside the table's row, and its delays of late.
//!
//! The daemon's distributions are cumulative since the pair was first seen. What the last minute was like is the
//! difference of two of them, which is exact in its counts.

use std::collections::VecDeque;

use conmon::api::{Container, DelaySummary, FlowsAnswer, Pair};
use ippm::histogram::{Histogram, bucket_of};
use jiff::Timestamp;

use super::history::{Continuity, Reading};
use super::rows::RowKey;
use crate::legs::legs;

/// How far back "of late" reaches, seconds.
const LATE_SECONDS: f64 = 60.0;

/// What is asked for a close look.
#[derive(Debug)]
pub struct CloseAnswer {
    /// When.
    pub generated_at: Timestamp,
    /// The pair with its distributions, if it is there.
    pub pair: Option<Pair>,
    /// Its flows, at container level.
    pub flows: Option<FlowsAnswer>,
    /// The pairs of containers that it is made of, at other levels.
    pub parts: Option<Vec<Pair>>,
    /// The container at whose port it is counted.
    pub container: Option<Container>,
}

/// A distribution with its statistics, in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The counts.
    pub histogram: Histogram,
    /// How it was measured.
    pub method: String,
    /// Bound of the percentiles' relative error.
    pub error: Option<f64>,
}

/// A close look.
#[derive(Debug)]
pub struct Close {
    /// At which pair.
    pub key: RowKey,
    /// The newest answer.
    pub answer: Option<CloseAnswer>,
    /// Delays of the last minute; else since the pair was first seen.
    pub late: bool,
    /// The first flow or part that is shown.
    pub scroll: usize,
    /// Distributions of the last minute, in the order of [`legs`], oldest first.
    before: VecDeque<(Timestamp, [Option<Histogram>; 4])>,
    continuity: Continuity,
}

impl Close {
    /// A look at this pair.
    pub fn at(key: RowKey, late: bool) -> Self {
        Self {
            key,
            answer: None,
            late,
            scroll: 0,
            before: VecDeque::new(),
            continuity: Continuity::default(),
        }
    }

    /// Takes in an answer.
    pub fn take(&mut self, answer: CloseAnswer) {
        if let Some(pair) = &answer.pair {
            let now = legs(pair).map(|leg| leg.summary.and_then(histogram));
            let reading =
                self.continuity.judge(pair.first_seen, now.iter().flatten().map(Histogram::count).sum());
            if reading != Reading::Next {
                self.before.clear();
            }
            if reading != Reading::Partial {
                self.before.push_back((answer.generated_at, now));
            }
            let age = |then: Timestamp| answer.generated_at.duration_since(then).as_secs_f64();
            while self.before.get(1).is_some_and(|(then, _)| age(*then) >= LATE_SECONDS) {
                self.before.pop_front();
            }
        }
        self.answer = Some(answer);
    }

    /// How long "of late" is by now, seconds.
    pub fn late_seconds(&self) -> f64 {
        match (self.before.front(), self.before.back()) {
            (Some((first, _)), Some((last, _))) => last.duration_since(*first).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// What is to be shown of each leg, in the order of [`legs`]. None where nothing was measured (of late), or where
    /// no distribution has come.
    pub fn samples(&self, pair: &Pair) -> [Option<Sample>; 4] {
        let mut legs = legs(pair).into_iter();
        std::array::from_fn(|at| {
            let summary = legs.next()?.summary?;
            let histogram = if self.late {
                let (_, first) = self.before.front()?;
                let (_, last) = self.before.back()?;
                match (&last[at], &first[at]) {
                    (Some(last), Some(first)) => last.subtract(first),
                    (Some(last), None) => last.clone(),
                    (None, _) => return None,
                }
            } else {
                histogram(summary)?
            };
            (!histogram.is_empty()).then(|| Sample {
                histogram,
                method: summary.method.clone(),
                error: summary.relative_error_ratio,
            })
        })
    }
}

/// The counts behind a summary, where they came with it.
fn histogram(summary: &DelaySummary) -> Option<Histogram> {
    let ns = |seconds: f64| (seconds.max(0.0) * 1e9).round() as u64;
    let counts = summary.buckets.as_ref()?.iter().map(|bucket| {
        // The API's buckets are the histogram's own.
        (u16::try_from(bucket_of(ns(bucket.from_seconds))).unwrap_or(u16::MAX), bucket.count)
    });
    Histogram::from_counts(counts, 0, ns(summary.min), ns(summary.max)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers;

    fn answer(seconds: f64) -> CloseAnswer {
        let pair = answers::with_histograms(answers::pairs(seconds).pairs.swap_remove(0));
        CloseAnswer {
            generated_at: answers::after(seconds),
            pair: Some(pair),
            flows: None,
            parts: None,
            container: None,
        }
    }

    #[test]
    fn distributions_are_those_of_the_summaries() {
        let answer = answer(300.0);
        let pair = answer.pair.clone().expect("a pair");
        let mut close = Close::at(RowKey::of(&pair), false);
        close.take(answer);
        for (sample, leg) in close.samples(&pair).iter().zip(legs(&pair)) {
            let (sample, summary) = (sample.as_ref().expect("measured"), leg.summary.expect("measured"));
            assert_eq!(sample.histogram.count(), summary.count);
            for (q, said) in [(0.0, summary.min), (0.5, summary.p50), (0.99, summary.p99), (1.0, summary.max)]
            {
                let ns = sample.histogram.quantile(q).expect("not empty") as f64;
                // Of twelve handshakes percentiles are single ones.
                let fair = summary.count > 100 || q == 0.0;
                assert!(!fair || (ns / 1e9 / said - 1.0).abs() < 0.07, "{q}: {ns} ns, {said} s");
            }
        }
    }

    #[test]
    fn the_last_minute_is_a_difference() {
        let pair = answer(300.0).pair.expect("a pair");
        let mut close = Close::at(RowKey::of(&pair), true);
        close.take(answer(300.0));
        assert_eq!(close.samples(&pair), [const { None }; 4], "one reading is no difference");
        let counted = |close: &Close| close.samples(&pair)[0].as_ref().map(|sample| sample.histogram.count());
        close.take(answer(310.0));
        assert_eq!((counted(&close), close.late_seconds()), (Some(9000), 10.0));
        assert_eq!(close.samples(&pair)[2], None, "there was no handshake meanwhile");
        for seconds in 1..=90 {
            close.take(answer(310.0 + f64::from(seconds)));
        }
        assert_eq!((counted(&close), close.late_seconds()), (Some(54000), 60.0));
        let mut without = answer(402.0);
        if let Some(pair) = &mut without.pair {
            (pair.rtt_seconds, pair.near_rtt_seconds) = (None, None);
        }
        close.take(without);
        assert_eq!(counted(&close), None, "a daemon that was restarted has not all of it at once");
        close.take(answer(403.0));
        assert_eq!(counted(&close), None, "what comes back is not new");
        close.take(answer(404.0));
        // The made-up distributions do not grow quite bucket by bucket.
        assert!(counted(&close).is_some_and(|count| (890..=910).contains(&count)), "{:?}", counted(&close));
    }

    #[test]
    fn counts_that_make_no_sense_are_not_shown() {
        let mut answer = answer(300.0);
        let summary = answer.pair.as_mut().and_then(|pair| pair.rtt_seconds.as_mut()).expect("measured");
        summary.buckets.as_mut().expect("asked for").reverse();
        let pair = answer.pair.clone().expect("a pair");
        let mut close = Close::at(RowKey::of(&pair), false);
        close.take(answer);
        assert!(close.samples(&pair)[0].is_none() && close.samples(&pair)[1].is_some());
    }
}
