//! A conmond under test: started in a host's namespace against that host's engine, with an instance and a run folder
//! of its own, so that many can live on one machine.

use crate::bins::program;
use crate::host::Host;
use crate::names::start_time;
use crate::run::{describe, output};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How conmond is to be started.
#[derive(Debug, Clone, Default)]
pub struct ConmondOptions {
    /// Instance name; the host's full name otherwise. Teardown knows only instances that begin with the host's full
    /// name, so a second instance is best called that plus a suffix.
    pub instance: Option<String>,
    /// Folder of the executables; otherwise they are found by [`crate::program`]. For tests of upgrades.
    pub bin_dir: Option<PathBuf>,
    /// Further arguments of `conmonctl up`.
    pub args: Vec<String>,
    /// Further environment variables.
    pub env: Vec<(String, String)>,
    /// Longest wait for its first answer; 30 s when absent.
    pub ready_timeout: Option<Duration>,
}

/// A conmond that was started; ended when dropped.
#[derive(Debug)]
pub struct Conmond {
    host: Host,
    options: ConmondOptions,
    conmonctl: PathBuf,
    instance: String,
    child: Option<Child>,
    ready_took: Duration,
}

impl Conmond {
    /// Starts `conmonctl up` on a host and waits until `conmonctl status` is answered.
    pub fn start(host: &Host, options: ConmondOptions) -> Result<Self> {
        let mut conmond = Self::prepare(host, options)?;
        conmond.up()?;
        Ok(conmond)
    }

    /// One that is yet to be started.
    pub fn prepare(host: &Host, options: ConmondOptions) -> Result<Self> {
        let conmonctl = match &options.bin_dir {
            Some(dir) => dir.join("conmonctl"),
            None => program("conmonctl")?,
        };
        let instance = options.instance.clone().unwrap_or_else(|| host.full_name().to_string());
        Ok(Self { host: host.clone(), options, conmonctl, instance, child: None, ready_took: Duration::ZERO })
    }

    /// Starts it again after [`Conmond::kill9`] or [`Conmond::stop`]; same instance, same options.
    pub fn up(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.launch()?;
        let log = self.log();
        let patience = self.options.ready_timeout.unwrap_or(Duration::from_secs(30));
        wait_for("conmond's first answer", patience, || {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("conmond ended ({status}):\n{}", self.log_tail(20));
            }
            Ok(self.ctl(&["status"]).ok().map(drop))
        })
        .with_context(|| format!("its log {} ends:\n{}", log.display(), self.log_tail(20)))?;
        self.ready_took = begin.elapsed();
        Ok(())
    }

    /// Starts it without waiting for an answer: it may be meant to die before it gives one.
    pub fn launch(&mut self) -> Result<()> {
        use std::os::unix::process::CommandExt;
        if self.is_running() {
            bail!("conmond {} runs already", self.instance);
        }
        let log = self.log();
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        self.host.watch_log(&log);
        let mut command = self.command();
        command.arg("up").args(&self.options.args);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot run `{}`", describe(&command)))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it has ended by itself; how it ended.
    pub fn await_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("no conmond was started")?;
        let status = wait_for("conmond's end", patience, || Ok(child.try_wait()?));
        let status = status.with_context(|| format!("its log ends:\n{}", self.log_tail(20)))?;
        self.child = None;
        Ok(status)
    }

    /// Puts other executables in the place of the present ones from the next [`Conmond::up`] on: an upgrade.
    pub fn use_binaries(&mut self, dir: &Path) {
        self.conmonctl = dir.join("conmonctl");
        self.options.bin_dir = Some(dir.to_path_buf());
    }

    /// How long the last start took until the first answer.
    pub fn ready_took(&self) -> Duration {
        self.ready_took
    }

    /// The host it is on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its instance name.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The root of its run folders (`CONMON_RUN_DIR`).
    pub fn run_root(&self) -> PathBuf {
        self.host.dir().join("run")
    }

    /// Its own run folder: socket, process id, state.
    pub fn run_dir(&self) -> PathBuf {
        self.run_root().join(&self.instance)
    }

    /// Its API socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("conmond.sock")
    }

    /// Its log: what `conmonctl up` wrote.
    pub fn log(&self) -> PathBuf {
        self.host.dir().join(format!("{}.log", self.instance))
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        crate::diagnose::tail(&self.log(), lines)
    }

    /// The daemon's process id.
    pub fn pid(&self) -> Result<u32> {
        let file = self.run_dir().join("conmond.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.trim().parse().with_context(|| format!("{} holds {text:?}", file.display()))
    }

    /// Whether the process started last still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// `conmonctl`, ready for arguments, speaking to this instance from the host's namespace.
    pub fn command(&self) -> Command {
        let mut command = self.host.command(&self.conmonctl);
        command.env("CONMON_INSTANCE", &self.instance).env("CONMON_RUN_DIR", self.run_root());
        // `conmonctl up` looks for conmond beside itself, then on the path.
        let folder = self.conmonctl.parent().unwrap_or(Path::new("/")).to_path_buf();
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path))) {
            command.env("PATH", path);
        }
        command.envs(self.options.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs `conmonctl ARGS -o json` and reads the answer.
    pub fn ctl(&self, args: &[&str]) -> Result<Value> {
        let out = output(self.command().args(args).args(["-o", "json"]))?;
        serde_json::from_slice(&out)
            .with_context(|| format!("`conmonctl {}` did not print JSON", args.join(" ")))
    }

    /// Asks for a path of the API by the socket; quicker than `conmonctl` by a process start.
    pub fn get(&self, path: &str) -> Result<Value> {
        crate::engine::call(&self.socket(), "GET", path, None)
    }

    /// Runs `conmonctl ARGS` and returns what it printed.
    pub fn ctl_text(&self, args: &[&str]) -> Result<String> {
        let out = output(self.command().args(args))?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// Asks `conmonctl ARGS -o json` until `look` finds in the answer what it wants. Answers that fail are asked
    /// again: conmond may be starting.
    pub fn wait_ctl<T>(
        &self,
        what: &str,
        timeout: Duration,
        args: &[&str],
        mut look: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut last = String::from("nothing");
        let found = wait_for(what, timeout, || {
            let answer = match self.ctl(args) {
                Ok(answer) => answer,
                Err(error) => {
                    last = format!("{error:#}");
                    return Ok(None);
                }
            };
            let found = look(&answer);
            if found.is_none() {
                last = answer.to_string();
            }
            Ok(found)
        });
        found.with_context(|| format!("`conmonctl {}` said last: {last}", args.join(" ")))
    }

    /// Kills the daemon as a crash would (SIGKILL) and waits until it is gone. Pins and monitors stay.
    pub fn kill9(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL, Duration::from_secs(10))
    }

    /// Ends the daemon in an orderly way (SIGTERM) and waits until it is gone.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM, Duration::from_secs(30))
    }

    /// Has the daemon stand still (SIGSTOP) while something happens; it goes on in any case.
    pub fn standing_still<T>(&self, happens: impl FnOnce() -> Result<T>) -> Result<T> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?).context("process id")?);
        kill(pid, Signal::SIGSTOP).context("conmond cannot be stopped")?;
        let happened = happens();
        kill(pid, Signal::SIGCONT).context("conmond cannot be let go on")?;
        happened
    }

    /// Runs `conmonctl down`: the daemon ends and removes every trace. Waits for both.
    pub fn down(&mut self) -> Result<()> {
        output(self.command().arg("down"))?;
        self.await_child(Duration::from_secs(30))
    }

    fn end(&mut self, signal: Signal, patience: Duration) -> Result<()> {
        let pid = self.pid()?;
        let born = start_time(pid).with_context(|| format!("conmond (process {pid}) runs no more"))?;
        let raw = Pid::from_raw(i32::try_from(pid).context("process id")?);
        kill(raw, signal).with_context(|| format!("cannot send {signal} to conmond (process {pid})"))?;
        wait_for("end of conmond", patience, || Ok((start_time(pid) != Some(born)).then_some(())))?;
        self.await_child(patience)
    }

    /// `conmonctl up` may be another process than the daemon; it ends with it.
    fn await_child(&mut self, patience: Duration) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let ended = wait_for("end of `conmonctl up`", patience, || Ok(child.try_wait()?));
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        ended.map(drop)
    }
}

impl Drop for Conmond {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
