//! What is run on each kernel.

use anyhow::{Context, Result, bail};
use lab::program;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Modules that the tests and the engine need; a kernel may have them built in.
pub const MODULES: [&str; 17] = [
    // connection tracking's own module asks for this one by another name than its own
    "crc32c_generic",
    "veth",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    // translations: connection tracking, and iptables by way of nftables
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_compat",
    "nft_chain_nat",
    "xt_nat",
    "xt_MASQUERADE",
    "xt_conntrack",
    "xt_addrtype",
    "xt_tcpudp",
    // the engine
    "br_netfilter",
    "overlay",
];

/// Bound on one machine from power on to power off: several times what it takes when the emulator has a processor to itself.
pub const WHOLE: Duration = Duration::from_secs(25 * 60);

/// One thing to run.
pub struct Step {
    /// Short name.
    pub name: &'static str,
    /// The line that the machine's shell runs.
    pub line: String,
    /// After so many seconds it has failed.
    pub limit_seconds: u32,
    /// Whether it is a test executable, which must close with `test result: ok` and at least one test passed.
    pub is_tests: bool,
}

/// Everything that is run, and the executables for it.
pub struct Suite {
    /// In order.
    pub steps: Vec<Step>,
    /// Where each executable is to lie in the machine, and where it lies here.
    pub executables: Vec<(String, PathBuf)>,
    /// Where else one of them is looked for, and where it lies in the machine.
    pub links: Vec<(String, String)>,
}

/// Test executables: name of the step, package, target, and which of its tests.
const TESTS: [(&str, &str, &str, &str, u32); 6] = [
    // Left out: what judges delays by a capture to 5 µs, and what the programs cost, mean nothing under emulation.
    ("tap", "tap", "root", "--skip rtt:: --skip cost", 900),
    ("netlink", "conmond", "netlink", "root_", 120),
    ("ledger", "conmond", "ledger", "root_", 240),
    ("nat", "conmond", "nat", "root_", 120),
    ("monitor", "conmond", "root_monitor", "root_", 240),
    // Of the engine's tests the one that does not race an emulated engine.
    ("engine", "conmond", "docker", "root_docker_tells_and_shows_a_containers_life", 240),
];

/// Builds the tests and finds them.
pub fn suite() -> Result<Suite> {
    let artifacts = artifacts()?;
    let mut suite = Suite { steps: Vec::new(), executables: Vec::new(), links: Vec::new() };
    for name in ["conmond", "conmonctl", "lab", "labgen"] {
        let (file, place) = (program(name)?, format!("/bin/{name}"));
        // tests know the programs of their own package by where cargo built them
        let built = file.to_str().context("the build folder's name is not UTF-8")?;
        suite.links.push((built.to_string(), place.clone()));
        suite.executables.push((place, file));
    }
    suite.steps.push(Step {
        name: "conmond",
        line: "sh /conmond-alone".to_string(),
        limit_seconds: 120,
        is_tests: false,
    });
    for (name, package, target, which, limit_seconds) in TESTS {
        let file = artifact(&artifacts, package, target)
            .with_context(|| format!("cargo built no tests {target} of {package}"))?;
        suite.executables.push((format!("/tests/{name}"), file));
        let line = format!("/tests/{name} --test-threads=1 --show-output {which}");
        suite.steps.push(Step { name, line, limit_seconds, is_tests: true });
    }
    Ok(suite)
}

/// What cargo says it built.
fn artifacts() -> Result<Vec<Value>> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the lab's folder has none above it")?;
    let out = Command::new("cargo")
        .args(["test", "--workspace", "--release", "--locked", "--no-run", "--message-format=json"])
        .args(TESTS.iter().flat_map(|(_, _, target, _, _)| ["--test", target]))
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !out.status.success() {
        bail!("the tests do not build");
    }
    let text = String::from_utf8(out.stdout).context("cargo's answer is not UTF-8")?;
    text.lines().map(|line| serde_json::from_str(line).context("cargo's answer is not JSON")).collect()
}

fn artifact(all: &[Value], package: &str, target: &str) -> Option<PathBuf> {
    let of = all.iter().find(|a| {
        a["reason"] == "compiler-artifact"
            && a["target"]["name"] == target
            && a["target"]["kind"][0] == "test"
            && a["package_id"].as_str().is_some_and(|id| id.contains(&format!("/{package}#")))
    })?;
    of["executable"].as_str().map(PathBuf::from)
}
