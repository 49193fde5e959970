//! Machines that ask the boot services and have not reported yet: between power-on and hello, and those
//! that got stuck there.

use std::collections::HashMap;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use dragonfly_core::clock::Timestamp;
use dragonfly_core::event::Event;
use dragonfly_core::resource::HardwareSpec;

use super::{When, page};
use crate::http::App;
use crate::http::route::{Access, Routes};

/// How long an unknown machine is shown after it was last heard.
const SHOWN: Duration = Duration::from_secs(15 * 60);
/// How many are shown: strangers choose their addresses.
const MOST: usize = 20;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get("/fragments/sightings", Access::Page, "Machines that boot and have not reported yet", fragment)
}

/// What was last heard of a machine that nobody knows.
#[derive(Debug, PartialEq)]
pub(super) struct Sighting {
    name: String,
    mac: String,
    kind: String,
    message: String,
    when: When,
}

#[derive(Debug, Template)]
#[template(path = "sightings.html")]
pub(super) struct Sightings {
    sightings: Vec<Sighting>,
}

/// Those who asked lately, the newest first.
pub(super) fn now(app: &App) -> Sightings {
    // Number 0 is before every event: all that are kept.
    let kept = app.engine.events().subscribe(Some(0)).replay;
    let known = |name: &str| app.engine.cache().get::<HardwareSpec>(name).is_some();
    Sightings { sightings: unknown(kept.iter().map(|event| &**event), known, app.engine.now()) }
}

fn unknown<'a>(events: impl Iterator<Item = &'a Event>, known: impl Fn(&str) -> bool, now: Timestamp) -> Vec<Sighting> {
    let mut last: HashMap<&str, &Event> = HashMap::new();
    for event in events {
        let boots = ["dhcp.", "tftp.", "boot.", "identity."].iter().any(|family| event.kind.starts_with(family));
        if let Some(name) = event.machine.as_deref().filter(|_| boots && now.since(event.time) < SHOWN) {
            last.insert(name, event);
        }
    }
    let mut last: Vec<(&str, &Event)> = last.into_iter().filter(|(name, _)| !known(name)).collect();
    last.sort_by_key(|(_, event)| std::cmp::Reverse(event.id));
    last.truncate(MOST);
    let text =
        |event: &Event, field: &str| event.data.get(field).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    last.into_iter()
        .map(|(name, event)| Sighting {
            name: name.to_owned(),
            mac: text(event, "mac"),
            kind: event.kind.clone(),
            message: event.message.clone(),
            when: When::at(event.time, now),
        })
        .collect()
}

async fn fragment(State(app): State<App>) -> Response {
    page(StatusCode::OK, &now(&app))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(id: u64, seconds: i64, kind: &str, machine: &str) -> Event {
        Event {
            id,
            time: Timestamp::from_unix_seconds(seconds),
            kind: kind.into(),
            machine: Some(machine.into()).filter(|m: &String| !m.is_empty()),
            workflow: None,
            message: format!("{id}"),
            data: json!({ "mac": "52:54:00:00:00:01" }),
        }
    }

    #[test]
    fn shows_the_newest_word_of_each_machine_that_nobody_knows() {
        let events = [
            event(1, 0, "dhcp.offer", "long-ago"),
            event(2, 1000, "dhcp.offer", "a"),
            event(3, 1001, "dhcp.offer", "known"),
            event(4, 1002, "tftp.begin", "b"),
            event(5, 1003, "boot.script", "a"),
            event(6, 1004, "workflow.assigned", "c"),
            event(7, 1005, "tftp.done", ""),
        ];
        let seen = unknown(events.iter(), |name| name == "known", Timestamp::from_unix_seconds(1010));
        let words: Vec<_> = seen.iter().map(|s| (s.name.as_str(), s.kind.as_str(), s.when.ago.as_str())).collect();
        assert_eq!(words, [("a", "boot.script", "7s"), ("b", "tftp.begin", "8s")]);
    }
}
