//! What an API server's refusals mean, and what a person can do about them.

use std::time::Duration;

use kube::core::Status;

use super::connect::deepest;
use super::object::Place;
use super::{NAME, secret};
use crate::resource::{Kind, MAX_OBJECT_BYTES};
use crate::store::{Key, StoreError};

/// What was asked for, for errors.
#[derive(Debug, Clone)]
pub(super) struct Doing<'a> {
    /// Kubernetes' verb: `get`, `list`, `watch`, `create`, `patch`, `delete`.
    verb: &'static str,
    kind: Kind,
    key: Option<&'a Key>,
    place: Place<'a>,
}

impl<'a> Doing<'a> {
    pub(super) fn object(verb: &'static str, key: &'a Key, place: Place<'a>) -> Self {
        Self { verb, kind: key.kind, key: Some(key), place }
    }

    pub(super) fn kind(verb: &'static str, kind: Kind, place: Place<'a>) -> Self {
        Self { verb, kind, key: None, place }
    }
}

/// An answer that is a refusal, behind the error that says what it means.
#[derive(Debug, thiserror::Error)]
#[error("the API server answered {code} {reason}")]
pub(super) struct Answer {
    pub(super) code: u16,
    reason: String,
}

/// Whether the API server gave no answer, or one that says that it cannot work now: it may by itself later.
pub(super) fn is_away(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable { source: None, .. } => true,
        StoreError::Unavailable { source: Some(source), .. } => {
            source.downcast_ref::<Answer>().is_some_and(|answer| answer.code >= 500)
        }
        _ => false,
    }
}

pub(super) fn failure(doing: &Doing<'_>, server: &str, error: kube::Error) -> StoreError {
    if let kube::Error::Api(status) = &error {
        return refused(doing, server, status);
    }
    StoreError::Unavailable { store: NAME, what: unreachable(server, &error), source: None }
}

/// The last cause says what is wrong; those before it repeat it.
pub(super) fn unreachable(server: &str, error: &kube::Error) -> String {
    format!("the API server {server} cannot be reached: {}", deepest(error))
}

pub(super) fn late(server: &str, after: Duration) -> StoreError {
    let what = format!("the API server {server} gave no answer in {} s; is its etcd well?", after.as_secs());
    StoreError::Unavailable { store: NAME, what, source: None }
}

/// The meaning of a `Status` that is a failure.
pub(super) fn refused(doing: &Doing<'_>, server: &str, status: &Status) -> StoreError {
    let unavailable = |what: String| StoreError::Unavailable { store: NAME, what, source: None };
    let message = &status.message;
    let Some(key) = doing.key.cloned() else { return of_the_kind(doing, server, status) };
    let details = status.details.as_ref();
    match status.code {
        404 if details.is_some_and(|d| d.name == key.name && d.kind != "namespaces") => StoreError::NotFound { key },
        409 if status.reason == "AlreadyExists" => StoreError::AlreadyExists { key },
        409 => StoreError::Conflict { key },
        400 | 422 => StoreError::Invalid { key, store: NAME, what: message.clone() },
        413 => StoreError::TooLarge { key, bytes: MAX_OBJECT_BYTES + 1 },
        500 if message.contains("request is too large") => StoreError::TooLarge { key, bytes: MAX_OBJECT_BYTES + 1 },
        405 => unavailable(format!("the API server {server} does not {} {}: {message}", doing.verb, doing.kind)),
        _ => of_the_kind(doing, server, status),
    }
}

fn of_the_kind(doing: &Doing<'_>, server: &str, status: &Status) -> StoreError {
    let (verb, kind, message) = (doing.verb, doing.kind, &status.message);
    let details = status.details.as_ref();
    let what = match (status.code, doing.place) {
        (401, _) => format!("the API server {server} does not accept our credentials: {message}"),
        (403, place) => {
            format!("we may not {verb} {}: `dragonfly install --kubernetes` grants it ({message})", place.resource())
        }
        (404, Place::Secrets { namespace }) if details.is_some_and(|d| d.kind == "namespaces") => format!(
            "there is no namespace `{namespace}`: kubectl create namespace {namespace}, or dragonfly install --kubernetes"
        ),
        (404, Place::Secrets { .. }) => {
            format!("{kind} is of type {} in core/v1, which the API server {server} does not have", secret::TYPE)
        }
        (404, place @ (Place::Tinkerbell { .. } | Place::Controllers { .. })) => format!(
            "Tinkerbell is not installed in this cluster: it does not know {} (asked for {})",
            place.resource(),
            place.all()
        ),
        (404, place) => format!(
            "the cluster does not know {}: dragonfly crds | kubectl apply -f - (or another version of it is installed)",
            place.resource()
        ),
        (code, _) if message.is_empty() => {
            format!("the API server {server} failed to {verb} {kind}: it answered {code} and nothing else")
        }
        _ => format!("the API server {server} failed to {verb} {kind}: {message}"),
    };
    let answer = Answer { code: status.code, reason: status.reason.clone() };
    StoreError::Unavailable { store: NAME, what, source: Some(answer.into()) }
}
