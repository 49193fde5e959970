//! A name that nobody has: what was perhaps meant.

use super::{Engine, EngineError};
use crate::cache::Cached;
use crate::near::did_you_mean;
use crate::resource::{HardwareSpec, Kind, NetworkSpec, SecretSpec, TemplateSpec, WorkflowSpec};

impl Engine {
    /// That there is no such object, with the names that are near, or else with the command that lists them.
    pub(super) fn not_found(&self, kind: Kind, word: &str) -> EngineError {
        let (what, plural) = match kind {
            Kind::HARDWARE => (format!("machine `{word}`"), "machines"),
            kind => (format!("{kind} `{word}`"), kind.plural),
        };
        let names = self.names(kind);
        let near = did_you_mean(word, names.iter().map(String::as_str));
        let hint = near.unwrap_or_else(|| match names.len() {
            0 => format!("there are no {plural} yet"),
            _ => format!("dragonfly get {plural} lists what there is"),
        });
        EngineError::NotFound { what, hint }
    }

    /// Every name of a kind, as people write it.
    fn names(&self, kind: Kind) -> Vec<String> {
        fn all<S: Cached>(engine: &Engine) -> Vec<String> {
            engine.inner.cache.all::<S>().iter().map(|object| object.name().to_owned()).collect()
        }
        match kind {
            Kind::HARDWARE => {
                let machines = self.inner.cache.all::<HardwareSpec>();
                let shown = |spec: &HardwareSpec, name: &str| {
                    if spec.display_name.is_empty() { name.to_owned() } else { spec.display_name.clone() }
                };
                machines.iter().map(|m| shown(&m.spec, m.name())).collect()
            }
            Kind::TEMPLATE => all::<TemplateSpec>(self),
            Kind::WORKFLOW => all::<WorkflowSpec>(self),
            Kind::NETWORK => all::<NetworkSpec>(self),
            Kind::SECRET => all::<SecretSpec>(self),
            _ => Vec::new(),
        }
    }
}
