//! Running a test that needs root: skipped loudly where it cannot run, diagnosed before everything is torn down.

use crate::guard::Lab;
use anyhow::{Result, bail};
use nix::unistd::geteuid;
use std::io::Write;

/// Runs a test in a lab of its own. Without root it says so and passes, except where that is asked to be a failure
/// (`CI=true` or `CONMON_TEST_REQUIRE_ROOT=1`). When the test fails, the state of all hosts is printed first.
pub fn root_test(name: &str, body: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    if !may_run(name)? {
        return Ok(());
    }
    let lab = Lab::start()?;
    let result = body(&lab);
    if result.is_err() {
        eprintln!("{}", lab.diagnosis());
    }
    let traces_of = (lab.id(), lab.dir().to_path_buf());
    let removed = lab.remove();
    result?;
    removed?;
    let left = crate::teardown::traces(traces_of.0, Some(&traces_of.1));
    if !left.is_empty() {
        bail!("the lab left behind: {left:?}");
    }
    Ok(())
}

/// Says that a test, or a part of one, is left out and why: past the test harness, which shows what tests that pass print to nobody.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

/// Whether a test that needs root can run here; an error where skipping is not allowed.
pub fn may_run(name: &str) -> Result<bool> {
    if geteuid().is_root() {
        return Ok(true);
    }
    let set = |key: &str, value: &str| std::env::var(key).is_ok_and(|v| v == value);
    if set("CI", "true") || set("CONMON_TEST_REQUIRE_ROOT", "1") {
        bail!("{name} needs root, and skipping is not allowed here");
    }
    skipped(name, "it needs root (network namespaces, a container engine)");
    Ok(false)
}
