//! Processing time of a middle box.

use std::fmt::Write as _;
use std::net::IpAddr;

use ippm::model::law::{Clock, Delay};
use ippm::model::packet::{Ends, render};
use ippm::model::path::Path;
use ippm::model::{datagrams, tcp};
use ippm::oneway::Listening;
use ippm::packet::{Class, parse};
use ippm::processing::{Sighting, match_ports};
use ippm::select::{Key, Tuple, signature};

use crate::seed;

pub fn write(page: &mut String) {
    page.push_str(
        "
## A middle box: processing time

An address translator between two ports of one clock; log-normal processing time (median 25 µs, one in a hundred above 110 µs), 0.5 % of packets
overtaken. 20,000 datagrams, or 10 connections of 1 MB each, a row; addresses are left out. *Dropped* leaves out those too near to the captures'
ends; *alike* are sightings of packets with equal content (acknowledgements sent twice, say), of which no time is taken.

| Traffic | Dropped, law | Dropped, true | found | Created | Alike | Largest error of a time | Matched |
| --- | --- | --- | --- | --- | --- | --- | --- |
",
    );
    for loss in [0.0, 0.001, 0.01, 0.05] {
        for tcp in [false, true] {
            row(page, loss, tcp);
        }
    }
}

/// A true passage or drop of one direction: entered, left.
type Truth = (bool, u64, Option<u64>);

fn row(page: &mut String, loss: f64, tcp: bool) {
    let path = Path {
        fifo: false,
        ..Path::clean(Delay::LogNormal { base: 5_000, median: 20_000, sigma: 0.7 })
            .losing(loss)
            .reordering(0.005, 100_000)
    };
    let (mut lost, mut dropped, mut created, mut alike, mut worst, mut coverage) = (0, 0, 0, 0, 0, 0.0);
    let runs = if tcp { 10 } else { 1 };
    for run in 0..runs {
        let (client, server, truth): (_, _, Vec<Truth>) = if tcp {
            let outcome = tcp::run(&tcp::Connection::over(path, path, run + seed()));
            let truth = outcome.journeys.iter().map(|j| (j.forward, j.sent_ns, j.arrival_ns)).collect();
            (outcome.client, outcome.server, truth)
        } else {
            let outcome = datagrams::run(&datagrams::Stream {
                count: 20_000,
                interval_ns: 100_000,
                poisson: true,
                payload: 64,
                forward: path,
                reverse: None,
                seed: seed(),
            });
            let truth = outcome.journeys.iter().map(|j| (j.forward, j.sent_ns, j.arrival_ns)).collect();
            (outcome.client, outcome.server, truth)
        };
        let outside = Ends { client: (IpAddr::from([192, 0, 2, 1]), 61_234), ..Ends::default() };
        let mut first = sightings(&render(&client, Ends::default(), Clock::TRUE));
        let mut second = sightings(&render(&server, outside, Clock::TRUE));
        let seen = [&first, &second].map(|port| {
            let times = || port.iter().map(|s| s.ns);
            Listening { first_ns: times().min().unwrap_or(0), last_ns: times().max().unwrap_or(0) }
        });
        let found = match_ports(&mut first, &mut second, seen, None);
        for (i, (way, forward)) in found.ways.iter().zip([true, false]).enumerate() {
            let truth = || truth.iter().filter(|(f, ..)| *f == forward);
            let times: std::collections::HashMap<u64, Vec<u64>> = truth()
                .filter_map(|(_, sent, left)| Some((*sent, (*left)?)))
                .fold(std::collections::HashMap::new(), |mut all, (sent, left)| {
                    all.entry(sent).or_insert_with(Vec::new).push(left);
                    all
                });
            for passage in &way.passages {
                let error = times.get(&passage.sent_ns).into_iter().flatten();
                worst =
                    worst.max(error.map(|left| left.abs_diff(passage.received_ns)).min().unwrap_or(u64::MAX));
            }
            let other = seen[1 - i];
            let last = other.last_ns.saturating_sub(found.timeout_ns);
            let decided =
                truth().filter(|(_, sent, left)| left.is_none() && (other.first_ns..=last).contains(sent));
            lost += decided.count() as u64;
            dropped += way.dropped;
            created += way.created;
        }
        alike += found.ambiguous;
        coverage += found.coverage().unwrap_or(0.0) / runs as f64;
    }
    assert_eq!((worst, created), (0, 0));
    // Of packets alike nobody can say that they were dropped: too few are called so, never too many.
    assert!(dropped <= lost && (tcp || dropped == lost), "{dropped} {lost}");
    let _ = writeln!(
        page,
        "| {} | {} % | {lost} | {dropped} | {created} | {alike} | {worst} ns | {:.1} % |",
        if tcp { "TCP" } else { "datagrams" },
        loss * 100.0,
        coverage * 100.0
    );
}

fn sightings(frames: &[(u64, Vec<u8>)]) -> Vec<Sighting> {
    let key = Key::new([8, 9]);
    let each = frames.iter().filter_map(|(ns, frame)| {
        let Class::Ip(ip) = parse(frame).class else { return None };
        let payload = ip.payload.map_or(&[][..], |payload| payload.of(frame));
        let name = signature(&key, &ip, payload, Tuple::Translated).name;
        // The server's address is the same at both ports.
        let way = u32::from(ip.source == Ends::default().server.0);
        Some(Sighting { name, ns: *ns, way })
    });
    each.collect()
}
