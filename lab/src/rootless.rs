//! A user's own Docker as a host's engine: `dockerd-rootless.sh` as Debian has it, in namespaces of its own, run by a user without rights. The host's
//! network namespace is the engine's: that is where its bridges are.
//!
//! What the user needs of the machine (ranges of further users, a device for the way out) it is given in a mount namespace, so that the machine is as it
//! was. A control group of the lab's name makes every process findable after a crash.

use crate::host::{ENGINE_START, spawn};
use crate::netns::Namespace;
use crate::run::{find_program, output};
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};
use std::fs::{self, File};
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::{Child, Command};

/// Where Debian keeps what starts it.
const SCRIPTS: [&str; 2] =
    ["/usr/share/docker.io/contrib/dockerd-rootless.sh", "/usr/bin/dockerd-rootless.sh"];
/// The user whose engine it is, `nobody`.
const USER: u32 = 65_534;
/// Its further users.
const RANGE: &str = "1000000:65536";

/// As root, in a mount namespace of its own: the lab's name, the host's folder, the engine's script, and its arguments.
const START: &str = r#"set -e
name=$1 dir=$2 script=$3 user=$4
shift 4
for group in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -e "$group/cgroup.procs" ] && mkdir -p "$group/$name" && echo $$ > "$group/$name/cgroup.procs" && break
done 2>/dev/null
mknod "$dir/tun" c 10 200
chmod 666 "$dir/tun"
mount --bind "$dir/tun" /dev/net/tun
for file in /etc/subuid /etc/subgid; do
    mount --bind "$dir/subids" "$file"
done
exec setpriv --reuid="$user" --regid="$user" --clear-groups \
    env -i HOME="$dir/rootless" XDG_RUNTIME_DIR="$dir/rootless" PATH=/usr/sbin:/usr/bin:/sbin:/bin sh "$script" "$@"
"#;

/// The engine's script, if a user's own Docker can run here; the error says what is missing.
pub fn rootless_there() -> Result<&'static str> {
    for (program, package) in
        [("rootlesskit", "rootlesskit"), ("slirp4netns", "slirp4netns"), ("newuidmap", "uidmap")]
    {
        find_program(program, package)?;
    }
    for file in ["/dev/net/tun", "/etc/subuid", "/etc/subgid"] {
        fs::metadata(file).with_context(|| format!("{file}, which a rootless engine needs"))?;
    }
    let script = SCRIPTS.into_iter().find(|script| Path::new(script).exists());
    script.context("dockerd-rootless.sh is missing: run scripts/setup.sh, or `apt-get install docker.io`")
}

/// Why this machine lets no user have an engine of his own, whatever is installed; none if it does.
pub fn rootless_refused() -> Option<String> {
    if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
        return Some(format!("/dev/net/tun: {error}"));
    }
    let mut probe = Command::new("setpriv");
    probe.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()]);
    let refused =
        output(probe.args(["unshare", "--user", "--map-root-user", "--net", "--mount", "true"])).err()?;
    Some(format!("a user may not make namespaces: {refused:#}"))
}

/// Starts it, and gives the engine's network namespace a name of the lab's.
pub(crate) fn start(name: String, dir: &Path) -> Result<(Namespace, Child)> {
    let script = rootless_there()?;
    let own = dir.join("rootless");
    fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    chown(&own, Some(USER), Some(USER)).context("the engine's folder")?;
    let user = User::from_uid(Uid::from_raw(USER))?.context("there is no user `nobody` on this machine")?;
    fs::write(dir.join("subids"), format!("{}:{RANGE}\n", user.name)).context("subids")?;
    symlink(own.join("docker.sock"), dir.join("docker.sock")).context("the engine's socket")?;
    let pid_file = own.join("docker.pid");
    let mut command = Command::new(find_program("unshare", "util-linux")?);
    command.args(["--mount", "--propagation", "slave", "sh", "-c", START, "sh", &name]);
    command.arg(dir).arg(script).arg(USER.to_string());
    command.arg("--data-root").arg(own.join("data")).arg("--pidfile").arg(&pid_file);
    command.arg("--host").arg(format!("unix://{}", own.join("docker.sock").display()));
    // no other driver is sure to work on every file system that a user may have
    command.args(["--storage-driver", "vfs"]);
    let log = dir.join("dockerd.log");
    let mut child = spawn(&mut command, &log)?;
    let attached = wait_for("the engine's process", ENGINE_START, || {
        if let Some(status) = child.try_wait()? {
            bail!("the engine ended ({status}):\n{}", crate::diagnose::tail(&log, 20));
        }
        Ok(fs::read_to_string(&pid_file).ok().filter(|pid| !pid.is_empty()))
    })
    .and_then(|pid| Namespace::of_process(name, pid.trim()));
    match attached {
        Ok(namespace) => Ok((namespace, child)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}
