//! Two hosts whose containers share networks that span both: a Swarm overlay, whose bridges lie in network namespaces of their own, and bridges
//! that a VXLAN tunnel joins. Every conversation is named at both ends and counted alike, through the death of a daemon; what the
//! engine takes away and makes anew is let go of in time.

use crate::hosts::{Called, Two, Way, named_and_counted, nothing_else_is_shown, on, with_two};
use crate::support::*;
use anyhow::{Result, ensure};
use lab::{Host, Meeting, wait_for};
use serde_json::Value;

const OVERLAY: &str = "overlay0";
const STRETCHED: &str = "stretched0";
/// Sinks of each kind; the long form takes more.
const SINKS: u64 = 3;

/// Makes the hosts a swarm, with an overlay network that any container may join, whose id it is.
fn make_swarm(two: &Two<'_>) -> Result<String> {
    let (first, second) = (two.host(1), two.host(2));
    let [one, other] = [1, 2].map(|n| two.site.address(n));
    first.docker(&["swarm", "init", "--advertise-addr", &one, "--listen-addr", &format!("{one}:2377")])?;
    let token = first.docker(&["swarm", "join-token", "-q", "worker"])?;
    let listen = format!("{other}:2377");
    let to = format!("{one}:2377");
    second.docker(&[
        "swarm",
        "join",
        "--token",
        token.trim(),
        "--advertise-addr",
        &other,
        "--listen-addr",
        &listen,
        &to,
    ])?;
    let id = first.docker(&[
        "network",
        "create",
        "--driver",
        "overlay",
        "--attachable",
        "--subnet",
        "10.97.0.0/24",
        OVERLAY,
    ])?;
    Ok(id.trim().to_owned())
}

/// Gives each host a bridge network of the same addresses, of which each gives out a part, and joins the two by a tunnel.
fn stretch(two: &Two<'_>) -> Result<()> {
    for number in [1, 2] {
        let host = two.host(number);
        let bridge = format!("com.docker.network.bridge.name={STRETCHED}");
        let four = [format!("10.98.{number}.0/24"), format!("10.98.{number}.1")];
        let six = [format!("fd98::{number}:0/112"), format!("fd98::{number}:1")];
        let mut words = vec!["network", "create", "--opt", &bridge, "--ipv6"];
        for (subnet, [range, gateway]) in [("10.98.0.0/16", &four), ("fd98::/64", &six)] {
            words.extend(["--subnet", subnet, "--ip-range", range, "--gateway", gateway]);
        }
        words.push(STRETCHED);
        host.docker(&words)?;
        let (own, other) = (two.site.address(number), two.site.address(3 - number));
        host.namespace().ip(&[
            "link", "add", "vx0", "type", "vxlan", "id", "98", "dstport", "4790", "local", &own, "remote",
            &other,
        ])?;
        host.namespace().ip(&["link", "set", "vx0", "master", STRETCHED, "up"])?;
    }
    Ok(())
}

/// Starts sinks on the second host.
fn ways(two: &Two<'_>) -> Result<Vec<Way>> {
    let sinks = setting("CONMON_HOSTS_SINKS", SINKS)?;
    [("overlay", OVERLAY), ("stretched", STRETCHED), ("stretched6", STRETCHED)]
        .into_iter()
        .map(|(name, network)| {
            let called = (0..sinks).map(|i| {
                let name = format!("{name}-sink{i}");
                let sink = two.host(2).run(&on(network, &name, "udp-sink"))?;
                sink.wait_line("listening", READY)?;
                let to = if name.contains('6') {
                    format!("[{}]:9000", sink.ipv6(network)?)
                } else {
                    format!("{}:9000", sink.ipv4(network)?)
                };
                Ok(Called { name, to })
            });
            Ok(Way { name, network, called: called.collect::<Result<_>>()? })
        })
        .collect()
}

/// The port of a container on the overlay is tapped, where it is.
fn is_tapped_there(answer: &Value, container: &str) -> Option<()> {
    let row = row(answer, "containers", "name", container)?;
    let place = rows(row, "networks").iter().find(|n| n["name"] == OVERLAY)?;
    let interface = place["interface"].as_str()?;
    (interface.contains("@ov-") && place["tapped_at"].is_string()).then_some(())
}

/// Whether a host's engine has a namespace for an overlay network.
fn is_open(host: &Host, network: &str) -> Result<bool> {
    const NSFS: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x6e73_6673);
    for entry in std::fs::read_dir(host.dir().join("exec/netns"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_its = name.split_once('-').is_some_and(|(_, id)| network.starts_with(id));
        // what is left of one that has gone is an empty file
        if is_its && nix::sys::statfs::statfs(&entry.path())?.filesystem_type() == NSFS {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn root_conversations_over_overlay_and_joined_bridges_are_named_and_counted() -> Result<()> {
    with_two("overlays", Meeting::Etcd, |two| {
        let network = make_swarm(two)?;
        stretch(two)?;
        let ways = ways(two)?;
        named_and_counted(two, Meeting::Etcd, &ways)?;
        for (conmond, container) in two.conmonds.iter().zip(["overlay-caller", "overlay-sink0"]) {
            conmond.wait_ctl("the overlay's port to be shown", END, &["containers"], |answer| {
                is_tapped_there(answer, container)
            })?;
            balanced(conmond)?;
        }
        nothing_else_is_shown(two)?;

        // a daemon dies in the midst of a conversation: the kernel counts on, and the next one has it all
        let to = &ways[0].called[0].to;
        let words = format!("udp-send --to {to} --rate 1000 --count 5000");
        let talker = two.host(1).run(&on(OVERLAY, "talker", &words))?;
        two.conmonds[0].wait_ctl("the talker to be heard", END, &["pairs"], |answer| {
            pair(answer, "talker", "overlay-sink0").map(drop)
        })?;
        two.conmonds[0].kill9()?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        two.conmonds[0].up()?;
        report_of(&talker)?;
        for conmond in &two.conmonds {
            let pair = pair_with(conmond, "talker", "overlay-sink0", 5000)?;
            ensure!(packets(&pair["sent"]) == 5000, "{pair}");
        }
        balanced(&two.conmonds[0])?;

        // The last container goes, and with it the namespace. The engine makes another with the same tunnel, which the kernel refuses while
        // the old one is there.
        for host in two.site.hosts() {
            let all = host.docker(&["ps", "-aq", "--filter", &format!("network={OVERLAY}")])?;
            host.docker(&[&["rm", "-f"], &all.split_whitespace().collect::<Vec<_>>()[..]].concat())?;
            wait_for("the overlay's namespace to go", END, || Ok((!is_open(host, &network)?).then_some(())))?;
        }
        for round in 0..2 {
            let name = format!("again{round}");
            let sink = two.host(2).run(&on(OVERLAY, &format!("{name}-sink"), "udp-sink"))?;
            sink.wait_line("listening", READY)?;
            let words = format!("udp-send --to {}:9000 --rate 1000 --count 100", sink.ipv4(OVERLAY)?);
            let caller = two.host(1).run(&on(OVERLAY, &name, &words))?;
            report_of(&caller)?;
            for conmond in &two.conmonds {
                let pair = pair_with(conmond, &name, &format!("{name}-sink"), 100)?;
                ensure!(packets(&pair["sent"]) == 100, "{pair}");
            }
            caller.remove()?;
            sink.remove()?;
        }
        Ok(())
    })
}
