//! `lab`: looks after labs from outside. `guard` is started by every lab and cleans up should its owner be killed;
//! `sweep` removes what dead labs left; `list` shows the labs there are; `hold` keeps a small lab for a person.

use anyhow::{Context, Result, bail};
use lab::{App, Lab, LabId, Spec, stand_guard, sweep};
use std::io::{Read, Write};
use std::process::ExitCode;

const USAGE: &str = "\
lab sweep      remove what labs of dead processes left on this machine
lab list       show the labs on this machine
lab hold       start a host with one container; remove it when stdin ends
lab guard ID   wait for the end of stdin, then remove lab ID if its owner is dead (labs start this themselves)";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["sweep"] => sweep_all(),
        ["list"] => list(),
        ["hold"] => hold(),
        ["guard", id] => guard(id),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn sweep_all() -> Result<()> {
    let swept = sweep()?;
    if swept.is_empty() {
        println!("nothing to sweep");
    }
    for (id, removed) in swept {
        println!("lab {id}: removed {removed}");
    }
    Ok(())
}

fn list() -> Result<()> {
    for (id, alive) in lab::labs() {
        println!("{id}\t{}", if alive { "alive" } else { "dead" });
    }
    Ok(())
}

fn hold() -> Result<()> {
    let lab = Lab::start()?;
    let host = lab.host("h1")?;
    host.run(&Spec::app("sleeper", App::Busybox))?;
    println!("{} {} {}", lab.id(), lab.dir().display(), host.docker_host());
    std::io::stdout().flush()?;
    wait_for_end_of_stdin();
    let removed = lab.remove()?;
    // Whoever began this may have stopped reading.
    let _ = writeln!(std::io::stdout(), "removed {removed}");
    Ok(())
}

fn guard(id: &str) -> Result<()> {
    let Some(parsed) = LabId::parse(id).filter(|parsed| parsed.to_string() == id) else {
        bail!("{id:?} is not a lab's identity (PID-N)");
    };
    stand_guard(parsed, wait_for_end_of_stdin).map(drop).with_context(|| format!("guard of lab {id}"))
}

/// Reads stdin to its end; an error is an end too.
fn wait_for_end_of_stdin() {
    let mut buffer = [0; 64];
    while matches!(std::io::stdin().read(&mut buffer), Ok(n) if n > 0) {}
}
