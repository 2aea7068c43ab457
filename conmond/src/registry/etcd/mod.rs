//! The registry in an etcd: thousands of hosts.
//!
//! One task drives [`Writer`](super::writer::Writer) and [`Reader`](super::reader::Reader); each call to etcd is a task of its own with a bound on its time. A call that
//! etcd did not answer is the end of the connection: a new one is made, all rows of this host are checked by their seal, all
//! that is followed is read anew. Until then what is known is answered, and what is to be written waits.

mod calls;
mod driver;
mod stream;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio::task::JoinHandle;

use super::cache::{Asked, Limits};
use super::reader::{Reader, Target};
use super::writer::{Writer, WriterSettings};
use super::{Answer, BoxFuture, CHANGES, Health, Hosts, Own, Registry, now};

/// How to reach an etcd.
#[derive(Clone)]
pub struct EtcdSettings {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// TLS, for URLs that begin with https.
    pub tls: Option<EtcdTls>,
    /// Name and password of a user of etcd's own.
    pub user: Option<(String, String)>,
    /// Longest time of one call.
    pub call_timeout: Duration,
    /// Longest time that somebody who asks waits for an answer.
    pub find_timeout: Duration,
    /// Bounds of the cache.
    pub limits: Limits,
    /// Times and sizes of writing.
    pub writer: WriterSettings,
}

/// Certificates in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Whose certificates of servers are believed.
    pub ca: Vec<u8>,
    /// This host's own certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl EtcdSettings {
    /// Defaults for everything but the addresses.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            tls: None,
            user: None,
            call_timeout: Duration::from_secs(2),
            find_timeout: Duration::from_secs(1),
            limits: Limits::default(),
            writer: WriterSettings::default(),
        }
    }

    fn options(&self) -> ConnectOptions {
        // etcd ends connections that ping more often than every 5 s.
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.call_timeout)
            .with_keep_alive(Duration::from_secs(6), Duration::from_secs(4))
            .with_tcp_keepalive(Duration::from_secs(10))
            .with_require_leader(true);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password).with_auto_token_refresh(true);
        }
        if let Some(tls) = &self.tls {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                with = with.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(with);
        }
        options
    }
}

/// What the driver and those who ask share.
struct Shared {
    reading: Mutex<Reading>,
    writer: Mutex<Writer>,
    problem: Mutex<Option<String>>,
    wake: Notify,
    hosts: watch::Sender<Arc<Hosts>>,
    changes: broadcast::Sender<IpAddr>,
}

struct Reading {
    reader: Reader,
    /// Those who wait until an address was read.
    waiting: HashMap<IpAddr, Vec<oneshot::Sender<()>>>,
    /// As long as there is a connection.
    line: Option<driver::Line>,
}

impl Reading {
    /// Tells those who wait for what was read.
    fn tell_waiting(&mut self) {
        for address in self.reader.take_answered() {
            for waiting in self.waiting.remove(&address).into_iter().flatten() {
                let _ = waiting.send(());
            }
        }
    }
}

impl Shared {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problem(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registry in an etcd.
pub struct Etcd {
    shared: Arc<Shared>,
    find_timeout: Duration,
    close: Mutex<Option<oneshot::Sender<()>>>,
    driver: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    abort: tokio::task::AbortHandle,
}

impl Etcd {
    /// Begins to connect, and goes on trying. To be called inside a tokio runtime. `seed` makes this host's waits differ from others'.
    pub fn start(settings: EtcdSettings, seed: u64) -> Self {
        let retry_ns = settings.writer.retry_max_ns;
        let shared = Arc::new(Shared {
            reading: Mutex::new(Reading {
                reader: Reader::new(settings.limits, retry_ns, seed.rotate_left(17)),
                waiting: HashMap::new(),
                line: None,
            }),
            writer: Mutex::new(Writer::new(settings.writer, seed)),
            problem: Mutex::new(Some("not connected yet".to_owned())),
            wake: Notify::new(),
            hosts: watch::Sender::new(Arc::default()),
            changes: broadcast::Sender::new(CHANGES),
        });
        let (close, closed) = oneshot::channel();
        let find_timeout = settings.find_timeout;
        let driver = tokio::spawn(driver::run(Arc::clone(&shared), settings, seed.rotate_left(31), closed));
        let abort = driver.abort_handle();
        let driver = tokio::sync::Mutex::new(Some(driver));
        Self { shared, find_timeout, close: Mutex::new(Some(close)), driver, abort }
    }

    /// The lease that this host's rows hang on, for tests.
    #[doc(hidden)]
    pub fn lease(&self) -> Option<i64> {
        self.shared.writer().lease()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Registry for Etcd {
    fn publish(&self, own: Own) {
        self.shared.writer().publish(own, now());
        self.shared.wake.notify_one();
    }

    fn hosts(&self) -> watch::Receiver<Arc<Hosts>> {
        self.shared.hosts.subscribe()
    }

    fn find(&self, address: IpAddr, at_ns: u64) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let address = address.to_canonical();
            let (answered, done) = oneshot::channel();
            let mut is_sent = false;
            {
                let mut reading = self.shared.reading();
                if let Some(answer) = reading.reader.find(address, at_ns, now()) {
                    return answer;
                }
                let waiting = reading.waiting.entry(address).or_default();
                waiting.retain(|one| !one.is_closed());
                waiting.push(answered);
                let Reading { reader, line, .. } = &mut *reading;
                while let Some(line) = line
                    && let Some((target, ticket)) = reader.next_reading(now())
                {
                    is_sent |= target == Target::Address(address);
                    driver::read(&self.shared, line, target, ticket);
                }
            }
            // else it waits for others' answers, or for a while after a failure
            if !is_sent {
                self.shared.wake.notify_one();
            }
            let in_time = tokio::time::timeout(self.find_timeout, done).await.is_ok();
            match self.shared.reading().reader.ask(address, at_ns, now()) {
                Asked::Hit(answer) => Answer { from_cache: !in_time, ..answer },
                Asked::Miss(answer) => answer.unwrap_or_default(),
            }
        })
    }

    fn cached(&self, address: IpAddr, at_ns: u64) -> Option<Answer> {
        match self.shared.reading().reader.ask(address, at_ns, now()) {
            Asked::Hit(answer) => Some(answer),
            Asked::Miss(_) => None,
        }
    }

    fn changes(&self) -> broadcast::Receiver<IpAddr> {
        self.shared.changes.subscribe()
    }

    fn health(&self) -> Health {
        let problem = self.shared.problem().clone();
        let (pending_rows, superseded, writer) = {
            let writer = self.shared.writer();
            (writer.pending(), writer.superseded(), writer.counters())
        };
        let reading = self.shared.reading();
        let cache = reading.reader.cache();
        Health {
            backend: "etcd",
            reachable: reading.reader.connected(),
            known_as_of_ns: cache.confirmed_ns(),
            pending_rows,
            superseded,
            problem,
            addresses: cache.len(),
            rows: cache.rows(),
            watches: reading.reader.watching(),
            cache: cache.counters(),
            writer,
            reader: reading.reader.counters(),
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let close = self.close.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(close) = close {
                // The driver may have ended already.
                let _ = close.send(());
            }
            if let Some(driver) = self.driver.lock().await.take() {
                let _ = driver.await;
            }
        })
    }
}
