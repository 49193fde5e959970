//! The objects people write and the engine keeps: Kubernetes' shape, with or without Kubernetes.
//!
//! ```yaml
//! apiVersion: dragonfly.computer/v1
//! kind: Template
//! metadata: { name: debian-12 }
//! spec: { actions: [] }
//! ```
//!
//! `spec` is what people want and write; `status` is what the engine saw and writes. A store and
//! a cache keep fields that this version does not know; only the door ([`manifest`]) is strict.

mod address;
mod conflict;
pub mod hardware;
pub mod manifest;
pub mod network;
pub mod power;
pub(crate) mod room;
pub mod schema;
pub mod secret;
pub mod template;
pub mod tokens;
mod unclaimed;
pub(crate) mod words;
pub mod workflow;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::clock::Timestamp;

pub use conflict::CONFLICT;
pub(crate) use conflict::{ELSEWHERE, NOT_MOVED, WAITING};
pub use hardware::{Hardware, HardwareSpec, HardwareStatus};
pub use network::{Network, NetworkSpec};
pub use secret::{SecretObject, SecretSpec};
pub use template::{Template, TemplateSpec};
pub use workflow::{Workflow, WorkflowSpec, WorkflowStatus};

/// API group of every kind here.
pub const GROUP: &str = "dragonfly.computer";
/// Version of every kind here.
pub const VERSION: &str = "v1";
/// API group and version of every kind here.
pub const API_VERSION: &str = "dragonfly.computer/v1";
/// The label with the region of a machine or a network.
pub const REGION_LABEL: &str = "dragonfly.computer/region";
/// The largest object that is accepted, in bytes of JSON.
pub const MAX_OBJECT_BYTES: usize = 512 * 1024;

/// A family of objects: one redb table, one Kubernetes custom resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// As in a manifest's `kind`: `Hardware`.
    pub name: &'static str,
    /// As in a URL: `hardware`.
    pub plural: &'static str,
    /// As a person types it: `hw`.
    pub short: &'static str,
}

impl Kind {
    /// One physical or virtual machine.
    pub const HARDWARE: Self = Self { name: "Hardware", plural: "hardware", short: "hw" };
    /// An ordered list of actions.
    pub const TEMPLATE: Self = Self { name: "Template", plural: "templates", short: "tpl" };
    /// One run of one template on one machine.
    pub const WORKFLOW: Self = Self { name: "Workflow", plural: "workflows", short: "wf" };
    /// One network segment on which boot services answer.
    pub const NETWORK: Self = Self { name: "Network", plural: "networks", short: "net" };
    /// Values that are written and never read back.
    pub const SECRET: Self = Self { name: "Secret", plural: "secrets", short: "sec" };
    /// Every kind of this version.
    pub const ALL: [Self; 5] = [Self::HARDWARE, Self::TEMPLATE, Self::WORKFLOW, Self::NETWORK, Self::SECRET];

    /// The kind a person means by `Hardware`, `hardware`, `hw`, `template`, ...
    pub fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            word.eq_ignore_ascii_case(kind.name)
                || word.eq_ignore_ascii_case(kind.plural)
                || word.eq_ignore_ascii_case(kind.short)
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Labels and annotations.
pub type Labels = BTreeMap<String, String>;

/// Kubernetes' object metadata, as far as cluster-scoped objects use it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Unique within the kind; a DNS label.
    pub name: String,
    /// Unique over all time; UUIDv7, given at creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uuid>,
    /// What selectors look at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// Notes that no selector looks at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Labels,
    /// Counts changes of `spec`.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Changes with every write. Opaque: compare for equality only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// When somebody asked for its deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
    /// Who must agree before it goes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What a kind's `spec` is; ties it to its `status`.
pub trait Spec: fmt::Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind it belongs to.
    const KIND: Kind;
    /// What the engine reports beside it.
    type Status: fmt::Debug + Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Notes in a status which instance wrote it, where that is kept.
    fn written_by(status: &mut Self::Status, instance: &str) {
        let _ = (status, instance);
    }

    /// Cuts what a status tells to a size for which an object has room. The engine does this before each write.
    fn keep_small(status: &mut Self::Status) {
        let _ = status;
    }
}

/// A kind without a status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoStatus {}

/// One object with its types.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<S: Spec> {
    /// Name, labels, versions.
    pub metadata: Metadata,
    /// What people want.
    pub spec: S,
    /// What the engine saw.
    pub status: S::Status,
}

impl<S: Spec> Resource<S> {
    /// An object that is not stored yet.
    pub fn new(name: impl Into<String>, spec: S) -> Self {
        Self { metadata: Metadata { name: name.into(), ..Metadata::default() }, spec, status: S::Status::default() }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }
}

/// One object without its types: what a store keeps, unknown fields included.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Which family it belongs to.
    pub kind: Kind,
    /// Name, labels, versions.
    pub metadata: Metadata,
    /// What people want, as JSON.
    pub spec: Value,
    /// What the engine saw, as JSON.
    pub status: Value,
}

/// A stored object that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("{kind} `{name}` has a field that cannot be read: {path}")]
pub struct DecodeError {
    /// Which family.
    pub kind: Kind,
    /// Which object.
    pub name: String,
    /// Where in it, and what is wrong.
    pub path: String,
    /// The parser's own words.
    #[source]
    pub source: serde_json::Error,
}

impl Record {
    /// The object with its types; fields that this version does not know are passed over.
    pub fn decode<S: Spec>(&self) -> Result<Resource<S>, DecodeError> {
        let fail = |part: &str, error: serde_path_to_error::Error<serde_json::Error>| DecodeError {
            kind: self.kind,
            name: self.metadata.name.clone(),
            path: format!("{part}.{}", error.path()),
            source: error.into_inner(),
        };
        let spec = read(&self.spec).map_err(|e| fail("spec", e))?;
        let status = if self.status.is_null() {
            S::Status::default()
        } else {
            read(&self.status).map_err(|e| fail("status", e))?
        };
        Ok(Resource { metadata: self.metadata.clone(), spec, status })
    }

    /// The whole object as JSON, `apiVersion` first.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("apiVersion".into(), API_VERSION.into());
        object.insert("kind".into(), self.kind.name.into());
        object.insert("metadata".into(), serde_json::to_value(&self.metadata).unwrap_or_default());
        object.insert("spec".into(), self.spec.clone());
        if !self.is_bare() {
            object.insert("status".into(), self.status.clone());
        }
        Value::Object(object)
    }

    /// Whether it has no status.
    fn is_bare(&self) -> bool {
        self.status.is_null() || self.status.as_object().is_some_and(Map::is_empty)
    }
}

/// As [`Record::to_json`], without a copy of everything in between.
impl Serialize for Record {
    fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut object = serializer.serialize_struct("Object", if self.is_bare() { 4 } else { 5 })?;
        object.serialize_field("apiVersion", API_VERSION)?;
        object.serialize_field("kind", self.kind.name)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("spec", &self.spec)?;
        if !self.is_bare() {
            object.serialize_field("status", &self.status)?;
        }
        object.end()
    }
}

/// A part with its type. Keeping track of the place costs as much as the reading itself, and is for those
/// that cannot be read.
fn read<T: DeserializeOwned>(part: &Value) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    T::deserialize(part).or_else(|_| serde_path_to_error::deserialize(part))
}

impl<S: Spec> From<&Resource<S>> for Record {
    fn from(object: &Resource<S>) -> Self {
        Self {
            kind: S::KIND,
            metadata: object.metadata.clone(),
            // Our own types always serialise: string keys, no fallible impls.
            spec: serde_json::to_value(&object.spec).unwrap_or_default(),
            status: serde_json::to_value(&object.status).unwrap_or_default(),
        }
    }
}

impl<S: Spec> Serialize for Resource<S> {
    fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        Record::from(self).serialize(serializer)
    }
}

/// A true, false or not yet known fact about an object, with its cause; Kubernetes' shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about: `Booted`, `Powered`, `Protected`, `Adopted`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// The cause as one word.
    #[serde(default)]
    pub reason: String,
    /// The cause for a person.
    #[serde(default)]
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can say yet.
    Unknown,
}

/// Sets one condition; the time moves only when the status changes.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let found = conditions.iter_mut().find(|c| c.kind == kind);
    match found {
        Some(condition) => {
            if condition.status != status {
                condition.last_transition_time = now;
            }
            condition.status = status;
            reason.clone_into(&mut condition.reason);
            message.clone_into(&mut condition.message);
        }
        None => conditions.push(Condition {
            kind: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: now,
        }),
    }
}

/// The condition of this kind, if any.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_written_as_it_is_shown() {
        for status in [Value::Null, json!({}), json!({ "phase": "Ready" })] {
            let metadata = Metadata { name: "m".into(), generation: 3, ..Metadata::default() };
            let record = Record { kind: Kind::HARDWARE, metadata, spec: json!({ "macs": [] }), status };
            assert_eq!(serde_json::to_value(&record).unwrap(), record.to_json());
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        let metadata = Metadata { name: "m".into(), ..Metadata::default() };
        let status = json!({ "inventory": { "disks": [{ "name": "sda", "size": "large" }] } });
        let record = Record { kind: Kind::HARDWARE, metadata, spec: json!({}), status };
        let error = record.decode::<HardwareSpec>().unwrap_err();
        assert_eq!(error.path, "status.inventory.disks[0].size");
    }
}
