//! Real applications that talk, and captures at their servers' ports. Two of them over a bad network: what goes to the
//! server is now and then late, overtaken, or dropped, by the IPv4 identification of each packet.

use anyhow::{Context, Result, ensure};
use lab::{App, Capture, Container, Host, Lab, Spec, find_program, output, wait_for};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

const END: Duration = Duration::from_secs(40);

/// A server, what its clients do, and whether the network is bad.
struct Play {
    name: &'static str,
    server: App,
    client: App,
    script: &'static str,
    bad: bool,
}

const PLAYS: &[Play] = &[
    Play {
        name: "redis",
        server: App::Redis,
        client: App::Redis,
        script: "until redis-cli -h redis ping | grep PONG; do sleep 0.1; done; \
                 redis-benchmark -h redis -n 3000 -c 8 -t set,get,lrange_100 -q",
        bad: false,
    },
    Play {
        name: "nginx",
        server: App::Nginx,
        client: App::Wrk,
        script: "until wget -q -O /dev/null http://nginx/; do sleep 0.1; done; \
                 for i in 1 2 3; do wget -q -O /dev/null http://nginx/large; done; wrk -t1 -c4 -d1 http://nginx/",
        bad: true,
    },
    Play {
        name: "postgres",
        server: App::Postgres,
        client: App::Postgres,
        script: "until pg_isready -q -h postgres; do sleep 0.1; done; export PGHOST=postgres PGUSER=postgres; \
                 pgbench -q -i -s 1 postgres 2>&1 && pgbench -c 2 -t 200 postgres",
        bad: false,
    },
    Play {
        name: "iperf3",
        server: App::Iperf3,
        client: App::Iperf3,
        script: "until iperf3 -c iperf3 -t 2 -b 40M -P 2; do sleep 0.1; done; iperf3 -c iperf3 -t 1 -b 50M -R; \
                 iperf3 -u -c iperf3 -t 1 -b 20M -l 1000",
        bad: true,
    },
];

/// Plays all plays, one after another; each name with its capture.
pub fn captures(lab: &Lab) -> Result<Vec<(&'static str, PathBuf)>> {
    let host = lab.host("apps")?;
    host.network("net", None)?;
    let mut captures = Vec::new();
    for play in PLAYS {
        captures.push((play.name, play_one(&host, play).with_context(|| play.name.to_owned())?));
    }
    captures.push(("quic", quic(lab).context("quic")?));
    Ok(captures)
}

fn play_one(host: &Host, play: &Play) -> Result<PathBuf> {
    host.image(play.server)?;
    host.image(play.client)?;
    let server = host.run(&Spec::app(play.name, play.server).network("net"))?;
    if play.bad {
        spoil(host, &server)?;
    }
    let capture = Capture::outside(&server, "")?;
    let client = Spec::app(&format!("{}-client", play.name), play.client).network("net").shell(play.script);
    let client = host.run(&client)?;
    let code = client.wait(END)?;
    ensure!(code == 0, "the client ended with code {code}: {}", client.output()?);
    let captured = capture.finish()?;
    ensure!(captured.dropped == 0, "the capture lost {} packets", captured.dropped);
    Ok(captured.file)
}

/// Makes the way to a container bad: of IPv4 packets those with some identifications go through a slow queue, and are
/// overtaken, and others through one that has no room. Offload would put many segments under one identification.
fn spoil(host: &Host, container: &Container) -> Result<()> {
    let port = container.port()?.outside.name;
    let tc = |words: &str| output(host.command("tc").args(words.split(' '))).map(drop);
    let mut ethtool = host.command(find_program("ethtool", "ethtool")?);
    output(ethtool.args(["-K", port.as_str(), "tso", "off", "gso", "off", "gro", "off"]))?;
    let mut inside = container.command_in_network(find_program("ethtool", "ethtool")?)?;
    output(inside.args(["-K", "eth0", "tso", "off", "gso", "off", "gro", "off"]))?;
    tc(&format!("qdisc add dev {port} root handle 1: htb default 10"))?;
    for (class, rate, burst) in [("10", "1gbit", "256k"), ("20", "4mbit", "1600"), ("30", "8kbit", "1600")] {
        tc(&format!(
            "class add dev {port} parent 1: classid 1:{class} htb rate {rate} burst {burst} cburst {burst}"
        ))?;
    }
    tc(&format!("qdisc add dev {port} parent 1:20 pfifo limit 100"))?;
    tc(&format!("qdisc add dev {port} parent 1:30 pfifo limit 1"))?;
    // The identification stands four octets into the IPv4 header.
    let filter = format!("filter add dev {port} parent 1: protocol ip prio 1 u32 match u16");
    tc(&format!("{filter} 0x0011 0x003f at 4 flowid 1:20"))?;
    tc(&format!("{filter} 0x0022 0x007f at 4 flowid 1:30"))
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// ngtcp2's server and client, over a cable.
fn quic(lab: &Lab) -> Result<PathBuf> {
    let (here, there) = (lab.namespace("quic-a")?, lab.namespace("quic-b")?);
    lab.cable((&here, "eth0", "10.78.0.1/24"), (&there, "eth0", "10.78.0.2/24"))?;
    let folder = lab.dir().join("quic");
    let pages = folder.join("pages");
    std::fs::create_dir_all(&pages)?;
    std::fs::write(pages.join("page"), vec![b'x'; 2 << 20])?;
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let mut openssl = std::process::Command::new(find_program("openssl", "openssl")?);
    openssl.args([
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=quic", "-keyout",
    ]);
    output(openssl.arg(&key).arg("-out").arg(&certificate))?;
    let capture = Capture::on(&there, "eth0", "", &folder)?;
    let mut server = there.command(find_program("gtlsserver", "ngtcp2-server")?);
    server.args(["-q", "-d"]).arg(&pages).args(["10.78.0.2", "4433"]).arg(&key).arg(&certificate);
    let _server = Process(server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    let listens = || {
        Ok(there
            .command("ss")
            .args(["-Hlnu"])
            .output()?
            .stdout
            .windows(5)
            .any(|w| w == b":4433")
            .then_some(()))
    };
    wait_for("the QUIC server", Duration::from_secs(10), listens)?;
    for _ in 0..3 {
        let mut client = here.command("timeout");
        client.arg("20").arg(find_program("gtlsclient", "ngtcp2-client")?);
        client.args(["-q", "--exit-on-all-streams-close", "10.78.0.2", "4433", "https://quic/page"]);
        output(&mut client)?;
    }
    let captured = capture.finish()?;
    ensure!(captured.dropped == 0 && captured.packets.len() > 500, "{} packets", captured.packets.len());
    Ok(captured.file)
}
