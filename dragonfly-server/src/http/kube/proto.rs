//! An OpenAPI 2 document in protobuf: the `openapi.v2.Document` of gnostic, which is all that `kubectl` up to 1.26
//! reads of `/openapi/v2`. The words that our documents use are written; field numbers are those of gnostic's
//! `OpenAPIv2.proto`.

use serde_json::{Map, Value};

/// A message being written: tags are `number << 3 | type` (the protobuf encoding's wire types 0, 1 and 2).
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        loop {
            let low = (number & 0x7f) as u8;
            number >>= 7;
            if number == 0 {
                return self.0.push(low);
            }
            self.0.push(low | 0x80);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: Option<&Value>) {
        if let Some(text) = text.and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn message(&mut self, field: u64, message: Self) {
        self.bytes(field, &message.0);
    }

    fn flag(&mut self, field: u64, flag: Option<&Value>) {
        if flag.and_then(Value::as_bool) == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn double(&mut self, field: u64, number: Option<&Value>) {
        if let Some(number) = number.and_then(Value::as_f64) {
            self.varint(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn integer(&mut self, field: u64, number: Option<&Value>) {
        if let Some(number) = number.and_then(Value::as_u64) {
            self.varint(field << 3);
            self.varint(number);
        }
    }

    /// `Any`: the value as YAML, of which JSON is a part.
    fn any(&mut self, field: u64, value: &Value) {
        let mut any = Self::default();
        any.bytes(2, value.to_string().as_bytes());
        self.message(field, any);
    }

    /// A name and what it stands for, as the entry of a map.
    fn named(&mut self, field: u64, name: &str, value: Self) {
        let mut named = Self::default();
        named.bytes(1, name.as_bytes());
        named.message(2, value);
        self.message(field, named);
    }

    fn extensions(&mut self, field: u64, of: &Map<String, Value>) {
        for (name, value) in of.iter().filter(|(name, _)| name.starts_with("x-")) {
            let mut named = Self::default();
            named.bytes(1, name.as_bytes());
            named.any(2, value);
            self.message(field, named);
        }
    }
}

fn fields(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn items(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

/// An OpenAPI 2 document, from its JSON.
pub(super) fn document(json: &Value) -> Vec<u8> {
    let mut document = Message::default();
    document.text(1, json.get("swagger"));
    let mut info = Message::default();
    info.text(1, json.pointer("/info/title"));
    info.text(2, json.pointer("/info/version"));
    document.message(2, info);
    let mut paths = Message::default();
    for (path, item) in fields(json.get("paths")) {
        paths.named(2, path, path_item(item));
    }
    document.message(8, paths);
    let mut definitions = Message::default();
    for (name, definition) in fields(json.get("definitions")) {
        definitions.named(1, name, schema(definition));
    }
    document.message(9, definitions);
    document.0
}

fn path_item(json: &Value) -> Message {
    let mut item = Message::default();
    for (method, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if let Some(found) = json.get(method) {
            item.message(field, operation(found));
        }
    }
    item
}

fn operation(json: &Value) -> Message {
    let mut operation = Message::default();
    operation.text(5, json.get("operationId"));
    for parameter in items(json.get("parameters")) {
        let mut query = Message::default();
        query.text(2, parameter.get("in"));
        query.text(3, parameter.get("description"));
        query.text(4, parameter.get("name"));
        query.text(6, parameter.get("type"));
        query.flag(20, parameter.get("uniqueItems"));
        // ParametersItem { Parameter { NonBodyParameter { QueryParameterSubSchema } } }
        let mut wrapped = query;
        for field in [3, 2, 1] {
            let mut outer = Message::default();
            outer.message(field, wrapped);
            wrapped = outer;
        }
        operation.message(8, wrapped);
    }
    let mut responses = Message::default();
    for (code, response) in fields(json.get("responses")) {
        let mut told = Message::default();
        told.text(1, response.get("description"));
        let mut value = Message::default();
        value.message(1, told);
        responses.named(1, code, value);
    }
    operation.message(9, responses);
    operation.extensions(13, json.as_object().unwrap_or(&Map::new()));
    operation
}

fn schema(json: &Value) -> Message {
    let mut schema_message = Message::default();
    let out = &mut schema_message;
    out.text(1, json.get("$ref"));
    out.text(2, json.get("format"));
    out.text(3, json.get("title"));
    out.text(4, json.get("description"));
    if let Some(default) = json.get("default") {
        out.any(5, default);
    }
    out.double(7, json.get("maximum"));
    out.double(9, json.get("minimum"));
    out.integer(11, json.get("maxLength"));
    out.integer(12, json.get("minLength"));
    out.text(13, json.get("pattern"));
    out.integer(14, json.get("maxItems"));
    out.integer(15, json.get("minItems"));
    out.flag(16, json.get("uniqueItems"));
    out.integer(17, json.get("maxProperties"));
    out.integer(18, json.get("minProperties"));
    for name in items(json.get("required")) {
        out.text(19, Some(name));
    }
    for value in items(json.get("enum")) {
        out.any(20, value);
    }
    match json.get("additionalProperties") {
        Some(Value::Bool(open)) => {
            let mut item = Message::default();
            item.varint(2 << 3);
            item.varint(u64::from(*open));
            out.message(21, item);
        }
        Some(values) => {
            let mut item = Message::default();
            item.message(1, schema(values));
            out.message(21, item);
        }
        None => {}
    }
    if let Some(kind) = json.get("type") {
        let mut item = Message::default();
        item.text(1, Some(kind));
        out.message(22, item);
    }
    if let Some(of) = json.get("items") {
        let mut item = Message::default();
        item.message(1, schema(of));
        out.message(23, item);
    }
    if json.get("properties").is_some() {
        let mut properties = Message::default();
        for (name, property) in fields(json.get("properties")) {
            properties.named(1, name, schema(property));
        }
        out.message(25, properties);
    }
    out.extensions(31, json.as_object().unwrap_or(&Map::new()));
    schema_message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_as_protobuf_has_them() {
        let mut message = Message::default();
        message.text(1, Some(&json!("2.0")));
        message.integer(11, Some(&json!(300)));
        message.double(7, Some(&json!(1.5)));
        message.flag(16, Some(&json!(true)));
        let want = [&b"\x0a\x032.0"[..], b"\x58\xac\x02", b"\x39\x00\x00\x00\x00\x00\x00\xf8\x3f", b"\x80\x01\x01"];
        assert_eq!(message.0, want.concat());
    }

    #[test]
    fn a_schema_with_everything_around_it() {
        let bytes = document(&json!({
            "swagger": "2.0", "info": { "title": "T", "version": "1" }, "paths": {},
            "definitions": { "a": { "type": "object", "required": ["b"], "properties": { "b": { "$ref": "#/c" } } } },
        }));
        // swagger, info, no paths, and one definition.
        let want = [
            &b"\x0a\x032.0"[..],
            b"\x12\x06\x0a\x01T\x12\x011",
            b"\x42\x00",
            b"\x4a\x25\x0a\x23\x0a\x01a\x12\x1e",
            b"\x9a\x01\x01b",
            b"\xb2\x01\x08\x0a\x06object",
            b"\xca\x01\x0c\x0a\x0a\x0a\x01b\x12\x05\x0a\x03#/c",
        ];
        assert_eq!(bytes, want.concat());
    }
}
