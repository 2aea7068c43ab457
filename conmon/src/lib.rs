//! ConMon's API as data: the types the daemon answers with, the OpenAPI document made of them, and a client. The
//! command line `conmonctl` is built on nothing else, so it can do only what the API offers; beside it, capture files are
//! read.

#![forbid(unsafe_code)]

#[cfg(feature = "capture")]
pub mod analysis;
pub mod api;
#[cfg(feature = "ca")]
pub mod ca;
#[cfg(feature = "capture")]
pub mod capture;
pub mod client;
pub mod instance;
#[cfg(feature = "manual")]
pub mod manual;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tls")]
pub mod token;

pub use api::openapi;
