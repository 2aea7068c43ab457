//! [`Site`]: several hosts on one wire that know each other. Each has an interface `lan0` on a switch, a network of containers
//! that the others route to, and a certificate; between them they share an etcd on a machine of its own, or gossip.
//!
//! Networks that are made with [`Host::network`] bear the same addresses on each host, as they do in life, and hide behind their host;
//! those of [`Site::network`] have addresses of their own and hide behind nobody.

use crate::bins::program;
use crate::conmond::ConmondOptions;
use crate::guard::Lab;
use crate::host::{Host, spawn};
use crate::netns::Namespace;
use crate::run::{find_program, output};
use crate::wait::wait_for;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// The site's routed network of containers, on each host.
pub const ROUTED: &str = "routed";
const LAN: &str = "lan0";
const API_PORT: u16 = 9478;
const ETCD_PORT: u16 = 2379;

/// How the hosts of a site know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// By an etcd, over TLS.
    Etcd,
    /// Among themselves.
    Gossip,
}

impl Meeting {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Etcd, Self::Gossip];

    /// As `registry` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Gossip => "gossip",
        }
    }
}

/// Hosts on one wire. What it starts ends with the lab.
#[derive(Debug)]
pub struct Site {
    switch: Namespace,
    hosts: Vec<Host>,
    pki: PathBuf,
    dir: PathBuf,
    etcd: Option<Child>,
}

impl Site {
    /// Starts hosts of these names, each with a cable to the switch, and makes their certificates.
    pub fn start(lab: &Lab, names: &[&str]) -> Result<Self> {
        let switch = lab.namespace("switch")?;
        switch.ip(&["link", "add", "sw0", "type", "bridge"])?;
        for address in [lan_address(false, ETCD), lan_address(true, ETCD)] {
            switch.add_address("sw0", &address)?;
        }
        switch.ip(&["link", "set", "sw0", "up"])?;
        let dir = lab.dir().join("site");
        fs::create_dir_all(&dir)?;
        let mut site = Self { switch, hosts: Vec::new(), pki: dir.join("ca"), dir, etcd: None };
        site.ca(&["init"])?;
        for (i, name) in names.iter().enumerate() {
            site.add(lab, name, i + 1)?;
        }
        Ok(site)
    }

    fn add(&mut self, lab: &Lab, name: &str, number: usize) -> Result<()> {
        let host = lab.host(name)?;
        ensure!(host.iptables(), "iptables does not work in a network namespace here");
        let ns = host.namespace();
        let port = format!("port{number}");
        let addresses = format!("{} {}", lan_address(false, number), lan_address(true, number));
        lab.cable((ns, LAN, &addresses), (&self.switch, &port, ""))?;
        self.switch.ip(&["link", "set", &port, "master", "sw0"])?;
        let own = [self.address(number), self.address6(number)];
        self.ca(&["host", name, "--address", &own[0], "--address", &own[1]])?;
        // The engine made the host a router of IPv4 only, and one that lets nobody in.
        for (tool, chain) in [("iptables", "DOCKER-USER"), ("ip6tables", "FORWARD")] {
            let tool = find_program(tool, "iptables")?;
            output(ns.command(&tool).args(["-I", chain, "-i", LAN, "-j", "ACCEPT"]))?;
        }
        for setting in ["net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1"] {
            let (key, value) = setting.split_once('=').context("a setting")?;
            let file = format!("/proc/sys/{}", key.replace('.', "/"));
            ns.run(|| fs::write(&file, value).with_context(|| format!("cannot write {file}")))?;
        }
        self.hosts.push(host);
        Ok(())
    }

    /// The hosts, in the order of their names at the start.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The address of the host of this number (from 1) on the wire.
    pub fn address(&self, number: usize) -> String {
        without_length(&lan_address(false, number))
    }

    /// Its IPv6 address on the wire.
    pub fn address6(&self, number: usize) -> String {
        without_length(&lan_address(true, number))
    }

    /// Makes on each host the network [`ROUTED`], whose containers are reached from all hosts by their own addresses, IPv4 and IPv6.
    pub fn network(&self) -> Result<()> {
        for (i, host) in self.hosts.iter().enumerate() {
            let [four, six] = routed(i + 1);
            let mut create = vec!["network", "create", "--ipv6", "--subnet", &four, "--subnet", &six];
            create.extend(["-o", "com.docker.network.bridge.enable_ip_masquerade=false", ROUTED]);
            host.docker(&create)?;
        }
        for (i, host) in self.hosts.iter().enumerate() {
            for other in (1..=self.hosts.len()).filter(|&n| n != i + 1) {
                let [four, six] = routed(other);
                host.namespace().ip(&["route", "add", &four, "via", &self.address(other)])?;
                host.namespace().ip(&["-6", "route", "add", &six, "via", &self.address6(other)])?;
            }
        }
        Ok(())
    }

    /// Starts the etcd: TLS, and a client must show a certificate of the site's CA.
    pub fn start_etcd(&mut self) -> Result<()> {
        ensure!(self.etcd.is_none(), "the etcd runs already");
        if !self.pki.join("hosts/etcd").exists() {
            self.ca(&["host", "etcd", "--address", &self.address(ETCD)])?;
        }
        let etcd = find_program("etcd", "etcd-server")?;
        let url = format!("https://{}:{ETCD_PORT}", self.address(ETCD));
        let mut command = self.switch.command(etcd);
        command.arg("--name=m0").arg("--data-dir").arg(self.dir.join("etcd")).arg("--unsafe-no-fsync");
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command
            .args(["--listen-peer-urls=http://127.0.0.1:2380", "--initial-cluster=m0=http://127.0.0.1:2380"]);
        command.arg("--initial-advertise-peer-urls=http://127.0.0.1:2380");
        command.arg("--cert-file").arg(self.certificate("etcd", "crt"));
        command.arg("--key-file").arg(self.certificate("etcd", "key"));
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(self.pki.join("ca.crt"));
        self.etcd = Some(spawn(&mut command, &self.dir.join("etcd.log"))?);
        let at: std::net::SocketAddr = format!("{}:{ETCD_PORT}", self.address(ETCD)).parse()?;
        wait_for("etcd to listen", Duration::from_secs(20), || {
            let connect = || Ok(std::net::TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok());
            Ok(self.switch.run(connect)?.then_some(()))
        })
        .with_context(|| crate::diagnose::tail(&self.dir.join("etcd.log"), 20))
    }

    /// Ends the etcd as a crash would; its data stay.
    pub fn kill_etcd(&mut self) -> Result<()> {
        let mut child = self.etcd.take().context("no etcd runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends the etcd a signal.
    pub fn signal_etcd(&self, signal: Signal) -> Result<()> {
        let child = self.etcd.as_ref().context("no etcd runs")?;
        Ok(kill(Pid::from_raw(i32::try_from(child.id())?), signal)?)
    }

    /// Takes the etcd's memory away. It must not run.
    pub fn wipe_etcd(&self) -> Result<()> {
        ensure!(self.etcd.is_none(), "the etcd runs");
        Ok(fs::remove_dir_all(self.dir.join("etcd"))?)
    }

    /// Keeps a copy of the etcd's memory, or puts the copy in its place. It must not run.
    pub fn back_etcd_up(&self, restore: bool) -> Result<()> {
        ensure!(self.etcd.is_none(), "the etcd runs");
        let (now, copy) = (self.dir.join("etcd"), self.dir.join("etcd.backup"));
        let (from, to) = if restore { (copy, now) } else { (now, copy) };
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        output(Command::new("cp").arg("-a").arg(from).arg(to)).map(drop)
    }

    /// Takes the etcd off the network, or puts it back: what is sent to it finds nobody.
    pub fn reach_etcd(&self, reachable: bool) -> Result<()> {
        let address = lan_address(false, ETCD);
        if reachable {
            return self.switch.add_address("sw0", &address);
        }
        self.switch.ip(&["addr", "del", &address, "dev", "sw0"]).map(drop)
    }

    /// Pulls a host's cable out of the switch, or puts it in again. Numbers begin with 1.
    pub fn plug(&self, number: usize, is_in: bool) -> Result<()> {
        let state = if is_in { "up" } else { "down" };
        self.switch.ip(&["link", "set", &format!("port{number}"), state]).map(drop)
    }

    /// How conmond is to be started on the host of this number (from 1).
    pub fn options(&self, number: usize, meeting: Meeting) -> Result<ConmondOptions> {
        let name = self.hosts[number - 1].name();
        let mut env = vec![
            ("CONMON_HOST_NAME", name.to_string()),
            ("CONMON_LISTEN", format!("{}:{API_PORT}", self.address(number))),
            ("CONMON_TLS_CERTIFICATE", text(self.certificate(name, "crt"))),
            ("CONMON_TLS_KEY", text(self.certificate(name, "key"))),
            ("CONMON_TLS_CA", text(self.pki.join("ca.crt"))),
            ("CONMON_REGISTRY", meeting.name().to_string()),
        ];
        match meeting {
            Meeting::Etcd => env.extend([
                ("CONMON_ETCD_ENDPOINTS", format!("[\"https://{}:{ETCD_PORT}\"]", self.address(ETCD))),
                ("CONMON_ETCD_CA", text(self.pki.join("ca.crt"))),
                ("CONMON_ETCD_CERT", text(self.certificate(name, "crt"))),
                ("CONMON_ETCD_KEY", text(self.certificate(name, "key"))),
                ("CONMON_ETCD_TTL_SECONDS", "5".to_string()),
            ]),
            Meeting::Gossip => env.extend([
                ("CONMON_GOSSIP_KEY_FILE", text(self.gossip_key()?)),
                ("CONMON_GOSSIP_JOIN", format!("[\"{}\"]", self.address(1))),
                ("CONMON_GOSSIP_ADVERTISE", format!("{}:9479", self.address(number))),
            ]),
        }
        let env = env.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        Ok(ConmondOptions { env, ..ConmondOptions::default() })
    }

    /// Arguments by which `conmonctl` asks the host of this number (from 1) over TLS, as an operator.
    pub fn as_operator(&self, number: usize) -> Result<Vec<String>> {
        let folder = self.pki.join("operators/lab");
        if !folder.exists() {
            self.ca(&["operator", "lab"])?;
        }
        let file = |name: &str| text(folder.join(name));
        Ok([
            ["--host".to_string(), format!("https://{}:{API_PORT}", self.address(number))],
            ["--ca".to_string(), text(self.pki.join("ca.crt"))],
            ["--cert".to_string(), file("operator.crt")],
            ["--key".to_string(), file("operator.key")],
        ]
        .concat())
    }

    fn gossip_key(&self) -> Result<PathBuf> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = self.dir.join("gossip.key");
        if !file.exists() {
            let mut octets = [0; 32];
            std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut octets)?;
            let key: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            let mut open = fs::File::options();
            std::io::Write::write_all(
                &mut open.write(true).create_new(true).mode(0o600).open(&file)?,
                key.as_bytes(),
            )?;
        }
        Ok(file)
    }

    fn certificate(&self, name: &str, ending: &str) -> PathBuf {
        self.pki.join(format!("hosts/{name}/host.{ending}"))
    }

    fn ca(&self, args: &[&str]) -> Result<()> {
        output(Command::new(program("conmonctl")?).arg("ca").arg("--dir").arg(&self.pki).args(args)).map(drop)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut child) = self.etcd.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The etcd's place on the wire.
const ETCD: usize = 254;

fn lan_address(six: bool, number: usize) -> String {
    if six { format!("fd90::{number:x}/64") } else { format!("10.90.0.{number}/24") }
}

fn routed(number: usize) -> [String; 2] {
    [format!("10.91.{number}.0/24"), format!("fd91:{number:x}::/64")]
}

fn without_length(address: &str) -> String {
    address.split('/').next().unwrap_or(address).to_string()
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}
