//! Objects in Kubernetes' shapes: list, get, create, replace, apply, delete, watch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dragonfly_core::engine::{Applied, EngineError};
use dragonfly_core::near::did_you_mean;
use dragonfly_core::resource::manifest;
use dragonfly_core::resource::{API_VERSION, Kind, Record};
use dragonfly_core::store::Selector;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::App;
use super::extract::{Asked, Input, Whole};
use super::follow::{News, lines, present_then_changes};
use super::guard::Caller;
use super::problem::Problem;
use super::route::{Access, Routes};
use super::warnings::Warnings;

/// The largest number of objects in one answer.
pub(super) const PAGE: usize = 500;

pub(super) fn routes(routes: Routes) -> Routes {
    use Access::Person;
    const ALL: &str = "/apis/dragonfly.computer/v1/{plural}";
    const ONE: &str = "/apis/dragonfly.computer/v1/{plural}/{name}";
    routes
        .post("/dragonfly/v1/apply", Person, "Create or change every object of a text, YAML or JSON", apply)
        .get("/apis", Person, "The one API group", groups)
        .get("/apis/dragonfly.computer/v1", Person, "The kinds of the API group", kinds)
        .get(ALL, Person, "Objects of one kind; `watch=1` follows them as JSON lines", list)
        .post(ALL, Person, "Create an object", create)
        .get(ONE, Person, "One object", one)
        .put(ONE, Person, "Replace an object; with a resourceVersion only if it still has it", replace)
        .patch(ONE, Person, "Create or change an object (application/apply-patch+yaml)", patch)
        .delete(ONE, Person, "Delete an object", delete)
}

/// A problem as Kubernetes' clients read it.
struct Refused(Problem);

impl<E: Into<Problem>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        (problem.status, Json(status(&problem))).into_response()
    }
}

pub(super) fn status(problem: &Problem) -> Value {
    let reason = match problem.status {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT if problem.detail.ends_with("already exists") => "AlreadyExists",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::GONE => "Expired",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": problem.detail, "reason": reason, "code": problem.status.as_u16(),
    })
}

fn kind(plural: &str) -> Result<Kind, Problem> {
    Kind::ALL.into_iter().find(|kind| kind.plural == plural).ok_or_else(|| {
        let known = Kind::ALL.map(|kind| kind.plural);
        let meant = did_you_mean(plural, known).unwrap_or_else(|| format!("there are: {}", known.join(", ")));
        Problem::not_found(format!("no kind is called `{plural}`; {meant}"))
    })
}

async fn groups() -> Json<Value> {
    let version = json!({ "groupVersion": API_VERSION, "version": "v1" });
    let group = json!({ "name": "dragonfly.computer", "versions": [version], "preferredVersion": version });
    Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [group] }))
}

async fn kinds() -> Json<Value> {
    let kinds = Kind::ALL.map(|kind| {
        json!({
            "name": kind.plural, "singularName": kind.name.to_lowercase(), "namespaced": false, "kind": kind.name,
            "shortNames": [kind.short], "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        })
    });
    Json(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": kinds }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wanted {
    watch: Option<String>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    from: Option<String>,
    label_selector: Option<String>,
    field_selector: Option<String>,
    resource_version: Option<String>,
    timeout_seconds: Option<u64>,
}

async fn list(
    State(app): State<App>,
    Path(plural): Path<String>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    let kind = kind(&plural)?;
    let selector = selector(wanted.label_selector.as_deref().unwrap_or_default())?;
    if wanted.field_selector.as_deref().is_some_and(|s| !s.is_empty()) {
        return Err(Problem::bad_request("fieldSelector: objects are selected by labelSelector only").into());
    }
    if wanted.watch.as_deref().is_some_and(|w| matches!(w, "1" | "true" | "")) {
        return Ok(watch(&app, kind, selector, &wanted));
    }
    let limit = match wanted.limit {
        None | Some(0) => 0,
        Some(limit) => limit.min(PAGE),
    };
    let place = wanted.from.as_deref().filter(|f| !f.is_empty()).map(Place::read);
    let (version, from) = place.map_or((None, None), |place| (place.version, Some(place.after)));
    let page = app.engine.list(kind, &selector, limit, from).await?;
    // A client that follows what it has listed begins where the first page was read.
    let version = version.unwrap_or(&page.version);
    let mut metadata = json!({ "resourceVersion": version });
    if let Some(after) = &page.more {
        metadata["continue"] = Place { version: Some(version), after }.write().into();
    }
    let list = List { api_version: API_VERSION, kind: format!("{}List", kind.name), metadata, items: page.items };
    Ok(Json(list).into_response())
}

/// Some objects of a kind.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List {
    api_version: &'static str,
    kind: String,
    metadata: Value,
    items: Vec<Record>,
}

/// Where a list goes on: `version/name`, or the name alone.
struct Place<'a> {
    /// The version that the first page was read at.
    version: Option<&'a str>,
    /// The last object of the page before.
    after: &'a str,
}

impl<'a> Place<'a> {
    fn read(text: &'a str) -> Self {
        // No name has a slash in it.
        match text.split_once('/') {
            Some((version, after)) => Self { version: Some(version), after },
            None => Self { version: None, after: text },
        }
    }

    fn write(&self) -> String {
        format!("{}/{}", self.version.unwrap_or_default(), self.after)
    }
}

/// `a=b,c==d`; anything else of Kubernetes' language is refused by name.
pub(super) fn selector(text: &str) -> Result<Selector, Problem> {
    let mut labels = BTreeMap::new();
    for term in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        let pair = term.split_once("==").or_else(|| term.split_once('='));
        match pair.map(|(key, value)| (key.trim(), value.trim())) {
            Some((key, value)) if !key.is_empty() && !key.ends_with('!') && !value.contains(['=', '!']) => {
                labels.insert(key.to_owned(), value.to_owned());
            }
            _ => {
                let detail =
                    format!("labelSelector: `{term}` is not understood; write `key=value`, several with commas");
                return Err(Problem::bad_request(detail));
            }
        }
    }
    Ok(Selector { labels })
}

fn watch(app: &App, kind: Kind, selector: Selector, wanted: &Wanted) -> Response {
    let from = wanted.resource_version.clone().filter(|v| !v.is_empty() && v != "0");
    let life = Duration::from_secs(wanted.timeout_seconds.unwrap_or(3600).clamp(1, 3600));
    let news = match from {
        Some(version) => app.engine.watch(kind, Some(version)).map(News::Change).boxed(),
        None => present_then_changes(app.engine.clone(), kind, selector.clone()).boxed(),
    };
    let end = tokio::time::sleep(life);
    let stop = app.stop.clone().cancelled_owned();
    let lines = lines(news, selector).take_until(async move {
        tokio::select! {
            () = end => {}
            () = stop => {}
        }
    });
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn create(
    State(app): State<App>,
    Path(plural): Path<String>,
    Extension(caller): Extension<Caller>,
    Input(object): Input<Value>,
) -> Result<Response, Refused> {
    same_kind(kind(&plural)?, &object)?;
    let record = app.engine.create_object(object, &caller.by).await?;
    Ok(shown(&app, StatusCode::CREATED, &record))
}

/// An object that was written. Kubernetes' clients print the header `Warning`.
fn shown(app: &App, code: StatusCode, record: &Record) -> Response {
    let warning = Warnings::of(app, [record]).header(record);
    (code, warning.map(|value| [(header::WARNING, value)]), Json(record.to_json())).into_response()
}

async fn one(State(app): State<App>, Path((plural, name)): Path<(String, String)>) -> Result<Json<Value>, Refused> {
    Ok(Json(app.engine.get(kind(&plural)?, &name).await?.to_json()))
}

async fn replace(
    State(app): State<App>,
    Path((plural, name)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Input(object): Input<Value>,
) -> Result<Response, Refused> {
    same_kind(kind(&plural)?, &object)?;
    same_name(&name, object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default())?;
    Ok(shown(&app, StatusCode::OK, &app.engine.replace_object(object, &caller.by).await?))
}

async fn patch(
    State(app): State<App>,
    Path((plural, name)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Refused> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if media.split(';').next() != Some("application/apply-patch+yaml") {
        let detail = "send the whole object as `application/apply-patch+yaml`, or replace it with PUT";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into());
    }
    let kind = kind(&plural)?;
    let text = text(&body)?;
    let manifests = manifest::parse(text).map_err(EngineError::from)?;
    let [only] = manifests.as_slice() else {
        return Err(Problem::bad_request("the body must hold exactly one object").into());
    };
    if only.record.kind != kind {
        return Err(wrong_kind(kind, only.record.kind.name).into());
    }
    same_name(&name, &only.record.metadata.name)?;
    let applied = app.engine.apply(text, &caller.by).await?;
    let Some(Applied { record, change }) = applied.into_iter().next() else {
        return Err(Problem::bad_request("the body must hold exactly one object").into());
    };
    let created = change == dragonfly_core::engine::Change::Created;
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(shown(&app, code, &record))
}

async fn delete(
    State(app): State<App>,
    Path((plural, name)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Refused> {
    let kind = kind(&plural)?;
    app.engine.delete(kind, &name, &caller.by).await?;
    Ok(Json(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": { "name": name, "group": "dragonfly.computer", "kind": kind.plural },
    })))
}

async fn apply(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Whole(body): Whole,
) -> Result<Json<Value>, Problem> {
    let applied = app.engine.apply(text(&body)?, &caller.by).await?;
    let warnings = Warnings::of(&app, applied.iter().map(|applied| &applied.record));
    let items: Vec<Value> = applied
        .into_iter()
        .map(|Applied { record, change }| {
            let mut item = json!({ "change": change, "object": record.to_json() });
            if let Some(warning) = warnings.about(&record) {
                item["warnings"] = json!([warning]);
            }
            item
        })
        .collect();
    Ok(Json(json!({ "items": items })))
}

fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| Problem::bad_request(format!("the body is not UTF-8: {error}")))
}

fn same_kind(kind: Kind, object: &Value) -> Result<(), Problem> {
    match object.get("kind").and_then(Value::as_str) {
        Some(name) if name != kind.name => Err(wrong_kind(kind, name)),
        _ => Ok(()),
    }
}

fn wrong_kind(kind: Kind, given: &str) -> Problem {
    Problem::bad_request(format!("kind: this address takes a {}, not a {given}", kind.name))
}

fn same_name(wanted: &str, given: &str) -> Result<(), Problem> {
    if wanted == given {
        return Ok(());
    }
    Err(Problem::bad_request(format!("metadata.name: this address is for `{wanted}`, the object says `{given}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_equality_selectors_and_names_what_it_does_not_read() {
        let labels = |text: &str| selector(text).map(|s| s.labels.into_iter().collect::<Vec<_>>());
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(labels("").unwrap(), []);
        assert_eq!(labels("a=b, c==d").unwrap(), [pair("a", "b"), pair("c", "d")]);
        for bad in ["a", "a!=b", "a in (b,c)", "!a", "=b"] {
            assert!(labels(bad).unwrap_err().detail.contains("labelSelector"), "{bad}");
        }
    }
}
