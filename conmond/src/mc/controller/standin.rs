//! Doing without what the engine does not give: the controller reads a set whose monitoring container cannot be had,
//! and asks whose network a container without a port uses.

use super::*;
use crate::runtime::{NetworkMode, RuntimeError};

/// After a container's start its port is looked for so long before the engine is asked whose network it uses.
pub(super) const ASK_MODE: Duration = Duration::from_millis(300);
/// Pause before the engine is asked again for what it failed to do.
const AGAIN: Duration = Duration::from_secs(5);
/// Pause before it is asked again for what is forbidden: somebody has to change that.
const FORBIDDEN: Duration = Duration::from_secs(60);

/// How long to wait before another monitoring container is asked for.
pub(super) fn retry_after(error: &RuntimeError) -> Duration {
    if matches!(error, RuntimeError::Forbidden { .. }) { FORBIDDEN } else { AGAIN }
}

impl Work {
    /// Reads a set on a thread of our own, until it has a monitoring container.
    pub(super) fn stand_in(&mut self, id: SetId) {
        let inner = self.sink(id);
        // its processor time and memory are the daemon's own, which are counted elsewhere
        let sink: crate::monitor::Sink = Arc::new(move |mut report: Report| {
            if let What::Alive(alive) = &mut report.what {
                (alive.cpu_ns, alive.memory_bytes) = (0, None);
            }
            inner(report);
        });
        let functions = self.settings.functions.clone();
        let Some(hand) = self.hands.get_mut(&id) else { return };
        let started = hand
            .set
            .descriptors()
            .map_err(anyhow::Error::from)
            .and_then(|d| Ok(Inline::start(&id.to_string(), d, functions, sink)?));
        let Some(seen) = self.world.sets.get_mut(&id) else { return };
        match started {
            Ok(inline) => {
                hand.inline = Some(inline);
                seen.standin = true;
                tracing::warn!(set = %id, "no monitoring container reads this set: the daemon does");
            }
            Err(error) => {
                // not at once again
                seen.unread_since = Some(monotonic());
                let error = error.as_ref() as &dyn std::error::Error;
                tracing::error!(set = %id, error, "a set without a monitoring container cannot be read");
            }
        }
    }

    /// The set has a monitoring container, which has sent or will send everything anew.
    pub(super) fn stand_down(&mut self, id: SetId) {
        if let Some(hand) = self.hands.get_mut(&id) {
            drop(hand.inline.take());
        }
        if let Some(seen) = self.world.sets.get_mut(&id) {
            seen.standin = false;
        }
        tracing::info!(set = %id, "a monitoring container reads this set again");
    }

    /// Who reads a set, by name.
    pub(super) fn reader_name(&self, id: SetId) -> String {
        let ours = |s: &super::super::world::SetSeen| s.standin || s.role == SetRole::Nursery;
        match self.world.sets.get(&id).is_some_and(ours) {
            true => "conmond".to_owned(),
            false => self.monitor_name(id),
        }
    }

    /// Why there are no monitoring containers, and what that means.
    pub(super) fn monitor_problem(&self) -> Option<String> {
        let standins = self.world.sets.values().filter(|s| s.standin);
        let mut whom: Vec<String> = standins
            .map(|s| match &s.role {
                SetRole::Dedicated(id) => {
                    let name = self.shared.names().container(id).map(|c| c.name.clone());
                    format!("container {}", name.unwrap_or_else(|| id.clone()))
                }
                role => format!("tenant {}", self.tenant_of(role).unwrap_or_default()),
            })
            .collect();
        whom.sort();
        let error = self.monitor_error.as_deref();
        if whom.is_empty() {
            let error = error?;
            return Some(format!(
                "monitoring containers cannot be made ({error}); the kernel goes on counting"
            ));
        }
        let why = error.unwrap_or("they do not call");
        Some(format!(
            "there are no monitoring containers ({why}); conmond itself measures {}",
            whom.join(", ")
        ))
    }

    pub(super) fn ask_mode(&mut self, id: String) {
        if let Some(seen) = self.world.containers.get_mut(&id) {
            // until the answer is here
            seen.ask_mode_at = Timestamp(u64::MAX);
            self.ask(Ask::Mode(id));
        }
    }

    pub(super) fn take_mode(&mut self, id: &str, result: Result<Option<NetworkMode>, RuntimeError>) {
        let Some(seen) = self.world.containers.get_mut(id) else { return };
        match result {
            Ok(mode) => {
                let others = matches!(mode, Some(NetworkMode::Container(_)));
                seen.container.mode = mode;
                // its networks have no bridge whose ports we would have seen: host, macvlan and the like
                if !others {
                    self.ask_snapshot();
                }
            }
            Err(error) => {
                seen.ask_mode_at = monotonic() + AGAIN;
                let error = &error as &dyn std::error::Error;
                tracing::debug!(container = id, error, "whose network a container uses is not known");
            }
        }
    }
}
