//! What to print when a test fails: the state of a host in a form that tells where to look, before it is torn down.

use crate::host::Host;
use std::fmt::Write;
use std::path::Path;

/// Lines shown of each log.
const LINES: usize = 40;
/// Containers whose own output is shown; a test of a thousand must not print a thousand logs.
const CONTAINERS: usize = 12;

/// Describes a host: containers, interfaces, tails of all its logs. Never fails: what cannot be had is said.
pub fn host(host: &Host) -> String {
    let mut out = format!("==== host {} ({})\n", host.name(), host.full_name());
    let said =
        |result: anyhow::Result<String>| result.unwrap_or_else(|error| format!("not available: {error:#}"));
    let mut section = |title: &str, body: String| {
        let _ = writeln!(out, "---- {title}\n{}", body.trim_end());
    };
    section("containers", said(host.docker(&["ps", "--all"])));
    section("links", said(host.namespace().ip(&["-brief", "link"])));
    section("addresses", said(host.namespace().ip(&["-brief", "address"])));
    let names = host.docker(&["ps", "--all", "--format", "{{.Names}}"]).unwrap_or_default();
    for name in names.lines().take(CONTAINERS) {
        let mut logs = host.docker_command();
        // `docker logs` keeps stdout and stderr apart; both matter here.
        let text = match logs.args(["logs", "--tail", "15", name]).output() {
            Ok(output) => {
                [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat()
            }
            Err(error) => format!("not available: {error}"),
        };
        section(&format!("output of {name}"), text);
    }
    for log in host.logs() {
        section(&log.display().to_string(), tail(&log, LINES));
    }
    out
}

/// The last lines of a file; says so when it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => return format!("cannot read {}: {error}", file.display()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_shows_the_end_or_says_why_not() {
        let file = std::env::temp_dir().join(format!("tail-{}", std::process::id()));
        std::fs::write(&file, "one\ntwo\nthree\n").unwrap();
        let (two, ten) = (tail(&file, 2), tail(&file, 10));
        std::fs::remove_file(&file).unwrap();
        assert_eq!((two.as_str(), ten.as_str()), ("two\nthree", "one\ntwo\nthree"));
        assert!(tail(&file, 2).contains("cannot read"));
    }
}
