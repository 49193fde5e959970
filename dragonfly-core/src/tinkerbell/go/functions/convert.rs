//! Encodings. `toYaml` writes JSON, which is YAML in one line: it stands anywhere without indentation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::super::value::{Keys, Value};
use super::{Budget, Group, Made, exactly, text};

pub(super) const ALL: Group = &[
    ("b64enc", |b, v| {
        let made = BASE64.encode(text(&exactly::<1>(v)?[0])?);
        b.text(made)
    }),
    ("b64dec", |b, v| {
        let bytes = BASE64.decode(text(&exactly::<1>(v)?[0])?).map_err(|_| "this is not base64".to_owned())?;
        b.text(String::from_utf8(bytes).map_err(|_| "this is not the base64 of a text".to_owned())?)
    }),
    ("sha256sum", |b, v| {
        let made = hex::encode(Sha256::digest(text(&exactly::<1>(v)?[0])?.as_bytes()));
        b.text(made)
    }),
    ("toJson", |b, v| written(b, &exactly::<1>(v)?[0])),
    ("toYaml", |b, v| written(b, &exactly::<1>(v)?[0])),
    ("fromJson", |b, v| {
        let source = text(&exactly::<1>(v)?[0])?;
        b.spend(source.len() / 64)?;
        let json: Json = serde_json::from_str(source).map_err(|error| format!("this is not JSON: {error}"))?;
        Value::from_json(&json, Keys::Strict)
    }),
    ("fromYaml", |b, v| {
        let source = text(&exactly::<1>(v)?[0])?;
        b.spend(source.len() / 64)?;
        let read = crate::resource::manifest::located::documents(source);
        let documents = read.map_err(|error| format!("this is not YAML: {error}"))?;
        match documents.into_iter().next() {
            Some((json, _)) => Value::from_json(&json, Keys::Strict),
            None => Ok(Value::Nil),
        }
    }),
];

fn written(budget: &mut Budget, value: &Value) -> Made {
    let made = json(value, budget)?.to_string();
    budget.text(made)
}

fn json(value: &Value, budget: &mut Budget) -> Result<Json, String> {
    budget.spend(1)?;
    Ok(match value {
        Value::Nil => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Float(n) => Json::from(*n),
        Value::Text(text) => {
            budget.spend(text.len() / 1024)?;
            Json::from(&**text)
        }
        Value::List(list) => Json::Array(list.items.iter().map(|item| json(item, budget)).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let entries = map.entries.iter().map(|(key, item)| Ok((key.clone(), json(item, budget)?)));
            Json::Object(entries.collect::<Result<_, String>>()?)
        }
        Value::Late(name) => return Err(super::late(name)),
    })
}
