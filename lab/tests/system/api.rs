//! The API keeps its own description, under requests made up from it, good ones and bad ones (`scripts/fuzz-api`).
//!
//! `CONMON_API_EXAMPLES` bounds the requests of each kind for each path.

use crate::support::*;
use crate::traffic::Traffic;
use anyhow::{Context, Result, bail, ensure};
use lab::ConmondOptions;
use std::path::Path;
use std::process::Command;

/// The script's exit code for want of schemathesis.
const NOT_INSTALLED: i32 = 3;

#[test]
fn root_the_api_is_as_its_document_says() -> Result<()> {
    let examples = setting("CONMON_API_EXAMPLES", 100)?.to_string();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fuzz-api");
    // here, where the package index may be reached; the host of the test has no way out
    let installed = Command::new(&script).arg("--install").output();
    let installed = installed.with_context(|| format!("cannot run {}", script.display()))?;
    if !installed.status.success() && is_required() {
        bail!("{}", String::from_utf8_lossy(&installed.stderr));
    }
    with_conmond("API against its document", &[], ConmondOptions::default(), |_, host, conmond| {
        // Answers with something in them.
        let traffic = Traffic::start(host, conmond)?;
        let mut fuzz = host.command(&script);
        let out = fuzz.arg(conmond.socket()).arg(&examples).output();
        let out = out.with_context(|| format!("cannot run {}", script.display()))?;
        let said = [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        if out.status.code() == Some(NOT_INSTALLED) {
            if is_required() {
                bail!("{said}");
            }
            lab::skipped("API against its document", &said);
            return Ok(());
        }
        ensure!(out.status.success(), "{said}");
        ensure!(conmond.is_running(), "conmond has ended");
        let totals = said.lines().filter(|line| line.contains("generated") || line.contains("seed"));
        totals.for_each(|line| eprintln!("{line}"));
        traffic.was_counted_exactly(conmond).map(drop)
    })
}
