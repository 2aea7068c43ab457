//! A certificate authority and what it makes, in a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use conmon::ca::{Ca, Pair, Validity};
use conmon::client::Credentials;
use conmon::tls::{self, Role};
use conmond::http::TlsFiles;
use jiff::Timestamp;

pub struct Pki {
    pub dir: PathBuf,
    ca: Pair,
}

/// From so many seconds from now until so many.
pub fn between(from: i64, until: i64) -> Validity {
    let at = |seconds: i64| Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap();
    Validity { from: at(from), until: at(until) }
}

pub fn fine() -> Validity {
    between(-3600, 86_400)
}

pub fn host(name: &str) -> Role {
    Role::Host(name.to_owned())
}

pub fn operator() -> Role {
    Role::Operator("alice".to_owned())
}

impl Pki {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("conmond-pki-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let ca = Ca::make("Test", fine()).unwrap();
        fs::write(dir.join("ca.crt"), &ca.certificate).unwrap();
        Self { dir, ca }
    }

    pub fn make(&self, role: &Role, validity: Validity) -> Pair {
        let addresses = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        Ca::open(&self.ca).unwrap().sign(role, &addresses, validity).unwrap()
    }

    /// Writes key and certificate; files of the same name are replaced as an administrator would.
    pub fn put(&self, name: &str, pair: &Pair) -> (PathBuf, PathBuf) {
        let write = |ending: &str, text: &str| {
            let (path, draft) = (self.dir.join(format!("{name}.{ending}")), self.dir.join("draft"));
            fs::write(&draft, text).unwrap();
            fs::rename(&draft, &path).unwrap();
            path
        };
        (write("crt", &pair.certificate), write("key", &pair.key))
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The files of the host `name`.
    pub fn files(&self, name: &str, validity: Validity) -> TlsFiles {
        let (certificate, key) = self.put(name, &self.make(&host(name), validity));
        TlsFiles { certificate, key, ca: self.dir.join("ca.crt"), tokens: None }
    }

    /// What a client shows that has this pair, and trusts this CA.
    pub fn credentials(&self, pair: Option<&Pair>, token: Option<&str>) -> Credentials {
        let identity = pair.map(|pair| {
            let (certificate, key) = self.put("client", pair);
            tls::identity(&certificate, &key).unwrap()
        });
        Credentials::new(tls::roots(&self.dir.join("ca.crt")).unwrap(), identity.as_ref(), token).unwrap()
    }

    /// What a client shows with a fresh certificate of this role.
    pub fn as_role(&self, role: &Role) -> Credentials {
        self.credentials(Some(&self.make(role, fine())), None)
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Until something is so, at most five seconds.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..500 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}
