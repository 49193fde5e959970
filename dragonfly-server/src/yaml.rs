//! JSON written as YAML, for people and for `apply`.

use dragonfly_core::text::acts;
use serde_json::Value;

/// JSON as YAML, in block style. Text is quoted whenever YAML could read it as something else.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    write_yaml(&mut out, value, 0);
    out
}

fn write_yaml(out: &mut String, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("{pad}{}:", scalar(key)));
                nested(out, value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                write_yaml(&mut inner, item, depth + 1);
                // The first line of the item stands beside its dash.
                out.push_str(&format!("{pad}- {}", inner.trim_start_matches(' ')));
            }
        }
        Value::Object(_) => out.push_str(&format!("{pad}{{}}\n")),
        Value::Array(_) => out.push_str(&format!("{pad}[]\n")),
        Value::String(text) => out.push_str(&format!("{pad}{}\n", scalar(text))),
        other => out.push_str(&format!("{pad}{other}\n")),
    }
}

fn nested(out: &mut String, value: &Value, depth: usize) {
    let blocks = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if blocks {
        out.push('\n');
        write_yaml(out, value, depth);
    } else {
        let mut inner = String::new();
        write_yaml(&mut inner, value, 0);
        out.push(' ');
        out.push_str(&inner);
    }
}

fn scalar(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./ ()+@".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !text.ends_with(' ')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null" | "nan" | "inf"
        );
    // A JSON string is a YAML double-quoted one.
    if plain { text.to_owned() } else { quiet(&Value::from(text).to_string()) }
}

/// JSON without a character that a terminal obeys: all of them stand within texts, where they may be
/// written as their numbers. (Those below space always are.)
pub(crate) fn quiet(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if acts(c) && c != '\n' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_reads_back_as_what_it_was() {
        let value = json!({
            "kind": "Template", "empty": {}, "none": [], "n": 3, "yes": "yes", "num": "007", "colon": "a: b",
            "list": [{ "a": 1, "b": { "c": "x" } }, "text", ["nested", "list"], {}],
            "lines": "one\ntwo\n", "dash": "- x", "star": "*x", "t": true, "z": null, "2": "key",
        });
        let manifest = json!({
            "apiVersion": "dragonfly.computer/v1", "kind": "Template", "metadata": { "name": "t" },
            "spec": { "actions": [{ "name": "a", "action": "x", "with": value }] },
        });
        let text = to_yaml(&manifest);
        let parsed = dragonfly_core::resource::manifest::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(parsed[0].record.to_json(), manifest, "{text}");
    }

    /// Any JSON, with the kinds of text that YAML reads as something else.
    fn values() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            any::<String>(),
            "[-?:,\\[\\]{}#&*!|>'\"%@`~ \n\t]{0,6}",
            "[0-9eExo._+-]{1,8}",
            "(true|False|NULL|~|yes|Off|nan|\\.inf|0x1F|1e3|2026-11-21)",
        ];
        let leaf = prop_oneof![
            word.prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z:#-]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_parameters_survive_yaml(value in values()) {
            let manifest = json!({
                "apiVersion": "dragonfly.computer/v1", "kind": "Template", "metadata": { "name": "t" },
                "spec": { "actions": [{ "name": "a", "action": "x", "with": { "v": value } }] },
            });
            let text = to_yaml(&manifest);
            let parsed = dragonfly_core::resource::manifest::parse(&text)
                .map_err(|e| TestCaseError::fail(format!("{e:?}\n{text}")))?;
            prop_assert_eq!(parsed[0].record.to_json(), manifest, "{}", text);
        }
    }
}
