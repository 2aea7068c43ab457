//! The lab: hosts as network namespaces with container engines of their own, real applications, traffic whose truth
//! is known. Tests, the demo and the evaluation are built on it; it is never shipped.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lab::{App, Lab, Spec};
//! let lab = Lab::start()?;
//! let host = lab.host("h1")?;
//! host.network("front", Some("fd00:1::/64"))?;
//! let web = host.run(&Spec::app("shop-web-1", App::Nginx).network("front").compose("shop", "web"))?;
//! println!("{} has address {}", web.name(), web.ipv4("front")?);
//! println!("removed {}", lab.remove()?);
//! # Ok(()) }
//! ```
//!
//! A [`Lab`] removes all it made when it is dropped. Everything it makes carries its name (`conmon-lab-PID-N…`), so
//! that what a crash leaves is found too: by a guard process at once, or by the sweep at the start of the next lab.

mod bins;
mod capture;
mod cgroup;
mod conmond;
mod container;
mod cpio;
mod diagnose;
mod engine;
mod guard;
mod guarded;
mod host;
mod image;
mod names;
mod netns;
mod pack;
pub mod pcap;
mod podman;
mod root_test;
mod rootless;
mod run;
pub mod sequence;
mod site;
mod stats;
mod tcpdump;
mod teardown;
pub mod traffic;
mod wait;

pub use bins::program;
pub use capture::{Capture, Captured};
pub use cgroup::cgroup_v2;
pub use conmond::{Conmond, ConmondOptions};
pub use container::{Container, Port, Spec};
pub use guard::{Lab, stand_guard};
pub use guarded::{Guarded, Rules};
pub use host::{EngineKind, Host, StoppedEngine};
pub use image::App;
pub use names::LabId;
pub use netns::{Counters, Link, Namespace};
pub use pack::Layer;
pub use podman::podman_there;
pub use root_test::{may_run, root_test, skipped};
pub use rootless::{rootless_refused, rootless_there};
pub use run::{find_program, output, output_text};
pub use site::{Meeting, ROUTED, Site};
pub use stats::{Median, median};
pub use tcpdump::{Counts, Tcpdump};
pub use teardown::{Removed, labs, sweep, traces};
pub use wait::{wait_for, wait_until};
