use serde_json::json;

use super::*;

/// An API of lamps, with the kinds of parameters that there are.
const LAMPS: &str = r#"{ "version": 1, "paths": [{ "path": "/rooms/{room}/lamp", "methods": [
  { "verb": "PUT", "extra": { "proxyto": "room" },
    "permissions": { "expression": { "check": ["perm", "/rooms/{room}", ["Lamp.Switch"]] } },
    "parameters": [
      { "name": "room", "definition": { "type": "integer", "minimum": 100, "maximum": 999.0 } },
      { "name": "order", "definition": { "type": "string", "format": "pve-qm-boot", "optional": true } },
      { "name": "disk", "definition":
        { "type": "string", "pattern": "(ide|sata|scsi|virtio)\\d+", "format": "other", "optional": true } },
      { "name": "date", "definition": { "type": "string", "pattern": "\\d+-\\d+", "optional": true } },
      { "name": "note", "definition": { "type": "string", "max_length": 12, "optional": true } },
      { "name": "wire[n]", "definition": { "type": "string", "format": { "colour": {} }, "optional": true } },
      { "name": "on", "definition": { "type": "boolean", "optional": true } },
      { "name": "tint", "definition": { "type": "string", "enum": ["warm", "cold"], "optional": true } },
      { "name": "bright", "definition": { "type": "integer", "minimum": 1, "optional": true } },
      { "name": "force", "definition": { "type": "boolean", "optional": true, "extra": { "requires": "tint" } } }],
    "returns": { "type": "null" } },
  { "verb": "GET", "permissions": { "user": "all" }, "returns": { "type": "object", "properties": {
      "state": { "type": "string", "enum": ["lit", "dark"] },
      "hours": { "type": "integer" },
      "wires": { "type": "array", "items": { "type": "string" }, "optional": true } } } }] }] }"#;

fn lamps(verb: &str) -> (Method, Parameters) {
    let path = ["rooms", "101", "lamp"].map(ToOwned::to_owned);
    let schema = Schema::all(LAMPS.as_bytes()).unwrap();
    let (method, found) = schema.find(verb, &path).unwrap();
    (method.clone(), found)
}

#[test]
fn parameters_are_judged() {
    let (put, found) = lamps("PUT");
    assert!(put.proxied && put.user.is_none() && put.check[2] == json!(["Lamp.Switch"]));
    assert!(put.check_parameters(&found).is_empty());
    for (name, value, why) in [
        ("order", "order=net0;scsi0", ""),
        ("order", "cdn", ""),
        ("order", "order=", "invalid format"),
        ("order", "pxe", "invalid format"),
        ("disk", "scsi0", ""),
        ("disk", "net0", "regex pattern"),
        ("date", "tomorrow", "regex pattern"),
        ("note", "longer than twelve", "may only be 12 characters long"),
        ("wire7", "colour=red", ""),
        ("wire", "red", "not defined in schema"),
        ("colour", "red", "not defined in schema"),
        ("on", "maybe", "type check ('boolean') failed"),
        ("tint", "green", "does not have a value in the enumeration 'warm, cold'"),
        ("bright", "two", "type check ('integer') failed"),
        ("bright", "0", "minimum value of 1"),
        ("force", "1", "requires this property: tint"),
        ("room", "7", "minimum value of 100"),
        ("room", "1000", "maximum value of 999"),
    ] {
        let mut given = found.clone();
        given.insert(name.to_owned(), value.to_owned());
        let wrong = put.check_parameters(&given);
        let told = wrong.get(name).map(String::as_str).unwrap_or_default();
        assert!(told.is_empty() == why.is_empty() && told.contains(why), "{name}={value}: {told}");
    }
    assert_eq!(put.check_parameters(&Parameters::new()).len(), 1, "the room");
}

#[test]
fn answers_are_judged() {
    let (get, _) = lamps("GET");
    assert!(!get.proxied && get.user.as_deref() == Some("all"));
    let good = json!({ "state": "lit", "hours": 3, "wires": ["red"] });
    get.check_answer(&good).unwrap();
    for (name, value) in [("state", json!("waiting")), ("hours", json!("1")), ("wires", json!([1])), ("more", json!(1))]
    {
        let mut bad = good.clone();
        bad[name] = value;
        assert!(get.check_answer(&bad).unwrap_err().contains(name));
    }
    assert!(get.check_answer(&json!({})).unwrap_err().contains("is missing"));
    assert!(get.check_answer(&json!([])).is_err());
}

#[test]
fn an_api_without_what_this_server_has_is_refused() {
    let error = Schema::read(LAMPS.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "the API has no method POST /access/ticket");
    assert!(Schema::read(&b"{"[..]).is_err());
}
