//! The command line's grammar.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use conmon::api::{self, EventKind, FlowState, Level};

/// See which container talks to which, how much, and how fast the network answers.
#[derive(Debug, Parser)]
#[command(name = "conmonctl", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// Which ConMon of this host
    #[arg(long, global = true, env = "CONMON_INSTANCE", value_name = "NAME", default_value = "default")]
    pub instance: String,
    /// The daemon's socket, where it is not the instance's
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Environment:
  CONMON_RUN_DIR  folder of the instances' run folders [default: /run/conmon]
  NO_COLOR        no colours in `top`

Exit status: 0 done, 1 failed, 2 wrong usage, 69 conmond cannot be reached";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start conmond and watch this host's containers
    Up(Up),
    /// Stop conmond and remove every trace: taps, monitoring containers, image, state
    Down(Down),
    /// What conmond watches and what it costs
    Status(Print),
    /// Check the host, the engine, the taps and the ledger; say what to do
    Doctor(Print),
    /// Live table of pairs, full screen
    Top(Top),
    /// Who talks to whom
    Pairs(Pairs),
    /// Flow records
    Flows(Flows),
    /// Application containers, and since when each is tapped
    Containers(Containers),
    /// Monitoring containers and the pool
    Monitors(Print),
    /// The newest measurements, as the monitoring functions reported them
    Measurements(Measurements),
    /// What happens to containers, ports, monitors and flows
    Events(Events),
    /// Where every packet was counted
    Ledger(Print),
    /// Becomes conmond in a session of its own; `up --detach` starts this
    #[command(hide = true)]
    Launch {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<std::ffi::OsString>,
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

/// Options of `pairs`.
#[derive(Debug, Args)]
pub struct Pairs {
    #[command(flatten)]
    pub print: Print,
    #[command(flatten)]
    pub ends: Ends,
    /// Group pairs by
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "container")]
    pub level: LevelArg,
    /// Show multicast and link-local traffic too
    #[arg(long)]
    pub all: bool,
}

/// Options of `flows`.
#[derive(Debug, Args)]
pub struct Flows {
    #[command(flatten)]
    pub print: Print,
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
    /// Show multicast and link-local traffic too
    #[arg(long)]
    pub all: bool,
}

/// Options of `containers`.
#[derive(Debug, Args)]
pub struct Containers {
    #[command(flatten)]
    pub print: Print,
    /// Of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}

/// Options of `measurements`.
#[derive(Debug, Args)]
pub struct Measurements {
    #[command(flatten)]
    pub print: Print,
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
    fn unknown_event_kinds_are_refused_with_the_known_ones() {
        assert_eq!(event_kind("port_tapped"), Ok(EventKind::PortTapped));
        assert!(event_kind("nonsense").unwrap_err().contains("container_started, "));
    }
}
