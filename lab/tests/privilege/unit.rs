//! conmond as the unit file says, run by a real systemd: a manager of root's services, in the network namespace of the lab's host and a
//! control group of its own. It makes of the file the same rights and mounts as the system's manager does.

use crate::WAIT;
use crate::monitor::{Monitor, talk};
use crate::packaged::*;
use crate::page::Started;
use crate::process::{may_raise_limits, real_time_allowed};
use anyhow::{Context, Result, ensure};
use lab::{Conmond, Host, cgroup_v2, find_program, output, output_text, root_test, wait_for};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SYSTEMD: &str = "/lib/systemd/systemd";

/// Enters a control group, shows systemd a machine that was booted with it, and becomes it. What it mounts is its own. `$1` is the
/// group, `$2` the network namespace.
const START: &str = r#"
mkdir "$1" && echo $$ > "$1/cgroup.procs" &&
mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd &&
mount -t tmpfs tmpfs /var/tmp &&
mkdir -p /run/systemd/system /run/systemd/inaccessible/dir && : > /run/systemd/inaccessible/reg &&
chmod 000 /run/systemd/inaccessible/* &&
exec nsenter --net="$2" -- "$3" --user
"#;

/// A systemd that runs.
struct Manager {
    runtime: PathBuf,
    child: Child,
}

impl Manager {
    fn start(host: &Host, units: &Path) -> Result<Self> {
        let groups = cgroup_v2().context("this systemd is kept apart by a control group of version 2")?;
        let group = groups.join(format!("{}-systemd", host.full_name()));
        fs::write(units.join("default.target"), "[Unit]\nDescription=Nothing but what is asked for\n")?;
        let log = fs::File::create(host.dir().join("systemd.log"))?;
        host.watch_log(&host.dir().join("systemd.log"));
        let mut command = Command::new(find_program("unshare", "util-linux")?);
        command.args(["--mount", "--propagation", "slave", "--", "/bin/sh", "-c", START, "sh"]);
        command.arg(group).arg(host.namespace().path()).arg(SYSTEMD);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", host.dir()).env("XDG_RUNTIME_DIR", host.dir());
        command.env("SYSTEMD_UNIT_PATH", format!("{}:/usr/lib/systemd/user", units.display()));
        command.env("SYSTEMD_LOG_TARGET", "console");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut manager = Self { runtime: host.dir().to_path_buf(), child };
        wait_for("systemd's answer", WAIT, || {
            if let Some(status) = manager.child.try_wait()? {
                anyhow::bail!("systemd ended ({status})");
            }
            Ok(manager.ctl(&["daemon-reload"]).ok())
        })?;
        Ok(manager)
    }

    fn ctl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(find_program("systemctl", "systemd")?);
        output_text(command.arg("--user").args(words).env("XDG_RUNTIME_DIR", &self.runtime))
    }

    /// A property of conmond's unit.
    fn property(&self, name: &str) -> Result<String> {
        self.ctl(&["show", "--value", "--property", name, "conmond"])
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // what stays of it the lab ends
        let asked = self.ctl(&["exit"]);
        if asked.is_ok() && wait_for("systemd's end", WAIT, || Ok(self.child.try_wait()?)).is_ok() {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `make install` in the host's own folder; the folder of units. What the lab's host needs to be told beside the unit, because it is
/// one of many on a machine, stands in a file of its own.
fn installed(host: &Host, conmond: &Conmond) -> Result<PathBuf> {
    let units = host.dir().join("units");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut make = Command::new("make");
    make.arg("install").arg(format!("PREFIX={}", host.dir().join("usr").display()));
    make.arg(format!("UNITDIR={}", units.display())).current_dir(root);
    output(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"))?;
    let more = units.join("conmond.service.d");
    fs::create_dir(&more)?;
    let (folder, log) = (host.dir().display(), conmond.log());
    let lines = [
        "[Service]".to_owned(),
        format!("Environment=CONMON_INSTANCE={} CONMON_RUN_DIR=%t/run", conmond.instance()),
        format!("Environment=DOCKER_HOST={}", host.docker_host()),
        "RuntimeDirectory=".to_owned(),
        "RuntimeDirectory=run".to_owned(),
        // it is below /tmp, of which the unit has one of its own
        format!("BindReadOnlyPaths={folder}"),
        format!("StandardOutput=append:{}", log.display()),
        format!("StandardError=append:{}", log.display()),
    ];
    fs::write(more.join("lab.conf"), lines.join("\n"))?;
    host.watch_log(&log);
    Ok(units)
}

#[test]
fn root_by_the_unit_file_it_works_is_kept_running_and_goes_for_good() -> Result<()> {
    root_test("unit file", |lab| {
        let (host, mut conmond) = host_and_conmond(lab)?;
        let units = installed(&host, &conmond)?;
        let manager = Manager::start(&host, &units)?;
        manager.ctl(&["start", "conmond"])?;
        answers(&conmond)?;
        ensure!(manager.property("MainPID")? == conmond.pid()?.to_string(), "another conmond answers");

        let started = Started { filter: BTreeSet::from([FILTER]), covered: &[], out_of_reach: &[] };
        has_its_rights_and_works(&conmond, &host, &conmond.log(), &started)?;
        let daemon = conmond.pid()?.to_string();
        comes_first(&daemon, may_raise_limits()? && real_time_allowed(&daemon)?)?;

        is_kept_running(&mut conmond, &host)?;
        ensure!(manager.property("NRestarts")? == "1", "restarts: {}", manager.property("NRestarts")?);

        // asked to end by the unit, it leaves its taps; by name, it goes
        let pins = Path::new("/sys/fs/bpf/conmon").join(conmond.instance());
        manager.ctl(&["restart", "conmond"])?;
        answers(&conmond)?;
        manager.ctl(&["stop", "conmond"])?;
        ensure!(pins.exists() && conmond.run_dir().exists(), "the taps went with the daemon");
        manager.ctl(&["start", "conmond"])?;
        answers(&conmond)?;
        conmond.down()?;
        is_gone_for_good(&conmond, &host)?;
        let state = manager.property("ActiveState")?;
        ensure!(state == "inactive", "the unit is {state}");
        Ok(())
    })
}

/// Who keeps it running whatever happens brings it back after `conmonctl down`, which says so.
#[test]
fn root_what_brings_it_back_is_told_by_down() -> Result<()> {
    root_test("unit that always restarts", |lab| {
        let (host, mut conmond) = host_and_conmond(lab)?;
        let units = installed(&host, &conmond)?;
        fs::write(units.join("conmond.service.d/always.conf"), "[Service]\nRestart=always\n")?;
        let manager = Manager::start(&host, &units)?;
        manager.ctl(&["start", "conmond"])?;
        answers(&conmond)?;
        talk(&host, "shop")?;
        Monitor::of(&conmond, &host, "shop")?;
        down_is_refused(&conmond, &host, "systemctl stop conmond.service", || {
            output(conmond.command().arg("down")).map(drop)
        })?;
        manager.ctl(&["stop", "conmond"])?;
        conmond.down()?;
        is_gone_for_good(&conmond, &host)
    })
}
