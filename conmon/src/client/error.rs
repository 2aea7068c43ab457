//! What can go wrong between a client and its daemon, in sentences that say what to do.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::ApiError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no socket.
    #[error("conmond is not running (no socket at {}): start it with `sudo conmonctl up`", socket.display())]
    NotRunning {
        /// The socket's path.
        socket: PathBuf,
    },
    /// There is a socket on which nobody listens.
    #[error(
        "conmond is not running (nobody listens on {}, left by one that ended): start it with `sudo conmonctl up`",
        socket.display()
    )]
    NotListening {
        /// The socket's path.
        socket: PathBuf,
    },
    /// The socket may not be used by this user.
    #[error("you may not talk to conmond on {}: {advice}", socket.display())]
    Permission {
        /// The socket's path.
        socket: PathBuf,
        /// Who may, and how to become one of them.
        advice: String,
    },
    /// Connecting failed in some other way.
    #[error("cannot connect to conmond on {}", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error(
        "conmond on {} did not answer `{target}` within {} s: see its log, or whether the host is overloaded",
        socket.display(), after.as_secs_f64()
    )]
    Timeout {
        /// The socket's path.
        socket: PathBuf,
        /// What was asked for.
        target: String,
        /// The limit.
        after: Duration,
    },
    /// The connection ended before the answer did.
    #[error("conmond on {} broke off its answer to `{target}`: see its log", socket.display())]
    Broken {
        /// The socket's path.
        socket: PathBuf,
        /// What was asked for.
        target: String,
        /// What HTTP said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// conmond answered with a problem.
    #[error(transparent)]
    Api(ApiError),
    /// Refused without one of conmond's problem descriptions.
    #[error(
        "`{target}` was refused with HTTP status {status}: is it conmond, of this version, that listens there?"
    )]
    Refused {
        /// What was asked for.
        target: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer is not what this version expects.
    #[error("cannot read conmond's answer to `{target}`: are conmonctl and conmond of the same version?")]
    Decode {
        /// What was asked for.
        target: String,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// The answer has no end, or one too far away.
    #[error("conmond's answer to `{target}` is larger than {limit_bytes} bytes: ask for less, with a filter")]
    TooLarge {
        /// What was asked for.
        target: String,
        /// The limit.
        limit_bytes: usize,
    },
    /// The filters cannot be written as a query.
    #[error("cannot write the filters as a query")]
    Query {
        /// Why not.
        source: serde_urlencoded::ser::Error,
    },
    /// The request cannot be written.
    #[error("cannot write the request for `{target}`")]
    Request {
        /// What was to be asked for.
        target: String,
        /// Why not.
        source: hyper::http::Error,
    },
}

impl ClientError {
    pub(super) fn connect(socket: &Path, error: io::Error) -> Self {
        let socket = socket.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotRunning { socket },
            io::ErrorKind::ConnectionRefused => Self::NotListening { socket },
            io::ErrorKind::PermissionDenied => Self::Permission { advice: advice(&socket), socket },
            _ => Self::Connect { socket, source: error },
        }
    }

    /// Whether the daemon could not be reached at all, in contrast to an answer that is a refusal.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::NotRunning { .. }
                | Self::NotListening { .. }
                | Self::Permission { .. }
                | Self::Connect { .. }
                | Self::Timeout { .. }
                | Self::Broken { .. }
        )
    }

    /// What to do about it, where conmond itself told.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Api(problem) => problem.remedy.as_deref(),
            _ => None,
        }
    }
}

/// How to become somebody who may use the socket. Names are looked up in the files: name services beyond them are not
/// available to a static executable.
fn advice(socket: &Path) -> String {
    let Ok(metadata) = std::fs::metadata(socket) else { return "use sudo".to_owned() };
    let group_may = metadata.mode() & 0o060 == 0o060;
    if metadata.gid() == 0 || !group_may {
        return "use sudo".to_owned();
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    match group_name(&groups, metadata.gid()) {
        Some(name) => format!(
            "use sudo, or join the group `{name}` (`sudo usermod -aG {name} $USER`, then log in again)"
        ),
        None => format!("use sudo, or join the group with the number {}", metadata.gid()),
    }
}

fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == gid).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::group_name;

    #[test]
    fn groups_are_found_by_number() {
        let groups = "root:x:0:\nbroken line\ndocker:x:999:alice,bob\n";
        assert_eq!(group_name(groups, 999), Some("docker"));
        assert_eq!(group_name(groups, 5), None);
    }
}
