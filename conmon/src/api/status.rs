//! What the daemon is, what it watches, and what it costs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::monitor::Pool;
use super::pair::DelaySummary;

/// What the daemon is, what it watches, and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The instance's name.
    pub instance: String,
    /// The host's name.
    pub host: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// When the oldest tap was put in place: counting has gone on since, restarts of the daemon notwithstanding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counting_since: Option<Timestamp>,
    /// Kernel release.
    pub kernel: String,
    /// How the programs are attached: `tcx` (after a port's first seconds), or `clsact` on kernels before 6.6.
    pub attachment: String,
    /// The container engine.
    pub engine: EngineStatus,
    /// How much of each there is.
    pub counts: Counts,
    /// What ConMon itself costs.
    pub cost: Cost,
    /// The kernel's tables: one set for each tenant, the nursery and the waiting ones.
    pub sets: Vec<SetStatus>,
    /// How fast the daemon followed what happened since it started.
    #[serde(default)]
    pub speed: Speed,
    /// Monitoring containers that wait.
    pub pool: Pool,
    /// What is wrong, a sentence each; empty if nothing is.
    pub problems: Vec<String>,
}

/// How fast the daemon followed what happened since it started. Absent where nothing of the kind has happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Speed {
    /// From a port's joining a bridge to its tap; 0 where it was tapped before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tapped_after_seconds: Option<DelaySummary>,
    /// From the engine's event that tells of a container on a network, or the link's coming up if that is later, to the
    /// port's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_after_seconds: Option<DelaySummary>,
    /// From the engine's event that a container ended until that was acted on and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_after_seconds: Option<DelaySummary>,
    /// From reading the engine's event that a container ended until that was acted on and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reacted_after_seconds: Option<DelaySummary>,
    /// From the kernel's message that a tapped port is gone until nothing was counted in its records any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_after_seconds: Option<DelaySummary>,
}

/// The container engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EngineStatus {
    /// `docker` or `podman`.
    pub name: String,
    /// Where it is asked, for example `unix:///var/run/docker.sock`.
    pub address: String,
    /// Whether it answers.
    pub connected: bool,
    /// Its version, once it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How much of each there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// Running application containers.
    pub containers: u64,
    /// Tenants with a running container.
    pub tenants: u64,
    /// Tapped ports.
    pub ports: u64,
    /// Pairs, at container level.
    pub pairs: u64,
    /// Open flow records.
    pub active_flows: u64,
    /// Monitoring containers, waiting ones too.
    pub monitors: u64,
}

/// What ConMon itself costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cost {
    /// Run time of the programs in the packets' path, by the kernel's own statistics during the last sampling moment.
    pub hooks: Vec<HookCost>,
    /// CPU time of the daemon and all monitoring containers, as a share of one CPU, over the last interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ratio: Option<f64>,
    /// Memory held by the daemon and all monitoring containers, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Memory held by maps in the kernel, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_memory_bytes: Option<u64>,
    /// When the hooks were sampled. The statistics are on for moments only, since they cost as much as the programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_at: Option<Timestamp>,
}

/// One program's run time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HookCost {
    /// The program's name.
    pub name: String,
    /// Runs (packets) while it was sampled.
    pub runs: u64,
    /// Nanoseconds per run. Absent where no packet came by while it was sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_per_run: Option<f64>,
}

/// One set of kernel tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetStatus {
    /// The set's name.
    pub name: String,
    /// The tenant it serves. Absent for the nursery and for waiting sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Flow slots.
    pub flows: Fill,
    /// Pair slots.
    pub pairs: Fill,
    /// Port slots.
    pub ports: Fill,
    /// Delay histogram slots.
    pub histograms: Fill,
    /// Memory the set holds in the kernel, bytes.
    pub memory_bytes: u64,
}

/// How full a table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fill {
    /// Slots taken.
    pub used: u64,
    /// Slots there are.
    pub capacity: u64,
}

impl Fill {
    /// Share of the slots that are taken, 0 to 1.
    pub fn ratio(self) -> f64 {
        if self.capacity == 0 { 0.0 } else { self.used as f64 / self.capacity as f64 }
    }
}
