//! A real etcd on loopback, with a folder and ports of its own. It ends with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Flags of etcd beside the usual ones.
pub type Flags = Vec<String>;

pub struct EtcdProcess {
    dir: PathBuf,
    flags: Flags,
    scheme: &'static str,
    /// What etcdctl needs beside the usual flags.
    pub ctl_flags: Flags,
    pub client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl EtcdProcess {
    pub fn start(name: &str) -> Self {
        Self::start_with(name, &std::env::temp_dir(), Vec::new(), "http")
    }

    pub fn start_with(name: &str, parent: &Path, flags: Flags, scheme: &'static str) -> Self {
        let dir = parent.join(format!("conmon-etcd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (client_port, peer_port) = (free_port(), free_port());
        let ctl_flags = Vec::new();
        let mut etcd = Self { dir, flags, scheme, ctl_flags, client_port, peer_port, child: None };
        etcd.run();
        etcd
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        let id = self.child.as_ref().expect("etcd runs").id();
        nix::unistd::Pid::from_raw(i32::try_from(id).unwrap())
    }

    fn peer(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// Starts it on the data there are, and waits until it serves.
    pub fn run(&mut self) {
        assert!(self.child.is_none());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        let child = Command::new("etcd")
            .args(["--name", "m0", "--data-dir"])
            .arg(self.dir.join("data"))
            .args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &self.peer(), "--initial-advertise-peer-urls", &self.peer()])
            .args(["--initial-cluster", &format!("m0={}", self.peer())])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd is installed (scripts/setup.sh)");
        self.child = Some(child);
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.client_port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "etcd does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.chars().skip(log.len().saturating_sub(3000)).collect()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    /// Time that it has had on processors.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // behind the name in parentheses: in user space and in the kernel, in hundredths of a second
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = after.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Lets it end in order; its data stay.
    pub fn stop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Kills it; its data stay.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Takes its memory away. It must not run.
    pub fn wipe(&self) {
        assert!(self.child.is_none());
        std::fs::remove_dir_all(self.dir.join("data")).unwrap();
    }

    pub fn etcdctl(&self, args: &[&str]) -> String {
        let out = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url()])
            .args(&self.ctl_flags)
            .args(args)
            .output()
            .expect("etcdctl is installed (scripts/setup.sh)");
        assert!(out.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Writes a snapshot.
    pub fn snapshot(&self, name: &str) {
        self.etcdctl(&["snapshot", "save", self.dir.join(name).to_str().unwrap()]);
    }

    /// Puts a snapshot in the place of its data. It must not run.
    pub fn restore(&self, name: &str) {
        self.wipe();
        let cluster = format!("m0={}", self.peer());
        let (file, data) = (self.dir.join(name), self.dir.join("data"));
        self.etcdctl(&[
            "snapshot",
            "restore",
            file.to_str().unwrap(),
            "--name",
            "m0",
            "--data-dir",
            data.to_str().unwrap(),
            "--initial-cluster",
            &cluster,
            "--initial-advertise-peer-urls",
            &self.peer(),
        ]);
    }

    /// All keys that begin with this.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let out = self.etcdctl(&["get", "--prefix", "--keys-only", prefix]);
        out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("etcd's log ends:\n{}", self.log());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
