//! Where objects are and what they look like there. Pure.

use serde_json::{Map, Value, json};

use super::{NAME, secret};
use crate::resource::{DecodeError, Kind, Metadata, Record, VERSION};
use crate::store::{Key, Part, Result, StoreError};

/// Where the objects of one kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A custom resource.
    Custom { group: &'a str, kind: Kind },
    /// core/v1 Secrets of our type.
    Secrets { namespace: &'a str },
    /// A custom resource of Tinkerbell.
    Tinkerbell { namespace: &'a str, kind: Kind },
    /// Tinkerbell's controllers of machines.
    #[cfg_attr(not(feature = "tinkerbell"), allow(dead_code))]
    Controllers { namespace: &'a str },
}

/// Tinkerbell's API group and version, and that of its controllers of machines.
pub(super) const TINKERBELL: &str = "tinkerbell.org/v1alpha1";
const CONTROLLERS: &str = "bmc.tinkerbell.org/v1alpha1";

impl Place<'_> {
    /// The path of the collection.
    pub(super) fn all(self) -> String {
        match self {
            Self::Custom { group, kind } => format!("/apis/{group}/{VERSION}/{}", kind.plural),
            Self::Secrets { namespace } => format!("/api/v1/namespaces/{namespace}/secrets"),
            Self::Tinkerbell { namespace, kind } => {
                format!("/apis/{TINKERBELL}/namespaces/{namespace}/{}", kind.plural)
            }
            Self::Controllers { namespace } => format!("/apis/{CONTROLLERS}/namespaces/{namespace}/machines"),
        }
    }

    /// The path of one object.
    pub(super) fn one(self, name: &str) -> String {
        format!("{}/{name}", self.all())
    }

    /// The path of its status.
    pub(super) fn status(self, key: &Key) -> Result<String> {
        match self {
            Self::Custom { .. } => Ok(format!("{}/status", self.one(&key.name))),
            // Their status is theirs alone: ours stands beside it.
            Self::Tinkerbell { .. } | Self::Controllers { .. } => Ok(self.one(&key.name)),
            Self::Secrets { .. } => {
                let what = "a Secret has no status".to_owned();
                Err(StoreError::Invalid { key: key.clone(), store: NAME, what })
            }
        }
    }

    /// As permissions name it: `hardware.dragonfly.computer`.
    pub(super) fn resource(self) -> String {
        match self {
            Self::Custom { group, kind } => format!("{}.{group}", kind.plural),
            Self::Secrets { namespace } => format!("secrets in the namespace `{namespace}`"),
            Self::Tinkerbell { namespace, kind } => {
                format!("{}.tinkerbell.org in the namespace `{namespace}`", kind.plural)
            }
            Self::Controllers { namespace } => format!("machines.bmc.tinkerbell.org in the namespace `{namespace}`"),
        }
    }

    /// What goes along with every list and watch.
    pub(super) fn field_selector(self) -> Option<String> {
        match self {
            Self::Custom { .. } | Self::Tinkerbell { .. } | Self::Controllers { .. } => None,
            Self::Secrets { .. } => Some(format!("type={}", secret::TYPE)),
        }
    }

    /// An object as the API server gave it; `None` when it is none of ours.
    pub(super) fn read(self, kind: Kind, mut object: Value) -> Result<Option<Record>> {
        let metadata = metadata(kind, &mut object)?;
        if let Self::Secrets { .. } = self {
            return Ok(secret::read(metadata, &object));
        }
        let spec = match object.get_mut("spec").map(Value::take) {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(spec) => spec,
        };
        let status = object.get_mut("status").map(Value::take).unwrap_or_default();
        Ok(Some(Record { kind, metadata, spec, status }))
    }

    /// The body that creates an object.
    pub(super) fn creation(self, record: &Record) -> Result<Value> {
        let Metadata { name, labels, annotations, finalizers, .. } = &record.metadata;
        match self {
            Self::Custom { group, kind } => Ok(json!({
                "apiVersion": format!("{group}/{VERSION}"),
                "kind": kind.name,
                "metadata": {
                    "name": name, "labels": labels, "annotations": annotations, "finalizers": finalizers,
                },
                "spec": record.spec,
            })),
            Self::Secrets { .. } => {
                let (data, annotations) = secret::parts(record)?;
                Ok(json!({
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "type": secret::TYPE,
                    "metadata": {
                        "name": name, "labels": labels, "annotations": annotations, "finalizers": finalizers,
                    },
                    "data": data,
                }))
            }
            Self::Tinkerbell { .. } | Self::Controllers { .. } => Err(unread(record)),
        }
    }

    /// The JSON patch that changes one part of what has this version. A patch that sets `resourceVersion` is refused as
    /// a conflict when the object has another.
    pub(super) fn patch(self, record: &Record, part: Part, version: &str) -> Result<Value> {
        let set = |path: &str, value: Value| json!({ "op": "add", "path": path, "value": value });
        let mut operations = vec![json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": version })];
        let Metadata { labels, annotations, finalizers, .. } = &record.metadata;
        match (part, self) {
            (Part::Status, _) => {
                let status = if record.status.is_null() { json!({}) } else { record.status.clone() };
                operations.push(set("/status", status));
                return Ok(operations.into());
            }
            (Part::Spec, Self::Custom { .. }) => {
                operations.push(set("/spec", record.spec.clone()));
                operations.push(set("/metadata/annotations", json!(annotations)));
            }
            (Part::Spec, Self::Secrets { .. }) => {
                let (data, annotations) = secret::parts(record)?;
                operations.push(set("/data", data));
                operations.push(set("/metadata/annotations", annotations));
            }
            (Part::Spec, Self::Tinkerbell { .. } | Self::Controllers { .. }) => return Err(unread(record)),
        }
        operations.push(set("/metadata/labels", json!(labels)));
        operations.push(set("/metadata/finalizers", json!(finalizers)));
        Ok(operations.into())
    }
}

/// What is written over as it stands is read first: see `theirs`.
fn unread(record: &Record) -> StoreError {
    let key = Key::new(record.kind, record.metadata.name.clone());
    StoreError::Invalid { key, store: NAME, what: "it is not written without being read".to_owned() }
}

pub(super) fn metadata(kind: Kind, object: &mut Value) -> Result<Metadata> {
    let given = object.get_mut("metadata").map(Value::take).unwrap_or_default();
    let name = given.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    serde_path_to_error::deserialize(given).map_err(|error| {
        let path = format!("metadata.{}", error.path());
        StoreError::Decode(DecodeError { kind, name, path, source: error.into_inner() })
    })
}

/// Whether this can be a `resourceVersion` that names one state: Kubernetes takes an empty one and 0 for "any".
pub(super) fn is_version(version: &str) -> bool {
    version.parse::<u64>().is_ok_and(|number| number > 0)
}

/// Whether this can stand in a path as one name (RFC 1123 subdomain).
pub(super) fn may_be_a_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('.')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.'))
}
