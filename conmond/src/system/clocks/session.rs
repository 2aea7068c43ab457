//! One session of test packets with another host, from its first question to when the two hosts talk no longer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use conmon::api::{ClockSession, HostClock};
use ippm::stamp::{Exchanges, LENGTH, ReflectorPacket};
use ippm::time::{Timestamp, seconds};
use ring::hmac;
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::Clocks;
use super::reflector::mac;
use crate::clock::monotonic;
use crate::discovery::step;
use crate::registry::HostRow;

/// From one test packet to the next.
const PROBE: Duration = Duration::from_millis(200);
/// Exchanges that are reckoned with: both clocks are taken to run evenly for so long.
const WINDOW: Duration = Duration::from_secs(30);
/// From one reckoning to the next; the first comes after a tenth of it.
const RECKON: Duration = Duration::from_secs(5);
/// The session is prolonged, and the other host's time of day asked for, so often.
const RENEW: Duration = Duration::from_secs(15);
/// Without having been prolonged a session is over after this, a little before the other host ends it.
const LIFETIME: Duration = Duration::from_secs(50);
/// A question for a session is given up after this.
const ASK: Duration = Duration::from_secs(2);
/// A host that gave no session is asked again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Without an answer for so long something is wrong.
const SILENT: Duration = Duration::from_secs(10);

/// A session that the other host gave.
struct Open {
    ssid: u16,
    to: SocketAddr,
    /// As the other host told it.
    secret: String,
    key: hmac::Key,
    /// The other host's time of day less its clock that never steps, nanoseconds.
    wall_ns: i128,
    wall_error_ns: u64,
    renewed_at: Instant,
    exchanges: Exchanges,
    answered_at: Option<Timestamp>,
    /// For how long nothing has come.
    silent_since: Timestamp,
}

/// The key of a session as the other host tells it.
pub(super) fn key_of(session: &ClockSession) -> Option<hmac::Key> {
    let octet = |at: usize| u8::from_str_radix(session.key.get(2 * at..2 * at + 2)?, 16).ok();
    let secret: Vec<u8> = (0..32).map(octet).collect::<Option<_>>()?;
    (session.key.len() == 64).then(|| hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

/// Where a host's API is.
fn address_of(row: &HostRow) -> anyhow::Result<IpAddr> {
    let Some(api) = &row.api else {
        bail!("{} does not serve its API to other hosts: set `listen` there", row.name)
    };
    let at: SocketAddr = api.trim_start_matches("https://").parse().with_context(|| {
        format!("{} gives `{api}` as its API, which is no https://ADDRESS:PORT", row.name)
    })?;
    Ok(at.ip())
}

/// Runs it until nobody talks with the host any more.
pub(super) async fn run(clocks: Arc<Clocks>, row: Arc<HostRow>) {
    let running = Running { clocks, host: row.name.clone() };
    if let Err(error) = measure(&running.clocks, row).await {
        running.clocks.trouble(&running.host, format!("{error:#}"));
        tokio::time::sleep(AGAIN).await;
    }
}

/// Gives the host's place back, however the session ends. The host may have another address then: whoever begins anew looks.
struct Running {
    clocks: Arc<Clocks>,
    host: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.clocks.ended(&self.host);
    }
}

async fn measure(clocks: &Clocks, row: Arc<HostRow>) -> anyhow::Result<()> {
    let host = row.name.clone();
    let ip = address_of(&row)?;
    let any: SocketAddr = if ip.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() };
    let socket = UdpSocket::bind(any).await.context("no UDP socket for test packets")?;
    let mut open = open(clocks, &row, ip).await?;
    let mut ticks = interval(PROBE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reckon_at, mut renew_at) = (Instant::now() + RECKON / 10, Instant::now() + RENEW);
    while clocks.is_talking(&host) {
        let next = ticks.tick().await + PROBE;
        if Instant::now() >= renew_at {
            renew_at = Instant::now() + RENEW;
            let renewed = renew(clocks, &row, ip, &mut open).await;
            // it goes on for a while without: the other host may just be busy, or being upgraded
            if renewed.is_err() && open.renewed_at.elapsed() > LIFETIME {
                return renewed;
            }
        }
        let packet = open.exchanges.next(monotonic().as_nanos());
        let octets = packet.encode(|covered| mac(&open.key, covered));
        // what is not sent is not answered
        let _ = socket.send_to(&octets, open.to).await;
        listen(&socket, &mut open, next).await;
        if Instant::now() >= reckon_at {
            reckon_at = Instant::now() + RECKON;
            clocks.tell(reckoned(&host, &open), open.answered_at);
        }
    }
    Ok(())
}

/// Takes answers until it is time for the next packet.
async fn listen(socket: &UdpSocket, open: &mut Open, until: Instant) {
    let mut octets = [0; LENGTH + 1];
    while let Ok(got) = timeout_at(until, socket.recv_from(&mut octets)).await {
        let now = monotonic();
        let Ok((length, _)) = got else { continue };
        let packet = ReflectorPacket::decode(&octets[..length], |covered| mac(&open.key, covered));
        if packet.is_ok_and(|packet| open.exchanges.answered(&packet, now.as_nanos()).is_ok()) {
            if open.answered_at.is_none() {
                step!("test_packet_answered", now.as_nanos(), ssid = open.ssid);
            }
            (open.answered_at, open.silent_since) = (Some(now), now);
        }
    }
}

async fn ask(clocks: &Clocks, row: &Arc<HostRow>) -> anyhow::Result<ClockSession> {
    match timeout(ASK, clocks.peers.clock_session(row.clone())).await {
        Ok(answer) => answer.with_context(|| format!("{} gives no session of test packets", row.name)),
        Err(_) => bail!("{} did not answer within {} s", row.name, ASK.as_secs()),
    }
}

async fn open(clocks: &Clocks, row: &Arc<HostRow>, ip: IpAddr) -> anyhow::Result<Open> {
    step!("session_asked", monotonic().as_nanos(), host = row.name);
    let session = ask(clocks, row).await?;
    step!("session_opened", monotonic().as_nanos(), host = row.name, ssid = session.ssid);
    Open::of(&session, ip)
}

impl Open {
    fn of(session: &ClockSession, ip: IpAddr) -> anyhow::Result<Self> {
        let Some(key) = key_of(session) else { bail!("{} gave a key that is none", session.host) };
        Ok(Self {
            ssid: session.ssid,
            to: SocketAddr::new(ip, session.port),
            secret: session.key.clone(),
            key,
            wall_ns: wall_of(session),
            wall_error_ns: session.unix_error_ns,
            renewed_at: Instant::now(),
            exchanges: Exchanges::new(session.ssid, u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX)),
            answered_at: None,
            silent_since: monotonic(),
        })
    }
}

/// The other host's time of day less its clock that never steps, nanoseconds.
fn wall_of(session: &ClockSession) -> i128 {
    i128::from(session.unix_ns) - i128::from(session.monotonic_ns)
}

/// Prolongs it; a host that has started anew gives another one.
async fn renew(clocks: &Clocks, row: &Arc<HostRow>, ip: IpAddr, open: &mut Open) -> anyhow::Result<()> {
    let session = ask(clocks, row).await?;
    if (session.ssid, session.port, &session.key) == (open.ssid, open.to.port(), &open.secret) {
        (open.wall_ns, open.wall_error_ns) = (wall_of(&session), session.unix_error_ns);
        open.renewed_at = Instant::now();
    } else {
        *open = Open::of(&session, ip)?;
    }
    Ok(())
}

/// What the exchanges say of the other clock.
fn reckoned(host: &str, open: &Open) -> HostClock {
    let now = monotonic();
    let counters = open.exchanges.counters();
    let mut clock = HostClock {
        host: host.to_owned(),
        round_trip_seconds: open.exchanges.round_trip_ns().map(seconds),
        window_seconds: WINDOW.as_secs_f64(),
        sent: counters.sent,
        answered: counters.answered,
        ..HostClock::default()
    };
    let silent = now - open.silent_since;
    if silent > SILENT {
        clock.problem = Some(format!(
            "no answer to test packets for {:.0} s: UDP port {} of {} must be open to this host",
            silent.as_secs_f64(),
            open.to.port(),
            open.to.ip()
        ));
    }
    match open.exchanges.timeline(1) {
        Ok(timeline) => {
            let at = open.answered_at.unwrap_or(now).as_nanos();
            let relation = timeline.at(at);
            let (theirs, error) = relation.other_time(at);
            let (ours_wall, our_error_ns) = tap::clock::wall_offset_within();
            let offset = i128::from(theirs) + open.wall_ns - (i128::from(at) + ours_wall);
            let (skew, least, most) = relation.skew();
            clock.offset_seconds = Some(offset as f64 / 1e9);
            let readings = open.wall_error_ns.saturating_add(our_error_ns) as f64;
            clock.bound_seconds = Some((error + readings) / 1e9);
            let possible = (most - skew).max(skew - least) * 1e6;
            clock.skew_ppm = Some(skew * 1e6);
            // with a handful of packets it can be anything
            clock.skew_bound_ppm = Some(possible).filter(|ppm| ppm.is_finite());
            clock.parts = timeline.windows().len() as u64;
        }
        Err(error) if clock.problem.is_none() => clock.problem = Some(error.to_string()),
        Err(_) => {}
    }
    clock
}
