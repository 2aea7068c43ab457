//! etcd with TLS, certificates of clients, and users with passwords.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use conmond::registry::Registry;
use conmond::registry::etcd::{Etcd, EtcdSettings, EtcdTls};

use super::etcd::settings;
use super::etcd_process::EtcdProcess;
use super::support::*;

/// A small authority, made by openssl, in a folder that goes with it.
struct Authority(PathBuf);

impl Authority {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("conmon-ca-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let ca = Self(dir);
        ca.openssl(
            &["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority"],
            &[("-keyout", "ca.key"), ("-out", "ca.pem")],
        );
        ca
    }

    fn openssl(&self, args: &[&str], files: &[(&str, &str)]) {
        let mut command = Command::new("openssl");
        command.args(args);
        for (flag, file) in files {
            command.arg(flag).arg(self.0.join(file));
        }
        let out = command.output().expect("openssl is installed (scripts/setup.sh)");
        assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// A certificate for a name and 127.0.0.1.
    fn issue(&self, name: &str) {
        let file = |end: &str| format!("{name}.{end}");
        let (key, request, certificate) = (file("key"), file("csr"), file("pem"));
        let subject = format!("/CN={name}");
        self.openssl(
            &["req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject],
            &[("-keyout", &key), ("-out", &request)],
        );
        std::fs::write(self.0.join("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        self.openssl(
            &["x509", "-req", "-days", "2", "-CAcreateserial"],
            &[
                ("-in", &request),
                ("-CA", "ca.pem"),
                ("-CAkey", "ca.key"),
                ("-extfile", "ext"),
                ("-out", &certificate),
            ],
        );
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().to_owned()
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.0.join(file)).unwrap()
    }

    fn tls(&self, identity: Option<&str>) -> EtcdTls {
        let identity =
            identity.map(|name| (self.read(&format!("{name}.pem")), self.read(&format!("{name}.key"))));
        EtcdTls { ca: self.read("ca.pem"), identity }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn with(etcd: &EtcdProcess, tls: EtcdTls, user: Option<(&str, &str)>) -> Etcd {
    let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
    Etcd::start(EtcdSettings { tls: Some(tls), user, ..settings(etcd.url()) }, 3)
}

/// Publishes, and finds it again.
async fn works(registry: &Etcd, name: &str) {
    let t = wall() - S;
    registry.publish(own(&host(name, 1), &[("a", "10.0.0.1", t, None)]));
    names(registry, "10.0.0.1", t, &[&format!("{name}/a")]).await;
}

async fn fails(registry: &Etcd, why: &str) {
    registry.publish(own(&host("nobody", 1), &[("a", "10.0.0.2", wall() - S, None)]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let health = registry.health();
    assert!(!health.reachable && health.pending_rows > 0, "{why}: {health:?}");
    assert!(health.problem.is_some_and(|problem| !problem.is_empty()), "{why}");
    assert_eq!(registry.find(ip("10.0.0.1"), wall()).await.known_as_of_ns, None, "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_certificates_and_with_users() {
    let ca = Authority::new("tls");
    let stranger = Authority::new("stranger");
    ca.issue("server");
    ca.issue("conmon");
    stranger.issue("conmon");
    let flags = [
        "--client-cert-auth",
        "--trusted-ca-file",
        &ca.path("ca.pem"),
        "--cert-file",
        &ca.path("server.pem"),
        "--key-file",
        &ca.path("server.key"),
    ];
    let mut etcd =
        EtcdProcess::start_with("tls", &std::env::temp_dir(), flags.map(str::to_owned).to_vec(), "https");
    etcd.ctl_flags =
        ["--cacert", &ca.path("ca.pem"), "--cert", &ca.path("conmon.pem"), "--key", &ca.path("conmon.key")]
            .map(str::to_owned)
            .to_vec();

    let member = with(&etcd, ca.tls(Some("conmon")), None);
    works(&member, "member").await;
    fails(&with(&etcd, ca.tls(None), None), "no certificate").await;
    let mixed = EtcdTls { ca: ca.read("ca.pem"), ..stranger.tls(Some("conmon")) };
    fails(&with(&etcd, mixed, None), "a certificate of another authority").await;
    fails(&with(&etcd, stranger.tls(Some("conmon")), None), "an etcd of another authority").await;
    member.close().await;

    for args in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "hosts"],
        &["role", "grant-permission", "--prefix=true", "hosts", "readwrite", "/conmon/1/"],
        &["user", "add", "reader:word"],
        &["user", "grant-role", "reader", "hosts"],
        &["auth", "enable"],
    ] {
        etcd.etcdctl(args);
    }
    let user = with(&etcd, ca.tls(Some("conmon")), Some(("reader", "word")));
    works(&user, "user").await;
    fails(&with(&etcd, ca.tls(Some("conmon")), Some(("reader", "wrong"))), "a wrong password").await;
}
