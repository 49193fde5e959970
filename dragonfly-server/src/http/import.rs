//! Objects from another store, with what was known of them there.

use axum::extract::State;
use axum::{Extension, Json};
use dragonfly_core::engine::Write;
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::extract::Input;
use super::guard::Caller;
use super::problem::Problem;
use super::route::{Access, Routes};

/// How many objects are written at a time.
const AT_ONCE: usize = 16;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.post(
        "/dragonfly/v1/import",
        Access::Person,
        "Take objects of another store with their status; what was at work there is held",
        import,
    )
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Import {
    /// In the order in which they need one another.
    objects: Vec<Value>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

/// Says of each object what came of it: one that cannot be taken does not stop the others.
async fn import(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Input(Import { objects, dry_run }, ..): Input<Import>,
) -> Result<Json<Value>, Problem> {
    let write = Write { by: &caller.by, dry_run };
    let each = objects.into_iter().map(|object| {
        let app = app.clone();
        async move {
            let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let mut item = json!({ "kind": text("/kind"), "name": text("/metadata/name") });
            match app.engine.import_object(object, write).await {
                Ok(imported) => {
                    item["change"] = json!(imported.applied.change);
                    item["held"] = imported.held.into();
                }
                Err(error) => item["problem"] = Problem::from(error).detail.into(),
            }
            item
        }
    });
    let items: Vec<Value> = stream::iter(each).buffered(AT_ONCE).collect().await;
    Ok(Json(json!({ "items": items })))
}
