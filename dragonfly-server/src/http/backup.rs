//! A backup of the store, while it is at work.

use std::io;
use std::path::Path;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio_util::io::ReaderStream;

use super::App;
use super::problem::{Problem, chain};
use super::route::{Access, Routes};
use crate::view;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/dragonfly/v1/backup", Access::Person, "A backup of the store, for `dragonfly restore`", backup)
}

/// Why there is no backup. Whoever asked may be on another host, or wrote to another disk: the one that is full is named.
fn refused(error: &(dyn std::error::Error + 'static), store: &Path, data: &Path) -> Problem {
    let io = std::iter::successors(Some(error), |error| error.source()).find_map(|e| e.downcast_ref::<io::Error>());
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    if !io.is_some_and(|io| full.contains(&io.kind())) {
        return Problem::internal(error);
    }
    tracing::error!(error = %chain(error), "a backup could not be put together");
    // A copy is no larger than what it is a copy of.
    let room = match std::fs::metadata(store) {
        Ok(store) => format!(", up to {}", view::bytes(store.len())),
        Err(_) => String::new(),
    };
    let detail = format!(
        "the disk of the server's data directory {} is full: a backup is put together there before it is sent; \
         make room there{room}, and ask again",
        data.display()
    );
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, detail)
}

async fn backup(State(app): State<App>) -> Result<Response, Problem> {
    let Some(store) = app.store.clone() else {
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "this server's store is backed up where it is kept"));
    };
    // In the data directory, which is closed to others, and gone as soon as it is open.
    let data = store.path().parent().unwrap_or(Path::new("."));
    let refused = |error: &(dyn std::error::Error + 'static)| refused(error, store.path(), data);
    let dir = tempfile::Builder::new().prefix("backup-").tempdir_in(data).map_err(|error| refused(&error))?;
    let path = dir.path().join("dragonfly.backup");
    store.backup(&path).await.map_err(|error| refused(&error))?;
    let file = tokio::fs::File::open(&path).await.map_err(|error| Problem::internal(&error))?;
    let length = file.metadata().await.map_err(|error| Problem::internal(&error))?.len();
    let mut response = Response::new(Body::from_stream(ReaderStream::new(file)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
