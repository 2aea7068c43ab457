//! The demo, as somebody without a terminal runs it: it shows pairs of both tenants, on two hosts one matrix from either, ends by itself, and leaves
//! nothing; interrupted at its start, it leaves nothing either.

use anyhow::{Context, Result, ensure};
use lab::{LabId, labs, wait_for};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Whether this test can run: as root, with conmond built. In CI, not being able to is a failure.
fn may_run(name: &str) -> Result<bool> {
    if !lab::may_run(name)? {
        return Ok(false);
    }
    let required = ["CI", "CONMON_TEST_REQUIRE_ROOT"].iter().any(|key| std::env::var_os(key).is_some());
    match lab::program("conmond").and_then(|_| lab::program("conmonctl")) {
        Ok(_) => Ok(true),
        Err(error) if !required => {
            lab::skipped(name, &format!("{error:#}"));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn start(hosts: &str, seconds: &str) -> Result<Child> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.env("DEMO_HOSTS", hosts).env("DEMO_SECONDS", seconds).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("cannot start the demo")
}

/// Nothing of any lab of this process is known any more.
fn leaves_nothing(pid: u32) -> Result<()> {
    let left: Vec<LabId> = labs().into_keys().filter(|id| id.pid == pid).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    ensure!(lab::traces(LabId { pid, number: 0 }, None).is_empty());
    Ok(())
}

/// Runs it to its end; what it said.
fn said(hosts: &str) -> Result<String> {
    let begin = Instant::now();
    let demo = start(hosts, "6")?;
    let pid = demo.id();
    let out = demo.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.success(), "the demo ended with {}:\n{said}", out.status);
    let last = said.lines().last().unwrap_or_default();
    ensure!(last.starts_with("removed: ") && last.contains("container"), "{last:?}");
    eprintln!("the demo took {:.1} s", begin.elapsed().as_secs_f64());
    leaves_nothing(pid)?;
    Ok(said)
}

const NAMES: [&str; 10] =
    ["web", "visitors", "cache", "cart", "db", "teller", "sessions", "gateway", "archive", "backup"];

#[test]
fn root_the_demo_shows_both_tenants_and_leaves_nothing() -> Result<()> {
    if !may_run("demo")? {
        return Ok(());
    }
    let said = said("1")?;
    // Rows of names after the last heading, not the lines that tell what is being started.
    let table = said.rsplit("`conmonctl pairs`:").next().unwrap_or_default();
    for name in NAMES {
        ensure!(table.contains(name), "{name} is missing in:\n{said}");
    }
    Ok(())
}

#[test]
fn root_the_demo_of_two_hosts_shows_one_matrix_from_either() -> Result<()> {
    if !may_run("demo of two hosts")? {
        return Ok(());
    }
    let said = said("2")?;
    for host in ["east", "west"] {
        let matrix = said.split(&format!("from {host}, `conmonctl matrix`:")).nth(1).unwrap_or_default();
        let matrix = matrix.split("\nfrom ").next().unwrap_or_default();
        for name in NAMES {
            let home = if ["visitors", "teller", "backup", "sessions", "gateway"].contains(&name) {
                "west"
            } else {
                "east"
            };
            let named = matrix.lines().any(|line| line.contains(&format!("-{name}-1@{home}")));
            ensure!(named, "{name}@{home} is missing as seen from {host}:\n{said}");
        }
    }
    Ok(())
}

#[test]
fn root_an_interrupted_demo_leaves_nothing() -> Result<()> {
    if !may_run("interrupted demo")? {
        return Ok(());
    }
    let mut demo = start("1", "60")?;
    let pid = demo.id();
    let mut lines = BufReader::new(demo.stdout.take().context("stdout")?).lines();
    // As soon as the first container runs.
    let found = lines.by_ref().find(|line| line.as_ref().map_or(true, |line| line.starts_with("shop")));
    let interrupted = Command::new("kill").args(["-INT", &pid.to_string()]).status()?;
    ensure!(interrupted.success() && found.is_some());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = wait_for("end of the interrupted demo", Duration::from_secs(60), || Ok(demo.try_wait()?))?;
    ensure!(status.success(), "ended with {status}: {rest:?}");
    ensure!(rest.last().is_some_and(|line| line.starts_with("removed: ")), "{rest:?}");
    leaves_nothing(pid)
}
