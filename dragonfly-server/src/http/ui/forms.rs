//! The verbs as forms of the machine's page.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use dragonfly_core::engine::{AssignRequest, ReimageRequest};
use dragonfly_core::power::Operation;
use dragonfly_core::resource::hardware::Overwrite;
use dragonfly_core::resource::template::ValueSource;
use url::form_urlencoded;

use super::problem;
use crate::http::App;
use crate::http::controller::Controller;
use crate::http::extract::Whole;
use crate::http::guard::Caller;
use crate::http::machines::NO_REASON;
use crate::http::power::Switch;
use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.post("/machines/{name}/{verb}", Access::Page, "A verb on a machine, from its page's form", act)
}

/// How long a page waits for an operation.
const MOMENT: Duration = Duration::from_secs(3);
/// How long a lamp is lit.
const LAMP: Duration = Duration::from_secs(60);

/// The fields of a form; a field may stand several times.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn read(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    pub(super) fn one(&self, field: &str) -> &str {
        self.0.iter().find(|(name, _)| name == field).map(|(_, value)| value.trim()).unwrap_or_default()
    }

    pub(super) fn all(&self, field: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(name, value)| name == field && !value.is_empty());
        found.map(|(_, value)| value.clone()).collect()
    }

    /// `KEY=VALUE`, one a line.
    fn values(&self) -> Result<BTreeMap<String, ValueSource>, Problem> {
        let lines = self.one("values").lines().map(str::trim).filter(|line| !line.is_empty());
        lines
            .map(|line| match line.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    Ok((key.trim().to_owned(), ValueSource::Plain(value.trim().to_owned())))
                }
                _ => Err(Problem::bad_request(format!("values: `{line}` is not KEY=VALUE"))),
            })
            .collect()
    }
}

async fn act(
    State(app): State<App>,
    Path((name, verb)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Whole(body): Whole,
) -> Response {
    // The name is escaped: a path of ours and nothing else.
    let escaped: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let part = if verb.starts_with("media-") { "/controller/media" } else { "" };
    let back = format!("/machines/{escaped}{part}");
    match perform(&app, &name, &verb, &Form::read(&body), &caller.by).await {
        Ok(()) => Redirect::to(&back).into_response(),
        Err(refusal) => problem(&refusal, &back),
    }
}

async fn perform(app: &App, name: &str, verb: &str, form: &Form, by: &str) -> Result<(), Problem> {
    let engine = &app.engine;
    match verb {
        "assign" => {
            let template = form.one("template").to_owned();
            if template.is_empty() {
                return Err(Problem::bad_request("choose a template"));
            }
            let disks = form.all("overwrite");
            let overwrite = if disks.is_empty() { Overwrite::Blank } else { Overwrite::Disks(disks) };
            if overwrite != Overwrite::Blank {
                confirmed(form, name)?;
            }
            engine.assign(name, AssignRequest { template, values: form.values()?, overwrite, power: None }, by).await?;
        }
        "reimage" => {
            confirmed(form, name)?;
            let template = Some(form.one("template").to_owned()).filter(|t| !t.is_empty());
            let request =
                ReimageRequest { template, values: form.values()?, overwrite: Some(Overwrite::All), power: None };
            engine.reimage(name, request, by).await?;
        }
        "retry" => drop(engine.retry(name, by).await?),
        "abort" => engine.abort(name, by).await?,
        "protect" => engine.protect(name, form.one("on") == "true", by).await?,
        "hold" => {
            let reason = Some(form.one("reason")).filter(|reason| !reason.is_empty()).unwrap_or(NO_REASON);
            if reason.len() > 500 {
                return Err(Problem::bad_request("say why it is to be held, in 500 bytes at most"));
            }
            engine.hold(name, reason, by).await?;
        }
        "release" => match form.one("question") {
            "" => engine.release(name, by).await?,
            question => engine.release_answering(name, question, by).await?,
        },
        "deny" => engine.deny(name, form.one("question"), by).await?,
        "power" => {
            let operation = match form.one("operation") {
                "status" => Operation::Status,
                word => serde_json::from_value::<Switch>(word.into())
                    .map_err(|_| Problem::bad_request(format!("operation: `{word}` is none")))?
                    .operation(),
            };
            soon(app, name, operation, by).await?;
        }
        "media-insert" => {
            let image = form.one("image");
            let image = image.parse().map_err(|error| Problem::bad_request(format!("image: {error}")))?;
            soon(app, name, Operation::InsertMedia(image), by).await?;
        }
        "media-eject" => soon(app, name, Operation::EjectMedia, by).await?,
        "identify" => soon(app, name, Operation::Identify(Some(LAMP)), by).await?,
        _ => return Err(Problem::not_found(format!("`{verb}` is not something that can be done to a machine"))),
    }
    Ok(())
}

/// Begins an operation, and waits a moment for what is wrong with it at once. The page shows what comes of the rest.
pub(super) async fn soon(app: &App, name: &str, operation: Operation, by: &str) -> Result<(), Problem> {
    let controller = Controller { app: app.clone(), name: name.to_owned(), by: by.to_owned() };
    match tokio::time::timeout(MOMENT, controller.carry_out(operation)).await {
        Ok(done) => done.map(drop),
        Err(_) => Ok(()),
    }
}

/// What destroys data is done only when the person typed the machine's name.
fn confirmed(form: &Form, name: &str) -> Result<(), Problem> {
    if form.one("confirm").eq_ignore_ascii_case(name) {
        return Ok(());
    }
    Err(Problem::bad_request("data would be lost: type the machine's name into the field to confirm; nothing was done"))
}
