//! What a template computes with.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::MAX_DEPTH;

/// A value. Copies share what they hold.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Nothing is there.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    List(Arc<List>),
    Map(Arc<Map>),
    /// Known only when the template is assigned: it can be printed, and nothing else.
    Late(Arc<str>),
}

/// Values in order. How deep they nest is kept, so that no walk through them is too long.
#[derive(Debug)]
pub(crate) struct List {
    pub(super) items: Vec<Value>,
    depth: usize,
}

/// Values by name.
#[derive(Debug)]
pub(crate) struct Map {
    pub(super) entries: BTreeMap<String, Value>,
    depth: usize,
    kind: Keys,
}

/// What a key that is not there means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// An error, as `missingkey=error` has it.
    Strict,
    /// The keys are those of a Go structure: `ID` is `id`, `NameServers` is `name_servers`, and what the manifest
    /// leaves out is nothing.
    Structure,
    /// It is a value that is given when the template is assigned.
    Late,
}

/// A value nests too deep.
pub(super) const TOO_DEEP: &str = "this value nests too deep";

impl Value {
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn list(items: Vec<Self>) -> Result<Self, String> {
        if items.len() > super::MAX_LIST {
            return Err(format!("a list has more than {} items", super::MAX_LIST));
        }
        let depth = items.iter().map(Self::depth).max().unwrap_or(0) + 1;
        if depth > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        Ok(Self::List(Arc::new(List { items, depth })))
    }

    pub(crate) fn map(entries: BTreeMap<String, Self>, kind: Keys) -> Result<Self, String> {
        let depth = entries.values().map(Self::depth).max().unwrap_or(0) + 1;
        if depth > MAX_DEPTH || entries.len() > super::MAX_LIST {
            return Err(TOO_DEEP.to_owned());
        }
        Ok(Self::Map(Arc::new(Map { entries, depth, kind })))
    }

    /// From JSON, its objects with keys of this kind.
    pub(crate) fn from_json(json: &Json, kind: Keys) -> Result<Self, String> {
        Self::from_nested(json, kind, 0)
    }

    fn from_nested(json: &Json, kind: Keys, depth: usize) -> Result<Self, String> {
        if depth > MAX_DEPTH {
            return Err(TOO_DEEP.to_owned());
        }
        Ok(match json {
            Json::Null => Self::Nil,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(whole), _) => Self::Int(whole),
                (None, Some(float)) => Self::Float(float),
                (None, None) => Self::Nil,
            },
            Json::String(text) => Self::text(text.as_str()),
            Json::Array(items) => {
                let items = items.iter().map(|item| Self::from_nested(item, kind, depth + 1));
                Self::list(items.collect::<Result<_, _>>()?)?
            }
            Json::Object(fields) => {
                let key = |key: &String| if kind == Keys::Structure { loose(key) } else { key.clone() };
                let fields = fields.iter().map(|(k, v)| Ok((key(k), Self::from_nested(v, kind, depth + 1)?)));
                Self::map(fields.collect::<Result<_, String>>()?, kind)?
            }
        })
    }

    fn depth(&self) -> usize {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// What `if` asks.
    pub(super) fn is_true(&self) -> Result<bool, String> {
        Ok(match self {
            Self::Nil => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Float(n) => *n != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty() || map.kind == Keys::Structure,
            Self::Late(name) => return Err(late(name)),
        })
    }

    /// One field, by its name in a template.
    pub(super) fn field(&self, name: &str) -> Result<Self, String> {
        match self {
            Self::Map(map) => match (map.entries.get(name), map.kind) {
                (Some(value), _) => Ok(value.clone()),
                (None, Keys::Structure) => Ok(map.entries.get(&loose(name)).cloned().unwrap_or(Self::Nil)),
                (None, Keys::Late) if is_late_name(name) => Ok(Self::Late(name.into())),
                (None, _) => {
                    let near = crate::near::did_you_mean(name, map.entries.keys().map(String::as_str));
                    let near = near.map(|question| format!("; {question}")).unwrap_or_default();
                    Err(format!("there is no `.{name}`{near}"))
                }
            },
            Self::Nil => Err(format!("`.{name}` is asked of what the manifest leaves out")),
            Self::Late(late_name) => Err(late(late_name)),
            other => Err(format!("`.{name}` is asked of {}, which has no fields", other.kind())),
        }
    }

    /// What it is, for a person.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Late(_) => "a value that is not known yet",
        }
    }
}

/// Why a late value cannot be computed with.
pub(super) fn late(name: &str) -> String {
    format!(
        "`.{name}` comes from a Workflow's hardwareMap, and no Workflow names this template: it can only be printed"
    )
}

/// Whether a late value may have this name: it becomes `values.NAME`.
fn is_late_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 100
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        && !matches!(name, "Hardware" | "hardware" | "References" | "references")
}

/// A field's name without what Go and JSON spell in two ways.
fn loose(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}
