//! What just happened, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event as Frame, KeepAlive};
use dragonfly_core::event::{Event, Events, Subscription};
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::App;
use super::extract::Asked;
use super::route::{Access, Routes};

/// How often a quiet stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes(routes: Routes) -> Routes {
    routes.get(
        "/dragonfly/v1/events",
        Access::Person,
        "What happens, as server-sent events; Last-Event-ID replays, `gap` says that some are lost",
        events,
    )
}

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    /// Only what is about this machine.
    machine: Option<String>,
    /// As the header Last-Event-ID, for clients that cannot set it.
    after: Option<String>,
}

async fn events(
    State(app): State<App>,
    headers: HeaderMap,
    Asked(wanted): Asked<Wanted>,
) -> Sse<impl Stream<Item = Result<Frame, Infallible>>> {
    let header = headers.get("last-event-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let after = header.or(wanted.after).map(|id| Place::read(&id, app.meters.run()));
    let machine = wanted.machine.map(|word| app.engine.resolve(&word).unwrap_or_else(|_| word.to_lowercase()));
    let run = app.meters.run();
    let told = told(app.engine.events().clone(), machine, after)
        .map(move |told| Ok(frame(&told, run)))
        .take_until(app.0.stop.clone().cancelled_owned());
    Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// Where a listener stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After this event of this run of the server.
    After(u64),
    /// Somewhere in an earlier run: its numbers say nothing about ours.
    Elsewhere,
}

impl Place {
    /// Reads `run.number`, as [`frame`] writes it, or the bare number of an event of this run.
    fn read(id: &str, run: u64) -> Self {
        if let Ok(id) = id.parse() {
            return Self::After(id);
        }
        let parts = id.split_once('.').and_then(|(run, id)| Some((run.parse::<u64>().ok()?, id.parse::<u64>().ok()?)));
        match parts {
            Some((theirs, id)) if theirs == run => Self::After(id),
            _ => Self::Elsewhere,
        }
    }
}

#[derive(Debug)]
enum Told {
    Gap,
    Event(Arc<Event>),
}

fn frame(told: &Told, run: u64) -> Frame {
    match told {
        Told::Gap => Frame::default().event("gap").data("events were lost: read the state anew"),
        Told::Event(event) => {
            // Without a name of its own: a browser's `onmessage` then gets every kind, also new ones.
            let frame = Frame::default().id(format!("{run}.{}", event.id));
            // Our own type always serialises, and to one line.
            frame.data(serde_json::to_string(event).unwrap_or_default())
        }
    }
}

/// Everything after a place, or everything about one machine, without end: a listener that lags is given
/// what is still kept, and told of a gap when that is not all.
fn told(events: Events, machine: Option<String>, after: Option<Place>) -> impl Stream<Item = Told> {
    let start = match after {
        None => None,
        Some(Place::After(id)) => Some(id),
        // No event of ours has this number: everything that is kept, and word of the gap.
        Some(Place::Elsewhere) => Some(u64::MAX),
    };
    let subscribe = |events: &Events, machine: &Option<String>, after| match machine {
        Some(machine) => events.subscribe_to(machine, after),
        None => events.subscribe(after),
    };
    let Subscription { replay, gap, newest, live } = subscribe(&events, &machine, start);
    let first = opening(gap, replay);
    let state = (events, machine, live, newest);
    let rest = futures_util::stream::unfold(state, move |(events, machine, mut live, mut last)| async move {
        loop {
            match live.recv().await {
                Ok(event) => {
                    last = event.id;
                    if machine.is_none() || event.machine == machine {
                        return Some((vec![Told::Event(event)], (events, machine, live, last)));
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    let Subscription { replay, gap, newest, live } = subscribe(&events, &machine, Some(last));
                    return Some((opening(gap, replay), (events, machine, live, newest)));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    });
    futures_util::stream::once(std::future::ready(first)).chain(rest).flat_map(futures_util::stream::iter)
}

fn opening(gap: bool, replay: Vec<Arc<Event>>) -> Vec<Told> {
    gap.then_some(Told::Gap).into_iter().chain(replay.into_iter().map(Told::Event)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragonfly_core::clock::Timestamp;
    use dragonfly_core::event::NewEvent;

    fn say(events: &Events) -> u64 {
        events.publish(Timestamp::UNIX_EPOCH, NewEvent { kind: "test", ..NewEvent::default() })
    }

    async fn take(stream: impl Stream<Item = Told>, most: usize) -> Vec<String> {
        let word = |told: &Told| match told {
            Told::Gap => "gap".to_owned(),
            Told::Event(event) => event.id.to_string(),
        };
        stream.take(most).map(|told| word(&told)).collect().await
    }

    #[tokio::test]
    async fn replays_and_goes_on_without_a_gap_or_a_repeat() {
        let events = Events::new(100);
        for _ in 0..3 {
            say(&events);
        }
        let stream = told(events.clone(), None, Some(Place::After(1)));
        say(&events);
        assert_eq!(take(stream, 3).await, ["2", "3", "4"]);
    }

    #[tokio::test]
    async fn a_listener_that_lags_is_told_and_goes_on() {
        let events = Events::new(10);
        let stream = told(events.clone(), None, None);
        // More than the channel of live events holds.
        for _ in 0..3000 {
            say(&events);
        }
        let seen = take(stream, 11).await;
        assert_eq!(seen.first().map(String::as_str), Some("gap"));
        assert_eq!(seen.last().map(String::as_str), Some("3000"));
    }

    #[tokio::test]
    async fn who_follows_one_machine_lags_behind_others_without_a_gap() {
        let events = Events::new(10);
        let about = |machine: &str| {
            let machine = Some(machine.to_owned());
            events.publish(Timestamp::UNIX_EPOCH, NewEvent { kind: "test", machine, ..NewEvent::default() })
        };
        let first = about("ours");
        let live = told(events.clone(), Some("ours".into()), None);
        let back = told(events.clone(), Some("ours".into()), Some(Place::After(first)));
        // More than the ring keeps, and more than the channel of live events holds.
        for _ in 0..3000 {
            about("other");
        }
        let last = about("ours").to_string();
        assert_eq!(take(live, 1).await, [last.as_str()], "it was there and slow");
        assert_eq!(take(back, 1).await, [last.as_str()], "it was away");
        let late = told(events.clone(), Some("ours".into()), Some(Place::After(first)));
        assert_eq!(take(late, 1).await, [last.as_str()], "it comes back only now");
    }

    #[tokio::test]
    async fn a_number_from_before_a_restart_is_a_gap() {
        assert_eq!(Place::read("7.3", 7), Place::After(3));
        assert_eq!(Place::read("6.3", 7), Place::Elsewhere);
        assert_eq!(Place::read("nonsense", 7), Place::Elsewhere);
        assert_eq!(Place::read("5", 7), Place::After(5));
        for place in [Place::Elsewhere, Place::After(900), Place::After(u64::MAX)] {
            let events = Events::new(10);
            say(&events);
            let stream = told(events.clone(), None, Some(place));
            say(&events);
            assert_eq!(take(stream, 3).await, ["gap", "1", "2"], "{place:?}");
        }
    }
}
