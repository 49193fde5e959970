//! One question for work of each session waits at a time: each that waits is woken by whatever happens to its machine.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// Which sessions' questions wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<Uuid, Arc<Notify>>>);

/// A question's leave to wait; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    waiting: &'a Waiting,
    session: Uuid,
    over: Arc<Notify>,
}

impl Waiting {
    /// One waits from now on. The one that has waited for this session ends.
    pub(super) fn turn(&self, session: Uuid) -> Turn<'_> {
        let over = Arc::new(Notify::new());
        if let Some(older) = self.all().insert(session, Arc::clone(&over)) {
            older.notify_one();
        }
        Turn { waiting: self, session, over }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Comes back once a newer one waits.
    pub(super) async fn is_over(&self) {
        self.over.notified().await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(turn) = self.waiting.all().entry(self.session)
            && Arc::ptr_eq(turn.get(), &self.over)
        {
            turn.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_one_ends_the_older_and_none_is_left_behind() {
        let waiting = Waiting::default();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = waiting.turn(a);
        let other = waiting.turn(b);
        let second = waiting.turn(a);
        first.is_over().await;
        drop(first);
        let third = waiting.turn(a);
        second.is_over().await;
        drop((second, third));
        assert_eq!(waiting.all().keys().collect::<Vec<_>>(), [&b], "another session's is its own");
        drop(other);
        assert!(waiting.all().is_empty());
    }
}
