//! Objects of a text, created or changed all at once.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use dragonfly_core::engine::{Applied, Write};
use dragonfly_core::store::Key;
use serde_json::{Value, json};

use super::App;
use super::extract::Whole;
use super::guard::Caller;
use super::problem::{MEDIA_TYPE, Problem};
use super::route::{Access, Routes};
use super::warnings::Warnings;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.post("/dragonfly/v1/apply", Access::Person, "Create or change every object of a text, YAML or JSON", apply)
}

/// Answers with each object; when some could not be written, with the problem and, in `items`, which these are.
async fn apply(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let tried = app.engine.apply_each(text(&body)?, Write::by(&caller.by)).await?;
    let written = tried.iter().filter_map(|(_, applied)| applied.as_ref().ok());
    let warnings = Warnings::of(&app, written.map(|applied| &applied.record));
    let mut failed: Vec<(Key, Problem)> = Vec::new();
    let items: Vec<Value> = tried
        .into_iter()
        .map(|(key, applied)| match applied {
            Ok(Applied { record, change }) => {
                let mut item = json!({ "change": change, "object": record.to_json() });
                if let Some(warning) = warnings.about(&record) {
                    item["warnings"] = json!([warning]);
                }
                item
            }
            Err(error) => {
                let problem = Problem::from(error);
                let item = json!({ "kind": key.kind.name, "name": key.name, "problem": problem.detail });
                failed.push((key, problem));
                item
            }
        })
        .collect();
    let count = failed.len();
    Ok(match failed.into_iter().next() {
        None => Json(json!({ "items": items })).into_response(),
        Some((key, problem)) => partly(&key, problem, count, items),
    })
}

/// The problem of the first object that could not be written, and what came of each.
fn partly(key: &Key, mut problem: Problem, failed: usize, items: Vec<Value>) -> Response {
    if items.len() > 1 {
        problem.detail = format!(
            "{failed} of {} objects were not written, {key} first: {}. Apply the same again when that is mended: what is \
             written stays as it is",
            items.len(),
            problem.detail
        );
    }
    let mut body = json!(problem);
    body["items"] = items.into();
    (problem.status, [(header::CONTENT_TYPE, MEDIA_TYPE)], Json(body)).into_response()
}

fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| Problem::bad_request(format!("the body is not UTF-8: {error}")))
}
