//! The HTTP API's types: what `conmond` answers and what `conmonctl -o json` prints, to the letter.
//!
//! Names are snake_case, units are base units and part of the name (`_seconds`, `_bytes`, `_ratio`), times are
//! RFC 3339 in UTC. What was not measured is absent: never zero, never null. Answers may gain fields; requests with
//! a parameter that this version does not know are refused, since ignoring a filter would make the answer a lie.

mod clock;
mod container;
mod doctor;
mod document;
mod event;
mod flow;
mod health;
mod matrix;
mod measurement;
mod monitor;
mod pair;
mod peer;
mod problem;
mod protocol;
mod status;

pub use clock::{ClockSession, ClocksAnswer, HostClock};
pub use container::{Container, ContainersAnswer, ContainersQuery, Network};
pub use doctor::{Check, DoctorAnswer, Ledger, LedgerAnswer, PortLedger};
pub use document::openapi;
pub use event::{Event, EventKind, EventsQuery};
pub use flow::{EndReason, Flow, FlowState, FlowsAnswer, FlowsQuery, protocol_name};
pub use health::{Health, HealthState};
pub use matrix::{HostView, MatrixAnswer, MatrixHost, MatrixPair, MatrixQuery, Views};
pub use measurement::{Measurement, MeasurementsAnswer, MeasurementsQuery};
pub use monitor::{Monitor, MonitorMode, MonitorState, MonitorsAnswer, Pool};
pub use pair::{
    Count, DelayBucket, DelaySummary, Endpoint, EndpointKind, HostAnswer, Level, ObservedAt, Pair,
    PairsAnswer, PairsQuery,
};
pub use peer::{Conversation, End, EndsAnswer, EndsQuestion, Socket};
pub use problem::ApiError;
pub use protocol::{Protocol, ProtocolError};
pub use status::{Cost, Counts, EngineStatus, Fill, HookCost, SetStatus, Speed, Status};

/// The routes, as the server mounts them and the client asks for them.
pub mod path {
    /// Application containers: [`super::ContainersAnswer`].
    pub const CONTAINERS: &str = "/v1/containers";
    /// Monitoring containers and the pool: [`super::MonitorsAnswer`].
    pub const MONITORS: &str = "/v1/monitors";
    /// Who talks to whom: [`super::PairsAnswer`].
    pub const PAIRS: &str = "/v1/pairs";
    /// Who talks to whom in the whole system: [`super::MatrixAnswer`].
    pub const MATRIX: &str = "/v1/matrix";
    /// What one host's controller asks another: [`super::EndsQuestion`], answered by [`super::EndsAnswer`].
    pub const ENDS: &str = "/v1/ends";
    /// The clocks of other hosts that talk with this one: [`super::ClocksAnswer`].
    pub const CLOCKS: &str = "/v1/clocks";
    /// What one host's controller asks another before it sends test packets; answered by [`super::ClockSession`].
    pub const CLOCK_SESSION: &str = "/v1/clock-session";
    /// Flow records: [`super::FlowsAnswer`].
    pub const FLOWS: &str = "/v1/flows";
    /// The newest measurements of each pair: [`super::MeasurementsAnswer`].
    pub const MEASUREMENTS: &str = "/v1/measurements";
    /// Live stream of [`super::Event`], one JSON object a line.
    pub const EVENTS: &str = "/v1/events";
    /// Whether the daemon works: [`super::Health`].
    pub const HEALTH: &str = "/v1/health";
    /// Where every packet was counted: [`super::LedgerAnswer`].
    pub const LEDGER: &str = "/v1/ledger";
    /// What the daemon is and what it costs: [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// Checks with remedies: [`super::DoctorAnswer`].
    pub const DOCTOR: &str = "/v1/doctor";
    /// The OpenAPI document of this very API.
    pub const OPENAPI: &str = "/v1/openapi.json";
    /// Prometheus text exposition.
    pub const METRICS: &str = "/metrics";
}

/// Headers of our own, in requests and answers.
pub mod header {
    /// In both: the protocols that this side speaks, [`super::Protocol`] as `MIN-MAX`.
    pub const PROTOCOL: &str = "conmon-protocol";
    /// In requests between controllers: the host that the request speaks for, which must be that of the certificate.
    pub const HOST: &str = "conmon-host";
    /// In requests: answer only with what this tenant may see. It never widens what the asker may see by itself.
    pub const TENANT: &str = "conmon-tenant";
}

/// How we call ourselves in the headers `user-agent` and `server`.
pub const PRODUCT: &str = concat!("conmon/", env!("CARGO_PKG_VERSION"));

/// Media type of the event stream: one JSON object a line.
pub const NDJSON: &str = "application/x-ndjson";
