//! Operating system images: a directory, with ranges and entity tags.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use dragonfly_boot::BootFiles;
use dragonfly_boot::http::Sent;
use dragonfly_core::boot::{BootObserver as _, Seen, Sighting};

use super::App;
use super::problem::Problem;
use super::route::{Access, Routes};
use crate::listen::Connection;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/images/{*path}", Access::Image, "An operating system image; ranges, ETag, HEAD", image)
}

async fn image(
    State(app): State<App>,
    about: Connection,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let files: Arc<BootFiles> = Arc::clone(&app.images);
    let file = format!("/images/{path}");
    let opened = tokio::task::spawn_blocking(move || files.open(&path)).await;
    match opened {
        Ok(Ok(found)) => {
            let bytes = found.length;
            let response = dragonfly_boot::http::respond(&method, &headers, found).await;
            if method == Method::HEAD {
                return Ok(response.map(Body::new));
            }
            let from = Some(about.peer.ip());
            let saw = move |seen| app.engine.saw(Sighting { mac: None, from, seen });
            saw(Seen::FileBegan { file: file.clone(), bytes });
            Ok(response.map(|body| {
                Body::new(body.when_over(move |Sent { bytes, passed, milliseconds }| {
                    saw(Seen::FileEnded { file, bytes, passed, milliseconds });
                }))
            }))
        }
        Ok(Err(error)) => {
            let why = super::chain(&error);
            let seen = Seen::HttpRefused { path: file, status: 404, why: why.clone() };
            app.engine.saw(Sighting { mac: None, from: Some(about.peer.ip()), seen });
            Err(Problem::not_found(why))
        }
        Err(stopped) => Err(Problem::internal(&stopped)),
    }
}
