//! Traffic that goes on, over UDP and over TCP, until its end is wanted; then what was counted is held to what was sent.

use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::traffic::{TcpReceived, TcpSent, UdpReceived, UdpSent};
use lab::{Conmond, Container, Host, wait_for};
use std::time::Duration;

/// Datagrams a second.
const RATE: u64 = 1000;

/// Two senders and their sinks.
pub struct Traffic {
    host: Host,
    /// The host's end of the sender's interface.
    port: String,
    udp: Container,
    tcp: Container,
    sender: Container,
    stream: Container,
}

impl Traffic {
    /// Starts all of it, and returns when conmond shows some.
    pub fn start(host: &Host, conmond: &Conmond) -> Result<Self> {
        let udp = listening(host, "udp-sink", "udp-sink")?;
        let tcp = listening(host, "tcp-sink", "tcp-sink")?;
        let (udp_to, tcp_to) = (udp.ipv4(NET)?, tcp.ipv4(NET)?);
        let words = format!("udp-send --to {udp_to}:9000 --rate {RATE}");
        let sender = host.run(&spec("sender", &words))?;
        let stream = host.run(&spec("stream", &format!("tcp-stream --to {tcp_to}:9002 --rate-mbit 20")))?;
        pair_with(conmond, "sender", "udp-sink", RATE / 2)?;
        pair_with(conmond, "stream", "tcp-sink", 10)?;
        let port = sender.port()?.outside.name;
        Ok(Self { host: host.clone(), port, udp, tcp, sender, stream })
    }

    /// Waits for so many seconds' datagrams, by the interface's own counter, and tells how many there were. The engine need not
    /// be there.
    pub fn goes_on(&self, seconds: u64) -> Result<u64> {
        let sent = || Ok::<_, anyhow::Error>(self.host.namespace().link(&self.port)?.rx.packets);
        let before = sent()?;
        let patience = Duration::from_secs(seconds) + END;
        wait_for(&format!("{seconds} s of traffic"), patience, || {
            let more = sent()? - before;
            Ok((more >= seconds * RATE).then_some(more))
        })
    }

    /// Ends it. Everything that was sent was counted, and nothing else.
    pub fn was_counted_exactly(self, conmond: &Conmond) -> Result<UdpSent> {
        let sent: UdpSent = self.sender.stop_and_report().context("the sender ended early")?;
        let streamed: TcpSent = self.stream.stop_and_report().context("the stream ended early")?;
        holds_exactly(conmond, "sender", "udp-sink", &sent)?;
        ensure!(streamed.delivered, "{streamed:?}");
        // The end of the stream is in the pair when its bytes hold the payload.
        let what = "the pair of the stream to hold all of it";
        let pair = conmond.wait_ctl(what, END, &["pairs"], |answer| {
            let pair = pair(answer, "stream", "tcp-sink")?;
            (tcp_payload(&pair["sent"])? >= streamed.bytes).then(|| pair.clone())
        })?;
        if pair["retransmitted_segments"] == 0 {
            ensure!(tcp_payload(&pair["sent"]) == Some(streamed.bytes), "{streamed:?}, but {pair}");
        }
        for container in ["udp-sink", "tcp-sink"] {
            port_agrees(conmond, container)?;
        }
        balanced(conmond)?;
        let dropped = dropped_before(&self.udp)?;
        let received: UdpReceived = self.udp.stop_and_report()?;
        received_from(&received, dropped, &sent)?;
        let connections: TcpReceived = self.tcp.stop_and_report()?;
        ensure!(connections.connections.iter().any(|c| c.intact && c.bytes == streamed.bytes));
        Ok(sent)
    }
}
