//! Lives that are no plain start and end: over after a few milliseconds, begun again and again by the engine, paused, of a service
//! that grows and shrinks; and a monitoring container that is killed for its memory. All are held to what they say they sent.

use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::traffic::UdpSent;
use lab::{Conmond, ConmondOptions, Container, Host, wait_for};
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Datagrams of a short life, as fast as they go.
const DATAGRAMS: u64 = 20;

fn words(sink: &Container, more: &str) -> Result<String> {
    Ok(format!("udp-send --to {}:9000 {more}", sink.ipv4(NET)?))
}

/// Each report that a container wrote, a life each.
fn reports(container: &Container) -> Result<Vec<UdpSent>> {
    let out = container.stdout()?;
    let lines = out.lines().filter(|line| line.contains("\"first_ns\""));
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[test]
fn root_lives_of_milliseconds_are_named_and_exact() -> Result<()> {
    with_conmond("short lives", &[], ConmondOptions::default(), |_, host, conmond| {
        let sink = listening(host, "udp-sink", "udp-sink")?;
        let words = words(&sink, &format!("--rate 0 --count {DATAGRAMS}"))?;
        let mut lives = Vec::new();
        let mut longest = 0;
        for n in 0..20 {
            let name = format!("mayfly{n}");
            let mayfly = host.run(&spec(&name, &words))?;
            let sent: UdpSent = mayfly.report(READY)?;
            longest = longest.max(sent.last_ns.saturating_sub(sent.first_ns));
            // every other one is gone with its name and its port before it is asked for
            if n % 2 == 0 {
                mayfly.remove()?;
            }
            lives.push((name, sent));
        }
        for (name, sent) in &lives {
            ensure!(sent.sent == DATAGRAMS, "{name}: {sent:?}");
            holds_exactly(conmond, name, "udp-sink", sent)?;
        }
        eprintln!("from first to last datagram at most {:.1} ms", longest as f64 / 1e6);
        ensure!(longest < 50_000_000, "these are not short: {longest} ns");
        balanced(conmond)
    })
}

#[test]
fn root_a_restart_policy_makes_lives_of_one_name() -> Result<()> {
    with_conmond("restart policy", &[], ConmondOptions::default(), |_, host, conmond| {
        let sink = listening(host, "udp-sink", "udp-sink")?;
        let words = words(&sink, &format!("--rate 1000 --count {DATAGRAMS}"))?;
        let again = host.run(&spec("again", &words).option("--restart=always"))?;
        wait_for("five lives", END, || Ok((reports(&again)?.len() >= 5).then_some(())))?;
        again.stop(Duration::from_secs(5))?;
        let lives = reports(&again)?;
        let sent: u64 = lives.iter().map(|life| life.sent).sum();
        let pair = pair_with(conmond, "again", "udp-sink", sent)?;
        ensure!(packets(&pair["sent"]) == sent && pair["src"]["id"] == again.id(), "{sent} sent, {pair}");
        eprintln!("{} lives of one name, {sent} datagrams", lives.len());
        balanced(conmond)
    })
}

/// The pair's packets once they have stood still for longer than a reading takes.
fn at_rest(conmond: &Conmond, src: &str, dst: &str) -> Result<u64> {
    wait_for(&format!("silence of {src}"), END, || {
        let read =
            || Ok::<_, anyhow::Error>(pair(&conmond.ctl(&["pairs"])?, src, dst).map(|p| packets(&p["sent"])));
        let before = read()?;
        std::thread::sleep(Duration::from_millis(2500));
        Ok(before.filter(|n| read().is_ok_and(|now| now == Some(*n))))
    })
}

#[test]
fn root_a_paused_container_is_silent_and_goes_on() -> Result<()> {
    with_conmond("pause", &[], ConmondOptions::default(), |_, host, conmond| {
        let sink = listening(host, "udp-sink", "udp-sink")?;
        let sender = host.run(&spec("sender", &words(&sink, "--rate 500 --count 0")?))?;
        pair_with(conmond, "sender", "udp-sink", 200)?;
        let becomes = |state: &str| {
            conmond.wait_ctl(state, READY, &["containers"], |answer| {
                (row(answer, "containers", "name", "sender")?["state"] == *state).then_some(())
            })
        };
        host.docker(&["pause", sender.id()])?;
        becomes("paused")?;
        let paused = at_rest(conmond, "sender", "udp-sink")?;
        host.docker(&["unpause", sender.id()])?;
        becomes("running")?;
        pair_with(conmond, "sender", "udp-sink", paused + 200)?;
        let sent: UdpSent = sender.stop_and_report()?;
        ensure!(sent.sent > paused, "{paused} before the pause of {sent:?}");
        holds_exactly(conmond, "sender", "udp-sink", &sent)?;
        balanced(conmond)
    })
}

/// Packets of the rows between two ends that are called so.
fn sum(answer: &Value, name: impl Fn(&Value) -> bool) -> u64 {
    let ours = rows(answer, "pairs").iter().filter(|pair| name(&pair["src"]) && name(&pair["dst"]));
    ours.map(|pair| packets(&pair["sent"])).sum()
}

/// A row of an answer at another level than the containers'.
fn at_level(conmond: &Conmond, level: &str, src: &str, dst: &str) -> Result<Value> {
    let answer = conmond.ctl(&["pairs", "--level", level])?;
    let found = pair(&answer, src, dst).with_context(|| format!("no {src} and {dst} in {answer}"))?;
    for end in ["src", "dst"] {
        ensure!(found[end]["kind"] == level, "{found}");
    }
    Ok(found.clone())
}

#[test]
fn root_a_service_that_grows_and_shrinks_is_the_sum_of_its_containers() -> Result<()> {
    with_conmond("scaling", &[], ConmondOptions::default(), |_, host, conmond| {
        let member = |service: &str, n: u64, words: &str| -> Result<Container> {
            let name = format!("{TENANT}-{service}-{n}");
            let spec = lab::Spec::app(&name, lab::App::Labgen).network(NET).compose(TENANT, service);
            host.run(&spec.command(words.split_ascii_whitespace()))
        };
        let mut sent = 0;
        let mut webs = Vec::new();
        // one, then three of it, then one again, each called by another
        for n in [1, 2, 3] {
            let web = member("web", n, "udp-sink")?;
            web.wait_line("listening", READY)?;
            let loader =
                member("loader", n, &words(&web, &format!("--rate 2000 --count {} --hold 1", 100 * n))?)?;
            let own = report_of(&loader)?.sent;
            pair_with(conmond, &format!("{TENANT}-loader-{n}"), &format!("{TENANT}-web-{n}"), own)?;
            sent += own;
            webs.push((web, loader));
        }
        ensure!(sent == 600, "{sent}");
        let service = |at: &str| -> Result<()> {
            let row = at_level(conmond, "service", "loader", "web")?;
            ensure!(
                packets(&row["sent"]) == sent && row["protocols"] == serde_json::json!(["udp"]),
                "{at}: {row}"
            );
            Ok(())
        };
        service("three of each")?;
        for (web, loader) in webs.drain(1..) {
            web.remove()?;
            loader.remove()?;
        }
        conmond.wait_ctl("one of each", READY, &["containers"], |answer| {
            (rows(answer, "containers").iter().filter(|c| c["service"] == "web").count() == 1).then_some(())
        })?;
        service("one of each")?;

        // and so at the other levels: a row of one is the sum of the rows of the containers
        let containers = conmond.ctl(&["pairs"])?;
        let tenant = at_level(conmond, "tenant", TENANT, TENANT)?;
        let between = sum(&containers, |end| end["tenant"] == TENANT);
        ensure!(
            between >= sent && packets(&tenant["sent"]) == between,
            "{between} in {containers}, but {tenant}"
        );
        let all = conmond.ctl(&["pairs", "--level", "host"])?;
        let here = rows(&all, "pairs")
            .iter()
            .find(|pair| pair["src"]["kind"] == "host" && pair["dst"]["kind"] == "host");
        ensure!(here.is_some_and(|row| packets(&row["sent"]) >= between), "{between}, but {all}");
        balanced(conmond)
    })
}

/// The tenant's working monitor.
fn monitor(conmond: &Conmond, but: &str) -> Result<String> {
    conmond.wait_ctl("a monitor that works", END, &["monitors"], |answer| {
        let monitor = row(answer, "monitors", "tenant", TENANT)?;
        let id = monitor["id"].as_str().filter(|id| *id != but)?;
        (monitor["state"] == "working").then(|| id.to_owned())
    })
}

/// Takes away the memory that a container's process does not use yet.
fn starve(host: &Host, id: &str) -> Result<()> {
    let pid = host.docker(&["inspect", "--format", "{{.State.Pid}}", id])?;
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim()))?;
    let of = |controller: &str| {
        let line = groups.lines().find(|line| line.split(':').nth(1) == Some(controller))?;
        line.splitn(3, ':').nth(2).map(|path| path.trim_start_matches('/').to_owned())
    };
    let version_1 = of("memory")
        .map(|path| (format!("/sys/fs/cgroup/memory/{path}"), "usage_in_bytes", "limit_in_bytes"));
    let version_2 = || {
        let root = lab::cgroup_v2()?;
        Some((root.join(of("")?).display().to_string(), "current", "max"))
    };
    let (group, usage, limit) = version_1.or_else(version_2).context("no control group for memory")?;
    let used: u64 = fs::read_to_string(format!("{group}/memory.{usage}"))?.trim().parse()?;
    let limit = format!("{group}/memory.{limit}");
    fs::write(&limit, (used + (64 << 10)).to_string()).with_context(|| limit.clone())
}

#[test]
fn root_a_monitor_that_runs_out_of_memory_is_replaced_and_nothing_is_missed() -> Result<()> {
    with_conmond("a monitor without memory", &[], ConmondOptions::default(), |_, host, conmond| {
        let sink = listening(host, "udp-sink", "udp-sink")?;
        let sender = host.run(&spec("sender", &words(&sink, "--rate 500 --count 0")?))?;
        pair_with(conmond, "sender", "udp-sink", 100)?;
        let first = monitor(conmond, "")?;
        let since = host.docker(&["info", "--format", "{{.SystemTime}}"])?;
        starve(host, &first)?;
        // what there is to report of these takes more than it has
        let storm = host.run(&spec(
            "storm",
            &format!("udp-flows --flows 20000 --rounds 2 --to {}:1 --hold 1", sink.ipv4(NET)?),
        ))?;
        let line = storm.wait_line("\"packets\"", END)?;
        let told: lab::traffic::FlowsSent = serde_json::from_str(&line)?;
        let second = monitor(conmond, &first)?;
        let until = host.docker(&["info", "--format", "{{.SystemTime}}"])?;
        let container = format!("container={first}");
        let killed = host.docker(&[
            "events",
            "--since",
            since.trim(),
            "--until",
            until.trim(),
            "--filter",
            "event=oom",
            "--filter",
            &container,
        ])?;
        ensure!(killed.contains("oom"), "{first:.12} was replaced by {second:.12}, but not for its memory");
        let pair = pair_with(conmond, "storm", "udp-sink", told.packets)?;
        ensure!(packets(&pair["sent"]) == told.packets, "{told:?}, but {pair}");
        let sent: UdpSent = sender.stop_and_report()?;
        holds_exactly(conmond, "sender", "udp-sink", &sent)?;
        port_agrees(conmond, "storm")?;
        let left = host.docker(&["ps", "--all", "--quiet", "--filter", &format!("id={first}")])?;
        ensure!(left.trim().is_empty(), "the one that was killed is left");
        balanced(conmond)
    })
}
