//! `conmonctl ca` in a folder of its own, and what it makes, used: certificates that fit, files that are private, nothing
//! that is written over.
#![cfg(feature = "cli")]

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod answers;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc;

use conmon::tls::{Role, identity, role, roots};
use conmon::token::Tokens;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;

const CONMONCTL: &str = env!("CARGO_BIN_EXE_conmonctl");

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn with_ca() -> Self {
        let folder = Self::new();
        assert!(folder.run("init").status.success());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("ca").join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(CONMONCTL);
        command.args(line.split_whitespace()).env_clear().env("HOME", self.0.path()).stdin(Stdio::null());
        command
    }

    /// `conmonctl ca …`.
    fn run(&self, line: &str) -> Output {
        let dir = self.path("");
        self.command(&format!("ca --dir {} {line}", dir.display())).output().expect("conmonctl runs")
    }

    fn fails(&self, line: &str, word: &str) {
        let output = self.run(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{line}: {said}");
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn keys_are_private_and_nothing_is_written_over() {
    let folder = Folder::with_ca();
    assert!(folder.run("host web1 --address 192.0.2.1").status.success());
    assert!(folder.run("operator alice").status.success());
    for secret in ["ca.key", "hosts/web1/host.key", "operators/alice/operator.key"] {
        assert_eq!(mode(&folder.path(secret)), 0o600, "{secret}");
    }
    for private in ["", "hosts/web1", "operators"] {
        assert_eq!(mode(&folder.path(private)), 0o700, "{private}");
    }
    assert_eq!(text(&folder.path("hosts/web1/ca.crt")), text(&folder.path("ca.crt")));

    let files =
        ["ca.key", "ca.crt", "hosts/web1/host.key", "hosts/web1/host.crt", "operators/alice/operator.crt"];
    let before = files.map(|file| text(&folder.path(file)));
    folder.fails("init", "there is a CA in");
    folder.fails("host web1", "host web1 has a certificate already");
    folder.fails("operator alice", "--force puts a new one in its place");
    assert_eq!(files.map(|file| text(&folder.path(file))), before);
    // half a pair is none to write over either
    fs::remove_file(folder.path("hosts/web1/host.crt")).expect("removed");
    folder.fails("host web1", "host web1 has a certificate already");

    assert!(folder.run("host web1 --address 192.0.2.7 --force").status.success());
    assert!(folder.run("host web1 --force").status.success(), "renewed");
    let renewed =
        identity(&folder.path("hosts/web1/host.crt"), &folder.path("hosts/web1/host.key")).expect("a pair");
    let facts = conmon::tls::facts(renewed.certificate()).expect("readable");
    assert_eq!(facts.names, ["web1", "192.0.2.7"], "for the same addresses");
    assert_ne!(text(&folder.path("hosts/web1/host.key")), before[2]);
    assert_eq!(mode(&folder.path("hosts/web1/host.key")), 0o600);
    let left: Vec<_> =
        fs::read_dir(folder.path("hosts/web1")).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "no drafts are left: {left:?}");
}

#[test]
fn slips_are_told() {
    let folder = Folder::new();
    folder.fails("host web1", "there is no CA in");
    folder.fails("show", "there is no CA in");
    assert!(folder.run("init --days 30").status.success());
    folder.fails("host a/b", "`a/b` cannot be a name here");
    folder.fails("host ../../x", "cannot be a name here");
    folder.fails("host 10.0.0.1", "cannot be a name here");
    folder.fails("host web1 --address no/name", "`no/name` is neither a DNS name nor an IP address");
    folder.fails("host web1 --days 0", "give 1 to 36500");
    folder.fails("tenant-token #x", "cannot name a tenant");
    folder.fails("show /nothing", "cannot read certificate /nothing");
    assert!(!folder.path("hosts").exists(), "nothing was made");
    fs::write(folder.path("junk"), "no certificate").expect("written");
    folder.fails(&format!("show {}", folder.path("junk").display()), "holds no certificate");
}

#[test]
fn tokens_are_shown_once_and_kept_as_hashes() {
    let folder = Folder::new();
    let secret = |tenant: &str| {
        let output = folder.run(&format!("tenant-token {tenant}"));
        assert!(output.status.success());
        let secret = String::from_utf8(output.stdout).expect("text").trim().to_owned();
        assert!(!String::from_utf8_lossy(&output.stderr).contains(&secret), "only the output holds it");
        secret
    };
    let (first, second, blog) = (secret("shop"), secret("shop"), secret("blog"));
    let file = folder.path("tokens");
    assert_eq!(mode(&file), 0o600);
    let kept = text(&file);
    let tokens = Tokens::read(&file).expect("tokens");
    for (secret, tenant) in [(&first, "shop"), (&second, "shop"), (&blog, "blog")] {
        assert!(!kept.contains(&**secret));
        assert_eq!(tokens.tenant(secret).as_deref(), Some(tenant));
    }
}

#[test]
fn show_tells_what_was_made() {
    let folder = Folder::with_ca();
    assert!(folder.run("host web1 --address 2001:db8::1").status.success());
    assert!(folder.run("operator alice --days 5").status.success());
    assert!(folder.run("tenant-token shop").status.success());
    let output = folder.run("show -o json");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let certificates = answer["certificates"].as_array().expect("a list");
    let roles: Vec<_> = certificates.iter().map(|one| one["role"].as_str().unwrap_or_default()).collect();
    assert_eq!(roles, ["ca", "host", "operator"]);
    assert_eq!(certificates[1]["addresses"], serde_json::json!(["2001:db8::1"]));
    assert_eq!(certificates[1].get("problem"), None);
    assert_eq!(certificates[2]["problem"], "ends soon");
    assert_eq!(certificates[1]["issuer"], certificates[0]["name"]);
    assert_eq!(answer["tokens"], serde_json::json!({"shop": 1}));
    let table = String::from_utf8(folder.run("show").stdout).expect("text");
    assert!(table.contains("web1") && table.contains("ends soon"), "{table}");
    let one = folder.run(&format!("show {}", folder.path("operators/alice/operator.crt").display()));
    assert!(String::from_utf8_lossy(&one.stdout).contains("alice"));
}

/// A server with these files that answers each request with a status, and tells what was asked and by whom.
fn stand_in(folder: &Folder, host: &str) -> (SocketAddr, mpsc::Receiver<(String, Option<Role>)>) {
    let at = |name: &str| folder.path(&format!("hosts/{host}/{name}"));
    let own = identity(&at("host.crt"), &at("host.key")).expect("a pair");
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(&at("ca.crt")).expect("a CA")),
        conmon::tls::provider(),
    );
    let config = rustls::ServerConfig::builder_with_provider(conmon::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("a verifier"))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.key)));
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("TLS");
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            let mut head = Vec::new();
            let mut byte = [0; 1];
            while !head.ends_with(b"\r\n\r\n") {
                match tls.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            if head.is_empty() {
                continue;
            }
            let body = serde_json::to_string(&answers::ledger()).expect("JSON");
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = tls.write_all(answer.as_bytes());
            let shown = tls.conn.peer_certificates().and_then(|all| role(all.first()?).ok());
            tls.conn.send_close_notify();
            let _ = tls.flush();
            if tell.send((String::from_utf8_lossy(&head).to_ascii_lowercase(), shown)).is_err() {
                break;
            }
        }
    });
    (address, told)
}

#[test]
fn another_host_is_asked_with_what_the_ca_made() {
    let folder = Folder::with_ca();
    assert!(folder.run("host web1 --address 127.0.0.1").status.success());
    assert!(folder.run("operator alice").status.success());
    let token = folder.run("tenant-token shop").stdout;
    let token_file = folder.0.path().join("token");
    fs::write(&token_file, &token).expect("written");
    let (address, told) = stand_in(&folder, "web1");
    let (ca, operator) = (folder.path("ca.crt"), folder.path("operators/alice"));
    let (certificate, key) = (operator.join("operator.crt"), operator.join("operator.key"));
    let alice = Some(Role::Operator("alice".to_owned()));

    // by flags
    let line = format!(
        "--host https://{address} --ca {} --cert {} --key {} ledger -o json",
        ca.display(),
        certificate.display(),
        key.display()
    );
    let output = folder.command(&line).output().expect("conmonctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (asked, by) = told.recv().expect("it was asked");
    assert!(asked.starts_with("get /v1/ledger http/1.1") && !asked.contains("authorization"), "{asked}");
    assert_eq!(by, alice);

    // by the environment, after the verb's name, with a token
    let output = folder
        .command("ledger")
        .env("CONMON_HOST", address.to_string())
        .env("CONMON_CA", &ca)
        .env("CONMON_TOKEN_FILE", &token_file)
        .output()
        .expect("conmonctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (asked, by) = told.recv().expect("it was asked");
    let bearer = format!("authorization: bearer {}\r\n", String::from_utf8_lossy(&token).trim());
    assert!(asked.contains(&bearer) && by.is_none(), "{asked}");

    // by what lies in the user's folder
    let config = folder.0.path().join(".config/conmon");
    fs::create_dir_all(&config).expect("a folder");
    for (from, name) in [(&ca, "ca.crt"), (&certificate, "operator.crt"), (&key, "operator.key")] {
        fs::copy(from, config.join(name)).expect("copied");
    }
    let output = folder.command(&format!("ledger --host {address}")).output().expect("conmonctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.recv().expect("it was asked").1, alice);
}

#[test]
fn what_is_missing_for_another_host_is_told() {
    let folder = Folder::with_ca();
    assert!(folder.run("host web1 --address 127.0.0.1").status.success());
    let ca = folder.path("ca.crt").display().to_string();
    let (address, _told) = stand_in(&folder, "web1");
    for (line, word, code) in [
        (format!("status --host {address}"), "whom to trust is not known", 1),
        (format!("status --host {address} --ca {ca}"), "who asks is not known", 1),
        (format!("status --host {address} --ca {ca} --cert x"), "--cert goes with --key", 1),
        (format!("status --host {address} --ca /nothing --cert {ca} --key {ca}"), "holds no private key", 1),
        (format!("status --host {address} --socket /x --ca {ca}"), "give one", 1),
        ("status --token-file /x".to_owned(), "--token-file goes with --host", 1),
        (format!("up --host {address}"), "act on this host: leave it out", 1),
    ] {
        let output = folder.command(&line).output().expect("conmonctl runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word) && output.status.code() == Some(code), "{line}: {said}");
    }
    // refused connections are "unavailable", as on the socket
    fs::write(folder.0.path().join("token"), "conmon_tenant_x").expect("written");
    let token = folder.0.path().join("token").display().to_string();
    let line = format!("status --host http://{address} --ca {ca} --token-file {token}");
    let output = folder.command(&line).output().expect("conmonctl runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("over TLS only") && output.status.code() == Some(1), "{line}: {said}");
    let line = format!("status --host https://127.0.0.1:1 --ca {ca} --token-file {token}");
    let output = folder.command(&line).output().expect("conmonctl runs");
    assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    // and words of the other side's certificate come with a remedy
    let other = Folder::with_ca();
    let line =
        format!("status --host {address} --ca {} --token-file {token}", other.path("ca.crt").display());
    let said =
        String::from_utf8_lossy(&folder.command(&line).output().expect("conmonctl runs").stderr).into_owned();
    assert!(
        said.contains("signed by a CA that is not trusted here\n  → both sides need certificates of one CA"),
        "{said}"
    );
}
