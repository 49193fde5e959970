//! Which Hardware an agent's id belongs to: a Workflow may name its machine by that alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::text;

/// Learnt from every Hardware that is read.
#[derive(Debug, Default)]
pub(in crate::store::kubernetes) struct Agents(Mutex<HashMap<String, String>>);

impl Agents {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the ids of a Hardware.
    pub(super) fn learn(&self, spec: &Value, name: &str) {
        let mut known = self.lock();
        for id in ids(spec) {
            if known.get(&id).is_none_or(|other| other != name) {
                known.insert(id, name.to_owned());
            }
        }
    }

    /// Forgets a Hardware that is gone.
    pub(in crate::store::kubernetes) fn forget(&self, name: &str) {
        self.lock().retain(|_, owner| owner != name);
    }

    /// The Hardware of this id.
    pub(super) fn find(&self, id: &str) -> Option<String> {
        self.lock().get(&id.to_ascii_lowercase()).cloned()
    }
}

/// What its agent may be called: its id, and the addresses of its cards.
fn ids(spec: &Value) -> Vec<String> {
    let interfaces = spec.get("interfaces").and_then(Value::as_array);
    let cards = interfaces.into_iter().flatten().filter_map(|interface| text(interface, "/dhcp/mac"));
    cards.chain(text(spec, "/agentID")).map(str::to_ascii_lowercase).collect()
}

/// What a Workflow's worker is to be called for this Hardware to be it.
pub(super) fn agent_of(spec: &Value) -> Option<String> {
    text(spec, "/agentID").map(str::to_owned).or_else(|| ids(spec).into_iter().next())
}
