//! The schemas of our kinds in both of Kubernetes' formats: what `kubectl explain` reads, and what `kubectl apply`
//! checks a manifest against before it sends it.
//!
//! `/openapi/v2` is one document, for clients up to 1.26 in protobuf; `/openapi/v3` is an index and a document for
//! each group. Both are made from [`schema::of`].

use std::sync::LazyLock;

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragonfly_core::resource::{Kind, schema};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::super::problem::Problem;
use super::super::route::{Access, Routes};
use super::shape::accepted;
use super::status::Refused;
use super::{GROUP, proto};

/// The protobuf form of OpenAPI 2, as Kubernetes names it.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

static V2: LazyLock<Value> = LazyLock::new(|| document(Format::V2));
static V2_PROTOBUF: LazyLock<Vec<u8>> = LazyLock::new(|| proto::document(&V2));
static V3: LazyLock<Value> = LazyLock::new(|| document(Format::V3));

pub(super) fn routes(routes: Routes) -> Routes {
    use Access::Person;
    routes
        .get("/openapi/v2", Person, "The schemas of all kinds, OpenAPI 2, as JSON or protobuf", v2)
        .get("/openapi/v3", Person, "Where the schemas of each group are, OpenAPI 3", index)
        .get("/openapi/v3/apis/dragonfly.computer/v1", Person, "The schemas of our kinds, OpenAPI 3", v3)
}

async fn v2(headers: HeaderMap) -> Result<Response, Refused> {
    for media in accepted(&headers) {
        if PROTOBUF.contains(&media.kind) {
            // The old word is no media type, and clients that ask by it refuse it in the answer.
            return Ok(([(header::CONTENT_TYPE, PROTOBUF[1])], V2_PROTOBUF.clone()).into_response());
        }
        if media.is_json() {
            return Ok(Json(&*V2).into_response());
        }
    }
    let detail = format!("schemas are told as application/json or {}", PROTOBUF[0]);
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, detail).into())
}

async fn index() -> Json<Value> {
    // Clients keep a document for as long as its address is the same.
    let hash = hex::encode_upper(Sha256::digest(V3.to_string()));
    let url = format!("/openapi/v3/apis/{GROUP}/v1?hash={hash}");
    Json(json!({ "paths": { format!("apis/{GROUP}/v1"): { "serverRelativeURL": url } } }))
}

async fn v3(headers: HeaderMap) -> Result<Response, Refused> {
    if accepted(&headers).iter().any(|media| media.is_json()) {
        return Ok(Json(&*V3).into_response());
    }
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "these schemas are told as application/json").into())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    V2,
    V3,
}

impl Format {
    fn place(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    /// A schema as this server keeps it: where fields are named, no others are taken. OpenAPI 2 has fewer words than
    /// 3: what only 3 has is left out of it, so that less is said and nothing wrong.
    fn write(self, schema: Value) -> Value {
        const KEPT: &str = "x-kubernetes-preserve-unknown-fields";
        let Value::Object(mut fields) = schema else { return schema };
        if fields.contains_key("properties") {
            fields.remove(KEPT);
        }
        let is_open = |word: &str| fields.get(word) == Some(&Value::Bool(true));
        if self == Self::V2 && (is_open(KEPT) || is_open("x-kubernetes-int-or-string")) {
            // Without a type: a client's own check takes anything here, and the server judges.
            fields.retain(|word, _| word == "description" || word.starts_with("x-"));
        }
        if self == Self::V2 {
            let unknown = ["anyOf", "oneOf", "not", "nullable", "deprecated", "writeOnly", "allOf"];
            fields.retain(|word, _| !unknown.contains(&word.as_str()));
        }
        let write = |(word, value): (String, Value)| {
            let written = match (word.as_str(), value) {
                ("items" | "additionalProperties", value) => self.write(value),
                ("properties", Value::Object(named)) => {
                    named.into_iter().map(|(name, value)| (name, self.write(value))).collect()
                }
                ("anyOf" | "oneOf" | "allOf", Value::Array(all)) => {
                    all.into_iter().map(|one| self.write(one)).collect()
                }
                (_, other) => other,
            };
            (word, written)
        };
        Value::Object(fields.into_iter().map(write).collect())
    }
}

fn word(kind: Kind) -> String {
    format!("computer.dragonfly.v1.{}", kind.name)
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn meaning(kind: Kind) -> Value {
    json!({ "group": GROUP, "version": "v1", "kind": kind.name })
}

fn document(format: Format) -> Value {
    let mut schemas: Map<String, Value> = Map::new();
    schemas.insert(META.to_owned(), metadata());
    let mut paths: Map<String, Value> = Map::new();
    for kind in Kind::ALL {
        let mut object = schema::of(kind);
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            let properties_of = |value: Option<Value>| value.unwrap_or_default();
            for part in ["spec", "status"] {
                let schema = format.write(properties_of(properties.remove(part)));
                properties.insert(part.into(), schema);
            }
            let reference = format!("{}{META}", format.place());
            properties.insert("metadata".into(), json!({ "$ref": reference }));
        }
        object["x-kubernetes-group-version-kind"] = json!([meaning(kind)]);
        schemas.insert(word(kind), object);
        let all = format!("/apis/{GROUP}/v1/{}", kind.plural);
        paths.insert(format!("{all}/{{name}}"), operations(format, kind, &ONE));
        paths.insert(all, operations(format, kind, &ALL));
    }
    let info = json!({ "title": "Dragonfly", "version": env!("CARGO_PKG_VERSION") });
    match format {
        Format::V2 => json!({ "swagger": "2.0", "info": info, "paths": paths, "definitions": schemas }),
        Format::V3 => {
            json!({ "openapi": "3.0.0", "info": info, "paths": paths, "components": { "schemas": schemas } })
        }
    }
}

/// Kubernetes' metadata, as far as it is of use here; what its tools add besides is taken and not kept.
fn metadata() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let map =
        |about: &str| json!({ "type": "object", "description": about, "additionalProperties": { "type": "string" } });
    let time = |about: &str| json!({ "type": "string", "format": "date-time", "description": about });
    let list = |about: &str| json!({ "type": "array", "description": about, "items": { "type": "object" } });
    json!({
        "type": "object",
        "description": "What every object carries beside its content.",
        "properties": {
            "name": text("Unique within the kind; a DNS label."),
            "uid": text("Unique over all time; given at creation."),
            "labels": map("What selectors look at."),
            "annotations": map("Notes that no selector looks at."),
            "generation": {
                "type": "integer", "format": "int64", "description": "Counts changes of spec.",
            },
            "resourceVersion": text("Changes with every write. Compare for equality only."),
            "creationTimestamp": time("When it was created."),
            "deletionTimestamp": time("When somebody asked for its deletion."),
            "finalizers": {
                "type": "array", "items": { "type": "string" }, "description": "Who must agree before it goes.",
            },
            "managedFields": list("Taken, and not kept."),
            "ownerReferences": list("Taken, and not kept."),
            "namespace": text("Taken, and not kept: no kind here has namespaces."),
            "selfLink": text("Taken, and not kept."),
        },
    })
}

/// A method of a path and what it does in Kubernetes' words.
type Operation = (&'static str, &'static str);

const ALL: [Operation; 3] = [("get", "list"), ("post", "post"), ("delete", "deletecollection")];
const ONE: [Operation; 4] = [("get", "get"), ("put", "put"), ("patch", "patch"), ("delete", "delete")];

fn operations(format: Format, kind: Kind, operations: &[Operation]) -> Value {
    let mut all = Map::new();
    for (method, action) in operations {
        let changes = *method != "get";
        let parameters = if !changes {
            Vec::new()
        } else if *method == "delete" {
            vec!["dryRun"]
        } else {
            vec!["dryRun", "fieldManager", "fieldValidation"]
        };
        let parameters: Vec<Value> = parameters
            .into_iter()
            .map(|name| match format {
                Format::V2 => json!({ "name": name, "in": "query", "type": "string", "uniqueItems": true }),
                Format::V3 => json!({ "name": name, "in": "query", "schema": { "type": "string" } }),
            })
            .collect();
        all.insert(
            (*method).to_owned(),
            json!({
                "operationId": format!("{action}{}", kind.name),
                "parameters": parameters,
                "responses": { "200": { "description": "OK" } },
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": meaning(kind),
            }),
        );
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a document, and every word of a schema.
    fn walk(value: &Value, pointers: &mut Vec<String>, words: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (word, value) in fields {
                    words.push(word.clone());
                    if word == "$ref" {
                        pointers.push(value.as_str().unwrap().trim_start_matches('#').to_owned());
                    }
                    walk(value, pointers, words);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, pointers, words)),
            _ => {}
        }
    }

    #[test]
    fn every_kind_is_described_in_both_formats() {
        for (format, root) in [(Format::V2, "definitions"), (Format::V3, "components/schemas")] {
            let document = document(format);
            for kind in Kind::ALL {
                let schema = document.pointer(&format!("/{root}/{}", word(kind))).unwrap();
                assert!(schema.pointer("/properties/spec").is_some(), "{kind}");
                assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], kind.name);
            }
            let (mut pointers, mut words) = (Vec::new(), Vec::new());
            walk(&document, &mut pointers, &mut words);
            assert!(!pointers.is_empty());
            for pointer in pointers {
                assert!(document.pointer(&pointer).is_some(), "{pointer} leads nowhere");
            }
            if format == Format::V2 {
                assert!(!words.iter().any(|word| word == "anyOf" || word == "oneOf" || word == "nullable"));
            }
        }
    }
}
