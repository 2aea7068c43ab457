//! A value that is changed by one and read by many, none of whom ever waits for another's work.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle of the value; clones are handles of the same.
#[derive(Debug, Default)]
pub struct Snapshots<T>(Arc<Mutex<Arc<T>>>);

impl<T> Clone for Snapshots<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Snapshots<T> {
    /// Of this value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(value))))
    }

    fn lock(&self) -> MutexGuard<'_, Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value as it is now; it stays so, however long it is looked at.
    pub fn now(&self) -> Arc<T> {
        self.lock().clone()
    }

    /// The value, to change: in place where nobody looks at it, else in a copy that is the value from then on.
    pub fn change(&self) -> Changing<'_, T> {
        Changing(self.lock())
    }
}

/// A value being changed. Who asks for it meanwhile waits.
#[derive(Debug)]
pub struct Changing<'a, T>(MutexGuard<'a, Arc<T>>);

impl<T> Deref for Changing<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Changing<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_stays_as_it_is() {
        let value = Snapshots::new(vec![1]);
        let before = value.now();
        value.clone().change().push(2);
        assert_eq!(*before, [1]);
        assert_eq!(*value.now(), [1, 2]);
    }
}
