//! Pairs: two endpoints that talk, with what was counted and how fast the network answered.

use std::net::IpAddr;

use ippm::histogram::{Histogram, RELATIVE_ERROR};
use ippm::time::seconds;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Who talks to whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PairsAnswer {
    /// When the answer was put together.
    pub generated_at: Timestamp,
    /// The hosts asked, and whether each answered in full.
    pub hosts: Vec<HostAnswer>,
    /// The interval over which the pairs' rates were taken, seconds. Absent until two readings exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_interval_seconds: Option<f64>,
    /// The pairs, the one with most bytes first.
    pub pairs: Vec<Pair>,
}

/// One host's part in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostAnswer {
    /// The host's name.
    pub name: String,
    /// Whether everything the host knows is in the answer.
    pub complete: bool,
}

/// Two endpoints that talk. `src` is the one that opened the conversation. A conversation is in one pair only: where
/// both ends are containers of one host it is counted at src's port, so sums over pairs count nothing twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pair {
    /// The side that opened the conversation.
    pub src: Endpoint,
    /// The side that was called.
    pub dst: Endpoint,
    /// Protocols seen, lower case: `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, …
    pub protocols: Vec<String>,
    /// The first packet.
    pub first_seen: Timestamp,
    /// The newest packet; up to one kernel clock tick (10 ms) early.
    pub last_seen: Timestamp,
    /// From src to dst.
    pub sent: Count,
    /// From dst to src.
    pub received: Count,
    /// TCP segments sent again, both directions. Absent where no TCP was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmitted_segments: Option<u64>,
    /// Those of them that went from src to dst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_retransmitted_segments: Option<u64>,
    /// Those of them that went from dst to src.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_retransmitted_segments: Option<u64>,
    /// TCP segments that arrived after ones sent later. Absent where no TCP was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reordered_segments: Option<u64>,
    /// Round-trip delay of the leg from the observed port to dst and back: data by src, acknowledged by dst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_seconds: Option<DelaySummary>,
    /// Round-trip delay of the leg from the observed port to src and back: data by dst, acknowledged by src. At src's own
    /// port this is the way into src's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_rtt_seconds: Option<DelaySummary>,
    /// From SYN to SYN/ACK on the leg from the observed port to dst and back; retransmitted handshakes are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_rtt_seconds: Option<DelaySummary>,
    /// From SYN/ACK to its acknowledgement on the leg from the observed port to src and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_handshake_rtt_seconds: Option<DelaySummary>,
    /// Flow records begun. A flow that outlives the active timeout begins more than one.
    pub flows: u64,
    /// Flow records open now.
    pub active_flows: u64,
    /// Whether "src opened" was inferred from port numbers, because the beginning was not seen.
    pub role_guessed: bool,
    /// At whose port the packets were counted.
    pub observed_at: ObservedAt,
    /// What that port saw in place of the other end, where the host translates addresses: the published `address:port`
    /// that was called, or the address behind which the caller was hidden.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    /// Bytes per second from src to dst, over the answer's `rate_interval_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes_per_second: Option<f64>,
    /// Bytes per second from dst to src, over the same interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes_per_second: Option<f64>,
    /// Packets per second from src to dst, over the same interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_packets_per_second: Option<f64>,
    /// Packets per second from dst to src, over the same interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_packets_per_second: Option<f64>,
}

/// One end of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// What it is.
    pub kind: EndpointKind,
    /// The container's, service's, tenant's or host's name; `multicast` or the address prefix's name for a peer outside.
    pub name: String,
    /// The container's full id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The compose service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The host it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Addresses seen in this conversation.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
}

impl Endpoint {
    /// The name of the external endpoint that stands for multicast and link-local destinations.
    pub const MULTICAST: &'static str = "multicast";

    /// Whether a filter's text means this endpoint: its name, one of its addresses, or the first characters
    /// (four at least) of its id.
    pub fn matches(&self, text: &str) -> bool {
        self.name == text
            || self.id.as_deref().is_some_and(|id| text.len() >= 4 && id.starts_with(text))
            || text.parse::<IpAddr>().is_ok_and(|address| self.addresses.contains(&address))
    }

    /// Whether it is the stand-in for multicast and link-local destinations: neighbour discovery, mDNS and their like.
    pub fn is_multicast(&self) -> bool {
        self.kind == EndpointKind::External && self.name == Self::MULTICAST
    }
}

/// What an endpoint is. At container level one of the first four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndpointKind {
    /// An application container.
    Container,
    /// The host itself, or in a `level=host` answer everything on it.
    Host,
    /// A peer that is neither a container nor a host that ConMon knows.
    External,
    /// The engine's embedded name server.
    Dns,
    /// All containers of a service, in a `level=service` answer.
    Service,
    /// All containers of a tenant, in a `level=tenant` answer.
    Tenant,
}

impl EndpointKind {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Host => "host",
            Self::External => "external",
            Self::Dns => "dns",
            Self::Service => "service",
            Self::Tenant => "tenant",
        }
    }
}

/// Which end's port the packets of a pair were counted at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObservedAt {
    /// The port of the side that opened the conversation.
    Src,
    /// The port of the side that was called, since the other has none here: its `rtt_seconds` is the short way into
    /// dst's container, `near_rtt_seconds` the long one.
    Dst,
}

/// Traffic in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// Bytes of the frames from the link header on, as the port's interface counters count.
    pub bytes: u64,
    /// Packets as the host's stack handles them: one with segmentation offload may stand for many on a wire.
    pub packets: u64,
    /// Packets as a wire would carry them: offloaded packets count as their segments.
    pub segments: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.packets = self.packets.saturating_add(other.packets);
        self.segments = self.segments.saturating_add(other.segments);
    }
}

/// Statistics of a sample of delays since the pair was first seen. All values in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DelaySummary {
    /// The smallest singleton.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The largest singleton.
    pub max: f64,
    /// Number of singletons.
    pub count: u64,
    /// How they were measured, by the name in the metric catalogue.
    pub method: String,
    /// Bound of the percentiles' relative error, from the width of the histogram's buckets; `min` and `max` are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_error_ratio: Option<f64>,
    /// How the sample is distributed: the histogram's buckets that hold something, ascending. Only where the request
    /// asked for `histograms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<DelayBucket>>,
}

impl DelaySummary {
    /// Statistics of the delays in a histogram, none without a singleton. `method` is the catalogue's name for them.
    pub fn of(delays: &Histogram, method: &str) -> Option<Self> {
        let quantile = |q| delays.quantile(q).map(seconds);
        Some(Self {
            min: seconds(delays.min_ns()?),
            p50: quantile(0.5)?,
            p90: quantile(0.9)?,
            p99: quantile(0.99)?,
            max: seconds(delays.max_ns()?),
            count: delays.count(),
            method: method.to_owned(),
            relative_error_ratio: Some(RELATIVE_ERROR),
            buckets: None,
        })
    }
}

/// How many singletons lie between two delays.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DelayBucket {
    /// The smallest delay that is counted here, seconds.
    pub from_seconds: f64,
    /// The smallest delay that no longer is, seconds. Absent in the last bucket, which has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_seconds: Option<f64>,
    /// Number of singletons.
    pub count: u64,
}

impl DelayBucket {
    /// A histogram's buckets that hold something, ascending.
    pub fn all(delays: &Histogram) -> Vec<Self> {
        let bucket = |(from, to, count)| Self {
            from_seconds: seconds(from),
            to_seconds: (to != u64::MAX).then(|| seconds(to)),
            count,
        };
        delays.ranges().map(bucket).collect()
    }
}

/// At which level pairs are put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One row for each two containers (or peers).
    #[default]
    Container,
    /// Containers of one service together; those without a service by themselves.
    Service,
    /// Everything on a host together.
    Host,
    /// Containers of one tenant together.
    Tenant,
}

impl Level {
    /// The word used in JSON and in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Service => "service",
            Self::Host => "host",
            Self::Tenant => "tenant",
        }
    }
}

/// Which pairs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PairsQuery {
    /// Only pairs opened by this endpoint: name, address, or the first characters (four at least) of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub src: Option<String>,
    /// Only pairs towards this endpoint: name, address, or the first characters (four at least) of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub dst: Option<String>,
    /// Only pairs with an end in this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub tenant: Option<String>,
    /// At which level pairs are put together; `container` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub level: Option<Level>,
    /// Whether each delay comes with its distribution (`buckets`); `false` if absent. It makes the answer several times
    /// as large: ask so for few pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histograms: Option<bool>,
}

impl PairsQuery {
    /// Whether a conversation between these endpoints is wanted.
    pub fn admits(&self, src: &Endpoint, dst: &Endpoint) -> bool {
        self.src.as_deref().is_none_or(|text| src.matches(text))
            && self.dst.as_deref().is_none_or(|text| dst.matches(text))
            && self.tenant.as_deref().is_none_or(|tenant| {
                src.tenant.as_deref() == Some(tenant) || dst.tenant.as_deref() == Some(tenant)
            })
    }
}
