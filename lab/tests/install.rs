//! `make install` puts everything in its place and `make uninstall` takes it away again.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn make(target: &str, into: &Path) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new("make")
        .args([target, "PREFIX=/opt/conmon", "UNITDIR=/lib/systemd/system"])
        .arg(format!("DESTDIR={}", into.display()))
        .current_dir(root)
        // What runs this test must not steer another make.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .stdin(Stdio::null())
        .output()
        .context("cannot run make")?;
    ensure!(output.status.success(), "make {target}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn files(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::from(folder)];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder)?.display().to_string());
            }
        }
    }
    Ok(found)
}

#[test]
fn installed_and_uninstalled() -> Result<()> {
    lab::program("conmond").and_then(|_| lab::program("conmonctl")).context("run `make build` first")?;
    let folder = std::env::temp_dir().join(format!("conmon-install-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let tested = check(&folder);
    std::fs::remove_dir_all(&folder)?;
    tested
}

fn check(folder: &Path) -> Result<()> {
    make("install", folder)?;
    let there = files(folder)?;
    for file in [
        "opt/conmon/bin/conmond",
        "opt/conmon/bin/conmonctl",
        "opt/conmon/share/man/man1/conmonctl.1",
        "opt/conmon/share/man/man1/conmonctl-explain.1",
        "opt/conmon/share/man/man8/conmond.8",
        "opt/conmon/share/man/man8/conmond-run.8",
        "opt/conmon/share/bash-completion/completions/conmonctl",
        "opt/conmon/share/zsh/site-functions/_conmonctl",
        "opt/conmon/share/fish/vendor_completions.d/conmond.fish",
        "lib/systemd/system/conmond.service",
    ] {
        ensure!(there.contains(file), "{file} is missing in {there:#?}");
        ensure!(std::fs::metadata(folder.join(file))?.len() > 0, "{file} is empty");
    }
    // Never this name: it is the OCI monitor's, and another `conmon` on the path breaks Podman.
    ensure!(!there.iter().any(|file| file.ends_with("/conmon")), "{there:#?}");
    let unit = std::fs::read_to_string(folder.join("lib/systemd/system/conmond.service"))?;
    ensure!(unit.contains("ExecStart=/opt/conmon/bin/conmond run"), "{unit}");
    make("uninstall", folder)?;
    ensure!(files(folder)?.is_empty(), "left behind: {:#?}", files(folder)?);
    Ok(())
}
