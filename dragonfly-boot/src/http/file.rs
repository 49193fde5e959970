//! One file over HTTP: conditions, ranges, `HEAD` (RFC 9110 sections 8.8, 13 and 14).

use std::time::UNIX_EPOCH;

use ::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::body::{BootBody, Overlay};
use super::range::{Part, part};
use super::text;
use crate::files::Found;

/// Answers a `GET` or `HEAD` with a file that was found.
///
/// The entity tag is made from the file's inode, size and time of change: a file that is replaced
/// as a whole, as boot files and images are, gets another one.
pub async fn respond(method: &Method, headers: &HeaderMap, found: Found) -> Response<BootBody> {
    let tag = tag(&found);
    stretch(method, headers, found, Some(tag), None).await
}

/// The same with some bytes replaced. Its content is new each time, so it has no entity tag.
pub(crate) async fn respond_over(
    method: &Method,
    headers: &HeaderMap,
    found: Found,
    overlay: Overlay,
) -> Response<BootBody> {
    stretch(method, headers, found, None, Some(overlay)).await
}

async fn stretch(
    method: &Method,
    headers: &HeaderMap,
    found: Found,
    tag: Option<String>,
    overlay: Option<Overlay>,
) -> Response<BootBody> {
    let mut response = Response::new(BootBody::bytes(""));
    let out = response.headers_mut();
    out.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(tag) = tag.as_ref().and_then(|t| HeaderValue::from_str(t).ok()) {
        out.insert(ETAG, tag);
    }
    if tag.as_ref().is_some_and(|tag| matches(headers, tag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    let asked = header(headers, &RANGE).filter(|_| *method == Method::GET);
    // A range of something else than the client has the rest of is no use to it: all, then.
    let asked = match header(headers, &IF_RANGE) {
        Some(known) if Some(known.trim()) != tag.as_deref() => None,
        _ => asked,
    };
    let length = found.length;
    let range = match part(asked, length) {
        Part::Whole => 0..length,
        Part::Bytes(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let value = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(CONTENT_RANGE, value);
            }
            range
        }
        Part::Beyond => {
            let mut refusal = text(StatusCode::RANGE_NOT_SATISFIABLE, format!("the file has {length} bytes\n"));
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
                refusal.headers_mut().insert(CONTENT_RANGE, value);
            }
            return refusal;
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if *method != Method::HEAD {
        match BootBody::file(found, range, overlay).await {
            Ok(body) => *response.body_mut() = body,
            Err(error) => {
                tracing::warn!(%error, "a file that was opened cannot be read");
                return text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n");
            }
        }
    }
    response
}

fn tag(found: &Found) -> String {
    let nanos = found.modified.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
    format!("\"{:x}-{:x}-{:x}-{nanos:x}\"", found.id.0, found.id.1, found.length)
}

fn header<'a>(headers: &'a HeaderMap, name: &::http::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// `If-None-Match`: weak comparison, a list, or `*`.
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}
