//! The shape that a client wants objects in: as they are, as rows of a table, or their metadata alone.

use axum::http::{HeaderMap, StatusCode, header};
use dragonfly_core::clock::{Clock as _, SystemClock, Timestamp};
use dragonfly_core::resource::schema::{Column, columns};
use dragonfly_core::resource::{API_VERSION, Kind, Record};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::problem::Problem;
use crate::view;

/// What comes of `Accept` (Kubernetes' API concepts, "Alternate representations of resources").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Whole objects.
    Object,
    /// `Table`, of this version of `meta.k8s.io`.
    Table(&'static str, Include),
    /// `PartialObjectMetadata`, alone or in a list.
    Metadata,
}

/// What a row of a table brings of its object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Include {
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

/// What is shown, to be written as JSON. Whole objects are not copied for it: a change may have many readers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Shown<'a> {
    /// One object as it is.
    Object(&'a Record),
    /// Several as they are.
    #[serde(rename_all = "camelCase")]
    List { api_version: &'static str, items: &'a [Record], kind: String, metadata: Value },
    /// What was made of them.
    Made(Value),
}

/// One of the media types of an `Accept` header, with its parameters.
pub(super) struct Media<'a> {
    pub(super) kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Media<'_> {
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// Whether JSON is one of those meant.
    pub(super) fn is_json(&self) -> bool {
        matches!(self.kind, "application/json" | "application/*" | "*/*")
    }
}

/// The media types that a client accepts, in its order; anything where it says nothing.
pub(super) fn accepted(headers: &HeaderMap) -> Vec<Media<'_>> {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let all: Vec<Media<'_>> = values
        .flat_map(|value| value.split(','))
        .filter_map(|media| {
            let mut parts = media.split(';').map(str::trim);
            let kind = parts.next().filter(|kind| !kind.is_empty())?;
            let parameters = parts.filter_map(|p| p.split_once('=')).map(|(key, value)| (key.trim(), value.trim()));
            Some(Media { kind, parameters: parameters.collect() })
        })
        .collect();
    if all.is_empty() { vec![Media { kind: "*/*", parameters: Vec::new() }] } else { all }
}

impl Shape {
    /// The first that we have of those that a client accepts.
    pub(super) fn wanted(headers: &HeaderMap, include: Option<&str>) -> Result<Self, Problem> {
        let include = match include {
            None | Some("" | "Metadata") => Include::Metadata,
            Some("Object") => Include::Object,
            Some("None") => Include::None,
            Some(other) => {
                let detail = format!("includeObject: `{other}` is not one of None, Metadata, Object");
                return Err(Problem::bad_request(detail));
            }
        };
        let meta = |media: &Media<'_>| media.parameter("g") == "meta.k8s.io";
        let found = accepted(headers).iter().filter(|media| media.is_json()).find_map(|media| {
            match (media.parameter("as"), media.parameter("v")) {
                ("", _) => Some(Self::Object),
                ("Table", "v1") if meta(media) => Some(Self::Table("meta.k8s.io/v1", include)),
                ("Table", "v1beta1") if meta(media) => Some(Self::Table("meta.k8s.io/v1beta1", include)),
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1") if meta(media) => Some(Self::Metadata),
                _ => None,
            }
        });
        found.ok_or_else(|| {
            let detail = "only application/json is spoken here, also as Table, PartialObjectMetadata and \
                          PartialObjectMetadataList of meta.k8s.io/v1";
            Problem::new(StatusCode::NOT_ACCEPTABLE, detail)
        })
    }

    /// One object. The columns of a table are told with `head`.
    pub(super) fn one(self, record: &Record, head: bool) -> Shown<'_> {
        match self {
            Self::Object => Shown::Object(record),
            Self::Metadata => Shown::Made(partial(record)),
            Self::Table(version, include) => {
                let metadata = json!({ "resourceVersion": record.metadata.resource_version });
                Shown::Made(table(version, record.kind, metadata, std::slice::from_ref(record), include, head))
            }
        }
    }

    /// Several objects of a kind.
    pub(super) fn list(self, kind: Kind, metadata: Value, records: &[Record]) -> Shown<'_> {
        match self {
            Self::Object => {
                Shown::List { api_version: API_VERSION, items: records, kind: format!("{}List", kind.name), metadata }
            }
            Self::Metadata => {
                let items: Vec<Value> = records.iter().map(partial).collect();
                Shown::Made(json!({
                    "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": metadata, "items": items,
                }))
            }
            Self::Table(version, include) => Shown::Made(table(version, kind, metadata, records, include, true)),
        }
    }

    /// That a watch has come this far, in the words of Kubernetes' bookmarks.
    pub(super) fn bookmark(self, kind: Kind, metadata: Value) -> Shown<'static> {
        Shown::Made(match self {
            Self::Object => json!({ "apiVersion": API_VERSION, "kind": kind.name, "metadata": metadata }),
            Self::Metadata => {
                json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata })
            }
            Self::Table(version, _) => table(version, kind, metadata, &[], Include::None, false),
        })
    }
}

fn partial(record: &Record) -> Value {
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": record.metadata })
}

fn table(version: &str, kind: Kind, metadata: Value, records: &[Record], include: Include, head: bool) -> Value {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a kind.",
    });
    let others = columns(kind).iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": "", "priority": column.priority,
            "description": column.about,
        })
    });
    let definitions: Vec<Value> = if head { std::iter::once(name).chain(others).collect() } else { Vec::new() };
    let now = SystemClock.now();
    let rows: Vec<Value> = records
        .iter()
        .map(|record| {
            let object = record.to_json();
            let cells = columns(kind).iter().map(|column| cell(&object, column, now));
            let cells: Vec<Value> = std::iter::once(json!(record.metadata.name)).chain(cells).collect();
            match include {
                Include::None => json!({ "cells": cells }),
                Include::Metadata => json!({ "cells": cells, "object": partial(record) }),
                Include::Object => json!({ "cells": cells, "object": object }),
            }
        })
        .collect();
    json!({ "kind": "Table", "apiVersion": version, "metadata": metadata, "columnDefinitions": definitions, "rows": rows })
}

/// Core events as rows.
pub(super) fn event_table(shape: Shape, metadata: Value, events: &[Value]) -> Value {
    const COLUMNS: [(&str, &str); 5] = [
        ("Last Seen", "/lastTimestamp"),
        ("Type", "/type"),
        ("Reason", "/reason"),
        ("Object", "/involvedObject"),
        ("Message", "/message"),
    ];
    let (version, include) = match shape {
        Shape::Table(version, include) => (version, include),
        Shape::Object | Shape::Metadata => ("meta.k8s.io/v1", Include::Metadata),
    };
    let definitions = COLUMNS
        .map(|(name, _)| json!({ "name": name, "type": "string", "format": "", "priority": 0, "description": "" }));
    let now = SystemClock.now();
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_lowercase();
    let rows = events.iter().map(|event| {
        let cells = COLUMNS.map(|(name, pointer)| match (name, event.pointer(pointer)) {
            ("Last Seen", Some(then)) => {
                serde_json::from_value(then.clone()).map_or(Value::Null, |then| view::ago(now, then).into())
            }
            ("Object", Some(object)) if text(object, "name").is_empty() => "<none>".into(),
            ("Object", Some(object)) => format!("{}/{}", text(object, "kind"), text(object, "name")).into(),
            (_, value) => value.cloned().unwrap_or_default(),
        });
        let metadata = event.get("metadata");
        match include {
            Include::None => json!({ "cells": cells }),
            Include::Object => json!({ "cells": cells, "object": event }),
            Include::Metadata => json!({
                "cells": cells,
                "object": { "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata },
            }),
        }
    });
    let rows: Vec<Value> = rows.collect();
    json!({ "kind": "Table", "apiVersion": version, "metadata": metadata, "columnDefinitions": definitions, "rows": rows })
}

/// What stands in one column of an object's row.
fn cell(object: &Value, column: &Column, now: Timestamp) -> Value {
    let Some(value) = at(object, column.path) else { return Value::Null };
    match (column.kind, value) {
        ("date", _) => match serde_json::from_value(value.clone()) {
            Ok(then) => view::ago(now, then).into(),
            Err(_) => "<invalid>".into(),
        },
        ("integer", Value::Number(_)) | ("boolean", Value::Bool(_)) | (_, Value::String(_)) => value.clone(),
        (_, Value::Null) => Value::Null,
        (_, Value::Array(items)) => {
            let words = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
            words.collect::<Vec<_>>().join(",").into()
        }
        (_, other) => other.to_string().into(),
    }
}

/// What stands at a path of fields, `[0]` and `[?(@.type=="Served")]`.
fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[?(@.") {
            let (condition, after) = after.split_once(")]")?;
            let (field, wanted) = condition.split_once("==")?;
            let wanted = wanted.trim_matches('"');
            here = here.as_array()?.iter().find(|item| item.get(field).and_then(Value::as_str) == Some(wanted))?;
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            here = here.get(index.parse::<usize>().ok()?)?;
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (field, after) = after.split_at(end);
            here = here.get(field)?;
            rest = after;
        }
    }
    Some(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &str) -> Result<Shape, u16> {
        let headers: HeaderMap = [(header::ACCEPT, accept.parse().unwrap())].into_iter().collect();
        Shape::wanted(&headers, None).map_err(|problem| problem.status.as_u16())
    }

    #[test]
    fn takes_the_first_shape_that_it_has() {
        let table = Shape::Table("meta.k8s.io/v1", Include::Metadata);
        for (accept, want) in [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Ok(table)),
            ("application/json; as=Table; v=v9; g=meta.k8s.io, application/json", Ok(Shape::Object)),
            ("application/vnd.kubernetes.protobuf,application/json", Ok(Shape::Object)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Ok(Shape::Metadata)),
            ("*/*", Ok(Shape::Object)),
            ("application/vnd.kubernetes.protobuf", Err(406)),
            ("application/json;as=Table;v=v1;g=other", Err(406)),
        ] {
            assert_eq!(wanted(accept), want, "{accept}");
        }
        assert_eq!(Shape::wanted(&HeaderMap::new(), Some("All")).unwrap_err().status, 400);
        assert_eq!(Shape::wanted(&HeaderMap::new(), None).unwrap(), Shape::Object);
    }

    #[test]
    fn finds_what_a_column_is_about() {
        let object = json!({ "a": { "b": ["x", "y"] }, "c": [{ "type": "P", "s": 1 }, { "type": "Q", "s": 2 }] });
        for (path, want) in [
            (".a.b[0]", Some(json!("x"))),
            (".a.b[1]", Some(json!("y"))),
            (".a.b[2]", None),
            (".c[?(@.type==\"Q\")].s", Some(json!(2))),
            (".c[?(@.type==\"R\")].s", None),
            (".a.z", None),
        ] {
            assert_eq!(at(&object, path).cloned(), want, "{path}");
        }
    }
}
