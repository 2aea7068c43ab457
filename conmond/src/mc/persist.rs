//! What outlives the daemon beside the pins: roles of sets, taps' times and baselines, names. One file, replaced whole.
//!
//! It is of this boot only: times are monotonic, and pins do not outlive a boot either. A file of another boot is
//! ignored.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ippm::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::world::{PortOwner, SetRole};
use crate::store::{SavedNames, SavedShare};

/// Layout of the file.
const VERSION: u32 = 1;

/// Packets that an interface had received and sent at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedStats {
    /// Received, packets and bytes.
    pub rx: (u64, u64),
    /// Sent, packets and bytes.
    pub tx: (u64, u64),
}

/// A tapped port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedPort {
    /// Since when.
    pub tapped_at: Timestamp,
    /// When it joined its bridge.
    pub joined_at: Option<Timestamp>,
    /// When it came up.
    pub up_at: Option<Timestamp>,
    /// Whose it is.
    pub owner: Option<PortOwner>,
    /// The interface's counters before and after the tap was put on.
    pub baseline: Option<(SavedStats, SavedStats)>,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    boot: String,
    /// When it was written: everything that its writer was told until then is in it.
    #[serde(default)]
    pub at: Timestamp,
    /// Sets by number.
    pub sets: BTreeMap<u32, SetRole>,
    /// Ports by ifindex.
    pub ports: BTreeMap<u32, SavedPort>,
    /// Names.
    pub names: SavedNames,
    /// Whose share of a pair's record is whose, where addresses are translated.
    #[serde(default)]
    pub shares: Vec<SavedShare>,
    /// Files of the overlay networks' namespaces, by our names for them.
    #[serde(default)]
    pub overlays: BTreeMap<String, PathBuf>,
}

/// The kernel's name for this boot.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

impl Saved {
    /// Of this boot.
    pub fn new(
        at: Timestamp,
        sets: BTreeMap<u32, SetRole>,
        ports: BTreeMap<u32, SavedPort>,
        names: SavedNames,
        shares: Vec<SavedShare>,
        overlays: BTreeMap<String, PathBuf>,
    ) -> Self {
        Self { version: VERSION, boot: boot_id(), at, sets, ports, names, shares, overlays }
    }

    /// What is there of this boot; nothing is there on a first start.
    pub fn load(path: &Path) -> Option<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(e) => {
                if e.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), error = %e, "the saved state cannot be read; names of what has gone are lost");
                }
                return None;
            }
        };
        match serde_json::from_slice::<Saved>(&text) {
            Ok(saved) if saved.version == VERSION && saved.boot == boot_id() => Some(saved),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the saved state is damaged; names of what has gone are lost");
                None
            }
        }
    }

    /// Replaces the file.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let next: PathBuf = path.with_extension("next");
        fs::write(&next, serde_json::to_vec(self)?)?;
        tap::fault::point("state.written");
        fs::rename(&next, path)
    }
}
