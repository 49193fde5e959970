//! What handlers take from a request: bounded in size and time, refused in clear words.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::BODY_LIMIT;
use super::bodies::{self, Bodies, Held, NoRoom};
use super::problem::{Problem, chain};
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

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kept = Kept::read_from(request).await?;
        // What it takes is given back with the last of those who hold it.
        Ok(Self(Bytes::from_owner(kept)))
    }
}

struct Kept {
    bytes: Vec<u8>,
    held: Held,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Kept {
    async fn read_from(request: Request) -> Result<Self, Problem> {
        let announced = request.body().size_hint().exact();
        let extensions = request.extensions();
        let largest = extensions.get::<Largest>().map_or(BODY_LIMIT, |Largest(largest)| *largest);
        let peer = extensions.get::<Connection>().map(|about| about.peer.ip());
        // Who serves a part of the routes alone has nobody else's bodies beside it.
        let bodies = extensions.get::<Bodies>().cloned().unwrap_or_else(|| Bodies::new(bodies::MOST));
        let held = bodies.begin(peer);
        let read = tokio::select! {
            biased;
            () = held.must_leave() => Err(no_room()),
            read = timeout(BODY_TIME, read(request.into_body(), announced, largest, &held)) => read.unwrap_or_else(|_| {
                let detail = format!("the body did not arrive within {} seconds", BODY_TIME.as_secs());
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
            }),
        };
        let bytes = read?;
        held.is_whole();
        Ok(Self { bytes, held })
    }
}

/// Reads it into one place: a list of its parts would take many times as much of somebody who sends it byte by byte.
async fn read(body: Body, announced: Option<u64>, largest: usize, held: &Held) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let size = announced.map(|n| format!(" of {n} bytes")).unwrap_or_default();
        let detail = format!("the body{size} is larger than this route takes: {largest} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    if announced.is_some_and(|size| size > largest as u64) {
        return Err(too_large());
    }
    let mut parts = body.into_data_stream();
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Problem::bad_request(format!("the body: {}", chain(&error))))?;
        if part.len() > largest - bytes.len() {
            return Err(too_large());
        }
        let needed = bytes.len() + part.len();
        if needed > bytes.capacity() {
            // Twice as much as there was, but never more than can come.
            let most = announced.and_then(|size| usize::try_from(size).ok()).unwrap_or(largest);
            bytes.reserve_exact((needed * 2).min(most).max(needed) - bytes.len());
        }
        bytes.extend_from_slice(&part);
        held.takes(bytes.capacity()).map_err(|NoRoom| no_room())?;
    }
    Ok(bytes)
}

fn no_room() -> Problem {
    let detail = "more is being sent to this server at once than it can hold; send it again in a moment";
    let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    problem.retry_after = Some(Duration::from_secs(1));
    problem
}

/// A JSON body with its type; an error names the field. What it was read from counts among all bodies for as long as the
/// handler has the second part: a parsed body takes room as well.
#[derive(Debug)]
pub(crate) struct Input<T>(pub(crate) T, pub(crate) Held);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        // A form or plain text is what a foreign page can send without asking: never JSON to us.
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !(kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")) {
            let detail = format!("send JSON with `Content-Type: application/json`, not `{kind}`");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let Kept { bytes, held } = Kept::read_from(request).await?;
        parse(&bytes).map(|value| Self(value, held))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_parsed_counts_until_its_handler_is_done() {
        let bodies = Bodies::new(1000);
        let input = || {
            let request = Request::builder().method("POST").header("content-type", "application/json");
            let mut request = request.body(Body::from(format!("[\"{}\"]", "x".repeat(800)))).unwrap();
            request.extensions_mut().insert(bodies.clone());
            Input::<Vec<String>>::from_request(request, &())
        };
        let Ok(Input(first, held)) = input().await else { panic!("there is room for one") };
        assert_eq!(input().await.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        drop(held);
        input().await.unwrap();
        assert_eq!(first.len(), 1);
        // As handlers have it: what is not named is there to the end.
        let handler = async |Input(value, ..): Input<Vec<String>>| {
            assert_eq!(input().await.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
            value.len()
        };
        assert_eq!(handler(input().await.unwrap()).await, 1);
        input().await.unwrap();
    }
}
