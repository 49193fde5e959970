//! What happened to a machine, as part of its page; and the page of one that has not reported yet.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use dragonfly_core::clock::Timestamp;
use dragonfly_core::engine::{MachineTimeline, Why};

use super::{When, page};
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get(
        "/fragments/timelines/{name}",
        Access::Page,
        "The part of the page of a machine that has not reported, which changes",
        fragment,
    )
}

/// A line of the timeline.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) when: When,
    pub(super) boot: usize,
    /// The first line of its boot as the page shows it: the newest.
    pub(super) heads: bool,
    pub(super) seconds: String,
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) times: u32,
}

/// The newest first, as a page shows it.
pub(super) fn shown(timeline: &MachineTimeline, now: Timestamp) -> Vec<Happened> {
    let mut above = None;
    let lines = timeline.items.iter().rev();
    lines
        .map(|line| {
            let heads = above != Some(line.boot);
            above = Some(line.boot);
            Happened {
                when: When::at(line.time, now),
                boot: line.boot,
                heads,
                seconds: if line.boot > 0 { format!("+{:.1} s", line.seconds) } else { String::new() },
                kind: line.kind.clone(),
                message: line.message.clone(),
                times: line.times,
            }
        })
        .collect()
}

#[derive(Debug, Template)]
#[template(path = "unseen.html")]
struct UnseenPage {
    name: String,
    mac: String,
    live: Unseen,
}

#[derive(Debug, Template)]
#[template(path = "unseen_live.html")]
struct Unseen {
    why: Why,
    happened: Vec<Happened>,
}

/// The page of a card that has asked and belongs to no machine; `None` when nothing is known of it.
pub(super) fn unseen(app: &App, word: &str) -> Option<Response> {
    let timeline = app.engine.timeline(word, 0).ok()?;
    let mac = timeline.cards.first().filter(|mac| app.engine.recorder().knows(**mac))?;
    let (name, mac) = (timeline.machine.clone(), mac.to_string());
    let live = described(app, &timeline).ok()?;
    Some(page(StatusCode::OK, &UnseenPage { name, mac, live }))
}

fn described(app: &App, timeline: &MachineTimeline) -> Result<Unseen, Problem> {
    let word = timeline.cards.first().map_or_else(|| timeline.machine.clone(), ToString::to_string);
    let happened = shown(timeline, app.engine.now());
    Ok(Unseen { why: app.engine.why(&word)?, happened })
}

async fn fragment(State(app): State<App>, Path(word): Path<String>) -> Result<Response, Problem> {
    let timeline = app.engine.timeline(&word, 0)?;
    Ok(page(StatusCode::OK, &described(&app, &timeline)?))
}
