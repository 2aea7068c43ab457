//! The live stream: what happens to containers, ports, monitors and flows, one JSON object a line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One thing that happened. Which fields are there depends on the kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows by one with each event since the daemon started; gaps are events that were not asked for or were dropped.
    pub sequence: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// In words.
    pub text: String,
    /// The application container's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The network's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The host-side interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The monitoring container's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// From the cause (link message, engine event) to the effect named by the kind, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seconds: Option<f64>,
    /// In a `dropped` event: how many events this reader missed because it read too slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The engine has started a container, or one was found running.
    ContainerStarted,
    /// A container has ended.
    ContainerStopped,
    /// A container has another name.
    ContainerRenamed,
    /// A port is tapped.
    PortTapped,
    /// A port is known to be a container's.
    PortNamed,
    /// A port has gone.
    PortGone,
    /// A port could not be tapped.
    PortRefused,
    /// A monitoring container is ready in the pool.
    MonitorReady,
    /// A monitoring container has begun to measure a tenant.
    MonitorAssigned,
    /// A monitoring container was lost: killed, hung or out of memory.
    MonitorLost,
    /// A flow has begun.
    FlowBegun,
    /// A flow has ended.
    FlowEnded,
    /// The engine answers.
    EngineConnected,
    /// The engine does not answer.
    EngineLost,
    /// This reader was too slow: `dropped` events are missing here.
    Dropped,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::ContainerStarted,
        Self::ContainerStopped,
        Self::ContainerRenamed,
        Self::PortTapped,
        Self::PortNamed,
        Self::PortGone,
        Self::PortRefused,
        Self::MonitorReady,
        Self::MonitorAssigned,
        Self::MonitorLost,
        Self::FlowBegun,
        Self::FlowEnded,
        Self::EngineConnected,
        Self::EngineLost,
        Self::Dropped,
    ];

    /// The word used in JSON and in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContainerStarted => "container_started",
            Self::ContainerStopped => "container_stopped",
            Self::ContainerRenamed => "container_renamed",
            Self::PortTapped => "port_tapped",
            Self::PortNamed => "port_named",
            Self::PortGone => "port_gone",
            Self::PortRefused => "port_refused",
            Self::MonitorReady => "monitor_ready",
            Self::MonitorAssigned => "monitor_assigned",
            Self::MonitorLost => "monitor_lost",
            Self::FlowBegun => "flow_begun",
            Self::FlowEnded => "flow_ended",
            Self::EngineConnected => "engine_connected",
            Self::EngineLost => "engine_lost",
            Self::Dropped => "dropped",
        }
    }
}

/// Which events are wanted. The stream begins with the recent ones that the daemon still holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Whether the stream goes on with what happens from now; `false` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Only this kind. `dropped` events are sent all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub kind: Option<EventKind>,
    /// Only this tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub tenant: Option<String>,
}

impl EventsQuery {
    /// Whether an event passes the filters.
    pub fn admits(&self, event: &Event) -> bool {
        event.kind == EventKind::Dropped
            || (self.kind.is_none_or(|kind| kind == event.kind)
                && self.tenant.as_deref().is_none_or(|tenant| event.tenant.as_deref() == Some(tenant)))
    }
}
