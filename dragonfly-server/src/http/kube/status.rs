//! A problem as Kubernetes' clients read it: `Status` of `meta.k8s.io/v1`.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragonfly_core::action;
use dragonfly_core::engine::EngineError;
use dragonfly_core::resource::Kind;
use serde_json::{Value, json};

use super::super::problem::{MEDIA_TYPE, Problem};

/// What was refused, and about what.
#[derive(Debug)]
pub(super) struct Refused {
    problem: Problem,
    about: Option<Box<(Kind, String)>>,
}

/// Says what a refusal is about.
pub(super) trait About<T> {
    fn about(self, kind: Kind, name: &str) -> Result<T, Refused>;
}

impl<T, E: Into<Refused>> About<T> for Result<T, E> {
    fn about(self, kind: Kind, name: &str) -> Result<T, Refused> {
        self.map_err(|error| Refused { about: Some(Box::new((kind, name.to_owned()))), ..error.into() })
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, about: None }
    }
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        let errors = match &error {
            EngineError::Manifest(manifest) => {
                let each = manifest.problems.iter();
                each.map(|p| action::Problem { path: p.path.clone(), problem: p.problem.clone() }).collect()
            }
            _ => Vec::new(),
        };
        let mut problem = Problem::from(error);
        if problem.errors.is_empty() {
            problem.errors = errors;
        }
        Self { problem, about: None }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let about = self.about.as_deref().map(|(kind, name)| (*kind, name.as_str()));
        (self.problem.status, Json(status(&self.problem, about))).into_response()
    }
}

/// A problem as a `Status`, with the object that it is about.
pub(super) fn status(problem: &Problem, about: Option<(Kind, &str)>) -> Value {
    let mut details = json!({});
    if let Some((kind, name)) = about {
        // Of what is wrong in an object its kind is told, else the word of its address: as Kubernetes does.
        let word = if problem.status == StatusCode::UNPROCESSABLE_ENTITY { kind.name } else { kind.plural };
        details = json!({ "name": name, "group": super::GROUP, "kind": word });
    }
    if !problem.errors.is_empty() {
        let causes = problem
            .errors
            .iter()
            .map(|error| json!({ "reason": "FieldValueInvalid", "field": error.path, "message": error.problem }));
        details["causes"] = causes.collect();
    }
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": problem.detail, "reason": reason(problem), "code": problem.status.as_u16(),
    });
    if details.as_object().is_some_and(|details| !details.is_empty()) {
        status["details"] = details;
    }
    status
}

fn reason(problem: &Problem) -> &'static str {
    match problem.status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::NOT_ACCEPTABLE => "NotAcceptable",
        StatusCode::CONFLICT if problem.detail.ends_with("already exists") => "AlreadyExists",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::GONE => "Expired",
        StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaType",
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "Timeout",
        _ => "InternalError",
    }
}

/// Whether Kubernetes' clients ask here.
pub(in super::super) fn is_theirs(path: &str) -> bool {
    let under = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    under("/version") || under("/api") || under("/apis") || under("/openapi")
}

/// A problem that somebody else answered on such an address, as a `Status`.
pub(in super::super) async fn translated(response: Response) -> Response {
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
    if !is_problem {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let problem = Problem::new(parts.status, said.get("detail").and_then(Value::as_str).unwrap_or_default());
    let translated = (parts.status, Json(status(&problem, None))).into_response();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::CONTENT_TYPE);
    let (mut new, body) = translated.into_parts();
    new.headers.extend(parts.headers);
    Response::from_parts(new, body)
}
