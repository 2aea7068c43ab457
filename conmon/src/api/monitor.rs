//! Passive monitoring containers (PM containers) and the pool of those that wait.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The monitoring containers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MonitorsAnswer {
    /// When the answer was put together.
    pub generated_at: Timestamp,
    /// Containers that wait for a tenant.
    pub pool: Pool,
    /// All of them, waiting ones too, by name.
    pub monitors: Vec<Monitor>,
}

/// Started monitoring containers that wait, so that a new tenant costs no container start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Waiting and ready.
    pub ready: u32,
    /// How many shall be.
    pub wanted: u32,
}

/// One monitoring container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Monitor {
    /// The container's name.
    pub name: String,
    /// The container's full id. Absent until the engine has created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tenant it measures. Absent while it waits in the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The one application container it measures, by name, when it is dedicated to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Whether it serves one application container or its whole tenant.
    pub mode: MonitorMode,
    /// What it does now.
    pub state: MonitorState,
    /// The monitoring functions it runs.
    pub functions: Vec<String>,
    /// When its last report came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_report_at: Option<Timestamp>,
    /// How long ago that was, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_report_age_seconds: Option<f64>,
    /// How often this tenant's monitoring container had to be replaced.
    pub restarts: u32,
    /// Memory its control group holds, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Whom a monitoring container serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MonitorMode {
    /// All of its tenant's containers.
    Shared,
    /// One container, asked for by the label `conmon.monitor=dedicated`.
    Dedicated,
    /// None: the daemon itself runs these functions, for ports whose tenant is not yet known, and for tenants whose
    /// monitoring container cannot be had.
    Host,
}

/// What a monitoring container does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MonitorState {
    /// The engine is creating or starting it, or it has not yet called.
    Starting,
    /// Waits in the pool.
    Ready,
    /// Measures a tenant and reports.
    Working,
    /// Should report and does not; it will be replaced. The kernel goes on counting.
    Silent,
    /// Has ended or is being removed.
    Gone,
}
