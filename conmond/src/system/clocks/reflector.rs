//! Answers the test packets of other hosts (RFC 8762 section 4.3), of those that asked for a session over TLS and nobody else.
//!
//! An answer is as long as its question, bears the key's proof, and goes where the question came from: nothing can be
//! made larger by it, and without a key there is none. What is sent again is answered again: a sender takes each answer once.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conmon::api::{ApiError, ClockSession};
use ippm::stamp::{ErrorEstimate, LENGTH, Mac, ReflectorPacket, SenderPacket};
use ippm::time::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UdpSocket;

use super::lock;
use crate::clock::monotonic;

/// Sessions at one time.
const SESSIONS: usize = 4096;
/// A session that is not asked for again ends after this.
const LIFETIME: Duration = Duration::from_secs(60);

/// The proof that a packet is of somebody who has the key.
pub(super) fn mac(key: &hmac::Key, octets: &[u8]) -> Mac {
    let tag = hmac::sign(key, octets);
    tag.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Answers test packets.
pub struct Reflector {
    host: String,
    port: u16,
    sessions: Mutex<HashMap<u16, Session>>,
    refused: AtomicU64,
}

struct Session {
    host: String,
    secret: [u8; 32],
    key: hmac::Key,
    until: Timestamp,
    reflected: u32,
}

impl Reflector {
    /// Listens at the API's address, at the same port of UDP, or at any other if that is taken. To be called inside a tokio runtime.
    pub fn start(host: &str, api: SocketAddr) -> io::Result<Arc<Self>> {
        let socket = std::net::UdpSocket::bind(api)
            .or_else(|_| std::net::UdpSocket::bind(SocketAddr::new(api.ip(), 0)))?;
        socket.set_nonblocking(true)?;
        let reflector = Arc::new(Self {
            host: host.to_owned(),
            port: socket.local_addr()?.port(),
            sessions: Mutex::default(),
            refused: AtomicU64::new(0),
        });
        tokio::spawn(reflector.clone().run(UdpSocket::from_std(socket)?));
        Ok(reflector)
    }

    /// The session of a host, made or prolonged.
    pub fn open(&self, asker: &str) -> Result<ClockSession, ApiError> {
        let now = monotonic();
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, session| session.until > now);
        let room = sessions.len() < SESSIONS;
        let found = sessions.iter_mut().find(|(_, session)| session.host == asker);
        let (ssid, secret) = match found {
            Some((ssid, session)) => {
                session.until = now + LIFETIME;
                (*ssid, session.secret)
            }
            None if !room => {
                return Err(ApiError::unavailable(format!(
                    "{SESSIONS} hosts have sessions of test packets here, which is the limit"
                )));
            }
            None => {
                let random = || ApiError::internal("no random numbers can be had");
                let (source, mut secret, mut number) = (SystemRandom::new(), [0; 32], [0; 2]);
                source.fill(&mut secret).map_err(|_| random())?;
                source.fill(&mut number).map_err(|_| random())?;
                let mut ssid = u16::from_ne_bytes(number).max(1);
                while sessions.contains_key(&ssid) {
                    ssid = ssid.wrapping_add(1).max(1);
                }
                let session = Session {
                    host: asker.to_owned(),
                    secret,
                    key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
                    until: now + LIFETIME,
                    reflected: 0,
                };
                sessions.insert(ssid, session);
                (ssid, secret)
            }
        };
        let (wall_ns, unix_error_ns) = tap::clock::wall_offset_within();
        let unix_ns = i128::from(now.as_nanos()) + wall_ns;
        Ok(ClockSession {
            host: self.host.clone(),
            port: self.port,
            ssid,
            key: secret.iter().map(|octet| format!("{octet:02x}")).collect(),
            lifetime_seconds: LIFETIME.as_secs(),
            monotonic_ns: now.as_nanos(),
            unix_ns: u64::try_from(unix_ns).unwrap_or(0),
            unix_error_ns,
        })
    }

    /// Packets that were not answered: of no session, or without its key's proof.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    async fn run(self: Arc<Self>, socket: UdpSocket) {
        // one octet more: what is too long is not taken for what is right
        let mut octets = [0; LENGTH + 1];
        loop {
            let (length, from) = match socket.recv_from(&mut octets).await {
                Ok(got) => got,
                // an answer that came back as an ICMP error; nothing that ends the socket
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let received = monotonic();
            match self.answer(&octets[..length], received) {
                // who does not get it sends another
                Some(answer) => drop(socket.send_to(&answer, from).await),
                None => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    fn answer(&self, octets: &[u8], received: Timestamp) -> Option<[u8; LENGTH]> {
        let mut sessions = lock(&self.sessions);
        let session = sessions.get_mut(&SenderPacket::ssid_of(octets)?)?;
        if session.until <= received {
            return None;
        }
        let packet = SenderPacket::decode(octets, |covered| mac(&session.key, covered)).ok()?;
        let answer = ReflectorPacket {
            seq: session.reflected,
            sent_ns: monotonic().as_nanos(),
            error: ErrorEstimate::MONOTONIC,
            ssid: packet.ssid,
            received_ns: received.as_nanos(),
            sender_seq: packet.seq,
            sender_sent_ns: packet.sent_ns,
            sender_error: packet.error,
            // user space is not told it without asking for it
            sender_ttl: 0,
        };
        session.reflected = session.reflected.wrapping_add(1);
        Some(answer.encode(|covered| mac(&session.key, covered)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(session: &ClockSession) -> hmac::Key {
        super::super::session::key_of(session).unwrap()
    }

    async fn reflector() -> Arc<Reflector> {
        Reflector::start("b", "127.0.0.1:0".parse().unwrap()).unwrap()
    }

    fn packet(session: &ClockSession, seq: u32) -> SenderPacket {
        SenderPacket { seq, sent_ns: 5_000_000_007, error: ErrorEstimate::MONOTONIC, ssid: session.ssid }
    }

    #[tokio::test]
    async fn who_has_the_key_is_answered_and_nobody_else() {
        let r = reflector().await;
        let session = r.open("a").unwrap();
        assert_eq!((session.port, session.host.as_str()), (r.port, "b"));
        let (now, key) = (monotonic(), key(&session));
        let sent = packet(&session, 7).encode(|octets| mac(&key, octets));
        let answer = r.answer(&sent, now).unwrap();
        let answer = ReflectorPacket::decode(&answer, |octets| mac(&key, octets)).unwrap();
        assert_eq!((answer.sender_seq, answer.sender_sent_ns, answer.seq), (7, 5_000_000_007, 0));
        assert!(answer.received_ns == now.as_nanos() && answer.sent_ns >= answer.received_ns);

        let other = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let forged = packet(&session, 8).encode(|octets| mac(&other, octets));
        assert!(r.answer(&forged, now).is_none(), "another's key");
        let strange = SenderPacket { ssid: session.ssid ^ 1, ..packet(&session, 8) };
        assert!(r.answer(&strange.encode(|octets| mac(&key, octets)), now).is_none(), "no such session");
        assert!(r.answer(&sent[..50], now).is_none() && r.answer(&[], now).is_none());
        assert!(r.answer(&sent, now + LIFETIME + Duration::from_secs(1)).is_none(), "it is over");
    }

    #[tokio::test]
    async fn a_sender_that_begins_anew_is_answered_whatever_it_sent_before() {
        let r = reflector().await;
        let session = r.open("a").unwrap();
        let answers = |session: &ClockSession, seq| {
            let sent = packet(session, seq).encode(|octets| mac(&key(session), octets));
            r.answer(&sent, monotonic()).is_some()
        };
        assert!(answers(&session, 100_000));
        let again = r.open("a").unwrap();
        assert!(answers(&again, 0) && answers(&session, 100_001));
    }

    #[tokio::test]
    async fn each_host_has_one_session_and_there_is_room_for_so_many() {
        let r = reflector().await;
        let first = r.open("a").unwrap();
        let (again, other) = (r.open("a").unwrap(), r.open("b").unwrap());
        assert_eq!((first.ssid, &first.key), (again.ssid, &again.key));
        assert!(first.ssid != other.ssid && first.key != other.key);
        for i in 2..SESSIONS {
            r.open(&format!("h{i}")).unwrap();
        }
        assert_eq!(r.open("one more").unwrap_err().status, 503);
        r.open("a").unwrap();
    }
}
