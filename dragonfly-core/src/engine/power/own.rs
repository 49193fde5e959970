//! A machine's own Secret: what this program wrote down for one machine's controller, and takes away when the machine
//! is gone.
//!
//! It is named `bmc-MACHINE` and says for whom it was made. A Secret of that name that people wrote does not say so and
//! is left alone; so is one that anything else refers to.

use std::time::Duration;

use serde_json::Value;

use crate::engine::write::{Deletion, Write};
use crate::engine::{Engine, EngineError, Result};
use crate::resource::template::ValueSource;
use crate::resource::{
    Hardware, HardwareSpec, Kind, Metadata, Record, SecretObject, SecretSpec, TemplateSpec, WorkflowSpec,
};
use crate::store::StoreError;

/// The annotation of a Secret that was made for one machine: which.
const MADE_FOR: &str = "dragonfly.computer/made-for";
/// A Secret whose machine does not exist is an orphan when it is so old: whoever puts back what a cluster held may do
/// Secrets first.
const ORPHAN: Duration = Duration::from_secs(3600);

/// The name of a machine's own Secret.
pub(in crate::engine) fn name(machine: &str) -> String {
    format!("bmc-{machine}")
}

/// A machine's own Secret with these values.
pub(super) fn record(machine: &str, data: Value) -> Record {
    let annotations = [(MADE_FOR.to_owned(), machine.to_owned())].into();
    let metadata = Metadata { name: name(machine), annotations, ..Metadata::default() };
    Record { kind: Kind::SECRET, metadata, spec: serde_json::json!({ "data": data }), status: Value::Null }
}

/// The machine that a Secret was made for, if it is one of these.
fn machine(secret: &SecretObject) -> Option<&str> {
    secret.metadata.annotations.get(MADE_FOR).map(String::as_str).filter(|machine| secret.name() == name(machine))
}

impl Engine {
    /// Deletes the own Secret of a machine that does not exist (any more), unless something else uses it. A stop before
    /// this leaves what [`forget_orphans`](Self::forget_orphans) finds.
    pub(in crate::engine) async fn forget_own_secret(&self, of: &str, by: &str) -> Result<()> {
        // Until this is done no machine of that name comes into being, whose Secret this would be.
        let _guard = self.lock(of).await;
        let own = name(of);
        let Some(secret) = self.fresh::<SecretSpec>(&own).await? else { return Ok(()) };
        if machine(&secret) != Some(of) || self.fresh::<HardwareSpec>(of).await?.is_some() || self.is_used(&own) {
            return Ok(());
        }
        // Changed meanwhile, it may be somebody's who gave it another content.
        let Metadata { uid, resource_version, .. } = secret.metadata.clone();
        let meant = Deletion { uid, version: Some(resource_version) };
        match self.delete_locked(Kind::SECRET, &own, &meant, Write::by(by)).await {
            Err(EngineError::NotFound { .. } | EngineError::Store(StoreError::Conflict { .. })) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Deletes Secrets whose machine is gone: those that a stop between the two has left, and of machines that were
    /// deleted by other means.
    pub(in crate::engine) async fn forget_orphans(&self) -> Result<()> {
        let (now, mut failed) = (self.now(), None);
        for piece in self.inner.cache.pieces::<SecretSpec>() {
            for secret in piece {
                let is_old = |secret: &SecretObject| {
                    secret.metadata.creation_timestamp.is_none_or(|made| now.since(made) > ORPHAN)
                };
                let Some(of) = machine(&secret).filter(|of| self.inner.cache.get::<HardwareSpec>(of).is_none()) else {
                    continue;
                };
                if is_old(&secret)
                    && let Err(error) = self.forget_own_secret(of, "dragonfly").await
                {
                    if error.is_of_the_store() {
                        return Err(error);
                    }
                    failed.get_or_insert(error);
                }
            }
            tokio::task::yield_now().await;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Whether a machine's controller, a cluster, a template or a run that is not over refers to a Secret.
    fn is_used(&self, secret: &str) -> bool {
        let cache = &self.inner.cache;
        let value = |source: &ValueSource| match source {
            ValueSource::From { value_from } => value_from.secret_ref.name == secret,
            ValueSource::Plain(_) => false,
        };
        let controls = |machine: &Hardware| {
            let bmc = machine.spec.bmc.as_ref();
            bmc.and_then(|bmc| bmc.secret_ref.as_ref()).is_some_and(|named| named.name == secret)
        };
        #[cfg(feature = "proxmox")]
        let clusters = self.inner.settings.clusters.iter().any(|cluster| cluster.secret == secret);
        #[cfg(not(feature = "proxmox"))]
        let clusters = false;
        clusters
            || cache.pieces::<HardwareSpec>().flatten().any(|machine| controls(&machine))
            || cache.pieces::<TemplateSpec>().flatten().any(|template| template.spec.values.values().any(value))
            || cache.pieces::<WorkflowSpec>().flatten().any(|run| {
                let mut values = run.spec.content.values.values().chain(run.spec.values.values());
                !run.status.state.is_final() && values.any(value)
            })
    }
}
