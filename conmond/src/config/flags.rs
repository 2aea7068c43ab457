//! What the command line says about the configuration.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError, DEFAULT_PATH};

/// Values given on the command line, as texts: they are checked like those of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    pub(super) values: Vec<Override>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) key: String,
    pub(super) flag: String,
    pub(super) value: String,
}

impl Overrides {
    /// `flag` (as the user wrote it, for messages) sets `key` (`tables.flows`). A later one of the same key wins.
    pub fn set(&mut self, key: impl Into<String>, flag: impl Into<String>, value: impl Into<String>) {
        self.values.push(Override { key: key.into(), flag: flag.into(), value: value.into() });
    }
}

/// The flags of every command that needs the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file [default: /etc/conmon/conmond.yaml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this instance, for several on one machine
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// The container engine's socket, in the form of DOCKER_HOST
    #[arg(long, value_name = "ADDRESS")]
    pub engine: Option<String>,
    /// Folder of the instances' run folders
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<String>,
    /// Watch only containers labelled conmon.enable=true
    #[arg(long)]
    pub opt_in: bool,
    /// Loopback address and port that serve /metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<String>,
    /// Address and port that serve the API over TLS
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// What the metrics name: service or container
    #[arg(long, value_name = "LEVEL")]
    pub metrics_level: Option<String>,
    /// Least severe messages in the log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Form of the log: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Any key of the configuration, such as tables.flows=16384; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// The configuration by these flags, this process's environment and the file.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let usual = Path::new(DEFAULT_PATH);
        let file = self.config.as_deref().or_else(|| usual.exists().then_some(usual));
        Config::load(file, std::env::vars_os(), &self.overrides()?)
    }

    /// The values among the flags. The named flags win over `--set`.
    pub fn overrides(&self) -> Result<Overrides, ConfigError> {
        let mut overrides = Overrides::default();
        for text in &self.set {
            let flag = format!("--set {text}");
            match text.split_once('=') {
                Some((key, value)) if !key.is_empty() => overrides.set(key, flag, value),
                _ => return Err(ConfigError::Flag { flag }),
            }
        }
        let named = [
            ("instance", "--instance", &self.instance),
            ("engine", "--engine", &self.engine),
            ("run_dir", "--run-dir", &self.run_dir),
            ("metrics_listen", "--metrics-listen", &self.metrics_listen),
            ("listen", "--listen", &self.listen),
            ("metrics_level", "--metrics-level", &self.metrics_level),
            ("log.level", "--log-level", &self.log_level),
            ("log.format", "--log-format", &self.log_format),
        ];
        for (key, flag, value) in named {
            if let Some(value) = value {
                overrides.set(key, flag, value);
            }
        }
        if self.opt_in {
            overrides.set("opt_in", "--opt-in", "true");
        }
        Ok(overrides)
    }
}
