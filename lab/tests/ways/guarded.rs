//! An engine behind a guard that lets only questions pass: there are no monitoring containers then, and everything is
//! measured all the same; what is missing is said.

use super::*;
use lab::{ConmondOptions, Guarded, Rules, root_test};

#[test]
fn root_an_engine_that_only_answers_questions_is_enough() -> Result<()> {
    if !built("guarded engine")? {
        return Ok(());
    }
    root_test("guarded engine", |lab| {
        let host = lab.host("h1")?;
        host.network("net", None)?;
        let rules = Rules::read_only(&["containers", "networks", "images"]);
        let guard = Guarded::start(&host.dir().join("guard.sock"), &host.socket(), rules)?;
        let options =
            ConmondOptions { args: vec!["--engine".into(), guard.address()], ..ConmondOptions::default() };
        let mut conmond = Conmond::start(&host, options)?;
        let udp = sink(&host, "udp-sink", "net")?;
        let words = format!("udp-send --to {}:9000 --rate 1000 --count 2000 --hold 1", udp.ipv4("net")?);
        let sender = host.run(&labgen("sender", "net", &words))?;
        let sent = report_of(&sender)?;
        holds_exactly(&conmond, "sender", "udp-sink", &sent)?;
        balanced(&conmond)?;

        // It tried, it was refused, and it says so.
        ensure!(guard.refused().iter().any(|r| r.starts_with("POST")), "{:?}", guard.refused());
        let status = conmond.ctl(&["status"])?;
        let problems = status["problems"].to_string();
        ensure!(problems.contains("conmond itself measures tenant shop"), "{problems}");
        ensure!(problems.contains("guards the engine's socket forbids"), "{problems}");
        let monitors = conmond.ctl(&["monitors"])?;
        let stands_in = |m: &&Value| m["tenant"] == "shop" && m["mode"] == "host" && m["state"] == "working";
        ensure!(rows(&monitors, "monitors").iter().any(|m| stands_in(&m)), "{monitors}");
        let found = doctor(&conmond)?;
        let monitors = check(&found, "monitors").context("no check of the monitors")?;
        ensure!(
            monitors["ok"] == false && monitors["detail"].to_string().contains("tenant shop"),
            "{monitors}"
        );
        ensure!(host.docker(&["ps", "--all", "--quiet", "--filter", "name=conmon-pm-"])?.is_empty());

        // A guard that is opened: after a restart there is a monitoring container, and nothing was lost on the way.
        guard.set_rules(Rules::open());
        conmond.stop()?;
        conmond.up()?;
        monitoring_container(&conmond)?;
        counts_on(&host, &conmond, &words, &sent)?;
        conmond.down()
    })
}

#[test]
fn root_a_guard_that_hides_the_containers_is_named() -> Result<()> {
    if !built("guard that hides")? {
        return Ok(());
    }
    root_test("guard that hides", |lab| {
        let host = lab.host("h1")?;
        let rules = Rules::read_only(&[]);
        let guard = Guarded::start(&host.dir().join("guard.sock"), &host.socket(), rules)?;
        let options =
            ConmondOptions { args: vec!["--engine".into(), guard.address()], ..ConmondOptions::default() };
        let conmond = Conmond::start(&host, options)?;
        let problems = conmond.wait_ctl("the problem", END, &["status"], |status| {
            let problems = status["problems"].to_string();
            problems.contains("forbids to list containers").then_some(problems)
        })?;
        ensure!(problems.contains("CONTAINERS"), "{problems}");
        let found = doctor(&conmond)?;
        let engine = check(&found, "engine").context("no check of the engine")?;
        ensure!(
            engine["ok"] == false && engine["remedy"].to_string().contains("guards its socket"),
            "{engine}"
        );
        Ok(())
    })
}
