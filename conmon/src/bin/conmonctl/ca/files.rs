//! The CA's folder: files that appear whole or not at all, never over others unless that was asked for.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// Its owner.
    Secret,
    /// Everybody.
    Public,
}

/// A folder of the CA. It and those below it are for their owner alone.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// One below it.
    pub fn folder(&self, path: &Path) -> Self {
        Self(self.0.join(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it and what lies above it, where they are not there.
    pub fn make(&self) -> anyhow::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).with_context(|| {
            format!("cannot make the folder {}; use sudo, or another one (--dir)", self.0.display())
        })
    }

    /// Whether there is such a file. One that cannot be looked at counts as there: it would be written over.
    pub fn has(&self, name: &str) -> bool {
        match fs::symlink_metadata(self.0.join(name)) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.0.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {} (use sudo?)", path.display()))
    }

    /// Writes a file. It appears with its whole content; `force` puts it in the place of one that is there.
    pub fn write(&self, name: &str, text: &str, secrecy: Secrecy, force: bool) -> anyhow::Result<()> {
        let path = self.0.join(name);
        let draft = self.0.join(format!(".{name}.{}", std::process::id()));
        let mode = match secrecy {
            Secrecy::Secret => 0o600,
            Secrecy::Public => 0o644,
        };
        let written = (|| -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            if force {
                fs::rename(&draft, &path)
            } else {
                // fails where a file has come meanwhile, in contrast to a renaming
                fs::hard_link(&draft, &path)
            }
        })();
        // gone already where it was renamed
        let _ = fs::remove_file(&draft);
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Adds a line to a secret file, or makes it.
    pub fn append(&self, name: &str, line: &str) -> anyhow::Result<()> {
        let path = self.0.join(name);
        // one write: lines of two at a time do not mix, and none is lost
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .with_context(|| format!("cannot write {} (use sudo?)", path.display()))
    }
}
