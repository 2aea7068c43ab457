//! An intruder in a monitoring container who tries for more.

use crate::monitor::Monitor;
use crate::process::maps;
use anyhow::{Context, Result, bail, ensure};
use lab::{Conmond, Host, output_text, program};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// Attempts and how they ended, as `labgen trespass` reports them.
type Attempts = BTreeMap<String, String>;

fn trespass(command: &mut Command, to: &str, options: &[(&str, &[String])]) -> Result<Attempts> {
    command.args(["trespass", "--to", to]);
    for (name, list) in options {
        command.arg(format!("--{name}")).arg(list.join(","));
    }
    let text = output_text(command)?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// Whether an attempt was refused for this reason.
fn refused(how: &str, reasons: &[Errno]) -> bool {
    reasons.iter().any(|errno| io::Error::from(*errno).to_string() == how)
}

/// What an intruder's attempts are refused with, by how they begin. Any other error would tell that an attempt was none.
const REFUSALS: [(&str, &[Errno]); 12] = [
    ("tcp ", &[Errno::ENETUNREACH]),
    ("udp ", &[Errno::ENETUNREACH]),
    ("socket ", &[Errno::ENOENT]),
    ("find ", &[Errno::ENOENT]),
    ("write /conmond", &[Errno::EACCES]),
    ("write /proc/", &[Errno::EACCES, Errno::EROFS]),
    ("write ", &[Errno::EROFS]),
    ("bpf ", &[Errno::EPERM]),
    ("update ", &[Errno::EPERM]),
    // a filter says of calls that are newer than itself that there are none
    ("take ", &[Errno::EPERM, Errno::EACCES, Errno::ENOSYS]),
    ("memory ", &[Errno::EPERM, Errno::EACCES]),
    ("trace", &[Errno::EPERM, Errno::EACCES]),
];

/// `enum bpf_map_type`
const ARRAY: &str = "2";
const RING: &str = "27";

/// What not even root can do with the maps that a monitor is handed, and so nobody who takes the monitor over. `names`: all of
/// them, and what it has descriptors of.
fn cannot_be_written(names: &[String], root: &Attempts) -> Result<()> {
    let how = |what: &str| -> Result<&str> {
        Ok(root.get(what).with_context(|| format!("{what:?} was not tried: {root:#?}"))?)
    };
    let is_refused = |what: &str, reason: Errno| -> Result<()> {
        let said = how(what)?;
        ensure!(refused(said, &[reason]), "root tried to {what}: {said}");
        Ok(())
    };
    let is_done = |what: &str| -> Result<()> {
        let said = how(what)?;
        ensure!(said == "done", "root tried in vain to {what}: {said}");
        Ok(())
    };
    // a map that is not frozen shows what it is that refuses
    for what in ["update own", "map own page 0 to write"] {
        is_done(what)?;
    }
    for name in names {
        let pages = match how(&format!("type of {name}"))? {
            ARRAY => {
                is_refused(&format!("update {name}"), Errno::EPERM)?;
                0..1
            }
            // how far it was read is its reader's to write, in a page of its own
            RING => {
                ensure!(how(&format!("update {name}"))? != "done", "a ring was updated");
                is_done(&format!("map {name} page 0 to write"))?;
                1..3
            }
            kind => bail!("{name} is of type {kind}, which the page does not tell of"),
        };
        for page in pages {
            is_done(&format!("map {name} page {page} to read"))?;
            is_refused(&format!("map {name} page {page} to write"), Errno::EPERM)?;
        }
    }
    Ok(())
}

/// An intruder in the first one's container tries to leave it and to get at the other's; root on the host shows that the attempts
/// are good ones.
pub fn intrude(
    conmond: &Conmond,
    host: &Host,
    monitor: &Monitor,
    other: &Monitor,
    to: Ipv4Addr,
) -> Result<()> {
    let owned = |list: &[&str]| -> Vec<String> { list.iter().map(|&text| text.to_owned()).collect() };
    let text = |path: &Path| path.display().to_string();
    let labgen = program("labgen")?;
    fs::copy(&labgen, monitor.folder.join("labgen"))?;
    let sink = format!("{to}:9000");
    let engine = host.docker_host();
    let engine = engine.strip_prefix("unix://").unwrap_or(&engine);
    let pins = [monitor.pins(conmond)?, other.pins(conmond)?].concat();
    let ids = maps(&monitor.pid)?.into_iter().chain(maps(&other.pid)?);
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();

    // where the other's folder and socket would be, if they were anywhere
    let slot = other.slot()?;
    let seen = [text(&other.folder), text(&conmond.run_dir()), "/sys/fs/bpf/conmon".to_owned()];
    let mut places = seen.to_vec();
    places.extend([".", "pm", ".."].map(|way| format!("/run/conmon/../{way}/{slot}")));
    let mut sockets = owned(&[engine, "/var/run/docker.sock", "/run/docker.sock", &text(&conmond.socket())]);
    sockets.extend(places.iter().map(|place| format!("{place}/mc.sock")));
    // a socket that can be reached is found to be, though nobody speaks there
    let silent = monitor.folder.join("silent.sock");
    let _listener = UnixListener::bind(&silent)?;
    fs::set_permissions(&silent, fs::Permissions::from_mode(0o666))?;
    let reachable = "/run/conmon/silent.sock".to_owned();
    sockets.push(reachable.clone());
    let mut command = host.docker_command();
    command.args(["exec", &monitor.id, "/run/conmon/labgen"]);
    let files = ["/conmond", "/new", "/run/conmon/new", "/proc/sys/kernel/hostname"];
    let mut intruder = trespass(
        &mut command,
        &sink,
        &[
            ("controller", &owned(&["/run/conmon/mc.sock"])),
            ("sockets", &sockets),
            ("files", &owned(&files)),
            ("places", &places),
            ("pins", &pins),
            ("maps", &ids),
        ],
    )?;
    fs::remove_file(&silent)?;
    eprintln!("an intruder: {intruder:#?}");
    let root = trespass(
        &mut host.command(&labgen),
        &sink,
        &[
            ("pid", &owned(&[&monitor.pid])),
            ("sockets", &[engine.to_owned(), text(&conmond.socket()), text(&other.folder.join("mc.sock"))]),
            ("places", &seen),
            ("pins", &pins),
            ("maps", &ids),
        ],
    )?;
    let found = intruder.remove(&format!("socket {reachable}"));
    ensure!(found.as_deref() == Some("done"), "a socket that can be reached is not found: {found:?}");
    let greeted =
        intruder.remove("controller /run/conmon/mc.sock").context("the controller was not called")?;
    let hung_up = io::Error::from(io::ErrorKind::ConnectionAborted).to_string();
    ensure!(greeted == hung_up, "the controller does not hang up on who is not the monitor: {greeted}");
    let wrong = intruder.iter().filter(|(what, how)| {
        let reasons = REFUSALS.iter().find(|(kind, _)| what.starts_with(kind)).map(|(_, reasons)| *reasons);
        !reasons.is_some_and(|reasons| refused(how, reasons))
    });
    let wrong: Vec<_> = wrong.collect();
    ensure!(wrong.is_empty(), "an intruder is not refused, or did not really try: {wrong:#?}");
    for (kind, _) in REFUSALS {
        ensure!(intruder.keys().any(|what| what.starts_with(kind)), "{kind:?} was not tried: {intruder:#?}");
        if !kind.starts_with("write ") && kind != "update " {
            let mut same = root.iter().filter(|(what, _)| what.starts_with(kind)).peekable();
            ensure!(same.peek().is_some(), "{kind:?} was not tried by root: {root:#?}");
            // nobody listens there, but to be told so one must get there
            let failed = same.filter(|(_, how)| {
                *how != "done" && !(kind == "tcp " && refused(how, &[Errno::ECONNREFUSED]))
            });
            let failed: Vec<_> = failed.collect();
            ensure!(failed.is_empty(), "not even root can, so the attempts are none: {failed:#?}");
        }
    }
    let taken: Vec<String> =
        root.keys().filter_map(|what| what.strip_prefix("take ")).map(str::to_owned).collect();
    let names = [monitor.pins(conmond)?, taken].concat();
    let rings =
        names.iter().filter(|name| root.get(&format!("type of {name}")).is_some_and(|kind| kind == RING));
    ensure!(rings.count() == 2, "the ring is pinned once and held once");
    cannot_be_written(&names, &root)
}
