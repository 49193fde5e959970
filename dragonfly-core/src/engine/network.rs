//! How the Networks fare, as whoever serves them says.

use super::{Engine, EngineError, Result};
use crate::resource::network::{NetworkStatus, SERVED};
use crate::resource::{ConditionStatus, NetworkSpec, condition, set_condition};
use crate::store::StoreError;

impl Engine {
    /// Notes whether the boot services answer on a Network, and why or in what way. One that is gone is no error:
    /// who serves it learns of that later.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn note_served(&self, network: &str, served: bool, why: &str) -> Result<()> {
        let (status, reason) =
            if served { (ConditionStatus::True, "Answered") } else { (ConditionStatus::False, "NotAnswered") };
        // Several may serve it, or not: who does has the word, and only its own is taken back.
        let me = self.inner.coordinator.instance();
        let own = format!("{me}: {why}");
        let why = if self.is_shared() { own.as_str() } else { why };
        let others = |now: &NetworkStatus| {
            let theirs = |c: &crate::resource::Condition| {
                c.status == ConditionStatus::True && !served && !c.message.starts_with(&format!("{me}: "))
            };
            self.is_shared() && condition(&now.conditions, SERVED).is_some_and(theirs)
        };
        let holds = |now: &NetworkStatus| {
            condition(&now.conditions, SERVED).is_some_and(|c| c.status == status && c.message == why)
        };
        let Some(object) = self.inner.cache.get::<NetworkSpec>(network) else { return Ok(()) };
        // Asked every few seconds: only what is new is written.
        if holds(&object.status) || others(&object.status) {
            return Ok(());
        }
        let now = self.now();
        let changed = self.change_status::<NetworkSpec, _>(network, |n| {
            if !others(&n.status) {
                set_condition(&mut n.status.conditions, SERVED, status, reason, why, now);
            }
            Ok(())
        });
        match changed.await {
            Ok(_) => {}
            Err(EngineError::NotFound { .. } | EngineError::Store(StoreError::NotFound { .. })) => return Ok(()),
            Err(other) => return Err(other),
        }
        let (kind, words) =
            if served { ("network.served", "is answered") } else { ("network.unserved", "is not answered") };
        self.tell(kind, "", None, format!("network {network} {words}: {why}"));
        Ok(())
    }
}
