//! Several instances on one store: what each of them remembers, and even what it has seen of the store, is not the
//! whole truth.
//!
//! The rule is: look by the cache, act by the store. A decision that something hangs on is made on the object as it is
//! stored, within the write that it leads to, which is done only if that object is still the same. What an agent's
//! instance alone knows, that it was heard a moment ago, is asked for through the store when somebody must know
//! (`status.session.doubt`), so that it costs nothing while nobody does.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::sessions::{ELSEWHERE, SessionClaims};
use super::{Engine, EngineError, Result};
use crate::cache::Cached;
use crate::clock::Timestamp;
use crate::coordinate::{Coordinator, POWER, SWEEP, Term, regional};
use crate::resource::template::ValueSource;
use crate::resource::{Hardware, HardwareSpec, Labels, Network, REGION_LABEL, Resource, SecretSpec, Workflow};
use crate::store::{Key, Store as _};

impl Engine {
    /// Who does what among the instances on this store.
    pub fn coordinator(&self) -> &dyn Coordinator {
        &*self.inner.coordinator
    }

    /// Whether other instances may stand on the same store.
    pub(super) fn is_shared(&self) -> bool {
        self.inner.coordinator.is_shared()
    }

    /// Whether others than this instance write to the store.
    pub(super) fn is_written_elsewhere(&self) -> bool {
        self.is_shared() || self.is_tinkerbells()
    }

    /// The object as it is stored now, where others may have written it; as it is known here otherwise.
    pub(super) async fn fresh<S: Cached>(&self, name: &str) -> Result<Option<Arc<Resource<S>>>> {
        let cache = &self.inner.cache;
        if self.is_written_elsewhere() {
            let key = Key::new(S::KIND, name);
            match self.inner.store.get(&key).await? {
                Some(record) => cache.applied(&record.decode::<S>()?),
                None => {
                    if let Some(held) = cache.get::<S>(name) {
                        cache.removed(&key, &held.metadata.resource_version);
                    }
                }
            }
        }
        Ok(cache.get::<S>(name))
    }

    /// Reads the Secrets that a run's values are in: one that was made elsewhere a moment ago is not missing.
    pub(super) async fn fresh_values(&self, run: &Workflow) -> Result<()> {
        self.fresh_secrets(run.spec.content.values.values().chain(run.spec.values.values())).await
    }

    pub(super) async fn fresh_secrets(&self, values: impl Iterator<Item = &ValueSource> + Send) -> Result<()> {
        let mut names: Vec<&str> = values
            .filter_map(|source| match source {
                ValueSource::From { value_from } => Some(value_from.secret_ref.name.as_str()),
                ValueSource::Plain(_) => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names.into_iter().filter(|_| self.is_written_elsewhere()) {
            self.fresh::<SecretSpec>(name).await?;
        }
        Ok(())
    }

    // Regions and controllers.

    /// Whether this instance's boot services answer on a network.
    pub(super) fn serves(&self, network: &Network) -> bool {
        // Two that answer the same machines would be in each other's way.
        !self.is_tinkerbells()
            && region(&network.metadata.labels)
                .is_none_or(|region| Some(region) == self.inner.settings.region.as_deref())
    }

    /// The labels of a machine that this instance writes down.
    pub(super) fn labels_here(&self) -> Labels {
        let region = self.inner.settings.region.clone();
        region.into_iter().map(|region| (REGION_LABEL.to_owned(), region)).collect()
    }

    /// What this instance stands for: everything stored, machines without a region, and those of its own.
    pub(super) fn controllers(&self) -> Vec<String> {
        let mut all = vec![SWEEP.to_owned(), POWER.to_owned()];
        if let Some(region) = &self.inner.settings.region {
            all.push(regional(POWER, Some(region)));
        }
        all.extend(self.dhcp_controllers());
        all
    }

    pub(super) fn leads(&self, controller: &str) -> Option<Term> {
        self.inner.coordinator.leads(controller)
    }

    /// The term in which this instance looks after a machine's power, if it does.
    pub(super) fn leads_power_of(&self, machine: &Hardware) -> Option<Term> {
        self.leads(&regional(POWER, region(&machine.metadata.labels)))
    }

    /// Whether it looks after the power of any machine.
    pub(super) fn leads_power(&self) -> bool {
        self.leads(POWER).is_some() || self.leads_clusters()
    }

    /// Whether this instance follows the clusters that it is told of: its region's, if it has one.
    pub(super) fn leads_clusters(&self) -> bool {
        self.leads(&regional(POWER, self.inner.settings.region.as_deref())).is_some()
    }

    // Agents.

    /// The machine that a session key speaks for, where another instance may have heard of it before this one has.
    pub(super) async fn speaker(&self, key: &str) -> Result<(SessionClaims, Arc<Hardware>)> {
        match self.claimed(key) {
            Err(EngineError::Unauthenticated { .. }) if self.is_shared() => {
                if let Some(claims) = self.inner.session_keys.open::<SessionClaims>(key) {
                    self.fresh::<HardwareSpec>(&claims.machine).await?;
                }
                self.claimed(key)
            }
            other => other,
        }
    }

    /// As [`speaker`](Self::speaker), and its agent was heard.
    pub(super) async fn session(&self, key: &str) -> Result<(SessionClaims, Arc<Hardware>)> {
        let (claims, machine) = self.speaker(key).await?;
        let now = self.now();
        // Whoever has left or was sent away keeps nobody out by talking on.
        if machine.status.session.as_ref().is_some_and(|session| session.ended) {
            return Ok((claims, machine));
        }
        self.inner.sessions.heard(&claims.machine, claims.id, now);
        if self.is_shared() && self.is_to_be_shown(&machine, claims.id, now) {
            // Nothing that the agent asked for hangs on it.
            if let Err(error) = self.show(&claims, now).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(machine = claims.machine, error, "that its agent lives could not be written");
            }
        }
        Ok((claims, machine))
    }

    /// Whether others are to see that this session lives: somebody asks, or has not seen it for a third of the time
    /// after which it would count as lost.
    fn is_to_be_shown(&self, machine: &Hardware, session: Uuid, now: Timestamp) -> bool {
        let is_doubted = machine.status.session.as_ref().is_some_and(|s| s.id == session && s.doubt.is_some());
        let shown = self.inner.sessions.stored_since(machine.name(), machine.status.last_seen, now);
        is_doubted || now.since(shown) >= self.inner.settings.agent_deadline / 3
    }

    async fn show(&self, claims: &SessionClaims, now: Timestamp) -> Result<()> {
        self.change_status::<HardwareSpec, _>(&claims.machine, |m| {
            if let Some(session) = m.status.session.as_mut().filter(|session| session.id == claims.id) {
                session.doubt = None;
                m.status.last_seen = Some(now);
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// When a machine's agent was last heard, as this instance may count it: by its own ears, or since the word of
    /// another has stood in the store.
    pub(super) fn heard_of(&self, machine: &Hardware, now: Timestamp) -> Timestamp {
        let (name, status) = (machine.name(), &machine.status);
        let here = self.inner.sessions.last(name);
        let heard = if self.is_shared() {
            // It may have been heard for another third of the time: no more than that is left out.
            let shown = self.inner.sessions.stored_since(name, status.last_seen, now);
            let elsewhere = shown.plus(self.inner.settings.agent_deadline / 3);
            here.map_or(elsewhere, |here| here.max(elsewhere))
        } else {
            here.or(status.last_seen).unwrap_or(now)
        };
        // Before its start nobody could be heard here, and what is kept of an agent is older still.
        heard.max(self.inner.started)
    }

    /// Whether no instance hears the session that spoke for a machine last. Where that is not known it is asked for: the
    /// answer is `false` until [`ELSEWHERE`] has passed without a word, by our own clock. Ask again then.
    pub(super) async fn is_silent(&self, machine: &str) -> Result<bool> {
        let now = self.now();
        if !self.is_shared() {
            return Ok(self.inner.sessions.live(machine, now).is_none());
        }
        let Some(object) = self.fresh::<HardwareSpec>(machine).await? else { return Ok(true) };
        let Some(session) = object.status.session.clone().filter(|session| !session.ended) else { return Ok(true) };
        if self.inner.sessions.live(machine, now) == Some(session.id) {
            return Ok(false);
        }
        let doubt = match session.doubt {
            Some(doubt) => doubt,
            None => {
                let fresh = Uuid::new_v4();
                let (_, doubt) = self
                    .change_status::<HardwareSpec, _>(machine, |m| {
                        let stored = m.status.session.as_mut().filter(|stored| stored.id == session.id);
                        Ok(stored.map(|stored| *stored.doubt.get_or_insert(fresh)))
                    })
                    .await?;
                // Another speaks by now.
                let Some(doubt) = doubt else { return Ok(false) };
                doubt
            }
        };
        let since = self.inner.sessions.doubted_since(machine, session.id, doubt, now);
        Ok(now.since(since) >= ELSEWHERE)
    }

    /// How long an agent must be silent before another may speak, for a person.
    pub(super) fn silence(&self) -> Duration {
        if self.is_shared() { ELSEWHERE } else { super::sessions::SILENCE }
    }
}

/// The region that an object belongs to.
pub(super) fn region(labels: &Labels) -> Option<&str> {
    labels.get(REGION_LABEL).map(String::as_str).filter(|region| !region.is_empty())
}
