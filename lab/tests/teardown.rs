//! A lab leaves nothing: after a regular end, after its owner was killed, and after its guard was killed too.

use anyhow::{Context, Result, ensure};
use lab::{App, LabId, Spec, labs, root_test, traces, wait_for};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
fn root_a_regular_end_leaves_nothing() -> Result<()> {
    root_test("regular end", |lab| {
        let host = lab.host("h1")?;
        eprintln!("host started in {:.2} s", host.start_took().as_secs_f64());
        host.network("front", Some("fd00:1::/64"))?;
        let container = host.run(&Spec::app("sleeper", App::Busybox).network("front").publish("8080:80"))?;
        ensure!(container.is_running()?);
        let kinds = ["process", "mount", "control group", "namespace", "file"];
        let found = lab.traces();
        for kind in kinds {
            ensure!(found.iter().any(|t| t.starts_with(kind)), "no {kind} in {found:?}");
        }
        // `root_test` checks that none of it is left.
        Ok(())
    })
}

#[test]
fn root_two_labs_of_one_process_do_not_touch_each_other() -> Result<()> {
    root_test("two labs", |one| {
        let host = one.host("h1")?;
        let container = host.run(&Spec::app("sleeper", App::Busybox))?;
        root_test("second lab", |two| {
            ensure!(one.id() != two.id());
            two.host("h1")?.run(&Spec::app("sleeper", App::Busybox))?;
            Ok(())
        })?;
        ensure!(container.is_running()?, "the end of the second lab ended a container of the first");
        Ok(())
    })
}

#[test]
fn root_the_guard_removes_a_killed_owners_lab() -> Result<()> {
    if !lab::may_run("guard")? {
        return Ok(());
    }
    let mut held = Held::start(&[])?;
    ensure!(!traces(held.id, Some(&held.dir)).is_empty());
    held.kill()?;
    wait_for("end of everything the killed owner left", Duration::from_secs(60), || {
        Ok(traces(held.id, Some(&held.dir)).is_empty().then_some(()))
    })
}

#[test]
fn root_a_sweep_removes_what_nobody_guarded() -> Result<()> {
    if !lab::may_run("sweep")? {
        return Ok(());
    }
    let mut held = Held::start(&[("LAB_NO_GUARD", "1")])?;
    let mut alive = Held::start(&[])?;
    held.kill()?;
    let left = traces(held.id, Some(&held.dir));
    for kind in ["process", "mount", "control group", "namespace", "file"] {
        ensure!(left.iter().any(|t| t.starts_with(kind)), "nothing to sweep: no {kind} in {left:?}");
    }
    let swept = Command::new(env!("CARGO_BIN_EXE_lab")).arg("sweep").output()?;
    let said = String::from_utf8_lossy(&swept.stdout);
    // Another test's lab may sweep first; what counts is that nothing is left.
    ensure!(swept.status.success(), "{said}{}", String::from_utf8_lossy(&swept.stderr));
    let left = traces(held.id, Some(&held.dir));
    ensure!(left.is_empty(), "left after the sweep: {left:?}");
    ensure!(labs().get(&alive.id) == Some(&true), "the sweep took a living lab");
    ensure!(!traces(alive.id, Some(&alive.dir)).is_empty());
    drop(alive.child.stdin.take());
    ensure!(alive.child.wait()?.success());
    let left = traces(alive.id, Some(&alive.dir));
    ensure!(left.is_empty(), "left after a regular end: {left:?}");
    Ok(())
}

/// A lab held by another process.
struct Held {
    child: Child,
    /// Kept open: what the process says at its end goes there.
    _stdout: BufReader<std::process::ChildStdout>,
    id: LabId,
    dir: PathBuf,
}

impl Held {
    fn start(environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.arg("hold").envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().context("stdout")?);
        stdout.read_line(&mut line)?;
        let mut words = line.split_ascii_whitespace();
        let id = words.next().and_then(LabId::parse).with_context(|| format!("`lab hold` said {line:?}"))?;
        let dir = PathBuf::from(words.next().context("no folder")?);
        Ok(Self { child, _stdout: stdout, id, dir })
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
