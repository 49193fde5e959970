//! What a write means, decided without any storage: every store of ours obeys these functions, and so may yours.
//!
//! A write is: read the object, ask [`put`] or [`delete`] with the next number of the store's one counter, keep
//! what they give as [`encode`] writes it. All of that in one transaction, and one write at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Key, Part, Result, Selector, StoreError, When};
use crate::clock::Timestamp;
use crate::resource::{DecodeError, Kind, MAX_OBJECT_BYTES, Metadata, Record};

/// The object as it is after this write, with `version` as its `resourceVersion`.
///
/// `current` is what is stored under that name; `version` must be higher than every one given out before.
///
/// # Errors
/// [`StoreError::AlreadyExists`], [`StoreError::NotFound`] or [`StoreError::Conflict`] when `when` does not hold:
/// nothing is to be written, and no version is used up.
pub fn put(
    current: Option<Record>,
    given: Record,
    part: Part,
    when: &When,
    version: u64,
    now: Timestamp,
) -> Result<Record> {
    let key = Key::new(given.kind, given.metadata.name.clone());
    match (current, when) {
        (Some(_), When::Absent) => Err(StoreError::AlreadyExists { key }),
        (None, When::Unchanged(_)) => Err(StoreError::NotFound { key }),
        (Some(current), When::Unchanged(seen)) if current.metadata.resource_version != *seen => {
            Err(StoreError::Conflict { key })
        }
        (Some(current), When::Unchanged(_)) => Ok(changed(current, given, part, version)),
        (None, When::Absent) => match part {
            Part::Spec => Ok(created(given, version, now)),
            // As Kubernetes answers: there is no status of what is not there.
            Part::Status => Err(StoreError::NotFound { key }),
        },
    }
}

fn created(given: Record, version: u64, now: Timestamp) -> Record {
    let Metadata { name, labels, annotations, finalizers, .. } = given.metadata;
    let metadata = Metadata {
        name,
        uid: Some(uuid_at(now)),
        labels,
        annotations,
        generation: 1,
        resource_version: version.to_string(),
        creation_timestamp: Some(now),
        deletion_timestamp: None,
        finalizers,
    };
    Record { kind: given.kind, metadata, spec: given.spec, status: Value::Null }
}

fn changed(mut current: Record, given: Record, part: Part, version: u64) -> Record {
    match part {
        Part::Spec => {
            if current.spec != given.spec {
                current.metadata.generation = current.metadata.generation.saturating_add(1);
            }
            current.spec = given.spec;
            current.metadata.labels = given.metadata.labels;
            current.metadata.annotations = given.metadata.annotations;
            current.metadata.finalizers = given.metadata.finalizers;
        }
        Part::Status => current.status = given.status,
    }
    current.metadata.resource_version = version.to_string();
    current
}

/// What is deleted, with the version of its deletion, if `current` still has the version that was `seen`.
///
/// # Errors
/// [`StoreError::NotFound`] or [`StoreError::Conflict`]: nothing is to be deleted.
pub fn delete(current: Option<Record>, key: &Key, seen: &str, version: u64) -> Result<Record> {
    let Some(mut current) = current else { return Err(StoreError::NotFound { key: key.clone() }) };
    if current.metadata.resource_version != seen {
        return Err(StoreError::Conflict { key: key.clone() });
    }
    current.metadata.resource_version = version.to_string();
    Ok(current)
}

/// UUIDv7 (RFC 9562 section 5.7): the time of creation, then randomness.
fn uuid_at(now: Timestamp) -> Uuid {
    let millis = u64::try_from(now.unix_millis()).unwrap_or(0);
    let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, nanos))
}

#[derive(Serialize)]
struct Encode<'a> {
    metadata: &'a Metadata,
    spec: &'a Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    status: &'a Value,
}

#[derive(Deserialize)]
struct Decode {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// An object as bytes: JSON.
///
/// # Errors
/// [`StoreError::TooLarge`] when it is larger than an object may be.
pub fn encode(record: &Record) -> Result<Vec<u8>> {
    let parts = Encode { metadata: &record.metadata, spec: &record.spec, status: &record.status };
    let key = || Key::new(record.kind, record.metadata.name.clone());
    let bytes = serde_json::to_vec(&parts).map_err(|source| unreadable(&key(), source))?;
    if bytes.len() > MAX_OBJECT_BYTES {
        return Err(StoreError::TooLarge { key: key(), bytes: bytes.len() });
    }
    Ok(bytes)
}

/// The object in these bytes.
///
/// # Errors
/// [`StoreError::Decode`] when they are no object.
pub fn decode(kind: Kind, name: &str, bytes: &[u8]) -> Result<Record> {
    let Decode { metadata, spec, status } =
        serde_json::from_slice(bytes).map_err(|source| unreadable(&Key::new(kind, name), source))?;
    Ok(Record { kind, metadata, spec, status })
}

/// Whether the object in these bytes may be meant: `false` only when its labels say so. What stands after
/// its metadata is not looked at, so that a search does not cost what reading everything does.
pub fn may_match(bytes: &[u8], selector: &Selector) -> bool {
    if selector.labels.is_empty() {
        return true;
    }
    // What cannot be read is for whoever reads it to tell.
    let Some(labels) = labels(bytes) else { return true };
    selector.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The labels of the object in these bytes; `None` when they cannot be read. What stands after its metadata is not
/// looked at.
pub fn labels(bytes: &[u8]) -> Option<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Labelled {
        metadata: Labels,
    }
    #[derive(Deserialize)]
    struct Labels {
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }
    // As `encode` writes it; what others have written is read whole.
    let metadata = match bytes.strip_prefix(b"{\"metadata\":") {
        // Ends with the metadata: nobody asks whether that was all.
        Some(rest) => Labels::deserialize(&mut serde_json::Deserializer::from_slice(rest)),
        None => serde_json::from_slice::<Labelled>(bytes).map(|whole| whole.metadata),
    };
    metadata.ok().map(|metadata| metadata.labels)
}

fn unreadable(key: &Key, source: serde_json::Error) -> StoreError {
    let path = format!("line {}, column {}", source.line(), source.column());
    StoreError::Decode(DecodeError { kind: key.kind, name: key.name.clone(), path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_from_the_metadata_alone() {
        let mut record = Record {
            kind: Kind::HARDWARE,
            metadata: Metadata { name: "m".into(), ..Metadata::default() },
            spec: serde_json::json!({ "labels": { "rack": "no" } }),
            status: Value::Null,
        };
        record.metadata.labels.insert("rack".into(), "a \"1\"".into());
        let selector = |value: &str| Selector { labels: [("rack".to_owned(), value.to_owned())].into() };
        let ours = encode(&record).unwrap();
        assert!(ours.starts_with(b"{\"metadata\":"), "what is passed over is what is written");
        let cut = ours.get(..ours.len() - 1).unwrap();
        let spaced = serde_json::to_vec_pretty(&serde_json::from_slice::<Value>(&ours).unwrap()).unwrap();
        for bytes in [&ours[..], cut, &spaced[..]] {
            let text = String::from_utf8_lossy(bytes);
            assert!(may_match(bytes, &selector("a \"1\"")), "{text}");
            assert!(!may_match(bytes, &selector("no")), "{text}");
            assert!(may_match(bytes, &Selector::all()), "{text}");
        }
        assert!(may_match(b"{\"metadata\":{\"labels\":7}}", &selector("a")), "for its reader to tell");
        assert!(may_match(b"nonsense", &selector("a")));
    }
}
