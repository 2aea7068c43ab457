//! What hosts say to each other.
//!
//! ```text
//! a ── Hello: who is there, and how far I know each ──▶ b
//! a ◀── Reply: the same of b, and what a lacks ──────── b
//! a ── Rest: what b lacks ────────────────────────────▶ b
//! ```

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One start of a conmond. Of two with one host's name the later one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// When it started.
    pub start_ns: u64,
    /// A random number.
    pub epoch: u64,
}

/// How far a host is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The host.
    pub name: String,
    /// Its start.
    pub life: Life,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Grows as long as it lives.
    pub heartbeat: u64,
    /// All its rows up to this version are known.
    pub version: u64,
    /// Rows up to this version may have been forgotten.
    pub floor: u64,
    /// It has said that it leaves.
    pub left: bool,
}

/// A row, under the key that it has in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The version that wrote it.
    pub version: u64,
}

/// Rows of one host, by version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The host.
    pub name: String,
    /// Its start.
    pub life: Life,
    /// For whoever knows all up to this version.
    pub from: u64,
    /// These are the first of all its rows: what is not among them and those that follow is no more.
    pub anew: bool,
    /// Rows up to this version may have been forgotten.
    pub floor: u64,
    /// The rows.
    pub rows: Vec<Row>,
    /// With them, all up to this version is known.
    pub upto: u64,
    /// There are no more.
    pub last: bool,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Who is there.
    Hello(Vec<Summary>),
    /// Who is there, and what you lack.
    Reply(Vec<Summary>, Vec<Part>),
    /// What you lack.
    Rest(Vec<Part>),
}

impl Message {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// What was sent; none if it is no message of this version.
    pub fn decode(octets: &[u8]) -> Option<Self> {
        postcard::from_bytes(octets).ok()
    }
}
