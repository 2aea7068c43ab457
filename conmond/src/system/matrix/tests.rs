use conmon::api::{Endpoint, HostAnswer, Pair, PairsAnswer};

use super::*;
use crate::store::at_level as level_of;

/// What a host answers.
fn answer(host: &str, pairs: Vec<Pair>) -> PairsAnswer {
    PairsAnswer {
        generated_at: jiff::Timestamp::UNIX_EPOCH,
        hosts: vec![HostAnswer { name: host.to_owned(), complete: true }],
        rate_interval_seconds: None,
        pairs,
    }
}

fn merged(parts: impl IntoIterator<Item = (String, Vec<Pair>)>) -> Matrix {
    let mut matrix = Matrix::default();
    for (host, pairs) in parts {
        let sheet = Sheet::of(&answer(&host, pairs));
        matrix.add(&host, Sheet::from_bytes(&sheet.to_bytes().unwrap()).unwrap());
    }
    matrix
}

fn merge(parts: impl IntoIterator<Item = (String, Vec<Pair>)>) -> Vec<MatrixPair> {
    merged(parts).select(&MatrixQuery::default()).pairs(0).collect()
}

fn group(matrix: &Matrix, level: Level) -> Vec<MatrixPair> {
    let query = MatrixQuery { level: Some(level), ..MatrixQuery::default() };
    matrix.clone().select(&query).pairs(0).collect()
}

fn end(kind: EndpointKind, name: &str, host: Option<&str>) -> Endpoint {
    Endpoint {
        kind,
        name: name.to_owned(),
        id: (kind == EndpointKind::Container).then(|| format!("{name}-id")),
        service: None,
        tenant: None,
        host: host.map(str::to_owned),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    }
}

fn count(packets: u64) -> Count {
    Count { bytes: 100 * packets, packets, segments: packets }
}

fn pair(src: Endpoint, dst: Endpoint, observed_at: ObservedAt, sent: u64, received: u64) -> Pair {
    Pair {
        src,
        dst,
        protocols: vec!["tcp".to_owned()],
        first_seen: jiff::Timestamp::from_second(100).unwrap(),
        last_seen: jiff::Timestamp::from_second(200).unwrap(),
        sent: count(sent),
        received: count(received),
        retransmitted_segments: None,
        sent_retransmitted_segments: None,
        received_retransmitted_segments: None,
        reordered_segments: None,
        rtt_seconds: None,
        near_rtt_seconds: None,
        handshake_rtt_seconds: None,
        near_handshake_rtt_seconds: None,
        flows: 1,
        active_flows: 1,
        role_guessed: false,
        observed_at,
        via: Vec::new(),
        sent_bytes_per_second: None,
        received_bytes_per_second: None,
        sent_packets_per_second: None,
        received_packets_per_second: None,
    }
}

fn web() -> Endpoint {
    end(EndpointKind::Container, "web", Some("a"))
}

fn db() -> Endpoint {
    end(EndpointKind::Container, "db", Some("b"))
}

#[test]
fn a_pair_between_two_hosts_is_one_row_with_both_views_whoever_answers_first() {
    let at_a = ("a".to_owned(), vec![pair(web(), db(), ObservedAt::Src, 10, 7)]);
    let at_b = ("b".to_owned(), vec![pair(web(), db(), ObservedAt::Dst, 9, 8)]);
    for parts in [vec![at_a.clone(), at_b.clone()], vec![at_b, at_a]] {
        let rows = merge(parts);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(
            (row.pair.observed_at, row.pair.sent, row.pair.received),
            (ObservedAt::Src, count(10), count(7))
        );
        let (src, dst) = (row.views.src.as_ref().unwrap(), row.views.dst.as_ref().unwrap());
        assert_eq!((src.host.as_str(), src.sent.packets, src.received.packets), ("a", 10, 7));
        assert_eq!((dst.host.as_str(), dst.sent.packets, dst.received.packets), ("b", 9, 8));
    }
}

#[test]
fn what_one_host_alone_saw_is_its_own() {
    let outside = || end(EndpointKind::External, "external", None);
    let rows = merge([
        ("a".to_owned(), vec![pair(web(), outside(), ObservedAt::Src, 5, 5)]),
        (
            "b".to_owned(),
            vec![pair(outside(), db(), ObservedAt::Dst, 1, 2), pair(db(), web(), ObservedAt::Src, 3, 3)],
        ),
    ]);
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().all(|row| row.views.src.is_some() != row.views.dst.is_some()));
    assert!(rows.windows(2).all(|two| two[0].pair.sent.bytes >= two[1].pair.sent.bytes), "most bytes first");
}

#[test]
fn containers_of_one_name_on_two_hosts_are_two() {
    let on = |host| Endpoint {
        id: Some(format!("web-{host}")),
        ..end(EndpointKind::Container, "web", Some(host))
    };
    let rows =
        merge(["a", "b"].map(|host| (host.to_owned(), vec![pair(on(host), db(), ObservedAt::Src, 1, 1)])));
    assert_eq!(rows.len(), 2, "{rows:?}");
}

#[test]
fn a_level_s_rows_count_each_packet_once() {
    let of = |service: &str, host: &str| Endpoint {
        id: Some(format!("{service}-{host}")),
        service: Some(service.to_owned()),
        ..end(EndpointKind::Container, &format!("{service}-1"), Some(host))
    };
    // web runs on both hosts, db on b: what crosses is seen by both
    let rows = merged([
        ("a".to_owned(), vec![pair(of("web", "a"), of("db", "b"), ObservedAt::Src, 4, 2)]),
        (
            "b".to_owned(),
            vec![
                pair(of("web", "a"), of("db", "b"), ObservedAt::Dst, 4, 2),
                pair(of("web", "b"), of("db", "b"), ObservedAt::Src, 10, 5),
            ],
        ),
    ]);
    assert_eq!(rows.len(), 2);
    let services = group(&rows, Level::Service);
    let [row] = &services[..] else { panic!("{services:?}") };
    assert_eq!((row.pair.src.kind, row.pair.src.name.as_str()), (EndpointKind::Service, "web"));
    assert_eq!((row.pair.sent, row.pair.received, row.pair.flows), (count(14), count(7), 2));
    let mut hosts: Vec<&str> = row.views.src.as_ref().unwrap().host.split(',').collect();
    hosts.sort();
    assert_eq!((hosts, row.views.dst.as_ref().unwrap().sent), (vec!["a", "b"], count(4)));
    let by_host = group(&rows, Level::Host);
    let names: Vec<(&str, &str, u64)> = by_host
        .iter()
        .map(|r| (r.pair.src.name.as_str(), r.pair.dst.name.as_str(), r.pair.sent.packets))
        .collect();
    assert_eq!(names, [("b", "b", 10), ("a", "b", 4)]);
}

#[test]
fn ends_at_a_level_are_those_of_one_host() {
    let some = |text: &str| Some(text.to_owned());
    let kinds = [EndpointKind::Container, EndpointKind::Host, EndpointKind::External, EndpointKind::Dns];
    let mut seen = 0;
    for kind in kinds {
        for (service, tenant, host) in [
            (some("s"), some("t"), some("h")),
            (None, some("t"), some("h")),
            (some("s"), None, None),
            (None, None, some("h")),
            (None, None, None),
        ] {
            let end = Endpoint { service, tenant, ..end(kind, "x", host.as_deref()) };
            let mut one = pair(end.clone(), db(), ObservedAt::Src, 1, 1);
            one.dst.host = None;
            let matrix = merged([("a".to_owned(), vec![one])]);
            for level in [Level::Container, Level::Service, Level::Host, Level::Tenant] {
                let [row] = &group(&matrix, level)[..] else { panic!("one row") };
                assert_eq!(row.pair.src, level_of(&end, level), "{level:?}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 80);
}

#[test]
fn a_tenant_s_rows_are_those_with_one_of_its_ends() {
    let of = |name: &str, tenant: &str| Endpoint {
        tenant: Some(tenant.to_owned()),
        ..end(EndpointKind::Container, name, Some("a"))
    };
    let pairs = vec![
        pair(of("web", "shop"), of("db", "shop"), ObservedAt::Src, 3, 1),
        pair(of("spy", "other"), of("db", "shop"), ObservedAt::Src, 2, 1),
        pair(of("spy", "other"), of("ear", "other"), ObservedAt::Src, 1, 1),
    ];
    let matrix = merged([("a".to_owned(), pairs)]);
    let query = |tenant: &str| MatrixQuery { tenant: Some(tenant.to_owned()), level: None };
    let rows: Vec<MatrixPair> = matrix.clone().select(&query("shop")).pairs(0).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| query("shop").admits(&row.pair)));
    assert!(matrix.select(&query("nobody")).is_empty());
}
