//! One container for each network mode, for real and with traffic; what is seen of each is the table in
//! docs/network-modes.md. `UPDATE_GOLDEN=1` rewrites it.

use super::*;
use lab::{ConmondOptions, Lab, root_test};
use std::fs;
use std::path::{Path, PathBuf};

/// The table's place in the page.
const BEGIN: &str = "<!-- table: begin (written by a test: UPDATE_GOLDEN=1) -->\n";
const FINISH: &str = "<!-- table: end -->\n";
/// Beginning of the last cell of a mode that could not be tried.
const NOT_TRIED: &str = "not tried";
/// Has no port, and is tapped at its control group.
const HOST: &str = "host";
/// Datagrams that each container sends.
const COUNT: u64 = 200;

/// A mode, and what must be seen of it.
struct Mode {
    name: &'static str,
    /// The option, for the table.
    option: &'static str,
    /// The container's networks, the first one given at its start.
    networks: &'static [&'static str],
    /// The network of the container that it sends to; none: it has nobody to send to.
    sink_on: Option<&'static str>,
    /// By what name its datagrams are shown; none: they are not seen.
    shown_as: Option<&'static str>,
    /// The kernel's kind of interface that it takes, where not every kernel has it.
    link_kind: Option<&'static str>,
}

const MODES: [Mode; 9] = [
    Mode {
        name: "default bridge",
        option: "",
        networks: &["bridge"],
        sink_on: Some("bridge"),
        shown_as: Some("default-bridge"),
        link_kind: None,
    },
    Mode {
        name: "user-defined bridge",
        option: "--network net",
        networks: &["net"],
        sink_on: Some("net"),
        shown_as: Some("user-defined-bridge"),
        link_kind: None,
    },
    Mode {
        name: "several networks",
        option: "--network net, then docker network connect second",
        networks: &["net", "second"],
        sink_on: Some("second"),
        shown_as: Some("several-networks"),
        link_kind: None,
    },
    Mode {
        name: "internal network",
        option: "--network inner (created with --internal)",
        networks: &["inner"],
        sink_on: Some("inner"),
        shown_as: Some("internal-network"),
        link_kind: None,
    },
    Mode {
        name: "macvlan",
        option: "--network lan (created with --driver macvlan)",
        networks: &["lan"],
        sink_on: Some("lan"),
        shown_as: None,
        link_kind: Some("macvlan"),
    },
    Mode {
        name: "ipvlan",
        option: "--network ip-lan (created with --driver ipvlan)",
        networks: &["ip-lan"],
        sink_on: Some("ip-lan"),
        shown_as: None,
        link_kind: Some("ipvlan"),
    },
    Mode {
        name: HOST,
        option: "--network host",
        networks: &["host"],
        sink_on: Some("net"),
        shown_as: Some("host"),
        link_kind: None,
    },
    Mode {
        name: "another container's",
        option: "--network container:base",
        networks: &["container:base"],
        sink_on: Some("net"),
        shown_as: Some("base"),
        link_kind: None,
    },
    Mode {
        name: "none",
        option: "--network none",
        networks: &["none"],
        sink_on: None,
        shown_as: None,
        link_kind: None,
    },
];

impl Mode {
    fn container(&self) -> String {
        self.name.replace("'s", "").replace(' ', "-")
    }
}

/// A mode's container while it runs.
struct Tried {
    mode: &'static Mode,
    /// Why there is none.
    impossible: Option<String>,
    /// The container that it sends to.
    sink: Option<String>,
}

#[test]
fn root_every_network_mode_is_shown_for_what_it_is() -> Result<()> {
    if !built("network modes")? {
        return Ok(());
    }
    root_test("network modes", |lab| {
        let host = lab.host("h1")?;
        for args in [&["net"][..], &["second"], &["--internal", "inner"]] {
            host.docker(&[&["network", "create"], args].concat())?;
        }
        // What macvlan and ipvlan put their interfaces on.
        let outside = lab.namespace("out")?;
        lab.cable((host.namespace(), "up0", ""), (&outside, "far0", ""))?;
        lab.cable((host.namespace(), "up1", ""), (&outside, "far1", ""))?;
        let conmond = Conmond::start(&host, ConmondOptions::default())?;
        sink(&host, "base", "net")?;
        let tried: Vec<Tried> =
            MODES.iter().map(|mode| try_mode(lab, &host, &conmond, mode)).collect::<Result<_>>()?;
        let mut table = String::from(
            "| Mode | Started with | Its networks | Of its 200 datagrams are shown | Note |\n| --- | --- | --- | --- | --- |\n",
        );
        for one in &tried {
            table.push_str(&row(&conmond, one)?);
        }
        balanced(&conmond)?;
        compare(&table)
    })
}

fn try_mode(lab: &Lab, host: &Host, conmond: &Conmond, mode: &'static Mode) -> Result<Tried> {
    let impossible = |why: String| {
        lab::skipped(&format!("network mode {}", mode.name), &why);
        Ok(Tried { mode, impossible: Some(why), sink: None })
    };
    if mode.name == HOST && lab::cgroup_v2().is_none() {
        return impossible("this machine has no control groups of version 2".to_owned());
    }
    if let Some(kind) = mode.link_kind {
        let parent = if kind == "macvlan" { "up0" } else { "up1" };
        let probe = lab.namespace(&format!("{kind}-p").replace("vlan", ""))?;
        let made = probe
            .ip(&["link", "add", "a0", "type", "veth", "peer", "name", "a1"])
            .and_then(|_| probe.ip(&["link", "add", "probe", "link", "a0", "type", kind]));
        if made.is_err() {
            return impossible(format!("this kernel makes no {kind} interfaces"));
        }
        let subnet = if kind == "macvlan" { "10.77.1.0/24" } else { "10.77.2.0/24" };
        let parent = format!("parent={parent}");
        host.docker(&[
            "network",
            "create",
            "--driver",
            kind,
            "--subnet",
            subnet,
            "--opt",
            &parent,
            mode.networks[0],
        ])?;
    }
    let name = mode.container();
    let first = mode.networks[0];
    let Some(network) = mode.sink_on else {
        host.run(&labgen(&name, first, "idle"))?;
        return Ok(Tried { mode, impossible: None, sink: None });
    };
    let sink_name = format!("{name}-sink");
    let to = sink(host, &sink_name, network)?.ipv4(network)?;
    if mode.name == HOST {
        // its group is tapped some time after it is there: what it sends before that is not seen
        let hosted = host.run(&labgen(&name, first, "idle"))?;
        conmond.wait_ctl("a tapped control group", END, &["containers"], |answer| {
            let places = rows(container(answer, &name)?, "networks");
            places.iter().any(|place| place["tapped_by"] == "cgroup").then_some(())
        })?;
        let (to, count) = (format!("{to}:9000"), COUNT.to_string());
        hosted.exec(&["/labgen", "udp-send", "--to", &to, "--rate", "500", "--count", &count])?;
        return Ok(Tried { mode, impossible: None, sink: Some(sink_name) });
    }
    let words = format!("udp-send --to {to}:9000 --rate 500 --count {COUNT} --hold 1");
    let container = host.create(&labgen(&name, first, &words))?;
    for more in &mode.networks[1..] {
        container.connect(more)?;
    }
    container.start()?;
    let sent = report_of(&container)?;
    ensure!(sent.sent == COUNT, "{}: {sent:?}", mode.name);
    Ok(Tried { mode, impossible: None, sink: Some(sink_name) })
}

/// What is seen of a mode, once what must be seen of it is there.
fn row(conmond: &Conmond, tried: &Tried) -> Result<String> {
    let mode = tried.mode;
    let option = if mode.option.is_empty() { String::new() } else { format!("`{}`", mode.option) };
    if let Some(why) = &tried.impossible {
        return Ok(format!("| {} | {option} | | | {NOT_TRIED}: {why} |\n", mode.name));
    }
    let name = mode.container();
    let by_group = mode.name == HOST;
    let shown = match (&tried.sink, mode.shown_as) {
        (Some(sink), Some(by)) => {
            let mut wanted = vec![format!("{COUNT} as {by}")];
            if by_group {
                // at the sink's port it is the host's
                wanted.push(format!("{COUNT} as the host"));
            }
            conmond.wait_ctl(&format!("{by} to {sink}"), END, &["pairs"], |answer| {
                let found = shown(answer, sink);
                wanted.iter().all(|text| found.contains(text)).then(|| found.join(", "))
            })?
        }
        (Some(sink), None) => {
            let found = shown(&conmond.ctl(&["pairs"])?, sink);
            ensure!(found.is_empty(), "{}: {found:?}", mode.name);
            "none".to_owned()
        }
        (None, _) => "it cannot send".to_owned(),
    };
    let (tapped, first) = (mode.shown_as == Some(name.as_str()), mode.networks[0]);
    let (networks, note) = conmond.wait_ctl(&format!("{name} as it is"), END, &["containers"], |answer| {
        let seen = container(answer, &name)?;
        let places = rows(seen, "networks");
        // one that uses another's network has no place of its own
        let own = if first.starts_with("container:") { 0 } else { mode.networks.len() };
        if places.len() != own {
            return None;
        }
        let ready = if tapped {
            places.iter().all(|place| if by_group { place["tapped_by"] == "cgroup" } else { whole(place) })
        } else {
            seen["note"]
                .as_str()
                .is_some_and(|note| !note.contains("not known") && !note.contains("not tapped yet"))
        };
        ready.then(|| (places.iter().map(place).collect::<Vec<_>>().join(", "), seen["note"].clone()))
    })?;
    ensure!((tapped && !by_group) == note.is_null(), "{}: note {note}", mode.name);
    let note = note.as_str().unwrap_or("");
    Ok(format!("| {} | {option} | {networks} | {shown} | {note} |\n", mode.name))
}

/// A place on a network of which everything is known.
fn whole(place: &Value) -> bool {
    ["interface", "tapped_at", "link_up_at"].iter().all(|key| place[*key].is_string())
        && rows(place, "addresses").first().is_some_and(Value::is_string)
}

fn place(place: &Value) -> String {
    let tapped = if place["tapped_at"].is_string() { "tapped" } else { "not tapped" };
    format!("{} ({tapped})", place["name"].as_str().unwrap_or("?"))
}

/// Who is shown to have sent to a sink, and how many packets, in no order of the answer's.
fn shown(answer: &Value, sink: &str) -> Vec<String> {
    let to_sink = rows(answer, "pairs").iter().filter(|pair| pair["dst"]["name"] == sink);
    let mut shown: Vec<String> = to_sink
        .map(|pair| {
            let by = match pair["src"]["kind"].as_str() {
                Some("host") => "the host",
                _ => pair["src"]["name"].as_str().unwrap_or("?"),
            };
            format!("{} as {by}", packets(&pair["sent"]))
        })
        .collect();
    shown.sort();
    shown
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/network-modes.md")
}

/// Holds the table against the page's, but for modes that one of the two machines could not try.
fn compare(table: &str) -> Result<()> {
    let text = fs::read_to_string(page()).context("docs/network-modes.md")?;
    let (head, rest) = text.split_once(BEGIN).context("the page has lost its table's beginning")?;
    let (golden, tail) = rest.split_once(FINISH).context("the page has lost its table's end")?;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(page(), format!("{head}{BEGIN}{table}{FINISH}{tail}"))?;
        return Ok(());
    }
    let (ours, theirs): (Vec<&str>, Vec<&str>) = (table.lines().collect(), golden.lines().collect());
    ensure!(ours.len() == theirs.len(), "the page's table has other rows:\n{table}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let tried = !ours.contains(NOT_TRIED) && !theirs.contains(NOT_TRIED);
        ensure!(
            !tried || ours == theirs,
            "seen here:\n{ours}\nin docs/network-modes.md:\n{theirs}\n(UPDATE_GOLDEN=1 rewrites it)"
        );
    }
    Ok(())
}
