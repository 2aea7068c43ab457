//! A network namespace for one test, and threads inside it. Gone when dropped, also after a panic.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Whether the test may run; says so loudly when not, and fails where the privileged tests are required.
pub fn privileged() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("CONMON_TEST_REQUIRE_ROOT").is_none(),
        "this test needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN)"
    );
    eprintln!("SKIPPED: needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN)");
    false
}

/// A named namespace with its loopback up.
#[derive(Debug)]
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new(tag: &str) -> Netns {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let ns = Netns { name: format!("cmt-{tag}-{}-{serial}", std::process::id()) };
        run("ip", &["netns", "add", &ns.name]);
        ns.ip("link set lo up");
        ns
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs `ip ARGS` inside.
    pub fn ip(&self, args: &str) -> String {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(args.split_whitespace());
        run("ip", &all)
    }

    pub fn ifindex(&self, link: &str) -> u32 {
        let line = self.ip(&format!("-o link show dev {link}"));
        line.split(':').next().and_then(|n| n.trim().parse().ok()).expect("an ifindex before the first colon")
    }

    /// Runs `body` on a thread inside the namespace and returns what it returns.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("the namespace's file");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Runs a command that must succeed and returns what it wrote.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        out.status.success(),
        "{program} {}: {}\n{}",
        args.join(" "),
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}
