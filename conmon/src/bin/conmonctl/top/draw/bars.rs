//! Graphs of characters: rates over time in one line, distributions of delays over a logarithmic axis.

use ippm::histogram::Histogram;
use unicode_width::UnicodeWidthStr;

use crate::format::compact_delay;

/// A cell's fill in eighths.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The newest values that fit, right-aligned. Zero is empty, anything more is seen, and the highest leaves an eighth free:
/// full cells of one line would grow together with those of the next.
pub fn sparkline(values: &[f32], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let highest = shown.iter().copied().fold(0.0, f32::max);
    let cell = |value: f32| EIGHTHS[eighths(value.into(), highest.into(), 7)];
    let line: String = shown.iter().map(|value| cell(*value)).collect();
    format!("{line:>width$}")
}

/// The part of `full` eighths that a value is of the highest one. What is there is seen.
fn eighths(value: f64, highest: f64, full: usize) -> usize {
    if value <= 0.0 || highest <= 0.0 {
        return 0;
    }
    ((value / highest * full as f64).round() as usize).clamp(1, full)
}

/// A distribution as it is drawn.
#[derive(Debug, PartialEq)]
pub struct Bars {
    /// Rows from top to bottom, each as wide as was asked for.
    pub rows: Vec<Vec<char>>,
    /// The delay in the middle of each column, seconds.
    pub seconds: Vec<f64>,
    /// From the smallest to the largest value, where the width has room for it.
    pub span: String,
    /// The line below: where the percentiles 50, 90 and 99 are.
    pub axis: String,
}

/// Draws a distribution that is not empty.
pub fn bars(histogram: &Histogram, width: usize, height: usize) -> Bars {
    let ns = |value: Option<u64>| value.unwrap_or(1).max(1) as f64;
    let (mut low, mut high) = (ns(histogram.min_ns()), ns(histogram.max_ns()));
    if high / low < 1.5 {
        // A few equal values shall be a bar in the middle, not a wall.
        (low, high) = (low / 1.25, high * 1.25);
    }
    let columns = width as f64;
    let place = |ns: f64| ((ns / low).ln() / (high / low).ln() * columns).clamp(0.0, columns);
    let column = |place: f64| (place as usize).min(width.saturating_sub(1));
    let mut heights = vec![0.0; width];
    if width > 0 {
        for (from, to, count) in histogram.ranges() {
            // The first bucket begins at nothing, the last one has no end.
            let (a, b) = (place((from as f64).max(low)), place((to as f64).min(high)));
            let (first, last) = (column(a), column(b));
            if b <= a || first == last {
                heights[first] += count as f64;
                continue;
            }
            for (at, height) in heights.iter_mut().enumerate().take(last + 1).skip(first) {
                let overlap = b.min(at as f64 + 1.0) - a.max(at as f64);
                *height += count as f64 * overlap.max(0.0) / (b - a);
            }
        }
    }
    let highest = heights.iter().copied().fold(0.0, f64::max);
    let filled: Vec<usize> = heights.iter().map(|value| eighths(*value, highest, 8 * height)).collect();
    let rows = (0..height)
        .rev()
        .map(|row| filled.iter().map(|eighths| EIGHTHS[eighths.saturating_sub(8 * row).min(8)]).collect())
        .collect();
    let seconds = (0..width).map(|at| low * (high / low).powf((at as f64 + 0.5) / columns) / 1e9).collect();
    let label = |ns: Option<u64>| compact_delay(ns.unwrap_or(0) as f64 / 1e9);
    let span = format!("{} – {}", label(histogram.min_ns()), label(histogram.max_ns()));
    let span = if span.width() + 12 <= width { span } else { String::new() };
    Bars { rows, seconds, span, axis: axis(histogram, width, |ns| column(place(ns))) }
}

fn axis(histogram: &Histogram, width: usize, column: impl Fn(f64) -> usize) -> String {
    let mut line = vec!['─'; width];
    let mut free = 0;
    // From left to right, a blank between them; what has no room is left out, the extreme ones last.
    let mut marks: Vec<(usize, &str)> = [(0.5, "50"), (0.9, "90"), (0.99, "99")]
        .into_iter()
        .filter_map(|(q, text)| Some((column(histogram.quantile(q)? as f64), text)))
        .collect();
    if marks.len() == 3 && marks[2].0 < marks[0].0 + 6 {
        marks.remove(1);
    }
    for (at, text) in marks {
        let at = at.max(free).min(width.saturating_sub(text.len()));
        if at < free || at + text.len() > width {
            continue;
        }
        for (offset, c) in text.chars().enumerate() {
            line[at + offset] = c;
        }
        free = at + text.len() + 1;
    }
    line.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_show_what_is_there() {
        assert_eq!(sparkline(&[0.0, 1.0, 500.0, 1000.0], 6), "   ▁▄▇");
        assert_eq!(sparkline(&[9.0, 1000.0, 500.0], 2), "▇▄");
        assert_eq!(sparkline(&[0.0, 0.0], 3), "   ");
        assert_eq!(sparkline(&[], 3), "   ");
        assert_eq!(sparkline(&[1.0], 0), "");
    }

    fn histogram(values: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::new();
        for (ns, times) in values {
            histogram.record_many(*ns, *times);
        }
        histogram
    }

    fn text(bars: &Bars) -> Vec<String> {
        bars.rows.iter().map(|row| row.iter().collect()).chain([bars.axis.clone()]).collect()
    }

    #[test]
    fn distributions_lie_on_a_logarithmic_axis() {
        // 10 µs, 100 µs and 1 ms are as far from one another.
        let three = histogram(&[(10_000, 100), (100_000, 50), (1_000_000, 1)]);
        let drawn = bars(&three, 31, 2);
        let lines = text(&drawn);
        let columns: Vec<usize> =
            lines[1].chars().enumerate().filter(|(_, c)| *c != ' ').map(|(at, _)| at).collect();
        assert_eq!((columns.first(), columns.last()), (Some(&0), Some(&30)), "{lines:?}");
        assert!(columns.contains(&15), "the middle one in the middle: {lines:?}");
        assert!(lines[0].starts_with(['█', '▇']), "the most frequent is full: {lines:?}");
        assert_eq!(lines[2].chars().count(), 31);
        // Of 156 values the first 100 are the least ones.
        assert!(lines[2].starts_with("50────") && lines[2].contains("─90─99───"), "{lines:?}");
        assert_eq!(drawn.span, "10.0µs – 1.00ms");
        assert!(drawn.seconds.windows(2).all(|pair| pair[0] < pair[1]));
        assert!((drawn.seconds[15] / 1e-4 - 1.0).abs() < 0.1, "{:?}", drawn.seconds[15]);
    }

    #[test]
    fn any_distribution_in_any_room() {
        let samples = [
            histogram(&[(83_000, 1)]),
            histogram(&[(0, 5)]),
            histogram(&[(u64::MAX, 1)]),
            histogram(&[(0, 1), (u64::MAX, 1)]),
            histogram(&[(1, 1), (63, 1), (64, 1), (2_000_000_000, 7)]),
        ];
        for sample in samples {
            for (width, height) in [(0, 0), (1, 1), (3, 2), (39, 2), (200, 9)] {
                let drawn = bars(&sample, width, height);
                assert_eq!(drawn.rows.len(), height);
                assert!(drawn.rows.iter().all(|row| row.len() == width));
                assert_eq!((drawn.axis.chars().count(), drawn.seconds.len()), (width, width));
                let seen = drawn.rows.iter().flatten().any(|c| *c != ' ');
                assert!(seen || width == 0 || height == 0, "{sample:?} in {width}x{height}");
            }
        }
    }
}
