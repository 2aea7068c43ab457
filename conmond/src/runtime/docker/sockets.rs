//! Where an engine's socket is looked for when nobody says which one to use.
//!
//! Only sockets of engines that run as root are taken: their bridges lie in the network namespace that most hosts
//! have only one of. A rootless engine has a network namespace of its own, so conmond would tap nothing if it merely
//! talked to it; such sockets are looked for all the same, to be told of.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Docker's own, first of all: the one that is named where there is none.
pub const DOCKER: &str = "/var/run/docker.sock";
/// Sockets of engines that run as root, the most usual first.
const ROOT: [&str; 2] = [DOCKER, "/run/podman/podman.sock"];
/// Where each user has a folder for sockets.
const USERS: &str = "/run/user";
/// Sockets of rootless engines in a user's folder.
const ROOTLESS: [&str; 2] = ["docker.sock", "podman/podman.sock"];

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The socket to use.
    pub socket: Option<PathBuf>,
    /// Where sockets of engines that run as root were looked for.
    pub looked: Vec<PathBuf>,
    /// Sockets of rootless engines.
    pub rootless: Vec<PathBuf>,
}

/// Looks at the usual places. `root` is `/` but in tests.
pub fn look(root: &Path) -> Found {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let looked: Vec<PathBuf> = ROOT.map(at).to_vec();
    let socket = looked.iter().find(|path| is_socket(path)).cloned();
    let users = fs::read_dir(at(USERS)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut rootless: Vec<PathBuf> =
        users.flat_map(|user| ROOTLESS.map(|path| user.join(path))).filter(|path| is_socket(path)).collect();
    rootless.sort();
    Found { socket, looked, rootless }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn bind(root: &Path, path: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        drop(UnixListener::bind(&path).expect("a socket"));
        path
    }

    #[test]
    fn dockers_socket_comes_first_and_rootless_ones_are_only_told() {
        let root = std::env::temp_dir().join(format!("conmond-sockets-{}", std::process::id()));
        let user = bind(&root, "run/user/1000/podman/podman.sock");
        let nothing = look(&root);
        assert_eq!((nothing.socket, &nothing.rootless[..]), (None, &[user.clone()][..]));
        assert_eq!(nothing.looked, [root.join("var/run/docker.sock"), root.join("run/podman/podman.sock")]);
        let podman = bind(&root, "run/podman/podman.sock");
        assert_eq!(look(&root).socket, Some(podman));
        // what is there, but is no socket, is not taken
        let docker = root.join("var/run/docker.sock");
        fs::create_dir_all(&docker).expect("a folder");
        assert_ne!(look(&root).socket, Some(docker.clone()));
        fs::remove_dir(&docker).expect("removed");
        assert_eq!(bind(&root, "var/run/docker.sock"), docker);
        let rootless = bind(&root, "run/user/1000/docker.sock");
        let all = look(&root);
        fs::remove_dir_all(&root).expect("removed");
        assert_eq!((all.socket, all.rootless), (Some(docker), vec![rootless, user]));
    }
}
