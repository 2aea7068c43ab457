//! The executable: parses, logs, turns signals into an orderly end, and chooses exit codes. `conmond run` is the
//! controller, `conmond monitor` what runs inside a monitoring container, `conmond clean` removes every trace.
//!
//! Exit codes: 0 fine, 1 failed, 2 wrong command line, 64 wrong configuration.

mod daemon;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};
use conmond::build::Build;
use conmond::config::{Config, ConfigArgs, EXIT_CODE, LogFormat, example, json_schema};

/// This build. The executable owns it, so that another one costs no more than compiling this file.
const BUILD: Build = Build { version: env!("CARGO_PKG_VERSION"), revision: option_env!("CONMON_REVISION") };
static VERSION: LazyLock<String> = LazyLock::new(|| BUILD.to_string());

/// ConMon's daemon: watches the network between the containers of this host.
#[derive(Debug, Parser)]
#[command(name = "conmond", version = VERSION.as_str(), arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

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
