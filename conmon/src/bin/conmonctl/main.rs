//! `conmonctl`: ConMon's command line. It can do only what the API offers, and start and stop the daemon.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "nothing here is public")]

#[cfg(test)]
#[path = "../../../tests/support/answers.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod answers;
mod args;
mod daemon;
mod format;
mod output;
mod table;
mod top;
mod view;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use conmon::api::{Check, ContainersQuery, DoctorAnswer};
use conmon::client::{Client, ClientError};
use conmon::instance::{DEFAULT_INSTANCE, DEFAULT_RUN_DIR, Instance, RUN_DIR_VARIABLE};

use args::{Cli, Command, Format};
use output::{print, print_lines};

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
            // Where the terminal is gone too there is nobody left to tell.
            let mut stderr = io::stderr().lock();
            let _ = writeln!(stderr, "conmonctl: {}", format::harmless(&format!("{error:#}")));
            if let Some(remedy) = client_error.and_then(ClientError::remedy) {
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
    let client = Client::new(cli.socket.clone().unwrap_or_else(|| instance.socket()));
    match cli.command {
        Command::Launch { command } => daemon::launch(&command),
        Command::Top(options) => top::run(client, options.level.into(), options.all),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the asynchronous runtime")?;
            match command {
                Command::Up(options) => {
                    own_socket_only(&cli.socket)?;
                    runtime.block_on(daemon::up(&instance, &client, &options))
                }
                Command::Down(options) => {
                    own_socket_only(&cli.socket)?;
                    runtime.block_on(daemon::down(&instance, &client, &options))
                }
                command => runtime.block_on(show(&client, command)),
            }
        }
    }
}

fn instance(name: &str) -> anyhow::Result<Instance> {
    let name = if name.is_empty() { DEFAULT_INSTANCE } else { name };
    let root = std::env::var_os(RUN_DIR_VARIABLE).filter(|root| !root.is_empty());
    Ok(Instance::new(name, root.map_or_else(|| PathBuf::from(DEFAULT_RUN_DIR), PathBuf::from))?)
}

/// `up` and `down` act on files of the instance, not on whatever listens on some socket.
fn own_socket_only(socket: &Option<PathBuf>) -> anyhow::Result<()> {
    anyhow::ensure!(socket.is_none(), "--socket says where to ask; `up` and `down` go by --instance");
    Ok(())
}

async fn show(client: &Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Status(options) => {
            let answer = client.status().await?;
            print(options, &answer, |wide| view::status(&answer, wide, jiff::Timestamp::now()))?;
        }
        Command::Pairs(options) => {
            let answer = client.pairs(&options.query()).await?;
            print(options.print, &answer, |wide| view::pairs(&answer, wide, options.all))?;
        }
        Command::Flows(options) => {
            let answer = client.flows(&options.query()).await?;
            print(options.print, &answer, |wide| view::flows(&answer, wide, options.all))?;
        }
        Command::Containers(options) => {
            let answer = client.containers(&ContainersQuery { tenant: options.tenant.clone() }).await?;
            print(options.print, &answer, |wide| view::containers(&answer, wide))?;
        }
        Command::Monitors(options) => {
            let answer = client.monitors().await?;
            print(options, &answer, |wide| view::monitors(&answer, wide))?;
        }
        Command::Measurements(options) => {
            let answer = client.measurements(&options.query()).await?;
            print(options.print, &answer, |wide| view::measurements(&answer, wide))?;
        }
        Command::Ledger(options) => {
            let answer = client.ledger().await?;
            print(options, &answer, |wide| view::ledger(&answer, wide))?;
        }
        Command::Events(options) => {
            let mut events = client.events(&options.query()).await?;
            while let Some(event) = events.next().await? {
                print_lines(&match options.print.output {
                    Format::Json => {
                        serde_json::to_string(&event).context("cannot write an event as JSON")? + "\n"
                    }
                    format => view::event(&event, format == Format::Wide) + "\n",
                })?;
            }
            anyhow::ensure!(!options.follow, "conmond has ended the stream");
        }
        Command::Doctor(options) => return doctor(client, options).await,
        Command::Up(_) | Command::Down(_) | Command::Top(_) | Command::Launch { .. } => {
            anyhow::bail!("this verb prints no data")
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Also answers when conmond does not, for that is the first thing a doctor must find.
async fn doctor(client: &Client, options: args::Print) -> anyhow::Result<ExitCode> {
    let (answer, code) = match client.clone().with_timeout(DOCTOR_TIMEOUT).doctor().await {
        Ok(answer) => {
            let well = answer.checks.iter().all(|check| check.ok)
                && answer.ledger.as_ref().is_none_or(|ledger| ledger.balanced);
            (answer, if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) if error.is_unavailable() => (no_daemon(&error), ExitCode::from(UNAVAILABLE)),
        Err(error) => return Err(error.into()),
    };
    print(options, &answer, |wide| view::doctor(&answer, wide))?;
    Ok(code)
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
        other => (other.to_string(), "see conmond's log".to_owned()),
    };
    let check = Check { name: "daemon".to_owned(), ok: false, detail, remedy: Some(remedy) };
    DoctorAnswer { generated_at: jiff::Timestamp::now(), checks: vec![check], ledger: None }
}
