//! Operating system images: a directory, with ranges and entity tags.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use dragonfly_boot::BootFiles;

use super::App;
use super::problem::Problem;
use super::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/images/{*path}", Access::Image, "An operating system image; ranges, ETag, HEAD", image)
}

async fn image(
    State(app): State<App>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let files: Arc<BootFiles> = Arc::clone(&app.images);
    let opened = tokio::task::spawn_blocking(move || files.open(&path)).await;
    match opened {
        Ok(Ok(found)) => Ok(dragonfly_boot::http::respond(&method, &headers, found).await.map(Body::new)),
        Ok(Err(error)) => Err(Problem::not_found(super::chain(&error))),
        Err(stopped) => Err(Problem::internal(&stopped)),
    }
}
