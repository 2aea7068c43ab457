//! The JSON that scripts outside rely on, field by field as it was promised. These names never change meaning; more may
//! come beside them.

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod answers;

use conmon::api::*;
use serde_json::{Value, json};

fn value<A: serde::Serialize>(answer: &A) -> Value {
    serde_json::to_value(answer).expect("serialisable")
}

/// Every field of `promised` is in `actual`, and of the same JSON type.
fn assert_holds(actual: &Value, promised: &Value, at: &str) {
    match (actual, promised) {
        (Value::Object(actual), Value::Object(promised)) => {
            for (name, promised) in promised {
                let actual = actual.get(name).unwrap_or_else(|| panic!("{at}.{name} is missing"));
                assert_holds(actual, promised, &format!("{at}.{name}"));
            }
        }
        (Value::Array(actual), Value::Array(promised)) => {
            let (Some(actual), Some(promised)) = (actual.first(), promised.first()) else {
                panic!("{at} is empty: it proves nothing")
            };
            assert_holds(actual, promised, &format!("{at}[0]"));
        }
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        _ => panic!("{at} is {actual}, not like {promised}"),
    }
}

#[test]
fn pairs() {
    let end =
        json!({"kind": "", "name": "", "id": "", "service": "", "tenant": "", "host": "", "addresses": [""]});
    let count = json!({"bytes": 0, "packets": 0, "segments": 0});
    let delay = json!({"min": 0, "p50": 0, "p90": 0, "p99": 0, "max": 0, "count": 0, "method": ""});
    let promised = json!({
        "generated_at": "", "hosts": [{"name": "", "complete": true}],
        "pairs": [{
            "src": end, "dst": end, "protocols": [""], "first_seen": "", "last_seen": "",
            "sent": count, "received": count, "retransmitted_segments": 0,
            "sent_retransmitted_segments": 0, "received_retransmitted_segments": 0, "reordered_segments": 0,
            "rtt_seconds": delay, "near_rtt_seconds": delay, "handshake_rtt_seconds": delay,
        }],
    });
    assert_holds(&value(&answers::pairs(60.0)), &promised, "pairs");
    let bucket = json!({"from_seconds": 0, "to_seconds": 0, "count": 0});
    let pair = answers::with_histograms(answers::pairs(60.0).pairs.swap_remove(0));
    assert_holds(&value(&pair), &json!({"rtt_seconds": {"buckets": [bucket]}}), "pair");
}

#[test]
fn status() {
    let promised = json!({"cost": {
        "hooks": [{"name": "", "runs": 0, "ns_per_run": 0.0}], "cpu_ratio": 0.0, "memory_bytes": 0,
        "kernel_memory_bytes": 0, "sampled_at": "",
    }, "speed": {"tapped_after_seconds": {"p50": 0, "p90": 0, "p99": 0, "max": 0, "count": 0}}});
    assert_holds(&value(&answers::status(60.0)), &promised, "status");
}

#[test]
fn doctor() {
    let promised = json!({
        "checks": [{"name": "", "ok": true, "detail": ""}],
        "ledger": {"observed": 0, "selected": 0, "not_selected": 0, "lost": {"malformed": 0}, "balanced": true},
    });
    let answer = value(&answers::doctor(false));
    assert_holds(&answer, &promised, "doctor");
    assert!(answer["checks"][1]["remedy"].is_string());
}

#[test]
fn containers() {
    let promised = json!({"containers": [{
        "name": "", "id": "", "tenant": "", "service": "", "state": "", "monitor": "",
        "networks": [{"name": "", "addresses": [""], "interface": "", "tapped_at": "", "link_up_at": ""}],
    }]});
    let answer = value(&answers::containers(60.0));
    assert_holds(&answer, &promised, "containers");
    assert!(answer["containers"][1]["note"].is_string());
}

#[test]
fn kinds_are_the_promised_words() {
    let words = [EndpointKind::Container, EndpointKind::Host, EndpointKind::External, EndpointKind::Dns];
    assert_eq!(words.map(|kind| value(&kind)), ["container", "host", "external", "dns"]);
    for kind in words.into_iter().chain([EndpointKind::Service, EndpointKind::Tenant]) {
        assert_eq!(value(&kind), kind.as_str());
    }
    for level in [Level::Container, Level::Service, Level::Host, Level::Tenant] {
        assert_eq!(value(&level), level.as_str());
    }
    for kind in EventKind::ALL {
        assert_eq!(value(&kind), kind.as_str());
    }
    for (number, word) in
        (1..).zip(["idle_timeout", "active_timeout", "end_detected", "forced_end", "lack_of_resources"])
    {
        let reason = EndReason::from_ipfix(number).expect("an IPFIX reason");
        assert_eq!((value(&reason), reason.as_str()), (json!(word), word));
    }
    assert_eq!((EndReason::from_ipfix(0), EndReason::from_ipfix(6)), (None, None));
}

/// Absent, not zero and not null: no answer of ours contains a null anywhere.
#[test]
fn what_was_not_measured_is_absent() {
    let answer = answers::pairs(60.0);
    let datagrams = value(&answer.pairs[5]);
    for name in [
        "rtt_seconds",
        "near_rtt_seconds",
        "handshake_rtt_seconds",
        "retransmitted_segments",
        "reordered_segments",
    ] {
        assert!(datagrams.get(name).is_none(), "{name}");
    }
    let external = value(&answer.pairs[4].dst);
    assert_eq!(external, json!({"kind": "external", "name": "external", "addresses": ["198.51.100.7"]}));
    let everything = [
        value(&answer),
        value(&answers::flows(60.0)),
        value(&answers::containers(60.0)),
        value(&answers::monitors(60.0)),
        value(&answers::measurements(60.0)),
        value(&answers::event(1, EventKind::PortTapped)),
        value(&answers::health()),
        value(&answers::ledger()),
        value(&answers::doctor(true)),
        value(&answers::status(60.0)),
    ];
    for answer in everything {
        assert!(!answer.to_string().contains("null"), "{answer}");
    }
}

#[test]
fn answers_come_back_as_they_were() {
    fn there_and_back<A: serde::Serialize + serde::de::DeserializeOwned + PartialEq>(answer: A) {
        let text = serde_json::to_string(&answer).expect("serialisable");
        assert!(serde_json::from_str::<A>(&text).expect("readable") == answer, "{text}");
    }
    there_and_back(answers::pairs(61.5));
    there_and_back(answers::flows(61.5));
    there_and_back(answers::containers(61.5));
    there_and_back(answers::monitors(61.5));
    there_and_back(answers::measurements(61.5));
    there_and_back(answers::event(7, EventKind::Dropped));
    there_and_back(answers::health());
    there_and_back(answers::ledger());
    there_and_back(answers::doctor(false));
    there_and_back(answers::status(61.5));
}

/// Clients of this version read answers of later ones.
#[test]
fn further_fields_are_welcome() {
    let mut answer = value(&answers::health());
    answer["mood"] = json!("good");
    assert_eq!(serde_json::from_value::<Health>(answer).expect("readable"), answers::health());
}

#[test]
fn times_are_rfc_3339_in_utc() {
    assert_eq!(value(&answers::after(0.25)), "2026-11-23T04:00:00.25Z");
}

#[test]
fn queries_refuse_what_they_do_not_know() {
    let query: PairsQuery = serde_urlencoded::from_str("src=web&level=tenant").expect("readable");
    assert_eq!((query.src.as_deref(), query.level), (Some("web"), Some(Level::Tenant)));
    assert!(serde_urlencoded::from_str::<PairsQuery>("source=web").is_err());
    assert!(serde_urlencoded::from_str::<PairsQuery>("level=planet").is_err());
    assert!(serde_urlencoded::from_str::<FlowsQuery>("limit=many").is_err());
    assert!(serde_urlencoded::from_str::<EventsQuery>("follow=perhaps").is_err());
}

#[test]
fn filters() {
    let answer = answers::pairs(60.0);
    let admitted =
        |query: PairsQuery| answer.pairs.iter().filter(|pair| query.admits(&pair.src, &pair.dst)).count();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(admitted(PairsQuery::default()), answer.pairs.len());
    assert_eq!(admitted(PairsQuery { src: text("lab-wrk-1"), ..PairsQuery::default() }), 3);
    assert_eq!(admitted(PairsQuery { dst: text("172.18.0.3"), ..PairsQuery::default() }), 2);
    assert_eq!(admitted(PairsQuery { src: text("0606"), ..PairsQuery::default() }), 3);
    assert_eq!(admitted(PairsQuery { src: text("060"), ..PairsQuery::default() }), 0, "too short for an id");
    assert_eq!(admitted(PairsQuery { src: text("lab-wrk"), ..PairsQuery::default() }), 0, "names are whole");
    assert_eq!(admitted(PairsQuery { tenant: text("lab"), ..PairsQuery::default() }), 3);

    let flows = answers::flows(60.0).flows;
    let admitted = |query: FlowsQuery| flows.iter().filter(|flow| query.admits(flow)).count();
    assert_eq!(admitted(FlowsQuery { state: Some(FlowState::Ended), ..FlowsQuery::default() }), 2);
    assert_eq!(admitted(FlowsQuery { protocol: text("udp"), ..FlowsQuery::default() }), 0);
    let at = |end| FlowsQuery { observed_at: Some(end), ..FlowsQuery::default() };
    assert_eq!((admitted(at(ObservedAt::Src)), admitted(at(ObservedAt::Dst))), (4, 0));

    let measurements = answers::measurements(60.0).measurements;
    let query = MeasurementsQuery { metric: text("rtt_seconds"), ..MeasurementsQuery::default() };
    assert_eq!(measurements.iter().filter(|measurement| query.admits(measurement)).count(), 1);

    let query = EventsQuery { kind: Some(EventKind::FlowBegun), tenant: text("none"), follow: None };
    assert!(!query.admits(&answers::event(1, EventKind::PortTapped)));
    assert!(query.admits(&answers::event(1, EventKind::Dropped)), "losses are always told");
}

#[test]
fn protocols_have_words_or_numbers() {
    assert_eq!([6, 17, 1, 58, 132].map(protocol_name), ["tcp", "udp", "icmp", "icmpv6", "sctp"]);
    assert_eq!(protocol_name(253), "ip-253");
}
