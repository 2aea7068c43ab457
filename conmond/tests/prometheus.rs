//! The metrics as Prometheus has them: `promtool` checks the text, and a real server scrapes and is asked.

#[path = "http/source.rs"]
#[expect(dead_code, reason = "shared with the tests of the HTTP server, which use other parts")]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conmon::api::EndpointKind;
use conmond::config::MetricsLevel;
use conmond::export::prometheus::{Exporter, ExporterSettings};
use conmond::http::{End, HttpTotals, MetricsSocket, PairRow, Reason, Server, Source};
use conmond::scope::Scope;
use ippm::catalogue::{DELAY_EDGES_NS, Kind, METRICS};
use jiff::Timestamp;
use serde_json::Value;
use source::{World, pair_row, text, time};

fn exporter(level: MetricsLevel, max_series: usize) -> Exporter {
    Exporter::new(ExporterSettings { level, max_series, retention: Duration::from_secs(60) })
}

fn now() -> Timestamp {
    time("2026-05-04T10:00:10Z")
}

fn dropped(dropped_streams: u64) -> HttpTotals {
    HttpTotals { dropped_streams, refused: Some([1; Reason::ALL.len()]) }
}

fn render(exporter: &Exporter, world: &World) -> BTreeMap<String, f64> {
    let text = exporter.render(world, &Scope::All, dropped(9), now()).unwrap();
    samples(&text)
}

/// Each series with its value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(all.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    all
}

fn with_rows(rows: Vec<PairRow>) -> World {
    let world = World::new();
    *world.rows.lock().unwrap() = rows;
    world
}

/// All values of `label` in the series of a metric.
fn values(samples: &BTreeMap<String, f64>, metric: &str, label: &str) -> BTreeSet<String> {
    let start = format!("{metric}{{");
    let of = |series: &String| {
        let (_, rest) = series.split_once(&format!("{label}=\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    samples.keys().filter(|series| series.starts_with(&start)).filter_map(of).collect()
}

#[test]
fn the_values_are_the_source_s() {
    let samples = render(&exporter(MetricsLevel::Service, 10), &World::new());
    let pair = r#"src="web",dst="db",tenant="shop""#;
    for (series, value) in [
        (format!(r#"conmon_pair_bytes_total{{{pair},proto="tcp",direction="sent"}}"#), 1000.0),
        (format!(r#"conmon_pair_bytes_total{{{pair},proto="tcp",direction="received"}}"#), 2000.0),
        (format!(r#"conmon_pair_packets_total{{{pair},proto="udp",direction="sent"}}"#), 1.0),
        (format!(r#"conmon_pair_segments_total{{{pair},proto="tcp",direction="sent"}}"#), 20.0),
        (format!(r#"conmon_pair_retransmitted_segments_total{{{pair},direction="sent"}}"#), 3.0),
        (format!(r#"conmon_pair_reordered_segments_total{{{pair},direction="received"}}"#), 1.0),
        (format!(r#"conmon_pair_flows_total{{{pair},proto="tcp"}}"#), 7.0),
        (format!(r#"conmon_pair_active_flows{{{pair},proto="tcp"}}"#), 2.0),
        (format!("conmon_pair_rtt_seconds_count{{{pair}}}"), 4.0),
        (format!("conmon_pair_rtt_seconds_sum{{{pair}}}"), (50_000 + 3 * (1 << 20)) as f64 / 1e9),
        (format!(r#"conmon_pair_rtt_seconds_bucket{{le="+Inf",{pair}}}"#), 4.0),
        (format!("conmon_pair_near_rtt_seconds_count{{{pair}}}"), 1.0),
        (port("packets", "sent", "arp"), 5.0),
        (port("bytes", "received", "overflow"), 700.0),
        (port("bytes", "received", "malformed"), 0.0),
        (r#"conmon_table_full_packets_total{tenant="shop",table="pairs"}"#.to_owned(), 2.0),
        (r#"conmon_lost_singletons_total{tenant="shop"}"#.to_owned(), 4.0),
        (r#"conmon_cancelled_rtt_probes_total{tenant="shop"}"#.to_owned(), 5.0),
        (r#"conmon_ring_dropped_records_total{tenant="shop"}"#.to_owned(), 6.0),
        (r#"conmon_table_fill_ratio{tenant="shop",table="flows"}"#.to_owned(), 0.25),
        ("conmon_monitors".to_owned(), 2.0),
        (r#"conmon_monitor_restarts_total{tenant="shop"}"#.to_owned(), 1.0),
        (r#"conmon_containers{tenant="shop"}"#.to_owned(), 1.0),
        (r#"conmon_taps{tenant="shop"}"#.to_owned(), 1.0),
        ("conmon_tap_delay_seconds_sum".to_owned(), 0.0004),
        ("conmon_naming_delay_seconds_count".to_owned(), 1.0),
        ("conmon_stop_delay_seconds_sum".to_owned(), 0.0004),
        ("conmon_reaction_delay_seconds_count".to_owned(), 1.0),
        ("conmon_end_delay_seconds_count".to_owned(), 1.0),
        ("conmon_tap_dropped_packets_total".to_owned(), 3.0),
        (r#"conmon_build_info{version="0.1.0",revision="abc"}"#.to_owned(), 1.0),
        ("conmon_engine_connected".to_owned(), 1.0),
        ("conmon_api_dropped_streams_total".to_owned(), 9.0),
        (r#"conmon_hook_sampled_runs_total{hook="cm_tx"}"#.to_owned(), 1000.0),
        (r#"conmon_hook_sampled_run_time_seconds_total{hook="cm_tx"}"#.to_owned(), 0.00015),
        (r#"conmon_cpu_seconds_total{component="controller"}"#.to_owned(), 1.5),
        (r#"conmon_memory_bytes{component="monitors"}"#.to_owned(), (20 << 20) as f64),
        ("conmon_kernel_memory_bytes".to_owned(), (4 << 20) as f64),
        ("conmon_registry_connected".to_owned(), 1.0),
        ("conmon_registry_age_seconds".to_owned(), 1.5),
        ("conmon_registry_hosts".to_owned(), 3.0),
        ("conmon_registry_pending_rows".to_owned(), 2.0),
        (r#"conmon_registry_reads_total{result="failed"}"#.to_owned(), 4.0),
        ("conmon_registry_resyncs_total".to_owned(), 5.0),
        (r#"conmon_registry_lookups_total{result="hit"}"#.to_owned(), 600.0),
        (r#"conmon_clock_offset_seconds{host="h2"}"#.to_owned(), -0.002),
        (r#"conmon_clock_offset_bound_seconds{host="h2"}"#.to_owned(), 0.0001),
        ("conmon_refused_test_packets_total".to_owned(), 22.0),
        (r#"conmon_far_ends_total{result="learnt"}"#.to_owned(), 10.0),
        (r#"conmon_far_ends_total{result="nobody"}"#.to_owned(), 15.0),
        (r#"conmon_pending_far_ends{by="address"}"#.to_owned(), 17.0),
        (r#"conmon_dropped_far_ends_total{room="reports"}"#.to_owned(), 18.0),
    ] {
        let found = samples.get(&series).unwrap_or_else(|| panic!("{series} is missing in {samples:#?}"));
        assert!((found - value).abs() <= value.abs() * 1e-12, "{series}: {found}, not {value}");
    }
    let absent = |part: &str| !samples.keys().any(|series| series.starts_with(part));
    assert!(absent("conmon_pair_handshake_rtt_seconds"), "nothing was measured");
    assert!(!samples.keys().any(|s| s.starts_with("conmon_pair_reordered") && s.contains("\"sent\"")));
}

fn port(unit: &str, direction: &str, class: &str) -> String {
    format!(
        r#"conmon_port_class_{unit}_total{{service="web",tenant="shop",direction="{direction}",class="{class}"}}"#
    )
}

/// The exported buckets are exactly the values below each edge, growing, and end in all of them.
#[test]
fn buckets_are_exact() {
    let mut row = pair_row("a", "b");
    row.rtt = ippm::histogram::Histogram::new();
    let delays: Vec<u64> = (0..40).flat_map(|e| [1u64 << e, (1 << e) + 1, (1 << e) - 1]).collect();
    delays.iter().for_each(|&ns| row.rtt.record(ns));
    let samples = render(&exporter(MetricsLevel::Service, 10), &with_rows(vec![row]));
    let edges: BTreeMap<u64, f64> = samples
        .iter()
        .filter(|(series, _)| series.starts_with("conmon_pair_rtt_seconds_bucket"))
        .map(|(series, &count)| {
            let edge = series.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
            let ns =
                if edge == "+Inf" { u64::MAX } else { (edge.parse::<f64>().unwrap() * 1e9).round() as u64 };
            (ns, count)
        })
        .collect();
    let expected: Vec<u64> = DELAY_EDGES_NS.into_iter().chain([u64::MAX]).collect();
    assert_eq!(edges.keys().copied().collect::<Vec<_>>(), expected);
    for (&edge, &count) in &edges {
        assert_eq!(count as usize, delays.iter().filter(|&&ns| ns < edge).count(), "below {edge} ns");
    }
}

/// Names, kinds and labels of what is written are those of the catalogue, and all of it is written.
#[test]
fn everything_is_as_the_catalogue_says() {
    let world = World::new();
    world.rows.lock().unwrap()[0].handshake_rtt.record(70_000);
    let text = exporter(MetricsLevel::Service, 10).render(&world, &Scope::All, dropped(0), now()).unwrap();
    let samples = samples(&text);
    for metric in METRICS {
        assert!(
            text.contains(&format!("\n# TYPE {} {}\n", metric.name, metric.kind.as_str())),
            "{}",
            metric.name
        );
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
        let ending = if metric.kind == Kind::Histogram { "_count" } else { "" };
        let series = samples
            .keys()
            .find(|series| series.split('{').next() == Some(&format!("{}{ending}", metric.name)));
        let series = series.unwrap_or_else(|| panic!("{} has no series", metric.name));
        let labels: Vec<&str> = series
            .split_once('{')
            .map(|(_, rest)| rest.split("\",").filter_map(|part| part.split('=').next()).collect())
            .unwrap_or_default();
        assert_eq!(labels, metric.label_names().collect::<Vec<_>>(), "{series}");
    }
    let types = text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(types, METRICS.len(), "nothing but the catalogue");
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
}

#[test]
fn services_are_named_unless_containers_are_wanted() {
    let mut lone = pair_row("x", "y");
    lone.src.service = None;
    lone.dst = End { kind: EndpointKind::External, name: text("203.0.113.9"), id: None, service: None };
    let mut second = pair_row("web", "db");
    second.src.name = text("web-2");
    second.src.id = Some(text("id-web-2"));
    let rows = vec![pair_row("web", "db"), second, lone];

    let samples = render(&exporter(MetricsLevel::Service, 10), &with_rows(rows.clone()));
    assert_eq!(values(&samples, "conmon_pair_flows_total", "src"), ["web", "x-1"].map(String::from).into());
    assert_eq!(
        values(&samples, "conmon_pair_flows_total", "dst"),
        ["db", "external"].map(String::from).into()
    );
    let both = r#"conmon_pair_flows_total{src="web",dst="db",tenant="shop",proto="tcp"}"#;
    assert_eq!(samples[both], 14.0, "of both containers");

    let samples = render(&exporter(MetricsLevel::Container, 10), &with_rows(rows));
    let sources = values(&samples, "conmon_pair_flows_total", "src");
    assert_eq!(sources, ["web-1", "web-2", "x-1"].map(String::from).into());
    assert_eq!(values(&samples, "conmon_port_class_bytes_total", "service"), ["web-1".to_owned()].into());
}

#[test]
fn series_are_bounded_and_those_of_the_dead_go() {
    let rows: Vec<PairRow> = (0..50).map(|i| pair_row(&format!("s{i}"), "db")).collect();
    let world = with_rows(rows);
    let exporter = exporter(MetricsLevel::Service, 5);
    let first = render(&exporter, &world);
    let sources = values(&first, "conmon_pair_bytes_total", "src");
    assert_eq!(sources.len(), 6, "{sources:?}");
    let other =
        r#"conmon_pair_bytes_total{src="other",dst="other",tenant="shop",proto="tcp",direction="sent"}"#;
    assert_eq!(first[other], 45_000.0);
    let named: Vec<String> = sources.iter().filter(|source| *source != "other").cloned().collect();

    // Ends that are gone are shown for as long as the retention, then no more; the sum of the others does not shrink.
    for row in world.rows.lock().unwrap().iter_mut() {
        row.live = false;
        row.last_seen = now() - jiff::SignedDuration::from_secs(59);
    }
    assert_eq!(render(&exporter, &world), first);
    for row in world.rows.lock().unwrap().iter_mut() {
        let is_first = row.src.service.as_deref() == Some(&named[0]);
        row.last_seen = now() - jiff::SignedDuration::from_secs(if is_first { 61 } else { 59 });
    }
    let later = render(&exporter, &world);
    assert!(!values(&later, "conmon_pair_bytes_total", "src").contains(&named[0]));
    assert_eq!(later[other], 45_000.0);
    world.rows.lock().unwrap().retain(|row| {
        let service = row.src.service.as_deref().unwrap();
        named[1..].iter().any(|name| name == service) || service == "s49"
    });
    assert_eq!(render(&exporter, &world)[other], 45_000.0, "what the forgotten had stays");
    world.rows.lock().unwrap().clear();
    let last = render(&exporter, &world);
    assert!(!last.keys().any(|series| series.starts_with("conmon_pair_")), "{last:#?}");
}

/// Whatever somebody calls a container, the text remains one.
fn hostile() -> World {
    let mut rows = Vec::new();
    for name in ["a\"b", "a\\b", "a\nb", "a}b", "ä €", "", "a\"} 1\nevil 2", "# HELP", "\u{1f980}"] {
        let mut row = pair_row("x", "y");
        row.src.service = Some(text(name));
        row.src.id = Some(text(name));
        row.tenant = text(name);
        rows.push(row);
    }
    with_rows(rows)
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    let text =
        exporter(MetricsLevel::Service, 100).render(&hostile(), &Scope::All, dropped(0), now()).unwrap();
    assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("conmon_")), "{text}");
    assert!(
        text.contains(r#"src="a\"b""#) && text.contains(r#"src="a\\b""#) && text.contains(r#"src="a\nb""#)
    );
}

/// Whether a tool of Debian's package `prometheus` is there. Where all tests are asked for it must be.
fn installed(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = there.is_ok_and(|status| status.success());
    let demanded = ["CI", "CONMON_TEST_REQUIRE_ROOT"].iter().any(|key| std::env::var_os(key).is_some());
    assert!(there || !demanded, "{tool} is not installed: apt-get install prometheus");
    if !there {
        eprintln!("SKIPPED: {tool} is not installed (apt-get install prometheus)");
    }
    there
}

fn promtool(text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    if !installed("promtool") {
        return;
    }
    let world = World::new();
    world.rows.lock().unwrap()[0].handshake_rtt.record(70_000);
    promtool(&exporter(MetricsLevel::Service, 10).render(&world, &Scope::All, dropped(0), now()).unwrap());
    promtool(&exporter(MetricsLevel::Container, 1).render(&world, &Scope::All, dropped(0), now()).unwrap());
    promtool(
        &exporter(MetricsLevel::Service, 100).render(&hostile(), &Scope::All, dropped(0), now()).unwrap(),
    );
    promtool(
        &exporter(MetricsLevel::Service, 10)
            .render(&with_rows(Vec::new()), &Scope::All, dropped(0), now())
            .unwrap(),
    );
}

/// A Prometheus of our own, ended and cleared away with the test.
struct Prometheus {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Prometheus {
    fn start(scraped: SocketAddr) -> Self {
        let folder = std::env::temp_dir().join(format!("conmond-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\nscrape_configs:\n- job_name: conmon\n  \
             static_configs: [{{targets: ['{scraped}']}}]\n"
        );
        std::fs::write(folder.join("prometheus.yml"), config).unwrap();
        // A free port; nobody else takes it in the moment until it is used again, or the test says so.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, folder, address }
    }

    fn get(&self, target: &str) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        write!(stream, "GET {target} HTTP/1.0\r\nhost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// The result of a query: labels without the name, and the value.
    fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}")).unwrap_or_default();
        let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        results
            .into_iter()
            .map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap().parse().unwrap()))
            .collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a real Prometheus has stored after a scrape is what the source had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_has_the_same_values() {
    if !installed("prometheus") {
        return;
    }
    let world = Arc::new(World::new());
    // Just now, so that the pair stays when its containers go.
    world.rows.lock().unwrap().iter_mut().for_each(|row| row.last_seen = Timestamp::now());
    let settings =
        ExporterSettings { level: MetricsLevel::Service, max_series: 10, retention: Duration::from_secs(60) };
    let server = Server::new(Arc::clone(&world) as _, settings);
    let socket = MetricsSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let scraped = socket.address();
    let (end, shutdown) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(async move { server.serve_metrics(socket, shutdown).await });

    let checked = {
        let world = Arc::clone(&world);
        tokio::task::spawn_blocking(move || compare(&Prometheus::start(scraped), &world))
    };
    checked.await.unwrap();
    end.send(true).unwrap();
    serving.await.unwrap().unwrap();
}

fn compare(prometheus: &Prometheus, world: &World) {
    let begin = Instant::now();
    let wait_for = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            let waited = begin.elapsed();
            assert!(waited < Duration::from_secs(90), "{what} after {waited:?}; log: {}", prometheus.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    wait_for("no scrape", &|| !prometheus.query("conmon_build_info").is_empty());
    let targets = prometheus.get("/api/v1/targets").unwrap();
    let target = &targets["data"]["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");

    let rows = world.pair_rows(&conmond::scope::Scope::All);
    let series = prometheus.query("conmon_pair_bytes_total");
    assert_eq!(series.len(), rows.len() * 2 * 2, "{series:?}");
    for (labels, value) in &series {
        let row = rows.iter().find(|row| labels["dst"] == *row.dst.service.as_deref().unwrap()).unwrap();
        let number = if labels["proto"] == "tcp" { 6 } else { 17 };
        let totals = row.protocols.iter().find(|one| one.protocol == number).unwrap();
        let count = if labels["direction"] == "sent" { totals.sent } else { totals.received };
        assert_eq!(*value, count.bytes as f64, "{labels}");
    }
    let [(_, sum)] = prometheus.query("conmon_pair_rtt_seconds_sum{dst=\"db\"}")[..] else {
        panic!("no sum")
    };
    assert!((sum - rows[0].rtt.sum_ns() as f64 / 1e9).abs() < 1e-12);
    // The median lies in the bucket of 2^20 ns, which 3 of 4 values have: from its edge to the next.
    let median = "histogram_quantile(0.5, sum by (le) (conmon_pair_rtt_seconds_bucket{dst=\"db\"}))";
    let [(_, median)] = prometheus.query(median)[..] else { panic!("no median") };
    assert!((0.001_048_576..=0.002_097_152).contains(&median), "{median}");
    // Kinds and help texts have come along.
    let metadata = prometheus.get("/api/v1/metadata?metric=conmon_pair_bytes_total").unwrap();
    let metadata = &metadata["data"]["conmon_pair_bytes_total"][0];
    assert_eq!(metadata["type"], "counter", "{metadata}");
    assert_eq!(metadata["help"], ippm::catalogue::PAIR_BYTES.help);

    // Counters go on, and the series of what is gone ends.
    {
        let mut rows = world.rows.lock().unwrap();
        rows[0].protocols[0].sent.bytes += 500;
        rows[1].live = false;
        rows[1].last_seen = time("2026-05-04T10:00:00Z");
    }
    let sent = "conmon_pair_bytes_total{dst=\"db\",proto=\"tcp\",direction=\"sent\"}";
    wait_for("no growth", &|| matches!(prometheus.query(sent)[..], [(_, 1500.0)]));
    wait_for("still there", &|| prometheus.query("conmon_pair_bytes_total{dst=\"cache\"}").is_empty());
    assert!(prometheus.log().is_empty(), "{}", prometheus.log());
}
