//! How the clocks of hosts that talk with this one relate to its own.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The other hosts' clocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClocksAnswer {
    /// When the answer was put together.
    #[schema(value_type = String, format = DateTime)]
    pub generated_at: Timestamp,
    /// The host that measures.
    pub host: String,
    /// Each host that talks with this one, by name.
    pub clocks: Vec<HostClock>,
}

/// Another host's clock against this one's, from exchanges of test packets (RFC 8762) over the last [`HostClock::window_seconds`].
///
/// What is absent is not known (yet): `problem` says why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostClock {
    /// The other host.
    pub host: String,
    /// How far the other host's clock (of the time of day) is ahead of this one's, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_seconds: Option<f64>,
    /// How far that can be from the truth, seconds: for certain, while both clocks run evenly. Half of the least round trip, what the time
    /// since then adds to it, and what reading two clocks of a host takes: a difference between the two ways cannot be seen. A step of a clock is seen within 25 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_seconds: Option<f64>,
    /// How much faster the other host's clock runs, parts in a million.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_ppm: Option<f64>,
    /// Half of the range in which that lies for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_bound_ppm: Option<f64>,
    /// The least round trip, without the other host's own time between arrival and answer, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_seconds: Option<f64>,
    /// The time that the packets were sent in, seconds.
    pub window_seconds: f64,
    /// Into how many parts that time had to be cut for both clocks to run evenly in each. More than one: a clock is being steered.
    pub parts: u64,
    /// Test packets sent since the session began.
    pub sent: u64,
    /// Answers to them that came.
    pub answered: u64,
    /// How long ago the newest answer came, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Why there is no value, or no newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What one host's controller tells another so that this one can send it test packets: the session's key goes this way only, over TLS.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClockSession {
    /// The host that answers.
    pub host: String,
    /// UDP port that test packets go to, at the address of the host's API.
    pub port: u16,
    /// Number of the session (RFC 8972 section 3).
    pub ssid: u16,
    /// Key for HMAC-SHA-256 (RFC 8762 section 4.4), 32 octets in hexadecimal.
    pub key: String,
    /// The session ends unless it is asked for again within this time, seconds.
    pub lifetime_seconds: u64,
    /// The answering host's clock that never steps, which the test packets bear, nanoseconds.
    pub monotonic_ns: u64,
    /// Its time of day at the same moment, nanoseconds since 1970 UTC.
    pub unix_ns: u64,
    /// How far that can be from the same moment, nanoseconds.
    pub unix_error_ns: u64,
}

impl std::fmt::Debug for ClockSession {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClockSession")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("ssid", &self.ssid)
            .finish_non_exhaustive()
    }
}
