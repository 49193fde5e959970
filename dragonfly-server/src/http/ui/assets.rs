//! Style sheet, script and icon: part of the binary.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};

struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    tag: String,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    let asset = |name, kind, bytes: &'static [u8]| {
        let tag = format!("\"{}\"", hex::encode(Sha256::digest(bytes).get(..8).unwrap_or_default()));
        Asset { name, kind, bytes, tag }
    };
    [
        asset("app.css", "text/css; charset=utf-8", include_bytes!("../../../assets/app.css")),
        asset("app.js", "text/javascript; charset=utf-8", include_bytes!("../../../assets/app.js")),
        asset("icon.svg", "image/svg+xml", include_bytes!("../../../assets/icon.svg")),
    ]
});

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/assets/{file}", Access::Open, "Style sheet, script and icon of the pages", asset)
}

async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == file) else {
        return Problem::not_found("there is no such asset").into_response();
    };
    let about = [
        (header::CONTENT_TYPE, asset.kind),
        (header::ETAG, asset.tag.as_str()),
        // Asked for again each time, answered with 304: a new version shows at once.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.tag)) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, asset.bytes).into_response()
}
