//! Machines that ask the boot services and have not reported yet: between power-on and hello, and those
//! that got stuck there.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use dragonfly_core::boot::{Asker, Seen};
use dragonfly_core::clock::Timestamp;
use dragonfly_core::timeline::Entry;
use dragonfly_core::{Mac, name};

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
    let cards = app.engine.recorder().cards(16 * MOST);
    Sightings { sightings: lately(&cards, app.engine.now()) }
}

fn lately(cards: &[(Mac, Arc<Entry>)], now: Timestamp) -> Vec<Sighting> {
    let boots = |entry: &Entry| {
        // An operating system that asks for an address is no machine that boots.
        let system = |asker: &Asker| *asker == Asker::System;
        !matches!(entry.seen(),
            Some(Seen::DhcpAsked { asker, .. } | Seen::DhcpOffered { asker, .. } | Seen::DhcpConfirmed { asker, .. }
                | Seen::DhcpForeign { asker, .. }) if system(asker))
    };
    let shown = cards.iter().filter(|(_, entry)| boots(entry) && now.since(entry.time) < SHOWN);
    shown
        .take(MOST)
        .map(|(mac, entry)| Sighting {
            name: name::memorable(*mac).to_lowercase(),
            mac: mac.to_string(),
            kind: entry.kind().to_owned(),
            message: entry.message().into_owned(),
            when: When::at(entry.time, now),
        })
        .collect()
}

async fn fragment(State(app): State<App>) -> Response {
    page(StatusCode::OK, &now(&app))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dragonfly_core::boot::DhcpAsk;
    use dragonfly_core::timeline::{Recorder, What, Whose};

    #[test]
    fn shows_the_newest_word_of_each_card_that_boots_and_no_more() {
        let recorder = Recorder::default();
        let at = Timestamp::from_unix_seconds;
        let card = |n| Mac::new([2, 0, 0, 0, 0, n]);
        let asks = |asker| {
            let message = DhcpAsk::Discover;
            What::Seen(Seen::DhcpAsked { message, asker, firmware: None, arch: None, network: "lab".into() })
        };
        let script = || What::Seen(Seen::Script { fate: "discover".into(), reason: "new".into() });
        recorder.record(Whose::Card(card(1)), None, at(0), asks(Asker::Firmware));
        recorder.record(Whose::Card(card(2)), None, at(1000), asks(Asker::Firmware));
        recorder.record(Whose::Machine("known"), Some(card(3)), at(1001), asks(Asker::Firmware));
        recorder.record(Whose::Card(card(4)), None, at(1002), asks(Asker::Firmware));
        recorder.record(Whose::Card(card(2)), None, at(1003), script());
        recorder.record(Whose::Card(card(5)), None, at(1004), asks(Asker::System));
        let seen = lately(&recorder.cards(50), at(1010));
        let words: Vec<_> = seen.iter().map(|s| (s.mac.as_str(), s.kind.as_str(), s.when.ago.as_str())).collect();
        assert_eq!(words, [("02:00:00:00:00:02", "boot.script", "7s"), ("02:00:00:00:00:04", "dhcp.discover", "8s")]);
    }
}
