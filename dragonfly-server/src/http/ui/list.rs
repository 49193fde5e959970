//! The list of machines.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Redirect, Response};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::NetworkSpec;
use serde::Deserialize;

use super::sightings::{self, Sightings};
use super::{When, page, phase_class};
use crate::http::App;
use crate::http::extract::Asked;
use crate::http::route::{Access, Routes};
use crate::view::{self, Machine};

/// The most rows that one fetch of parts may ask for.
const PARTS: usize = 100;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/", Access::Page, "The machines, as a page", list)
        .get("/machines", Access::Page, "Leads to the machines' page", || async { Redirect::to("/") })
        .get("/fragments/machines", Access::Page, "Rows of the machines' page; `names=a,b` gives only these", rows)
}

/// One machine as a row of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) machine: Machine,
    pub(super) phase: &'static str,
    pub(super) class: &'static str,
    /// Percent and words, while there is something to tell.
    pub(super) progress: Option<(u8, String)>,
    pub(super) mac: String,
    pub(super) address: String,
    pub(super) seen: Option<When>,
    /// What the filter looks at, in lower case.
    pub(super) haystack: String,
}

impl Row {
    pub(super) fn new(machine: Machine, now: Timestamp) -> Self {
        let phase = view::phase_word(machine.phase);
        let mac = machine.macs.first().map(ToString::to_string).unwrap_or_default();
        let address = machine.address.map(|a| a.to_string()).unwrap_or_default();
        let seen = machine.last_seen.map(|then| When::at(then, now));
        let template = machine.template.as_deref().unwrap_or_default();
        let haystack =
            [&machine.display_name, phase, &mac, &address, &machine.model, template].join(" ").to_lowercase();
        Self {
            phase,
            class: phase_class(machine.phase),
            progress: progress(&machine),
            mac,
            address,
            seen,
            haystack,
            machine,
        }
    }
}

impl Row {
    /// Whether its message is about something that went wrong.
    fn is_troubled(&self) -> bool {
        let tried = self.machine.run.as_ref().is_some_and(|run| run.attempt > 1);
        tried || matches!(self.machine.phase, Some(Phase::Error | Phase::Held))
    }
}

fn progress(machine: &Machine) -> Option<(u8, String)> {
    let run = machine.run.as_ref()?;
    if !matches!(machine.phase, Some(Phase::Assigned | Phase::Provisioning | Phase::Error)) {
        return None;
    }
    if machine.phase == Some(Phase::Assigned) {
        // Steps of an attempt that is over tell nothing about the next.
        return Some((run.percent, format!("attempt {} waits for its agent", run.attempt)));
    }
    let words = match (&run.step, run.progress) {
        (Some(step), Some(progress)) => format!("{step}, {}", view::progress_words(progress)),
        (Some(step), None) => step.clone(),
        (None, _) => format!("{} of {} steps", run.steps_done, run.steps),
    };
    Some((run.percent, words))
}

/// A phase and how many machines are in it.
#[derive(Debug)]
struct Count {
    phase: &'static str,
    class: &'static str,
    machines: usize,
}

#[derive(Debug, Template)]
#[template(path = "machines.html")]
struct ListPage {
    rows: Vec<Row>,
    total: usize,
    counts: Vec<Count>,
    wanted: Wanted,
    networks: usize,
    problems: Vec<String>,
    sightings: Sightings,
    mode: &'static str,
}

#[derive(Debug, Template)]
#[template(path = "rows.html")]
struct Rows {
    rows: Vec<Row>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    q: String,
    phase: String,
}

impl Wanted {
    fn takes(&self, row: &Row) -> bool {
        let words = self.q.to_lowercase();
        (self.phase.is_empty() || self.phase == row.class) && words.split_whitespace().all(|w| row.haystack.contains(w))
    }
}

fn all(app: &App) -> Vec<Row> {
    let now = app.engine.now();
    app.engine.machines().iter().map(|m| Row::new(view::machine(&app.engine, m), now)).collect()
}

async fn list(State(app): State<App>, Asked(wanted): Asked<Wanted>) -> Response {
    let rows = all(&app);
    let phases = [None].into_iter().chain(Phase::ALL.map(Some));
    let counts = phases.map(|phase| Count {
        phase: view::phase_word(phase),
        class: phase_class(phase),
        machines: rows.iter().filter(|row| row.machine.phase == phase).count(),
    });
    let counts = counts.filter(|count| count.machines > 0).collect();
    let total = rows.len();
    let rows = rows.into_iter().filter(|row| wanted.takes(row)).collect();
    let networks = app.engine.cache().all::<NetworkSpec>().len();
    let mode = app.mode.word();
    let (problems, sightings) = (app.boot.problems(), sightings::now(&app));
    page(StatusCode::OK, &ListPage { rows, total, counts, wanted, networks, problems, sightings, mode })
}

#[derive(Debug, Default, Deserialize)]
struct Names {
    names: Option<String>,
}

async fn rows(State(app): State<App>, Asked(Names { names }): Asked<Names>) -> Response {
    let rows = match names {
        None => all(&app),
        Some(names) => {
            let now = app.engine.now();
            let found = names.split(',').take(PARTS).filter_map(|name| app.engine.cache().get(name));
            found.map(|machine| Row::new(view::machine(&app.engine, &machine), now)).collect()
        }
    };
    page(StatusCode::OK, &Rows { rows })
}
