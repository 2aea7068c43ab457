//! Results for other systems. So far one that is asked (pull): Prometheus.

pub mod prometheus;
mod series;
