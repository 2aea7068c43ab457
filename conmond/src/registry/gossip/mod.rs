//! The registry without a database: hosts tell each other (some to some hundred).
//!
//! Each host is the only writer of its own rows, and every host holds all rows, so nobody needs to be asked. What is said is encrypted and
//! authenticated with the cluster's key ([`frame`]). The logic is pure ([`mesh`], [`node`]); a task of ours gives it a socket and a clock.

pub mod frame;
pub mod mesh;
pub mod node;
mod run;
pub mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::net::UdpSocket;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinHandle;

use super::cache::{Asked, Limits};
use super::{Answer, BoxFuture, CHANGES, Health, Hosts, Own, ReaderCounters, Registry, WriterCounters, now};
use frame::{ClusterKey, Opener, Sealer};
use mesh::{Mesh, MeshSettings};
use wire::Life;

/// How to take part.
#[derive(Clone)]
pub struct GossipSettings {
    /// This host's name.
    pub name: String,
    /// This start of conmond.
    pub life: Life,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where others reach this host; by default its address on the way to the first of `join`.
    pub advertise: Option<SocketAddr>,
    /// `HOST:PORT` of some hosts that are there already.
    pub join: Vec<String>,
    /// The cluster's key.
    pub key: ClusterKey,
    /// Times.
    pub mesh: MeshSettings,
    /// Bounds of the cache.
    pub limits: Limits,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self { ttl_ns: 15_000_000_000, round_ns: 200_000_000, grace_ns: 120_000_000_000 }
    }
}

/// Datagrams since the beginning.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Octets sent.
    pub sent_bytes: AtomicU64,
    /// Octets received, of whoever.
    pub received_bytes: AtomicU64,
    /// Datagrams without our key, or changed on their way, or of another version.
    pub forged: AtomicU64,
    /// Datagrams that were there before.
    pub replayed: AtomicU64,
    /// Datagrams that are too old to begin with, or of a host whose clock is wrong by more than a minute.
    pub stale: AtomicU64,
    /// Datagrams that could not be sent, and messages that are too long.
    pub unsent: AtomicU64,
}

struct Shared {
    mesh: Mutex<Mesh>,
    out: tokio::sync::mpsc::UnboundedSender<Vec<(SocketAddr, wire::Message)>>,
    hosts: watch::Sender<Arc<Hosts>>,
    changes: broadcast::Sender<IpAddr>,
    traffic: Traffic,
}

impl Shared {
    fn mesh(&self) -> MutexGuard<'_, Mesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who listen.
    fn tell(&self) {
        let (changed, hosts) = {
            let mut mesh = self.mesh();
            (mesh.take_changed(), mesh.take_hosts())
        };
        for address in changed {
            // Nobody may be listening.
            let _ = self.changes.send(address);
        }
        if let Some(hosts) = hosts {
            self.hosts.send_replace(Arc::new(hosts));
        }
    }
}

/// The registry by gossip.
pub struct Gossip {
    shared: Arc<Shared>,
    address: SocketAddr,
    close: Mutex<Option<oneshot::Sender<()>>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    abort: tokio::task::AbortHandle,
}

impl Gossip {
    /// Listens, and begins to talk. To be called inside a tokio runtime.
    pub async fn start(settings: GossipSettings) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(settings.listen)
            .await
            .with_context(|| format!("cannot listen on {}/UDP for gossip", settings.listen))?;
        // A message with many rows comes as some fifty datagrams at once; what the system does not grant it does not.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20);
        let listen = socket.local_addr()?;
        let address = match settings.advertise {
            Some(address) => address,
            None if !listen.ip().is_unspecified() => listen,
            None => own_address(listen, &settings.join).await?,
        };
        let sender = random()?;
        let sealer = Sealer::new(&settings.key, sender).context("the cluster's key cannot be used")?;
        let opener = Opener::new(settings.key, sender);
        let (out, outgoing) = tokio::sync::mpsc::unbounded_channel();
        let (name, life) = (settings.name.as_str(), settings.life);
        let mesh = Mesh::new(name, life, address, Vec::new(), settings.mesh, settings.limits, now());
        let shared = Arc::new(Shared {
            mesh: Mutex::new(mesh),
            out,
            hosts: watch::Sender::new(Arc::default()),
            changes: broadcast::Sender::new(CHANGES),
            traffic: Traffic::default(),
        });
        let (close, closed) = oneshot::channel();
        let task = run::Task { shared: Arc::clone(&shared), socket, sealer, opener, join: settings.join };
        let task = tokio::spawn(task.run(outgoing, closed));
        let abort = task.abort_handle();
        let task = tokio::sync::Mutex::new(Some(task));
        Ok(Self { shared, address, close: Mutex::new(Some(close)), task, abort })
    }

    /// Where others reach this host.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams since the beginning.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }
}

/// This host's address on the way to the first host it joins, with the port it listens on.
async fn own_address(listen: SocketAddr, join: &[String]) -> anyhow::Result<SocketAddr> {
    let Some(seed) = join.first() else {
        anyhow::bail!(
            "gossip listens on all addresses and joins nobody: say with gossip.advertise where others reach this host"
        );
    };
    let probe = UdpSocket::bind((listen.ip(), 0)).await?;
    // Sends nothing: it only asks the routing table.
    probe.connect(seed).await.with_context(|| format!("{seed} cannot be reached"))?;
    Ok((probe.local_addr()?.ip(), listen.port()).into())
}

fn random() -> anyhow::Result<[u8; 16]> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut octets = [0; 16];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(octets)
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Registry for Gossip {
    fn publish(&self, own: Own) {
        let out = self.shared.mesh().publish(own, now());
        // Only fails when the task has ended.
        let _ = self.shared.out.send(out);
        self.shared.tell();
    }

    fn hosts(&self) -> watch::Receiver<Arc<Hosts>> {
        self.shared.hosts.subscribe()
    }

    fn find(&self, address: IpAddr, at_ns: u64) -> BoxFuture<'_, Answer> {
        let answer = self.cached(address, at_ns).unwrap_or_default();
        Box::pin(std::future::ready(answer))
    }

    fn cached(&self, address: IpAddr, at_ns: u64) -> Option<Answer> {
        match self.shared.mesh().cache().ask(address, at_ns, now()) {
            Asked::Hit(answer) => Some(answer),
            Asked::Miss(answer) => answer,
        }
    }

    fn changes(&self) -> broadcast::Receiver<IpAddr> {
        self.shared.changes.subscribe()
    }

    fn health(&self) -> Health {
        let now_ns = now().wall_ns;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let traffic = &self.shared.traffic;
        let (forged, stale, replayed) =
            (count(&traffic.forged), count(&traffic.stale), count(&traffic.replayed));
        let mut mesh = self.shared.mesh();
        let heard = mesh.heard_wall_ns();
        let reachable = heard.is_some_and(|heard| now_ns.saturating_sub(heard) < 10_000_000_000);
        let problem = if mesh.superseded() {
            Some("another conmond, started later, speaks as this host")
        } else if reachable {
            None
        } else if stale > 0 {
            Some("hosts are heard whose clocks differ from this one's by more than a minute")
        } else if forged > 0 {
            Some("hosts are heard that have another cluster key")
        } else {
            Some("no other host is heard")
        };
        let counters = mesh.counters();
        let (pending_rows, superseded, watches) = (mesh.pending(), mesh.superseded(), mesh.others());
        let cache = mesh.cache();
        Health {
            backend: "gossip",
            reachable,
            known_as_of_ns: heard,
            pending_rows,
            superseded,
            problem: problem.map(str::to_owned),
            addresses: cache.len(),
            rows: cache.rows(),
            watches,
            cache: cache.counters(),
            writer: WriterCounters {
                writes: counters.writes,
                rows: counters.rows,
                failures: count(&traffic.unsent),
                rewrites: 0,
                refused_rows: counters.refused_rows,
            },
            reader: ReaderCounters {
                reads: counters.messages,
                events: counters.events,
                resyncs: counters.resyncs,
                malformed: counters.malformed,
                refused: forged + stale + replayed,
                ..ReaderCounters::default()
            },
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let close = self.close.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(close) = close {
                // The task may have ended already.
                let _ = close.send(());
            }
            if let Some(task) = self.task.lock().await.take() {
                let _ = task.await;
            }
        })
    }
}
