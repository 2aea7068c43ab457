//! Internet performance metrics.
