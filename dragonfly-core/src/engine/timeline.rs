//! The flight recorder as the engine keeps it: whose timeline something goes to, and how it is read.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::strangers::Word;
use super::{Engine, Result};
use crate::Mac;
use crate::boot::{Seen, Sighting};
use crate::cache::Owner;
use crate::event::NewEvent;
use crate::resource::HardwareSpec;
use crate::timeline::{Entry, Line, Recorder, What, Whose, lines};

/// The longest that a reader of a timeline may be kept waiting for news.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long a reader rests between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// What happened to one machine.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineTimeline {
    /// Its name, or the name that it would get.
    pub machine: String,
    /// Its cards.
    pub cards: Vec<Mac>,
    /// What happened, in order.
    pub items: Vec<Line>,
}

/// Who is meant by a word.
pub(super) struct Subject {
    /// The machine; `None` when it has not been registered.
    pub(super) machine: Option<String>,
    pub(super) name: String,
    pub(super) cards: Vec<Mac>,
}

impl Engine {
    /// The flight recorder.
    pub fn recorder(&self) -> &Recorder {
        &self.inner.recorder
    }

    /// Takes down what the boot services saw, and tells whoever listens.
    pub(super) fn witness(&self, sighting: Sighting) {
        let Sighting { mac, from, seen } = sighting;
        let seen = seen.bounded();
        let card = mac.or_else(|| self.card_at(from?));
        let now = self.now();
        let (mut machine, mut claimed) = (None, None);
        if let Some(card) = card {
            self.remember_address(from.or(taken(&seen)), card);
            let owner = self.inner.cache.by_mac(card);
            let whose = match &owner {
                Owner::One(machine) => Whose::Machine(machine.name()),
                Owner::Nobody | Owner::Several(_) => Whose::Card(card),
            };
            self.inner.recorder.record(whose, Some(card), now, What::Seen(seen.clone()));
            machine = Some(self.name_of(card));
            // Whoever can invent a machine can have it register itself.
            claimed = match owner {
                Owner::One(machine) if !machine.is_unclaimed() => Some(machine),
                _ => None,
            };
        }
        let claimed = claimed.as_ref().map(|machine| machine.name());
        match self.inner.strangers.lock().unwrap_or_else(PoisonError::into_inner).one_more(claimed, now) {
            Word::LeaveOut => return,
            Word::Tell(0) => {}
            Word::Tell(left_out) => match claimed {
                Some(machine) => tracing::warn!(left_out, machine, "more of it than is told: see its timeline"),
                None => tracing::warn!(left_out, "more of unknown machines than is told: see the machine's timeline"),
            },
        }
        let (kind, message) = (seen.kind(), seen.to_string());
        tracing::info!(kind, machine, "{message}");
        let data = json!({ "mac": card, "from": from });
        self.inner.events.publish(now, NewEvent { kind, machine, workflow: None, message, data });
    }

    /// Who is meant: a machine by any of its names or cards, or a card that has only asked so far.
    pub(super) fn subject(&self, word: &str) -> Result<Subject> {
        let of_card = |card: Mac| Subject { machine: None, name: self.name_of(card), cards: vec![card] };
        if let Ok(card) = word.parse::<Mac>()
            && !matches!(self.inner.cache.by_mac(card), Owner::One(_))
        {
            return Ok(of_card(card));
        }
        match self.resolve(word) {
            Ok(name) => {
                let cards =
                    self.inner.cache.get::<HardwareSpec>(&name).map(|m| m.spec.macs.clone()).unwrap_or_default();
                Ok(Subject { machine: Some(name.clone()), name, cards })
            }
            Err(unknown) => self.inner.recorder.card_named(word).map(of_card).ok_or(unknown),
        }
    }

    pub(super) fn entries(&self, subject: &Subject) -> Vec<Arc<Entry>> {
        self.inner.recorder.read(subject.machine.as_deref(), &subject.cards, 0)
    }

    /// What happened to a machine (name, display name, or any of its MACs), after the entry of this
    /// number; 0 for all that is kept. A MAC that nobody has registered is an answer too.
    ///
    /// # Errors
    /// `NotFound` for a name that nobody has.
    pub fn timeline(&self, word: &str, after: u64) -> Result<MachineTimeline> {
        let subject = self.subject(word)?;
        let mut items = lines(&self.entries(&subject));
        items.retain(|line| line.id > after);
        Ok(MachineTimeline { machine: subject.name, cards: subject.cards, items })
    }

    /// As [`timeline`](Self::timeline), but waits until there is something, 30 s at most.
    ///
    /// # Errors
    /// `NotFound` for a name that nobody has.
    pub async fn timeline_news(&self, word: &str, after: u64, wait: Duration) -> Result<MachineTimeline> {
        let deadline = tokio::time::Instant::now() + wait.min(LONGEST_WAIT);
        let mut news = self.inner.recorder.news();
        loop {
            news.borrow_and_update();
            let found = self.timeline(word, after)?;
            if !found.items.is_empty() || tokio::time::timeout_at(deadline, news.changed()).await.is_err() {
                return Ok(found);
            }
            // News of any machine wakes every reader: a flood must not turn readers into load.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The address that a client has from now on, if this says so.
fn taken(seen: &Seen) -> Option<std::net::IpAddr> {
    match seen {
        Seen::DhcpConfirmed { address, .. } | Seen::DhcpForeign { address, .. } => address.map(Into::into),
        _ => None,
    }
}
