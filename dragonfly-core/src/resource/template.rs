//! Template: an ordered list of actions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Kind, NoStatus, Resource, Spec};

/// An ordered list of actions that turns a machine into something.
pub type Template = Resource<TemplateSpec>;

/// What a template does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateSpec {
    /// For a person, one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Values that actions may use as `{{ values.name }}`; assign may override them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, ValueSource>,
    /// The steps, in order.
    pub actions: Vec<TemplateAction>,
    /// How long the whole run may take, in seconds; four hours unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// A value in line, or where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ValueSource {
    /// `valueFrom: { secretRef: { name, key } }`
    From {
        /// Where the value is.
        #[serde(rename = "valueFrom")]
        value_from: ValueFrom,
    },
    /// The value itself.
    Plain(String),
}

// By hand, not `untagged`: an error then names the field inside, not "no variant matched".
impl<'de> Deserialize<'de> for ValueSource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ValueSource;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text, a number, true, false or `valueFrom`")
            }
            fn visit_str<E>(self, text: &str) -> Result<ValueSource, E> {
                Ok(ValueSource::Plain(text.to_owned()))
            }
            fn visit_bool<E>(self, b: bool) -> Result<ValueSource, E> {
                Ok(ValueSource::Plain(b.to_string()))
            }
            fn visit_i64<E>(self, n: i64) -> Result<ValueSource, E> {
                Ok(ValueSource::Plain(n.to_string()))
            }
            fn visit_u64<E>(self, n: u64) -> Result<ValueSource, E> {
                Ok(ValueSource::Plain(n.to_string()))
            }
            fn visit_f64<E>(self, n: f64) -> Result<ValueSource, E> {
                Ok(ValueSource::Plain(n.to_string()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<ValueSource, A::Error> {
                #[derive(Deserialize)]
                struct From {
                    #[serde(rename = "valueFrom")]
                    value_from: ValueFrom,
                }
                let From { value_from } = From::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(ValueSource::From { value_from })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for ValueSource {
    fn schema_name() -> Cow<'static, str> {
        "ValueSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let from = generator.subschema_for::<ValueFrom>();
        json_schema!({
            "anyOf": [
                { "type": ["string", "boolean", "number"] },
                { "type": "object", "properties": { "valueFrom": from }, "required": ["valueFrom"] },
            ],
        })
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// One key of a Secret.
    pub secret_ref: SecretKeyRef,
}

/// One key of a Secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// The Secret's name.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateAction {
    /// Unique in the template; for people and reports.
    pub name: String,
    /// Which action: `partition`, `image2disk`, `writefile`, ...
    pub action: String,
    /// Its parameters. Strings may hold `{{ ... }}`.
    #[serde(default = "empty", skip_serializing_if = "is_empty")]
    #[schemars(with = "serde_json::Map<String, Value>")]
    pub with: Value,
    /// How long this step may take, in seconds; an hour unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

impl Spec for TemplateSpec {
    const KIND: Kind = Kind::TEMPLATE;
    type Status = NoStatus;
}
