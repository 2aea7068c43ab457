//! Plots of delays, all of a page on one logarithmic scale of time.

use std::fmt::Write as _;

use conmon::api::DelaySummary;

use crate::format::delay;

/// The plots' width, in their own units.
const WIDTH: f64 = 360.0;
/// The height of one delay's plot.
const ROW: f64 = 24.0;
/// Width of one bar of a distribution.
const BAR: f64 = 4.0;
/// Below the bars, for the range.
const FOOT: f64 = 5.0;
/// Labels of the scale are so far apart at least.
const LABEL: f64 = 52.0;

/// Which delays lie where: from and to as powers of ten seconds.
pub struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    /// One that has room for all of them. Delays of zero lie at its lower end.
    pub fn of<'a>(delays: impl Iterator<Item = &'a DelaySummary>) -> Option<Self> {
        let mut ends: Option<(f64, f64)> = None;
        for delays in delays {
            let (low, high) = ends.unwrap_or((f64::INFINITY, 0.0));
            ends = Some((if delays.min > 0.0 { low.min(delays.min) } else { low }, high.max(delays.max)));
        }
        let (low, high) = ends?;
        // From a nanosecond to a day: what is outside stands at the end.
        let decade = |seconds: f64| seconds.clamp(1e-9, 86_400.0).log10();
        let high = decade(high).ceil() as i32;
        let low = (decade(low).floor() as i32).min(high - 1);
        Some(Self { low, high })
    }

    fn x(&self, seconds: f64) -> f64 {
        let at = (seconds.max(1e-12).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        at.clamp(0.0, 1.0) * WIDTH
    }

    /// How delays are distributed: bars, a line from the smallest to the largest, marks at the median and the 99th
    /// percentile.
    pub fn plot(&self, name: &str, delays: &DelaySummary) -> String {
        let [min, p50, p99, max] = [delays.min, delays.p50, delays.p99, delays.max].map(|v| self.x(v));
        let base = ROW - FOOT;
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {ROW}\" role=\"img\" aria-label=\"{name}\">{}{}\
             <line class=\"whole\" x1=\"{min:.1}\" x2=\"{:.1}\" y1=\"{base}\" y2=\"{base}\"/>\
             <line class=\"middle\" x1=\"{p50:.1}\" x2=\"{p50:.1}\" y1=\"3\" y2=\"{ROW}\"/>\
             <line class=\"late\" x1=\"{p99:.1}\" x2=\"{p99:.1}\" y1=\"3\" y2=\"{ROW}\"/></svg>",
            self.rules(ROW),
            self.bars(delays),
            max.max(min + 1.0),
        )
    }

    /// The highest bar fills the row; buckets that are wider than a bar are spread over as many.
    fn bars(&self, delays: &DelaySummary) -> String {
        let mut bars = vec![0.0f64; (WIDTH / BAR) as usize + 1];
        for bucket in delays.buckets.iter().flatten() {
            let from = (self.x(bucket.from_seconds.max(delays.min)) / BAR) as usize;
            let to = bucket.to_seconds.unwrap_or(delays.max).min(delays.max);
            let to = ((self.x(to) / BAR).ceil() as usize).clamp(from + 1, bars.len().max(from + 1));
            let share = bucket.count as f64 / (to - from) as f64;
            bars.iter_mut().take(to).skip(from).for_each(|bar| *bar += share);
        }
        let most = bars.iter().copied().fold(0.0, f64::max);
        let mut path = String::new();
        for (at, bar) in bars.iter().enumerate().filter(|(_, bar)| **bar > 0.0) {
            // One singleton among millions shall be seen, too.
            let height = (bar / most * (ROW - FOOT - 1.0)).max(0.7);
            let _ = write!(
                path,
                "M{:.1} {}v-{height:.1}h{}v{height:.1}z",
                at as f64 * BAR,
                ROW - FOOT,
                BAR - 0.5
            );
        }
        format!("<path class=\"bulk\" d=\"{path}\"/>")
    }

    fn rules(&self, height: f64) -> String {
        (self.low..=self.high).fold(String::new(), |mut rules, decade| {
            let x = self.x(10f64.powi(decade));
            let _ =
                write!(rules, "<line class=\"rule\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{height}\"/>");
            rules
        })
    }

    /// The scale itself, with as many labels as have room.
    pub fn axis(&self) -> String {
        let mut axis = format!("<svg viewBox=\"0 0 {WIDTH} 14\" aria-hidden=\"true\">");
        let between = WIDTH / f64::from(self.high - self.low);
        let step = (LABEL / between).ceil().max(1.0) as usize;
        for decade in (self.low..=self.high).rev().step_by(step) {
            let seconds = 10f64.powi(decade);
            let anchor = match decade {
                d if d == self.low => "start",
                d if d == self.high => "end",
                _ => "middle",
            };
            // A power of ten needs no decimals.
            let label = delay(seconds).replace(".00", "").replace(".0", "");
            let _ = write!(
                axis,
                "<text class=\"scale\" x=\"{:.1}\" y=\"11\" text-anchor=\"{anchor}\">{label}</text>",
                self.x(seconds)
            );
        }
        axis + "</svg>"
    }
}
