//! The daemon's configuration: one YAML file of which every key has a default, with environment and command line on
//! top. Everything is checked before the daemon touches anything, and each value knows where it came from.
//!
//! Reads the one file it is told to; has no other effect. The keys, their types, bounds and meanings are those of the
//! JSON Schema made from [`Config`], so what the schema says and what is accepted cannot differ.

mod flags;
mod layers;
mod prefix;
mod registry;
mod schema;
mod show;
pub(crate) mod suggest;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use conmon::instance::{DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Instance};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::TlsFiles;

pub use flags::{ConfigArgs, Overrides};
pub use prefix::{Prefix, PrefixError};
pub use registry::{EtcdConfig, GossipConfig, RegistryKind};
pub use schema::{example, json_schema};

/// Where the file lies when none is named; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/conmon/conmond.yaml";
/// Exit code of a daemon whose configuration is wrong (`EX_USAGE` of sysexits.h).
pub const EXIT_CODE: u8 = 64;

/// How the daemon shall work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "conmond.yaml")]
pub struct Config {
    /// Name of this instance. Socket, pins, state and image names carry it, so several can run on one machine.
    pub instance: String,
    /// The container engine's socket, in the form of DOCKER_HOST. When it is not given and Docker's is not there, Podman's
    /// (/run/podman/podman.sock) is taken.
    pub engine: String,
    /// Folder under which each instance has its run folder.
    #[schemars(with = "String")]
    pub run_dir: PathBuf,
    /// Watch only containers labelled `conmon.enable=true`, instead of all that do not opt out.
    pub opt_in: bool,
    /// Started monitoring containers that wait for a tenant.
    #[schemars(range(min = 0, max = 64))]
    pub pool: u32,
    /// Loopback address and port that serve /metrics over plain HTTP, for example 127.0.0.1:9477; null serves it on the
    /// Unix socket alone.
    #[schemars(with = "Option<String>", extend("format" = "socket-address"))]
    pub metrics_listen: Option<SocketAddr>,
    /// Address and port that serve the whole API over TLS, to other hosts too, for example 0.0.0.0:9478; null does without.
    /// Who asks needs a certificate of the CA below or a tenant's token; docs/security.md.
    #[schemars(with = "Option<String>", extend("format" = "socket-address"))]
    pub listen: Option<SocketAddr>,
    /// Keys and certificates for `listen` and for asking other hosts, as `conmonctl ca` makes them. Files are read again
    /// when they change.
    pub tls: TlsKeys,
    /// Whether the metrics name services or single containers. Containers make many series.
    pub metrics_level: MetricsLevel,
    /// Most pairs that get series of their own in the metrics; the rest is counted under `other`.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_series: u32,
    /// How the programs are attached to a port.
    pub tap: TapMode,
    /// Sizes of the kernel's tables; each tenant has a set of them.
    pub tables: Tables,
    /// When flows and pairs are over.
    pub timeouts: Timeouts,
    /// Time from one reading of the tables to the next, milliseconds.
    #[schemars(range(min = 10, max = 60_000))]
    pub scan_interval_ms: u32,
    /// What one monitoring container may use.
    pub monitor: MonitorLimits,
    /// Names for addresses outside, such as [{name: office, prefix: 192.0.2.0/24}]; the longest prefix that holds an
    /// address names it.
    pub external_prefixes: Vec<ExternalPrefix>,
    /// How long a pair is shown after its last packet when its containers are gone, seconds.
    #[schemars(range(min = 0, max = 2_592_000))]
    pub retention_seconds: u64,
    /// How hosts know of each other's containers.
    pub registry: RegistryKind,
    /// The etcd of `registry: etcd`.
    pub etcd: EtcdConfig,
    /// The gossip of `registry: gossip`.
    pub gossip: GossipConfig,
    /// The daemon's log, on standard error.
    pub log: Log,
    /// Name of this host in the answers; null takes the system's.
    pub host_name: Option<String>,
    #[serde(skip)]
    #[schemars(skip)]
    origins: BTreeMap<String, Origin>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: DEFAULT_INSTANCE.to_owned(),
            engine: "unix:///var/run/docker.sock".to_owned(),
            run_dir: PathBuf::from(DEFAULT_RUN_DIR),
            opt_in: false,
            pool: 2,
            metrics_listen: None,
            listen: None,
            tls: TlsKeys::default(),
            metrics_level: MetricsLevel::Service,
            max_series: 1000,
            tap: TapMode::Auto,
            tables: Tables::default(),
            timeouts: Timeouts::default(),
            scan_interval_ms: 1000,
            monitor: MonitorLimits::default(),
            external_prefixes: Vec::new(),
            retention_seconds: 900,
            registry: RegistryKind::Embedded,
            etcd: EtcdConfig::default(),
            gossip: GossipConfig::default(),
            log: Log::default(),
            host_name: None,
            origins: BTreeMap::new(),
        }
    }
}

/// Where keys and certificates lie, PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsKeys {
    /// This host's certificate. The host that it names must be called as this one (`host_name`).
    #[schemars(with = "String")]
    pub certificate: PathBuf,
    /// Its private key, for root alone.
    #[schemars(with = "String")]
    pub key: PathBuf,
    /// Certificates of the CAs that sign hosts and operators.
    #[schemars(with = "String")]
    pub ca: PathBuf,
    /// Tenants' tokens, a line each, as `conmonctl ca tenant-token` makes them; null where tenants have none.
    #[schemars(with = "Option<String>")]
    pub tokens: Option<PathBuf>,
}

impl Default for TlsKeys {
    fn default() -> Self {
        Self {
            certificate: PathBuf::from("/etc/conmon/tls/host.crt"),
            key: PathBuf::from("/etc/conmon/tls/host.key"),
            ca: PathBuf::from("/etc/conmon/tls/ca.crt"),
            tokens: None,
        }
    }
}

impl From<&TlsKeys> for TlsFiles {
    fn from(keys: &TlsKeys) -> Self {
        let TlsKeys { certificate, key, ca, tokens } = keys.clone();
        Self { certificate, key, ca, tokens }
    }
}

/// What the labels `src` and `dst` of the metrics name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricsLevel {
    /// Services, and containers that belong to none.
    #[default]
    Service,
    /// Single containers.
    Container,
}

/// How the programs are attached to a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TapMode {
    /// By TCX, or by clsact on kernels before 6.6.
    #[default]
    Auto,
    /// By TCX only.
    Tcx,
    /// By clsact only.
    Clsact,
}

/// Sizes of one set of the kernel's tables, in records. What a tenant's set begins with is taken at once; flows, pairs and
/// histograms grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tables {
    /// Flow records to begin with, 196 bytes each; the table grows when it needs to. A power of two.
    #[schemars(range(min = 256, max = 4_194_304), extend("x-power-of-two" = true))]
    pub flows: u32,
    /// Flow records that the table grows to at most (no less than `flows`); what finds no room then is counted in its pair. A
    /// power of two.
    #[schemars(range(min = 256, max = 4_194_304), extend("x-power-of-two" = true))]
    pub max_flows: u32,
    /// A table that had more room than needed for so long is cut to five quarters of the records that were in use, seconds; then not for
    /// ten times as long.
    #[schemars(range(min = 1, max = 86_400))]
    pub calm_seconds: u32,
    /// Pair records to begin with, 192 bytes each; the table is doubled when it is half full. A power of two.
    #[schemars(range(min = 64, max = 1_048_576), extend("x-power-of-two" = true))]
    pub pairs: u32,
    /// Pair records that the table grows to at most (no less than `pairs`, no more than 64 times that); what finds none then is in no
    /// pair. A power of two.
    #[schemars(range(min = 64, max = 1_048_576), extend("x-power-of-two" = true))]
    pub max_pairs: u32,
    /// Port records, 256 bytes each. A power of two.
    #[schemars(range(min = 16, max = 65_536), extend("x-power-of-two" = true))]
    pub ports: u32,
    /// Delay histograms to begin with, 1,664 bytes each; a pair over TCP takes up to four. Doubled when half of them are taken. A power of
    /// two.
    #[schemars(range(min = 16, max = 1_048_576), extend("x-power-of-two" = true))]
    pub hists: u32,
    /// Histograms that there are at most (no less than `hists`, no more than 64 times that); delays that find none then are lost. A power
    /// of two.
    #[schemars(range(min = 16, max = 1_048_576), extend("x-power-of-two" = true))]
    pub max_hists: u32,
    /// Ring for flow events, bytes. A power of two.
    #[schemars(range(min = 4096, max = 268_435_456), extend("x-power-of-two" = true))]
    pub ring_bytes: u32,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            flows: 4096,
            max_flows: 524_288,
            calm_seconds: 60,
            pairs: 4096,
            max_pairs: 32_768,
            ports: 2048,
            hists: 1024,
            max_hists: 16_384,
            ring_bytes: 256 << 10,
        }
    }
}

/// When flows and pairs are over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A flow without a packet for so long is over, seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_seconds: u32,
    /// A flow that goes on is recorded anew after so long, seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub active_seconds: u32,
    /// A TCP flow that was closed keeps its record for so long, for late packets, milliseconds.
    #[schemars(range(min = 0, max = 60_000))]
    pub end_linger_ms: u32,
    /// A pair without a flow and without a packet for so long may give up its record, seconds.
    #[schemars(range(min = 1, max = 604_800))]
    pub pair_idle_seconds: u32,
    /// A tenant's tables and monitoring container outlive its last container for so long, seconds.
    #[schemars(range(min = 0, max = 86_400))]
    pub tenant_linger_seconds: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle_seconds: 30,
            active_seconds: 60,
            end_linger_ms: 2000,
            pair_idle_seconds: 600,
            tenant_linger_seconds: 60,
        }
    }
}

/// What one monitoring container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MonitorLimits {
    /// Memory, bytes.
    #[schemars(range(min = 16_777_216, max = 1_099_511_627_776u64))]
    pub memory_bytes: u64,
    /// Processor time, thousandths of one CPU.
    #[schemars(range(min = 10, max = 1_024_000))]
    pub cpu_millicores: u64,
    /// Processes and threads.
    #[schemars(range(min = 4, max = 4096))]
    pub pids: u32,
}

impl Default for MonitorLimits {
    fn default() -> Self {
        Self { memory_bytes: 128 << 20, cpu_millicores: 200, pids: 32 }
    }
}

/// A name for addresses that belong to no container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalPrefix {
    /// What peers with such an address are called.
    pub name: String,
    /// The addresses, for example 192.0.2.0/24 or 2001:db8::/32.
    #[schemars(with = "String", extend("format" = "address-prefix"))]
    pub prefix: Prefix,
}

/// The daemon's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least severe messages that are written.
    pub level: LogLevel,
    /// How they are written.
    pub format: LogFormat,
}

/// Severity of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The word, as the filter of `tracing-subscriber` has it too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Form of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It was not given.
    Default,
    /// The file.
    File {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
    },
    /// This environment variable.
    Variable(String),
    /// This flag of the command line.
    Flag(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far larger than a configuration can be.
    #[error("{} has more than {limit_bytes} bytes: it is no configuration of conmond", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// The file is not YAML.
    #[error("{at}: not valid YAML: {reason}")]
    Syntax {
        /// File, line and column.
        at: Origin,
        /// What the parser said.
        reason: String,
    },
    /// There is no such key.
    #[error("{at}: there is no key `{key}`{}", suggest::sentence(suggestion.as_deref()))]
    UnknownKey {
        /// Where it stands.
        at: Origin,
        /// The key, with the sections it stands in.
        key: String,
        /// What may have been meant.
        suggestion: Option<String>,
    },
    /// A value that the key cannot have.
    #[error("{at}: `{key}` cannot be {value}: {reason}")]
    Value {
        /// Where it was given.
        at: Origin,
        /// The key, with the sections it stands in.
        key: String,
        /// The value.
        value: String,
        /// What it must be, a sentence without a full stop.
        reason: String,
    },
    /// A flag that sets no key.
    #[error("{flag}: write KEY=VALUE, such as tables.flows=16384")]
    Flag {
        /// The flag and what followed it.
        flag: String,
    },
    /// What passes each check and yet is no configuration.
    #[error("the configuration cannot be used: {source}")]
    Whole {
        /// What does not fit.
        source: serde_json::Error,
    },
}

impl ConfigError {
    /// The exit code of a daemon that ends for this.
    pub fn exit_code(&self) -> u8 {
        EXIT_CODE
    }
}

impl Config {
    /// Puts defaults, file, environment and flags together, each over the ones before, and checks the whole.
    ///
    /// Variables are `CONMON_` and the key in capitals, sections joined by `_` (`CONMON_TABLES_FLOWS`); `DOCKER_HOST`
    /// stands for `CONMON_ENGINE`. An empty variable counts as absent.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &Overrides,
    ) -> Result<Self, ConfigError> {
        let schema = schema::keys();
        let mut settings = layers::Settings::default();
        if let Some(path) = path {
            settings.read_file(path, &schema)?;
        }
        settings.read_environment(env, &schema)?;
        settings.read_flags(flags, &schema)?;
        let mut config = settings.assemble()?;
        config.check()?;
        config.origins.retain(|_, origin| *origin != Origin::Default);
        Ok(config)
    }

    /// Where the value of a key (`tables.flows`) came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// The container engine's address, none when nobody gave one: the usual sockets are looked for then.
    pub fn engine_asked_for(&self) -> Option<&str> {
        (*self.origin("engine") != Origin::Default).then_some(self.engine.as_str())
    }

    /// All values as YAML, each with its origin in a comment.
    pub fn show(&self) -> String {
        show::show(self)
    }

    /// Checks what concerns the meaning of a value or several of them together; types and bounds are the schema's.
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, value: String, reason: String| {
            Err(ConfigError::Value { at: self.origin(key).clone(), key: key.to_owned(), value, reason })
        };
        if let Err(error) = Instance::new(self.instance.as_str(), self.run_dir.as_path()) {
            return refuse("instance", format!("`{}`", self.instance), error.to_string());
        }
        if !self.run_dir.is_absolute() {
            let value = format!("`{}`", self.run_dir.display());
            return refuse("run_dir", value, "give an absolute path".to_owned());
        }
        if !self.engine.strip_prefix("unix://").unwrap_or(&self.engine).starts_with('/') {
            let reason = "ConMon taps this host's own links and needs its engine's Unix socket: give unix:// and an \
                          absolute path, such as unix:///var/run/docker.sock";
            return refuse("engine", format!("`{}`", self.engine), reason.to_owned());
        }
        if let Some(address) = self.metrics_listen.filter(|address| !address.ip().is_loopback()) {
            let reason = format!(
                "what is served there is not encrypted; listen on 127.0.0.1:{}, or use `listen`, which serves /metrics to other \
                 hosts over TLS",
                address.port()
            );
            return refuse("metrics_listen", format!("`{address}`"), reason);
        }
        let TlsKeys { certificate, key, ca, tokens } = &self.tls;
        let files = [
            ("certificate", Some(certificate)),
            ("key", Some(key)),
            ("ca", Some(ca)),
            ("tokens", tokens.as_ref()),
        ];
        for (name, path) in files {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                let value = format!("`{}`", path.display());
                return refuse(&format!("tls.{name}"), value, "give an absolute path".to_owned());
            }
        }
        if let Some(name) = self.host_name.as_ref().filter(|name| !is_name(name)) {
            return refuse("host_name", format!("`{name}`"), NAME_RULE.to_owned());
        }
        if let Err((key, value, reason)) = registry::check(self) {
            return refuse(key, value, reason);
        }
        for (i, one) in self.external_prefixes.iter().enumerate() {
            if !is_name(&one.name) {
                return refuse("external_prefixes", format!("`{}`", one.name), NAME_RULE.to_owned());
            }
            if self.external_prefixes.iter().take(i).any(|earlier| earlier.prefix == one.prefix) {
                let reason = "it is there twice; give each prefix one name".to_owned();
                return refuse("external_prefixes", format!("`{}`", one.prefix), reason);
            }
        }
        Ok(())
    }
}

const NAME_RULE: &str = "give 1 to 253 characters without spaces and control characters";

fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests;
