//! Definitions of the IETF's performance metrics as code: from singletons to statistics (RFC 2330 section 11).

pub mod proportion;
pub mod reordering;
pub mod student;
pub mod variation;
