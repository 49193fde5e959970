//! Waking those who wait for news of one machine, and nobody else: with a thousand agents that wait,
//! what happens to one of them is no work for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// A bell for each machine that somebody waits for; one that nobody waits for has none.
#[derive(Debug, Default)]
pub(super) struct Bells(Mutex<HashMap<String, Hung>>);

#[derive(Debug)]
struct Hung {
    bell: watch::Sender<()>,
    waiting: usize,
}

impl Bells {
    pub(super) fn hang(self: &Arc<Self>, machine: &str) -> Bell {
        let mut all = self.all();
        let hung = all.entry(machine.to_owned()).or_insert_with(|| Hung { bell: watch::Sender::new(()), waiting: 0 });
        hung.waiting += 1;
        Bell { bells: Arc::clone(self), machine: machine.to_owned(), rings: hung.bell.subscribe() }
    }

    pub(super) fn ring(&self, machine: &str) {
        if let Some(hung) = self.all().get(machine) {
            hung.bell.send_replace(());
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Hung>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rings at every event about one machine from the moment that it was asked for.
#[derive(Debug)]
pub struct Bell {
    bells: Arc<Bells>,
    machine: String,
    rings: watch::Receiver<()>,
}

impl Bell {
    /// Comes back at the next event, or at once if there was one since the last call.
    pub async fn rung(&mut self) {
        // The sender hangs as long as somebody waits, and we do.
        self.rings.changed().await.ok();
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut all = self.bells.all();
        let Some(hung) = all.get_mut(&self.machine) else { return };
        hung.waiting -= 1;
        if hung.waiting == 0 {
            all.remove(&self.machine);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn rang(bell: &mut Bell) -> bool {
        // On paused time: it elapses only when nothing else can happen.
        tokio::time::timeout(Duration::from_millis(1), bell.rung()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn wakes_only_those_who_wait_for_that_machine_and_keeps_nothing() {
        let bells = Arc::new(Bells::default());
        bells.ring("a");
        let (mut a, mut also_a, mut b) = (bells.hang("a"), bells.hang("a"), bells.hang("b"));
        assert!(!rang(&mut a).await, "what was before it was hung");
        bells.ring("a");
        bells.ring("a");
        bells.ring("nobody");
        assert_eq!([rang(&mut a).await, rang(&mut also_a).await, rang(&mut b).await], [true, true, false]);
        assert!(!rang(&mut a).await, "told once of what came while it was not looking");
        drop(a);
        bells.ring("a");
        assert!(rang(&mut also_a).await, "the other's going does not take it down");
        assert_eq!(bells.all().len(), 2);
        drop((also_a, b));
        assert_eq!(bells.all().len(), 0, "nobody waits: nothing is kept");
    }
}
