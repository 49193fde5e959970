//! Secrets of Kubernetes that hold the account of a controller.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::fields::Fields;
use super::read::Document;
use super::{Note, Outcome, known};
use crate::resource::{SecretObject, SecretSpec};
use crate::secret::SecretString;

/// The Secrets of the files, and which of them are needed.
#[derive(Debug)]
pub(super) struct Secrets<'a> {
    all: Vec<&'a Document>,
    used: RefCell<BTreeSet<usize>>,
}

impl<'a> Secrets<'a> {
    pub(super) fn new(documents: &'a [Document]) -> Self {
        Self { all: documents.iter().filter(|document| document.is("Secret")).collect(), used: RefCell::default() }
    }

    /// The name of a Secret that something refers to. One that is not in the files must be there already.
    pub(super) fn refer(
        &self,
        name: &str,
        namespace: &str,
        from: &Document,
        path: &str,
        notes: &mut Vec<Note>,
    ) -> String {
        match self.all.iter().position(|secret| secret.name == name && secret.namespace == namespace) {
            Some(index) => {
                let twice = self.used.borrow().iter().any(|used| {
                    self.all.get(*used).is_some_and(|other| other.name == name && other.namespace != namespace)
                });
                if twice {
                    let said =
                        "a Secret of this name in another namespace is taken already; there are no namespaces here";
                    notes.push(from.note(path, Outcome::Lost, said));
                } else {
                    self.used.borrow_mut().insert(index);
                }
            }
            None => {
                let said = format!("the Secret `{name}` is not in these files; it is referred to, and must be made");
                notes.push(from.note(path, Outcome::Changed, said));
            }
        }
        name.to_owned()
    }

    pub(super) fn is_used(&self, document: &Document) -> bool {
        self.used.borrow().iter().any(|index| self.all.get(*index).is_some_and(|used| std::ptr::eq(*used, document)))
    }

    /// Those that something refers to, as ours.
    pub(super) fn used(&self, notes: &mut Vec<Note>) -> Vec<SecretObject> {
        let used = self.used.borrow();
        used.iter().filter_map(|index| self.all.get(*index)).map(|document| convert(document, notes)).collect()
    }
}

fn convert(document: &Document, notes: &mut Vec<Note>) -> SecretObject {
    let mut fields = Fields::new(document);
    fields.take("/type");
    let labels = labels(&mut fields);
    let mut data: BTreeMap<String, SecretString> = BTreeMap::new();
    for (field, is_encoded) in [("data", true), ("stringData", false)] {
        let Some(Value::Object(values)) = fields.take(&format!("/{field}")) else { continue };
        for (key, value) in values {
            let path = format!("{field}.{key}");
            let text = value.as_str().map(str::to_owned);
            let plain = match (text, is_encoded) {
                (Some(text), false) => Some(text),
                (Some(text), true) => {
                    let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
                    BASE64.decode(packed).ok().and_then(|bytes| String::from_utf8(bytes).ok())
                }
                (None, _) => None,
            };
            if !matches!(key.as_str(), "username" | "password") {
                notes.push(document.note(
                    &path,
                    Outcome::Lost,
                    "a controller's account has username and password only",
                ));
                continue;
            }
            match plain {
                Some(plain) => {
                    data.insert(key, plain.into());
                }
                None => {
                    let said =
                        if is_encoded { "is not the base64 of a text" } else { "is not a text: write it in quotes" };
                    notes.push(document.note(&path, Outcome::Lost, said));
                }
            }
        }
    }
    fields.tell_rest(&known::plain(), notes);
    let mut secret = SecretObject::new(document.name.clone(), SecretSpec { data, ..SecretSpec::default() });
    (secret.metadata.labels, secret.metadata.annotations) = labels;
    secret
}

/// Labels and annotations, which every object keeps; without what kubectl wrote for itself.
pub(super) fn labels(fields: &mut Fields<'_>) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut texts = |pointer: &str| -> BTreeMap<String, String> {
        let Some(Value::Object(values)) = fields.take(pointer) else { return BTreeMap::new() };
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        values
            .into_iter()
            .filter(|(key, _)| key != "kubectl.kubernetes.io/last-applied-configuration")
            .filter_map(|(key, value)| Some((key, text(value)?)))
            .collect()
    };
    (texts("/metadata/labels"), texts("/metadata/annotations"))
}
