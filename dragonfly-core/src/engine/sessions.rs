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

/// When each machine's agent was last heard.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    heard: Mutex<HashMap<String, (Uuid, Timestamp)>>,
}

impl Sessions {
    /// Notes a word from this session.
    pub(crate) fn heard(&self, machine: &str, session: Uuid, now: Timestamp) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(machine.to_owned(), (session, now));
    }

    /// The session heard within [`SILENCE`], if any.
    pub(crate) fn live(&self, machine: &str, now: Timestamp) -> Option<Uuid> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(machine).filter(|(_, at)| now.since(*at) < SILENCE).map(|(id, _)| *id)
    }

    /// When this machine's agent was last heard, in this run of the server.
    pub(crate) fn last(&self, machine: &str) -> Option<Timestamp> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(machine).map(|(_, at)| *at)
    }

    /// The agent has left.
    pub(crate) fn forget(&self, machine: &str) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(machine);
    }
}
