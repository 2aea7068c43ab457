//! The API over TLS, as somebody sees it who has a good certificate, a bad one, somebody else's, or none.

#[path = "secure/pki.rs"]
mod pki;
#[path = "http/source.rs"]
#[expect(dead_code, reason = "shared with the tests of the HTTP server, which use other parts")]
mod source;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conmon::api::{self, EventKind, EventsQuery, path};
use conmon::client::{Client, ClientError, Credentials};
use conmon::tls;
use conmon::token;
use conmond::config::MetricsLevel;
use conmond::export::prometheus::ExporterSettings;
use conmond::http::{
    FilesError, HANDSHAKE_TIMEOUT, MAX_HANDSHAKES_OF_ONE, Reason, Server, Tls, TlsFiles, TlsSocket,
};
use conmond::scope::Scope;
use pki::{Pki, between, fine, host, operator, until};
use rustls::pki_types::ServerName;
use source::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// The conmond of the host `web1`, ended with the test.
struct Running {
    address: SocketAddr,
    world: Arc<World>,
    server: Server,
    tls: Arc<Tls>,
    _end: watch::Sender<bool>,
}

impl Running {
    fn start(files: TlsFiles) -> Self {
        let tls = Arc::new(Tls::load(files, "web1").unwrap());
        let world = Arc::new(World::new());
        let settings = ExporterSettings {
            level: MetricsLevel::Service,
            max_series: 9,
            retention: Duration::from_secs(60),
        };
        let server = Server::new(Arc::clone(&world) as _, settings);
        let socket = TlsSocket::bind("127.0.0.1:0".parse().unwrap(), Arc::clone(&tls)).unwrap();
        let address = socket.address();
        let (end, shutdown) = watch::channel(false);
        tokio::spawn({
            let server = server.clone();
            async move { server.serve_tls(socket, shutdown).await }
        });
        Self { address, world, server, tls, _end: end }
    }

    fn client(&self, credentials: &Credentials) -> Client {
        Client::https(&format!("https://{}", self.address), credentials).unwrap()
    }

    /// Nothing was asked of the controller.
    fn untouched(&self) -> bool {
        self.world.scopes.lock().unwrap().is_empty()
    }

    fn last_scope(&self) -> Option<Scope> {
        self.world.scopes.lock().unwrap().last().cloned()
    }

    async fn plain(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("it hangs up");
        answer
    }
}

/// A pki with a running host.
fn running() -> (Pki, Running) {
    let pki = Pki::new();
    let files = pki.files("web1", fine());
    (pki, Running::start(files))
}

/// The same, with the tokens of the tenants `shop` and `blog`.
fn with_tokens() -> (Pki, Running, token::NewToken, token::NewToken) {
    let pki = Pki::new();
    let (shop, blog) = (token::make("shop").unwrap(), token::make("blog").unwrap());
    let tokens = pki.write("tokens", &format!("{}\n{}\n", shop.line, blog.line));
    let files = TlsFiles { tokens: Some(tokens), ..pki.files("web1", fine()) };
    let running = Running::start(files);
    (pki, running, shop, blog)
}

/// A TLS connection by the library alone, for requests that our client would not make.
async fn raw(
    address: SocketAddr,
    pki: &Pki,
    pair: Option<&conmon::ca::Pair>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(tls::roots(&pki.dir.join("ca.crt")).unwrap());
    let config = match pair {
        Some(pair) => {
            let (certificate, key) = pki.put("raw", pair);
            let identity = tls::identity(&certificate, &key).unwrap();
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity.key)))
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Everything that comes back for a request over TLS; what the server closes early is what came until then.
async fn ask_raw<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S, request: &str) -> String {
    let _ = stream.write_all(request.as_bytes()).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("it hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: web1\r\nconnection: close\r\n{headers}\r\n")
}

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

fn problem(error: &ClientError) -> (String, String) {
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
    (error.to_string(), error.remedy().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn operators_and_hosts_see_everything() {
    let (pki, running) = running();
    let client = running.client(&pki.as_role(&operator()));
    assert_eq!(client.status().await.unwrap().host, "h1");
    assert_eq!(running.last_scope(), Some(Scope::All));
    assert_eq!(client.health().await.unwrap().protocol, api::Protocol::OURS);
    assert!(client.metrics().await.unwrap().contains("conmon_api_refusals_total{reason=\"bad_token\"} 0"));
    let peer = Client::peer("web1", running.address, &pki.as_role(&host("web2"))).unwrap();
    peer.speaking_for("web2").status().await.unwrap();
    assert_eq!(running.last_scope(), Some(Scope::Host("web2".into())));
}

#[tokio::test]
async fn nobody_without_a_certificate_gets_a_byte() {
    let (pki, running) = running();
    for version in BOTH {
        let answer = match raw(running.address, &pki, None, &[version]).await {
            Ok(mut stream) => ask_raw(&mut stream, &get("/v1/health", "")).await,
            Err(_) => String::new(),
        };
        assert_eq!(answer, "", "{version:?}");
    }
    until("the refusals are counted", || running.server.refused(Reason::NoCertificate) == 2).await;
    let client = running.client(&pki.credentials(None, Some("conmon_tenant_x")));
    let (said, remedy) = problem(&client.status().await.unwrap_err());
    assert!(said.contains("it wants a certificate"), "{said}");
    assert!(remedy.contains("--cert"), "{remedy}");
    assert!(running.untouched());
}

#[tokio::test]
async fn bad_certificates_are_refused_and_told_why() {
    let (pki, running) = running();
    let other = Pki::new();
    let good = pki.make(&operator(), fine());
    let mixed = conmon::ca::Pair {
        certificate: other.make(&operator(), fine()).certificate,
        key: other.make(&operator(), fine()).key,
    };
    let (certificate, key) = pki.put("mixed", &mixed);
    let error = tls::identity(&certificate, &key).unwrap_err().to_string();
    assert!(error.contains("does not belong to the certificate"), "{error}");
    for (what, pair, word) in [
        ("expired", pki.make(&operator(), between(-7200, -3600)), "our certificate has expired"),
        ("early", pki.make(&operator(), between(3600, 7200)), "not valid yet by its clock"),
        ("another CA's", other.make(&operator(), fine()), "does not know the CA of our certificate"),
    ] {
        let client = running.client(&pki.credentials(Some(&pair), None));
        let (said, remedy) = problem(&client.status().await.unwrap_err());
        assert!(said.contains(word), "{what}: {said}");
        assert!(!remedy.is_empty(), "{what}");
        for version in BOTH {
            let answer = match raw(running.address, &pki, Some(&pair), &[version]).await {
                Ok(mut stream) => ask_raw(&mut stream, &get("/v1/health", "")).await,
                Err(_) => String::new(),
            };
            assert_eq!(answer, "", "{what}");
        }
    }
    until("the refusals are counted", || running.server.refused(Reason::BadCertificate) == 9).await;
    assert!(running.untouched());
    running.client(&pki.credentials(Some(&good), None)).status().await.unwrap();
}

#[tokio::test]
async fn a_server_is_judged_too() {
    let pki = Pki::new();
    let other = Pki::new();
    let client = pki.as_role(&operator());
    let expired = Running::start(pki.files("web1", between(-7200, -60)));
    let (said, remedy) = problem(&expired.client(&client).status().await.unwrap_err());
    assert!(said.contains("its certificate has expired: it was valid until 20"), "{said}");
    assert!(said.contains("and this clock says 20") && remedy.contains("conmonctl ca"), "{said} {remedy}");
    let early = Running::start(pki.files("web1", between(3600, 7200)));
    let (said, remedy) = problem(&early.client(&client).status().await.unwrap_err());
    assert!(
        said.contains("its certificate is not valid before 20") && remedy.contains("clocks"),
        "{said} {remedy}"
    );

    let strange = Running::start(other.files("web1", fine()));
    let (said, _) = problem(&strange.client(&client).status().await.unwrap_err());
    assert!(said.contains("signed by a CA that is not trusted here"), "{said}");

    let fine_one = Running::start(pki.files("web1", fine()));
    let by_name = Client::peer("web2", fine_one.address, &client).unwrap();
    let (said, _) = problem(&by_name.status().await.unwrap_err());
    assert!(said.contains("is not that of `web2`: it is for host web1"), "{said}");
    let by_address = format!("https://127.0.0.1:{}", fine_one.address.port());
    Client::https(&by_address, &client).unwrap().status().await.unwrap();
    for running in [&expired, &early, &strange] {
        assert!(running.untouched());
    }
}

#[tokio::test]
async fn connections_that_cannot_be_are_told() {
    let pki = Pki::new();
    let credentials = pki.as_role(&operator());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = Client::https(&closed.to_string(), &credentials).unwrap().status().await.unwrap_err();
    assert!(
        error.to_string().contains("nobody listens there; is conmond running there, with `listen`"),
        "{error}"
    );
    assert!(error.is_unavailable());

    // something that answers in plain text, and something that hangs up
    for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", "220 smtp ready\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(greeting.as_bytes()).await;
            sleep(Duration::from_millis(50)).await;
        });
        let error = Client::https(&address.to_string(), &credentials).unwrap().status().await.unwrap_err();
        let word = if greeting.is_empty() { "it hung up" } else { "does not speak TLS" };
        assert!(error.to_string().contains(word) && error.is_unavailable(), "{greeting:?}: {error}");
    }
    // and something that says nothing
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client =
        Client::https(&address.to_string(), &credentials).unwrap().with_timeout(Duration::from_millis(200));
    let begin = Instant::now();
    assert!(matches!(client.status().await, Err(ClientError::Timeout { .. })));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_host_speaks_for_itself_only() {
    let (pki, running, shop, _) = with_tokens();
    let ask = async |credentials: &Credentials, name: &str| {
        running
            .client(credentials)
            .speaking_for(name)
            .status()
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let web2 = pki.as_role(&host("web2"));
    assert_eq!(ask(&web2, "web2").await, Ok(()));
    let count = running.world.scopes.lock().unwrap().len();
    for (credentials, who) in [
        (&web2, "the certificate is host web2's"),
        (&pki.as_role(&operator()), "who asks is no host"),
        (&pki.credentials(None, Some(&shop.secret)), "the token is tenant shop's"),
    ] {
        for name in ["web3", "web1", "WEB2", "web2.example.org", "*"] {
            let said = ask(credentials, name).await.unwrap_err();
            assert!(said.starts_with(who) && said.ends_with(&format!("speaks for host {name}")), "{said}");
        }
    }
    assert_eq!(running.world.scopes.lock().unwrap().len(), count, "nothing was asked for in another's name");
}

/// What a tenant may see of each path. A path that is not here fails the test: somebody has to decide.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    OwnRows,
    /// The same for everybody who is known.
    Public,
    /// About the whole host.
    Refused,
    /// Not to be read: other hosts ask there, with a body, and nobody else.
    Hosts,
}

fn decision(path: &str) -> Decision {
    match path {
        path::ENDS | path::CLOCK_SESSION => Decision::Hosts,
        path::MATRIX => Decision::OwnRows,
        path::CONTAINERS | path::MONITORS | path::PAIRS | path::FLOWS | path::MEASUREMENTS => {
            Decision::OwnRows
        }
        path::EVENTS | path::HEALTH | path::LEDGER | path::METRICS => Decision::OwnRows,
        path::STATUS | path::DOCTOR | path::CLOCKS => Decision::Refused,
        path::OPENAPI => Decision::Public,
        other => panic!(
            "decide what a tenant may see of {other}: here, in conmond/src/scope.rs and in docs/security.md"
        ),
    }
}

#[tokio::test]
async fn a_tenants_token_is_its_scope_on_every_path() {
    let (pki, running, shop, _) = with_tokens();
    let bearer = format!("authorization: Bearer {}\r\n", shop.secret);
    let operator = pki.make(&operator(), fine());
    let narrowed = "conmon-tenant: shop\r\n".to_owned();
    for path in conmon::openapi().paths.paths.keys() {
        let decision = decision(path);
        // by a token, and by an operator who asks as the tenant
        for (pair, headers) in [(None, &bearer), (Some(&operator), &bearer), (Some(&operator), &narrowed)] {
            running.world.scopes.lock().unwrap().clear();
            let mut stream = raw(running.address, &pki, pair, &BOTH).await.unwrap();
            let answer = ask_raw(&mut stream, &get(path, headers)).await;
            let scopes = running.world.scopes.lock().unwrap().clone();
            assert!(scopes.iter().all(|scope| *scope == Scope::Tenant("shop".into())), "{path}: {scopes:?}");
            let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
            match decision {
                Decision::Refused => assert_eq!(status, "403", "{path}: {answer}"),
                Decision::Hosts => assert_eq!(status, "405", "{path}: {answer}"),
                // the made-up world has no ledger yet
                _ if path == path::LEDGER => assert_eq!(status, "503", "{path}: {answer}"),
                _ => assert_eq!(status, "200", "{path}: {answer}"),
            }
            assert!(answer.contains("conmon-protocol: 1-1\r\n"), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn nobody_unknown_is_told_anything_on_any_path() {
    let (pki, running, shop, _) = with_tokens();
    let paths: Vec<String> = conmon::openapi().paths.paths.keys().cloned().collect();
    for path in paths.iter().map(String::as_str).chain(["/", "/v1", "/nothing"]) {
        for headers in ["", "authorization: Bearer wrong\r\n", "authorization: Basic c2hvcDpzaG9w\r\n"] {
            let mut stream = raw(running.address, &pki, None, &BOTH).await.unwrap();
            let answer = ask_raw(&mut stream, &get(path, headers)).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path} {headers:?}: {answer}");
            assert!(
                answer.contains("www-authenticate: Bearer\r\n") && answer.contains("connection: close\r\n"),
                "{answer}"
            );
        }
        // a token where it does not belong: it would end up in somebody's log
        for target in
            [format!("{path}?token={}", shop.secret), format!("{path}?access_token={}", shop.secret)]
        {
            let mut stream = raw(running.address, &pki, None, &BOTH).await.unwrap();
            let answer = ask_raw(&mut stream, &get(&target, "")).await;
            assert!(
                answer.starts_with("HTTP/1.1 401 ") && !answer.contains(&shop.secret),
                "{target}: {answer}"
            );
        }
    }
    assert!(running.untouched());
    assert!(
        running.server.refused(Reason::NoCredentials) > 0 && running.server.refused(Reason::BadToken) > 0
    );
}

#[tokio::test]
async fn a_tenant_hears_its_own_events_recent_and_live() {
    let (pki, running, shop, _) = with_tokens();
    let tenants = ["shop", "blog", "shop", ""];
    for (sequence, tenant) in (1..).zip(tenants) {
        running.world.happen(sequence, EventKind::ContainerStarted, tenant);
    }
    let client = running.client(&pki.credentials(None, Some(&shop.secret)));
    let query = EventsQuery { follow: Some(true), ..EventsQuery::default() };
    let mut events = client.events(&query).await.unwrap();
    for expected in [1, 3] {
        assert_eq!(events.next().await.unwrap().unwrap().sequence, expected);
    }
    for (sequence, tenant) in (5..).zip(["blog", "", "shop"]) {
        running.world.happen(sequence, EventKind::ContainerStarted, tenant);
    }
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.sequence, event.tenant.as_deref()), (7, Some("shop")));
    // asking for another's by filter finds none of them
    let query = EventsQuery { tenant: Some("blog".to_owned()), ..EventsQuery::default() };
    assert_eq!(client.events(&query).await.unwrap().next().await.unwrap(), None);
}

#[tokio::test]
async fn plain_http_is_told_and_junk_is_not() {
    let (_pki, running) = running();
    for request in [
        get("/v1/health", ""),
        "POST / HTTP/1.0\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let answer = String::from_utf8(running.plain(request.as_bytes()).await).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks TLS only"),
            "{answer}"
        );
    }
    // A handshake of TLS 1.0 and one of 1.1, without extensions: they get an alert (21) and no more.
    let old = |minor: u8| {
        let mut body = vec![3, minor];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0, 0x2f, 1, 0]);
        let mut hello = vec![1, 0, 0, body.len() as u8];
        hello.extend(body);
        let mut record = vec![22, 3, 1, 0, hello.len() as u8];
        record.extend(hello);
        record
    };
    for minor in [1, 2] {
        let answer = running.plain(&old(minor)).await;
        assert!(answer.len() <= 7 && answer.first().is_none_or(|kind| *kind == 21), "{answer:?}");
    }
    let mut seed = 12_345_u64;
    for round in 0..64 {
        let junk: Vec<u8> = (0..round * 37)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as u8
            })
            .collect();
        let begins_like_tls = [&[22, 3, 1, 2, 0, 1, 0][..], &junk].concat();
        for bytes in [junk, begins_like_tls] {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
            let told = answer.starts_with(b"HTTP/1.1 400 ");
            assert!(told || answer.len() <= 7, "{bytes:?}: {answer:?}");
        }
    }
    assert!(running.untouched());
    assert!(running.server.refused(Reason::NotTls) > 60);
}

#[tokio::test]
async fn slow_handshakes_are_few_and_short() {
    let (pki, running) = running();
    let begin = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..MAX_HANDSHAKES_OF_ONE {
        idle.push(TcpStream::connect(running.address).await.unwrap());
    }
    let mut one_more = Vec::new();
    for _ in 0..4 {
        one_more.push(TcpStream::connect(running.address).await.unwrap());
    }
    for stream in &mut one_more {
        let mut byte = [0; 1];
        let ended = timeout(Duration::from_secs(2), stream.read(&mut byte)).await.expect("closed at once");
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
    assert_eq!(running.server.refused(Reason::Busy), 4);
    // Somebody at another address is served meanwhile.
    let relay = relay(running.address, Some("127.0.0.2")).await;
    let elsewhere = Client::https(&format!("https://{}", relay.address), &pki.as_role(&operator())).unwrap();
    elsewhere.status().await.unwrap();
    assert!(begin.elapsed() < HANDSHAKE_TIMEOUT, "the idle ones are still there");
    // one that has begun a handshake and goes no further
    idle[0].write_all(&[22]).await.unwrap();
    for stream in &mut idle {
        let mut byte = [0; 1];
        let ended = timeout(HANDSHAKE_TIMEOUT + Duration::from_secs(3), stream.read(&mut byte)).await;
        assert!(matches!(ended.expect("closed in time"), Ok(0) | Err(_)));
    }
    until("they are counted", || running.server.refused(Reason::Slow) == MAX_HANDSHAKES_OF_ONE as u64).await;
    running.client(&pki.as_role(&operator())).status().await.unwrap();
}

#[tokio::test]
async fn huge_heads_and_endless_ones_end() {
    let (pki, running) = running();
    let pair = pki.make(&operator(), fine());
    let mut stream = raw(running.address, &pki, Some(&pair), &BOTH).await.unwrap();
    let answer = ask_raw(&mut stream, &get("/v1/health", &format!("x: {}\r\n", "x".repeat(100_000)))).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut stream = raw(running.address, &pki, Some(&pair), &BOTH).await.unwrap();
    let many: String = (0..1000).map(|at| format!("x{at}: y\r\n")).collect();
    let answer = ask_raw(&mut stream, &get("/v1/health", &many)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    running.client(&pki.as_role(&operator())).status().await.unwrap();
}

#[tokio::test]
async fn certificates_give_one_role_and_the_right_one() {
    let (pki, running) = running();
    // What cannot serve, or is somebody else's, is found before anything listens.
    let files = |pair: &conmon::ca::Pair| {
        let (certificate, key) = pki.put("other", pair);
        TlsFiles { certificate, key, ca: pki.dir.join("ca.crt"), tokens: None }
    };
    let load = |pair: &conmon::ca::Pair| Tls::load(files(pair), "web1").map(|_| ()).unwrap_err();
    let error = load(&pki.make(&host("web2"), fine()));
    assert!(matches!(error, FilesError::Name { .. }), "{error}");
    assert!(error.to_string().contains("is that of host web2, and this host is called web1"), "{error}");
    assert!(load(&pki.make(&operator(), fine())).to_string().contains("is that of operator alice"));
    let strange = load(&Pki::new().make(&host("web1"), fine())).to_string();
    assert!(strange.contains("signed by a CA that is not trusted here"), "{strange}");
    drop(running);
}

#[tokio::test]
async fn files_are_read_again_and_those_let_in_by_the_former_end() {
    let (pki, running, shop, blog) = with_tokens();
    let operator_credentials = pki.as_role(&operator());
    let as_shop = running.client(&pki.credentials(None, Some(&shop.secret)));
    let as_blog = running.client(&pki.credentials(None, Some(&blog.secret)));
    let mut stream =
        as_shop.events(&EventsQuery { follow: Some(true), ..EventsQuery::default() }).await.unwrap();

    // A new certificate disturbs nobody.
    pki.put("web1", &pki.make(&host("web1"), between(-3600, 172_800)));
    running.tls.refresh();
    assert!(running.tls.state().certificate.not_after > fine().until);
    running.world.happen(1, EventKind::ContainerStarted, "shop");
    assert_eq!(stream.next().await.unwrap().unwrap().sequence, 1);

    // Half a change is none: what was read goes on, and is told.
    pki.write("web1.key", &pki.make(&host("web1"), fine()).key);
    running.tls.refresh();
    let trouble = running.tls.state().trouble.expect("it is told");
    assert!(trouble.contains("does not belong to the certificate"), "{trouble}");
    running.client(&operator_credentials).status().await.unwrap();
    pki.put("web1", &pki.make(&host("web1"), fine()));
    running.tls.refresh();
    assert_eq!(running.tls.state().trouble, None);

    // A token that is taken away ends what it opened, by the server's own looking.
    fs::write(pki.dir.join("tokens"), format!("{}\n", blog.line)).unwrap();
    let ended = timeout(Duration::from_secs(10), stream.next()).await.expect("the stream ends");
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    let error = as_shop.pairs(&api::PairsQuery::default()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Api(problem) if problem.status == 401), "{error}");
    as_blog.pairs(&api::PairsQuery::default()).await.unwrap();
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_opened_it() {
    let (pki, running) = running();
    let short = pki.make(&operator(), between(-60, 2));
    let client = running.client(&pki.credentials(Some(&short), None));
    let mut stream =
        client.events(&EventsQuery { follow: Some(true), ..EventsQuery::default() }).await.unwrap();
    let begin = Instant::now();
    let ended = timeout(Duration::from_secs(10), stream.next()).await.expect("the stream ends");
    assert!(!matches!(ended, Ok(Some(_))) && begin.elapsed() < Duration::from_secs(4), "{ended:?}");
    // it is good to the end of its last second
    sleep(Duration::from_millis(1100)).await;
    let (said, _) = problem(&client.status().await.unwrap_err());
    assert!(said.contains("our certificate has expired"), "{said}");
}

/// Passes connections on, and counts them.
struct Relay {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

async fn relay(to: SocketAddr, from: Option<&'static str>) -> Relay {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4().unwrap();
                if let Some(from) = from {
                    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
                }
                let mut far = socket.connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    Relay { address, connections }
}

#[tokio::test]
async fn connections_are_used_again() {
    let (pki, running) = running();
    let relay = relay(running.address, None).await;
    let client = Client::peer("web1", relay.address, &pki.as_role(&host("web2"))).unwrap();
    for _ in 0..10 {
        client.clone().speaking_for("web2").health().await.unwrap();
    }
    assert_eq!(relay.connections.load(Ordering::Relaxed), 1);
    // Ten at once need more than one; the next ones make do with those that are left.
    let at_once = (0..10).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.health().await.unwrap() })
    });
    for one in at_once.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let used = relay.connections.load(Ordering::Relaxed);
    client.health().await.unwrap();
    assert_eq!(relay.connections.load(Ordering::Relaxed), used);
}
