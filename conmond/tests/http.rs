//! The HTTP server as a peer sees it: every route, every slip, and peers that do not behave.

#[path = "http/source.rs"]
mod source;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use conmon::api::{self, ApiError, Event, EventKind, path};
use conmond::config::MetricsLevel;
use conmond::export::prometheus::ExporterSettings;
use conmond::http::{ApiSocket, ListenError, MAX_CONNECTIONS, MAX_STREAMS, MetricsSocket, Server};
use serde_json::Value;
use source::World;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("conmond-http-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("conmond.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings() -> ExporterSettings {
    ExporterSettings { level: MetricsLevel::Service, max_series: 100, retention: Duration::from_secs(60) }
}

/// A server on a socket, ended with the test.
struct Running {
    folder: Folder,
    world: Arc<World>,
    server: Server,
    end: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn start(world: World) -> Self {
        Self::start_with(world, Duration::from_secs(5), Duration::from_secs(5))
    }

    fn start_with(world: World, answer: Duration, stall: Duration) -> Self {
        let folder = Folder::new();
        let world = Arc::new(world);
        let server = Server::with_timeouts(Arc::clone(&world) as _, settings(), answer, stall);
        let socket = ApiSocket::bind(&folder.socket(), None).unwrap();
        let (end, shutdown) = watch::channel(false);
        let task = {
            let server = server.clone();
            tokio::spawn(async move { server.serve_unix(socket, shutdown).await })
        };
        Self { folder, world, server, end, task }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.socket()).await.unwrap()
    }

    async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1\r\nhost: conmon\r\nconnection: close\r\n\r\n")).await
    }

    /// A stream of events, with its head read.
    async fn follow(&self, query: &str) -> BufReader<UnixStream> {
        let mut stream = BufReader::new(self.connect().await);
        let request = format!("GET /v1/events?follow=true{query} HTTP/1.1\r\nhost: conmon\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "the head ended early");
        }
        stream
    }

    /// Ends the server and tells how long that took.
    async fn stop(self) -> Duration {
        let begin = Instant::now();
        self.end.send(true).unwrap();
        self.task.await.unwrap().unwrap();
        let took = begin.elapsed();
        assert!(!self.folder.socket().exists(), "the socket is gone");
        took
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    async fn read(stream: &mut UnixStream) -> Self {
        let mut bytes = Vec::new();
        timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
        Self { status, head: head.to_owned(), body }
    }

    fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn problem(&self) -> (u16, String, String) {
        let problem: ApiError = self.json();
        assert_eq!(problem.status, self.status);
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        (problem.status, problem.error, problem.remedy.unwrap_or_default())
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        whole += &rest[..length];
        body = &rest[length + 2..];
        if length == 0 {
            return whole;
        }
    }
}

/// The next event of a stream; lines that are none (chunk sizes, keep-alive) are passed over.
async fn next_event(stream: &mut BufReader<UnixStream>) -> Option<Event> {
    loop {
        let mut line = String::new();
        if timeout(Duration::from_secs(10), stream.read_line(&mut line)).await.unwrap().unwrap() == 0 {
            return None;
        }
        if let Ok(event) = serde_json::from_str(&line) {
            return Some(event);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_in_its_type() {
    let server = Running::start(World::new());
    let containers: api::ContainersAnswer = server.get("/v1/containers?tenant=shop").await.json();
    assert_eq!(containers.containers.len(), 1);
    let none: api::ContainersAnswer = server.get("/v1/containers?tenant=else").await.json();
    assert!(none.containers.is_empty());
    let _: api::MonitorsAnswer = server.get(path::MONITORS).await.json();
    let _: api::PairsAnswer = server.get("/v1/pairs?level=service").await.json();
    let flows: api::FlowsAnswer = server.get("/v1/flows?protocol=tcp&state=active&limit=1").await.json();
    assert_eq!(flows.matched, 1);
    let _: api::MeasurementsAnswer =
        server.get("/v1/measurements?metric=conmon_pair_rtt_seconds").await.json();
    let _: api::Status = server.get(path::STATUS).await.json();
    let _: api::DoctorAnswer = server.get(path::DOCTOR).await.json();
    let health = server.get(path::HEALTH).await;
    assert_eq!((health.status, health.json::<api::Health>().status), (200, api::HealthState::Ok));
    assert!(health.body.ends_with("}\n"), "a line for a terminal");
    let document: Value = server.get(path::OPENAPI).await.json();
    assert_eq!(document, serde_json::to_value(conmon::openapi()).unwrap());
    let metrics = server.get(path::METRICS).await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert!(metrics.body.contains("conmon_build_info{"));

    let (status, error, remedy) = server.get(path::LEDGER).await.problem();
    assert_eq!((status, error.as_str()), (503, "the taps were not read yet"));
    assert_eq!(remedy, "ask again in a second");
    server.world.starting.store(true, Ordering::Relaxed);
    let health = server.get(path::HEALTH).await;
    assert_eq!((health.status, health.json::<api::Health>().status), (503, api::HealthState::Starting));
    assert!(server.stop().await < Duration::from_secs(1));
}

/// Each path of the OpenAPI document is served, and its parameters are known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_document_promises_is_there() {
    let server = Running::start(World::new());
    let document = serde_json::to_value(conmon::openapi()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        assert_ne!(server.get(path).await.status, 404, "{path}");
        for parameter in methods["get"]["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let answer = server.get(&format!("{path}?{name}=1")).await;
            assert!(!answer.body.contains("has no parameter"), "{path} {name}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slips_get_a_remedy() {
    let server = Running::start(World::new());
    for (target, status, error, remedy) in [
        ("/v1/pair", 404, "the API has no path `/v1/pair`", "did you mean `/v1/pairs`?"),
        ("/v1/pairs/", 404, "the API has no path `/v1/pairs/`", "did you mean `/v1/pairs`?"),
        ("/flows", 404, "the API has no path `/flows`", "did you mean `/v1/flows`?"),
        ("/v1/metrics", 404, "the API has no path `/v1/metrics`", "did you mean `/metrics`?"),
        (
            "/v1/pairs?sort=x",
            400,
            "/v1/pairs has no parameter `sort`",
            "/v1/pairs takes `src`, `dst`, `tenant`, `level`, `histograms`",
        ),
        ("/v1/health?x=1", 400, "/v1/health has no parameter `x`", "/v1/health takes none"),
        ("/v1/flows?state=open", 400, "`state` cannot be `open`", "give one of `active`, `ended`"),
        (
            "/v1/flows?protocol=TPC",
            400,
            "there is no protocol `TPC`",
            "did you mean `tcp`? protocols are written like `tcp`, `udp`, `icmp`, or `ip-N` with the number",
        ),
        (
            "/v1/measurements?metric=conmon_pair_byte_total",
            400,
            "there is no metric `conmon_pair_byte_total`",
            "did you mean `conmon_pair_bytes_total`? docs/metrics.md lists them",
        ),
    ] {
        let problem = server.get(target).await.problem();
        assert_eq!(problem, (status, error.to_owned(), remedy.to_owned()), "{target}");
    }
    let (_, _, remedy) = server.get("/").await.problem();
    assert!(remedy.contains("/v1/pairs"), "{remedy}");
    let udp = server.get("/v1/flows?protocol=udp").await;
    assert_eq!(udp.status, 200, "a protocol that exists and nobody uses");

    let post = server
        .ask("POST /v1/pairs HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
        .await;
    assert!(post.head.contains("allow: GET, HEAD"), "{}", post.head);
    let (status, error, _) = post.problem();
    assert_eq!((status, error.as_str()), (405, "/v1/pairs cannot be asked with POST"));
    let head = server.ask("HEAD /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_request_end_the_connection() {
    let server = Running::start(World::new());
    for garbage in [
        "\r\n\r\n\r\n".repeat(100),
        "\0\0\0\0\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
        format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(20_000)),
        "GET /v1/pairs HTTP/9.9\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\x00\x01\x00".repeat(1000),
    ] {
        let mut stream = server.connect().await;
        // The server may hang up before it has read everything.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("an end");
        assert!(answer.len() < 1000);
    }
    assert_eq!(server.get(path::HEALTH).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_come_ends_the_connection() {
    let server = Running::start(World::new());
    let mut silent = server.connect().await;
    let mut half = server.connect().await;
    half.write_all(b"GET /v1/he").await.unwrap();
    let begin = Instant::now();
    for stream in [&mut silent, &mut half] {
        let mut answer = Vec::new();
        timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    }
    assert!(begin.elapsed() > Duration::from_secs(5), "but not at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recent_and_live_events_come_in_order_and_once() {
    let server = Running::start(World::new());
    for sequence in 1..=5 {
        server.world.happen(sequence, EventKind::PortTapped, "shop");
    }
    server.world.happen(6, EventKind::FlowBegun, "else");
    let recent = server.get(path::EVENTS).await;
    assert!(recent.head.contains("content-type: application/x-ndjson"), "{}", recent.head);
    let sequences = |body: &str| -> Vec<u64> {
        body.lines().map(|line| serde_json::from_str::<Event>(line).unwrap().sequence).collect()
    };
    assert_eq!(sequences(&recent.body), [1, 2, 3, 4, 5, 6]);
    assert_eq!(sequences(&server.get("/v1/events?tenant=else").await.body), [6]);
    assert_eq!(sequences(&server.get("/v1/events?kind=port_tapped").await.body), [1, 2, 3, 4, 5]);
    assert_eq!(
        server.get("/v1/events?kind=port_taped").await.problem().2.find("did you mean `port_tapped`?"),
        Some(0)
    );

    let mut stream = server.follow("&tenant=shop").await;
    server.world.happen(7, EventKind::FlowBegun, "else");
    server.world.happen(8, EventKind::FlowBegun, "shop");
    for expected in [1, 2, 3, 4, 5, 8] {
        assert_eq!(next_event(&mut stream).await.unwrap().sequence, expected);
    }
    let end = tokio::spawn(async move { next_event(&mut stream).await });
    assert!(server.stop().await < Duration::from_secs(1));
    assert_eq!(end.await.unwrap(), None, "the stream ends with the daemon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_told_what_it_missed_and_delays_nobody() {
    let server = Running::start(World::with_capacity(16).padded(4000));
    let mut slow = server.follow("").await;
    let mut fast = server.follow("").await;
    let total = 2000;
    for sequence in 1..=total {
        server.world.happen(sequence, EventKind::FlowBegun, "shop");
        let event = next_event(&mut fast).await.unwrap();
        assert_eq!((event.sequence, event.kind), (sequence, EventKind::FlowBegun), "the fast one has all");
    }
    let (mut seen, mut missed) = (0, 0);
    while seen < total {
        let event = next_event(&mut slow).await.unwrap();
        if event.kind == EventKind::Dropped {
            missed += event.dropped.unwrap();
            assert_eq!(event.sequence, seen + event.dropped.unwrap(), "the number of the last one missing");
        } else {
            assert_eq!(event.sequence, seen + 1);
        }
        seen = event.sequence;
    }
    assert!(missed > 1000, "{missed}");
    assert_eq!(server.server.dropped_streams(), 0, "it read in the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stopped_is_dropped_and_counted() {
    let patience = Duration::from_millis(300);
    let world = World::with_capacity(16).padded(4000);
    let server = Running::start_with(world, Duration::from_secs(5), patience);
    let stopped = server.follow("").await;
    let begin = Instant::now();
    let mut sequence = 0;
    while server.server.dropped_streams() == 0 {
        sequence += 1;
        server.world.happen(sequence, EventKind::FlowBegun, "shop");
        sleep(Duration::from_millis(1)).await;
        assert!(begin.elapsed() < Duration::from_secs(10), "still there");
    }
    assert_eq!(server.world.readers(), 0, "nothing is held for it");
    let metrics = server.get(path::METRICS).await.body;
    assert!(metrics.contains("\nconmon_api_dropped_streams_total 1\n"), "{metrics}");
    drop(stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_is_given_up() {
    let world = World::new().padded(20 << 20);
    let server = Running::start_with(world, Duration::from_secs(20), Duration::from_millis(300));
    let mut stream = server.connect().await;
    stream.write_all(b"GET /v1/flows HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    sleep(Duration::from_millis(900)).await;
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("an end");
    assert!(rest.len() < 20 << 20, "it was cut off: {}", rest.len());
    assert_eq!(server.server.dropped_streams(), 0, "it was no live stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_streams_and_connections_are_refused_at_once() {
    let server = Running::start(World::new());
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(server.follow("").await);
    }
    let (status, error, remedy) = server.get("/v1/events?follow=true").await.problem();
    assert_eq!((status, error.as_str()), (503, "16 event streams are open, which is the limit"));
    assert_eq!(remedy, "end one of them");
    drop(streams.pop());
    let begin = Instant::now();
    while server.get("/v1/events").await.status != 200 {
        assert!(begin.elapsed() < Duration::from_secs(5), "the place is free again");
        sleep(Duration::from_millis(10)).await;
    }

    let mut open = Vec::new();
    for _ in streams.len()..MAX_CONNECTIONS {
        open.push(server.connect().await);
    }
    sleep(Duration::from_millis(100)).await;
    let mut refused = server.connect().await;
    let answer = Answer::read(&mut refused).await;
    let (status, error, _) = answer.problem();
    assert_eq!((status, error.as_str()), (503, "too many connections are open"));
    drop(open);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(server.get(path::HEALTH).await.status, 200);
    assert!(server.stop().await < Duration::from_secs(1), "with open streams");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_hangs_or_fails_does_not_take_the_server_along() {
    let server = Running::start_with(World::new(), Duration::from_secs(2), Duration::from_secs(5));
    let (status, error, _) = server.get("/v1/pairs?tenant=panic").await.problem();
    assert_eq!((status, error.as_str()), (500, "conmond could not put the answer together"));

    server.world.hang(true);
    let (status, error, _) = server.get("/v1/pairs?tenant=hang").await.problem();
    assert_eq!((status, error.as_str()), (503, "no answer within 2 s"));
    assert_eq!(server.get("/v1/pairs").await.status, 200, "others are served");
    let mut asked = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET /v1/pairs?tenant=hang HTTP/1.1\r\nconnection: close\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        asked.push(stream);
    }
    for stream in &mut asked {
        assert_eq!(Answer::read(stream).await.status, 503);
    }
    assert_eq!(
        server.get(path::HEALTH).await.problem().0,
        500,
        "all calls hang: nobody can say that all is well"
    );
    assert_eq!(server.get("/v1/nothing").await.status, 404, "the server itself answers");
    server.world.hang(false);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(server.get(path::HEALTH).await.status, 200);

    server.world.hang(true);
    let mut waiting = server.connect().await;
    waiting.write_all(b"GET /v1/pairs?tenant=hang HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let world = Arc::clone(&server.world);
    let took = server.stop().await;
    world.hang(false);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_port_serves_metrics_and_nothing_else() {
    let server = Server::new(Arc::new(World::new()), settings());
    let socket = MetricsSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.address();
    let (end, shutdown) = watch::channel(false);
    let task = tokio::spawn(async move { server.serve_metrics(socket, shutdown).await });
    let ask = async |target: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    assert!(ask("/metrics").await.starts_with("HTTP/1.1 200"));
    assert!(ask("/metrics?from=prometheus").await.starts_with("HTTP/1.1 200"));
    for target in ["/v1/pairs", "/v1/status", "/"] {
        let text = ask(target).await;
        assert!(text.starts_with("HTTP/1.1 404") && text.contains("/metrics"), "{target}: {text}");
    }
    drop(end);
    timeout(Duration::from_secs(1), task).await.expect("ends when nobody could end it").unwrap().unwrap();

    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9477"] {
        let error = MetricsSocket::bind(address.parse().unwrap()).unwrap_err();
        assert!(matches!(error, ListenError::NotLoopback { .. }), "{error}");
        assert!(error.to_string().contains("listen on 127.0.0.1:"), "{error}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_socket_is_for_root_and_its_group() {
    let folder = Folder::new();
    let own_group = fs::metadata(&folder.0).unwrap().gid();
    let socket = ApiSocket::bind(&folder.socket(), Some(own_group)).unwrap();
    let metadata = fs::metadata(socket.path()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!((mode(socket.path()), metadata.gid()), (0o660, own_group));
    assert_eq!(mode(&folder.0.join("conmond.sock.lock")), 0o600);
    drop(socket);
    assert!(!folder.socket().exists());
}

#[test]
fn only_the_socket_of_a_dead_daemon_is_replaced() {
    let folder = Folder::new();
    let path = folder.socket();

    let alive = ApiSocket::bind(&path, None).unwrap();
    let error = ApiSocket::bind(&path, None).unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    assert!(path.exists());
    drop(alive);

    // One that knows nothing of the lock.
    let stranger = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert!(matches!(ApiSocket::bind(&path, None).unwrap_err(), ListenError::InUse { .. }));
    drop(stranger);
    assert!(path.exists(), "left behind, as by a kill -9");
    let replaced = ApiSocket::bind(&path, None).unwrap();
    std::os::unix::net::UnixStream::connect(&path).unwrap();

    // Somebody else's file in its place is not ours to remove.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    drop(replaced);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert!(matches!(ApiSocket::bind(&path, None).unwrap_err(), ListenError::NoSocket { .. }));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/nowhere", &path).unwrap();
    assert!(matches!(ApiSocket::bind(&path, None).unwrap_err(), ListenError::NoSocket { .. }));
}

#[test]
fn a_place_that_is_kept_is_nobodys() {
    let folder = Folder::new();
    let path = folder.socket();
    let lock = ApiSocket::bind(&path, None).unwrap().into_lock().unwrap();
    assert!(!path.exists(), "there is nobody to ask");
    assert!(matches!(ApiSocket::bind(&path, None).unwrap_err(), ListenError::InUse { .. }));
    drop(lock);
    assert!(ApiSocket::bind(&path, None).is_ok());
}

#[test]
fn what_cannot_be_bound_is_told() {
    let folder = Folder::new();
    let long = folder.0.join("x".repeat(110));
    assert!(matches!(ApiSocket::bind(&long, None).unwrap_err(), ListenError::PathTooLong { .. }));
    let error = ApiSocket::bind(&folder.0.join("missing/conmond.sock"), None).unwrap_err();
    assert!(error.to_string().contains("missing/conmond.sock.lock: No such file"), "{error}");
}

/// Of many that start at the same time over a stale socket, one serves and the others say so.
#[test]
fn one_of_many_wins_a_stale_socket() {
    let folder = Folder::new();
    let path = folder.socket();
    for _ in 0..20 {
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| ApiSocket::bind(&path, None))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = bound.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(lost.iter().all(|lost| matches!(lost, Err(ListenError::InUse { .. }))));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(won);
        assert!(!path.exists());
    }
}
