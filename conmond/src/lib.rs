//! The ConMon daemon as a library, so that its parts can be tested from outside.

pub mod build;
pub mod clock;
pub mod config;
mod discovery;
pub mod export;
pub mod http;
pub mod mac;
pub mod mc;
pub mod mf;
pub mod monitor;
pub mod nat;
pub mod netlink;
pub mod priority;
pub mod privilege;
pub mod registry;
pub mod runtime;
pub mod scope;
pub mod store;
pub mod switch;
pub mod system;
