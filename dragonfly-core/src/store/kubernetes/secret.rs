//! Secrets as Kubernetes' own: core/v1, of a type of ours.
//!
//! Each value stands under its key in `data`. Those that the engine writes are sealed and say so; those that a person
//! writes (`kubectl create secret generic NAME --type=dragonfly.computer/secret --from-literal=KEY=VALUE`) are plain.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::NAME;
use crate::resource::{Kind, Metadata, Record};
use crate::store::{Key, Result, StoreError};

/// The `type` of the Secrets that are ours.
pub(super) const TYPE: &str = "dragonfly.computer/secret";
/// What a sealed value begins with.
const SEALED: &str = "dragonfly.computer/sealed:";
/// Fields of the spec that are no values: those of a later version.
const REST: &str = "dragonfly.computer/spec";
/// Where kubectl repeats the values.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A Secret with `spec.sealed`, and `spec.data` for what is plain; `None` for one of another type.
pub(super) fn read(mut metadata: Metadata, object: &Value) -> Option<Record> {
    if object.get("type").and_then(Value::as_str) != Some(TYPE) {
        return None;
    }
    // It holds the values: readers see annotations.
    metadata.annotations.remove(APPLIED);
    let rest = metadata.annotations.remove(REST).and_then(|text| serde_json::from_str(&text).ok());
    let mut spec: Map<String, Value> = rest.unwrap_or_default();
    let (mut sealed, mut plain) = (Map::new(), Map::new());
    for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        let bytes = value.as_str().and_then(|text| BASE64.decode(text).ok());
        // What is no text is no value that anything here could use.
        let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
        match text.strip_prefix(SEALED) {
            Some(value) => sealed.insert(key.clone(), value.into()),
            None => plain.insert(key.clone(), text.into()),
        };
    }
    spec.insert("sealed".to_owned(), sealed.into());
    if !plain.is_empty() {
        spec.insert("data".to_owned(), plain.into());
    }
    Some(Record { kind: Kind::SECRET, metadata, spec: spec.into(), status: Value::Null })
}

/// `data` and annotations of a Secret that is written.
pub(super) fn parts(record: &Record) -> Result<(Value, Value)> {
    let refuse = |what: &str| {
        let key = Key::new(record.kind, record.metadata.name.clone());
        StoreError::Invalid { key, store: NAME, what: what.to_owned() }
    };
    let Value::Object(spec) = &record.spec else { return Err(refuse("its spec is no object")) };
    let mut data = BTreeMap::new();
    let mut rest = Map::new();
    for (field, value) in spec {
        match (field.as_str(), value) {
            ("sealed" | "data", Value::Object(values)) => {
                let mark = if field == "sealed" { SEALED } else { "" };
                for (key, value) in values {
                    let value = value.as_str().ok_or_else(|| refuse("a value is no text"))?;
                    data.insert(key, BASE64.encode(format!("{mark}{value}")));
                }
            }
            ("sealed" | "data", _) => return Err(refuse("its values are no object")),
            _ => {
                rest.insert(field.clone(), value.clone());
            }
        }
    }
    let mut annotations = record.metadata.annotations.clone();
    annotations.remove(APPLIED);
    if !rest.is_empty() {
        annotations.insert(REST.to_owned(), Value::Object(rest).to_string());
    }
    Ok((json!(data), json!(annotations)))
}
