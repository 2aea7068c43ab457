//! What the running processes may do, as the kernel tells it, against docs/privileges.md; and an intruder in a monitoring
//! container who tries for more.

use anyhow::{Context, Result, ensure};
use lab::{App, Conmond, ConmondOptions, Host, Spec, output_text, program, root_test};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(30);
const NET: &str = "net";

/// A line of `/proc/PID/status`.
fn status(pid: &str, key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)).with_context(|| format!("{key} in {text}"))?;
    Ok(line.trim_start_matches(':').trim().to_owned())
}

/// Every thread's, since each has its own.
fn of_all_threads(pid: &str, key: &str) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let id = thread.file_name().to_string_lossy().into_owned();
        all.insert(status(&format!("{pid}/task/{id}"), key)?);
    }
    Ok(all)
}

/// The names of threads that are not in the ordinary scheduling class.
fn real_time_threads(pid: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let stat = fs::read_to_string(thread.path().join("stat"))?;
        let (name, rest) = stat.rsplit_once(')').with_context(|| stat.clone())?;
        // proc_pid_stat(5): the name is the second, the policy the 41st
        let policy = rest.split_whitespace().nth(41 - 3).with_context(|| stat.clone())?;
        if policy != "0" {
            names.push(name.split_once('(').map_or(name, |(_, name)| name).to_owned());
        }
    }
    Ok(names)
}

/// The mask of the capabilities that the page lists.
fn documented_capabilities() -> Result<u64> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/privileges.md"))?;
    // linux/capability.h
    let numbers = BTreeMap::from([
        ("CAP_CHOWN", 0),
        ("CAP_NET_ADMIN", 12),
        ("CAP_SYS_ADMIN", 21),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
    ]);
    let mut mask = 0;
    for name in page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()) {
        mask |= 1u64 << numbers.get(name).with_context(|| format!("{name}: its number is not known here"))?;
    }
    ensure!(mask != 0, "the page lists no capability");
    Ok(mask)
}

/// Kinds of open descriptors, each with an example.
fn descriptors(pid: &str) -> Result<BTreeMap<String, String>> {
    let mut kinds = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let Ok(target) = fs::read_link(descriptor.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let kind = match target.split_once(':') {
            Some(("anon_inode", what)) => what.trim_matches(['[', ']']).to_owned(),
            Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
            _ => Path::new(&target).file_name().map_or(target.clone(), |n| n.to_string_lossy().into_owned()),
        };
        kinds.insert(kind, target);
    }
    Ok(kinds)
}

fn only(kinds: &BTreeMap<String, String>, allowed: &[&str], needed: &[&str]) -> Result<()> {
    let strange: Vec<_> = kinds.iter().filter(|(kind, _)| !allowed.contains(&kind.as_str())).collect();
    ensure!(strange.is_empty(), "descriptors that nobody told of: {strange:?}");
    let missing: Vec<_> = needed.iter().filter(|kind| !kinds.contains_key(**kind)).collect();
    ensure!(missing.is_empty(), "no {missing:?} among {kinds:?}: this looked at the wrong thing");
    Ok(())
}

fn talk(host: &Host, tenant: &str) -> Result<()> {
    let spec = |role: &str, words: &str| {
        let name = format!("{tenant}-{role}");
        let spec = Spec::app(&name, App::Labgen).network(NET).compose(tenant, role);
        spec.command(words.split_ascii_whitespace())
    };
    let sink = host.run(&spec("sink", "udp-sink"))?;
    sink.wait_line("listening", WAIT)?;
    host.run(&spec("sender", &format!("udp-send --to {}:9000 --rate 100", sink.ipv4(NET)?)))?;
    Ok(())
}

/// The working monitoring container of a tenant: the engine's id, and its process.
fn monitor_of(conmond: &Conmond, host: &Host, tenant: &str) -> Result<(String, String)> {
    let what = format!("{tenant}'s monitor");
    let id = conmond.wait_ctl(&what, WAIT, &["monitors"], |answer: &Value| {
        let all = answer["monitors"].as_array()?;
        let monitor = all.iter().find(|m| m["tenant"] == tenant && m["state"] == "working")?;
        Some(monitor["id"].as_str()?.to_owned())
    })?;
    let pid = host.docker(&["inspect", "--format", "{{.State.Pid}}", &id])?;
    Ok((id, pid.trim().to_owned()))
}

#[test]
fn root_processes_may_do_what_the_page_says_and_no_more() -> Result<()> {
    root_test("privileges", |lab| {
        let host = lab.host("h1")?;
        host.network(NET, None)?;
        let conmond = Conmond::start(&host, ConmondOptions::default())?;
        talk(&host, "shop")?;
        talk(&host, "bank")?;
        let (monitor, monitor_pid) = monitor_of(&conmond, &host, "shop")?;
        monitor_of(&conmond, &host, "bank")?;

        // the controller
        let daemon = fs::read_to_string(conmond.run_dir().join("conmond.pid"))?.trim().to_owned();
        let mask = format!("{:016x}", documented_capabilities()?);
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            ensure!(of_all_threads(&daemon, set)? == BTreeSet::from([mask.clone()]), "{set} is not {mask}");
        }
        for set in ["CapInh", "CapAmb"] {
            ensure!(of_all_threads(&daemon, set)? == BTreeSet::from(["0".repeat(16)]), "{set}");
        }
        ensure!(of_all_threads(&daemon, "NoNewPrivs")? == BTreeSet::from(["1".to_owned()]));
        let real_time = real_time_threads(&daemon)?;
        ensure!(real_time == ["reflex"; 5], "these run before all others: {real_time:?}");
        let log = format!("{}.log", conmond.instance());
        let standard = ["null", log.as_str()];
        let allowed = [
            "bpf-map",
            "bpf-prog",
            "bpf-link",
            "bpf_link",
            "socket",
            "eventpoll",
            "eventfd",
            "pipe",
            "pairs.journal",
            "conmond.sock.lock",
        ];
        only(
            &descriptors(&daemon)?,
            &[&allowed[..], &standard].concat(),
            &["bpf-map", "bpf-prog", "socket"],
        )?;

        // a monitoring container
        for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
            ensure!(of_all_threads(&monitor_pid, set)? == BTreeSet::from(["0".repeat(16)]), "{set}");
        }
        for (key, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
            ensure!(status(&monitor_pid, key)? == value, "{key} is {}", status(&monitor_pid, key)?);
        }
        for key in ["Uid", "Gid"] {
            ensure!(status(&monitor_pid, key)?.split_whitespace().all(|id| id == "65534"), "{key}");
        }
        let allowed = ["bpf-map", "socket", "signalfd", "null", "pipe", "eventpoll"];
        only(&descriptors(&monitor_pid)?, &allowed, &["bpf-map", "socket"])?;

        // an intruder in it
        let slot = conmond.run_dir().join("pm");
        let name = host.docker(&["inspect", "--format", "{{range .Mounts}}{{.Source}}{{end}}", &monitor])?;
        ensure!(Path::new(name.trim()).starts_with(&slot), "{name} is not below {}", slot.display());
        fs::copy(program("labgen")?, Path::new(name.trim()).join("labgen"))?;
        let sink = format!(
            "{}:9000",
            host.docker(&[
                "inspect",
                "--format",
                &format!("{{{{.NetworkSettings.Networks.{NET}.IPAddress}}}}"),
                "bank-sink"
            ])?
            .trim()
        );
        let engine = host.docker_host();
        let engine = engine.strip_prefix("unix://").unwrap_or(&engine);
        let sockets =
            format!("/run/conmon/mc.sock,{engine},/var/run/docker.sock,{}", conmond.socket().display());
        let files = "/conmond,/new,/run/conmon/new,/proc/sys/kernel/hostname,/sys/fs/bpf/new";
        let text = host.docker(&[
            "exec",
            &monitor,
            "/run/conmon/labgen",
            "trespass",
            "--to",
            &sink,
            "--sockets",
            &sockets,
            "--files",
            files,
        ])?;
        let attempts: BTreeMap<String, String> =
            serde_json::from_str(text.trim()).with_context(|| text.clone())?;
        let done: Vec<_> = attempts.iter().filter(|(_, how)| *how == "done").collect();
        ensure!(done.is_empty(), "an intruder can: {done:?}");
        for kind in ["tcp ", "udp ", "socket ", "write ", "reopen "] {
            ensure!(attempts.keys().any(|what| what.starts_with(kind)), "{kind}was not tried: {attempts:?}");
        }
        eprintln!("an intruder fails: {attempts:#?}");
        // and the monitor goes on
        let (still, _) = monitor_of(&conmond, &host, "shop")?;
        ensure!(still == monitor, "the intruder cost the monitor its place");
        // what others would see with a shell on the host
        let mode =
            output_text(std::process::Command::new("stat").args(["-c", "%a %U"]).arg(conmond.socket()))?;
        ensure!(mode.trim() == "660 root" || mode.trim() == "600 root", "the API's socket is {mode}");
        Ok(())
    })
}
