//! A backup of the store, while it is at work.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio_util::io::ReaderStream;

use super::App;
use super::problem::Problem;
use super::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/dragonfly/v1/backup", Access::Person, "A backup of the store, for `dragonfly restore`", backup)
}

async fn backup(State(app): State<App>) -> Result<Response, Problem> {
    let Some(store) = app.store.clone() else {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "this server's store is backed up where it is kept"));
    };
    // In the data directory, which is closed to others, and gone as soon as it is open.
    let dir = store.path().parent().unwrap_or(std::path::Path::new(".")).to_owned();
    let dir = tempfile::Builder::new().prefix("backup-").tempdir_in(dir).map_err(|error| Problem::internal(&error))?;
    let path = dir.path().join("dragonfly.backup");
    store.backup(&path).await.map_err(|error| Problem::internal(&error))?;
    let file = tokio::fs::File::open(&path).await.map_err(|error| Problem::internal(&error))?;
    let length = file.metadata().await.map_err(|error| Problem::internal(&error))?.len();
    let mut response = Response::new(Body::from_stream(ReaderStream::new(file)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
