//! The description of the routes, made from the very table that serves them.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::App;
use super::route::{Access, Route, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/dragonfly/v1/openapi.json", Access::Person, "This description", document)
}

async fn document(State(app): State<App>) -> Json<Value> {
    Json(describe(&super::table(&app)))
}

/// OpenAPI 3.1 for a table of routes.
fn describe(table: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in table {
        // OpenAPI has no catch-all: what axum writes as `{*path}` is a parameter like another.
        let path = route.path.replace("{*", "{");
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let mut operation = json!({
            "summary": route.about,
            "operationId": operation_id(route),
            "security": security(route.access),
            "responses": {
                "default": {
                    "description": "What was asked for, or why not",
                    "content": { super::problem::MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } },
                },
            },
        });
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = body(route) {
            operation["requestBody"] = body;
        }
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[route.method.as_str().to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Dragonfly",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Bare-metal provisioning: machines, templates, workflows, networks, secrets.",
            "license": { "name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "The admin token" },
                "session": { "type": "apiKey", "in": "cookie", "name": crate::auth::COOKIE },
                "agent": { "type": "http", "scheme": "bearer", "description": "An agent's boot token or session" },
                "signature": { "type": "apiKey", "in": "query", "name": "signature" },
            },
            "schemas": schemas(),
        },
    })
}

fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '*', '.', '-']).filter(|w| !w.is_empty());
    // Another spelling of an address that is there without it.
    let slash = (route.path.len() > 1 && route.path.ends_with('/')).then(|| "slash".to_owned());
    let words = std::iter::once(route.method.as_str().to_lowercase()).chain(words.map(str::to_owned)).chain(slash);
    words.collect::<Vec<_>>().join("_")
}

fn security(access: Access) -> Value {
    match access {
        Access::Open => json!([]),
        Access::Person | Access::Page => json!([{ "token": [] }, { "session": [] }]),
        Access::BootToken | Access::Agent => json!([{ "agent": [] }]),
        Access::Image => json!([{ "signature": [] }, { "agent": [] }, { "token": [] }, { "session": [] }]),
    }
}

fn body(route: &Route) -> Option<Value> {
    let schema = match (route.method.as_str(), route.path) {
        ("POST", path) if path.ends_with("/assign") && path.starts_with("/dragonfly/") => "AssignRequest",
        ("POST", path) if path.ends_with("/reimage") && path.starts_with("/dragonfly/") => "ReimageRequest",
        ("POST", path) if path.ends_with("/protect") && path.starts_with("/dragonfly/") => "Protect",
        ("POST", path) if path.ends_with("/hold") && path.starts_with("/dragonfly/") => "Hold",
        ("POST", path) if path.ends_with("/power") && path.starts_with("/dragonfly/") => "PowerRequest",
        ("PUT", path) if path.ends_with("/boot-device") => "BootDeviceRequest",
        ("PUT", path) if path.ends_with("/http-boot") => "HttpBootRequest",
        ("PUT", path) if path.ends_with("/bmc/media") => "MediaRequest",
        ("PUT", path) if path.ends_with("/bmc") => "BmcRequest",
        ("POST" | "PUT", path) if path.starts_with("/apis/") => "Object",
        _ => return None,
    };
    let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
    Some(json!({ "required": true, "content": { "application/json": { "schema": schema } } }))
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let values = json!({
        "type": "object",
        "description": "A text, a number or `{valueFrom: {secretRef: {name, key}}}` each",
        "additionalProperties": true,
    });
    let overwrite = json!({
        "description": "Which disks that carry data may be overwritten",
        "oneOf": [
            { "enum": ["blank", "all"] },
            { "type": "object", "required": ["disks"], "properties": { "disks": { "type": "array", "items": text } } },
        ],
    });
    let image = json!({ "type": "string", "format": "uri", "description": "Without user and password" });
    json!({
        "Problem": {
            "type": "object",
            "description": "RFC 9457",
            "required": ["status", "title"],
            "properties": {
                "status": { "type": "integer" }, "title": text, "detail": text,
                "errors": {
                    "type": "array",
                    "items": { "type": "object", "properties": { "path": text, "problem": text } },
                },
            },
        },
        "AssignRequest": {
            "type": "object", "required": ["template"],
            "properties": { "template": text, "values": values, "overwrite": overwrite },
        },
        "ReimageRequest": {
            "type": "object",
            "properties": { "template": text, "values": values, "overwrite": overwrite },
        },
        "Protect": { "type": "object", "properties": { "on": { "type": "boolean", "default": true } } },
        "Hold": { "type": "object", "required": ["reason"], "properties": { "reason": text } },
        "PowerRequest": {
            "type": "object", "required": ["operation"],
            "properties": { "operation": { "enum": ["on", "off", "soft", "cycle", "reset", "network-boot"] } },
        },
        "BootDeviceRequest": {
            "type": "object", "required": ["device"],
            "properties": {
                "device": { "enum": ["pxe", "disk", "cdrom", "bios"] },
                "persistent": { "type": "boolean", "default": false },
                "mode": { "enum": ["legacy", "uefi"], "description": "As its agent saw it, without" },
            },
        },
        "HttpBootRequest": { "type": "object", "required": ["uri"], "properties": { "uri": image } },
        "MediaRequest": { "type": "object", "required": ["image"], "properties": { "image": image } },
        "BmcRequest": {
            "type": "object", "required": ["address"],
            "properties": {
                "address": { "type": "string", "description": "Without user and password" },
                "username": text, "password": { "type": "string", "writeOnly": true },
                "secret": { "type": "string", "description": "A Secret with the keys username and password" },
                "bootMode": { "enum": ["legacy", "uefi"] },
            },
        },
        "Object": {
            "type": "object", "required": ["apiVersion", "kind", "metadata", "spec"],
            "properties": {
                "apiVersion": { "const": dragonfly_core::resource::API_VERSION }, "kind": text,
                "metadata": { "type": "object", "required": ["name"], "properties": { "name": text } },
                "spec": { "type": "object" },
            },
        },
    })
}
