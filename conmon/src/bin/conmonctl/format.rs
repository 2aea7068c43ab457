//! Numbers and names for people: short, three significant digits, units. JSON never passes through here.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands where nothing was measured.
pub const ABSENT: &str = "-";

/// Scales by thousands: the number's text and the prefix.
fn scaled(value: f64) -> (String, &'static str) {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut value = value.max(0.0);
    let mut prefix = 0;
    // 999.95 would be shown as 1000.
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    let text = if value >= 99.95 || (prefix == 0 && value.fract() == 0.0) {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    };
    (text, PREFIXES[prefix])
}

/// `12.3 MB`
pub fn bytes(value: u64) -> String {
    let (number, prefix) = scaled(value as f64);
    format!("{number} {prefix}B")
}

/// `12.3 MB/s`
pub fn byte_rate(value: f64) -> String {
    let (number, prefix) = scaled(value);
    format!("{number} {prefix}B/s")
}

/// `4.1 k/s`
pub fn rate(value: f64) -> String {
    let (number, prefix) = scaled(value);
    if prefix.is_empty() { format!("{number}/s") } else { format!("{number} {prefix}/s") }
}

/// `4.1 k packets/s`, with the usual short word.
pub fn packet_rate(value: f64) -> String {
    let (number, prefix) = scaled(value);
    if prefix.is_empty() { format!("{number} pkt/s") } else { format!("{number} {prefix}pkt/s") }
}

/// `4.1 k`; exact below a thousand.
pub fn count(value: u64) -> String {
    let (number, prefix) = scaled(value as f64);
    if prefix.is_empty() { number } else { format!("{number} {prefix}") }
}

/// `4.1k`: for narrow columns.
pub fn compact(value: f64) -> String {
    let (number, prefix) = scaled(value);
    format!("{number}{prefix}")
}

/// A delay in seconds as `640 ns`, `83.1 µs`, `1.24 ms`, `3.20 s`.
pub fn delay(seconds: f64) -> String {
    let (number, unit) = delay_parts(seconds);
    format!("{number} {unit}")
}

/// The same without the space, for narrow columns: `83µs`.
pub fn compact_delay(seconds: f64) -> String {
    let (number, unit) = delay_parts(seconds);
    format!("{number}{unit}")
}

fn delay_parts(seconds: f64) -> (String, &'static str) {
    let ns = seconds.max(0.0) * 1e9;
    let (value, unit) = match ns {
        _ if ns < 999.5 => return (format!("{ns:.0}"), "ns"),
        _ if ns < 999.5e3 => (ns / 1e3, "µs"),
        _ if ns < 999.5e6 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let number = match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    (number, unit)
}

/// A quantity as one word, for tables: `12.3MB`, `83.1µs`, `4.1k/s`.
pub fn tight(quantity: String) -> String {
    if quantity.contains(' ') { quantity.replace(' ', "") } else { quantity }
}

/// A span of time as one number: `now`, `5s`, `12m`, `3h`, `9d`.
pub fn age(seconds: f64) -> String {
    match seconds {
        _ if seconds < 1.0 => "now".to_owned(),
        _ if seconds < 60.0 => format!("{}s", seconds as u64),
        _ if seconds < 3600.0 => format!("{}m", (seconds / 60.0) as u64),
        _ if seconds < 86400.0 => format!("{}h", (seconds / 3600.0) as u64),
        _ => format!("{}d", (seconds / 86400.0) as u64),
    }
}

/// The age of `then`, seen from `now`. A time still to come counts as now: clocks step.
pub fn since(then: jiff::Timestamp, now: jiff::Timestamp) -> String {
    age(now.duration_since(then).as_secs_f64())
}

/// A time to the millisecond, UTC.
pub fn time(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

/// A time to the second, in words that people use: `2026-11-23 04:00:00 UTC`
pub fn moment(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// What part of the whole something is: `2.0 %`, `<0.1 %`. Nothing of nothing is nothing.
pub fn share(part: u64, whole: u64) -> String {
    match part as f64 / whole.max(1) as f64 {
        _ if part == 0 => "none".to_owned(),
        ratio if ratio < 0.001 => "<0.1 %".to_owned(),
        ratio => percent(ratio),
    }
}

/// `1.2 %`
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent >= 99.95 || percent == 0.0 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

/// `1 pair`, `2 pairs`
pub fn counted(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// Text that others chose (names, labels, error messages), made harmless for a terminal: escape sequences and the
/// characters that reverse the writing direction are replaced.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.contains(harmful) { Cow::Owned(text.replace(harmful, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Cuts text in its middle to fit a column: containers' names differ at both ends (`shop-web-1`, `shop-web-2`).
pub fn fit(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let Some(room) = width.checked_sub(1) else { return Cow::Borrowed("") };
    let head = take(text.chars(), room - room / 2);
    let tail: String = take(text.chars().rev(), room / 2).chars().rev().collect();
    Cow::Owned(format!("{head}…{tail}"))
}

fn take(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_three_digits_and_never_a_thousand() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(bytes(999_949), "1.0 MB");
        assert_eq!(bytes(999_400), "999 kB");
        assert_eq!(bytes(u64::MAX), "18447 PB");
        assert_eq!(byte_rate(0.25), "0.2 B/s");
        assert_eq!(rate(4096.0), "4.1 k/s");
        assert_eq!(rate(12.0), "12/s");
        assert_eq!(count(999), "999");
        assert_eq!(compact(1_234_567.0), "1.2M");
        assert_eq!(compact(-1.0), "0");
    }

    #[test]
    fn delays_span_nanoseconds_to_seconds() {
        assert_eq!(delay(0.0), "0 ns");
        assert_eq!(delay(640e-9), "640 ns");
        assert_eq!(delay(999.9e-9), "1.00 µs");
        assert_eq!(delay(83.14e-6), "83.1 µs");
        assert_eq!(delay(1.236e-3), "1.24 ms");
        assert_eq!(compact_delay(250e-3), "250ms");
        assert_eq!(delay(3.2), "3.20 s");
    }

    #[test]
    fn shares() {
        assert_eq!(
            [share(0, 0), share(0, 9), share(4, 45_000_000), share(1, 50)].join("; "),
            "none; none; <0.1 %; 2.0 %"
        );
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(tight(bytes(12_345_678)), "12.3MB");
        assert_eq!(moment("2026-11-23T04:00:00.7Z".parse().expect("a time")), "2026-11-23 04:00:00 UTC");
    }

    #[test]
    fn ages() {
        let texts: Vec<String> = [-5.0, 0.4, 59.9, 61.0, 7200.0, 1e6].into_iter().map(age).collect();
        assert_eq!(texts, ["now", "now", "59s", "1m", "2h", "11d"]);
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(harmless("web-1"), "web-1");
        assert_eq!(harmless("a\u{1b}[2Jb\nc\u{202e}d\u{9b}"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}");
    }

    #[test]
    fn names_keep_both_ends() {
        assert_eq!(fit("shop-web-1", 10), "shop-web-1");
        assert_eq!(fit("shop-postgres-1", 11), "shop-…res-1");
        assert_eq!(fit("容器容器容器", 7), "容…器");
        assert_eq!(fit("abc", 1), "…");
        assert_eq!(fit("abc", 0), "");
    }
}
