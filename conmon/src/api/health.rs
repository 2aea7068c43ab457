//! Whether the daemon works.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Protocol;

/// Whether the daemon works. HTTP status 200 if `ok` or `degraded`, 503 if `starting`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The verdict.
    pub status: HealthState,
    /// The daemon's version.
    pub version: String,
    /// The instance's name.
    pub instance: String,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// The protocols it speaks; a daemon that does not tell speaks the first.
    #[serde(default)]
    pub protocol: Protocol,
    /// What is wrong, a sentence each; empty if nothing is.
    pub problems: Vec<String>,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Everything works.
    Ok,
    /// Counting goes on, something else does not: see `problems`.
    Degraded,
    /// Containers that run already are still being adopted.
    Starting,
}

impl HealthState {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Starting => "starting",
        }
    }
}
