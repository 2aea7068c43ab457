//! The whole system: who sends how much to whom, as a heat map; and both ends' counters side by side.

use std::collections::BTreeMap;

use conmon::api::{Endpoint, HostView, MatrixAnswer, MatrixHost, MatrixPair};
use unicode_width::UnicodeWidthStr;

use super::{View, endpoint, list};
use crate::format::{bytes, count, fit, harmless, tight};
use crate::look::Look;
use crate::table::{Cell, Column, NEEDED, Table, left, right};

/// Shades from little to much; each stands for ten times as much as the one before.
const SHADES: [&str; 5] = ["·", "░", "▒", "▓", "█"];
/// Senders and receivers shown, those with most bytes.
const MOST: usize = 40;
/// Width of a terminal that does not tell.
const WIDTH: usize = 100;
/// Longest name of a sender.
const NAME: usize = 28;

/// The matrix.
pub fn matrix(answer: &MatrixAnswer, look: Look) -> View {
    let text = if look.wide { rows(answer, look) } else { heat(answer, look) };
    let empty = answer.pairs.is_empty().then(|| "no pairs yet: no container has sent a packet".to_owned());
    let mut view = View::new(text).with_note(empty).with_note(hosts(&answer.hosts));
    for host in answer.hosts.iter().filter(|host| !host.complete) {
        let why = host.problem.as_deref().unwrap_or("not all of it is in the answer");
        view = view.with_note(Some(format!("{}: {}", harmless(&host.name), harmless(why))));
    }
    view
}

fn hosts(hosts: &[MatrixHost]) -> Option<String> {
    let complete = hosts.iter().filter(|host| host.complete).count();
    let of = if hosts.len() == 1 { "host" } else { "hosts" };
    (hosts.len() > 1).then(|| format!("{complete} of {} {of} answered in full", hosts.len()))
}

/// A name that tells containers of one name on several hosts apart.
fn place(end: &Endpoint) -> String {
    match &end.host {
        Some(host) if *host != end.name => format!("{}@{host}", endpoint(end)),
        _ => endpoint(end),
    }
}

/// Every pair in a row, with what each end's host counted.
fn rows(answer: &MatrixAnswer, look: Look) -> String {
    let columns: Vec<Column> = vec![
        left("SRC").name(),
        left("DST").name(),
        left("PROTO"),
        right("SENT").keep(NEEDED),
        right("RECV").keep(NEEDED),
        right("SENT PKT AT SRC"),
        right("SENT PKT AT DST"),
        right("RECV PKT AT SRC"),
        right("RECV PKT AT DST"),
        left("VIA"),
    ];
    let mut table = Table::new(columns);
    for row in &answer.pairs {
        let at = |view: &Option<HostView>, pick: fn(&HostView) -> u64| -> Cell {
            view.as_ref().map_or_else(|| "-".to_owned(), |view| tight(count(pick(view)))).into()
        };
        let (src, dst) = (&row.views.src, &row.views.dst);
        table.row(vec![
            place(&row.pair.src).into(),
            place(&row.pair.dst).into(),
            list(&row.pair.protocols).into(),
            tight(bytes(row.pair.sent.bytes)).into(),
            tight(bytes(row.pair.received.bytes)).into(),
            at(src, |v| v.sent.packets),
            at(dst, |v| v.sent.packets),
            at(src, |v| v.received.packets),
            at(dst, |v| v.received.packets),
            list(&row.pair.via).into(),
        ]);
    }
    table.render(look)
}

/// Bytes by sender and receiver, both ways of each pair.
fn flows(pairs: &[MatrixPair]) -> BTreeMap<(String, String), u64> {
    let mut all: BTreeMap<(String, String), u64> = BTreeMap::new();
    for MatrixPair { pair, .. } in pairs {
        let (src, dst) = (place(&pair.src), place(&pair.dst));
        *all.entry((src.clone(), dst.clone())).or_default() += pair.sent.bytes;
        *all.entry((dst, src)).or_default() += pair.received.bytes;
    }
    all
}

/// Names by bytes, most first.
fn ranked<'a>(all: impl Iterator<Item = (&'a String, u64)>) -> Vec<String> {
    let mut sums: BTreeMap<&String, u64> = BTreeMap::new();
    for (name, bytes) in all {
        let sum = sums.entry(name).or_default();
        *sum = sum.saturating_add(bytes);
    }
    let mut names: Vec<(&String, u64)> = sums.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    names.into_iter().map(|(name, _)| name.clone()).collect()
}

/// The shade of a cell beside the largest one.
fn shade(bytes: u64, most: u64) -> &'static str {
    if bytes == 0 {
        return " ";
    }
    let below = (most.max(1) as f64 / bytes as f64).log10().floor();
    let steps = (SHADES.len() - 1) as f64;
    SHADES[(steps - below.clamp(0.0, steps)) as usize]
}

fn heat(answer: &MatrixAnswer, look: Look) -> String {
    let all = flows(&answer.pairs);
    if all.is_empty() {
        return String::new();
    }
    let senders = ranked(all.iter().map(|((from, _), bytes)| (from, *bytes)));
    let receivers = ranked(all.iter().map(|((_, to), bytes)| (to, *bytes)));
    let name = senders.iter().map(|name| name.width()).max().unwrap_or(0).clamp(4, NAME);
    let room = look.width.unwrap_or(WIDTH).saturating_sub(name + 12) / 3;
    let columns = receivers.len().min(room.max(1)).min(MOST);
    let most = all.values().copied().max().unwrap_or(0);
    let mut text = format!("{:<name$}  ", "FROM");
    for column in 1..=columns {
        text.push_str(&format!("{column:>2} "));
    }
    text.push_str("     SENT\n");
    for sender in senders.iter().take(MOST) {
        let sender_text = harmless(sender);
        let shown = fit(&sender_text, name);
        text.push_str(&shown);
        text.push_str(&" ".repeat(name.saturating_sub(shown.width()) + 2));
        let to = |receiver: &String| all.get(&(sender.clone(), receiver.clone())).copied().unwrap_or(0);
        for receiver in receivers.iter().take(columns) {
            let shade = shade(to(receiver), most);
            text.push_str(&format!("{shade}{shade} "));
        }
        let sum = receivers.iter().map(to).fold(0, u64::saturating_add);
        text.push_str(&format!("{:>9}\n", tight(bytes(sum))));
    }
    if senders.len() > MOST {
        text.push_str(&format!("and {} more senders\n", senders.len() - MOST));
    }
    text.push_str("\nTO\n");
    for (column, receiver) in receivers.iter().take(columns).enumerate() {
        text.push_str(&format!("{:>2}  {}\n", column + 1, harmless(receiver)));
    }
    if receivers.len() > columns {
        text.push_str(&format!(
            "and {} more receivers; a wider terminal shows them\n",
            receivers.len() - columns
        ));
    }
    let scale: Vec<String> = (0..SHADES.len())
        .rev()
        .map(|step| {
            let least = most as f64 / 10f64.powi((SHADES.len() - step) as i32);
            format!(
                "{} {}",
                SHADES[step],
                if step == 0 { "less".to_owned() } else { format!("from {}", tight(bytes(least as u64))) }
            )
        })
        .collect();
    text.push_str(&format!("\n{}\n", scale.join("   ")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_less_is_a_shade_less() {
        let shades: Vec<&str> = [1000, 101, 100, 11, 10, 2, 1, 0].iter().map(|b| shade(*b, 1000)).collect();
        assert_eq!(shades, ["█", "█", "▓", "▓", "▒", "▒", "░", " "]);
        assert_eq!(shade(1, u64::MAX), "·");
    }

    #[test]
    fn names_come_by_their_bytes() {
        let (a, b, c) = ("a".to_owned(), "b".to_owned(), "c".to_owned());
        assert_eq!(ranked([(&a, 1), (&b, 5), (&a, 5), (&c, 0)].into_iter()), ["a", "b"]);
    }
}
