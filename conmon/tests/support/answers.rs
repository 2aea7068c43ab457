//! Made-up answers, the same each time, for tests and for the stand-in daemon. Shared by inclusion.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use conmon::api::*;
use jiff::{SignedDuration, Timestamp};

pub fn begin() -> Timestamp {
    "2026-11-23T04:00:00Z".parse().expect("a time")
}

pub fn after(seconds: f64) -> Timestamp {
    begin() + SignedDuration::from_secs_f64(seconds)
}

pub fn container(name: &str, tenant: &str, number: u8) -> Endpoint {
    Endpoint {
        kind: EndpointKind::Container,
        name: name.to_owned(),
        id: Some(format!("{number:02x}").repeat(32)),
        service: name.split('-').nth(1).map(str::to_owned),
        tenant: Some(tenant.to_owned()),
        host: Some("lab1".to_owned()),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(172, 18, 0, number))],
    }
}

pub fn other(kind: EndpointKind, name: &str, address: &str) -> Endpoint {
    Endpoint {
        kind,
        name: name.to_owned(),
        id: None,
        service: None,
        tenant: None,
        host: None,
        addresses: vec![address.parse().expect("an address")],
    }
}

pub fn delays(p50: f64, count: u64) -> DelaySummary {
    DelaySummary {
        min: p50 * 0.5,
        p50,
        p90: p50 * 1.8,
        p99: p50 * 4.0,
        max: p50 * 21.0,
        count,
        method: "passive_tcp_ack_at_src_port".to_owned(),
        relative_error_ratio: Some(1.0 / 32.0),
        buckets: None,
    }
}

fn handshakes(p50: f64, count: u64) -> DelaySummary {
    DelaySummary { method: "passive_tcp_handshake_at_src_port".to_owned(), ..delays(p50, count) }
}

/// The same pair, each delay with a distribution that has these statistics.
pub fn with_histograms(mut pair: Pair) -> Pair {
    let delays = [
        &mut pair.rtt_seconds,
        &mut pair.near_rtt_seconds,
        &mut pair.handshake_rtt_seconds,
        &mut pair.near_handshake_rtt_seconds,
    ];
    for summary in delays.into_iter().flatten() {
        summary.buckets = Some(buckets(summary));
    }
    pair
}

fn buckets(summary: &DelaySummary) -> Vec<DelayBucket> {
    let quantiles =
        [(0.0, summary.min), (0.5, summary.p50), (0.9, summary.p90), (0.99, summary.p99), (1.0, summary.max)];
    let mut histogram = ippm::histogram::Histogram::new();
    for at in 0..summary.count {
        let rank = (at as f64 + 0.5) / summary.count as f64;
        let above = quantiles.iter().position(|(q, _)| *q > rank).expect("ranks are below 1");
        let [(q0, low), (q1, high)] = [quantiles[above - 1], quantiles[above]];
        let share = (rank - q0) / (q1 - q0);
        histogram.record((low * (high / low).powf(share) * 1e9) as u64);
    }
    histogram
        .ranges()
        .map(|(from, to, count)| DelayBucket {
            from_seconds: from as f64 / 1e9,
            to_seconds: (to != u64::MAX).then_some(to as f64 / 1e9),
            count,
        })
        .collect()
}

fn counted(bytes: f64) -> Count {
    let packets = (bytes / 1100.0) as u64 + 1;
    Count { bytes: bytes as u64 + 66, packets, segments: packets + packets / 3 }
}

/// A TCP pair that has run for `seconds` at these rates in bytes per second.
pub fn tcp(src: Endpoint, dst: Endpoint, out: f64, back: f64, rtt: f64, seconds: f64) -> Pair {
    let samples = (seconds * 900.0) as u64 + 1;
    let packets = |rate: f64| (rate / 1100.0).round();
    Pair {
        src,
        dst,
        protocols: vec!["tcp".to_owned()],
        first_seen: begin(),
        last_seen: after(seconds - 0.01),
        sent: counted(out * seconds),
        received: counted(back * seconds),
        retransmitted_segments: Some((out * seconds / 9e7) as u64),
        sent_retransmitted_segments: Some((out * seconds / 9e7) as u64),
        received_retransmitted_segments: Some(0),
        reordered_segments: Some(0),
        rtt_seconds: Some(delays(rtt, samples)),
        near_rtt_seconds: Some(delays(rtt / 3.0, samples)),
        handshake_rtt_seconds: Some(handshakes(rtt * 1.2, 12)),
        near_handshake_rtt_seconds: Some(handshakes(rtt / 2.0, 12)),
        flows: 12,
        active_flows: 4,
        role_guessed: false,
        observed_at: ObservedAt::Src,
        via: Vec::new(),
        sent_bytes_per_second: Some(out),
        received_bytes_per_second: Some(back),
        sent_packets_per_second: Some(packets(out)),
        received_packets_per_second: Some(packets(back)),
    }
}

/// A pair of datagrams only: no delay, no retransmission.
pub fn datagrams(src: Endpoint, dst: Endpoint, protocols: &[&str], rate: f64, seconds: f64) -> Pair {
    Pair {
        protocols: protocols.iter().map(|name| (*name).to_owned()).collect(),
        retransmitted_segments: None,
        sent_retransmitted_segments: None,
        received_retransmitted_segments: None,
        reordered_segments: None,
        rtt_seconds: None,
        near_rtt_seconds: None,
        handshake_rtt_seconds: None,
        near_handshake_rtt_seconds: None,
        active_flows: 1,
        ..tcp(src, dst, rate, rate * 1.4, 1.0, seconds)
    }
}

/// The demo's shape: two tenants, five applications, and what else there is on a host.
pub fn pairs(seconds: f64) -> PairsAnswer {
    let wave = 1.0 + 0.4 * (seconds / 7.0).sin();
    let web = container("shop-nginx-1", "shop", 2);
    let redis = container("shop-redis-1", "shop", 3);
    let postgres = container("shop-postgres-1", "shop", 4);
    let bench = container("shop-redis-benchmark-1", "shop", 5);
    let load = container("lab-wrk-1", "lab", 6);
    let mut silent = tcp(web.clone(), postgres.clone(), 0.0, 0.0, 412e-6, seconds);
    silent.last_seen = after((seconds - 75.0).max(0.0));
    silent.role_guessed = true;
    PairsAnswer {
        generated_at: after(seconds),
        hosts: vec![HostAnswer { name: "lab1".to_owned(), complete: true }],
        rate_interval_seconds: Some(1.0),
        pairs: vec![
            tcp(load.clone(), web.clone(), 2.1e6 * wave, 184e6 * wave, 83.1e-6, seconds),
            tcp(bench, redis.clone(), 12.3e6 * wave, 4.1e6, 31.4e-6, seconds),
            tcp(web.clone(), redis, 88e3 * wave, 41e3, 46e-6, seconds),
            silent,
            tcp(
                load.clone(),
                other(EndpointKind::External, "external", "198.51.100.7"),
                900.0,
                48e3,
                18.2e-3,
                seconds,
            ),
            datagrams(web.clone(), other(EndpointKind::Dns, "dns", "172.18.0.1"), &["udp"], 310.0, seconds),
            datagrams(
                web.clone(),
                other(EndpointKind::Host, "lab1", "172.18.0.1"),
                &["icmp", "udp"],
                98.0,
                seconds,
            ),
            datagrams(web, other(EndpointKind::External, "multicast", "ff02::16"), &["icmpv6"], 4.0, seconds),
            datagrams(load, other(EndpointKind::External, "multicast", "ff02::2"), &["icmpv6"], 2.0, seconds),
        ],
    }
}

/// `number` pairs, all different.
pub fn many_pairs(number: usize) -> PairsAnswer {
    let pairs = (0..number)
        .map(|at| {
            let client = container(&format!("client-load-{at}"), "many", (at % 200) as u8 + 2);
            let server = container(&format!("server-web-{}", at % 7), "many", (at % 7) as u8 + 2);
            tcp(client, server, 1000.0 * at as f64, 10.0 * at as f64, 50e-6 + at as f64 * 1e-7, 60.0)
        })
        .collect();
    PairsAnswer { pairs, ..pairs_at_level(Level::Container, 60.0) }
}

/// At other levels: a few rows of the right kind.
pub fn pairs_at_level(level: Level, seconds: f64) -> PairsAnswer {
    let end = |kind, name: &str| Endpoint { addresses: Vec::new(), ..other(kind, name, "0.0.0.0") };
    let kind = match level {
        Level::Container => return pairs(seconds),
        Level::Service => EndpointKind::Service,
        Level::Host => EndpointKind::Host,
        Level::Tenant => EndpointKind::Tenant,
    };
    let external = other(EndpointKind::External, "external", "198.51.100.7");
    PairsAnswer {
        pairs: vec![
            tcp(end(kind, "lab"), end(kind, "shop"), 2.1e6, 184e6, 83.1e-6, seconds),
            tcp(end(kind, "shop"), external, 900.0, 48e3, 18.2e-3, seconds),
        ],
        ..pairs(seconds)
    }
}

pub fn flows(seconds: f64) -> FlowsAnswer {
    let flow = |at: u16, state, end_reason| Flow {
        src: container("lab-wrk-1", "lab", 6),
        dst: container("shop-nginx-1", "shop", 2),
        protocol: "tcp".to_owned(),
        src_address: IpAddr::V4(Ipv4Addr::new(172, 18, 0, 6)),
        src_port: Some(40000 + at),
        dst_address: if at == 1 {
            "fd00:18::2".parse().expect("an address")
        } else {
            IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2))
        },
        dst_port: Some(80),
        translated_address: None,
        translated_port: None,
        icmp_identifier: None,
        vlan: None,
        first_seen: begin(),
        last_seen: after(seconds),
        sent: counted(1e6 * seconds / f64::from(at + 1)),
        received: counted(46e6 * seconds / f64::from(at + 1)),
        retransmitted_segments: Some(u64::from(at)),
        reordered_segments: Some(0),
        src_tcp_flags: Some(["syn", "psh", "ack"].map(str::to_owned).to_vec()),
        dst_tcp_flags: Some(["syn", "ack"].map(str::to_owned).to_vec()),
        state,
        end_reason,
        role_guessed: false,
        observed_at: ObservedAt::Src,
        interface: Some("veth5f0c1e2".to_owned()),
    };
    FlowsAnswer {
        generated_at: after(seconds),
        matched: 12,
        flows: vec![
            flow(0, FlowState::Active, None),
            flow(1, FlowState::Active, None),
            flow(2, FlowState::Ended, Some(EndReason::EndDetected)),
            flow(3, FlowState::Ended, Some(EndReason::IdleTimeout)),
        ],
    }
}

pub fn containers(seconds: f64) -> ContainersAnswer {
    let application = |name: &str, tenant: &str, number: u8| {
        let end = container(name, tenant, number);
        Container {
            name: end.name,
            id: end.id.unwrap_or_default(),
            tenant: tenant.to_owned(),
            service: end.service,
            state: "running".to_owned(),
            networks: vec![Network {
                name: "shop_default".to_owned(),
                addresses: end.addresses,
                interface: Some(format!("veth{number:07x}")),
                joined_at: Some(after(1.0)),
                link_up_at: Some(after(1.0512)),
                tapped_at: Some(after(1.00021)),
                named_at: Some(after(1.004)),
                tapped_by: Some("tcx".into()),
                tapped_after_seconds: Some(210e-6),
                named_after_seconds: Some(1.3e-3),
            }],
            monitor: Some(format!("conmon-default-pm-{tenant}")),
            note: None,
        }
    };
    let mut adopted = application("shop-postgres-1", "shop", 4);
    adopted.networks[0] = Network {
        joined_at: None,
        link_up_at: None,
        tapped_by: None,
        tapped_after_seconds: None,
        named_after_seconds: None,
        ..adopted.networks[0].clone()
    };
    let mut shared = application("lab-host-1", "lab", 9);
    shared.networks.clear();
    shared.monitor = None;
    shared.note = Some("shares the host's network: it has no port of its own".to_owned());
    ContainersAnswer {
        generated_at: after(seconds),
        containers: vec![
            application("lab-wrk-1", "lab", 6),
            shared,
            application("shop-nginx-1", "shop", 2),
            adopted,
        ],
    }
}

/// One clock that is known, one that is being steered, and one that does not answer.
pub fn clocks() -> ClocksAnswer {
    let known = HostClock {
        host: "web2".to_owned(),
        offset_seconds: Some(-0.001_204),
        bound_seconds: Some(0.000_042),
        skew_ppm: Some(12.345),
        skew_bound_ppm: Some(0.81),
        round_trip_seconds: Some(0.000_084),
        window_seconds: 30.0,
        parts: 1,
        sent: 12_400,
        answered: 12_390,
        age_seconds: Some(0.2),
        problem: None,
    };
    let steered = HostClock {
        host: "web3".to_owned(),
        offset_seconds: Some(3.5),
        skew_bound_ppm: None,
        parts: 2,
        ..known.clone()
    };
    let silent = HostClock {
        host: "web4".to_owned(),
        window_seconds: 30.0,
        sent: 150,
        problem: Some(
            "no answer to test packets for 30 s: UDP port 9478 of 192.0.2.4 must be open to this host"
                .to_owned(),
        ),
        ..HostClock::default()
    };
    ClocksAnswer { generated_at: begin(), host: "web1".to_owned(), clocks: vec![known, steered, silent] }
}

pub fn monitors(seconds: f64) -> MonitorsAnswer {
    let monitor = |name: &str, tenant: Option<&str>| Monitor {
        name: format!("conmon-default-pm-{name}"),
        id: Some("ab".repeat(32)),
        tenant: tenant.map(str::to_owned),
        container: None,
        mode: MonitorMode::Shared,
        state: if tenant.is_some() { MonitorState::Working } else { MonitorState::Ready },
        functions: tenant.map(|_| vec!["flow".to_owned(), "rtt".to_owned()]).unwrap_or_default(),
        last_report_at: tenant.map(|_| after(seconds - 0.42)),
        last_report_age_seconds: tenant.map(|_| 0.42),
        restarts: 0,
        memory_bytes: Some(3_400_000),
    };
    MonitorsAnswer {
        generated_at: after(seconds),
        pool: Pool { ready: 2, wanted: 2 },
        monitors: vec![
            monitor("lab", Some("lab")),
            monitor("shop", Some("shop")),
            monitor("wait-1", None),
            monitor("wait-2", None),
        ],
    }
}

pub fn measurements(seconds: f64) -> MeasurementsAnswer {
    let measurement = |metric: &str, unit: &str, value, summary| Measurement {
        metric: metric.to_owned(),
        time: after(seconds - 0.4),
        src: container("lab-wrk-1", "lab", 6),
        dst: container("shop-nginx-1", "shop", 2),
        protocol: "tcp".to_owned(),
        observed_at: ObservedAt::Src,
        unit: unit.to_owned(),
        method: "passive".to_owned(),
        value,
        summary,
        monitor: Some("conmon-default-pm-lab".to_owned()),
    };
    MeasurementsAnswer {
        generated_at: after(seconds),
        matched: 2,
        measurements: vec![
            measurement("sent_bytes", "bytes", Some(2_100_000.0), None),
            measurement("rtt_seconds", "seconds", None, Some(delays(83.1e-6, 4711))),
        ],
    }
}

pub fn event(sequence: u64, kind: EventKind) -> Event {
    Event {
        sequence,
        time: after(sequence as f64),
        kind,
        text: "veth5f0c1e2 of shop-nginx-1 is tapped".to_owned(),
        container: Some("shop-nginx-1".to_owned()),
        tenant: Some("shop".to_owned()),
        network: Some("shop_default".to_owned()),
        interface: Some("veth5f0c1e2".to_owned()),
        monitor: None,
        after_seconds: Some(210e-6),
        dropped: None,
    }
}

pub fn health() -> Health {
    Health {
        status: HealthState::Ok,
        version: "0.1.0".to_owned(),
        instance: "default".to_owned(),
        started_at: begin(),
        protocol: Protocol::OURS,
        problems: Vec::new(),
    }
}

pub fn ledger() -> LedgerAnswer {
    let port = |interface: &str, container: Option<&str>, difference: u64| PortLedger {
        interface: interface.to_owned(),
        container: container.map(str::to_owned),
        tenant: container.map(|_| "shop".to_owned()),
        sent: Count { bytes: 12_345_678, packets: 4000, segments: 9000 },
        received: Count { bytes: 345_678, packets: 3000, segments: 3000 },
        packets_by_class: BTreeMap::from([
            ("arp".to_owned(), 4),
            ("flow".to_owned(), 6900),
            ("pair".to_owned(), 96),
        ]),
        interface_sent_packets: Some(4000 + difference),
        interface_received_packets: Some(3000),
    };
    LedgerAnswer {
        generated_at: after(60.0),
        ledger: Ledger {
            observed: 14_000,
            selected: 13_990,
            not_selected: 8,
            lost: BTreeMap::from([("overflow".to_owned(), 0), ("malformed".to_owned(), 2)]),
            balanced: true,
        },
        ports: vec![port("veth5f0c1e2", Some("shop-nginx-1"), 0), port("veth0000001", None, 3)],
    }
}

pub fn doctor(well: bool) -> DoctorAnswer {
    let check = |name: &str, detail: &str| Check {
        name: name.to_owned(),
        ok: true,
        detail: detail.to_owned(),
        remedy: None,
    };
    DoctorAnswer {
        generated_at: after(60.0),
        checks: vec![
            check("kernel", "6.18.5 has BTF, TCX and frozen mmapable arrays"),
            Check {
                ok: well,
                remedy: (!well).then(|| "start it: `sudo systemctl start docker`".to_owned()),
                ..check(
                    "engine",
                    if well { "docker 20.10.24 answers" } else { "nobody listens on /var/run/docker.sock" },
                )
            },
        ],
        ledger: Some(ledger().ledger),
    }
}

pub fn status(seconds: f64) -> Status {
    let fill = |used, capacity| Fill { used, capacity };
    let set = |name: &str, tenant: Option<&str>, flows| SetStatus {
        name: name.to_owned(),
        tenant: tenant.map(str::to_owned),
        flows: fill(flows, 16384),
        pairs: fill(flows / 8, 4096),
        ports: fill(flows / 100, 256),
        histograms: fill(flows / 4, 4096),
        memory_bytes: 11_000_000,
    };
    Status {
        version: "0.1.0".to_owned(),
        instance: "default".to_owned(),
        host: "lab1".to_owned(),
        pid: 4711,
        started_at: begin(),
        counting_since: Some(begin()),
        kernel: "6.18.5".to_owned(),
        attachment: "tcx".to_owned(),
        engine: EngineStatus {
            name: "docker".to_owned(),
            address: "unix:///var/run/docker.sock".to_owned(),
            connected: true,
            version: Some("20.10.24".to_owned()),
            error: None,
        },
        counts: Counts { containers: 6, tenants: 2, ports: 6, pairs: 9, active_flows: 31, monitors: 4 },
        cost: Cost {
            hooks: vec![
                HookCost { name: "cm_from_container".to_owned(), runs: 84_120, ns_per_run: Some(61.4) },
                HookCost { name: "cm_to_container".to_owned(), runs: 91_012, ns_per_run: Some(66.9) },
            ],
            cpu_ratio: Some(0.012),
            memory_bytes: Some(24_100_000),
            kernel_memory_bytes: Some(33_000_000),
            sampled_at: Some(after(seconds - 4.0)),
        },
        sets: vec![set("shop", Some("shop"), 512), set("lab", Some("lab"), 240), set("nursery", None, 0)],
        speed: Speed {
            tapped_after_seconds: Some(delays(0.000_31, 9)),
            named_after_seconds: Some(delays(0.000_09, 9)),
            stopped_after_seconds: None,
            reacted_after_seconds: None,
            ended_after_seconds: None,
        },
        pool: Pool { ready: 2, wanted: 2 },
        problems: Vec::new(),
    }
}
