//! The Monitoring Controller: it knows which containers run, taps their ports, hands what is counted to monitoring
//! containers, and keeps what they report.
//!
//! - [`world`] is what it knows, [`mod@reconcile`] what follows from that: both pure.
//! - [`controller`] is the one thread that does it: it alone changes the world, and says what is tapped and moved.
//! - [`engine`] are the tasks that talk to the container engine. What would keep the controller waiting has threads of its own: [`tapper`]
//!   taps ports, [`rigger`] does to taps what takes long, [`surveyor`] asks the kernel about ports, [`janitor`] settles records that are
//!   over, [`saver`] writes down what outlives the daemon, [`overlays`] finds the
//!   namespaces of overlay networks.
//! - [`shared`] is what others may see, [`view`] how the API sees it, [`cost`] what all of it costs,
//!   `callers` who may call as a monitor.

mod callers;
pub mod controller;
pub mod cost;
pub mod engine;
pub mod janitor;
pub mod overlays;
pub mod persist;
pub mod reconcile;
pub mod reflex;
pub mod rigger;
pub mod saver;
pub mod shared;
pub mod surveyor;
pub mod tapper;
pub mod view;
pub mod world;

pub use reconcile::{Action, reconcile};
pub use shared::Shared;
pub use world::{SetId, SetRole, World};
