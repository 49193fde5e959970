//! Objects of a text, created or changed all at once.

use axum::extract::State;
use axum::{Extension, Json};
use dragonfly_core::engine::Applied;
use serde_json::{Value, json};

use super::App;
use super::extract::Whole;
use super::guard::Caller;
use super::problem::Problem;
use super::route::{Access, Routes};
use super::warnings::Warnings;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.post("/dragonfly/v1/apply", Access::Person, "Create or change every object of a text, YAML or JSON", apply)
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
