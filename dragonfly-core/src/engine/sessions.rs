//! Which agent speaks for which machine right now. Kept in memory: after a restart of the server
//! an agent's next call brings its session back, because the proof it carries is signed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Mac;
use crate::clock::Timestamp;

/// How often an agent is to be heard.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// After this long without a word an agent counts as silent and another may speak.
pub const SILENCE: Duration = Duration::from_secs(30);
/// Where several instances share a store: how long an agent has to show to any of them that it lives. It speaks every
/// [`HEARTBEAT`], or waits for work for 25 s at a time, and each instance learns of the question a moment later.
pub const ELSEWHERE: Duration = Duration::from_secs(45);
/// How long a boot token opens a session.
pub const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// How long a session lasts at most.
pub const SESSION_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a boot token claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenClaims {
    pub(crate) mac: Mac,
    pub(crate) from: Option<std::net::IpAddr>,
    pub(crate) server: url::Url,
    pub(crate) made_at: Timestamp,
    /// Where it stands among the machine's tokens, if that is not by the time at which it was made: the clock was set
    /// back since the last one was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<Timestamp>,
}

impl TokenClaims {
    /// Where it stands among its machine's tokens: none that does not stand after the last one used opens a session.
    pub(crate) fn order(&self) -> Timestamp {
        self.order.unwrap_or(self.made_at)
    }
}

/// What a session key claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionClaims {
    pub(crate) machine: String,
    pub(crate) machine_uid: Uuid,
    pub(crate) id: Uuid,
    pub(crate) server: url::Url,
    pub(crate) opened_at: Timestamp,
}

/// Something of each machine, and when it was seen.
type Seen<T> = Mutex<HashMap<String, (T, Timestamp)>>;

/// When each machine's agent was last heard.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    heard: Seen<Uuid>,
    /// Since when each machine's `lastSeen` has been what it is, by our own clock: others write it by theirs.
    stored: Seen<Option<Timestamp>>,
    /// Since when each doubt has stood, by our own clock: the doubted session and the doubt.
    doubts: Seen<(Uuid, Uuid)>,
}

/// When this value was first seen here.
fn since<T: PartialEq>(seen: &Seen<T>, machine: &str, is: T, now: Timestamp) -> Timestamp {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match seen.get(machine) {
        Some((was, at)) if *was == is => *at,
        _ => {
            seen.insert(machine.to_owned(), (is, now));
            now
        }
    }
}

impl Sessions {
    /// Notes a word from this session.
    pub(crate) fn heard(&self, machine: &str, session: Uuid, now: Timestamp) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(machine.to_owned(), (session, now));
    }

    /// The session heard within [`SILENCE`], if any.
    pub(crate) fn live(&self, machine: &str, now: Timestamp) -> Option<Uuid> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, at) = heard.get_mut(machine)?;
        // The clock was set back: the silence is counted from here on.
        *at = now.min(*at);
        (now.since(*at) < SILENCE).then_some(*id)
    }

    /// When this machine's agent was last heard, in this run of the server.
    pub(crate) fn last(&self, machine: &str) -> Option<Timestamp> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(machine).map(|(_, at)| *at)
    }

    /// Since when the stored time of its last word has been this one, as far as is known here.
    pub(crate) fn stored_since(&self, machine: &str, last_seen: Option<Timestamp>, now: Timestamp) -> Timestamp {
        since(&self.stored, machine, last_seen, now)
    }

    /// Since when this doubt about that session has stood, as far as is known here.
    pub(crate) fn doubted_since(&self, machine: &str, session: Uuid, doubt: Uuid, now: Timestamp) -> Timestamp {
        since(&self.doubts, machine, (session, doubt), now)
    }

    /// The agent has left.
    pub(crate) fn forget(&self, machine: &str) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
    }
}
