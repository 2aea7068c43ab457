//! The client against a stand-in daemon on a Unix socket.

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod answers;
#[path = "support/standin.rs"]
mod standin;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use conmon::api::{EventKind, EventsQuery, FlowsQuery, Level, PairsQuery, Protocol};
use conmon::client::{Client, ClientError};
use standin::{Behaviour, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

struct Daemon {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn daemon(behaviour: Behaviour) -> (Daemon, Client) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("conmond.sock");
    let at = socket.clone();
    let task = tokio::spawn(async move { serve(&at, behaviour).await });
    // There is a moment between a socket's appearance and its first listening.
    while tokio::net::UnixStream::connect(&socket).await.is_err() {
        assert!(!task.is_finished(), "the stand-in has ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let client = Client::new(&socket);
    (Daemon { _folder: folder, socket, task }, client)
}

#[tokio::test]
async fn every_route_is_asked_and_read() {
    let (_daemon, client) = daemon(Behaviour::default()).await;
    assert_eq!(client.health().await.expect("health"), answers::health());
    assert_eq!(client.ledger().await.expect("ledger"), answers::ledger());
    assert_eq!(client.doctor().await.expect("doctor"), answers::doctor(true));
    assert_eq!(client.status().await.expect("status").host, "lab1");
    assert_eq!(client.containers(&Default::default()).await.expect("containers").containers.len(), 4);
    assert_eq!(client.monitors().await.expect("monitors").monitors.len(), 4);
    assert_eq!(client.measurements(&Default::default()).await.expect("measurements").measurements.len(), 2);
    assert_eq!(client.metrics().await.expect("metrics"), "# no metrics\n");
}

#[tokio::test]
async fn filters_reach_the_daemon_whatever_is_in_them() {
    let (_daemon, client) = daemon(Behaviour::default()).await;
    let pairs = |query: PairsQuery| {
        let client = client.clone();
        async move { client.pairs(&query).await.expect("pairs").pairs.len() }
    };
    assert_eq!(pairs(PairsQuery::default()).await, 9);
    assert_eq!(pairs(PairsQuery { level: Some(Level::Tenant), ..PairsQuery::default() }).await, 2);
    assert_eq!(pairs(PairsQuery { src: Some("lab-wrk-1".to_owned()), ..PairsQuery::default() }).await, 3);
    let hostile = "a b&level=tenant#?/%\r\nX: y\u{1f433}".to_owned();
    assert_eq!(pairs(PairsQuery { src: Some(hostile), ..PairsQuery::default() }).await, 0);
    let flows = client.flows(&FlowsQuery { limit: Some(1), ..FlowsQuery::default() }).await.expect("flows");
    assert_eq!((flows.matched, flows.flows.len()), (4, 1));
}

#[tokio::test]
async fn events_come_whole_and_in_order() {
    let (_daemon, client) = daemon(Behaviour::default()).await;
    let mut events = client.events(&EventsQuery::default()).await.expect("a stream");
    let mut sequences = Vec::new();
    while let Some(event) = events.next().await.expect("an event") {
        sequences.push(event.sequence);
    }
    assert_eq!(sequences, [1, 2, 3]);

    let query = EventsQuery { follow: Some(true), kind: Some(EventKind::PortNamed), tenant: None };
    let mut events = client.events(&query).await.expect("a stream");
    for expected in [2, 5, 8] {
        let event = events.next().await.expect("an event").expect("the stream goes on");
        assert_eq!((event.sequence, event.kind), (expected, EventKind::PortNamed));
    }
}

#[tokio::test]
async fn no_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("conmond.sock");
    let error = Client::new(&socket).health().await.expect_err("nobody is there");
    assert!(matches!(error, ClientError::NotRunning { .. }) && error.is_unavailable());
    assert_eq!(
        error.to_string(),
        format!(
            "conmond is not running (no socket at {}): start it with `sudo conmonctl up`",
            socket.display()
        )
    );

    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let error = Client::new(&socket).health().await.expect_err("nobody listens");
    assert!(matches!(error, ClientError::NotListening { .. }) && error.is_unavailable());
}

#[tokio::test]
async fn silence_is_waited_for_only_so_long() {
    let (daemon, client) = daemon(Behaviour { mute: true, ..Behaviour::default() }).await;
    let client = client.with_timeout(Duration::from_millis(100));
    let begin = Instant::now();
    let error = client.status().await.expect_err("no answer");
    assert!(matches!(error, ClientError::Timeout { .. }) && error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("did not answer `/v1/status` within 0.1 s"), "{error}");
    assert!(matches!(client.events(&EventsQuery::default()).await, Err(ClientError::Timeout { .. })));
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(daemon);
}

#[tokio::test]
async fn answers_of_another_kind_are_told_apart_from_none() {
    let (_daemon, client) = daemon(Behaviour { nonsense: true, ..Behaviour::default() }).await;
    let error = client.pairs(&PairsQuery::default()).await.expect_err("nonsense");
    assert!(matches!(error, ClientError::Decode { .. }) && !error.is_unavailable(), "{error}");
}

/// Answers byte for byte, then hangs up.
async fn raw(answer: &'static [u8]) -> (tempfile::TempDir, Client) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("conmond.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        }
    });
    let client = Client::new(socket);
    (folder, client)
}

#[tokio::test]
async fn problems_carry_their_remedy() {
    let (_folder, client) = raw(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 62\r\n\r\n\
          {\"status\":503,\"error\":\"no maps\",\"remedy\":\"mount bpffs first\"}\n")
    .await;
    let error = client.ledger().await.expect_err("a problem");
    assert_eq!((error.to_string().as_str(), error.remedy()), ("no maps", Some("mount bpffs first")));
    assert!(!error.is_unavailable());
}

#[tokio::test]
async fn other_servers_and_broken_answers() {
    let (_folder, client) = raw(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope").await;
    let error = client.status().await.expect_err("no such route");
    assert!(matches!(error, ClientError::Refused { status: 404, .. }), "{error}");

    for answer in [&b""[..], b"220 smtp ready\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
        let (_folder, client) = raw(answer).await;
        let error = client.status().await.expect_err("no answer");
        assert!(matches!(error, ClientError::Broken { .. }) && error.is_unavailable(), "{error}");
    }
    let (_folder, client) = raw(b"HTTP/1.1 200 OK\r\n\r\n\n{\"half\":").await;
    let mut events = client.events(&EventsQuery::default()).await.expect("a stream");
    assert!(matches!(events.next().await, Err(ClientError::Decode { .. })));
}

#[tokio::test]
async fn dropping_a_stream_hangs_up() {
    let (daemon, client) = daemon(Behaviour::default()).await;
    let query = EventsQuery { follow: Some(true), ..EventsQuery::default() };
    let mut events = client.events(&query).await.expect("a stream");
    events.next().await.expect("an event");
    drop(events);
    // The daemon still serves others.
    assert_eq!(Client::new(&daemon.socket).health().await.expect("health"), answers::health());
}

/// A newer conmond that still speaks our protocol: what we do not know we pass over.
#[tokio::test]
async fn a_newer_daemon_with_a_protocol_in_common_is_understood() {
    const HEALTH: &[u8] = b"HTTP/1.1 200 OK\r\nconmon-protocol: 1-9\r\nserver: conmon/9.0.0\r\nconnection: close\r\n\r\n\
        {\"status\":\"ok\",\"version\":\"9.0.0\",\"instance\":\"default\",\"started_at\":\"2030-01-01T00:00:00Z\",\
        \"protocol\":{\"min\":1,\"max\":9,\"preferred\":7},\"problems\":[],\"mood\":{\"colour\":\"blue\"}}\n";
    let (_folder, client) = raw(HEALTH).await;
    let health = client.health().await.expect("understood");
    assert_eq!((health.version.as_str(), health.protocol.max), ("9.0.0", 9));
}

/// One from before protocols were told.
#[tokio::test]
async fn an_older_daemon_that_tells_no_protocol_is_understood() {
    const HEALTH: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
        {\"status\":\"ok\",\"version\":\"0.0.9\",\"instance\":\"default\",\"started_at\":\"2026-01-01T00:00:00Z\",\"problems\":[]}\n";
    let (_folder, client) = raw(HEALTH).await;
    assert_eq!(client.health().await.expect("understood").protocol, Protocol::FIRST);
}

#[tokio::test]
async fn a_daemon_without_a_protocol_in_common_is_named_and_not_used() {
    for (answer, theirs) in [
        (&b"HTTP/1.1 200 OK\r\nconmon-protocol: 7-9\r\nserver: conmon/9.0.0\r\ncontent-length: 2\r\n\r\n{}"[..], "7-9"),
        (b"HTTP/1.1 503 Busy\r\nconmon-protocol: 7-9\r\nserver: conmon/9.0.0\r\ncontent-length: 2\r\n\r\n{}", "7-9"),
    ] {
        let (_folder, client) = raw(answer).await;
        let error = client.status().await.expect_err("not used");
        assert!(matches!(error, ClientError::Version { .. }) && !error.is_unavailable(), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(&format!("(conmon/9.0.0) speaks protocol {theirs}, and this version (conmon/")), "{said}");
        assert!(said.ends_with("1-1: update the older of the two"), "{said}");
        let stream = client.events(&EventsQuery::default()).await.expect_err("nor its stream");
        assert!(matches!(stream, ClientError::Version { .. }), "{stream:?}");
    }
    let (_folder, client) =
        raw(b"HTTP/1.1 200 OK\r\nconmon-protocol: banana\r\ncontent-length: 2\r\n\r\n{}").await;
    assert!(matches!(client.status().await, Err(ClientError::Version { .. })));
}

#[tokio::test]
async fn questions_go_in_the_body() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("conmond.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"[1,2]") {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).await.expect("a request");
            assert!(count > 0, "the request ends early: {}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&part[..count]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3").await.expect("answered");
        String::from_utf8(request).expect("text").to_ascii_lowercase()
    });
    let sum: u32 = Client::new(socket).ask("/v1/sum", &[1, 2]).await.expect("an answer");
    let asked = asked.await.expect("asked");
    assert_eq!(sum, 3);
    assert!(
        asked.starts_with("post /v1/sum http/1.1\r\n") && asked.contains("content-length: 5\r\n"),
        "{asked}"
    );
}
