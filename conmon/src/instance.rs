//! Where one instance of ConMon lives: its name and the files in its run folder. The daemon and its clients find each
//! other by the same name and environment, so both take their paths from here.

use std::path::{Path, PathBuf};

/// Environment variable that names the instance.
pub const INSTANCE_VARIABLE: &str = "CONMON_INSTANCE";
/// Environment variable that names the folder under which each instance has its run folder.
pub const RUN_DIR_VARIABLE: &str = "CONMON_RUN_DIR";
/// The name of an instance that was given none.
pub const DEFAULT_INSTANCE: &str = "default";
/// The folder of run folders where none was given.
pub const DEFAULT_RUN_DIR: &str = "/run/conmon";

/// One of perhaps several instances of ConMon on a host. Socket, pins, state and image names carry its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    name: String,
    run_root: PathBuf,
}

/// Why a text cannot be an instance's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name an instance: use 1 to 32 lower-case letters, digits, `-` and `_`, beginning with a letter or digit"
)]
pub struct InstanceNameError(String);

impl Instance {
    /// The instance of this name whose run folder lies in `run_root`. The name becomes part of file names, of pins
    /// (bpffs refuses dots) and of image names (lower case), hence the narrow alphabet.
    pub fn new(name: impl Into<String>, run_root: impl Into<PathBuf>) -> Result<Self, InstanceNameError> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = (1..=32).contains(&name.len())
            && name.bytes().next().is_some_and(plain)
            && name.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'_');
        if good { Ok(Self { name, run_root: run_root.into() }) } else { Err(InstanceNameError(name)) }
    }

    /// The instance that the environment names: `CONMON_INSTANCE` and `CONMON_RUN_DIR`, or their defaults.
    pub fn from_environment() -> Result<Self, InstanceNameError> {
        let text = |variable| std::env::var(variable).ok().filter(|value| !value.is_empty());
        Self::new(
            text(INSTANCE_VARIABLE).unwrap_or_else(|| DEFAULT_INSTANCE.to_owned()),
            text(RUN_DIR_VARIABLE).unwrap_or_else(|| DEFAULT_RUN_DIR.to_owned()),
        )
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its run folder.
    pub fn run_dir(&self) -> PathBuf {
        self.run_root.join(&self.name)
    }

    /// The folder in which each instance has its run folder.
    pub fn run_root(&self) -> &Path {
        &self.run_root
    }

    /// The Unix socket of the HTTP API.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("conmond.sock")
    }

    /// The file that holds the daemon's process id, in decimal.
    pub fn pid_file(&self) -> PathBuf {
        self.run_dir().join("conmond.pid")
    }

    /// The file a daemon in the background writes its log to.
    pub fn log_file(&self) -> PathBuf {
        self.run_dir().join("conmond.log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_in_the_run_folder() {
        let instance = Instance::new("lab-2_a", "/run/conmon").unwrap();
        assert_eq!(instance.socket(), Path::new("/run/conmon/lab-2_a/conmond.sock"));
        assert_eq!(instance.pid_file(), Path::new("/run/conmon/lab-2_a/conmond.pid"));
        assert_eq!(instance.log_file(), Path::new("/run/conmon/lab-2_a/conmond.log"));
    }

    #[test]
    fn names_that_could_leave_the_folder_or_break_a_pin_are_refused() {
        for name in ["", ".", "..", "a/b", "a.b", "Upper", "-flag", "ü", "a b", "a\0", &"x".repeat(33)] {
            assert_eq!(
                Instance::new(name, "/run/conmon"),
                Err(InstanceNameError(name.to_owned())),
                "{name:?}"
            );
        }
        for name in ["a", "0", "default", &"x".repeat(32)] {
            assert!(Instance::new(name, "/run/conmon").is_ok(), "{name:?}");
        }
    }
}
