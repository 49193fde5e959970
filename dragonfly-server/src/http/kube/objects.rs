//! Objects: list, get, create, replace, patch.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dragonfly_core::engine::{Applied, Change, Write};
use dragonfly_core::resource::{API_VERSION, Kind, Record, manifest};
use dragonfly_core::store::Page;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::super::App;
use super::super::extract::{Asked, Whole};
use super::super::guard::Caller;
use super::super::problem::Problem;
use super::super::route::{Access, Routes};
use super::super::warnings::Warnings;
use super::patch::Patch;
use super::query::Query;
use super::select::Selection;
use super::shape::Shape;
use super::status::{About as _, Refused};
use super::watch::{Wish, lines, present_then_changes, with_bookmarks};
use super::{PAGE, kind, named, remove};

pub(super) type Answer = Result<Response, Refused>;

pub(super) fn routes(routes: Routes) -> Routes {
    use Access::Person;
    const ALL: &str = "/apis/dragonfly.computer/v1/{plural}";
    const ONE: &str = "/apis/dragonfly.computer/v1/{plural}/{name}";
    const STATUS: &str = "/apis/dragonfly.computer/v1/{plural}/{name}/status";
    routes
        .get(ALL, Person, "Objects of one kind; `watch=1` follows them as JSON lines", list)
        .post(ALL, Person, "Create an object", create)
        .delete(ALL, Person, "Delete the objects that the selectors mean", remove::all)
        .get(ONE, Person, "One object", one)
        .put(ONE, Person, "Replace an object; with a resourceVersion only if it still has it", replace)
        .patch(ONE, Person, "Change an object: merge patch, JSON patch, or the whole of it applied", patch)
        .delete(ONE, Person, "Delete an object", remove::one)
        .get(STATUS, Person, "One object, with what the engine reports of it", one)
        .put(STATUS, Person, "Refused: the engine alone writes it", status_refused)
        .patch(STATUS, Person, "Refused: the engine alone writes it", status_refused)
}

async fn list(
    State(app): State<App>,
    Path(plural): Path<String>,
    headers: HeaderMap,
    Asked(query): Asked<Query>,
) -> Answer {
    let kind = kind(&plural)?;
    let shape = Shape::wanted(&headers, query.include_object.as_deref())?;
    let selection = query.selection()?;
    if query.is_watch() {
        return Ok(watch(&app, Wish { kind, selection, shape, initial: query.wants_initial_events() }, &query));
    }
    let limit = match query.limit {
        None | Some(0) => 0,
        Some(limit) => limit.min(PAGE),
    };
    let place = query.from.as_deref().filter(|from| !from.is_empty()).map(Place::read);
    let (version, from) = place.map_or((None, None), |place| (place.version, Some(place.after.to_owned())));
    let Found { items, version: read, more } = find(&app, kind, &selection, limit, from).await?;
    // A client that follows what it has listed begins where the first page was read.
    let version = version.map_or(read, str::to_owned);
    query.suits(&version)?;
    let mut metadata = json!({ "resourceVersion": version });
    if let Some(after) = &more {
        metadata["continue"] = Place { version: Some(&version), after }.write().into();
    }
    Ok(Json(shape.list(kind, metadata, &items)).into_response())
}

/// Some objects, the version that they were read at, and where the others begin.
pub(super) struct Found {
    pub(super) items: Vec<Record>,
    pub(super) version: String,
    more: Option<String>,
}

/// The objects that are meant, `limit` at most (0: all).
pub(super) async fn find(
    app: &App,
    kind: Kind,
    selection: &Selection,
    limit: usize,
    from: Option<String>,
) -> Result<Found, Refused> {
    if let Some(name) = &selection.name {
        let Page { items, version, .. } = named(&app.engine, kind, name).await?;
        let items = items.into_iter().filter(|record| selection.matches(record)).collect();
        return Ok(Found { items, version, more: None });
    }
    let mut found = Found { items: Vec::new(), version: String::new(), more: from };
    loop {
        // No more than are missing: what a page holds beyond could not be asked for again.
        let ask = if limit > 0 || selection.is_plain() { limit.saturating_sub(found.items.len()) } else { PAGE };
        let page = app.engine.list(kind, &selection.equal, ask, found.more.as_deref()).await?;
        if found.version.is_empty() {
            found.version = page.version;
        }
        found.items.extend(page.items.into_iter().filter(|record| selection.matches(record)));
        found.more = page.more;
        if found.more.is_none() || (limit > 0 && found.items.len() >= limit) {
            return Ok(found);
        }
    }
}

/// Where a list goes on: `version/place`, or the place alone.
struct Place<'a> {
    /// The version that the first page was read at.
    version: Option<&'a str>,
    /// What the store said.
    after: &'a str,
}

impl<'a> Place<'a> {
    fn read(text: &'a str) -> Self {
        // No version has a slash in it.
        match text.split_once('/') {
            Some((version, after)) => Self { version: Some(version), after },
            None => Self { version: None, after: text },
        }
    }

    fn write(&self) -> String {
        format!("{}/{}", self.version.unwrap_or_default(), self.after)
    }
}

fn watch(app: &App, wish: Wish, query: &Query) -> Response {
    let life = Duration::from_secs(query.timeout_seconds.unwrap_or(3600).clamp(1, 3600));
    let news = present_then_changes(app.engine.clone(), wish.kind, wish.selection.clone(), query.since()).boxed();
    let news = if query.wants_bookmarks() { with_bookmarks(news).boxed() } else { news };
    let end = tokio::time::sleep(life);
    let stop = app.stop.clone().cancelled_owned();
    let lines = lines(news, wish).take_until(async move {
        tokio::select! {
            () = end => {}
            () = stop => {}
        }
    });
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn one(
    State(app): State<App>,
    Path((plural, name)): Path<(String, String)>,
    headers: HeaderMap,
    Asked(query): Asked<Query>,
) -> Answer {
    let kind = kind(&plural)?;
    let shape = Shape::wanted(&headers, query.include_object.as_deref())?;
    let record = app.engine.get(kind, &name).await.about(kind, &name)?;
    Ok(Json(shape.one(&record, true)).into_response())
}

async fn create(
    State(app): State<App>,
    Path(plural): Path<String>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<Query>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Answer {
    let kind = kind(&plural)?;
    let object = object(&headers, &body)?;
    let name = name_of(&object).to_owned();
    let write = Write { by: &caller.by, dry_run: query.dry_run()? };
    same_kind(kind, &object)?;
    let record = app.engine.create_with(object, write).await.about(kind, &name)?;
    Ok(shown(&app, StatusCode::CREATED, &record))
}

/// An object that was written. Kubernetes' clients print the header `Warning`.
fn shown(app: &App, code: StatusCode, record: &Record) -> Response {
    let warning = Warnings::of(app, [record]).header(record);
    (code, warning.map(|value| [(header::WARNING, value)]), Json(record.to_json())).into_response()
}

async fn replace(
    State(app): State<App>,
    Path((plural, name)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<Query>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Answer {
    let kind = kind(&plural)?;
    let write = Write { by: &caller.by, dry_run: query.dry_run()? };
    let object = object(&headers, &body)?;
    same_kind(kind, &object)?;
    same_name(&name, name_of(&object))?;
    let record = app.engine.replace_with(object, write).await.about(kind, &name)?;
    Ok(shown(&app, StatusCode::OK, &record))
}

async fn patch(
    State(app): State<App>,
    Path((plural, name)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Asked(query): Asked<Query>,
    Whole(body): Whole,
) -> Answer {
    let kind = kind(&plural)?;
    let write = Write { by: &caller.by, dry_run: query.dry_run()? };
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let patch = Patch::read(media, &body)?;
    if matches!(patch, Patch::Apply) {
        return apply(&app, kind, &name, &body, write).await;
    }
    let record = app.engine.patch_object(kind, &name, |object| patch.change(object), write).await;
    Ok(shown(&app, StatusCode::OK, &record.about(kind, &name)?))
}

async fn apply(app: &App, kind: Kind, name: &str, body: &[u8], write: Write<'_>) -> Answer {
    let text = std::str::from_utf8(body).map_err(|e| Problem::bad_request(format!("the body is not UTF-8: {e}")))?;
    let manifests = manifest::parse(text).map_err(dragonfly_core::engine::EngineError::from).about(kind, name)?;
    let [only] = manifests.as_slice() else {
        return Err(Problem::bad_request("the body must hold exactly one object").into());
    };
    if only.record.kind != kind {
        return Err(wrong_kind(kind, only.record.kind.name).into());
    }
    same_name(name, &only.record.metadata.name)?;
    let applied = app.engine.apply_with(text, write).await.about(kind, name)?;
    let Some(Applied { record, change }) = applied.into_iter().next() else {
        return Err(Problem::bad_request("the body must hold exactly one object").into());
    };
    let code = if change == Change::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(shown(app, code, &record))
}

async fn status_refused(State(app): State<App>, Path((plural, name)): Path<(String, String)>) -> Answer {
    let kind = kind(&plural)?;
    app.engine.get(kind, &name).await.about(kind, &name)?;
    let detail = format!("the engine alone writes the status of a {}; change its spec, or use a verb", kind.name);
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)).about(kind, &name)
}

/// The object of a body: JSON, also where nothing is said of what it is, as Kubernetes takes it. What a foreign page
/// can send so has been refused before: it has no token.
fn object(headers: &HeaderMap, body: &[u8]) -> Result<Value, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !matches!(media, "" | "application/json") {
        let detail = format!("an object is sent as `application/json`, not as `{media}`");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    super::super::extract::parse(body)
}

fn name_of(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

fn same_kind(kind: Kind, object: &Value) -> Result<(), Problem> {
    match object.get("kind").and_then(Value::as_str) {
        Some(name) if name != kind.name => Err(wrong_kind(kind, name)),
        _ => Ok(()),
    }
}

fn wrong_kind(kind: Kind, given: &str) -> Problem {
    Problem::bad_request(format!("kind: this address takes a {} of {API_VERSION}, not a {given}", kind.name))
}

fn same_name(wanted: &str, given: &str) -> Result<(), Problem> {
    if wanted == given {
        return Ok(());
    }
    Err(Problem::bad_request(format!("metadata.name: this address is for `{wanted}`, the object says `{given}`")))
}
