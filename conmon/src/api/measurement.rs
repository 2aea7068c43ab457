//! Measurements as the monitoring functions report them, before they are put together into pairs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::pair::{DelaySummary, Endpoint, ObservedAt, PairsQuery};

/// The newest measurement of each metric and pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MeasurementsAnswer {
    /// When the answer was put together.
    pub generated_at: Timestamp,
    /// How many measurements passed the filters; more than `measurements` holds when the limit cut some off.
    pub matched: u64,
    /// The measurements, newest first.
    pub measurements: Vec<Measurement>,
}

/// One result of one metric for one pair. Either `value` or `summary` is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Measurement {
    /// The metric's name in the catalogue.
    pub metric: String,
    /// When it was taken.
    pub time: Timestamp,
    /// The side that opened the conversation.
    pub src: Endpoint,
    /// The side that was called.
    pub dst: Endpoint,
    /// Protocol, lower case.
    pub protocol: String,
    /// At whose port.
    pub observed_at: ObservedAt,
    /// The unit of `value`, or of all values in `summary`: `bytes`, `packets`, `segments`, `seconds`, …
    pub unit: String,
    /// How it was measured.
    pub method: String,
    /// A single number. Counts are cumulative since the pair was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Statistics of a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<DelaySummary>,
    /// The name of the monitoring container that reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
}

/// Which measurements are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MeasurementsQuery {
    /// Only this metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub metric: Option<String>,
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
    /// At most this many; 1000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u64>, minimum = 0, maximum = 4_294_967_295u64)]
    pub limit: Option<u32>,
}

impl MeasurementsQuery {
    /// The limit of a request that names none.
    pub const DEFAULT_LIMIT: u32 = 1000;

    /// Whether a measurement passes the filters.
    pub fn admits(&self, measurement: &Measurement) -> bool {
        let ends = PairsQuery {
            src: self.src.clone(),
            dst: self.dst.clone(),
            tenant: self.tenant.clone(),
            ..PairsQuery::default()
        };
        ends.admits(&measurement.src, &measurement.dst)
            && self.metric.as_deref().is_none_or(|metric| metric == measurement.metric)
    }
}
