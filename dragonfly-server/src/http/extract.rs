//! What handlers take from a request: bounded in size and time, refused in clear words.

use std::time::Duration;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::listen::Connection;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The largest body that a route takes, in bytes: to name it to who sends a larger one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Largest(pub(crate) usize);

/// A whole body.
#[derive(Debug)]
pub(crate) struct Whole(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let announced = request.body().size_hint().exact();
        let largest = request.extensions().get::<Largest>().copied();
        let read = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await;
        let Ok(read) = read else {
            let detail = format!("the body did not arrive within {} seconds", BODY_TIME.as_secs());
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
        };
        read.map(Self).map_err(|rejection| {
            let mut problem = Problem::new(rejection.status(), rejection.body_text());
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let size = announced.map(|n| format!(" of {n} bytes")).unwrap_or_default();
                let most = largest.map(|Largest(n)| format!(": {n} bytes")).unwrap_or_default();
                problem.detail = format!("the body{size} is larger than this route takes{most}");
            }
            problem
        })
    }
}

/// A JSON body with its type; an error names the field.
#[derive(Debug)]
pub(crate) struct Input<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // A form or plain text is what a foreign page can send without asking: never JSON to us.
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !(kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")) {
            let detail = format!("send JSON with `Content-Type: application/json`, not `{kind}`");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let Whole(body) = Whole::from_request(request, state).await?;
        parse(&body).map(Self)
    }
}

/// JSON with its type; an error names the field.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer);
    let problem = |detail| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let value = parsed.map_err(|error| match error.path().to_string().as_str() {
        "." => problem(format!("the body: {}", error.inner())),
        path => problem(format!("{path}: {}", error.inner())),
    })?;
    deserializer.end().map_err(|error| problem(format!("the body: {error}")))?;
    Ok(value)
}

/// The query with its type.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(asked)| Self(asked))
            .map_err(|rejection| Problem::bad_request(format!("the query: {}", rejection.body_text())))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Connection {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().copied().ok_or_else(|| {
            tracing::error!("a request carries no Connection: whoever serves the router must add it");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the listener does not say who asks")
        })
    }
}
