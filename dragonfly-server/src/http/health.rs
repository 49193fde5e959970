//! Whether the server lives, whether it is ready, what it counts.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use super::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/healthz", Access::Open, "Whether the process answers", || async { "ok\n" })
        .get("/readyz", Access::Open, "Whether the server can do its work, and if not why", ready)
        .get("/metrics", Access::Person, "Counters in Prometheus' text format", metrics)
}

async fn ready(State(app): State<App>) -> Response {
    let mut problems = app.boot.problems();
    if let Err(error) = app.engine.list(dragonfly_core::resource::Kind::NETWORK, &Default::default(), 1, None).await {
        problems.push(format!("the store does not answer: {}", super::chain(&error)));
    }
    if let Some(store) = &app.store
        && let Err(error) = store.check_writes().await
    {
        problems.push(format!("nothing can be written: {}", super::chain(&error)));
    }
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let coordinator = app.engine.coordinator();
    let body = json!({
        "ready": problems.is_empty(),
        "problems": problems,
        "warnings": warnings(&app),
        "mode": app.mode.word(),
        "instance": Some(coordinator.instance()).filter(|name| !name.is_empty()),
        "region": app.engine.settings().region,
        "leads": coordinator.led().keys().collect::<Vec<_>>(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    (status, Json(body)).into_response()
}

/// What a person should mend and machines can be served without. Anybody may read it: nothing is named.
fn warnings(app: &App) -> Vec<String> {
    let unopened = app.engine.unopened_secrets().len();
    let told = (unopened > 0).then(|| {
        format!(
            "{unopened} {} sealed with another sealing.key: put the old one back, or apply them anew; the log names them",
            if unopened == 1 { "Secret was" } else { "Secrets were" }
        )
    });
    told.into_iter().collect()
}

async fn metrics(State(app): State<App>) -> Response {
    let text = app.meters.render(&app.engine);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
