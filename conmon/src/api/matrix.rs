//! The system snapshot: who talks to whom on all hosts, both ends' counters side by side.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::pair::{Count, Level, Pair};

/// Who talks to whom in the whole system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MatrixAnswer {
    /// When the answer was put together.
    pub generated_at: Timestamp,
    /// Every host that is known, and what of it is in the answer.
    pub hosts: Vec<MatrixHost>,
    /// The pairs, the one with most bytes first.
    pub pairs: Vec<MatrixPair>,
}

/// One host's part in the matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MatrixHost {
    /// The host's name.
    pub name: String,
    /// Whether everything the host knows is in the answer.
    pub complete: bool,
    /// How old the host's part was when the answer was put together, seconds. Absent for a host that did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Why the host's part is missing or not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A pair as in [`super::PairsAnswer`], with what the hosts of its two ends counted. The pair's own values are those of src's host, or of
/// dst's where src's has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MatrixPair {
    /// The pair.
    #[serde(flatten)]
    pub pair: Pair,
    /// The two hosts' counters.
    pub views: Views,
}

/// The counters of a pair at its two ends. Between two hosts both are there once both have answered; what is counted at one
/// end and not at the other was lost on the way, or is on its way still.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Views {
    /// Counted at src's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<HostView>,
    /// Counted at dst's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<HostView>,
}

/// What one host counted of a pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// The host that counted.
    pub host: String,
    /// From src to dst.
    pub sent: Count,
    /// From dst to src.
    pub received: Count,
}

/// Which pairs of the system are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MatrixQuery {
    /// Only pairs with an end in this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub tenant: Option<String>,
    /// At which level pairs are put together; `container` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub level: Option<Level>,
}

impl MatrixQuery {
    /// Whether a pair is wanted.
    pub fn admits(&self, pair: &Pair) -> bool {
        let of = |tenant: &Option<String>| tenant.as_ref() == self.tenant.as_ref();
        self.tenant.is_none() || of(&pair.src.tenant) || of(&pair.dst.tenant)
    }
}
