//! Checks with remedies, and the ledger: where every packet that was observed ended up.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::pair::Count;

/// What the doctor found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorAnswer {
    /// When the checks ran.
    pub generated_at: Timestamp,
    /// The checks, in the order in which their failures would explain each other.
    pub checks: Vec<Check>,
    /// The ledger of all taps. Absent where the daemon could not read its maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// A short name: `engine`, `kernel`, `taps`, `ledger`, …
    pub name: String,
    /// Whether all is well.
    pub ok: bool,
    /// What was found, a sentence.
    pub detail: String,
    /// What to do about it, a sentence. Absent where nothing is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// `observed = selected + not_selected + sum(lost)`, in packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ledger {
    /// Packets the taps saw.
    pub observed: u64,
    /// Of these: counted in a flow or a pair.
    pub selected: u64,
    /// Of these: counted for what they are, but belonging to no pair (ARP, IPv6 neighbour discovery, other protocols than IP).
    pub not_selected: u64,
    /// Of these: not attributed as they should be, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Whether the two sides are equal.
    pub balanced: bool,
}

/// The ledger, as a whole and by port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerAnswer {
    /// When the counters were read.
    pub generated_at: Timestamp,
    /// The ledger of all taps.
    pub ledger: Ledger,
    /// Each tapped port.
    pub ports: Vec<PortLedger>,
}

/// What was counted at one port, beside what its interface counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortLedger {
    /// The host-side interface.
    pub interface: String,
    /// The container's name, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The tenant, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Everything counted from the container.
    pub sent: Count,
    /// Everything counted to the container.
    pub received: Count,
    /// Packets by the place they are counted in: `flow`, `pair`, `overflow`, `arp`, `other`, `malformed`, `nd`.
    pub packets_by_class: BTreeMap<String, u64>,
    /// Packets the interface's own counters saw from the container since it was tapped, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_sent_packets: Option<u64>,
    /// Packets the interface's own counters saw to the container since it was tapped, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_received_packets: Option<u64>,
}
