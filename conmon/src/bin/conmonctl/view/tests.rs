//! What a user reads, letter for letter. `INSTA_UPDATE=always cargo test -p conmon` rewrites the snapshots.

use insta::assert_snapshot;

use super::*;
use crate::answers;

const AGE: f64 = 300.0;

fn whole(view: View) -> String {
    let notes: String = view.notes.iter().map(|note| format!("note: {note}\n")).collect();
    view.text + &notes
}

#[test]
fn pairs_narrow() {
    assert_snapshot!(whole(pairs(&answers::pairs(AGE), false, false)));
}

#[test]
fn pairs_wide_with_multicast() {
    assert_snapshot!(whole(pairs(&answers::pairs(AGE), true, true)));
}

#[test]
fn pairs_are_sorted_by_bytes_whatever_the_answer() {
    let mut answer = answers::pairs(AGE);
    let before = pairs(&answer, false, true);
    answer.pairs.reverse();
    let after = pairs(&answer, false, true);
    let first = |view: &View| view.text.lines().nth(1).map(str::to_owned);
    assert_eq!(first(&before), first(&after));
    assert!(first(&after).is_some_and(|line| line.starts_with("lab-wrk-1  ")), "{after:?}");
}

#[test]
fn no_pairs_and_a_host_that_did_not_answer() {
    let mut answer = answers::pairs(AGE);
    answer.pairs.clear();
    answer.hosts[0].complete = false;
    let view = pairs(&answer, false, false);
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
        pairs(&answer, false, false).notes,
        ["2 rows of multicast and link-local traffic hidden; --all shows them"]
    );
    assert!(pairs(&answer, false, true).notes.is_empty());
    answer.pairs.retain(|pair| pair.dst.is_multicast());
    answer.pairs.truncate(1);
    assert_eq!(
        pairs(&answer, false, false).notes,
        ["1 row of multicast and link-local traffic hidden; --all shows them"]
    );
}

#[test]
fn flows_narrow() {
    assert_snapshot!(whole(flows(&answers::flows(AGE), false, false)));
}

#[test]
fn flows_wide() {
    assert_snapshot!(whole(flows(&answers::flows(AGE), true, false)));
}

#[test]
fn containers_narrow() {
    assert_snapshot!(whole(containers(&answers::containers(AGE), false)));
}

#[test]
fn containers_wide() {
    assert_snapshot!(whole(containers(&answers::containers(AGE), true)));
}

#[test]
fn monitors_narrow() {
    assert_snapshot!(whole(monitors(&answers::monitors(AGE), false)));
}

#[test]
fn measurements_wide() {
    assert_snapshot!(whole(measurements(&answers::measurements(AGE), true)));
}

#[test]
fn ledger_wide() {
    assert_snapshot!(whole(ledger(&answers::ledger(), true)));
}

#[test]
fn doctor_ill() {
    assert_snapshot!(whole(doctor(&answers::doctor(false), false)));
}

#[test]
fn status_narrow() {
    let mut answer = answers::status(AGE);
    answer.problems = vec!["pool is empty: the engine does not start containers".to_owned()];
    assert_snapshot!(whole(status(&answer, false, answers::after(AGE))));
}

#[test]
fn events_narrow_and_wide() {
    let mut dropped = answers::event(9, conmon::api::EventKind::Dropped);
    dropped.text = "this reader was too slow\u{1b}[2J".to_owned();
    dropped.dropped = Some(17);
    dropped.after_seconds = None;
    let tapped = answers::event(3, conmon::api::EventKind::PortTapped);
    assert_snapshot!([event(&tapped, false), event(&tapped, true), event(&dropped, false)].join("\n"));
}
