//! Tinkerbell's objects as ours: a lens, pure.
//!
//! Hardware, Template and Workflow are `tinkerbell.org/v1alpha1`, in one namespace. `show` reads one of theirs as one
//! of ours; `changed` puts one of ours back over what it was read from and leaves alone what it does not know. What
//! ours has and theirs cannot say stands in annotations (`dragonfly.computer/spec`, `dragonfly.computer/status`), so
//! that every object is a valid one of theirs. Where both say something, theirs counts: others write it too. Their
//! `status` is read and never written.
//!
//! Facts about the objects: `api/v1alpha1/tinkerbell` and `api/v1alpha1/bmc` of github.com/tinkerbell/tinkerbell, and
//! for the names of older versions github.com/tinkerbell/tink.

mod agents;
mod hardware;
mod reading;
mod template;
#[cfg(test)]
mod tests;
mod workflow;
mod writing;

use serde_json::{Map, Value, json};

use crate::resource::power::POWER_ANNOTATION;
use crate::resource::{Kind, Labels, Metadata, Record};

pub(super) use agents::Agents;
pub use writing::TinkerbellChecker;

/// Their API group.
pub const TINKERBELL_GROUP: &str = "tinkerbell.org";
/// The API group of their controllers of machines.
pub const TINKERBELL_BMC_GROUP: &str = "bmc.tinkerbell.org";
/// The version of both.
pub const TINKERBELL_VERSION: &str = "v1alpha1";
/// The annotation of a Template that shows its text in Tinkerbell's template language, where others wrote that.
pub const TEMPLATE_TEXT: &str = "dragonfly.computer/template-text";
/// The annotation of a Template that says what of its text is not shown as actions.
pub const NOT_SHOWN: &str = "dragonfly.computer/not-shown";

/// Our spec, where theirs does not say all of it.
const SPEC: &str = "dragonfly.computer/spec";
/// Our status.
const STATUS: &str = "dragonfly.computer/status";
/// How many changes of our spec were none of theirs.
const GENERATION: &str = "dragonfly.computer/generation";
/// SHA-256 of the text that was written for the spec in [`SPEC`].
const DIGEST: &str = "dragonfly.computer/template-digest";
/// How many bytes all annotations of an object may have.
const MOST: usize = 256 * 1024;
/// What stands there for us alone.
const PRIVATE: [&str; 4] = [SPEC, STATUS, GENERATION, DIGEST];
/// What is shown and stored nowhere.
const VIRTUAL: [&str; 2] = [TEMPLATE_TEXT, NOT_SHOWN];

/// The kinds that are theirs.
pub(super) fn is_theirs(kind: Kind) -> bool {
    matches!(kind, Kind::HARDWARE | Kind::TEMPLATE | Kind::WORKFLOW)
}

/// What stands beside an object that it cannot be read or written without.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beside<'a> {
    /// Of a Hardware: the Machine that its `bmcRef` names.
    pub(super) controller: Option<&'a Value>,
    /// Of a Workflow that is made: its Hardware.
    pub(super) hardware: Option<&'a Value>,
}

/// What cannot be written as one of theirs: where in it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unwritable {
    pub(super) path: String,
    pub(super) problem: String,
}

impl Unwritable {
    fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

/// One of theirs, of which `metadata` was read already, as one of ours.
pub(super) fn show(kind: Kind, mut metadata: Metadata, object: &Value, agents: &Agents, beside: Beside<'_>) -> Record {
    let annotation = |name: &str| metadata.annotations.get(name).and_then(|text| serde_json::from_str(text).ok());
    let kept: Option<Value> = annotation(SPEC);
    let status: Option<Value> = annotation(STATUS);
    let extra = annotation(GENERATION).and_then(|n: Value| n.as_u64()).unwrap_or_default();
    let digest = metadata.annotations.get(DIGEST).cloned();
    metadata.annotations.retain(|name, _| !PRIVATE.contains(&name.as_str()) && !VIRTUAL.contains(&name.as_str()));
    metadata.generation = metadata.generation.saturating_add(extra);
    let none = Value::Null;
    let theirs = object.get("spec").unwrap_or(&none);
    let (spec, status) = match kind {
        Kind::HARDWARE => {
            let spec = hardware::show(theirs, kept, beside.controller);
            agents.learn(theirs, &metadata.name);
            (spec, status)
        }
        Kind::TEMPLATE => {
            let shown = template::show(theirs, kept, digest.as_deref());
            let notes = [(TEMPLATE_TEXT, shown.text), (NOT_SHOWN, shown.not_shown)];
            metadata.annotations.extend(notes.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))));
            (shown.spec, status)
        }
        _ => {
            let seen = object.get("status").unwrap_or(&none);
            let spec = workflow::show(theirs, seen, kept, agents);
            let status = workflow::status(seen).or(status);
            (spec, Some(status.unwrap_or_else(workflow::waiting)))
        }
    };
    Record { kind, metadata, spec, status: status.unwrap_or_default() }
}

/// What creates one of theirs.
pub(super) fn created(record: &Record, namespace: &str, beside: Beside<'_>) -> Result<Value, Unwritable> {
    let Metadata { name, labels, annotations, finalizers, .. } = &record.metadata;
    let put = put(record, &Value::Null, beside)?;
    let annotations = with_private(annotations, put.private, &Labels::new())?;
    Ok(json!({
        "apiVersion": format!("{TINKERBELL_GROUP}/{TINKERBELL_VERSION}"),
        "kind": record.kind.name,
        "metadata": {
            "name": name, "namespace": namespace, "labels": labels, "annotations": annotations, "finalizers": finalizers,
        },
        "spec": put.spec,
    }))
}

/// The JSON patch that writes a spec over one of theirs as it is. `shown` is how it is shown.
pub(super) fn changed(
    record: &Record,
    shown: &Record,
    before: &Value,
    version: &str,
    beside: Beside<'_>,
) -> Result<Value, Unwritable> {
    let none = Value::Null;
    let theirs = before.get("spec").unwrap_or(&none);
    let had = annotations_of(before);
    let is_same = record.spec == shown.spec;
    let Put { spec, mut private } = if is_same {
        let private = had.iter().filter(|(name, _)| PRIVATE.contains(&name.as_str()));
        Put { spec: theirs.clone(), private: private.map(|(name, text)| (name.clone(), text.clone())).collect() }
    } else {
        put(record, theirs, beside)?
    };
    let extra: u64 = had.get(GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default();
    let extra = extra + u64::from(!is_same && spec == *theirs);
    if extra > 0 {
        private.insert(GENERATION.to_owned(), extra.to_string());
    }
    let annotations = with_private(&record.metadata.annotations, private, &had)?;
    let set = |path: &str, value: Value| json!({ "op": "add", "path": path, "value": value });
    let mut operations = vec![json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": version })];
    if spec != *theirs {
        operations.push(set("/spec", spec));
    }
    operations.push(set("/metadata/annotations", json!(annotations)));
    operations.push(set("/metadata/labels", json!(record.metadata.labels)));
    operations.push(set("/metadata/finalizers", json!(record.metadata.finalizers)));
    Ok(operations.into())
}

/// The JSON patch that writes a status beside one of theirs.
pub(super) fn reported(record: &Record, before: &Value, version: &str) -> Result<Value, Unwritable> {
    let mut annotations = annotations_of(before);
    let is_bare = record.status.is_null() || record.status.as_object().is_some_and(Map::is_empty);
    if is_bare {
        annotations.remove(STATUS);
    } else {
        annotations.insert(STATUS.to_owned(), record.status.to_string());
    }
    fits(&annotations, "status")?;
    Ok(json!([
        { "op": "replace", "path": "/metadata/resourceVersion", "value": version },
        { "op": "add", "path": "/metadata/annotations", "value": annotations },
    ]))
}

/// Whether Kubernetes takes so much.
fn fits(annotations: &Labels, part: &str) -> Result<(), Unwritable> {
    let bytes: usize = annotations.iter().map(|(name, text)| name.len() + text.len()).sum();
    if bytes <= MOST {
        return Ok(());
    }
    let problem = format!(
        "what Tinkerbell's object cannot say of it is kept in annotations, which may have 256 KiB in all; these have {bytes} \
         bytes"
    );
    Err(Unwritable::new(part, problem))
}

/// One of ours as one of theirs.
#[derive(Debug)]
struct Put {
    spec: Value,
    private: Labels,
}

fn put(record: &Record, theirs: &Value, beside: Beside<'_>) -> Result<Put, Unwritable> {
    let mut private = Labels::new();
    let spec = match record.kind {
        Kind::HARDWARE => {
            let spec = hardware::put(&record.spec, theirs, beside.controller)?;
            if hardware::show(&spec, None, beside.controller) != record.spec {
                private.insert(SPEC.to_owned(), record.spec.to_string());
            }
            spec
        }
        Kind::TEMPLATE => {
            let (spec, digest) = template::put(&record.metadata.name, &record.spec, theirs)?;
            private.insert(SPEC.to_owned(), record.spec.to_string());
            private.insert(DIGEST.to_owned(), digest);
            spec
        }
        _ => {
            let is_booted = record.metadata.annotations.get(POWER_ANNOTATION).is_none_or(|policy| policy != "none");
            let spec = workflow::put(&record.spec, theirs, beside.hardware, is_booted)?;
            private.insert(SPEC.to_owned(), record.spec.to_string());
            spec
        }
    };
    Ok(Put { spec, private })
}

/// Annotations as they are stored: those given, and ours beside them, with the status that was there.
fn with_private(given: &Labels, private: Labels, had: &Labels) -> Result<Labels, Unwritable> {
    let mut all = given.clone();
    all.retain(|name, _| !PRIVATE.contains(&name.as_str()) && !VIRTUAL.contains(&name.as_str()));
    all.extend(private);
    all.extend(had.get_key_value(STATUS).map(|(name, text)| (name.clone(), text.clone())));
    fits(&all, "spec")?;
    Ok(all)
}

fn annotations_of(object: &Value) -> Labels {
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    annotations.into_iter().flatten().filter_map(text).collect()
}

/// The text at a pointer, if it is one and not empty.
fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}
