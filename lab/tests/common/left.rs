//! What there is of conmond on a host, pins, monitoring containers, images, programs at ports; and that nothing is left of them.

use anyhow::{Context, Result, ensure};
use lab::{Conmond, Host, output_text};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Words of what `docker` printed.
pub fn words(host: &Host, args: &[&str]) -> Result<BTreeSet<String>> {
    Ok(host.docker(args)?.split_ascii_whitespace().map(str::to_string).collect())
}

/// The monitoring containers there are, running or not.
pub fn monitors(host: &Host) -> Result<BTreeSet<String>> {
    words(host, &["ps", "--all", "--quiet", "--no-trunc", "--filter", "name=conmon-pm-"])
}

/// The images of monitoring containers there are, as `id`s; those without a tag too.
pub fn images(host: &Host) -> Result<BTreeSet<String>> {
    words(host, &["images", "--all", "--quiet", "--no-trunc", "--filter", "label=conmon.role=monitor"])
}

/// Names in a folder, none when it is not there.
pub fn names(dir: &Path) -> Result<BTreeSet<String>> {
    if !dir.is_dir() {
        return Ok(BTreeSet::new());
    }
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot look into {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Where an instance's maps and links are pinned.
pub fn pins_of(conmond: &Conmond) -> PathBuf {
    Path::new("/sys/fs/bpf/conmon").join(conmond.instance())
}

/// What hangs at the ports of a host's containers: programs by TCX, and filters. A qdisc without filters does nothing.
pub fn attached(host: &Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for link in host.links()?.iter().filter(|link| link.master.is_some()) {
        let programs = host.namespace().run(|| Ok(tap::tcx_programs(link.index)?))?;
        if programs != [0, 0] {
            found.push(format!("{programs:?} programs by TCX on {}", link.name));
        }
        let tc = |args: &[&str]| output_text(host.namespace().command("tc").args(args));
        for hook in ["ingress", "egress"] {
            let filters = tc(&["filter", "show", "dev", &link.name, hook])?;
            if !filters.trim().is_empty() {
                found.push(format!("filters on {}, {hook}: {filters}", link.name));
            }
        }
    }
    Ok(found)
}

/// After `conmonctl down`: nothing of the instance is left, in the kernel, in the engine and on disk.
pub fn nothing_is_left(host: &Host, conmond: &Conmond) -> Result<()> {
    ensure!(monitors(host)?.is_empty(), "monitoring containers are left: {:?}", monitors(host)?);
    ensure!(images(host)?.is_empty(), "images are left: {:?}", images(host)?);
    let pins = pins_of(conmond);
    ensure!(!pins.exists(), "{} is left: {:?}", pins.display(), names(&pins)?);
    let run = conmond.run_dir();
    ensure!(!run.exists(), "{} is left: {:?}", run.display(), names(&run)?);
    let devices: Vec<String> =
        host.links()?.into_iter().map(|link| link.name).filter(|name| name.starts_with("conmon-")).collect();
    ensure!(devices.is_empty(), "devices are left: {devices:?}");
    let hanging = attached(host)?;
    ensure!(hanging.is_empty(), "the ports are not as they were: {hanging:?}");
    Ok(())
}
