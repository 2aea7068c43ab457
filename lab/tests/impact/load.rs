//! The applications' side: four loads, each run for a window, and what the applications themselves measured in it.

use crate::stage::Stage;
use anyhow::{Context, Result, bail, ensure};
use lab::traffic::{RoundTrips, UdpReceived, UdpSent};
use lab::{Container, Host};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What two containers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    UdpRequests,
    TcpRequests,
    UdpStream,
    TcpStream,
}

/// One figure of a load.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
}

/// What a window brought.
pub struct Window {
    /// The load's figures, in the order of its metrics.
    pub figures: Vec<f64>,
    /// Packets that the load put through the client's port, as the applications know it: to the server, to the client.
    /// Of TCP only how many it must have been at least.
    pub packets: [u64; 2],
}

/// Payload of one datagram of the UDP loads, bytes.
const SIZE: &str = "64";
/// What of a request/response window is not measured: the engine is still busy with having started the client.
const WARM: Duration = Duration::from_millis(100);
/// Silence after which the sink of a UDP stream knows that it was the last datagram.
const QUIET: &str = "0.1";
/// A TCP packet between two containers of a host carries no more than this.
const LARGEST_PACKET: f64 = 65_536.0;

const fn metric(name: &'static str, unit: &'static str) -> Metric {
    Metric { name, unit }
}

impl Load {
    pub const ALL: [Self; 4] = [Self::UdpRequests, Self::TcpRequests, Self::UdpStream, Self::TcpStream];

    pub fn name(self) -> &'static str {
        match self {
            Self::UdpRequests => "UDP request/response",
            Self::TcpRequests => "TCP request/response",
            Self::UdpStream => "UDP stream",
            Self::TcpStream => "TCP stream",
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::UdpRequests => "echo of 64 B, one at a time, both ends on one processor",
            Self::TcpRequests => "memcached, values of 100 B, one at a time, both ends on one processor",
            Self::UdpStream => "datagrams of 64 B as fast as they go, each end on a processor of its own",
            Self::TcpStream => "iperf3, each end on a processor of its own",
        }
    }

    /// The processor time of a stream is the sender's, the receiver's, that of the kernel's threads for packets, and the
    /// watcher's. What the kernel does for a packet in between it counts as time of whom it interrupts: here nearly always
    /// the sender. (One that was built with CONFIG_IRQ_TIME_ACCOUNTING leaves that out.)
    pub fn metrics(self) -> &'static [Metric] {
        const REQUESTS: [Metric; 2] = [metric("round trip p50", "µs"), metric("round trip p99", "µs")];
        const UDP: [Metric; 2] = [metric("delivered", "1,000/s"), metric("processor time", "ns/packet")];
        const TCP: [Metric; 2] = [metric("throughput", "Gbit/s"), metric("processor time", "ms/GB")];
        match self {
            Self::UdpRequests | Self::TcpRequests => &REQUESTS,
            Self::UdpStream => &UDP,
            Self::TcpStream => &TCP,
        }
    }

    /// Client and server; nothing else passes between the two. The client's port is the one that tcpdump watches.
    pub fn ends(self, stage: &Stage) -> (&Container, &Container) {
        match self {
            Self::UdpRequests => (&stage.client, &stage.echo),
            Self::TcpRequests => (&stage.client, &stage.cache),
            Self::UdpStream => (&stage.client, &stage.sink),
            Self::TcpStream => (&stage.iperf_client, &stage.iperf_server),
        }
    }

    /// Whether the applications know of each packet.
    pub fn is_counted(self) -> bool {
        matches!(self, Self::UdpRequests | Self::UdpStream)
    }

    /// Runs it. `watching`: processor time so far of the kernel's packet threads and of the watcher, in ns.
    pub fn run(self, stage: &Stage, window: Duration, watching: impl Fn() -> Result<u64>) -> Result<Window> {
        let beside = watching()?;
        let since = || Ok::<_, anyhow::Error>(watching()?.saturating_sub(beside) as f64);
        let seconds = window.as_secs_f64();
        let (client, server) = self.ends(stage);
        let to = stage.address(server)?;
        match self {
            Self::UdpRequests => requests(client, &format!("udp-rr --to {to}:9001 --size {SIZE}"), window),
            Self::TcpRequests => requests(client, &format!("memcached --to {to}:11211 --rate 0"), window),
            Self::UdpStream => {
                let sink = Sink::start(&stage.host, server)?;
                let words = format!("udp-send --to {to}:9000 --rate 0 --size {SIZE} --seconds {seconds}");
                let sent: UdpSent = labgen(client, &words)?;
                let received = sink.report()?;
                ensure!(sent.sent > 0 && received.datagrams > 0, "nothing passed: {sent:?}");
                let took = (sent.last_ns - sent.first_ns).max(1) as f64 / 1e9;
                let cpu = (sent.cpu_ns + received.cpu_ns) as f64 + since()?;
                Ok(Window {
                    figures: vec![received.datagrams as f64 / took / 1e3, cpu / sent.sent as f64],
                    packets: [sent.sent, 0],
                })
            }
            Self::TcpStream => {
                // iperf3 takes whole seconds.
                let seconds = seconds.ceil().max(1.0).to_string();
                let to = to.to_string();
                let words = ["/usr/bin/iperf3", "--json", "--client", &to, "--time", &seconds];
                let answer = client.exec(&words)?;
                let answer: Value = serde_json::from_str(&answer).context("iperf3 did not print JSON")?;
                let number = |path: &str| {
                    answer.pointer(path).and_then(Value::as_f64).with_context(|| format!("iperf3: no {path}"))
                };
                let bytes = number("/end/sum_received/bytes")?;
                let utilization = number("/end/cpu_utilization_percent/host_total")?
                    + number("/end/cpu_utilization_percent/remote_total")?;
                let cpu = utilization / 100.0 * number("/end/sum_sent/seconds")? * 1e9 + since()?;
                Ok(Window {
                    figures: vec![
                        number("/end/sum_received/bits_per_second")? / 1e9,
                        cpu / 1e6 / (bytes / 1e9),
                    ],
                    packets: [(bytes / LARGEST_PACKET) as u64, 0],
                })
            }
        }
    }
}

fn requests(client: &Container, words: &str, window: Duration) -> Result<Window> {
    let (warm, seconds) = (WARM.as_secs_f64(), (window + WARM).as_secs_f64());
    let trips: RoundTrips = labgen(client, &format!("{words} --warm {warm} --seconds {seconds}"))?;
    let times = &trips.round_trip_ns;
    ensure!(times.count > 0, "no round trip in the window: {trips:?}");
    Ok(Window {
        figures: vec![times.p50 as f64 / 1e3, times.p99 as f64 / 1e3],
        packets: [trips.requests, trips.requests - trips.lost],
    })
}

/// Runs the traffic generator in a container to its end.
fn labgen<T: DeserializeOwned>(container: &Container, words: &str) -> Result<T> {
    let words: Vec<&str> = ["/labgen"].into_iter().chain(words.split(' ')).collect();
    report(&container.exec(&words)?)
}

fn report<T: DeserializeOwned>(printed: &str) -> Result<T> {
    let last = printed.lines().last().context("the traffic generator printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("the traffic generator printed {last:?}"))
}

/// A sink of datagrams in a container; ended when dropped, and by itself after the last datagram.
struct Sink {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Sink {
    /// Returns when it listens.
    fn start(host: &Host, container: &Container) -> Result<Self> {
        let mut command: Command = host.docker_command();
        command.args(["exec", container.id(), "/labgen", "udp-sink", "--quiet", QUIET]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("docker exec")?;
        let stdout = child.stdout.take().context("no pipe from docker exec")?;
        let mut sink = Self { child, lines: BufReader::new(stdout) };
        let line = sink.line()?;
        if !line.starts_with("listening") {
            bail!("the sink said {line:?} instead of listening");
        }
        Ok(sink)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).context("cannot read from the sink")?;
        Ok(line)
    }

    fn report(mut self) -> Result<UdpReceived> {
        let line = self.line()?;
        report(&line)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
