//! Texts taken apart into documents of known kinds.

use serde_json::Value;

use super::bmc::Controllers;
use super::secret::Secrets;
use super::{ManifestFile, Note, Outcome};
use crate::resource::manifest;
use crate::resource::manifest::located::{self, Located};
use crate::text::harmless;

/// The largest text, in bytes.
const LARGEST: usize = 16 << 20;

/// One object of Kubernetes, as it stands in a file.
#[derive(Debug)]
pub(super) struct Document {
    file: String,
    number: usize,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) value: Value,
    located: Located,
}

/// Group and kind of what is converted.
const KINDS: [(&str, &str); 6] = [
    ("tinkerbell.org", "Hardware"),
    ("tinkerbell.org", "Template"),
    ("tinkerbell.org", "Workflow"),
    ("bmc.tinkerbell.org", "Machine"),
    ("metal3.io", "BareMetalHost"),
    ("", "Secret"),
];

impl Document {
    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// `Hardware "sm01"`
    fn title(&self) -> String {
        format!("{} \"{}\"", self.kind, harmless(&self.name))
    }

    /// A note about a place in it.
    pub(super) fn note(&self, path: &str, outcome: Outcome, said: impl Into<String>) -> Note {
        Note {
            file: self.file.clone(),
            document: self.number,
            line: self.located.line_of(path),
            object: self.title(),
            path: path.to_owned(),
            outcome,
            said: said.into(),
        }
    }

    /// The text at a pointer (RFC 6901).
    pub(super) fn text(&self, pointer: &str) -> Option<&str> {
        self.value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}

/// Every document of a file that is of a known kind; the others are told of.
pub(super) fn documents(file: &ManifestFile<'_>, notes: &mut Vec<Note>) -> Vec<Document> {
    let name = harmless(file.name).into_owned();
    let mut refuse = |document: usize, line: usize, path: &str, said: String| {
        let (file, path) = (name.clone(), path.to_owned());
        notes.push(Note { file, document, line, object: String::new(), path, outcome: Outcome::Refused, said });
    };
    if file.text.len() > LARGEST {
        refuse(1, 1, "", format!("the file is larger than {} MiB; split it", LARGEST >> 20));
        return Vec::new();
    }
    let read = match located::documents(file.text) {
        Ok(read) => read,
        Err(error) => {
            for problem in error.problems {
                refuse(1, problem.line, &problem.path, problem.problem);
            }
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (index, (value, located)) in read.into_iter().enumerate() {
        // A List holds objects, as `kubectl get -o yaml` writes it.
        let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
        match value.get("items") {
            Some(Value::Array(items)) if is_list => {
                for (at, item) in items.iter().enumerate() {
                    let below = located.item("items", at);
                    found.extend(one(&name, index + 1, item.clone(), below, &mut refuse));
                }
            }
            _ if value.is_null() => {}
            _ => found.extend(one(&name, index + 1, value, located, &mut refuse)),
        }
    }
    found
}

fn one(
    file: &str,
    number: usize,
    value: Value,
    located: Located,
    refuse: &mut impl FnMut(usize, usize, &str, String),
) -> Option<Document> {
    let line = located.line_of("");
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    if version.is_empty() || kind.is_empty() {
        refuse(number, line, "", "an object begins with apiVersion and kind".to_owned());
        return None;
    }
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    if !KINDS.contains(&(group, kind)) {
        refuse(number, line, "kind", format!("{} of {} is not converted", harmless(kind), group_word(group)));
        return None;
    }
    let wanted = if group.is_empty() { "v1" } else { "v1alpha1" };
    if version != wanted {
        refuse(number, located.line_of("apiVersion"), "apiVersion", format!("only {group}/{wanted} is converted"));
        return None;
    }
    let (name, namespace, kind) = (text("/metadata/name").to_owned(), text("/metadata/namespace"), kind.to_owned());
    if let Err(error) = crate::name::check(&name) {
        refuse(number, located.line_of("metadata.name"), "metadata.name", error.to_string());
        return None;
    }
    let namespace = if namespace.is_empty() { "default" } else { namespace }.to_owned();
    Some(Document { file: file.to_owned(), number, kind, namespace, name, value, located })
}

fn group_word(group: &str) -> String {
    if group.is_empty() { "Kubernetes".to_owned() } else { harmless(group).into_owned() }
}

/// Whether the strict door takes what was made of a document; else it is told why.
pub(super) fn is_taken(document: &Document, made: Value, notes: &mut Vec<Note>) -> bool {
    let taken = manifest::from_json(made);
    if let Err(error) = &taken {
        let said = format!("what it becomes is not taken here: {error}");
        notes.push(document.note("", Outcome::Refused, said));
    }
    taken.is_ok()
}

/// Tells of documents that nothing refers to, and of names that stand twice.
pub(super) fn leftovers(
    documents: &[Document],
    controllers: &Controllers<'_>,
    secrets: &Secrets<'_>,
    notes: &mut Vec<Note>,
) {
    for document in documents {
        if document.is("Machine") && !controllers.is_used(document) {
            let said = "no Hardware in these files names it in `spec.bmcRef`, so it belongs to no machine";
            notes.push(document.note("", Outcome::Refused, said));
        }
        if document.is("Secret") && !secrets.is_used(document) {
            let said = "no controller in these files refers to it, so it is left out";
            notes.push(document.note("", Outcome::Lost, said));
        }
    }
}
