//! The templates: a list, and a page of each.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use dragonfly_core::resource::template::ValueSource;
use dragonfly_core::resource::{Kind, Record, TemplateSpec};

use super::{When, page, problem, written};
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/templates", Access::Page, "The templates, as a page", list).get(
        "/templates/{name}",
        Access::Page,
        "One template with its steps, as a page",
        one,
    )
}

/// One template as a row.
#[derive(Debug)]
struct Row {
    name: String,
    about: String,
    steps: Vec<String>,
    installed: usize,
    made: Option<When>,
}

#[derive(Debug, Template)]
#[template(path = "templates.html")]
struct ListPage {
    rows: Vec<Row>,
}

#[derive(Debug, Template)]
#[template(path = "template.html")]
struct OnePage {
    name: String,
    about: String,
    /// Each with its value, or where that comes from.
    values: Vec<(String, String)>,
    steps: Vec<Step>,
    installed: usize,
    yaml: String,
}

#[derive(Debug)]
struct Step {
    name: String,
    action: String,
    /// `2 min`, when the template says.
    limit: String,
}

/// On how many machines each template is installed.
fn installed(app: &App) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for template in app.engine.machines().iter().filter_map(|machine| machine.status.installed.clone()) {
        *counts.entry(template).or_default() += 1;
    }
    counts
}

async fn list(State(app): State<App>) -> Response {
    let (now, installed) = (app.engine.now(), installed(&app));
    let templates = app.engine.cache().all::<TemplateSpec>();
    let rows = templates.iter().map(|template| Row {
        name: template.name().to_owned(),
        about: template.spec.description.clone(),
        steps: template.spec.actions.iter().map(|action| action.action.clone()).collect(),
        installed: installed.get(template.name()).copied().unwrap_or_default(),
        made: template.metadata.creation_timestamp.map(|then| When::at(then, now)),
    });
    page(StatusCode::OK, &ListPage { rows: rows.collect() })
}

async fn one(State(app): State<App>, Path(name): Path<String>) -> Response {
    let Some(template) = app.engine.cache().get::<TemplateSpec>(&name) else {
        // The engine says what was perhaps meant.
        let refusal = match app.engine.get(Kind::TEMPLATE, &name).await {
            Err(error) => Problem::from(error),
            Ok(_) => Problem::not_found("this version cannot read that template"),
        };
        return problem(&refusal, "/templates");
    };
    let values = template.spec.values.iter().map(|(name, source)| {
        let value = match source {
            ValueSource::Plain(text) => text.clone(),
            ValueSource::From { value_from } => {
                format!("from Secret {}, key {}", value_from.secret_ref.name, value_from.secret_ref.key)
            }
        };
        (name.clone(), value)
    });
    let steps = template.spec.actions.iter().map(|action| Step {
        name: action.name.clone(),
        action: action.action.clone(),
        limit: action.timeout_seconds.map(|seconds| format!("at most {seconds} s")).unwrap_or_default(),
    });
    let shown = OnePage {
        name: template.name().to_owned(),
        about: template.spec.description.clone(),
        values: values.collect(),
        steps: steps.collect(),
        installed: installed(&app).get(template.name()).copied().unwrap_or_default(),
        yaml: written(&Record::from(&*template)),
    };
    page(StatusCode::OK, &shown)
}
