//! The sockets: a Unix socket for the API, a loopback port for the metrics.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another daemon serves it.
    #[error(
        "another conmond of this instance serves {}: stop it (`conmonctl down`), or give this one another name (--instance)",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is in its place.
    #[error("{} is there and is no socket: remove it, or choose another run folder (run_dir)", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The address of a socket holds 107 bytes.
    #[error("the path {} is too long for a socket: choose a shorter run folder (run_dir)", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// One of the steps failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Unix {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reachable from elsewhere.
    #[error(
        "{address} can be reached from other hosts, and `metrics_listen` does not encrypt: listen on 127.0.0.1:{}, or use `listen`, which serves /metrics over TLS",
        address.port()
    )]
    NotLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The port for the API cannot be had.
    #[error("cannot listen on {address} for the API: {source}; choose another address or port (listen)")]
    Tls {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The port cannot be had.
    #[error("cannot listen on {address} for /metrics: {source}; choose another port (metrics_listen)")]
    Tcp {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The API's Unix socket, bound and listening. Dropping it removes the file.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that only our own file is removed.
    identity: (u64, u64),
    /// Held for as long as we listen: two daemons that start at the same time cannot both take a stale socket away.
    lock: std::fs::File,
}

impl ApiSocket {
    /// Listens on `path`, for root and, where there is one, the group with the number `group`. The folder must exist.
    /// The socket of a daemon that has died is replaced, that of one that lives is not.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, ListenError> {
        let failed = |what, source| ListenError::Unix { what, path: path.to_owned(), source };
        let in_use = || ListenError::InUse { path: path.to_owned() };
        let address = UnixAddr::new(path).map_err(|_| ListenError::PathTooLong { path: path.to_owned() })?;

        let lock_path = Self::lock_path(path);
        let lock = loop {
            let lock = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&lock_path)
                .map_err(|source| ListenError::Unix { what: "open", path: lock_path.clone(), source })?;
            lock.try_lock().map_err(|error| match error {
                std::fs::TryLockError::WouldBlock => in_use(),
                std::fs::TryLockError::Error(source) => failed("lock", source),
            })?;
            // who held it last may have removed it in between
            let ours = lock.metadata().map_err(|source| failed("look at the lock of", source))?;
            if std::fs::symlink_metadata(&lock_path)
                .is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino()))
            {
                break lock;
            }
        };

        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at", error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NoSocket { path: path.to_owned() });
            }
            Ok(_) if answers(&address).map_err(|source| failed("connect to", source))? => {
                return Err(in_use());
            }
            Ok(_) => {
                std::fs::remove_file(path).map_err(|source| failed("remove the stale socket", source))?
            }
        }

        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)
            .map_err(|error| failed("make the socket", error.into()))?;
        bind(fd.as_raw_fd(), &address).map_err(|error| failed("bind", error.into()))?;
        let identity = std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()));
        let identity = identity.map_err(|source| failed("look at", source))?;
        // From here on the file is removed when something fails.
        let bound = Self { listener: UnixListener::from(fd), path: path.to_owned(), identity, lock };

        // Nobody can connect before `listen`, so the rights are set in time.
        if let Err(error) = chown(path, None, Some(group.unwrap_or(0))) {
            tracing::warn!(
                error = %error, group = group.unwrap_or(0), path = %path.display(),
                "cannot give the API socket to its group; only root can use it"
            );
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .map_err(|source| failed("set the permissions of", source))?;
        listen(&bound.listener, Backlog::new(128).unwrap_or(Backlog::MAXCONN))
            .map_err(|error| failed("listen on", error.into()))?;
        Ok(bound)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that is locked by who listens on a socket.
    pub fn lock_path(socket: &Path) -> PathBuf {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        path.into()
    }

    /// Removes the socket and keeps its place: nobody can bind it before the answer is dropped.
    pub fn into_lock(self) -> io::Result<std::fs::File> {
        self.lock.try_clone()
    }

    pub(super) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        let ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(error = %error, path = %self.path.display(), "cannot remove the API socket");
        }
    }
}

/// Whether somebody listens there. Does not wait: a full queue is an answer too.
fn answers(address: &UnixAddr) -> io::Result<bool> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), address) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The number of the group `docker`, whose members may use the engine and thus the API: none where there is none.
/// Looked up in the file: name services beyond it are not available to a static executable.
pub fn api_group() -> Option<u32> {
    group_id(&std::fs::read_to_string("/etc/group").ok()?, "docker")
}

fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The loopback port for the metrics, bound and listening.
#[derive(Debug)]
pub struct MetricsSocket {
    listener: TcpListener,
    address: SocketAddr,
}

impl MetricsSocket {
    /// Listens on `address`, which must be a loopback address: what is said there is not encrypted. Port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback { address });
        }
        let failed = |source| ListenError::Tcp { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn listener(&self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.listener.try_clone()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nbroken\ndockers:x:998:\ndocker:x:999:alice,bob\n";
        assert_eq!(group_id(groups, "docker"), Some(999));
        assert_eq!(group_id(groups, "broken"), None);
        assert_eq!(group_id("docker:x:many:\n", "docker"), None);
        assert_eq!(group_id("", "docker"), None);
    }
}
