//! The executable: parses, logs, turns signals into an orderly end, and chooses exit codes. `conmond run` is the
//! controller, `conmond monitor` what runs inside a monitoring container, `conmond clean` removes every trace.
//!
//! Exit codes: 0 fine, 1 failed, 2 wrong command line, 64 wrong configuration.

mod daemon;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use conmon::manual::{self, Section, Shell, after_help};
use conmond::build::Build;
use conmond::config::{Config, ConfigArgs, EXIT_CODE, LogFormat, example, json_schema};

/// This build. The executable owns it, so that another one costs no more than compiling this file.
const BUILD: Build = Build { version: env!("CARGO_PKG_VERSION"), revision: option_env!("CONMON_REVISION") };
static VERSION: LazyLock<String> = LazyLock::new(|| BUILD.to_string());

/// ConMon's daemon: watches the network between the containers of this host.
#[derive(Debug, Parser)]
#[command(
    name = "conmond",
    version = VERSION.as_str(),
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = after_help(&MANUAL)
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What is said below `--help` and on the man page.
const MANUAL: [Section; 3] = [
    Section {
        heading: "Environment",
        entries: &[
            (
                "CONMON_KEY",
                "a key of the configuration in capitals, sections joined by _: CONMON_INSTANCE, CONMON_TABLES_FLOWS",
            ),
            ("DOCKER_HOST", "the container engine's address, where CONMON_ENGINE gives none"),
            ("CONMON_LOG_FILTER", "what is logged, as the `tracing` library filters, in place of log.level"),
        ],
    },
    Section {
        heading: "Files",
        entries: &[
            ("/run/conmon/INSTANCE/conmond.sock", "the HTTP API"),
            (
                "/sys/fs/bpf/conmon/INSTANCE/",
                "pinned maps and links: the kernel goes on counting without conmond",
            ),
        ],
    },
    Section {
        heading: "Exit status",
        entries: &[
            ("0", "done"),
            ("1", "failed"),
            ("2", "wrong usage"),
            ("64", "wrong configuration; nothing was changed"),
        ],
    },
];

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this host's containers until told to stop; what is in the kernel then stays and goes on counting
    Run(ConfigArgs),
    /// Remove everything an instance left: taps, pins, monitoring containers and their image, state
    Clean(ConfigArgs),
    /// Run the monitoring functions of one monitoring container
    Monitor {
        /// The folder with the controller's socket
        #[arg(long, default_value = conmond::runtime::MONITOR_RUN_DIR)]
        dir: PathBuf,
    },
    /// Show the configuration
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Print the script that completes conmond's command line in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages into a folder
    Man {
        /// The folder; it is made if it is not there
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Every value in force, and where it comes from
    Show(Box<ConfigArgs>),
    /// The JSON Schema of the file
    Schema,
    /// A file with every key and its default
    Example,
}

fn main() -> ExitCode {
    // a score of threads, which allocate little and seldom
    tap::heap::share_arenas(2);
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conmond: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => with_config(&args, daemon::run),
        Command::Clean(args) => with_config(&args, daemon::clean),
        Command::Monitor { dir } => conmond::monitor::run::run(&dir).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => {
            manual::write_completions(Cli::command(), shell, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { folder } => {
            manual::write_pages(Cli::command(), "8", &MANUAL, &folder)
                .with_context(|| format!("cannot write man pages into {}", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Config { what: ConfigCommand::Show(args) } => with_config(&args, |config| {
            print!("{}", config.show());
            Ok(())
        }),
        Command::Config { what: ConfigCommand::Schema } => {
            println!("{}", serde_json::to_string_pretty(&json_schema())?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Config { what: ConfigCommand::Example } => {
            print!("{}", example());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn with_config(
    args: &ConfigArgs,
    work: impl FnOnce(&Config) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let config = match args.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("conmond: {error}");
            return Ok(ExitCode::from(EXIT_CODE));
        }
    };
    log(&config);
    work(&config)?;
    Ok(ExitCode::SUCCESS)
}

fn log(config: &Config) {
    use tracing_subscriber::filter::EnvFilter;
    let filter = EnvFilter::try_from_env("CONMON_LOG_FILTER")
        .unwrap_or_else(|_| EnvFilter::new(config.log.level.as_str()));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => subscriber.with_target(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
