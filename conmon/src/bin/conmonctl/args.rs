//! The command line's grammar.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use conmon::api::{self, EventKind, FlowState, Level};
use conmon::manual::{Section, Shell, after_help};

use crate::order::Order;
use crate::tone::Color;
use crate::view::Choice;

/// See which container talks to which, how much, and how fast the network answers.
#[derive(Debug, Parser)]
#[command(name = "conmonctl", version, max_term_width = 100, after_help = after_help(&MANUAL))]
pub struct Cli {
    /// Which ConMon of this host
    #[arg(long, global = true, env = "CONMON_INSTANCE", value_name = "NAME", default_value = "default")]
    pub instance: String,
    /// The daemon's socket, where it is not the instance's
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    #[command(flatten)]
    pub remote: Remote,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Another host's conmond, asked over TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "Another host")]
pub struct Remote {
    /// Ask the conmond there, over TLS
    #[arg(long, global = true, env = "CONMON_HOST", value_name = "https://NAME:PORT")]
    pub host: Option<String>,
    /// Certificate of the CA that signed its certificate
    #[arg(long, global = true, env = "CONMON_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show there, an operator's
    #[arg(long, global = true, env = "CONMON_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, global = true, env = "CONMON_KEY", value_name = "FILE", hide_env_values = true)]
    pub key: Option<PathBuf>,
    /// File with a tenant's token to show there, instead of a certificate
    #[arg(long, global = true, env = "CONMON_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// What is said below `--help` and on the man page.
pub const MANUAL: [Section; 4] = [
    Section {
        heading: "Environment",
        entries: &[
            ("CONMON_INSTANCE", "which ConMon of this host, as --instance"),
            (
                "CONMON_HOST",
                "another host's conmond to ask, as --host; with CONMON_CA, CONMON_CERT, CONMON_KEY, CONMON_TOKEN_FILE",
            ),
            ("CONMON_RUN_DIR", "folder of the instances' run folders [default: /run/conmon]"),
            ("DOCKER_HOST", "the container engine's address, for `up`"),
            ("NO_COLOR", "when set, no colours unless --color=always"),
        ],
    },
    Section {
        heading: "Files",
        entries: &[
            ("/run/conmon/INSTANCE/conmond.sock", "where conmond answers"),
            ("~/.config/conmon/ca.crt, operator.crt, operator.key", "for --host, where others are not named"),
            ("/etc/conmon/ca/", "the certificate authority of `conmonctl ca`"),
        ],
    },
    Section {
        heading: "Exit status",
        entries: &[
            ("0", "done"),
            ("1", "failed; a check of `doctor` failed; no such pair; a damaged capture"),
            ("2", "wrong usage"),
            ("69", "conmond cannot be reached"),
        ],
    },
    Section {
        heading: "Examples",
        entries: &[
            ("conmonctl top", "the live table; ? shows the keys"),
            ("conmonctl explain web db", "all that is known of one pair, in words"),
            ("conmonctl pairs --sort rtt99 --limit 10", "the ten slowest pairs"),
            ("conmonctl analyze a.pcap b.pcapng.zst", "what became of packets between two points"),
            ("conmonctl --host https://web2:9478 top", "the same of another host"),
            ("conmonctl pairs -o json --watch 5", "one JSON document a line, each five seconds"),
        ],
    },
];

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start conmond and watch this host's containers
    Up(Up),
    /// Stop conmond and remove every trace: taps, monitoring containers, image, state
    Down(Down),
    /// What conmond watches and what it costs
    Status(Show),
    /// Check the host, the engine, the taps and the ledger; say what to do
    Doctor(Show),
    /// Live table of pairs, full screen
    Top(Top),
    /// Who talks to whom
    Pairs(Pairs),
    /// Who talks to whom in the whole system, as a heat map; -o wide shows what both ends counted
    Matrix(Matrix),
    /// How the clocks of hosts that talk with this one differ from its own, with hard bounds
    Clocks(Show),
    /// All that is known of one pair, in words
    Explain(Explain),
    /// Flow records
    Flows(Flows),
    /// Application containers, and since when each is tapped
    Containers(Containers),
    /// Monitoring containers and the pool
    Monitors(Show),
    /// The newest measurements, as the monitoring functions reported them
    Measurements(Measurements),
    /// What happens to containers, ports, monitors and flows
    Events(Events),
    /// Where every packet was counted
    Ledger(Show),
    /// Read capture files: who talks to whom, round trips; with two, one-way delay and loss between their points
    Analyze(Analyze),
    /// Make certificates and tokens for asking over the network: a small certificate authority
    Ca(CaOptions),
    /// Print the script that completes conmonctl's command line in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages into a folder
    Man {
        /// The folder; it is made if it is not there
        folder: PathBuf,
    },
    /// Becomes conmond in a session of its own; `up --detach` starts this
    #[command(hide = true)]
    Launch {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

/// Options of `ca`.
#[derive(Debug, Args)]
pub struct CaOptions {
    /// The CA's folder
    #[arg(long, global = true, value_name = "DIR", default_value = "/etc/conmon/ca")]
    pub dir: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: CaCommand,
}

/// What `ca` does.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make the CA itself, once
    Init {
        /// What it is called; some digits are added
        #[arg(long, value_name = "NAME", default_value = "ConMon CA")]
        name: String,
        /// How long it is good
        #[arg(long, value_name = "DAYS", default_value_t = conmon::ca::CA_DAYS)]
        days: u32,
        /// In place of one that is there: what that one signed is worthless then
        #[arg(long)]
        force: bool,
    },
    /// Make key and certificate of a host
    Host {
        /// The host's name, as `host_name` in its configuration or `uname -n`
        name: String,
        /// Another name or address at which it is asked for; may be repeated
        #[arg(long, value_name = "NAME_OR_ADDRESS")]
        address: Vec<String>,
        /// How long it is good
        #[arg(long, value_name = "DAYS", default_value_t = conmon::ca::HOST_DAYS)]
        days: u32,
        /// In place of the one that is there, for the same addresses if none are given
        #[arg(long)]
        force: bool,
    },
    /// Make key and certificate of somebody who may see everything on every host
    Operator {
        /// Who it is
        name: String,
        /// How long it is good
        #[arg(long, value_name = "DAYS", default_value_t = conmon::ca::OPERATOR_DAYS)]
        days: u32,
        /// In place of the one that is there
        #[arg(long)]
        force: bool,
    },
    /// Make a token for somebody who may see one tenant's rows
    TenantToken {
        /// The tenant, as the column TENANT of `conmonctl containers -o wide` has it
        tenant: String,
    },
    /// What the CA has made, or what stands in these certificates
    Show {
        /// Certificates, PEM
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        print: Print,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns that fit most terminals
    Table,
    /// All columns
    Wide,
    /// The API's own types, base units
    Json,
}

/// Options of every verb that prints data.
#[derive(Debug, Clone, Copy, Args)]
pub struct Print {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// Options of every verb that prints a table.
#[derive(Debug, Clone, Copy, Args)]
pub struct Show {
    #[command(flatten)]
    pub print: Print,
    /// Again and again, each two seconds or as often as said, until interrupted
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "2",
        value_parser = period
    )]
    pub watch: Option<Duration>,
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Run in the background; return as soon as conmond answers
    #[arg(long)]
    pub detach: bool,
    /// The container engine's address [default: DOCKER_HOST, else Docker's usual socket]
    #[arg(long, value_name = "ADDRESS")]
    pub engine: Option<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Serve Prometheus metrics on this TCP address too
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<std::net::SocketAddr>,
    /// How many monitoring containers wait, started, for new tenants
    #[arg(long, value_name = "N")]
    pub pool: Option<u32>,
    /// Watch only containers with the label conmon.enable=true
    #[arg(long)]
    pub opt_in: bool,
    /// Further arguments for `conmond run`
    #[arg(last = true, value_name = "ARGUMENT")]
    pub more: Vec<std::ffi::OsString>,
}

/// Options of `down`.
#[derive(Debug, Args)]
pub struct Down {
    /// How long conmond may take to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u32,
    /// The container engine's address, where conmond no longer runs to tell it
    #[arg(long, value_name = "ADDRESS")]
    pub engine: Option<String>,
    /// Configuration file that conmond was started with
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Options of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Group pairs by
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "container")]
    pub level: LevelArg,
    /// Show multicast and link-local traffic too
    #[arg(long)]
    pub all: bool,
    /// Order by this column to begin with: numbers largest first, words from A to Z
    #[arg(long, value_name = "COLUMN", default_value = "rate")]
    pub sort: Order,
}

/// Which ends.
#[derive(Debug, Args)]
pub struct Ends {
    /// Opened by this endpoint: name, address, or beginning of the id
    #[arg(long, value_name = "ENDPOINT")]
    pub src: Option<String>,
    /// Towards this endpoint: name, address, or beginning of the id
    #[arg(long, value_name = "ENDPOINT")]
    pub dst: Option<String>,
    /// With an end in this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}

/// Options of `matrix`.
#[derive(Debug, Args)]
pub struct Matrix {
    #[command(flatten)]
    pub show: Show,
    /// With an end in this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Group pairs by
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "container")]
    pub level: LevelArg,
}

impl Matrix {
    /// What to ask for.
    pub fn query(&self) -> api::MatrixQuery {
        let level = Some(self.level.into()).filter(|level| *level != Level::default());
        api::MatrixQuery { tenant: self.tenant.clone(), level }
    }
}

/// Options of `pairs`.
#[derive(Debug, Args)]
pub struct Pairs {
    #[command(flatten)]
    pub show: Show,
    #[command(flatten)]
    pub ends: Ends,
    /// Group pairs by
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "container")]
    pub level: LevelArg,
    /// Show multicast and link-local traffic too
    #[arg(long)]
    pub all: bool,
    /// Order by this column: numbers largest first, words from A to Z
    #[arg(long, value_name = "COLUMN", default_value = "bytes")]
    pub sort: Order,
    /// The other way round
    #[arg(long)]
    pub reverse: bool,
    /// At most so many, the first
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Options of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The pair: SRC DST, or one of SRC→DST, SRC->DST, SRC:DST. Each is a name, an address or the beginning of an id
    #[arg(value_name = "PAIR", num_args = 1..=2, required = true)]
    pub pair: Vec<String>,
    #[command(flatten)]
    pub show: Show,
}

/// Options of `flows`.
#[derive(Debug, Args)]
pub struct Flows {
    #[command(flatten)]
    pub show: Show,
    #[command(flatten)]
    pub ends: Ends,
    /// Of this protocol (tcp, udp, icmp, …)
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// Only open or only closed records
    #[arg(long, value_enum)]
    pub state: Option<StateArg>,
    /// At most so many, those with most bytes
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u32,
    /// Show multicast and link-local traffic too, and what both ends' ports have of one flow
    #[arg(long)]
    pub all: bool,
}

/// Options of `containers`.
#[derive(Debug, Args)]
pub struct Containers {
    #[command(flatten)]
    pub show: Show,
    /// Of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}

/// Options of `measurements`.
#[derive(Debug, Args)]
pub struct Measurements {
    #[command(flatten)]
    pub show: Show,
    #[command(flatten)]
    pub ends: Ends,
    /// Of this metric
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u32,
}

/// Options of `events`.
#[derive(Debug, Args)]
pub struct Events {
    #[command(flatten)]
    pub print: Print,
    /// Go on with what happens from now
    #[arg(short, long)]
    pub follow: bool,
    /// Only this kind
    #[arg(long, value_name = "KIND", value_parser = event_kind)]
    pub kind: Option<EventKind>,
    /// Only this tenant's
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}

/// Options of `analyze`.
#[derive(Debug, Args)]
pub struct Analyze {
    /// One capture, or two of the same traffic at two points: pcap or pcapng, gzip or zstd; `-` is the standard input
    #[arg(value_name = "CAPTURE", num_args = 1..=2, required = true)]
    pub captures: Vec<PathBuf>,
    /// Both captures' times are of one clock, as on one host
    #[arg(long)]
    pub same_clock: bool,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: AnalyzeFormat,
    /// Write that into a file instead of printing it
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Also write each round trip, retransmission and reordering into a file, as comma-separated values
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// At most so many pairs, those with most bytes
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// No progress on the terminal
    #[arg(short, long)]
    pub quiet: bool,
}

/// How to print an analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnalyzeFormat {
    /// Columns that fit most terminals
    Table,
    /// All columns
    Wide,
    /// All that was found, base units
    Json,
    /// One line a pair, base units
    Csv,
    /// The same as a Parquet file, with its schema's version in the footer
    Parquet,
    /// A page with plots, which opens without a network
    Html,
}

/// [`Level`] as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum LevelArg {
    Container,
    Service,
    Host,
    Tenant,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Container => Self::Container,
            LevelArg::Service => Self::Service,
            LevelArg::Host => Self::Host,
            LevelArg::Tenant => Self::Tenant,
        }
    }
}

/// [`FlowState`] as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub enum StateArg {
    Active,
    Ended,
}

impl From<StateArg> for FlowState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Active => Self::Active,
            StateArg::Ended => Self::Ended,
        }
    }
}

impl Pairs {
    /// The request this asks for.
    pub fn query(&self) -> api::PairsQuery {
        let Ends { src, dst, tenant } = &self.ends;
        let level = Some(self.level.into()).filter(|level| *level != Level::default());
        api::PairsQuery {
            src: src.clone(),
            dst: dst.clone(),
            tenant: tenant.clone(),
            level,
            histograms: None,
        }
    }

    /// Which rows this asks for, and in which order.
    pub fn choice(&self) -> Choice {
        Choice { all: self.all, sort: self.sort, reverse: self.reverse, limit: self.limit }
    }
}

impl Flows {
    /// The request this asks for.
    pub fn query(&self) -> api::FlowsQuery {
        let Ends { src, dst, tenant } = &self.ends;
        api::FlowsQuery {
            src: src.clone(),
            dst: dst.clone(),
            tenant: tenant.clone(),
            protocol: self.protocol.as_deref().map(str::to_ascii_lowercase),
            state: self.state.map(FlowState::from),
            observed_at: None,
            limit: Some(self.limit),
        }
    }
}

impl Measurements {
    /// The request this asks for.
    pub fn query(&self) -> api::MeasurementsQuery {
        let Ends { src, dst, tenant } = &self.ends;
        api::MeasurementsQuery {
            metric: self.metric.clone(),
            src: src.clone(),
            dst: dst.clone(),
            tenant: tenant.clone(),
            limit: Some(self.limit),
        }
    }
}

impl Events {
    /// The request this asks for.
    pub fn query(&self) -> api::EventsQuery {
        api::EventsQuery { follow: self.follow.then_some(true), kind: self.kind, tenant: self.tenant.clone() }
    }
}

/// Seconds, from a tenth to a day.
fn period(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, from 0.1 to 86400".to_owned()),
    }
}

fn event_kind(text: &str) -> Result<EventKind, String> {
    EventKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let known: Vec<&str> = EventKind::ALL.into_iter().map(EventKind::as_str).collect();
        format!("kinds are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn filters_become_the_request() {
        let cli = Cli::try_parse_from([
            "conmonctl",
            "flows",
            "--src",
            "web",
            "--protocol",
            "TCP",
            "--state",
            "active",
            "--limit",
            "5",
        ])
        .expect("parses");
        let Command::Flows(flows) = cli.command else { panic!("not flows") };
        let query = flows.query();
        assert_eq!(query.src.as_deref(), Some("web"));
        assert_eq!(query.protocol.as_deref(), Some("tcp"));
        assert_eq!(query.state, Some(FlowState::Active));
        assert_eq!(query.limit, Some(5));
    }

    #[test]
    fn watching_takes_seconds_or_none() {
        let watch = |line: &[&str]| match Cli::try_parse_from(line).map(|cli| cli.command) {
            Ok(Command::Status(show)) => Ok(show.watch.map(|every| every.as_secs_f64())),
            Ok(_) => panic!("not status"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(watch(&["conmonctl", "status"]), Ok(None));
        assert_eq!(watch(&["conmonctl", "status", "--watch"]), Ok(Some(2.0)));
        assert_eq!(watch(&["conmonctl", "status", "-w", "0.5", "-o", "json"]), Ok(Some(0.5)));
        assert_eq!(watch(&["conmonctl", "status", "--watch", "-o", "wide"]), Ok(Some(2.0)));
        for wrong in ["0", "-1", "x", "inf", "NaN", "1e9"] {
            let error = watch(&["conmonctl", "status", &format!("--watch={wrong}")]).unwrap_err();
            assert!(error.contains("from 0.1 to 86400"), "{error}");
        }
    }

    #[test]
    fn unknown_event_kinds_are_refused_with_the_known_ones() {
        assert_eq!(event_kind("port_tapped"), Ok(EventKind::PortTapped));
        assert!(event_kind("nonsense").unwrap_err().contains("container_started, "));
    }
}
