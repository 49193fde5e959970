//! One after another: whoever is about to change an address's row has its turn, from the decision until the store
//! has answered. So nobody decides by a row that may yet be taken back, and nobody takes back another's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// How many messages wait for one address. A client repeats itself a few times; who floods one address must not
/// hold up the others.
const MAX_WAITING: usize = 8;

/// Whose turn it is, for every address that somebody is about to change.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<Ipv4Addr, Queue>>);

#[derive(Debug, Default)]
struct Queue {
    /// First come, first served.
    lock: Arc<tokio::sync::Mutex<()>>,
    /// How many have or await the turn. The queue goes with the last of them.
    places: usize,
}

/// The right to change the row of one address. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    // Given back before the place: fields are dropped in this order.
    _guard: OwnedMutexGuard<()>,
    _place: Place<'a>,
}

#[derive(Debug)]
struct Place<'a> {
    turns: &'a Turns,
    address: Ipv4Addr,
}

impl Turns {
    /// Whether so many wait for an address that another one need not.
    pub(super) fn is_crowded(&self, address: Ipv4Addr) -> bool {
        self.queues().get(&address).is_some_and(|queue| queue.places > MAX_WAITING)
    }

    /// Waits for the turn of an address.
    pub(super) async fn take(&self, address: Ipv4Addr) -> Turn<'_> {
        let lock = {
            let mut queues = self.queues();
            let queue = queues.entry(address).or_default();
            queue.places += 1;
            queue.lock.clone()
        };
        // Also when this is given up while it waits.
        let place = Place { turns: self, address };
        Turn { _guard: lock.lock_owned().await, _place: place }
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Queue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut queue) = self.turns.queues().entry(self.address) {
            queue.get_mut().places -= 1;
            if queue.get().places == 0 {
                queue.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn an_address_is_one_tasks_at_a_time_and_nothing_is_left_of_the_queue() {
        let (turns, [a, b]) = (Turns::default(), [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last)));
        let first = turns.take(a).await;
        assert!(turns.take(b).now_or_never().is_some(), "another address is free");
        let mut second = Box::pin(turns.take(a));
        let given_up = Box::pin(turns.take(a)).now_or_never();
        assert!(second.as_mut().now_or_never().is_none() && given_up.is_none());
        drop(first);
        let second = second.now_or_never().unwrap();
        assert_eq!(turns.queues().get(&a).map(|queue| queue.places), Some(1));
        drop(second);
        assert!(turns.queues().is_empty());
    }

    #[tokio::test]
    async fn a_queue_is_not_endless() {
        let (turns, address) = (Turns::default(), Ipv4Addr::new(10, 0, 0, 1));
        let _first = turns.take(address).await;
        let mut waiting = Vec::new();
        while !turns.is_crowded(address) {
            let mut next = Box::pin(turns.take(address));
            assert!(next.as_mut().now_or_never().is_none());
            waiting.push(next);
        }
        assert_eq!(waiting.len(), MAX_WAITING);
        drop(waiting.pop());
        assert!(!turns.is_crowded(address));
    }
}
