//! A kernel of Debian's archive: its package is downloaded and unpacked, and nothing is installed. Kept: the kernel itself,
//! and the modules that are asked for with all they depend on, in the order in which they must be loaded.

use anyhow::{Context, Result, bail};
use lab::{find_program, output, output_text};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel that is ready to be booted.
pub struct Kernel {
    /// As `uname -r` will say.
    pub release: String,
    /// The compressed kernel.
    pub image: PathBuf,
    /// Modules, each after what it depends on.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// Gets the kernel that `package` is or stands for, from the cache if it is there.
    pub fn get(package: &str, cache: &Path, wanted: &[&str]) -> Result<Self> {
        let name = resolve(package)?;
        let version = candidate(&name)?;
        let mut hasher = DefaultHasher::new();
        wanted.hash(&mut hasher);
        let dir = cache.join(format!("{name}_{version}_{:016x}", hasher.finish()));
        if !dir.join("release").is_file() {
            let work = cache.join(format!("unpack-{}", std::process::id()));
            fs::create_dir_all(&work)?;
            let kept = fetch(&name, &work).and_then(|()| keep(&work, &dir, wanted));
            fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
            kept?;
        }
        let release = fs::read_to_string(dir.join("release"))?;
        let mut modules: Vec<PathBuf> = fs::read_dir(dir.join("modules"))?
            .map(|e| e.map(|e| e.path()))
            .collect::<std::io::Result<_>>()?;
        modules.sort();
        Ok(Self { release, image: dir.join("vmlinuz"), modules })
    }
}

/// Debian's packages without a version in their name only depend on the newest with one.
fn resolve(package: &str) -> Result<String> {
    let say = || output_text(Command::new("apt-cache").args(["depends", "--important", package]));
    let depends = match say() {
        Ok(text) => text,
        Err(_) => {
            // the lists may be missing on a fresh machine; only root can fetch them
            let _ = output(Command::new("apt-get").args(["-qq", "update"]));
            say().with_context(|| {
                format!("Debian's archive has no {package}; run `apt-get update`, or name another kernel")
            })?
        }
    };
    let named = depends.lines().filter_map(|l| l.trim().strip_prefix("Depends: "));
    let kernel = named.map(str::trim).find(|d| d.starts_with("linux-image-"));
    Ok(kernel.unwrap_or(package).to_string())
}

fn candidate(name: &str) -> Result<String> {
    let policy = output_text(Command::new("apt-cache").args(["policy", name]))?;
    let version = policy.lines().find_map(|l| l.trim().strip_prefix("Candidate: "));
    match version {
        Some(version) if version != "(none)" => Ok(version.replace(':', "%3a")),
        _ => bail!("Debian's archive has no {name}; run `apt-get update`, or name another kernel"),
    }
}

fn fetch(name: &str, work: &Path) -> Result<()> {
    println!("fetching {name}");
    output(Command::new("apt-get").args(["-qq", "download", name]).current_dir(work))?;
    let deb = fs::read_dir(work)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "deb"));
    let deb = deb.with_context(|| format!("apt-get download {name} left no package"))?;
    output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(work.join("root"))).map(drop)
}

/// Puts what is needed of an unpacked kernel into `dir`, which is there whole or not at all.
fn keep(work: &Path, dir: &Path, wanted: &[&str]) -> Result<()> {
    let root = work.join("root");
    let boot = fs::read_dir(root.join("boot")).context("the package has no /boot")?;
    let image = boot.filter_map(|e| Some(e.ok()?.path())).find(|p| release_of(p).is_some());
    let image = image.context("the package has no /boot/vmlinuz-*")?;
    let release = release_of(&image).unwrap_or_default();
    let places = ["lib/modules", "usr/lib/modules"].map(|p| root.join(p).join(&release));
    let place = places.iter().find(|p| p.is_dir()).context("the package has no modules")?;

    let mut files = BTreeMap::new();
    find(place, &mut files)?;
    let builtin = fs::read_to_string(place.join("modules.builtin"))?;
    let builtin = |name: &str| builtin.lines().any(|l| module_name(Path::new(l)).as_deref() == Some(name));
    let mut order = Vec::new();
    for name in wanted.iter().filter(|name| !builtin(name)) {
        add(name, &files, &mut order)?;
    }

    let half = work.join("kept");
    fs::create_dir_all(half.join("modules"))?;
    for (n, (name, contents)) in order.iter().enumerate() {
        fs::write(half.join(format!("modules/{n:03}-{name}.ko")), contents)?;
    }
    fs::copy(image, half.join("vmlinuz"))?;
    fs::write(half.join("release"), release)?;
    fs::rename(half, dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn release_of(image: &Path) -> Option<String> {
    Some(image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_string())
}

/// A module's name: its file's, with `_` for `-`, and without `.ko` and what compressed it.
fn module_name(file: &Path) -> Option<String> {
    let (name, _) = file.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn find(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// Adds a module after what it depends on, once.
fn add(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if order.iter().any(|(n, _)| n == name) {
        return Ok(());
    }
    let file = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let contents = match file.extension().and_then(|e| e.to_str()) {
        Some("xz") => output(Command::new(find_program("xz", "xz-utils")?).args(["-dc"]).arg(file))?,
        Some("zst") => output(Command::new(find_program("zstd", "zstd")?).args(["-qdc"]).arg(file))?,
        _ => fs::read(file)?,
    };
    for needed in depends(&contents) {
        add(&needed, files, order)?;
    }
    order.push((name.to_string(), contents));
    Ok(())
}

/// What a module says it depends on: `depends=a,b` among the strings of its `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else { return Vec::new() };
    let list = module[at + KEY.len()..].split(|b| *b == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(list).replace('-', "_");
    names.split(',').filter(|n| !n.is_empty()).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_what_it_depends_on() {
        assert_eq!(
            depends(b"x\0license=GPL\0depends=llc,nf-conntrack\0retpoline=Y\0"),
            ["llc", "nf_conntrack"]
        );
        assert!(depends(b"x\0depends=\0name=veth\0").is_empty());
        assert!(depends(b"ELF").is_empty());
    }

    #[test]
    fn a_modules_file_tells_its_name() {
        let name = |file: &str| module_name(Path::new(file));
        assert_eq!(name("kernel/net/netfilter/xt-nat.ko.xz").as_deref(), Some("xt_nat"));
        assert_eq!(name("veth.ko").as_deref(), Some("veth"));
        assert_eq!(name("modules.dep"), None);
    }
}
