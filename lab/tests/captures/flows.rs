//! Flow records against softflowd's, collected by nfcapd and read by nfdump: packets and octets of each direction of each
//! pair, and its flows. softflowd counts octets from the IP header on, analyze from the link header.

use crate::Analysis;
use anyhow::{Context, Result, ensure};
use lab::{find_program, output, output_text, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Octets of an Ethernet header.
const ETHERNET: u64 = 14;

/// One direction's packets and octets, and its flows by protocol and ports.
#[derive(Debug, Default)]
struct Way {
    packets: u64,
    octets: u64,
    flows: BTreeSet<(String, String, String)>,
}

pub fn judge(name: &str, file: &Path, analysis: &Analysis) -> Result<()> {
    let theirs = softflowd(file)?;
    let pairs = analysis.answer["pairs"].as_array().context("no pairs")?;
    let mut ours: BTreeMap<(IpAddr, IpAddr), (u64, u64)> = BTreeMap::new();
    let mut flows = 0;
    for pair in pairs {
        let end =
            |end: &str| -> Result<IpAddr> { Ok(pair[end]["name"].as_str().context("a name")?.parse()?) };
        let (src, dst) = (end("src")?, end("dst")?);
        for (key, count) in [((src, dst), &pair["sent"]), ((dst, src), &pair["received"])] {
            let number = |what: &str| count[what].as_u64().unwrap_or(0);
            let way = ours.entry(key).or_default();
            way.0 += number("packets");
            way.1 += number("bytes") - ETHERNET * number("packets");
        }
        let there = theirs.get(&(src, dst)).map_or(0, |way| way.flows.len());
        let back = theirs.get(&(dst, src)).map_or(0, |way| way.flows.len());
        let began = pair["flows"].as_u64().unwrap_or(0);
        // Both directions of a flow are one of ours; one whose ports are used again is two of ours.
        ensure!(began >= there.max(back) as u64, "{pair}: {there} and {back} flows by softflowd");
        flows += began;
    }
    ours.retain(|_, (packets, _)| *packets > 0);
    for (key, (packets, octets)) in &ours {
        let found = theirs.get(key).map(|way| (way.packets, way.octets));
        ensure!(
            found == Some((*packets, *octets)),
            "{key:?}: {packets} packets, {octets} octets; softflowd {found:?}"
        );
    }
    // softflowd does not say of what type an ICMPv6 message was: what analyze has no pair of is to be discovery of neighbours and listeners
    let mut discovery = 0;
    for (key, way) in theirs.iter().filter(|(key, _)| !ours.contains_key(key)) {
        let icmp = way.flows.iter().all(|(protocol, _, _)| protocol == "ICMP6");
        ensure!(icmp, "softflowd has {key:?}, analyze has not: {way:?}");
        discovery += way.packets;
    }
    let nd = analysis.answer["captures"][0]["ledger"]["nd"].as_u64().unwrap_or_default();
    ensure!(nd == discovery, "{nd} packets of neighbour discovery, {discovery} by softflowd");
    println!(
        "{name}: softflowd: {} directions of pairs with the same packets and octets; {flows} flows",
        ours.len()
    );
    Ok(())
}

/// A collector that is killed when this is dropped.
struct Collector(Child);

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// softflowd's flows of a capture, by source and destination.
fn softflowd(file: &Path) -> Result<BTreeMap<(IpAddr, IpAddr), Way>> {
    let folder = file.with_extension("nfcapd");
    std::fs::create_dir_all(&folder)?;
    // The port is free when we ask, and hardly taken before nfcapd does.
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut nfcapd = Command::new(find_program("nfcapd", "nfdump")?);
    nfcapd.arg("-w").arg(&folder).args(["-b", "127.0.0.1", "-p", &port, "-B", "4000000"]);
    nfcapd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut collector = Collector(nfcapd.spawn()?);
    let udp = format!("0100007F:{:04X}", port.parse::<u16>()?);
    wait_for("nfcapd", Duration::from_secs(10), || {
        Ok(std::fs::read_to_string("/proc/net/udp")?.contains(&udp).then_some(()))
    })?;
    let mut softflowd = Command::new(find_program("softflowd", "softflowd")?);
    let control = folder.join("ctl").display().to_string();
    let pid = folder.join("pid").display().to_string();
    softflowd.args(["-d", "-v", "9", "-n", &format!("127.0.0.1:{port}"), "-c", &control, "-p", &pid, "-r"]);
    output(softflowd.arg(file))?;
    // What was sent is in the collector's queue when softflowd has ended; it reads until it is told to end.
    std::thread::sleep(Duration::from_millis(500));
    kill(Pid::from_raw(i32::try_from(collector.0.id())?), Signal::SIGTERM)?;
    collector.0.wait()?;
    let mut nfdump = Command::new(find_program("nfdump", "nfdump")?);
    let table = output_text(nfdump.arg("-R").arg(&folder).args(["-o", "csv", "-q"]))?;
    let mut ways: BTreeMap<(IpAddr, IpAddr), Way> = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())) {
        // ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,...
        let cells: Vec<&str> = line.split(',').collect();
        ensure!(cells.len() > 12, "nfdump: {line}");
        let way = ways.entry((cells[3].parse()?, cells[4].parse()?)).or_default();
        way.packets += cells[11].parse::<u64>()?;
        way.octets += cells[12].parse::<u64>()?;
        way.flows.insert((cells[7].to_owned(), cells[5].to_owned(), cells[6].to_owned()));
    }
    Ok(ways)
}
