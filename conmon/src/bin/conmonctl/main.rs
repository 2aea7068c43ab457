//! `conmonctl`: ConMon's command line. It can do only what the API offers, start and stop the daemon, and read capture
//! files, for which no daemon is needed.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "nothing here is public")]

mod analyze;
#[cfg(test)]
#[path = "../../../tests/support/answers.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod answers;
mod args;
mod ca;
mod daemon;
mod explain;
mod format;
mod judge;
mod keeper;
mod legs;
mod look;
mod order;
mod output;
#[cfg(test)]
#[path = "../../../tests/support/pty.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod pty;
mod remote;
mod table;
mod tone;
mod top;
mod view;
mod watch;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use conmon::api::{Check, ContainersQuery, DoctorAnswer};
use conmon::client::{Client, ClientError};
use conmon::instance::{DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Instance, RUN_DIR_VARIABLE};
use conmon::manual;

use args::{Cli, Command, Format};
use look::Look;
use output::print_lines;
use tone::Color;

/// `EX_UNAVAILABLE` of sysexits.h.
const UNAVAILABLE: u8 = 69;

/// The checks look at the whole host; they may take longer than a plain answer.
const DOCTOR_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let client_error = error.downcast_ref::<ClientError>();
            let not_found = error.downcast_ref::<explain::NotFound>();
            // Where the terminal is gone too there is nobody left to tell.
            let mut stderr = io::stderr().lock();
            let _ = writeln!(stderr, "conmonctl: {}", format::harmless(&format!("{error:#}")));
            let remedy = client_error.and_then(ClientError::remedy);
            if let Some(remedy) = remedy.or(not_found.map(|error| error.remedy.as_str())) {
                let _ = writeln!(stderr, "  → {}", format::harmless(remedy));
            }
            match client_error {
                Some(error) if error.is_unavailable() => ExitCode::from(UNAVAILABLE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let instance = match instance(&cli.instance) {
        Ok(instance) => instance,
        Err(error) => {
            writeln!(io::stderr(), "conmonctl: {error:#}")?;
            return Ok(ExitCode::from(2));
        }
    };
    match &cli.command {
        // these need no daemon
        Command::Launch { command } => return daemon::launch(command),
        Command::Analyze(options) => return analyze::run(options, cli.color),
        Command::Ca(options) => return ca::run(options, cli.color),
        Command::Completions { shell } => return completions(*shell),
        Command::Man { folder } => return man(folder),
        Command::Up(_) | Command::Down(_) => own_instance_only(&cli)?,
        _ => {}
    }
    let client = remote::client(&cli, &instance)?;
    match cli.command {
        Command::Top(options) => top::run(client, &options, cli.color),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the asynchronous runtime")?;
            match command {
                Command::Up(options) => runtime.block_on(daemon::up(&instance, &client, &options)),
                Command::Down(options) => runtime.block_on(daemon::down(&instance, &client, &options)),
                command => runtime.block_on(show(&client, command, cli.color)),
            }
        }
    }
}

fn completions(shell: manual::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    manual::write_completions(Cli::command(), shell, &mut script).context("cannot write the script")?;
    print_lines(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

fn man(folder: &Path) -> anyhow::Result<ExitCode> {
    manual::write_pages(Cli::command(), "1", &args::MANUAL, folder)
        .with_context(|| format!("cannot write man pages into {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn instance(name: &str) -> anyhow::Result<Instance> {
    let name = if name.is_empty() { DEFAULT_INSTANCE } else { name };
    let root = std::env::var_os(RUN_DIR_VARIABLE).filter(|root| !root.is_empty());
    Ok(Instance::new(name, root.map_or_else(|| PathBuf::from(DEFAULT_RUN_DIR), PathBuf::from))?)
}

/// `up` and `down` act on files and processes of this host's instance, not on whatever listens somewhere.
fn own_instance_only(cli: &Cli) -> anyhow::Result<()> {
    anyhow::ensure!(cli.socket.is_none(), "--socket says where to ask; `up` and `down` go by --instance");
    anyhow::ensure!(
        cli.remote.host.as_deref().is_none_or(str::is_empty),
        "--host (or CONMON_HOST) says whom to ask; `up` and `down` act on this host: leave it out"
    );
    Ok(())
}

async fn show(client: &Client, command: Command, color: Color) -> anyhow::Result<ExitCode> {
    match command {
        Command::Status(options) => {
            let view = |answer: &_, look| view::status(answer, look, jiff::Timestamp::now());
            watch::show(&options, color, async || Ok(client.status().await?), view).await?;
        }
        Command::Pairs(options) => {
            let (query, choice) = (options.query(), options.choice());
            let ask = async || {
                let mut answer = client.pairs(&query).await?;
                if options.show.print.output == Format::Json {
                    choice.apply(&mut answer.pairs);
                }
                Ok(answer)
            };
            watch::show(&options.show, color, ask, |answer, look| view::pairs(answer, look, choice)).await?;
        }
        Command::Matrix(options) => {
            let query = options.query();
            let ask = async || Ok(client.matrix(&query).await?);
            watch::show(&options.show, color, ask, view::matrix).await?;
        }
        Command::Clocks(options) => {
            watch::show(&options, color, async || Ok(client.clocks().await?), view::clocks).await?;
        }
        Command::Explain(options) => explain::run(client, &options, color).await?,
        Command::Flows(options) => {
            let query = options.query();
            let view = |answer: &_, look| view::flows(answer, look, options.all);
            watch::show(&options.show, color, async || Ok(client.flows(&query).await?), view).await?;
        }
        Command::Containers(options) => {
            let query = ContainersQuery { tenant: options.tenant.clone() };
            let ask = async || Ok(client.containers(&query).await?);
            watch::show(&options.show, color, ask, view::containers).await?;
        }
        Command::Monitors(options) => {
            watch::show(&options, color, async || Ok(client.monitors().await?), view::monitors).await?;
        }
        Command::Measurements(options) => {
            let query = options.query();
            let ask = async || Ok(client.measurements(&query).await?);
            watch::show(&options.show, color, ask, view::measurements).await?;
        }
        Command::Ledger(options) => {
            watch::show(&options, color, async || Ok(client.ledger().await?), view::ledger).await?;
        }
        Command::Events(options) => {
            let look = Look::new(&options.print, color);
            let mut events = client.events(&options.query()).await?;
            while let Some(event) = events.next().await? {
                print_lines(&match options.print.output {
                    Format::Json => {
                        serde_json::to_string(&event).context("cannot write an event as JSON")? + "\n"
                    }
                    _ => view::event(&event, look) + "\n",
                })?;
            }
            anyhow::ensure!(!options.follow, "conmond has ended the stream");
        }
        Command::Doctor(options) => return doctor(client, &options, color).await,
        Command::Up(_)
        | Command::Down(_)
        | Command::Top(_)
        | Command::Analyze(_)
        | Command::Ca(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Launch { .. } => anyhow::bail!("this verb prints no data"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Also answers when conmond does not, for that is the first thing a doctor must find.
async fn doctor(client: &Client, options: &args::Show, color: Color) -> anyhow::Result<ExitCode> {
    let client = client.clone().with_timeout(DOCTOR_TIMEOUT);
    let unreachable = std::cell::Cell::new(false);
    let ask = async || match client.doctor().await {
        Ok(answer) => {
            unreachable.set(false);
            Ok(answer)
        }
        Err(error) if error.is_unavailable() => {
            unreachable.set(true);
            Ok(no_daemon(&error))
        }
        Err(error) => Err(error.into()),
    };
    let answer = watch::show(options, color, ask, view::doctor).await?;
    let well = answer.checks.iter().all(|check| check.ok)
        && answer.ledger.as_ref().is_none_or(|ledger| ledger.balanced);
    Ok(match (well, unreachable.get()) {
        (_, true) => ExitCode::from(UNAVAILABLE),
        (true, false) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

fn no_daemon(error: &ClientError) -> DoctorAnswer {
    let start = "start it with `sudo conmonctl up`";
    let (detail, remedy) = match error {
        ClientError::NotRunning { socket } => {
            (format!("conmond is not running: there is no socket at {}", socket.display()), start.to_owned())
        }
        ClientError::NotListening { socket } => {
            (format!("conmond is not running: nobody listens on {}", socket.display()), start.to_owned())
        }
        ClientError::Permission { socket, advice } => {
            (format!("you may not talk to conmond on {}", socket.display()), advice.clone())
        }
        other => (other.to_string(), other.remedy().unwrap_or("see conmond's log").to_owned()),
    };
    let check = Check { name: "daemon".to_owned(), ok: false, detail, remedy: Some(remedy) };
    DoctorAnswer { generated_at: jiff::Timestamp::now(), checks: vec![check], ledger: None }
}
