use serde_json::{Value, json};

use super::*;
use crate::resource::manifest;

/// What is wrong with a value, by the part of OpenAPI v3 that structural schemas use.
fn problems(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut say = |problem: String| found.push(format!("{path}: {problem}"));
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if let Some(kind) = schema["type"].as_str() {
        let fits = match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            other => panic!("{path}: type {other}"),
        };
        if !fits {
            return say(format!("{value} is no {kind}"));
        }
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        say(format!("{value} is none of {words:?}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            say(format!("{name} is missing"));
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let inner = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
        match inner {
            Some(inner) => problems(inner, value, &format!("{path}.{name}"), found),
            None if schema[PRESERVE] == true => {}
            None if path.ends_with("metadata") => {}
            None => found.push(format!("{path}: {name} would be lost")),
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        problems(&schema["items"], value, &format!("{path}[{index}]"), found);
    }
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

fn wrong(kind: Kind, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    problems(&of(kind), object, "", &mut found);
    found
}

/// What `apiextensions.k8s.io/v1` asks of a structural schema.
fn structural(schema: &Value, path: &str) {
    let fields = schema.as_object().unwrap_or_else(|| panic!("{path} is {schema}"));
    let known = [
        "type",
        "description",
        "properties",
        "additionalProperties",
        "items",
        "required",
        "enum",
        "nullable",
        "format",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        PRESERVE,
    ];
    for field in fields.keys() {
        assert!(known.contains(&field.as_str()), "{path}: {field}");
    }
    assert!(schema.get("type").is_some() || schema[PRESERVE] == true, "{path} has no type");
    assert!(!(schema.get("properties").is_some() && schema.get("additionalProperties").is_some()), "{path}");
    let open = schema[PRESERVE] == true || schema.get("additionalProperties").is_some();
    assert!(
        schema["type"] != "object" || open || path.is_empty() || path == ".metadata",
        "{path} loses what it does not know"
    );
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(schema["properties"].get(required.as_str().unwrap()).is_some(), "{path}: {required}");
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        structural(inner, &format!("{path}.{name}"));
    }
    for field in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(field) {
            structural(inner, &format!("{path}[]"));
        }
    }
    assert!(schema["type"] != "array" || schema.get("items").is_some(), "{path} has no items");
}

#[test]
fn every_kind_is_structural_and_keeps_what_it_does_not_know() {
    for kind in Kind::ALL {
        structural(&of(kind), "");
        let later = json!({ "spec": { "later": { "deep": [1, null] } }, "status": { "later": 1 } });
        let told = wrong(kind, &later);
        assert!(told.iter().all(|problem| problem.ends_with("is missing")), "{told:?}");
    }
}

#[test]
fn every_field_says_what_it_is() {
    fn described(schema: &Value, path: &str) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let text = inner["description"].as_str().unwrap_or_default();
            let bare = ["spec", "status", "metadata"].contains(&name.as_str());
            assert!(bare || (!text.is_empty() && !text.contains("[`")), "{path}: {text:?}");
            described(inner, &path);
            described(&inner["items"], &path);
        }
    }
    for kind in Kind::ALL {
        described(&of(kind), kind.name);
    }
    let trust = &of(Kind::HARDWARE)["properties"]["spec"]["properties"]["trust"];
    assert_eq!(trust["enum"], json!(["network", "bmc", "tpm"]));
    let about = trust["description"].as_str().unwrap();
    assert!(about.starts_with("How much this machine") && about.contains("`tpm`: It proves a TPM key."), "{about}");
}

#[test]
fn what_people_write_fits_and_a_wrong_type_does_not() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/manifest");
    let mut count = 0;
    for entry in std::fs::read_dir(seeds).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for manifest in manifest::parse(&text).unwrap() {
            let mut object = manifest.record.to_json();
            assert_eq!(wrong(manifest.record.kind, &object), [""; 0], "{object}");
            object["spec"] = json!("text");
            assert_eq!(wrong(manifest.record.kind, &object), [".spec: \"text\" is no object"]);
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
    let table = [
        (
            Kind::HARDWARE,
            json!({"macs": ["52:54:00:00:00:01"], "trust": "bmc", "bmc": {"address": "ipmi://10.0.0.6"}}),
            "",
        ),
        (Kind::HARDWARE, json!({"macs": "52:54:00:00:00:01"}), ".spec.macs: \"52:54:00:00:00:01\" is no array"),
        (Kind::HARDWARE, json!({"protected": "yes"}), ".spec.protected: \"yes\" is no boolean"),
        (Kind::HARDWARE, json!({"bmc": {}}), ".spec.bmc: address is missing"),
        (Kind::HARDWARE, json!({"hold": null}), ""),
        (Kind::NETWORK, json!({"interface": "e", "dhcp": "off", "subnet": "10.0.0.0/8"}), ""),
        (
            Kind::NETWORK,
            json!({"interface": "e", "dhcp": false, "subnet": "10.0.0.0/8"}),
            ".spec.dhcp: false is no string",
        ),
        (
            Kind::TEMPLATE,
            json!({"actions": [{"name": "a", "action": "b", "with": {"x": [1]}}], "values": {"a": 1}}),
            "",
        ),
        (
            Kind::TEMPLATE,
            json!({"actions": [{"name": "a", "action": "b", "with": []}]}),
            ".spec.actions[0].with: [] is no object",
        ),
        (Kind::TEMPLATE, json!({"actions": [{"name": "a"}]}), ".spec.actions[0]: action is missing"),
    ];
    for (kind, spec, want) in table {
        let told = wrong(kind, &json!({ "metadata": {"name": "a"}, "spec": spec })).join("\n");
        assert_eq!(told, want, "{spec}");
    }
}

#[test]
fn columns_name_fields_that_there_are() {
    for kind in Kind::ALL {
        let schema = of(kind);
        let time = json!({ "type": "string" });
        for column in columns(kind) {
            let path = column.path.replace("[?(@.type==\"Served\")]", "[0]").replace("[0]", ".0");
            let mut here = &schema;
            for step in path.trim_start_matches('.').split('.') {
                here = match step {
                    "0" => &here["items"],
                    "creationTimestamp" if column.path.starts_with(".metadata.") => &time,
                    _ => &here["properties"][step],
                };
            }
            let kind_there = if column.kind == "date" { "string" } else { column.kind };
            assert_eq!(here["type"], kind_there, "{kind}: {}", column.path);
        }
    }
}

#[test]
fn definitions_are_of_every_kind_but_secret() {
    let names: Vec<String> = crds().iter().map(|crd| crd["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    let want = ["hardware", "templates", "workflows", "networks"].map(|plural| format!("{plural}.dragonfly.computer"));
    assert_eq!(names, want);
}
