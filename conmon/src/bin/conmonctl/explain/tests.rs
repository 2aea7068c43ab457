//! The words, letter for letter. `INSTA_UPDATE=always cargo test -p conmon` rewrites the snapshots.

use conmon::api::{EndpointKind, FlowsAnswer, ObservedAt, Pair};
use insta::assert_snapshot;

use super::Explanation;
use super::words::explain;
use crate::answers;
use crate::look::Look;
use crate::look::tests::{PIPE, SMALL};
use crate::tone::Tone;

const AGE: f64 = 300.0;

/// What the daemon would answer of one of the made-up pairs.
fn explanation(at: usize) -> Explanation {
    let answer = answers::pairs(AGE);
    let pair = answer.pairs[at].clone();
    let mut flows = answers::flows(AGE);
    if at != 0 {
        flows = FlowsAnswer { matched: 0, flows: Vec::new(), ..flows };
    }
    let is_end = |id: &str| [&pair.src, &pair.dst].iter().any(|end| end.id.as_deref() == Some(id));
    Explanation {
        generated_at: answer.generated_at,
        rate_interval_seconds: answer.rate_interval_seconds,
        hosts: answer.hosts,
        opposite: None,
        containers: answers::containers(AGE).containers.into_iter().filter(|one| is_end(&one.id)).collect(),
        flows,
        pair,
    }
}

fn text(of: &Explanation) -> String {
    explain(of, PIPE).text
}

/// Without the line ends, so that sentences can be looked for.
fn sentences(of: &Explanation) -> String {
    text(of).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_tcp_pair() {
    assert_snapshot!(text(&explanation(0)));
}

#[test]
fn a_datagram_pair_says_why_it_has_no_delay() {
    assert_snapshot!(text(&explanation(6)));
}

#[test]
fn every_line_fits_and_the_words_are_the_same_in_every_width() {
    let words = |width| {
        let text = explain(&explanation(0), Look { width: Some(width), ..SMALL }).text;
        for line in text.lines() {
            let command = line.contains('`');
            let length = unicode_width::UnicodeWidthStr::width(line);
            assert!(length <= width.clamp(32, 100) || command || width < 50, "{width}: {line}");
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for width in [1, 40, 60, 79, 80, 100, 200] {
        assert_eq!(words(width), words(80), "{width}");
    }
}

#[test]
fn guesses_are_called_guesses() {
    let mut of = explanation(0);
    assert!(sentences(&of).contains("Opened by lab-wrk-1: the conversation's first packets were seen."));
    of.pair.role_guessed = true;
    let said = sentences(&of);
    assert!(
        said.contains("Opened by Probably lab-wrk-1") && said.contains("It may be the other way round."),
        "{said}"
    );
    assert!(said.contains("- Who opened it, for certain"), "{said}");
}

#[test]
fn the_other_direction_is_pointed_at() {
    let mut of = explanation(0);
    let mut opposite = of.pair.clone();
    std::mem::swap(&mut opposite.src, &mut opposite.dst);
    of.opposite = Some(opposite);
    let said = sentences(&of);
    assert!(said.contains("these are the pair shop-nginx-1 → lab-wrk-1"), "{said}");
    assert!(said.contains("`conmonctl explain shop-nginx-1 lab-wrk-1`: the other way"), "{said}");
}

/// At dst's port the long way is the one to src.
#[test]
fn legs_follow_the_port_that_counted() {
    let mut of = explanation(4);
    std::mem::swap(&mut of.pair.src, &mut of.pair.dst);
    of.pair.observed_at = ObservedAt::Dst;
    let said = sentences(&of);
    assert!(
        said.contains("Away leg, lab-wrk-1's port over the network to external and back: median 6.07 ms"),
        "{said}"
    );
    assert!(said.contains("Near leg, the port to lab-wrk-1's own stack and back: median 18.2 ms"), "{said}");
    assert!(said.contains("Counted at lab-wrk-1's port"), "{said}");
    assert!(said.contains("Who external is: the address is no container's here."), "{said}");
}

#[test]
fn what_is_not_known_depends_on_the_pair() {
    let unknown = |change: &dyn Fn(&mut Explanation)| {
        let mut of = explanation(0);
        change(&mut of);
        sentences(&of).split_once("Not known ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
    };
    let none = |pair: &mut Pair| {
        (pair.rtt_seconds, pair.near_rtt_seconds) = (None, None);
        (pair.handshake_rtt_seconds, pair.near_handshake_rtt_seconds) = (None, None);
    };
    assert!(
        unknown(&|of| none(&mut of.pair)).contains("no TCP data was acknowledged while the tap was there")
    );
    assert!(
        unknown(&|of| of.pair.rtt_seconds = None)
            .contains("shop-nginx-1 has acknowledged no data of lab-wrk-1")
    );
    assert!(
        unknown(&|of| of.pair.near_rtt_seconds = None)
            .contains("The near leg: lab-wrk-1 has acknowledged no data")
    );
    assert!(unknown(&|of| of.pair.sent_bytes_per_second = None).contains("they need two readings"));
    assert!(unknown(&|of| of.hosts[0].complete = false).contains("host lab1 did not answer in full"));
    let mixed = unknown(&|of| of.pair.protocols.push("icmpv6".to_owned()));
    assert!(mixed.contains("Delay and retransmission of what is not TCP (icmpv6)"), "{mixed}");
    let usual = unknown(&|_| {});
    assert!(!usual.contains("readings") && !usual.contains("acknowledged"), "{usual}");
}

#[test]
fn where_it_was_seen_and_since_when() {
    let mut of = explanation(0);
    let said = sentences(&of);
    assert!(said.contains("and not a second time at shop-nginx-1's. Read by the monitoring container conmon-default-pm-lab. The tap was in place before the link came up"), "{said}");
    of.containers[0].networks[0].link_up_at = None;
    of.containers[0].monitor = None;
    let said = sentences(&of);
    assert!(said.contains("Read by conmond itself"), "{said}");
    assert!(
        said.contains("The tap is there since 2026-11-23 04:00:01 UTC; what passed before is not counted."),
        "{said}"
    );
    of.containers.clear();
    let said = sentences(&of);
    assert!(
        said.contains("Counted at lab-wrk-1's port, both directions. The container has gone, or"),
        "{said}"
    );
}

#[test]
fn loss_is_not_claimed_and_many_retransmissions_are_red() {
    let mut of = explanation(0);
    let said = sentences(&of);
    assert!(said.contains("4 of 43.2 M segments (<0.1 %): 4 by lab-wrk-1, 0 by shop-nginx-1."), "{said}");
    assert!(said.contains("That is not loss"), "{said}");
    of.pair.retransmitted_segments = Some(9_000_000);
    let coloured = explain(&of, Look { color: true, ..PIPE }).text;
    let red = coloured.lines().filter(|line| line.contains("\u{1b}[1;31m")).count();
    assert!(red >= 2, "{coloured}");
    assert!(sentences(&of).contains("`conmonctl pairs --sort retr`"));
    of.pair.retransmitted_segments = Some(0);
    assert!(sentences(&of).contains("No TCP segment was sent again."));
    of.pair.retransmitted_segments = None;
    assert!(!sentences(&of).contains("Sent again"));
}

#[test]
fn names_of_others_cannot_steer_the_terminal() {
    let mut of = explanation(0);
    of.pair.src.name = "evil\u{1b}[2J\u{202e}".to_owned();
    of.pair.dst.kind = EndpointKind::External;
    of.pair.protocols = vec!["t\u{1b}cp".to_owned()];
    of.containers[0].monitor = Some("m\u{7}".to_owned());
    let said = text(&of);
    assert!(said.contains("evil\u{fffd}[2J\u{fffd}"), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{said:?}");
}

#[test]
fn the_error_bound_is_the_one_that_holds() {
    let mut of = explanation(0);
    assert!(sentences(&of).contains("Percentiles are within ±3.1 % (half a bucket), extremes exact."));
    of.pair.near_rtt_seconds.as_mut().expect("measured").min = 640e-9;
    assert!(sentences(&of).contains("within ±3.1 %, below 1 µs within 32 ns (half a bucket)"));
}

#[test]
fn methods_that_are_not_known_are_not_made_up() {
    let mut of = explanation(0);
    for summary in [
        &mut of.pair.rtt_seconds,
        &mut of.pair.near_rtt_seconds,
        &mut of.pair.handshake_rtt_seconds,
        &mut of.pair.near_handshake_rtt_seconds,
    ] {
        let summary = summary.as_mut().expect("measured");
        summary.method = "active_stamp".to_owned();
        summary.relative_error_ratio = None;
    }
    let said = sentences(&of);
    assert!(
        said.contains(
            "docs/metrics.md has the definition. No error bound is stated. In the API: active_stamp."
        ),
        "{said}"
    );
    assert!(!said.contains("nothing is sent"), "{said}");
}

#[test]
fn colours_are_few() {
    let text = explain(&explanation(0), Look { color: true, ..SMALL }).text;
    assert!(text.starts_with(&Tone::Strong.paint("lab-wrk-1 → shop-nginx-1", true)));
    assert!(text.contains(&Tone::Strong.paint("Who         ", true)));
}
