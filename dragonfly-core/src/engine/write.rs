//! Objects written one at a time: create, replace, patch, delete, and what each would do.

use std::borrow::Cow;

use serde_json::{Value, json};
use uuid::Uuid;

use super::resources::{Applied, Change};
use super::{Engine, Result};
use crate::action::Problem;
use crate::resource::{HardwareSpec, Kind, Metadata, Record, SecretSpec};
use crate::secret;
use crate::store::{Key, StoreError, When};

/// Where `kubectl apply` writes down what it was given.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes, and whether for real.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// For the record: who does it.
    pub by: &'a str,
    /// Everything is checked and nothing is written.
    pub dry_run: bool,
}

impl<'a> Write<'a> {
    /// For real.
    pub fn by(by: &'a str) -> Self {
        Self { by, dry_run: false }
    }
}

/// What must hold of an object for it to be deleted; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deletion {
    /// It is this very object, not another of the same name.
    pub uid: Option<Uuid>,
    /// It still has this `resourceVersion`.
    pub version: Option<String>,
}

/// Whether the object is to be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    Absent,
    Present,
    Any,
}

impl Engine {
    /// An object that somebody wants to have, if there may be such a one.
    async fn asked_for(&self, object: Value) -> Result<Record> {
        let record = self.checked(object)?;
        let problems = self.new_finalizers(&record).await?;
        if problems.is_empty() { Ok(record) } else { Err(super::EngineError::Invalid(problems)) }
    }

    /// The finalizers that a write would add. Nothing here waits for them when the object is deleted, so none is taken
    /// in silence; what came with an import or by the cluster's own API stays, and may be taken off.
    pub(super) async fn new_finalizers(&self, record: &Record) -> Result<Vec<Problem>> {
        let given = &record.metadata.finalizers;
        if given.is_empty() {
            return Ok(Vec::new());
        }
        let key = Key::new(record.kind, record.metadata.name.clone());
        let stored = self.inner.store.get(&key).await?.map(|old| old.metadata.finalizers).unwrap_or_default();
        let new = given.iter().enumerate().filter(|(_, finalizer)| !stored.contains(finalizer));
        let refused = |(index, finalizer): (usize, &String)| Problem {
            path: format!("metadata.finalizers[{index}]"),
            problem: format!("`{finalizer}` would not be waited for when {key} is deleted; leave it out"),
        };
        Ok(new.map(refused).collect())
    }

    /// Creates one object.
    ///
    /// # Errors
    /// `Manifest`; `Store(AlreadyExists)`.
    pub async fn create_object(&self, object: Value, by: &str) -> Result<Record> {
        self.create_with(object, Write::by(by)).await
    }

    /// As [`create_object`](Self::create_object), perhaps only to see what it would do.
    ///
    /// # Errors
    /// Those of [`create_object`](Self::create_object).
    pub async fn create_with(&self, object: Value, write: Write<'_>) -> Result<Record> {
        let record = self.asked_for(object).await?;
        Ok(self.write_one(record, Expect::Absent, write).await?.record)
    }

    /// Replaces the spec of one object. With `metadata.resourceVersion` it must still have that version.
    ///
    /// # Errors
    /// `Manifest`; `NotFound`; `Store(Conflict)`.
    pub async fn replace_object(&self, object: Value, by: &str) -> Result<Record> {
        self.replace_with(object, Write::by(by)).await
    }

    /// As [`replace_object`](Self::replace_object), perhaps only to see what it would do.
    ///
    /// # Errors
    /// Those of [`replace_object`](Self::replace_object).
    pub async fn replace_with(&self, object: Value, write: Write<'_>) -> Result<Record> {
        let record = self.asked_for(object).await?;
        Ok(self.write_one(record, Expect::Present, write).await?.record)
    }

    /// Changes one object by a function of its JSON, which is called anew when somebody else has written
    /// meanwhile. Of a Secret it sees which values there are under `spec.data`, and not what they are.
    ///
    /// # Errors
    /// `NotFound`; `Manifest` when what comes out is no such object; `Store(Conflict)` when the function
    /// names a `resourceVersion` or `uid` that the object no longer has; those of the function.
    pub async fn patch_object<F>(&self, kind: Kind, name: &str, change: F, write: Write<'_>) -> Result<Record>
    where
        F: Fn(&mut Value) -> Result<()> + Send + Sync,
    {
        let key = Key::new(kind, name);
        for _ in 0..16 {
            let old = self.inner.store.get(&key).await?.ok_or_else(|| self.not_found(kind, name))?;
            let mark = secret::random_token()?;
            let mut object = self.shown(old.clone()).to_json();
            if kind == Kind::SECRET {
                let old = old.decode::<SecretSpec>()?;
                let keys = old.spec.sealed.keys().chain(old.spec.data.keys());
                let marks = keys.map(|k| (k.clone(), format!("{}/{k}", mark.reveal()).into()));
                object["spec"] = json!({ "data": Value::Object(marks.collect()) });
            }
            change(&mut object)?;
            let mut new = self.asked_for(object).await?;
            let version = std::mem::replace(&mut new.metadata.resource_version, old.metadata.resource_version.clone());
            let is_named = !version.is_empty() && version != old.metadata.resource_version;
            if is_named || new.kind != kind || new.metadata.name != name {
                return Err(StoreError::Conflict { key }.into());
            }
            if kind == Kind::SECRET {
                self.unmark(&old, &mut new, mark.reveal())?;
            }
            match self.write_one(new, Expect::Present, write).await {
                // Its status changes all the time, and nobody asked about that.
                Err(super::EngineError::Store(StoreError::Conflict { .. })) => {}
                written => return Ok(written?.record),
            }
        }
        Err(StoreError::Conflict { key }.into())
    }

    /// Puts the values of a Secret back where their marks stand.
    fn unmark(&self, old: &Record, new: &mut Record, mark: &str) -> Result<()> {
        let old = old.decode::<SecretSpec>()?;
        let data = new.spec.get_mut("data").and_then(Value::as_object_mut);
        for value in data.into_iter().flat_map(|data| data.values_mut()) {
            let from = value.as_str().and_then(|text| text.strip_prefix(mark)?.strip_prefix('/'));
            let Some(from) = from.map(str::to_owned) else { continue };
            if let Some(opened) = self.secret_value(&old, &from) {
                *value = opened?.reveal().into();
            }
        }
        Ok(())
    }

    /// Deletes one object.
    ///
    /// # Errors
    /// `NotFound`; `Illegal` for a machine or workflow that is at work.
    pub async fn delete(&self, kind: Kind, name: &str, by: &str) -> Result<()> {
        self.delete_if(kind, name, &Deletion::default(), Write::by(by)).await.map(|_| ())
    }

    /// Deletes one object if it is the one that is meant, and gives it as it was. With a machine goes the Secret of its
    /// controller, if it was made for this machine by [`set_bmc`](Self::set_bmc) or its agent and nothing else uses it.
    ///
    /// # Errors
    /// Those of [`delete`](Self::delete); `Store(Conflict)` when it is not the one that is meant.
    pub async fn delete_if(&self, kind: Kind, name: &str, meant: &Deletion, write: Write<'_>) -> Result<Record> {
        let gone = {
            let _guard = self.lock(name).await;
            self.delete_locked(kind, name, meant, write).await?
        };
        // The machine first: without its Secret it could not be switched any more.
        if kind == Kind::HARDWARE
            && !write.dry_run
            && let Err(error) = self.forget_own_secret(name, write.by).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(machine = name, error, "its controller's Secret could not be deleted; it is tried again");
        }
        Ok(gone)
    }

    /// For whoever holds a lock already: two names may share one, so nobody waits for a second. What another writes
    /// meanwhile is seen by its version.
    pub(super) async fn delete_locked(
        &self,
        kind: Kind,
        name: &str,
        meant: &Deletion,
        write: Write<'_>,
    ) -> Result<Record> {
        let key = Key::new(kind, name);
        for _ in 0..16 {
            let found = self.inner.store.get(&key).await?;
            let record = found.ok_or_else(|| self.not_found(kind, name))?;
            let Metadata { uid, resource_version: version, .. } = &record.metadata;
            if meant.uid.is_some_and(|meant| *uid != Some(meant))
                || meant.version.as_ref().is_some_and(|m| m != version)
            {
                return Err(StoreError::Conflict { key }.into());
            }
            self.may_delete(&record).await?;
            if write.dry_run {
                return Ok(self.shown(record));
            }
            // Known before it is done: nothing else is deleted under this uid.
            let mut writing = self.writing();
            if let Some(uid) = uid {
                writing.wrote(uid.to_string());
            }
            match self.inner.store.delete(&key, version).await {
                Ok(()) => {
                    self.inner.cache.removed(&key, version);
                    self.refresh_networks();
                    let machine = if kind == Kind::HARDWARE { name } else { "" };
                    self.tell("object.deleted", machine, None, format!("{} deleted {key}", write.by));
                    self.inner.recorder.forget(machine);
                    return Ok(self.shown(record));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict { key }.into())
    }

    pub(super) async fn apply_one(&self, record: Record, by: &str) -> Result<Applied> {
        self.write_one(record, Expect::Any, Write::by(by)).await
    }

    pub(super) async fn write_one(&self, record: Record, expect: Expect, write: Write<'_>) -> Result<Applied> {
        let key = Key::new(record.kind, record.metadata.name.clone());
        let _guard = self.lock(&key.name).await;
        if record.kind == Kind::WORKFLOW && self.is_tinkerbells() {
            let why =
                "Tinkerbell begins a Workflow as soon as it is there: assign, reimage or retry makes one".to_owned();
            return Err(super::EngineError::Illegal { why });
        }
        let record = without_values(record);
        let wanted_version = record.metadata.resource_version.clone();
        let sealed = self.sealed(record.clone())?;
        let machine = match record.kind {
            Kind::HARDWARE => Some(record.decode::<HardwareSpec>()?),
            _ => None,
        };
        let _cards = machine.as_ref().map(|machine| self.claim_cards(machine)).transpose()?;
        for _ in 0..16 {
            let Some(old) = self.inner.store.get(&key).await? else {
                if expect == Expect::Present {
                    return Err(self.not_found(key.kind, &key.name));
                }
                if write.dry_run {
                    let record = self.would_be(None, sealed);
                    return Ok(Applied { record: self.shown(record), change: Change::Created });
                }
                match self.put_spec(sealed.clone(), When::Absent).await {
                    Ok(created) => {
                        self.noted(&created, Change::Created, write.by);
                        #[cfg(feature = "testing")]
                        self.authorise_applied(&created).await?;
                        return Ok(Applied { record: self.shown(created), change: Change::Created });
                    }
                    Err(StoreError::AlreadyExists { .. }) if expect == Expect::Any => continue,
                    Err(other) => return Err(other.into()),
                }
            };
            if expect == Expect::Absent {
                return Err(StoreError::AlreadyExists { key }.into());
            }
            let is_other =
                expect == Expect::Present && record.metadata.uid.is_some_and(|u| old.metadata.uid != Some(u));
            if is_other || (!wanted_version.is_empty() && wanted_version != old.metadata.resource_version) {
                return Err(StoreError::Conflict { key }.into());
            }
            if self.same(&old, &record) {
                return Ok(Applied { record: self.shown(old), change: Change::Unchanged });
            }
            if record.kind == Kind::WORKFLOW && old.spec != record.spec {
                let why = format!("{key} is what it was made of, and stays so; assign or reimage makes another");
                return Err(super::EngineError::Illegal { why });
            }
            let mut new = sealed.clone();
            // Some fields are given once: a machine's name with capitals stays when a manifest leaves it out.
            if let (Kind::HARDWARE, Some(name), Some(spec)) =
                (record.kind, old.spec.get("displayName"), new.spec.as_object_mut())
            {
                spec.entry("displayName").or_insert_with(|| name.clone());
            }
            if write.dry_run {
                let record = self.would_be(Some(old), new);
                return Ok(Applied { record: self.shown(record), change: Change::Configured });
            }
            match self.put_spec(new, When::Unchanged(old.metadata.resource_version.clone())).await {
                Ok(changed) => {
                    self.noted(&changed, Change::Configured, write.by);
                    if record.kind == Kind::HARDWARE && !self.is_tinkerbells() {
                        self.identity_edited(&old, &changed, write.by).await?;
                    }
                    return Ok(Applied { record: self.shown(changed), change: Change::Configured });
                }
                Err(StoreError::Conflict { .. }) if wanted_version.is_empty() => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict { key }.into())
    }

    /// What a store would make of a write.
    fn would_be(&self, old: Option<Record>, given: Record) -> Record {
        let Metadata { name, labels, annotations, finalizers, .. } = given.metadata;
        let Some(mut new) = old else {
            let creation_timestamp = Some(self.now());
            let metadata = Metadata {
                name,
                labels,
                annotations,
                finalizers,
                generation: 1,
                creation_timestamp,
                ..Metadata::default()
            };
            return Record { metadata, status: Value::Null, ..given };
        };
        new.metadata.generation += u64::from(new.spec != given.spec);
        new.metadata = Metadata { labels, annotations, finalizers, ..new.metadata };
        new.spec = given.spec;
        new
    }
}

/// A Secret without what a client noted of its values where everybody reads it; which values it gave stays,
/// so that the client finds out which ones it has since left out.
fn without_values(mut record: Record) -> Record {
    if record.kind != Kind::SECRET {
        return record;
    }
    let Some(noted) = record.metadata.annotations.remove(LAST_APPLIED) else { return record };
    let Ok(mut object) = serde_json::from_str::<Value>(&noted) else { return record };
    match object.pointer_mut("/spec/data") {
        Some(Value::Object(data)) => data.values_mut().for_each(|value| *value = Cow::Borrowed("").into()),
        Some(_) => return record,
        None => {}
    }
    record.metadata.annotations.insert(LAST_APPLIED.to_owned(), object.to_string());
    record
}
