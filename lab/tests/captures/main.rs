//! `conmonctl analyze` on captures of real applications, held against what other tools make of the same files: tshark
//! packet by packet, tcptrace connection by connection, softflowd and nfdump flow by flow.
//!
//! `CONMON_KEEP_CAPTURES=FOLDER` keeps the captures there.

mod flows;
mod scene;
mod tcptrace;
mod translated;
mod tshark;

use anyhow::{Context, Result, ensure};
use lab::{output, program, root_test};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What analyze says of a capture, and the file of its events.
struct Analysis {
    answer: Value,
    events: PathBuf,
}

fn analyze(captures: &[&Path], options: &[&str]) -> Result<Analysis> {
    let events = captures[0].with_extension("events.csv");
    let mut command = Command::new(program("conmonctl")?);
    command.arg("analyze").args(captures).args(["-o", "json", "--events"]).arg(&events).args(options);
    let answer = serde_json::from_slice(&output(&mut command)?).context("analyze did not print JSON")?;
    Ok(Analysis { answer, events })
}

#[test]
fn root_captures_are_read_as_other_tools_read_them() -> Result<()> {
    root_test("captures against other tools", |lab| {
        let captures = scene::captures(lab)?;
        if let Some(folder) = std::env::var_os("CONMON_KEEP_CAPTURES") {
            std::fs::create_dir_all(&folder)?;
            for (name, file) in &captures {
                std::fs::copy(file, Path::new(&folder).join(format!("{name}.pcap")))?;
            }
        }
        let mut judges = (tshark::Tally::default(), tcptrace::Tally::default());
        for (name, file) in &captures {
            let analysis = analyze(&[file], &[])?;
            ensure!(analysis.answer["pairs"].as_array().is_some_and(|pairs| !pairs.is_empty()), "{name}");
            judges.0.judge(name, file, &analysis).with_context(|| format!("{name} against tshark"))?;
            judges.1.judge(name, file, &analysis).with_context(|| format!("{name} against tcptrace"))?;
            flows::judge(name, file, &analysis).with_context(|| format!("{name} against softflowd"))?;
        }
        judges.0.verdict()?;
        judges.1.verdict()
    })
}
