//! `conmonctl` as its users run it: a process, against a stand-in daemon on a Unix socket.
#![cfg(feature = "cli")]

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod answers;
#[path = "support/pty.rs"]
mod pty;
#[path = "support/standin.rs"]
mod standin;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use conmon::api;
use pty::{ENTER_SCREEN, LEAVE_SCREEN, Pty};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use standin::{Behaviour, serve};

const CONMONCTL: &str = env!("CARGO_BIN_EXE_conmonctl");

/// A stand-in daemon where the instance `default` of this run folder would listen. It ends with the test's process.
struct Host {
    folder: tempfile::TempDir,
    running: Option<Running>,
}

/// A stand-in that goes away, as a daemon that is killed, when this is dropped.
type Running = tokio::sync::oneshot::Sender<()>;

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("default")).expect("a run folder");
        Self { folder, running: None }
    }

    fn with_daemon(behaviour: Behaviour) -> Self {
        let mut host = Self::new();
        host.running = Some(host.serve(behaviour));
        host
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("default/conmond.sock")
    }

    fn serve(&self, behaviour: Behaviour) -> Running {
        let socket = self.socket();
        let at = socket.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(
                async {
                    tokio::select! {
                        served = serve(&at, behaviour) => served,
                        _ = stopped => Ok(()),
                    }
                },
            )
        });
        // There is a moment between a socket's appearance and its first listening.
        wait_for("the stand-in", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        stop
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
    let verbs: [(&str, &str, Check); 9] = [
        ("pairs", "shop-redis-benchmark-1  shop-redis-1", is::<api::PairsAnswer>),
        ("flows", "[fd00:18::2]:80", is::<api::FlowsAnswer>),
        ("containers", "before link up", is::<api::ContainersAnswer>),
        ("clocks", "-1.20ms", is::<api::ClocksAnswer>),
        ("monitors", "conmon-default-pm-shop", is::<api::MonitorsAnswer>),
        ("measurements", "p50=83.1µs", is::<api::MeasurementsAnswer>),
        ("ledger", "every packet is accounted for", is::<api::LedgerAnswer>),
        ("doctor", "all 2 checks passed", is::<api::DoctorAnswer>),
        ("status", "61.4ns", is::<api::Status>),
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

/// conmonctl on a terminal of its own.
struct Session {
    child: Child,
    pty: Pty,
}

impl Session {
    fn start(host: &Host, line: &str) -> Self {
        Self::with(host, line, (80, 24), &[])
    }

    fn with(host: &Host, line: &str, (columns, rows): (u16, u16), variables: &[(&str, &str)]) -> Self {
        let pty = Pty::new(columns, rows);
        let child = host
            .command(CONMONCTL, line)
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .stdin(pty.slave())
            .stdout(pty.slave())
            .stderr(Stdio::piped())
            .spawn()
            .expect("conmonctl runs");
        Self { child, pty }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }
}

#[test]
fn top_gives_the_terminal_back_when_the_user_quits() {
    let host = Host::with_daemon(Behaviour::default());
    for keys in ["q", "\u{3}", "\rq", "/x\u{3}", "?\u{3}"] {
        let mut top = Session::start(&host, "top");
        top.pty.shows("lab-wrk-1");
        assert!(top.pty.written().contains(ENTER_SCREEN));
        assert!(!top.pty.is_cooked());
        top.pty.press(keys);
        assert_eq!(ended(top.child).status.code(), Some(0), "{keys:?}");
        assert!(top.pty.drain().contains(LEAVE_SCREEN), "{keys:?}");
        assert!(top.pty.is_cooked(), "lines are edited again after {keys:?}");
    }
}

#[test]
fn top_gives_the_terminal_back_on_signals() {
    let host = Host::with_daemon(Behaviour::default());
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let mut top = Session::start(&host, "top");
        top.pty.shows("lab-wrk-1");
        top.signal(signal);
        assert_eq!(ended(top.child).status.code(), Some(code));
        assert!(top.pty.drain().contains(LEAVE_SCREEN));
        assert!(top.pty.is_cooked());
    }
}

/// A window that is closed, a connection that is cut: no process may stay behind.
#[test]
fn top_ends_with_its_terminal() {
    let host = Host::with_daemon(Behaviour::default());
    let mut top = Session::start(&host, "top");
    top.pty.shows("lab-wrk-1");
    drop(top.pty);
    assert!(!ended(top.child).status.success());
}

#[test]
fn top_says_when_conmond_goes_and_goes_on_when_it_is_back() {
    let host = Host::new();
    let running = host.serve(Behaviour::default());
    let mut top = Session::start(&host, "top");
    top.pty.shows("sorted by byte rate both ways");
    top.pty.press("\r");
    top.pty.shows("near, handshake");
    top.pty.press("\u{1b}");
    top.pty.shows("sorted by byte rate both ways");
    drop(running);
    top.pty.shows("NO ANSWER since");
    assert!(top.child.try_wait().expect("a child").is_none(), "it waits");
    fs::remove_file(host.socket()).expect("the socket that was left");
    top.pty.shows("no socket at");
    let _running = host.serve(Behaviour::default());
    top.pty.shows("conmond answers again");
    top.pty.hides("conmond answers again");
    top.pty.press("q");
    assert_eq!(ended(top.child).status.code(), Some(0));
}

#[test]
fn top_begins_as_asked() {
    let host = Host::with_daemon(Behaviour::default());
    let mut top = Session::start(&host, "top --level tenant --sort rtt99 --all");
    let screen = top.pty.shows("sorted by RTT 99th percentile");
    assert!(screen.contains("by tenant"), "{screen}");
    top.pty.press("q");
    assert_eq!(ended(top.child).status.code(), Some(0));
}

#[test]
fn top_follows_the_window() {
    let host = Host::with_daemon(Behaviour::default());
    let mut top = Session::start(&host, "top");
    assert!(!top.pty.shows("? help").contains("TENANT"));
    for (columns, rows, sign) in [(200, 50, "TENANT"), (30, 5, "OUT/s"), (1, 1, ""), (80, 24, "? help")] {
        top.pty.resize(columns, rows);
        top.signal(Signal::WINCH);
        top.pty.shows(sign);
    }
    top.pty.press("q");
    assert_eq!(ended(top.child).status.code(), Some(0));
}

#[test]
fn top_has_colours_only_where_they_are_wanted() {
    let host = Host::with_daemon(Behaviour::default());
    let colours = |line: &str, variables: &[(&str, &str)]| {
        let mut top = Session::with(&host, line, (80, 24), variables);
        top.pty.shows("? ");
        top.pty.press("q");
        assert_eq!(ended(top.child).status.code(), Some(0));
        let seen = top.pty.drain();
        // The sixteen colours, in the form that every terminal reads.
        assert!(!seen.contains("38;") && !seen.contains("48;"), "{seen:?}");
        seen.contains("\u{1b}[36")
    };
    assert!(colours("top", &[]));
    assert!(!colours("top", &[("NO_COLOR", "1")]));
    assert!(!colours("top --color never", &[]));
    assert!(!colours("top", &[("TERM", "dumb")]));
    assert!(colours("top --color always", &[("NO_COLOR", "1")]), "who asks gets");
    assert!(colours("--color auto top", &[("NO_COLOR", "")]), "an empty variable is none");
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
    let top = Session::start(&host, "top");
    let output = ended(top.child);
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("conmond is not running"), "{}", stderr(&output));
}

const ESCAPE: char = '\u{1b}';

#[test]
fn tables_have_colours_on_terminals_and_where_asked_for() {
    let host = Host::with_daemon(Behaviour::default());
    for verb in ["pairs", "doctor", "status", "flows", "explain wrk:nginx", "events"] {
        assert!(!stdout(&host.run(verb)).contains(ESCAPE), "{verb}: a pipe");
        let always = stdout(&host.run(&format!("{verb} --color always")));
        assert!(always.contains(ESCAPE), "{verb}: {always}");
        assert!(!stdout(&host.run(&format!("{verb} -o json --color always"))).contains(ESCAPE), "{verb}");
    }
    let on_a_terminal = |line: &str, variables: &[(&str, &str)]| {
        let mut session = Session::with(&host, line, (80, 24), variables);
        assert!(ended(session.child).status.success());
        session.pty.drain()
    };
    assert!(on_a_terminal("pairs", &[]).contains(ESCAPE));
    assert!(!on_a_terminal("pairs", &[("NO_COLOR", "1")]).contains(ESCAPE));
    assert!(!on_a_terminal("pairs --color never", &[]).contains(ESCAPE));
    assert!(host.run("pairs --color sometimes").status.code() == Some(2));
}

#[test]
fn tables_fit_the_terminal() {
    let host = Host::with_daemon(Behaviour::default());
    let widest = |line: &str, columns| {
        let mut session = Session::with(&host, line, (columns, 24), &[("NO_COLOR", "1")]);
        assert!(ended(session.child).status.success());
        session.pty.drain().lines().map(|line| line.trim_end().chars().count()).max()
    };
    for verb in
        ["pairs", "flows", "containers", "monitors", "measurements", "status", "doctor", "explain wrk:nginx"]
    {
        for columns in [70, 80, 120] {
            let widest = widest(verb, columns).unwrap_or_default();
            assert!(widest <= usize::from(columns), "{verb}: {widest} of {columns}");
        }
    }
    assert!(widest("pairs -o wide", 80) > Some(200), "wide is wide");
}

#[test]
fn pairs_are_sorted_and_cut_as_asked() {
    let host = Host::with_daemon(Behaviour::default());
    let first = |line: &str| {
        let output = host.run(line);
        let text = stdout(&output);
        let row = text.lines().nth(1).unwrap_or_default().to_owned();
        (row.split_whitespace().take(2).collect::<Vec<_>>().join(" "), text.lines().count(), stderr(&output))
    };
    assert_eq!(first("pairs").0, "lab-wrk-1 shop-nginx-1");
    let (row, lines, notes) = first("pairs --sort rtt99 --limit 2");
    assert_eq!((row.as_str(), lines), ("lab-wrk-1 external", 3));
    assert!(notes.starts_with("5 more pairs; --limit shows them\n"), "{notes}");
    assert_eq!(first("pairs --sort src --reverse").0, "shop-redis-benchmark-1 shop-redis-1");
    let json = host.run("pairs --sort rtt50 --reverse --limit 1 -o json");
    let answer: api::PairsAnswer = serde_json::from_slice(&json.stdout).expect("pairs");
    assert_eq!((answer.pairs.len(), answer.pairs[0].dst.name.as_str()), (1, "shop-redis-1"));
    let output = host.run("pairs --sort speed");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("rtt99"), "the columns there are: {}", stderr(&output));
}

#[test]
fn explain_tells_all_of_a_pair() {
    let host = Host::with_daemon(Behaviour::default());
    for line in ["explain lab-wrk-1 shop-nginx-1", "explain wrk:nginx", "explain 172.18.0.6→172.18.0.2"] {
        let output = host.run(line);
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        let text = stdout(&output);
        assert!(text.starts_with("lab-wrk-1 → shop-nginx-1\n"), "{line}:\n{text}");
        for label in ["Who", "Opened by", "How much", "How fast", "Method", "Where", "Not known", "Next"] {
            assert!(text.lines().any(|line| line.starts_with(label)), "{label} is missing:\n{text}");
        }
    }
    let output = host.run("explain lab-wrk-1->shop-nginx-1 -o json");
    let data: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let pair: api::Pair = serde_json::from_value(data["pair"].clone()).expect("the API's own pair");
    let rtt = pair.rtt_seconds.expect("measured");
    let singletons: u64 = rtt.buckets.expect("with its distribution").iter().map(|bucket| bucket.count).sum();
    assert_eq!(singletons, rtt.count);
    assert!(serde_json::from_value::<api::FlowsAnswer>(data["flows"].clone()).is_ok());
    assert_eq!(data["containers"].as_array().map(Vec::len), Some(2));
}

#[test]
fn explain_suggests_what_was_meant() {
    let host = Host::with_daemon(Behaviour::default());
    let output = host.run("explain lab-wrk-1 shop-ngix-1");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    let said = stderr(&output);
    assert!(
        said.starts_with(
            "conmonctl: conmond knows nobody called shop-ngix-1\n  → did you mean `shop-nginx-1`"
        ),
        "{said}"
    );
    let output = host.run("explain lab-wrk-1 shop-redis-1 -o json");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(stderr(&output).contains("has seen no packet between lab-wrk-1 and shop-redis-1"));
    assert_eq!(host.run("explain").status.code(), Some(2));
    assert_eq!(host.run("explain a b c").status.code(), Some(2));
    assert_eq!(Host::new().run("explain a b").status.code(), Some(69));
}

/// Starts conmonctl with pipes.
fn piped(host: &Host, line: &str) -> Child {
    host.command(CONMONCTL, line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("conmonctl runs")
}

#[test]
fn watching_appends_tables_to_a_pipe() {
    let host = Host::with_daemon(Behaviour::default());
    for verb in [
        "pairs",
        "flows",
        "containers",
        "monitors",
        "measurements",
        "ledger",
        "doctor",
        "status",
        "explain wrk:nginx",
    ] {
        let mut child = piped(&host, &format!("{verb} --watch 0.1"));
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut next = || lines.next().expect("a line").expect("UTF-8");
        let head = next();
        let mut before = head.clone();
        loop {
            let line = next();
            if line == head {
                break;
            }
            before = line;
        }
        assert_eq!(before, "", "{verb}: an empty line between");
        assert!(!head.contains(ESCAPE) && !head.starts_with("every"), "{verb}: {head}");
        drop(lines);
        let output = ended(child);
        assert!(output.status.success(), "{verb}: {}", stderr(&output));
        assert!(!stderr(&output).contains("pipe"), "{verb}: {}", stderr(&output));
    }
}

#[test]
fn watching_json_is_one_document_a_line() {
    let host = Host::with_daemon(Behaviour::default());
    let mut child = piped(&host, "pairs -o json --watch 0.1");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for line in lines.take(3) {
        let line = line.expect("UTF-8");
        let answer: api::PairsAnswer = serde_json::from_str(&line).expect("pairs, whole in one line");
        assert_eq!(answer.pairs.len(), 9);
    }
    let output = ended(child);
    assert!(output.status.success());
    assert_eq!(stderr(&output), "");
}

/// `conmonctl pairs -w 3600 | head -1` ends with `head`, not an hour later.
#[test]
fn watching_ends_with_its_reader() {
    let host = Host::with_daemon(Behaviour::default());
    for format in ["table", "json"] {
        let mut child = piped(&host, &format!("pairs -w 3600 -o {format}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let output = ended(child);
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[test]
fn watching_on_a_terminal_overwrites_and_outlives_conmond() {
    let host = Host::new();
    let running = host.serve(Behaviour::default());
    let mut session = Session::with(&host, "pairs --watch 0.1", (80, 12), &[]);
    let screen = session.pty.shows("shop-postgres-1");
    assert!(screen.starts_with("every 0.1 s: conmonctl pairs --watch 0.1  "), "{screen}");
    session.pty.writes("\u{1b}[H", 4);
    assert_eq!(session.pty.written().matches("\u{1b}[2J").count(), 1, "later frames only overwrite");
    assert!(!session.pty.written().contains(ENTER_SCREEN), "nothing has to be given back");
    drop(running);
    session.pty.shows("no answer, asking again");
    fs::remove_file(host.socket()).expect("the socket that was left");
    let _running = host.serve(Behaviour::default());
    session.pty.shows("shop-nginx-1");
    session.signal(Signal::INT);
    assert_eq!(ended(session.child).status.code(), None, "ended by the signal");
    assert!(session.pty.is_cooked());
}

#[test]
fn watching_needs_an_answer_to_begin_with() {
    let host = Host::new();
    assert_eq!(host.run("pairs --watch").status.code(), Some(69));
    let _running = host.serve(Behaviour::default());
    let output = host.run("explain nobody at-all --watch");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(host.run("pairs --watch 0").status.code(), Some(2));
}

/// The verbs that `--help` lists.
fn verbs(host: &Host) -> Vec<String> {
    let help = stdout(&host.run("--help"));
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let verb = |line: &str| line.split_whitespace().next().map(str::to_owned);
    list.lines()
        .filter(|line| !line.starts_with("   "))
        .filter_map(verb)
        .filter(|verb| verb != "help")
        .collect()
}

#[test]
fn completions_know_every_verb_and_bash_uses_them() {
    let host = Host::new();
    let verbs = verbs(&host);
    assert!(verbs.len() >= 15 && verbs.contains(&"explain".to_owned()), "{verbs:?}");
    for shell in ["bash", "zsh", "fish"] {
        let output = host.run(&format!("completions {shell}"));
        assert!(output.status.success());
        let script = stdout(&output);
        for verb in &verbs {
            assert!(script.contains(verb.as_str()), "{shell} lacks {verb}");
        }
        assert!(script.contains("color") && script.contains("limit"), "{shell} lacks options");
    }
    let script = host.folder.path().join("completion");
    fs::write(&script, host.run("completions bash").stdout).expect("a script");
    let completed = |words: &str| {
        let command = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); \
             f=$(complete -p conmonctl | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             \"$f\" conmonctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["-c", &command]).output().expect("bash runs");
        assert_eq!(stderr(&output), "");
        stdout(&output)
    };
    assert_eq!(completed("conmonctl exp"), "explain\n");
    assert!(completed("conmonctl pairs --so").contains("--sort"));
    assert!(completed("conmonctl pairs --sort rtt9").contains("rtt90 rtt99"));
    assert!(completed("conmonctl --color a").contains("auto always"));
    assert_eq!(host.run("completions tcsh").status.code(), Some(2));
}

#[test]
fn man_pages_are_there_for_every_verb() {
    let host = Host::new();
    let folder = host.folder.path().join("man/man1");
    let output = host.run(&format!("man {}", folder.display()));
    assert!(output.status.success(), "{}", stderr(&output));
    let page = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    let whole = page("conmonctl.1");
    for sign in [
        ".TH \"CONMONCTL\" \"1\" \"\" \"ConMon ",
        "EXIT STATUS",
        "NO_COLOR",
        "conmonctl\\-pairs(1)",
        "conmonctl explain web db",
    ] {
        assert!(whole.contains(sign), "{sign} is missing:\n{whole}");
    }
    let mut expected: Vec<String> = verbs(&host).iter().map(|verb| format!("conmonctl-{verb}.1")).collect();
    expected.push("conmonctl.1".to_owned());
    // a verb with verbs of its own has a page for each
    expected.extend(
        ["host", "init", "operator", "show", "tenant-token"].map(|verb| format!("conmonctl-ca-{verb}.1")),
    );
    expected.sort();
    let mut written: Vec<String> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    written.sort();
    assert_eq!(written, expected);
    assert!(page("conmonctl-pairs.1").contains("\\-\\-limit"));
    let output = host.run("man /proc/none/man1");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write man pages into /proc/none/man1"), "{}", stderr(&output));
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
    let _running = host.serve(Behaviour::default());
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
