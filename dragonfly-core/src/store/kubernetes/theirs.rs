//! Reading and writing Tinkerbell's objects: what the lens needs beside the object itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::failure::Doing;
use super::list::has_code;
use super::object::{self, Place};
use super::tinkerbell::{self, Beside, Unwritable};
use super::{Inner, KubernetesStore, NAME};
use crate::resource::{Kind, Record};
use crate::store::{Key, Part, Result, StoreError};

impl KubernetesStore {
    /// Whether Hardware, Template and Workflow are Tinkerbell's.
    pub fn is_tinkerbell(&self) -> bool {
        self.0.agents.is_some()
    }
}

impl Inner {
    pub(super) fn is_theirs(&self, kind: Kind) -> bool {
        self.agents.is_some() && tinkerbell::is_theirs(kind)
    }

    /// An object as the API server gave it; `None` when it is none of ours.
    pub(super) async fn read(&self, kind: Kind, object: Value) -> Result<Option<Record>> {
        if !self.is_theirs(kind) {
            return self.place(kind).read(kind, object);
        }
        let controller = self.controller(kind, &object).await?;
        self.shown(kind, object, controller.as_ref()).map(Some)
    }

    /// The same of many: what stands beside them is read once.
    pub(super) async fn read_all(&self, kind: Kind, objects: Vec<Value>) -> Result<Vec<Record>> {
        let controllers = if self.is_theirs(kind) && objects.iter().any(|object| controller_of(kind, object).is_some())
        {
            self.controllers().await?
        } else {
            BTreeMap::new()
        };
        let mut records = Vec::with_capacity(objects.len());
        for object in objects {
            if self.is_theirs(kind) {
                let controller = controller_of(kind, &object).and_then(|name| controllers.get(name));
                records.push(self.shown(kind, object, controller)?);
            } else {
                records.extend(self.place(kind).read(kind, object)?);
            }
        }
        Ok(records)
    }

    fn shown(&self, kind: Kind, mut object: Value, controller: Option<&Value>) -> Result<Record> {
        let metadata = object::metadata(kind, &mut object)?;
        let nobody = tinkerbell::Agents::default();
        let agents = self.agents.as_ref().unwrap_or(&nobody);
        Ok(tinkerbell::show(kind, metadata, &object, agents, Beside { controller, hardware: None }))
    }

    /// Forgets what was remembered of an object that is gone.
    pub(super) fn forget(&self, kind: Kind, record: &Record) {
        if let Some(agents) = self.agents.as_ref().filter(|_| kind == Kind::HARDWARE) {
            agents.forget(&record.metadata.name);
        }
    }

    /// What creates one of theirs.
    pub(super) async fn creation(&self, record: &Record) -> Result<Value> {
        let hardware = match record.spec.get("hardware").and_then(Value::as_str) {
            Some(name) if record.kind == Kind::WORKFLOW => self.raw(&Key::new(Kind::HARDWARE, name)).await?,
            _ => None,
        };
        let beside = Beside { controller: None, hardware: hardware.as_ref() };
        tinkerbell::created(record, &self.namespace, beside).map_err(|wrong| refused(record, &wrong))
    }

    /// What writes a part of one of theirs, over what is there.
    pub(super) async fn patch(&self, record: &Record, key: &Key, part: Part, version: &str) -> Result<Value> {
        let Some(before) = self.raw(key).await? else { return Err(StoreError::NotFound { key: key.clone() }) };
        if before.pointer("/metadata/resourceVersion").and_then(Value::as_str) != Some(version) {
            return Err(StoreError::Conflict { key: key.clone() });
        }
        if part == Part::Status {
            return tinkerbell::reported(record, &before, version).map_err(|wrong| refused(record, &wrong));
        }
        let controller = self.controller(key.kind, &before).await?;
        let shown = self.shown(key.kind, before.clone(), controller.as_ref())?;
        let beside = Beside { controller: controller.as_ref(), hardware: None };
        tinkerbell::changed(record, &shown, &before, version, beside).map_err(|wrong| refused(record, &wrong))
    }

    /// One of theirs as it stands there.
    async fn raw(&self, key: &Key) -> Result<Option<Value>> {
        if !object::may_be_a_name(&key.name) {
            return Ok(None);
        }
        let place = self.place(key.kind);
        match self.call(Doing::object("get", key, place), "GET", &place.one(&key.name), None).await {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The Machine that a Hardware names. Where there are none of these, or we may not read them, there is none.
    async fn controller(&self, kind: Kind, object: &Value) -> Result<Option<Value>> {
        let Some(name) = controller_of(kind, object) else { return Ok(None) };
        let place = Place::Controllers { namespace: &self.namespace };
        let key = Key::new(kind, name);
        match self.call(Doing::object("get", &key, place), "GET", &place.one(name), None).await {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) if is_without(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every Machine by name.
    async fn controllers(&self) -> Result<BTreeMap<String, Value>> {
        let place = Place::Controllers { namespace: &self.namespace };
        let answer = self.call(Doing::kind("list", Kind::HARDWARE, place), "GET", &place.all(), None).await;
        let mut answer = match answer {
            Err(error) if is_without(&error) => return Ok(BTreeMap::new()),
            other => other?,
        };
        let Some(Value::Array(items)) = answer.get_mut("items").map(Value::take) else { return Ok(BTreeMap::new()) };
        let named = items.into_iter().filter_map(|mut item| {
            let name = item.pointer("/metadata/name")?.as_str()?.to_owned();
            // Items of a list do not say what they are.
            let fields = item.as_object_mut()?;
            fields.insert("apiVersion".to_owned(), "bmc.tinkerbell.org/v1alpha1".into());
            fields.insert("kind".to_owned(), "Machine".into());
            Some((name, item))
        });
        Ok(named.collect())
    }
}

/// The Machine that a Hardware names.
fn controller_of(kind: Kind, object: &Value) -> Option<&str> {
    let reference = object.pointer("/spec/bmcRef").filter(|_| kind == Kind::HARDWARE)?;
    let is_machine = reference.get("kind").and_then(Value::as_str).is_none_or(|kind| kind == "Machine");
    reference.get("name")?.as_str().filter(|name| is_machine && object::may_be_a_name(name))
}

/// Whether there are no Machines in this cluster, or none for us.
fn is_without(error: &StoreError) -> bool {
    has_code(error, 403) || has_code(error, 404)
}

fn refused(record: &Record, wrong: &Unwritable) -> StoreError {
    let key = Key::new(record.kind, record.metadata.name.clone());
    StoreError::Invalid { key, store: NAME, what: format!("{}: {}", wrong.path, wrong.problem) }
}
