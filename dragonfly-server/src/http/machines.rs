//! Machines and the verbs on them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dragonfly_core::engine::{AssignRequest, MachineTimeline, ReimageRequest, Why};
use dragonfly_core::event::Event;
use dragonfly_core::resource::{HardwareSpec, Record, WorkflowSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::App;
use super::extract::{Asked, Input};
use super::guard::Caller;
use super::problem::Problem;
use super::route::{Access, Routes};
use super::search::Search;
use crate::view::{self, Machine};

const LIST: &str = "Machines in one line each: all of them, or `limit` at a time with `continue`; `q`, `phase`, \
    `region`, `labelSelector` say which";

pub(super) fn routes(routes: Routes) -> Routes {
    use Access::Person;
    routes
        .get("/dragonfly/v1/machines", Person, LIST, list)
        .get("/dragonfly/v1/machines/{name}", Person, "One machine and its run; name in any spelling, or a MAC", one)
        .post("/dragonfly/v1/machines/{name}/assign", Person, "Authorise one run of a template on a machine", assign)
        .post("/dragonfly/v1/machines/{name}/reimage", Person, "Install anew, whatever is on its disks", reimage)
        .post(
            "/dragonfly/v1/machines/{name}/reimage/check",
            Person,
            "What a reimage would install, or why it would be refused; changes nothing",
            check_reimage,
        )
        .post("/dragonfly/v1/machines/{name}/retry", Person, "Another attempt of what failed", retry)
        .post("/dragonfly/v1/machines/{name}/abort", Person, "Call its run off", abort)
        .post(
            "/dragonfly/v1/machines/{name}/protect",
            Person,
            "Refuse assign and reimage, or allow them again",
            protect,
        )
        .post("/dragonfly/v1/machines/{name}/hold", Person, "Do nothing to it; it boots from its disk", hold)
        .post("/dragonfly/v1/machines/{name}/release", Person, "Settle a hold", release)
        .post("/dragonfly/v1/machines/{name}/deny", Person, "Deny that it is who asks to be it", deny)
        .get("/dragonfly/v1/machines/{name}/why", Person, "What it would boot now, and why", why)
        .get("/dragonfly/v1/machines/{name}/events", Person, "What happened to it lately", events)
        .get(
            "/dragonfly/v1/machines/{name}/timeline",
            Person,
            "What happened to it, boot by boot: DHCP, TFTP, HTTP, agent, log; waits for news when asked to",
            timeline,
        )
        .get("/dragonfly/v1/machines/{name}/log", Person, "The last 64 KiB of its agent's log", log)
}

#[derive(Debug, Serialize)]
struct Machines {
    items: Vec<Machine>,
    /// Give it back for those that follow; absent when there are no more.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    more: Option<String>,
}

async fn list(State(app): State<App>, Asked(search): Asked<Search>) -> Result<Json<Machines>, Problem> {
    let found = app.engine.cache().find(&search.find()?, search.after(), search.most()).await;
    let more = found.machines.last().filter(|_| found.more).map(|last| last.name().to_owned());
    let items = found.machines.iter().map(|m| view::machine(&app.engine, m)).collect();
    Ok(Json(Machines { items, more }))
}

/// One machine with everything that belongs to it.
#[derive(Debug, Serialize)]
struct Whole {
    machine: Machine,
    hardware: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<Value>,
}

async fn one(State(app): State<App>, Path(word): Path<String>) -> Result<Json<Whole>, Problem> {
    let name = app.engine.resolve(&word)?;
    let hardware = app.engine.cache().get::<HardwareSpec>(&name);
    let hardware = hardware.ok_or_else(|| Problem::not_found(format!("machine `{name}` does not exist")))?;
    let workflow = hardware.status.workflow.as_ref().and_then(|w| app.engine.cache().get::<WorkflowSpec>(w));
    Ok(Json(Whole {
        machine: view::machine(&app.engine, &hardware),
        hardware: Record::from(&*hardware).to_json(),
        workflow: workflow.map(|w| Record::from(&*w).to_json()),
    }))
}

async fn assign(
    State(app): State<App>,
    Path(word): Path<String>,
    Extension(caller): Extension<Caller>,
    Input(request, ..): Input<AssignRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let workflow = app.engine.assign(&word, request, &caller.by).await?;
    Ok((StatusCode::CREATED, Json(Record::from(&workflow).to_json())))
}

async fn reimage(
    State(app): State<App>,
    Path(word): Path<String>,
    Extension(caller): Extension<Caller>,
    Input(request, ..): Input<ReimageRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let workflow = app.engine.reimage(&word, request, &caller.by).await?;
    Ok((StatusCode::CREATED, Json(Record::from(&workflow).to_json())))
}

async fn check_reimage(
    State(app): State<App>,
    Path(word): Path<String>,
    Input(request, ..): Input<ReimageRequest>,
) -> Result<Json<Value>, Problem> {
    let template = app.engine.check_reimage(&word, request).await?;
    Ok(Json(json!({ "template": template })))
}

async fn retry(
    State(app): State<App>,
    Path(word): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Problem> {
    let workflow = app.engine.retry(&word, &caller.by).await?;
    Ok(Json(Record::from(&workflow).to_json()))
}

async fn abort(
    State(app): State<App>,
    Path(word): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<StatusCode, Problem> {
    app.engine.abort(&word, &caller.by).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Protect {
    #[serde(default = "yes")]
    on: bool,
}

fn yes() -> bool {
    true
}

async fn protect(
    State(app): State<App>,
    Path(word): Path<String>,
    Extension(caller): Extension<Caller>,
    Input(Protect { on }, ..): Input<Protect>,
) -> Result<StatusCode, Problem> {
    app.engine.protect(&word, on, &caller.by).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    #[serde(default)]
    reason: Option<String>,
}

/// What stands for the reason of somebody who gives none.
pub(super) const NO_REASON: &str = "by an operator";

async fn hold(
    State(app): State<App>,
    Path(word): Path<String>,
    Extension(caller): Extension<Caller>,
    Input(Hold { reason }, ..): Input<Hold>,
) -> Result<StatusCode, Problem> {
    let reason = reason.as_deref().map_or(NO_REASON, str::trim);
    if reason.is_empty() || reason.len() > 500 {
        return Err(Problem::bad_request("reason: say why in 1 to 500 bytes; whoever finds the machine held reads it"));
    }
    app.engine.hold(&word, reason, &caller.by).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a person answers. Without a question a hold is released, and nothing is said of who asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    question: Option<String>,
}

async fn release(
    State(app): State<App>,
    Path(word): Path<String>,
    Extension(caller): Extension<Caller>,
    Asked(Answer { question }): Asked<Answer>,
) -> Result<StatusCode, Problem> {
    match question {
        Some(question) => app.engine.release_answering(&word, &question, &caller.by).await?,
        None => app.engine.release(&word, &caller.by).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn deny(
    State(app): State<App>,
    Path(word): Path<String>,
    Extension(caller): Extension<Caller>,
    Asked(Answer { question }): Asked<Answer>,
) -> Result<StatusCode, Problem> {
    let question = question.ok_or_else(|| {
        Problem::bad_request("?question=ID is missing: whom is denied that it is the machine; `dragonfly why` tells it")
    })?;
    app.engine.deny(&word, &question, &caller.by).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn why(State(app): State<App>, Path(word): Path<String>) -> Result<Json<Why>, Problem> {
    Ok(Json(app.engine.why(&word)?))
}

#[derive(Debug, Serialize)]
struct Happened {
    items: Vec<Arc<Event>>,
}

#[derive(Debug, Deserialize)]
struct Most {
    limit: Option<usize>,
}

async fn events(
    State(app): State<App>,
    Path(word): Path<String>,
    Asked(Most { limit }): Asked<Most>,
) -> Result<Json<Happened>, Problem> {
    let name = app.engine.why(&word)?.machine;
    Ok(Json(Happened { items: app.engine.events().about(&name, limit.unwrap_or(500).min(4096)) }))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Since {
    /// Only what came after the entry of this number.
    #[serde(default)]
    after: u64,
    /// How long to wait when there is nothing, 30 s at most.
    #[serde(default)]
    wait_seconds: u64,
}

#[derive(Debug, Serialize)]
struct Told {
    /// Which run of the server: numbers of another run mean nothing in this one.
    run: u64,
    #[serde(flatten)]
    timeline: MachineTimeline,
}

async fn timeline(
    State(app): State<App>,
    Path(word): Path<String>,
    Asked(Since { after, wait_seconds }): Asked<Since>,
) -> Result<Json<Told>, Problem> {
    let run = app.meters.run();
    // A long wait ends with the server: the reader asks its successor.
    tokio::select! {
        timeline = app.engine.timeline_news(&word, after, Duration::from_secs(wait_seconds)) => {
            Ok(Json(Told { run, timeline: timeline? }))
        }
        () = app.stop.cancelled() => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping; ask again"))
        }
    }
}

async fn log(State(app): State<App>, Path(word): Path<String>) -> Result<Response, Problem> {
    let text = app.engine.read_log(&word).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
