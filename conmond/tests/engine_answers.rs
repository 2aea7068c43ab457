//! Answers that no engine should give: wrong, huge, slow, cut. What is said of each, that it ends in time and within bounds,
//! and that the next good answer is taken as if nothing had been.

#[path = "engine_answers/fake.rs"]
mod fake;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conmond::runtime::{ContainerAction, EngineEvent, Runtime, RuntimeError};
use fake::{Fake, ID, NETWORK, Reply, chunked, event, json, status};
use tokio::sync::RwLock;

/// What one test does to memory is not another's.
static MEMORY: RwLock<()> = RwLock::const_new(());
/// The bounds of a list, of one thing, and of the rest (`transport.rs`).
const LIST: usize = 64 << 20;
const ONE: usize = 16 << 20;
const FEW: usize = 4 << 20;

fn runtime(fake: &Fake) -> Runtime {
    Runtime::new(Some(&fake.address()), "hostile").expect("a runtime")
}

/// An error with its reasons.
fn sentence(error: &RuntimeError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(reason) = next {
        text = format!("{text}: {reason}");
        next = reason.source();
    }
    text
}

/// All that the runtime asks of an engine without being told to change something; `wanted` is what it is asked of `path`.
async fn asked(runtime: &Runtime, path: &str) -> Result<(), RuntimeError> {
    match path {
        "/version" => runtime.connect().await.map(drop),
        "/networks/NET" => runtime.network_endpoints(NETWORK).await.map(drop),
        "/containers/ID/json" => runtime.network_mode(ID).await.map(drop),
        "/containers/ID/stats" => runtime.monitor_usage(ID).await.map(drop),
        "/images/json" => runtime.remove_other_images("none").await.map(drop),
        _ => runtime.snapshot().await.map(drop),
    }
}

const PATHS: [&str; 7] = [
    "/version",
    "/containers/json",
    "/networks",
    "/networks/NET",
    "/containers/ID/json",
    "/containers/ID/stats",
    "/images/json",
];

/// Every question meets every misbehaviour, and after each a good answer.
#[tokio::test(flavor = "multi_thread")]
async fn every_question_survives_every_wrong_answer() {
    let _shared = MEMORY.read().await;
    let whole = json("{\"some\": \"thing\"}");
    let table: Vec<(&str, Reply, &[&str])> = vec![
        (
            "500 with text",
            status(500, "the disk is on fire\u{1b}[2J"),
            &["status code 500: the disk is on fire\u{fffd}[2J"],
        ),
        ("500 with much text", status(500, &"x".repeat(3 << 20)), &["status code 500: xxxx", "x…"]),
        (
            "500 with a message",
            status(500, r#"{"message":"no\nspace"}"#),
            &["status code 500: no\u{fffd}space"],
        ),
        ("403 of a guard", status(403, "<html>"), &["forbids to"]),
        (
            "a redirection",
            Reply::raw("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"),
            &["status code 302"],
        ),
        (
            "HTML",
            json("<html><body>Welcome to nginx!</body></html>"),
            &["does not answer as an engine", "expected value"],
        ),
        ("nothing", json(""), &["does not answer as an engine", "EOF"]),
        ("null", json("null"), &["does not answer as an engine"]),
        ("a number", json("-7e308"), &["does not answer as an engine"]),
        ("nested deeply", json(&"[".repeat(1 << 20)), &["does not answer as an engine"]),
        ("things nested deeply", json(&"{\"Id\":".repeat(1 << 18)), &["does not answer as an engine"]),
        ("cut JSON", json("[{\"Id\": \"a\", \"Names\": [\"/x"), &["does not answer as an engine"]),
        (
            "not UTF-8",
            Reply::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[\"\xff\xfe\xfd\xfc\"]]"),
            &["does not answer as an engine"],
        ),
        (
            "no HTTP",
            Reply::raw("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n\r\n"),
            &["does not answer as an engine", "invalid HTTP"],
        ),
        (
            "headers without end",
            Reply::endless("HTTP/1.1 200 OK\r\n", "X-Pad: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"),
            &["does not answer as an engine"],
        ),
        (
            "a bad length",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n[]"),
            &["does not answer as an engine", "content-length"],
        ),
        ("closed at once", Reply::raw(""), &["the engine failed to", "closed before message completed"]),
        ("closed in the head", Reply::raw("HTTP/1.1 200 OK\r\nConte"), &["the engine failed to"]),
        ("closed in the body", whole.cut(5), &["the engine failed to", "error reading a body"]),
        (
            "a cut chunk",
            chunked("[{\"Id\":").without_end(),
            &["the engine failed to", "error reading a body"],
        ),
        (
            "a bad chunk",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n"),
            &["the engine failed to"],
        ),
        (
            "a huge chunk",
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n[]"),
            &["the engine failed to"],
        ),
        (
            "a length of all memory",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n["),
            &["the engine failed to"],
        ),
    ];
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    runtime.connect().await.expect("a good engine");
    for path in PATHS {
        for (name, reply, wanted) in &table {
            // Podman's word for a container that does not run
            if (path, *name) == ("/containers/ID/stats", "nothing") {
                continue;
            }
            fake.misbehave(path, reply.clone());
            let begun = Instant::now();
            let outcome = asked(&runtime, path).await;
            // a network that cannot be shown hides no other thing, so it is asked for itself
            let error = outcome.expect_err(&format!("{path}: {name}"));
            let text = sentence(&error);
            for part in *wanted {
                assert!(text.contains(part), "{path}: {name}: {text}");
            }
            assert!(text.len() < 1500 && !text.contains(char::is_control), "{path}: {name}: {text}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{path}: {name} took {:?}", begun.elapsed());
            fake.behave();
            good(&runtime, &format!("{path} after {name}")).await;
        }
    }
    fake.no_connection_remains().await;
}

/// A good engine is understood.
async fn good(runtime: &Runtime, when: &str) {
    let version = runtime.connect().await.unwrap_or_else(|error| panic!("{when}: {}", sentence(&error)));
    assert_eq!((version.engine.as_str(), version.api.as_str()), ("29.1.0", "1.52"), "{when}");
    let all = runtime.snapshot().await.unwrap_or_else(|error| panic!("{when}: {}", sentence(&error)));
    let names: Vec<_> = all.containers.iter().map(|c| (c.name.as_str(), c.networks.len())).collect();
    assert_eq!(names, [("one", 1), ("two", 1)], "{when}");
    let members = runtime.network_endpoints(NETWORK).await.expect(when).expect(when);
    assert_eq!(members.endpoints.len(), 2, "{when}");
}

/// Wrong types: a list for a thing, a thing for a list, a number for a text.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_are_refused_or_left_out() {
    let _shared = MEMORY.read().await;
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    for (path, body) in [
        ("/containers/json", "{}"),
        ("/containers/json", "[1, \"two\", null, [], {}]"),
        ("/containers/json", "[{\"Id\": 7}, {\"Id\": null}]"),
        ("/networks", "{\"Id\": \"a\"}"),
        ("/networks", "[null]"),
        ("/networks/NET", "[]"),
        ("/networks/NET", "[[]]"),
        ("/containers/ID/json", "[]"),
        ("/containers/ID/stats", "\"none\""),
        ("/version", "[]"),
        ("/version", "{}"),
        ("/version", "{\"ApiVersion\": 1.52}"),
        ("/version", "{\"ApiVersion\": \"one\"}"),
        ("/version", "{\"ApiVersion\": \"99999999999999999999.1\"}"),
    ] {
        fake.misbehave(path, json(body));
        let error = asked(&runtime, path).await.expect_err(body);
        assert!(matches!(error, RuntimeError::Nonsense { .. }), "{path}: {body}: {error:?}");
        fake.behave();
        good(&runtime, body).await;
    }
    // one bad entry, one bad field
    let list = format!(
        r#"[7, {{"Id": "../../x", "Names": ["/evil"]}}, {{"Id": "{ID}", "Names": ["/a\u001b[2J"], "State": "levitating",
            "Labels": {{"conmon.tenant": "blue", "bad": 7}}, "Created": 9223372036854775807,
            "NetworkSettings": {{"Networks": {{"front": {{"NetworkID": "{NETWORK}", "EndpointID": "e1",
            "IPAddress": "999.0.0.1", "MacAddress": 5, "Gateway": "0.0.0.0"}}, "x": {{"NetworkID": "../x", "EndpointID": "e2"}}}}}}}},
            {{"Id": "{ID}", "Names": ["/again"]}}]"#
    );
    fake.misbehave("/containers/json", json(&list));
    // ... and a network of which nothing can be read
    fake.also("/networks/NET", json("null"));
    let all = runtime.snapshot().await.expect("the others");
    let [one] = &all.containers[..] else { panic!("{all:?}") };
    assert_eq!((one.name.as_str(), one.policy.tenant.as_str()), ("a\u{fffd}[2J", "blue"));
    assert_eq!((one.created_at, one.networks.len()), (None, 1));
    let place = &one.networks[0];
    assert_eq!((place.addresses.len(), place.mac, place.gateway), (0, None, None));
    assert_eq!(all.networks.len(), 1);
    // a network's members, one of whom makes no sense, two of whom have one address
    let other = "b".repeat(64);
    let network = format!(
        r#"{{"Id": "{NETWORK}", "Name": "front", "Driver": "bridge", "Options": {{"com.docker.network.bridge.name": "../../etc"}},
            "IPAM": {{"Config": [{{"Subnet": "10.5.0.0/24", "Gateway": 7}}, {{"Subnet": "\u001b[2J"}}]}}, "Containers": {{
            "{ID}": {{"Name": "one", "MacAddress": "02:42:0a:05:00:02", "IPv4Address": "10.5.0.2/24"}}, "c": 9, "": {{"EndpointID": "e"}},
            "../x": {{"EndpointID": "e"}}, "{other}": {{"EndpointID": "e", "IPv4Address": "10.5.0.2/24"}}}}}}"#
    );
    fake.behave();
    fake.misbehave("/networks/NET", json(&network));
    let members = runtime.network_endpoints(NETWORK).await.expect("an answer").expect("a network");
    assert_eq!((members.network.bridge, members.network.gateways.len()), (None, 0));
    assert_eq!(members.network.subnets, ["10.5.0.0/24"]);
    let mut ids: Vec<_> =
        members.endpoints.iter().map(|e| (e.container_id.as_str(), e.addresses.len())).collect();
    ids.sort_unstable();
    assert_eq!(ids, [(&other[..], 1), (ID, 1)]);
    // asking for what has no identifier's form asks for nothing
    let before = fake.requests();
    assert_eq!(runtime.network_mode("../../containers/json?x=").await.expect("no question"), None);
    assert_eq!(runtime.network_endpoints("").await.expect("no question"), None);
    assert_eq!(fake.requests(), before);
    for key in ["relative/ns/x", "/proc/../etc/x", ""] {
        fake.behave();
        fake.misbehave(
            "/containers/ID/json",
            json(&format!(r#"{{"NetworkSettings": {{"SandboxKey": "{key}"}}}}"#)),
        );
        assert_eq!(runtime.sandbox(ID).await.expect("an answer"), None, "{key}");
    }
}

/// Octets of this process that were resident at the most since `forget`.
fn peak() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn forget() {
    std::fs::write("/proc/self/clear_refs", "5").expect("clear_refs");
}

/// Bodies without end cost their bound, and not more. By one thread, as in the daemon.
#[tokio::test]
async fn endless_answers_end_at_their_bound() {
    let _alone = MEMORY.write().await;
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    runtime.connect().await.expect("a good engine");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bodies = [
        ("a text", Reply::endless(&format!("{head}[\""), "xxxxxxxx")),
        ("one chunk", Reply::endless(&format!("{chunks}ffffffffff\r\n["), "        ")),
        ("chunks", Reply::endless(chunks, &format!("1000\r\n{}\r\n", " ".repeat(0x1000)))),
        ("crumbs", Reply::endless(chunks, "1\r\n \r\n")),
        ("error", Reply::endless("HTTP/1.1 500 Oh\r\n\r\n", "oh no! ")),
        ("provisional answers", Reply::endless("", "HTTP/1.1 100 Continue\r\n\r\n")),
    ];
    for path in PATHS {
        let bound = match path {
            "/version" => FEW,
            "/containers/json" | "/networks" | "/images/json" => LIST,
            _ => ONE,
        };
        // crumbs take long: larger answers of them end by their time
        for (name, reply) in bodies.iter().filter(|(name, _)| *name != "crumbs" || path == "/version") {
            fake.misbehave(path, reply.clone());
            forget();
            let (before, begun) = (peak(), Instant::now());
            let error = asked(&runtime, path).await.expect_err(path);
            let grown = peak().saturating_sub(before);
            println!("{path}, {name}: {} MiB in {:?}: {error}", grown >> 20, begun.elapsed());
            let RuntimeError::TooMuch { octets, .. } = error else { panic!("{path}: {name}: {error:?}") };
            assert_eq!(octets as usize, bound, "{path}: {name}");
            // the fake engine's own is some; bollard keeps each crumb by itself
            let most = if *name == "crumbs" { 16 * bound } else { 2 * bound + (16 << 20) };
            assert!(grown < most, "{path}: {name}: {grown}");
            fake.no_connection_remains().await;
            fake.behave();
        }
        good(&runtime, path).await;
    }
    let text = sentence(&RuntimeError::TooMuch { what: "list containers", octets: LIST as u64 });
    assert!(text.contains("asked to list containers, the engine sent more than 64 MiB"), "{text}");
}

/// More containers than any host has.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_containers_are_no_answer() {
    let _alone = MEMORY.write().await;
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    let list = |count: usize, pad: usize| {
        let pad = "x".repeat(pad);
        let entries: Vec<_> = (0..count).map(|n| format!(r#"{{"Id":"c{n:07}","Image":"{pad}"}}"#)).collect();
        json(&format!("[{}]", entries.join(",")))
    };
    for (count, pad, wanted) in
        [(1_000_000, 1, "a list of more than 100000"), (1_000_000, 64, "more than 64 MiB")]
    {
        fake.misbehave("/containers/json", list(count, pad));
        forget();
        let before = peak();
        let error = runtime.snapshot().await.expect_err("too many");
        let grown = peak().saturating_sub(before);
        println!("{count} containers: {} MiB: {error}", grown >> 20);
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(grown < 2 * LIST, "{grown}");
    }
    // as many as conmond is made for, of a usual size
    fake.misbehave("/containers/json", list(10_000, 2_000));
    let begun = Instant::now();
    let all = runtime.snapshot().await.expect("all");
    println!("10,000 containers in {:?}", begun.elapsed());
    assert_eq!(all.containers.len(), 10_000);
    fake.behave();
    good(&runtime, "after a million").await;
}

/// An octet a second, or nothing at all: the call ends by its bound. Time is the test's own and goes on when nobody has
/// anything to do.
#[tokio::test(start_paused = true)]
async fn slow_answers_end_in_time() {
    let _shared = MEMORY.read().await;
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    runtime.connect().await.expect("a good engine");
    let replies = [
        ("nothing", Reply::raw("").and_wait()),
        ("a head", Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").and_wait()),
        ("a slow head", Reply::slow("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")),
        (
            "a slow body",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n").and_slowly(&" ".repeat(60)),
        ),
    ];
    for path in PATHS {
        for (name, reply) in &replies {
            fake.misbehave(path, reply.clone());
            let begun = tokio::time::Instant::now();
            let error = asked(&runtime, path).await.expect_err(path);
            assert!(matches!(error, RuntimeError::NoAnswer { seconds: 10, .. }), "{path}: {name}: {error:?}");
            let took = begun.elapsed();
            assert!((10..21).contains(&took.as_secs()), "{path}: {name}: {took:?}");
            fake.no_connection_remains().await;
            fake.behave();
            good(&runtime, &format!("{path} after {name}")).await;
        }
    }
}

/// What the watch has told, until it told of this.
async fn watched(
    runtime: &Runtime,
    last: impl Fn(&EngineEvent) -> bool + Send + Sync + 'static,
) -> Vec<EngineEvent> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (end, ended) = tokio::sync::oneshot::channel();
    let (sink, runtime, mut end) = (told.clone(), runtime.clone(), Some(end));
    let watch = tokio::spawn(async move {
        let tell = move |event: EngineEvent| {
            let is_last = last(&event);
            sink.lock().expect("events").push(event);
            if is_last && let Some(end) = end.take() {
                let _ = end.send(());
            }
        };
        runtime.watch(tell).await;
    });
    let waited = tokio::time::timeout(Duration::from_secs(10), ended).await;
    watch.abort();
    let told = std::mem::take(&mut *told.lock().expect("events"));
    assert!(waited.is_ok(), "told: {told:#?}");
    told
}

fn is_lost(event: &EngineEvent) -> bool {
    matches!(event, EngineEvent::Disconnected { .. })
}

/// Streams that break the connection: why is told, and the next one is read.
#[tokio::test(flavor = "multi_thread")]
async fn event_streams_of_no_engine_are_given_up() {
    let _alone = MEMORY.write().await;
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    let table = [
        ("500", status(500, "no events today"), "status code 500: no events today"),
        (
            "HTML",
            json("<html>\n<body>\nWelcome\n</body>\n</html>\n"),
            "does not answer as an engine when asked to tell events",
        ),
        (
            "garbage for ever",
            Reply::endless(head, "garbage\n"),
            "does not answer as an engine when asked to tell events",
        ),
        (
            "an endless line",
            Reply::endless(&format!("{head}{{\"Type\":\""), "xxxxxxxx"),
            "sent more than 4 MiB",
        ),
        ("an endless error", Reply::endless("HTTP/1.1 500 Oh\r\n\r\n", "oh no! "), "sent more than 64 MiB"),
        ("the end", json(""), "closed the event stream"),
        (
            "a cut message",
            Reply::raw(format!("{head}{}", &event("start", "one", 5)[..40])),
            "does not answer as an engine",
        ),
        ("a cut chunk", chunked(&event("start", "one", 5)).without_end(), "the engine failed to tell events"),
        ("nothing", Reply::raw(""), "the engine failed to tell events"),
    ];
    for (name, reply, wanted) in table {
        fake.misbehave("/events", reply);
        forget();
        let before = peak();
        let told = watched(&runtime, is_lost).await;
        let grown = peak().saturating_sub(before);
        let Some(EngineEvent::Disconnected { error, .. }) = told.last() else { panic!("{name}: {told:?}") };
        println!("{name}: {} MiB: {error}", grown >> 20);
        assert!(error.contains(wanted) && error.len() < 1500, "{name}: {error}");
        assert!(grown < 2 * LIST, "{name}: {grown}");
        fake.no_connection_remains().await;
        fake.behave();
        let told = watched(&runtime, |event| matches!(event, EngineEvent::Container { .. })).await;
        assert!(!told.iter().any(is_lost), "{name}: {told:?}");
    }
}

/// Messages that make no sense are passed over, and what comes behind them is told.
#[tokio::test(flavor = "multi_thread")]
async fn odd_messages_hide_no_others() {
    let _shared = MEMORY.read().await;
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("now");
    let mut lines = vec![
        "garbage".to_owned(),
        String::new(),
        "null".to_owned(),
        "[1,2]".to_owned(),
        "{\"Type\":\"container\",\"Action\":7}".to_owned(),
        "{\"Type\":\"planet\",\"Action\":\"start\",\"Actor\":{\"ID\":\"x\"}}".to_owned(),
        "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":null,\"time\":null}".to_owned(),
        format!("{{\"Type\":\"container\",\"Actor\":{}", "[".repeat(100_000)),
        event("levitate", "one", now),
        event("start", "../../x", now),
        event("start", &"a".repeat(100_000), now),
        // of a container that nobody has
        event("start", "nobody", now),
        event("start", "past", -5_000_000_000),
        event("start", "first", i64::MIN),
        event("start", "future", i64::MAX),
    ];
    lines.push(event("die", "last", now + 1));
    let body = lines.join("\n") + "\n";
    fake.misbehave("/events", chunked(&body).without_end().and_wait());
    let is_last = |event: &EngineEvent| matches!(event, EngineEvent::Container { id, .. } if id == "last");
    let told = watched(&runtime, is_last).await;
    assert!(!told.iter().any(is_lost), "{told:?}");
    let ids: Vec<&str> = told
        .iter()
        .filter_map(|event| match event {
            EngineEvent::Container { id, action: ContainerAction::Start, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(ids, ["nobody", "past", "first", "future"]);
    for event in &told {
        if let EngineEvent::Container { at, .. } = event {
            assert!(at.told <= at.received, "{event:?}");
        }
    }
}

/// A time far ahead must not make the next connection ask for what is told from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_far_ahead_hides_no_later_events() {
    let _shared = MEMORY.read().await;
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    fake.misbehave("/events", chunked(&(event("start", "future", i64::MAX) + "\n")));
    let lost = Arc::new(Mutex::new(0));
    watched(&runtime, move |event| {
        let mut lost = lost.lock().expect("a count");
        *lost += usize::from(matches!(event, EngineEvent::Connected { .. }));
        *lost == 3
    })
    .await;
    let now = jiff::Timestamp::now().as_second();
    let asked: Vec<i64> = fake.events_since();
    assert!(asked.len() >= 2 && asked.iter().all(|since| (now - 60..=now).contains(since)), "{asked:?}");
}

/// What is made is called by an identifier, or it was not made.
#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_without_an_identifier_is_no_monitor() {
    let _shared = MEMORY.read().await;
    let fake = Fake::start().await;
    let runtime = runtime(&fake);
    let spec = conmond::runtime::MonitorSpec {
        slot: "s1".into(),
        image: "i".into(),
        host_dir: std::env::temp_dir(),
        limits: Default::default(),
        env: Vec::new(),
    };
    fake.misbehave("/containers/create", json(r#"{"Id": "../../images/x\u001b", "Warnings": []}"#));
    let error = runtime.create_monitor(&spec).await.expect_err("no identifier");
    assert!(matches!(error, RuntimeError::Nonsense { .. }), "{error:?}");
    let named = |id: &str, name: &str, slot: &str| {
        format!(
            r#"{{"Id": "{id}", "Names": ["/{name}"], "Labels": {{"conmon.slot": "{slot}"}}, "State": "running"}}"#
        )
    };
    let list = [
        named("../../x", "conmon-pm-hostile-s1", "s1"),
        named("a", "conmon-pm-hostile-s2", "../s2"),
        named("b", "others", "s3"),
        named("c", "conmon-pm-hostile-s4", "s4"),
    ];
    fake.misbehave("/containers/json", json(&format!("[{}]", list.join(","))));
    let monitors = runtime.list_monitors().await.expect("a list");
    assert_eq!(monitors.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["c"]);
}
