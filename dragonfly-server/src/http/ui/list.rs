//! The list of machines.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use axum::response::{Redirect, Response};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::resource::NetworkSpec;
use serde::Deserialize;

use super::sightings::{self, Sightings};
use super::{When, phase_class};
use crate::http::App;
use crate::http::extract::Asked;
use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};
use crate::http::search::Search;
use crate::view::{self, Machine};

/// How many rows a page has, and how many one fetch may ask for.
const ROWS: usize = 100;
const MOST: usize = 500;
/// The most rows that one fetch of parts may ask for.
const PARTS: usize = 100;
/// How many machines there are, on an answer that is only a part of the page.
const TOTAL: HeaderName = HeaderName::from_static("x-total");

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/", Access::Page, "The machines, as a page", list)
        .get("/machines", Access::Page, "Leads to the machines' page", || async { Redirect::to("/") })
        .get(
            "/fragments/machines",
            Access::Page,
            "Rows of the machines' page, searched and paged as the API's list; `names=a,b` gives only these",
            rows,
        )
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
}

impl Row {
    pub(super) fn new(machine: Machine, now: Timestamp) -> Self {
        let mac = machine.macs.first().map(ToString::to_string).unwrap_or_default();
        let address = machine.address.map(|a| a.to_string()).unwrap_or_default();
        let seen = machine.last_seen.map(|then| When::at(then, now));
        Self {
            phase: view::phase_word(machine.phase),
            class: phase_class(machine.phase),
            progress: progress(&machine),
            mac,
            address,
            seen,
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
    more: Option<More>,
    total: usize,
    counts: Vec<Count>,
    wanted: Search,
    /// The same search from its first machine.
    first: String,
    networks: usize,
    problems: Vec<String>,
    sightings: Sightings,
    mode: &'static str,
}

#[derive(Debug, Template)]
#[template(path = "rows.html")]
struct Rows {
    rows: Vec<Row>,
    more: Option<More>,
}

/// Where the rest is.
#[derive(Debug)]
struct More {
    /// The last machine that is shown.
    after: String,
    /// The page that goes on there, for browsers without script.
    href: String,
}

/// The page of a search, from a machine on.
fn address(wanted: &Search, after: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let parts = [("q", wanted.q.as_str()), ("phase", &wanted.phase), ("continue", after)];
    query.extend_pairs(parts.into_iter().filter(|(_, value)| !value.is_empty()));
    let query = query.finish();
    if query.is_empty() { "/".to_owned() } else { format!("/?{query}") }
}

async fn some(app: &App, wanted: &Search) -> Result<(Vec<Row>, Option<More>), Problem> {
    let most = if wanted.limit == 0 { ROWS } else { wanted.limit.min(MOST) };
    let found = app.engine.cache().find(&wanted.find()?, wanted.after(), most).await;
    let more = found
        .machines
        .last()
        .filter(|_| found.more)
        .map(|last| More { after: last.name().to_owned(), href: address(wanted, last.name()) });
    let now = app.engine.now();
    Ok((found.machines.iter().map(|m| Row::new(view::machine(&app.engine, m), now)).collect(), more))
}

async fn list(State(app): State<App>, Asked(wanted): Asked<Search>) -> Result<Response, Problem> {
    let (rows, more) = some(&app, &wanted).await?;
    let phases = app.engine.cache().phases();
    let total = phases.iter().map(|(_, machines)| machines).sum();
    let counts = phases
        .into_iter()
        .map(|(phase, machines)| Count { phase: view::phase_word(phase), class: phase_class(phase), machines })
        .collect();
    let networks = app.engine.cache().all::<NetworkSpec>().len();
    let (mode, first) = (app.mode.word(), address(&wanted, ""));
    let (problems, sightings) = (app.boot.problems(), sightings::now(&app));
    let page = ListPage { rows, more, total, counts, wanted, first, networks, problems, sightings, mode };
    Ok(super::page(StatusCode::OK, &page))
}

#[derive(Debug, Default, Deserialize)]
struct Names {
    names: Option<String>,
}

async fn rows(
    State(app): State<App>,
    Asked(Names { names }): Asked<Names>,
    Asked(wanted): Asked<Search>,
) -> Result<Response, Problem> {
    let (rows, more) = match names {
        None => some(&app, &wanted).await?,
        Some(names) => {
            let (find, now) = (wanted.find()?, app.engine.now());
            let found = names.split(',').take(PARTS).filter_map(|name| app.engine.cache().meant(&find, name));
            (found.map(|machine| Row::new(view::machine(&app.engine, &machine), now)).collect(), None)
        }
    };
    let total: usize = app.engine.cache().phases().iter().map(|(_, machines)| machines).sum();
    let mut response = super::page(StatusCode::OK, &Rows { rows, more });
    response.headers_mut().insert(TOTAL, total.into());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_of_the_same_search() {
        let search = |q: &str, phase: &str| Search { q: q.into(), phase: phase.into(), ..Search::default() };
        let table = [
            (search("", ""), "", "/"),
            (search("", ""), "m-9", "/?continue=m-9"),
            (search("rack=a&b c", "ready"), "m", "/?q=rack%3Da%26b+c&phase=ready&continue=m"),
            (search("x", ""), "", "/?q=x"),
        ];
        for (wanted, after, want) in table {
            assert_eq!(address(&wanted, after), want);
        }
    }
}
