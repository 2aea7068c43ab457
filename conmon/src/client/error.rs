//! What can go wrong between a client and its daemon, in sentences that say what to do.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::{self, ApiError, Protocol};
#[cfg(feature = "tls")]
use crate::tls::{Complaint, Side, complain, find};

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
    #[error("cannot connect to conmond on {place}: {}", hint(source))]
    Connect {
        /// The socket's path, or the address.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// TLS failed, or one side refused the other's certificate.
    #[cfg(feature = "tls")]
    #[error("no connection to conmond on {place}: {}", complaint.problem)]
    Tls {
        /// The address.
        place: String,
        /// What, and what to do.
        complaint: Box<Complaint>,
    },
    /// No answer in time.
    #[error(
        "conmond on {place} did not answer `{target}` within {} s: see its log, or whether the host is overloaded",
        after.as_secs_f64()
    )]
    Timeout {
        /// The socket's path, or the address.
        place: String,
        /// What was asked for.
        target: String,
        /// The limit.
        after: Duration,
    },
    /// The connection ended before the answer did.
    #[error("conmond on {place} broke off its answer to `{target}`: see its log")]
    Broken {
        /// The socket's path, or the address.
        place: String,
        /// What was asked for.
        target: String,
        /// What HTTP said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon speaks no protocol of ours.
    #[error(
        "conmond on {place} ({version}) speaks protocol {theirs}, and this version ({}) {}: update the older of the two",
        api::PRODUCT,
        Protocol::OURS
    )]
    Version {
        /// The socket's path, or the address.
        place: String,
        /// What it calls itself.
        version: String,
        /// What it speaks.
        theirs: Protocol,
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
    /// The question cannot be written as JSON.
    #[error("cannot write the question for `{target}`")]
    Question {
        /// Where it was to go.
        target: String,
        /// Why not.
        source: serde_json::Error,
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
            _ => Self::Connect { place: socket.display().to_string(), source: error },
        }
    }

    /// No connection over TCP.
    #[cfg(feature = "tls")]
    pub(super) fn reach(place: &str, source: io::Error) -> Self {
        Self::Connect { place: place.to_owned(), source }
    }

    /// No TLS over a connection.
    #[cfg(feature = "tls")]
    pub(super) fn handshake(place: &str, source: io::Error) -> Self {
        match find(&source) {
            Some(error) => {
                Self::Tls { place: place.to_owned(), complaint: Box::new(complain(error, Side::Client)) }
            }
            None => Self::Connect { place: place.to_owned(), source },
        }
    }

    /// The same, about this request.
    pub(super) fn about(self, about: &str) -> Self {
        match self {
            Self::Broken { place, source, .. } => Self::Broken { place, target: about.to_owned(), source },
            other => other,
        }
    }

    /// Whether the daemon could not be reached at all, in contrast to an answer that is a refusal.
    pub fn is_unavailable(&self) -> bool {
        #[cfg(feature = "tls")]
        if matches!(self, Self::Tls { .. }) {
            return true;
        }
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

    /// What to do about it, where that is not part of the message.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Api(problem) => problem.remedy.as_deref(),
            #[cfg(feature = "tls")]
            Self::Tls { complaint, .. } => Some(&complaint.remedy),
            _ => None,
        }
    }
}

/// What the system's word may mean.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there; is conmond running there, with `listen` in its configuration, and is the port right?"
        }
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "it cannot be reached; is the address right, and does a firewall let the port through?"
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "it hung up; it may have too many connections, or be no conmond"
        }
        _ => "is the address right?",
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
