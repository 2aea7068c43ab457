//! Packs executables of this machine into image layers and into kernels' first file systems: the file, the shared
//! libraries the loader would give it, and whatever else the application needs. The same input gives the same bytes.

use crate::cpio;
use crate::run::{output_text, text};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Raised when the same files would be packed another way.
const FORMAT: u8 = 1;

/// The files of an image or of a first file system, by their path without the leading `/`.
#[derive(Debug, Default)]
pub struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: u32,
}

#[derive(Debug)]
enum Kind {
    Folder,
    File(Vec<u8>),
    Symlink(PathBuf),
}

impl Layer {
    /// A folder, owned by `owner` (user and group id).
    pub fn folder(&mut self, path: &str, mode: u32, owner: u32) {
        self.insert(Path::new(path), Entry { kind: Kind::Folder, mode, owner });
    }

    /// A file with the given contents, owned by root.
    pub fn file(&mut self, path: &str, contents: impl Into<Vec<u8>>) {
        self.insert(Path::new(path), Entry { kind: Kind::File(contents.into()), mode: 0o644, owner: 0 });
    }

    /// An executable script, owned by root.
    pub fn script(&mut self, path: &str, text: &str) {
        let kind = Kind::File(text.as_bytes().to_vec());
        self.insert(Path::new(path), Entry { kind, mode: 0o755, owner: 0 });
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.insert(Path::new(path), Entry { kind: Kind::Symlink(target.into()), mode: 0o777, owner: 0 });
    }

    /// An executable of this machine and all libraries it is linked with, the libraries at their own paths.
    pub fn executable(&mut self, path: &str, source: &Path) -> Result<()> {
        self.copy(Path::new(path), source, 0o755)?;
        for library in libraries(source)? {
            self.copy(&library, &library, 0o755)?;
        }
        Ok(())
    }

    /// Everything below a folder of this machine, owned by `owner`; modes as they are.
    pub fn tree(&mut self, path: &str, source: &Path, owner: u32) -> Result<()> {
        let to = Path::new(path);
        let meta = fs::symlink_metadata(source).with_context(|| source.display().to_string())?;
        let mode = meta.permissions().mode() & 0o7777;
        let kind = if meta.is_dir() {
            for entry in fs::read_dir(source).with_context(|| source.display().to_string())? {
                let entry = entry?;
                let below = to.join(entry.file_name());
                let below = below.to_str().context("file name is not UTF-8")?.to_string();
                self.tree(&below, &entry.path(), owner)?;
            }
            Kind::Folder
        } else if meta.is_symlink() {
            Kind::Symlink(fs::read_link(source)?)
        } else if meta.is_file() {
            Kind::File(fs::read(source).with_context(|| source.display().to_string())?)
        } else {
            return Ok(()); // Sockets and pipes are no content.
        };
        self.insert(to, Entry { kind, mode, owner });
        Ok(())
    }

    fn copy(&mut self, to: &Path, source: &Path, mode: u32) -> Result<()> {
        let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.insert(to, Entry { kind: Kind::File(bytes), mode, owner: 0 });
        Ok(())
    }

    fn insert(&mut self, path: &Path, entry: Entry) {
        self.entries.insert(path.strip_prefix("/").unwrap_or(path).to_path_buf(), entry);
    }

    /// A key of everything in the layer: other contents, other key.
    pub fn key(&self) -> String {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(FORMAT);
        for (path, entry) in &self.entries {
            let (kind, bytes): (u8, &[u8]) = match &entry.kind {
                Kind::Folder => (0, &[]),
                Kind::File(bytes) => (1, bytes),
                Kind::Symlink(target) => (2, target.as_os_str().as_encoded_bytes()),
            };
            let path = path.as_os_str().as_encoded_bytes();
            hasher.write_usize(path.len());
            hasher.write(path);
            hasher.write_u8(kind);
            hasher.write_u32(entry.mode);
            hasher.write_u32(entry.owner);
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        }
        format!("{:016x}", hasher.finish())
    }

    /// All entries in order. Folders above files are added where they were not given.
    fn whole(&self) -> BTreeMap<&Path, &Entry> {
        const ABOVE: &Entry = &Entry { kind: Kind::Folder, mode: 0o755, owner: 0 };
        let mut all: BTreeMap<&Path, &Entry> = BTreeMap::new();
        for (path, entry) in &self.entries {
            let folders = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
            folders.for_each(|folder| {
                all.entry(folder).or_insert(ABOVE);
            });
            all.insert(path, entry);
        }
        all
    }

    /// Writes the layer as a tar archive.
    pub fn write(&self, to: impl std::io::Write) -> Result<()> {
        let mut archive = tar::Builder::new(to);
        for (path, entry) in self.whole() {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(u64::from(entry.owner));
            header.set_gid(u64::from(entry.owner));
            header.set_mtime(0);
            let added = match &entry.kind {
                Kind::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    archive.append_data(&mut header, path, std::io::empty())
                }
                Kind::File(bytes) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice())
                }
                Kind::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target)
                }
            };
            added.with_context(|| format!("cannot pack {}", path.display()))?;
        }
        archive.into_inner().and_then(|mut to| to.flush()).context("cannot write the image")
    }

    /// Writes the layer as an archive that a kernel unpacks into its first file system.
    pub fn write_cpio(&self, to: impl std::io::Write) -> Result<()> {
        let mut archive = cpio::Writer::new(to);
        for (path, entry) in self.whole() {
            let name = path.as_os_str().as_encoded_bytes();
            match &entry.kind {
                Kind::Folder => archive.folder(name, entry.mode, entry.owner),
                Kind::File(bytes) => archive.file(name, entry.mode, entry.owner, bytes),
                Kind::Symlink(target) => {
                    archive.symlink(name, entry.owner, target.as_os_str().as_encoded_bytes())
                }
            }
            .with_context(|| format!("cannot pack {}", path.display()))?;
        }
        archive.finish().map(drop).context("cannot write the first file system")
    }
}

/// The shared libraries of an executable, the loader included; none for a static one.
fn libraries(executable: &Path) -> Result<Vec<PathBuf>> {
    let out = Command::new("ldd").arg(executable).output().context("cannot run ldd")?;
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    if out.status.success() {
        return parse_ldd(&stdout).with_context(|| format!("libraries of {}", executable.display()));
    }
    if stderr.contains("not a dynamic executable") || stdout.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    bail!("ldd {}: {stderr}", executable.display())
}

fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.contains("not found") {
            bail!("missing library: {line}");
        }
        let place = line.split_once("=>").map_or(line, |(_, place)| place).trim();
        let path = place.split_once(" (").map_or(place, |(path, _)| path);
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

/// The newest `postgresql` server folder of this machine: `/usr/lib/postgresql/15`.
pub(crate) fn postgres_home() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").map(|d| d.filter_map(Result::ok).collect::<Vec<_>>());
    let homes = versions.unwrap_or_default().into_iter().map(|v| v.path());
    let homes = homes.filter(|home| home.join("bin/postgres").exists());
    let version =
        |home: &PathBuf| home.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok()).unwrap_or(0);
    homes
        .max_by_key(version)
        .context("PostgreSQL is not installed: run scripts/setup.sh, or `apt-get install postgresql`")
}

/// Makes a database cluster and returns its folder, inside a folder that the caller removes. The server refuses to
/// do this as root, so it is done as nobody.
pub(crate) fn init_postgres(home: &Path, work: &Path) -> Result<PathBuf> {
    const NOBODY: u32 = 65534;
    fs::create_dir_all(work)?;
    std::os::unix::fs::chown(work, Some(NOBODY), Some(NOBODY)).context("chown")?;
    let data = work.join("data");
    let mut initdb = Command::new("setpriv");
    initdb.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(home.join("bin/initdb"));
    initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "-D"]);
    output_text(initdb.arg(&data).current_dir("/").env("LC_ALL", "C").env("TZ", "GMT"))?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read() {
        let text = "\tlinux-vdso.so.1 (0x0)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x7)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7)\n";
        let found = parse_ldd(text).unwrap();
        assert_eq!(
            found,
            [PathBuf::from("/lib/x86_64-linux-gnu/libm.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(parse_ldd("\tstatically linked\n").unwrap().is_empty());
        assert!(parse_ldd("\tlibx.so => not found\n").is_err());
    }

    #[test]
    fn the_same_files_give_the_same_archive_and_key() {
        let layer = |text: &str| {
            let mut layer = Layer::default();
            layer.file("/etc/a/b", text);
            layer.symlink("/bin/sh", "busybox");
            layer.folder("/tmp", 0o1777, 0);
            layer
        };
        let pack = |layer: &Layer| {
            let mut bytes = Vec::new();
            layer.write(&mut bytes).unwrap();
            bytes
        };
        let (one, two, other) = (layer("x"), layer("x"), layer("y"));
        assert_eq!(pack(&one), pack(&two));
        assert_eq!(one.key(), two.key());
        assert_ne!(one.key(), other.key());
        let bytes = pack(&one);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let paths: Vec<String> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(paths, ["bin", "bin/sh", "etc", "etc/a", "etc/a/b", "tmp"]);
    }

    #[test]
    fn cpio_reads_what_is_written() {
        let mut layer = Layer::default();
        layer.file("/etc/a/b", "five.");
        layer.file("/etc/empty", "");
        layer.script("/init", "#!/bin/sh\n");
        layer.symlink("/bin/sh", "busybox");
        layer.folder("/tmp", 0o1777, 0);
        let mut bytes = Vec::new();
        layer.write_cpio(&mut bytes).unwrap();
        // another's reader: busybox, which the lab needs anyway
        let folder = std::env::temp_dir().join(format!("conmon-lab-cpio-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("archive"), &bytes).unwrap();
        let script = "busybox cpio -idm <archive 2>/dev/null && cat etc/a/b init && readlink bin/sh && \
                      stat -c '%a %s' etc/empty init && stat -c %a tmp";
        let read = output_text(Command::new("sh").arg("-c").arg(script).current_dir(&folder));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read.unwrap(), "five.#!/bin/sh\nbusybox\n644 0\n755 10\n1777");
    }

    #[test]
    fn an_executable_brings_its_libraries() {
        let mut layer = Layer::default();
        layer.executable("/bin/env", Path::new("/usr/bin/env")).unwrap();
        assert!(layer.entries.keys().any(|path| path.to_string_lossy().contains("libc.so")));
    }
}
