//! What a user reads, letter for letter. `INSTA_UPDATE=always cargo test -p conmon` rewrites the snapshots.

use insta::assert_snapshot;

use super::*;
use crate::answers;
use crate::look::Look;
use crate::look::tests::{PIPE, SMALL, WIDE};
use crate::order::Order;
use crate::tone::Tone;

const AGE: f64 = 300.0;

const BY_BYTES: Choice = Choice { all: false, sort: Order::Bytes, reverse: false, limit: None };
const ALL: Choice = Choice { all: true, ..BY_BYTES };

fn whole(view: View) -> String {
    let notes: String = view.notes.iter().map(|note| format!("note: {note}\n")).collect();
    view.text + &notes
}

#[test]
fn pairs_narrow() {
    assert_snapshot!(whole(pairs(&answers::pairs(AGE), PIPE, BY_BYTES)));
}

#[test]
fn pairs_wide_with_multicast() {
    assert_snapshot!(whole(pairs(&answers::pairs(AGE), WIDE, ALL)));
}

#[test]
fn pairs_are_sorted_by_bytes_whatever_the_answer() {
    let mut answer = answers::pairs(AGE);
    let before = pairs(&answer, PIPE, ALL);
    answer.pairs.reverse();
    let after = pairs(&answer, PIPE, ALL);
    let first = |view: &View| view.text.lines().nth(1).map(str::to_owned);
    assert_eq!(first(&before), first(&after));
    assert!(first(&after).is_some_and(|line| line.starts_with("lab-wrk-1  ")), "{after:?}");
}

#[test]
fn no_pairs_and_a_host_that_did_not_answer() {
    let mut answer = answers::pairs(AGE);
    answer.pairs.clear();
    answer.hosts[0].complete = false;
    let view = pairs(&answer, PIPE, BY_BYTES);
    assert_eq!(view.text.lines().count(), 1, "the headings stay");
    assert_eq!(
        view.notes,
        ["no pairs yet: no container has sent a packet", "incomplete: lab1 did not answer in full"]
    );
}

#[test]
fn hidden_rows_are_told_of() {
    let mut answer = answers::pairs(AGE);
    assert_eq!(
        pairs(&answer, PIPE, BY_BYTES).notes,
        ["2 rows of multicast and link-local traffic hidden; --all shows them"]
    );
    assert!(pairs(&answer, PIPE, ALL).notes.is_empty());
    answer.pairs.retain(|pair| pair.dst.is_multicast());
    answer.pairs.truncate(1);
    assert_eq!(
        pairs(&answer, PIPE, BY_BYTES).notes,
        ["1 row of multicast and link-local traffic hidden; --all shows them"]
    );
}

#[test]
fn flows_narrow() {
    assert_snapshot!(whole(flows(&answers::flows(AGE), PIPE, false)));
}

#[test]
fn flows_wide() {
    assert_snapshot!(whole(flows(&answers::flows(AGE), WIDE, false)));
}

#[test]
fn containers_narrow() {
    assert_snapshot!(whole(containers(&answers::containers(AGE), PIPE)));
}

#[test]
fn containers_wide() {
    assert_snapshot!(whole(containers(&answers::containers(AGE), WIDE)));
}

#[test]
fn clocks_of_other_hosts() {
    assert_snapshot!(whole(clocks(&answers::clocks(), PIPE)));
    assert_snapshot!(whole(clocks(&answers::clocks(), WIDE)));
    let none = conmon::api::ClocksAnswer { clocks: Vec::new(), ..answers::clocks() };
    assert!(whole(clocks(&none, PIPE)).contains("no other host's clock"));
}

#[test]
fn monitors_narrow() {
    assert_snapshot!(whole(monitors(&answers::monitors(AGE), PIPE)));
}

#[test]
fn measurements_wide() {
    assert_snapshot!(whole(measurements(&answers::measurements(AGE), WIDE)));
}

#[test]
fn ledger_wide() {
    assert_snapshot!(whole(ledger(&answers::ledger(), WIDE)));
}

#[test]
fn doctor_ill() {
    assert_snapshot!(whole(doctor(&answers::doctor(false), PIPE)));
}

#[test]
fn status_narrow() {
    let mut answer = answers::status(AGE);
    answer.problems = vec!["pool is empty: the engine does not start containers".to_owned()];
    assert_snapshot!(whole(status(&answer, PIPE, answers::after(AGE))));
}

#[test]
fn without_a_port_nothing_is_attached_by_anything() {
    let mut answer = answers::status(AGE);
    answer.attachment = String::new();
    answer.counts.ports = 0;
    let text = whole(status(&answer, PIPE, answers::after(AGE)));
    assert!(text.contains(", 0 ports, 9 pairs"), "{text}");
}

#[test]
fn events_narrow_and_wide() {
    let mut dropped = answers::event(9, conmon::api::EventKind::Dropped);
    dropped.text = "this reader was too slow\u{1b}[2J".to_owned();
    dropped.dropped = Some(17);
    dropped.after_seconds = None;
    let tapped = answers::event(3, conmon::api::EventKind::PortTapped);
    assert_snapshot!([event(&tapped, PIPE), event(&tapped, WIDE), event(&dropped, PIPE)].join("\n"));
}

/// What people with a terminal of 80 columns see: every line fits, and says who and how much.
#[test]
fn tables_fit_80_columns() {
    let tables = [
        whole_text(pairs(&answers::pairs(AGE), SMALL, BY_BYTES)),
        whole_text(flows(&answers::flows(AGE), SMALL, false)),
        whole_text(containers(&answers::containers(AGE), SMALL)),
        whole_text(monitors(&answers::monitors(AGE), SMALL)),
        whole_text(measurements(&answers::measurements(AGE), SMALL)),
        whole_text(ledger(&answers::ledger(), SMALL)),
        whole_text(doctor(&answers::doctor(false), SMALL)),
        whole_text(status(&answers::status(AGE), SMALL, answers::after(AGE))),
    ];
    for table in &tables {
        for line in table.lines() {
            assert!(unicode_width::UnicodeWidthStr::width(line) <= 80, "{line}");
        }
    }
    assert_snapshot!(tables.join("\n"));
}

fn whole_text(view: View) -> String {
    view.text
}

#[test]
fn the_column_sorted_by_is_shown_however_narrow() {
    for (sort, heading) in [
        (Order::Rtt99, "RTT99"),
        (Order::Retr, "RETR"),
        (Order::Rate, "OUT/s"),
        (Order::In, "IN/s"),
        (Order::Seen, "SEEN"),
        (Order::Bytes, "RECV"),
    ] {
        let view =
            pairs(&answers::pairs(AGE), Look { width: Some(44), ..SMALL }, Choice { sort, ..BY_BYTES });
        let headings = view.text.lines().next().unwrap_or_default().to_owned();
        assert!(headings.contains(heading), "{sort:?}: {headings}");
    }
}

#[test]
fn pairs_are_ordered_and_cut_as_asked() {
    let choice = Choice { sort: Order::Rtt50, limit: Some(2), ..BY_BYTES };
    let names = |view: &View| -> Vec<String> {
        view.text
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
            .collect()
    };
    let slowest = pairs(&answers::pairs(AGE), PIPE, choice);
    assert_eq!(names(&slowest), ["lab-wrk-1 external", "shop-nginx-1 shop-postgres-1"]);
    assert_eq!(slowest.notes[0], "5 more pairs; --limit shows them");
    let fastest = pairs(&answers::pairs(AGE), PIPE, Choice { reverse: true, ..choice });
    assert_eq!(names(&fastest)[0], "shop-redis-benchmark-1 shop-redis-1");

    let mut answer = answers::pairs(AGE);
    choice.apply(&mut answer.pairs);
    assert_eq!(answer.pairs.len(), 2, "JSON is ordered and cut, too");
    assert_eq!(answer.pairs[0].dst.name, "external");
}

#[test]
fn colours_tell_slow_lossy_and_failed() {
    let look = Look { color: true, ..PIPE };
    let mut answer = answers::pairs(AGE);
    answer.pairs.truncate(2);
    let rtt = answer.pairs[0].rtt_seconds.as_mut().expect("measured");
    (rtt.p50, rtt.p99) = (0.06, 0.3);
    answer.pairs[1].retransmitted_segments = Some(judge::segments(&answer.pairs[1]) / 50);
    let text = pairs(&answer, look, BY_BYTES).text;
    assert!(text.contains(&Tone::Warn.paint("60.0ms", true)), "{text}");
    assert!(text.contains(&Tone::Bad.paint("300ms", true)), "{text}");
    assert!(text.contains(&Tone::Bad.paint("98.4k", true)) || text.contains("\u{1b}[1;31m"), "{text}");
    let ill = doctor(&answers::doctor(false), look).text;
    assert!(
        ill.contains(&Tone::Bad.paint("FAIL", true)) && ill.contains(&Tone::Good.paint("ok  ", true)),
        "{ill}"
    );
    for text in [text, ill] {
        let plain = text.split("\u{1b}[").skip(1).all(|part| part.contains('m'));
        assert!(plain, "{text:?}");
    }
}

#[test]
fn a_flow_that_two_ports_counted_is_one_row() {
    let mut answer = answers::flows(AGE);
    let mut again = answer.flows[0].clone();
    again.observed_at = conmon::api::ObservedAt::Dst;
    let mut later = again.clone();
    (later.first_seen, later.last_seen) = (answers::after(AGE + 50.0), answers::after(AGE + 60.0));
    let mut other = again.clone();
    other.src_port = Some(41_000);
    answer.flows.extend([again, later, other]);
    let rows = |all| {
        let view = flows(&answer, PIPE, all);
        (view.text.lines().count() - 1, view.notes[0].clone())
    };
    let note = "1 second record of flows that both ends' ports counted hidden; --all shows them";
    assert_eq!(rows(false), (6, note.to_owned()), "the same port number later is another flow");
    assert_eq!(rows(true), (7, "5 more flows; --limit shows them".to_owned()));
}
