//! `demo`: ConMon at work. Starts two hosts, each with a container engine of its own, and real applications of two tenants,
//! starts conmond on them as a user would, shows who talks to whom, and removes everything at the end, however it ends.
//!
//! With a terminal it runs `conmonctl top` until that is left; without, it prints rows of `conmonctl pairs` for
//! `DEMO_SECONDS` (30). Then the matrix of both hosts, from either. `DEMO_HOSTS=1` has one host, where nothing is configured.

mod tenants;

use anyhow::{Context, Result, bail};
use lab::{Conmond, ConmondOptions, Lab, Meeting, Site, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tenants::Stage;

/// How long rows are printed when nobody says otherwise.
const DEFAULT_SECONDS: u64 = 30;
/// Pause between two prints of the table.
const PRINT_EVERY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let (seconds, hosts) = (seconds()?, hosts()?);
    stop_on_signals()?;
    // Missing executables are told before anything is started.
    for name in ["conmond", "conmonctl", "labgen"] {
        lab::program(name)?;
    }
    let how_many = if hosts == 1 { "one host" } else { "two hosts" };
    say(&format!(
        "ConMon demo: {how_many}, two tenants, real applications. Everything is removed at the end."
    ));
    let lab = Lab::start()?;
    let shown = show(&lab, hosts, seconds);
    if shown.is_err() && !stopped() {
        eprintln!("{}", lab.diagnosis());
    }
    say("removing everything…");
    let removed = lab.remove()?;
    say(&format!("removed: {removed}. Nothing is left."));
    match shown {
        // Somebody interrupted: what was asked for was done.
        Err(_) if stopped() => Ok(()),
        shown => shown,
    }
}

fn show(lab: &Lab, hosts: usize, seconds: Option<Duration>) -> Result<()> {
    let begin = Instant::now();
    let host;
    let mut site;
    let stage = match hosts {
        1 => {
            host = lab.host("demo")?;
            let version = host.docker(&["version", "--format", "{{.Server.Version}}"])?;
            say(&format!(
                "host     a network namespace with its own Docker {version}, {}",
                took(begin.elapsed())
            ));
            Stage::One(&host)
        }
        _ => {
            site = Site::start(lab, &["east", "west"])?;
            let version = site.hosts()[0].docker(&["version", "--format", "{{.Server.Version}}"])?;
            site.start_etcd()?;
            say(&format!(
                "hosts    east and west: network namespaces, each with its own Docker {version}, a cable between, and an etcd, {}",
                took(begin.elapsed())
            ));
            Stage::Two(&site)
        }
    };
    let begin = Instant::now();
    tenants::import(&stage)?;
    say(&format!("images   packed from Debian's packages and imported, {}", took(begin.elapsed())));
    let begin = Instant::now();
    tenants::start(lab, &stage, &|line| {
        say(line);
        go_on()
    })?;
    say(&format!("         all running, {}", took(begin.elapsed())));
    let mut conmonds = Vec::new();
    for (i, host) in stage.hosts().into_iter().enumerate() {
        let (options, how) = match &stage {
            Stage::One(_) => (ConmondOptions::default(), "nothing configured"),
            Stage::Two(site) => {
                (site.options(i + 1, Meeting::Etcd)?, "certificates and the etcd's address configured")
            }
        };
        let conmond = Conmond::start(host, options).context("cannot start conmond")?;
        let ready = took(conmond.ready_took());
        say(&format!("conmond  on {}: `conmonctl up`, {how}; it answered {ready}", host.name()));
        conmonds.push(conmond);
    }
    for conmond in &conmonds {
        let ctl = format!("{} --socket {}", lab::program("conmonctl")?.display(), conmond.socket().display());
        let more = if hosts > 1 { " (or matrix)" } else { "" };
        say(&format!("look     from another terminal, as root: {ctl} top{more}"));
    }
    go_on()?;
    let watched = if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        top(&conmonds[0], seconds).and_then(|()| matrices(&conmonds))
    } else {
        rows(&conmonds[0], seconds.unwrap_or(Duration::from_secs(DEFAULT_SECONDS)))
            .and_then(|()| matrices(&conmonds))
    };
    // Its own way out first, as a user would take it; the lab removes whatever this leaves.
    for conmond in &mut conmonds {
        if let Err(error) = conmond.down() {
            eprintln!("demo: `conmonctl down` failed: {error:#}");
        }
    }
    watched
}

/// The matrix of the whole system, from either side.
fn matrices(conmonds: &[Conmond]) -> Result<()> {
    for conmond in conmonds.iter().filter(|_| conmonds.len() > 1 && !stopped()) {
        say(&format!("\nfrom {}, `conmonctl matrix`:", conmond.host().name()));
        say(conmond.ctl_text(&["matrix"])?.trim_end());
    }
    Ok(())
}

/// The live table, full screen, until it is left, the time is up or a signal comes.
fn top(conmond: &Conmond, seconds: Option<Duration>) -> Result<()> {
    let begin = Instant::now();
    let mut child = conmond.command().arg("top").spawn().context("cannot run `conmonctl top`")?;
    let mut asked: Option<Instant> = None;
    let status = wait_for("end of `conmonctl top`", Duration::MAX, || {
        let due = stopped() || seconds.is_some_and(|seconds| begin.elapsed() >= seconds);
        match asked {
            None if due => {
                // In an orderly way: it has the terminal to restore.
                kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
                asked = Some(Instant::now());
            }
            Some(since) if since.elapsed() > PRINT_EVERY => child.kill()?,
            _ => {}
        }
        Ok(child.try_wait()?)
    })?;
    if asked.is_none() && !stopped() && !status.success() {
        bail!("`conmonctl top` ended with {status}");
    }
    Ok(())
}

/// Plain rows, every few seconds.
fn rows(conmond: &Conmond, seconds: Duration) -> Result<()> {
    conmond.wait_ctl("first pair", Duration::from_secs(20), &["pairs"], |answer| {
        let found = answer["pairs"].as_array().is_some_and(|pairs| !pairs.is_empty());
        (found || stopped()).then_some(())
    })?;
    let begin = Instant::now();
    let mut next = PRINT_EVERY.min(seconds);
    while !stopped() {
        pause_until(begin + next);
        go_on()?;
        say(&format!("\nafter {:.0} s, `conmonctl pairs`:", begin.elapsed().as_secs_f64()));
        say(conmond.ctl_text(&["pairs"])?.trim_end());
        if next >= seconds {
            break;
        }
        next = (next + PRINT_EVERY).min(seconds);
    }
    Ok(())
}

fn pause_until(end: Instant) {
    while !stopped() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// `DEMO_SECONDS`, where it is set.
fn seconds() -> Result<Option<Duration>> {
    let Ok(text) = std::env::var("DEMO_SECONDS") else { return Ok(None) };
    match text.trim().parse::<u32>() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(u64::from(seconds)))),
        _ => bail!("DEMO_SECONDS={text:?}: give whole seconds, at least 1"),
    }
}

/// `DEMO_HOSTS`: two, where nothing else is said.
fn hosts() -> Result<usize> {
    match std::env::var("DEMO_HOSTS").unwrap_or_default().trim() {
        "" | "2" => Ok(2),
        "1" => Ok(1),
        text => bail!("DEMO_HOSTS={text:?}: give 1 or 2"),
    }
}

fn took(time: Duration) -> String {
    format!("in {:.1} s", time.as_secs_f64())
}

/// Prints a line; a reader that has gone away (`make demo | head`) is no reason to leave things behind.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Set by the signals that end a program.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

fn go_on() -> Result<()> {
    if stopped() {
        bail!("interrupted");
    }
    Ok(())
}

/// Turns the signals that end a program into a flag, so that the way out is always through the teardown. Handlers and
/// not a signal mask: programs started here would inherit a mask, and engines could not be ended by SIGTERM.
fn stop_on_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        signal_hook::flag::register(signal, STOP.clone()).context("cannot handle signals")?;
    }
    Ok(())
}
