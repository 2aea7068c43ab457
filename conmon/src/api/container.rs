//! Application containers, and where and since when each is tapped.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The application containers the engine knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContainersAnswer {
    /// When the answer was put together.
    pub generated_at: Timestamp,
    /// The containers, by name.
    pub containers: Vec<Container>,
}

/// One application container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its full id.
    pub id: String,
    /// The tenant: label `conmon.tenant`, else the compose project, else `default`.
    pub tenant: String,
    /// The compose service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The engine's word: `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
    pub state: String,
    /// The networks it is joined to.
    pub networks: Vec<Network>,
    /// The name of the monitoring container that measures it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// In words, what is out of the ordinary: opted out, no port of its own, not yet tapped and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A container's place on one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// The network's name.
    pub name: String,
    /// The container's addresses on it.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// The host-side interface: the port that is tapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// When the port joined its bridge. Absent for a port that was there when the daemon first looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined_at: Option<Timestamp>,
    /// When the link came up: the container's process starts after this. Absent for a port that was up already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_up_at: Option<Timestamp>,
    /// When the tap was in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tapped_at: Option<Timestamp>,
    /// How the tap's programs are attached: `tcx`; `clsact` for a port's first seconds, and on kernels before 6.6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tapped_by: Option<String>,
    /// When the port was known to be this container's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_at: Option<Timestamp>,
    /// From `joined_at` to `tapped_at`, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tapped_after_seconds: Option<f64>,
    /// From the engine's event that tells of the container on this network to `named_at`, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_after_seconds: Option<f64>,
}

/// Which containers are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ContainersQuery {
    /// Only this tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub tenant: Option<String>,
}
