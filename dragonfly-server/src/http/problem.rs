//! Errors as RFC 9457 problem details.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragonfly_core::action;
use dragonfly_core::engine::EngineError;
use dragonfly_core::power::PowerError;
use dragonfly_core::store::StoreError;
use serde::Serialize;

/// An answer that says what went wrong and what to do.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// HTTP status.
    #[serde(serialize_with = "code")]
    pub status: StatusCode,
    /// One line that is the same for every problem of this kind.
    pub title: String,
    /// What happened this time and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Each thing that is wrong with what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<action::Problem>,
    /// When to ask again: the answer's `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn code<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

/// The media type of a problem.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

impl Problem {
    /// A problem of this status with the status' own title.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self { status, title, detail: detail.into(), errors: Vec::new(), retry_after: None }
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 401.
    pub fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "this needs a credential: `Authorization: Bearer TOKEN` with the token in the server's admin.token file, \
             or a browser session from /login",
        )
    }

    /// 500, with the cause in the log and not in the answer.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why")
    }
}

/// Whoever has no good token learns nothing from the answer: not what is wrong with his, nor whether the card is known.
const UNPROVEN: &str = "refused: a hello shows the boot token that this boot of this card was given, ten minutes old at most; \
     boot again";

/// An error and its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(wait) = retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        use EngineError as E;
        let detail = error.to_string();
        let status = match &error {
            E::NotFound { .. } => StatusCode::NOT_FOUND,
            E::Invalid(_) | E::Manifest(_) => StatusCode::UNPROCESSABLE_ENTITY,
            E::Illegal { .. } | E::Protected { .. } | E::WouldDestroy { .. } | E::Busy { .. } => StatusCode::CONFLICT,
            E::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            E::Unproven { .. } => return Self::new(StatusCode::FORBIDDEN, UNPROVEN),
            E::Forbidden { .. } => StatusCode::FORBIDDEN,
            E::Power { source, .. } => return Self::new(of_power(source), chain(&error)),
            E::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            E::Protocol { .. } => StatusCode::UPGRADE_REQUIRED,
            E::Store(store) => return of_store(store),
            _ => return Self::internal(&error),
        };
        let mut problem = Self::new(status, detail);
        match error {
            E::Invalid(errors) => problem.errors = errors,
            E::TooMany { wait, .. } => problem.retry_after = Some(wait),
            _ => {}
        }
        problem
    }
}

/// What went wrong between us and a controller, as a gateway says it.
fn of_power(error: &PowerError) -> StatusCode {
    match error {
        PowerError::InvalidImage { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        PowerError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        PowerError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        // Nothing was sent, and nothing will be until something here is changed.
        PowerError::NoDriver { .. }
        | PowerError::InvalidAddress { .. }
        | PowerError::NoCredential
        | PowerError::InvalidCredential { .. }
        | PowerError::NotAble { .. }
        | PowerError::LockedOut { .. }
        | PowerError::Withdrawn => StatusCode::CONFLICT,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn of_store(error: &StoreError) -> Problem {
    let status = match error {
        StoreError::NotFound { .. } => StatusCode::NOT_FOUND,
        StoreError::AlreadyExists { .. } | StoreError::Conflict { .. } => StatusCode::CONFLICT,
        StoreError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        StoreError::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        StoreError::Unavailable { .. } => {
            tracing::error!(error = %chain(error), "the store is unavailable");
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => return Problem::internal(error),
    };
    Problem::new(status, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_to_come_again_is_told_when() {
        for (wait, seconds) in [(Duration::from_millis(20), "1"), (Duration::from_secs(60), "60")] {
            let refused = EngineError::TooMany { why: "too many".to_owned(), wait };
            let response = Problem::from(refused).into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
        assert!(!Problem::not_found("").into_response().headers().contains_key(header::RETRY_AFTER));
    }
}
