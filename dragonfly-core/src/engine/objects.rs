//! How the engine reads, changes and writes stored objects, and keeps its view of them.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Engine, EngineError, Result, others};
use crate::cache::{Cache, Cached};
use crate::resource::{Record, Resource};
use crate::store::ext::StoreExt;
use crate::store::{Part, Store, When};

impl Engine {
    /// Held while a machine's objects are changed. Names share locks: whoever holds one takes no other.
    pub(super) async fn lock(&self, machine: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        machine.hash(&mut hasher);
        let locks = &self.inner.locks;
        // The list is never empty and the index is below its length.
        let index = (hasher.finish() % locks.len() as u64) as usize;
        locks[index].lock().await
    }

    /// Reads, changes and writes one status; again when somebody else wrote meanwhile. `change` may
    /// run more than once and may refuse.
    pub(super) async fn change_status<S: Cached, T: Send>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut Resource<S>) -> Result<T> + Send,
    ) -> Result<(Resource<S>, T)> {
        let mut out = None;
        let changed: Resource<S> = self
            .inner
            .store
            .update_status(name, |object: &mut Resource<S>| {
                let before = self.is_shared().then(|| object.status.clone());
                out = Some(change(object)?);
                S::keep_small(&mut object.status);
                if before.is_some_and(|before| before != object.status) {
                    S::written_by(&mut object.status, self.inner.coordinator.instance());
                }
                Ok::<(), EngineError>(())
            })
            .await?;
        self.inner.cache.applied(&changed);
        match out {
            Some(out) => Ok((changed, out)),
            // `update_status` calls the closure before it returns an object.
            None => Err(EngineError::Illegal { why: "the store did not apply a change".to_owned() }),
        }
    }

    /// As [`change_status`](Self::change_status), for a spec.
    pub(super) async fn change_spec<S: Cached>(
        &self,
        name: &str,
        change: impl FnMut(&mut Resource<S>) -> Result<()> + Send,
    ) -> Result<Resource<S>> {
        let mut writing = self.writing();
        let changed: Resource<S> = self.inner.store.update_spec(name, change).await?;
        writing.wrote(others::version_of(S::KIND, &changed.metadata));
        drop(writing);
        self.inner.cache.applied(&changed);
        Ok(changed)
    }

    pub(super) async fn create<S: Cached>(&self, object: &Resource<S>) -> Result<Resource<S>> {
        let mut writing = self.writing();
        let created = self.inner.store.create(object).await?;
        writing.wrote(others::version_of(S::KIND, &created.metadata));
        drop(writing);
        self.inner.cache.applied(&created);
        Ok(created)
    }

    /// Writes a spec, labels and annotations as they are given.
    pub(super) async fn put_spec(&self, record: Record, when: When) -> crate::store::Result<Record> {
        let mut writing = self.writing();
        let written = self.inner.store.put(record, Part::Spec, when).await?;
        writing.wrote(others::version_of(written.kind, &written.metadata));
        Ok(written)
    }
}

/// Puts a stored object into the view. One that cannot be read stays out of it and is told.
pub(super) fn note(cache: &Cache, record: &Record) {
    if let Err(error) = cache.applied_record(record) {
        tracing::error!(error = &error as &dyn std::error::Error, "an object is left out");
    }
}
