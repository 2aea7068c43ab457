//! Gives the mesh a socket and a clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::super::now;
use super::Shared;
use super::frame::{Opener, Refused, Sealer};
use super::wire::Message;

/// From one look at the names of hosts to join to the next.
const RESOLVE: Duration = Duration::from_secs(30);

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) socket: UdpSocket,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) join: Vec<String>,
}

impl Task {
    /// Talks until `closed`, then says that this host leaves.
    pub(super) async fn run(
        mut self,
        mut outgoing: mpsc::UnboundedReceiver<Vec<(SocketAddr, Message)>>,
        mut closed: oneshot::Receiver<()>,
    ) {
        let (seeds, mut resolved) = mpsc::channel(1);
        let resolver = tokio::spawn(resolve(std::mem::take(&mut self.join), seeds));
        let mut buffer = vec![0; 2048];
        loop {
            let now_ns = now().steady_ns;
            let due = self.shared.mesh().next_round_ns().saturating_sub(now_ns);
            tokio::select! {
                _ = &mut closed => break,
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((count, from)) => {
                        let answer = self.received(buffer.get(..count).unwrap_or_default());
                        self.shared.tell();
                        if let Some(answer) = answer {
                            self.send(from, &answer).await;
                        }
                    }
                    // Tells of a datagram that did not arrive, or of want of memory, and passes.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(all) = outgoing.recv() => self.send_all(all).await,
                Some(seeds) = resolved.recv() => self.shared.mesh().set_seeds(seeds),
                () = tokio::time::sleep(Duration::from_nanos(due)) => {
                    let all = self.shared.mesh().tick(now());
                    self.shared.tell();
                    self.send_all(all).await;
                }
            }
        }
        resolver.abort();
        let farewell = self.shared.mesh().leave();
        self.send_all(farewell).await;
    }

    /// Takes a datagram; gives the answer.
    fn received(&mut self, datagram: &[u8]) -> Option<Message> {
        let traffic = &self.shared.traffic;
        add(&traffic.received_bytes, datagram.len());
        let now = now();
        let message = match self.opener.open(datagram, now.wall_ns / 1_000_000) {
            Ok(message) => message?,
            Err(refused) => {
                match refused {
                    Refused::Own => return None,
                    Refused::Replayed => add(&traffic.replayed, 1),
                    Refused::Stale => add(&traffic.stale, 1),
                    Refused::Forged => add(&traffic.forged, 1),
                }
                return None;
            }
        };
        let Some(message) = Message::decode(&message) else {
            add(&traffic.forged, 1);
            return None;
        };
        self.shared.mesh().receive(message, now)
    }

    async fn send_all(&mut self, all: Vec<(SocketAddr, Message)>) {
        for (to, message) in all {
            self.send(to, &message).await;
        }
    }

    async fn send(&mut self, to: SocketAddr, message: &Message) {
        let traffic = &self.shared.traffic;
        let Some(datagrams) = self.sealer.seal(&message.encode(), now().wall_ns / 1_000_000) else {
            add(&traffic.unsent, 1);
            return;
        };
        for datagram in datagrams {
            match self.socket.send_to(&datagram, to).await {
                Ok(count) => add(&traffic.sent_bytes, count),
                // Whoever cannot be reached is told later, or by others.
                Err(_) => return add(&traffic.unsent, 1),
            }
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Looks up the hosts to join, over and over: a name may get other addresses.
async fn resolve(join: Vec<String>, seeds: mpsc::Sender<Vec<SocketAddr>>) {
    loop {
        let mut all = Vec::new();
        for host in &join {
            match tokio::net::lookup_host(host.as_str()).await {
                Ok(addresses) => all.extend(addresses),
                Err(error) => tracing::debug!("{host} is not found: {error}"),
            }
        }
        if seeds.send(all).await.is_err() {
            return;
        }
        tokio::time::sleep(RESOLVE).await;
    }
}
