//! Flow records: one conversation between two transport addresses, both directions (biflow, RFC 5103).

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::pair::{Count, Endpoint, ObservedAt, PairsQuery};

/// Flow records, the one with most bytes first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowsAnswer {
    /// When the answer was put together.
    pub generated_at: Timestamp,
    /// How many records passed the filters; more than `flows` holds when the limit cut some off.
    pub matched: u64,
    /// The records.
    pub flows: Vec<Flow>,
}

/// One flow record. `src` is the side that opened the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// The side that opened the conversation.
    pub src: Endpoint,
    /// The side that was called.
    pub dst: Endpoint,
    /// Protocol, lower case.
    pub protocol: String,
    /// src's address in the packets.
    #[schema(value_type = String)]
    pub src_address: IpAddr,
    /// src's port. Absent where the protocol has none or a fragment did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// dst's address in the packets.
    #[schema(value_type = String)]
    pub dst_address: IpAddr,
    /// dst's port. Absent where the protocol has none or a fragment did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// The other end's own address, where the host translates it: `dst_address` (at src's port) or `src_address` (at dst's)
    /// is what the observing port saw instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub translated_address: Option<IpAddr>,
    /// The other end's own port, where `translated_address` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_port: Option<u16>,
    /// Identifier of an ICMP echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_identifier: Option<u16>,
    /// VLAN id, where the packets are tagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The first packet.
    pub first_seen: Timestamp,
    /// The newest packet; up to one kernel clock tick (10 ms) early.
    pub last_seen: Timestamp,
    /// From src to dst.
    pub sent: Count,
    /// From dst to src.
    pub received: Count,
    /// TCP segments sent again, both directions. Absent for other protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmitted_segments: Option<u64>,
    /// TCP segments that arrived after ones sent later. Absent for other protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reordered_segments: Option<u64>,
    /// All TCP flags src has sent: a subset of `fin syn rst psh ack urg ece cwr`. Absent for other protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_tcp_flags: Option<Vec<String>>,
    /// All TCP flags dst has sent. Absent for other protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_tcp_flags: Option<Vec<String>>,
    /// Whether it goes on.
    pub state: FlowState,
    /// Why it ended (IPFIX flowEndReason, RFC 5102 section 5.11.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Whether "src opened" was inferred from port numbers, because the beginning was not seen.
    pub role_guessed: bool,
    /// At whose port the packets were counted.
    pub observed_at: ObservedAt,
    /// The host-side interface at which they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// Whether a flow goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// Its record is open.
    Active,
    /// Its record is closed.
    Ended,
}

/// IPFIX flowEndReason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// No packet for the idle timeout (1).
    IdleTimeout,
    /// The record was closed at the active timeout; the flow may go on in another (2).
    ActiveTimeout,
    /// The end was seen: FIN both ways, or RST (3).
    EndDetected,
    /// The container or its port has gone (4).
    ForcedEnd,
    /// The record made room for another (5).
    LackOfResources,
}

impl EndReason {
    /// From IPFIX's number.
    pub fn from_ipfix(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::IdleTimeout,
            2 => Self::ActiveTimeout,
            3 => Self::EndDetected,
            4 => Self::ForcedEnd,
            5 => Self::LackOfResources,
            _ => return None,
        })
    }

    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::ActiveTimeout => "active_timeout",
            Self::EndDetected => "end_detected",
            Self::ForcedEnd => "forced_end",
            Self::LackOfResources => "lack_of_resources",
        }
    }
}

/// Which flow records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FlowsQuery {
    /// Only flows opened by this endpoint: name, address, or the first characters (four at least) of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub src: Option<String>,
    /// Only flows towards this endpoint: name, address, or the first characters (four at least) of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub dst: Option<String>,
    /// Only flows with an end in this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub tenant: Option<String>,
    /// Only this protocol, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub protocol: Option<String>,
    /// Only open or only closed records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub state: Option<FlowState>,
    /// Only records of the port of this end. Where both ends have a port here each counts the flow, and there are two
    /// records of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub observed_at: Option<ObservedAt>,
    /// At most this many, those with most bytes; 1000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u64>, minimum = 0, maximum = 4_294_967_295u64)]
    pub limit: Option<u32>,
}

impl FlowsQuery {
    /// The limit of a request that names none.
    pub const DEFAULT_LIMIT: u32 = 1000;

    /// Whether a record passes the filters.
    pub fn admits(&self, flow: &Flow) -> bool {
        let ends = PairsQuery {
            src: self.src.clone(),
            dst: self.dst.clone(),
            tenant: self.tenant.clone(),
            ..PairsQuery::default()
        };
        ends.admits(&flow.src, &flow.dst)
            && self.protocol.as_deref().is_none_or(|protocol| protocol == flow.protocol)
            && self.state.is_none_or(|state| state == flow.state)
            && self.observed_at.is_none_or(|end| end == flow.observed_at)
    }
}

/// The API's word for an IP protocol number (IANA, lower case; `ip-N` for the rare ones).
pub fn protocol_name(number: u8) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        136 => "udplite",
        _ => return Cow::Owned(format!("ip-{number}")),
    })
}
