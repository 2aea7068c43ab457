//! Starting and stopping conmond. Starting is becoming it, or starting it in a session of its own; stopping is a signal
//! to a process that was made sure of, and then conmond's own cleaning.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use conmon::api::HealthState;
use conmon::client::Client;
use conmon::instance::{DEFAULT_INSTANCE, INSTANCE_VARIABLE, Instance};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args::{Down, Up};
use crate::keeper::{Keeper, ends_with_us};
use crate::output::print_lines;

/// How long a conmond in the background may take until it answers: adopting a thousand containers takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a starting conmond is asked.
const START_POLL: Duration = Duration::from_millis(50);
/// What is started again when it ends is back by then: the unit file has systemd wait for a second.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// Starts conmond: becomes it, or with `--detach` starts it in the background and waits until it answers.
pub async fn up(instance: &Instance, client: &Client, options: &Up) -> anyhow::Result<ExitCode> {
    if let Ok(health) = client.clone().with_timeout(Duration::from_secs(2)).health().await {
        bail!(
            "conmond is already running (instance {}, version {}): see `conmonctl status`, stop it with `sudo conmonctl down`",
            health.instance,
            health.version
        );
    }
    let program = conmond()?;
    let arguments = run_arguments(instance, options);
    if options.detach {
        return detached(instance, client, &program, &arguments).await;
    }
    let error = Command::new(&program).args(&arguments).exec();
    Err(error).with_context(|| format!("cannot execute {}", program.display()))
}

fn run_arguments(instance: &Instance, options: &Up) -> Vec<OsString> {
    let mut arguments = vec!["run".into()];
    arguments.extend(place(instance));
    let mut option = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            arguments.extend([name.into(), value]);
        }
    };
    option("--engine", options.engine.clone().map(OsString::from));
    option("--config", options.config.clone().map(PathBuf::into_os_string));
    option("--metrics-listen", options.metrics_listen.map(|address| address.to_string().into()));
    option("--set", options.pool.map(|number| format!("pool={number}").into()));
    if options.opt_in {
        arguments.push("--opt-in".into());
    }
    arguments.extend(options.more.iter().cloned());
    arguments
}

/// Where conmonctl looks for this instance; a configuration file that says otherwise does not part the two.
fn place(instance: &Instance) -> [OsString; 4] {
    ["--instance".into(), instance.name().into(), "--run-dir".into(), instance.run_root().into()]
}

async fn detached(
    instance: &Instance,
    client: &Client,
    program: &Path,
    arguments: &[OsString],
) -> anyhow::Result<ExitCode> {
    let log_file = instance.log_file();
    fs::DirBuilder::new().recursive(true).mode(0o755).create(instance.run_dir()).with_context(|| {
        format!(
            "cannot create the run folder {} (conmond needs root: use sudo)",
            instance.run_dir().display()
        )
    })?;
    let log =
        OpenOptions::new().append(true).create(true).mode(0o640).open(&log_file).with_context(|| {
            format!("cannot write the log {} (conmond needs root: use sudo)", log_file.display())
        })?;
    let log_begin = log.metadata().map(|metadata| metadata.len()).unwrap_or(0);

    let me = std::env::current_exe().context("cannot find the own executable")?;
    let mut child = Command::new(me)
        .args([OsStr::new("launch"), OsStr::new("--"), program.as_os_str()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot duplicate the log's descriptor")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;

    let client = client.clone().with_timeout(Duration::from_secs(2));
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for conmond")? {
            let said = tail(&log_file, log_begin).unwrap_or_default();
            bail!("conmond ended at once ({status}); its log, {}, says:\n{said}", log_file.display());
        }
        let answer = client.health().await;
        if answer.as_ref().is_ok_and(|health| health.status != HealthState::Starting) {
            print_lines(&format!("conmond is running, pid {}, log {}\n", child.id(), log_file.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            let seconds = START_TIMEOUT.as_secs();
            match answer {
                Ok(_) => bail!(
                    "conmond (pid {}) answers, but still says after {seconds} s that it is starting: see {}",
                    child.id(),
                    log_file.display()
                ),
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "conmond (pid {}) does not answer after {seconds} s: see {}, stop it with `sudo conmonctl down`",
                            child.id(),
                            log_file.display()
                        )
                    });
                }
            }
        }
        tokio::time::sleep(START_POLL).await;
    }
}

/// The last lines that were written to the log from `begin` on.
fn tail(log: &Path, begin: u64) -> io::Result<String> {
    const ENOUGH_BYTES: u64 = 4096;
    let mut file = File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(end.saturating_sub(ENOUGH_BYTES))))?;
    let mut text = Vec::new();
    file.take(ENOUGH_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .map(|line| format!("  {}\n", crate::format::harmless(line)))
        .collect())
}

/// Becomes `command` as the leader of a new session, so that neither the terminal's end nor its signals reach it.
pub fn launch(command: &[OsString]) -> anyhow::Result<ExitCode> {
    nix::unistd::setsid().context("cannot begin a session")?;
    let (program, arguments) = command.split_first().context("no program was given")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot execute {}", program.to_string_lossy()))
}

/// Stops conmond, if it runs, and lets it remove every trace.
pub async fn down(instance: &Instance, client: &Client, options: &Down) -> anyhow::Result<ExitCode> {
    let program = conmond()?;
    // What is to be removed lies in the engine that conmond was started with; while it runs, it can tell which.
    let mut engine = options.engine.clone();
    if engine.is_none()
        && let Ok(status) = client.clone().with_timeout(Duration::from_secs(2)).status().await
    {
        engine = Some(status.engine.address);
    }
    let mut keeper = None;
    match running(instance)? {
        Some(process) => {
            if ends_with_us(process.pid) {
                bail!(
                    "conmond (pid {}) runs in this container, which ends with it, and nothing would be removed: stop the container, and run \
                     `conmonctl down` in another one of the same kind (packaging/compose.yaml says how) or on the host",
                    process.pid
                );
            }
            keeper = Keeper::of_process(process.pid);
            process.stop(Duration::from_secs(options.timeout.into()))?;
            print_lines(&format!("conmond, pid {}, has ended\n", process.pid))?;
            // one that is back would measure on with nothing left of what it had
            if let Some(keeper) = &keeper
                && comes_back(instance).await
            {
                // another time there is nobody to ask for it
                let engine = engine.map(|address| format!(" --engine {address}")).unwrap_or_default();
                bail!(
                    "conmond was started again, and nothing was removed: first {}, then `conmonctl down{engine}`",
                    keeper.remedy()
                );
            }
        }
        None => print_lines(&format!("conmond was not running (instance {})\n", instance.name()))?,
    }
    let mut clean = Command::new(&program);
    clean.arg("clean").args(place(instance));
    if let Some(engine) = engine {
        clean.arg("--engine").arg(engine);
    }
    if let Some(file) = &options.config {
        clean.arg("--config").arg(file);
    }
    let status = clean
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot execute {}", program.display()))?;
    if !status.success() {
        let first = keeper.map(|keeper| format!("; if conmond is back, first {}", keeper.remedy()));
        bail!(
            "`conmond clean --instance {}` failed ({status}): something of ConMon is left{}",
            instance.name(),
            first.unwrap_or_default()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether somebody starts a conmond of this instance within a moment. Its socket is there from its first moments on, long before its
/// process id is written or it answers.
async fn comes_back(instance: &Instance) -> bool {
    let deadline = Instant::now() + BACK_WITHIN;
    while Instant::now() < deadline {
        if UnixStream::connect(instance.socket()).is_ok() {
            return true;
        }
        tokio::time::sleep(START_POLL).await;
    }
    false
}

/// A process held by a descriptor: its number cannot come to mean another one.
struct Process {
    pid: i32,
    descriptor: rustix::fd::OwnedFd,
}

/// The conmond of this instance. A pid file that outlived its process is no process; one that names another program's
/// process is not believed.
fn running(instance: &Instance) -> anyhow::Result<Option<Process>> {
    let file = instance.pid_file();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {} (use sudo?)", file.display()));
        }
    };
    let number: i32 = text
        .trim()
        .parse()
        .with_context(|| format!("{} holds no process id: `{}`", file.display(), text.trim()))?;
    // Neither init nor what kill(2) takes for a group of processes.
    let Some(pid) = (number > 1).then(|| Pid::from_raw(number)).flatten() else {
        bail!("{} holds no process id: `{number}`", file.display())
    };
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open process {number}")),
    };
    // From here on the descriptor holds the process, and what /proc tells is about it or, if it has ended, nothing.
    let folder = PathBuf::from(format!("/proc/{number}"));
    let executable = match fs::read_link(folder.join("exe")) {
        Ok(executable) => executable,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look at process {number} (use sudo)"));
        }
    };
    let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
    let environment = fs::read(folder.join("environ")).unwrap_or_default();
    // Another process with the number of one that crashed: conmond is not running.
    let ours = is_conmond(&executable) && instance_of(&arguments, &environment) == instance.name().as_bytes();
    Ok(ours.then_some(Process { pid: number, descriptor }))
}

impl Process {
    fn stop(&self, limit: Duration) -> anyhow::Result<()> {
        match pidfd_send_signal(&self.descriptor, Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(rustix::io::Errno::PERM) => bail!("you may not stop conmond (pid {}): use sudo", self.pid),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot stop conmond (pid {})", self.pid));
            }
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&self.descriptor, PollFlags::IN)], Some(&left)) {
                Ok(0) => bail!(
                    "conmond (pid {pid}) has not ended within {} s of being asked to: nothing was removed. See its log; \
                     `sudo kill -9 {pid}` and another `conmonctl down` do it by force (first stop what would start it again)",
                    limit.as_secs(),
                    pid = self.pid
                ),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for conmond's end"),
            }
        }
    }
}

/// Whether an executable is conmond; the kernel marks one that an upgrade has replaced.
fn is_conmond(executable: &Path) -> bool {
    let name = executable.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    name.strip_suffix(b" (deleted)").unwrap_or(name) == b"conmond"
}

/// The instance a conmond was started as, from its arguments and environment: separated by NUL, as in /proc.
fn instance_of<'a>(arguments: &'a [u8], environment: &'a [u8]) -> &'a [u8] {
    let mut words = arguments.split(|byte| *byte == 0);
    while let Some(word) = words.next() {
        if word == b"--instance" {
            return words.next().unwrap_or_default();
        }
        if let Some(name) = word.strip_prefix(b"--instance=") {
            return name;
        }
    }
    environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(INSTANCE_VARIABLE.as_bytes())?.strip_prefix(b"="))
        .filter(|name| !name.is_empty())
        .unwrap_or(DEFAULT_INSTANCE.as_bytes())
}

/// The conmond that belongs to this conmonctl: beside it, else the first in PATH.
fn conmond() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("cannot find the own executable")?;
    let beside = me.parent().map(|folder| folder.join("conmond"));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let candidates =
        beside.into_iter().chain(std::env::split_paths(&in_path).map(|folder| folder.join("conmond")));
    for candidate in candidates {
        if nix::unistd::access(&candidate, nix::unistd::AccessFlags::X_OK).is_ok() && candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("cannot find `conmond`, neither beside {} nor in PATH: install it there", me.display())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn instances_are_told_by_argument_then_environment_then_default() {
        let environment = b"PATH=/bin\0CONMON_INSTANCE=env\0CONMON_INSTANCES=x\0";
        assert_eq!(instance_of(b"conmond\0run\0--instance\0one\0", environment), b"one");
        assert_eq!(instance_of(b"conmond\0run\0--instance=two\0--opt-in\0", environment), b"two");
        assert_eq!(instance_of(b"conmond\0run\0", environment), b"env");
        assert_eq!(instance_of(b"conmond\0run\0", b"CONMON_INSTANCE=\0"), b"default");
        assert_eq!(instance_of(b"conmond\0run\0--instance", b""), b"");
    }

    #[test]
    fn only_conmond_is_conmond() {
        assert!(is_conmond(Path::new("/usr/bin/conmond")));
        assert!(is_conmond(Path::new("/usr/bin/conmond (deleted)")));
        assert!(!is_conmond(Path::new("/usr/bin/conmon")));
        assert!(!is_conmond(Path::new("/usr/bin/sleep")));
        assert!(!is_conmond(Path::new("/")));
    }

    #[test]
    fn flags_are_passed_on() {
        let line = "conmonctl --instance lab up --engine unix:///x.sock --metrics-listen [::1]:9100 --pool 3 --opt-in -- --log-format json";
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        let Command::Up(options) = cli.command else { panic!("not up") };
        let instance = Instance::new(cli.instance, "/run/conmon").expect("good name");
        assert_eq!(
            run_arguments(&instance, &options).join(OsStr::new(" ")),
            "run --instance lab --run-dir /run/conmon --engine unix:///x.sock --metrics-listen [::1]:9100 \
             --set pool=3 --opt-in --log-format json"
        );
    }
}
