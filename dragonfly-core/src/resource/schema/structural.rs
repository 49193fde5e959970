//! From JSON Schema 2020-12, as it is derived, to what Kubernetes takes as structural.

use serde_json::{Map, Value, json};

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// Formats that a Kubernetes API server knows and that mean there what they mean here.
const FORMATS: [&str; 6] = ["date-time", "ipv4", "ipv6", "int32", "int64", "double"];

/// Fields that are taken over as they are.
const KEPT: [&str; 8] = ["required", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"];

/// Any value at all.
pub(super) fn anything() -> Value {
    json!({ PRESERVE: true })
}

/// A schema that a structural one can say, as narrow as it can.
pub(super) fn convert(schema: Value) -> Value {
    // `true` and `false`; nothing here is false.
    let Value::Object(mut given) = schema else { return anything() };
    let description = given.remove("description");
    let mut out = match given.remove("anyOf").or_else(|| given.remove("oneOf")) {
        Some(Value::Array(variants)) => either(variants),
        _ => one(given),
    };
    if let Some(Value::String(text)) = description {
        let text = plain(&text);
        let text = match out.get("description").and_then(Value::as_str) {
            // What each word means follows what they are for; the type's own description gives way.
            Some(words) if words.starts_with('`') => format!("{text} {words}"),
            _ => text,
        };
        out.insert("description".into(), text.into());
    }
    Value::Object(out)
}

fn one(mut given: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    let (kind, nullable) = kind(given.remove("type"));
    if let Some(Value::String(word)) = given.remove("const") {
        given.insert("enum".into(), json!([word]));
    }
    let Some(kind) = kind else {
        out.insert(PRESERVE.into(), true.into());
        return out;
    };
    if let Some(Value::Array(mut words)) = given.remove("enum") {
        words.retain(|word| !word.is_null());
        out.insert("enum".into(), words.into());
    } else if nullable {
        // With words to choose from, null is none of them.
        out.insert("nullable".into(), true.into());
    }
    if let Some(format) = given.remove("format")
        && format.as_str().is_some_and(|format| FORMATS.contains(&format))
    {
        out.insert("format".into(), format);
    }
    for field in KEPT {
        if let Some(value) = given.remove(field) {
            out.insert(field.into(), value);
        }
    }
    match kind.as_str() {
        "array" => {
            let items = given.remove("items").map_or_else(anything, convert);
            out.insert("items".into(), items);
        }
        "object" => match (given.remove("properties"), given.remove("additionalProperties")) {
            (None, Some(values @ Value::Object(_))) => {
                out.insert("additionalProperties".into(), convert(values));
            }
            (properties, _) => {
                if let Some(Value::Object(properties)) = properties {
                    let properties = properties.into_iter().map(|(name, schema)| (name, convert(schema)));
                    out.insert("properties".into(), properties.collect::<Map<_, _>>().into());
                }
                out.insert(PRESERVE.into(), true.into());
            }
        },
        _ => {}
    }
    out.insert("type".into(), kind.into());
    out
}

/// The type, and whether null may stand in its place; none where several types may.
fn kind(given: Option<Value>) -> (Option<String>, bool) {
    match given {
        Some(Value::String(kind)) => (Some(kind), false),
        Some(Value::Array(kinds)) => {
            let all: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
            let mut real = all.iter().filter(|kind| **kind != "null");
            match (real.next(), real.next()) {
                (Some(kind), None) => (Some((*kind).to_owned()), all.contains(&"null")),
                _ => (None, false),
            }
        }
        _ => (None, false),
    }
}

/// One of several: the one that is not null, or one of several words; else anything, since a structural schema cannot
/// say more.
fn either(variants: Vec<Value>) -> Map<String, Value> {
    let is_null = |variant: &Value| variant.get("type").and_then(Value::as_str) == Some("null");
    let nullable = variants.iter().any(is_null);
    let mut real: Vec<Value> = variants.into_iter().filter(|variant| !is_null(variant)).collect();
    if real.len() == 1
        && let Value::Object(mut only) = convert(real.remove(0))
    {
        if nullable && !only.contains_key("enum") && only.contains_key("type") {
            only.insert("nullable".into(), true.into());
        }
        return only;
    }
    let (mut words, mut meanings) = (Vec::new(), Vec::new());
    for variant in &real {
        let (Some(own), meaning) = (words_of(variant), variant.get("description").and_then(Value::as_str)) else {
            return Map::from_iter([(PRESERVE.into(), true.into())]);
        };
        if let (Some(meaning), [word]) = (meaning, own.as_slice()) {
            meanings.push(format!("`{}`: {}", word.as_str().unwrap_or_default(), plain(meaning)));
        }
        words.extend(own);
    }
    let mut out = Map::new();
    if !meanings.is_empty() {
        out.insert("description".into(), meanings.join(" ").into());
    }
    out.insert("enum".into(), words.into());
    out.insert("type".into(), "string".into());
    out
}

/// The words that a variant consists of, if it consists of words.
fn words_of(variant: &Value) -> Option<Vec<Value>> {
    if variant.get("type").and_then(Value::as_str) != Some("string") {
        return None;
    }
    match (variant.get("const"), variant.get("enum")) {
        (Some(word), _) => Some(vec![word.clone()]),
        (None, Some(Value::Array(words))) => Some(words.clone()),
        _ => None,
    }
}

/// The same without judgement: what the engine writes is stored, whatever version it has.
pub(super) fn lenient(mut schema: Value) -> Value {
    fn relax(schema: &mut Value) {
        let Some(fields) = schema.as_object_mut() else { return };
        for field in ["required", "enum", "pattern", "format", "minimum", "maximum"] {
            fields.remove(field);
        }
        if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
            properties.values_mut().for_each(relax);
        }
        for field in ["items", "additionalProperties"] {
            if let Some(inner) = fields.get_mut(field) {
                relax(inner);
            }
        }
    }
    relax(&mut schema);
    schema
}

/// A doc comment as plain text: one paragraph a line, links to Rust items as their names.
fn plain(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let text = paragraphs.collect::<Vec<_>>().join("\n");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((name, after)) = link.split_once("`]") else { break };
        out.push_str(before);
        out.push('`');
        out.push_str(name);
        out.push('`');
        rest = match after.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    out.push_str(rest);
    out
}
