//! What of an object was taken over, and what is left.

use serde_json::Value;

use super::read::Document;
use super::{Note, Outcome};

/// Why a field is not carried over: its path without numbers, what becomes of it, and why.
pub(super) type Reason = (&'static str, Outcome, &'static str);

/// An object from which field after field is taken.
pub(super) struct Fields<'a> {
    document: &'a Document,
    value: Value,
}

impl<'a> Fields<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        let mut value = document.value.clone();
        if let Some(object) = value.as_object_mut() {
            for field in ["apiVersion", "kind"] {
                object.remove(field);
            }
        }
        let mut fields = Self { document, value };
        for pointer in ["/metadata/name", "/metadata/namespace"] {
            fields.take(pointer);
        }
        fields
    }

    /// What stands at a pointer (RFC 6901), which then counts as carried over.
    pub(super) fn take(&mut self, pointer: &str) -> Option<Value> {
        let (parent, key) = pointer.rsplit_once('/')?;
        self.value.pointer_mut(parent)?.as_object_mut()?.remove(key)
    }

    /// The same for a text that is not empty.
    pub(super) fn take_text(&mut self, pointer: &str) -> Option<String> {
        match self.take(pointer)? {
            Value::String(text) => Some(text).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    pub(super) fn take_bool(&mut self, pointer: &str) -> Option<bool> {
        self.take(pointer)?.as_bool()
    }

    /// Texts in a list.
    pub(super) fn take_texts(&mut self, pointer: &str) -> Vec<String> {
        let list = self.take(pointer).unwrap_or_default();
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// How many items a list has.
    pub(super) fn length(&self, pointer: &str) -> usize {
        self.value.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len)
    }

    /// Tells of everything that was not taken, each with its reason.
    pub(super) fn tell_rest(self, reasons: &[Reason], notes: &mut Vec<Note>) {
        walk(&self.value, "", &mut |path| {
            let bare = without_numbers(path);
            let fits = |known: &str| {
                bare.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            let reason = reasons.iter().filter(|(known, ..)| fits(known)).max_by_key(|(known, ..)| known.len());
            let (outcome, said) = reason.map_or((Outcome::Lost, "has no place here"), |(_, o, said)| (*o, *said));
            notes.push(self.document.note(path, outcome, said));
        });
    }
}

/// Calls with the path of everything that holds something. A list of plain values is one thing.
fn walk(value: &Value, path: &str, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(value, &path, found);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{path}[{index}]"), found);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        _ => found(path),
    }
}

/// `spec.interfaces[].dhcp` for `spec.interfaces[3].dhcp`.
fn without_numbers(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => {
                inside = true;
                out.push('[');
            }
            ']' => {
                inside = false;
                out.push(']');
            }
            c if inside && c.is_ascii_digit() => {}
            c => out.push(c),
        }
    }
    out
}
