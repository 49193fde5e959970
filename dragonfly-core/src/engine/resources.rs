//! Objects as people read and write them.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};

use super::write::{Expect, Write};
use super::{Engine, EngineError, Result};
use crate::action::Problem;
use crate::power::PowerError;
use crate::resource::manifest::{self, Manifest, ManifestError, ManifestProblem};
use crate::resource::{HardwareSpec, Kind, Metadata, Record, SecretObject, SecretSpec, TemplateSpec, WorkflowSpec};
use crate::secret::{SealError, SecretString};
use crate::store::{Key, Page, Selector, WatchEvent};
use crate::text::shown_url;
use crate::workflow::RunState;

/// How many objects of one text are written at a time.
const AT_ONCE: usize = 64;

/// What `apply` did with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Created,
    /// It was there and is now different.
    Configured,
    /// It was there, just so.
    Unchanged,
}

/// One object that `apply` looked at.
#[derive(Debug, Clone)]
pub struct Applied {
    /// As it now is.
    pub record: Record,
    /// What was done.
    pub change: Change,
}

/// What a sealed value is bound to, so that it cannot be moved elsewhere.
fn sealing_place(secret: &str, key: &str) -> String {
    format!("Secret/{secret}/{key}")
}

impl Engine {
    /// One object. A Secret's values are never in it, only their names.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Record> {
        let key = Key::new(kind, name);
        let found = self.inner.store.get(&key).await?;
        found.map(|r| self.shown(r)).ok_or_else(|| self.not_found(kind, name))
    }

    /// Objects of one kind, ordered by name; `limit` 0 is all.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        let page = self.inner.store.list(kind, selector, limit, from).await?;
        Ok(Page { items: page.items.into_iter().map(|r| self.shown(r)).collect(), ..page })
    }

    /// Everything of one kind, then every change.
    pub fn watch(&self, kind: Kind, from: Option<String>) -> BoxStream<'static, Result<WatchEvent>> {
        let engine = self.clone();
        self.inner
            .store
            .watch(kind, from)
            .map(move |event| {
                Ok(match event? {
                    WatchEvent::Snapshot(all) => {
                        WatchEvent::Snapshot(all.into_iter().map(|r| engine.shown(r)).collect())
                    }
                    WatchEvent::Applied(one) => WatchEvent::Applied(engine.shown_to_all(one)),
                    WatchEvent::Deleted(one) => WatchEvent::Deleted(engine.shown_to_all(one)),
                })
            })
            .boxed()
    }

    /// Creates or changes every object of a text. All of it is checked before any of it is written.
    ///
    /// # Errors
    /// `Manifest` with every problem, its path and line.
    pub async fn apply(&self, text: &str, by: &str) -> Result<Vec<Applied>> {
        self.apply_with(text, Write::by(by)).await
    }

    /// As [`apply`](Self::apply), perhaps only to see what it would do.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply).
    pub async fn apply_with(&self, text: &str, write: Write<'_>) -> Result<Vec<Applied>> {
        self.apply_each(text, write).await?.into_iter().map(|(_, applied)| applied).collect()
    }

    /// As [`apply_with`](Self::apply_with), with what came of each object, in the order of the text: one that cannot be
    /// written stops none of the others, and who sent the text learns which are there now.
    ///
    /// # Errors
    /// `Manifest`, and then nothing was written.
    pub async fn apply_each(&self, text: &str, write: Write<'_>) -> Result<Vec<(Key, Result<Applied>)>> {
        let manifests = manifest::parse(text)?;
        let mut problems: Vec<ManifestProblem> = Vec::new();
        for one in &manifests {
            let mut found = self.problems_in(&one.record);
            found.extend(self.new_finalizers(&one.record).await?);
            problems.extend(found.into_iter().map(|Problem { path, problem }| ManifestProblem {
                line: one.line_of(&path),
                path,
                problem,
            }));
        }
        if !problems.is_empty() {
            return Err(ManifestError { problems }.into());
        }
        // Several at once: a store that writes in groups writes them so. An object that stands in the text
        // twice has one lock, which is given in the order of asking. None is left half done for another's error.
        let one = |Manifest { record, .. }: Manifest| async move {
            let key = Key::new(record.kind, record.metadata.name.clone());
            (key, self.write_one(record, Expect::Any, write).await)
        };
        Ok(stream::iter(manifests.into_iter().map(one)).buffered(AT_ONCE).collect().await)
    }

    pub(super) async fn may_delete(&self, record: &Record) -> Result<()> {
        let name = &record.metadata.name;
        if record.kind == Kind::HARDWARE {
            let machine = record.decode::<HardwareSpec>()?;
            if machine.spec.protected {
                return Err(EngineError::Protected { machine: name.clone() });
            }
            if Self::busy(&machine) {
                return Err(EngineError::Illegal { why: format!("{name} has a workflow under way; abort it first") });
            }
        }
        if record.kind == Kind::WORKFLOW {
            let run = record.decode::<WorkflowSpec>()?;
            let machine = self.fresh::<HardwareSpec>(&run.spec.hardware).await?;
            if self.is_tinkerbells() && !run.status.state.is_final() && run.status.state != RunState::Failed {
                let why = format!("{name} is what {} is to run; abort it first", run.spec.hardware);
                return Err(EngineError::Illegal { why });
            }
            let authorised = machine.is_some_and(|m| {
                m.status.authorisation.as_ref().is_some_and(|a| Some(a.workflow_uid) == run.metadata.uid)
            });
            if authorised {
                let why = format!("{name} is what {} is to run; abort it first", run.spec.hardware);
                return Err(EngineError::Illegal { why });
            }
        }
        Ok(())
    }

    pub(super) fn checked(&self, object: Value) -> Result<Record> {
        let record = manifest::from_json(object)?;
        let problems = self.problems_in(&record);
        if problems.is_empty() { Ok(record) } else { Err(EngineError::Invalid(problems)) }
    }

    /// As [`checked`](Self::checked), for what another store has had: what brings it back is known of it already.
    pub(super) fn checked_again(&self, object: Value) -> Result<Record> {
        let record = manifest::from_json(object)?;
        let mut problems = self.problems_as_it_stands(&record);
        problems.extend(self.words_refused(&record));
        if problems.is_empty() { Ok(record) } else { Err(EngineError::Invalid(problems)) }
    }

    /// What is wrong with an object beyond its shape.
    fn problems_in(&self, record: &Record) -> Vec<Problem> {
        let mut problems = self.problems_as_it_stands(record);
        problems.extend(self.not_admitted(record));
        problems
    }

    fn problems_as_it_stands(&self, record: &Record) -> Vec<Problem> {
        match record.kind {
            Kind::TEMPLATE => match record.decode::<TemplateSpec>() {
                Ok(template) => self
                    .inner
                    .checker
                    .check(&template.spec)
                    .into_iter()
                    .map(|p| Problem { path: format!("spec.{}", p.path), problem: p.problem })
                    .collect(),
                Err(error) => vec![Problem { path: error.path.clone(), problem: error.to_string() }],
            },
            Kind::HARDWARE => match record.decode::<HardwareSpec>() {
                Ok(machine) => {
                    let mut problems = self.cards_taken(&machine);
                    problems.extend(self.controller_problem(&machine));
                    problems
                }
                Err(error) => vec![Problem { path: error.path.clone(), problem: error.to_string() }],
            },
            _ => Vec::new(),
        }
    }

    /// What is wrong with the address of its controller. Who talks to no controllers does not judge it.
    fn controller_problem(&self, machine: &crate::resource::Hardware) -> Option<Problem> {
        let drivers = self.inner.power.drivers();
        let bmc = machine.spec.bmc.as_ref().filter(|_| drivers.schemes().next().is_some())?;
        let error = drivers.check(&bmc.address).err()?;
        let problem = match &error {
            PowerError::NoDriver { .. } => format!("{error}; this is `{}`", shown_url(bmc.address.as_str())),
            _ => error.to_string(),
        };
        Some(Problem { path: "spec.bmc.address".to_owned(), problem })
    }

    pub(super) fn noted(&self, record: &Record, change: Change, by: &str) {
        super::objects::note(&self.inner.cache, record);
        self.refresh_networks();
        let name = &record.metadata.name;
        let machine = if record.kind == Kind::HARDWARE { name.as_str() } else { "" };
        let word = if change == Change::Created { "created" } else { "changed" };
        self.tell("object.applied", machine, None, format!("{by} {word} {} `{name}`", record.kind));
    }

    pub(super) fn same(&self, old: &Record, new: &Record) -> bool {
        let kept = |record: &Record| {
            let Metadata { labels, annotations, finalizers, .. } = record.metadata.clone();
            (labels, annotations, finalizers)
        };
        if kept(old) != kept(new) {
            return false;
        }
        if old.kind != Kind::SECRET {
            let mut old_spec = old.spec.clone();
            if let (Some(old), Some(new)) = (old_spec.as_object_mut(), new.spec.as_object())
                && !new.contains_key("displayName")
            {
                old.remove("displayName");
            }
            return old_spec == new.spec;
        }
        let (Ok(old), Ok(new)) = (old.decode::<SecretSpec>(), new.decode::<SecretSpec>()) else { return false };
        old.spec.sealed.len() + old.spec.data.len() == new.spec.data.len()
            && new.spec.data.iter().all(|(key, value)| {
                self.secret_value(&old, key).is_some_and(|found| found.is_ok_and(|found| found == *value))
            })
    }

    /// One value of a Secret: sealed by us, or plain where others write Secrets too (Kubernetes).
    pub(super) fn secret_value(
        &self,
        secret: &SecretObject,
        key: &str,
    ) -> Option<std::result::Result<SecretString, SealError>> {
        match secret.spec.sealed.get(key) {
            Some(sealed) => Some(self.inner.key.open(&sealing_place(secret.name(), key), sealed)),
            None => secret.spec.data.get(key).cloned().map(Ok),
        }
    }

    /// The Secrets of which a value cannot be opened, as they were when this was first asked: they were sealed with
    /// another key. Of those, the ones that can be opened by now are left out, so that asking again costs little however
    /// many Secrets there are; of more than 64 not all at once.
    pub fn unopened_secrets(&self) -> Vec<String> {
        let opens = |secret: &SecretObject| {
            let mut values = secret.spec.sealed.keys().filter_map(|key| self.secret_value(secret, key));
            values.all(|value| value.is_ok())
        };
        let mut found = self.inner.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        let names = found.get_or_insert_with(|| {
            let all = self.inner.cache.all::<SecretSpec>();
            let mut names: Vec<String> =
                all.iter().filter(|secret| !opens(secret)).map(|secret| secret.name().to_owned()).collect();
            names.sort_unstable();
            names
        });
        let is_mended = |name: &String| self.inner.cache.get::<SecretSpec>(name).is_none_or(|secret| opens(&secret));
        if names.len() <= 64 {
            names.retain(|name| !is_mended(name));
        } else {
            while names.pop_if(|name| is_mended(name)).is_some() {}
        }
        names.clone()
    }

    /// A Secret as it is stored; anything else as it is.
    pub(super) fn sealed(&self, mut record: Record) -> Result<Record> {
        if record.kind == Kind::SECRET {
            let secret = record.decode::<SecretSpec>()?;
            let mut sealed = SecretSpec::default();
            for (key, value) in &secret.spec.data {
                let place = sealing_place(secret.name(), key);
                sealed.sealed.insert(key.clone(), self.inner.key.seal(&place, value)?);
            }
            record.spec = serde_json::to_value(&sealed).unwrap_or_default();
        }
        Ok(record)
    }

    /// An object as it may be read: a Secret shows the names of its values; a workflow shows progress.
    /// As [`shown`](Self::shown), without a copy of what is shown as it is.
    fn shown_to_all(&self, record: Arc<Record>) -> Arc<Record> {
        match record.kind {
            Kind::SECRET | Kind::WORKFLOW => Arc::new(self.shown(Arc::unwrap_or_clone(record))),
            _ => record,
        }
    }

    pub(super) fn shown(&self, mut record: Record) -> Record {
        if record.kind == Kind::SECRET {
            // Plain ones too: a store may have Secrets that others wrote.
            let values = ["sealed", "data"].map(|field| record.spec.get(field).and_then(Value::as_object));
            let keys: BTreeSet<&String> = values.into_iter().flatten().flat_map(serde_json::Map::keys).collect();
            record.spec = json!({ "keys": keys });
        }
        if record.kind == Kind::WORKFLOW
            && let Some((_, index, progress)) = self.progress(&record.metadata.name)
            && let Some(step) = record.status.pointer_mut(&format!("/steps/{index}"))
            && let Some(step) = step.as_object_mut()
        {
            step.insert("progress".to_owned(), serde_json::to_value(progress).unwrap_or_default());
        }
        record
    }
}
