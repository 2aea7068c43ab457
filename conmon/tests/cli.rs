//! `conmonctl` as its users run it: a process, against a stand-in daemon on a Unix socket.
#![cfg(feature = "cli")]

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod answers;
#[path = "support/standin.rs"]
mod standin;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use conmon::api;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use standin::{Behaviour, serve};

const CONMONCTL: &str = env!("CARGO_BIN_EXE_conmonctl");

/// A stand-in daemon where the instance `default` of this run folder would listen. It ends with the test's process.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("default")).expect("a run folder");
        Self { folder }
    }

    fn with_daemon(behaviour: Behaviour) -> Self {
        let host = Self::new();
        host.serve(behaviour);
        host
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("default/conmond.sock")
    }

    fn serve(&self, behaviour: Behaviour) {
        let socket = self.socket();
        let at = socket.clone();
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(serve(&at, behaviour))
        });
        // There is a moment between a socket's appearance and its first listening.
        wait_for("the stand-in", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    fn command(&self, program: impl AsRef<Path>, line: &str) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .args(line.split_whitespace())
            .env("CONMON_RUN_DIR", self.folder.path())
            .env_remove("CONMON_INSTANCE")
            .env("TERM", "xterm-256color")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(CONMONCTL, line).output().expect("conmonctl runs")
    }
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn every_verb_prints_a_table_and_json_of_the_api() {
    let host = Host::with_daemon(Behaviour::default());
    fn is<A: serde::de::DeserializeOwned>(text: &str) -> bool {
        serde_json::from_str::<A>(text).is_ok()
    }
    type Check = fn(&str) -> bool;
    let verbs: [(&str, &str, Check); 8] = [
        ("pairs", "shop-redis-benchmark-1  shop-redis-1", is::<api::PairsAnswer>),
        ("flows", "[fd00:18::2]:80", is::<api::FlowsAnswer>),
        ("containers", "before link up", is::<api::ContainersAnswer>),
        ("monitors", "conmon-default-pm-shop", is::<api::MonitorsAnswer>),
        ("measurements", "p50 83.1 µs", is::<api::MeasurementsAnswer>),
        ("ledger", "every packet is accounted for", is::<api::LedgerAnswer>),
        ("doctor", "all 2 checks passed", is::<api::DoctorAnswer>),
        ("status", "61.4 ns", is::<api::Status>),
    ];
    for (verb, sign, check) in verbs {
        for format in ["", " -o table", " -o wide"] {
            let output = host.run(&format!("{verb}{format}"));
            assert!(output.status.success(), "{verb}{format}: {}", stderr(&output));
            assert!(stdout(&output).contains(sign), "{verb}{format}:\n{}", stdout(&output));
        }
        let output = host.run(&format!("{verb} --output json"));
        assert!(output.status.success() && check(&stdout(&output)), "{verb}:\n{}", stdout(&output));
        assert_eq!(stderr(&output), "", "{verb}: JSON comes without notes");
    }
}

#[test]
fn pairs_as_scripts_read_them() {
    let host = Host::with_daemon(Behaviour::default());
    let output = host.run("pairs -o json --src lab-wrk-1 --dst shop-nginx-1");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["pairs"].as_array().map(Vec::len), Some(1));
    let pair = &answer["pairs"][0];
    assert_eq!((&pair["src"]["kind"], &pair["dst"]["service"]), (&"container".into(), &"nginx".into()));
    assert_eq!(pair["rtt_seconds"]["p50"], 83.1e-6);
    assert_eq!(answer["hosts"][0]["complete"], true);
    let all: Value = serde_json::from_slice(&host.run("pairs -o json").stdout).expect("JSON");
    assert_eq!(all["pairs"].as_array().map(Vec::len), Some(9), "JSON hides nothing");
}

#[test]
fn multicast_rows_are_hidden_in_tables_and_told_of() {
    let host = Host::with_daemon(Behaviour::default());
    let output = host.run("pairs");
    assert_eq!((stdout(&output).lines().count(), stdout(&output).contains("multicast")), (8, false));
    assert_eq!(stderr(&output), "2 rows of multicast and link-local traffic hidden; --all shows them\n");
    let output = host.run("pairs --all");
    assert_eq!((stdout(&output).lines().count(), stderr(&output).as_str()), (10, ""));
}

#[test]
fn levels_and_filters() {
    let host = Host::with_daemon(Behaviour::default());
    let output = host.run("pairs --level tenant -o json");
    let answer: api::PairsAnswer = serde_json::from_slice(&output.stdout).expect("pairs");
    assert!(answer.pairs.iter().all(|pair| pair.src.kind == api::EndpointKind::Tenant));
    let output = host.run("flows --state ended --limit 1");
    assert_eq!(stdout(&output).lines().count(), 2, "{}", stdout(&output));
    assert_eq!(stderr(&output), "1 more flows; --limit shows them\n");
}

#[test]
fn events_are_lines() {
    let host = Host::with_daemon(Behaviour::default());
    let output = host.run("events");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(
        text.contains("port_tapped        veth5f0c1e2 of shop-nginx-1 is tapped  (after 210 µs)"),
        "{text}"
    );
    for line in stdout(&host.run("events -o json --kind port_named")).lines() {
        let event: api::Event = serde_json::from_str(line).expect("an event a line");
        assert_eq!(event.kind, api::EventKind::PortNamed);
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let host = Host::with_daemon(Behaviour::default());
    let mut child = host
        .command(CONMONCTL, "events --follow -o json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("conmonctl runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    assert!(serde_json::from_str::<api::Event>(&line).is_ok());
    drop(lines);
    let output = ended(child);
    assert!(output.status.success());
    assert_eq!(stderr(&output), "");
}

#[test]
fn doctor_fails_when_a_check_does() {
    let host = Host::with_daemon(Behaviour { ill: true, ..Behaviour::default() });
    let output = host.run("doctor");
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("FAIL  engine  nobody listens on /var/run/docker.sock"), "{text}");
    assert!(text.contains("→ start it: `sudo systemctl start docker`"), "{text}");
    assert_eq!(host.run("doctor -o json").status.code(), Some(1));
}

#[test]
fn without_a_daemon() {
    let host = Host::new();
    let socket = host.socket();
    for verb in ["status", "pairs -o json", "events --follow"] {
        let output = host.run(verb);
        assert_eq!(output.status.code(), Some(69), "{verb}");
        assert_eq!(
            stderr(&output),
            format!(
                "conmonctl: conmond is not running (no socket at {}): start it with `sudo conmonctl up`\n",
                socket.display()
            )
        );
        assert_eq!(stdout(&output), "");
    }
    let output = host.run("doctor -o json");
    assert_eq!(output.status.code(), Some(69));
    let answer: api::DoctorAnswer = serde_json::from_slice(&output.stdout).expect("JSON all the same");
    assert_eq!((answer.checks[0].name.as_str(), answer.checks[0].ok), ("daemon", false));
    assert_eq!(answer.checks[0].remedy.as_deref(), Some("start it with `sudo conmonctl up`"));

    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let output = host.run("status");
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("left by one that ended"), "{}", stderr(&output));
}

#[test]
fn instances_and_sockets_are_found() {
    let host = Host::with_daemon(Behaviour::default());
    let output = host.run("--instance other status");
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("/other/conmond.sock"), "{}", stderr(&output));
    let output = host.command(CONMONCTL, "status").env("CONMON_INSTANCE", "third").output().expect("runs");
    assert!(stderr(&output).contains("/third/conmond.sock"), "{}", stderr(&output));
    let output = host.command(CONMONCTL, "status").env("CONMON_INSTANCE", "").output().expect("runs");
    assert!(output.status.success(), "an empty variable is none: {}", stderr(&output));
    let line = format!("--instance other --socket {} status", host.socket().display());
    assert!(host.run(&line).status.success());
}

#[test]
fn those_who_may_not_are_told_who_may() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let host = Host::with_daemon(Behaviour::default());
    let output = host.command(CONMONCTL, "status").uid(65534).gid(65534).output().expect("conmonctl runs");
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("you may not talk to conmond on"), "{}", stderr(&output));
    assert!(stderr(&output).contains("use sudo"), "{}", stderr(&output));

    fs::set_permissions(host.folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::set_permissions(host.socket(), fs::Permissions::from_mode(0o660)).expect("permissions");
    rustix::fs::chown(host.socket(), None, Some(rustix::fs::Gid::from_raw(4_000_000))).expect("a group");
    let output = host.command(CONMONCTL, "status").uid(65534).gid(65534).output().expect("conmonctl runs");
    assert!(stderr(&output).contains("join the group with the number 4000000"), "{}", stderr(&output));
}

#[test]
fn wrong_usage() {
    let host = Host::new();
    for line in [
        "",
        "nonsense",
        "pairs --level planet",
        "pairs -o yaml",
        "events --kind nonsense",
        "--instance ../x status",
        "up --metrics-listen nowhere",
    ] {
        let output = host.run(line);
        assert_eq!(output.status.code(), Some(2), "`{line}`: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "`{line}`");
    }
}

#[test]
fn nonsense_from_the_other_side() {
    let host = Host::with_daemon(Behaviour { nonsense: true, ..Behaviour::default() });
    let output = host.run("pairs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("of the same version?"), "{}", stderr(&output));
}

fn ended(mut child: Child) -> Output {
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process has not ended");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("an end")
}

/// `top` on a pseudo-terminal of its own.
struct Top {
    child: Child,
    master: File,
}

impl Top {
    fn start(host: &Host) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a usable terminal");
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).expect("a size");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let slave = || fs::OpenOptions::new().read(true).write(true).open(&name).expect("the other side");
        let child = host
            .command(CONMONCTL, "top")
            .stdin(slave())
            .stdout(slave())
            .stderr(Stdio::piped())
            .spawn()
            .expect("conmonctl runs");
        Self { child, master: File::from(master) }
    }

    /// Reads until the screen has shown this.
    fn shows(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut more = [0; 4096];
            match self.master.read(&mut more) {
                Ok(0) | Err(_) => break,
                Ok(length) => seen.extend_from_slice(&more[..length]),
            }
            if String::from_utf8_lossy(&seen).contains(text) {
                break;
            }
            assert!(Instant::now() < deadline, "{text:?} was not shown");
        }
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.contains(text), "{text:?} was not shown: {seen:?}");
        seen
    }
}

const ENTER_SCREEN: &str = "\u{1b}[?1049h";
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";

#[test]
fn top_gives_the_terminal_back_when_the_user_quits() {
    let host = Host::with_daemon(Behaviour::default());
    let mut top = Top::start(&host);
    assert!(top.shows("lab-wrk-1").contains(ENTER_SCREEN));
    top.master.write_all(b"q").expect("a key");
    top.shows(LEAVE_SCREEN);
    assert_eq!(ended(top.child).status.code(), Some(0));
    let mode = rustix::termios::tcgetattr(&top.master).expect("the terminal's mode");
    assert!(mode.local_modes.contains(rustix::termios::LocalModes::ICANON), "lines are edited again");
}

#[test]
fn top_gives_the_terminal_back_on_signals() {
    let host = Host::with_daemon(Behaviour::default());
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut top = Top::start(&host);
        top.shows("lab-wrk-1");
        kill_process(Pid::from_child(&top.child), signal).expect("a signal");
        top.shows(LEAVE_SCREEN);
        assert_eq!(ended(top.child).status.code(), Some(code));
    }
}

/// A window that is closed, a connection that is cut: no process may stay behind.
#[test]
fn top_ends_with_its_terminal() {
    let host = Host::with_daemon(Behaviour::default());
    let mut top = Top::start(&host);
    top.shows("lab-wrk-1");
    drop(top.master);
    assert!(!ended(top.child).status.success());
}

#[test]
fn top_needs_a_terminal_and_a_daemon() {
    let output = Host::with_daemon(Behaviour::default()).run("top");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("`conmonctl pairs` prints the same rows anywhere"),
        "{}",
        stderr(&output)
    );
    let host = Host::new();
    let top = Top::start(&host);
    let output = ended(top.child);
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("conmond is not running"), "{}", stderr(&output));
}

/// A shell by the name of conmond, beside a copy of conmonctl: its `run` and `clean` are scripts in the working folder.
fn with_conmond(host: &Host, run: &str) -> PathBuf {
    let folder = host.folder.path();
    fs::copy("/bin/bash", folder.join("conmond")).expect("a copy of bash");
    fs::copy(CONMONCTL, folder.join("conmonctl")).expect("a copy of conmonctl");
    // A process that another test forked meanwhile may hold the copies open for writing until it executes.
    for program in ["conmond", "conmonctl"] {
        let version = || Command::new(folder.join(program)).arg("--version").stdout(Stdio::null()).status();
        wait_for("a program that is not busy", || version().is_ok_and(|status| status.success()));
    }
    fs::write(folder.join("run"), run).expect("a script");
    fs::write(
        folder.join("clean"),
        "echo \"$*\" > cleaned; exit $(cat clean-status 2>/dev/null || echo 0)\n",
    )
    .expect("a script");
    folder.join("conmonctl")
}

const RUN: &str = "trap 'rm -f default/conmond.pid; exit 0' TERM\n\
    echo \"$*\" > started; ps -o sid= -p $$ > session; echo $$ > default/conmond.pid\n\
    while :; do sleep 0.05; done\n";

#[test]
fn up_and_down() {
    let host = Host::new();
    let conmonctl = with_conmond(&host, RUN);
    let folder = host.folder.path();
    let pid_file = folder.join("default/conmond.pid");
    let up = host
        .command(&conmonctl, "up --detach --pool 3 --opt-in --engine unix:///x.sock")
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("conmonctl runs");
    wait_for("the pid file", || fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n')));
    host.serve(Behaviour::default());
    let output = ended(up);
    assert!(output.status.success(), "{}", stderr(&output));
    let pid = fs::read_to_string(&pid_file).expect("a pid").trim().to_owned();
    assert!(
        stdout(&output).starts_with(&format!("conmond is running, pid {pid}, log ")),
        "{}",
        stdout(&output)
    );
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default().trim().to_owned();
    let place = format!("--instance default --run-dir {}", folder.display());
    assert_eq!(read("started"), format!("{place} --engine unix:///x.sock --set pool=3 --opt-in"));
    assert_eq!(read("session"), pid, "it leads a session of its own");

    let output = host.command(&conmonctl, "up").current_dir(folder).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("conmond is already running"), "{}", stderr(&output));

    let output = host.command(&conmonctl, "down").current_dir(folder).output().expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("conmond, pid {pid}, has ended\n"));
    assert!(!Path::new(&format!("/proc/{pid}")).exists() || !pid_file.exists());
    assert_eq!(
        read("cleaned"),
        format!("{place} --engine unix:///var/run/docker.sock"),
        "the engine it told of"
    );
}

#[test]
fn up_tells_why_conmond_ended() {
    let host = Host::new();
    let conmonctl = with_conmond(&host, "echo 'this kernel has no BTF' >&2; exit 7\n");
    let output =
        host.command(&conmonctl, "up --detach").current_dir(host.folder.path()).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("this kernel has no BTF"), "{}", stderr(&output));
    assert!(stderr(&output).contains("exit status: 7"), "{}", stderr(&output));

    let output = host.command(&conmonctl, "up").current_dir(host.folder.path()).output().expect("runs");
    assert_eq!(output.status.code(), Some(7), "in the foreground it is conmond");
}

#[test]
fn down_believes_no_pid_of_others() {
    let host = Host::new();
    let conmonctl = with_conmond(&host, RUN);
    let folder = host.folder.path();
    let mut innocent = Command::new("sleep").arg("60").spawn().expect("a process");
    for pid in [innocent.id().to_string(), "999999999".to_owned()] {
        fs::write(folder.join("default/conmond.pid"), pid).expect("a pid file");
        let output = host.command(&conmonctl, "down").current_dir(folder).output().expect("runs");
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), "conmond was not running (instance default)\n");
    }
    assert!(innocent.try_wait().expect("a child").is_none(), "it goes on");
    innocent.kill().and_then(|()| innocent.wait()).expect("its end");

    for pid in ["1", "0", "-1", "x", ""] {
        fs::write(folder.join("default/conmond.pid"), pid).expect("a pid file");
        let output = host.command(&conmonctl, "down").current_dir(folder).output().expect("runs");
        assert_eq!(output.status.code(), Some(1), "{pid:?}");
        assert!(stderr(&output).contains("holds no process id"), "{}", stderr(&output));
    }
}

#[test]
fn down_says_when_something_is_left() {
    let host = Host::new();
    let conmonctl = with_conmond(&host, RUN);
    let folder = host.folder.path();
    fs::write(folder.join("clean-status"), "3").expect("a file");
    let output = host.command(&conmonctl, "down").current_dir(folder).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("something of ConMon is left"), "{}", stderr(&output));
}
