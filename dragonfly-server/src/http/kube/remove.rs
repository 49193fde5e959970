//! Objects deleted: one, or all that are selected.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::{Extension, Json};
use dragonfly_core::engine::{Deletion, EngineError, Write};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::super::App;
use super::super::extract::{Asked, Whole, parse};
use super::super::guard::Caller;
use super::super::problem::Problem;
use super::objects::{Answer, Found, find};
use super::query::Query;
use super::shape::Shape;
use super::status::About as _;
use super::{GROUP, kind};

/// What a client says beside `DELETE` (Kubernetes' `DeleteOptions`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeleteOptions {
    preconditions: Option<Preconditions>,
    dry_run: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<Uuid>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let options: Self = parse(body)?;
        match options.dry_run.iter().find(|word| *word != "All") {
            Some(other) => Err(Problem::bad_request(format!("dryRun: `{other}` is not known; write All"))),
            None => Ok(options),
        }
    }

    fn meant(&self) -> Deletion {
        let given = self.preconditions.as_ref();
        Deletion { uid: given.and_then(|g| g.uid), version: given.and_then(|g| g.resource_version.clone()) }
    }
}

pub(super) async fn one(
    State(app): State<App>,
    Path((plural, name)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<Query>,
    Whole(body): Whole,
) -> Answer {
    let kind = kind(&plural)?;
    let options = DeleteOptions::read(&body)?;
    let write = Write { by: &caller.by, dry_run: query.dry_run()? || !options.dry_run.is_empty() };
    let gone = app.engine.delete_if(kind, &name, &options.meant(), write).await.about(kind, &name)?;
    let details = json!({ "name": name, "group": GROUP, "kind": kind.plural, "uid": gone.metadata.uid });
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Ok(Json(status).into_response())
}

pub(super) async fn all(
    State(app): State<App>,
    Path(plural): Path<String>,
    Extension(caller): Extension<Caller>,
    Asked(query): Asked<Query>,
    Whole(body): Whole,
) -> Answer {
    let kind = kind(&plural)?;
    let options = DeleteOptions::read(&body)?;
    let write = Write { by: &caller.by, dry_run: query.dry_run()? || !options.dry_run.is_empty() };
    let Found { items, version, .. } = find(&app, kind, &query.selection()?, 0, None).await?;
    let mut gone = Vec::new();
    for record in items {
        let name = &record.metadata.name;
        // One of the same name that was made meanwhile is not meant.
        let meant = Deletion { uid: record.metadata.uid, version: None };
        match app.engine.delete_if(kind, name, &meant, write).await {
            Ok(record) => gone.push(record),
            Err(EngineError::NotFound { .. }) => {}
            other => return other.about(kind, name).map(|_| StatusCode::OK.into_response()),
        }
    }
    Ok(Json(Shape::Object.list(kind, json!({ "resourceVersion": version }), &gone)).into_response())
}
