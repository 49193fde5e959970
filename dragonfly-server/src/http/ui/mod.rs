//! The web pages: rendered here, kept live by a small script that fetches the parts that changed.
//!
//! Every page works without the script. Everything that strangers wrote goes through the templates'
//! escaping; there is no inline script or style, and the content security policy forbids both.

mod assets;
mod clusters;
mod controller;
mod forms;
mod list;
mod machine;
mod networks;
mod picks;
mod sightings;
mod templates;
mod timeline;

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::{Metadata, Record};
use serde_json::Value;

use super::problem::Problem;
use super::route::Routes;
use crate::{view, yaml};

pub(super) fn routes(routes: Routes) -> Routes {
    let all = [
        assets::routes,
        list::routes,
        sightings::routes,
        timeline::routes,
        machine::routes,
        forms::routes,
        templates::routes,
        networks::routes,
        clusters::routes,
        controller::routes,
        picks::routes,
    ];
    all.into_iter().fold(routes, |routes, part| part(routes))
}

/// A rendered page or part of one.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => {
            let html_type = HeaderValue::from_static("text/html; charset=utf-8");
            (status, [(header::CONTENT_TYPE, html_type)], html).into_response()
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// What went wrong, as a page.
#[derive(Debug, Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    title: &'a str,
    detail: &'a str,
    back: &'a str,
}

/// What went wrong, as a page with a way back.
pub(super) fn problem(problem: &Problem, back: &str) -> Response {
    page(problem.status, &ProblemPage { title: &problem.title, detail: &problem.detail, back })
}

/// An object as somebody would write it: without what the server adds.
fn written(record: &Record) -> String {
    let metadata = Metadata {
        name: record.metadata.name.clone(),
        labels: record.metadata.labels.clone(),
        annotations: record.metadata.annotations.clone(),
        ..Metadata::default()
    };
    yaml::to_yaml(&Record { metadata, status: Value::Null, ..record.clone() }.to_json())
}

/// A moment for a page: the machine-readable form, and how long ago it was.
#[derive(Debug, Clone, PartialEq)]
struct When {
    iso: String,
    ago: String,
}

impl When {
    fn at(then: Timestamp, now: Timestamp) -> Self {
        Self { iso: then.to_string(), ago: view::ago(now, then) }
    }
}

/// A phase as a class of the style sheet.
fn phase_class(phase: Option<Phase>) -> &'static str {
    match phase {
        None => "unseen",
        Some(Phase::Registered) => "registered",
        Some(Phase::Assigned) => "assigned",
        Some(Phase::Provisioning) => "provisioning",
        Some(Phase::Ready) => "ready",
        Some(Phase::Error) => "error",
        Some(Phase::Held) => "held",
    }
}
