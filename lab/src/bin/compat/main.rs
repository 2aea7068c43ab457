//! `compat`: ConMon on other kernels than this machine's. Fetches Debian's kernels, boots each in an emulator without asking
//! for any hardware support, with the tests' executables and the programs they need as its whole file system, and judges
//! by what the tests print on the serial line. Needs no root.
//!
//! `compat [PACKAGE...]`: Debian packages of kernels; without any, those in [`KERNELS`].

mod guest;
mod judge;
mod kernel;
mod machine;
mod suite;

use anyhow::{Context, Result, bail};
use judge::Verdict;
use kernel::Kernel;
use std::path::PathBuf;
use std::process::ExitCode;

/// Debian 12's own kernel, and the newer one in the same archive.
const KERNELS: [&str; 2] = ["linux-image-amd64", "linux-image-6.12-amd64"];

fn main() -> ExitCode {
    match compat() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compat() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("only x86-64 kernels are booted here; this machine is {}", std::env::consts::ARCH);
    }
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(flag) = asked.iter().find(|a| a.starts_with('-')) {
        bail!("unknown flag {flag}; say `compat`, or `compat PACKAGE...` with Debian's names of kernels");
    }
    let packages = if asked.is_empty() { KERNELS.map(str::to_string).to_vec() } else { asked };
    let cache = cache()?;
    let suite = suite::suite()?;
    let mut verdicts = Vec::new();
    for package in &packages {
        let verdict = on_kernel(package, &cache, &suite).with_context(|| format!("on {package}"))?;
        println!("{verdict}");
        verdicts.push(verdict);
    }
    let passed: u64 = verdicts.iter().map(Verdict::passed).sum();
    let failed: u64 = verdicts.iter().map(Verdict::failed).sum();
    println!("compat: {passed} passed, {failed} failed on {} kernels", verdicts.len());
    if failed > 0 {
        bail!("not every kernel passed; each console is in {}", cache.display());
    }
    Ok(())
}

fn on_kernel(package: &str, cache: &std::path::Path, suite: &suite::Suite) -> Result<Verdict> {
    let kernel = Kernel::get(package, cache, &suite::MODULES)?;
    println!("== Linux {} ({package}): {} steps", kernel.release, suite.steps.len());
    let archive = cache.join(format!("{}.cpio", kernel.release));
    guest::pack(&kernel, suite, &archive)?;
    let console = cache.join(format!("{}.console", kernel.release));
    let end = machine::run(&kernel.image, &archive, &console, suite::WHOLE)?;
    std::fs::remove_file(&archive)?;
    Ok(judge::judge(&kernel.release, &suite.steps, &std::fs::read_to_string(console)?, &end))
}

/// Where kernels and consoles are kept.
fn cache() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    let target = target.context("run `make compat`: this executable is not in the build folder")?;
    let dir = target.join("compat");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
