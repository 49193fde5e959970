//! The installed system phones home: what was handed over really runs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::boot::BOOTED;
use super::{Engine, EngineError, Result};
use crate::lifecycle::Phase;
use crate::resource::{ConditionStatus, Hardware, HardwareSpec, Workflow, WorkflowSpec, condition, set_condition};

/// Where installed systems phone home, below the server's address.
pub const PHONE_HOME: &str = "boot/phone-home/";

/// What the URL that a template was given claims.
#[derive(Debug, Serialize, Deserialize)]
struct HomeClaims {
    machine: String,
    uid: Option<Uuid>,
    run: String,
}

impl Engine {
    /// The URL for one machine and one run. Plain HTTP: an installed system does not know our key, and the
    /// URL tells nothing but that it is up.
    pub(super) fn phone_home_url(&self, machine: &Hardware, run: &str, server: &url::Url) -> String {
        let claims = HomeClaims { machine: machine.name().to_owned(), uid: machine.metadata.uid, run: run.to_owned() };
        let mut url = server.clone();
        // `set_scheme` refuses only changes between special and other schemes.
        url.set_scheme("http").ok();
        format!("{url}{PHONE_HOME}{}", self.inner.homing.sign(&claims).reveal())
    }

    /// An installed system says that it is up, with the last part of the URL it was given.
    ///
    /// # Errors
    /// `Unauthenticated` when the URL is not one of ours or of a run that is over.
    pub async fn phone_home(&self, capability: &str) -> Result<()> {
        let refused = EngineError::Unauthenticated { why: "this is not where a system of ours phones home" };
        let Some(claims) = self.inner.homing.open::<HomeClaims>(capability) else { return Err(refused) };
        let machine = self.machine_now(&claims.machine).await?;
        if machine.metadata.uid != claims.uid || machine.status.workflow.as_deref() != Some(claims.run.as_str()) {
            return Err(refused);
        }
        self.booted(&claims.machine, "it phoned home").await
    }

    /// Notes that the installed system of a machine showed a sign of life.
    ///
    /// # Errors
    /// `NotFound`; those of the store.
    pub async fn booted(&self, machine: &str, evidence: &str) -> Result<()> {
        let now = self.now();
        let _guard = self.lock(machine).await;
        let (_, news) = self
            .change_status::<HardwareSpec, _>(machine, |m| {
                let ready = m.status.phase == Some(Phase::Ready);
                let known = condition(&m.status.conditions, BOOTED).is_some_and(|c| c.status == ConditionStatus::True);
                if ready && !known {
                    set_condition(&mut m.status.conditions, BOOTED, ConditionStatus::True, "SignOfLife", evidence, now);
                    m.status.last_seen = Some(now);
                }
                Ok(ready && !known)
            })
            .await?;
        if news {
            self.tell("machine.booted", machine, None, format!("the installed system is up: {evidence}"));
        }
        Ok(())
    }

    /// Says of every machine that was to phone home, and did not in time, that it has not booted.
    pub(super) async fn miss_the_silent(&self) -> Result<()> {
        self.of_machines(|machine| self.is_silent_home(machine), |machine| self.miss(machine)).await
    }

    fn is_silent_home(&self, machine: &Hardware) -> bool {
        let waited = |since| self.now().since(since) > self.inner.settings.boot_deadline;
        machine.status.phase == Some(Phase::Ready)
            && condition(&machine.status.conditions, BOOTED)
                .is_some_and(|c| c.status == ConditionStatus::Unknown && waited(c.last_transition_time))
            && machine
                .status
                .workflow
                .as_ref()
                .and_then(|run| self.inner.cache.get::<WorkflowSpec>(run))
                .is_some_and(|run| phones_home(&run))
    }

    async fn miss(&self, machine: Arc<Hardware>) -> Result<()> {
        let words =
            "it was handed over and has not phoned home; look at its console: does it boot, does it have a network?";
        let (name, now) = (machine.name(), self.now());
        let _guard = self.lock(name).await;
        // Read again under the lock: it may have phoned home meanwhile.
        if !self.inner.cache.get::<HardwareSpec>(name).is_some_and(|machine| self.is_silent_home(&machine)) {
            return Ok(());
        }
        let missed = self.change_status::<HardwareSpec, _>(name, |m| {
            let is_silent = self.is_silent_home(m);
            if is_silent {
                set_condition(&mut m.status.conditions, BOOTED, ConditionStatus::False, "NoSignOfLife", words, now);
            }
            Ok(is_silent)
        });
        if !missed.await?.1 {
            return Ok(());
        }
        self.tell("machine.silent", name, None, words);
        Ok(())
    }
}

/// Whether a run's template uses `{{ phoneHome }}`.
fn phones_home(run: &Workflow) -> bool {
    run.spec.content.actions.iter().any(|action| mentions(&action.with, "phoneHome"))
}

fn mentions(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text.contains(word),
        Value::Array(items) => items.iter().any(|item| mentions(item, word)),
        Value::Object(fields) => fields.iter().any(|(key, item)| key.contains(word) || mentions(item, word)),
        _ => false,
    }
}
