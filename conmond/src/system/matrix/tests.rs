use conmon::api::{Count, Endpoint, HostAnswer, Pair, PairsAnswer};
use proptest::prelude::*;

use super::*;
use crate::store::at_level as level_of;
use crate::system::sheet::tests as sheets;

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
        matrix.add(&host, Sheet::of(&answer(&host, pairs)).unwrap());
    }
    matrix
}

fn merge(parts: impl IntoIterator<Item = (String, Vec<Pair>)>) -> Vec<MatrixPair> {
    merged(parts).select(&MatrixQuery::default()).pairs().collect()
}

fn group(matrix: &Matrix, level: Level) -> Vec<MatrixPair> {
    let query = MatrixQuery { level: Some(level), ..MatrixQuery::default() };
    matrix.clone().select(&query).pairs().collect()
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
        flows: 1,
        active_flows: 1,
        observed_at,
        ..empty().pair
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
    let rows: Vec<MatrixPair> = matrix.clone().select(&query("shop")).pairs().collect();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| query("shop").admits(&row.pair)));
    assert!(matrix.select(&query("nobody")).is_empty());
}

#[test]
fn many_rows_are_in_order_by_bytes_then_names() {
    // more than one thread's share, and more than one row of the same bytes where shares meet
    let rows = 3 * WORTH_A_THREAD as u64;
    let told = (0..rows).map(|i| {
        let name = format!("web-{:06}", i.wrapping_mul(7_919) % rows);
        pair(end(EndpointKind::Container, &name, Some("a")), db(), ObservedAt::Src, i / 1000, 0)
    });
    let matrix = merged([("a".to_owned(), told.collect())]).select(&MatrixQuery::default());
    let told: Vec<(u64, String)> =
        matrix.pairs().map(|row| (row.pair.sent.bytes, row.pair.src.name)).collect();
    assert_eq!(told.len() as u64, rows);
    assert!(told.windows(2).all(|two| two[0].0 > two[1].0 || two[0].0 == two[1].0 && two[0].1 < two[1].1));
}

#[test]
fn of_the_same_bytes_containers_come_first_then_names_long_ones_too() {
    let long = |last: char| format!("{}{last}", "ü".repeat(200));
    let names = [long('a'), long('b'), "web".to_owned()];
    let mut told: Vec<Pair> = names
        .iter()
        .rev()
        .map(|name| pair(end(EndpointKind::Container, name, Some("a")), db(), ObservedAt::Src, 1, 1))
        .collect();
    told.insert(0, pair(end(EndpointKind::External, "internet", None), db(), ObservedAt::Dst, 1, 1));
    let rows = merge([("a".to_owned(), told)]);
    let order: Vec<&str> = rows.iter().map(|row| row.pair.src.name.as_str()).collect();
    assert_eq!(order, ["web", &names[0], &names[1], "internet"]);
}

#[test]
fn a_level_s_views_are_called_by_who_told_each_pair_first() {
    let db = |name: &str| Endpoint {
        service: Some("db".to_owned()),
        ..end(EndpointKind::Container, name, Some("b"))
    };
    let outside = || end(EndpointKind::External, "internet", None);
    let told = |name: &str| pair(outside(), db(name), ObservedAt::Dst, 1, 1);
    let rows = merged([
        ("b".to_owned(), vec![told("db1"), told("db2")]),
        ("b.example".to_owned(), vec![told("db1")]),
    ]);
    let [row] = &group(&rows, Level::Service)[..] else { panic!("one row") };
    let view = row.views.dst.as_ref().unwrap();
    assert_eq!((view.host.as_str(), view.sent, row.pair.sent), ("b", count(3), count(3)));
}

#[test]
fn services_of_one_name_in_two_tenants_are_two() {
    let of = |tenant: &str, host: &str| Endpoint {
        service: Some("web".to_owned()),
        tenant: Some(tenant.to_owned()),
        ..end(EndpointKind::Container, &format!("{tenant}-web"), Some(host))
    };
    let rows = merged([
        ("a".to_owned(), vec![pair(of("shop", "a"), db(), ObservedAt::Src, 1, 1)]),
        ("c".to_owned(), vec![pair(of("blog", "c"), db(), ObservedAt::Src, 2, 2)]),
    ]);
    let rows = group(&rows, Level::Service);
    let tenants: Vec<_> = rows.iter().map(|row| row.pair.src.tenant.as_deref()).collect();
    assert_eq!(tenants, [Some("blog"), Some("shop")]);
}

#[test]
fn one_end_under_two_hosts_names_counts_both() {
    let outside = || end(EndpointKind::External, "internet", None);
    let told = |packets| pair(outside(), db(), ObservedAt::Dst, packets, packets);
    let rows = merge(["b", "b.example", "c"].map(|host| (host.to_owned(), vec![told(3)])));
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.pair.sent, row.pair.received, row.pair.flows), (count(9), count(9), 3));
    let view = row.views.dst.as_ref().unwrap();
    assert_eq!((view.host.as_str(), view.sent, &row.views.src), ("b", count(9), &None));
}

#[test]
fn what_another_host_does_not_know_of_an_end_is_filled_in() {
    let of = |service: Option<&str>| Endpoint { service: service.map(str::to_owned), ..web() };
    let told = |host: &str, service| (host.to_owned(), vec![pair(of(service), db(), ObservedAt::Src, 1, 1)]);
    let rows = merge([told("x", None), told("y", Some("front"))]);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.pair.src.service.as_deref(), Some("front"));
}

#[test]
fn of_whose_an_end_is_its_own_host_s_word_counts() {
    let of = |tenant: &str| Endpoint { tenant: Some(tenant.to_owned()), ..web() };
    let told = |host: &str, tenant| (host.to_owned(), vec![pair(of(tenant), db(), ObservedAt::Src, 1, 1)]);
    let (own, other) = (told("a", "shop"), told("b", "evil"));
    for parts in [[own.clone(), other.clone()], [other, own]] {
        let rows = merge(parts);
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(row.pair.src.tenant.as_deref(), Some("shop"));
    }
}

proptest! {
    #[test]
    fn a_row_is_the_pair_that_was_told(pairs in proptest::collection::vec(sheets::a_pair(), 0..8)) {
        let mut matrix = Matrix::default();
        // behind another's, so that no number is its own
        matrix.add("a", Sheet::of(&answer("a", vec![pair(web(), db(), ObservedAt::Src, 1, 1)])).unwrap());
        let sheet = Sheet::of(&sheets::answer(pairs.clone())).unwrap();
        matrix.add("h", sheet.clone());
        let hashes: Vec<_> = (0..sheet.text_count()).map(|text| matrix.hashes(sheet.text(text))).collect();
        let mut row = empty();
        for (number, (pair, line)) in pairs.into_iter().zip(sheet.lines()).enumerate() {
            let at = At { part: 1, number: number as u32 };
            let ends = line.ends.map(|number| {
                let identity = matrix.identity(&hashes, &sheet.ends()[number as usize]);
                matrix.end("h", &sheet, At { number, ..at }, identity)
            });
            let mut views = [None; 2];
            views[view(pair.observed_at)] = Some(at);
            // what another pair of the same ends adds is not this one's
            matrix.more.clear();
            matrix.unpack(&Row { ends, views, bytes: line.bytes }, &mut row);
            prop_assert_eq!(&row.pair, &pair);
            let bytes = pair.sent.bytes.saturating_add(pair.received.bytes);
            prop_assert_eq!(line.bytes, bytes);
        }
    }
}
