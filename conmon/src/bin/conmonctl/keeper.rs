//! Who keeps a daemon running, as its control groups tell: systemd, by a service, or an engine, by a container. Either may
//! start it again after it was asked to end.

use std::fs;
use std::path::Path;

/// Hexadecimal digits of a container's id, with every engine.
const ID_DIGITS: usize = 64;
/// So many of them name a container.
const SHORT_ID: usize = 12;
/// What engines put at the root of a container's file system.
const MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// What is the parent of a container's first process: of Docker's and containerd's, of Podman's and CRI-O's. The kernel cuts
/// names at 15 characters.
const PARENTS: [&str; 2] = ["containerd-shim", "conmon"];

/// Who may start a process again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// systemd: the name of the service, and whether a user's manager has it.
    Service(String, bool),
    /// An engine: the short id of the container, and whether the engine is Podman.
    Container(String, bool),
}

impl Keeper {
    /// Who keeps a process, while it is there to be asked; none if the same keeps us: it was started there by hand.
    pub fn of_process(pid: i32) -> Option<Self> {
        let of = |who: &str| {
            fs::read_to_string(format!("/proc/{who}/cgroup")).ok().and_then(|groups| Self::of(&groups))
        };
        of(&pid.to_string()).filter(|keeper| of("self").as_ref() != Some(keeper))
    }

    /// Reads `/proc/PID/cgroup`: of the control groups of version 2 if it is in one, else of systemd's own hierarchy, else of any.
    fn of(groups: &str) -> Option<Self> {
        let mut paths: Vec<(u8, &str)> = groups
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':');
                let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
                let rank = match (number, controllers) {
                    ("0", "") => 0,
                    (_, "name=systemd") => 1,
                    _ => 2,
                };
                Some((rank, path))
            })
            .collect();
        paths.sort_by_key(|(rank, _)| *rank);
        let (_, path) = paths.into_iter().find(|(_, path)| !["", "/"].contains(path))?;
        Self::of_path(path)
    }

    /// The innermost one of a control group's path.
    fn of_path(path: &str) -> Option<Self> {
        let mut outer = path;
        while let Some((before, name)) = outer.rsplit_once('/') {
            if let Some((id, engine)) = container(name) {
                return Some(Self::Container(id.to_owned(), engine.starts_with("libpod")));
            }
            if name.ends_with(".service") {
                // a user's manager keeps the user's services, and nothing that is not in one of them
                let of_user = |name: &str| name.starts_with("user@");
                let is_users = before.split('/').any(of_user);
                return (!of_user(name)).then(|| Self::Service(name.to_owned(), is_users));
            }
            outer = before;
        }
        None
    }

    /// How to have it not do so.
    pub fn remedy(&self) -> String {
        match self {
            // a service that starts many things is not one to stop for conmond's sake
            Self::Service(name, _) if !name.starts_with("conmon") => {
                format!("stop what starts conmond in the service {name}")
            }
            Self::Service(name, false) => format!("`systemctl stop {name}`"),
            Self::Service(name, true) => format!("`systemctl --user stop {name}`"),
            Self::Container(id, podman) => {
                let engine = if *podman { "podman" } else { "docker" };
                format!("`{engine} stop {id}` (or stop it with what started the container)")
            }
        }
    }
}

/// The short id of the container that a control group is of, and what the engine puts before it: `ID`, `docker-ID.scope`,
/// `kubepods-….slice:cri-containerd:ID`.
fn container(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (engine, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| (&id[..SHORT_ID], engine))
}

/// Whether a process is the first one of the container that we are in: it ends with it, and so would we.
pub fn ends_with_us(pid: i32) -> bool {
    let read = |who: &str, file: &str| fs::read_to_string(format!("/proc/{who}/{file}")).unwrap_or_default();
    let mounts = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt")).ok();
    let status = read(&pid.to_string(), "status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default().trim();
    // the engine's own process for each container, where it can be seen
    let of_engine = parent == "0" || PARENTS.contains(&read(parent, "comm").trim());
    let marked = MARKS.iter().any(|mark| Path::new(mark).exists());
    marked && of_engine && mounts("self").is_some_and(|ours| mounts(&pid.to_string()) == Some(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_containers_are_told_by_control_groups() {
        let id = "0123456789abcdef".repeat(4);
        let docker = Some(Keeper::Container("0123456789ab".into(), false));
        let podman = Some(Keeper::Container("0123456789ab".into(), true));
        let service = |name: &str| Some(Keeper::Service(name.into(), false));
        let users = |name: &str| Some(Keeper::Service(name.into(), true));
        let user = "/user.slice/user-1000.slice/user@1000.service";
        for (groups, keeper) in [
            ("0::/system.slice/conmond.service\n".to_owned(), service("conmond.service")),
            (format!("5:pids:{user}\n0::{user}/app.slice/conmond.service"), users("conmond.service")),
            // a terminal in a user's session
            (format!("5:pids:{user}\n0::{user}/app.slice/app-terminal-7.scope"), None),
            (
                "4:pids:/system.slice/ssh.service\n0::/user.slice/user-0.slice/session-3.scope".to_owned(),
                None,
            ),
            (format!("0::/system.slice/docker-{id}.scope"), docker.clone()),
            (format!("9:memory:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/"), docker.clone()),
            (format!("9:memory:/docker/{id}\n0::/"), docker.clone()),
            (format!("0::/kubepods.slice/cri-containerd-{id}.scope"), docker.clone()),
            (format!("0::/kubepods-burstable-pod1.slice:cri-containerd:{id}"), docker.clone()),
            (format!("0::/../{id}"), docker.clone()),
            (format!("0::/docker/{id}/init.scope"), docker),
            // systemd in a container
            (format!("0::/docker/{id}/system.slice/conmond.service"), service("conmond.service")),
            (format!("0::/machine.slice/libpod-{id}.scope/container"), podman.clone()),
            (format!("0::/system.slice/web.service/libpod-payload-{id}"), podman),
            ("0::/user.slice/user-0.slice/session-3.scope".to_owned(), None),
            ("0::/\n".to_owned(), None),
            (format!("0::/docker/{}", &id[1..]), None),
            ("garbage\n::\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(Keeper::of(&groups), keeper, "{groups}");
        }
    }

    #[test]
    fn what_to_stop_is_conmonds_own() {
        let service = |name: &str, users| Keeper::Service(name.to_owned(), users).remedy();
        assert_eq!(service("conmond.service", false), "`systemctl stop conmond.service`");
        assert_eq!(service("conmond@two.service", true), "`systemctl --user stop conmond@two.service`");
        assert!(!service("ssh.service", false).contains("systemctl"));
        assert!(Keeper::Container("abc".into(), true).remedy().contains("podman stop abc"));
    }
}
