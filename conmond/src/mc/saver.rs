//! The thread that writes down what outlives the daemon: the controller says what there is and goes on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ippm::time::Timestamp;

use super::persist::{Saved, SavedPort};
use super::world::SetRole;
use crate::priority;
use crate::store::{Names, Store};

/// Shares of translated flows are saved this often: flows end all the time; what of it is a crash's loss is told by the
/// address that was seen.
const SHARES: Duration = Duration::from_secs(1);

/// What there is.
#[derive(Clone)]
pub struct State {
    /// When this was so.
    pub at: Timestamp,
    /// Roles of sets, by number.
    pub sets: BTreeMap<u32, SetRole>,
    /// Ports by ifindex.
    pub ports: BTreeMap<u32, SavedPort>,
    /// Names.
    pub names: Arc<Names>,
    /// Addresses whose container has ended, and when: they are its own for a while here, but not for who comes next.
    pub ended: Vec<(IpAddr, String, Timestamp)>,
    /// Files of the overlay networks' namespaces, by our names for them.
    pub overlays: BTreeMap<String, PathBuf>,
}

/// The running thread.
pub struct Saver {
    states: Option<Sender<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Saver {
    /// Starts the thread. `written` is told the sets' roles that are on disk, after each time.
    pub fn start(
        path: PathBuf,
        store: Arc<Mutex<Store>>,
        written: impl Fn(BTreeMap<u32, SetRole>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (states, inbox) = channel();
        let thread = std::thread::Builder::new().name("saver".into()).spawn(move || {
            priority::wait_turn();
            run(&inbox, &path, &store, &written);
        })?;
        Ok(Self { states: Some(states), thread: Some(thread) })
    }

    /// Has this written; it never waits. Of several that wait, the newest is.
    pub fn save(&self, state: State) {
        if let Some(states) = &self.states {
            // the thread ends only after this sender went
            let _ = states.send(state);
        }
    }
}

fn run(
    inbox: &Receiver<State>,
    path: &std::path::Path,
    store: &Mutex<Store>,
    written: &dyn Fn(BTreeMap<u32, SetRole>),
) {
    let mut state: Option<State> = None;
    loop {
        match inbox.recv_timeout(SHARES) {
            Ok(newer) => state = Some(inbox.try_iter().last().unwrap_or(newer)),
            Err(RecvTimeoutError::Timeout) => {
                let changed = store.lock().unwrap_or_else(PoisonError::into_inner).take_shares_changed();
                if !changed {
                    continue;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(state) = state.clone() else { continue };
        let shares = store.lock().unwrap_or_else(PoisonError::into_inner).saved_shares();
        let roles = state.sets.clone();
        let mut names = Names::clone(&state.names);
        for (address, container, at) in state.ended {
            names.close_address(address, &container, at);
        }
        let saved = Saved::new(state.at, state.sets, state.ports, names.saved(), shares, state.overlays);
        match saved.store(path) {
            Ok(()) => written(roles),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the state is not saved; a restart would lose names of what has gone");
                // a full disk must not keep tenants from being measured
                written(roles);
            }
        }
    }
}

impl Drop for Saver {
    /// Waits until the last state is written.
    fn drop(&mut self) {
        self.states = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
