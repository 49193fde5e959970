//! What there is: versions, groups, kinds, in both of Kubernetes' discovery formats.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dragonfly_core::resource::{API_VERSION, Kind};
use serde_json::{Value, json};

use super::super::route::{Access, Routes};
use super::GROUP;
use super::shape::accepted;

/// The version of Kubernetes whose API conventions are kept: what `kubectl` compares its own with.
const MINOR: &str = "32";

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The words that mean several kinds at once: `kubectl get dragonfly`.
const CATEGORIES: [&str; 1] = ["dragonfly"];

pub(super) fn routes(routes: Routes) -> Routes {
    use Access::Person;
    // Some clients end these addresses with a slash.
    let routes = routes
        .get("/version/", Person, "The same as without the slash", version)
        .get("/api/", Person, "The same as without the slash", core_versions)
        .get("/api/v1/", Person, "The same as without the slash", core_kinds)
        .get("/apis/", Person, "The same as without the slash", groups)
        .get("/apis/dragonfly.computer/", Person, "The same as without the slash", group)
        .get("/apis/dragonfly.computer/v1/", Person, "The same as without the slash", kinds);
    routes
        .get("/version", Person, "Which version of Kubernetes' conventions are kept", version)
        .get("/api", Person, "The versions of the core group", core_versions)
        .get("/api/v1", Person, "The kinds of the core group: events and namespaces, as lists", core_kinds)
        .get("/apis", Person, "The API groups", groups)
        .get("/apis/dragonfly.computer", Person, "The one API group", group)
        .get("/apis/dragonfly.computer/v1", Person, "The kinds of the API group", kinds)
}

async fn version() -> Json<Value> {
    Json(json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0+dragonfly-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}

/// All groups with all their kinds at once, for who asks for that (`apidiscovery.k8s.io`).
fn aggregated(headers: &HeaderMap, items: impl FnOnce() -> Value) -> Option<Response> {
    let media = accepted(headers).into_iter().find_map(|media| {
        let is = |name: &str, value: &str| media.parameter(name) == value;
        let discovery = is("g", "apidiscovery.k8s.io") && is("as", "APIGroupDiscoveryList");
        match media.parameter("v") {
            _ if !media.is_json() => None,
            "v2" if discovery => Some(Some("v2")),
            "v2beta1" if discovery => Some(Some("v2beta1")),
            _ if media.parameter("as").is_empty() => Some(None),
            _ => None,
        }
    });
    let version = media??;
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items(),
    });
    let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let mut response = Json(body).into_response();
    if let Ok(kind) = HeaderValue::try_from(kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Some(response)
}

async fn core_versions(headers: HeaderMap) -> Response {
    let items = || {
        let resource = |plural: &str, kind: &str, scope: &str, short: &str| {
            json!({
                "resource": plural, "responseKind": { "group": "", "version": "v1", "kind": kind }, "scope": scope,
                "singularResource": kind.to_lowercase(), "shortNames": [short], "verbs": ["list"],
            })
        };
        let resources =
            [resource("events", "Event", "Namespaced", "ev"), resource("namespaces", "Namespace", "Cluster", "ns")];
        json!([{
            "metadata": { "name": "", "creationTimestamp": null },
            "versions": [{ "version": "v1", "freshness": "Current", "resources": resources }],
        }])
    };
    aggregated(&headers, items).unwrap_or_else(|| {
        Json(json!({
            "kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": [],
        }))
        .into_response()
    })
}

async fn core_kinds() -> Json<Value> {
    let resource = |name: &str, kind: &str, namespaced: bool, short: &str| {
        json!({
            "name": name, "singularName": kind.to_lowercase(), "namespaced": namespaced, "kind": kind,
            "shortNames": [short], "verbs": ["list"],
        })
    };
    let resources = [resource("events", "Event", true, "ev"), resource("namespaces", "Namespace", false, "ns")];
    Json(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": resources }))
}

fn our_group() -> Value {
    let version = json!({ "groupVersion": API_VERSION, "version": "v1" });
    json!({ "name": GROUP, "versions": [version], "preferredVersion": version })
}

async fn groups(headers: HeaderMap) -> Response {
    let items = || {
        let resources = Kind::ALL.map(|kind| {
            let response_kind = json!({ "group": GROUP, "version": "v1", "kind": kind.name });
            json!({
                "resource": kind.plural, "responseKind": response_kind, "scope": "Cluster",
                "singularResource": kind.name.to_lowercase(), "shortNames": [kind.short], "verbs": VERBS,
                "categories": CATEGORIES,
                "subresources": [{ "subresource": "status", "responseKind": response_kind, "verbs": ["get"] }],
            })
        });
        json!([{
            "metadata": { "name": GROUP, "creationTimestamp": null },
            "versions": [{ "version": "v1", "freshness": "Current", "resources": resources }],
        }])
    };
    aggregated(&headers, items).unwrap_or_else(|| {
        Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [our_group()] })).into_response()
    })
}

async fn group() -> Json<Value> {
    let mut group = our_group();
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Json(group)
}

async fn kinds() -> Json<Value> {
    let kinds = Kind::ALL.iter().flat_map(|kind| {
        let whole = json!({
            "name": kind.plural, "singularName": kind.name.to_lowercase(), "namespaced": false, "kind": kind.name,
            "shortNames": [kind.short], "categories": CATEGORIES, "verbs": VERBS,
        });
        let status = json!({
            "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": false, "kind": kind.name,
            "verbs": ["get"],
        });
        [whole, status]
    });
    let kinds: Vec<Value> = kinds.collect();
    Json(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": kinds }))
}
