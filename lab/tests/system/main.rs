//! The whole product against real containers, held to the truth of who made the traffic: no packet missed from a
//! container's first instruction on, no hole while the daemon or a monitor is dead or another build takes over, names
//! that follow the engine, and a `down` that leaves nothing.
//!
//! Two of them have a longer form, which `make soak` asks for by environment variables: see `starts` and `outage`.

mod api;
mod compose;
mod crowd;
mod discovery;
mod down;
mod early;
mod engine;
mod engine_outage;
mod faults;
mod figures;
mod hosts;
#[path = "../common/left.rs"]
mod left;
mod lives;
mod outage;
mod overlay;
mod starts;
mod state;
mod storm;
mod support;
mod tenants;
mod traffic;
mod translated;
mod upgrade;
