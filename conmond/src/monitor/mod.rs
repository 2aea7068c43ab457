//! Monitoring: where monitoring functions run, and how their findings reach the controller (MC).
//!
//! - [`protocol`]: the messages between the MC and a passive monitoring (PM) container.
//! - [`serve`]: the MC's side of one PM container.
//! - [`run`]: the PM container's side: what `conmond monitor` does.
//! - [`inline`]: the same functions on a thread of the MC, for ports whose tenant is not known yet.
//! - [`observe`]: what the two hosts of monitoring functions have in common: one set, read and judged.

use std::sync::Arc;

use ippm::measurement::Batch;

pub mod inline;
pub mod observe;
pub mod protocol;
pub mod run;
pub mod serve;
pub mod user;

pub use inline::Inline;
pub use protocol::{Alive, MfSettings};
pub use serve::{Fault, ServeError, Served};

/// What a slot's monitoring functions, or their host, told.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which slot.
    pub slot: Arc<str>,
    /// What.
    pub what: What,
}

/// Kinds of [`Report`].
#[derive(Clone, Debug)]
pub enum What {
    /// A monitor connected, showed the right version and was handed the set. `pid` is as the MC sees it.
    Connected {
        /// Its process.
        pid: i32,
    },
    /// What changed, within the limits of [`Batch::check`] and of the set's sizes.
    Batch {
        /// Which of the sets handed out it was read from, see [`Served::replace`].
        generation: u64,
        /// The measurements.
        batch: Box<Batch>,
    },
    /// It lives.
    Alive(Alive),
    /// The connection is over. The next one may follow.
    Disconnected {
        /// Why.
        error: Fault,
    },
    /// It broke the protocol. If that was the connected one, `Disconnected` follows; one that broke it before it
    /// was connected leaves the connected one alone.
    Misbehaved {
        /// How.
        error: Fault,
    },
}

/// Where reports go. Must not block: it is called from tasks that serve other monitors too.
pub type Sink = Arc<dyn Fn(Report) + Send + Sync>;
