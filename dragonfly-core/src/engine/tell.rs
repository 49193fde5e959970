//! What the engine tells of: in the log, on the machine's timeline and to whoever listens.

use super::Engine;
use crate::event::NewEvent;
use crate::resource::HardwareSpec;
use crate::text;
use crate::timeline::{What, Whose};

impl Engine {
    pub(super) fn tell(&self, kind: &'static str, machine: &str, workflow: Option<&str>, message: impl Into<String>) {
        self.tell_with(kind, machine, workflow, message, serde_json::Value::Null);
    }

    pub(super) fn tell_with(
        &self,
        kind: &'static str,
        machine: &str,
        workflow: Option<&str>,
        message: impl Into<String>,
        data: serde_json::Value,
    ) {
        let message = text::harmless_lines(&message.into()).into_owned();
        tracing::info!(kind, machine, workflow, "{message}");
        self.publish(kind, machine, workflow, message, data);
    }

    /// Tells it without a line in the log, which stands there for many at once.
    pub(super) fn publish(
        &self,
        kind: &'static str,
        machine: &str,
        workflow: Option<&str>,
        message: String,
        data: serde_json::Value,
    ) {
        // A name that is no machine's would cost memory for ever.
        if self.inner.cache.get::<HardwareSpec>(machine).is_some() {
            let what = What::Told { kind: kind.into(), message: message.clone() };
            self.inner.recorder.record(Whose::Machine(machine), None, self.now(), what);
        }
        let event = NewEvent {
            kind,
            machine: (!machine.is_empty()).then(|| machine.to_owned()),
            workflow: workflow.map(str::to_owned),
            message,
            data,
        };
        self.inner.events.publish(self.now(), event);
    }
}
