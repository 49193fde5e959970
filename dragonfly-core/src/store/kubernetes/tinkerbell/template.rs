//! A Template: `spec.data` is a text in Go's template language that becomes YAML when a Workflow fills it.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::reading::{Outline, outline};
use super::{Unwritable, text, writing};

/// One of theirs as it is shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) spec: Value,
    /// The text, where others wrote it.
    pub(super) text: Option<String>,
    /// What of it is not shown.
    pub(super) not_shown: Option<String>,
}

/// Our spec: what was kept of it if the text is still the one that was written for it, or what the text says.
pub(super) fn show(theirs: &Value, kept: Option<Value>, digest: Option<&str>) -> Shown {
    let data = text(theirs, "/data").unwrap_or_default();
    if let Some(kept) = kept.filter(|_| digest == Some(digest_of(data).as_str())) {
        return Shown { spec: kept, ..Shown::default() };
    }
    let Outline { name, timeout, actions, not_shown, .. } = outline(data);
    let mut spec = json!({ "actions": actions });
    if !name.is_empty() {
        spec["description"] = json!(name);
    }
    if let Some(seconds) = timeout {
        spec["timeoutSeconds"] = json!(seconds);
    }
    Shown { spec, text: (!data.is_empty()).then(|| data.to_owned()), not_shown }
}

/// Their spec with the text of ours, and its digest.
pub(super) fn put(name: &str, ours: &Value, theirs: &Value) -> Result<(Value, String), Unwritable> {
    let before = text(theirs, "/data").map(outline).unwrap_or_default();
    if let Some(why) = before.not_shown {
        return Err(Unwritable::new("spec", format!("cannot be changed from here: {why}")));
    }
    let data = writing::text_of(name, ours, &before.task)?;
    let digest = digest_of(&data);
    let mut spec = theirs.as_object().cloned().unwrap_or_default();
    spec.insert("data".to_owned(), json!(data));
    Ok((spec.into(), digest))
}

fn digest_of(data: &str) -> String {
    hex::encode(Sha256::digest(data.as_bytes()))
}
