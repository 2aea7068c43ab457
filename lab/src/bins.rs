//! Finds the project's own executables: conmond, conmonctl, the traffic generator and the lab's guard.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Path of one of our executables. Looked for in `CONMON_BIN_DIR` alone when that is set; else beside the running
/// executable (for a test: the profile it was built with), then among the release builds.
pub fn program(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CONMON_BIN_DIR").filter(|dir| !dir.is_empty()) {
        let file = PathBuf::from(dir).join(name);
        if !file.is_file() {
            bail!("{} is missing: CONMON_BIN_DIR must name the folder of our executables", file.display());
        }
        return Ok(std::path::absolute(file)?);
    }
    let places = places();
    match places.iter().map(|dir| dir.join(name)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{name} is not built (looked in {places:?}): run `make build`, or set CONMON_BIN_DIR"),
    }
}

fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Ok(me) = std::env::current_exe() {
        // Test executables lie in `deps/`, one below the programs.
        places.extend(me.ancestors().skip(1).take(2).map(Path::to_path_buf));
    }
    places.push(target_dir().join(format!("{}-unknown-linux-gnu/release", std::env::consts::ARCH)));
    places
}

/// The workspace's build folder.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).join("target"),
    }
}
