//! Round trips at one point, by method.

use std::fmt::Write as _;

use ippm::follow::stamps::StampFollower;
use ippm::follow::tcp::{Method, RoundTrip, TcpFollower};
use ippm::model::Captured;
use ippm::model::law::Delay;
use ippm::model::packet::Ends;
use ippm::model::path::Path;
use ippm::model::tcp::{Connection, Outcome, run};
use ippm::packet::{Class, parse};

const METHODS: [Method; 3] = [Method::Handshake, Method::Acknowledgement, Method::TimeStamps];

pub fn write(page: &mut String) {
    page.push_str(
        "
## One point: round trips of TCP

20 connections of 1 MB each a row, seen at the client's port; exponential delay over 2 ms, 0.2 % held back, lone acknowledgements wait 4 ms.
*Found* are round trips of each method, of both directions; *wrong* are those whose segment (or, by time stamps, one of the same tick)
had not reached its end before the answer passed. *Marked* are those called maybe delayed, of those by acknowledgement.

| Loss | Offload | Handshake, found | wrong | Acknowledgement, found | wrong | Time stamps, found | wrong | Marked |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
",
    );
    for loss in [0.0, 0.001, 0.01, 0.05] {
        for offload in [false, true] {
            let (mut found, mut wrong, mut marked) = ([0u64; 3], [0u64; 3], 0u64);
            for seed in 0..20 {
                let path = Path::clean(Delay::Exponential { base: 2_000_000, mean: 200_000 })
                    .losing(loss)
                    .reordering(0.002, 500_000);
                let mut law = Connection::over(path, path, seed + crate::seed());
                law.ack_delay_ns = 4_000_000;
                let outcome = run(&if offload { law.offloaded() } else { law });
                for (ns, trip) in trips(&outcome.client) {
                    let method = METHODS.iter().position(|method| *method == trip.method).expect("listed");
                    found[method] += 1;
                    wrong[method] += u64::from(!is_right(&outcome, ns, &trip));
                    marked += u64::from(trip.method == Method::Acknowledgement && trip.maybe_delayed);
                }
            }
            assert_eq!(wrong, [0; 3], "loss {loss}, offload {offload}");
            let [shake, ack, stamps] = found;
            let offload = if offload { "on" } else { "off" };
            let _ = writeln!(
                page,
                "| {} % | {offload} | {shake} | 0 | {ack} | 0 | {stamps} | 0 | {marked} |",
                loss * 100.0
            );
        }
    }
}

fn trips(seen: &[Captured]) -> Vec<(u64, RoundTrip)> {
    let (mut numbers, mut stamps) = (TcpFollower::default(), StampFollower::default());
    let mut all = Vec::new();
    for c in seen {
        let Class::Ip(ip) = parse(&c.packet.frame(Ends::default())).class else { continue };
        let Some(tcp) = &ip.tcp else { continue };
        let told = numbers.segment(c.packet.forward, tcp, ip.ip_id, true, c.ns);
        let trips = [told.round_trip, stamps.segment(c.packet.forward, tcp, c.ns)];
        all.extend(trips.into_iter().flatten().map(|trip| (c.ns, trip)));
    }
    all
}

/// The server's data passes the client's port when it arrives: then the segment is known by its arrival.
fn is_right(outcome: &Outcome, ns: u64, trip: &RoundTrip) -> bool {
    let began = ns - trip.ns;
    let tick = |ns: u64| ns / 1_000_000;
    outcome.journeys.iter().filter(|j| j.forward == trip.forward).any(|j| {
        let arrivals = [j.arrival_ns, j.copy_ns];
        if !trip.forward {
            return arrivals.contains(&Some(began));
        }
        let timed = if trip.method == Method::TimeStamps {
            tick(j.sent_ns) == tick(began)
        } else {
            j.sent_ns == began
        };
        timed && arrivals.into_iter().flatten().any(|arrival| arrival <= ns)
    })
}
