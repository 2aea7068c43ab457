//! Which processes may call at a set's socket as its monitor.
//!
//! A monitor may call before the engine has told its process, so whoever is not known is let in; but not the one
//! that is being replaced, which goes on calling until the engine has removed it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::world::SetId;

/// What is known of a set's monitor, by process on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    This(i32),
    AnyBut(i32),
}

/// Of every set. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct Callers(Arc<Mutex<HashMap<SetId, Caller>>>);

impl Callers {
    fn lock(&self) -> MutexGuard<'_, HashMap<SetId, Caller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process may call.
    pub fn admits(&self, set: SetId, pid: i32) -> bool {
        match self.lock().get(&set) {
            None => true,
            Some(Caller::This(known)) => pid == *known,
            Some(Caller::AnyBut(replaced)) => pid != *replaced,
        }
    }

    /// The engine told the monitor's process.
    pub fn set(&self, set: SetId, pid: i32) {
        self.lock().insert(set, Caller::This(pid));
    }

    /// The monitor with this process shall be replaced.
    pub fn refuse(&self, set: SetId, pid: i32) {
        self.lock().insert(set, Caller::AnyBut(pid));
    }

    /// Another monitor is being made in place of the one that is known, if one is.
    pub fn replace(&self, set: SetId) {
        if let Some(caller) = self.lock().get_mut(&set)
            && let Caller::This(pid) = *caller
        {
            *caller = Caller::AnyBut(pid);
        }
    }

    /// The set is no more.
    pub fn forget(&self, set: SetId) {
        self.lock().remove(&set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: SetId = SetId(1);

    #[test]
    fn the_one_that_is_replaced_is_refused_until_another_is_known() {
        let callers = Callers::default();
        let admitted = |callers: &Callers| [7, 8].map(|pid| callers.admits(SET, pid));
        assert_eq!(admitted(&callers), [true, true]);
        callers.replace(SET);
        assert_eq!(admitted(&callers), [true, true], "nobody was known");
        callers.set(SET, 7);
        assert_eq!(admitted(&callers), [true, false]);
        callers.replace(SET);
        assert_eq!(admitted(&callers), [false, true]);
        callers.replace(SET);
        assert_eq!(admitted(&callers), [false, true], "it is still the same that is replaced");
        callers.set(SET, 8);
        assert_eq!(admitted(&callers), [false, true]);
        callers.refuse(SET, 8);
        assert_eq!(admitted(&callers), [true, false]);
        assert!(callers.admits(SetId(2), 8), "other sets have others");
        callers.forget(SET);
        assert_eq!(admitted(&callers), [true, true]);
    }
}
