//! What controllers ask each other: who is behind the far end of a conversation between two hosts.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::pair::EndpointKind;

/// Conversations between two hosts, each with its end at the asker, whose other ends are asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndsQuestion {
    /// At most [`EndsQuestion::MOST`].
    pub conversations: Vec<Conversation>,
}

impl EndsQuestion {
    /// Most conversations in one question.
    pub const MOST: usize = 1024;
}

/// A conversation as it is between the two hosts: behind the translation of the one, and before that of the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// IP protocol number.
    pub protocol: u8,
    /// Where the opener's packets come from.
    pub opener: Socket,
    /// Where they go to.
    pub called: Socket,
    /// Whether the asker has the opener's end; else it has the called one's.
    pub asker_opened: bool,
    /// How long ago the first packet was seen, seconds. An age, since the clocks of the two hosts differ.
    pub first_seen_age_seconds: f64,
    /// How long ago the newest was, seconds.
    pub last_seen_age_seconds: f64,
    /// The asker's end.
    pub asker: End,
}

/// An address and a port; the port is 0 where the protocol has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Socket {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

/// An end as its own host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct End {
    /// A container, or the host itself.
    pub kind: EndpointKind,
    /// Its name.
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
    /// Its own address and port, behind its host's translation.
    pub at: Socket,
}

/// The other ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndsAnswer {
    /// The answering host.
    pub host: String,
    /// For each conversation asked for, in that order: its end here, where it is known.
    pub ends: Vec<Option<End>>,
}
